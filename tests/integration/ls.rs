//! `devport ls` and `devport which`.

use std::fs;

use crate::support::TestEnv;

const FIELDS: [&str; 27] = [
    "hash",
    "hashid",
    "key",
    "status",
    "state",
    "port",
    "no_port",
    "tailnet",
    "url",
    "tailnet_url",
    "cwd",
    "cmd",
    "root",
    "checkout",
    "stack",
    "branch",
    "started_by",
    "gone",
    "last_up",
    "pid",
    "started_at",
    "restarts",
    "last_exit",
    "error",
    "listens",
    "exposed",
    "next_start_at",
];

#[test]
fn an_empty_machine_has_no_services_and_nothing_is_created() {
    let env = TestEnv::new();
    assert_eq!(env.devport(["ls"]).ok().stdout, "[]\n");
    assert!(!env.path("state").exists());
    assert!(env.devport(["ls", "--format", "table"]).ok().stdout.contains("no services"));
}

#[test]
fn every_field_is_there_and_no_environment() {
    let mut env = TestEnv::new();
    env.set("SECRET", "hunter2");
    env.start("a", &["sleep", "1000"]);
    for (view, more) in [
        (env.ls().remove(0), &[][..]),
        (env.which("a"), &["port_env", "env_files", "policy", "supervisor", "changes", "exits", "last_output"]),
    ] {
        let names: Vec<_> = view.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, [&FIELDS, more].concat());
    }
    // A command that acts on a service leaves out what has no value.
    let stopped = env.devport(["stop", "a"]).ok().json();
    assert!(stopped.as_object().unwrap().values().all(|value| !value.is_null() && *value != serde_json::json!([])));
    assert_eq!(stopped["outcome"], "stopped");
    for arguments in [&["ls"][..], &["which", "a"], &["ls", "--format", "table"], &["which", "a", "--format", "table"]]
    {
        assert!(!env.devport(arguments).ok().stdout.contains("hunter2"));
    }
}

#[test]
fn active_services_are_those_that_run() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    env.start("b", &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let active = env.devport(["ls", "--active"]).ok().json();
    assert_eq!(active.as_array().unwrap().iter().map(|view| view["key"].as_str().unwrap()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(env.ls().len(), 2);
}

#[test]
fn a_table_has_one_line_a_service_and_escapes_what_would_move_the_cursor() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", "sleep 1000 # \u{1b}[31m\n"]);
    let table = env.devport(["ls", "--format", "table"]).ok().stdout;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("NAME") && !table.contains('\u{1b}') && table.contains("\\u{1b}"), "{table}");
}

#[test]
fn targets_are_key_then_hashid_then_prefix_then_port() {
    let env = TestEnv::new();
    let a = env.start("a", &["sleep", "1000"]);
    let port = a["port"].to_string();
    for target in ["a", a["hashid"].as_str().unwrap(), a["hash"].as_str().unwrap(), &port] {
        assert_eq!(env.which(target)["hash"], a["hash"], "{target}");
    }
    // A key beats a port.
    let named = env.start(&port, &["sleep", "1000"]);
    assert_eq!(env.which(&port)["hash"], named["hash"]);
    for wrong in [format!("+{port}"), format!("0{port}"), "zz".into(), String::new(), "b".into()] {
        env.devport(["which", &wrong]).fails(4, &["hint:"]);
    }
    env.devport(["which", "ca978112ff"]).fails(4, &["no service matching"]);
}

#[test]
fn an_unknown_target_is_reported_with_similar_keys() {
    let env = TestEnv::new();
    env.start("dashboard", &["sleep", "1000"]);
    env.devport(["which", "dashbord"]).fails(4, &["no service matching \"dashbord\"", "did you mean dashboard?"]);
}

#[test]
fn a_printed_hashid_always_resolves_and_an_ambiguous_prefix_is_reported() {
    let env = TestEnv::new();
    // Two keys whose hashes share three digits, found by trying.
    let (first, second) = ("k3", "k101");
    let a = env.start(first, &["sleep", "1000"]);
    let found = (0..20_000)
        .map(|number| format!("k{number}"))
        .find(|key| *key != first && hash_of(key).starts_with(a["hashid"].as_str().unwrap()));
    let second = found.unwrap_or_else(|| second.into());
    let b = env.start(&second, &["sleep", "1000"]);
    assert!(b["hashid"].as_str().unwrap().len() > 3);
    assert_eq!(env.which(a["hashid"].as_str().unwrap())["key"], first);
    env.devport(["rm", first]).ok();
    assert_eq!(env.which(a["hashid"].as_str().unwrap())["key"], second.as_str(), "now the prefix is unique");
}

fn hash_of(key: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(key.as_bytes()).iter().take(5).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn an_ambiguous_prefix_lists_what_it_matches() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    // Two records whose hashes share four digits.
    for digits in ["abcd000000", "abcd111111"] {
        let record = format!(
            r#"{{"hash": "{digits}", "hashid": "{}", "port": 0, "no_port": true, "tailnet": false, "cwd": "/", "cmd": ["true"], "last_up": "2026-01-01T00:00:00Z"}}"#,
            &digits[..5]
        );
        fs::write(env.state(&format!("services/{digits}.json")), record).unwrap();
    }
    env.devport(["which", "abcd"]).fails(4, &["ambiguous", "abcd000000", "abcd111111"]);
    assert_eq!(env.which("abcd0")["hash"], "abcd000000");
}

#[test]
fn listing_never_keeps_a_service_from_starting() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    env.devport(["ls"]);
                }
            });
        }
        let wrong = (0..15).filter(|_| {
            env.devport(["stop", "a"]).ok();
            let started = env.devport(["start", "a"]).ok();
            started.json()["status"] != "running"
        });
        let wrong = wrong.count();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(wrong, 0);
    });
}

#[test]
fn a_closed_pipe_is_no_error() {
    let env = TestEnv::new();
    let program = crate::support::DEVPORT;
    let mut command = env.command("bash");
    let done = env.finish(command.args(["-c", &format!("{program} ls | true; echo ${{PIPESTATUS[0]}}")])).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("0\n", ""));
}

#[test]
fn help_has_examples_and_version_is_printed() {
    let env = TestEnv::new();
    assert!(env.devport(["--version"]).ok().stdout.starts_with("devport "));
    for command in
        ["start", "run", "ls", "which", "stop", "restart", "signal", "rm", "attach", "logs", "tailup", "taildown"]
    {
        let help = env.devport([command, "--help"]).ok().stdout;
        assert!(help.contains("Examples:") && help.contains(&format!("devport {command}")), "{help}");
    }
}
