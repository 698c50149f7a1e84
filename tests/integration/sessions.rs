//! The sessions of the documents: a `console` block, and the picture of the README, show what the program prints.

use std::fs;
use std::path::Path;

use regex::Regex;

use crate::support::documents::{blocks, documents};
use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, until};

/// The port of a dev server that ignores its own, in the documents.
const VITE_PORT: &str = "5173";

/// Returns the lines of a picture without markup.
fn lines_of_picture(picture: &str) -> Vec<String> {
    let tag = Regex::new("<[^>]*>").unwrap();
    let plain = |line: &str| {
        let text = tag.replace_all(line, "");
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&#x27;", "'")
            .replace("&amp;", "&")
    };
    picture.lines().filter(|line| line.starts_with("<text")).map(plain).collect()
}

/// Returns a line without what differs each time: times, numbers, and how wide columns are.
fn essence(line: &str) -> String {
    let replaced =
        [(r"\b\d+(\.\d+)?(ms|[smhd]| s)\b( \d+[smhd]\b)*", "T"), (r"\d+", "0"), (r"\S*…", "…"), (r"\s+", " ")];
    let line = replaced.iter().fold(line.to_owned(), |line, (pattern, text)| {
        Regex::new(pattern).unwrap().replace_all(&line, *text).into_owned()
    });
    line.trim_end().to_owned()
}

/// Runs the commands of a session in a terminal, and returns what it then shows.
fn replay(session: &[String]) -> Vec<String> {
    let env = TestEnv::new();
    let bin = env.path("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(DEVPORT, bin.join("devport")).unwrap();
    let scene = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standins/shop.sh");
    env.finish(env.command("sh").arg(scene)).ok();
    let prompt = Regex::new(r"^(~\S*)?\$ (.+)$").unwrap();
    let mut script = vec![format!("PATH={}:$PATH", bin.display()), "cd ~/notes".into()];
    for line in session {
        let Some(found) = prompt.captures(line) else { continue };
        script.extend(found.get(1).map(|directory| format!("cd {}", directory.as_str())));
        script.push(format!("printf '%s\\n' {}", shell_words::quote(line)));
        // Another program of this machine may have the port that a reader knows.
        script.push(found[2].replace(VITE_PORT, &(env.first_port + 37).to_string()));
    }
    let script = env.write("session.sh", &script.join("\n"));
    let terminal = Terminal::sized(&env, 80, &format!("sh {script}"));
    until("the session ends", || terminal.screen().contains("ended with"));
    let shown = terminal.tmux(&["capture-pane", "-p", "-J", "-S", "-", "-t", "=t:"]).ok().stdout;
    let home = env.path("home").to_str().unwrap().to_owned();
    let mut lines: Vec<String> = shown.lines().map(|line| line.replace(&home, "/home/me")).collect();
    lines.truncate(lines.iter().rposition(|line| line.starts_with("ended with")).unwrap());
    lines
}

/// How many times a session is replayed until it is as documented: on a busy machine, a command can take so long that
/// another state is shown.
const ATTEMPTS: usize = 3;

/// Returns how a session differs from what the program prints; `None` if it does not.
fn difference(name: &str, session: &[String]) -> Option<String> {
    let same = |lines: &[String]| lines.iter().map(|line| essence(line)).collect::<Vec<_>>();
    let mut difference = None;
    for _ in 0..ATTEMPTS {
        let shown = replay(session);
        if same(session) == same(&shown) {
            return None;
        }
        difference = Some(format!("{name} has:\n{}\nshown:\n{}", session.join("\n"), shown.join("\n")));
    }
    difference
}

#[test]
fn the_sessions_of_the_documents_show_what_the_program_prints() {
    let mut differences = Vec::new();
    let mut count = 0;
    for (name, text) in documents() {
        for session in blocks(&text, |language| language == "console") {
            count += 1;
            differences.extend(difference(&name, &session));
        }
    }
    assert!(count >= 3, "only {count} sessions");
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn the_picture_of_the_readme_shows_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/session.svg");
    let session = lines_of_picture(&fs::read_to_string(path).unwrap());
    assert!(session.iter().filter(|line| line.contains("$ devport ")).count() >= 4, "{session:?}");
    if let Some(difference) = difference("docs/session.svg", &session) {
        panic!("{difference}\n\n`scripts/picture` makes a new one");
    }
}
