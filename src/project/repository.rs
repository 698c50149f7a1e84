//! `Checkout`: what git knows of a root: its repository, git's name of the worktree and its branch. Follows
//! `gitrepository-layout(5)`; checked with git 2.47. Reads at most three small files, and one more for the main
//! checkout of a bare repository.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::os::file::read_regular;
use crate::project::checkout::{LARGEST, Root, VersionControl, read_path, same_root};

/// A checkout, with what its repository says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// The root, canonical as far as it exists.
    pub(crate) root: PathBuf,
    pub(crate) kind: CheckoutKind,
    /// Git's common directory, canonical, which linked checkouts share; `None` without git.
    pub(crate) repository: Option<PathBuf>,
    /// The branch that is checked out; `None` without one, without git, or if git's files do not tell.
    pub(crate) branch: Option<String>,
}

/// How a checkout relates to its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CheckoutKind {
    /// The main working tree; in a bare repository, the worktree with the name of the branch in the bare `HEAD`. Also a
    /// root without git.
    Main,
    /// A linked worktree.
    Linked {
        /// Git's name: the directory below `worktrees/`. Git keeps it when the worktree is moved or switched.
        worktree: String,
    },
    /// A root that shares a repository and has no name there: a copy of a linked worktree, or the directory around a bare
    /// repository.
    Unnamed,
    /// Its `.git` file names no directory. `git worktree repair` corrects that.
    Dangling,
}

impl Checkout {
    /// Reads what git's files say about a root. What cannot be read is missing.
    pub(crate) fn of(root: &Root) -> Self {
        let new = |kind, repository| Self { root: root.path.clone(), kind, repository, branch: branch(root) };
        let Some(git_dir) = root.git_dir() else {
            let is_dangling = root.control == VersionControl::Dangling;
            return new(if is_dangling { CheckoutKind::Dangling } else { CheckoutKind::Main }, None);
        };
        let Some((common, worktree)) = linked_worktree(git_dir) else {
            let is_container = is_bare(git_dir) && git_dir.join("worktrees").is_dir();
            let kind = if is_container { CheckoutKind::Unnamed } else { CheckoutKind::Main };
            return new(kind, Some(git_dir.to_owned()));
        };
        let kind = if is_copied(&root.path, git_dir) {
            CheckoutKind::Unnamed
        } else if is_bare(common) && main_worktree(common).as_deref() == Some(worktree) {
            CheckoutKind::Main
        } else {
            CheckoutKind::Linked { worktree: worktree.to_string_lossy().into_owned() }
        };
        new(kind, Some(common.to_owned()))
    }

    /// Returns the root of the main checkout; `None` if there is none, or git's files do not tell where it is.
    pub(crate) fn main_root(&self) -> Option<PathBuf> {
        if self.kind == CheckoutKind::Main {
            return Some(self.root.clone());
        }
        let common = self.repository.as_deref()?;
        let root = if is_bare(common) {
            let gitdir = common.join("worktrees").join(main_worktree(common)?).join("gitdir");
            read_path(&gitdir, "")?.parent()?.to_owned()
        } else if common.file_name() == Some(OsStr::new(".git")) {
            common.parent()?.to_owned()
        } else {
            return None;
        };
        root.canonicalize().ok()
    }
}

/// Returns the branch that is checked out at a root; `None` without one, without git, or if `HEAD` does not tell. The
/// branch `.invalid` stands for one in a reftable (`git-init(1)`, `--ref-format`).
pub(crate) fn branch(root: &Root) -> Option<String> {
    head(root.git_dir()?)
}

/// Reads the branch in the `HEAD` of a git directory.
fn head(git_dir: &Path) -> Option<String> {
    let text = String::from_utf8(read_regular(&git_dir.join("HEAD"), LARGEST).ok()?).ok()?;
    let branch = text.strip_prefix("ref: refs/heads/")?.trim_end();
    (!branch.is_empty() && branch != ".invalid").then(|| branch.to_owned())
}

/// Splits the git directory of a linked worktree into the common directory and git's name of the worktree, as
/// [`split`] does; `None` for another git directory, which lacks `commondir`.
fn linked_worktree(git_dir: &Path) -> Option<(&Path, &OsStr)> {
    split(git_dir).filter(|_| git_dir.join("commondir").exists())
}

/// Splits `<common>/worktrees/<name>`. Git always creates the git directory of a linked worktree there, so `commondir`
/// need not be read.
pub(super) fn split(git_dir: &Path) -> Option<(&Path, &OsStr)> {
    let (worktrees, name) = (git_dir.parent()?, git_dir.file_name()?);
    (worktrees.file_name()? == "worktrees").then_some((worktrees.parent()?, name))
}

/// Returns whether a root is a copy of a linked worktree: the worktree's `gitdir` names another `.git`, which exists.
fn is_copied(root: &Path, git_dir: &Path) -> bool {
    let Some(git) = read_path(&git_dir.join("gitdir"), "") else { return false };
    let is_here = git.parent().is_some_and(|named| same_root(named, root).unwrap_or(true));
    !is_here && git.exists()
}

/// Returns whether a common directory is a bare repository's. Only a main working tree has an index there, from its
/// first commit on; `core.bare` may be in two files.
fn is_bare(common: &Path) -> bool {
    !common.join("index").exists()
}

/// Returns git's name of the worktree that is the main checkout of a bare repository: that of the branch in the bare
/// `HEAD`. `None` if no worktree can have it.
fn main_worktree(common: &Path) -> Option<OsString> {
    head(common).filter(|branch| !branch.contains('/')).map(Into::into)
}
