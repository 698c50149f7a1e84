//! Readiness, health checks and the restart policy, with real services.

use std::fs;

use serde_json::Value;

use crate::support::{SERVER, TestEnv, done, eventually, is_alive, number, port, until};

/// Starts a service with options.
fn start(env: &TestEnv, options: &[&str], words: &[&str]) -> Value {
    let all = [&["start", "--key", "a"], options, &["--"], words].concat();
    env.devport(&all).ok().json()
}

/// A server whose responses have the status that is in a file. It begins once the file `$SERVE_AFTER` exists.
const BY_FILE: &str = "
import http.server, os, sys, time
while not os.path.exists(os.environ.get('SERVE_AFTER', '.')):
    time.sleep(0.01)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(open('status').read()) if self.path == '/healthz' else 200)
        self.end_headers()
print('now serving', flush=True)
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

#[test]
fn a_service_that_listens_on_its_port_is_ready_and_says_where() {
    let env = TestEnv::new();
    start(&env, &[], &SERVER);
    let view = env.wait_state("a", "ready");
    assert_eq!(view["error"], Value::Null);
    assert_eq!(view["listens"], serde_json::json!([format!("127.0.0.1:{}", view["port"])]));
    assert_eq!(view["exposed"], false);
    env.devport(["start", "--key", "b", "--", "python3", "-m", "http.server", "$PORT"]).ok();
    assert_eq!(env.wait_state("b", "ready")["exposed"], true);
}

#[test]
fn a_foreign_listener_on_the_port_is_never_ready() {
    let env = TestEnv::new();
    // Another process takes the port a moment after the service was started.
    let view = start(&env, &["--ready-timeout", "3s"], &["sleep", "1000"]);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port(&view))).unwrap();
    until("it is reported", || env.which("a")["error"].as_str().is_some_and(|error| error.contains("is taken by")));
    let view = env.which("a");
    assert_eq!(view["state"], "running");
    assert!(view["error"].as_str().unwrap().contains(&format!("pid {}", std::process::id())), "{view}");
    drop(listener);
}

#[test]
fn without_a_port_a_service_is_ready_after_a_second() {
    let env = TestEnv::new();
    let began = std::time::Instant::now();
    start(&env, &["--no-port"], &["sleep", "1000"]);
    let view = env.wait_state("a", "ready");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    // `start` may return after that second.
    let states: Vec<_> = view["changes"].as_array().unwrap().iter().map(|change| &change["state"]).collect();
    assert!(states.ends_with(&[&"running".into(), &"ready".into()]), "{view}");
}

#[test]
fn each_kind_of_check_decides_when_a_service_is_ready() {
    let env = TestEnv::new();
    env.write("status", "500");
    for (check, before) in [
        ("tcp", "nothing"),
        ("http:/healthz", "GET /healthz returned 500"),
        ("log:^now (serving|x)$", "no line"),
        ("exec:test -e 'a file'", "test -e 'a file' exited with code 1"),
    ] {
        let _ = fs::remove_file(env.file("a file"));
        env.write("status", "500");
        // The server must respond before its time is over, and the other checks must not pass before.
        let (after, limit) = if check == "http:/healthz" { (".", "8s") } else { ("a file", "500ms") };
        start(
            &env,
            &["--replace", "--ready", check, "--ready-timeout", limit],
            &["env", &format!("SERVE_AFTER={after}"), "python3", "-c", BY_FILE],
        );
        until("it is late", || {
            env.which("a")["error"].as_str().is_some_and(|error| error.starts_with("not ready within "))
        });
        let view = env.which("a");
        let error = view["error"].as_str().unwrap();
        assert!(before == "nothing" || error.contains(before), "{check}: {error}");
        assert_eq!(view["state"], "running", "{check}: passing the limit never kills");
        env.replace("status", "200");
        env.write("a file", "");
        let view = env.wait_state("a", "ready");
        assert_eq!((&view["error"], &view["restarts"]), (&Value::Null, &serde_json::json!(0)), "{check}");
        if check != "exec:test -e 'a file'" && !check.starts_with("log") {
            assert_eq!(view["listens"][0], format!("127.0.0.1:{}", view["port"]), "{check}");
        }
    }
    start(&env, &["--replace", "--ready", "none"], &["sleep", "1000"]);
    env.wait_state("a", "ready");
}

#[test]
fn a_log_check_sees_through_colours_and_needs_no_line_end() {
    let env = TestEnv::new();
    start(&env, &["--ready", "log:ready> $"], &["sh", "-c", "printf '\\033[32mrea\\033[0mdy> '; exec sleep 1000"]);
    env.wait_state("a", "ready");
}

#[test]
fn a_service_becomes_unhealthy_and_healthy_again() {
    let env = TestEnv::new();
    env.write("status", "200");
    let script = env.write("server.py", BY_FILE);
    let file = env.write(
        "devport.yaml",
        &format!("- key: a\n  exec: python3 {script}\n  health: {{http: /healthz, interval: 50ms, failures: 2}}\n"),
    );
    env.devport(["start", "-f", &file]).ok();
    env.wait_state("a", "ready");
    env.replace("status", "503");
    let view = env.wait_state("a", "unhealthy");
    assert_eq!(view["error"], "GET /healthz returned 503");
    env.replace("status", "200");
    assert_eq!(env.wait_state("a", "ready")["restarts"], 0);
}

#[test]
fn an_unhealthy_service_is_restarted_if_configured_and_that_counts_as_a_crash() {
    let env = TestEnv::new();
    env.write("status", "200");
    let script = env.write("server.py", BY_FILE);
    let file = env.write(
        "devport.yaml",
        &format!(
            "- key: a\n  exec: python3 {script}\n  health: {{http: /healthz, interval: 50ms, failures: 2}}\n  on-unhealthy: restart\n  backoff: {{initial: 100ms}}\n"
        ),
    );
    env.devport(["start", "-f", &file]).ok();
    let before = env.wait_state("a", "ready");
    env.replace("status", "503");
    until("it is restarted", || number(&env.which("a")["restarts"]) >= 1);
    env.replace("status", "200");
    let after = env.wait_state("a", "ready");
    assert_ne!(after["pid"], before["pid"]);
    assert!(!is_alive(number(&before["pid"])));
}

#[test]
fn no_check_delays_a_stop() {
    let env = TestEnv::new();
    // A server that accepts connections and never responds, and a command that never ends.
    let silent = "import os, socket\n\
                  server = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n\
                  connections = []\n\
                  while True: connections.append(server.accept()); open('checked', 'w')\n";
    env.write("silent.py", silent);
    for check in ["http: /", "exec: sleep 7774001"] {
        let _ = fs::remove_file(env.file("checked"));
        // Only the check may take so long.
        let file = env.write(
            "devport.yaml",
            &format!("- {{key: a, exec: python3 silent.py, health: {{{check}, interval: 10ms, timeout: 5m}}}}\n"),
        );
        env.devport(["start", "--replace", "-f", &file]).ok();
        until("the check runs", || {
            fs::exists(env.file("checked")).unwrap() || !env.processes_with("sleep 7774001").is_empty()
        });
        env.devport(["stop", "a"]).ok();
        assert!(env.processes_with("sleep 7774001").is_empty());
    }
}

#[test]
fn the_restart_policy_decides() {
    let env = TestEnv::new();
    for _ in 0..5 {
        // Faster than `start` polls.
        start(&env, &["--restart", "on-failure", "--no-port"], &["true"]);
    }
    start(&env, &["--restart", "on-failure", "--no-port"], &["sh", "-c", "sleep 0.1; exit 0"]);
    assert_eq!(env.wait_state("a", "stopped")["status"], "stopped");
    start(&env, &["--restart", "never", "--no-port"], &["sh", "-c", "sleep 0.1; exit 3"]);
    assert!(env.wait_state("a", "failed")["error"].as_str().unwrap().contains("exit code 3"));
    start(&env, &["--no-port"], &["sh", "-c", "sleep 0.1; no-such-command-at-all"]);
    let view = env.wait_state("a", "failed");
    assert!(view["error"].as_str().unwrap().contains("127") && view["restarts"] == 0, "{view}");
    let few = ["--no-port", "--max-restarts", "2", "--window", "1m", "--backoff-initial", "10ms"];
    start(&env, &few, &["sh", "-c", "sleep 0.02; exit 1"]);
    let view = env.wait_state("a", "failed");
    assert_eq!(view["error"], "it ended again after 2 restarts within 1m");
    assert_eq!((&view["restarts"], &env.run_state("a").unwrap()["restarts"]), (&2.into(), &2.into()), "{view}");
}

#[test]
fn five_crashes_in_a_minute_are_called_a_crash_loop_and_the_waits_stay_as_they_are() {
    let env = TestEnv::new();
    start(&env, &["--no-port", "--backoff-initial", "10ms"], &["sh", "-c", "sleep 0.02; exit 1"]);
    let view = env.wait_state("a", "crash-loop");
    assert!(number(&view["restarts"]) >= 4, "{view}");
    // The sixth crash comes 0.16 s after the fifth, and not the longest wait of 30 s.
    let exits = eventually("restarts go on", || {
        let exits = env.run_state("a")?["exits"].as_array()?.clone();
        (exits.len() >= 6).then_some(exits)
    });
    let at = |index: usize| exits[index]["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(at(5).duration_since(at(4)).as_secs() < 15, "{exits:?}");
    env.devport(["stop", "a"]).ok();
    assert!(number(&env.which("a")["restarts"]) >= 5, "the count is known after the end");
}

#[test]
fn the_configured_stop_signal_and_grace_period_are_used() {
    let env = TestEnv::new();
    let out = env.file("out");
    let script = format!(
        "trap 'echo INT >> {out}; exit' INT; trap 'echo TERM >> {out}' TERM; echo up; while :; do sleep 0.05; done"
    );
    start(&env, &["--stop-signal", "INT"], &["sh", "-c", &script]);
    until("the traps are set", || env.devport(["logs", "a"]).ok().stdout.contains("up"));
    env.devport(["stop", "a"]).ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), "INT\n");
    // It needs more than the 5 s of the default.
    let slow = format!("trap 'sleep 5.5; echo clean >> {out}; exit' TERM; echo slow; while :; do sleep 0.05; done");
    start(&env, &["--grace", "60s"], &["sh", "-c", &slow]);
    until("the trap is set", || env.devport(["logs", "a"]).ok().stdout.contains("slow"));
    env.devport(["stop", "a"]).ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), "INT\nclean\n");
    start(&env, &["--grace", "300ms"], &["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]);
    until("the trap is set", || env.devport(["logs", "a"]).ok().stdout.contains("deaf"));
    let began = std::time::Instant::now();
    env.devport(["stop", "a"]).ok();
    assert!(began.elapsed().as_millis() >= 300, "{:?}", began.elapsed());
}

#[test]
fn an_invalid_policy_is_refused_with_its_place() {
    let env = TestEnv::new();
    for (options, says) in [
        (["--ready", "tpc"], "use tcp, http:/PATH"),
        (["--ready", "log:("], "is not a regular expression: unclosed group"),
        (["--grace", "5"], "write `--grace=5s`"),
        (["--restart", "sometimes"], "always, on-failure or never"),
        (["--stop-signal", "FOO"], "there is no signal"),
        (["--health", "none"], "cannot be a health check"),
        (["--on-unhealthy", "restart"], "needs a health check"),
    ] {
        let all = [&["start", "--key", "a"], options.as_slice(), &["--", "true"]].concat();
        env.devport(&all).fails(2, &[says]);
    }
    for (line, says) in [
        ("ready: {http: /x, tcp: true}", "one check is enough"),
        ("ready: {htpp: /x}", "unknown field `htpp`"),
        ("ready: 7", "a check such as"),
        ("grace: soon", "not a duration"),
        ("grace: 2562047788015215h", "366 days"),
        ("ready: {tcp: true, interval: 500us}", "whole number of milliseconds"),
        ("log: {max-size: big}", "not a size"),
        ("no-port: true\n  ready: tcp", "it has none"),
        ("backoff: {initial: 1m, max: 1s}", "longer than the maximum"),
    ] {
        let file = env.write("devport.yaml", &format!("- exec: 'true'\n  {line}\n"));
        env.devport(["start", "-f", &file]).fails(3, &["devport.yaml:", says]);
    }
    assert_eq!(env.ls().len(), 0);
}

#[test]
fn the_size_at_which_a_log_is_cut_can_be_set() {
    let env = TestEnv::new();
    let file = env.write("devport.yaml", "- key: a\n  exec: yes\n  no-port: true\n  log: {max-size: 64K, keep: 1}\n");
    env.devport(["start", "-f", &file]).ok();
    let hash = env.which("a")["hash"].as_str().unwrap().to_owned();
    let old = env.state(&format!("logs/{hash}.log.1"));
    until("it was cut", || old.exists());
    env.devport(["stop", "a"]).ok();
    assert!(fs::metadata(&old).unwrap().len() < 256 * 1024);
    assert!(!env.state(&format!("logs/{hash}.log.2")).exists());
}

#[test]
fn a_service_that_is_being_replaced_is_starting() {
    let env = TestEnv::new();
    let script = "trap 'until test -e go; do sleep 0.01; done; exit' TERM; echo up; while :; do sleep 0.05; done";
    start(&env, &["--grace", "60s"], &["sh", "-c", script]);
    until("the trap is set", || env.devport(["logs", "a"]).ok().stdout.contains("up"));
    let signal = env.spawn(["signal", "a"]);
    env.wait_state("a", "starting");
    env.write("go", "");
    env.wait_state("a", "running");
    done(signal).ok();
}

#[test]
fn the_url_of_a_check_means_the_reserved_port_and_another_port_is_refused() {
    let env = TestEnv::new();
    let own = format!("http://localhost:{}/?a=b", env.first_port);
    let foreign = format!("http://localhost:{}/", env.first_port + 1);
    let run = |url: &str| env.devport([&["start", "--wait", "--key", "a", "--ready", url, "--"], &SERVER[..]].concat());
    run(&foreign).fails(3, &["a check of a uses port", "write only the path, such as http:/healthz"]);
    assert_eq!(env.ls().len(), 0, "nothing is registered");
    let view = run(&own).ok();
    assert_eq!(view.json()["state"], "ready");
    assert_eq!(run(&own).ok().stderr, "", "the same options are no difference");
    until("the request is logged", || env.devport(["logs", "a"]).ok().stdout.contains("GET /?a=b HTTP/1.1"));
}

#[test]
fn each_run_of_a_health_check_has_a_time_limit() {
    let env = TestEnv::new();
    let hangs = "import os,socket; s=socket.create_server(('127.0.0.1',int(os.environ['PORT']))); input()";
    env.write("hang.py", hangs);
    let file = env.write(
        "devport.yaml",
        "- key: a\n  exec: sh -c 'sleep 1000 | python3 hang.py'\n  \
         health: {http: /, interval: 10ms, timeout: 50ms, failures: 2}\n",
    );
    env.devport(["start", "-f", &file]).ok();
    let view = env.wait_state("a", "unhealthy");
    assert_eq!(view["error"], "GET / got no response within 0.05 s");
}
