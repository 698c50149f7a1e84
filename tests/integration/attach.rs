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
    until("the client is there", || !clients(&env).is_empty());
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

/// Starts two services; the second prints a greeting.
fn two_services() -> TestEnv {
    let env = TestEnv::new();
    env.start("one", &["sleep", "1000"]);
    env.start("two", &["sh", "-c", "echo here I am; exec sleep 1000"]);
    env
}

/// Opens an interactive shell, and attaches a service in it.
fn attach_in_shell<'a>(env: &'a TestEnv, service: &str) -> Terminal<'a> {
    let terminal = Terminal::run(env, "bash --norc -i");
    terminal.shows("bash-");
    terminal.keys(&[&format!("{DEVPORT} attach {service}; echo attach: $?"), "Enter"]);
    terminal
}

/// Opens a shell with a session `mine` in the tmux server of the services, and attaches `two` in it.
fn attach_inside(env: &TestEnv) -> Terminal<'_> {
    let terminal = Terminal::run(env, "bash --norc -i");
    terminal.shows("bash-");
    terminal.keys(&["clear; tmux new-session -s mine bash --norc -i", "Enter"]);
    until("the session is there", || clients(env).contains("mine\n"));
    terminal.shows("bash-");
    let attach = format!("DEVPORT_HOME={} {DEVPORT} attach two; echo attach: $?", env.path("state").display());
    terminal.keys(&[&attach, "Enter"]);
    terminal.shows("here I am");
    // Keys for the shell, and the output of the shell, come after the end of the command.
    let shell = || env.tmux(&["capture-pane", "-p", "-t", "=mine:"]).stdout;
    until("attach has ended", || shell().contains("attach: 0"));
    keep_messages(env);
    terminal
}

/// Lets the messages of the tmux server of the services stay until a key is pressed. By default, they are shown for 750 ms,
/// which a test may miss.
fn keep_messages(env: &TestEnv) {
    env.tmux(&["set-option", "-g", "display-time", "0"]).ok();
}

fn sessions(env: &TestEnv) -> String {
    env.tmux(&["list-sessions", "-F", "#{session_name}"]).stdout
}

fn clients(env: &TestEnv) -> String {
    env.tmux(&["list-clients", "-F", "#{session_name}"]).stdout
}

#[test]
fn the_window_says_which_keys_leave_it_and_stop_the_service() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("Ctrl-B D goes back; Ctrl-C stops the service, Ctrl-Z restarts it");
    terminal.keys(&["C-b", "d"]);
    terminal.shows("[detached");
    env.tmux(&["set-option", "-g", "prefix", "C-a"]).ok();
    let again = attach_in_shell(&env, "two");
    again.shows("C-a D goes back; Ctrl-C");
    let inside = attach_inside(&env);
    inside.shows("C-a L goes back; Ctrl-C");
}

#[test]
fn a_second_ctrl_c_does_not_reach_another_service() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    terminal.keys(&["C-c", "C-c", "C-c"]);
    terminal.shows("devport: two is stopped\nhint: start it again with `devport start two`\n");
    env.wait_state("two", "stopped");
    terminal.keys(&["C-c"]);
    assert_eq!(env.which("one")["state"], "running");
    assert_eq!((sessions(&env).as_str(), clients(&env).as_str()), ("devport\n", ""));
}

#[test]
fn the_end_of_the_only_service_is_reported_with_its_exit() {
    let env = TestEnv::new();
    let script = "read line; exit 3";
    env.devport(["start", "--key", "two", "--restart", "never", "--no-port", "--", "sh", "-c", script]).ok();
    let terminal = attach_in_shell(&env, "two");
    until("the client is there", || !clients(&env).is_empty());
    terminal.keys(&["Enter"]);
    terminal.shows("devport: two has failed: exit code 3, and `restart` is never\n");
}

#[test]
fn a_restart_keeps_the_terminal_on_the_service() {
    // Without another service, tmux ends too, and a new server has the same ids.
    for others in [0, 1] {
        let env = TestEnv::new();
        if others == 1 {
            env.start("one", &["sleep", "1000"]);
        }
        env.start("two", &["sh", "-c", "echo here I am; exec sleep 1000"]);
        let terminal = attach_in_shell(&env, "two");
        terminal.shows("here I am");
        let shown = || env.tmux(&["list-clients", "-F", "#{window_name} #{pane_pid}"]).stdout;
        env.devport(["restart", "two"]).ok();
        let new = format!("two {}\n", env.supervisor("two"));
        until("the terminal shows the new window", || shown() == new);
        env.devport(["rm", "two"]).ok();
        terminal.shows("devport: two was removed");
    }
}

#[test]
fn two_terminals_show_one_service_and_others_show_another() {
    let env = two_services();
    let first = attach_in_shell(&env, "two");
    let second = attach_in_shell(&env, "two");
    first.shows("here I am");
    second.shows("here I am");
    let third = attach_in_shell(&env, "one");
    until("each has a session", || clients(&env).lines().count() == 3);
    first.keys(&["C-b", "d"]);
    first.shows("[detached");
    let shown = env.tmux(&["list-clients", "-F", "#{window_name}"]).stdout;
    assert!(["one\ntwo\n", "two\none\n"].contains(&shown.as_str()), "{shown}");
    second.keys(&["C-c"]);
    second.shows("devport: two is stopped");
    assert!(!first.screen().contains("two is stopped"));
    assert_eq!(env.which("one")["state"], "running");
    third.keys(&["C-c"]);
    third.shows("devport: one is stopped");
    assert_eq!(sessions(&env), "");
}

#[test]
fn a_window_that_the_user_opens_next_to_the_service_stays() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    terminal.keys(&["C-b", "c"]);
    until("the window is open", || env.tmux(&["list-windows", "-a"]).stdout.lines().count() == 4);
    terminal.keys(&["C-b", "d"]);
    terminal.shows("attach: 0");
    assert_eq!(sessions(&env).lines().count(), 2);
    assert_eq!(env.which("two")["state"], "running");
}

#[test]
fn a_window_that_the_user_opens_stays_after_the_end_of_the_service() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    terminal.keys(&["C-b", "c"]);
    let windows = || env.tmux(&["list-windows", "-a"]).stdout.lines().count();
    until("the window is open", || windows() == 4);
    env.devport(["stop", "two"]).ok();
    until("the window of the service is closed", || windows() == 2);
    terminal.keys(&["C-b", "d"]);
    terminal.shows("attach: 0");
    assert_eq!((windows(), sessions(&env).lines().count()), (2, 2));
}

#[test]
fn a_terminal_that_tmux_cannot_use_leaves_no_session_and_no_hook() {
    let env = two_services();
    let terminal = Terminal::run(&env, "bash --norc -i");
    terminal.shows("bash-");
    terminal.keys(&[&format!("TERM=dumb {DEVPORT} attach two; echo attach: $?"), "Enter"]);
    terminal.shows("attach: 1");
    assert_eq!(sessions(&env), "devport\n");
    assert!(!env.tmux(&["show-hooks", "-g"]).ok().stdout.contains("devport"));
}

#[test]
fn a_client_that_switches_to_another_session_leaves_none() {
    let env = two_services();
    env.tmux(&["new-session", "-d", "-s", "other", "sleep", "1000"]).ok();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    let client = env.tmux(&["list-clients", "-F", "#{client_name}"]).stdout;
    env.tmux(&["switch-client", "-c", client.trim(), "-t", "=other:"]).ok();
    until("the session has ended", || sessions(&env) == "devport\nother\n");
    terminal.keys(&["C-b", "d"]);
    terminal.shows("attach: 0");
    assert!(!env.tmux(&["show-hooks", "-g"]).ok().stdout.contains("devport"));
}

#[test]
fn a_suspended_terminal_continues() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    terminal.keys(&["C-b", "C-z"]);
    terminal.shows("Stopped");
    // Meanwhile, other clients of tmux come and go.
    for _ in 0..2 {
        env.tmux(&["list-sessions"]).ok();
    }
    terminal.keys(&["fg; echo fg: $?", "Enter"]);
    terminal.shows("here I am");
    terminal.keys(&["C-b", "d"]);
    terminal.shows("fg: 0");
    assert_eq!(sessions(&env), "devport\n");
    assert_eq!(env.which("two")["restarts"], 0);
}

#[test]
fn a_terminal_that_is_closed_leaves_no_session() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    drop(terminal);
    until("the session has ended", || sessions(&env) == "devport\n");
    assert_eq!(env.which("two")["state"], "running");
}

#[test]
fn inside_of_tmux_the_client_switches_and_ctrl_b_l_goes_back() {
    let env = two_services();
    let terminal = attach_inside(&env);
    assert!(clients(&env).starts_with("devport-"), "{}", clients(&env));
    let hooks = || env.tmux(&["show-hooks", "-g"]).ok().stdout;
    assert!(hooks().contains("kill-session -t '=devport-"), "{}", hooks());
    terminal.keys(&["C-b", "L"]);
    until("the client is back", || clients(&env) == "mine\n");
    terminal.shows("attach: 0");
    assert_eq!(env.which("two")["state"], "running");
    until("the session has ended", || sessions(&env) == "devport\nmine\n");
    until("the hook is deleted", || !hooks().contains("devport"));
}

#[test]
fn inside_of_tmux_the_session_ends_although_others_were_used_later() {
    let env = two_services();
    let terminal = attach_inside(&env);
    let viewer = env.tmux(&["list-clients", "-F", "#{client_name}"]).stdout;
    // The end of another client changes nothing.
    env.tmux(&["new-session", "-d", "-s", "later", "sleep", "1000"]).ok();
    let other = Terminal::run(&env, "tmux attach-session -t =later:");
    until("the other client is there", || clients(&env).contains("later\n"));
    env.tmux(&["detach-client", "-s", "=later:"]).ok();
    until("the other client is gone", || !clients(&env).contains("later\n"));
    drop(other);
    assert!(env.tmux(&["show-hooks", "-g"]).ok().stdout.contains("kill-session -t '=devport-"));
    assert!(clients(&env).starts_with("devport-"), "{}", clients(&env));
    env.tmux(&["detach-client", "-t", viewer.trim()]).ok();
    until("the session has ended", || sessions(&env) == "devport\nlater\nmine\n");
    until("the hooks are deleted", || !env.tmux(&["show-hooks", "-g"]).ok().stdout.contains("devport"));
    drop(terminal);
}

#[test]
fn inside_of_tmux_a_suspended_client_does_not_end_the_services() {
    let env = two_services();
    let terminal = attach_inside(&env);
    terminal.keys(&["C-b", "C-z"]);
    terminal.shows("Stopped");
    for _ in 0..2 {
        env.tmux(&["list-sessions"]).ok();
    }
    terminal.keys(&["fg", "Enter"]);
    terminal.shows("here I am");
    terminal.keys(&["C-b", "d"]);
    until("the session has ended", || sessions(&env) == "devport\nmine\n");
    until("the hook is deleted", || !env.tmux(&["show-hooks", "-g"]).ok().stdout.contains("devport"));
    assert_eq!(env.which("two")["restarts"], 0);
}

#[test]
fn inside_of_tmux_a_second_ctrl_c_does_not_reach_another_service() {
    let env = two_services();
    let terminal = attach_inside(&env);
    // tmux would switch to the session in which something happened last.
    env.tmux(&["set-option", "-g", "detach-on-destroy", "off"]).ok();
    terminal.keys(&["C-c", "C-c", "C-c"]);
    terminal.shows("the window of two has closed: `devport which two` shows why");
    env.wait_state("two", "stopped");
    until("the client is back", || clients(&env) == "mine\n");
    terminal.shows("attach: 0");
    terminal.keys(&["C-c"]);
    assert_eq!(env.which("one")["state"], "running");
    assert_eq!(sessions(&env), "devport\nmine\n");
}

#[test]
fn inside_of_tmux_the_service_stays_when_the_window_that_the_user_came_from_closes() {
    let env = two_services();
    let terminal = Terminal::run(&env, "tmux new-session -s mine bash --norc -i");
    terminal.shows("bash-");
    keep_messages(&env);
    // The window ends with its command, as soon as `attach` has switched the client.
    let attach = format!("DEVPORT_HOME={} {DEVPORT} attach two", env.path("state").display());
    env.tmux(&["new-window", "-t", "=mine:", &attach]).ok();
    terminal.shows("here I am");
    let windows = || env.tmux(&["list-windows", "-t", "=mine:", "-F", "#{window_id}"]).stdout.lines().count();
    until("the window is closed", || windows() == 1);
    // A hook that went back would have run before this command.
    let shown = env.tmux(&["list-clients", "-F", "#{window_name}"]).stdout;
    assert_eq!(shown, "two\n");
    terminal.keys(&["C-c"]);
    terminal.shows("the window of two has closed");
    until("the client is back", || clients(&env) == "mine\n");
}

#[test]
fn from_the_window_of_a_service_the_client_detaches_at_the_end_of_another() {
    let env = two_services();
    let terminal = attach_in_shell(&env, "two");
    terminal.shows("here I am");
    let attach = format!("DEVPORT_HOME={} {DEVPORT} attach one", env.path("state").display());
    env.tmux(&["bind-key", "-n", "F5", "run-shell", &attach]).ok();
    terminal.keys(&["F5"]);
    let shown = || env.tmux(&["list-clients", "-F", "#{window_name}"]).stdout;
    until("the client shows the other service", || shown() == "one\n");
    terminal.keys(&["C-c", "C-c"]);
    terminal.shows("[exited]");
    terminal.shows("attach: 0");
    env.wait_state("one", "stopped");
    assert_eq!(env.which("two")["state"], "running");
    assert_eq!(sessions(&env), "devport\n");
}

#[test]
fn in_another_tmux_server_attach_reports_where_the_service_is() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    let mut command = env.command(DEVPORT);
    command.env("TMUX", "/tmp/elsewhere,1,0").args(["attach", "a"]);
    env.finish(&mut command)
        .fails(1, &["another tmux server", "detach from this one first (Ctrl-B D), then run `devport attach a`"]);
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
