//! Looking at a file lock without taking it.
//!
//! A probe that takes the lock, even for a moment and shared, keeps others from taking it: for ever, if the prober is
//! suspended in between. On Linux `flock(2)` locks cannot be looked at, so that the holder also takes an open file
//! description lock, which can. On macOS both kinds are one list, and `F_GETLK` sees the `flock` itself (XNU
//! `kern_lockf.c`).

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// A lock of some kind on a whole file.
fn whole_file(kind: i32) -> io::Result<libc::flock> {
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(io::Error::other)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    })
}

/// Makes the exclusive `flock` that the caller holds on a file visible to [`is_announced`]. It goes with the open
/// file, as the `flock` does.
///
/// # Errors
/// If the file system refuses. On NFS `flock` is such a lock itself, and visible already: that is no error.
pub(crate) fn announce(file: &File) -> io::Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)?)) {
        Ok(_) | Err(Errno::EAGAIN | Errno::EACCES) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Whether some other open file holds an announced lock on this file. Takes no lock.
///
/// # Errors
/// If the file system cannot say.
pub(crate) fn is_announced(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_RDLCK)?;
    #[cfg(target_os = "linux")]
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    #[cfg(not(target_os = "linux"))]
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
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
