//! Ports of stacks: each follows from the key of its service, so that a team mostly has the same ones.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::stacks::{FEAT, at, machine};
use crate::support::{TestEnv, port};

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
