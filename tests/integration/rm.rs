//! `devport rm`.

use std::fs;

use crate::support::{TestEnv, command_line, is_alive, number, port};

#[test]
fn every_file_goes_and_the_port_is_free() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let removed = env.devport(["rm", "a"]).ok();
    assert!(removed.stderr.contains(&format!("port {} is free", view["port"])), "{removed:?}");
    assert_eq!(removed.json()["outcome"], "removed");
    assert!(!is_alive(number(&view["pid"])));
    let files: Vec<_> = ["services", "run", "locks", "logs"]
        .iter()
        .flat_map(|name| fs::read_dir(env.state(name)).unwrap().flatten().map(|entry| entry.file_name()))
        .filter(|name| name != "register.lock")
        .collect();
    assert_eq!(files.len(), 0, "{files:?}");
    env.devport(["rm", "a"]).fails(4, &["no service matching"]);
    assert_eq!(port(&env.start("b", &["sleep", "1000"])), port(&view));
}

#[test]
fn a_service_that_ends_slowly_is_waited_for() {
    let env = TestEnv::new();
    let script = "trap 'sleep 1; exit' TERM; echo ready; while :; do sleep 0.05; done";
    let view = env.start("a", &["sh", "-c", script]);
    crate::support::until("the trap is set", || env.devport(["logs", "a"]).ok().stdout.contains("ready"));
    env.devport(["rm", "a"]).ok();
    assert!(!is_alive(number(&view["pid"])));
    let again = env.start("a", &["sleep", "1000"]);
    assert_eq!(again["port"], view["port"]);
}

#[test]
fn services_come_and_go_without_two_of_one_key() {
    let env = TestEnv::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let started = env.devport(["start", "--detach", "--key", "a", "--", "sleep", "7773001"]);
                    // The other command may have removed it first; no other failure is allowed.
                    assert!(
                        started.code == 0
                            || started.stderr.contains("no service matching")
                            || started.stderr.contains("stopped immediately"),
                        "{started:?}"
                    );
                    // A scan takes time: only those that are alive after it were alive together.
                    let mut running = env.processes();
                    running.retain(|(pid, line)| line == "sleep 7773001 " && command_line(*pid) == *line);
                    assert!(running.len() <= 1, "at once: {running:?}");
                    let removed = env.devport(["rm", "a"]);
                    assert!(removed.code == 0 || removed.code == 4, "{removed:?}");
                }
            });
        }
    });
}
