//! Records: written only when they change, and never lost by a temporary failure.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::support::strace::{self, Fault};
use crate::support::{DEVPORT, TestEnv, done, is_up, port, until};

/// The record of a service.
fn record(env: &TestEnv, view: &serde_json::Value) -> PathBuf {
    env.state(&format!("services/{}.json", view["hash"].as_str().unwrap()))
}

fn inode(path: &PathBuf) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn starts_and_stops_leave_a_recent_record_alone() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let path = record(&env, &view);
    let before = inode(&path);
    env.devport(["stop", "a"]).ok();
    let stopped = env.which("a");
    env.devport(["start", "a"]).ok();
    env.devport(["signal", "a"]).ok();
    env.devport(["stop", "a"]).ok();
    assert_eq!(inode(&path), before, "a rewritten record is another file");
    // The heartbeat is the modification time of the lock file.
    // As texts, times with fewer digits compare wrongly.
    let last_up = |view: &serde_json::Value| view["last_up"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(last_up(&env.which("a")) > last_up(&stopped));
    assert!(last_up(&stopped) > last_up(&view));
}

#[test]
fn an_old_last_up_is_renewed_at_a_start() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let path = record(&env, &view);
    let old = fs::read_to_string(&path).unwrap().replace(view["last_up"].as_str().unwrap(), "2026-01-01T00:00:00Z");
    fs::write(&path, &old).unwrap();
    env.devport(["start", "a"]).ok();
    until("the record has a new last_up", || !fs::read_to_string(&path).unwrap().contains("2026-01-01"));
}

#[test]
fn a_port_reserved_for_a_service_without_one_keeps_the_rest() {
    let env = TestEnv::new();
    let words = ["start", "--key", "a", "--no-port", "--restart", "on-failure", "--grace", "9s", "--", "sleep", "1000"];
    let view = env.devport(words).ok().json();
    let before: serde_json::Value = serde_json::from_slice(&fs::read(record(&env, &view)).unwrap()).unwrap();
    let reserved = env.devport(["reserve", "--key", "a"]).ok().stdout;
    assert_eq!(reserved.trim(), env.first_port.to_string());
    let after: serde_json::Value = serde_json::from_slice(&fs::read(record(&env, &view)).unwrap()).unwrap();
    for field in ["cmd", "env", "policy", "cwd"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(port(&after), env.first_port);
    env.devport(["restart", "a"]).ok();
}

#[test]
fn a_record_that_cannot_be_read_for_a_moment_keeps_its_port() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.devport(["reserve", "--key", "keep"]).ok();
    let path = record(&env, &env.which("keep"));
    let trace = ["-f", "-qq", "-o", "/dev/null", "-P", path.to_str().unwrap(), "-e", "trace=openat"];
    for error in ["EMFILE", "EACCES", "EIO"] {
        let inject = format!("inject=openat:error={error}");
        let mut command = env.command("strace");
        command.args(trace).args(["-e", &inject, DEVPORT, "reserve", "--key", "new"]);
        env.finish(&mut command).fails(1, &["could not read", path.to_str().unwrap()]);
    }
    let new = env.devport(["reserve", "--key", "new"]).ok().stdout;
    assert_eq!(new.trim(), (env.first_port + 1).to_string());
}

#[test]
fn a_record_without_a_readable_port_ends_registrations_with_its_name() {
    let env = TestEnv::new();
    env.devport(["reserve", "--key", "port"]).ok();
    let path = record(&env, &env.which("port"));
    let whole = fs::read(&path).unwrap();
    // The port can be read, although the key is `port`.
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    assert_eq!(env.devport(["reserve", "--key", "b"]).ok().stdout.trim(), (env.first_port + 1).to_string());
    fs::write(&path, b"").unwrap();
    env.devport(["reserve", "--key", "c"]).fails(1, &[path.to_str().unwrap(), "mv "]);
    // A service that has its port needs no free one.
    env.devport(["reserve", "--key", "b"]).ok();
}

#[test]
fn a_service_is_not_stopped_for_a_replacement_that_cannot_be_recorded() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let done = env.devport(["start", "--key", "a", "--port", "1025", "--replace", "--", "sleep", "2000"]);
    done.fails(1, &["ports never change"]);
    let now = env.which("a");
    assert_eq!((&now["state"], &now["pid"], &now["cmd"]), (&"running".into(), &view["pid"], &view["cmd"]));
}

#[test]
fn a_full_pool_takes_the_ports_of_deleted_checkouts_first() {
    let mut env = TestEnv::new();
    let range = format!("{}-{}", env.first_port, env.first_port + 2);
    env.set("DEVPORT_PORT_RANGE", &range);
    let start = |directory: &str, key: &str| {
        let path = env.path("work").join(directory);
        fs::create_dir_all(path.join(".git")).unwrap();
        env.devport(["-C", path.to_str().unwrap(), "start", "--key", key, "--", "sleep", "1000"])
    };
    let keys = [("worktrees/a", "a"), ("worktrees/b", "b"), ("volume/c/c", "c")];
    for (directory, key) in keys {
        start(directory, key).ok();
        env.devport(["stop", &port(&env.ls().into_iter().find(|view| view["key"] == key).unwrap()).to_string()]).ok();
    }
    start("d", "d").fails(1, &["no free port"]);
    fs::remove_dir_all(env.path("work/volume")).unwrap();
    start("d", "d").fails(1, &["no free port"]);
    fs::remove_dir_all(env.path("work/worktrees/b")).unwrap();
    let taken = start("d", "d").ok();
    assert!(taken.stderr.contains("removed b"), "{taken:?}");
    assert_eq!(port(&taken.json()), env.first_port + 1);
    let mut left: Vec<_> = env.ls().into_iter().map(|view| view["key"].as_str().unwrap().to_owned()).collect();
    left.sort();
    assert_eq!(left, ["a", "c", "d"]);
}

#[test]
fn everything_that_a_child_wrote_is_in_the_log_though_its_reader_is_slow() {
    let env = TestEnv::new();
    // A pipe that is not read until the service has ended: 150,000 bytes are more than it holds.
    let lines = 12_500;
    let script =
        format!("i=0; while [ $$i -lt {lines} ]; do echo line $$i; i=$$((i+1)); done; echo LAST WORDS; exit 1");
    let child = env.spawn(["run", "--key", "a", "--no-port", "--restart", "never", "--", "sh", "-c", &script]);
    until("it has ended", || {
        let done = env.devport(["which", "a"]);
        // A service that is registered and not started yet is stopped, too.
        done.code == 0 && done.json()["last_exit"].is_object() && !is_up(&done.json())
    });
    let log = env.devport(["logs", "a"]).ok().stdout;
    let numbers: Vec<usize> = log.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert_eq!(numbers, (0..lines).collect::<Vec<_>>());
    assert!(log.contains("LAST WORDS\n"));
    done(child);
}

#[test]
fn every_child_gets_the_end_of_the_input() {
    let env = TestEnv::new();
    let run = "run --key a --no-port --backoff-initial 10ms --max-restarts 2 -- cat";
    let script = env.write("script", &format!("printf 'one\\n' | {DEVPORT} {run}\n"));
    // Standard output is a terminal, and so is the child's input then.
    let mut command = env.command("script");
    let done = env.finish(command.args(["-qec", &format!("sh {script}"), "/dev/null"]));
    assert_eq!(done.stdout.matches("exit code 0 after").count(), 3, "{done:?}");
}

#[test]
fn the_record_of_a_service_that_could_not_be_replaced_is_that_of_what_runs() {
    if strace::is_missing() {
        return;
    }
    let env = TestEnv::new();
    env.devport(["start", "--key", "a", "--no-port", "--", "sleep", "1000"]).ok();
    let path = env.state_file("services", "a", "json");
    let (before, pid) = (fs::read_to_string(&path).unwrap(), env.which("a")["pid"].clone());
    let replace = ["start", "--replace", "--key", "a", "--no-port", "--", "sleep", "2000"];
    let fault = Fault { calls: "pidfd_send_signal", path: None, effect: "error=EPERM" };
    let failed = env.finish(&mut env.faulty(fault, replace));
    assert!(failed.code == 1 && failed.stderr.contains("operation not permitted"), "{failed:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    assert_eq!(env.which("a")["pid"], pid);
    env.devport(replace).ok();
    assert_eq!(env.which("a")["cmd"][1], "2000");
}
