//! Commands without a name: they mean the services of the checkout that they are run in.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::checkouts::{Machine, SLEEP, pid};
use crate::support::{Done, until};

/// Returns the keys that a command printed.
fn keys(done: &Done) -> BTreeSet<String> {
    done.json().as_array().unwrap().iter().map(|view| view["key"].as_str().unwrap().to_owned()).collect()
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// A linked worktree within the main checkout.
const FEAT: &str = "shop/.claude/worktrees/feat";

#[test]
fn stop_means_what_runs_in_this_checkout() {
    let machine = Machine::new();
    for (directory, key) in [("shop", "web"), ("shop/apps/api", "api"), (FEAT, "web-feat"), ("blog", "blog")] {
        machine.start(directory, key);
    }
    machine.at("shop", ["stop", "api"]).ok();
    assert_eq!(keys(&machine.at("shop/apps", ["stop"]).ok()), set(&["web"]), "what has stopped before is left out");
    let runs = |key: &str| machine.env.ls().iter().any(|view| view["key"] == key && view["status"] == "running");
    assert!(runs("web-feat") && runs("blog") && !runs("web"));
    let nothing = machine.at("shop", ["stop"]).ok();
    assert_eq!((keys(&nothing), nothing.stderr.as_str()), (set(&[]), "devport: no service of ~/shop runs\n"));
    let table = machine.at("shop", ["restart", "--format", "table"]).ok();
    assert_eq!((table.stdout.as_str(), table.stderr.as_str()), ("", "devport: no service of ~/shop runs\n"));
    assert_eq!(keys(&machine.at(FEAT, ["stop"]).ok()), set(&["web-feat"]));
    assert_eq!(keys(&machine.at("shop", ["stop", "--all"]).ok()), set(&["blog"]));
    assert_eq!(machine.at("shop", ["stop", "--all"]).ok().stderr, "devport: no service runs\n");
    machine.at("shop", ["stop", "--all", "web"]).fails(2, &["--all cannot be used with TARGET"]);
}

#[test]
fn restart_means_what_runs_or_has_failed_in_this_checkout() {
    let machine = Machine::new();
    for (directory, key) in [("shop", "web"), ("shop", "stopped"), (FEAT, "web-feat")] {
        machine.start(directory, key);
    }
    machine.at("shop", ["stop", "stopped"]).ok();
    machine.at("shop", ["reserve", "--key", "port"]).ok();
    let job = ["start", "--no-port", "--max-restarts", "1", "--backoff-initial", "1ms", "--key", "job"];
    machine.at("shop", job.iter().chain(&["--", "sh", "-c", "test -e fixed || exit 7; exec sleep 1000"])).ok();
    let state = |key: &str| machine.env.ls().into_iter().find(|view| view["key"] == key).unwrap();
    until("the job has failed", || state("job")["state"] == "failed");
    std::fs::write(machine.home("shop/fixed"), "").unwrap();
    let before = pid(&state("web-feat"));
    let restarted = machine.at("shop", ["restart"]).ok();
    assert_eq!(keys(&restarted), set(&["job", "web"]));
    let outcomes: BTreeSet<_> = restarted.json().as_array().unwrap().iter().map(outcome).collect();
    assert_eq!(outcomes, set(&["restarted", "started"]));
    assert_eq!(pid(&state("web-feat")), before);
    assert_eq!(keys(&machine.at(FEAT, ["restart"]).ok()), set(&["web-feat"]));
}

fn outcome(view: &Value) -> String {
    view["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn logs_mean_every_log_of_this_checkout() {
    let machine = Machine::new();
    let start = |directory: &str, key: &str| {
        let words = ["start", "--no-port", "--key", key, "--", "sh", "-c", "echo from $DEVPORT_KEY; exec sleep 1000"];
        machine.at(directory, words).ok();
        until("it has written", || machine.at(directory, ["logs", key]).ok().stdout.contains("from"));
    };
    start("shop", "a");
    machine.at("shop", ["reserve", "--key", "port"]).ok();
    let output = |directory: &str, arguments: &[&str]| {
        let text = machine.at(directory, arguments).ok().stdout;
        text.lines().filter(|line| line.contains("from")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(output("shop", &["logs"]), ["from a"], "a single log has no prefix");
    start("shop", "b");
    start("blog", "c");
    machine.at("shop", ["stop", "b"]).ok();
    assert_eq!(output("shop", &["logs"]), ["a | from a", "b | from b"]);
    assert_eq!(output("blog", &["logs"]), ["from c"]);
    assert_eq!(output("blog", &["logs", "--all"]).len(), 3);
    // The services of one stack have the names of its file.
    let file = "services:\n  web: &a {exec: 'sh -c \"echo from stack; exec sleep 1000\"', ready: log:from}\n  db: *a\n";
    std::fs::write(machine.home("blog/devport.yaml"), file).unwrap();
    machine.at("blog", ["rm", "c"]).ok();
    machine.at("blog", ["up", "-d"]).ok();
    // They start at the same time, so either may print first.
    let mut lines = output("blog", &["logs"]);
    lines.sort();
    assert_eq!(lines, ["db  | from stack", "web | from stack"]);
    let all = output("blog", &["logs", "--all"]);
    assert!(all.contains(&"blog/web | from stack".to_owned()), "{all:?}");
}

#[test]
fn wait_means_what_should_run_in_this_checkout() {
    let machine = Machine::new();
    machine.start("shop", "stopped");
    machine.at("shop", ["stop"]).ok();
    // A script must not take "nothing runs" for "ready".
    machine
        .at("shop", ["wait"])
        .fails(5, &["stopped is not ready: it is stopped\nhint: start it with `devport start --wait stopped`\n"]);
    assert_eq!(keys(&machine.at("shop", ["wait", "--for", "stopped"]).ok()), set(&[]));
    machine.start("shop", "web");
    let never = ["start", "--ready", "log:never", "--no-port", "--key", "blog", "--", "sleep", "1000"];
    machine.at("blog", never).ok();
    let ready = machine.at("shop", ["wait"]).ok();
    assert_eq!(keys(&ready), set(&["web"]));
    assert_eq!(ready.json()[0]["state"], "ready");
    machine.at("shop", ["wait", "--all", "--timeout", "100ms"]).fails(5, &["blog is not ready"]);
    machine.at("shop", ["stop"]).ok();
}

#[test]
fn a_checkout_without_services_is_reported_with_the_option_for_the_machine() {
    let machine = Machine::new();
    machine.start("shop", "web");
    for command in ["stop", "restart", "logs", "wait"] {
        let hint = format!("hint: name a service, or use `devport {command} --all`");
        let refused = machine.at("blog", [command]).fails(4, &["devport: ~/blog has no services\n", &hint]);
        assert_eq!(refused.stdout, "");
    }
    machine.at("blog", ["rm"]).fails(2, &["`devport rm` needs a service"]);
    let list = |directory: &str, arguments: &[&str]| keys(&machine.at(directory, arguments).ok());
    assert_eq!(list("blog", &["ls", "--here"]), set(&[]));
    assert_eq!(list("shop", &["ls", "--here"]), set(&["web"]));
    assert_eq!(list("blog", &["ls"]), set(&["web"]));
}

#[test]
fn a_service_belongs_to_the_checkout_of_its_file_too() {
    let machine = Machine::new();
    let file = machine.home("blog/devport.yaml");
    let text = format!("- {{key: web, cwd: {}, ready: none, exec: sleep 1000}}\n", machine.home("shop").display());
    std::fs::write(&file, text).unwrap();
    machine.at("blog", ["start", "-f", "devport.yaml"]).ok();
    assert_eq!(keys(&machine.at("blog", ["stop"]).ok()), set(&["web"]));
    machine.at("shop", ["start", "web"]).ok();
    assert_eq!(keys(&machine.at("shop", ["stop"]).ok()), set(&["web"]));
}

#[test]
fn a_directory_without_version_control_is_a_checkout() {
    let machine = Machine::new();
    machine.directory("loose");
    machine.directory("other");
    let start = ["start", "--key", "db"].iter().chain(&SLEEP);
    machine.at("loose", start).ok();
    machine.at("other", ["stop"]).fails(4, &["~/other has no services"]);
    assert_eq!(keys(&machine.at("loose", ["stop"]).ok()), set(&["db"]));
}

#[test]
fn start_means_what_is_stopped_in_this_checkout() {
    let machine = Machine::new();
    machine.at("shop", ["start"]).fails(4, &["~/shop has no services", "put a command after --"]);
    for (directory, key) in [("shop", "web"), ("shop/apps/api", "api"), ("shop", "runs"), ("blog", "blog")] {
        machine.start(directory, key);
    }
    machine.at("shop", ["reserve", "--key", "port"]).ok();
    // A job is not done again.
    let job = ["run", "--restart", "never", "--no-port", "--key", "job", "--", "sh", "-c", "echo done >> done"];
    machine.at("shop", job).ok();
    machine.at("shop", ["stop", "web", "api"]).ok();
    machine.at("blog", ["stop"]).ok();
    let started = machine.at("shop", ["start"]).ok();
    let outcomes: Vec<String> = started.json().as_array().unwrap().iter().map(outcome).collect();
    assert_eq!((keys(&started), started.stderr.as_str()), (set(&["api", "runs", "web"]), ""));
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "started").count(), 2, "{outcomes:?}");
    // A job that could not be started is not done.
    let job = ["run", "--restart", "never", "--no-port", "--key", "task", "--", "./task"];
    std::fs::write(machine.home("shop/task"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(machine.home("shop/task"), std::fs::Permissions::from_mode(0o755)).unwrap();
    machine.at("shop", job).ok();
    std::fs::rename(machine.home("shop/task"), machine.home("shop/away")).unwrap();
    machine.at("shop", ["start", "task"]).fails(1, &["task did not start"]);
    std::fs::rename(machine.home("shop/away"), machine.home("shop/task")).unwrap();
    assert!(keys(&machine.at("shop", ["start"]).ok()).contains("task"));
    machine.at("shop", ["rm", "task"]).ok();
    // An option without a command is probably a mistake.
    for option in ["--replace", "--no-port", "--grace=5s", "--restart=always"] {
        machine.at("shop", ["start", option]).fails(2, &["there is no command to run"]);
    }
    // `up` knows the order of a stack.
    std::fs::write(machine.home("shop/devport.yaml"), "services: {db: {exec: sleep 1000, ready: none}}\n").unwrap();
    machine.at("shop", ["up", "-d"]).ok();
    machine.at("shop", ["stop"]).ok();
    let started = machine.at("shop", ["start"]).ok();
    assert_eq!(keys(&started), set(&["api", "runs", "web"]));
    assert_eq!(started.stderr, "devport: `devport up -d` starts the services of the stack\n");
    machine.at("shop", ["up", "-d"]).ok();
    assert_eq!(machine.at("shop", ["start"]).ok().stderr, "", "the stack runs");
    machine.at("shop", ["rm", "api", "runs", "web"]).ok();
    machine.at("shop", ["start"]).fails(2, &["are in a stack", "start them with `devport up -d`"]);
}

#[test]
fn start_says_so_if_all_that_is_here_is_done() {
    let machine = Machine::new();
    // A service that is always restarted is never done.
    let loops = ["start", "--no-port", "--key", "loop", "--backoff-initial", "1h", "--", "true"];
    machine.at("shop", loops).ok();
    until("it has ended", || machine.at("shop", ["which", "loop"]).ok().json()["state"] == "backoff");
    machine.at("shop", ["stop", "loop"]).ok();
    assert_eq!(keys(&machine.at("shop", ["start"]).ok()), set(&["loop"]));
    machine.at("shop", ["rm", "loop"]).ok();
    machine.at("shop", ["run", "--restart", "never", "--no-port", "--key", "job", "--", "true"]).ok();
    let started = machine.at("shop", ["start"]).ok();
    assert_eq!(started.json(), serde_json::json!([]));
    assert_eq!(started.stderr, "devport: the commands here have completed; `devport start NAME` runs one again\n");
}

#[test]
fn start_names_the_files_of_the_stacks_that_it_does_not_start() {
    let machine = Machine::new();
    let file = |directory: &str, services: &str| {
        let path = machine.directory(directory).join("devport.yaml");
        std::fs::write(&path, format!("services: {services}\n")).unwrap();
        std::fs::canonicalize(path).unwrap().display().to_string()
    };
    let one_shot = "{web: {exec: sleep 1000, ready: none}, debug: {}, build: {exec: 'true', one-shot: true}}";
    let (web, api) = (file("shop/apps/web", one_shot), file("shop/apps/api", "{api: {exec: sleep 1000, ready: none}}"));
    for directory in ["shop/apps/web", "shop/apps/api"] {
        machine.at(directory, ["up", "-d"]).ok();
    }
    let hint = format!("hint: start them with `devport up -d -f {api}` and `devport up -d -f {web}`\n");
    machine.at("shop", ["start"]).fails(2, &[&hint]);
    machine.start("shop", "alone");
    assert_eq!(machine.at("shop", ["start"]).ok().stderr, "", "all that has a command runs or is completed");
    machine.at("shop", ["stop", "web"]).ok();
    let note = format!("devport: `devport up -d -f {web}` starts the services of the stack\n");
    assert_eq!(machine.at("shop", ["start"]).ok().stderr, note);
    machine.at("shop", ["up", "-d", "-f", &web]).ok();
    assert_eq!(machine.at("shop", ["start"]).ok().stderr, "");
    // `up` starts no service that its file no longer has, or of which it has only the port.
    machine.at("shop", ["stop", "web"]).ok();
    for services in ["{build: {exec: 'true', one-shot: true}}", "{web: {}}"] {
        file("shop/apps/web", services);
        assert_eq!(machine.at("shop", ["start"]).ok().stderr, "", "{services}");
    }
}
