//! Stacks: the services of one file, in each checkout of a repository, in the order in which they need each other.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{DEVPORT, Done, TestEnv, done, eventually, number, until};

/// A server, as the `exec` of a service.
pub(crate) const SERVE: &str = "[python3, -m, http.server, --bind, 127.0.0.1, $PORT]";

/// A machine with the repository `shop`.
pub(crate) fn machine(file: &str) -> TestEnv {
    let env = TestEnv::new();
    for directory in ["shop", "blog", "empty"] {
        fs::create_dir(env.file(directory)).unwrap();
    }
    env.write("shop/devport.yaml", file);
    env.write("shop/who", "main");
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=n", "-c", "user.email=n@example.com", "-C", "shop"];
        env.finish(env.command("git").args(identity).args(arguments)).ok();
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "shop"]);
    git(&["worktree", "add", "--quiet", ".claude/worktrees/feat", "-b", "feat"]);
    env.write("shop/.claude/worktrees/feat/who", "feat");
    env
}

/// The linked worktree.
pub(crate) const FEAT: &str = "shop/.claude/worktrees/feat";

/// Runs a command in a directory.
pub(crate) fn at(env: &TestEnv, directory: &str, arguments: &[&str]) -> Done {
    env.finish(env.command(DEVPORT).current_dir(env.file(directory)).args(arguments))
}

/// Returns keys and outcomes.
pub(crate) fn outcomes(done: &Done) -> Vec<(String, String)> {
    let text = |view: &Value, field: &str| view[field].as_str().unwrap_or_default().to_owned();
    done.json().as_array().unwrap().iter().map(|view| (text(view, "key"), text(view, "outcome"))).collect()
}

/// Returns what a service answers to `GET /who`.
fn answer(env: &TestEnv, directory: &str, target: &str) -> String {
    let url = at(env, directory, &["url", target]).ok().stdout;
    env.finish(env.command("curl").args(["-sS", &format!("{}/who", url.trim())])).ok().stdout
}

#[test]
fn each_checkout_gets_its_own_services_and_their_addresses() {
    let env = machine(&format!(
        "services:\n  api: {{exec: {SERVE}}}\n  web:\n    exec: {SERVE}\n    depends-on: [api]\n    env: {{API: \"${{services.api.url}}\", DB: \"shop_${{checkout.slug}}\"}}\n"
    ));
    let main = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&main), [("shop/api".into(), "started".into()), ("shop/web".into(), "started".into())]);
    let feat = at(&env, FEAT, &["up", "-d"]).ok();
    assert_eq!(outcomes(&feat)[1], ("shop@feat/web".into(), "started".into()));
    assert_eq!((answer(&env, "shop", "web"), answer(&env, FEAT, "web")), ("main".into(), "feat".into()));
    assert_eq!(answer(&env, "shop", "shop@feat/web"), "feat", "a whole key works from everywhere");
    let variables = at(&env, FEAT, &["env", "--show-secrets", "web"]).ok().stdout;
    let port = feat.json()[0]["port"].clone();
    for line in [
        format!("API=http://localhost:{port}"),
        format!("API_PORT={port}"),
        format!("API_URL=http://localhost:{port}"),
        "DB=shop_feat".into(),
        "DEVPORT_SLUG=feat".into(),
        "COMPOSE_PROJECT_NAME=shop-feat".into(),
    ] {
        assert!(variables.lines().any(|found| found == line), "{line}: {variables}");
    }
    let again = at(&env, "shop", &["up", "-d"]).ok();
    assert!(outcomes(&again).iter().all(|(_, outcome)| outcome == "already-running"), "{again:?}");
    assert_eq!(again.json()[1]["port"], main.json()[1]["port"]);

    let down = at(&env, "shop", &["down"]).ok();
    assert_eq!(outcomes(&down), [("shop/web".into(), "stopped".into()), ("shop/api".into(), "stopped".into())]);
    assert_eq!(answer(&env, FEAT, "web"), "feat", "the other checkout's run on");
    let removed = at(&env, FEAT, &["down", "--rm"]).ok();
    assert!(outcomes(&removed).iter().all(|(_, outcome)| outcome == "removed"), "{removed:?}");
    assert_eq!(env.ls().len(), 2);
    at(&env, FEAT, &["url", "web"]).fails(6, &["shop/web belongs to"]);
}

#[test]
fn a_service_starts_when_those_that_it_needs_are_ready() {
    let env = machine(
        "services:\n  \
         db: {exec: \"sh -c 'sleep 0.3; touch up; exec sleep 1000'\", no-port: true, ready: {exec: test -e up}}\n  \
         api: {exec: \"sh -c 'test -e up || exit 9; exec sleep 1000'\", no-port: true, depends-on: [db]}\n",
    );
    let up = at(&env, "shop", &["up", "-d", "api"]).ok();
    assert_eq!(outcomes(&up), [("shop/db".into(), "started".into()), ("shop/api".into(), "started".into())]);
    assert!(up.json().as_array().unwrap().iter().all(|view| view["state"] == "ready" && view["restarts"].is_null()));
    at(&env, "shop", &["down", "db"]).ok();
    assert_eq!(
        outcomes(&at(&env, "shop", &["up", "-d", "--no-deps", "api"]).ok()),
        [("shop/api".into(), "already-running".into())]
    );
}

#[test]
fn what_needs_a_service_that_fails_is_skipped() {
    let env = machine(
        "services:\n  \
         bad: {exec: \"sh -c 'echo broken; exit 3'\", no-port: true, restart: never, ready: {exec: \"false\"}}\n  \
         api: {exec: sleep 1000, no-port: true, depends-on: [bad]}\n  \
         web: {exec: sleep 1000, no-port: true, depends-on: [api]}\n  \
         other: {exec: sleep 1000, no-port: true}\n",
    );
    let up = at(&env, "shop", &["up", "-d"])
        .fails(5, &["bad: ", "exit code 3", "broken", "3 of 4 services did not come up", "run `devport up -d`\n"]);
    let expected = [("bad", "failed"), ("other", "started"), ("api", "skipped"), ("web", "skipped")];
    let expected = expected.map(|(name, outcome)| (format!("shop/{name}"), outcome.to_owned()));
    assert_eq!(outcomes(&up), expected);
    let failed = &up.json()[0];
    assert_eq!((&failed["last_output"], &failed["last_exit"]["code"]), (&json!(["broken"]), &json!(3)), "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("exit code 3"), "{failed}");
    assert!(env.processes_with("sleep 1000").len() == 1, "nothing that was skipped runs");
    at(&env, "shop", &["up", "-d", "web"]).fails(5, &["after the fix, run `devport up -d web`\n"]);
}

#[test]
fn a_one_shot_runs_once_before_what_needs_it() {
    let env = machine(
        "services:\n  \
         migrate: {exec: \"sh -c 'echo ran >>runs; test ! -e fail'\", one-shot: true}\n  \
         api: {exec: sleep 1000, no-port: true, depends-on: [migrate]}\n",
    );
    let runs = || fs::read_to_string(env.file("shop/runs")).unwrap_or_default().lines().count();
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&up), [("shop/migrate".into(), "completed".into()), ("shop/api".into(), "started".into())]);
    let state = || env.which("shop/migrate")["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "completed");
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(runs(), 1, "what needs it runs already");
    at(&env, "shop", &["up", "-d", "migrate"]).ok();
    assert_eq!(runs(), 2, "it was named");
    at(&env, "shop", &["down"]).ok();
    env.write("shop/fail", "");
    let failed = at(&env, "shop", &["up", "-d"]).fails(5, &["shop/migrate failed: exit code 1", "2 of 2 services"]);
    assert_eq!(outcomes(&failed)[0], ("shop/migrate".into(), "failed".into()));
    assert_eq!((runs(), state()), (3, "failed".into()), "a one-shot that fails is not tried again");
}

#[test]
fn up_restarts_what_changed_in_the_file_and_nothing_else() {
    let file = |command: &str| {
        format!(
            "services:\n  a: {{exec: sleep 1000, no-port: true}}\n  b: {{exec: {command}, no-port: true, env: .env}}\n"
        )
    };
    let env = machine(&file("sleep 1000"));
    env.write("shop/.env", "A=1\n");
    at(&env, "shop", &["up", "-d"]).ok();
    let pids = || ["a", "b"].map(|name| number(&at(&env, "shop", &["which", name]).ok().json()["pid"]));
    let first = pids();
    env.write("shop/.env", "A=2\n");
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&up)[1], ("shop/b".into(), "replaced".into()));
    assert!(up.stderr.contains("devport: b is restarted: its env changed\n"), "{up:?}");
    assert!(!up.stderr.contains("a is restarted"), "{up:?}");
    let second = pids();
    assert_eq!((first[0] == second[0], first[1] == second[1]), (true, false));
    // What the file no longer has ends with the rest.
    env.write("shop/devport.yaml", "services:\n  a: {exec: sleep 1000, no-port: true}\n");
    let down = at(&env, "shop", &["down"]).ok();
    assert_eq!(outcomes(&down), [("shop/b".into(), "stopped".into()), ("shop/a".into(), "stopped".into())]);
}

#[test]
fn a_shared_service_runs_once_and_stays_while_another_checkout_needs_it() {
    let env = machine(
        "services:\n  db: {exec: \"sh -c 'pwd >>where; exec sleep 1000'\", no-port: true, shared: true}\n  \
         api: {exec: sleep 1000, no-port: true, depends-on: [db]}\n",
    );
    let feat = at(&env, FEAT, &["up", "-d"]).ok();
    assert_eq!(outcomes(&feat), [("shop/db".into(), "started".into()), ("shop@feat/api".into(), "started".into())]);
    let main = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&main)[0], ("shop/db".into(), "already-running".into()));
    let ran_in = eventually("it has written", || {
        fs::read_to_string(env.file("shop/where")).ok().filter(|text| text.ends_with('\n'))
    });
    assert!(ran_in.lines().count() == 1 && ran_in.trim().ends_with("/shop"), "{ran_in}");
    let down = at(&env, FEAT, &["down"]).ok();
    assert_eq!(outcomes(&down), [("shop@feat/api".into(), "stopped".into())]);
    assert!(down.stderr.contains("shop/db stays: shop/api needs it"), "{}", down.stderr);
    let last = at(&env, "shop", &["down"]).ok();
    assert_eq!(outcomes(&last), [("shop/api".into(), "stopped".into()), ("shop/db".into(), "stopped".into())]);
    // Its record, log and port are those of the main checkout.
    at(&env, FEAT, &["up", "-d"]).ok();
    let removed = at(&env, FEAT, &["down", "--rm"]).ok();
    assert_eq!(outcomes(&removed), [("shop@feat/api".into(), "removed".into()), ("shop/db".into(), "stopped".into())]);
    let main = outcomes(&at(&env, "shop", &["down", "--rm"]).ok());
    assert_eq!(main, [("shop/api".into(), "removed".into()), ("shop/db".into(), "removed".into())]);
}

#[test]
fn down_with_rm_keeps_a_service_of_the_main_checkout_that_only_this_file_shares() {
    let file = |db: &str| format!("services:\n  db: {{exec: sleep 1000, no-port: true{db}}}\n");
    let env = machine(&file(""));
    at(&env, "shop", &["up", "-d"]).ok();
    at(&env, "shop", &["down"]).ok();
    env.write(&format!("{FEAT}/devport.yaml"), &file(", shared: true"));
    at(&env, FEAT, &["down", "--rm"]).ok();
    assert_eq!(env.which("shop/db")["state"], "stopped");
}

#[test]
fn a_preferred_port_goes_to_the_main_checkout_only() {
    let env = machine("");
    let port = env.first_port + 35;
    env.write("shop/devport.yaml", &format!("services:\n  db: {{exec: {SERVE}, port: {port}}}\n"));
    fs::copy(env.file("shop/devport.yaml"), env.file(&format!("{FEAT}/devport.yaml"))).unwrap();
    let feat = at(&env, FEAT, &["up", "-d"]).ok();
    assert_ne!(feat.json()[0]["port"], port);
    let main = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(main.json()[0]["port"], port);
    // Another service has the port of a second stack.
    env.write("blog/devport.yaml", &format!("services:\n  db: {{exec: {SERVE}, port: {port}}}\n"));
    let blog = at(&env, "blog", &["up", "-d"]).ok();
    assert_ne!(blog.json()[0]["port"], port);
    assert!(blog.stderr.contains(&format!("db does not get port {port}")), "{}", blog.stderr);
}

#[test]
fn a_directory_without_a_stack_or_a_checkout_that_is_broken_is_refused() {
    let env = machine("");
    let missing = at(&env, "empty", &["up", "-d"]).fails(3, &["there is no devport.yaml in /", "/empty\nhint: "]);
    assert!(!missing.stderr.contains("parent"), "{missing:?}");
    env.write(&format!("{FEAT}/devport.yaml"), "services:\n  a: {exec: sleep 1000, no-port: true}\n");
    env.write(&format!("{FEAT}/.git"), "gitdir: /nonexistent\n");
    at(&env, "shop", &["up", "-d"]).ok();
    env.write("shop/devport.yaml", "services:\n  web: sleep 1000\n  worker: sleep 1000\n");
    for command in ["up", "down"] {
        at(&env, "shop", &[command, "db"]).fails(4, &["devport.yaml has no service \"db\"", "it has web, worker"]);
        at(&env, "shop", &[command, "wbe"]).fails(4, &["did you mean web?"]);
    }
    at(&env, FEAT, &["up", "-d"]).fails(1, &["points to a directory that does not exist", "git worktree repair"]);
    env.write(
        "shop/devport.yaml",
        "services:\n  a: {exec: sleep 1000, depends-on: [b]}\n  b: {exec: sleep 1000, depends-on: [a]}\n",
    );
    at(&env, "shop", &["up", "-d"]).fails(3, &["a -> b -> a"]);
    assert_eq!(env.ls().len(), 0, "nothing was registered");
}

#[test]
fn the_example_starts_as_it_is() {
    let mut env = machine("");
    let example = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/devport-stack.yaml")).unwrap();
    env.write("shop/devport.yaml", &example);
    env.set("SHOP_DB_PORT", &(env.first_port + 36).to_string());
    let up = at(&env, "shop", &["up", "-d"]).ok();
    let states: Vec<String> = up.json().as_array().unwrap().iter().map(|view| view["state"].to_string()).collect();
    assert_eq!(states.iter().filter(|state| *state == "\"ready\"").count(), 3, "{up:?}");
    assert!(outcomes(&up).contains(&("shop/migrate".into(), "completed".into())), "{up:?}");
    assert!(at(&env, "shop", &["logs", "migrate"]).ok().stdout.contains("migrated shop_main on port"));
    at(&env, "shop", &["down", "--rm"]).ok();
    assert_eq!(env.ls().len(), 0);
}

#[test]
fn a_chain_of_one_shots_runs_again_only_if_what_needs_it_does() {
    let env = machine(
        "services:\n  \
         seed: {exec: \"sh -c 'echo seed >>runs'\", one-shot: true}\n  \
         migrate: {exec: \"sh -c 'echo migrate >>runs'\", one-shot: true, depends-on: [seed]}\n  \
         web: {exec: \"sh -c 'test -e fixed || exit 1; exec sleep 1000'\", no-port: true, depends-on: [migrate], \
         ready: {exec: test -e fixed}, backoff: {initial: 4s}}\n",
    );
    let runs = || fs::read_to_string(env.file("shop/runs")).unwrap();
    at(&env, "shop", &["up", "-d"]).fails(5, &["1 of 3 services did not come up"]);
    assert_eq!(runs(), "seed\nmigrate\n");
    // A service that crashes needs its one-shots again. Its third start comes at least 7 s after the second crash.
    env.write("shop/fixed", "");
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(runs(), "seed\nmigrate\nseed\nmigrate\n");
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(runs(), "seed\nmigrate\nseed\nmigrate\n", "web runs");
    // A one-shot that cannot be executed has not completed, although it did yesterday.
    let file = fs::read_to_string(env.file("shop/devport.yaml")).unwrap();
    env.write("shop/devport.yaml", &file.replace("sh -c 'echo seed >>runs'", "./missing"));
    at(&env, "shop", &["down"]).ok();
    let failed = at(&env, "shop", &["up", "-d"]).fails(5, &["shop/seed failed: ", "3 of 3 services"]);
    assert_eq!(outcomes(&failed)[0], ("shop/seed".into(), "failed".into()));
}

#[test]
fn a_service_does_not_wait_for_others_than_it_needs() {
    // The slow one becomes ready only once the fast chain is up.
    let env = machine(
        "services:\n  \
         slow: {exec: sleep 1000, no-port: true, ready: {exec: test -e done}}\n  \
         first: {exec: sleep 1000, no-port: true}\n  \
         second: {exec: \"sh -c 'touch done; exec sleep 1000'\", no-port: true, depends-on: [first]}\n",
    );
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert!(outcomes(&up).iter().all(|(_, outcome)| outcome == "started"), "{up:?}");
    assert!(up.stderr.contains("second is ready after"), "{}", up.stderr);
}

#[test]
fn a_service_that_is_restarted_for_a_change_needs_its_one_shots_again() {
    let file = |value: &str| {
        format!(
            "services:\n  migrate: {{exec: \"sh -c 'echo ran >>runs'\", one-shot: true}}\n  \
             api: {{exec: sleep 1000, no-port: true, depends-on: [migrate], env: {{A: '{value}'}}}}\n"
        )
    };
    let env = machine(&file("1"));
    let runs = || fs::read_to_string(env.file("shop/runs")).unwrap().lines().count();
    at(&env, "shop", &["up", "-d"]).ok();
    env.write("shop/devport.yaml", &file("2"));
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&up), [("shop/migrate".into(), "completed".into()), ("shop/api".into(), "replaced".into())]);
    assert_eq!(runs(), 2);
}

#[test]
fn a_dry_run_shows_what_would_be_done_and_changes_nothing() {
    let file = |command: &str| {
        format!(
            "services:\n  a: {{exec: sleep 1000, no-port: true}}\n  b: {{exec: {command}, no-port: true, env: .env}}\n"
        )
    };
    let env = machine(&file("sleep 1000"));
    env.write("shop/.env", "A=1\n");
    let sets = |done: &Done| ["new", "changed", "not_in_file", "unchanged"].map(|set| done.json()[set].clone());
    let dry = at(&env, "shop", &["up", "--dry-run"]).fails(1, &[]);
    assert_eq!(sets(&dry), [json!(["a", "b"]), json!([]), json!([]), json!([])]);
    assert_eq!(env.ls().len(), 0);
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(
        sets(&at(&env, "shop", &["up", "--dry-run"]).ok()),
        [json!([]), json!([]), json!([]), json!(["a", "b"])]
    );
    env.write("shop/.env", "A=2\n");
    env.write("shop/devport.yaml", &(file("sleep 2000") + "  c: {exec: sleep 1000, no-port: true}\n"));
    let dry = at(&env, "shop", &["up", "--dry-run"]).fails(1, &[]);
    let changed = json!([{"name": "b", "fields": ["exec", "env"]}]);
    assert_eq!(sets(&dry), [json!(["c"]), changed, json!([]), json!(["a"])]);
    env.write("shop/devport.yaml", "services:\n  a: {exec: sleep 1000, no-port: true}\n");
    let text = at(&env, "shop", &["--format", "table", "up", "--dry-run"]).ok().stdout;
    assert_eq!(text, "= a unchanged\n- shop/b not in the file\n");
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert!(up.stderr.contains("`devport rm shop/b` removes it"), "{}", up.stderr);
    at(&env, "shop", &["down"]).ok();
    at(&env, "shop", &["up", "--dry-run"]).fails(1, &[]);
}

#[test]
fn a_dry_run_names_the_services_that_up_starts_and_the_one_shots_that_it_runs() {
    let env = machine(
        "services:\n  migrate: {exec: \"sh -c 'echo ran >>runs'\", one-shot: true}\n  \
         api: {exec: sleep 1000, no-port: true, env: .env, depends-on: [migrate]}\n  \
         web: {exec: sleep 1000, no-port: true}\n",
    );
    env.write("shop/.env", "A=1\n");
    let dry = || at(&env, "shop", &["up", "--dry-run"]).fails(1, &[]).json()["starts"].clone();
    let text = || at(&env, "shop", &["--format", "table", "up", "--dry-run"]).stdout;
    assert_eq!(dry(), json!(["migrate", "web", "api"]));
    assert_eq!(text(), "+ migrate new; runs, because api needs it\n+ web new; starts\n+ api new; starts\n");
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(text(), "= migrate unchanged\n= web unchanged\n= api unchanged\n");
    env.write("shop/.env", "A=2\n");
    at(&env, "shop", &["stop", "web"]).ok();
    assert_eq!(dry(), json!(["migrate", "web", "api"]));
    let expected =
        "> migrate unchanged; runs, because api needs it\n> web unchanged; starts\n~ api changed (env); restarts\n";
    assert_eq!(text(), expected);
    at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(fs::read_to_string(env.file("shop/runs")).unwrap(), "ran\nran\n");
    let named = at(&env, "shop", &["--format", "table", "up", "--dry-run", "migrate"]).fails(1, &[]);
    assert_eq!(named.stdout, "> migrate unchanged; runs\n");
}

#[test]
fn a_list_is_brought_up_and_belongs_to_its_first_checkout() {
    let env =
        machine("- key: web\n  exec: sleep 1000\n  no-port: true\n- key: api\n  exec: sleep 1000\n  no-port: true\n");
    fs::copy(env.file("shop/devport.yaml"), env.file(&format!("{FEAT}/devport.yaml"))).unwrap();
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert_eq!(outcomes(&up), [("web".into(), "started".into()), ("api".into(), "started".into())]);
    let again = at(&env, "shop", &["up", "-d", "api"]).ok();
    assert_eq!(outcomes(&again), [("api".into(), "already-running".into())]);
    let parts =
        ["web belongs to", "in object form:", "services:\n  web:\n    exec: \"sleep 1000\"\n    no-port: true\n  api:"];
    let refused = at(&env, FEAT, &["up", "-d"]).fails(6, &parts);
    assert_eq!(refused.stdout, "");
    let down = at(&env, "shop", &["down"]).ok();
    assert!(outcomes(&down).iter().all(|(_, outcome)| outcome == "stopped"), "{down:?}");
}

#[test]
fn two_commands_at_once_start_one_copy_of_each_service() {
    let env = machine(
        "services:\n  \
         migrate: {exec: \"sh -c 'echo ran >>runs; sleep 0.2'\", one-shot: true}\n  \
         api: {exec: sleep 1000, no-port: true, depends-on: [migrate]}\n",
    );
    let ups: Vec<_> = (0..3).map(|_| env.spawn(["-C", "shop", "up", "-d"])).collect();
    let ups: Vec<Done> = ups.into_iter().map(|child| done(child).ok()).collect();
    let started = ups.iter().filter(|up| outcomes(up)[1].1 == "started").count();
    assert_eq!((started, env.processes_with("sleep 1000").len()), (1, 1), "{ups:?}");
    assert_eq!(fs::read_to_string(env.file("shop/runs")).unwrap(), "ran\n");
}

#[test]
fn down_waits_for_an_up_of_the_same_stack_and_names_it() {
    let env = machine("services:\n  a: {exec: sleep 1000, no-port: true, ready: {exec: test -e go}}\n");
    let up = env.spawn(["-C", "shop", "up", "-d"]);
    env.wait_state("shop/a", "running");
    let mut down = env.command(crate::support::DEVPORT);
    let stderr = fs::File::create(env.file("notes")).unwrap();
    let mut down =
        down.args(["-C", "shop", "down"]).stdout(std::process::Stdio::null()).stderr(stderr).spawn().unwrap();
    until("down says what it waits for", || {
        let notes = fs::read_to_string(env.file("notes")).unwrap();
        notes.contains("waiting for the services of") && notes.contains(&format!("pid {}", up.id()))
    });
    assert!(down.try_wait().unwrap().is_none());
    env.write("shop/go", "");
    assert_eq!(outcomes(&done(up).ok()), [("shop/a".into(), "started".into())]);
    assert!(down.wait().unwrap().success());
    assert_eq!(env.which("shop/a")["state"], "stopped");
}

/// The fields of a service that writes its name to `ends` when it ends. It is ready once it will do so.
fn writes_its_end(name: &str) -> String {
    let script = format!("trap \\\"echo {name} >>ends; exit\\\" TERM; touch {name}.up; while :; do sleep 0.05; done");
    format!("exec: \"sh -c '{script}'\", no-port: true, ready: {{exec: test -e {name}.up}}")
}

#[test]
fn services_end_after_those_that_need_them() {
    let env = machine(&format!(
        "services:\n  db: {{{}}}\n  api: {{{}, depends-on: [db]}}\n  web: {{{}, depends-on: [api]}}\n",
        writes_its_end("db"),
        writes_its_end("api"),
        writes_its_end("web")
    ));
    at(&env, "shop", &["up", "-d"]).ok();
    at(&env, "shop", &["down"]).ok();
    assert_eq!(fs::read_to_string(env.file("shop/ends")).unwrap(), "web\napi\ndb\n");
}

#[test]
fn a_second_clone_has_a_shared_service_of_its_own() {
    let env = machine(
        "name: shop\nservices:\n  db: {exec: sleep 1000, no-port: true, shared: true}\n  \
         migrate: {exec: \"true\", one-shot: true, depends-on: [db]}\n  \
         api: {exec: sleep 1000, no-port: true, depends-on: [migrate]}\n",
    );
    env.finish(env.command("git").args(["clone", "--quiet", "shop", "clone"])).ok();
    env.finish(env.command("git").args(["-C", "clone", "worktree", "add", "--quiet", "../fix"])).ok();
    let started = |directory: &str| outcomes(&at(&env, directory, &["up", "-d"]).ok());
    assert_eq!(started("shop")[0], ("shop/db".into(), "started".into()));
    let (clone, fix) = (started("clone"), started("fix"));
    assert!(clone[0].0.starts_with("shop@clone-") && clone[0].1 == "started", "{clone:?}");
    assert_eq!(fix[0], (clone[0].0.clone(), "already-running".into()));
    assert!(fix[2].0.starts_with("shop@fix-"), "{fix:?}");
    let key = at(&env, "fix", &["which", "db"]).ok().json()["key"].clone();
    assert_eq!(key, clone[0].0.as_str());
    // The api of the other checkout needs it through a one-shot.
    let down = at(&env, "clone", &["down"]).ok();
    assert!(down.stderr.contains(&format!("{} stays: {} needs it", clone[0].0, fix[2].0)), "{}", down.stderr);
    let last = outcomes(&at(&env, "fix", &["down"]).ok());
    assert!(last.contains(&(clone[0].0.clone(), "stopped".into())), "{last:?}");
    assert_eq!(env.which("shop/db")["state"], "ready", "that of the first clone runs on");
}

#[test]
fn a_running_service_is_left_alone_when_what_it_needs_fails() {
    let file = |command: &str| {
        format!(
            "services:\n  api: {{exec: {command}, no-port: true}}\n  \
             web: {{exec: sleep 1000, no-port: true, depends-on: [api]}}\n"
        )
    };
    let env = machine(&file("sleep 1000"));
    at(&env, "shop", &["up", "-d"]).ok();
    let pid = env.which("shop/web")["pid"].clone();
    env.write("shop/devport.yaml", &file("./missing"));
    let up = at(&env, "shop", &["up", "-d"]).fails(5, &["1 of 2 services did not come up"]);
    assert_eq!(outcomes(&up), [("shop/api".into(), "failed".into()), ("shop/web".into(), "already-running".into())]);
    assert_eq!(env.which("shop/web")["pid"], pid);
}

#[test]
fn a_service_that_ends_before_up_does_has_failed() {
    // The first ends after the second has started, and the second becomes ready after that end was recorded.
    let env = machine(
        "services:\n  \
         first: {exec: \"sh -c 'until test -e second; do sleep 0.01; done; exit 7'\", no-port: true, restart: never}\n  \
         second: {exec: \"sh -c 'touch second; exec sleep 1000'\", no-port: true, depends-on: [first], ready: {exec: test -e go}}\n",
    );
    let up = env.spawn(["-C", "shop", "up", "-d"]);
    env.wait_state("shop/first", "failed");
    env.write("shop/go", "");
    let up = done(up).fails(5, &["it came up, and has ended since", "1 of 2 services"]);
    assert_eq!(outcomes(&up)[0], ("shop/first".into(), "failed".into()));
    assert!(up.json()[0]["error"].as_str().unwrap().contains("exit code 7"), "{up:?}");
}

#[test]
fn a_shared_service_is_not_restarted_from_a_linked_checkout() {
    let file = |command: &str| format!("services:\n  db: {{exec: {command}, no-port: true, shared: true}}\n");
    let env = machine(&file("sleep 1000"));
    at(&env, "shop", &["up", "-d"]).ok();
    let pid = env.which("shop/db")["pid"].clone();
    env.write(
        &format!("{FEAT}/devport.yaml"),
        &(file("sleep 2000") + "  cache: {exec: sleep 1000, no-port: true, shared: true}\n"),
    );
    let feat = at(&env, FEAT, &["up", "-d"]).ok();
    assert!(
        feat.stderr.contains("shop/db is shared and stays as it is, although this file has another exec"),
        "{feat:?}"
    );
    assert_eq!(env.which("shop/db")["pid"], pid);
    // The other shared service stands in the file of the linked checkout only.
    let up = at(&env, "shop", &["up", "-d"]).ok();
    assert!(!up.stderr.contains("cache"), "{}", up.stderr);
    at(&env, "shop", &["down"]).ok();
    assert_eq!(env.which("shop/cache")["state"], "ready");
}

#[test]
fn a_shared_service_stays_for_a_service_that_only_another_checkout_has() {
    let file = "services:\n  db: {exec: sleep 1000, no-port: true, shared: true}\n";
    let env = machine(file);
    let worker = "  worker: {exec: sleep 1000, no-port: true, depends-on: [db]}\n";
    env.write(&format!("{FEAT}/devport.yaml"), &(file.to_owned() + worker));
    at(&env, FEAT, &["up", "-d"]).ok();
    let down = at(&env, "shop", &["down"]).ok();
    assert!(down.stderr.contains("shop/db stays: shop@feat/worker needs it"), "{}", down.stderr);
    assert_eq!(env.which("shop/db")["state"], "ready");
}

#[test]
fn a_shared_service_that_was_stopped_meanwhile_is_started_again() {
    let env = machine(
        "services:\n  db: {exec: sleep 1000, no-port: true, shared: true}\n  \
         slow: {exec: sleep 1000, no-port: true, ready: {exec: test -e go}}\n  \
         app: {exec: sleep 1000, no-port: true, depends-on: [db, slow]}\n",
    );
    let notes = env.file("notes");
    let mut up = env.command(DEVPORT);
    up.args(["-C", FEAT, "up", "-d"]).stdout(Stdio::piped()).stderr(fs::File::create(&notes).unwrap());
    let up = up.spawn().unwrap();
    // `up` itself must have seen it ready.
    until("db is ready", || fs::read_to_string(&notes).unwrap().contains("db is ready after"));
    env.wait_state("shop@feat/slow", "running");
    at(&env, "shop", &["down", "db"]).ok();
    assert_eq!(env.which("shop/db")["state"], "stopped");
    env.write(&format!("{FEAT}/go"), "");
    done(up).ok();
    assert_eq!(env.which("shop/db")["state"], "ready");
}

#[test]
fn named_services_end_in_order_though_one_between_them_is_not_named() {
    let env = machine(&format!(
        "services:\n  db: {{{}}}\n  api: {{exec: sleep 1000, no-port: true, depends-on: [db]}}\n  \
         web: {{{}, depends-on: [api]}}\n",
        writes_its_end("db"),
        writes_its_end("web")
    ));
    at(&env, "shop", &["up", "-d"]).ok();
    at(&env, "shop", &["down", "db", "web"]).ok();
    assert_eq!(fs::read_to_string(env.file("shop/ends")).unwrap(), "web\ndb\n");
}

#[test]
fn checks_that_run_commands_do_not_disturb_each_other() {
    // Each check has its process, and a lost exit would end only with the time limit of 5 s.
    let service = |number| format!("  s{number}: {{exec: sleep 1000, no-port: true, ready: {{exec: \"true\"}}}}\n");
    let services = (0..8).map(service).collect::<Vec<_>>().concat();
    let env = machine(&format!("services:\n{services}"));
    at(&env, "shop", &["up", "-d"]).ok();
    let again = at(&env, "shop", &["up", "-d", "--timeout", "4s"]).ok();
    assert!(outcomes(&again).iter().all(|(_, outcome)| outcome == "already-running"), "{again:?}");
}

#[test]
fn down_needs_no_dotenv_file() {
    let env = machine("services:\n  a: {exec: sleep 1000, no-port: true, env: .env}\n");
    env.write("shop/.env", "A=1\n");
    at(&env, "shop", &["up", "-d"]).ok();
    fs::remove_file(env.file("shop/.env")).unwrap();
    at(&env, "shop", &["up", "-d"]).fails(3, &["the env file", "does not exist"]);
    assert_eq!(outcomes(&at(&env, "shop", &["down"]).ok()), [("shop/a".into(), "stopped".into())]);
}

#[test]
fn services_that_were_already_running_are_noted_in_the_order_of_the_file() {
    // Each needs the next one, and the checks of the first ones take longer.
    let service = |name: &str, check: &str, needs: &str| {
        format!("  {name}: {{exec: sleep 1000, no-port: true, ready: {{exec: {check}}}, depends-on: [{needs}]}}\n")
    };
    let env = machine(&format!(
        "services:\n{}{}{}",
        service("web", "sleep 0.3", "api"),
        service("api", "sleep 0.1", "db"),
        service("db", "\"true\"", "")
    ));
    at(&env, "shop", &["up", "-d"]).ok();
    let again = at(&env, "shop", &["up", "-d"]).ok();
    let names: Vec<&str> = again.stderr.lines().filter_map(|line| line.strip_suffix(" was already running")).collect();
    assert_eq!(names, ["devport: web", "devport: api", "devport: db"], "{}", again.stderr);
}
