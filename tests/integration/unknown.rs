//! If the system cannot be queried, the state is unknown: devport assumes no process to be dead, and reports no success
//! that it did not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::strace::{self, Fault};
use crate::support::{DEVPORT, TestEnv, done, eventually, is_alive, is_up, number, signal, skip, until};

/// Errors of a system that is short of something, by name.
const SHORTAGES: [(&str, &str); 4] = [
    ("EMFILE", "too many open files"),
    ("ENFILE", "too many open files in system"),
    ("ENOMEM", "cannot allocate memory"),
    ("EIO", "input/output error"),
];

fn opening<'a>(path: &'a Path, effect: &'a str) -> Fault<'a> {
    Fault { calls: "openat", path: Some(path), effect }
}

#[test]
fn a_stop_that_cannot_open_files_says_so() {
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    for limit in 3..=8 {
        let stop = format!("ulimit -n {limit}; exec {DEVPORT} stop a");
        let stopped = env.finish(env.command("sh").args(["-c", &stop]));
        if stopped.code == 0 {
            assert_eq!(env.living("sleep 1000"), [], "{limit}: {stopped:?}");
        } else {
            let is_named = stopped.stderr.contains("too many open files") || stopped.stderr.contains("shared object");
            assert!(is_named, "{limit}: {stopped:?}");
        }
    }
}

#[test]
fn a_supervisor_that_cannot_be_checked_does_not_count_as_gone() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    let supervisor = env.supervisor("a");
    let status = PathBuf::from(format!("/proc/{supervisor}/stat"));
    let boot_id = PathBuf::from("/proc/sys/kernel/random/boot_id");
    let run_state = env.state_file("run", "a", "json");
    for (error, name) in SHORTAGES {
        for path in [&status, &boot_id, &run_state] {
            for command in ["stop", "restart"] {
                let effect = format!("error={error}");
                let done = env.finish(&mut env.faulty(opening(path, &effect), [command, "a"]));
                assert_eq!(done.code, 1, "{command} {path:?}: {done:?}");
                assert!(done.stderr.contains(name), "{command} {path:?}: {done:?}");
            }
        }
    }
    // The service was not ended, and no end was recorded.
    assert_eq!(env.supervisor("a"), supervisor);
    assert!(is_up(&env.which("a")));
    env.devport(["stop", "a"]).ok();
    assert_eq!(env.processes(), []);
}

#[test]
fn orphans_that_cannot_be_searched_for_do_not_count_as_gone() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    // The leader has ended: only a scan finds the other processes.
    env.detach("a", &[], &["sh", "-c", "setsid sleep 7020 & exec sleep 1000"]);
    let (child, supervisor) = (number(&env.which("a")["pid"]), env.supervisor("a"));
    until("both run", || {
        let processes = env.living("sleep");
        ["sleep 7020", "sleep 1000"].iter().all(|line| processes.iter().any(|(_, command)| command.starts_with(line)))
    });
    signal(supervisor, "STOP");
    signal(child, "KILL");
    signal(supervisor, "KILL");
    until("both are gone", || !is_alive(supervisor) && !is_alive(child));
    let run_state = env.state_file("run", "a", "json");
    for (error, name) in SHORTAGES {
        for fault in [
            Fault { calls: "openat", path: Some(Path::new("/proc")), effect: &format!("error={error}") },
            Fault { calls: "getdents64", path: Some(Path::new("/proc")), effect: &format!("error={error}") },
            Fault { calls: "openat", path: Some(&run_state), effect: &format!("error={error}") },
        ] {
            let done = env.finish(&mut env.faulty(fault, ["stop", "a"]));
            assert_eq!(done.code, 1, "{fault:?}: {done:?}");
            assert!(done.stderr.contains(name), "{fault:?}: {done:?}");
        }
    }
    assert_eq!(env.which("a")["state"], "orphaned");
    env.devport(["stop", "a"]).ok();
    assert_eq!(env.processes(), []);
}

#[test]
fn a_supervisor_that_cannot_list_its_tree_retries() {
    if strace::is_missing() {
        return;
    }
    for first in 1..=6 {
        let env = TestEnv::new();
        let up = env.file("up");
        let deaf = env.write("deaf.sh", &format!("trap '' TERM HUP\n: > {up}\nwhile :; do sleep 0.1; done\n"));
        env.detach("a", &["--grace", "1s"], &["sh", "-c", &format!("setsid sh {deaf} & exec sleep 1000")]);
        until("the trap is set", || Path::new(&up).exists());
        let supervisor = env.supervisor("a");
        let tasks = PathBuf::from(format!("/proc/{supervisor}/task"));
        let effect = format!("error=ENFILE:when={first}");
        let _disturbance = env.disturb(supervisor, opening(&tasks, &effect));
        env.devport(["stop", "a"]).ok();
        assert_eq!(env.living("deaf.sh"), [], "{first}");
    }
}

#[test]
fn a_supervisor_that_can_never_list_its_tree_still_ends_its_child() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    let child = number(&env.detach("a", &[], &["sleep", "1000"])["pid"]);
    let supervisor = env.supervisor("a");
    let tasks = PathBuf::from(format!("/proc/{supervisor}/task"));
    let disturbance = env.disturb(supervisor, opening(&tasks, "error=ENFILE"));
    let stop = env.spawn(["stop", "a"]);
    // strace loses a signal that is just being delivered when it detaches: the supervisor must have handled SIGCHLD.
    until("its child is reaped", || !Path::new(&format!("/proc/{child}")).exists());
    assert_eq!(env.which("a")["status"], "running", "the end is not proved");
    drop(disturbance);
    assert_eq!(done(stop).ok().json()["state"], "stopped");
}

#[test]
fn a_start_that_fails_names_the_cause() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    let paths = [
        env.state_file("services", "a", "json"),
        env.state_file("run", "a", "json"),
        env.state_file("locks", "a", "lock"),
        PathBuf::from("/proc/sys/kernel/random/boot_id"),
    ];
    env.devport(["stop", "a"]).ok();
    let mut failed = 0;
    for path in &paths {
        for turn in 1..=8 {
            let effect = format!("error=EMFILE:when={turn}");
            // The supervisor is traced too, and strace ends with it.
            let mut start = env.faulty(opening(path, &effect), ["start", "--detach", "a"]);
            let mut start = start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            strace::until_traced_ends(&mut start);
            let started = std::thread::spawn(move || done(start));
            // A start that fails may leave a supervisor that is about to run.
            until("it is stopped", || env.devport(["stop", "a"]).code == 0 && started.is_finished());
            let started = started.join().unwrap();
            // The stop may have come before `start` saw the service run.
            if started.code != 0 && !started.stderr.contains("it was stopped immediately") {
                failed += 1;
                assert!(started.stderr.contains("too many open files"), "{path:?} {turn}: {started:?}");
            }
        }
    }
    assert!(failed > 4, "{failed} starts failed");
}

#[test]
fn a_directory_that_cannot_be_entered_is_reported_with_the_cause() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    let directory = env.path("work/inner");
    fs::create_dir(&directory).unwrap();
    let mut register = env.command(DEVPORT);
    register.current_dir(&directory).args(["start", "--detach", "--no-port", "--key", "a", "--", "sleep", "1000"]);
    env.finish(&mut register).ok();
    env.devport(["stop", "a"]).ok();
    let entering = Fault { calls: "chdir,statx", path: Some(&directory), effect: "error=EACCES" };
    let started = env.finish(&mut env.faulty(entering, ["start", "--detach", "a"]));
    started.fails(1, &["inner", "permission denied"]);
}

#[test]
fn what_cannot_be_read_is_neither_missing_nor_starting() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    env.detach("b", &[], &["sleep", "1000"]);
    let (record, run_state) = (env.state_file("services", "a", "json"), env.state_file("run", "a", "json"));
    let listed = env.finish(&mut env.faulty(opening(&record, "error=EMFILE"), ["ls"]));
    assert_eq!(listed.json().as_array().unwrap().len(), 1, "{listed:?}");
    listed.fails(1, &["too many open files"]);
    let listed = env.finish(&mut env.faulty(opening(&run_state, "error=EMFILE"), ["ls"])).json();
    let view = listed.as_array().unwrap().iter().find(|view| view["key"] == "a").unwrap();
    assert_eq!(view["state"], "unknown", "{view}");
    assert!(view["error"].as_str().unwrap().contains("too many open files"), "{view}");
}

/// A file system of 64 KiB, until this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a line of output, where nothing can be mounted.
    fn new() -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("dp").tempdir_in("/tmp").unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(directory.path());
        let is_mounted =
            mount.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !is_mounted {
            skip("a file system cannot be mounted here");
            return None;
        }
        Some(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Fills the remaining space.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.path("full")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

#[test]
fn on_a_full_disk_no_dead_process_is_shown_as_running() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut env = TestEnv::new();
    env.set("DEVPORT_HOME", disk.path("state").to_str().unwrap());
    let first = number(&env.detach("a", &["--backoff-initial", "100ms"], &["sleep", "1000"])["pid"]);
    disk.fill();
    signal(first, "KILL");
    until("its child is gone", || !Path::new(&format!("/proc/{first}")).exists());
    let successor = || env.living("sleep 1000").into_iter().map(|(pid, _)| pid).find(|pid| *pid != first);
    let second = eventually("another one runs", successor);
    let view = env.which("a");
    assert_eq!(view["state"], "unknown", "{view}");
    assert!(view["error"].as_str().unwrap().contains("has not recorded the end"), "{view}");
    fs::remove_file(disk.path("full")).unwrap();
    let view = eventually("its state is recorded", || {
        Some(env.which("a")).filter(|view| is_up(view) && view["pid"] == second)
    });
    assert_eq!(view["restarts"], 1, "{view}");
    env.devport(["stop", "a"]).ok();
}
