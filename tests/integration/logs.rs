//! `devport logs`.

use std::io::{BufRead, BufReader};

use crate::support::{TestEnv, done, until};

#[test]
fn runs_and_exits_are_marked_across_restarts() {
    let env = TestEnv::new();
    let first = env.start("a", &["sh", "-c", "echo hello; exec sleep 1000"]);
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("hello"));
    let second = env.devport(["restart", "a"]).ok().json();
    until("it has written again", || env.devport(["logs", "a"]).ok().stdout.matches("hello").count() == 2);
    env.devport(["stop", "a"]).ok();
    let text = env.devport(["logs", "a"]).ok().stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(lines[0].ends_with(&format!("run 1 started, pid {}", first["pid"])) && lines[1] == "hello", "{text}");
    assert!(lines[2].contains("ended: killed by SIGTERM after"), "{text}");
    assert!(lines[3].ends_with(&format!("run 2 started, pid {}", second["pid"])), "{text}");
    let last = env.devport(["logs", "-n", "2", "a"]).ok().stdout;
    assert_eq!(last.lines().collect::<Vec<_>>(), lines[4..]);
}

#[test]
fn several_services_have_their_names_in_front() {
    let env = TestEnv::new();
    for key in ["a", "longer"] {
        env.start(key, &["sh", "-c", "echo hello from $DEVPORT_KEY; exec sleep 1000"]);
        until("it has written", || env.devport(["logs", key]).ok().stdout.contains("hello"));
    }
    let text = env.devport(["logs", "a", "longer"]).ok().stdout;
    assert!(text.contains("a      | hello from a\n") && text.contains("longer | hello from longer\n"), "{text}");
    env.devport(["logs", "missing"]).fails(4, &["no service matching"]);
    assert_eq!(env.devport(["logs"]).ok().stdout.matches("hello").count(), 2, "all services");
}

#[test]
fn following_goes_on_across_restarts_and_ends_with_rm() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", "echo hello; exec sleep 1000"]);
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("hello"));
    let mut child = env.spawn(["logs", "-f", "a"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("started") && lines.next().unwrap() == "hello");
    env.devport(["restart", "a"]).ok();
    assert!(lines.next().unwrap().contains("ended") && lines.next().unwrap().contains("started"));
    assert_eq!(lines.next().unwrap(), "hello");
    env.devport(["rm", "a"]).ok();
    assert!(lines.all(|line| line.contains("ended")));
    done(child).ok();
}

#[test]
fn a_flood_is_captured_line_by_line() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", "seq 1 200000; echo done; exec sleep 1000"]);
    until("it is done", || env.devport(["logs", "-n", "1", "a"]).ok().stdout == "done\n");
    let text = env.devport(["logs", "a"]).ok().stdout;
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=200_000), "{} lines", numbers.len());
}

#[test]
fn output_that_is_no_text_breaks_nothing() {
    let env = TestEnv::new();
    env.start("a", &["python3", "-c", "import os,time; os.write(1, b'\\xff\\x00\\x1e\\n\\x1ex\\n' + b'y' * 3000000 + b'\\nend\\n'); time.sleep(1000)"]);
    until("it has written", || env.devport(["logs", "-n", "1", "a"]).ok().stdout == "end\n");
    let raw = env.finish(env.command(crate::support::DEVPORT).args(["logs", "a"])).ok().stdout;
    assert!(raw.contains("\u{1e}x\n"), "a line that begins like a mark is whole");
    assert_eq!(raw.matches('y').count(), 3_000_000);
}

#[test]
fn services_are_interleaved_by_time() {
    let env = TestEnv::new();
    // Each line is written once the one before it is in its log.
    let wait_for = |line: &str| format!("until [ -e {line} ]; do sleep 0.01; done; echo {line};");
    for (key, lines) in [("a", ["1", "3"]), ("b", ["2", "4"])] {
        env.start(key, &["sh", "-c", &format!("{} {} exec sleep 1000", wait_for(lines[0]), wait_for(lines[1]))]);
    }
    for line in ["1", "2", "3", "4"] {
        env.write(line, "");
        until("it is written", || env.devport(["logs"]).ok().stdout.contains(&format!("| {line}\n")));
    }
    let lines = |arguments: &[&str]| -> Vec<String> {
        let text = env.devport(arguments).ok().stdout;
        text.lines().filter(|line| !line.contains("---")).map(ToString::to_string).collect()
    };
    assert_eq!(lines(&["logs", "a", "b"]), ["a | 1", "b | 2", "a | 3", "b | 4"]);
    assert_eq!(lines(&["logs", "-n", "1"]), ["a | 3", "b | 4"], "the last of each");
}

#[test]
fn lines_are_chosen_by_time_run_and_pattern() {
    let env = TestEnv::new();
    let words = ["sh", "-c", "echo run of $$$$; echo ERROR: no; printf '\\033[31mred\\033[0m\\n'; exec sleep 1000"];
    env.start("a", &words);
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("red"));
    let first = env.which("a")["pid"].clone();
    env.devport(["restart", "a"]).ok();
    until("it has written again", || env.devport(["logs", "a"]).ok().stdout.matches("red").count() == 2);
    let text = |arguments: &[&str]| env.devport([&["logs", "a"], arguments].concat()).ok().stdout;
    assert!(text(&["--previous"]).contains(&format!("run of {first}")));
    assert_eq!(text(&["--previous"]), text(&["--run", "1"]));
    assert!(!text(&["--run", "2"]).contains(&format!("run of {first}")));
    assert_eq!(text(&["--grep", "^ERR.R"]), "ERROR: no\nERROR: no\n");
    assert_eq!(text(&["--grep", "^red$"]), "red\nred\n", "colours are stripped in a pipe, and do not count");
    let starts = text(&["--grep", "started, pid"]);
    assert!(starts.lines().count() == 2 && starts.contains(" run 2 started, pid "), "{starts}");
    assert_eq!(text(&["--since", "1h"]), text(&[]));
    assert_eq!(text(&["--since", "0s"]), "");
    let timed = text(&["--timestamps", "--grep", "ERROR", "-n", "1"]);
    let (time, rest) = timed.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && rest == "ERROR: no\n", "{timed}");
    env.devport(["logs", "--grep", "(", "a"]).fails(2, &["is not a regular expression"]);
    env.devport(["logs", "--since", "yesterday", "a"]).fails(2, &["write it like 500ms"]);
    let json = text(&["--json", "-n", "1"]);
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&line["service"], &line["run"], &line["line"]), (&"a".into(), &2.into(), &"red".into()));
    assert!(line["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
}

#[test]
fn a_terminal_gets_colours_and_no_other_control_sequence() {
    let env = TestEnv::new();
    env.start(
        "a",
        &["sh", "-c", "printf '\\033[31mred\\033[0m\\033[2J\\033]0;title\\007 \\033[5Aend\\n'; exec sleep 1000"],
    );
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("end"));
    let file = env.file("screen");
    let logs = format!("{} logs --grep end a", crate::support::DEVPORT);
    env.finish(env.command("script").args(["-q", "-e", "-c", &logs, &file])).ok();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\u{1b}[31mred\u{1b}[0m end\u{1b}[0m\r\n"), "{text:?}");
    assert!(!text.contains("title") && !text.contains("[2J") && !text.contains("[5A"), "{text:?}");
}

#[test]
fn the_previous_run_is_the_last_one_that_has_ended() {
    let env = TestEnv::new();
    let runs = env.file("runs");
    let script = format!(
        "echo x >> {runs}; echo run $$(wc -l < {runs}); test -e {} && exec sleep 1000; exit 1",
        env.file("fixed")
    );
    let options = ["--no-tmux", "--backoff-initial", "1h", "--backoff-max", "1h"];
    env.devport([&["start", "--key", "a"], &options[..], &["--", "sh", "-c", &script]].concat());
    env.wait_state("a", "backoff");
    let previous = || env.devport(["logs", "--previous", "--grep", "^run .$", "a"]).ok().stdout;
    assert_eq!(previous(), "run 1\n", "it waits for its second run");
    env.devport(["stop", "a"]).ok();
    assert_eq!(previous(), "run 1\n", "it is stopped");
    env.write("fixed", "");
    env.devport(["start", "a"]).ok();
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("\nrun 2\n"));
    assert_eq!(previous(), "run 1\n", "the second run has not ended");
    env.devport(["stop", "a"]).ok();
    assert_eq!(previous(), "run 2\n");
}

#[test]
fn a_search_without_a_match_says_so_and_can_ignore_case() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", "echo ERROR: no; exec sleep 1000"]);
    until("it has written", || env.devport(["logs", "a"]).ok().stdout.contains("ERROR"));
    for limit in [&[][..], &["-n", "5"]] {
        let grep = |options: &[&str]| env.devport([&["logs", "a"], limit, options].concat()).ok();
        let none = grep(&["--grep", "error"]);
        assert_eq!(
            (none.stdout.as_str(), none.stderr.as_str()),
            ("", "devport: no line matches \"error\"; -i ignores case\n")
        );
        let found = grep(&["-i", "--grep", "warn|error"]);
        assert_eq!((found.stdout.as_str(), found.stderr.as_str()), ("ERROR: no\n", ""));
        assert_eq!(grep(&["-i", "--grep", "warn"]).stderr, "devport: no line matches \"warn\"\n");
    }
    env.devport(["logs", "a", "-i", "--grep", "["]).fails(2, &["\"[\" is not a regular expression"]);
}

#[test]
fn a_run_that_the_log_does_not_have_is_an_error() {
    let env = TestEnv::new();
    for key in ["a", "b"] {
        env.start(key, &["sh", "-c", "echo hello; exec sleep 1000"]);
        until("it has written", || env.devport(["logs", key]).ok().stdout.contains("hello"));
    }
    env.devport(["logs", "--previous", "a"]).fails(1, &["the log of a has no run that has ended: it has only run 1"]);
    env.devport(["logs", "--run", "99", "a"]).fails(1, &["the log of a has no run 99: it has only run 1"]);
    env.devport(["restart", "a"]).ok();
    env.devport(["logs", "--run", "99", "a"]).fails(1, &["the log of a has no run 99: it has runs 1 to 2"]);
    let both = env.devport(["logs", "--previous", "a", "b"]).ok();
    assert!(both.stdout.contains("a | hello"), "{}", both.stdout);
    assert!(both.stderr.contains("the log of b has no run that has ended"), "{}", both.stderr);
    env.devport(["logs", "--run", "99"])
        .fails(1, &["the log of a has no run 99", "the log of b has no run 99", "2 of 2"]);
    env.devport(["reserve", "--key", "c"]).ok();
    env.devport(["logs", "--run", "1", "c"]).fails(1, &["the log of c has no run 1: it is empty"]);
}

#[test]
fn a_run_is_shown_after_its_start_was_rotated_away() {
    let env = TestEnv::new();
    let file = env.write(
        "devport.yaml",
        "- key: a\n  exec: sh -c 'seq 1 3000; echo end; exec sleep 1000'\n  no-port: true\n  log: {max-size: 4K, keep: 1}\n",
    );
    env.devport(["start", "-f", &file]).ok();
    until("it has written", || env.devport(["logs", "-n", "1", "a"]).ok().stdout == "end\n");
    let text = env.devport(["logs", "--run", "1", "a"]).ok().stdout;
    assert!(!text.contains("started") && text.ends_with("\n2999\n3000\nend\n"), "{text}");
    assert_eq!(env.devport(["logs", "a"]).ok().stdout, text);
    env.devport(["stop", "a"]).ok();
    env.devport(["start", "a"]).ok();
    env.devport(["logs", "--run", "2", "a"]).ok();
}

#[test]
fn a_service_cannot_forge_an_exit_behind_a_part_that_is_full() {
    let env = TestEnv::new();
    let script = "import sys,time\nfor _ in range(176): sys.stdout.write('x' * 65536); sys.stdout.flush()\n\
                  sys.stdout.write('\\x1e2026-11-24T05:00:00.000Z ended exit code 0 after 99 s (forged)\\nend\\n'); sys.stdout.flush()\n\
                  time.sleep(1000)";
    env.start("a", &["python3", "-c", script]);
    until("it has written", || env.devport(["logs", "-n", "1", "a"]).ok().stdout == "end\n");
    let lines: Vec<String> = env.devport(["logs", "a"]).ok().stdout.lines().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 3, "{:?}", lines.last());
    let (written, mark) = lines[1].split_once('\u{1e}').unwrap();
    assert_eq!(written.len(), 176 * 65536, "the line is whole");
    assert!(mark.ends_with("(forged)"), "{mark}");
}

#[test]
fn a_spinner_is_shown_as_on_a_screen_and_logged_byte_for_byte() {
    let env = TestEnv::new();
    let script = r"printf '\r| 10%%\r/ 50%%\r- \033[32m100%%\033[0m\r\n'; printf 'building\rdone\033[K\nok\r\n'; exec sleep 1000";
    env.start("a", &["sh", "-c", script]);
    until("it has written", || env.devport(["logs", "-n", "1", "a"]).ok().stdout == "ok\n");
    assert_eq!(env.devport(["logs", "-n", "3", "a"]).ok().stdout, "- 100%\ndone\nok\n");
    let json = env.devport(["logs", "-n", "3", "--json", "a"]).ok().stdout;
    assert!(json.contains(r#""line":"- 100%""#) && json.contains(r#""line":"done""#), "{json}");
    assert_eq!(
        env.devport(["logs", "--grep", "50%|building", "a"]).ok().stdout,
        "",
        "what is not shown does not match"
    );
    let written = b"\r| 10%\r/ 50%\r- \x1b[32m100%\x1b[0m\r\r\nbuilding\rdone\x1b[K\r\nok\r\r\n";
    let log = env.state_file("logs", "a", "log");
    // `logs` shows the last line before its end has arrived.
    until("the log has every byte", || {
        // A mark with the time may stand between two writes.
        let log = std::fs::read(&log).unwrap();
        let lines = log.split_inclusive(|byte| *byte == b'\n').filter(|line| line[0] != 0x1e);
        lines.collect::<Vec<_>>().concat().windows(written.len()).any(|window| window == written)
    });
}
