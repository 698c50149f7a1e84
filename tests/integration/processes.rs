//! A service has ended when its last process has, whatever happens to its supervisor meanwhile.

use std::fs;
use std::path::Path;

use crate::support::{SERVER, TestEnv, answers, done, is_alive, is_up, number, port, signal, skip, until};

/// Starts the service `a`, one process of which has its own session and ignores SIGTERM.
fn start_deaf(env: &TestEnv) {
    let up = env.file("up");
    let deaf = env.write("deaf.sh", &format!("trap '' TERM HUP\n: > {up}\nwhile :; do sleep 0.1; done\n"));
    env.detach("a", &["--grace", "2s"], &["sh", "-c", &format!("setsid sh {deaf} & exec sleep 1000")]);
    until("the trap is set", || Path::new(&up).exists());
}

#[test]
fn a_supervisor_that_is_killed_while_it_stops_leaves_nothing() {
    for command in ["stop", "rm"] {
        let env = TestEnv::new();
        start_deaf(&env);
        let supervisor = env.supervisor("a");
        let run_state = env.state_file("run", "a", "json");
        let ending = env.spawn([command, "a"]);
        until("it is stopping", || fs::read_to_string(&run_state).is_ok_and(|text| text.contains("\"stopping\"")));
        signal(supervisor, "KILL");
        let ended = done(ending).ok();
        assert_eq!(env.processes(), [], "{command}: {ended:?}");
        match command {
            "stop" => assert_eq!(ended.json()["state"], "stopped"),
            _ => assert_eq!(env.ls().len(), 0),
        }
    }
}

/// Starts the service `a` with a helper that forks on SIGTERM, and kills its supervisor.
fn orphan_that_forks(env: &TestEnv) {
    let up = env.file("up");
    let forking = format!("trap 'setsid sleep 7015 & exit 0' TERM\n: > {up}\nwhile :; do sleep 0.1; done\n");
    let forking = env.write("forking.sh", &forking);
    let script = format!("setsid sh {forking} & exec sleep 6999");
    env.detach("a", &["--grace", "1s"], &["sh", "-c", &script]);
    until("the trap is set", || Path::new(&up).exists());
    let supervisor = env.supervisor("a");
    signal(supervisor, "KILL");
    until("the supervisor is gone", || !is_alive(supervisor));
}

#[test]
fn orphans_that_fork_at_their_end_are_ended() {
    for command in ["stop", "rm"] {
        let env = TestEnv::new();
        orphan_that_forks(&env);
        env.devport([command, "a"]).ok();
        assert_eq!(env.processes(), [], "{command}");
    }
}

#[test]
fn orphans_that_fork_at_their_end_are_ended_before_a_start() {
    let env = TestEnv::new();
    orphan_that_forks(&env);
    env.detach("a", &["--grace", "1s"], &["sleep", "6998"]);
    until("it runs", || is_up(&env.which("a")));
    assert_eq!(env.living("sleep 7015"), []);
    assert_eq!(env.living("sleep 6999"), []);
    assert_eq!(env.living("sleep 6998").iter().filter(|(_, command)| command.starts_with("sleep")).count(), 1);
}

#[test]
fn a_process_cannot_leave_its_service_by_a_variable() {
    let env = TestEnv::new();
    env.detach("stopped", &[], &["sleep", "1000"]);
    env.devport(["stop", "stopped"]).ok();
    env.detach("other", &[], &["sleep", "1000"]);
    let hash = |key: &str| env.which(key)["hash"].as_str().unwrap().to_owned();
    let claims = [
        "other".to_owned(),
        String::new(),
        hash("stopped"),
        format!("supervisor:{}", hash("stopped")),
        // The other service is running, but this process is not its supervisor.
        format!("supervisor:{}", hash("other")),
    ];
    for claim in claims {
        let script = format!("DEVPORT_HASH={claim} setsid sleep 7018 & exec sleep 1000");
        env.detach("a", &[], &["sh", "-c", &script]);
        until("it runs", || env.living("sleep 7018").iter().any(|(_, command)| command.starts_with("sleep 7018")));
        env.devport(["stop", "a"]).ok();
        assert_eq!(env.living("sleep 7018"), [], "{claim:?}");
    }
    assert!(is_up(&env.which("other")));
}

#[test]
fn the_variables_that_mark_a_service_are_no_names_for_a_port() {
    let env = TestEnv::new();
    for name in ["DEVPORT_HASH", "DEVPORT_HOME"] {
        let started = env.devport(["start", "--detach", "--key", "a", "--port-env", name, "--", "sleep", "1000"]);
        assert_ne!(started.code, 0, "{name}: {started:?}");
        assert!(started.stderr.contains(name), "{started:?}");
    }
    let file = env.write("devport.yaml", "- key: a\n  exec: sleep 1000\n  port-env: DEVPORT_HASH\n");
    env.devport(["start", "--detach", "-f", &file]).fails(1, &["DEVPORT_HASH"]);
    assert_eq!(env.ls().len(), 0);
}

/// A program whose main thread ends, while another one serves on `$PORT`. `AT_END` is what that thread does on SIGTERM.
const HEADLESS: &str = r"
import ctypes, http.server, os, platform, signal, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
server = http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler)
def end():
    signal.sigwait([signal.SIGTERM])
    AT_END
threading.Thread(target=server.serve_forever).start()
threading.Thread(target=end).start()
# exit(2) ends the calling thread alone.
ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)
";

/// Returns whether the main thread of a process has ended while others run.
fn is_headless(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !is_alive(pid) && threads > 1
}

/// Returns whether such programs can be built for this processor.
fn has_no_headless() -> bool {
    let unknown = !cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    if unknown {
        skip("the number of exit(2) is not known on this processor");
    }
    unknown
}

#[test]
fn a_process_without_its_main_thread_is_alive_until_its_last_thread_ends() {
    if has_no_headless() {
        return;
    }
    let env = TestEnv::new();
    let out = env.file("out");
    let at_end = format!("time.sleep(1); open({out:?}, 'a').write('clean '); os._exit(0)");
    let program = env.write("headless.py", &HEADLESS.replace("AT_END", &at_end));
    let begin = |command: &[&str]| {
        let view = env.devport(command).ok().json();
        assert!(is_up(&view), "{view}");
        let (pid, port) = (number(&view["pid"]), port(&view));
        until("its main thread has ended and it serves", || is_headless(pid) && answers(port));
        port
    };
    let port = begin(&["start", "--detach", "--grace", "60s", "--key", "a", "--", "python3", &program]);
    begin(&["restart", "--detach", "a"]);
    env.devport(["stop", "a"]).ok();
    assert!(!answers(port));
    assert_eq!(fs::read_to_string(&out).unwrap(), "clean clean ", "it has its grace period");
    // The port is free at once.
    env.devport(["start", "--detach", "--key", "a", "--"].iter().chain(&SERVER)).ok();
    until("another program serves", || answers(port));
}

#[test]
fn a_helper_without_its_main_thread_is_ended_too() {
    if has_no_headless() {
        return;
    }
    let env = TestEnv::new();
    let program = env.write("headless.py", &HEADLESS.replace("AT_END", "os._exit(0)"));
    let script = format!("setsid python3 {program} & exec sleep 1000");
    let view = env.devport(["start", "--detach", "--key", "a", "--", "sh", "-c", &script]).ok().json();
    let port = port(&view);
    until("it serves", || answers(port));
    env.devport(["stop", "a"]).ok();
    assert!(!answers(port), "it is still there");
}

#[test]
fn too_few_descriptors_for_a_child_are_no_lasting_failure() {
    let env = TestEnv::new();
    let mut waited = 0;
    for limit in 8..=20 {
        let key = format!("n{limit}");
        let start = format!(
            "ulimit -n {limit}; exec {} start --detach --no-port --key {key} -- sleep 1000",
            crate::support::DEVPORT
        );
        let started = env.finish(env.command("sh").args(["-c", &start]));
        if started.code != 0 {
            assert!(started.stderr.contains("too many open files"), "{limit}: {started:?}");
            continue;
        }
        let view = env.which(&key);
        assert_ne!(view["state"], "failed", "{limit}: {view}");
        waited += usize::from(view["state"] == "backoff");
    }
    assert!(waited > 0, "no limit keeps the child alone from starting");
}
