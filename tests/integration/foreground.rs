//! `devport up` in the foreground: logs, late starts, and what it leaves behind.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use crate::stacks::{FEAT, SERVE, at, machine, outcomes};
use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, done, is_alive, number, signal, system_path, until};

/// `devport up`, with its output in files.
struct Foreground<'a> {
    env: &'a TestEnv,
    child: Child,
}

impl<'a> Foreground<'a> {
    fn start(env: &'a TestEnv, arguments: &[&str]) -> Self {
        let out = File::create(env.file("out")).unwrap();
        Self::start_with(env, arguments, out.into())
    }

    /// Starts it with this standard output.
    fn start_with(env: &'a TestEnv, arguments: &[&str], out: Stdio) -> Self {
        // The tests may run in the background of a shell, where signals are ignored.
        Self::start_ignoring("", env, arguments, out)
    }

    /// Starts it with these signals ignored, separated by blanks, and with the others as usual.
    fn start_ignoring(ignored: &str, env: &'a TestEnv, arguments: &[&str], out: Stdio) -> Self {
        let err = File::create(env.file("err")).unwrap();
        let exec = "import os,signal,sys\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN if str(s) in sys.argv[1].split() else signal.SIG_DFL)\nos.execv(sys.argv[2], sys.argv[2:])";
        let mut command = env.command("python3");
        command.args(["-S", "-c", exec, ignored, DEVPORT, "-C", "shop", "up"]).args(arguments).stdout(out).stderr(err);
        Self { env, child: command.spawn().unwrap() }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn logs(&self) -> String {
        fs::read_to_string(self.env.file("out")).unwrap()
    }

    fn notes(&self) -> String {
        fs::read_to_string(self.env.file("err")).unwrap()
    }

    fn until_noted(&self, text: &str) {
        until(&format!("up notes {text:?}"), || self.notes().contains(text));
    }

    fn until_logged(&self, text: &str) {
        until(&format!("the logs have {text:?}"), || self.logs().contains(text));
    }

    /// Interrupts it until it ends: a signal right after the first one is taken for a copy of it.
    fn interrupt_until_end(&mut self) {
        until("up ends", || {
            signal(self.pid(), "INT");
            self.child.try_wait().unwrap().is_some()
        });
    }

    /// Sends it two signals that arrive at the same time. Of two equal ones, the system would deliver one.
    fn interrupt_twice(&self) {
        for name in ["STOP", "INT", "TERM", "CONT"] {
            signal(self.pid(), name);
        }
    }

    /// Asserts that it ends by one of these signals. Two threads may receive them, so either may be the first.
    #[track_caller]
    fn ends_by_either(self) {
        assert!([130, 143].contains(&self.end()));
    }

    fn until_ended(&mut self) {
        until("up ends", || self.child.try_wait().unwrap().is_some());
    }

    /// Returns the exit code.
    fn end(mut self) -> i32 {
        self.until_ended();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TWO: &str = "services:\n  \
    db: {exec: \"sh -c 'echo I am db; exec sleep 1000'\", no-port: true}\n  \
    web: {exec: \"sh -c 'echo I am web; exec sleep 1000'\", no-port: true, depends-on: [db]}\n";

#[test]
fn it_shows_the_logs_and_stops_what_it_started() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let env = machine(TWO);
        at(&env, "shop", &["up", "-d", "db"]).ok();
        until("db has printed", || at(&env, "shop", &["logs", "db"]).ok().stdout.contains("I am db"));
        let up = Foreground::start(&env, &[]);
        up.until_noted("press ctrl-c to stop what this command started");
        up.until_logged("web | I am web\n");
        assert!(!up.logs().contains("I am db"), "older lines are not shown: {}", up.logs());
        let notes = up.notes();
        assert!(notes.contains("db was already running") && notes.contains("web is ready"), "{notes}");
        signal(up.pid(), name);
        let logs = |up: &Foreground<'_>| up.logs();
        until("the end is logged", || logs(&up).contains("web | --- ") && logs(&up).contains("ended: killed by"));
        assert_eq!(up.end(), code);
        let states = ["shop/db", "shop/web"].map(|key| env.which(key)["state"].as_str().unwrap().to_owned());
        assert_eq!(states, ["ready", "stopped"], "{name}");
    }
}

#[test]
fn a_second_ctrl_c_kills() {
    let env = machine(
        "services:\n  a: {exec: \"sh -c 'trap \\\"\\\" TERM; echo armed; while :; do sleep 0.05; done'\", no-port: true, grace: 1000s}\n",
    );
    let mut up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    up.until_logged("armed");
    signal(up.pid(), "INT");
    up.until_noted("press ctrl-c again to kill");
    up.interrupt_until_end();
    assert_eq!(up.end(), 130);
    assert_eq!(env.which("shop/a")["state"], "stopped");
    assert!(env.processes_with("armed").is_empty());
}

#[test]
fn ctrl_c_while_services_start_leaves_nothing_behind() {
    let env = machine(
        "services:\n  a: {exec: sleep 1000, no-port: true, ready: {exec: test -e never}}\n  b: {exec: sleep 1000, no-port: true, depends-on: [a]}\n",
    );
    let up = Foreground::start(&env, &[]);
    env.wait_state("shop/a", "running");
    signal(up.pid(), "INT");
    assert_eq!(up.end(), 130);
    assert!(env.processes_with("sleep 1000").is_empty());
}

#[test]
fn it_ends_when_others_have_stopped_all_its_services() {
    let env = machine(TWO);
    let up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    at(&env, "shop", &["down"]).ok();
    up.until_noted("none of the services runs any more");
    assert_eq!(up.end(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn it_goes_on_while_another_up_starts_its_only_service_again() {
    let env = machine(&format!("services:\n  db: {{exec: {SERVE}}}\n"));
    let port: u16 = at(&env, "shop", &["reserve", "--key", "shop/db"]).ok().stdout.trim().parse().unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut up = Foreground::start(&env, &[]);
    up.until_noted("db: port");
    // A tmux that opens no window until `go` exists: the old supervisor has ended, and the new one has not begun.
    let tmux = format!(
        "#!/bin/sh\ntouch {0}waits; until test -e {0}go; do sleep 0.02; done\nPATH=${{PATH#*:}} exec tmux \"$@\"\n",
        env.file("")
    );
    fs::create_dir(env.file("bin")).unwrap();
    fs::set_permissions(env.write("bin/tmux", &tmux), Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", env.file("bin"), system_path());
    let again = env
        .command(DEVPORT)
        .args(["-C", "shop", "up", "-d"])
        .env("PATH", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("nothing runs", || fs::exists(env.file("waits")).unwrap());
    // Not before: the old supervisor would start the service.
    drop(listener);
    // It checks its services every 500 ms, and wakes up every 50 ms.
    let wakes = |up: &Foreground<'_>| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", up.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = wakes(&up);
    until("it has checked its services", || up.child.try_wait().unwrap().is_some() || wakes(&up) > before + 30);
    assert!(up.child.try_wait().unwrap().is_none(), "{}", up.notes());
    env.write("go", "");
    assert_eq!(done(again).code, 0);
    up.until_noted("db came up late");
    at(&env, "shop", &["down"]).ok();
    up.until_noted("none of the services runs any more");
    assert_eq!(up.end(), 0);
}

#[test]
fn a_skipped_service_starts_when_what_it_needs_comes_up_late() {
    let env = machine(
        "services:\n  \
         api: {exec: \"sh -c 'test -e fixed || exit 1; exec sleep 1000'\", no-port: true, backoff: {initial: 50ms, max: 50ms}}\n  \
         web: {exec: sleep 1000, no-port: true, depends-on: [api]}\n",
    );
    let up = Foreground::start(&env, &[]);
    up.until_noted("skipped because api did not come up: web");
    env.write("shop/fixed", "");
    up.until_noted("web is ready");
    assert!(up.notes().contains("api came up late"), "{}", up.notes());
    env.wait_state("shop/web", "ready");
    signal(up.pid(), "INT");
    assert_eq!(up.end(), 130);
    assert!(env.processes_with("sleep 1000").is_empty());
}

#[test]
fn it_fails_if_nothing_can_come_up() {
    let env = machine("services:\n  a: {exec: ./missing, no-port: true}\n  b: {exec: sleep 1000, depends-on: [a]}\n");
    let up = Foreground::start(&env, &[]);
    up.until_noted("2 of 2 services did not come up");
    assert!(!up.notes().contains("any more"), "none ever ran: {}", up.notes());
    assert_eq!(up.end(), 5);
}

#[test]
fn it_ends_after_one_shots_without_a_note_about_services() {
    let env = machine("services:\n  migrate: {exec: 'true', one-shot: true}\n");
    let mut up = Foreground::start(&env, &[]);
    up.until_noted("migrate completed in");
    up.until_ended();
    assert!(!up.notes().contains("any more"), "{}", up.notes());
    assert_eq!(up.end(), 0);
}

#[test]
fn it_says_why_it_ends_if_a_service_that_was_not_ready_is_stopped() {
    let env = machine("services:\n  a: {exec: sleep 1000, no-port: true, ready: {exec: 'false', timeout: 100ms}}\n");
    let up = Foreground::start(&env, &["--timeout", "200ms"]);
    up.until_noted("a: shop/a is not ready");
    up.until_noted("press ctrl-c");
    at(&env, "shop", &["down"]).ok();
    up.until_noted("none of the services runs any more");
    assert_eq!(up.end(), 0);
}

#[test]
fn services_outlive_an_up_that_is_killed() {
    let env = machine(TWO);
    let up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    let pid = number(&env.which("shop/web")["pid"]);
    signal(up.pid(), "KILL");
    drop(up);
    assert!(is_alive(pid));
    let again = Foreground::start(&env, &[]);
    again.until_noted("run on after ctrl-c; `devport down` stops them");
    signal(again.pid(), "INT");
    assert_eq!(again.end(), 130);
    assert!(is_alive(pid));
    assert!(outcomes(&at(&env, "shop", &["down"]).ok()).iter().all(|(_, outcome)| outcome == "stopped"));
}

#[test]
fn progress_is_redrawn_in_place_on_a_terminal() {
    let env = machine(
        "services:\n  a: {exec: sleep 1000, no-port: true, ready: {exec: test -e go}}\n  b: {exec: sleep 1000, no-port: true, depends-on: [a]}\n",
    );
    let terminal = Terminal::run(&env, &format!("{DEVPORT} -C shop up -d"));
    terminal.shows("waiting");
    until("a runs", || terminal.screen().lines().any(|line| line.starts_with("a  running")));
    env.write("shop/go", "");
    terminal.shows("ended with 0");
    let screen = terminal.screen();
    assert!(!screen.contains("waiting") && screen.contains("STATE") && screen.contains("ready"), "{screen}");
    let history = terminal.tmux(&["capture-pane", "-p", "-S", "-", "-t", "=t:"]).ok().stdout;
    assert!(!history.contains("waiting"), "{history}");
}

/// A service with a shared database, which needs it through a one-shot.
const SHARED: &str = "services:\n  \
    db: {exec: sleep 1000, no-port: true, shared: true}\n  \
    migrate: {exec: \"true\", one-shot: true, depends-on: [db]}\n  \
    api: {exec: sleep 1000, no-port: true, depends-on: [migrate]}\n";

#[test]
fn ctrl_c_spares_a_shared_service_that_another_checkout_needs() {
    let env = machine(SHARED);
    let up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    at(&env, FEAT, &["up", "-d"]).ok();
    signal(up.pid(), "INT");
    up.until_noted("shop/db stays: shop@feat/api needs it");
    assert_eq!(up.end(), 130);
    let states = ["shop/db", "shop/api"].map(|key| env.which(key)["state"].as_str().unwrap().to_owned());
    assert_eq!(states, ["ready", "stopped"]);
}

/// The words of a command that takes a moment to stop, and then says that it has saved its work.
const SAVES: &str = "[sh, -c, \"trap 'sleep 0.3; echo saved; exit' TERM; echo armed; while :; do sleep 0.02; done\"]";

#[test]
fn a_copy_of_the_first_signal_does_not_kill() {
    let env = machine(&format!("services:\n  a: {{exec: {SAVES}, no-port: true}}\n"));
    let up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    up.until_logged("armed");
    up.interrupt_twice();
    up.until_logged("saved");
    up.ends_by_either();
}

#[test]
fn a_copy_of_the_first_signal_does_not_kill_after_a_wait_for_another_command() {
    let env = machine(&format!(
        "services:\n  db: {{exec: sleep 1000, ready: none, shared: true}}\n  a: {{exec: {SAVES}, no-port: true, depends-on: [db]}}\n"
    ));
    let up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    up.until_logged("armed");
    // `down` of another checkout holds this lock. That of the file was deleted when all services had started.
    let locks = fs::read_dir(env.state("locks")).unwrap().map(|entry| entry.unwrap().path());
    let mut locks = locks.filter(|path| path.to_str().unwrap().ends_with(".stack.lock"));
    let shared = File::open(locks.next().unwrap()).unwrap();
    assert_eq!(locks.next(), None);
    shared.lock().unwrap();
    up.interrupt_twice();
    up.until_noted("waiting for the services of");
    drop(shared);
    up.until_logged("saved");
    up.ends_by_either();
}

#[test]
fn a_service_that_is_stopped_to_be_replaced_can_be_killed() {
    let file = |word: &str| {
        format!(
            "services:\n  a: {{exec: [sh, -c, \"trap '' TERM; echo armed {word}; while :; do sleep 0.05; done\"], no-port: true, grace: 1000s, ready: 'log:armed'}}\n"
        )
    };
    let env = machine(&file("one"));
    at(&env, "shop", &["up", "-d"]).ok();
    env.write("shop/devport.yaml", &file("two"));
    let mut up = Foreground::start(&env, &[]);
    until("the old one is being stopped", || env.which("shop/a")["state"] == "stopping");
    signal(up.pid(), "INT");
    up.interrupt_until_end();
    assert_eq!(up.end(), 130);
    assert!(env.processes_with("armed").is_empty());
}

#[test]
fn a_signal_works_while_nobody_reads_the_logs() {
    let env = machine("services:\n  a: {exec: \"yes some words\", no-port: true}\n");
    let up = Foreground::start_with(&env, &[], Stdio::piped());
    up.until_noted("press ctrl-c");
    signal(up.pid(), "TERM");
    assert_eq!(up.end(), 143);
    assert_eq!(env.which("shop/a")["state"], "stopped");
}

#[test]
fn it_fails_when_a_service_fails_later_and_prints_its_last_lines() {
    let env = machine(
        "services:\n  a: {exec: \"sh -c 'until test -e go; do sleep 0.02; done; echo last words; exit 3'\", no-port: true, restart: never}\n",
    );
    let up = Foreground::start(&env, &[]);
    up.until_noted("press ctrl-c");
    env.write("shop/go", "");
    up.until_noted("a: it has ended: exit code 3");
    up.until_logged("a | last words\n");
    up.until_logged("ended: exit code 3");
    assert_eq!(up.end(), 5);
}

#[test]
fn a_file_without_commands_says_so() {
    let env = machine("services: {}\n");
    let up = Foreground::start(&env, &[]);
    up.until_noted("the file has no services");
    assert_eq!(up.end(), 0);
    env.write("shop/devport.yaml", "services:\n  debug: {}\n");
    let up = Foreground::start(&env, &[]);
    up.until_noted("(reserved)");
    let notes = || up.notes();
    assert!(!notes().contains("ctrl-c"), "{}", notes());
    assert_eq!(up.end(), 0);
}

#[test]
fn a_stopped_service_whose_dotenv_file_is_invalid_has_failed() {
    let env = machine("services:\n  a: {exec: sleep 1000, no-port: true, env: [a.env]}\n");
    env.write("shop/a.env", "NAME=1\n");
    at(&env, "shop", &["up", "-d"]).ok();
    at(&env, "shop", &["down"]).ok();
    env.write("shop/a.env", "NAME=\"1\n");
    at(&env, "shop", &["up"]).fails(5, &["a.env:1: ", "1 of 1 services did not come up"]);
}

#[test]
fn a_script_can_interrupt_it_in_the_background_and_nohup_protects_it() {
    let env = machine(TWO);
    let out = File::create(env.file("out")).unwrap();
    let up = Foreground::start_ignoring("1 2", &env, &[], out.into());
    up.until_noted("press ctrl-c to stop what this command started");
    signal(up.pid(), "HUP");
    signal(up.pid(), "INT");
    assert_eq!(up.end(), 130);
}
