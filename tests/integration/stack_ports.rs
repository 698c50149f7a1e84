//! Ports of stacks: each follows from the key of its service, so that a team mostly has the same ones.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::stacks::{FEAT, SERVE, at, machine, outcomes};
use crate::support::{DEVPORT, TestEnv, port};

/// The number of ports of a test's range.
const RANGE: u64 = 40;

/// Starts the stack in a directory and returns the ports by the services' names.
fn ports(env: &TestEnv, directory: &str) -> BTreeMap<String, u16> {
    let up = at(env, directory, &["up", "-d"]).ok().json();
    let name = |view: &Value| view["key"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    up.as_array().unwrap().iter().map(|view| (name(view), port(view))).collect()
}

/// The port that a service's hash selects.
fn selected(env: &TestEnv, key: &str) -> u16 {
    let hash = env.which(key)["hash"].as_str().unwrap().to_owned();
    env.first_port + u16::try_from(u64::from_str_radix(&hash, 16).unwrap() % RANGE).unwrap()
}

#[test]
fn the_port_follows_from_the_key_and_the_lowest_free_one_takes_its_place() {
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let services: Vec<String> = names.iter().map(|name| format!("{name}: {{}}")).collect();
    let env = machine(&format!("services:\n  {}\n", services.join("\n  ")));
    let plain = env.devport(["reserve", "--key", "plain", "--json"]).ok().json();
    assert_eq!(port(&plain), env.first_port, "without a stack, the lowest port is the first");
    let assigned = ports(&env, "shop");
    let mut taken = vec![env.first_port];
    let mut collisions = 0;
    for name in &names {
        let own = selected(&env, &format!("shop/{name}"));
        let is_free = |port: &u16| !taken.contains(port);
        let expected =
            Some(own).filter(is_free).or_else(|| (env.first_port..env.first_port + 40).find(is_free)).unwrap();
        collisions += usize::from(expected != own);
        assert_eq!(assigned[name], expected, "{name}");
        taken.push(expected);
    }
    assert!((1..20).contains(&collisions), "{collisions}");
    assert_eq!(ports(&env, "shop"), assigned, "they are stable");
}

#[test]
fn a_port_in_the_file_wins_over_one_that_a_hash_selects() {
    let env = machine("services:\n  web: {}\n");
    let own = ports(&env, "shop")["web"];
    assert_eq!(own, selected(&env, "shop/web"));
    at(&env, "shop", &["down", "--rm"]).ok();
    let file = format!("services:\n  web: {{}}\n  db: {{port: {own}}}\n");
    for directory in ["shop", FEAT] {
        env.write(&format!("{directory}/devport.yaml"), &file);
    }
    let main = ports(&env, "shop");
    assert_eq!(main["db"], own);
    assert_ne!(main["web"], own);
    // In a linked checkout, the port of the file is not tried.
    let feat = ports(&env, FEAT);
    assert_eq!(feat["db"], selected(&env, "shop@feat/db"), "{feat:?}");
}

#[test]
fn the_remedy_for_a_port_that_stays_works_in_the_directory_of_the_user() {
    let env = machine(&format!("services:\n  web: {{exec: {SERVE}}}\n"));
    ports(&env, "shop");
    let mut wanted = env.first_port + 36;
    let shop = std::fs::canonicalize(env.file("shop")).unwrap();
    let file = shop.join("devport.yaml").display().to_string();
    let up = format!("devport up -d -f {file}");
    let cases: [(&str, &[&str], &str); 3] = [
        ("shop", &["up", "-d"], "devport up -d"),
        ("empty", &["up", "-d", "-f", &file], &up),
        ("empty", &["-C", "../shop", "up", "-d"], &up),
    ];
    for (directory, arguments, up) in cases {
        wanted += 1;
        let services = format!("web: {{exec: {SERVE}, port: {wanted}}}\n  api: {{exec: sleep 1000, no-port: true}}");
        env.write("shop/devport.yaml", &format!("services:\n  {services}\n"));
        let old = port(&env.which("shop/web"));
        let stays = at(&env, directory, arguments).ok();
        let note = format!("web keeps port {old}, although the file has port {wanted}: ports never change\n");
        let remedy = format!("devport rm shop/web && {up}");
        let hint = format!("hint: `{remedy}` moves it; `rm` also deletes its log\n");
        assert!(stays.stderr.contains(&(note + &hint)), "{}", stays.stderr);
        assert_eq!(port(&stays.json()[0]), old);
        let devport = format!("\"{DEVPORT}\"");
        let remedy =
            remedy.replace("devport rm", &format!("{devport} rm")).replace("devport up", &format!("{devport} up"));
        env.finish(env.command("sh").current_dir(env.file(directory)).args(["-c", &remedy])).ok();
        assert_eq!(port(&env.which("shop/web")), wanted);
        let known = env.devport(["env", "shop/api", "WEB_PORT", "--show-secrets"]).ok().stdout;
        assert_eq!(known.trim(), wanted.to_string(), "the other services know the port");
        assert!(!at(&env, directory, arguments).ok().stderr.contains("keeps port"));
    }
}

#[test]
fn a_port_that_another_service_has_is_no_reason_to_remove_a_service() {
    let env = machine(&format!("services:\n  web: {{exec: {SERVE}}}\n"));
    let own = ports(&env, "shop")["web"];
    let other = port(&env.devport(["reserve", "--key", "other", "--json"]).ok().json());
    env.write("shop/devport.yaml", &format!("services:\n  web: {{exec: {SERVE}, port: {other}}}\n"));
    let note =
        format!("although the file has port {other}: ports never change, and port {other} is reserved for other\n");
    let note = format!("devport: web keeps port {own}, {note}");
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert!(up.stderr.contains(&note) && !up.stderr.contains("devport rm"), "{}", up.stderr);
}

/// Checks that a new port in a file changes nothing. `file`: makes the file from a command and a line with the port.
#[track_caller]
fn assert_port_stays(key: &str, file: fn(&str, &str) -> String) {
    let env = machine(&file("sleep 1000", ""));
    let up = at(&env, "shop", &["up", "-d"]).ok().json();
    let (own, pid) = (port(&up[0]), up[0]["pid"].clone());
    let wanted = if own == env.first_port + 39 { env.first_port + 38 } else { env.first_port + 39 };
    env.write("shop/devport.yaml", &file("sleep 1000", &format!("  port: {wanted}\n")));
    let note = format!("web keeps port {own}, although the file has port {wanted}: ports never change\n");
    let dry = at(&env, "shop", &["--format", "table", "up", "--dry-run"]).ok();
    assert_eq!(dry.stdout, format!("~ web changed (port); keeps port {own}\n"), "{key}");
    assert!(dry.stderr.contains(&note), "{}", dry.stderr);
    let sets = at(&env, "shop", &["up", "--dry-run"]).ok().json();
    assert_eq!((&sets["changed"], &sets["starts"]), (&json!([{"name": "web", "fields": ["port"]}]), &json!([])));
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&up), [(key.to_owned(), "already-running".to_owned())]);
    assert!(up.stderr.contains(&note) && !up.stderr.contains("restarted"), "{}", up.stderr);
    assert_eq!(env.which(key)["pid"], pid);

    // What else has changed is applied.
    env.write("shop/devport.yaml", &file("sleep 2000", &format!("  port: {wanted}\n")));
    let dry = at(&env, "shop", &["--format", "table", "up", "--dry-run"]).fails(1, &[]);
    assert_eq!(dry.stdout, format!("~ web changed (exec, port); restarts; keeps port {own}\n"), "{key}");
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert!(up.stderr.contains("web is restarted: its exec changed\n"), "{}", up.stderr);
    assert_eq!((outcomes(&up)[0].1.as_str(), port(&up.json()[0])), ("replaced", own));

    // A service that does not run starts on its own port too.
    at(&env, "shop", &["down"]).ok();
    assert_eq!(port(&at(&env, "shop", &["up", "-d"]).ok().json()[0]), own);
}

#[test]
fn a_new_port_in_a_list_restarts_nothing_and_a_dry_run_says_so() {
    assert_port_stays("web", |exec, port| format!("- key: web\n  exec: {exec}\n  ready: none\n{port}"));
}

#[test]
fn a_new_port_in_a_stack_restarts_nothing_and_a_dry_run_says_so() {
    assert_port_stays("shop/web", |exec, port| {
        let port = port.replace("  port", "    port");
        format!("services:\n  web:\n    exec: {exec}\n    ready: none\n{port}")
    });
}

#[test]
fn a_dry_run_names_a_reserved_port_that_stays() {
    let env = machine("services:\n  debug: {}\n");
    let own = ports(&env, "shop")["debug"];
    env.write("shop/devport.yaml", &format!("services:\n  debug: {{port: {}}}\n", env.first_port + 39));
    let dry = at(&env, "shop", &["--format", "table", "up", "--dry-run"]).ok();
    assert_eq!(dry.stdout, format!("~ debug changed (port); keeps port {own}\n"));
}
