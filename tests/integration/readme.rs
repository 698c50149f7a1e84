//! The examples in the README.

use std::fs;
use std::path::Path;

use crate::support::{TestEnv, answers, port, until};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Returns the command lines of the README's shell blocks, without comments.
fn commands() -> Vec<String> {
    let text = readme();
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(str::lines).map(|line| line.split("   #").next().unwrap().split(" #").next().unwrap());
    lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_command_of_the_readme_is_understood() {
    let env = TestEnv::new();
    let mut seen = 0;
    for command in commands() {
        for part in command.split("&&").map(str::trim) {
            let Some(arguments) = part.strip_prefix("devport ") else { continue };
            seen += 1;
            let mut words = shell_words::split(arguments.split(" >").next().unwrap()).unwrap();
            // This test only checks that the command line accepts them.
            let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
            words.insert(end, "--help".into());
            let help = env.devport(&words).ok().stdout;
            assert!(help.contains("Usage:"), "{command}");
            for flag in words[..end].iter().filter(|word| word.starts_with('-')) {
                assert!(help.contains(flag.as_str()), "{command}: {flag}");
            }
        }
    }
    assert!(seen >= 25, "only {seen} commands were found");
}

#[test]
fn the_first_command_of_the_readme_runs_a_service() {
    let env = TestEnv::new();
    let first = commands().into_iter().find(|command| command.contains("devport start")).unwrap();
    let words = shell_words::split(first.split("bin/devport ").nth(1).unwrap()).unwrap();
    let view = env.devport(&words).ok().json();
    until("it answers", || answers(port(&view)));
}

#[test]
fn every_test_command_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for script in ["scripts/check", "scripts/install", "scripts/setup", "scripts/bench", ".ci/run"] {
        assert!(root.join(script).is_file(), "{script}");
        assert!(script == ".ci/run" || readme().contains(script), "{script}");
    }
    assert!(fs::read_to_string(root.join(".ci/run")).unwrap().contains("\nscripts/check\n"));
}

#[test]
fn nothing_in_the_tree_is_left_for_later() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
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
