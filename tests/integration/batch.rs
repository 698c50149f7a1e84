//! `devport start -f devport.yaml`.

use std::fs;

use crate::support::{TestEnv, port, until};

const FILE: &str = "\
- key: api
  exec: sh -c 'echo $$GREETING $$API_PORT > api.out; exec sleep 1000'
  cwd: sub
  port-env: API_PORT
  env: [one.env, two.env]
- key: worker
  exec: sleep 1000
  no-port: true
- sleep 1001
";

fn prepare(env: &TestEnv) {
    env.write("devport.yaml", FILE);
    env.write("one.env", "GREETING=one\n");
    env.write("two.env", "GREETING=two\n");
    fs::create_dir(env.path("work/sub")).unwrap();
}

#[test]
fn every_entry_is_started_and_summed_up() {
    let env = TestEnv::new();
    prepare(&env);
    // Run from another directory: paths are relative to the file.
    let mut command = env.command(crate::support::DEVPORT);
    let done = env.finish(command.current_dir("/").args(["start", "-f"]).arg(env.path("work/devport.yaml"))).ok();
    let views = done.json();
    assert_eq!(views.as_array().unwrap().len(), 3);
    assert_eq!(done.stderr.lines().count(), 4, "{done:?}");
    assert!(done.stderr.lines().all(|line| !line.contains("error")), "{done:?}");
    let out = env.path("work/sub/api.out");
    until("it has written", || fs::read_to_string(&out).is_ok_and(|text| text.ends_with('\n')));
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("two {}\n", port(&views[0])));
    let table = env.devport(["start", "-f", "devport.yaml", "--format", "table"]).ok();
    assert!(table.stdout.starts_with("NAME") && table.stdout.lines().count() == 4, "{table:?}");
}

#[test]
fn chosen_keys_alone_are_started() {
    let env = TestEnv::new();
    prepare(&env);
    env.devport(["start", "-f", "devport.yaml", "worker"]).ok();
    assert_eq!(env.ls().len(), 1);
    env.devport(["start", "-f", "devport.yaml", "worker", "wrker"]).fails(4, &["wrker", "did you mean api or worker?"]);
}

#[test]
fn one_that_fails_does_not_stop_the_rest() {
    let env = TestEnv::new();
    env.write(
        "devport.yaml",
        "- {key: a, exec: /nonexistent/x}\n- {key: b, exec: sleep 1000, cwd: nowhere}\n- {key: c, exec: sleep 1000}\n",
    );
    let done = env
        .devport(["start", "-f", "devport.yaml"])
        .fails(1, &["a did not start", "nowhere does not exist", "2 of 3 services failed"]);
    assert_eq!(done.json()[0]["key"], "c");
    assert_eq!(env.which("c")["state"], "running");
}

#[test]
fn nothing_is_started_from_a_file_that_is_wrong() {
    let env = TestEnv::new();
    for (text, parts) in [
        (
            "- {key: a, exec: sleep 1000}\n- key: b\n  exce: x\n",
            &["devport.yaml:3:", "unknown field `exce`", "did you mean `exec`?"][..],
        ),
        ("- sleep 1000\n- \"\"\n", &["devport.yaml:2:", "command is empty"]),
        ("- sleep 1000\n- null\n", &["devport.yaml:2:"]),
        ("- sleep 1000\n  - x: [\n", &["devport.yaml:"]),
        ("services: {}\n", &["devport.yaml:1:", "a list of services"]),
    ] {
        env.write("devport.yaml", text);
        env.devport(["start", "-f", "devport.yaml"]).fails(3, parts);
    }
    env.devport(["start", "-f", "missing.yaml"]).fails(3, &["missing.yaml", "no such file"]);
    fs::write(env.path("work/devport.yaml"), "#".repeat(2_000_000)).unwrap();
    env.devport(["start", "-f", "devport.yaml"]).fails(3, &["larger than 1 MiB"]);
    env.write("devport.yaml", &"[".repeat(100_000));
    let began = std::time::Instant::now();
    env.devport(["start", "-f", "devport.yaml"]).fails(3, &["nest"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(env.ls().len(), 0);
}

#[test]
fn the_example_starts_as_it_is() {
    let env = TestEnv::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("devport.yaml.example"), env.path("work/devport.yaml")).unwrap();
    let example = fs::read_to_string(env.path("work/devport.yaml")).unwrap();
    for field in [
        "key",
        "exec",
        "cwd",
        "no-port",
        "port",
        "port-env",
        "tailnet",
        "tailnet-name",
        "env",
        "ready",
        "health",
        "on-unhealthy",
        "restart",
        "backoff",
        "max-restarts",
        "window",
        "stop-signal",
        "grace",
        "log",
    ] {
        assert!(
            example.lines().any(|line| line.trim_start_matches(['-', ' ']).starts_with(&format!("{field}:"))),
            "{field}"
        );
    }
    let views = env.devport(["start", "-f", "devport.yaml"]).ok().json();
    until("all of them run", || env.ls().iter().all(|view| view["state"] == "ready"));
    for view in views.as_array().unwrap() {
        if let Some(port) = view["port"].as_u64() {
            until("it answers", || crate::support::answers(u16::try_from(port).unwrap()));
        }
    }
}
