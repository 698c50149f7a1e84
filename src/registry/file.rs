//! Reads and writes state files: private, whole or not at all, and never through a symbolic link.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::NamedTempFile;

use crate::error::Result;
use crate::registry::refusal::write_error;

/// How the names of temporary files begin. Files left by a killed process are swept by this prefix.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";
/// The size of the read buffer in bytes: more than most state files have.
const USUAL: usize = 8 * 1024;
/// The largest state file in bytes. A record has an environment of up to 2 MiB, and JSON may need 6 bytes for a control
/// character.
const LARGEST: usize = 16 * 1024 * 1024;
/// The age at which a temporary file is that of a killed process: a write takes milliseconds.
const STALE: Duration = Duration::from_secs(60 * 60);
thread_local! {
    /// The read buffer. Zeroing a new one for each file would take longer than reading the file.
    static SCRATCH: RefCell<[u8; USUAL]> = const { RefCell::new([0; USUAL]) };
}

/// Whether a write must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Sync the file and its directory.
    Synced,
    /// Only rename: a power failure may bring the old file back, but never leaves half a file.
    Renamed,
}

/// Reads a state file. Fails if it is a symbolic link or a directory.
///
/// # Errors
/// The error of the system call; `InvalidData` for a symbolic link.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_with(path, <[u8]>::to_vec)
}

/// Reads a state file like [`read`], without copying it. `consume` must not read another one: both would use one
/// buffer.
///
/// # Errors
/// Like [`read`].
pub(super) fn read_with<R>(path: &Path, consume: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(no_link)?;
    read_all(file, consume)
}

/// Reads to the end. Listing a thousand services is dominated by system calls, so the size is not queried. A read that
/// returns less than the buffer holds is not the end on NFS or FUSE; one more read costs less than `fstat(2)`.
fn read_all<R>(mut source: impl Read, consume: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut filled = 0;
        while filled < USUAL {
            match source.read(&mut scratch[filled..]) {
                Ok(0) => return Ok(consume(&scratch[..filled])),
                Ok(count) => {
                    filled += count;
                    // Every state file is one JSON object. One that ends like an object needs no second call to see
                    // its end: that is 4 % of `ls` of 1,000 services.
                    if filled < USUAL && matches!(scratch[filled - 1], b'}' | b'\n') {
                        return Ok(consume(&scratch[..filled]));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut bytes = scratch.to_vec();
        source.take((LARGEST - USUAL + 1) as u64).read_to_end(&mut bytes)?;
        check_size(&bytes)?;
        Ok(consume(&bytes))
    })
}

/// Refuses a state file that is too large to be read again.
fn check_size(bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 16 MiB"));
    }
    Ok(())
}

/// Turns `ELOOP` into a message about the symbolic link.
pub(super) fn no_link(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ELOOP) {
        io::Error::new(io::ErrorKind::InvalidData, "a symbolic link stands in its place")
    } else {
        error
    }
}

/// Replaces a state file by writing a private temporary file in the same directory and renaming it. On any failure the
/// old file stays intact. `tag` becomes part of the temporary name.
///
/// # Errors
/// The error of the system call, with the file.
pub(super) fn write(path: &Path, tag: &str, bytes: &[u8], durability: Durability) -> Result<()> {
    Staged::new(path, tag, bytes, durability)?.commit()
}

/// A complete new state file beside the one that it will replace.
pub(super) struct Staged<'a> {
    path: &'a Path,
    /// Deleted on drop, unless it was renamed.
    temporary: NamedTempFile,
    /// Whether it must survive a power failure.
    durability: Durability,
}

impl<'a> Staged<'a> {
    /// Writes the temporary file. `tag` becomes part of its name.
    ///
    /// # Errors
    /// The error of the system call, with the file.
    pub(super) fn new(path: &'a Path, tag: &str, bytes: &[u8], durability: Durability) -> Result<Self> {
        let stage = || -> io::Result<NamedTempFile> {
            check_size(bytes)?;
            let mut temporary = tempfile::Builder::new()
                .prefix(&format!("{TEMPORARY_PREFIX}{tag}-"))
                .tempfile_in(directory_of(path))?;
            // The umask may have removed the owner's bits.
            temporary.as_file().set_permissions(Permissions::from_mode(0o600))?;
            temporary.write_all(bytes)?;
            if durability == Durability::Synced {
                sync(temporary.as_file())?;
            }
            Ok(temporary)
        };
        Ok(Self { path, temporary: stage().map_err(write_error("write", path))?, durability })
    }

    /// Renames the file into place.
    ///
    /// # Errors
    /// If it cannot be renamed: the old file is intact. If only the directory cannot be synced, that is not an error: readers
    /// already see and act on the new file.
    pub(super) fn commit(self) -> Result<()> {
        self.temporary.persist(self.path).map_err(|error| write_error("write", self.path)(error.error))?;
        if self.durability == Durability::Synced {
            let _ = File::open(directory_of(self.path)).and_then(|directory| sync(&directory));
        }
        Ok(())
    }
}

/// Writes a file to the disk. On macOS this is `F_FULLFSYNC`, which some network file systems lack.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if cfg!(target_os = "macos") && is_unsupported(&error) => Ok(nix::unistd::fsync(file)?),
        synced => synced,
    }
}

/// Returns whether an error means that the file system lacks an operation.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::ENOTTY | libc::EINVAL))
}

/// Returns the directory of a file.
fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Deletes temporary files of killed processes. The caller holds the lock under which they are made.
pub(super) fn sweep(directory: &Path, tag: &str) {
    let prefix = format!("{TEMPORARY_PREFIX}{tag}");
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            // A file that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Deletes temporary files of killed processes that are over an hour older than `now`. No lock is needed: no write
/// takes that long.
pub(super) fn sweep_stale(directory: &Path, tag: &str, now: Timestamp) {
    let prefix = format!("{TEMPORARY_PREFIX}{tag}-");
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_temporary = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
        let modified = || Timestamp::try_from(entry.metadata().ok()?.modified().ok()?).ok();
        if is_temporary && modified().is_some_and(|modified| now.duration_since(modified).unsigned_abs() > STALE) {
            // A file that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Deletes a file if it exists.
///
/// # Errors
/// The error of the system call, with the file.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error("delete", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Returns a canonical temporary directory, and a private directory in it.
    fn directory() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap().join("inner");
        fs::create_dir(&path).unwrap();
        (temporary, path)
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let (_temporary, path) = directory();
        let file = path.join("file");
        for size in [0, 1, USUAL - 1, USUAL, USUAL + 1, 3 * USUAL] {
            fs::write(&file, vec![b'x'; size]).unwrap();
            assert_eq!(read(&file).unwrap().len(), size);
        }
    }

    #[test]
    fn short_and_interrupted_reads_are_continued() {
        /// Returns one byte per read, after an interruption.
        struct Slow(usize, bool);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let count = self.0.min(1);
                buffer[..count].fill(b'x');
                self.0 -= count;
                Ok(count)
            }
        }
        for size in [0, 1, 100, USUAL, USUAL + 1] {
            assert_eq!(read_all(Slow(size, false), <[u8]>::len).unwrap(), size);
        }
    }

    #[test]
    fn a_file_that_is_too_large_to_be_read_is_not_written() {
        let (_temporary, path) = directory();
        let file = path.join("file");
        write(&file, "x", &vec![b'x'; LARGEST], Durability::Renamed).unwrap();
        assert_eq!(read(&file).unwrap().len(), LARGEST);
        let error = write(&file, "x", &vec![b'y'; LARGEST + 1], Durability::Renamed).unwrap_err().to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
        assert_eq!(read(&file).unwrap().first(), Some(&b'x'));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        fs::write(&file, vec![b'y'; LARGEST + 1]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn old_temporary_files_are_swept() {
        let (_temporary, path) = directory();
        for name in [".tmp-suffix-a", ".tmp-other-a", "tailnet-suffix"] {
            fs::write(path.join(name), "").unwrap();
        }
        let written =
            Timestamp::try_from(fs::metadata(path.join(".tmp-suffix-a")).unwrap().modified().unwrap()).unwrap();
        let left = |now| {
            sweep_stale(&path, "suffix", now);
            fs::read_dir(&path).unwrap().count()
        };
        assert_eq!(left(written), 3, "a write may be under way");
        assert_eq!(left(written + Duration::from_secs(3601)), 2);
        assert!(!path.join(".tmp-suffix-a").exists());
    }
}
