//! The advice for a service that listens on a wrong port, or needs a port that is taken: it can be pasted into a shell.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkouts::git_directory;
use crate::support::{DEVPORT, Done, TestEnv, port, until, write_program};

/// Pastes a line into a shell, in a directory.
fn paste(env: &TestEnv, directory: &Path, line: &str) -> Done {
    let line = format!("devport() {{ {DEVPORT} \"$@\"; }}; {line}");
    env.finish(env.command("sh").current_dir(directory).args(["-c", &line]))
}

/// Makes the working directory a repository. Returns the directory of another one.
fn other_checkout(env: &TestEnv) -> PathBuf {
    let other = env.path("blog");
    for directory in [&env.path("work"), &other] {
        git_directory(&directory.join(".git"));
    }
    other
}

/// Returns the line in the last backticks of a text.
fn advised(text: &str) -> &str {
    text.trim_end_matches('`').rsplit('`').next().unwrap()
}

#[test]
fn a_service_that_ignores_its_port_is_reported() {
    let env = TestEnv::new();
    let other = env.first_port + 30;
    env.start("a", &["python3", "-m", "http.server", "--bind", "127.0.0.1", &other.to_string()]);
    until("it is reported", || env.which("a")["error"].is_string());
    let view = env.which("a");
    let error = view["error"].as_str().unwrap();
    let advice = format!(
        "http.server does not read PORT: start it with `devport start --replace --wait --key a --cwd {} -- \
         python3 -m http.server --bind 127.0.0.1 '$PORT'`",
        env.path("work").display()
    );
    assert_eq!(error, format!("it listens on {other}, not on its port {}; {advice}", view["port"]));
    assert_eq!(view["state"], "running");
    assert!(env.devport(["logs", "a"]).ok().stdout.contains(&advice));
}

/// Like Vite: it reads only its option.
const VITE: &str = "#!/usr/bin/env python3
import http.server, sys
port = sys.argv[sys.argv.index('--port') + 1] if '--port' in sys.argv else OTHER
http.server.test(http.server.SimpleHTTPRequestHandler, bind='127.0.0.1', port=int(port))
";

/// Like npm: the script of `package.json` gets the arguments after `--`.
const NPM: &str = "#!/bin/sh\nshift 2\ntest \"$1\" = -- && shift\nexec vite \"$@\"\n";

#[test]
fn the_remedy_for_a_wrong_port_can_be_pasted_and_works() {
    let mut env = TestEnv::new();
    let bin = env.path("bin");
    fs::create_dir(&bin).unwrap();
    let vite = VITE.replace("OTHER", &(env.first_port + 31).to_string());
    for (name, text) in [("vite", vite.as_str()), ("npm", NPM)] {
        write_program(bin.join(name), text);
    }
    env.prefer_programs_of(&bin);
    env.write("package.json", "{\"scripts\": {\"dev\": \"vite\"}}");
    let start = ["start", "--replace", "--wait", "--key", "web", "--"];
    let failed = env.devport([&start[..], &["npm", "run", "dev"]].concat());
    let options = format!("--replace --wait --key web --cwd {}", env.path("work").display());
    let line = format!("devport start {options} -- npm run dev -- --port '$PORT' --strictPort");
    failed.fails(5, &["it listens on", &format!("Vite does not read PORT: start it with `{line}`")]);
    assert!(env.which("web")["error"].as_str().unwrap().ends_with(&format!("`{line}`")));
    paste(&env, Path::new("/"), &line).ok();
    assert_eq!(env.which("web")["state"], "ready");
}

/// A program that ignores PORT.
const FIXED: &str =
    "import http.server as h; h.HTTPServer(('127.0.0.1', OTHER), h.BaseHTTPRequestHandler).serve_forever()";

#[test]
fn a_program_with_a_fixed_port_is_to_read_the_variable_or_gets_its_port() {
    let env = TestEnv::new();
    let other = env.first_port + 32;
    env.write("hard.py", &FIXED.replace("OTHER", &other.to_string()));
    let elsewhere = other_checkout(&env);
    let start = ["start", "--wait", "--replace", "--key", "hard", "--restart", "on-failure", "--", "python3"];
    for arguments in [&["hard.py"][..], &["hard.py", "--port", "$PORT"]] {
        let failed = env.devport(start.iter().chain(arguments)).fails(5, &[]);
        let id = env.which("hard")["hashid"].as_str().unwrap().to_owned();
        let why = format!(
            "it ignores PORT: make its code read `os.environ[\"PORT\"]`, then run `devport restart --wait {id}`, or give it \
             that fixed port, which deletes its log: `devport rm {id} && devport start "
        );
        assert!(failed.stderr.contains(&why), "{failed:?}");
        assert!(!failed.stderr.contains("'$PORT'"), "{failed:?}");
    }
    let table = env.devport(["ls", "--format", "table"]).ok().stdout;
    assert!(table.contains(&format!("  [listens on {other}]  python3 hard.py")), "{table}");
    env.devport(["start", "--key", "b", "--port", &other.to_string(), "--", "true"])
        .fails(1, &["is taken by", "hint: end it with `devport stop hard`, "]);
    let error = env.which("hard")["error"].as_str().unwrap().to_owned();
    let restart = error.split('`').find(|text| text.starts_with("devport restart")).unwrap();
    paste(&env, &elsewhere, restart).fails(5, &["it ignores PORT"]);
    paste(&env, &elsewhere, advised(&error)).ok();
    let view = env.which("hard");
    assert_eq!((&view["state"], &view["policy"]["restart"]), (&"ready".into(), &"on-failure".into()));
    assert_eq!(port(&view), other);
}

#[test]
fn a_service_without_a_key_keeps_its_fixed_port() {
    let mut env = TestEnv::new();
    let (own, other) = (env.first_port + 37, env.first_port + 38);
    env.set("DEVPORT_PORT_RANGE", &format!("{}-{}", env.first_port, env.first_port + 9));
    let elsewhere = other_checkout(&env);
    let (own_text, other) = (own.to_string(), other.to_string());
    let command = ["--", "python3", "-m", "http.server", "--bind", "127.0.0.1", &other];
    env.devport(["start", "--wait", "--port", &own_text].iter().chain(&command)).fails(5, &["it listens on"]);
    let before = env.which(&own_text);
    let (id, error) = (before["hashid"].as_str().unwrap(), before["error"].as_str().unwrap());
    let line = format!("devport rm {id} && devport start --wait --port {own} --cwd ");
    assert!(error.contains(&format!("replace it, which deletes its log: `{line}")), "{error}");
    paste(&env, &elsewhere, advised(error)).ok();
    assert_eq!(env.ls().len(), 1);
    let after = env.which(&own_text);
    assert_eq!((&after["state"], &after["cwd"]), (&"ready".into(), &before["cwd"]));
    assert_ne!(after["hash"], before["hash"]);
}

#[test]
fn a_service_of_a_stack_is_told_which_entry_to_change() {
    let env = TestEnv::new();
    fs::create_dir(env.file(".git")).unwrap();
    let other = env.first_port + 33;
    let text = |port: &str| {
        format!("name: shop\nservices:\n  web:\n    exec: python3 -m http.server --bind 127.0.0.1 {port}\n")
    };
    let file = env.write("devport.yaml", &text(&other.to_string()));
    let file = fs::canonicalize(file).unwrap();
    let line = "python3 -m http.server --bind 127.0.0.1 $PORT";
    let file = file.display();
    let up = format!("devport up -d -f {file} web");
    let edit = format!("in {file}, change the command of web to `{line}`, then run `{up}`");
    env.devport(["up", "-d"]).fails(5, &[&edit]);
    env.write("devport.yaml", &text("$PORT"));
    paste(&env, Path::new("/"), &up).ok();
    assert_eq!(env.which("web")["state"], "ready");
}

#[test]
fn an_unquoted_variable_is_named() {
    let env = TestEnv::new();
    // What the shell makes of `./uvicorn main:app --port $PORT`.
    let start = ["start", "--wait", "--key", "a", "--restart", "never", "--"];
    let code = FIXED.replace("OTHER", &(env.first_port + 34).to_string());
    write_program(env.file("uvicorn"), &format!("#!/usr/bin/env python3\n{code}\n"));
    let failed = env.devport(start.iter().chain(&["./uvicorn", "main:app", "--port"]));
    let options = format!("--replace --wait --key a --cwd {} --restart never", env.path("work").display());
    let line = format!("devport start {options} -- ./uvicorn main:app --port '$PORT'");
    let why = format!("quote '$PORT', or your shell replaces it by nothing: start it with `{line}`");
    failed.fails(5, &["uvicorn does not read PORT: ", &why]);
}

#[test]
fn a_service_that_fails_because_another_port_is_taken_says_by_whom() {
    let env = TestEnv::new();
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = other.local_addr().unwrap().port();
    let script = format!("echo 'Error: listen EADDRINUSE: address already in use :::{number}' >&2; exit 1");
    // The wait after the second crash is longer than the time until `start` has printed it.
    let start = ["start", "--wait", "--backoff-initial", "4s", "--key", "a", "--", "sh", "-c", &script];
    let failed = env.devport(start);
    let taken = format!("; port {number} is taken by pid {} (", std::process::id());
    failed.fails(5, &["exit code 1 after", &taken, "it ignores PORT: make it read PORT", "devport tries again in "]);
    until("it waits", || env.which("a")["error"].as_str().is_some_and(|error| error.contains(&taken)));
    let short = format!("[exit code 1: port {number} is taken; restarts in ");
    until("the table says so", || env.devport(["ls", "--format", "table"]).ok().stdout.contains(&short));
    drop(other);
    env.devport(["restart", "a"]).ok();
    until("it failed again", || env.which("a")["error"].as_str().is_some_and(|error| !error.contains("is taken")));
}

#[test]
fn a_service_that_is_given_up_because_another_port_is_taken_says_by_whom() {
    let env = TestEnv::new();
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = other.local_addr().unwrap().port();
    let script = format!("echo 'Error: listen EADDRINUSE: address already in use :::{number}' >&2; exit 3");
    let taken = format!("; port {number} is taken by pid {} (", std::process::id());
    for (options, why) in [
        (&["--restart", "never"][..], "exit code 3, and `restart` is never"),
        (&["--max-restarts", "1", "--backoff-initial", "10ms"], "it ended again after 1 restart within 1m"),
    ] {
        let words = [options, &["--key", "a", "--", "sh", "-c", &script]].concat();
        let why = [&format!("{why}{taken}"), "it ignores PORT: make it read PORT"];
        let failed = env.devport([&["start", "--replace", "--wait"], &words[..]].concat()).fails(5, &why);
        assert!(failed.stderr.contains("hint: after the fix, run `devport start --wait a`"), "{failed:?}");
        let error = env.which("a")["error"].as_str().unwrap().to_owned();
        assert!(why.iter().all(|part| error.contains(part)), "{error}");
        let table = env.devport(["ls", "--format", "table"]).ok().stdout;
        assert!(table.contains(&format!("[port {number} is taken]")), "{table}");
        let ended = env.devport([&["run", "--replace"], &words[..]].concat()).fails(3, &why);
        assert!(ended.stderr.contains("a ended: exit code 3"), "{ended:?}");
    }
}

/// A value for each option of `start` that describes a service, other than the default; "" for a flag.
const OPTIONS: [(&str, &str); 19] = [
    ("--key", "web"),
    ("--cwd", "a dir"),
    ("--env", "TOKEN=it's $HOME"),
    ("--env-file", "my.env"),
    ("--port", "OWN"),
    ("--port-env", "WEB_PORT"),
    ("--tailnet", ""),
    ("--tailnet-name", "my-web"),
    ("--ready", "tcp"),
    ("--ready-timeout", "20s"),
    ("--health", "exec:true"),
    ("--on-unhealthy", "restart"),
    ("--restart", "on-failure"),
    ("--backoff-initial", "2s"),
    ("--backoff-max", "9s"),
    ("--max-restarts", "7"),
    ("--window", "90s"),
    ("--stop-signal", "SIGINT"),
    ("--grace", "4s"),
];
/// The options that do not describe the service that is started now. A service without a port cannot have a wrong one.
const OTHERS: [&str; 6] = ["--file", "--replace", "--wait", "--no-tmux", "--help", "--no-port"];

#[test]
fn the_pasted_line_starts_the_service_with_every_option_that_it_had() {
    let env = TestEnv::new();
    let (own, other) = (env.first_port + 35, env.first_port + 36);
    let help = env.devport(["start", "--help"]).ok().stdout;
    let long = |line: &str| line.split([' ', '[']).find(|word| word.starts_with("--")).map(str::to_owned);
    let is_option = |line: &&str| line.trim_start().starts_with('-');
    let before_examples = help.split("Examples:").next().unwrap();
    let names: Vec<String> = before_examples.lines().filter(is_option).filter_map(long).collect();
    let known: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).chain(OTHERS).collect();
    assert!(names.len() == known.len() && names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");

    fs::create_dir(env.file("a dir")).unwrap();
    env.write("my.env", "FROM_FILE=1\n");
    let code = FIXED.replace("OTHER", &other.to_string());
    let (own_text, mut start) = (own.to_string(), vec!["start"]);
    for (name, value) in OPTIONS {
        let value = if value == "OWN" { &own_text } else { value };
        start.extend([name, value].into_iter().filter(|word| !word.is_empty()));
    }
    // A value may have several lines, one of which looks like another variable. Credentials are not recorded.
    let certificate = "line1\nline2\nTOKEN=x";
    let assignments = [format!("CERT={certificate}"), "TS_AUTHKEY=x".into(), "OTHER=tskey-x".into()];
    start.extend(assignments.iter().flat_map(|assignment| ["--env", assignment]));
    let elsewhere = other_checkout(&env);
    env.devport([&start[..], &["--", "python3", "-c", &code]].concat()).ok();
    until("it is reported", || env.which("web")["error"].is_string());
    let before = env.which("web");
    let error = before["error"].as_str().unwrap().to_owned();
    assert!(error.contains("--env \"TOKEN=$env1\"") && !error.contains("HOME"), "the value may be a secret: {error}");

    let id = before["hashid"].as_str().unwrap();
    let unread = advised(&error).replace(" TOKEN) &&", " NONE) &&");
    paste(&env, &elsewhere, &unread).fails(1, &["web has no variable NONE"]);
    assert_eq!(env.which("web")["pid"], before["pid"], "nothing runs after a failure");
    paste(&env, &elsewhere, advised(&error)).ok();
    let after = env.which("web");
    assert_eq!((&after["state"], port(&after)), (&"ready".into(), other));
    for field in ["cwd", "cmd", "policy", "env_files", "port_env", "key"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let record: Value = serde_json::from_slice(&fs::read(env.state_file("services", "web", "json")).unwrap()).unwrap();
    assert_eq!(record["tailnet_pending"], "my-web");
    let variables = env.devport(["env", "--show-secrets", "web"]).ok().stdout;
    assert!(variables.contains("TOKEN=it's $HOME\n") && variables.contains("FROM_FILE=1\n"), "{variables}");
    assert_eq!(env.devport(["env", "--show-secrets", "web", "CERT"]).ok().stdout, format!("{certificate}\n"));
    let again = ["--replace", "--env", "TOKEN=x", "--port", &own_text, "--", "true"];
    let again = env.devport([&start[..5], &again].concat());
    again.fails(1, &[&format!("hint: `devport rm {id}` removes it with its log; then repeat this command")]);
}
