//! `tmux-session`: the windows of a stack's services are in a session of their own.

use crate::stacks::{at, machine, outcomes};
use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, until};

/// A stack with one service, whose window is in this session.
fn stack(session: &str) -> String {
    format!(
        "tmux-session: {session}\nservices:\n  web: {{exec: \"sh -c 'echo here I am; exec sleep 1000'\", ready: none}}\n"
    )
}

/// Returns the windows of all sessions, sorted.
fn windows(env: &TestEnv) -> Vec<String> {
    let listed = env.tmux(&["list-windows", "-a", "-F", "#{session_name} #{window_name}"]).stdout;
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn windows_of_a_stack_open_in_its_session_and_close_with_their_services() {
    let env = machine(&stack("dev"));
    // tmux matches the start of a name unless the target begins with `=`.
    env.tmux(&["new-session", "-d", "-s", "dev-of-the-user", "-n", "mine"]).ok();
    env.start("plain", &["sleep", "1000"]);
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(windows(&env), ["dev shop/web", "dev-of-the-user mine", "devport plain"]);
    at(&env, "shop", &["restart", "web"]).ok();
    until("the first window is closed", || windows(&env) == ["dev shop/web", "dev-of-the-user mine", "devport plain"]);
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach shop/web"));
    terminal.shows("here I am");
    assert_eq!(env.tmux(&["list-clients", "-F", "#{window_name}"]).stdout, "shop/web\n");
    drop(terminal);
    let mut elsewhere = env.command(DEVPORT);
    elsewhere.env("TMUX", "/tmp/elsewhere,1,0").args(["attach", "shop/web"]);
    env.finish(&mut elsewhere).fails(1, &["another tmux server", "`devport attach shop/web`"]);
    at(&env, "shop", &["stop"]).ok();
    until("the window is closed", || windows(&env) == ["dev-of-the-user mine", "devport plain"]);
}

#[test]
fn a_lost_server_and_a_changed_name_open_the_session_again() {
    let env = machine(&stack("dev"));
    at(&env, "shop", &["up", "-d"]).ok();
    env.tmux(&["kill-server"]).ok();
    env.wait_state("shop/web", "stopped");
    at(&env, "shop", &["start", "web"]).ok();
    assert_eq!(windows(&env), ["dev shop/web"]);
    env.write("shop/devport.yaml", &stack("other"));
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&up), [("shop/web".into(), "replaced".into())]);
    until("the old window is closed", || windows(&env) == ["other shop/web"]);
    env.write("shop/devport.yaml", &stack("devport"));
    at(&env, "shop", &["up", "-d"]).ok();
    until("the old window is closed", || windows(&env) == ["devport shop/web"]);
    env.write("shop/devport.yaml", &stack("my.app"));
    at(&env, "shop", &["up", "-d"]).fails(3, &["devport.yaml:1: `my.app` cannot be the name of a tmux session"]);
}

#[test]
fn dead_windows_that_tmux_keeps_are_closed_in_an_old_session_too() {
    let env = machine(&stack("dev"));
    at(&env, "shop", &["up", "-d"]).ok();
    env.tmux(&["set-option", "-w", "-t", "=dev:", "remain-on-exit", "on"]).ok();
    at(&env, "shop", &["stop"]).ok();
    assert_eq!(windows(&env), ["dev shop/web"], "tmux keeps the dead window");
    env.write("shop/devport.yaml", &stack("other"));
    at(&env, "shop", &["up", "-d"]).ok();
    until("the dead window is closed", || windows(&env) == ["other shop/web"]);
}
