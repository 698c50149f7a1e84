//! Reading files that devport did not write, up to a limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a whole regular file. Follows symbolic links. `O_NONBLOCK` keeps a FIFO without a writer from blocking the
/// open.
///
/// # Errors
/// `InvalidInput` if `path` is not a regular file, `FileTooLarge` if it has more than `limit` bytes, else the error of
/// the system call.
pub(crate) fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    read_to_limit(file, limit)
}

/// Reads a whole file of any kind: `-f <(generate)` names a pipe.
///
/// # Errors
/// `FileTooLarge` if it has more than `limit` bytes, else the error of the system call.
pub(crate) fn read_any(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_to_limit(File::open(path)?, limit)
}

/// Reads an open file to its end; `FileTooLarge` if it has more than `limit` bytes.
fn read_to_limit(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The size in the metadata is not a limit: the file may grow, and files in /proc have size 0.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_a_regular_file_up_to_the_limit_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345678").unwrap();
        assert_eq!(read_regular(&path, 8).unwrap(), b"12345678");
        assert_eq!(read_regular(&path, 7).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for other in [fifo.as_path(), directory.path(), Path::new("/dev/zero")] {
            assert_eq!(read_regular(other, 8).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", other.display());
        }
        assert_eq!(read_regular(&directory.path().join("missing"), 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
