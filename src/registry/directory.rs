//! The directories of the state directory: private to one user, and not reached through a link that another user controls.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::registry::refusal::{base_of, my_uid, write_error, write_error_below};

/// How many symbolic links a path may lead through: the limit of Linux (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Creates a directory, and its parents, that only the owner can use, whatever the umask. Makes an existing one private
/// if it is empty or belongs to devport.
///
/// # Errors
/// [`Error::ForeignDirectory`] if it belongs to another user, [`Error::Io`] if it cannot be created or `path` leads
/// through a symbolic link that another user controls.
pub(super) fn create_private(path: &Path) -> Result<()> {
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
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

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
    fn a_directory_with_other_files_keeps_its_permissions() {
        let (_temporary, outer) = directory(0o755);
        let path = outer.join("state");
        for (content, becomes) in [(None, Some(0o700)), (Some("services"), Some(0o700)), (Some("photos"), None)] {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            if let Some(name) = content {
                fs::create_dir(path.join(name)).unwrap();
            }
            let result = create_private(&path);
            assert_eq!(result.is_ok(), becomes.is_some(), "{content:?}: {result:?}");
            assert_eq!(mode(&path), becomes.unwrap_or(0o755), "{content:?}");
            fs::remove_dir_all(&path).unwrap();
        }
        fs::write(&path, "").unwrap();
        assert!(create_private(&path).unwrap_err().to_string().contains("not a directory"));
    }

    #[test]
    fn a_link_of_ones_own_works() {
        let (_temporary, home) = directory(0o755);
        fs::create_dir(home.join("disk")).unwrap();
        symlink("disk", home.join("share")).unwrap();
        let state = home.join("share/a/devport");
        create_private(&state).unwrap();
        assert_eq!((mode(&home.join("disk/a")), mode(&home.join("disk/a/devport"))), (0o700, 0o700));
        assert_eq!(mode(&home), 0o755);
        symlink(home.join("share/a/devport"), home.join("link")).unwrap();
        create_private(&home.join("link")).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o1777)).unwrap();
        create_private(&home.join("link")).unwrap();
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
            let error = create_private(&path).unwrap_err().to_string();
            assert!(error.contains("another user can replace the symbolic link"), "{}: {error}", path.display());
        }
        assert_eq!((mode(&victim), fs::read_dir(&victim).unwrap().count()), (0o755, 0));
        // A directory in place of the link works.
        create_private(&outer.join("plain")).unwrap();
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
        create_private(&link).unwrap();
        lchown(&link, Some(12345), None).unwrap();
        let error = create_private(&link).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
        lchown(&link, Some(0), None).unwrap();
        for (owner, group, bits, is_fine) in
            [(12345, 0, 0o755, false), (0, 12345, 0o775, false), (0, 12345, 0o1775, true), (0, 0, 0o775, true)]
        {
            chown(&outer, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&outer, Permissions::from_mode(bits)).unwrap();
            assert_eq!(create_private(&link).is_ok(), is_fine, "{owner}:{group} {bits:o}");
        }
    }

    #[test]
    fn links_that_lead_in_a_circle_are_refused() {
        let (_temporary, path) = directory(0o700);
        symlink("b", path.join("a")).unwrap();
        symlink("a", path.join("b")).unwrap();
        assert!(create_private(&path.join("a")).unwrap_err().to_string().contains("too many"));
    }
}
