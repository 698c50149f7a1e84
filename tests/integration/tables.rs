//! The tables of `ls`, `start` and `start -f`, in a pipe and on a terminal.

use std::fs;

use serde_json::Value;

use crate::support::terminal::Terminal;
use crate::support::{DEVPORT, TestEnv, is_up, until};

/// Creates two checkouts in the home directory, each with a service, and the second with a stopped one.
fn two_checkouts() -> TestEnv {
    let env = TestEnv::new();
    for (checkout, key) in [("shop", "web"), ("feat", "old"), ("feat", "new")] {
        let directory = env.path(format!("home/{checkout}"));
        fs::create_dir_all(directory.join(".git")).unwrap();
        let directory = directory.to_str().unwrap();
        env.devport(["-C", directory, "start", "--detach", "--key", key, "--", "sleep", "1000"]).ok();
    }
    env.devport(["-C", env.path("home/feat").to_str().unwrap(), "stop", "old"]).ok();
    env
}

/// Runs `devport ls` in a checkout; returns the lines of its table, each up to the state.
fn list(env: &TestEnv, checkout: &str, options: &[&str]) -> Vec<String> {
    let directory = env.path(format!("home/{checkout}"));
    let arguments = [&["-C", directory.to_str().unwrap(), "ls", "--format", "table"], options].concat();
    let words = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with("  ") {
            words.truncate(1);
        }
        words.join(" ")
    };
    env.devport(arguments).ok().stdout.lines().map(words).collect()
}

#[test]
fn a_list_has_this_checkout_first_and_the_living_before_the_rest() {
    let env = two_checkouts();
    assert_eq!(list(&env, "shop", &[]), ["NAME", "~/shop (this checkout)", "web", "~/feat", "new", "old"]);
    assert_eq!(list(&env, "feat", &[]), ["NAME", "~/feat (this checkout)", "new", "old", "~/shop", "web"]);
    assert_eq!(list(&env, "", &["--active"])[1..], ["~/feat", "new", "~/shop", "web"]);
    let order = |checkout: &str| -> Vec<Value> {
        let directory = env.path(format!("home/{checkout}"));
        let views = env.devport(["-C", directory.to_str().unwrap(), "ls"]).ok().json();
        views.as_array().unwrap().iter().map(|view| view["key"].clone()).collect()
    };
    assert_eq!(order("shop"), ["web", "new", "old"], "JSON has the same order");
    // Checkouts without a living service come last.
    env.devport(["-C", env.path("home/feat").to_str().unwrap(), "stop", "new"]).ok();
    assert_eq!(list(&env, "", &[])[1..], ["~/shop", "web", "~/feat", "new", "old"]);
}

#[test]
fn a_list_of_this_checkout_has_no_other_services_and_no_title() {
    let env = two_checkouts();
    let here = env.devport(["-C", env.path("home/feat").to_str().unwrap(), "ls", "--here"]).ok().json();
    assert_eq!(here.as_array().unwrap().iter().map(|view| view["key"].clone()).collect::<Vec<_>>(), ["new", "old"]);
    let table = env.devport(["-C", env.path("home/feat").to_str().unwrap(), "ls", "--here", "--format", "table"]).ok();
    assert!(table.stdout.starts_with("NAME") && table.stdout.lines().count() == 3, "{table:?}");
    let none = env.devport(["ls", "--here", "--format", "table"]).ok().stdout;
    assert_eq!(none, "no services in this checkout; `devport ls` lists all\n");
    assert_eq!(env.devport(["ls", "--here"]).ok().stdout, "[]\n");
}

#[test]
fn a_service_of_a_file_of_this_checkout_is_listed_wherever_it_runs() {
    let env = two_checkouts();
    let shop = env.path("home/shop");
    fs::write(shop.join("devport.yaml"), "- {key: beside, exec: sleep 1000, cwd: ../feat, no-port: true}\n").unwrap();
    env.devport(["-C", shop.to_str().unwrap(), "start", "--detach", "-f", "devport.yaml"]).ok();
    assert_eq!(list(&env, "shop", &[])[..4], ["NAME", "~/shop (this checkout)", "beside", "web"]);
    // It belongs to the checkout of its directory too.
    assert_eq!(list(&env, "feat", &[])[..4], ["NAME", "~/feat (this checkout)", "beside", "new"]);
}

#[test]
fn columns_stand_under_their_headings_on_a_colour_terminal() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    until("it runs", || is_up(&env.which("a")));
    env.devport(["stop", "a"]).ok();
    for command in ["ls", "ls --wide"] {
        let terminal = Terminal::run(&env, &format!("{DEVPORT} {command}"));
        terminal.shows("ended with 0");
        let colored = terminal.tmux(&["capture-pane", "-p", "-e", "-t", "=t:"]).ok().stdout;
        assert!(colored.contains("\u{1b}[90mstopped"), "{colored:?}");
        let screen = terminal.screen();
        let (heading, row) = (screen.lines().next().unwrap(), screen.lines().nth(1).unwrap());
        for (name, value) in
            [("NAME", "a "), ("ID", "ca9"), ("STATE", "stopped"), ("ADDRESS", "http:"), ("COMMAND", "sleep")]
        {
            let at = heading.find(name).unwrap();
            assert!(row[at..].starts_with(value) && (at == 0 || row[..at].ends_with("  ")), "{name}:\n{screen}");
        }
    }
}

#[test]
fn a_started_service_is_shown_with_its_address_and_a_command_that_can_be_pasted() {
    let env = TestEnv::new();
    let script = "echo $$0; exec sleep 1000";
    let arguments = ["start", "--detach", "--format", "table", "--key", "a", "--", "sh", "-c", script];
    let table = env.devport(arguments).ok().stdout;
    let address = format!("http://localhost:{}", env.first_port);
    assert!(table.contains(&address) && table.ends_with("sh -c 'echo $$0; exec sleep 1000'\n"), "{table}");
    env.write("devport.yaml", "- {key: b, exec: sleep 1000}\n- {key: c, exec: sleep 1000, cwd: nowhere}\n");
    let done = env.devport(["start", "--detach", "-f", "devport.yaml", "--format", "table"]).fails(1, &["nowhere"]);
    let rows: Vec<&str> = done.stdout.lines().collect();
    assert!(rows[1].contains(&format!("http://localhost:{}", env.first_port + 1)), "{done:?}");
    assert!(rows[2].starts_with('c') && rows[2].contains("failed") && rows[2].contains("nowhere"), "{done:?}");
    // Without a terminal nothing is cut.
    let long = "x".repeat(300);
    env.start("d", &["sh", "-c", "exec sleep 1000", &long]);
    assert!(env.devport(["ls", "--format", "table"]).ok().stdout.contains(&long));
}
