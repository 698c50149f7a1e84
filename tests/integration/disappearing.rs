//! Checkouts that are deleted, replaced, moved or out of reach while their services run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::checkouts::{Git, Machine, SLEEP, outcome, pid};
use crate::support::strace::{self, Fault};
use crate::support::{done, eventually, has_program, is_alive, signal, until};

const FEAT: &str = "shop/.claude/worktrees/feat";
/// What a service says whose checkout is gone.
const GONE: &str = "its checkout is gone";

/// Returns a machine whose supervisors check the checkout often.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.env.set("DEVPORT_TEST_HEARTBEAT", "50ms");
    machine
}

/// Waits for three heartbeats of a service's supervisor: one may have been on its way.
fn await_heartbeats(machine: &Machine, view: &Value) {
    let lock = machine.env.state(&format!("locks/{}.lock", view["hash"].as_str().unwrap()));
    let beat = || -> SystemTime { fs::metadata(&lock).unwrap().modified().unwrap() };
    for _ in 0..3 {
        let last = beat();
        until("the supervisor has a heartbeat", || beat() != last);
    }
}

/// Returns a service, wherever it belongs.
fn view(machine: &Machine, started: &Value) -> Value {
    machine.at("", ["which", started["hash"].as_str().unwrap()]).ok().json()
}

/// Waits until a service has stopped because its checkout is gone, and asserts that nothing of it is left.
#[track_caller]
fn assert_stops(machine: &Machine, started: &Value) -> Value {
    let view =
        eventually("the service stops", || Some(view(machine, started)).filter(|view| view["state"] == "stopped"));
    assert_eq!((&view["error"], &view["status"]), (&json!(GONE), &json!("stopped")), "{view}");
    assert!(!is_alive(pid(started)));
    view
}

#[track_caller]
fn assert_runs(machine: &Machine, started: &Value) {
    await_heartbeats(machine, started);
    let view = view(machine, started);
    assert_eq!((&view["state"], &view["gone"], &view["pid"]), (&json!("ready"), &json!(false), &started["pid"]));
}

#[test]
fn a_service_stops_when_its_worktree_is_removed() {
    let machine = machine();
    let started = machine.start(FEAT, "web");
    let other = machine.start("shop", "api");
    machine.git.remove_worktree(&machine.env, &machine.home("shop"), &machine.home(FEAT));
    let view = assert_stops(&machine, &started);
    assert_eq!(view["gone"], true);
    let id = started["hashid"].as_str().unwrap();
    assert!(machine.at("", ["logs", id]).ok().stdout.contains(GONE));
    machine.at("", ["wait", id]).fails(5, &[GONE]);
    assert!(machine.at("", ["ls", "--format", "table"]).ok().stdout.contains(&format!("[{GONE}]")));
    assert_runs(&machine, &other);
}

#[test]
fn a_service_that_crashes_is_not_started_again_in_another_checkout() {
    for is_made_again in [false, true] {
        // With a heartbeat of an hour, the next start comes first.
        let machine = Machine::new();
        let started = machine.start(FEAT, "web");
        let (shop, feat) = (machine.home("shop"), machine.home(FEAT));
        machine.git.remove_worktree(&machine.env, &shop, &feat);
        if is_made_again {
            machine.git.worktree(&machine.env, &shop, &feat);
        }
        signal(pid(&started), "KILL");
        let view = assert_stops(&machine, &started);
        assert_eq!((&view["gone"], &view["restarts"]), (&json!(true), &json!(1)));
    }
}

#[test]
fn what_waits_to_be_tried_again_stops_too() {
    let machine = machine();
    let crash = ["start", "--key", "web", "--", "sh", "-c", "exit 1"];
    let started = machine.at(FEAT, crash).ok().json();
    machine.git.remove_worktree(&machine.env, &machine.home("shop"), &machine.home(FEAT));
    let view = eventually("it ends", || Some(view(&machine, &started)).filter(|view| view["status"] == "stopped"));
    assert_eq!((&view["state"], &view["error"], &view["gone"]), (&json!("stopped"), &json!(GONE), &json!(true)));
}

#[test]
fn a_checkout_that_is_deleted_while_its_service_is_started_again_ends_the_service() {
    if strace::is_missing() {
        return;
    }
    let machine = Machine::new();
    let script = "until test -e go; do sleep 0.02; done; exit 1";
    let start = ["start", "--key", "web", "--backoff-initial", "1ms", "--", "sh", "-c", script];
    let started = machine.at(FEAT, start).ok().json();
    let feat = machine.home(FEAT);
    // The supervisor has seen that the checkout is there, and starts the command next.
    let fault = Fault { calls: "?stat,?statx,?newfstatat", path: Some(&feat), effect: "delay_exit=60000000:when=1" };
    let disturbance = machine.env.disturb(machine.env.supervisor("web"), fault);
    fs::write(feat.join("go"), "").unwrap();
    disturbance.until_delayed();
    machine.git.remove_worktree(&machine.env, &machine.home("shop"), &feat);
    drop(disturbance);
    let view = assert_stops(&machine, &started);
    assert_eq!(view["restarts"], 1);
}

#[test]
fn a_service_of_a_worktree_that_is_made_again_is_never_ready_and_starts_at_once() {
    for command in ["start", "restart"] {
        // With a heartbeat of an hour, no supervisor has noticed yet.
        let machine = Machine::new();
        let started = machine.start(FEAT, "web");
        let (shop, feat) = (machine.home("shop"), machine.home(FEAT));
        machine.git.remove_worktree(&machine.env, &shop, &feat);
        machine.git.worktree(&machine.env, &shop, &feat);
        for view in [machine.at(FEAT, ["which", "web"]).ok().json(), machine.env.ls().remove(0)] {
            let facts = [&view["state"], &view["error"], &view["gone"], &view["pid"]];
            assert_eq!(facts, [&json!("running"), &json!(GONE), &json!(true), &started["pid"]], "{view}");
        }
        machine.at(FEAT, ["wait", "web"]).fails(5, &[GONE]);
        let start = format!("`devport start {}` restarts it", started["hashid"].as_str().unwrap());
        let url = machine.at(FEAT, ["url", "web"]).fails(6, &["runs in a checkout that no longer exists", &start]);
        assert_eq!(url.stdout, "");
        let again = machine.at(FEAT, [command, "--wait", "web"]).ok();
        assert!(again.stderr.contains(&format!("~/{FEAT} was deleted and created again")), "{again:?}");
        let again = again.json();
        outcome(&again, if command == "start" { "replaced" } else { "restarted" });
        assert_eq!((&again["state"], &again["port"]), (&json!("ready"), &started["port"]));
        assert!(!is_alive(pid(&started)));
        assert_eq!(fs::read_link(format!("/proc/{}/cwd", pid(&again))).unwrap(), feat);
        machine.at(FEAT, ["url", "web"]).ok();
        assert_eq!(machine.at(FEAT, ["which", "web"]).ok().json()["gone"], false);
    }
}

#[test]
fn a_service_stops_when_another_directory_is_at_the_path_and_starts_there() {
    let machine = machine();
    let (shop, feat) = (machine.home("shop"), machine.home(FEAT));
    let started = machine.start(FEAT, "web");
    machine.git.remove_worktree(&machine.env, &shop, &feat);
    machine.git.worktree(&machine.env, &shop, &feat);
    assert_stops(&machine, &started);
    let again = machine.at(FEAT, ["start", "--wait", "web"]).ok().json();
    assert_eq!((&again["state"], &again["port"]), (&json!("ready"), &started["port"]));
    assert_runs(&machine, &again);
}

#[test]
fn an_unmounted_volume_and_a_locked_worktree_stop_nothing() {
    let machine = machine();
    let (shop, volume) = (machine.home("shop"), machine.directory("volume"));
    machine.git.worktree(&machine.env, &shop, &volume.join("work"));
    let started = machine.start("volume/work", "web");
    let away = machine.home("away");
    fs::rename(&volume, &away).unwrap();
    assert_runs(&machine, &started);
    fs::rename(&away, &volume).unwrap();
    assert_runs(&machine, &started);

    let lock = machine.home("shop/.git/worktrees/work/locked");
    fs::write(&lock, "on a disk\n").unwrap();
    fs::rename(volume.join("work"), &away).unwrap();
    assert_runs(&machine, &started);
    // The directory on which a volume was mounted is another one.
    machine.directory("volume/work");
    assert_runs(&machine, &started);
    fs::remove_file(&lock).unwrap();
    assert_stops(&machine, &started);
}

#[test]
fn a_moved_worktree_stops_and_starts_at_its_new_place_on_the_same_port() {
    if !has_program("git") {
        return;
    }
    let machine = machine();
    let started = machine.start(FEAT, "web");
    let to = machine.home("moved");
    Git::run(&machine.env, &machine.home("shop"), &["worktree", "move", &text(&machine.home(FEAT)), &text(&to)]);
    assert_stops(&machine, &started);
    let again = machine.at("moved", ["start", "--wait", "--key", "web"].iter().chain(&SLEEP)).ok();
    assert!(again.stderr.contains(&format!("web belonged to ~/{FEAT}, which no longer exists")), "{again:?}");
    let again = again.json();
    assert_eq!(view(&machine, &again)["root"], json!(to));
    let facts = [&again["state"], &again["port"], &again["checkout"]];
    assert_eq!(facts, [&json!("ready"), &started["port"], &json!("feat")], "{again}");
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_service_inherits_the_time_between_heartbeats() {
    let machine = machine();
    for mode in [&["start", "--detach"][..], &["start"]] {
        let started = machine.at(FEAT, mode.iter().chain(&["--key", "web"]).chain(&SLEEP)).ok().json();
        let environment = fs::read(format!("/proc/{}/environ", pid(&started))).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("HEARTBEAT"), "{mode:?}");
        machine.at(FEAT, ["stop", "web"]).ok();
    }
}

#[test]
fn what_runs_in_a_removed_worktree_is_left_running_until_it_is_removed() {
    // With a heartbeat of an hour, no supervisor has noticed yet.
    let machine = Machine::new();
    let started = machine.start(FEAT, "web");
    machine.git.remove_worktree(&machine.env, &machine.home("shop"), &machine.home(FEAT));
    let id = started["hashid"].as_str().unwrap();
    let remove = format!("`devport rm {id}`");
    for command in [&["url", id][..], &["start", id], &["start", "--replace", id], &["restart", id]] {
        let refused = machine.at("", command).fails(6, &["web runs in a checkout that no longer exists", &remove]);
        assert!(!refused.stderr.contains("devport start") && refused.stdout.is_empty(), "{refused:?}");
        let view = view(&machine, &started);
        let facts = [&view["state"], &view["gone"], &view["pid"]];
        assert_eq!(facts, [&json!("running"), &json!(true), &started["pid"]], "{command:?}: {view}");
    }
    outcome(&machine.at("", ["rm", id]).ok().json(), "removed");
}

#[test]
fn a_service_whose_working_directory_is_missing_runs_on_when_a_restart_is_refused() {
    let machine = machine();
    let started = machine.start("shop/apps/api", "api");
    fs::remove_dir(machine.home("shop/apps/api")).unwrap();
    for command in [&["restart", "api"][..], &["start", "--replace", "api"]] {
        machine.at("shop", command).fails(3, &["working directory", "shop/apps/api does not exist"]);
        assert_runs(&machine, &started);
    }
    outcome(&machine.at("shop", ["start", "api"]).ok().json(), "already-running");
}

#[test]
fn services_of_deleted_directories_are_removed_together_and_those_that_may_come_back_stay() {
    let machine = Machine::new();
    let none = machine.at("", ["rm", "--gone"]).ok();
    assert!(none.stderr.contains("no service has lost its checkout"), "{none:?}");
    assert_eq!(none.json(), json!([]));
    machine.at("", ["rm", "--gone", "web"]).fails(2, &["--gone"]);

    let (shop, feat, linked) = (machine.home("shop"), machine.home(FEAT), machine.home("linked"));
    let volume = machine.directory("volume");
    machine.git.worktree(&machine.env, &shop, &volume.join("work"));
    machine.git.worktree(&machine.env, &shop, &machine.home("again"));
    for (directory, key) in [
        ("shop", "main"),
        (FEAT, "running"),
        (FEAT, "stopped"),
        ("shop/apps/api", "below"),
        ("linked", "locked"),
        ("volume/work", "away"),
        ("again", "again"),
    ] {
        machine.start(directory, key);
    }
    machine.at(FEAT, ["stop", "stopped"]).ok();
    machine.git.remove_worktree(&machine.env, &shop, &feat);
    fs::remove_dir_all(machine.home("shop/apps")).unwrap();
    fs::write(machine.home("shop/.git/worktrees/linked/locked"), "").unwrap();
    fs::remove_dir_all(linked).unwrap();
    fs::remove_dir_all(volume).unwrap();
    machine.git.remove_worktree(&machine.env, &shop, &machine.home("again"));
    machine.git.worktree(&machine.env, &shop, &machine.home("again"));

    let list = machine.at("", ["ls", "--format", "table"]).ok();
    assert!(list.stderr.contains("2 of these services have lost their checkout; `devport rm --gone`"), "{list:?}");
    let removed = machine.at("", ["rm", "--gone"]).ok();
    assert!(removed.stderr.contains("again stays: its checkout was created again"), "{removed:?}");
    for name in ["away", "locked"] {
        let stays = format!("{name} stays: its worktree is locked, or on a volume that is not mounted; `devport rm ");
        assert!(removed.stderr.contains(&stays), "{removed:?}");
    }
    let keys = |views: &[Value]| -> Vec<String> {
        let mut keys: Vec<String> = views.iter().map(|view| view["key"].as_str().unwrap().to_owned()).collect();
        keys.sort();
        keys
    };
    let removed = removed.json();
    removed.as_array().unwrap().iter().for_each(|view| outcome(view, "removed"));
    assert_eq!(keys(removed.as_array().unwrap()), ["running", "stopped"]);
    assert_eq!(keys(&machine.env.ls()), ["again", "away", "below", "locked", "main"]);
    assert!(!machine.at("", ["ls", "--format", "table"]).ok().stderr.contains("--gone"));
}

#[test]
fn a_service_whose_checkout_is_created_again_during_a_removal_stays() {
    let machine = Machine::new();
    let (shop, again) = (machine.home("shop"), machine.home("again"));
    machine.git.worktree(&machine.env, &shop, &again);
    // Services are removed in the order of their hashes: b comes before a. It ends once the test says so.
    let (stopping, end) = (machine.env.path("stopping"), machine.env.path("end"));
    let script = format!(
        "trap 'touch {}; until test -e {}; do sleep 0.01; done; exit' TERM; while :; do sleep 0.01; done",
        stopping.display(),
        end.display()
    );
    let slow = ["start", "--key", "b", "--no-port", "--grace", "30s", "--wait", "--", "sh", "-c", &script];
    machine.at(FEAT, slow).ok();
    machine.start("again", "a");
    machine.at("again", ["stop", "a"]).ok();
    machine.git.remove_worktree(&machine.env, &shop, &machine.home(FEAT));
    machine.git.remove_worktree(&machine.env, &shop, &again);
    let removal = machine.command("").args(["rm", "--gone"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    until("the first service is being stopped", || stopping.exists());
    machine.git.worktree(&machine.env, &shop, &again);
    fs::write(end, "").unwrap();
    let removed = done(removal.unwrap()).ok();
    assert!(removed.stderr.contains("a stays: its checkout was created again\n"), "{removed:?}");
    assert_eq!(removed.json().as_array().unwrap().len(), 1);
    machine.at("again", ["start", "a"]).ok();
}

/// The record of a service.
fn record(machine: &Machine, view: &Value) -> PathBuf {
    machine.env.state(&format!("services/{}.json", view["hash"].as_str().unwrap()))
}

#[test]
fn views_show_the_checkout_the_branch_and_the_agent_of_the_last_start() {
    let mut machine = Machine::new();
    machine.env.set("CLAUDECODE", "1");
    let started = machine.start(FEAT, "web");
    let origin = |view: &Value| ["root", "checkout", "branch", "started_by"].map(|name| view[name].clone());
    let root = json!(machine.home(FEAT));
    assert_eq!(origin(&view(&machine, &started)), [root.clone(), json!("feat"), json!("feat"), json!("claude")]);
    fs::write(machine.home("shop/.git/worktrees/feat/HEAD"), "ref: refs/heads/other\n").unwrap();
    assert_eq!(view(&machine, &started)["branch"], "feat", "the branch at the start");
    machine.env.set("CLAUDECODE", "");
    outcome(&machine.at(FEAT, ["start", "web"]).ok().json(), "already-running");
    assert_eq!(view(&machine, &started)["started_by"], "claude");
    let again = machine.at(FEAT, ["restart", "web"]).ok().json();
    assert_eq!(again["checkout"], "feat");
    assert_eq!(origin(&view(&machine, &again)), [root.clone(), json!("feat"), json!("other"), Value::Null]);
    let before = fs::metadata(record(&machine, &started)).unwrap().modified().unwrap();
    machine.at(FEAT, ["restart", "web"]).ok();
    let after = fs::metadata(record(&machine, &started)).unwrap().modified().unwrap();
    assert_eq!(before, after, "nothing has changed");

    let list = machine.at(FEAT, ["ls", "--wide", "--format", "table"]).ok().stdout;
    let details = machine.at(FEAT, ["which", "web", "--format", "table"]).ok().stdout;
    for part in ["CHECKOUT", "BRANCH", "STARTED BY", "other"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(details.lines().any(|line| line.split_whitespace().eq(["branch", "other"])), "{details}");
    let main = view(&machine, &machine.start("shop", "api"));
    assert_eq!((&main["checkout"], &main["branch"]), (&json!("main"), &json!("main")));
    machine.directory("loose");
    let loose = view(&machine, &machine.start("loose", "db"));
    assert_eq!(origin(&loose), [json!(machine.home("loose")), Value::Null, Value::Null, Value::Null]);
}

#[test]
fn a_record_of_an_earlier_version_has_no_origin_and_its_service_starts() {
    let machine = machine();
    let started = machine.start(FEAT, "web");
    machine.at(FEAT, ["stop", "web"]).ok();
    let mut fields: serde_json::Map<String, Value> =
        serde_json::from_slice(&fs::read(record(&machine, &started)).unwrap()).unwrap();
    for field in ["root", "root_id", "git_dir", "checkout", "branch", "started_by"] {
        fields.remove(field);
    }
    fs::write(record(&machine, &started), serde_json::to_vec(&fields).unwrap()).unwrap();
    let view = view(&machine, &started);
    for name in ["root", "checkout", "branch", "started_by"] {
        assert_eq!(view[name], Value::Null, "{name}");
    }
    assert_eq!(view["gone"], false);
    let again = machine.at(FEAT, ["start", "--wait", "web"]).ok().json();
    assert_eq!(machine.at(FEAT, ["which", "web"]).ok().json()["branch"], "feat");
    assert_runs(&machine, &again);
}
