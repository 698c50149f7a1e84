//! Reading and writing state files: whole or not at all, private, and never through a symbolic link.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};

/// How temporary files begin; what a kill left behind is swept by this name.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";
/// More than most state files have, in bytes.
const USUAL: usize = 8 * 1024;
/// The largest state file that is read, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

thread_local! {
    /// Where a file is read to first: clearing a fresh buffer for each would take longer than reading it.
    static SCRATCH: RefCell<[u8; USUAL]> = const { RefCell::new([0; USUAL]) };
}

/// Whether a write must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The file and its directory are synced.
    Synced,
    /// The rename alone: never half a file, perhaps an old one after a power failure.
    Renamed,
}

/// Reads a state file. A symbolic link, a directory or a pipe in its place is refused.
///
/// # Errors
/// As the system says; `InvalidData` for a symbolic link.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_with(path, <[u8]>::to_vec)
}

/// As [`read`], for who needs the content only for a moment.
///
/// # Errors
/// As those of [`read`].
pub(super) fn read_with<R>(path: &Path, consume: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
    let mut file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(no_link)?;
    // Listing a thousand services is a matter of system calls: no question about the size is asked, and a
    // plain file that fills less than the buffer has no more to give.
    SCRATCH.with_borrow_mut(|scratch| {
        let read = file.read(scratch)?;
        if read < USUAL {
            return Ok(consume(&scratch[..read]));
        }
        let mut bytes = scratch.to_vec();
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(consume(&bytes))
    })
}

/// Says what `ELOOP` means here.
pub(super) fn no_link(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ELOOP) {
        io::Error::new(io::ErrorKind::InvalidData, "a symbolic link stands in its place")
    } else {
        error
    }
}

/// Replaces a state file: a private temporary file in the same directory, then a rename. Whatever fails,
/// the old file is intact. `tag` becomes part of the temporary name.
///
/// # Errors
/// [`Error::Io`], naming the file and the reason.
pub(super) fn write(path: &Path, tag: &str, bytes: &[u8], durability: Durability) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let replace = || -> io::Result<()> {
        let mut temporary =
            tempfile::Builder::new().prefix(&format!("{TEMPORARY_PREFIX}{tag}-")).tempfile_in(directory)?;
        // The umask may have taken our own bits away.
        temporary.as_file().set_permissions(Permissions::from_mode(0o600))?;
        temporary.write_all(bytes)?;
        if durability == Durability::Synced {
            temporary.as_file().sync_all()?;
        }
        temporary.persist(path).map_err(|error| error.error)?;
        if durability == Durability::Synced {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    replace().map_err(Error::io("write", path))
}

/// Deletes temporary files that a kill left behind. The caller holds the lock under which they are made.
pub(super) fn sweep(directory: &Path, tag: &str) {
    let prefix = format!("{TEMPORARY_PREFIX}{tag}");
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            // A stray file that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Deletes a file that may already be gone.
///
/// # Errors
/// [`Error::Io`], naming the file and the reason.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a directory that only its owner can use, whatever the umask, or makes an existing one so.
///
/// # Errors
/// [`Error::ForeignDirectory`] if it belongs to somebody else, [`Error::Io`] if it cannot be made.
pub(super) fn create_private_directory(path: &Path) -> Result<()> {
    if let Err(error) = DirBuilder::new().mode(0o700).create(path) {
        match error.kind() {
            io::ErrorKind::AlreadyExists => {}
            io::ErrorKind::NotFound if path.parent().is_some_and(|parent| !parent.exists()) => {
                let parent = path.parent().unwrap_or(path);
                fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
                DirBuilder::new().mode(0o700).create(path).or_else(exists_now).map_err(Error::io("create", path))?;
            }
            _ => return Err(Error::io("create", path)(error)),
        }
    }
    check_owner(path)?;
    let metadata = fs::metadata(path).map_err(Error::io("look at", path))?;
    if metadata.mode() & 0o777 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(Error::io("make private", path))?;
    }
    Ok(())
}

/// Refuses a directory of another user; one that does not exist is fine.
///
/// # Errors
/// [`Error::ForeignDirectory`], or [`Error::Io`] if it cannot be looked at.
pub(super) fn check_owner(path: &Path) -> Result<()> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at", path)(error)),
    };
    let me = nix::unistd::geteuid().as_raw();
    if metadata.uid() != me {
        return Err(Error::ForeignDirectory { path: path.to_owned(), owner: metadata.uid(), me });
    }
    Ok(())
}

/// Somebody else may have made the directory meanwhile.
fn exists_now(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}
