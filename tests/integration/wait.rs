//! `devport wait`, and `--wait`.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{SERVER, TestEnv, done, is_alive, number, signal, until, write_program};

#[test]
fn start_with_wait_returns_when_the_service_is_ready() {
    let env = TestEnv::new();
    let words = [&["start", "--wait", "--key", "a", "--"], &SERVER[..]].concat();
    let view = env.devport(words).ok().json();
    assert_eq!(view["state"], "ready");
    assert!(crate::support::answers(crate::support::port(&view)), "it answers at once");
    assert_eq!(env.devport(["restart", "--wait=20s", "a"]).ok().json()["state"], "ready");
    assert_eq!(env.devport(["wait", "a"]).ok().json()["state"], "ready");
}

#[test]
fn a_wait_that_fails_reports_why_with_the_end_of_the_output() {
    let env = TestEnv::new();
    let script = "for i in $$(seq 30); do echo line $$i; done; sleep 1000";
    env.start("a", &["sh", "-c", script]);
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("line 30\n"));
    let late = env.devport(["start", "--wait=300ms", "a"]);
    let late = late.fails(5, &["a is not ready after 0.3 s: ", "line 30\n", "line 11\n", "hint: "]);
    assert!(!late.stderr.contains("line 10\n"), "20 lines: {late:?}");
    assert_eq!(late.json()["state"], "running", "the result is printed all the same");
    let began = Instant::now();
    env.devport([
        "start",
        "--wait",
        "--replace",
        "--restart",
        "never",
        "--key",
        "a",
        "--",
        "sh",
        "-c",
        "sleep 0.2; echo oh no; exit 3",
    ])
    .fails(5, &["exit code 3", "oh no"]);
    assert!(began.elapsed() < Duration::from_secs(25), "a failure is not waited for");
    env.devport(["wait", "a", "--timeout", "100ms"]).fails(5, &["a is not ready"]);
    env.devport(["wait", "missing"]).fails(4, &["no service matching"]);
}

#[test]
fn a_wait_that_fails_says_what_to_run_after_the_fix() {
    let env = TestEnv::new();
    let start = ["start", "--wait=8s", "--key", "a", "--replace"];
    let words = ["--", "sh", "-c", "test -e fixed && exec python3 -m http.server --bind 127.0.0.1 $$PORT; exit 3"];
    for (options, again, when) in
        [(&["--restart", "never"][..], "start", ""), (&["--backoff-initial", "20s"], "restart", "exit code 3 after ")]
    {
        let failed = env.devport(start.iter().chain(options).chain(&words));
        let hint = format!("after the fix, run `devport {again} --wait a`");
        let failed = failed.fails(5, &[&hint, when]);
        let is_tried_again = failed.stderr.contains("; devport tries again in ");
        assert_eq!(is_tried_again, again == "restart", "{failed:?}");
        env.write("fixed", "");
        env.devport([again, "--wait", "a"]).ok();
        fs::remove_file(env.file("fixed")).unwrap();
    }
}

#[test]
fn several_are_waited_for_together() {
    let env = TestEnv::new();
    env.start("good", &SERVER);
    env.devport(["wait", "good"]).ok();
    env.start("bad", &["sleep", "1000"]);
    env.devport(["wait", "good", "bad", "--timeout", "400ms"])
        .fails(5, &["devport: bad is not ready", "1 of 2 services"]);
    let file = env.write("devport.yaml", "- key: good\n  exec: python3 -m http.server --bind 127.0.0.1 $PORT\n- key: none\n  exec: sleep 1000\n  no-port: true\n");
    let views = env.devport(["start", "--wait", "-f", &file]).ok().json();
    assert!(views.as_array().unwrap().iter().all(|view| view["state"] == "ready"), "{views}");
}

#[test]
fn an_end_can_be_waited_for() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    env.devport(["wait", "a", "--for", "stopped", "--timeout", "100ms"])
        .fails(5, &["a is not stopped after 0.1 s: it is running"]);
    let waiting = env.spawn(["wait", "a", "--for", "stopped"]);
    env.devport(["stop", "a"]).ok();
    assert_eq!(done(waiting).ok().json()["state"], "stopped");
}

#[test]
fn a_service_whose_command_has_exited_is_not_ready() {
    let env = TestEnv::new();
    let view = env.detach("a", &["--wait", "--ready", "none"], &["sleep", "1000"]);
    let supervisor = env.supervisor("a");
    // A suspended supervisor does not notice the exit, and its record says ready.
    signal(supervisor, "STOP");
    signal(number(&view["pid"]), "KILL");
    until("the command has exited", || !is_alive(number(&view["pid"])));
    assert_eq!(env.run_state("a").unwrap()["state"], "ready");
    env.devport(["wait", "--timeout", "200ms", "a"]).fails(5, &["a is not ready"]);
    signal(supervisor, "CONT");
    env.devport(["wait", "a"]).ok();
}

#[test]
fn a_wait_that_fails_names_what_the_check_found_last() {
    let env = TestEnv::new();
    write_program(env.file("check.sh"), "#!/bin/sh\nexit 2\n");
    let silent: &[&str] = &["sleep", "1000"];
    let fails = [&["python3", "-c"][..], &["import http.server as h, os; h.BaseHTTPRequestHandler.do_GET = lambda s: s.send_error(503); h.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), h.BaseHTTPRequestHandler).serve_forever()"]].concat();
    let port = env.first_port;
    for (ready, words, why) in [
        ("listen", silent, format!("nothing of the service listens on port {port}")),
        ("tcp", silent, format!("nothing listens on port {port}")),
        ("http:/healthz", &fails, "GET /healthz returned 503".into()),
        ("exec:./check.sh", silent, "./check.sh exited with code 2".into()),
        ("log:up", silent, "no line of its output matches \"up\"".into()),
    ] {
        let start = ["start", "--replace", "--key", "a", "--ready", ready, "--"];
        env.devport([&start[..], words].concat()).ok();
        // On a busy machine, a check may have no result within its time.
        until(&why, || {
            let failed = env.devport(["start", "a", "--wait=500ms"]).fails(5, &["a is not ready after 0.5 s: "]);
            failed.stderr.contains(&why)
        });
    }
}

#[test]
fn a_wait_that_fails_says_what_the_check_finds_now_not_what_it_found_at_its_time_limit() {
    let env = TestEnv::new();
    env.write("code", "2");
    let check = "exec:sh -c 'exit $(cat code)'";
    env.detach("a", &["--ready", check, "--ready-timeout", "50ms"], &["sleep", "1000"]);
    until("the check is late", || {
        env.which("a")["error"] == "not ready within 50ms: sh -c 'exit $(cat code)' exited with code 2"
    });
    env.write("code", "3");
    let failed = env
        .devport(["wait", "a", "--timeout", "100ms"])
        .fails(5, &["is not ready after 0.1 s: sh -c", "exited with code 3"]);
    assert!(!failed.stderr.contains("within"), "{failed:?}");
}

#[test]
fn several_services_must_be_ready_at_the_same_time() {
    let env = TestEnv::new();
    let start = |key: &str, ready: &str, script: &str| {
        env.devport([
            "start",
            "--key",
            key,
            "--no-port",
            "--restart",
            "never",
            "--ready",
            ready,
            "--",
            "sh",
            "-c",
            script,
        ])
        .ok();
    };
    std::fs::write(env.file("alive"), "").unwrap();
    start("a", "exec:test -e alive", "while test -e alive; do read -t 1 _ </dev/null || sleep 0.05; done; exit 7");
    start("b", "exec:test -e up", "exec sleep 1000");
    let waiting = env.spawn(["wait", "a", "b", "--timeout", "30s"]);
    env.wait_state("a", "ready");
    fs::remove_file(env.file("alive")).unwrap();
    env.wait_state("a", "failed");
    env.write("up", "");
    let failed = done(waiting).fails(5, &["a is not ready: ", "exit code 7"]);
    assert!(!failed.stderr.contains("b is not ready"), "{}", failed.stderr);
}
