//! Values that would lead a service to another checkout's: `up` warns of them.

use std::fs;

use crate::stacks::{FEAT, at, machine};
use crate::support::TestEnv;

const FILE: &str = "services:\n  \
                    db: {exec: sleep 1000, ready: none, shared: true}\n  \
                    api: {exec: sleep 1000, ready: none}\n  \
                    web: {exec: sleep 1000, ready: none, env: [.env, {A: b}]}\n  \
                    admin: {exec: sleep 1000, ready: none, env: .env}\n";

/// Returns the port of a service of the main checkout.
fn port_of(env: &TestEnv, name: &str) -> String {
    at(env, "shop", &["port", name]).ok().stdout.trim().to_owned()
}

#[test]
fn the_address_of_another_checkouts_service_in_a_copied_file_is_named_by_its_line() {
    let env = machine(FILE);
    env.write("shop/.env", "");
    let first = at(&env, "shop", &["up", "-d"]).ok().stderr;
    assert!(!first.contains("address") && !first.contains("siblings"), "{first}");
    let (api, db) = (port_of(&env, "api"), port_of(&env, "db"));
    let copied = format!(
        "SECRET=hunter2\nAPI=http://localhost:{api}\nAPI_PORT={api}\nDB=postgres://127.0.0.1:{db}/x\n# was localhost:{api}\n"
    );
    for directory in ["shop", FEAT] {
        env.write(&format!("{directory}/.env"), &copied);
    }
    let main = at(&env, "shop", &["up", "-d"]).ok().stderr;
    assert!(!main.contains("address"), "they are its own: {main}");
    let feat = at(&env, FEAT, &["up", "-d"]).ok().stderr;
    let path = |name: &str| fs::canonicalize(env.file(name)).unwrap().display().to_string();
    let expected =
        format!("{}:2 has the address of shop/api, which belongs to {}\n", path(&format!("{FEAT}/.env")), path("shop"));
    // A shared service belongs to all checkouts, and two services have the file.
    assert_eq!(feat.matches("has the address").count(), 1, "{feat}");
    assert!(feat.contains(&expected) && !feat.contains("hunter2"), "{feat}");
    // A file that is committed with an address is no better.
    env.write(&format!("{FEAT}/.env"), "");
    env.write(&format!("{FEAT}/devport.yaml"), &FILE.replace("A: b", &format!("A: 'http://localhost:{api}'")));
    let feat = at(&env, FEAT, &["up", "-d"]).ok().stderr;
    assert!(feat.contains("devport.yaml:4 has the address of shop/api, which belongs to "), "{feat}");
}

#[test]
fn variables_of_the_caller_that_siblings_replace_are_named_once() {
    let mut env = machine(FILE);
    env.write("shop/.env", "");
    at(&env, "shop", &["up", "-d"]).ok();
    let api = port_of(&env, "api");
    env.set("API_PORT", "4711");
    env.set("API_URL", &format!("http://localhost:{api}"));
    env.set("DB_URL", "postgres://secret@db");
    let up = at(&env, "shop", &["up", "-d"]).ok().stderr;
    let note = "devport: the services get the stack's values of DB_URL, API_PORT, not those of this environment\n";
    assert!(up.matches(note).count() == 1 && !up.contains("4711") && !up.contains("secret"), "{up}");
}
