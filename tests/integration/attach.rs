//! `devport attach`, and how a service's window behaves. A second tmux server is the user's terminal.

use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, eventually, number, until};

#[test]
fn a_python_prompt_works_in_the_attached_window() {
    let env = TestEnv::new();
    env.start("py", &["python3", "-i"]);
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach py"));
    terminal.shows(">>>");
    terminal.keys(&["print(6", "Space", "*", "Space", "7000)", "Enter"]);
    terminal.shows("42000");
    // Typed text is captured too, and the prompt is still there after detaching and attaching again.
    terminal.keys(&["C-b", "d"]);
    terminal.shows("ended with 0");
    assert_eq!(env.which("py")["restarts"], 0);
    assert!(env.devport(["logs", "py"]).ok().stdout.contains("42000"));
}

#[test]
fn less_works_and_follows_the_size_of_the_window() {
    let env = TestEnv::new();
    let text = (1..=200).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
    let file = env.write("text", &text);
    env.start("pager", &["less", &file]);
    // Before its first page, less has no handler for a change of the size.
    until("less has drawn", || env.devport(["logs", "pager"]).ok().stdout.contains("line 20"));
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach pager"));
    // The window has the size of the terminal, and not the 24 rows of a detached window.
    terminal.shows("line 27\n");
    terminal.keys(&["G"]);
    terminal.shows("line 200\n");
    terminal.tmux(&["resize-window", "-t", "=t:", "-y", "12"]).ok();
    until("less knows the new size", || {
        let screen = terminal.screen();
        let shown = screen.lines().filter(|line| line.starts_with("line ")).count();
        shown > 0 && shown < 12
    });
    terminal.keys(&["g"]);
    terminal.shows("line 1\n");
}

#[test]
fn cat_echoes_what_is_typed_and_ends_at_end_of_file() {
    let env = TestEnv::new();
    env.start("cat", &["cat"]);
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach cat"));
    terminal.keys(&["hello", "Enter"]);
    terminal.shows("hello\nhello\n");
    terminal.keys(&["C-d"]);
    eventually("cat has ended", || Some(env.which("cat")).filter(|view| view["last_exit"]["code"] == 0));
}

#[test]
fn ctrl_c_ends_the_service_and_ctrl_z_restarts_it() {
    let env = TestEnv::new();
    let first = env.start("a", &["sh", "-c", "echo here I am; exec sleep 1000"]);
    env.start("other", &["sleep", "1000"]);
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach a"));
    terminal.shows("here I am");
    terminal.keys(&["C-z"]);
    eventually("it is another child", || {
        Some(env.which("a")).filter(|view| view["pid"].is_i64() && view["pid"] != first["pid"])
    });
    terminal.keys(&["C-c"]);
    env.wait_state("a", "stopped");
    assert_eq!(env.which("other")["state"], "running");
}

#[test]
fn inside_of_tmux_the_client_switches() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", "echo here I am; exec sleep 1000"]);
    // A client of the service's tmux server, within the terminal of the other one.
    let terminal = Terminal::run(&env, "tmux new-session -s mine");
    until("the client is there", || env.tmux(&["list-clients", "-F", "#{session_name}"]).stdout == "mine\n");
    env.tmux(&[
        "send-keys",
        "-t",
        "=mine:",
        &format!("DEVPORT_HOME={} {DEVPORT} attach a", env.path("state").display()),
        "Enter",
    ])
    .ok();
    terminal.shows("here I am");
    assert_eq!(env.tmux(&["list-clients", "-F", "#{session_name}"]).stdout, "devport\n");
}

#[test]
fn in_another_tmux_server_attach_reports_where_the_service_is() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let mut command = env.command(DEVPORT);
    command.env("TMUX", "/tmp/elsewhere,1,0").args(["attach", "a"]);
    env.finish(&mut command).fails(1, &["another tmux server", "tmux -S"]);
}

#[test]
fn without_a_target_fzf_chooses() {
    let env = TestEnv::new();
    env.start("first", &["sleep", "1000"]);
    env.start("second", &["sh", "-c", "echo the second; exec sleep 1000"]);
    env.start("stopped", &["sleep", "1000"]);
    env.devport(["stop", "stopped"]).ok();
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach"));
    terminal.shows("attach>");
    terminal.shows("2/2");
    terminal.keys(&["secon"]);
    // fzf selects the highlighted line, and filters in the background.
    terminal.shows("1/2");
    terminal.keys(&["Enter"]);
    terminal.shows("the second");
}

#[test]
fn a_choice_can_be_cancelled() {
    let env = TestEnv::new();
    env.start("first", &["sleep", "1000"]);
    let terminal = Terminal::run(&env, &format!("{DEVPORT} attach"));
    terminal.shows("attach>");
    terminal.keys(&["Escape"]);
    terminal.shows("ended with 130");
}

#[test]
fn without_fzf_a_built_in_picker_chooses() {
    let env = TestEnv::new();
    env.start("first", &["sleep", "1000"]);
    env.start("second", &["sh", "-c", "echo the second; exec sleep 1000"]);
    let bin = env.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/usr/bin/tmux", bin.join("tmux")).unwrap();
    let attach = format!("PATH={} {DEVPORT} attach", bin.display());
    let terminal = Terminal::run(&env, &attach);
    terminal.shows("attach");
    terminal.keys(&["second"]);
    terminal.keys(&["Enter"]);
    terminal.shows("the second");
    drop(terminal);
    let terminal = Terminal::run(&env, &attach);
    terminal.shows("first");
    terminal.keys(&["Escape"]);
    terminal.shows("ended with 130");
}

#[test]
fn a_service_that_cannot_be_attached_is_reported() {
    let env = TestEnv::new();
    env.devport(["attach"]).fails(1, &["no running service has a window"]);
    env.start("a", &["sleep", "1000"]);
    env.devport(["attach"]).fails(1, &["no terminal", "devport attach api"]);
    env.devport(["attach", "a"]).fails(1, &["not a terminal", "devport logs -f"]);
    env.devport(["attach", "missing"]).fails(4, &["no service matching"]);
    env.devport(["stop", "a"]).ok();
    env.devport(["attach", "a"]).fails(1, &["a is not running", "devport start a"]);
}

#[test]
fn in_the_foreground_the_terminal_is_as_it_was_before() {
    let env = TestEnv::new();
    let settings = env.file("settings");
    // An interactive shell, which puts each command into a process group.
    let terminal = Terminal::run(&env, "bash --norc -i");
    terminal.shows("bash-");
    terminal.keys(&[&format!("stty -g > {settings}"), "Enter"]);
    terminal
        .keys(&[&format!("{DEVPORT} run --key a -- python3 -i; echo ended with $?; stty -g >> {settings}"), "Enter"]);
    terminal.shows(">>>");
    let view = env.wait_state("a", "running");
    terminal.keys(&["print(6", "Space", "*", "Space", "7000)", "Enter"]);
    terminal.shows("42000");
    terminal.keys(&["C-z"]);
    eventually("it is another child", || {
        Some(env.which("a")).filter(|now| now["pid"].is_i64() && number(&now["pid"]) != number(&view["pid"]))
    });
    terminal.keys(&["C-c"]);
    terminal.shows("ended with 0");
    let lines = eventually("both settings are written", || {
        let text = std::fs::read_to_string(&settings).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(lines[0], lines[1]);
}

#[test]
fn a_terminal_that_is_closed_ends_what_runs_in_its_foreground() {
    let env = TestEnv::new();
    let terminal = Terminal::run(&env, "bash --norc -i");
    terminal.shows("bash-");
    terminal.keys(&[&format!("{DEVPORT} run --key a -- sleep 1000"), "Enter"]);
    let view = env.wait_state("a", "running");
    let supervisor = env.supervisor("a");
    terminal.tmux(&["kill-server"]).ok();
    env.wait_state("a", "stopped");
    until("no process is left", || {
        !crate::support::is_alive(supervisor) && !crate::support::is_alive(number(&view["pid"]))
    });
}
