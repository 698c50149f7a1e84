//! Reads and writes state files: private, whole or not at all, and never through a symbolic link.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::registry::refusal::{base_of, my_uid, write_error, write_error_below};

/// How the names of temporary files begin. Files left by a killed process are swept by this prefix.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";
/// The size of the read buffer in bytes: more than most state files have.
const USUAL: usize = 8 * 1024;
/// The largest state file in bytes. A record has an environment of up to 2 MiB, and JSON may need 6 bytes for a control
/// character.
const LARGEST: usize = 16 * 1024 * 1024;
/// The age at which no write can still use a temporary file.
const STALE: Duration = Duration::from_secs(60 * 60);
/// How many symbolic links a path may lead through: the limit of Linux (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

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
/// [`Error::Io`] with the file.
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
    /// [`Error::Io`] with the file.
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
    /// [`Error::Io`]: the old file is intact. If only the directory cannot be synced, that is not an error: readers
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
/// [`Error::Io`] with the file.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Creates a directory, and its parents, that only the owner can use, whatever the umask. Makes an existing one private
/// if it is empty or belongs to devport.
///
/// # Errors
/// [`Error::ForeignDirectory`] if it belongs to another user, [`Error::Io`] if it cannot be created or `path` leads
/// through a symbolic link that another user controls.
pub(super) fn create_private_directory(path: &Path) -> Result<()> {
    check_links(path)?;
    create_missing(path)
        .map_err(|(failed, source)| write_error_below(base_of(path).to_owned(), "create", failed.to_owned(), source))?;
    let metadata = fs::metadata(path).map_err(Error::io("check", path))?;
    if !metadata.is_dir() {
        return Err(Error::io("create", path)(io::ErrorKind::NotADirectory.into()));
    }
    check_owner(path)?;
    if metadata.mode() & 0o777 != 0o700 {
        make_private(path, &metadata).map_err(write_error("make private", path))?;
    }
    Ok(())
}

/// Refuses a directory of another user. A missing one is allowed.
///
/// # Errors
/// [`Error::ForeignDirectory`], or [`Error::Io`] if its owner cannot be read.
pub(super) fn check_owner(path: &Path) -> Result<()> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("check", path)(error)),
    };
    let me = my_uid();
    if metadata.uid() != me {
        return Err(Error::ForeignDirectory { path: path.to_owned(), owner: metadata.uid(), me });
    }
    Ok(())
}

/// Creates a directory and its parents unless they exist. An error names the one that could not be created.
fn create_missing(path: &Path) -> std::result::Result<(), (&Path, io::Error)> {
    match (create(path), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            create_missing(parent)?;
            create(path)
        }
        (result, _) => result,
    }
    .map_err(|error| (path, error))
}

/// Creates one directory unless it exists.
fn create(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        // The umask may have removed the owner's bits.
        Ok(()) if fs::symlink_metadata(path)?.mode() & 0o777 != 0o700 => {
            fs::set_permissions(path, Permissions::from_mode(0o700))
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes an existing directory of this user private. Refuses one with other files in it, because `DEVPORT_HOME=/srv`
/// must not change who can use `/srv`; below a private directory the change affects no one.
fn make_private(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let is_devports = fs::symlink_metadata(path.join("services")).is_ok_and(|services| services.is_dir());
    let is_inside_private = || {
        let parent = path.parent().and_then(|parent| fs::metadata(parent).ok());
        parent.is_some_and(|parent| parent.uid() == my_uid() && parent.mode() & 0o777 == 0o700)
    };
    if !is_devports && !is_inside_private() && fs::read_dir(path)?.next().is_some() {
        let why = "other files are in it; use an empty directory, or one that does not exist";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // By descriptor: the path may lead to another directory by now.
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
    let opened = directory.metadata()?;
    if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(io::Error::other("it was replaced meanwhile"));
    }
    directory.set_permissions(Permissions::from_mode(0o700))
}

/// Refuses a path that leads through a symbolic link that another user made or can replace. That user would choose the
/// directory that devport uses, and with it the records, which hold commands. `path` is the path as the user gave it; a
/// canonical path has no links.
///
/// # Errors
/// [`Error::Io`] with the link, or if a part of the path cannot be read.
pub(super) fn check_links(path: &Path) -> Result<()> {
    let refused = |why: String| Error::io("use", path)(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let parts =
        |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<OsString>>();
    let mut pending = parts(path);
    // The part that is resolved, and the directories that were searched for a name.
    let (mut resolved, mut passed) = (PathBuf::new(), Vec::new());
    let mut links = 0;
    while let Some(part) = pending.pop() {
        match part.to_str() {
            Some("/") => resolved = PathBuf::from("/"),
            Some(".") => {}
            Some("..") => drop(resolved.pop()),
            _ => {
                passed.push(resolved.clone());
                let entry = resolved.join(&part);
                let metadata = match fs::symlink_metadata(&entry) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    result => result.map_err(Error::io("check", &entry))?,
                };
                if !metadata.is_symlink() {
                    resolved = entry;
                    continue;
                }
                links += 1;
                if links > MOST_LINKS {
                    return Err(refused("it leads through too many symbolic links".into()));
                }
                if ![0, my_uid()].contains(&metadata.uid()) {
                    let owner = metadata.uid();
                    return Err(refused(format!("the symbolic link {} belongs to user {owner}", entry.display())));
                }
                for directory in passed.drain(..) {
                    let metadata = fs::metadata(&directory).map_err(Error::io("check", &directory))?;
                    if is_writable_by_others(&metadata) {
                        let (link, directory) = (entry.display(), directory.display());
                        return Err(refused(format!(
                            "another user can replace the symbolic link {link} in {directory}"
                        )));
                    }
                }
                pending.extend(parts(&fs::read_link(&entry).map_err(Error::io("read", &entry))?));
            }
        }
    }
    Ok(())
}

/// Returns whether a user other than root and the owner can replace the entries of a directory.
fn is_writable_by_others(directory: &Metadata) -> bool {
    let (me, mode) = (my_uid(), directory.mode());
    // Some distributions give each user a group with the user's number and set the umask to 002: that group has no
    // other user.
    let by_group = mode & 0o020 != 0 && directory.gid() != me;
    let is_sticky = mode & 0o1000 != 0;
    ![0, me].contains(&directory.uid()) || (!is_sticky && (by_group || mode & 0o002 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, lchown, symlink};

    /// Returns a canonical temporary directory, and a directory in it with these permissions.
    fn directory(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().canonicalize().unwrap().join("inner");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (temporary, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let (_temporary, path) = directory(0o700);
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
        let (_temporary, path) = directory(0o700);
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
        let (_temporary, path) = directory(0o700);
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

    #[test]
    fn a_directory_with_other_files_keeps_its_permissions() {
        let (_temporary, outer) = directory(0o755);
        let path = outer.join("state");
        for (content, becomes) in [(None, Some(0o700)), (Some("services"), Some(0o700)), (Some("photos"), None)] {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            if let Some(name) = content {
                fs::create_dir(path.join(name)).unwrap();
            }
            let result = create_private_directory(&path);
            assert_eq!(result.is_ok(), becomes.is_some(), "{content:?}: {result:?}");
            assert_eq!(mode(&path), becomes.unwrap_or(0o755), "{content:?}");
            fs::remove_dir_all(&path).unwrap();
        }
        fs::write(&path, "").unwrap();
        assert!(create_private_directory(&path).unwrap_err().to_string().contains("not a directory"));
    }

    #[test]
    fn a_link_of_ones_own_works() {
        let (_temporary, home) = directory(0o755);
        fs::create_dir(home.join("disk")).unwrap();
        symlink("disk", home.join("share")).unwrap();
        let state = home.join("share/a/devport");
        create_private_directory(&state).unwrap();
        assert_eq!((mode(&home.join("disk/a")), mode(&home.join("disk/a/devport"))), (0o700, 0o700));
        assert_eq!(mode(&home), 0o755);
        symlink(home.join("share/a/devport"), home.join("link")).unwrap();
        create_private_directory(&home.join("link")).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o1777)).unwrap();
        create_private_directory(&home.join("link")).unwrap();
    }

    #[test]
    fn a_link_that_another_user_can_replace_is_refused() {
        let (_temporary, outer) = directory(0o777);
        let victim = outer.join("victim");
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o755)).unwrap();
        symlink(&victim, outer.join("link")).unwrap();
        // The second link is allowed, and leads through the first.
        let (_other, private) = directory(0o700);
        symlink(outer.join("link/below"), private.join("link")).unwrap();
        for path in [outer.join("link"), outer.join("link/below"), private.join("link"), outer.join("x/../link")] {
            let _ = fs::create_dir(outer.join("x"));
            let error = create_private_directory(&path).unwrap_err().to_string();
            assert!(error.contains("another user can replace the symbolic link"), "{}: {error}", path.display());
        }
        assert_eq!((mode(&victim), fs::read_dir(&victim).unwrap().count()), (0o755, 0));
        // A directory in place of the link works.
        create_private_directory(&outer.join("plain")).unwrap();
    }

    #[test]
    fn a_link_of_another_user_or_below_their_directory_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (_temporary, outer) = directory(0o1777);
        fs::create_dir(outer.join("victim")).unwrap();
        let link = outer.join("link");
        symlink(outer.join("victim"), &link).unwrap();
        create_private_directory(&link).unwrap();
        lchown(&link, Some(12345), None).unwrap();
        let error = create_private_directory(&link).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
        lchown(&link, Some(0), None).unwrap();
        for (owner, group, bits, is_fine) in
            [(12345, 0, 0o755, false), (0, 12345, 0o775, false), (0, 12345, 0o1775, true), (0, 0, 0o775, true)]
        {
            chown(&outer, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&outer, Permissions::from_mode(bits)).unwrap();
            assert_eq!(create_private_directory(&link).is_ok(), is_fine, "{owner}:{group} {bits:o}");
        }
    }

    #[test]
    fn links_that_lead_in_a_circle_are_refused() {
        let (_temporary, path) = directory(0o700);
        symlink("b", path.join("a")).unwrap();
        symlink("a", path.join("b")).unwrap();
        assert!(create_private_directory(&path.join("a")).unwrap_err().to_string().contains("too many"));
    }
}
