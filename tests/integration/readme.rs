//! README.md and the pages in docs/: their commands, links, messages and limits.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::support::documents::{blocks, documents, prose, root};
use crate::support::{TestEnv, answers, port, until};

/// The documents for developers: they name options that users do not see.
const FOR_DEVELOPERS: [&str; 4] = ["CONTRIBUTING.md", "docs/architecture.md", "docs/reliability.md", "docs/state.md"];

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// Returns the command lines of a document's shell blocks, without comments.
fn shell_lines(text: &str) -> Vec<String> {
    let lines = blocks(text, |language| language == "sh").into_iter().flatten();
    let lines = lines.map(|line| line.split("   #").next().unwrap().split(" #").next().unwrap().trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// Returns the commands of devport in a document: in shell blocks, in sessions and in the text.
fn commands(text: &str) -> Vec<String> {
    let prompt = Regex::new(r"^\S*\$ ").unwrap();
    let sessions = blocks(text, |language| language == "console").into_iter().flatten();
    let sessions = sessions.filter(|line| prompt.is_match(line)).map(|line| prompt.replace(&line, "").into_owned());
    let spans = Regex::new("`(devport [^`]+)`").unwrap();
    let text_lines = prose(text).replace('\n', " ");
    let spans = spans.captures_iter(&text_lines).map(|found| found[1].to_owned());
    let all = shell_lines(text).into_iter().chain(sessions).chain(spans);
    let parts =
        all.flat_map(|line| line.split("&&").flat_map(|part| part.split(" | ")).map(str::to_owned).collect::<Vec<_>>());
    // A placeholder in place of the subcommand, and an option before it, name no subcommand.
    let is_command = |part: &String| {
        part.strip_prefix("devport ").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
    };
    parts.map(|part| part.trim().to_owned()).filter(is_command).collect()
}

/// Returns why the command line does not accept a command, or its help does not name an option; `None` if all is well.
fn misunderstood(env: &TestEnv, command: &str) -> Option<String> {
    let arguments = command.strip_prefix("devport ")?.split(" -- ").next()?.split(" >").next()?;
    let mut words = shell_words::split(arguments).unwrap();
    let end = words.len();
    words.push("--help".into());
    let help = env.devport(&words);
    if help.code != 0 || !help.stdout.contains("Usage:") {
        return Some(format!("{command}: {help:?}"));
    }
    let flags = words[..end].iter().filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap());
    let unknown: Vec<&str> = flags.filter(|flag| !help.stdout.contains(flag)).collect();
    (!unknown.is_empty()).then(|| format!("{command}: its help does not have {unknown:?}"))
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let env = TestEnv::new();
    let pages = documents().into_iter().filter(|(name, _)| !FOR_DEVELOPERS.contains(&name.as_str()));
    let all: HashSet<String> = pages.flat_map(|(_, text)| commands(&text)).collect();
    assert!(all.len() >= 80, "only {} commands were found", all.len());
    let wrong: Vec<String> = all.iter().filter_map(|command| misunderstood(&env, command)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documents_show_every_command() {
    let env = TestEnv::new();
    let shown: HashSet<String> = documents().iter().flat_map(|(_, text)| commands(text)).collect();
    let help = env.devport(["--help"]).ok().stdout;
    let groups =
        help.lines().skip_while(|line| !line.starts_with("Services")).take_while(|line| !line.starts_with("Examples"));
    // The names stand between the name of the group and the description, behind at least two spaces.
    let names = groups.filter_map(|line| line.get(11..)).flat_map(|line| {
        line.split("  ").next().unwrap().split(", ").map(|name| name.trim().to_owned()).collect::<Vec<_>>()
    });
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        let is_of = |command: &String| command.split(' ').nth(1) == Some(name.as_str());
        assert!(shown.iter().any(is_of), "no document shows `devport {name}`");
    }
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = readme().lines().count();
    assert!(lines <= 150, "{lines} lines");
}

/// Returns the fragments that GitHub makes of the headings of a document.
fn fragments(text: &str) -> HashSet<String> {
    let headings = prose(text).lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let fragment = |heading: String| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.into_iter().map(fragment).collect()
}

#[test]
fn every_relative_link_of_the_documents_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut dead = Vec::new();
    let mut count = 0;
    for (name, text) in documents() {
        for found in link.captures_iter(&prose(&text)) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let document = root().join(&name);
            let file = if path.is_empty() { document } else { document.parent().unwrap().join(path) };
            let has_fragment = || fs::read_to_string(&file).is_ok_and(|text| fragments(&text).contains(fragment));
            if !file.is_file() || !fragment.is_empty() && !has_fragment() {
                dead.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(count >= 60, "only {count} links were found");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// Returns the text of all files of a directory and its subdirectories.
fn all_text(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        text +=
            &if entry.path().is_dir() { all_text(&entry.path()) } else { fs::read_to_string(entry.path()).unwrap() };
    }
    text
}

#[test]
fn the_messages_that_troubleshooting_explains_are_those_of_the_program() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let program = all_text(&root().join("src"));
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let span = Regex::new("`([^`]+)`").unwrap();
    let messages: Vec<String> =
        cells.flat_map(|cell| span.captures_iter(cell).map(|found| found[1].to_owned()).collect::<Vec<_>>()).collect();
    assert!(messages.len() >= 50, "only {} messages were found", messages.len());
    for message in messages {
        for part in message.split('…').map(str::trim).filter(|part| part.len() > 2) {
            assert!(program.contains(part), "{message}: the program does not say {part:?}");
        }
    }
}

#[test]
fn the_first_command_of_the_readme_runs_a_service() {
    let env = TestEnv::new();
    let first = shell_lines(&readme()).into_iter().find(|command| command.contains("devport start")).unwrap();
    let words = shell_words::split(first.split("bin/devport ").nth(1).unwrap()).unwrap();
    let view = env.devport(&words).ok().json();
    until("it answers", || answers(port(&view)));
}

#[test]
fn every_test_command_is_there() {
    let lines = shell_lines(&readme());
    for script in ["scripts/check", "scripts/install", "scripts/setup", "scripts/bench", "scripts/picture"] {
        assert!(root().join(script).is_file(), "{script}");
        assert!(lines.iter().any(|line| line.split(' ').next() == Some(script)), "{script}");
    }
    let (first, test) = (&lines[0], &lines[1]);
    assert!(first.contains("--bind 127.0.0.1"), "{first}: the network is not invited");
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.ends_with(&format!("\n{test}\n")), "CI runs another command than `{test}`: {ci}");
}

#[test]
fn every_script_prints_its_usage_and_does_nothing_else() {
    let env = TestEnv::new();
    for entry in fs::read_dir(root().join("scripts")).unwrap() {
        let script = entry.unwrap().path();
        let name = script.file_name().unwrap().to_str().unwrap().to_owned();
        let usage = env.finish(env.command(&script).arg("--help")).ok();
        assert!(usage.stdout.contains(&format!("scripts/{name}")) || usage.stdout.starts_with("usage: "), "{usage:?}");
        assert_eq!(usage.stderr, "", "{name}");
    }
    assert_eq!(fs::read_dir(env.path("work")).unwrap().count(), 0);
}

#[test]
fn nothing_in_the_tree_is_left_for_later() {
    let root = root();
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["un", "implemented!"].concat()];
    let mut pending = vec![root.join("src"), root.join("tests"), root.join("scripts")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else {
                let text = fs::read_to_string(entry.path()).unwrap();
                assert!(!words.iter().any(|word| text.contains(word)), "{}", entry.path().display());
            }
        }
    }
}

/// The tests that a document names, as `module::name` or `folder/file.rs::name`.
fn named_tests(document: &str) -> Vec<(String, String)> {
    let quoted = document.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|text| text.rsplit_once("::"));
    names.map(|(module, name)| (module.to_owned(), name.to_owned())).collect()
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let root = root();
    let text = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let named = named_tests(&text);
    assert!(named.len() >= 50, "only {} tests are named", named.len());
    // `module::name` explains the form, and `…` stands for all tests of a file.
    for (module, name) in named.into_iter().filter(|(_, name)| name != "name" && name != "…") {
        let file = if module.strip_suffix(".rs").is_some() {
            root.join("src").join(&module)
        } else {
            root.join("tests/integration").join(format!("{module}.rs"))
        };
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(source.contains(&format!("fn {name}(")), "{module}::{name} does not exist");
    }
}
