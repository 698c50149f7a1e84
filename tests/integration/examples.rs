//! Every example of the help pages and the documents works as it stands.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::documents::{blocks, documents, root};
use crate::support::{DEVPORT, TestEnv};

/// The commands with a help page.
const COMMANDS: [&str; 21] = [
    "start", "run", "up", "down", "ls", "which", "stop", "restart", "signal", "rm", "attach", "logs", "wait", "tailup",
    "taildown", "port", "url", "open", "env", "reserve", "",
];

/// What `npm run dev`, `./server` and other programs of the examples do: serve, if the example needs that.
const SERVE: &str = "#!/bin/sh
test -e serves || exec sleep 1000
exec python3 -m http.server --bind 127.0.0.1 \"${PORT:-$VITE_PORT}\"
";

/// Returns the commands among the lines of a help page or of the code in a document, without their explanations.
fn examples(text: &str) -> Vec<String> {
    let is_command = |word: &str| word.starts_with('-') || COMMANDS.contains(&word);
    let is_example = |line: &&str| {
        line.starts_with("curl ")
            || line.strip_prefix("devport ").is_some_and(|line| line.split(' ').next().is_some_and(is_command))
    };
    // A placeholder stands for something else.
    let is_usage = |line: &&str| ["TARGET", "KEY…", "[OPTIONS]", "<"].iter().any(|part| line.contains(part));
    text.lines()
        .map(|line| line.trim().trim_start_matches("$ "))
        .filter(is_example)
        .map(|line| line.split("  ").next().unwrap().split(" # ").next().unwrap())
        .filter(|line| !is_usage(line))
        .map(str::to_owned)
        .collect()
}

/// Makes the services and files that an example takes for granted.
fn machine(example: &str) -> TestEnv {
    let serves = ["wait", "curl", "--ready", "--health"].iter().any(|part| example.contains(part));
    let mut env = TestEnv::new();
    let bin = env.path("bin");
    fs::create_dir_all(&bin).unwrap();
    env.write(
        "devport.yaml",
        "- {key: api, exec: npm run dev, ready: none}\n- {key: web, exec: npm run dev, ready: none}\n",
    );
    env.write(".env", "A=1\n");
    env.write("healthz", "ok\n");
    if serves {
        env.write("serves", "");
    }
    let wait: &[&str] = if serves { &["--wait"] } else { &[] };
    fs::create_dir(env.path("work/web")).unwrap();
    for program in ["server", "job.sh", "db.sh", "worker.sh", "web/job.sh"] {
        script(Path::new(&env.write(program, SERVE)));
    }
    fs::write(bin.join("npm"), SERVE).unwrap();
    script(&bin.join("npm"));
    fs::write(bin.join("browser"), "#!/bin/sh\n").unwrap();
    script(&bin.join("browser"));
    std::os::unix::fs::symlink(DEVPORT, bin.join("devport")).unwrap();
    env.prefer_programs_of(&bin);
    env.set("BROWSER", bin.join("browser").to_str().unwrap());
    env.set("DATABASE_URL", "postgres://localhost/shop");
    for key in ["api", "web"] {
        let start = ["start", "--detach", "--key", key, "--", "npm", "run", "dev"];
        env.devport([&start[..2], wait, &start[2..]].concat()).ok();
    }
    if example.contains("--previous") {
        env.devport([&["restart", "--detach"], wait, &["api"]].concat()).ok();
    }
    env
}

/// Makes a file executable.
fn script(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns the exit codes that an example may have where no terminal and no tailnet is. 124 is that of `timeout`.
fn expected(example: &str) -> &'static [i32] {
    let ends = |words: &[&str]| words.iter().any(|word| example.contains(word));
    match example {
        _ if ends(&["tailup", "taildown", " attach"]) => &[0, 1],
        // It needs a terminal, which the tests do not have.
        _ if ends(&["--watch"]) => &[2],
        _ if ends(&["logs -f", "--for stopped", "devport run"]) => &[0, 124],
        "devport which 3000" => &[0, 4],
        "devport up" => &[124],
        // Something would be done.
        "devport up --dry-run" => &[1],
        _ => &[0],
    }
}

/// Runs an example on a machine of its own. Returns what was wrong.
fn failure(example: &str) -> Option<String> {
    let env = machine(example);
    if example.starts_with("devport up") || example.starts_with("devport down") {
        env.write(
            "devport.yaml",
            "services:\n  api: {exec: sleep 1000, ready: none}\n  web: {exec: sleep 1000, ready: none}\n",
        );
    }
    if example.ends_with(" db") {
        env.devport(["reserve", "--key", "db"]).ok();
    }
    let view = env.which("web");
    let free = (env.first_port + 30).to_string();
    let command = example
        .replace("b7d", view["hashid"].as_str().unwrap())
        .replace("19000", &view["port"].to_string())
        .replace("--port 5432", &format!("--port {free}"))
        .replace("--port 8080", &format!("--port {free}"));
    let is_endless = expected(example).contains(&124);
    let command = if is_endless { command.replacen("devport ", "timeout 3 devport ", 1) } else { command };
    let done = env.finish(env.command("sh").args(["-c", &command]));
    (!expected(example).contains(&done.code)).then(|| format!("{command}: {done:?}"))
}

/// Runs all examples, several at a time.
#[track_caller]
fn assert_all_work(examples: &[String]) {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut failures = Vec::new();
        while let Some(example) = examples.get(next.fetch_add(1, Ordering::Relaxed)) {
            failures.extend(failure(example));
        }
        failures
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_example_of_the_help_and_the_documents_works() {
    let env = TestEnv::new();
    let mut all = Vec::new();
    for command in COMMANDS {
        let arguments: &[&str] = if command.is_empty() { &["--help"] } else { &[command, "--help"] };
        let found = examples(&env.devport(arguments).ok().stdout);
        assert!(!found.is_empty(), "`devport {command} --help` has no example");
        all.extend(found);
    }
    // Sessions need what their earlier commands did, and have a test of their own.
    let code = |text: &str| blocks(text, |language| language != "console").concat().join("\n");
    let found: Vec<String> = documents().iter().flat_map(|(_, text)| examples(&code(text))).collect();
    assert!(found.len() > 20, "{found:?}");
    all.extend(found);
    all.sort();
    all.dedup();
    assert_all_work(&all);
}

#[test]
fn every_devport_yaml_of_the_documents_is_valid() {
    let env = TestEnv::new();
    env.write(".env", "A=1\n");
    let mut count = 0;
    for (name, text) in documents() {
        for lines in blocks(&text, |language| language == "yaml") {
            count += 1;
            let file = env.write("devport.yaml", &lines.join("\n"));
            let is_list = lines.iter().any(|line| line.starts_with("- "));
            let command: &[&str] = if is_list { &["start", "-f"] } else { &["up", "-d", "-f"] };
            // The file is read and checked before the name is looked for, and a mistake has another exit code.
            let done = env.devport(command.iter().copied().chain([file.as_str(), "nosuch"]));
            assert_eq!(done.code, 4, "{name}: {lines:#?}: {done:?}");
        }
    }
    assert!(count >= 3, "only {count} files");
}

#[test]
fn the_help_of_up_lists_every_field() {
    let page = fs::read_to_string(root().join("docs/devport-yaml.md")).unwrap();
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let fields: Vec<String> = page.lines().filter_map(row).filter(|field| !field.starts_with('$')).collect();
    assert!(fields.len() > 20, "{fields:?}");
    let help = TestEnv::new().devport(["up", "--help"]).ok().stdout;
    let words: Vec<&str> = help.split(|c: char| !c.is_ascii_lowercase() && c != '-').collect();
    for field in fields {
        assert!(words.contains(&field.as_str()), "{field}: {help}");
    }
}
