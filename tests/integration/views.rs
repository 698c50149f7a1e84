//! Views of a service that other commands start, stop, restart and remove meanwhile.

use std::fs;
use std::path::PathBuf;

use crate::support::strace::{self, Fault, UNLINK};
use crate::support::{TestEnv, done, is_alive, is_up, number, until};

const DELAY: &str = "delay_enter=1000000:when=1";

#[test]
fn a_view_never_shows_two_moments_as_one() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    let (run_state, lock) = (env.state_file("run", "a", "json"), env.state_file("locks", "a", "lock"));
    for path in [&run_state, &lock] {
        for first in ["stop", "start"] {
            let then = if first == "stop" { "start" } else { "stop" };
            let change = |command: &str| match command {
                "stop" => env.devport(["stop", "a"]).ok(),
                _ => env.devport(["start", "--detach", "a"]).ok(),
            };
            change(first);
            let fault = Fault { calls: "openat", path: Some(path), effect: DELAY };
            let ls = env.delayed(fault, ["ls"]);
            change(then);
            let listed = done(ls).ok();
            let view = &listed.json()[0];
            let state = view["state"].as_str().unwrap();
            assert!(is_up(view) || ["stopped", "stopping", "starting"].contains(&state), "{path:?} {then}: {view}");
            assert!(view["error"].is_null(), "{path:?} {then}: {view}");
        }
    }
}

#[test]
fn a_view_of_a_service_that_is_just_stopped_knows_its_state() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    for turn in 1..=3 {
        // A view checks by `kill` whether the recorded child exists.
        let effect = format!("delay_enter=1000000:when={turn}");
        let ls = env.delayed(Fault { calls: "kill", path: None, effect: &effect }, ["ls"]);
        env.devport(["stop", "a"]).ok();
        let view = done(ls).ok().json()[0].clone();
        assert!(is_up(&view) || view["state"] == "stopping" || view["state"] == "stopped", "{turn}: {view}");
        assert!(view["error"].is_null(), "{turn}: {view}");
        env.devport(["start", "--detach", "a"]).ok();
    }
}

#[test]
fn a_suspended_view_keeps_no_service_from_starting() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let lock = env.state_file("locks", "a", "lock");
    for calls in ["flock", "fcntl"] {
        // If a view takes any lock, it holds it for 3 s here.
        let ls = env.delayed(Fault { calls, path: Some(&lock), effect: "delay_exit=3000000:when=1" }, ["ls"]);
        env.devport(["start", "--detach", "a"]).ok();
        env.devport(["stop", "a"]).ok();
        done(ls).ok();
    }
}

#[test]
fn a_restart_or_start_beside_rm_leaves_nothing() {
    if strace::is_missing() {
        return;
    }
    for command in [&["restart", "--detach", "a"][..], &["start", "--detach", "a"]] {
        let env = TestEnv::new();
        env.detach("a", &[], &["sleep", "1000"]);
        let record = env.state_file("services", "a", "json");
        let rm = env.delayed(Fault { calls: UNLINK, path: Some(&record), effect: DELAY }, ["rm", "a"]);
        let other = env.devport(command);
        done(rm).ok();
        other.fails(4, &["no service matching \"a\""]);
        assert_eq!(env.service_files(), Vec::<PathBuf>::new(), "{command:?}");
        assert_eq!(env.processes(), [], "{command:?}");
    }
}

#[test]
fn a_signal_that_was_sent_is_not_a_failure_when_its_service_is_removed() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    // The signal is sent, and the view is not printed yet.
    let fault = Fault { calls: "pidfd_send_signal", path: None, effect: "delay_exit=1000000" };
    let signal = env.delayed(fault, ["signal", "-s", "CONT", "a"]);
    env.devport(["rm", "a"]).ok();
    let sent = done(signal).ok();
    assert!(sent.stderr.contains("sent SIGCONT to a"), "{sent:?}");
}

#[test]
fn a_stop_of_several_goes_on_when_one_is_removed_meanwhile() {
    if strace::is_missing() {
        return;
    }
    for reading in 1..=3 {
        let env = TestEnv::new();
        env.detach("a", &[], &["sleep", "1000"]);
        let b = number(&env.detach("b", &[], &["sleep", "1000"])["pid"]);
        let record = env.state_file("services", "a", "json");
        let effect = format!("delay_enter=1000000:when={reading}");
        let stop = env.delayed(Fault { calls: "openat", path: Some(&record), effect: &effect }, ["stop", "a", "b"]);
        let removed = env.devport(["rm", "a"]);
        let stopped = done(stop);
        removed.ok();
        // Before the first reading the service is missing; then nothing is stopped, and the command reports that.
        if reading > 1 || stopped.code == 0 {
            assert!(!is_alive(b), "{reading}: {stopped:?}");
        } else {
            stopped.fails(4, &["no service matching \"a\""]);
        }
    }
}

/// Starts `good` and `bad`, and truncates the record of `bad`; returns its bytes.
fn with_corrupt_record(env: &TestEnv) -> (PathBuf, Vec<u8>) {
    env.detach("good", &[], &["sleep", "1000"]);
    env.detach("bad", &[], &["sleep", "1000"]);
    let record = env.state_file("services", "bad", "json");
    let bytes = fs::read(&record).unwrap();
    fs::write(&record, &bytes[..bytes.len() - 9]).unwrap();
    (record, bytes)
}

#[test]
fn a_corrupt_record_is_named_and_the_others_are_handled() {
    let env = TestEnv::new();
    let (record, bytes) = with_corrupt_record(&env);
    let name = record.file_name().unwrap().to_str().unwrap();
    let good = env.supervisor("good");
    env.devport(["restart", "--detach", "bad", "good"]).fails(1, &[name, "1 of 2"]);
    assert_ne!(env.supervisor("good"), good);
    env.wait_state("good", "ready");
    env.devport(["wait", "bad", "good"]).fails(1, &[name, "1 of 2"]);
    env.devport(["stop", "bad", "good"]).fails(1, &[name, "1 of 2"]);
    assert_eq!(env.which("good")["state"], "stopped");
    env.devport(["start", "--detach", "good"]).ok();
    env.devport(["stop", "--all"]).fails(1, &[name]);
    assert_eq!(env.which("good")["state"], "stopped");
    assert_eq!(env.ls().len(), 1);
    fs::write(&record, bytes).unwrap();
    until("the other one runs as before", || is_up(&env.which("bad")));
    env.devport(["stop", "--all"]).ok();
    assert_eq!(env.processes(), []);
}
