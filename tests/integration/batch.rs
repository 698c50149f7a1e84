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
    env.devport(["start", "-f", "devport.yaml", "worker", "wrker"]).fails(4, &["wrker", "did you mean worker?"]);
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
        (
            "- {exec: sleep 1000, port: 2000}\n- {exec: sleep 1001, port: 2000}\n",
            &["devport.yaml:2: port 2000 is already"],
        ),
        (
            "- {exec: sleep 1000, prot: 2000}\n- exec: \"a 'b\"\n- sleep 1\n- environment: {A: hunter2}\n",
            &[
                "devport: devport.yaml:1: unknown field `prot`, did you mean `port`?\ndevport: devport.yaml:2: ",
                "\ndevport: devport.yaml:4: this service has no `exec`\n",
            ],
        ),
        (
            "services:\n  web: {exec: sleep 1000, depends-on: [ap]}\n  api: sleep 1000\n",
            &["devport.yaml:2: ", "mean `api`?"],
        ),
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
fn a_stack_is_left_to_up() {
    let env = TestEnv::new();
    env.write("devport.yaml", "services:\n  api: sleep 1000\n  web: {exec: sleep 1000, depends-on: [api]}\n");
    let done = env.devport(["start", "-f", "devport.yaml"]).fails(2, &["hint: use `devport up -d"]);
    assert_eq!((done.stdout.as_str(), env.ls().len()), ("", 0));
}

#[test]
fn variables_of_the_file_see_the_port_and_defaults() {
    let env = TestEnv::new();
    env.write("one.env", "NAME=one\nFROM_FILE=${NAME}-${UNSET:-x}\n");
    let text = "\
- key: api
  exec: [sh, -c, 'echo $$ADDRESS $$OTHER $$FROM_FILE $$LEVEL ${NONE:-d-$PORT} >api.tmp; mv api.tmp api.out; exec sleep 1000']
  env: [one.env, {ADDRESS: \"http://localhost:$PORT/${NAME}\", OTHER: two, LEVEL: \"${UNSET:-1.50}\"}]
";
    env.write("devport.yaml", text);
    let port = port(&env.devport(["start", "-f", "devport.yaml"]).ok().json()[0]);
    let out = env.path("work/api.out");
    until("it has written", || out.exists());
    let expected = format!("http://localhost:{port}/one two one-x 1.50 d-{port}\n");
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);
    // The record stands alone: a restart from anywhere expands the same.
    fs::remove_file(&out).unwrap();
    env.devport(["restart", "api"]).ok();
    until("it has written again", || out.exists());
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);
    env.write("devport.yaml", &text.replace("1.50", "2"));
    let done = env.devport(["start", "-f", "devport.yaml"]).ok();
    assert!(done.stderr.contains("other variables of --env, `env`") && !done.stderr.contains("1.50"), "{done:?}");
}

#[test]
fn an_address_has_the_scheme_of_the_file() {
    let env = TestEnv::new();
    let text = "- {key: db, exec: [sh, -c, 'echo $DEVPORT_URL >db.tmp; mv db.tmp db.out; exec sleep 1000'], scheme: postgres}\n";
    env.write("devport.yaml", text);
    let view = env.devport(["start", "-f", "devport.yaml"]).ok().json()[0].clone();
    let address = format!("postgres://localhost:{}\n", port(&view));
    assert_eq!(view["scheme"], "postgres");
    assert_eq!(env.devport(["url", "db"]).ok().stdout, address);
    assert!(env.devport(["which", "db", "--format", "table"]).ok().stdout.contains(address.trim()));
    let out = env.path("work/db.out");
    until("it has written", || out.exists());
    assert_eq!(fs::read_to_string(&out).unwrap(), address);
    env.write("devport.yaml", &text.replace("postgres", "https"));
    env.devport(["start", "-f", "devport.yaml", "--replace"]).ok();
    assert!(env.devport(["url", "db"]).ok().stdout.starts_with("https://"));
}

#[test]
fn the_example_starts_as_it_is() {
    let env = TestEnv::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("devport.yaml.example")).unwrap();
    // Another program of this machine may have the port.
    let fixed = (env.first_port + 39).to_string();
    assert!(example.contains("port: 18999 "));
    env.write("devport.yaml", &example.replace("18999", &fixed));
    for field in [
        "key",
        "exec",
        "cwd",
        "no-port",
        "port",
        "port-env",
        "scheme",
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
