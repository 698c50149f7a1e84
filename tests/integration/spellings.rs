//! What users type: natural spellings take effect, or are refused with the right advice.

use std::fs;

use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, has_program, until};

#[test]
fn a_time_behind_wait_needs_no_equals_sign() {
    let env = TestEnv::new();
    let view = env.devport(["start", "--wait", "20s", "--no-port", "--key", "a", "--", "sleep", "1000"]).ok().json();
    assert_eq!(view["state"], "ready");
    env.devport(["restart", "--wait", "a"]).ok();
    // With a port, it never becomes ready.
    let late = env.devport(["start", "--wait", "100ms", "--key", "b", "--", "sleep", "1000"]);
    late.fails(5, &["b is not ready after 0.1 s: "]);
}

#[test]
fn a_command_for_a_shell_fails_with_the_command_line_to_type() {
    let env = TestEnv::new();
    for (words, hint) in [
        (&["sleep 1000"][..], "run one with `-- sh -c 'sleep 1000'`, or drop the quotes: `-- sleep 1000`"),
        (&["A=1", "sleep", "9"], "`-- sh -c 'A=1 sleep 9'`, or set the variable: `--env A=1 -- sleep 9`"),
        (&["cd /tmp && sleep 9"], "`-- sh -c 'cd /tmp && sleep 9'`"),
    ] {
        for command in [&["start", "--no-tmux"][..], &["run"]] {
            let all = [command, &["--no-port", "--key", "a", "--"], words].concat();
            env.devport(&all).fails(1, &["a did not start: ", "hint: devport runs no shell; ", hint]);
        }
    }
}

#[test]
fn unset_variables_in_the_words_are_named_once_each() {
    let env = TestEnv::new();
    let script = "for i in 1 2; do echo $i $i $$i $HOME $DEVPORT_KEY; done; exec sleep 1000";
    let warning = "devport: a: $i is not set and was replaced by nothing; write $$i to pass it to the command\n";
    let once = |stderr: &str| stderr == warning;
    let started = env.devport(["start", "--no-port", "--key", "a", "--", "sh", "-c", script]).ok();
    assert!(once(&started.stderr), "{started:?}");
    let same = env.devport(["start", "--no-port", "--key", "a", "--", "sh", "-c", script]).ok();
    assert_eq!(same.stderr, "", "nothing is started");
    env.devport(["stop", "a"]).ok();
    assert!(once(&env.devport(["start", "a"]).ok().stderr));
    env.devport(["stop", "a"]).ok();
    let run =
        env.devport(["run", "--no-port", "--restart", "never", "--key", "b", "--", "sh", "-c", "echo $PORT"]).ok();
    assert!(run.stderr.contains("b: $PORT is not set") && run.stderr.contains("write $$PORT"), "{run:?}");
    assert_eq!(env.devport(["start", "--key", "c", "--", "sh", "-c", "sleep 1000; echo $PORT"]).ok().stderr, "");
}

#[test]
fn cwd_is_the_directory_of_the_command() {
    let env = TestEnv::new();
    fs::create_dir(env.path("work/web")).unwrap();
    env.write(".env", "A=from here\n");
    let words = ["--", "sh", "-c", "pwd; echo $A; exec sleep 1000"];
    let start = ["start", "--no-port", "--key", "a", "--cwd", "web", "--env-file", ".env"];
    let view = env.devport(start.iter().chain(&words)).ok().json();
    let web = env.path("work/web").canonicalize().unwrap();
    assert_eq!(view["cwd"], web.to_str().unwrap());
    let expected = format!("\n{}\nfrom here\n", web.display());
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains(&expected));
    env.devport(["start", "--key", "b", "--cwd", "none", "--", "true"]).fails(3, &["none does not exist"]);
    env.devport(["start", "--cwd", "web", "a"]).fails(2, &["--cwd cannot be used with TARGET"]);
    env.devport(["start", "--cwd", "web", "-f", "x.yaml"]).fails(2, &["--cwd cannot be used with --file"]);
}

#[test]
fn an_option_that_would_change_a_registered_service_is_refused() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let before = env.which("a");
    for command in ["start", "run"] {
        for option in
            [&["--restart", "never"][..], &["--grace", "9s"], &["--ready", "tcp"], &["--tailnet"], &["--env", "A=1"]]
        {
            let words = [&[command, "a"], option].concat();
            let message = format!("{} cannot be used with TARGET", option[0]);
            env.devport(&words).fails(2, &[&message, "a registered service keeps its options"]);
        }
    }
    assert_eq!(env.which("a")["pid"], before["pid"]);
}

#[test]
fn run_with_replace_takes_a_running_service_over() {
    let env = TestEnv::new();
    let background = env.start("a", &["sleep", "1000"]);
    let mut run = env.spawn(["run", "--replace", "a"]);
    let supervisor = i32::try_from(run.id()).unwrap();
    until("the service runs here", || {
        let view = env.which("a");
        view["pid"].is_i64() && view["pid"] != background["pid"] && env.supervisor("a") == supervisor
    });
    env.devport(["stop", "a"]).ok();
    assert!(run.wait().unwrap().success());
}

#[test]
fn restart_all_restarts_what_runs() {
    let env = TestEnv::new();
    let (a, b) = (env.start("a", &["sleep", "1000"]), env.start("b", &["sleep", "1000"]));
    env.start("stopped", &["sleep", "1000"]);
    env.devport(["stop", "stopped"]).ok();
    let restarted = env.devport(["restart", "--all"]).ok().json();
    assert_eq!(restarted.as_array().unwrap().len(), 2);
    assert!(env.which("a")["pid"] != a["pid"] && env.which("b")["pid"] != b["pid"], "{restarted}");
    assert_eq!(env.which("stopped")["state"], "stopped");
    env.devport(["restart", "--all", "a"]).fails(2, &["cannot be used with"]);
}

#[test]
fn a_file_is_no_target() {
    let env = TestEnv::new();
    env.devport(["logs", "-f", "devport.yaml"])
        .fails(4, &["only `devport start -f`, `up -f` and `down -f` read a file"]);
    env.devport(["stop", "-f", "devport.yaml"]).fails(2, &["`devport down -f FILE` stops the stack of a file"]);
    env.devport(["rm", "--all"]).fails(2, &["name the services to remove"]);
    let file = env.write("d.yaml", "- key: api-server\n  exec: sleep 1000\n- key: db\n  exec: sleep 1000\n");
    let wrong = env.devport(["start", "-f", &file, "api-sever"]);
    wrong.fails(4, &["d.yaml has no service \"api-sever\"", "hint: did you mean api-server?\n"]);
    env.devport(["start", "-f", &file, "zzz"]).fails(4, &["hint: it has api-server, db\n"]);
}

#[test]
fn messages_escape_what_a_terminal_would_act_on() {
    let env = TestEnv::new();
    for arguments in
        [&["stop", "x\u{1b}[31m"][..], &["x\u{1b}[31m"], &["ls", "--x\u{1b}[31m"], &["ls", "--format", "\u{1b}[31m"]]
    {
        let refused = env.devport(arguments);
        assert!(!refused.stderr.contains('\u{1b}') && refused.stderr.contains("\\u{1b}"), "{refused:?}");
    }
    // A supervisor prints its own messages on the terminal, with the name of the program in them.
    let program = "no\u{1b}[31msuch";
    let run = env.devport(["run", "--no-port", "--key", "a", "--", program]);
    assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
}

#[test]
fn the_picker_offers_only_services_with_a_window() {
    let env = TestEnv::new();
    env.start("shown", &["sh", "-c", "echo here I am; exec sleep 1000"]);
    env.devport(["start", "--no-tmux", "--key", "hidden", "--", "sleep", "1000"]).ok();
    if has_program("fzf") {
        let terminal = Terminal::run(&env, &format!("{DEVPORT} attach"));
        terminal.shows("1/1");
        terminal.keys(&["Enter"]);
        terminal.shows("here I am");
    }
    env.devport(["stop", "shown"]).ok();
    env.devport(["attach"]).fails(1, &["no running service has a window"]);
}

#[test]
fn the_window_of_a_service_without_a_key_has_its_hash_as_name() {
    let env = TestEnv::new();
    let view = env.devport(["start", "--", "sleep", "1000"]).ok().json();
    let windows = env.tmux(&["list-windows", "-t", "=devport:", "-F", "#{window_name}"]).ok().stdout;
    assert_eq!(windows.trim(), view["hash"].as_str().unwrap());
}

#[test]
fn the_browser_is_the_first_of_the_list_that_exists() {
    let mut env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    env.set("BROWSER", "/nonexistent/firefox:sh -c 'echo $0 > seen' %s");
    env.devport(["open", "a"]).ok();
    assert_eq!(fs::read_to_string(env.file("seen")).unwrap(), format!("http://localhost:{}\n", view["port"]));
}
