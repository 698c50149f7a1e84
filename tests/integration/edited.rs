//! A file that was edited since `up`: commands that use the record say what `up` would apply.

use std::fs;

use crate::stacks::{FEAT, at, machine};
use crate::support::{TestEnv, strace};

const FILE: &str = "services:\n  \
                    web: {exec: sleep 1000, ready: none, env: .env, shared: true}\n  \
                    api: {exec: sleep 1000, ready: none}\n";

/// A machine on which the stack of the main checkout runs.
fn running() -> TestEnv {
    let env = machine(FILE);
    env.write("shop/.env", "A=1\n");
    at(&env, "shop", &["up", "-d"]).ok();
    env
}

/// Returns what a command in the main checkout prints on standard error.
#[track_caller]
fn notes(env: &TestEnv, arguments: &[&str]) -> String {
    at(env, "shop", arguments).ok().stderr
}

#[test]
fn restart_and_start_name_what_an_edit_would_change() {
    let env = running();
    for arguments in [&["restart", "web"][..], &["restart"], &["start", "web"], &["start", "--replace", "api"]] {
        assert_eq!(notes(&env, arguments), "", "{arguments:?}");
    }
    env.write("shop/devport.yaml", &FILE.replace("web: {exec: sleep 1000", "web: {exec: sleep 2000"));
    let file = fs::canonicalize(env.file("shop/devport.yaml")).unwrap().display().to_string();
    let expected = format!(
        "devport: shop/web still has the command sleep 1000; `devport up -d web` applies the changes of {file}\n"
    );
    for arguments in [&["restart", "web"][..], &["restart"], &["start", "web"], &["start", "--replace", "web"]] {
        assert_eq!(notes(&env, arguments), expected, "{arguments:?}");
    }
    // Its file is that of the main checkout, wherever the command runs, and `up` would find another one there.
    let from_feat = expected.replace("up -d web", &format!("up -d -f {file} web"));
    assert_eq!(at(&env, FEAT, &["restart", "web"]).ok().stderr, from_feat);
    assert_eq!(notes(&env, &["restart", "api"]), "", "the edit does not concern it");
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(notes(&env, &["restart", "web"]), "");
}

#[test]
fn the_ports_of_a_stack_are_read_once_for_all_its_services() {
    if strace::is_missing() {
        return;
    }
    let env = machine(&format!("{FILE}  debug: {{}}\n"));
    env.write("shop/.env", "A=1\n");
    at(&env, "shop", &["up", "-d"]).ok();
    let debug = env.state_file("services", "shop/debug", "json");
    let opens = |names: &[&str]| {
        env.opened_records(".", &[&["start"], names].concat()).iter().filter(|path| **path == debug).count()
    };
    let once = opens(&["shop/web"]);
    assert!(once > 0);
    assert_eq!(opens(&["shop/web", "shop/api"]), once);
}

#[test]
fn edits_of_dotenv_files_siblings_and_the_list_of_services_are_seen() {
    let env = running();
    env.write("shop/.env", "A=2\n");
    for command in ["restart", "start"] {
        let note = notes(&env, &[command, "web"]);
        assert!(note.contains("shop/web still has variables from before /"), "{note}");
        assert!(note.contains("/shop/.env changed; `devport up -d web` applies"), "{note}");
        assert!(note.lines().count() == 1 && !note.contains("A=2"), "{note}");
    }
    at(&env, "shop", &["up", "-d"]).ok();
    // A sibling that is not shared is no concern of a shared service.
    env.write("shop/devport.yaml", &format!("{FILE}  debug: {{port: {}}}\n", env.first_port + 39));
    let note = notes(&env, &["restart"]);
    assert!(note.contains("shop/api still has its earlier variables") && !note.contains("shop/web"), "{note}");
    at(&env, "shop", &["up", "-d"]).ok();
    env.write("shop/devport.yaml", &FILE.replace("  api:", "  backend:"));
    let note = notes(&env, &["restart", "api"]);
    assert!(note.contains("no longer has shop/api; `devport rm shop/api` removes it"), "{note}");
}

#[test]
fn a_service_that_is_started_alone_names_those_that_it_needs() {
    let env = machine(
        "services:\n  \
         db: {exec: sleep 1000, ready: none}\n  \
         migrate: {exec: \"true\", one-shot: true, depends-on: [db]}\n  \
         api: {exec: sleep 1000, ready: none, depends-on: [migrate]}\n  \
         web: {exec: sleep 1000, ready: none, depends-on: [api]}\n",
    );
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(notes(&env, &["restart"]), "");
    at(&env, "shop", &["down"]).ok();
    let needs = |what: &str, them: &str| {
        format!("devport: shop/web needs {what} not run; `devport up -d web` starts {them} first\n")
    };
    assert_eq!(notes(&env, &["start", "web"]), needs("db and api, which do", "them"));
    at(&env, "shop", &["start", "db"]).ok();
    assert_eq!(notes(&env, &["restart", "web"]), needs("api, which does", "it"));
    at(&env, "shop", &["up", "-d", "web"]).ok();
    assert_eq!(notes(&env, &["start", "--replace", "web"]), "");
}

#[test]
fn a_file_that_up_does_not_find_is_named_in_the_command() {
    let env = machine("");
    fs::remove_file(env.file("shop/devport.yaml")).unwrap();
    fs::create_dir(env.file("shop/dev")).unwrap();
    let file = |value: &str| format!("services:\n  web: {{exec: sleep 1000, ready: none, env: {{A: '{value}'}}}}\n");
    env.write("shop/dev/stack.yaml", &file("1"));
    at(&env, "shop", &["up", "-d", "-f", "dev/stack.yaml"]).ok();
    env.write("shop/dev/stack.yaml", &file("2"));
    let path = fs::canonicalize(env.file("shop/dev/stack.yaml")).unwrap().display().to_string();
    let note = notes(&env, &["restart", "web"]);
    assert!(note.contains(&format!("`devport up -d -f {path} web` applies the changes")), "{note}");
    at(&env, "shop", &["up", "-d", "-f", &path, "web"]).ok();
    assert_eq!(notes(&env, &["restart", "web"]), "");
}

#[test]
fn a_file_with_mistakes_or_none_does_not_keep_a_service_from_its_restart() {
    let env = running();
    env.write("shop/devport.yaml", "services:\n  web: {exec: sleep 1000, prot: 3}\n");
    let note = notes(&env, &["restart", "web"]);
    assert!(note.contains("devport.yaml:2: ") && note.contains("`prot`"), "{note}");
    fs::remove_file(env.file("shop/.env")).unwrap();
    env.write("shop/devport.yaml", FILE);
    assert!(notes(&env, &["restart", "web"]).contains(".env does not exist"));
    fs::remove_file(env.file("shop/devport.yaml")).unwrap();
    let note = notes(&env, &["restart", "web"]);
    assert!(note.contains("could not compare shop/web with its file: ") && note.contains("no such file"), "{note}");
}
