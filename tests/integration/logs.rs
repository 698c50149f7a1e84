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
    assert!(lines[0].ends_with(&format!("started, pid {}", first["pid"])) && lines[1] == "hello", "{text}");
    assert!(lines[2].contains("ended: killed by SIGTERM after"), "{text}");
    assert!(lines[3].ends_with(&format!("started, pid {}", second["pid"])), "{text}");
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
    env.devport(["logs", "nobody"]).fails(4, &["no service matching"]);
    env.devport(["logs"]).fails(2, &["TARGET"]);
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
