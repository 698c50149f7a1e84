//! `devport run`: a service in the foreground, with redirected streams.

use std::io::Write;
use std::process::Stdio;

use crate::support::{DEVPORT, TestEnv, done, signal, until};

#[test]
fn standard_output_is_the_childs_and_the_streams_stay_apart() {
    let env = TestEnv::new();
    let script = "echo out; echo err >&2; test -t 1 || echo no terminal; cat; exec sleep 1000";
    let child = env.spawn(["run", "--key", "a", "--", "sh", "-c", script]);
    until("it has written", || env.devport(["logs", "a"]).stdout.contains("no terminal"));
    signal(i32::try_from(child.id()).unwrap(), "TERM");
    let done = done(child).ok();
    assert_eq!(done.stdout, "out\nno terminal\n");
    assert!(
        done.stderr.contains("err\n") && done.stderr.contains("devport: starting a on http://localhost:"),
        "{done:?}"
    );
    assert_eq!(env.which("a")["state"], "stopped");
}

#[test]
fn a_service_that_runs_already_is_printed() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let again = env.devport(["run", "--key", "a", "--", "sleep", "1000"]).ok();
    assert_eq!(again.json()["pid"], view["pid"]);
    let again = env.devport(["run", "a"]).ok();
    assert_eq!(again.json()["pid"], view["pid"]);
}

#[test]
fn what_cannot_be_executed_fails() {
    let env = TestEnv::new();
    env.devport(["run", "--key", "a", "--", "/nonexistent/x"]).fails(1, &["a did not start", "/nonexistent/x"]);
    env.devport(["run"]).fails(2, &["no command"]);
}

#[test]
fn twenty_runs_at_once_start_one_service() {
    let env = TestEnv::new();
    let mut children: Vec<_> = (0..10).map(|_| env.spawn(["run", "--key", "a", "--", "sleep", "1000"])).collect();
    let mut ended = Vec::new();
    until("all but one have ended", || {
        for index in (0..children.len()).rev() {
            if children[index].try_wait().unwrap().is_some() {
                ended.push(children.swap_remove(index));
            }
        }
        children.len() == 1
    });
    for child in ended {
        assert_eq!(done(child).ok().json()["key"], "a");
    }
    env.devport(["stop", "a"]).ok();
    done(children.remove(0)).ok();
}

#[test]
fn a_closed_pipe_does_not_end_the_service() {
    let env = TestEnv::new();
    let mut child = env.spawn(["run", "--key", "a", "--", "sh", "-c", "while :; do echo x; sleep 0.01; done"]);
    drop(child.stdout.take());
    let lines = || env.devport(["logs", "a"]).stdout.lines().count();
    until("it goes on", || lines() > 20);
    env.devport(["stop", "a"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn with_a_terminal_to_write_on_redirected_input_reaches_the_child() {
    let env = TestEnv::new();
    // script(1) provides a terminal; the input is a pipe that ends.
    let inner =
        format!("printf 'one\\ntwo\\n' | {DEVPORT} run --key a -- sh -c 'cat; echo end of file; exec sleep 1000'");
    let mut child = env
        .command("script")
        .args(["-qefc", &inner, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the input has ended", || env.devport(["logs", "a"]).stdout.contains("end of file"));
    env.devport(["stop", "a"]).ok();
    child.stdin.take().unwrap().flush().unwrap();
    let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains("one\r\n") && text.contains("two\r\n"), "{text:?}");
}

#[test]
fn run_exits_with_the_code_of_its_command() {
    let env = TestEnv::new();
    let run = |script: &str, options: &[&str]| {
        let arguments = [&["run", "--no-port", "--key", "a"], options, &["--", "sh", "-c", script]].concat();
        env.devport(arguments)
    };
    let never: &[&str] = &["--restart", "never"];
    let ended = run("exit 3", never).fails(3, &["devport: a ended: exit code 3"]);
    assert!(!ended.stderr.contains("did not start"), "{ended:?}");
    run("kill -USR1 $$$$", never).fails(138, &["a ended: killed by SIGUSR1"]);
    run("exit 127", &[]).fails(127, &["a ended: exit code 127: command not found"]);
    run("exit 0", never).ok();
    let twice: &[&str] = &["--max-restarts", "1", "--backoff-initial", "10ms"];
    run("exit 4", twice).fails(4, &["a ended: exit code 4; it ended again after 1 restart"]);
}

#[test]
fn a_stop_is_no_failure_of_run_whatever_the_command_exits_with() {
    let env = TestEnv::new();
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done";
    let child = env.spawn(["run", "--no-port", "--key", "a", "--", "sh", "-c", script]);
    until("it runs", || env.devport(["logs", "a"]).stdout.contains("up"));
    env.devport(["stop", "a"]).ok();
    done(child).ok();
}

#[test]
fn run_by_name_takes_over_a_service_that_waits_for_its_restart() {
    let env = TestEnv::new();
    let script = "test -e fixed || exit 3; echo here; exec sleep 1000";
    env.devport(["start", "--key", "a", "--no-port", "--backoff-initial", "30s", "--", "sh", "-c", script]).ok();
    env.wait_state("a", "backoff");
    env.write("fixed", "");
    let running = env.spawn(["run", "a"]);
    until("it has written", || env.devport(["logs", "a"]).stdout.contains("here"));
    env.devport(["stop", "a"]).ok();
    let ended = done(running).ok();
    assert!(ended.stdout.contains("here") && ended.stderr.contains("a was in backoff; starting it now"), "{ended:?}");
}

#[test]
fn a_failure_is_printed_once_and_logged_with_its_reason() {
    let env = TestEnv::new();
    for (script, reason) in
        [("exit 9", "exit code 9, and `restart` is never"), ("exit 127", "exit code 127: command not found")]
    {
        let run = env.devport(["run", "--restart", "never", "--key", "once", "--no-port", "--", "sh", "-c", script]);
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert!(
            matches!(lines[..], [_, how, why] if how.contains(" after ") && why == format!("devport: once ended: {reason}")),
            "{lines:?}"
        );
        assert!(env.devport(["logs", "once"]).ok().stdout.contains(reason));
    }
}
