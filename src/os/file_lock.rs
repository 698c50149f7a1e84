//! Checks whether a file is locked, without taking the lock.
//!
//! A probe that takes the lock, even shared and for a moment, blocks other processes; if the probe is suspended
//! meanwhile, it blocks them indefinitely. Linux has no call that queries a `flock(2)` lock, so the holder also takes
//! an open file description lock, which `F_OFD_GETLK` reports. macOS keeps both kinds in one list, and `F_GETLK`
//! reports the `flock` itself (XNU `kern_lockf.c`).

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};

/// The constants of `fcntl(2)` in the type that `libc::flock` needs: the headers of the two systems differ.
#[cfg(target_os = "linux")]
mod kind {
    use std::io;

    /// Returns the type of a read lock.
    pub(super) fn read() -> io::Result<libc::c_short> {
        libc::c_short::try_from(libc::F_RDLCK).map_err(io::Error::other)
    }

    /// Returns the type of a write lock.
    pub(super) fn write() -> io::Result<libc::c_short> {
        libc::c_short::try_from(libc::F_WRLCK).map_err(io::Error::other)
    }

    /// Returns whether a type means "not locked".
    pub(super) fn is_none(kind: libc::c_short) -> bool {
        i32::from(kind) == libc::F_UNLCK
    }
}

/// The constants of `fcntl(2)` in the type that `libc::flock` needs.
#[cfg(target_os = "macos")]
mod kind {
    use std::io;

    /// Returns the type of a read lock.
    #[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
    pub(super) fn read() -> io::Result<libc::c_short> {
        Ok(libc::F_RDLCK)
    }

    /// Returns whether a type means "not locked".
    pub(super) fn is_none(kind: libc::c_short) -> bool {
        kind == libc::F_UNLCK
    }
}

/// Describes a lock of this type on the whole file.
fn whole_file(kind: libc::c_short) -> io::Result<libc::flock> {
    let start = libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    Ok(libc::flock { l_type: kind, l_whence: start, l_start: 0, l_len: 0, l_pid: 0 })
}

/// Makes the exclusive `flock` that the caller holds visible to [`is_announced`]. Both locks end when the file is
/// closed.
///
/// # Errors
/// If the file system refuses. On NFS a `flock` is itself such a lock and already visible: that is not an error.
#[cfg(target_os = "linux")]
pub(crate) fn announce(file: &File) -> io::Result<()> {
    use nix::errno::Errno;
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(kind::write()?)?)) {
        Ok(_) | Err(Errno::EAGAIN | Errno::EACCES) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// macOS shows the `flock` as it is.
#[cfg(target_os = "macos")]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn announce(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Returns whether another open file holds an announced lock on this file. Takes no lock.
///
/// # Errors
/// If the file system does not support the query.
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
    use crate::os::clock::comes_true;

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
        assert!(comes_true(|| !is_announced(&prober).unwrap()));
    }
}
