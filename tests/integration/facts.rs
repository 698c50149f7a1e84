//! `devport port`, `url`, `open`, `env`, `reserve`; the history in `which`; `ls --wide` and `--watch`.

use std::fs;

use serde_json::Value;

use crate::support::{DEVPORT, SERVER, TestEnv, number, port, until};

#[test]
fn one_fact_stands_alone_on_standard_output() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    assert_eq!(env.devport(["port", "a"]).ok().stdout, format!("{}\n", view["port"]));
    assert_eq!(env.devport(["url", "a"]).ok().stdout, format!("http://localhost:{}\n", view["port"]));
    env.devport(["stop", "a"]).ok();
    let stopped = env.devport(["url", "a"]).ok();
    assert_eq!(stopped.stdout, format!("http://localhost:{}\n", view["port"]));
    assert_eq!(stopped.stderr, "devport: a does not run (state stopped)\n");
    env.devport(["start", "--no-port", "--key", "b", "--", "sleep", "1000"]).ok();
    env.devport(["port", "b"]).fails(1, &["b has no port"]);
    env.devport(["url", "missing"]).fails(4, &["no service matching"]);
}

#[test]
fn open_hands_the_address_to_a_browser() {
    let mut env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let browser = env.write("browser", "#!/bin/sh\necho \"$1\" > seen\n");
    fs::set_permissions(&browser, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    env.set("BROWSER", &browser);
    env.devport(["open", "a"]).ok();
    assert_eq!(fs::read_to_string(env.file("seen")).unwrap(), format!("http://localhost:{}\n", view["port"]));
    env.set("BROWSER", "/bin/false");
    env.devport(["open", "a"])
        .fails(1, &["could not open http://localhost:", " in a browser: /bin/false: exit code 1"]);
    env.set("BROWSER", "nosuchbrowser --new %s:/nonexistent/firefox");
    env.set("PATH", "/nonexistent");
    let tried = "in a browser: could not find nosuchbrowser or /nonexistent/firefox or ";
    env.devport(["open", "a"]).fails(1, &[tried, "hint: open it by hand, or set BROWSER"]);
}

#[test]
fn env_shows_values_only_on_request() {
    let mut env = TestEnv::new();
    env.set("DATABASE_PASSWORD", "hunter2");
    env.start("a", &["sleep", "1000"]);
    let names = env.devport(["env", "a"]).ok().stdout;
    assert!(names.contains("DATABASE_PASSWORD\n") && names.contains("PORT\n") && !names.contains("hunter2"), "{names}");
    let values = env.devport(["env", "--show-secrets", "a"]).ok().stdout;
    assert!(values.contains("DATABASE_PASSWORD=hunter2\n") && values.contains("DEVPORT_KEY=a\n"), "{values}");
    let json = env.devport(["env", "--json", "--show-secrets", "a"]).ok().json();
    assert_eq!(json["DATABASE_PASSWORD"], "hunter2");
    assert!(env.devport(["env", "--json", "a"]).ok().json().as_array().unwrap().contains(&"PORT".into()));
}

#[test]
fn env_prints_one_variable_whose_value_may_have_several_lines() {
    let env = TestEnv::new();
    let value = "line1\nline2\nPW=x";
    env.detach("a", &["--env", &format!("CERT={value}"), "--env", "PW=real"], &["sleep", "1000"]);
    let print = |arguments: &[&str]| env.devport(["env"].iter().chain(arguments)).ok();
    assert_eq!(print(&["--show-secrets", "a", "CERT"]).stdout, format!("{value}\n"));
    assert_eq!(print(&["--show-secrets", "a", "PW"]).stdout, "real\n");
    assert_eq!(print(&["a", "CERT"]).stdout, "CERT\n");
    assert_eq!(print(&["--json", "--show-secrets", "a", "CERT"]).json(), serde_json::json!({"CERT": value}));
    for arguments in [&["a", "CER"][..], &["--show-secrets", "a", "CER"]] {
        let failed = env.devport(["env"].iter().chain(arguments));
        failed.fails(1, &["a has no variable CER", "hint: `devport env a` lists its variables"]);
    }
}

#[test]
fn a_port_can_be_reserved_without_a_command() {
    let env = TestEnv::new();
    let reserved = env.devport(["reserve", "--key", "db"]).ok().stdout;
    assert_eq!(reserved.trim().parse::<u16>().unwrap(), env.first_port);
    assert_eq!(env.devport(["reserve", "--key", "db"]).ok().stdout, reserved, "idempotent");
    assert_ne!(port(&env.start("a", &["sleep", "1000"])), env.first_port);
    let view = env.which("db");
    assert_eq!((&view["state"], &view["cmd"]), (&"stopped".into(), &serde_json::json!([])));
    assert!(env.devport(["ls", "--format", "table"]).ok().stdout.contains("(reserved)"));
    for command in [["start", "db"], ["restart", "db"], ["run", "db"]] {
        env.devport(command).fails(1, &["db is a reserved port without a command", "devport start --key db"]);
    }
    assert_eq!(port(&env.start("db", &["sleep", "1000"])), env.first_port, "a command takes the port over");
    assert_eq!(env.devport(["reserve", "--key", "db"]).ok().stdout, reserved);
    assert_eq!(env.which("db")["cmd"][0], "sleep", "and keeps it");
    let fixed = env.first_port + 20;
    assert_eq!(
        env.devport(["reserve", "--key", "old", "--port", &fixed.to_string()]).ok().stdout,
        format!("{fixed}\n")
    );
    env.devport(["reserve", "--key", "new", "--port", &fixed.to_string()]).fails(1, &["is reserved for old"]);
    env.devport(["reserve", "--key", "old", "--port", &(fixed + 1).to_string()]).fails(1, &["ports never change"]);
    env.devport(["rm", "old"]).ok();
    env.devport(["reserve", "--key", "new", "--port", &fixed.to_string()]).ok();
}

#[test]
fn which_shows_how_the_service_ran() {
    let env = TestEnv::new();
    let backoff = ["start", "--key", "a", "--backoff-initial", "1h", "--backoff-max", "1h"];
    let command = ["--", "sh", "-c", "for i in $$(seq 40); do echo line $$i; done; exit 3"];
    env.devport(backoff.iter().chain(&command)).ok();
    until("it waits", || env.which("a")["next_start_at"].is_string());
    let view = env.which("a");
    let exit = &view["exits"][0];
    assert_eq!((&exit["code"], exit["at"].is_string(), exit["ran_ms"].is_u64()), (&3.into(), true, true));
    let last: Vec<_> = view["last_output"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((last.len(), last[0], last[19]), (20, "line 21", "line 40"));
    let table = env.devport(["which", "a", "--format", "table"]).ok().stdout;
    let after = format!("exit code 3 after {:.1} s", exit["ran_ms"].as_f64().unwrap() / 1000.0);
    for part in ["next start", &after, "line 40"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(env.ls()[0].get("exits").is_none(), "a list is short");
}

#[test]
fn a_wide_list_shows_what_the_whole_tree_uses() {
    let env = TestEnv::new();
    let burn = "import os\nif os.fork() == 0:\n  x = bytearray(60_000_000)\nwhile True: pass";
    env.start("a", &["python3", "-c", burn]);
    until("its child has grown", || {
        let view = env.devport(["ls", "--wide", "--json"]).ok().json()[0].clone();
        view["memory"].as_u64().unwrap_or(0) > 60_000_000 && view["cpu_percent"].as_f64().unwrap_or(0.0) > 20.0
    });
    let table = env.devport(["ls", "--wide", "--format", "table"]).ok().stdout;
    assert!(table.contains("MEMORY") && table.contains(" MB") && table.contains("http://localhost:"), "{table}");
    assert!(env.ls()[0].get("memory").is_none());
}

#[test]
fn a_watched_list_is_redrawn_in_place() {
    let env = TestEnv::new();
    env.start("a", &SERVER);
    env.devport(["ls", "--watch"]).fails(2, &["--watch needs a terminal"]);
    let file = env.file("screen");
    let mut command = env.command("timeout");
    command.args(["100", "script", "-q", "-f", "-c", &format!("{DEVPORT} ls --watch"), &file]);
    let watching = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let screen = || fs::read_to_string(&file).unwrap_or_default();
    until("it is drawn again", || screen().contains("\u{1b}[2A\r"));
    env.devport(["stop", "a"]).ok();
    until("the change is seen", || screen().contains("stopped"));
    assert!(!screen().contains("\u{1b}[2J") && !screen().contains("\u{1b}[?1049h"), "nothing else is cleared");
    let pid = i32::try_from(watching.id()).unwrap();
    crate::support::signal(pid, "TERM");
    crate::support::done(watching);
    assert!(number(&env.ls()[0]["restarts"]) == 0);
}
