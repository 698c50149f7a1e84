//! Where services run: in windows of a shared tmux session, with hostile configurations, without tmux.

use std::fs;

use crate::support::{TestEnv, is_alive, number, system_path, until};

/// Keys with characters that are special in tmux.
const HOSTILE: [&str; 17] = [
    "#(touch hacked)",
    "#S",
    "end;",
    ";",
    "@0",
    "{start}",
    "0",
    "!",
    "+",
    "^",
    "$",
    "my.app",
    "=eq",
    "a:b",
    "../../x",
    "é",
    "devport",
];

#[test]
fn hostile_keys_are_only_names() {
    let env = TestEnv::new();
    env.start("bystander", &["sleep", "1000"]);
    for key in HOSTILE {
        let view = env.start(key, &["sleep", "1000"]);
        assert_eq!((view["key"].as_str(), view["state"].as_str()), (Some(key), Some("running")), "{key}");
    }
    for key in HOSTILE {
        assert_eq!(env.devport(["restart", key]).ok().json()["state"], "running", "{key}");
    }
    let windows = env.tmux(&["list-windows", "-t", "=devport:", "-F", "#{window_name}"]).ok().stdout;
    let mut names: Vec<_> = windows.lines().collect();
    names.sort_unstable();
    let mut keys: Vec<_> = HOSTILE.into_iter().chain(["bystander"]).collect();
    keys.sort_unstable();
    assert_eq!(names, keys);
    assert!(!env.path("work/hacked").exists() && !env.path("home/hacked").exists());
    assert_eq!(env.which("bystander")["restarts"], 0);
}

#[test]
fn words_of_a_command_come_through_unchanged() {
    let env = TestEnv::new();
    let out = env.file("out");
    let words =
        ["a;", ";", "a;b ; c;", "#S", "#(id)", "a b", "", "'q'", "\"", "\\", "*", "~", "$$HOME", "é", "-x", "--"];
    let script = format!("import sys; open({out:?},'w').write(repr(sys.argv[1:])); import time; time.sleep(1000)");
    let mut command = vec!["python3", "-c", &script];
    command.extend(words);
    env.start("a", &command);
    until("it has written", || fs::read_to_string(&out).is_ok_and(|text| text.ends_with(']')));
    let expected =
        "['a;', ';', 'a;b ; c;', '#S', '#(id)', 'a b', '', \"'q'\", '\"', '\\\\', '*', '~', '$HOME', 'é', '-x', '--']";
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);
}

#[test]
fn the_users_own_sessions_are_left_alone() {
    let env = TestEnv::new();
    env.tmux(&["new-session", "-d", "-s", "devport-other", "-n", "devport", "sleep", "1000"]).ok();
    env.tmux(&["new-session", "-d", "-s", "mine", "-n", "a", "sleep", "1000"]).ok();
    env.start("a", &["sleep", "1000"]);
    env.start("devport", &["sleep", "1000"]);
    let sessions = env.tmux(&["list-sessions", "-F", "#{session_name} #{session_windows}"]).ok().stdout;
    let mut sessions: Vec<_> = sessions.lines().collect();
    sessions.sort_unstable();
    assert_eq!(sessions, ["devport 2", "devport-other 1", "mine 1"]);
    env.devport(["restart", "a"]).ok();
    env.devport(["stop", "--all"]).ok();
    let sessions = env.tmux(&["list-sessions", "-F", "#{session_name}"]).ok().stdout;
    assert_eq!(sessions.lines().count(), 2, "{sessions}");
}

#[test]
fn no_focus_is_stolen_and_no_option_is_changed() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let shown = || env.tmux(&["display-message", "-p", "-t", "=devport:", "#{window_name}"]).ok().stdout;
    let options = || {
        env.tmux(&["show-options", "-g"]).ok().stdout
            + &env.tmux(&["show-options", "-s"]).ok().stdout
            + &env.tmux(&["show-options", "-gw"]).ok().stdout
    };
    let (before, options_before) = (shown(), options());
    env.start("b", &["sleep", "1000"]);
    assert_eq!((shown(), options()), (before, options_before));
}

#[test]
fn a_hostile_tmux_configuration_breaks_nothing() {
    for (index, line) in [
        "set -g remain-on-exit on",
        "set -g destroy-unattached on",
        "set -s exit-unattached on",
        "set -g base-index 5\nset -g renumber-windows on\nset -g automatic-rename on\nset -g allow-rename on",
        "set -g default-shell /bin/false\nset -g default-command false",
        "set -g default-terminal nonsense",
        "this is no tmux command",
        "set-hook -g after-new-window 'kill-window'\nset-hook -g after-new-session 'kill-window'",
    ]
    .into_iter()
    .enumerate()
    {
        let env = TestEnv::new();
        fs::write(env.path("home/.tmux.conf"), format!("{line}\n")).unwrap();
        for key in ["a", "b"] {
            let view = env.start(key, &["sleep", "1000"]);
            assert_eq!(view["state"], "running", "{index}: {line}");
        }
        assert_eq!(env.devport(["restart", "a"]).ok().json()["state"], "running", "{line}");
        until("both run", || env.ls().iter().all(|view| view["state"] == "running" && is_alive(number(&view["pid"]))));
    }
}

#[test]
fn a_dead_window_of_the_service_is_removed_and_no_other() {
    let env = TestEnv::new();
    fs::write(env.path("home/.tmux.conf"), "set -g remain-on-exit on\n").unwrap();
    env.start("keep", &["sleep", "1000"]);
    env.start("a", &["sleep", "1000"]);
    let pane = env.run_state("a").unwrap()["window"]["pane"].as_str().unwrap().to_owned();
    env.tmux(&["set-option", "-w", "-t", &pane, "remain-on-exit", "on"]).ok();
    env.devport(["stop", "a"]).ok();
    let windows = || env.tmux(&["list-windows", "-t", "=devport:", "-F", "#{window_name} #{pane_dead}"]).ok().stdout;
    until("its window is dead", || windows().contains("a 1"));
    env.devport(["start", "a"]).ok();
    let windows = windows();
    let mut lines: Vec<_> = windows.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a 0", "keep 0"]);
}

#[test]
fn without_tmux_a_service_runs_detached() {
    let mut env = TestEnv::new();
    // A PATH with everything that the test needs, but without tmux.
    let bin = env.path("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["sh", "sleep", "echo"] {
        std::os::unix::fs::symlink(format!("/bin/{program}"), bin.join(program)).unwrap();
    }
    env.set("PATH", bin.to_str().unwrap());
    let script = "test -t 0 && test -t 1 && echo on a terminal; exec sleep 1000";
    let started = env.devport(["start", "--key", "a", "--", "sh", "-c", script]).ok();
    let note = "devport: there is no tmux, so `devport attach` has no window to show\nhint: install the package tmux\n";
    assert_eq!(started.stderr, note);
    let view = started.json();
    assert_eq!(view["state"], "running");
    let file = env.write("d.yaml", "- key: b\n  exec: sleep 1000\n- key: c\n  exec: sleep 1000\n");
    assert_eq!(env.devport(["start", "-f", &file]).ok().stderr.matches("no tmux").count(), 1, "one note for all");
    assert_eq!(env.devport(["start", "a"]).ok().stderr, "", "nothing is started");
    for option in ["--no-tmux", "--detach"] {
        assert_eq!(
            env.devport(["start", option, "--key", option.trim_matches('-'), "--", "sleep", "9"]).ok().stderr,
            ""
        );
    }
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("\non a terminal\n"));
    env.devport(["attach", "a"]).fails(1, &["no tmux window", "devport logs -f a"]);
    let again = env.devport(["restart", "a"]).ok().json();
    assert_ne!(again["pid"], view["pid"]);
    env.devport(["signal", "-s", "KILL", "a"]).ok();
    until("it has crashed", || env.which("a")["last_exit"]["signal"] == 9);
    env.devport(["stop", "a"]).ok();
    assert_eq!(env.which("a")["state"], "stopped");
    env.set("PATH", &system_path());
}

#[test]
fn detached_is_a_choice_too() {
    let env = TestEnv::new();
    let view = env.devport(["start", "--no-tmux", "--key", "a", "--", "sleep", "1000"]).ok().json();
    assert_eq!(view["state"], "running");
    // The old name of the option stays.
    env.devport(["restart", "--detach", "a"]).ok();
    assert_eq!(env.tmux(&["list-sessions"]).code, 1);
    let supervisor = env.supervisor("a");
    let open: Vec<_> = (0..3).map(|fd| fs::read_link(format!("/proc/{supervisor}/fd/{fd}")).unwrap()).collect();
    assert!(open.iter().all(|path| path.to_str() == Some("/dev/null")), "{open:?}");
}

#[test]
fn a_tmux_server_that_hangs_keeps_no_service_from_running() {
    let env = TestEnv::new();
    env.tmux(&["new-session", "-d", "-s", "mine", "sleep", "1000"]).ok();
    let server = env.tmux(&["display-message", "-p", "#{pid}"]).ok().stdout.trim().parse().unwrap();
    crate::support::signal(server, "STOP");
    let started = env.devport(["start", "--key", "a", "--", "sleep", "1000"]);
    crate::support::signal(server, "CONT");
    let started = started.ok();
    assert!(
        started.stderr.contains("the tmux server did not respond within 10 s; a runs without a window"),
        "{started:?}"
    );
    assert_eq!(env.which("a")["state"], "running");
}

/// A tmux that marks a window only after it was closed.
const LATE_TMUX: &str = r#"#!/bin/sh
case "$*" in *remain-on-exit*) while TMUX list-windows -a -F '#{window_id}' 2>&1 | grep -qx "$4"; do :; done ;; esac
exec TMUX "$@"
"#;

#[test]
fn a_command_that_ends_before_its_window_is_marked_runs_once() {
    use std::os::unix::fs::PermissionsExt;
    let mut env = TestEnv::new();
    let tmux = std::env::split_paths(&system_path())
        .map(|directory| directory.join("tmux"))
        .find(|tmux| tmux.exists())
        .unwrap();
    let bin = env.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("tmux"), LATE_TMUX.replace("TMUX", tmux.to_str().unwrap())).unwrap();
    std::fs::set_permissions(bin.join("tmux"), std::fs::Permissions::from_mode(0o755)).unwrap();
    // It keeps the tmux server alive.
    env.start("other", &["sleep", "1000"]);
    env.prefer_programs_of(&bin);
    let command = ["--no-port", "--restart", "on-failure", "--", "sh", "-c", "echo ran >>runs"];
    env.devport([&["start", "--key", "a"][..], &command].concat()).ok();
    env.devport(["wait", "a", "--for", "stopped"]).ok();
    assert_eq!(std::fs::read_to_string(env.file("runs")).unwrap(), "ran\n");
}
