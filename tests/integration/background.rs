//! Commands that start a server in the background and end: devport goes on with the server.

use serde_json::Value;

use crate::support::{SERVER, TestEnv, answers, eventually, number, port, signal, until};

/// Starts the command of its arguments as `astro dev` does if a coding agent runs it: in its own session, without a
/// terminal. Waits until the port answers, and ends with exit code 0.
const DAEMONIZE: &str = r#"
import os, socket, subprocess, sys
subprocess.Popen(sys.argv[1:], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while True:
    try:
        socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))).close()
        break
    except OSError:
        pass
print("the server runs in the background", flush=True)
"#;

/// Options of a service that is in `backoff` after its first crash for as long as a test runs.
const ONCE: [&str; 4] = ["--backoff-initial", "1h", "--backoff-max", "1h"];

/// Starts the service `a`, whose command hands over to another one, and returns its view after that.
#[track_caller]
fn start_in_background(env: &TestEnv, options: &[&str], words: &[&str]) -> Value {
    env.write("daemonize.py", DAEMONIZE);
    let start = ["start", "--wait", "--key", "a"];
    let command = ["--", "python3", "daemonize.py"];
    env.devport(start.iter().chain(options).chain(&command).chain(words)).ok();
    handed_over(env)
}

#[track_caller]
fn handed_over(env: &TestEnv) -> Value {
    eventually("the command has handed over", || Some(env.which("a")).filter(|view| view["handed_over_to"].is_i64()))
}

#[test]
fn a_command_that_hands_over_to_a_server_in_the_background_stays_ready() {
    let env = TestEnv::new();
    let view = start_in_background(&env, &[], &SERVER);
    let server = env.processes_with("http.server");
    assert_eq!(server, [number(&view["handed_over_to"])]);
    assert_eq!(
        (&view["pid"], &view["state"], &view["restarts"]),
        (&view["handed_over_to"], &"ready".into(), &0.into())
    );
    let address = format!("127.0.0.1:{}", view["port"]);
    assert_eq!(view["listens"], serde_json::json!([address]));
    assert_eq!((&view["last_exit"], &view["error"]), (&Value::Null, &Value::Null));
    for _ in 0..20 {
        assert!(answers(port(&view)));
    }
    let run = env.run_state("a").unwrap();
    assert_eq!(run["handed_over"], run["child"]);
    let log = env.devport(["logs", "a"]).ok().stdout;
    assert!(log.contains("the server runs in the background") && log.contains("has handed over to pid"), "{log}");
    env.devport(["wait", "a"]).ok();
    assert_eq!(env.devport(["stop", "a"]).ok().json()["handed_over_to"], Value::Null);
    assert!(!answers(port(&view)) && env.processes_with("http.server").is_empty());
    assert_eq!(env.which("a")["state"], "stopped");
}

#[test]
fn a_service_that_has_handed_over_is_restarted_with_its_whole_tree() {
    let env = TestEnv::new();
    let first = start_in_background(&env, &[], &SERVER);
    env.devport(["restart", "a"]).ok();
    let second = handed_over(&env);
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!((&second["port"], &second["restarts"]), (&first["port"], &0.into()));
    assert_eq!(env.processes_with("http.server"), [number(&second["pid"])]);
    env.wait_state("a", "ready");
}

#[test]
fn the_end_of_the_server_is_the_end_of_the_run_with_its_exit() {
    let env = TestEnv::new();
    let first = start_in_background(&env, &["--backoff-initial", "10ms"], &SERVER);
    signal(number(&first["pid"]), "KILL");
    let second = eventually("another server has taken over", || {
        Some(env.which("a")).filter(|view| view["handed_over_to"].is_i64() && view["pid"] != first["pid"])
    });
    assert_eq!((&second["restarts"], &second["last_exit"]["signal"]), (&1.into(), &9.into()), "{second}");
    // A wrapper around the server takes over, and its exit counts. The policy is that of any other exit.
    let words = ["sh", "-c", "python3 -m http.server --bind 127.0.0.1 $$PORT; exit 7"];
    let wrapped = start_in_background(&env, &["--replace", "--restart", "never"], &words);
    let server = env.processes_with("python3 -m http.server");
    let server = server.iter().find(|pid| **pid != number(&wrapped["pid"])).unwrap();
    signal(*server, "KILL");
    let view = env.wait_state("a", "failed");
    assert_eq!((&view["last_exit"]["code"], &view["handed_over_to"]), (&7.into(), &Value::Null), "{view}");
}

#[test]
fn signals_reach_a_server_that_leads_no_process_group() {
    let env = TestEnv::new();
    let server = "import http.server, os, signal
signal.signal(signal.SIGUSR1, lambda *_: open('signalled', 'w').close())
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()";
    let file = env.write("server.py", server);
    // In its own session, and as a member of its parent's group there.
    let script = format!("python3 {file} & while :; do sleep 0.05; [ -e go ] && exit 0; done");
    start_in_background(&env, &[], &["sh", "-c", &script.replace('$', "$$")]);
    let wrapper = number(&env.which("a")["pid"]);
    env.write("go", "");
    let view = eventually("the wrapper has handed over to the server", || {
        Some(env.which("a")).filter(|view| view["pid"].is_i64() && number(&view["pid"]) != wrapper)
    });
    assert_eq!((&view["state"], &view["restarts"]), (&"ready".into(), &0.into()), "{view}");
    env.devport(["signal", "-s", "USR1", "a"]).ok();
    until("the server has the signal", || env.path("work").join("signalled").exists());
    env.devport(["signal", "-s", "KILL", "a"]).ok();
    eventually("it was killed", || Some(env.which("a")).filter(|view| view["last_exit"]["signal"] == 9));
}

#[test]
fn a_server_whose_supervisor_was_killed_is_orphaned_and_ended() {
    let env = TestEnv::new();
    let view = start_in_background(&env, &[], &SERVER);
    signal(env.supervisor("a"), "KILL");
    env.wait_state("a", "orphaned");
    assert_eq!(env.which("a")["pid"], view["pid"]);
    env.devport(["stop", "a"]).ok();
    assert!(!answers(port(&view)) && env.processes_with("http.server").is_empty());
}

#[test]
fn a_command_that_leaves_no_listener_has_ended_and_which_says_what_was_ended() {
    let env = TestEnv::new();
    let script = "rm -f up; setsid sh -c 'touch up; exec sleep 1000' & while ! [ -e up ]; do sleep 0.01; done; exit 0";
    env.devport(["start", "--key", "a"].iter().chain(&ONCE).chain(&["--", "sh", "-c", script])).ok();
    let view = env.wait_state("a", "backoff");
    let error = view["error"].as_str().unwrap();
    for part in ["exit code 0 after", "ended what it left in the background", "sleep 1000"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!((&view["last_exit"]["code"], &view["handed_over_to"]), (&0.into(), &Value::Null));
    assert!(env.devport(["logs", "a"]).ok().stdout.contains("left in the background"));
    env.devport(["stop", "a"]).ok();
    assert!(env.processes_with("sleep 1000").is_empty());
}

#[test]
fn a_command_that_fails_has_not_handed_over() {
    let env = TestEnv::new();
    env.write("daemonize.py", DAEMONIZE);
    let script = "python3 daemonize.py python3 -m http.server --bind 127.0.0.1 $$PORT; exit 3";
    env.devport(["start", "--key", "a"].iter().chain(&ONCE).chain(&["--", "sh", "-c", script])).ok();
    let view = eventually("it has failed", || Some(env.which("a")).filter(|view| view["last_exit"]["code"] == 3));
    assert!(view["error"].as_str().is_none_or(|error| !error.contains("background")), "{view}");
    until("its server is ended", || {
        env.which("a")["state"] == "backoff" && env.processes_with("http.server").is_empty()
    });
}
