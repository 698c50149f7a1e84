//! devport signals supervisors and their services and no other process, whatever the state files contain.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{TestEnv, is_alive, is_up, number, skip, until};

/// Registers the service `evil`, whose files name a process of `victims` as its supervisor. The test holds the lock
/// until it drops the file.
fn plant(env: &TestEnv, victims: &TestEnv) -> (i32, File) {
    env.detach("evil", &[], &["sleep", "1000"]);
    env.devport(["stop", "evil"]).ok();
    victims.detach("victim", &[], &["sleep", "1000"]);
    let victim = victims.run_state("victim").unwrap()["child"].clone();
    let run_state = env.state_file("run", "evil", "json");
    let mut run: Value = serde_json::from_slice(&fs::read(&run_state).unwrap()).unwrap();
    run["state"] = json!("running");
    run["supervisor"] = victim.clone();
    fs::write(&run_state, serde_json::to_vec(&run).unwrap()).unwrap();
    let lock = env.state_file("locks", "evil", "lock");
    fs::write(&lock, serde_json::to_vec(&victim).unwrap()).unwrap();
    let held = File::options().read(true).open(&lock).unwrap();
    held.lock().unwrap();
    (number(&victim["pid"]), held)
}

/// The commands that send signals or write files.
const COMMANDS: [&[&str]; 7] = [
    &["stop", "evil"],
    &["stop", "--kill", "evil"],
    &["stop", "--all"],
    &["restart", "--detach", "evil"],
    &["signal", "evil"],
    &["signal", "-s", "USR1", "evil"],
    &["rm", "evil"],
];

#[test]
fn a_process_that_does_not_hold_the_lock_it_is_named_in_is_not_signalled() {
    let (env, victims) = (TestEnv::new(), TestEnv::new());
    let (victim, _held) = plant(&env, &victims);
    for command in COMMANDS {
        let done = env.devport(command);
        assert!(is_alive(victim), "{command:?}: {done:?}");
        assert_ne!(done.code, 0, "{command:?}: {done:?}");
    }
    assert_eq!(victims.which("victim")["restarts"], 0);
}

#[test]
fn the_files_of_another_user_are_refused() {
    let (env, victims) = (TestEnv::new(), TestEnv::new());
    let (victim, _held) = plant(&env, &victims);
    if give_away(&env.path("state")).is_err() {
        skip("files can be given to another user by root alone");
        return;
    }
    for command in COMMANDS.into_iter().chain([&["signal", "-s", "KILL", "evil"][..], &["start", "--detach", "evil"]]) {
        let done = env.devport(command);
        assert!(is_alive(victim), "{command:?}: {done:?}");
        done.fails(1, &["belongs to"]);
    }
    assert_eq!(victims.which("victim")["restarts"], 0);
}

/// Gives a directory and everything in it to another user.
fn give_away(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    chown(path, Some(fs::metadata(path)?.uid() + 1), None)
}

#[test]
fn a_service_whose_lock_names_no_holder_is_not_reported_as_stopped() {
    let env = TestEnv::new();
    env.detach("a", &[], &["sleep", "1000"]);
    let lock = env.state_file("locks", "a", "lock");
    let text = fs::read(&lock).unwrap();
    fs::write(&lock, "").unwrap();
    for command in [&["signal", "a"][..], &["stop", "a"]] {
        let done = env.devport(command);
        assert_eq!(done.code, 1, "{command:?}: {done:?}");
        assert!(!done.stderr.contains("not running"), "{command:?}: {done:?}");
        assert!(done.stderr.contains("names no process"), "{command:?}: {done:?}");
    }
    fs::write(&lock, text).unwrap();
    env.devport(["signal", "a"]).ok();
    until("it runs again", || is_up(&env.which("a")));
}
