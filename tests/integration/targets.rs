//! Targets: what a bare name means in a checkout, in the order stack, own key, key of no checkout.

use std::fs;

use serde_json::Value;

use crate::stacks::{FEAT, at, machine};
use crate::support::{DEVPORT, TestEnv, strace, write_program};

/// A stack with these services, which have ports and do not answer.
fn stack(services: &[&str]) -> String {
    let service = |name: &&str| format!("  {name}: {{exec: sleep 1000, ready: none}}\n");
    format!("services:\n{}", services.iter().map(service).collect::<String>())
}

/// Returns the key of the service that a name means in a directory.
#[track_caller]
fn key_of(env: &TestEnv, directory: &str, name: &str) -> Value {
    at(env, directory, &["which", name]).ok().json()["key"].clone()
}

#[test]
fn the_stack_wins_over_a_key_and_that_over_one_of_no_checkout() {
    let env = machine(&stack(&["web"]));
    let start = |directory: &str, key: &str| {
        at(&env, directory, &["start", "--ready", "none", "--key", key, "--", "sleep", "1000"]).ok();
    };
    start("shop", "web");
    start("shop", "api");
    start("empty", "db");
    assert_eq!(key_of(&env, "shop", "web"), "web");
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(key_of(&env, "shop", "web"), "shop/web");
    assert_eq!(key_of(&env, "shop", "api"), "api");
    assert_eq!(key_of(&env, "shop", "db"), "db");
    assert_eq!(key_of(&env, "empty", "web"), "web", "outside of any checkout a key is a key");
    at(&env, "shop", &["which", "nothing"]).fails(4, &["no service matching"]);
}

#[test]
fn the_stack_of_the_nearest_file_is_meant_first() {
    let env = machine(&stack(&["web", "only-root"]));
    for (directory, services) in
        [("apps/api", &["web", "worker", "both"][..]), ("apps/ui", &["web", "both"]), ("apps/none", &[])]
    {
        fs::create_dir_all(env.file(&format!("shop/{directory}/src"))).unwrap();
        env.write(&format!("shop/{directory}/devport.yaml"), &stack(services));
        at(&env, &format!("shop/{directory}"), &["up", "-d"]).ok();
    }
    at(&env, "shop", &["up", "-d"]).ok();
    for (directory, name, key) in [
        ("shop", "web", "shop/web"),
        ("shop/apps", "web", "shop/web"),
        ("shop/apps/api/src", "web", "shop-apps-api/web"),
        ("shop/apps/ui", "web", "shop-apps-ui/web"),
        ("shop/apps/ui", "only-root", "shop/only-root"),
        ("shop/apps/ui", "worker", "shop-apps-api/worker"),
        ("shop", "worker", "shop-apps-api/worker"),
    ] {
        assert_eq!(key_of(&env, directory, name), key, "{name} in {directory}");
    }
    let error = at(&env, "shop", &["which", "both"]).fails(4, &["\"both\" is ambiguous"]).stderr;
    assert!(error.contains("shop-apps-api/both") && error.contains("shop-apps-ui/both"), "{error}");
    // The set comes from the records: the file no longer has it.
    env.write("shop/devport.yaml", &stack(&["only-root"]));
    assert_eq!(key_of(&env, "shop", "web"), "shop/web");
}

#[test]
fn a_name_that_only_other_checkouts_have_is_refused_with_their_whole_keys() {
    let env = machine(&stack(&["web"]));
    fs::create_dir(env.file("blog/.git")).unwrap();
    env.write("blog/devport.yaml", &stack(&["api"]));
    at(&env, "shop", &["up", "-d"]).ok();
    let id = |key: &str| at(&env, "empty", &["which", key]).ok().json()["hashid"].as_str().unwrap().to_owned();
    let path = |directory: &str| fs::canonicalize(env.file(directory)).unwrap().display().to_string();
    let one = at(&env, FEAT, &["url", "web"]).fails(
        6,
        &[
            &format!("shop/web belongs to {}; this is {}\n", path("shop"), path(FEAT)),
            "hint: `devport up -d web` starts this checkout's own\n",
        ],
    );
    assert_eq!(one.stdout, "");
    let hint = "hint: its whole key works in every directory: `devport which shop/web`\n";
    at(&env, "blog", &["url", "web"]).fails(6, &[hint]);
    at(&env, "blog", &["up", "-d"]).ok();
    at(&env, FEAT, &["up", "-d"]).ok();
    let (main, feat) = (id("shop/web"), id("shop@feat/web"));
    let several = at(&env, "blog", &["stop", "web"])
        .fails(6, &["web belongs to ", "hint: these names work in every directory: `devport which shop"]);
    for part in [&path("shop"), &path(FEAT), "shop/web", "shop@feat/web"] {
        assert!(several.stderr.contains(part), "{part}: {several:?}");
    }
    assert_eq!(several.stdout, "");
    for target in [&main, &feat, "shop/web", "shop@feat/web"] {
        at(&env, "blog", &["url", target]).ok();
    }
    at(&env, "empty", &["-C", "../shop", "url", "web"]).ok();
    let port = at(&env, "shop", &["port", "web"]).ok().stdout;
    assert_eq!(key_of(&env, "blog", port.trim()), "shop/web");
}

#[test]
fn a_service_of_a_stack_that_was_never_started_is_named_with_its_file() {
    let env = machine(&format!("{}  debug: {{}}\n", stack(&["web", "api"])));
    let file =
        |directory: &str| fs::canonicalize(env.file(directory)).unwrap().join("devport.yaml").display().to_string();
    let up = |name: &str| format!("hint: start it with `devport up -d {name}`\n");
    let message = format!("devport: shop/web, declared in {}, is not registered\n{}", file("shop"), up("web"));
    for command in
        ["url", "which", "logs", "stop", "restart", "wait", "attach", "start", "run", "port", "env", "signal"]
    {
        let done = at(&env, "shop", &[command, "web"]).fails(4, &[&message]);
        assert_eq!((done.stdout, done.stderr.lines().count()), (String::new(), 2), "{command}");
    }
    at(&env, "shop", &["start", "web", "api"]).fails(4, &[&message]);
    at(&env, "shop", &["start", "npm", "dev"]).fails(2, &["put the command after --"]);
    at(&env, "shop", &["url", "shop/web"]).fails(4, &[&message]);
    at(&env, "shop", &["url", "debug"]).fails(4, &["shop/debug, declared in ", &up("debug")]);
    at(&env, "shop", &["url", "wbe"]).fails(4, &["no service matching \"wbe\""]);
    at(&env, FEAT, &["url", "api"]).fails(4, &["shop@feat/api, declared in ", &file(FEAT), &up("api")]);
    env.write("blog/devport.yaml", "- {key: my blog, exec: sleep 1000}\n");
    at(&env, "blog", &["logs", "my blog"]).fails(4, &["my blog, declared in ", &up("'my blog'")]);
    at(&env, "shop", &["up", "-d", "debug"]).ok();
    at(&env, "shop", &["url", "debug"]).ok();
}

#[test]
fn the_command_of_a_hint_works_in_the_directory_where_it_is_typed() {
    let env = machine(&stack(&["web"]));
    let file = fs::canonicalize(env.file("shop")).unwrap().join("devport.yaml").display().to_string();
    let elsewhere = format!("hint: start it with `devport up -d -f {file} web`\n");
    at(&env, "empty", &["-C", "../shop", "url", "web"]).fails(4, &[&elsewhere]);
    at(&env, "blog", &["-C", "../empty", "-C", "../shop", "start"])
        .fails(4, &[&format!("`devport up -d -f {file}`\n")]);
    for directory in [".", &env.file("shop")] {
        at(&env, "shop", &["-C", directory, "url", "web"]).fails(4, &["hint: start it with `devport up -d web`\n"]);
    }
    at(&env, "empty", &["up", "-d", "-f", &file, "web"]).ok();
    at(&env, "empty", &["-C", "../shop", "url", "web"]).ok();
}

#[test]
fn start_in_a_new_checkout_with_a_file_names_up() {
    let env = machine(&stack(&["web"]));
    fs::create_dir_all(env.file(&format!("{FEAT}/src"))).unwrap();
    let hint = "hint: start those of its file with `devport up -d`\n";
    for directory in ["shop", FEAT, &format!("{FEAT}/src")] {
        at(&env, directory, &["start"]).fails(4, &[" has no services\n", hint]);
    }
    at(&env, "empty", &["start"]).fails(4, &[" has no services\n", "put a command after --"]);
    at(&env, FEAT, &["stop"]).fails(4, &["or use `devport stop --all`"]);
}

#[test]
fn a_damaged_record_of_a_stack_is_the_error_and_no_other_service_is_meant() {
    let env = machine(&stack(&["web"]));
    for directory in ["shop", FEAT] {
        at(&env, directory, &["up", "-d"]).ok();
    }
    let record = |key: &str| env.state_file("services", key, "json");
    let (main, feat) = (record("shop/web"), record("shop@feat/web"));
    let whole = fs::read(&main).unwrap();
    fs::write(&main, &whole[..whole.len() / 2]).unwrap();
    let path = main.to_str().unwrap();
    let refuses = |directory: &str| {
        for command in ["url", "stop", "which", "start", "restart"] {
            let refused = at(&env, directory, &[command, "web"]).fails(1, &[path, "hint: repair it"]);
            assert!(
                !refused.stderr.contains("belongs to") && !refused.stderr.contains("not registered"),
                "{refused:?}"
            );
        }
    };
    // The name of the stack is not searched for in a file that is so large.
    let large = format!("# {}\n{}", "x".repeat(70_000), stack(&["web"]));
    for file in [&large, &stack(&["web"])] {
        env.write("shop/devport.yaml", file);
        refuses("shop");
    }
    assert_eq!(key_of(&env, FEAT, "web"), "shop@feat/web", "it is not damaged");
    // Now no other checkout has the name.
    at(&env, FEAT, &["rm", "web"]).ok();
    assert!(!feat.exists());
    for file in [&stack(&["web"]), &large] {
        env.write("shop/devport.yaml", file);
        refuses("shop");
    }
    fs::write(&main, &whole).unwrap();
    at(&env, "shop", &["stop", "web"]).ok();
}

#[test]
fn a_reserved_port_and_a_shared_service_have_bare_names_too() {
    let text = "services:\n  api-debug: {}\n  db: {exec: sleep 1000, ready: none, shared: true}\n";
    let env = machine(text);
    at(&env, FEAT, &["up", "-d"]).ok();
    assert_eq!(key_of(&env, FEAT, "api-debug"), "shop@feat/api-debug");
    // One instance for all checkouts of the repository, and no other's.
    assert_eq!((key_of(&env, FEAT, "db"), key_of(&env, "shop", "db")), ("shop/db".into(), "shop/db".into()));
    at(&env, "shop", &["port", "api-debug"]).fails(6, &["shop@feat/api-debug belongs to"]);
    fs::create_dir(env.file("blog/.git")).unwrap();
    at(&env, "blog", &["port", "db"]).fails(6, &["shop/db belongs to"]);
    // Without a name, a command means what belongs to this checkout. A shared service belongs to the main one.
    let stopped = at(&env, FEAT, &["stop"]).ok().json();
    assert_eq!(stopped, serde_json::json!([]));
    assert_eq!(at(&env, "shop", &["stop"]).ok().json()[0]["key"], "shop/db");
}

#[test]
fn a_key_of_a_checkout_wins_over_stacks_below_a_directory_without_one() {
    let env = machine(&stack(&["web"]));
    fs::create_dir_all(env.file("blog/.git")).unwrap();
    fs::create_dir_all(env.file("blog/apps")).unwrap();
    env.write("blog/apps/devport.yaml", &stack(&["web", "db"]));
    at(&env, "blog/apps", &["up", "-d"]).ok();
    for (directory, key) in [("blog", "web"), ("empty", "db")] {
        at(&env, directory, &["start", "--ready", "none", "--key", key, "--", "sleep", "1000"]).ok();
    }
    assert_eq!(key_of(&env, "blog", "web"), "web");
    assert_eq!(key_of(&env, "blog/apps", "web"), "blog-apps/web");
    // A key of no checkout comes after every stack of this one.
    assert_eq!(key_of(&env, "blog", "db"), "blog-apps/db");
}

#[test]
fn a_service_of_the_nearest_stack_is_found_without_reading_the_other_records() {
    if strace::is_missing() {
        return;
    }
    let env = machine(&stack(&["web"]));
    fs::create_dir(env.file("blog/.git")).unwrap();
    fs::create_dir_all(env.file("shop/apps/ui")).unwrap();
    env.write("blog/devport.yaml", &format!("name: shop\n{}", stack(&["web"])));
    env.write("empty/devport.yaml", &stack(&["web"]));
    let places = ["shop", FEAT, "blog", "empty"];
    for directory in places {
        at(&env, directory, &["up", "-d"]).ok();
    }
    for n in 0..20 {
        at(&env, "empty", &["reserve", "--key", &format!("other-{n}")]).ok();
    }
    for directory in places {
        let view = at(&env, directory, &["which", "web"]).ok().json();
        let root = fs::canonicalize(env.file(directory)).unwrap();
        assert_eq!(view["root"].as_str(), root.to_str(), "{directory}");
        for command in ["which", "url", "stop"] {
            let count = env.opened_records(directory, &[command, "web"]).len();
            assert!((1..10).contains(&count), "{command} in {directory}: {count}");
        }
    }
    assert!((1..10).contains(&env.opened_records("shop/apps/ui", &["url", "web"]).len()), "below the file");
    // A service that the file no longer has is found by its record.
    env.write("shop/devport.yaml", &stack(&["api"]));
    assert_eq!(key_of(&env, "shop", "web"), "shop/web");
}

#[test]
fn a_key_in_a_directory_without_a_stack_is_found_without_reading_the_other_records() {
    if strace::is_missing() {
        return;
    }
    let env = machine(&stack(&["web"]));
    for n in 0..20 {
        at(&env, "empty", &["reserve", "--key", &format!("other-{n}")]).ok();
    }
    fs::create_dir(env.file("blog/.git")).unwrap();
    env.write("blog/devport.yaml", "- {key: filed, exec: sleep 1000, ready: none}\n");
    at(&env, "blog", &["start", "-f", "devport.yaml"]).ok();
    for (directory, key) in [("empty", "alone"), ("shop", "own")] {
        at(&env, directory, &["start", "--ready", "none", "--key", key, "--", "sleep", "1000"]).ok();
    }
    for command in ["which", "stop", "start"] {
        for (directory, key) in [("empty", "alone"), ("blog", "filed")] {
            let count = env.opened_records(directory, &[command, key]).len();
            assert!((1..10).contains(&count), "{command} {key}: {count}");
        }
    }
    assert!(env.opened_records("shop", &["which", "own"]).len() > 20, "a stack here may have the name");
}

#[test]
fn what_was_never_started_in_this_checkout_is_started_with_up() {
    let env = machine(&format!("{}  debug: {{}}\n", stack(&["db", "web"])));
    at(&env, FEAT, &["up", "-d", "db"]).ok();
    let url = |name: &str| at(&env, FEAT, &["url", name]).ok();
    assert_eq!(url("web").stderr, "devport: shop@feat/web was never started; `devport up -d web` starts it\n");
    assert!(url("web").stdout.starts_with("http://localhost:"));
    assert_eq!((url("db").stderr, url("debug").stderr), (String::new(), String::new()));
    let hint = "hint: start it with `devport up -d web`\n";
    at(&env, FEAT, &["start", "web"]).fails(1, &["shop@feat/web is a reserved port without a command", hint]);
    at(&env, FEAT, &["wait", "web"]).fails(5, &["shop@feat/web is not ready: it is stopped", hint]);
    let file = fs::canonicalize(env.file(FEAT)).unwrap().join("devport.yaml").display().to_string();
    let elsewhere = format!("start it with `devport up -d -f {file} web`");
    at(&env, "blog", &["start", "shop@feat/web"]).fails(1, &[&elsewhere]);
    at(&env, "blog", &["up", "-d", "-f", &file, "web"]).ok();
    assert_eq!(url("web").stderr, "");

    let add = format!("hint: add `exec` to debug in {file}, then run `devport up -d debug`\n");
    for arguments in [["start", "shop@feat/debug"], ["restart", "debug"], ["run", "debug"]] {
        at(&env, FEAT, &arguments).fails(1, &["shop@feat/debug is a reserved port without a command", &add]);
    }
    at(&env, FEAT, &["start", "debug", "web"]).fails(1, &[&add]);
    at(&env, FEAT, &["wait", "debug"]).fails(5, &[&add]);
    env.write(&format!("{FEAT}/devport.yaml"), &stack(&["db", "web"]));
    let gone = format!("hint: {file} no longer has debug: add it with `exec`, then run `devport up -d debug`\n");
    at(&env, FEAT, &["start", "debug"]).fails(1, &[&gone]);
    env.write(&format!("{FEAT}/devport.yaml"), "services: [");
    at(&env, FEAT, &["start", "debug"]).fails(1, &[&add]);
}

#[test]
fn up_executes_no_git() {
    if strace::is_missing() {
        return;
    }
    let mut env = machine(
        "services:\n  db: {exec: sleep 1000, ready: none, shared: true}\n  web: {exec: sleep 1000, ready: none, depends-on: [db]}\n",
    );
    // A supervisor that executes git leaves a trace. Commands of devport are traced.
    fs::create_dir(env.file("bin")).unwrap();
    write_program(env.file("bin/git"), &format!("#!/bin/sh\ntouch {}\n", env.file("executed")));
    let path = format!("{}:{}", env.file("bin"), std::env::var("PATH").unwrap());
    env.set("PATH", &path);
    // strace would wait for a tmux server that the traced command starts.
    env.start("first", &["sleep", "1000"]);
    for (directory, arguments) in
        [("shop", &["up", "-d"][..]), (FEAT, &["up", "-d"]), (FEAT, &["up", "-d"]), (FEAT, &["down"])]
    {
        let trace = env.file("trace");
        let mut command = env.command("strace");
        command.current_dir(env.file(directory)).args(["-f", "-e", "trace=execve,execveat", "-o", &trace, DEVPORT]);
        env.finish(command.args(arguments)).ok();
        let text = fs::read_to_string(&trace).unwrap();
        let programs: Vec<&str> = text.lines().filter(|line| line.contains("execve(")).collect();
        assert!(!programs.is_empty() && !programs.iter().any(|line| line.contains("git\"")), "{programs:#?}");
        // What it does execute is seen.
        assert!(directory != "shop" || programs.iter().any(|line| line.contains("tmux")), "{programs:#?}");
    }
    assert!(!fs::exists(env.file("executed")).unwrap());
}
