//! `devport stop`, `restart` and `signal`.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{TestEnv, command_line, eventually, is_alive, number, signal, until};

#[test]
fn stopping_a_stopped_service_is_fine() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    assert_eq!(env.devport(["stop", "a"]).ok().json()["state"], "stopped");
    assert_eq!(env.devport(["stop", "a"]).ok().json()["status"], "stopped");
}

#[test]
fn all_services_are_stopped_at_once_with_all() {
    let env = TestEnv::new();
    for key in ["a", "b", "c"] {
        env.start(key, &["sleep", "1000"]);
    }
    env.devport(["stop", "c"]).ok();
    let stopped = env.devport(["stop", "--all"]).ok().json();
    assert_eq!(stopped.as_array().unwrap().len(), 2);
    assert!(env.ls().iter().all(|view| view["status"] == "stopped"));
    env.devport(["stop", "a", "missing"]).fails(4, &["no service matching \"missing\""]);
}

/// Returns the number of `sleep` processes whose duration begins so.
fn sleeping(env: &TestEnv, digits: &str) -> usize {
    let command = format!("sleep {digits}");
    env.processes_with(&command).into_iter().filter(|pid| command_line(*pid).starts_with(&command)).count()
}

/// The grace period of services that a test stops at once: longer than a busy machine needs for that.
const GRACE: Duration = Duration::from_secs(45);

/// Starts the service `a` with this grace period.
fn start_patiently(env: &TestEnv, words: &[&str]) -> Value {
    let grace = format!("{}s", GRACE.as_secs());
    env.devport([&["start", "--key", "a", "--grace", &grace, "--"], words].concat()).ok().json()
}

#[test]
fn no_process_of_the_tree_is_left() {
    let env = TestEnv::new();
    let script = "setsid sleep 7770001 & sleep 7770002 & (sleep 7770003 &) ; sleep 7770004";
    start_patiently(&env, &["sh", "-c", script]);
    until("all four run", || sleeping(&env, "777000") == 4);
    let began = Instant::now();
    env.devport(["stop", "a"]).ok();
    assert!(env.processes_with("sleep 777000").is_empty());
    assert!(began.elapsed() < GRACE, "they all end on SIGTERM");
}

#[test]
fn a_member_that_ignores_sigterm_is_killed_though_the_leader_has_gone() {
    let env = TestEnv::new();
    let script = "sh -c 'trap \"\" TERM HUP; while :; do sleep 7771001; done' & exec sleep 7771002";
    env.start("a", &["sh", "-c", script]);
    until("both run", || sleeping(&env, "777100") == 2);
    let began = Instant::now();
    env.devport(["stop", "a"]).ok();
    assert!(env.processes_with("sleep 777100").is_empty());
    assert!(began.elapsed() >= Duration::from_secs(5), "the grace period is kept");
}

#[test]
fn a_stopped_child_dies_too() {
    let env = TestEnv::new();
    let view = start_patiently(&env, &["sleep", "1000"]);
    signal(number(&view["pid"]), "STOP");
    let began = Instant::now();
    env.devport(["stop", "a"]).ok();
    assert!(began.elapsed() < GRACE);
    assert!(!is_alive(number(&view["pid"])));
}

#[test]
fn a_second_sigterm_kills_at_once() {
    let env = TestEnv::new();
    let view = start_patiently(&env, &["sh", "-c", "trap '' TERM HUP; while :; do sleep 0.1; done"]);
    let supervisor = env.supervisor("a");
    until("the trap is set", || {
        let status = fs::read_to_string(format!("/proc/{}/status", view["pid"])).unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim().to_owned();
        u64::from_str_radix(&ignored, 16).unwrap() & (1 << 14) != 0
    });
    let began = Instant::now();
    signal(supervisor, "TERM");
    env.wait_state("a", "stopping");
    signal(supervisor, "TERM");
    until("the supervisor is gone", || !is_alive(supervisor));
    assert!(began.elapsed() < GRACE);
    assert!(!is_alive(number(&view["pid"])));
}

#[test]
fn a_stop_in_backoff_is_acted_on_at_once() {
    let env = TestEnv::new();
    env.devport(["start", "--key", "a", "--backoff-initial", "1h", "--", "false"]).ok();
    env.wait_state("a", "backoff");
    env.devport(["stop", "a"]).ok();
    assert_eq!(env.which("a")["state"], "stopped");
}

#[test]
fn a_restart_in_backoff_starts_at_once() {
    let env = TestEnv::new();
    let flag = env.file("flag");
    let script = format!("test -e {flag} && exec sleep 1000; exit 1");
    env.start("a", &["sh", "-c", &script]);
    until("it has crashed twice", || env.run_state("a").is_some_and(|run| run["exits"].as_array().unwrap().len() >= 2));
    fs::write(&flag, "").unwrap();
    let view = env.devport(["restart", "a"]).ok().json();
    assert_eq!(view["state"], "running");
}

#[test]
fn a_restart_never_runs_into_the_old_server() {
    let env = TestEnv::new();
    let program = "import http.server,os,signal,sys,time\n\
                   class S(http.server.HTTPServer): allow_reuse_address=True\n\
                   s=S(('127.0.0.1',int(os.environ['PORT'])),http.server.SimpleHTTPRequestHandler)\n\
                   def end(*a): time.sleep(0.3); os._exit(0)\n\
                   signal.signal(signal.SIGTERM,end)\n\
                   print('up',flush=True)\n\
                   s.serve_forever()\n";
    env.start("a", &["python3", "-c", program]);
    let log = |text: &str| env.devport(["logs", "a"]).ok().stdout.lines().filter(|line| *line == text).count();
    for round in 1..=5 {
        until("it is up", || log("up") == round);
        env.devport(["signal", "a"]).ok();
        until("the next one is up", || log("up") == round + 1);
        assert_eq!(number(&env.which("a")["restarts"]), 0, "none crashed");
    }
    let text = env.devport(["logs", "a"]).ok().stdout;
    assert!(!text.contains("in use"), "{text}");
}

#[test]
fn a_restart_uses_what_was_registered_whatever_shell_it_comes_from() {
    let env = TestEnv::new();
    let out = env.file("out");
    let script = format!("echo $$MINE $$VITE $$FROM_FILE $$PWD >> {out}; exec sleep 1000");
    let dotenv = env.write("a.env", "FROM_FILE=file\n");
    let mut command = env.command(crate::support::DEVPORT);
    command.env("MINE", "one").args(["start", "--key", "a", "--port-env", "VITE", "--env-file", &dotenv]);
    let view = env.finish(command.args(["--", "sh", "-c", &script])).ok().json();
    fs::remove_file(&dotenv).unwrap();
    until("the first has written", || fs::read_to_string(&out).is_ok_and(|text| text.lines().count() == 1));
    let mut command = env.command(crate::support::DEVPORT);
    command.env("MINE", "two").current_dir("/").args(["restart", "a"]);
    let again = env.finish(&mut command).ok().json();
    assert_ne!(again["pid"], view["pid"]);
    until("both have written", || fs::read_to_string(&out).is_ok_and(|text| text.lines().count() == 2));
    let line = format!("one {} file {}\n", view["port"], env.path("work").canonicalize().unwrap().display());
    assert_eq!(fs::read_to_string(&out).unwrap(), line.repeat(2));
}

#[test]
fn sighup_restarts_in_place_and_other_signals_reach_the_service() {
    let env = TestEnv::new();
    let out = env.file("out");
    let script = format!("trap 'echo usr1 >> {out}' USR1; echo up >> {out}; while :; do sleep 0.05; done");
    let view = env.start("a", &["sh", "-c", &script]);
    let supervisor = env.supervisor("a");
    let lines = || fs::read_to_string(&out).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    until("it is up", || lines() == ["up"]);
    env.devport(["signal", "-s", "USR1", "a"]).ok();
    until("it got USR1", || lines() == ["up", "usr1"]);
    env.devport(["signal", "a"]).ok();
    until("it is up again", || lines() == ["up", "usr1", "up"]);
    let again = env.wait_state("a", "running");
    assert_ne!(again["pid"], view["pid"]);
    assert_eq!(env.supervisor("a"), supervisor);
    env.devport(["signal", "-s", "KILL", "a"]).ok();
    eventually("it has crashed", || Some(env.which("a")).filter(|view| view["last_exit"]["signal"] == 9));
    assert!(is_alive(supervisor));
    env.wait_state("a", "running");
    // A real-time signal has no name, but ends the service.
    env.devport(["signal", "-s", "40", "a"]).ok();
    eventually("it has crashed", || Some(env.which("a")).filter(|view| view["last_exit"]["signal"] == 40));
    env.devport(["stop", "a"]).ok();
    env.devport(["signal", "a"]).fails(1, &["a is not running"]);
    env.devport(["signal", "missing"]).fails(4, &["no service matching"]);
}

#[test]
fn a_signal_that_no_process_can_get_fails_and_sighup_prints_the_new_process() {
    let env = TestEnv::new();
    let view = env.detach("a", &[], &["sh", "-c", "trap 'sleep 0.2; exit' TERM; while :; do sleep 0.01; done"]);
    let after = env.devport(["signal", "a"]).ok().json();
    assert!(after["pid"].is_i64() && after["pid"] != view["pid"], "{after}");
    assert_eq!(after["pid"], env.which("a")["pid"]);
    env.detach("b", &["--backoff-initial", "20s"], &["sh", "-c", "exit 1"]);
    env.wait_state("b", "backoff");
    for name in ["USR1", "KILL"] {
        let failed = env.devport(["signal", "-s", name, "b"]);
        failed.fails(1, &["b has no running process to signal: its state is backoff", "devport signal b"]);
    }
    let stopped = env.devport(["signal", "-s", "TERM", "b"]).ok().json();
    assert_eq!(stopped["state"], "stopped");
}

#[test]
fn a_stop_is_acted_on_in_every_state() {
    let env = TestEnv::new();
    let flag = env.file("slow");
    // Running, in backoff, waiting for its port, and just started: SIGTERM, and nothing that lasts longer.
    let script = format!("test -e {flag} && exit 1; exec sleep 1000");
    for round in 0..12 {
        if round % 3 == 1 {
            fs::write(&flag, "").unwrap();
        }
        let start = ["start", "--detach", "--grace", "2m", "--backoff-initial", "2m", "--backoff-max", "2m"];
        let view = env.devport(start.iter().chain(&["--key", "a", "--", "sh", "-c", &script])).ok().json();
        if round % 3 == 1 {
            env.wait_state("a", "backoff");
            fs::remove_file(&flag).unwrap();
        }
        let supervisor = env.supervisor("a");
        signal(supervisor, "TERM");
        until("it is gone", || !is_alive(supervisor));
        assert!(view["pid"].as_i64().is_none_or(|pid| !is_alive(i32::try_from(pid).unwrap())));
    }
}
