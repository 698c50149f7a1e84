//! Names of stacks: of a checkout, of a stack in it, and of the stack's services. Pure: the caller reads what git and
//! the records say.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::identity::hex_digest;
use crate::project::repository::{Checkout, CheckoutKind, split};

/// The most characters of a stack name, and of git's name in a checkout name.
const LONGEST: usize = 40;
/// The number of hexadecimal digits that tell names apart.
const DIGITS: usize = 4;
/// The checkout name of a main checkout.
const MAIN: &str = "main";

/// The name of a checkout: `main`, or lower-case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckoutName(String);

/// A service that uses the name of a stack, as its record says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackUser<'a> {
    pub(crate) key: &'a str,
    /// The root of its checkout.
    pub(crate) root: &'a Path,
    /// The git directory of its checkout, if that is not `.git` below the root.
    pub(crate) git_dir: Option<&'a Path>,
}

/// A stack in a checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stack {
    /// The same in all checkouts.
    pub(crate) name: String,
    pub(crate) checkout: CheckoutName,
    /// The root that already used the stack's name, for which the checkout has another name than git's; `None` if there
    /// is none, or the checkout has had that name before.
    pub(crate) rival: Option<PathBuf>,
}

impl CheckoutName {
    /// Returns the name of a checkout as its repository gives it. It depends on git's name of the worktree only, not on
    /// the folder or the branch.
    pub(crate) fn of(checkout: &Checkout) -> Self {
        match &checkout.kind {
            CheckoutKind::Main | CheckoutKind::Dangling => Self(MAIN.to_owned()),
            CheckoutKind::Linked { worktree } => Self::of_worktree(worktree),
            CheckoutKind::Unnamed => Self::of_path(&checkout.root),
        }
    }

    /// Returns the name for git's name of a worktree.
    fn of_worktree(worktree: &str) -> Self {
        let name = normalized(worktree);
        if name == worktree && name != MAIN { Self(name) } else { Self::with_digits(&name, worktree.as_bytes()) }
    }

    /// Returns the name of a checkout whose repository gives it none, from its folder and its path.
    fn of_path(root: &Path) -> Self {
        Self::with_digits(&normalized(&folder(root)), root.as_os_str().as_encoded_bytes())
    }

    fn with_digits(name: &str, hashed: &[u8]) -> Self {
        let digits = hex_digest(hashed, DIGITS);
        Self(if name.is_empty() { digits } else { format!("{name}-{digits}") })
    }

    /// Returns the name for databases, whose names have no dashes.
    pub(crate) fn slug(&self) -> String {
        self.0.replace('-', "_")
    }
}

impl fmt::Display for CheckoutName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> StackUser<'a> {
    /// Splits the key into the names of stack and checkout; `None` if it is not the key of a stack's service.
    fn names(&self) -> Option<(&'a str, &'a str)> {
        let (stack, _) = self.key.split_once('/')?;
        Some(stack.split_once('@').unwrap_or((stack, MAIN)))
    }

    /// Returns git's common directory, from the paths alone.
    pub(crate) fn repository(&self) -> PathBuf {
        match self.git_dir {
            Some(git_dir) => split(git_dir).map_or(git_dir, |(common, _)| common).to_owned(),
            None => self.root.join(".git"),
        }
    }
}

impl Stack {
    /// Names a stack in a checkout. `users` are the services that the registry knows. If an existing root that is no
    /// checkout of the same repository uses the stack's name, this checkout is named by its path. Roots that are named by
    /// their paths do not count. A checkout keeps its name while it has records.
    pub(crate) fn new<'a>(
        name: String,
        checkout: &Checkout,
        users: impl IntoIterator<Item = StackUser<'a>>,
        exists: impl Fn(&Path) -> bool,
    ) -> Self {
        let (natural, by_path) = (CheckoutName::of(checkout), CheckoutName::of_path(&checkout.root));
        let mut rival: Option<&Path> = None;
        for user in users {
            let Some((_, used)) = user.names().filter(|(stack, _)| *stack == name) else { continue };
            if user.root == checkout.root {
                if let Some(kept) = [&natural, &by_path].into_iter().find(|candidate| candidate.0 == used) {
                    return Self { name, checkout: kept.clone(), rival: None };
                }
                continue;
            }
            let is_rival = checkout.repository != Some(user.repository()) && CheckoutName::of_path(user.root).0 != used;
            if is_rival && rival.is_none() && exists(user.root) {
                rival = Some(user.root);
            }
        }
        let rival = rival.map(Path::to_owned);
        Self { name, checkout: if rival.is_some() { by_path } else { natural }, rival }
    }

    /// Returns the key of a service.
    pub(crate) fn key(&self, service: &str) -> String {
        let Self { name, checkout, .. } = self;
        if checkout.0 == MAIN { format!("{name}/{service}") } else { format!("{name}@{checkout}/{service}") }
    }
}

/// Returns the keys that a service of a stack can have in a checkout: with git's name of the checkout, and with the name
/// from its path. Which one it has depends on the other records.
pub(crate) fn possible_keys(stack: &str, checkout: &Checkout, service: &str) -> [String; 2] {
    [CheckoutName::of(checkout), CheckoutName::of_path(&checkout.root)]
        .map(|checkout| Stack { name: stack.to_owned(), checkout, rival: None }.key(service))
}

/// Returns the name of a stack whose file does not give it one: the folder of the repository, and the path from the root
/// to the file's directory. It is the same in all checkouts of the repository.
pub(crate) fn default_name(checkout: &Checkout, directory: &Path) -> String {
    let base = checkout.repository.as_deref().map_or_else(|| folder(&checkout.root), repository_folder);
    let below = directory.strip_prefix(&checkout.root).unwrap_or(Path::new(""));
    let parts = below.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    let parts: Vec<String> = std::iter::once(base).chain(parts).collect();
    let whole = parts.join("/");
    let name = parts.iter().map(|part| dashed(part)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    match name.len() {
        0 => hex_digest(whole.as_bytes(), DIGITS),
        1..=LONGEST => name,
        // Cut names would be the same for directories deep inside of a repository.
        _ => format!("{}-{}", name[..LONGEST - DIGITS - 1].trim_end_matches('-'), hex_digest(whole.as_bytes(), DIGITS)),
    }
}

/// Returns the name of a repository's folder, without `.git`. A common directory such as `.git` or `.bare` is named by
/// its parent directory.
fn repository_folder(common: &Path) -> String {
    let name = folder(common);
    if name.starts_with('.') {
        return common.parent().map_or(name, folder);
    }
    name.strip_suffix(".git").unwrap_or(&name).to_owned()
}

/// Returns the last part of a path; empty for `/`.
fn folder(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Returns a name in lower case, with a dash for every other character than letters and digits of ASCII.
fn dashed(name: &str) -> String {
    let character = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(character).collect();
    name.trim_matches('-').to_owned()
}

/// Returns a dashed name of at most [`LONGEST`] characters.
fn normalized(name: &str) -> String {
    let mut name = dashed(name);
    name.truncate(LONGEST);
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use super::*;
    use crate::project::checkout::tests::Scratch;
    use crate::project::root_of;

    /// A machine with real repositories, and the keys that its checkouts have used, each with root and git directory.
    struct Machine {
        scratch: Scratch,
        used: RefCell<Vec<(String, PathBuf, Option<PathBuf>)>>,
    }

    impl Machine {
        /// Creates a machine with the repository `shop`.
        fn new() -> Self {
            let machine = Self { scratch: Scratch::new(), used: RefCell::default() };
            machine.scratch.repository("shop");
            machine
        }

        fn checkout(&self, directory: &str) -> Checkout {
            Checkout::of(&root_of(&self.scratch.path(directory), None))
        }

        /// Names the stack of a file in a directory. `name` is the file's own.
        fn stack(&self, directory: &str, name: Option<&str>) -> Stack {
            let checkout = self.checkout(directory);
            let default = default_name(&checkout, &self.scratch.path(directory));
            let used = self.used.borrow();
            let users = used.iter().map(|(key, root, git_dir)| StackUser { key, root, git_dir: git_dir.as_deref() });
            Stack::new(name.map_or(default, str::to_owned), &checkout, users, Path::is_dir)
        }

        /// Returns the key of `web` in a directory.
        fn key(&self, directory: &str) -> String {
            self.stack(directory, None).key("web")
        }

        /// Uses the key of `web` in a directory, whose file is named `shop`, as `up` does. Returns it.
        fn use_shop(&self, directory: &str) -> String {
            let key = self.stack(directory, Some("shop")).key("web");
            let root = root_of(&self.scratch.path(directory), None);
            self.used.borrow_mut().push((key.clone(), root.path.clone(), root.linked_git_dir().map(Path::to_owned)));
            key
        }

        /// The key of a checkout of `shop` that is named by its path.
        fn key_by_path(&self, directory: &str) -> String {
            let path = self.scratch.path(directory);
            let digits = hex_digest(path.as_os_str().as_encoded_bytes(), 4);
            format!("shop@{}-{digits}/web", directory.rsplit('/').next().unwrap())
        }

        fn git(&self, directory: &str, arguments: &[&str]) {
            self.scratch.git(directory, arguments);
        }
    }

    #[test]
    fn linked_worktrees_are_named_by_git_wherever_they_are() {
        let machine = Machine::new();
        for path in [".claude/worktrees/x", "../a/shop"] {
            machine.git("shop", &["worktree", "add", "-q", path]);
        }
        machine.git("shop", &["worktree", "add", "-q", "-b", "y", "../b/shop"]);
        assert_eq!(machine.key("shop"), "shop/web");
        assert_eq!(machine.key("shop/.claude/worktrees/x"), "shop@x/web");
        assert_eq!([machine.key("a/shop"), machine.key("b/shop")], ["shop@shop/web", "shop@shop1/web"]);
        assert_eq!(machine.checkout("b/shop").main_root(), Some(machine.scratch.path("shop")));
        let branches = ["shop", "a/shop", "b/shop"].map(|directory| machine.checkout(directory).branch.unwrap());
        assert_eq!(branches, ["main", "shop", "y"]);
    }

    #[test]
    fn a_switch_and_a_move_change_no_key() {
        let machine = Machine::new();
        machine.git("shop", &["worktree", "add", "-q", "../feat"]);
        machine.git("feat", &["switch", "-q", "-c", "other"]);
        machine.git("shop", &["switch", "-q", "-c", "third"]);
        assert_eq!([machine.key("shop"), machine.key("feat")], ["shop/web", "shop@feat/web"]);
        assert_eq!(machine.checkout("feat").branch.as_deref(), Some("other"));
        machine.git("shop", &["worktree", "move", "../feat", "../elsewhere"]);
        assert_eq!(machine.key("elsewhere"), "shop@feat/web");
    }

    #[test]
    fn the_main_checkout_of_a_bare_repository_is_that_of_its_branch() {
        for (bare, pointer) in [("shop/.bare", true), ("shop/.git", false), ("shop.git", false)] {
            let machine = Machine { scratch: Scratch::new(), used: RefCell::default() };
            machine.scratch.repository("origin");
            machine.git("", &["clone", "-q", "--bare", "origin", bare]);
            if pointer {
                fs::write(machine.scratch.path("shop/.git"), "gitdir: ./.bare\n").unwrap();
            }
            for name in ["main", "feat"] {
                let path = machine.scratch.path("shop").join(name);
                machine.git(bare, &["worktree", "add", "-q", "-f", "-B", name, path.to_str().unwrap()]);
            }
            assert_eq!([machine.key("shop/main"), machine.key("shop/feat")], ["shop/web", "shop@feat/web"], "{bare}");
            assert_eq!(machine.checkout("shop/feat").main_root(), Some(machine.scratch.path("shop/main")), "{bare}");
            machine.git("shop/main", &["switch", "-q", "-c", "other"]);
            assert_eq!(machine.key("shop/main"), "shop/web", "{bare}");
            if bare != "shop.git" {
                // The directory around it is no checkout of the branch.
                assert_eq!(machine.key("shop"), machine.key_by_path("shop"));
            }
        }
    }

    #[test]
    fn a_submodule_has_the_names_of_its_superproject() {
        let machine = Machine::new();
        machine.scratch.repository("library");
        machine.git("shop", &["submodule", "--quiet", "add", "../library", "libs/sub"]);
        machine.git("shop", &["commit", "-q", "-m", "submodule"]);
        assert_eq!(machine.checkout("shop/libs/sub"), machine.checkout("shop"));
        assert_eq!(machine.key("shop/libs/sub"), "shop-libs-sub/web");
        machine.git("shop/libs/sub", &["worktree", "add", "-q", "../../../wt"]);
        assert_eq!(machine.key("wt"), "sub@wt/web");
        assert_eq!(machine.checkout("wt").main_root(), None, "only git's configuration has it");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a user copies a checkout with cp")]
    fn other_roots_that_use_the_name_are_named_by_their_folder() {
        let machine = Machine::new();
        machine.git("", &["clone", "-q", "shop", "hotfix"]);
        machine.git("shop", &["worktree", "add", "-q", "../feat"]);
        machine.git("hotfix", &["worktree", "add", "-q", "../tests"]);
        machine.scratch.dir("workspace/.jj");
        for copy in ["shop", "feat"] {
            let (from, to) = (machine.scratch.path(copy), machine.scratch.path(&format!("{copy}-copy")));
            let copied = std::process::Command::new("cp").arg("-r").args([from, to]).status().unwrap();
            assert!(copied.success());
        }
        assert_eq!(machine.key("hotfix"), "hotfix/web", "the name is free");
        assert_eq!([machine.use_shop("shop"), machine.use_shop("feat")], ["shop/web", "shop@feat/web"]);
        for other in ["hotfix", "tests", "workspace", "shop-copy", "feat-copy"] {
            let expected = machine.key_by_path(other);
            let stack = machine.stack(other, Some("shop"));
            assert_eq!(stack.key("web"), expected);
            assert_eq!(stack.rival.is_some(), other != "feat-copy", "{other}");
            assert_eq!(machine.use_shop(other), expected);
            assert_eq!(machine.stack(other, Some("shop")).rival, None, "reported once");
        }
        // Those that had their names first keep them.
        assert_eq!([machine.use_shop("shop"), machine.use_shop("feat")], ["shop/web", "shop@feat/web"]);
        machine.git("shop", &["worktree", "add", "-q", "../late"]);
        assert_eq!(machine.use_shop("late"), "shop@late/web", "the others have names of their paths");
    }

    #[test]
    fn a_name_is_free_once_its_root_is_gone_and_kept_while_it_has_records() {
        let machine = Machine::new();
        machine.git("", &["clone", "-q", "shop", "hotfix"]);
        let key = machine.use_shop("shop");
        let by_path = machine.use_shop("hotfix");
        fs::rename(machine.scratch.path("shop"), machine.scratch.path("away")).unwrap();
        assert_eq!(machine.use_shop("hotfix"), by_path);
        machine.used.borrow_mut().retain(|(used, _, _)| *used == key);
        assert_eq!(machine.use_shop("hotfix"), "shop/web");
    }

    #[test]
    fn without_version_control_the_folder_names_the_stack() {
        let machine = Machine::new();
        let loose = machine.scratch.dir("Loose Ends");
        assert_eq!(machine.key("Loose Ends"), "loose-ends/web");
        // A `.git` in the home directory is no checkout's.
        machine.scratch.repository("home");
        let notes = machine.scratch.dir("home/notes");
        let checkout = Checkout::of(&root_of(&notes, Some(&machine.scratch.path("home"))));
        assert_eq!((checkout.repository.as_ref(), default_name(&checkout, &notes).as_str()), (None, "notes"));
        assert_eq!(default_name(&machine.checkout("Loose Ends"), &loose), "loose-ends");
    }

    #[test]
    fn the_path_below_the_root_is_part_of_the_name() {
        let machine = Machine::new();
        machine.git("shop", &["worktree", "add", "-q", "../feat"]);
        let deep = "packages/a-rather-long-name/with/more/below";
        for root in ["shop", "feat"] {
            machine.scratch.dir(&format!("{root}/apps/api"));
            machine.scratch.dir(&format!("{root}/{deep}"));
        }
        assert_eq!(
            [machine.key("shop/apps/api"), machine.key("feat/apps/api")],
            ["shop-apps-api/web", "shop-apps-api@feat/web"]
        );
        let long = machine.stack(&format!("shop/{deep}"), None).name;
        assert_eq!(long, format!("shop-packages-a-rather-long-name-wi-{}", &long[36..]));
        assert_eq!((long.len(), &machine.stack(&format!("feat/{deep}"), None).name), (40, &long));
    }

    #[test]
    fn a_checkout_name_is_a_pure_function_of_gits_name() {
        let name = |worktree: &str| CheckoutName::of_worktree(worktree);
        let changed = |worktree: &str, base: &str| format!("{base}-{}", hex_digest(worktree.as_bytes(), 4));
        for unchanged in ["x", "shop1", "fix-1", &"a".repeat(40)] {
            assert_eq!(name(unchanged).to_string(), unchanged);
        }
        for (worktree, base) in [
            ("Feature_Login", "feature-login"),
            ("main", "main"),
            ("-x-", "x"),
            ("é1", "1"),
            (&"b".repeat(41), &"b".repeat(40)),
        ] {
            assert_eq!(name(worktree).to_string(), changed(worktree, base));
        }
        assert_eq!(name("日本").to_string(), hex_digest("日本".as_bytes(), 4));
        assert_ne!(name("feat_x"), name("feat.x"));
        assert_eq!(name("fix-1").slug(), "fix_1");
    }

    #[test]
    fn what_cannot_be_read_is_missing() {
        let machine = Machine::new();
        machine.git("shop", &["worktree", "add", "-q", "../feat"]);
        let git_dir = machine.scratch.path("shop/.git/worktrees/feat");
        let branch = |head: &str| {
            fs::write(git_dir.join("HEAD"), head).unwrap();
            machine.checkout("feat").branch
        };
        assert_eq!(branch("ref: refs/heads/a/b\n").as_deref(), Some("a/b"));
        let long = format!("ref: refs/heads/{}", "x".repeat(64 * 1024));
        for head in ["ref: refs/heads/.invalid\n", "0123456789abcdef0123456789abcdef01234567\n", "", &long] {
            assert_eq!(branch(head), None, "{head:.30}");
        }
        fs::remove_file(git_dir.join("HEAD")).unwrap();
        nix::unistd::mkfifo(&git_dir.join("HEAD"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(machine.checkout("feat").branch, None);
        fs::remove_file(git_dir.join("gitdir")).unwrap();
        assert_eq!(machine.key("feat"), "shop@feat/web");
    }

    #[test]
    fn a_git_file_that_points_nowhere_is_dangling() {
        let machine = Machine::new();
        machine.git("shop", &["worktree", "add", "-q", "../feat"]);
        machine.git("shop", &["worktree", "add", "-q", "../moved"]);
        fs::rename(machine.scratch.path("moved"), machine.scratch.path("new")).unwrap();
        assert_eq!(machine.key("new"), "shop@moved/web", "git knows another place, where nothing is");
        fs::rename(machine.scratch.path("shop"), machine.scratch.path("renamed")).unwrap();
        let dangling = machine.checkout("feat");
        assert_eq!((&dangling.kind, &dangling.branch), (&CheckoutKind::Dangling, &None));
        machine.git("renamed", &["worktree", "repair", "../feat"]);
        assert_eq!(machine.key("feat"), "renamed@feat/web");
    }

    #[test]
    fn relative_paths_are_relative_to_their_file() {
        let machine = Machine::new();
        machine.git("shop", &["worktree", "add", "-q", "../feat"]);
        fs::write(machine.scratch.path("feat/.git"), "gitdir: ../shop/.git/worktrees/feat\n").unwrap();
        fs::write(machine.scratch.path("shop/.git/worktrees/feat/gitdir"), "../../../../feat/.git\n").unwrap();
        assert_eq!(machine.key("feat"), "shop@feat/web");
        fs::rename(machine.scratch.path("shop/.git"), machine.scratch.path("store")).unwrap();
        std::os::unix::fs::symlink("../store", machine.scratch.path("shop/.git")).unwrap();
        assert_eq!(machine.checkout("shop").repository, Some(machine.scratch.path("store")));
    }
}
