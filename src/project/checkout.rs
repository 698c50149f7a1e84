//! Roots of checkouts. Follows git's layout in `gitrepository-layout(5)`; checked with git 2.47.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::os::file::read_regular;
use crate::project::directory::directory_metadata;

/// The largest file of git's that is read, in bytes: each holds one path or name, and Linux limits paths to 4096 bytes.
pub(super) const LARGEST: u64 = 64 * 1024;

/// The root of a directory's checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    /// Absolute, and canonical as far as it exists.
    pub(crate) path: PathBuf,
    pub(crate) control: VersionControl,
}

/// What makes a directory the root of a checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VersionControl {
    /// Nothing: the directory is its own root.
    None,
    /// Something that devport does not read: `.jj`, or a `.git` that is neither a directory nor a file of git's.
    Other,
    /// The git directory `.git`.
    Git(PathBuf),
    /// A git directory elsewhere, which the file or the symbolic link `.git` names: a linked worktree, or a submodule. The
    /// path is canonical.
    GitElsewhere(PathBuf),
    /// A `.git` file that names no directory, as after the repository was moved. `git worktree repair` corrects that.
    Dangling,
}

impl Root {
    pub(crate) fn is_versioned(&self) -> bool {
        self.control != VersionControl::None
    }

    /// Returns the git directory if it is elsewhere; `None` if it is `.git`, or without git.
    pub(crate) fn linked_git_dir(&self) -> Option<&Path> {
        match &self.control {
            VersionControl::GitElsewhere(directory) => Some(directory),
            _ => None,
        }
    }

    /// Returns the git directory, wherever it is; `None` without git.
    pub(super) fn git_dir(&self) -> Option<&Path> {
        match &self.control {
            VersionControl::Git(directory) | VersionControl::GitElsewhere(directory) => Some(directory),
            _ => None,
        }
    }
}

/// Returns the root of the checkout that contains `directory`: the nearest directory upwards with a `.git` or a
/// `.jj`. `/` and `home` are never roots. A submodule belongs to its superproject; if that has no root (a submodule
/// of a repository in the home directory), the outermost submodule is the root. `directory` need not exist.
pub(crate) fn root_of(directory: &Path, home: Option<&Path>) -> Root {
    let directory = canonical(directory);
    let mut outermost_submodule = None;
    for candidate in directory.ancestors().filter(|candidate| candidate.parent().is_some()) {
        let control = version_control(candidate);
        if control == VersionControl::None || home.is_some_and(|home| same_root(candidate, home).unwrap_or(false)) {
            continue;
        }
        let is_part = matches!(&control, VersionControl::GitElsewhere(git_dir) if is_submodule(candidate, git_dir));
        let root = Root { path: candidate.to_owned(), control };
        if !is_part {
            return root;
        }
        outermost_submodule = Some(root);
    }
    outermost_submodule.unwrap_or(Root { path: directory, control: VersionControl::None })
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

/// Returns what makes a directory a root; [`VersionControl::None`] if it is none.
fn version_control(directory: &Path) -> VersionControl {
    let git = directory.join(".git");
    match fs::symlink_metadata(&git) {
        Err(_) if fs::symlink_metadata(directory.join(".jj")).is_ok() => return VersionControl::Other,
        Err(_) => return VersionControl::None,
        Ok(_) => {}
    }
    if git.is_dir() {
        return match git.canonicalize() {
            Ok(target) if target == git => VersionControl::Git(git),
            Ok(target) => VersionControl::GitElsewhere(target),
            Err(_) => VersionControl::Other,
        };
    }
    match read_path(&git, "gitdir: ") {
        Some(target) => match target.canonicalize() {
            Ok(directory) if directory.is_dir() => VersionControl::GitElsewhere(directory),
            _ => VersionControl::Dangling,
        },
        None => VersionControl::Other,
    }
}

/// Reads the path that follows a prefix in a file of git's. A relative path is relative to the file. `None` if the file has
/// another form or cannot be read.
pub(super) fn read_path(file: &Path, prefix: &str) -> Option<PathBuf> {
    let text = read_regular(file, LARGEST).ok()?;
    let path = text.strip_prefix(prefix.as_bytes())?.trim_ascii_end();
    if path.is_empty() { None } else { Some(file.parent()?.join(OsStr::from_bytes(path))) }
}

/// Returns whether a git directory is a submodule's. A linked worktree has `commondir`: a worktree of a submodule is a
/// checkout, though it is below `modules/` too. A directory that also has `.jj` is a checkout of jj.
fn is_submodule(directory: &Path, git_dir: &Path) -> bool {
    let exists = |path: PathBuf| fs::symlink_metadata(path).is_ok();
    !exists(directory.join(".jj")) && !exists(git_dir.join("commondir")) && lies_below_modules(git_dir)
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
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A temporary directory with a canonical path.
    pub(crate) struct Scratch {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Scratch {
        pub(crate) fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().canonicalize().unwrap();
            Self { _directory: directory, path }
        }

        pub(crate) fn path(&self, relative: &str) -> PathBuf {
            self.path.join(relative)
        }

        pub(crate) fn dir(&self, relative: &str) -> PathBuf {
            let path = self.path(relative);
            fs::create_dir_all(&path).unwrap();
            path
        }

        /// Runs git in a directory without the configuration of this machine.
        #[expect(clippy::disallowed_methods, reason = "a test runs the real git")]
        pub(crate) fn git(&self, directory: &str, arguments: &[&str]) {
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
        pub(crate) fn repository(&self, directory: &str) {
            self.git(directory, &["init", "-q"]);
            self.git(directory, &["commit", "-q", "--allow-empty", "-m", "first"]);
        }

        /// Asserts that the root of one directory is another one, under version control.
        fn assert_root(&self, directory: &str, root: &str) {
            let found = root_of(&self.path(directory), None);
            assert_eq!((found.is_versioned(), &found.path), (true, &self.path(root)), "{directory}");
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
            assert_eq!(root(&notes), Root { path: notes.clone(), control: VersionControl::None });
            assert_eq!(root(&scratch.path("link/notes")), Root { path: notes.clone(), control: VersionControl::None });
            let plugin = scratch.path("home/vim/plugin");
            assert_eq!(
                root(&plugin.join("src")),
                Root {
                    path: plugin.clone(),
                    control: VersionControl::GitElsewhere(scratch.path("home/.git/modules/vim/plugin"))
                }
            );
        }
        assert_eq!(root_of(Path::new("/"), None), Root { path: "/".into(), control: VersionControl::None });
    }

    #[test]
    fn a_directory_without_version_control_is_its_own_root() {
        let scratch = Scratch::new();
        let plain = scratch.dir("plain/deep");
        assert_eq!(root_of(&plain, None), Root { path: plain, control: VersionControl::None });
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
    fn a_missing_directory_belongs_to_the_checkout_above_it() {
        let scratch = Scratch::new();
        scratch.repository("shop");
        scratch.assert_root("shop/gone/for/good", "shop");
        let missing = scratch.path("no/where");
        assert_eq!(root_of(&missing, None), Root { path: missing.clone(), control: VersionControl::None });
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
}
