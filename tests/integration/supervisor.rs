//! Supervisors on their own: crashes, kills, terminals, heartbeats.

use std::fs;

use serde_json::json;

use crate::support::{
    DEVPORT, SERVER, TestEnv, answers, command_line, eventually, is_alive, number, port, signal, until, write_program,
};

#[test]
fn no_child_has_a_lock_open() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", view["pid"]))
        .unwrap()
        .flatten()
        // The child opens and closes its libraries meanwhile.
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
        .collect();
    assert!(open.iter().filter(|path| path.starts_with("/dev/pts/")).count() == 3, "{open:?}");
    assert!(!open.iter().any(|path| path.contains("state") || path.contains("ptmx")), "{open:?}");
}

#[test]
fn the_child_has_default_signals_and_its_own_session() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let status = fs::read_to_string(format!("/proc/{}/status", view["pid"])).unwrap();
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", view["pid"])).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let pid = view["pid"].to_string();
    assert_eq!((fields[2], fields[3]), (pid.as_str(), pid.as_str()), "group and session");
}

#[test]
fn a_child_that_ends_at_once_is_seen_to_end() {
    let env = TestEnv::new();
    let view = env.devport(["start", "--key", "a", "--", "true"]).ok().json();
    assert_eq!(view["status"], "running");
    let view = eventually("it is started again", || Some(env.which("a")).filter(|view| number(&view["restarts"]) >= 1));
    assert_eq!(view["last_exit"]["code"], 0);
    until("that is recorded too", || env.run_state("a").unwrap()["exits"].as_array().unwrap().len() >= 2);
}

#[test]
fn a_crash_is_recorded_and_the_backoff_grows() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", "echo oh no; exit 3"]);
    let view = env.wait_state("a", "backoff");
    assert_eq!((view["last_exit"]["code"].as_i64(), view["pid"].clone()), (Some(3), serde_json::Value::Null));
    assert!(view["error"].as_str().unwrap().contains("exit code 3"));
    until("it has crashed three times", || {
        env.run_state("a").is_some_and(|run| run["exits"].as_array().unwrap().len() >= 3)
    });
    let run = env.run_state("a").unwrap();
    let at = |index: usize| run["exits"][index]["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let waits: Vec<_> = (0..2).map(|index| at(index + 1).duration_since(at(index)).as_secs_f64()).collect();
    // Each delay is up to a tenth shorter, so that services that crash together do not restart together.
    // A busy machine may make it late, but never early.
    assert!(waits[0] >= 0.9 && waits[1] >= 1.8 && waits[1] < 10.0, "{waits:?}");
    // It is recorded after the exit, once no process is left.
    until("the next start is recorded", || env.run_state("a").unwrap()["next_start_at"].is_string());
}

#[test]
fn a_killed_supervisor_takes_its_child_along() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    signal(env.supervisor("a"), "KILL");
    until("the child is dead", || !is_alive(number(&view["pid"])));
    let view = env.wait_state("a", "stopped");
    assert!(view["error"].as_str().unwrap().contains("killed"));
    assert_eq!(env.devport(["start", "a"]).ok().json()["state"], "running");
}

/// A script whose grandchild survives the supervisor: it has its own session, and ignores SIGHUP.
fn survivor(seconds: &str) -> String {
    format!("setsid nohup sleep {seconds} >/dev/null 2>&1 & exec sleep 1000")
}

fn sleeper(env: &TestEnv, seconds: &str) -> Option<i32> {
    let command = format!("sleep {seconds} ");
    env.processes_with(&command).into_iter().find(|pid| command_line(*pid) == command)
}

#[test]
fn what_survives_is_orphaned_and_reaped_by_the_next_start() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", &survivor("7772001")]);
    let left = eventually("the grandchild runs", || sleeper(&env, "7772001"));
    signal(env.supervisor("a"), "KILL");
    let view = eventually("the grandchild alone is left", || Some(env.which("a")).filter(|view| view["pid"] == left));
    assert_eq!((view["status"].as_str(), view["state"].as_str()), (Some("stopped"), Some("orphaned")));
    env.devport(["start", "a"]).ok();
    assert!(!is_alive(left));
    let now = eventually("the new grandchild runs", || sleeper(&env, "7772001"));
    assert_ne!(now, left);
}

#[test]
fn what_survives_is_reaped_by_stop() {
    let env = TestEnv::new();
    env.start("a", &["sh", "-c", &survivor("7772002")]);
    let left = eventually("the grandchild runs", || sleeper(&env, "7772002"));
    signal(env.supervisor("a"), "KILL");
    env.wait_state("a", "orphaned");
    let stopped = env.devport(["stop", "a"]).ok();
    assert!(stopped.stderr.contains("had been killed"), "{stopped:?}");
    assert!(!is_alive(left));
    assert_eq!(env.which("a")["state"], "stopped");
}

#[test]
fn a_stranger_in_a_planted_run_state_lives() {
    let env = TestEnv::new();
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = stranger.id();
    env.start("a", &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let mut run = env.run_state("a").unwrap();
    let path = env.state(&format!("run/{}.json", env.which("a")["hash"].as_str().unwrap()));
    let boot = run["supervisor"]["boot_id"].clone();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started: u64 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    run["state"] = "running".into();
    for planted in [
        json!({"pid": pid, "start_time": started + 1, "boot_id": boot}),
        json!({"pid": pid, "start_time": started, "boot_id": "another"}),
    ] {
        run["child"] = planted;
        fs::write(&path, run.to_string()).unwrap();
        assert_ne!(env.which("a")["state"], "orphaned");
        env.devport(["start", "a"]).ok();
        env.devport(["stop", "a"]).ok();
        assert!(stranger.try_wait().unwrap().is_none());
    }
    run["child"] = json!({"pid": pid});
    fs::write(&path, run.to_string()).unwrap();
    env.devport(["stop", "a"]).fails(1, &["cannot prove that the process belongs to it", &format!("pid {pid}")]);
    fs::write(&path, run.to_string()).unwrap();
    env.devport(["start", "a"]).fails(1, &["cannot prove that the process belongs to it", &format!("pid {pid}")]);
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    env.devport(["start", "a"]).ok();
}

#[test]
fn two_state_directories_never_see_each_others_processes() {
    let env = TestEnv::new();
    let mut other = TestEnv::new();
    let script = survivor("7772003");
    env.start("a", &["sh", "-c", &script]);
    let first = eventually("the grandchild runs", || sleeper(&env, "7772003"));
    other.set("DEVPORT_HOME", other.path("elsewhere").to_str().unwrap());
    other.start("a", &["sleep", "1000"]);
    other.devport(["stop", "a"]).ok();
    other.devport(["rm", "a"]).ok();
    assert!(is_alive(first));
    assert_eq!(env.which("a")["state"], "running");
}

#[test]
fn a_window_or_server_that_is_killed_stops_its_services() {
    let env = TestEnv::new();
    let a = env.start("a", &SERVER);
    let b = env.start("b", &["sleep", "1000"]);
    until("it answers", || answers(port(&a)));
    let pane = env.run_state("a").unwrap()["window"]["pane"].as_str().unwrap().to_owned();
    env.tmux(&["kill-pane", "-t", &pane]).ok();
    env.wait_state("a", "stopped");
    assert!(!is_alive(number(&a["pid"])) && !answers(port(&a)));
    assert_eq!(env.which("b")["state"], "running");
    env.tmux(&["kill-server"]).ok();
    env.wait_state("b", "stopped");
    assert!(!is_alive(number(&b["pid"])));
    env.devport(["start", "a"]).ok();
}

#[test]
fn the_supervisor_is_never_stopped_by_its_terminal() {
    let env = TestEnv::new();
    let a = env.start("a", &["sleep", "1000"]);
    let supervisor = env.supervisor("a");
    let pane = env.run_state("a").unwrap()["window"]["pane"].as_str().unwrap().to_owned();
    env.tmux(&["send-keys", "-t", &pane, "C-z"]).ok();
    let again = eventually("the child was replaced", || {
        Some(env.which("a")).filter(|view| view["pid"].is_i64() && view["pid"] != a["pid"])
    });
    assert_eq!(again["state"], "running");
    let stat = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    assert!(!stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T'));
}

#[test]
fn a_service_that_starts_services_does_not_take_them_along() {
    let env = TestEnv::new();
    let script = format!(
        "{DEVPORT} start --key inner -- sleep 1000; {DEVPORT} start --detach --key inner2 -- sleep 1000; exec sleep 1000"
    );
    env.devport(["start", "--detach", "--key", "outer", "--", "sh", "-c", &script]).ok();
    let running = |key: &str| env.ls().iter().any(|view| view["key"] == key && view["state"] == "running");
    until("both inner services run", || running("inner") && running("inner2"));
    env.devport(["stop", "outer"]).ok();
    assert!(running("inner") && running("inner2"), "{:?}", env.ls());
}

#[test]
fn the_supervisor_is_quiet_about_a_log_that_it_cannot_write() {
    let env = TestEnv::new();
    env.start("a", &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let log = env.state(&format!("logs/{}.log", env.which("a")["hash"].as_str().unwrap()));
    fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &log).unwrap();
    let before = fs::read("/etc/hostname").unwrap();
    assert_eq!(env.devport(["start", "a"]).ok().json()["state"], "running");
    assert_eq!(fs::read("/etc/hostname").unwrap(), before, "a symbolic link is never followed");
}

#[test]
fn last_up_is_recorded_at_the_start_and_at_the_end() {
    let env = TestEnv::new();
    let started = env.start("a", &["sleep", "1000"]);
    let stopped = env.devport(["stop", "a"]).ok().json();
    let time = |view: &serde_json::Value| view["last_up"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(&stopped) > time(&started));
}

#[test]
fn a_service_that_waits_for_its_port_shows_no_process_of_an_earlier_supervisor() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let supervisor = env.supervisor("a");
    signal(supervisor, "KILL");
    signal(number(&view["pid"]), "KILL");
    until("both are gone", || env.which("a")["status"] == "stopped" && !is_alive(number(&view["pid"])));
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port(&view))).unwrap();
    env.devport(["start", "a"]).fails(1, &["is taken by"]);
    let conflict = env.which("a");
    assert_eq!((&conflict["state"], conflict["pid"].is_null()), (&"port-conflict".into(), true), "{conflict}");
}

#[test]
fn a_service_without_a_process_was_last_up_when_its_last_run_ended() {
    let mut env = TestEnv::new();
    env.set("DEVPORT_TEST_HEARTBEAT", "50ms");
    let after_heartbeats = |key: &str| {
        let lock = env.state(&format!("locks/{}.lock", env.which(key)["hash"].as_str().unwrap()));
        let beat = || fs::metadata(&lock).unwrap().modified().unwrap();
        for _ in 0..3 {
            let last = beat();
            until("the supervisor has a heartbeat", || beat() != last);
        }
        env.which(key)
    };
    let options = ["start", "--key", "crash", "--no-port", "--backoff-initial", "1h", "--backoff-max", "1h"];
    env.devport(options.iter().chain(&["--", "sh", "-c", "exit 1"]));
    env.wait_state("crash", "backoff");
    let crashed = after_heartbeats("crash");
    assert_eq!((&crashed["state"], &crashed["last_up"]), (&"backoff".into(), &crashed["last_exit"]["at"]), "{crashed}");
    env.devport(["stop", "crash"]).ok();
    assert_eq!(env.which("crash")["last_up"], crashed["last_up"], "it did not run since");

    let view = env.start("api", &["sleep", "1000"]);
    env.devport(["stop", "api"]).ok();
    let other: u16 = env.devport(["reserve", "--key", "new"]).ok().stdout.trim().parse().unwrap();
    let listeners = [port(&view), other].map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
    for key in ["api", "new"] {
        // A registration is no run either.
        env.devport(["start", "--key", key, "--", "sleep", "1000"]).fails(1, &["is taken by"]);
    }
    let conflict = after_heartbeats("api");
    assert_eq!(conflict["state"], "port-conflict");
    assert_eq!(conflict["last_up"], conflict["last_exit"]["at"], "{conflict}");
    let never = after_heartbeats("new");
    assert_eq!((&never["state"], &never["last_up"]), (&"port-conflict".into(), &"1970-01-01T00:00:00Z".into()));
    let details = env.devport(["which", "new", "--format", "table"]).ok().stdout;
    assert!(details.lines().any(|line| line.split_whitespace().eq(["last", "up", "never"])), "{details}");
    drop(listeners);
}

#[test]
fn output_that_is_not_read_delays_nothing() {
    let env = TestEnv::new();
    env.start("a", &["yes"]);
    let supervisor = env.supervisor("a");
    let log = env.state(&format!("logs/{}.log", env.which("a")["hash"].as_str().unwrap()));
    let size = || fs::metadata(&log).map_or(0, |metadata| metadata.len());
    until("output flows", || size() > 1_000_000);
    // A hanging tmux does not affect the terminal.
    let server = env.tmux(&["display-message", "-p", "#{pid}"]).ok().stdout.trim().parse().unwrap();
    signal(server, "STOP");
    let grown = |from: u64| until("the log goes on", || size() != from);
    for _ in 0..50 {
        grown(size());
    }
    // Measure the memory that it allocates: the size of the program depends on the build.
    let memory = || {
        let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
        status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    assert!(memory() < 4_000, "{} kB", memory());
    let began = std::time::Instant::now();
    let stopped = env.devport(["stop", "a"]);
    signal(server, "CONT");
    stopped.ok();
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_process_that_has_a_lock_file_open_is_not_taken_for_its_holder() {
    let env = TestEnv::new();
    let view = env.start("a", &["sleep", "1000"]);
    let lock = env.state(&format!("locks/{}.lock", view["hash"].as_str().unwrap()));
    let mut bystander =
        std::process::Command::new("tail").arg("-f").arg(&lock).stdout(std::process::Stdio::null()).spawn().unwrap();
    env.devport(["stop", "a"]).ok();
    env.devport(["stop", "a"]).ok();
    env.devport(["rm", "a"]).ok();
    assert!(bystander.try_wait().unwrap().is_none(), "it lives");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_program_that_has_vanished_is_a_failure_and_not_a_running_service() {
    let env = TestEnv::new();
    let program = env.file("program");
    write_program(&program, "#!/bin/sh\nexec sleep 1000\n");
    env.start("a", &[&program]);
    fs::rename(&program, format!("{program}.away")).unwrap();
    env.devport(["signal", "a"]).ok();
    let view = env.wait_state("a", "failed");
    assert!(view["error"].as_str().unwrap().contains("no such file"), "{view}");
    fs::rename(format!("{program}.away"), &program).unwrap();
    env.devport(["start", "a"]).ok();
    env.wait_state("a", "running");
}
