//! Ownership: a service belongs to the checkout of its directory, and to that of the `devport.yaml` that registered it.
//! A command in one checkout must not affect a service of another.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use crate::project::{Checkout, DirectoryId, Root, VersionControl, branch, root_of, same_root};

/// The checkouts that a command acts for.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: PathBuf,
    /// The roots, that of the directory first.
    roots: Vec<Root>,
    /// The home directory, which is never a root; `None` if there is none.
    home: Option<PathBuf>,
    /// The roots that were looked up. A command checks one service several times, and each lookup reads files.
    known: RefCell<Vec<(PathBuf, Root)>>,
}

/// What a record says about where its service belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// The directory that the command runs in.
    pub(crate) directory: &'a Path,
    /// The `devport.yaml` that registered it; `None` if none did.
    pub(crate) file: Option<&'a Path>,
    /// The root of the checkout at registration; `None` in records of earlier versions.
    pub(crate) root: Option<&'a Path>,
    /// The identity of that root; `None` in records of earlier versions.
    pub(crate) root_id: Option<&'a DirectoryId>,
}

/// The owner of a service, as seen from a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The service belongs to the place.
    Ours,
    /// The service belongs to the checkout with this root.
    Other(PathBuf),
    /// This directory of the service no longer exists, or was replaced by another one.
    Gone(PathBuf),
}

impl Place {
    /// Creates the place of a command that was run in a directory, or with a `devport.yaml`.
    pub(crate) fn new(directory: &Path, file: Option<&Path>, home: Option<&Path>) -> Self {
        let (directory, home) = (directory.to_owned(), home.map(Path::to_owned));
        let mut place = Self { directory, roots: Vec::new(), home, known: RefCell::default() };
        place.roots = vec![place.root_of(&place.directory)];
        place.roots.extend(place.root_of_file(file));
        place
    }

    /// The root of the directory's checkout.
    pub(crate) fn root(&self) -> &Path {
        self.roots.first().map_or(Path::new("/"), |root| &root.path)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the git directory of the checkout if that is a linked worktree.
    pub(crate) fn git_dir(&self) -> Option<&Path> {
        self.roots.first().and_then(Root::linked_git_dir)
    }

    /// Reads what git says about the directory's checkout; `None` without version control, or if its `.git` file names no
    /// directory.
    pub(crate) fn checkout(&self) -> Option<Checkout> {
        let is_known = |root: &&Root| !matches!(root.control, VersionControl::None | VersionControl::Dangling);
        self.roots.first().filter(is_known).map(Checkout::of)
    }

    /// Reads what names the stacks of the directory's checkout; `None` if its `.git` file names no directory.
    pub(crate) fn checkout_of_stacks(&self) -> Option<Checkout> {
        self.roots.first().filter(|root| root.control != VersionControl::Dangling).map(Checkout::of)
    }

    /// Reads the branch that is checked out in the directory's checkout; `None` if there is none, or it cannot be read.
    pub(crate) fn branch(&self) -> Option<String> {
        self.roots.first().and_then(branch)
    }

    /// Returns whether the directory is under version control.
    pub(crate) fn is_versioned(&self) -> bool {
        self.roots.first().is_some_and(Root::is_versioned)
    }

    /// Returns a path with `~` for the home directory.
    pub(crate) fn abbreviate(&self, path: &Path) -> String {
        abbreviate(path, self.home.as_deref())
    }

    /// Returns the owner of a service, for a command that would register or start it.
    ///
    /// # Errors
    /// If a directory cannot be read: the owner is unknown.
    pub(crate) fn ownership(&self, site: Site<'_>) -> io::Result<Ownership> {
        if let (Some(root), Some(before)) = (site.root, site.root_id)
            && DirectoryId::of(root)?.is_none_or(|now| !now.is_same(before))
        {
            return Ok(Ownership::Gone(root.to_owned()));
        }
        if site.directory == self.directory {
            return Ok(Ownership::Ours);
        }
        let mut theirs = self.roots_of(site);
        if DirectoryId::of(site.directory)?.is_none() {
            // A checkout may lack one of its directories for a while: another branch does not have it.
            let Some(root) = site.root.filter(|root| *root != site.directory) else {
                return Ok(Ownership::Gone(site.directory.to_owned()));
            };
            theirs[0] = Root { path: root.to_owned(), control: VersionControl::Other };
        }
        self.compare(&theirs)
    }

    /// Returns [`Ownership::Ours`] if a name that is typed here may mean a service: the service belongs to this checkout
    /// or to a directory without version control, or this directory is in no checkout.
    ///
    /// # Errors
    /// If a directory cannot be read: the owner is unknown.
    pub(crate) fn can_name(&self, site: Site<'_>) -> io::Result<Ownership> {
        if !self.is_versioned() {
            return Ok(Ownership::Ours);
        }
        let mut theirs = self.roots_of(site);
        if let (None, Some(root)) = (DirectoryId::of(site.directory)?, site.root) {
            // A deleted worktree within a repository does not belong to that: only the record has its root.
            theirs[0] = Root { path: root.to_owned(), control: VersionControl::Other };
        }
        if theirs.iter().all(|root| !root.is_versioned()) {
            return Ok(Ownership::Ours);
        }
        match self.compare(&theirs)? {
            Ownership::Other(root) if DirectoryId::of(&root)?.is_none() => Ok(Ownership::Gone(root)),
            ownership => Ok(ownership),
        }
    }

    /// Returns whether a list shows a service as one of this place: one of its checkouts is one of the place's, as far as
    /// can be seen. The record says where its directory belonged, so only older records need a search for it.
    pub(crate) fn lists(&self, site: Site<'_>) -> bool {
        let theirs = site.root.map_or_else(|| self.root_of(site.directory).path, Path::to_owned);
        // A file beside the service or at its root is in the same checkout: `ls` need not read what git says about it.
        let is_elsewhere =
            |file: &&Path| file.parent().is_none_or(|parent| parent != site.directory && Some(parent) != site.root);
        let of_file = self.root_of_file(site.file.filter(is_elsewhere)).map(|root| root.path);
        let theirs = std::iter::once(theirs).chain(of_file);
        theirs.into_iter().any(|root| self.roots.iter().any(|ours| same_root(&ours.path, &root).unwrap_or(false)))
    }

    /// Returns the checkouts of a service, that of its directory first.
    fn roots_of(&self, site: Site<'_>) -> Vec<Root> {
        let mut roots = vec![self.root_of(site.directory)];
        roots.extend(self.root_of_file(site.file));
        roots
    }

    /// Returns the checkout of a file; `None` if its directory was deleted, because the directories above may belong to
    /// another checkout.
    fn root_of_file(&self, file: Option<&Path>) -> Option<Root> {
        let parent = file?.parent()?;
        (!matches!(DirectoryId::of(parent), Ok(None))).then(|| self.root_of(parent))
    }

    /// Returns the checkout of a directory. Each directory is looked up once.
    fn root_of(&self, directory: &Path) -> Root {
        let mut known = self.known.borrow_mut();
        if let Some((_, root)) = known.iter().find(|(path, _)| path == directory) {
            return root.clone();
        }
        let root = root_of(directory, self.home.as_deref());
        known.push((directory.to_owned(), root.clone()));
        root
    }

    /// Returns whether one of these roots is one of the place's.
    fn compare(&self, theirs: &[Root]) -> io::Result<Ownership> {
        for root in theirs {
            for ours in &self.roots {
                if same_root(&ours.path, &root.path)? {
                    return Ok(Ownership::Ours);
                }
            }
        }
        Ok(Ownership::Other(theirs.first().map(|root| root.path.clone()).unwrap_or_default()))
    }
}

/// Replaces the home directory at the start of a path by `~`.
fn abbreviate(path: &Path, home: Option<&Path>) -> String {
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) if rest.as_os_str().is_empty() => "~".into(),
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for directory in ["shop/.git", "shop/web", "blog/.git", "loose", "other"] {
                fs::create_dir_all(machine.path(directory)).unwrap();
            }
            machine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(name)
        }

        fn place(&self, name: &str) -> Place {
            Place::new(&self.path(name), None, None)
        }
    }

    fn site(directory: &Path) -> Site<'_> {
        Site { directory, file: None, root: None, root_id: None }
    }

    #[test]
    fn a_service_belongs_to_the_checkout_of_its_directory_or_file() {
        let machine = Machine::new();
        let (web, file) = (machine.path("shop/web"), machine.path("blog/devport.yaml"));
        let own = |place: &str, site: Site<'_>| machine.place(place).ownership(site).unwrap();
        assert_eq!(own("shop", site(&web)), Ownership::Ours);
        assert_eq!(own("blog", site(&web)), Ownership::Other(machine.path("shop")));
        assert_eq!(own("blog", Site { file: Some(&file), ..site(&web) }), Ownership::Ours);
        assert_eq!(own("loose", site(&machine.path("other"))), Ownership::Other(machine.path("other")));
        let deleted = machine.path("deleted");
        assert_eq!(own("blog", site(&deleted)), Ownership::Gone(deleted.clone()));
        // A directory that another branch of an existing checkout lacks.
        let (shop, missing) = (machine.path("shop"), machine.path("shop/gone"));
        let recorded = Site { root: Some(&shop), ..site(&missing) };
        assert_eq!(own("blog", recorded), Ownership::Other(shop.clone()));
        assert_eq!(own("shop", recorded), Ownership::Ours);
    }

    #[test]
    fn a_checkout_that_was_replaced_is_gone() {
        let machine = Machine::new();
        let root = machine.path("shop");
        let before = DirectoryId::of(&root).unwrap().unwrap();
        let web = machine.path("shop/web");
        let recorded = Site { root: Some(&root), root_id: Some(&before), ..site(&web) };
        assert_eq!(machine.place("shop").ownership(recorded).unwrap(), Ownership::Ours);
        fs::rename(&root, machine.path("kept")).unwrap();
        fs::create_dir_all(machine.path("shop/web")).unwrap();
        assert_eq!(machine.place("shop").ownership(recorded).unwrap(), Ownership::Gone(root.clone()));
    }

    #[test]
    fn a_name_means_a_service_of_this_checkout_or_of_no_checkout() {
        let machine = Machine::new();
        let web = machine.path("shop/web");
        let names = |place: &str, site: Site<'_>| machine.place(place).can_name(site).unwrap();
        assert_eq!(names("shop", site(&web)), Ownership::Ours);
        assert_eq!(names("blog", site(&web)), Ownership::Other(machine.path("shop")));
        assert_eq!(names("blog", site(&machine.path("loose"))), Ownership::Ours);
        assert_eq!(names("loose", site(&web)), Ownership::Ours, "outside of any checkout every name does");
        let worktree = machine.path("shop/.claude/worktrees/x");
        let deleted = Site { root: Some(&worktree), ..site(&worktree) };
        assert_eq!(names("shop", deleted), Ownership::Gone(worktree.clone()));
        assert_eq!(names("blog", Site { file: Some(&machine.path("blog/devport.yaml")), ..deleted }), Ownership::Ours);
        let subdirectory = machine.path("shop/gone");
        let deleted = Site { root: Some(&machine.path("shop")), ..site(&subdirectory) };
        assert_eq!(names("blog", deleted), Ownership::Other(machine.path("shop")), "the checkout is still there");
    }

    #[test]
    fn a_file_of_a_deleted_directory_belongs_to_no_checkout() {
        let machine = Machine::new();
        let (web, file) = (machine.path("blog"), machine.path("shop/.claude/worktrees/x/devport.yaml"));
        let filed = Site { file: Some(&file), ..site(&web) };
        let place = machine.place("shop");
        assert_eq!(place.ownership(filed).unwrap(), Ownership::Other(web.clone()));
        assert_eq!(place.can_name(filed).unwrap(), Ownership::Other(web.clone()));
    }

    #[test]
    fn the_home_directory_is_written_as_a_tilde() {
        let home = Some(Path::new("/home/a"));
        assert_eq!(abbreviate(Path::new("/home/a/shop"), home), "~/shop");
        assert_eq!(abbreviate(Path::new("/home/a"), home), "~");
        assert_eq!(abbreviate(Path::new("/home/ab"), home), "/home/ab");
        assert_eq!(abbreviate(Path::new("/x"), None), "/x");
    }
}
