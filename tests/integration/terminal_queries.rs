//! Queries that a service sends to its terminal: devport responds if no terminal does.

use serde_json::Value;

use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, eventually, poll};

/// Queries the text colour, the background and the device attributes as `rich-toolkit` does, the second one in two
/// parts. Writes the responses as JSON, and goes on.
const QUERY: &str = r#"
import json, os, select, sys, termios, time, tty
terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
tty.setcbreak(terminal)
def query(*parts):
    for part in parts:
        os.write(terminal, part)
        time.sleep(0.02 * (len(parts) - 1))
    response = b""
    while not response.endswith((b"\x07", b"\x1b\\", b"c")) and select.select([terminal], [], [], 20)[0]:
        response += os.read(terminal, 100)
    return response.decode()
responses = [query(b"\x1b]10;?\x1b\\"), query(b"\x1b]1", b"1;?\x07"), query(b"\x1b[c")]
with open("responses.new", "w") as file:
    json.dump(responses, file)
os.rename("responses.new", "responses")
print("queried", flush=True)
time.sleep(1000)
"#;

/// The responses of devport.
const DEVPORT_RESPONSES: [&str; 3] =
    ["\x1b]10;rgb:ffff/ffff/ffff\x1b\\", "\x1b]11;rgb:0000/0000/0000\x07", "\x1b[?1;2c"];
/// The colours of a tmux window, with which tmux responds itself, and its responses.
const STYLE: &str = "fg=#123456,bg=#654321";
const TMUX_RESPONSES: [&str; 2] = ["\x1b]10;rgb:1212/3434/5656\x1b\\", "\x1b]11;rgb:6565/4343/2121\x07"];

fn with_script() -> TestEnv {
    let env = TestEnv::new();
    env.write("query.py", QUERY);
    env
}

/// Returns the responses that the script read.
#[track_caller]
fn responses(env: &TestEnv) -> Vec<String> {
    let text = eventually("the script has its responses", || std::fs::read_to_string(env.file("responses")).ok());
    let responses: Value = serde_json::from_str(&text).unwrap();
    responses.as_array().unwrap().iter().map(|response| response.as_str().unwrap().to_owned()).collect()
}

#[test]
fn without_a_window_devport_responds_and_the_log_has_no_response() {
    let env = with_script();
    env.detach("a", &[], &["python3", "query.py"]);
    assert_eq!(responses(&env), DEVPORT_RESPONSES);
    env.devport(["wait", "a"]).ok();
    let log = eventually("the script goes on", || {
        let log = std::fs::read(env.state_file("logs", "a", "log")).unwrap();
        log.windows(7).any(|part| part == b"queried").then_some(log)
    });
    assert!(!log.windows(4).any(|part| part == b"rgb:"), "{}", log.escape_ascii());
    assert!(log.windows(8).any(|part| part == b"\x1b]10;?\x1b\\"), "the log has every byte of the output");
}

#[test]
fn in_a_window_that_no_client_shows_devport_responds_and_the_window_gets_no_query() {
    let env = with_script();
    // The server would respond to queries that it gets. A client that shows another window does not change that.
    env.start("other", &["sleep", "1000"]);
    env.tmux(&["set-option", "-g", "window-style", STYLE]).ok();
    let terminal = Terminal::run(&env, "tmux new-session -s mine");
    eventually("the client is there", || env.tmux(&["list-clients"]).stdout.contains("mine").then_some(()));
    env.start("a", &["python3", "query.py"]);
    assert_eq!(responses(&env), DEVPORT_RESPONSES);
    drop(terminal);
}

/// Starts the script in a window that a client shows. Runs it until it reads responses that are as expected.
#[track_caller]
fn responds_in_sight(env: &TestEnv, mut is_expected: impl FnMut(&[String]) -> bool) {
    env.start("a", &["sh", "-c", "while ! [ -e seen ]; do sleep 0.01; done; exec python3 query.py"]);
    let _terminal = Terminal::run(env, &format!("{DEVPORT} attach a"));
    let count = ["display-message", "-p", "-t", "=devport:a", "#{window_active_clients}"];
    eventually("the client shows the window", || (env.tmux(&count).stdout == "1\n").then_some(()));
    env.write("seen", "");
    let mut last = Vec::new();
    // On a busy machine, tmux may not respond within 150 ms, after which devport does.
    let is_seen = poll(|| {
        last = responses(env);
        if is_expected(&last) {
            return Some(());
        }
        std::fs::remove_file(env.file("responses")).unwrap();
        env.devport(["signal", "a"]).ok();
        None
    });
    assert!(is_seen.is_some(), "{last:?}");
}

#[test]
fn with_a_client_attached_the_terminal_responds() {
    let env = with_script();
    env.start("other", &["sleep", "1000"]);
    env.tmux(&["set-option", "-g", "window-style", STYLE]).ok();
    responds_in_sight(&env, |responses| {
        responses[..2] == TMUX_RESPONSES && responses[2].starts_with("\x1b[?") && responses[2].ends_with('c')
    });
}

#[test]
fn devport_responds_for_a_terminal_that_does_not() {
    let env = with_script();
    // Which one depends on the version of tmux.
    responds_in_sight(&env, |responses| {
        assert!(responses[0].starts_with("\x1b]10;rgb:") && responses[1].starts_with("\x1b]11;rgb:"), "{responses:?}");
        true
    });
}

#[test]
fn in_the_foreground_the_users_own_terminal_responds() {
    let env = with_script();
    let terminal = Terminal::run(&env, "sh -c 'while ! [ -e seen ]; do sleep 0.01; done; exec sh -i'");
    terminal.tmux(&["set-option", "-g", "window-style", STYLE]).ok();
    env.write("seen", "");
    terminal.keys(&[&format!("{DEVPORT} run --key a --no-port -- python3 query.py"), "Enter"]);
    assert_eq!(responses(&env)[..2], TMUX_RESPONSES);
    env.devport(["stop", "a"]).ok();
}

#[test]
fn a_program_that_does_not_read_the_response_finds_none_in_its_output() {
    let env = TestEnv::new();
    let script = "import select, sys\nprint('\\x1b]11;?\\x07', flush=True)\nprint(select.select([sys.stdin], [], [], 1)[0], flush=True)\ninput()";
    env.detach("a", &[], &["python3", "-c", script]);
    let output = eventually("it has waited", || {
        let output = env.devport(["logs", "a"]).ok().stdout;
        output.contains('[').then_some(output)
    });
    assert!(output.contains("[]") && !output.contains("rgb"), "{output}");
}
