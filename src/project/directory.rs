//! Directories: their identity, and whether the root of a checkout still exists.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Identifies a directory, to tell it from a later one at the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryId {
    /// Its device number: that of its parent directory too, unless it is a mount point. btrfs and overlayfs may assign
    /// another one at each mount.
    device: u64,
    /// Its inode number. ext4 reuses the number of a deleted directory for the next new one.
    inode: u64,
    /// Its birth time; `None` if the file system does not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<Timestamp>,
    /// Whether another file system is mounted there: the directory is away if that is not mounted. Only for records.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_mount_point: bool,
}

impl DirectoryId {
    /// Reads the identity of the directory at `path`; `None` if there is none.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        Ok(directory_metadata(path)?.map(|metadata| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            // File systems that do not record it may report the epoch.
            born: metadata.created().ok().filter(|born| *born != UNIX_EPOCH).and_then(|born| born.try_into().ok()),
            is_mount_point: false,
        }))
    }

    /// Reads the identity of the directory at `path`, as a record needs it; `None` if there is none.
    ///
    /// # Errors
    /// If its metadata cannot be read.
    pub(crate) fn to_record(path: &Path) -> io::Result<Option<Self>> {
        let Some(id) = Self::of(path)? else { return Ok(None) };
        let parent = path.parent().map(directory_metadata).transpose()?.flatten();
        Ok(Some(Self { is_mount_point: parent.is_some_and(|parent| parent.dev() != id.device), ..id }))
    }

    /// Returns whether both name one directory. The device number counts only where a birth time is missing.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same_origin = match (self.born, other.born) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.device == other.device,
        };
        same_origin && self.inode == other.inode
    }
}

/// Reads the metadata of the directory at `path`; `None` if there is no directory.
pub(super) fn directory_metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir().then_some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether there is anything in a directory, as far as it can be read.
fn has_entries(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()))
}

/// Whether the root of a checkout still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// There is no directory at its path.
    Missing,
    /// Another directory is at its path.
    Replaced,
    /// It is not at its path, but may come back: it may be on a volume that is not mounted, or the worktree is locked,
    /// which `git worktree lock` is for.
    Away,
}

impl Presence {
    /// Looks for a root. `id` is its identity; `None` if only its path is known. `git_dir` is the git directory of a
    /// linked worktree.
    ///
    /// # Errors
    /// If a directory cannot be read: it may exist.
    pub(crate) fn of(root: &Path, id: Option<&DirectoryId>, git_dir: Option<&Path>) -> io::Result<Self> {
        let presence = match (DirectoryId::of(root)?, id) {
            (Some(now), Some(before)) if !now.is_same(before) => Self::Replaced,
            (Some(_), _) => return Ok(Self::Here),
            (None, _) => Self::Missing,
        };
        // Without its volume, the parent directory is missing, or is the mount point: empty, and on another device.
        // What is unmounted may also take its mount point along.
        let is_unmounted = |parent: &Metadata| match id {
            Some(id) if id.is_mount_point => true,
            Some(id) if id.device == parent.dev() => false,
            _ => !root.parent().is_some_and(has_entries),
        };
        let parent = root.parent().map(directory_metadata).transpose()?.flatten();
        let has_volume = parent.is_some_and(|parent| presence == Self::Replaced || !is_unmounted(&parent));
        // `gitrepository-layout(5)`, `worktrees/<id>/locked`.
        let is_locked = git_dir.is_some_and(|git_dir| git_dir.join("locked").exists());
        Ok(if is_locked || !has_volume { Self::Away } else { presence })
    }

    /// Returns whether the checkout no longer exists.
    pub(crate) fn is_gone(self) -> bool {
        matches!(self, Self::Missing | Self::Replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::checkout::tests::Scratch;

    #[test]
    fn a_directory_is_distinguished_from_a_later_one_at_its_path() {
        let scratch = Scratch::new();
        let path = scratch.dir("a");
        let id = DirectoryId::of(&path).unwrap().unwrap();
        assert!(id.is_same(&DirectoryId::of(&path).unwrap().unwrap()));
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<DirectoryId>(&text).unwrap(), id, "{text}");
        fs::rename(&path, scratch.path("b")).unwrap();
        assert_eq!(DirectoryId::of(&path).unwrap(), None);
        assert!(id.is_same(&DirectoryId::of(&scratch.path("b")).unwrap().unwrap()), "a move keeps the identity");
        assert!(!id.is_same(&DirectoryId::of(&scratch.dir("a")).unwrap().unwrap()));
        fs::write(scratch.path("file"), "").unwrap();
        assert_eq!(DirectoryId::of(&scratch.path("file")).unwrap(), None);
        assert_eq!(DirectoryId::of(&scratch.path("file/below")).unwrap(), None);
    }

    #[test]
    fn a_birth_time_replaces_the_device_and_tells_a_reused_inode() {
        let id = |device, inode, born: Option<&str>| DirectoryId {
            device,
            inode,
            born: born.map(|born| born.parse().unwrap()),
            is_mount_point: false,
        };
        let (monday, tuesday) = (Some("2026-01-05T00:00:00.000000001Z"), Some("2026-01-06T00:00:00Z"));
        assert!(id(1, 7, monday).is_same(&id(2, 7, monday)), "the device number changed at a reboot");
        assert!(!id(1, 7, monday).is_same(&id(1, 7, tuesday)), "ext4 reused the inode number");
        assert!(!id(1, 7, monday).is_same(&id(1, 8, monday)));
        assert!(id(1, 7, None).is_same(&id(1, 7, monday)));
        assert!(!id(1, 7, None).is_same(&id(2, 7, monday)));
    }

    #[test]
    fn a_root_is_gone_if_it_is_missing_or_replaced_unless_it_may_come_back() {
        let scratch = Scratch::new();
        let (root, git_dir) = (scratch.dir("volume/shop"), scratch.dir("git"));
        let id = DirectoryId::of(&root).unwrap();
        let presence = || Presence::of(&root, id.as_ref(), Some(&git_dir)).unwrap();
        assert_eq!(presence(), Presence::Here);
        fs::rename(&root, scratch.path("kept")).unwrap();
        assert_eq!(presence(), Presence::Missing);
        fs::write(&root, "").unwrap();
        assert_eq!(presence(), Presence::Missing, "a file is no directory");
        fs::remove_file(&root).unwrap();
        scratch.dir("volume/shop");
        assert_eq!(presence(), Presence::Replaced);
        assert_eq!(Presence::of(&root, None, None).unwrap(), Presence::Here, "only the path is known");
        fs::write(git_dir.join("locked"), "").unwrap();
        assert_eq!(presence(), Presence::Away);
        fs::remove_file(git_dir.join("locked")).unwrap();
        fs::remove_dir(&root).unwrap();
        let mut other = id.clone().unwrap();
        other.device += 1;
        let elsewhere = || Presence::of(&root, Some(&other), None).unwrap();
        assert_eq!((presence(), elsewhere()), (Presence::Missing, Presence::Away), "the parent may be a mount point");
        let file = scratch.path("volume/file");
        fs::write(&file, "").unwrap();
        assert_eq!((presence(), elsewhere()), (Presence::Missing, Presence::Missing), "a mount point is empty");
        let volume = DirectoryId { is_mount_point: true, ..other.clone() };
        assert_eq!(Presence::of(&root, Some(&volume), None).unwrap(), Presence::Away, "a mount point may vanish too");
        fs::remove_file(file).unwrap();
        let mount_point = |path: &str| DirectoryId::to_record(Path::new(path)).unwrap().unwrap().is_mount_point;
        assert!(mount_point("/dev") && !mount_point(scratch.path("volume").to_str().unwrap()));
        fs::rename(scratch.path("volume"), scratch.path("unmounted")).unwrap();
        assert_eq!(presence(), Presence::Away);
    }
}
