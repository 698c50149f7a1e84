//! A service is stopped once and has its whole grace period: only a second signal or `--kill` cuts it short.

use std::fs;
use std::path::Path;
use std::process::Child;

use serde_json::Value;

use crate::support::strace::{self, Fault, UNLINK};
use crate::support::{TestEnv, done, is_alive, is_up, number, process_state, signal, until};

/// What a database prints if it was killed, and what it prints if it could finish.
const KILLED: &str = "begin\n";
const CLEAN: &str = "begin\nclean\n";

/// The option for a grace period that is long enough for a busy machine.
const GRACE: [&str; 2] = ["--grace", "40s"];

/// A program that needs a second to end, and goes on while the file `busy` exists, like a database.
struct Database {
    script: String,
    out: String,
}

impl Database {
    fn new(env: &TestEnv) -> Self {
        let out = env.file("out");
        let script = format!(
            "trap '' HUP\ntrap 'sleep 1; while [ -e busy ]; do sleep 0.01; done; echo clean >> {out}; exit 0' TERM\necho begin >> {out}\nwhile :; do sleep 0.05; done\n"
        );
        Self { script: env.write("db.sh", &script), out }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Starts it as the service `db`.
    fn start(env: &TestEnv, options: &[&str]) -> Self {
        let database = Self::new(env);
        env.detach("db", &[&GRACE, options].concat(), &["sh", &database.script]);
        until("it is up", || database.said() == KILLED);
        database
    }

    /// Starts it in a window.
    fn start_in_window(env: &TestEnv) -> Self {
        let database = Self::new(env);
        let start = [&["start", "--key", "db"][..], &GRACE, &["--", "sh", &database.script]].concat();
        env.devport(start).ok();
        until("it is up", || database.said() == KILLED);
        database
    }
}

/// Waits until the supervisor has recorded that it stops its service.
fn until_stopping(env: &TestEnv, key: &str) {
    let run_state = env.state_file("run", key, "json");
    until("it is stopping", || {
        let text = fs::read(&run_state).unwrap_or_default();
        serde_json::from_slice::<Value>(&text).is_ok_and(|run| run["state"] == "stopping")
    });
}

fn stopping(env: &TestEnv, database: &Database) -> Child {
    let stop = env.spawn(["stop", "db"]);
    until_stopping(env, "db");
    assert_eq!(database.said(), KILLED);
    stop
}

#[test]
fn a_second_command_waits_for_the_stop_that_is_under_way() {
    for second in [&["stop", "db"][..], &["stop", "--all"], &["rm", "db"]] {
        let env = TestEnv::new();
        let database = Database::start(&env, &[]);
        env.write("busy", "");
        let first = stopping(&env, &database);
        let second_command = env.spawn(second);
        let pid = i32::try_from(second_command.id()).unwrap();
        until("the second command waits", || process_state(pid) == Some('S'));
        fs::remove_file(env.file("busy")).unwrap();
        done(second_command).ok();
        done(first).ok();
        assert_eq!(database.said(), CLEAN, "{second:?}");
    }
}

#[test]
fn a_stop_of_a_service_whose_window_was_closed_waits_for_its_end() {
    let env = TestEnv::new();
    let database = Database::start_in_window(&env);
    env.tmux(&["kill-window", "-t", "=devport:db"]).ok();
    until_stopping(&env, "db");
    env.devport(["stop", "db"]).ok();
    assert_eq!(database.said(), CLEAN);
}

#[test]
fn a_signal_and_a_closed_window_at_once_are_one_stop() {
    let env = TestEnv::new();
    let database = Database::start_in_window(&env);
    let supervisor = env.supervisor("db");
    // All signals of a logout are pending when the supervisor continues.
    signal(supervisor, "STOP");
    env.tmux(&["kill-server"]).ok();
    signal(supervisor, "TERM");
    signal(supervisor, "CONT");
    until("the supervisor is gone", || !is_alive(supervisor));
    assert_eq!(database.said(), CLEAN);
}

#[test]
fn a_stop_waits_for_what_a_finished_command_left() {
    let env = TestEnv::new();
    let database = Database::new(&env);
    let go = env.file("go");
    let script = format!("sh {} & while [ ! -e {go} ]; do sleep 0.01; done", database.script);
    env.detach("db", &[&GRACE[..], &["--restart", "never"]].concat(), &["sh", "-c", &script]);
    until("it is up", || database.said() == KILLED);
    fs::write(&go, "").unwrap();
    until_stopping(&env, "db");
    env.devport(["stop", "db"]).ok();
    assert_eq!(database.said(), CLEAN);
}

/// Starts the service `deaf`, which ignores SIGTERM and has a longer grace period than a test waits.
fn start_deaf(env: &TestEnv) -> i32 {
    let up = env.file("up");
    let _ = fs::remove_file(&up);
    let script = format!("trap '' TERM HUP INT; : > {up}; while :; do sleep 0.1; done");
    let view = env.detach("deaf", &["--grace", "90s"], &["sh", "-c", &script]);
    until("the trap is set", || Path::new(&up).exists());
    number(&view["pid"])
}

#[test]
fn stop_with_kill_waits_for_nothing() {
    let env = TestEnv::new();
    let child = start_deaf(&env);
    env.devport(["stop", "--kill", "deaf"]).ok();
    assert!(!is_alive(child));
    // `--kill` also cuts a stop short that is under way.
    let child = start_deaf(&env);
    let stop = env.spawn(["stop", "deaf"]);
    until_stopping(&env, "deaf");
    env.devport(["stop", "--kill", "deaf"]).ok();
    assert_eq!(done(stop).ok().json()["state"], "stopped");
    assert!(!is_alive(child));
    assert_eq!(env.processes(), []);
}

#[test]
fn stop_with_kill_gives_orphans_no_grace_period() {
    let env = TestEnv::new();
    let up = env.file("up");
    let deaf = env.write("deaf.sh", &format!("trap '' TERM HUP\n: > {up}\nwhile :; do sleep 0.1; done\n"));
    // The helper has its own session; the kernel kills the child itself with its supervisor.
    env.detach("deaf", &["--grace", "90s"], &["sh", "-c", &format!("setsid sh {deaf} & exec sleep 1000")]);
    until("the trap is set", || Path::new(&up).exists());
    let supervisor = env.supervisor("deaf");
    signal(supervisor, "KILL");
    until("the supervisor is gone", || !is_alive(supervisor));
    env.devport(["stop", "--kill", "deaf"]).ok();
    assert_eq!(env.processes(), []);
}

#[test]
fn a_second_interrupt_kills_what_runs_in_the_foreground() {
    let env = TestEnv::new();
    let up = env.file("up");
    let script = format!("trap '' TERM HUP INT; : > {up}; while :; do sleep 0.1; done");
    let run = env.spawn(["run", "--key", "a", "--no-port", "--grace", "90s", "--", "sh", "-c", &script]);
    until("the trap is set", || Path::new(&up).exists());
    let pid = i32::try_from(run.id()).unwrap();
    signal(pid, "INT");
    until_stopping(&env, "a");
    signal(pid, "INT");
    done(run).ok();
    assert_eq!(env.processes(), []);
}

#[test]
fn a_stop_of_orphans_does_not_end_their_successor() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("race", &[], &["sleep", "1000"]);
    let supervisor = env.supervisor("race");
    signal(supervisor, "KILL");
    until("the supervisor is gone", || !is_alive(supervisor));
    let scan = Fault { calls: "getdents64", path: Some(Path::new("/proc")), effect: "delay_enter=1000000:when=1" };
    let stop = env.delayed(scan, ["stop", "race"]);
    let started = env.devport(["start", "--detach", "--no-port", "--key", "race", "--", "sleep", "2000"]);
    let stopped = done(stop);
    started.ok();
    stopped.ok();
    let view = env.which("race");
    assert!(is_up(&view) && view["restarts"] == 0, "{view}");
    assert!(is_alive(number(&view["pid"])));
    assert!(!env.devport(["logs", "race"]).ok().stdout.contains("killed by"));
}

#[test]
fn a_command_that_holds_a_services_lock_is_not_signalled() {
    if strace::is_missing() {
        return;
    }
    for command in [
        &["stop", "a"][..],
        &["stop", "--kill", "a"],
        &["stop", "--all"],
        &["restart", "--detach", "a"],
        &["signal", "a"],
        &["signal", "-s", "USR1", "a"],
    ] {
        let env = TestEnv::new();
        env.detach("a", &[], &["sleep", "1000"]);
        let record = env.state_file("services", "a", "json");
        let removing = Fault { calls: UNLINK, path: Some(&record), effect: "delay_enter=1000000:when=1" };
        let rm = env.delayed(removing, ["rm", "a"]);
        let other = env.devport(command);
        let removed = done(rm);
        assert_eq!(removed.code, 0, "{command:?}: {removed:?}");
        // It may come before the end or after it.
        assert!([0, 1, 4].contains(&other.code), "{command:?}: {other:?}");
        assert_eq!(env.service_files(), Vec::<std::path::PathBuf>::new(), "{command:?}");
        assert_eq!(env.processes(), [], "{command:?}");
    }
}
