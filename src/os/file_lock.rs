//! Looking at a file lock without taking it.
//!
//! A probe that takes the lock, even for a moment and shared, keeps others from taking it: for ever, if the prober is
//! suspended in between. On Linux `flock(2)` locks cannot be looked at, so that the holder also takes an open file
//! description lock, which can. On macOS both kinds are one list, and `F_GETLK` sees the `flock` itself (XNU
//! `kern_lockf.c`).

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// The constants of `fcntl(2)` as they fit into `libc::flock`: the systems' headers give them different types.
#[cfg(target_os = "linux")]
mod kind {
    use std::io;

    /// A lock of a reader.
    pub(super) fn read() -> io::Result<libc::c_short> {
        libc::c_short::try_from(libc::F_RDLCK).map_err(io::Error::other)
    }

    /// A lock of a writer.
    pub(super) fn write() -> io::Result<libc::c_short> {
        libc::c_short::try_from(libc::F_WRLCK).map_err(io::Error::other)
    }

    /// Whether a kind is that of no lock.
    pub(super) fn is_none(kind: libc::c_short) -> bool {
        i32::from(kind) == libc::F_UNLCK
    }
}

/// The constants of `fcntl(2)` as they fit into `libc::flock`.
#[cfg(target_os = "macos")]
mod kind {
    use std::io;

    /// A lock of a reader.
    #[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
    pub(super) fn read() -> io::Result<libc::c_short> {
        Ok(libc::F_RDLCK)
    }

    /// Whether a kind is that of no lock.
    pub(super) fn is_none(kind: libc::c_short) -> bool {
        kind == libc::F_UNLCK
    }
}

/// A lock of some kind on a whole file.
fn whole_file(kind: libc::c_short) -> io::Result<libc::flock> {
    let start = libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    Ok(libc::flock { l_type: kind, l_whence: start, l_start: 0, l_len: 0, l_pid: 0 })
}

/// Makes the exclusive `flock` that the caller holds on a file visible to [`is_announced`]. It goes with the open
/// file, as the `flock` does.
///
/// # Errors
/// If the file system refuses. On NFS `flock` is such a lock itself, and visible already: that is no error.
#[cfg(target_os = "linux")]
pub(crate) fn announce(file: &File) -> io::Result<()> {
    use nix::errno::Errno;
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(kind::write()?)?)) {
        Ok(_) | Err(Errno::EAGAIN | Errno::EACCES) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The `flock` is visible as it is.
#[cfg(target_os = "macos")]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn announce(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Whether some other open file holds an announced lock on this file. Takes no lock.
///
/// # Errors
/// If the file system cannot say.
pub(crate) fn is_announced(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(kind::read()?)?;
    #[cfg(target_os = "linux")]
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    #[cfg(target_os = "macos")]
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok(!kind::is_none(lock.l_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_without_being_taken() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (holder, prober) = (open(), open());
        assert!(!is_announced(&prober).unwrap());
        holder.try_lock().unwrap();
        announce(&holder).unwrap();
        assert!(is_announced(&prober).unwrap());
        assert!(!is_announced(&holder).unwrap(), "its own lock does not count");
        drop(holder);
        assert!(!is_announced(&prober).unwrap());
    }
}
