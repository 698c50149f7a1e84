//! `devport start`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::strace::{Fault, is_missing};
use crate::support::{SERVER, TestEnv, answers, close, is_up, number, port, until};

#[test]
fn a_service_gets_a_port_and_keeps_it() {
    let env = TestEnv::new();
    let first = env.start("api", &SERVER);
    assert_eq!(port(&first), env.first_port);
    // It may be ready before its state is read.
    assert!(first["status"] == "running" && is_up(&first), "{first}");
    until("it answers", || answers(port(&first)));
    env.devport(["stop", "api"]).ok();
    assert!(!answers(port(&first)));
    let other = env.start("web", &["sleep", "1000"]);
    assert_eq!(port(&other), env.first_port + 1, "the port of a stopped service stays reserved");
    let again = env.devport(["start", "api"]).ok().json();
    assert_eq!((again["port"].clone(), again["cmd"].clone()), (first["port"].clone(), first["cmd"].clone()));
    until("it answers again", || answers(port(&again)));
}

#[test]
fn several_registered_services_are_started() {
    let env = TestEnv::new();
    for key in ["a", "b"] {
        env.detach(key, &[], &["sleep", "1000"]);
    }
    env.devport(["stop"]).ok();
    let started = env.devport(["start", "--wait", "--no-tmux", "a", "b"]).ok().json();
    let rows: Vec<_> = started.as_array().unwrap().iter().map(|view| (&view["key"], &view["outcome"])).collect();
    assert_eq!(serde_json::json!(rows), serde_json::json!([["a", "started"], ["b", "started"]]));
    let again = env.devport(["start", "b", "a"]).ok().json();
    assert!(again.as_array().unwrap().iter().all(|view| view["outcome"] == "already-running"), "{again}");
    env.devport(["stop"]).ok();
    env.devport(["start", "a", "nope"]).fails(4, &["no service matching \"nope\""]);
    assert_eq!(env.which("a")["state"], "stopped", "nothing is started unless all names are known");
}

#[test]
fn starting_twice_is_idempotent_and_reports_differences() {
    let env = TestEnv::new();
    let first = env.start("api", &["sleep", "1000"]);
    let same = env.devport(["start", "--key", "api", "--", "sleep", "1000"]).ok();
    assert_eq!((same.json()["pid"].clone(), same.stderr.as_str()), (first["pid"].clone(), ""));
    let other = env.devport(["start", "--key", "api", "--", "sleep", "2000"]).ok();
    assert_eq!(other.json()["cmd"], first["cmd"]);
    assert!(
        other.stderr.contains("is already running with the command sleep 1000") && other.stderr.contains("--replace")
    );
    let replaced = env.devport(["start", "--key", "api", "--replace", "--", "sleep", "2000"]).ok().json();
    assert_eq!((replaced["cmd"][1].as_str(), replaced["port"].clone()), (Some("2000"), first["port"].clone()));
    assert_ne!(replaced["pid"], first["pid"]);
}

#[test]
fn a_stopped_service_takes_over_what_the_new_call_says() {
    let env = TestEnv::new();
    let first = env.start("api", &["sleep", "1000"]);
    env.devport(["stop", "api"]).ok();
    let out = env.file("out");
    let mut command = env.command(crate::support::DEVPORT);
    command.env("NEW", "yes");
    let script = format!("echo $PWD $NEW $VITE_PORT > {out}; sleep 1000");
    // The shell receives a dollar for `$$`.
    let script = script.replace('$', "$$");
    command.args(["start", "--key", "api", "--port-env", "VITE_PORT", "--", "sh", "-c", &script]);
    let again = env.finish(&mut command).ok().json();
    assert_eq!(again["port"], first["port"]);
    until("it has written", || std::fs::read_to_string(&out).is_ok_and(|text| text.ends_with('\n')));
    let expected = format!("{} yes {}\n", env.path("work").canonicalize().unwrap().display(), first["port"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);
}

#[test]
fn a_service_that_cannot_be_executed_is_reported_and_fails() {
    let env = TestEnv::new();
    let plain = env.write("plain", "no program");
    for (key, program, why) in [
        ("a", "/nonexistent/x", "no such file"),
        ("b", "no-such-command-here", "command not found"),
        ("c", plain.as_str(), "permission denied"),
    ] {
        env.devport(["start", "--key", key, "--", program]).fails(1, &[&format!("{key} did not start"), why, program]);
        let view = env.which(key);
        assert_eq!((view["state"].as_str(), view["status"].as_str()), (Some("failed"), Some("stopped")));
        assert!(view["error"].as_str().unwrap().contains(why));
    }
    // Once repaired, it starts with the same port.
    let port = env.which("b")["port"].clone();
    assert_eq!(env.start("b", &["sleep", "1000"])["port"], port);
}

#[test]
fn a_directory_that_is_gone_is_an_error_and_changes_nothing() {
    let env = TestEnv::new();
    let directory = env.path("work/gone");
    std::fs::create_dir(&directory).unwrap();
    let mut command = env.command(crate::support::DEVPORT);
    env.finish(command.current_dir(&directory).args(["start", "--key", "a", "--", "sleep", "1000"])).ok();
    env.devport(["stop", "a"]).ok();
    std::fs::remove_dir(&directory).unwrap();
    env.devport(["start", "a"]).fails(
        1,
        &[
            "a did not start",
            "working directory",
            "does not exist",
            "create it, or remove the service with `devport rm a`",
        ],
    );
    assert_eq!(env.which("a")["cwd"], directory.canonicalize().unwrap_or(directory).to_str().unwrap());
    assert_eq!(env.ls().len(), 1);
}

#[test]
fn bad_arguments_are_usage_errors_and_start_nothing() {
    let env = TestEnv::new();
    for (arguments, part) in [
        (&["start", "--key", "a"][..], "no command"),
        (&["start", "--key", "a", "--", ""], "empty word"),
        (&["start", "--"], "there is no command after --"),
        (&["run", "--key", "a", "--"], "there is no command after --"),
        (&["stop", "--"], "name a service after --, or leave -- out"),
        (&["start", "--key", "a\nb", "--", "true"], "control character"),
        (&["start", "--key=-a", "--", "true"], "starts with a dash"),
        (&["start", "--key", "a", "sleep", "5"], "put the command after --"),
        (&["start", "sleep", "5"], "put the command after --, as in `devport start --key api -- sleep 5`"),
        (&["start", "--wait", "5", "--key", "a", "--", "sleep", "5"], "write `--wait=5s`"),
        (&["start", "--wait=5", "--key", "a", "--", "sleep", "5"], "write `--wait=5s`"),
        (&["restart", "--wait", "5"], "write `--wait=5s`"),
        (&["restart", "--wait", "300", "a"], "write `--wait=300s`"),
        (&["logs", "--since", "300"], "write `--since=300s`"),
        (&["start", "--key", "a", "--port", "80", "--", "true"], "1024"),
        (&["start", "--key", "a", "--port", "x", "--", "true"], "invalid value \"x\" for --port"),
        (&["start", "--key", "a", "--no-port", "--port", "3000", "--", "true"], "cannot be used with"),
        (&["start", "--key", "a", "--port-env", "A B", "--", "true"], "name of a variable"),
        (&["start", "-f", "x.yaml", "--key", "a"], "cannot be used with"),
        (&["nonsense"], "there is no command \"nonsense\""),
        (&["signal", "-s", "NOPE", "a"], "unknown signal"),
    ] {
        env.devport(arguments).fails(2, &[part]);
    }
    assert_eq!(env.ls().len(), 0);
}

#[test]
fn words_that_are_not_utf8_are_refused() {
    let env = TestEnv::new();
    let bad = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let arguments = ["start", "--key", "a", "--", "echo"].iter().map(std::ffi::OsStr::new);
    env.devport(arguments.chain([bad])).fails(2, &["not UTF-8"]);
    assert_eq!(env.ls().len(), 0);
    let mut command = env.command(crate::support::DEVPORT);
    command.env("BAD", std::ffi::OsStr::from_bytes(b"s\xffcret")).args(["start", "--key", "a", "--", "true"]);
    let refused = env.finish(&mut command).fails(2, &["variable BAD"]);
    assert!(!refused.stderr.contains("cret"), "{refused:?}");
}

#[test]
fn a_port_can_be_requested() {
    let env = TestEnv::new();
    let wanted = env.first_port + 7;
    let text = wanted.to_string();
    let view = env.devport(["start", "--key", "a", "--port", &text, "--", "sleep", "1000"]).ok().json();
    assert_eq!(port(&view), wanted);
    env.devport(["start", "--key", "b", "--port", &text, "--", "true"]).fails(1, &["reserved for a", "devport rm a"]);
    let listener = std::net::TcpListener::bind(("::1", wanted + 1)).unwrap();
    let taken = (wanted + 1).to_string();
    let me = format!("pid {}", std::process::id());
    let end = format!("hint: end it with `kill {}`, ", std::process::id());
    env.devport(["start", "--key", "b", "--port", &taken, "--", "true"]).fails(1, &["is taken by", &me, &end]);
    close(listener);
    env.devport(["stop", "a"]).ok();
    let options = format!("--wait --key a --port {taken} --cwd {} --grace 2s", env.path("work").display());
    let rm = format!("devport rm {}", view["hashid"].as_str().unwrap());
    let commands = format!("{rm} && devport start {options} -- sleep 1000");
    let hint = format!("hint: `{commands}` moves it; `rm` also deletes its log");
    env.devport(["start", "--key", "a", "--grace", "2s", "--port", &taken, "--", "sleep", "1000"])
        .fails(1, &["already has port", "ports never change", &hint]);
    env.devport(["start", "a"]).ok();
    let runs = env.devport(["start", "--key", "a", "--port", &taken, "--", "sleep", "1000"]).ok().stderr;
    assert!(
        runs.contains(" with port ") && runs.contains("`devport rm a` removes it") && !runs.contains("--replace"),
        "{runs}"
    );
    env.devport(["stop", "a"]).ok();
    env.devport(["reserve", "--key", "a", "--port", &taken])
        .fails(1, &[&format!("`{rm}` removes it with its log; then")]);
    assert_eq!(env.ls().len(), 1, "nothing was registered");
}

#[test]
fn a_replaced_service_that_keeps_a_port_outside_of_the_range_says_so() {
    let mut env = TestEnv::new();
    let fixed = env.first_port + 20;
    env.set("DEVPORT_PORT_RANGE", &format!("{}-{}", env.first_port, env.first_port + 9));
    let start = |options: &[&str], seconds: &str| {
        let words = [&["start", "--key", "a"], options, &["--", "sleep", seconds]].concat();
        env.devport(words).ok().stderr
    };
    assert_eq!(start(&["--port", &fixed.to_string()], "1000"), "");
    let note = format!("devport: a keeps port {fixed}; to get a port of ");
    let kept = start(&["--replace"], "1001");
    assert!(kept.starts_with(&note) && kept.ends_with("first remove it and its log with `devport rm a`\n"), "{kept}");
    assert_eq!(start(&["--replace", "--port", &fixed.to_string()], "1002"), "");
}

#[test]
fn each_of_several_keys_is_resolved_once() {
    if is_missing() {
        return;
    }
    let env = TestEnv::new();
    for key in ["a", "b"] {
        env.detach(key, &[], &["sleep", "1000"]);
    }
    let record = env.state_file("services", "a", "json");
    let opens = |keys: &[&str]| {
        env.opened_records(".", &[&["start"], keys].concat()).iter().filter(|path| **path == record).count()
    };
    let once = opens(&["a"]);
    assert!(once > 0);
    assert_eq!(opens(&["a", "b"]), once);
    env.devport(["start", "a", "c"]).fails(4, &["no service matching \"c\""]);
    env.devport(["start", "c", "d"]).fails(2, &["unexpected \"c d\"", "put the command after --"]);
}

#[test]
fn a_service_without_a_port_has_none() {
    let env = TestEnv::new();
    let out = env.file("out");
    let script = format!("echo \"[$$PORT]\" > {out}; sleep 1000");
    let view = env.devport(["start", "--key", "a", "--no-port", "--", "sh", "-c", &script]).ok().json();
    assert_eq!((view["port"].clone(), view["no_port"].clone()), (serde_json::Value::Null, true.into()));
    until("it has written", || std::fs::read_to_string(&out).is_ok_and(|text| text == "[]\n"));
    // No number names it.
    env.devport(["stop", "0"]).fails(4, &["no service"]);
    env.devport(["stop", "a"]).ok();
    let view = env.start("a", &["sleep", "1000"]);
    assert_eq!(port(&view), env.first_port, "now it wants one");
}

#[test]
fn without_a_key_directory_and_command_name_the_service() {
    let env = TestEnv::new();
    let first = env.devport(["start", "--", "sleep", "1000"]).ok().json();
    let second = env.devport(["start", "--", "sleep", "1000"]).ok().json();
    assert_eq!((first["hash"].clone(), first["pid"].clone()), (second["hash"].clone(), second["pid"].clone()));
    assert_eq!(first["key"], serde_json::Value::Null);
    let other = env.devport(["start", "--", "sleep", "1001"]).ok().json();
    assert_ne!(first["hash"], other["hash"]);
    env.devport(["stop", first["hashid"].as_str().unwrap(), other["hash"].as_str().unwrap()]).ok();
}

#[test]
fn many_starts_of_one_key_start_one_supervisor() {
    let mut env = TestEnv::new();
    // Nothing of the service changes meanwhile.
    env.set("DEVPORT_TEST_HEARTBEAT", "1h");
    let start = ["start", "--key", "a", "--ready-timeout", "1h", "--", "sleep", "1000"];
    let starts: Vec<_> = (0..20).map(|_| env.spawn(start)).collect();
    let mut printed: Vec<_> = starts.into_iter().map(|child| crate::support::done(child).ok().json()).collect();
    let started = printed.iter().filter(|view| view["outcome"] == "started").count();
    assert_eq!(started, 1, "{printed:#?}");
    for view in &mut printed {
        view.as_object_mut().unwrap().remove("outcome");
    }
    assert!(printed.iter().all(|view| *view == printed[0]), "{printed:#?}");
    let supervisors = env.processes().into_iter().filter(|(_, line)| line.starts_with(crate::support::DEVPORT));
    assert_eq!(supervisors.count(), 1);
}

#[test]
fn many_services_at_once_get_a_port_and_a_window_each() {
    let env = TestEnv::new();
    let keys: Vec<String> = (0..25).map(|number| format!("s{number}")).collect();
    let starts: Vec<_> = keys.iter().map(|key| env.spawn(["start", "--key", key, "--", "sleep", "1000"])).collect();
    let mut ports: Vec<_> = starts.into_iter().map(|child| port(&crate::support::done(child).ok().json())).collect();
    ports.sort_unstable();
    let expected: Vec<u16> = (env.first_port..env.first_port + 25).collect();
    assert_eq!(ports, expected);
    assert!(env.ls().iter().all(|view| view["state"] == "running"));
    let windows = env.tmux(&["list-windows", "-t", "=devport:", "-F", "#{window_name}"]).ok();
    let mut names: Vec<_> = windows.stdout.lines().map(str::to_owned).collect();
    names.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(names, keys);
}

#[test]
fn a_taken_port_is_reported_with_its_owner_and_waited_for() {
    let env = TestEnv::new();
    let view = env.start("api", &SERVER);
    env.devport(["stop", "api"]).ok();
    let listener = std::net::TcpListener::bind(("0.0.0.0", port(&view))).unwrap();
    let me = format!("pid {}", std::process::id());
    env.devport(["start", "api"]).fails(1, &["is taken by", &me, "not a devport service", "within 5 s"]);
    let view = env.which("api");
    assert_eq!(view["state"], "port-conflict");
    assert!(view["error"].as_str().unwrap().contains(&me));
    close(listener);
    // It may be ready before its state is read.
    until("it answers", || answers(port(&view)));
    assert_eq!(number(&env.which("api")["restarts"]), 0);
}

#[test]
fn another_service_on_the_port_is_named() {
    let env = TestEnv::new();
    let api = env.start("api", &["sleep", "1000"]);
    env.devport(["stop", "api"]).ok();
    let squatter = format!("python3 -m http.server --bind 127.0.0.1 {}", port(&api));
    env.start("squatter", &["sh", "-c", &squatter]);
    until("it answers", || answers(port(&api)));
    env.devport(["start", "api"]).fails(1, &["the devport service squatter"]);
}

#[test]
fn a_range_without_free_ports_is_reported() {
    let mut env = TestEnv::new();
    let range = format!("{0}-{0}", env.first_port);
    env.set("DEVPORT_PORT_RANGE", &range);
    env.start("a", &["sleep", "1000"]);
    env.devport(["start", "--key", "b", "--", "true"]).fails(1, &["no free port", "1 reserved", "devport rm"]);
    assert_eq!(env.ls().len(), 1);
    env.set("DEVPORT_PORT_RANGE", "80-90");
    env.devport(["start", "--key", "b", "--", "true"]).fails(3, &["not a range of ports"]);
    env.set("DEVPORT_PORT_RANGE", &range);
}

#[test]
fn notes_and_errors_show_control_characters_as_escapes() {
    let env = TestEnv::new();
    env.finish(env.command("git").args(["init", "-q"])).ok();
    let strange = env.path("work/d\u{1b}[31m\u{202e}");
    std::fs::create_dir(&strange).unwrap();
    let strange = strange.to_str().unwrap();
    env.devport(["-C", strange, "start", "--detach", "--key", "a", "--", "sleep", "1000"]).ok();
    let noted = env.devport(["start", "--detach", "--key", "a", "--", "sleep", "1000"]).ok();
    assert!(noted.stderr.contains("is already running with the directory"), "{}", noted.stderr);
    let refused = env.devport(["-C", &format!("{strange}/missing"), "ls"]).fails(1, &[]);
    for done in [noted, refused] {
        assert!(done.stderr.contains("d\\u{1b}[31m\\u{202e}"), "{}", done.stderr);
        assert!(!done.stderr.contains(['\u{1b}', '\u{202e}']), "{}", done.stderr);
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_is_reported_as_a_sandbox() {
    if is_missing() {
        return;
    }
    let env = TestEnv::new();
    let base = env.state("");
    let allow =
        format!("allow writing to {} (Codex: `sandbox_workspace_write.writable_roots`", env.path("state").display());
    let refuses = |calls: &str, path: Option<&Path>, error: &str| {
        let effect = format!("error={error}");
        let fault = Fault { calls, path, effect: &effect };
        let start = ["start", "--detach", "--no-port", "--key", "b", "--", "sleep", "1000"];
        let failed = env.finish(&mut env.faulty(fault, start)).fails(1, &["could not", "looks like a sandbox", &allow]);
        assert!(!failed.stderr.contains("DEVPORT_HOME"), "{failed:?}");
    };
    refuses("?mkdir,mkdirat", None, "EROFS");
    assert!(!base.exists());
    env.detach("a", &[], &["sleep", "1000"]);
    // The lock of the key `b`.
    let lock = env.state("locks/3e23e81600.launch.lock");
    for error in ["EROFS", "EPERM", "EACCES"] {
        refuses("openat", Some(&lock), error);
    }
    assert_eq!(env.ls().len(), 1);
    // A lock that exists can be held on a read-only file system, and the service keeps running.
    let (pid, lock_of_a) = (env.which("a")["pid"].clone(), env.state("locks/ca978112ca.launch.lock"));
    let fault = Fault { calls: "openat", path: Some(&lock_of_a), effect: "error=EROFS:when=1" };
    env.finish(&mut env.faulty(fault, ["restart", "a"])).fails(1, &["read-only file system", &allow]);
    assert_eq!(env.which("a")["pid"], pid);
    let fault = Fault { calls: "openat", path: Some(&lock), effect: "error=ENOSPC" };
    let full = env.finish(&mut env.faulty(fault, ["start", "--key", "b", "--", "sleep", "1000"]));
    let full = full.fails(1, &["no space left on device", "free some space"]);
    assert!(!full.stderr.contains("sandbox"), "{full:?}");
}

#[test]
fn a_command_that_has_ended_is_shown_in_its_final_state() {
    let env = TestEnv::new();
    // It leaves a process that ends only after the grace period: meanwhile the state is `stopping`.
    let script = "trap '' TERM; sleep 1000 & exit 3";
    let options = ["--no-port", "--restart", "never", "--grace", "100ms", "--", "sh", "-c", script];
    // What `start` sees is a matter of chance.
    for number in 0..8 {
        let key = format!("a{number}");
        let began = Instant::now();
        let view = env.devport(["start", "--key", &key].iter().chain(&options)).ok().json();
        let shown = (view["status"].as_str().unwrap(), view["state"].as_str().unwrap());
        // `start` awaits the final state for a second, and an exit that its supervisor has not recorded for 0.2 s.
        let is_late = began.elapsed() >= Duration::from_millis(200);
        let late = is_late && ["stopping", "unknown"].contains(&shown.1);
        assert!(late || [("stopped", "failed"), ("running", "running")].contains(&shown), "{view}");
        assert_eq!(env.wait_state(&key, "failed")["error"], "exit code 3, and `restart` is never");
    }
}

#[test]
fn a_command_that_does_not_exist_stays_registered_and_the_hint_removes_it() {
    let env = TestEnv::new();
    let hint = "hint: it stays registered; `devport rm a` removes it\n";
    env.devport(["start", "--key", "a", "--", "nodemonx"]).fails(1, &["nodemonx: command not found", hint]);
    env.devport(["start", "--no-port", "--key", "a", "--restart", "never", "--", "true"]).ok();
    env.wait_state("a", "stopped");
    // A service that has run is not to be removed for a program that is missing.
    let missing = env.devport(["start", "--key", "a", "--", "nodemonx"]).fails(1, &["nodemonx: command not found"]);
    assert!(!missing.stderr.contains("devport rm"), "{missing:?}");
}
