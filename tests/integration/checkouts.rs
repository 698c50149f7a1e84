//! Several checkouts on one machine: a command in one checkout never returns another checkout's service.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{DEVPORT, Done, SERVER, TestEnv, done, has_program, is_alive, number, port, strace, until};

/// A service that is ready at once and prints nothing, so that its files do not change while it runs.
pub(crate) const SLEEP: [&str; 5] = ["--ready", "none", "--", "sleep", "1000"];
/// Commands that an agent might run next if a message suggested them.
const DANGEROUS: [&str; 3] = ["--replace", " rm", "--force"];

/// How checkouts are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Git {
    /// By git.
    Real,
    /// By writing the files that git writes.
    ByHand,
}

impl Git {
    /// The ways that work on this machine. Without git the cases still run, on written files only.
    fn ways() -> Vec<Self> {
        if has_program("git") { vec![Self::Real, Self::ByHand] } else { vec![Self::ByHand] }
    }

    /// Git, if it is installed.
    fn best() -> Self {
        Self::ways()[0]
    }

    pub(crate) fn run(env: &TestEnv, directory: &Path, arguments: &[&str]) {
        let mut command = env.command("git");
        command.current_dir(directory).env("GIT_CONFIG_NOSYSTEM", "1").args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "init.defaultBranch=main",
        ]);
        env.finish(command.args(arguments)).ok();
    }

    /// Creates a repository with one commit.
    fn repository(self, env: &TestEnv, path: &Path) {
        fs::create_dir_all(path).unwrap();
        match self {
            Self::Real => {
                Self::run(env, path, &["init", "-q"]);
                Self::run(env, path, &["commit", "-q", "--allow-empty", "-m", "first"]);
            }
            Self::ByHand => git_directory(&path.join(".git")),
        }
    }

    /// Creates a linked worktree of the repository whose checkout (or bare directory) is `repository`.
    pub(crate) fn worktree(self, env: &TestEnv, repository: &Path, path: &Path) {
        let name = path.file_name().unwrap().to_str().unwrap();
        match self {
            Self::Real => {
                Self::run(env, repository, &["worktree", "add", "-q", "-f", "-B", name, path.to_str().unwrap()]);
            }
            Self::ByHand => {
                let common = Some(repository.join(".git")).filter(|git| git.is_dir());
                let common = common.unwrap_or_else(|| repository.to_owned());
                let git = common.join("worktrees").join(name);
                fs::create_dir_all(&git).unwrap();
                fs::create_dir_all(path).unwrap();
                fs::write(git.join("HEAD"), format!("ref: refs/heads/{name}\n")).unwrap();
                fs::write(git.join("commondir"), "../..\n").unwrap();
                fs::write(git.join("gitdir"), format!("{}/.git\n", path.display())).unwrap();
                fs::write(path.join(".git"), format!("gitdir: {}\n", git.display())).unwrap();
            }
        }
    }

    /// Deletes a linked worktree.
    pub(crate) fn remove_worktree(self, env: &TestEnv, repository: &Path, path: &Path) {
        match self {
            Self::Real => Self::run(env, repository, &["worktree", "remove", "--force", path.to_str().unwrap()]),
            Self::ByHand => fs::remove_dir_all(path).unwrap(),
        }
    }

    fn clone(self, env: &TestEnv, repository: &Path, path: &Path) {
        match self {
            Self::Real => {
                Self::run(
                    env,
                    &env.path("home"),
                    &["clone", "-q", repository.to_str().unwrap(), path.to_str().unwrap()],
                );
            }
            Self::ByHand => self.repository(env, path),
        }
    }

    /// Creates `path/.bare` with the worktrees `path/main` and `path/feat`.
    fn bare(self, env: &TestEnv, path: &Path) {
        let bare = path.join(".bare");
        fs::create_dir_all(path).unwrap();
        match self {
            Self::Real => {
                let origin = path.with_extension("origin");
                self.repository(env, &origin);
                Self::run(env, path, &["clone", "-q", "--bare", origin.to_str().unwrap(), ".bare"]);
            }
            Self::ByHand => git_directory(&bare),
        }
        fs::write(path.join(".git"), "gitdir: ./.bare\n").unwrap();
        for name in ["main", "feat"] {
            self.worktree(env, &bare, &path.join(name));
        }
    }

    /// Creates a submodule `libs/sub` in a repository.
    fn submodule(self, env: &TestEnv, repository: &Path) {
        match self {
            Self::Real => {
                let library = repository.with_extension("library");
                self.repository(env, &library);
                let library = library.to_str().unwrap();
                Self::run(env, repository, &["submodule", "--quiet", "add", library, "libs/sub"]);
            }
            Self::ByHand => {
                git_directory(&repository.join(".git/modules/libs/sub"));
                fs::create_dir_all(repository.join("libs/sub")).unwrap();
                fs::write(repository.join("libs/sub/.git"), "gitdir: ../../.git/modules/libs/sub\n").unwrap();
            }
        }
    }
}

/// Writes the minimal files of a git directory.
pub(crate) fn git_directory(path: &Path) {
    for name in ["objects", "refs"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
}

/// A machine with the checkouts of one repository in its home: `shop`, the linked worktrees
/// `shop/.claude/worktrees/feat` and `linked`, and a second repository `blog`.
pub(crate) struct Machine {
    pub(crate) env: TestEnv,
    pub(crate) git: Git,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::with(Git::best())
    }

    fn with(git: Git) -> Self {
        let mut machine = Self { env: TestEnv::new(), git };
        // No supervisor notices by itself that a test has deleted its checkout.
        machine.env.set("DEVPORT_TEST_HEARTBEAT", "1h");
        let (env, shop) = (&machine.env, machine.home("shop"));
        git.repository(env, &shop);
        git.worktree(env, &shop, &shop.join(".claude/worktrees/feat"));
        git.worktree(env, &shop, &machine.home("linked"));
        git.repository(env, &machine.home("blog"));
        fs::create_dir_all(shop.join("apps/api")).unwrap();
        machine
    }

    /// A directory in the home, canonical.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.env.path("home").canonicalize().unwrap().join(name)
    }

    /// Creates a directory in the home.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.home(name)).unwrap();
        self.home(name)
    }

    pub(crate) fn command(&self, directory: &str) -> Command {
        let mut command = self.env.command(DEVPORT);
        command.current_dir(self.home(directory));
        command
    }

    /// Runs devport in a directory of the home.
    #[track_caller]
    pub(crate) fn at<I: IntoIterator<Item: AsRef<OsStr>>>(&self, directory: &str, arguments: I) -> Done {
        self.env.finish(self.command(directory).args(arguments))
    }

    /// Starts a service with a key in a directory of the home.
    #[track_caller]
    pub(crate) fn start(&self, directory: &str, key: &str) -> Value {
        let view = self.at(directory, ["start", "--wait", "--key", key].iter().chain(&SLEEP)).ok().json();
        assert_eq!(view["state"], "ready", "{view}");
        view
    }

    /// Every file of the state directory, with its content.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut pending = vec![self.env.path("state")];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                if entry.path().is_dir() {
                    pending.push(entry.path());
                }
                files.insert(entry.path(), fs::read(entry.path()).unwrap_or_default());
            }
        }
        files
    }

    /// Asserts that a command ends with exit code 6 and has no effect.
    #[track_caller]
    fn refuses(&self, directory: &str, arguments: &[&str], parts: &[&str]) {
        let before = self.files();
        let done = self.at(directory, arguments).fails(6, parts);
        assert_eq!(done.stdout, "", "{directory}: {arguments:?}: {done:?}");
        for part in DANGEROUS {
            assert!(!done.stderr.contains(part), "{directory}: {arguments:?} proposes {part}: {done:?}");
        }
        let after = self.files();
        let changed: Vec<_> = before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).collect();
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert!(
            changed.is_empty() && names(&before) == names(&after),
            "{arguments:?}: {changed:?}\n{before:?}\n{after:?}"
        );
    }

    /// Asserts that every command that registers refuses a key in a directory, as the service of another checkout.
    #[track_caller]
    fn refuses_to_register(&self, directory: &str, key: &str, owner: &str, here: &str) {
        let view = self.env.ls().into_iter().find(|view| view["key"] == key).unwrap();
        let state = format!("({}, port {})", view["state"].as_str().unwrap(), view["port"]);
        let message = format!("{key} belongs to {owner} {state}; this is {here}\n");
        let file = self.home(directory).join("devport.yaml");
        fs::write(&file, format!("- {{key: {key}, exec: sleep 1000}}\n")).unwrap();
        for arguments in [
            &["start", "--key", key, "--", "sleep", "1000"][..],
            &["start", "--wait", "--key", key, "--", "sleep", "2000"],
            &["start", "--replace", "--detach", "--json", "--key", key, "--", "sleep", "1000"],
            &["start", "--format", "table", "--key", key, "--", "sleep", "1000"],
            &["run", "--key", key, "--", "sleep", "1000"],
            &["run", "--replace", "--key", key, "--", "sleep", "1000"],
            &["reserve", "--key", key],
            &["reserve", "--key", key, "--port", "31999"],
            &["start", "-f", "devport.yaml"],
            &["start", "--wait", "--replace", "-f", "devport.yaml", key],
            &["start", "--format", "table", "-f", "devport.yaml"],
        ] {
            self.refuses(directory, arguments, &[&message, "hint: "]);
        }
    }

    /// Asserts that no command finds a service by its bare name in a directory.
    #[track_caller]
    fn refuses_to_name(&self, directory: &str, key: &str, owner: &str, here: &str) {
        let view = self.env.ls().into_iter().find(|view| view["key"] == key).unwrap();
        let id = view["hashid"].as_str().unwrap();
        let message = format!("{key} belongs to {owner}; ");
        for arguments in [
            &["start", key][..],
            &["start", "--replace", "--wait", key],
            &["run", key],
            &["restart", key],
            &["stop", key],
            &["stop", "--kill", key],
            &["rm", key],
            &["logs", key],
            &["logs", "-f", key],
            &["which", key],
            &["url", key],
            &["port", key],
            &["open", key],
            &["env", key],
            &["wait", key],
            &["wait", "--for", "stopped", key],
            &["signal", key],
            &["attach", key],
            &["tailup", key],
            &["taildown", key],
            // A service that may be named does not turn the failure into a partial success.
            &["stop", id, key],
        ] {
            self.refuses(directory, arguments, &[&message, here, id]);
        }
    }
}

#[track_caller]
pub(crate) fn outcome(view: &Value, expected: &str) {
    assert_eq!(view["outcome"], expected, "{view}");
}

pub(crate) fn pid(view: &Value) -> i32 {
    number(&view["pid"])
}

/// Asserts that another checkout refuses a key, and that the key's own checkout keeps the service.
#[track_caller]
fn is_apart(machine: &Machine, owner: &str, other: &str) {
    let tilde = |name: &str| format!("~/{name}");
    let view = machine.start(owner, "web");
    machine.refuses_to_register(other, "web", &tilde(owner), &tilde(other));
    let again = machine.at(owner, ["start", "--key", "web"].iter().chain(&SLEEP)).ok().json();
    outcome(&again, "already-running");
    assert_eq!(pid(&again), pid(&view), "{owner} and {other}");
    machine.at(owner, ["stop", "web"]).ok();
    machine.refuses_to_register(other, "web", &tilde(owner), &tilde(other));
    machine.at(owner, ["rm", "web"]).ok();
}

#[test]
fn checkouts_are_apart_whichever_came_first() {
    for git in Git::ways() {
        let machine = Machine::with(git);
        git.clone(&machine.env, &machine.home("shop"), &machine.home("hotfix"));
        git.bare(&machine.env, &machine.home("proj"));
        for (a, b) in [
            ("shop", "shop/.claude/worktrees/feat"),
            ("shop", "linked"),
            ("linked", "shop/.claude/worktrees/feat"),
            ("shop", "hotfix"),
            ("shop", "blog"),
            ("proj/main", "proj/feat"),
        ] {
            is_apart(&machine, a, b);
            is_apart(&machine, b, a);
        }
    }
}

#[test]
fn directories_without_version_control_are_apart() {
    let machine = Machine::new();
    machine.directory("loose/deep");
    for (a, b) in [("loose", "loose/deep"), ("loose/deep", "loose"), ("loose", "shop"), ("shop", "loose")] {
        is_apart(&machine, a, b);
    }
}

#[test]
fn a_repository_in_the_home_directory_is_no_checkout() {
    let machine = Machine::new();
    machine.directory("notes");
    machine.directory("drafts");
    machine.git.repository(&machine.env, &machine.home(""));
    is_apart(&machine, "notes", "drafts");
    is_apart(&machine, "shop", "notes");
    // Neither directory is under version control: names work as they do outside of any checkout.
    machine.start("notes", "web");
    assert_eq!(machine.at("drafts", ["which", "web"]).ok().json()["key"], "web");
    assert_eq!(machine.at("shop", ["which", "web"]).ok().json()["key"], "web");
}

#[test]
fn every_directory_of_a_checkout_has_its_services() {
    for git in Git::ways() {
        let machine = Machine::with(git);
        git.submodule(&machine.env, &machine.home("shop"));
        symlink(machine.home("shop"), machine.home("alias")).unwrap();
        symlink(machine.home("shop/apps"), machine.home("blog/apps")).unwrap();
        let same = ["shop", "shop/apps/api", "shop/libs/sub", "alias", "alias/libs/sub", "blog/apps/api"];
        for owner in same {
            let view = machine.start(owner, "web");
            for directory in same {
                let again = machine.at(directory, ["start", "--key", "web"].iter().chain(&SLEEP)).ok().json();
                outcome(&again, "already-running");
                assert_eq!(pid(&again), pid(&view), "{owner}: {directory}");
                assert_eq!(
                    machine.at(directory, ["reserve", "--key", "web"]).ok().stdout,
                    format!("{}\n", port(&view))
                );
                assert_eq!(machine.at(directory, ["which", "web"]).ok().json()["pid"], view["pid"]);
            }
            machine.refuses_to_register("blog", "web", "~/shop", "~/blog");
            machine.refuses_to_name("shop/.claude/worktrees/feat", "web", "~/shop", "~/shop/.claude/worktrees/feat");
            machine.at(owner, ["rm", "web"]).ok();
        }
    }
}

#[test]
fn a_bare_name_means_a_service_of_this_checkout_and_ids_work_from_everywhere() {
    let machine = Machine::new();
    let feat = "shop/.claude/worktrees/feat";
    let started = machine.at("shop", ["start", "--wait", "--key", "web", "--"].iter().chain(&SERVER)).ok().json();
    let (id, number) = (started["hashid"].as_str().unwrap(), started["port"].to_string());
    // The server prints this once it listens. After that, its log stays as it is.
    until("the server has printed", || machine.at("shop", ["logs", "web"]).ok().stdout.contains("Serving HTTP"));
    for directory in [feat, "linked", "blog"] {
        machine.refuses_to_name(directory, "web", "~/shop", &format!("~/{directory}"));
    }
    for target in [id, started["hash"].as_str().unwrap(), &number] {
        assert_eq!(machine.at(feat, ["which", target]).ok().json()["hash"], started["hash"]);
        assert_eq!(machine.at(feat, ["wait", target]).ok().json()["key"], "web");
        assert_eq!(machine.at(feat, ["url", target]).ok().stdout, format!("http://localhost:{number}\n"));
        assert!(machine.at(feat, ["logs", target]).ok().stdout.contains("started"));
        outcome(&machine.at(feat, ["start", target]).ok().json(), "already-running");
        outcome(&machine.at(feat, ["restart", target]).ok().json(), "restarted");
        outcome(&machine.at(feat, ["stop", target]).ok().json(), "stopped");
        let again = machine.at(feat, ["start", target]).ok().json();
        outcome(&again, "started");
        assert_eq!((&again["cwd"], &again["port"]), (&started["cwd"], &started["port"]));
        machine.at(feat, ["restart", "--wait", target]).ok();
    }
    // The messages suggest the id, and it does what they promise.
    let refused = machine.at(feat, ["logs", "web"]).fails(6, &["hint: "]).stderr;
    let hint = format!("hint: its id works in every directory: `devport which {id}`\n");
    assert!(refused.contains(&hint), "{refused}");
    outcome(&machine.at(feat, ["rm", id]).ok().json(), "removed");
    machine.at(feat, ["which", "web"]).fails(4, &["no service"]);
}

#[test]
fn a_service_of_no_checkout_may_be_named_in_all() {
    let machine = Machine::new();
    machine.directory("databases");
    let view = machine.start("databases", "db");
    for directory in ["shop", "blog", "databases", ""] {
        assert_eq!(machine.at(directory, ["which", "db"]).ok().json()["pid"], view["pid"]);
    }
    machine.refuses_to_register("shop", "db", "~/databases", "~/shop");
    // Outside of any checkout every key works.
    machine.start("shop", "web");
    assert_eq!(machine.at("databases", ["port", "web"]).ok().stdout, machine.at("shop", ["port", "web"]).ok().stdout);
}

#[test]
fn c_runs_a_command_as_if_it_was_started_there() {
    let machine = Machine::new();
    let feat = "shop/.claude/worktrees/feat";
    fs::write(machine.home(feat).join("devport.yaml"), "- {key: feat, exec: sleep 1000, ready: none, env: .env}\n")
        .unwrap();
    fs::write(machine.home(feat).join(".env"), "GREETING=hello\n").unwrap();
    let started =
        machine.at("shop", ["-C", ".claude/worktrees/feat", "start", "--wait", "-f", "devport.yaml"]).ok().json();
    assert_eq!(started[0]["cwd"], machine.home(feat).to_str().unwrap());
    machine.refuses_to_name("shop", "feat", &format!("~/{feat}"), "~/shop");
    let absolute = machine.home(feat);
    let absolute = absolute.to_str().unwrap();
    assert_eq!(machine.at("blog", ["-C", absolute, "which", "feat"]).ok().json()["pid"], started[0]["pid"]);
    // Like in git and make, `-C` options add up.
    machine.at("blog", ["-C", "../shop", "-C", ".claude", "-C", "worktrees/feat", "which", "feat"]).ok();
    machine.start("shop", "web");
    machine.refuses(
        "shop",
        &["-C", ".claude/worktrees/feat", "start", "--key", "web", "--", "sleep", "1"],
        &["web belongs to ~/shop (ready, port"],
    );
    machine.refuses("shop", &["-C", absolute, "stop", "web"], &["web belongs to ~/shop; "]);
    // The output of a program in the foreground shows where it runs.
    let ran = machine.at(
        "shop",
        ["-C", "../linked", "run", "--restart", "never", "--key", "pwd", "--", "sh", "-c", "pwd; echo $$PWD"],
    );
    let linked = machine.home("linked");
    assert_eq!(ran.ok().stdout, format!("{0}\n{0}\n", linked.display()));
    let missing = machine.at("shop", ["-C", "nowhere", "ls"]).fails(1, &["nowhere", "no such file"]);
    assert_eq!(missing.stdout, "");
}

#[test]
fn one_file_for_several_repositories_works_from_all_of_them() {
    let machine = Machine::new();
    let blog = machine.home("blog");
    fs::write(
        machine.home("shop/devport.yaml"),
        format!(
            "- {{key: web, exec: sleep 1000, ready: none}}\n- {{key: blog, exec: sleep 1000, ready: none, cwd: {}}}\n",
            blog.display()
        ),
    )
    .unwrap();
    let started = machine.at("shop", ["start", "--wait", "-f", "devport.yaml"]).ok().json();
    for view in started.as_array().unwrap() {
        outcome(view, "started");
    }
    // The service runs in blog, and shop's file registered it: it belongs to both.
    for directory in ["shop", "shop/apps", "blog"] {
        assert_eq!(machine.at(directory, ["which", "blog"]).ok().json()["cwd"], blog.to_str().unwrap(), "{directory}");
        outcome(&machine.at(directory, ["restart", "blog"]).ok().json(), "restarted");
        outcome(&machine.at(directory, ["stop", "blog"]).ok().json(), "stopped");
        outcome(&machine.at(directory, ["start", "blog"]).ok().json(), "started");
        let running = machine.at(directory, ["start", "--key", "blog"].iter().chain(&SLEEP)).ok().json();
        outcome(&running, "already-running");
        machine.at(directory, ["reserve", "--key", "blog"]).ok();
        let file = machine.home("shop/devport.yaml");
        let again = machine.at(directory, ["start", "-f", file.to_str().unwrap()]).ok().json();
        outcome(&again[0], "already-running");
        outcome(&again[1], "already-running");
        machine.at(directory, ["restart", "--wait", "blog"]).ok();
    }
    machine.refuses_to_name("blog", "web", "~/shop", "~/blog");
    for directory in ["linked", "shop/.claude/worktrees/feat"] {
        machine.refuses_to_register(directory, "blog", "~/blog", &format!("~/{directory}"));
        machine.refuses_to_name(directory, "blog", "~/blog", &format!("~/{directory}"));
    }
    // The same file in another checkout: one service is refused, so none is started, whichever comes first.
    for order in [
        "- {key: web, exec: sleep 1}\n- {key: new, exec: sleep 1}\n",
        "- {key: new, exec: sleep 1}\n- {key: web, exec: sleep 1}\n",
    ] {
        fs::write(machine.home("linked/devport.yaml"), order).unwrap();
        machine.refuses("linked", &["start", "-f", "devport.yaml"], &["web belongs to ~/shop (ready, port"]);
        machine.refuses("linked", &["start", "-f", "devport.yaml", "web"], &["web belongs to ~/shop (ready, port"]);
    }
    machine.at("linked", ["start", "-f", "devport.yaml", "new"]).ok();
}

#[test]
fn the_file_of_a_deleted_checkout_gives_its_service_to_no_other() {
    let machine = Machine::new();
    let feat = machine.home("shop/.claude/worktrees/feat");
    let blog = machine.home("blog");
    fs::write(
        feat.join("devport.yaml"),
        format!("- {{key: blog, exec: sleep 1000, ready: none, cwd: {}}}\n", blog.display()),
    )
    .unwrap();
    let started = machine.at("", ["start", "--wait", "-f", feat.join("devport.yaml").to_str().unwrap()]).ok().json();
    machine.git.remove_worktree(&machine.env, &machine.home("shop"), &feat);
    // The worktree was inside of shop, but its services do not belong to shop now.
    machine.refuses_to_register("shop", "blog", "~/blog", "~/shop");
    machine.refuses_to_name("shop", "blog", "~/blog", "~/shop");
    assert_eq!(machine.at("blog", ["which", "blog"]).ok().json()["pid"], started[0]["pid"]);
    let mine = machine.at("blog", ["start", "--key", "blog"].iter().chain(&SLEEP)).ok();
    outcome(&mine.json(), "already-running");
}

#[test]
fn a_service_whose_directory_was_deleted_belongs_to_the_file_that_registered_it() {
    let machine = Machine::new();
    machine.directory("site");
    machine.git.repository(&machine.env, &machine.home("site"));
    let site = machine.home("site");
    fs::write(
        machine.home("shop/devport.yaml"),
        format!("- {{key: site, exec: sleep 1000, ready: none, cwd: {}}}\n", site.display()),
    )
    .unwrap();
    machine.at("shop", ["start", "--wait", "-f", "devport.yaml"]).ok();
    fs::remove_dir_all(&site).unwrap();
    machine.refuses_to_name("blog", "site", "~/site, which no longer exists", "~/blog");
    outcome(&machine.at("shop", ["stop", "site"]).ok().json(), "stopped");
}

#[test]
fn records_of_earlier_versions_belong_to_the_checkout_of_their_directory() {
    let machine = Machine::new();
    let feat = "shop/.claude/worktrees/feat";
    let view = machine.start("shop/apps", "web");
    let record = machine.env.state(&format!("services/{}.json", view["hash"].as_str().unwrap()));
    let strip = || {
        let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        for field in ["root", "root_id", "file"] {
            fields.remove(field);
        }
        fs::write(&record, serde_json::to_vec(&fields).unwrap()).unwrap();
    };
    strip();
    for _ in 0..2 {
        machine.refuses_to_register(feat, "web", "~/shop", &format!("~/{feat}"));
        machine.refuses_to_name(feat, "web", "~/shop", &format!("~/{feat}"));
        machine.at("shop", ["stop", "web"]).ok();
    }
    outcome(&machine.at("shop", ["start", "web"]).ok().json(), "started");
    let text = || fs::read_to_string(&record).unwrap();
    assert!(!text().contains("root_id"), "only what registers a service says where it belongs");
    outcome(
        &machine.at("shop/apps", ["start", "--replace", "--key", "web"].iter().chain(&SLEEP)).ok().json(),
        "replaced",
    );
    assert!(text().contains("root_id"));
    strip();
    fs::remove_dir_all(machine.home("shop/apps")).unwrap();
    let taken = machine.at(feat, ["start", "--key", "web"].iter().chain(&SLEEP)).ok();
    outcome(&taken.json(), "replaced");
    assert!(taken.stderr.contains("~/shop/apps, which no longer exists"), "{taken:?}");
}

/// The ways to register a key that belonged to a directory: arguments, and whether they are `reserve`.
fn registrations() -> [(Vec<&'static str>, bool); 4] {
    let with_command = |start: &[&'static str]| start.iter().chain(&SLEEP).copied().collect::<Vec<_>>();
    [
        (with_command(&["start", "--key", "web"]), false),
        (vec!["start", "-f", "devport.yaml"], false),
        (vec!["run", "--restart", "never", "--key", "web", "--", "true"], false),
        (vec!["reserve", "--key", "web"], true),
    ]
}

#[test]
fn a_key_whose_directory_is_gone_is_taken_over_with_a_note_and_keeps_its_port() {
    for (arguments, is_reserve) in registrations() {
        for runs in [true, false] {
            let machine = Machine::new();
            let feat = machine.home("shop/.claude/worktrees/feat");
            let old = machine.start("shop/.claude/worktrees/feat", "web");
            fs::write(machine.home("linked/devport.yaml"), "- {key: web, exec: sleep 1000, ready: none}\n").unwrap();
            if !runs {
                machine.at("", ["stop", "web"]).ok();
            }
            machine.git.remove_worktree(&machine.env, &machine.home("shop"), &feat);
            let gone = "~/shop/.claude/worktrees/feat, which no longer exists";
            machine.refuses_to_name("linked", "web", gone, "~/linked");
            let taken = machine.at("linked", &arguments).ok();
            assert!(taken.stderr.contains(&format!("web belonged to {gone}")), "{arguments:?}: {taken:?}");
            assert!(!is_alive(pid(&old)), "{arguments:?}: the old service runs on");
            let new = machine.at("linked", ["which", "web"]).ok().json();
            assert_eq!((&new["port"], new["cwd"].as_str()), (&old["port"], machine.home("linked").to_str()));
            if is_reserve {
                assert_eq!((new["state"].as_str(), &new["cmd"]), (Some("stopped"), &old["cmd"]), "{new}");
            }
            // A service that still changes its state would change files too.
            until("it is settled", || {
                ["ready", "stopped"].contains(&machine.env.which("web")["state"].as_str().unwrap())
            });
            machine.refuses_to_register("shop", "web", "~/linked", "~/shop");
        }
    }
}

#[test]
fn the_outcome_says_whether_what_was_taken_over_ran() {
    for (runs, expected) in [(true, "replaced"), (false, "started")] {
        let machine = Machine::new();
        let feat = machine.home("shop/.claude/worktrees/feat");
        machine.start("shop/.claude/worktrees/feat", "web");
        if !runs {
            machine.at("", ["stop", "web"]).ok();
        }
        machine.git.remove_worktree(&machine.env, &machine.home("shop"), &feat);
        outcome(&machine.at("linked", ["start", "--key", "web"].iter().chain(&SLEEP)).ok().json(), expected);
    }
}

#[test]
fn a_checkout_that_was_deleted_and_made_again_does_not_get_what_ran_in_the_old_one() {
    let by_name = [(vec!["start", "web"], false), (vec!["restart", "web"], false), (vec!["run", "web"], false)];
    for (arguments, is_reserve) in registrations().into_iter().chain(by_name) {
        let machine = Machine::new();
        let feat = machine.home("shop/.claude/worktrees/feat");
        let old = machine.start("shop/.claude/worktrees/feat", "web");
        machine.git.remove_worktree(&machine.env, &machine.home("shop"), &feat);
        machine.git.worktree(&machine.env, &machine.home("shop"), &feat);
        fs::write(feat.join("devport.yaml"), "- {key: web, exec: sleep 1000}\n").unwrap();
        let mut command = machine.command("shop/.claude/worktrees/feat");
        let child = command.args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        let is_foreground = arguments == ["run", "web"];
        if is_foreground {
            until("it runs in the new directory", || {
                let view = machine.env.which("web");
                view["state"] == "ready" && view["pid"] != old["pid"]
            });
            machine.at("", ["stop", "web"]).ok();
        }
        let taken = done(child).ok();
        assert!(
            taken.stderr.contains("~/shop/.claude/worktrees/feat was deleted and created again"),
            "{arguments:?}: {taken:?}"
        );
        assert!(!is_alive(pid(&old)), "{arguments:?}: the old service runs on");
        let new = machine.at("shop/.claude/worktrees/feat", ["which", "web"]).ok().json();
        assert_eq!(new["port"], old["port"]);
        if !is_reserve && arguments[0] != "run" {
            let directory = fs::read_link(format!("/proc/{}/cwd", pid(&new))).unwrap();
            assert_eq!(directory, feat, "{arguments:?}");
        }
        // The note is printed once.
        let again = machine.at("shop/.claude/worktrees/feat", ["start", "--key", "web"].iter().chain(&SLEEP)).ok();
        assert!(!again.stderr.contains("created again"), "{arguments:?}: {again:?}");
    }
}

#[test]
fn a_directory_inside_of_a_checkout_that_is_made_again_changes_nothing() {
    let machine = Machine::new();
    let view = machine.start("shop/apps", "web");
    machine.at("shop", ["stop", "web"]).ok();
    fs::remove_dir_all(machine.home("shop/apps")).unwrap();
    machine.directory("shop/apps");
    machine.refuses_to_register("linked", "web", "~/shop", "~/linked");
    let again = machine.at("shop", ["start", "web"]).ok();
    outcome(&again.json(), "started");
    assert_eq!((again.json()["port"].clone(), again.stderr.as_str()), (view["port"].clone(), ""));
}

#[test]
fn every_command_that_changes_something_says_its_outcome() {
    let machine = Machine::new();
    let start = || ["start", "--key", "web"].iter().chain(&SLEEP);
    let replace = || ["start", "--replace", "--key", "web"].iter().chain(&SLEEP);
    fs::write(machine.home("shop/devport.yaml"), "- {key: web, exec: sleep 1000, ready: none}\n").unwrap();
    let says = |arguments: &[&str], expected: &str| outcome(&machine.at("shop", arguments).ok().json(), expected);
    outcome(&machine.at("shop", start()).ok().json(), "started");
    outcome(&machine.at("shop", start()).ok().json(), "already-running");
    says(&["start", "web"], "already-running");
    says(&["run", "web"], "already-running");
    says(&["run", "--key", "web", "--ready", "none", "--", "sleep", "1000"], "already-running");
    outcome(&machine.at("shop", replace()).ok().json(), "replaced");
    says(&["start", "--replace", "web"], "replaced");
    says(&["restart", "web"], "restarted");
    let several = machine.at("shop", ["start", "-f", "devport.yaml"]).ok().json();
    outcome(&several[0], "already-running");
    let several = machine.at("shop", ["start", "--replace", "-f", "devport.yaml"]).ok().json();
    outcome(&several[0], "already-running");
    fs::write(machine.home("shop/devport.yaml"), "- {key: web, exec: sleep 2000, ready: none}\n").unwrap();
    let several = machine.at("shop", ["start", "--replace", "-f", "devport.yaml"]).ok().json();
    outcome(&several[0], "replaced");
    says(&["stop", "web"], "stopped");
    says(&["stop", "web"], "not-running");
    outcome(&machine.at("shop", replace()).ok().json(), "started");
    says(&["stop", "--kill", "web"], "stopped");
    says(&["restart", "web"], "started");
    machine.start("shop", "api");
    let all = machine.at("shop", ["stop", "web", "api", "web"]).ok().json();
    assert_eq!(
        all.as_array().unwrap().iter().map(|view| view["outcome"].clone()).collect::<Vec<_>>(),
        ["stopped", "stopped"]
    );
    says(&["start", "web"], "started");
    let all = machine.at("shop", ["stop", "--all"]).ok().json();
    assert_eq!((all.as_array().unwrap().len(), all[0]["outcome"].as_str()), (1, Some("stopped")));
    says(&["rm", "web"], "removed");
    // Commands that only show a service print no note.
    let shown = machine.at("shop", ["which", "api"]).ok().json();
    assert!(shown.get("outcome").is_none_or(Value::is_null), "{shown}");
}

#[test]
fn of_two_checkouts_that_start_a_new_key_at_once_one_gets_it() {
    let machine = Machine::new();
    let directories = ["shop", "linked", "shop/.claude/worktrees/feat", "blog"];
    for directory in directories {
        fs::write(machine.home(directory).join("devport.yaml"), "- {key: filed, exec: sleep 1000}\n").unwrap();
    }
    for round in 0..12 {
        let key = if round % 3 == 2 { "filed".to_owned() } else { format!("key{round}") };
        let children: Vec<_> = directories
            .iter()
            .map(|directory| {
                let mut command = machine.command(directory);
                match round % 3 {
                    0 => command.args(["start", "--key", &key, "--", "sleep", "1000"]),
                    1 => command.args(["run", "--restart", "never", "--key", &key, "--", "sleep", "0.2"]),
                    _ => command.args(["start", "-f", "devport.yaml"]),
                };
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let ended: Vec<Done> = children.into_iter().map(done).collect();
        let codes: Vec<i32> = ended.iter().map(|done| done.code).collect();
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "round {round}: {ended:#?}");
        assert_eq!(codes.iter().filter(|code| **code == 6).count(), directories.len() - 1, "round {round}: {ended:#?}");
        for (directory, done) in directories.iter().zip(&ended) {
            if done.code == 6 {
                assert_eq!(done.stdout, "", "round {round}: {done:?}");
                assert!(done.stderr.contains(&format!("this is ~/{directory}\n")), "round {round}: {done:?}");
            } else {
                assert_eq!(
                    machine.at("", ["which", &key]).ok().json()["cwd"],
                    machine.home(directory).to_str().unwrap()
                );
            }
        }
        machine.at("", ["rm", &key]).ok();
    }
}

#[test]
fn reserve_beside_start_never_loses_the_command() {
    let machine = Machine::new();
    for round in 0..25 {
        let key = format!("key{round}");
        let spawn = |arguments: &[&str]| {
            let mut command = machine.command("shop");
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let start = ["start", "--detach", "--grace", "9s", "--key", &key, "--", "sleep", "1000"];
        let reserve = ["reserve", "--key", &key];
        let children = if round % 2 == 0 {
            [spawn(&start), spawn(&reserve), spawn(&reserve), spawn(&reserve)]
        } else {
            [spawn(&reserve), spawn(&reserve), spawn(&start), spawn(&reserve)]
        };
        for child in children {
            done(child).ok();
        }
        let view = machine.at("shop", ["which", &key]).ok().json();
        assert_eq!(view["cmd"], serde_json::json!(["sleep", "1000"]), "round {round}: {view}");
        let record =
            fs::read_to_string(machine.env.state(&format!("services/{}.json", view["hash"].as_str().unwrap())));
        let record: Value = serde_json::from_str(&record.unwrap()).unwrap();
        assert_eq!(record["policy"]["grace"], "9s", "round {round}: {record}");
        assert!(!record["env"].as_array().unwrap().is_empty(), "round {round}: {record}");
        machine.at("shop", ["restart", "--detach", &key]).ok();
        machine.at("shop", ["rm", &key]).ok();
    }
}

#[test]
fn reserve_decides_and_writes_under_one_hold_of_the_lock() {
    if strace::is_missing() {
        return;
    }
    let machine = Machine::new();
    let trace = machine.home("trace");
    let mut reserve = machine.env.command("strace");
    // The second lock is delayed long enough for a whole start in between.
    reserve.args(["-f", "-e", "trace=flock", "-e", "inject=flock:delay_enter=1s:when=2+", "-o"]).arg(&trace);
    reserve.args([DEVPORT, "reserve", "--key", "web"]).current_dir(machine.home("shop"));
    let reserve = reserve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it has the lock", || fs::read_to_string(&trace).is_ok_and(|text| text.contains("= 0")));
    machine.start("shop", "web");
    done(reserve).ok();
    let view = machine.at("shop", ["which", "web"]).ok().json();
    assert_eq!(view["cmd"], serde_json::json!(["sleep", "1000"]), "{view}");
}

#[test]
fn a_key_elsewhere_that_begins_a_hash_means_no_other_service() {
    let machine = Machine::new();
    let victim = machine.start("blog", "victim");
    let (hash, id) = (victim["hash"].as_str().unwrap(), victim["hashid"].as_str().unwrap());
    // Longer than the printed id: a key wins over it.
    let key = &hash[..=id.len()];
    machine.start("shop", key);
    for directory in ["blog", "linked"] {
        machine.refuses_to_name(directory, key, "~/shop", &format!("~/{directory}"));
    }
    assert_eq!(machine.at("shop", ["which", key]).ok().json()["key"], key);
    // A printed id still names the service, and so does the whole hash.
    machine.at("shop", ["rm", key]).ok();
    machine.start("shop", id);
    for target in [id, hash] {
        assert_eq!(machine.at("blog", ["which", target]).ok().json()["key"], "victim");
    }
    assert_eq!(machine.at("shop", ["which", id]).ok().json()["key"], id, "here it is a key");
}

#[test]
fn a_link_to_another_checkouts_file_is_a_file_of_this_one() {
    let machine = Machine::new();
    fs::write(machine.home("shop/devport.yaml"), "- {key: web, exec: sleep 1000, ready: none}\n").unwrap();
    machine.at("shop", ["start", "--wait", "-f", "devport.yaml"]).ok();
    let linked = machine.home("linked/devport.yaml");
    symlink(machine.home("shop/devport.yaml"), &linked).unwrap();
    machine.refuses(
        "linked",
        &["start", "-f", "devport.yaml"],
        &["web belongs to ~/shop (ready, port", "this is ~/linked\n"],
    );
    machine.at("shop", ["rm", "web"]).ok();
    let view = machine.at("linked", ["start", "-f", "devport.yaml"]).ok().json();
    assert_eq!(view[0]["cwd"], machine.home("linked").to_str().unwrap());
}

#[test]
fn a_file_that_is_no_regular_file_belongs_to_the_current_directory() {
    let machine = Machine::new();
    let script = format!("printf -- '- {{key: web, exec: sleep 1000}}\\n' | {DEVPORT} start -f /dev/stdin");
    let mut command = machine.env.command("sh");
    let view = machine.env.finish(command.current_dir(machine.home("shop")).args(["-c", &script])).ok().json();
    assert_eq!(view[0]["cwd"], machine.home("shop").to_str().unwrap());
    outcome(&machine.at("shop", ["stop", "web"]).ok().json(), "stopped");
}

#[test]
fn in_a_deleted_directory_ids_work_and_names_do_not() {
    let machine = Machine::new();
    let view = machine.start("shop", "web");
    machine.directory("deleted");
    let inside = |arguments: &str| {
        let script = format!(
            "rmdir ~/deleted; mkdir -p ~/deleted; cd ~/deleted && rmdir ~/deleted && exec {DEVPORT} {arguments}"
        );
        machine.env.finish(machine.env.command("sh").args(["-c", &script]))
    };
    let id = view["hashid"].as_str().unwrap();
    assert_eq!(inside(&format!("which {id}")).ok().json()["pid"], view["pid"]);
    assert_eq!(inside(&format!("port {}", view["port"])).ok().stdout, format!("{}\n", view["port"]));
    inside("ls").ok();
    inside("which web").fails(3, &["has been deleted"]);
    inside("which nosuch").fails(4, &["no service"]);
    inside("stop --all").ok();
}

#[test]
fn a_checkout_is_found_without_git_and_with_few_reads() {
    if strace::is_missing() {
        return;
    }
    let mut machine = Machine::new();
    // Executing git would leave a trace.
    let bin = machine.directory("bin");
    fs::write(bin.join("git"), format!("#!/bin/sh\ntouch {}/executed\n", machine.home("").display())).unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    machine.git.submodule(&machine.env, &machine.home("linked"));
    machine.env.prefer_programs_of(&bin);
    let feat = machine.home("shop/.claude/worktrees/feat");
    fs::write(
        machine.home("linked/devport.yaml"),
        format!("- {{key: filed, exec: sleep 1000, cwd: {}}}\n", feat.display()),
    )
    .unwrap();
    machine.start("linked/libs/sub", "web");
    machine.at("linked", ["start", "-f", "devport.yaml"]).ok();
    let commands: [(&str, &[&str]); 10] = [
        ("linked/libs/sub", &["start", "--key", "web", "--", "sleep", "1000"]),
        ("linked", &["start", "--replace", "--key", "web", "--", "sleep", "1000"]),
        ("linked", &["start", "--replace", "-f", "devport.yaml"]),
        ("linked/libs/sub", &["stop", "web"]),
        ("linked/libs/sub", &["start", "--key", "web", "--", "sleep", "1000"]),
        ("linked/libs/sub", &["restart", "web"]),
        ("linked", &["reserve", "--key", "web"]),
        ("shop/.claude/worktrees/feat", &["start", "--key", "web", "--", "sleep", "1000"]),
        ("shop/.claude/worktrees/feat", &["logs", "web"]),
        ("shop", &["which", "web"]),
    ];
    for (directory, arguments) in commands {
        let trace = machine.home("trace");
        let mut command = machine.env.command("strace");
        command.current_dir(machine.home(directory)).args(["-f", "-e", "trace=execve,open,openat,readlink,readlinkat"]);
        command.args(["-o", trace.to_str().unwrap(), DEVPORT]).args(arguments);
        let done = machine.env.finish(&mut command);
        assert!([0, 6].contains(&done.code), "{done:?}");
        let text = fs::read_to_string(&trace).unwrap();
        assert!(text.contains("execve"), "{text}");
        assert!(!text.lines().any(|line| line.contains("execve(") && line.contains("/git\"")), "{text}");
        let is_read = |line: &&str| line.contains("open") && (line.contains("/.git") || line.contains("/.jj"));
        // What finds the roots, and what git says about one of them.
        let (roots, more): (Vec<&str>, Vec<&str>) =
            text.lines().filter(is_read).partition(|line| line.contains("/.git\""));
        assert!(roots.len() <= 4 && more.len() <= 4, "{directory}: {arguments:?}: {roots:#?} {more:#?}");
    }
    assert!(!machine.home("executed").exists());
}

#[test]
fn a_command_that_waited_does_nothing_to_a_key_that_another_checkout_got_meanwhile() {
    if strace::is_missing() {
        return;
    }
    let machine = Machine::new();
    let view = machine.start("shop", "web");
    let hash = view["hash"].as_str().unwrap();
    let record = machine.env.state(&format!("services/{hash}.json"));
    let before = fs::read_to_string(&record).unwrap();
    for arguments in [&["rm", "web"][..], &["restart", "web"], &["start", "--replace", "web"], &["run", "web"]] {
        let lock = fs::File::open(machine.env.state(&format!("locks/{hash}.launch.lock"))).unwrap();
        lock.lock().unwrap();
        let trace = machine.home("trace");
        let mut command = machine.env.command("strace");
        command.args(["-e", "trace=flock", "-o"]).arg(&trace).arg(DEVPORT).args(arguments);
        command.current_dir(machine.home("shop")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until("it waits for the lock", || fs::read_to_string(&trace).is_ok_and(|text| text.contains("EAGAIN")));
        fs::write(&record, before.replace("home/shop\"", "home/blog\"")).unwrap();
        drop(lock);
        let done = done(child).fails(4, &["no service", "web"]);
        assert_eq!(done.stdout, "", "{arguments:?}");
        fs::write(&record, &before).unwrap();
        fs::remove_file(&trace).unwrap();
        assert_eq!(machine.at("shop", ["which", "web"]).ok().json()["pid"], view["pid"], "{arguments:?}");
    }
}

#[test]
fn a_fixed_port_of_another_checkout_is_never_to_be_removed() {
    let machine = Machine::new();
    let port = (machine.env.first_port + 39).to_string();
    let start = |directory: &str, key: &str| {
        machine.at(directory, ["start", "--key", key, "--port", &port].iter().chain(&SLEEP))
    };
    start("shop", "db").ok();
    for directory in ["linked", "shop/.claude/worktrees/feat", "blog"] {
        let says = [
            &format!("port {port} is reserved for db in ~/shop"),
            "or remove `port:` or `--port`, so that devport assigns one",
        ];
        let failed = start(directory, "db2").fails(1, &says.map(|part| part as &str));
        for part in DANGEROUS {
            assert!(!failed.stderr.contains(part), "{failed:?}");
        }
    }
    start("shop/apps", "db2")
        .fails(1, &["reserved for db in ~/shop", "`devport rm db` frees this one, and deletes its log"]);
    machine.at("shop", ["stop", "db"]).ok();
    fs::rename(machine.home("shop"), machine.home("away")).unwrap();
    let id = machine.env.ls()[0]["hashid"].as_str().unwrap().to_owned();
    start("blog", "db2").fails(1, &[&format!("`devport rm {id}` frees this one, and deletes its log")]);
    machine.at("blog", ["rm", &id]).ok();
    start("blog", "db2").ok();
}
