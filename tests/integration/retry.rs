//! An explicit start tries at once, and a wait ends when the outcome is known.

use std::time::{Duration, Instant};

use crate::support::{SERVER, TestEnv, close, number, until};

/// A command that fails until `fixed` exists, and its readiness check: without one, a slow command would be ready before
/// it fails.
const UNTIL_FIXED: [&str; 6] = [
    "--ready",
    "exec:test -e fixed",
    "--",
    "sh",
    "-c",
    "echo \"value $VALUE\"; test -e fixed || { echo broken >&2; exit 3; }; exec sleep 1000",
];

#[test]
fn a_start_of_a_crashing_service_tries_at_once_with_the_new_environment() {
    let mut env = TestEnv::new();
    env.set("VALUE", "old");
    // The wait after the second crash is longer than the time until `start` has printed it.
    let options = ["--no-tmux", "--backoff-initial", "4s", "--wait"];
    let start = [&["start", "--key", "a", "--no-port"][..], &options, &UNTIL_FIXED].concat();
    let failed = env.devport(&start).fails(5, &["a is not ready: it ended twice in the same way: exit code 3"]);
    assert!(failed.stderr.contains("broken"), "{}", failed.stderr);
    env.suspend_in("a", "backoff");
    let supervisor = env.supervisor("a");
    env.write("fixed", "");
    env.set("VALUE", "new");
    let fixed = env.devport(&start).ok();
    assert!(fixed.stderr.contains("a was in backoff; starting"), "{}", fixed.stderr);
    assert!(fixed.stderr.contains("starting it now, with new values of VALUE"), "{}", fixed.stderr);
    assert_eq!((&fixed.json()["state"], &fixed.json()["outcome"]), (&"ready".into(), &"restarted".into()));
    assert_ne!(env.supervisor("a"), supervisor);
    until("it has written", || env.devport(["logs", "a", "-n", "1"]).ok().stdout.contains("value new"));
}

#[test]
fn two_failures_are_the_same_if_only_a_time_and_blank_lines_differ() {
    let env = TestEnv::new();
    let script = "echo x >> runs; echo the log is in log-$(date +%Y-%m-%dT%H_%M_%S_%N).txt; \
                  test $(wc -l < runs) = 1 || echo; exit 1";
    let options =
        ["--no-port", "--backoff-initial", "100ms", "--backoff-max", "1h", "--wait", "--", "sh", "-c", script];
    env.devport([&["start", "--key", "a"], &options[..]].concat())
        .fails(5, &["a is not ready: it ended twice in the same way: exit code 1"]);
}

#[test]
fn a_wait_that_ends_in_a_crash_loop_says_when_devport_tries_again() {
    let env = TestEnv::new();
    // Each run ends in another way.
    let script = "echo x >> runs; exit $(wc -l < runs)";
    let options = ["--no-port", "--backoff-initial", "10ms", "--wait", "--", "sh", "-c", script];
    env.devport([&["start", "--key", "a"], &options[..]].concat())
        .fails(5, &["a is not ready: exit code 5", "; devport tries again in "]);
}

#[test]
fn a_start_by_name_tries_a_crashing_service_at_once() {
    let env = TestEnv::new();
    let start = [&["start", "--key", "a", "--no-port", "--backoff-initial", "1h"][..], &UNTIL_FIXED].concat();
    env.devport(&start).ok();
    env.wait_state("a", "backoff");
    env.write("fixed", "");
    let view = env.devport(["start", "a", "--wait"]).ok().json();
    assert_eq!((&view["state"], &view["outcome"]), (&"ready".into(), &"restarted".into()));
}

#[test]
fn a_start_of_a_service_whose_port_is_taken_checks_the_port_at_once() {
    let env = TestEnv::new();
    let port: u16 = env.devport(["reserve", "--key", "a"]).ok().stdout.trim().parse().unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let start = [&["start", "--no-tmux", "--key", "a", "--wait", "--"][..], &SERVER].concat();
    env.devport(&start).fails(1, &["is taken by"]);
    env.suspend_in("a", "port-conflict");
    close(listener);
    let started = env.devport(&start).ok();
    assert!(started.stderr.contains("a was in port-conflict"), "{}", started.stderr);
    assert_eq!(started.json()["state"], "ready");
}

#[test]
fn two_different_failures_do_not_end_a_wait() {
    let env = TestEnv::new();
    // Every run prints another line, and the third one stays.
    let script = "n=$$(cat n 2>/dev/null || echo 0); echo $$((n + 1)) >n; echo \"try $$n\"; test $$n -ge 2 || exit 1; exec sleep 1000";
    let view = env.devport([
        "start",
        "--key",
        "a",
        "--no-port",
        "--wait",
        "--backoff-initial",
        "10ms",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(view.ok().json()["state"], "ready");
}

#[test]
fn a_wait_for_a_service_on_the_wrong_port_ends_when_that_is_known() {
    let env = TestEnv::new();
    let other = (env.first_port + 30).to_string();
    let began = Instant::now();
    let words = ["python3", "-m", "http.server", "--bind", "127.0.0.1", &other];
    let start = [&["start", "--key", "a", "--wait=60s", "--"][..], &words].concat();
    env.devport(&start).fails(5, &[&format!("a is not ready: it listens on {other}")]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(env.which("a")["state"], "running", "it goes on");
}

#[test]
fn a_failed_wait_shows_the_output_of_this_run_without_its_blank_lines() {
    let env = TestEnv::new();
    let script =
        "test -e again && printf '\\n\\n\\n\\nsecond\\n\\n\\n' || { echo first; touch again; }; exec sleep 1000";
    env.devport(["start", "--key", "a", "--", "sh", "-c", script]).ok();
    until("it has printed", || env.devport(["logs", "a"]).stdout.contains("first"));
    env.devport(["restart", "a"]).ok();
    let log = || env.devport(["logs", "a", "--run", "2"]).ok().stdout;
    until("it has printed again", || log().ends_with("\n\n\n\nsecond\n\n\n"));
    let failed = env.devport(["start", "a", "--wait=100ms"]).fails(5, &["second"]);
    assert!(!failed.stderr.contains("first"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("SIGTERM"), "a requested end is no crash: {}", failed.stderr);
    assert!(failed.stderr.contains("last output of a:\nsecond\n\n"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("\n\n\n"), "{}", failed.stderr);
}

#[test]
fn replace_restarts_only_what_changed_in_the_file() {
    let env = TestEnv::new();
    env.write("a.env", "VALUE=1\n");
    let file = |command: &str| {
        format!(
            "- {{key: same, exec: sleep 1000, no-port: true}}\n- {{key: dotenv, exec: sleep 1000, no-port: true, env: a.env}}\n- {{key: edited, exec: {command}, no-port: true}}\n"
        )
    };
    env.write("devport.yaml", &file("sleep 1000"));
    let start = ["start", "-f", "devport.yaml", "--replace"];
    env.devport(start).ok();
    let pids = || ["same", "dotenv", "edited"].map(|key| number(&env.which(key)["pid"]));
    let first = pids();
    env.devport(start).ok();
    assert_eq!(pids(), first, "nothing changed");
    env.write("a.env", "VALUE=2\n");
    let noted = env.devport(["start", "-f", "devport.yaml"]).ok();
    assert!(noted.stderr.contains("dotenv is already running with variables from before its env files changed"));
    assert_eq!(pids(), first, "a note alone changes nothing");
    env.write("devport.yaml", &file("sleep 2000"));
    env.devport(start).ok();
    let second = pids();
    assert_eq!([first[0] == second[0], first[1] == second[1], first[2] == second[2]], [true, false, false]);
}

#[test]
fn a_start_by_name_names_the_dotenv_files_that_changed_since_the_registration() {
    let env = TestEnv::new();
    env.write("devport.yaml", "- {key: a, exec: sleep 1000, no-port: true, env: [a.env, b.env]}\n");
    for name in ["a.env", "b.env", "c.env"] {
        env.write(name, "VALUE=1\n");
    }
    env.devport(["start", "-f", "devport.yaml"]).ok();
    env.detach("c", &["--env-file", "c.env"], &["sleep", "1000"]);
    let note = "changed since";
    let unchanged = env.devport(["restart", "a", "c"]).ok();
    assert!(!unchanged.stderr.contains(note), "{}", unchanged.stderr);
    env.write("b.env", "VALUE=2\n");
    std::fs::remove_file(env.file("c.env")).unwrap();
    let noted = env.devport(["restart", "a", "c"]).ok().stderr;
    let file = env.file("devport.yaml");
    let of_a = format!("/b.env has changed since a was registered; `devport start --replace -f {file} a` applies it");
    assert!(noted.contains(&of_a) && !noted.contains("a.env"), "{noted}");
    let of_c = "/c.env has changed since c was registered; `devport start --replace --key c --cwd ";
    assert!(noted.contains(of_c), "{noted}");
    assert!(noted.contains("/c.env -- sleep 1000` applies it") && noted.contains(" --no-port "), "{noted}");
    let running = env.devport(["start", "a"]).ok();
    assert!(!running.stderr.contains(note), "it was not started: {}", running.stderr);
    env.devport(["start", "-f", "devport.yaml", "--replace"]).ok();
    let applied = env.devport(["restart", "a"]).ok();
    assert!(!applied.stderr.contains(note), "{}", applied.stderr);
}
