//! Roots of checkouts, and the identity of directories. Follows git's layout in `gitrepository-layout(5)`; checked with
//! git 2.47.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::os::file::read_regular;

/// The largest `.git` file in bytes: it holds one path, which Linux limits to 4096 bytes.
const LARGEST: u64 = 64 * 1024;

/// The root of a directory's checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// Absolute, and canonical as far as it exists.
    pub(crate) path: PathBuf,
    /// Whether it is under version control; if not, `path` is the directory itself.
    pub(crate) is_versioned: bool,
    /// The git directory that its `.git` file names, if it is a linked worktree or a submodule.
    pub(crate) git_dir: Option<PathBuf>,
}

/// Returns the root of the checkout that contains `directory`: the nearest directory upwards with a `.git` or a
/// `.jj`. `/` and `home` are never roots. A submodule belongs to its superproject; if that has no root (a submodule
/// of a repository in the home directory), the outermost submodule is the root. `directory` need not exist.
pub(crate) fn root_of(directory: &Path, home: Option<&Path>) -> Root {
    let directory = canonical(directory);
    let mut outermost_submodule = None;
    for candidate in directory.ancestors().filter(|candidate| candidate.parent().is_some()) {
        let Some((marker, git_dir)) = marker(candidate) else { continue };
        if home.is_some_and(|home| same_root(candidate, home).unwrap_or(false)) {
            continue;
        }
        if marker == Marker::Submodule {
            outermost_submodule = Some((candidate, git_dir));
        } else {
            return Root { path: candidate.to_owned(), is_versioned: true, git_dir };
        }
    }
    match outermost_submodule {
        Some((path, git_dir)) => Root { path: path.to_owned(), is_versioned: true, git_dir },
        None => Root { path: directory, is_versioned: false, git_dir: None },
    }
}

/// Returns whether two roots are one: their paths are equal, or both exist with one device and inode.
///
/// # Errors
/// If one of them may exist but its metadata cannot be read.
pub(crate) fn same_root(a: &Path, b: &Path) -> io::Result<bool> {
    if a == b {
        return Ok(true);
    }
    let (Some(a), Some(b)) = (directory_metadata(a)?, directory_metadata(b)?) else { return Ok(false) };
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Identifies a directory, to tell it from a later one at the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectoryId {
    /// Its device number. btrfs and overlayfs may assign another one at each mount.
    device: u64,
    /// Its inode number. ext4 reuses the number of a deleted directory for the next new one.
    inode: u64,
    /// Its birth time; `None` if the file system does not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    born: Option<Timestamp>,
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
        }))
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
fn directory_metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir().then_some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns `path` with its longest resolvable part made canonical.
fn canonical(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(existing), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            // Joining an empty path would append a slash.
            return if rest.as_os_str().is_empty() { existing } else { existing.join(rest) };
        }
    }
    path.to_owned()
}

/// Why a directory is a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    /// It has `.jj`, or a `.git` that is not a submodule's.
    Checkout,
    /// It has the `.git` file of a submodule.
    Submodule,
}

/// Returns why a directory is a root, with the git directory that its `.git` file names; `None` if it is none.
fn marker(directory: &Path) -> Option<(Marker, Option<PathBuf>)> {
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    let git = directory.join(".git");
    let has_jj = exists(&directory.join(".jj"));
    if !exists(&git) {
        return has_jj.then_some((Marker::Checkout, None));
    }
    let git_dir = git_dir(directory, &git);
    let is_submodule = !has_jj && git_dir.as_deref().is_some_and(is_submodule);
    Some((if is_submodule { Marker::Submodule } else { Marker::Checkout }, git_dir))
}

/// Returns the git directory that a `.git` file names; `None` if `git` is not such a file or names no directory.
fn git_dir(directory: &Path, git: &Path) -> Option<PathBuf> {
    let text = read_regular(git, LARGEST).ok()?;
    let target = Path::new(OsStr::from_bytes(text.strip_prefix(b"gitdir: ")?.trim_ascii_end()));
    directory.join(target).canonicalize().ok()
}

/// Returns whether a git directory is a submodule's. A linked worktree has `commondir`: a worktree of a submodule is a
/// checkout, though it is below `modules/` too.
fn is_submodule(git_dir: &Path) -> bool {
    !git_dir.join("commondir").exists() && lies_below_modules(git_dir)
}

/// Returns whether a git directory is below another one's `modules/`. Every git directory has a `HEAD`.
fn lies_below_modules(git_directory: &Path) -> bool {
    git_directory
        .ancestors()
        .filter(|ancestor| ancestor.file_name() == Some(OsStr::new("modules")))
        .filter_map(Path::parent)
        .any(|owner| fs::symlink_metadata(owner.join("HEAD")).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Returns a canonical temporary directory.
    struct Scratch {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Scratch {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().canonicalize().unwrap();
            Self { _directory: directory, path }
        }

        fn path(&self, relative: &str) -> PathBuf {
            self.path.join(relative)
        }

        fn dir(&self, relative: &str) -> PathBuf {
            let path = self.path(relative);
            fs::create_dir_all(&path).unwrap();
            path
        }

        /// Runs git in a directory without the configuration of this machine.
        #[expect(clippy::disallowed_methods, reason = "a test runs the real git")]
        fn git(&self, directory: &str, arguments: &[&str]) {
            let output = std::process::Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"])
                .args(["-c", "init.defaultBranch=main", "-C"])
                .arg(self.dir(directory))
                .args(arguments)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env_remove("GIT_DIR")
                .env_remove("GIT_WORK_TREE")
                .env_remove("GIT_INDEX_FILE")
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }

        /// Creates a repository with one commit.
        fn repository(&self, directory: &str) {
            self.git(directory, &["init", "-q"]);
            self.git(directory, &["commit", "-q", "--allow-empty", "-m", "first"]);
        }

        /// Asserts that the root of one directory is another one, under version control.
        fn assert_root(&self, directory: &str, root: &str) {
            let found = root_of(&self.path(directory), None);
            assert_eq!((found.path, found.is_versioned), (self.path(root), true), "{directory}");
        }
    }

    #[test]
    fn a_main_checkout_and_a_second_clone_are_roots() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        scratch.git("", &["clone", "-q", "shop", "hotfix"]);
        scratch.dir("shop/apps/api");
        scratch.assert_root("shop", "shop");
        scratch.assert_root("shop/apps/api", "shop");
        scratch.assert_root("hotfix", "hotfix");
        assert!(!same_root(&scratch.path("shop"), &scratch.path("hotfix")).unwrap());
    }

    #[test]
    fn a_linked_worktree_is_a_root_inside_the_repository_and_outside() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        scratch.git("shop", &["worktree", "add", "-q", ".claude/worktrees/x"]);
        scratch.git("shop", &["worktree", "add", "-q", "../feat"]);
        scratch.dir("shop/.claude/worktrees/x/apps");
        scratch.assert_root("shop/.claude/worktrees/x/apps", "shop/.claude/worktrees/x");
        scratch.assert_root("shop/.claude/worktrees", "shop");
        scratch.assert_root("feat", "feat");
    }

    #[test]
    fn the_worktrees_of_a_bare_repository_are_roots() {
        let scratch = Scratch::new();
        scratch.repository("origin");
        scratch.git("", &["clone", "-q", "--bare", "origin", "proj/.bare"]);
        fs::write(scratch.path("proj/.git"), "gitdir: ./.bare\n").unwrap();
        scratch.git("proj", &["worktree", "add", "-q", "main"]);
        scratch.git("proj", &["worktree", "add", "-q", "feat"]);
        scratch.assert_root("proj/main", "proj/main");
        scratch.assert_root("proj/feat", "proj/feat");
        scratch.assert_root("proj", "proj");
    }

    #[test]
    fn a_submodule_belongs_to_its_superproject() {
        let scratch = Scratch::new();
        scratch.repository("library");
        scratch.repository("shop");
        scratch.git("shop", &["submodule", "--quiet", "add", "../library", "libs/sub"]);
        scratch.git("shop", &["commit", "-q", "-m", "submodule"]);
        scratch.dir("shop/libs/sub/src");
        scratch.assert_root("shop/libs/sub/src", "shop");

        scratch.git("shop", &["worktree", "add", "-q", ".claude/worktrees/x"]);
        scratch.git("shop/.claude/worktrees/x", &["submodule", "--quiet", "update", "--init"]);
        assert!(scratch.path("shop/.git/worktrees/x/modules/libs/sub/HEAD").exists());
        scratch.assert_root("shop/.claude/worktrees/x/libs/sub", "shop/.claude/worktrees/x");
    }

    #[test]
    fn a_linked_worktree_of_a_submodule_is_a_root_and_its_own_submodule_is_not() {
        let scratch = Scratch::new();
        scratch.repository("leaf");
        scratch.repository("library");
        scratch.git("library", &["submodule", "--quiet", "add", "../leaf", "leaf"]);
        scratch.git("library", &["commit", "-q", "-m", "submodule"]);
        scratch.repository("shop");
        scratch.git("shop", &["submodule", "--quiet", "add", "../library", "sub"]);
        scratch.git("shop/sub", &["worktree", "add", "-q", "../../wt"]);
        scratch.git("wt", &["-c", "submodule.recurse=true", "submodule", "--quiet", "update", "--init"]);
        assert!(scratch.path("shop/.git/modules/sub/worktrees/wt/commondir").exists());
        scratch.assert_root("wt", "wt");
        scratch.assert_root("wt/leaf", "wt");
    }

    #[test]
    fn the_home_directory_and_the_file_systems_root_are_no_roots() {
        let scratch = Scratch::new();
        scratch.repository("library");
        scratch.repository("home");
        scratch.git("home", &["submodule", "--quiet", "add", "../library", "vim/plugin"]);
        symlink(scratch.path("home"), scratch.path("link")).unwrap();
        let notes = scratch.dir("home/notes");
        for home in ["home", "link"] {
            let home = scratch.path(home);
            let root = |directory: &Path| root_of(directory, Some(&home));
            assert_eq!(root(&notes), Root { path: notes.clone(), is_versioned: false, git_dir: None });
            assert_eq!(
                root(&scratch.path("link/notes")),
                Root { path: notes.clone(), is_versioned: false, git_dir: None }
            );
            let plugin = scratch.path("home/vim/plugin");
            assert_eq!(
                root(&plugin.join("src")),
                Root {
                    path: plugin.clone(),
                    is_versioned: true,
                    git_dir: Some(scratch.path("home/.git/modules/vim/plugin"))
                }
            );
        }
        assert_eq!(root_of(Path::new("/"), None), Root { path: "/".into(), is_versioned: false, git_dir: None });
    }

    #[test]
    fn a_directory_without_version_control_is_its_own_root() {
        let scratch = Scratch::new();
        let plain = scratch.dir("plain/deep");
        assert_eq!(root_of(&plain, None), Root { path: plain, is_versioned: false, git_dir: None });
    }

    #[test]
    fn a_jj_workspace_is_a_root() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        scratch.dir("shop/workspace/.jj");
        scratch.dir("shop/workspace/src");
        scratch.assert_root("shop/workspace/src", "shop/workspace");
    }

    #[test]
    fn a_symbolic_link_leads_to_the_root_of_what_it_names() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        scratch.dir("shop/apps/api");
        symlink(scratch.path("shop/apps"), scratch.path("apps")).unwrap();
        symlink(scratch.path("shop"), scratch.path("alias")).unwrap();
        scratch.assert_root("apps/api", "shop");
        scratch.assert_root("alias", "shop");
        assert!(same_root(&scratch.path("alias"), &scratch.path("shop")).unwrap());
    }

    #[test]
    fn a_missing_directory_belongs_to_what_stands_above_it() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        scratch.assert_root("shop/gone/for/good", "shop");
        let missing = scratch.path("no/where");
        assert_eq!(root_of(&missing, None), Root { path: missing.clone(), is_versioned: false, git_dir: None });
        assert!(same_root(&missing, &missing).unwrap());
        assert!(!same_root(&missing, &scratch.path("shop")).unwrap());
    }

    #[test]
    fn a_git_file_that_cannot_be_read_or_points_nowhere_still_makes_a_root() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        let sub = scratch.dir("shop/sub");
        let git = sub.join(".git");
        for text in ["gitdir: ../.git/modules/gone\n", "nonsense", "", &"x".repeat(65 * 1024)] {
            fs::write(&git, text).unwrap();
            scratch.assert_root("shop/sub", "shop/sub");
        }
        fs::remove_file(&git).unwrap();
        nix::unistd::mkfifo(&git, nix::sys::stat::Mode::S_IRWXU).unwrap();
        scratch.assert_root("shop/sub", "shop/sub");
        fs::remove_file(&git).unwrap();
        symlink("nowhere", &git).unwrap();
        scratch.assert_root("shop/sub", "shop/sub");
    }

    #[test]
    fn a_separate_git_directory_in_a_folder_called_modules_is_no_submodule() {
        let scratch = Scratch::new();
        scratch.dir("modules");
        scratch.git("shop", &["init", "-q", "--separate-git-dir", "../modules/shop.git"]);
        scratch.assert_root("shop", "shop");
    }

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
        };
        let (monday, tuesday) = (Some("2026-01-05T00:00:00.000000001Z"), Some("2026-01-06T00:00:00Z"));
        assert!(id(1, 7, monday).is_same(&id(2, 7, monday)), "the device number changed at a reboot");
        assert!(!id(1, 7, monday).is_same(&id(1, 7, tuesday)), "ext4 reused the inode number");
        assert!(!id(1, 7, monday).is_same(&id(1, 8, monday)));
        assert!(id(1, 7, None).is_same(&id(1, 7, monday)));
        assert!(!id(1, 7, None).is_same(&id(2, 7, monday)));
    }
}
