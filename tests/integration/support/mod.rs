//! `TestEnv`: an isolated environment for a test.

pub(crate) mod documents;
pub(crate) mod strace;
pub(crate) mod tailnet;
pub(crate) mod terminal;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time limit of every wait. Loaded machines are slow, and a passing test never waits so long.
const LIMIT: Duration = Duration::from_secs(30);
/// The number of ports of a test.
const PORTS: u16 = 40;
/// The state of a socket that listens (proc(5)).
const LISTEN: &str = "0A";
/// The first port for tests: above devport's default range, below the ephemeral ports of Linux.
const FIRST_GUARD: u16 = 20_000;
/// The number of tests that can have ports at the same time.
const BLOCKS: u16 = 300;

/// The path of the program under test.
pub(crate) const DEVPORT: &str = env!("CARGO_BIN_EXE_devport");

/// Polls until there is a value. Returns `None` after the time limit.
pub(crate) fn poll<T>(mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + LIMIT;
    let mut pause = Duration::from_millis(5);
    while Instant::now() < deadline {
        let value = check();
        if value.is_some() {
            return value;
        }
        std::thread::sleep(pause);
        // Most checks run devport, which takes 5 ms of CPU time, and several tests wait at the same time.
        pause = (pause * 5 / 4).min(Duration::from_millis(50));
    }
    None
}

/// Polls until there is a value; panics after the time limit.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    poll(check).unwrap_or_else(|| panic!("this did not happen in time: {what}"))
}

/// Polls until the condition holds; panics after the time limit.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An isolated environment: home, state directory, tmux server, ports.
pub(crate) struct TestEnv {
    directory: tempfile::TempDir,
    pub(crate) first_port: u16,
    variables: Vec<(String, String)>,
    /// Keeps the ports from other test runs: the process that listens here owns the ports after it.
    _guard: TcpListener,
}

/// Returns the first of a range of ports that no other test uses, in this process or another, and a guard. Connections that
/// an earlier test has closed count as use: they keep servers without `SO_REUSEADDR` away.
fn own_ports() -> (u16, TcpListener) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let block = NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS;
        let guard = FIRST_GUARD + (PORTS + 1) * block;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", guard)) {
            let used = used_ports(|_| true);
            if (guard + 1..=guard + PORTS).all(|port| !used.contains(&port)) {
                return (guard + 1, listener);
            }
        }
    }
}

/// Returns the local ports of the TCP sockets of this machine that are in a state. Binding the ports would show that too,
/// but a process that another test starts at that moment would keep the sockets until it executes its program.
fn used_ports(is_in_state: impl Fn(&str) -> bool) -> HashSet<u16> {
    let port = |line: &str| {
        // sl, local_address, rem_address, st (proc(5)).
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let port = fields.get(1)?.rsplit_once(':')?.1;
        fields.get(3).is_some_and(|state| is_in_state(state)).then(|| u16::from_str_radix(port, 16).ok())?
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(port)).collect()
}

/// Closes a listener, and waits until no process listens on its port: those that other tests start have the socket until
/// they execute their programs.
pub(crate) fn close(listener: TcpListener) {
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    until("nothing listens", || !used_ports(|state| state == LISTEN).contains(&port));
}

/// Writes an executable file. Another process writes it: this one might start a program for another test at that moment,
/// and until that is executed, the kernel refuses to execute the file (`ETXTBSY`).
pub(crate) fn write_program(path: impl AsRef<Path>, text: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path.as_ref()).stdin(Stdio::piped());
    let mut install = install.spawn().unwrap();
    install.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}

/// Returns `PATH` with the programs of the system first. Before them, version managers such as pyenv put scripts, which
/// take ten times longer to start.
pub(crate) fn system_path() -> String {
    format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap())
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let (first_port, guard) = own_ports();
        // Short, because the path of a Unix socket has at most 104 bytes on macOS.
        let directory = tempfile::Builder::new().prefix("dp").tempdir_in("/tmp").unwrap();
        let variables = vec![
            ("PATH".into(), system_path()),
            ("TERM".into(), "xterm-256color".into()),
            ("LC_ALL".into(), "C.UTF-8".into()),
            ("SHELL".into(), "/bin/sh".into()),
            ("DEVPORT_PORT_RANGE".into(), format!("{first_port}-{}", first_port + PORTS - 1)),
        ];
        let env = Self { directory, first_port, variables, _guard: guard };
        for name in ["home", "tmux", "work"] {
            fs::create_dir(env.path(name)).unwrap();
        }
        env
    }

    /// Adds a variable to the environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.into(), value.into()));
    }

    /// Puts a directory before the others of `PATH`.
    pub(crate) fn prefer_programs_of(&mut self, directory: &Path) {
        self.set("PATH", &format!("{}:{}", directory.display(), system_path()));
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The state directory.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path("state").join(name)
    }

    /// Creates a command with this environment, in the directory `work`.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.path("work")).stdin(Stdio::null());
        command.envs(self.variables.iter().cloned());
        command.env("HOME", self.path("home"));
        if !self.variables.iter().any(|(name, _)| name == "DEVPORT_HOME") {
            command.env("DEVPORT_HOME", self.path("state"));
        }
        command.env("TMUX_TMPDIR", self.path("tmux"));
        command
    }

    /// Runs devport and waits for its end.
    pub(crate) fn devport<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Done {
        self.finish(self.command(DEVPORT).args(arguments))
    }

    /// Runs a command and waits for its end.
    #[track_caller]
    #[expect(clippy::unused_self, reason = "reads as what it is: a command on this machine")]
    pub(crate) fn finish(&self, command: &mut Command) -> Done {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        done(child)
    }

    /// Starts devport without waiting.
    pub(crate) fn spawn<I: IntoIterator<Item: AsRef<OsStr>>>(&self, arguments: I) -> Child {
        self.command(DEVPORT).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a service and returns the printed view.
    #[track_caller]
    pub(crate) fn start(&self, key: &str, words: &[&str]) -> Value {
        self.devport(["start", "--key", key, "--"].iter().chain(words)).ok().json()
    }

    /// Starts a service detached and without a port. The options precede the command.
    #[track_caller]
    pub(crate) fn detach(&self, key: &str, options: &[&str], words: &[&str]) -> Value {
        let start = ["start", "--detach", "--no-port", "--key", key];
        self.devport(start.iter().chain(options).chain(&["--"]).chain(words)).ok().json()
    }

    /// The path of a service's file in a directory of the state directory.
    #[track_caller]
    pub(crate) fn state_file(&self, directory: &str, key: &str, ending: &str) -> PathBuf {
        let hash = self.which(key)["hash"].as_str().unwrap().to_owned();
        self.state(&format!("{directory}/{hash}.{ending}"))
    }

    /// Returns the processes of this environment whose command line contains a text.
    pub(crate) fn living(&self, text: &str) -> Vec<(i32, String)> {
        self.processes().into_iter().filter(|(_, command)| command.contains(text)).collect()
    }

    /// The files of services in the state directory.
    pub(crate) fn service_files(&self) -> Vec<PathBuf> {
        ["services", "run", "locks", "logs"]
            .iter()
            .flat_map(|name| fs::read_dir(self.state(name)).unwrap().flatten().map(|entry| entry.path()))
            .filter(|path| !path.ends_with("register.lock"))
            .collect()
    }

    #[track_caller]
    pub(crate) fn which(&self, target: &str) -> Value {
        self.devport(["which", target]).ok().json()
    }

    pub(crate) fn ls(&self) -> Vec<Value> {
        self.devport(["ls"]).ok().json().as_array().unwrap().clone()
    }

    /// What the supervisor of a service last recorded.
    pub(crate) fn run_state(&self, key: &str) -> Option<Value> {
        let hash = self.which(key)["hash"].as_str().unwrap().to_owned();
        serde_json::from_slice(&fs::read(self.state(&format!("run/{hash}.json"))).ok()?).ok()
    }

    /// The supervisor's pid.
    pub(crate) fn supervisor(&self, key: &str) -> i32 {
        number(&self.run_state(key).unwrap()["supervisor"]["pid"])
    }

    /// Suspends the supervisor of a service without a window while it waits for its next attempt to start it, so that the
    /// attempt does not come before the test goes on. A command that stops the service resumes its supervisor, and tmux
    /// resumes one in a window at once.
    #[track_caller]
    pub(crate) fn suspend_in(&self, key: &str, state: &str) {
        let supervisor = self.supervisor(key);
        until(&format!("{key} is suspended in {state}"), || {
            signal(supervisor, "STOP");
            until("the supervisor is suspended", || is_suspended(supervisor));
            let is_waiting = self.which(key)["state"] == state;
            if !is_waiting {
                signal(supervisor, "CONT");
            }
            is_waiting
        });
    }

    /// Waits until a service is in a state, and returns its view.
    #[track_caller]
    pub(crate) fn wait_state(&self, key: &str, state: &str) -> Value {
        eventually(&format!("{key} is {state}"), || {
            let done = self.devport(["which", key]);
            Some(done).filter(|done| done.code == 0).map(|done| done.json()).filter(|view| view["state"] == state)
        })
    }

    /// Runs tmux on the server of this machine.
    pub(crate) fn tmux(&self, arguments: &[&str]) -> Done {
        self.finish(self.command("tmux").args(arguments))
    }

    /// Writes a file into `work` and returns its path as text.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path("work").join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Replaces a file in `work` that a program reads meanwhile: it finds the old text or the new one, and never half of
    /// it.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        fs::rename(self.write(&format!("{name}.new"), text), self.file(name)).unwrap();
    }

    /// A file in `work` that does not exist yet.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path("work").join(name).to_str().unwrap().to_owned()
    }

    /// Returns the living processes whose environment names this state directory.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let marker = self.directory.path().to_str().unwrap().as_bytes().to_vec();
        all_pids()
            .into_iter()
            .filter_map(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
                let ours = environment.windows(marker.len()).any(|window| window == marker);
                (ours && is_alive(pid) && pid != i32::try_from(std::process::id()).unwrap())
                    .then(|| (pid, command_line(pid)))
            })
            .collect()
    }
}

impl TestEnv {
    /// Returns the living processes of this environment whose command line contains a text. Processes of other tests
    /// and programs do not count.
    pub(crate) fn processes_with(&self, text: &str) -> Vec<i32> {
        self.processes().into_iter().filter(|(_, line)| line.contains(text)).map(|(pid, _)| pid).collect()
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let _ = self.command(DEVPORT).args(["stop", "--all"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self
            .command("timeout")
            .args(["10", "tmux", "kill-server"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let deadline = Instant::now() + if failing { Duration::from_secs(5) } else { LIMIT };
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.processes();
        for (pid, _) in &left {
            signal(*pid, "KILL");
        }
        assert!(failing || left.is_empty(), "left behind: {left:?}");
    }
}

/// Waits for a child and its output, up to the time limit.
#[track_caller]
pub(crate) fn done(child: Child) -> Done {
    let pid = i32::try_from(child.id()).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(LIMIT * 2) else {
        signal(pid, "KILL");
        panic!("pid {pid} did not end: {}", command_line(pid));
    };
    let Output { status, stdout, stderr } = output.unwrap();
    Done {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Returns whether a program is installed; if not, reports that the test is skipped.
pub(crate) fn has_program(name: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        skip(&format!("there is no {name} on this machine"));
    }
    found
}

/// Sends a signal by its name. A missing process is not an error.
pub(crate) fn signal(pid: i32, name: &str) {
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status();
}

pub(crate) fn all_pids() -> Vec<i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    process_state(pid).is_some_and(|state| !['Z', 'X'].contains(&state))
}

/// Returns the state of a process as proc(5) names it, such as `S` for one that sleeps; `None` if there is none.
pub(crate) fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Returns whether a process is suspended by SIGSTOP.
fn is_suspended(pid: i32) -> bool {
    process_state(pid) == Some('T')
}

pub(crate) fn command_line(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

#[track_caller]
pub(crate) fn number(value: &Value) -> i32 {
    i32::try_from(value.as_i64().unwrap_or_else(|| panic!("{value} is no number"))).unwrap()
}

#[track_caller]
pub(crate) fn port(value: &Value) -> u16 {
    u16::try_from(number(&value["port"])).unwrap()
}

/// Reports that the running test is skipped. Writes to standard error itself, because the output of `eprintln!` is
/// shown for failing tests only.
pub(crate) fn skip(why: &str) {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped {}: {why}", test.name().unwrap_or("a test"));
}

/// Returns whether a service runs: without a port it is ready after a second.
pub(crate) fn is_up(view: &Value) -> bool {
    view["state"] == "running" || view["state"] == "ready"
}

/// Returns whether a port accepts connections.
pub(crate) fn answers(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A command for a server that answers on `$PORT`.
pub(crate) const SERVER: [&str; 6] = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "$PORT"];
