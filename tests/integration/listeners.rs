//! `ready` is true when it is read, and `which PORT` describes every listener of the machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::support::{
    DEVPORT, SERVER, TestEnv, answers, close, done, eventually, has_program, port, signal, skip, until,
};

/// A reloader: it outlives its worker, and starts a new one when something is written to the pipe `go`, as nodemon does after an edit.
const RELOADER: &str = "
import os, subprocess, sys
os.mkfifo('go')
while True:
    subprocess.run([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', os.environ['PORT']])
    open('go').read()
";

/// A reloader that keeps the socket when its worker is killed, as `uvicorn --reload` does.
const SOCKET_KEEPER: &str = "
import http.server, os
os.mkfifo('go')
server = http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler)
while True:
    worker = os.fork()
    if worker == 0:
        open('worker', 'w').write(str(os.getpid()))
        server.serve_forever()
    os.waitpid(worker, 0)
    open('go').read()
";

/// Starts a service and waits until it is ready.
fn start_ready(env: &TestEnv, options: &[&str], words: &[&str]) -> Value {
    let all = [&["start", "--wait", "--key", "a"], options, &["--"], words].concat();
    env.devport(&all).ok().json()
}

/// Starts a program that is no service.
fn foreign(env: &TestEnv, directory: &str, words: &[&str]) -> Child {
    let mut command = env.command(words[0]);
    command.args(&words[1..]).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Kills a program and waits for its end.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_ready_service_that_stops_listening_is_running_until_it_listens_again() {
    let env = TestEnv::new();
    let view = start_ready(&env, &[], &["python3", "-c", RELOADER]);
    let lost = format!("nothing listens on port {} any more", view["port"]);
    assert_eq!((&view["state"], view["listens"].as_array().unwrap().len()), (&json!("ready"), 1));
    signal(env.processes_with("http.server --bind")[0], "KILL");
    until("the port is free", || !answers(port(&view)));
    for view in [env.which("a"), env.ls().remove(0)] {
        assert_eq!((&view["state"], &view["error"], &view["listens"]), (&json!("running"), &json!(lost), &json!([])));
        assert_eq!(view["restarts"], 0);
    }
    env.devport(["wait", "a", "--timeout", "100ms"]).fails(5, &[&lost]);
    env.devport(["start", "--wait=100ms", "a"]).fails(5, &[&lost]);
    let url = env.devport(["url", "a"]).ok();
    assert_eq!(url.stdout, format!("http://localhost:{}\n", view["port"]));
    assert!(url.stderr.contains(&lost), "{url:?}");

    let stranger = TcpListener::bind(("127.0.0.1", port(&view))).unwrap();
    let error = env.which("a")["error"].as_str().unwrap().to_owned();
    let taken = format!("port {} is taken by pid {} ", view["port"], std::process::id());
    assert!(error.starts_with(&taken), "{error}");
    close(stranger);

    let waiting = env.spawn(["wait", "a"]);
    env.write("go", "");
    let again = done(waiting).ok().json();
    assert_eq!((&again["state"], &again["error"]), (&json!("ready"), &Value::Null));
    assert_eq!((&again["listens"], &again["pid"]), (&view["listens"], &view["pid"]), "the new worker's socket");
}

#[test]
fn a_service_of_an_earlier_supervisor_without_recorded_sockets_stays_ready() {
    let env = TestEnv::new();
    let view = start_ready(&env, &[], &SERVER);
    let file = env.state_file("run", "a", "json");
    let mut run: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert!(run.as_object_mut().unwrap().remove("sockets").is_some());
    fs::write(&file, serde_json::to_vec(&run).unwrap()).unwrap();
    let now = env.which("a");
    assert_eq!((&now["state"], &now["listens"]), (&json!("ready"), &view["listens"]));
}

#[test]
fn a_command_in_a_sandbox_that_sees_no_sockets_uses_the_record() {
    let env = TestEnv::new();
    let isolated = |words: &[&str]| env.finish(env.command("unshare").args(["--map-root-user", "--net"]).args(words));
    if !has_program("unshare") || isolated(&["true"]).code != 0 {
        skip("this machine gives no network namespaces");
        return;
    }
    let view = start_ready(&env, &[], &SERVER);
    let now = isolated(&[DEVPORT, "which", "a"]).ok().json();
    assert_eq!((&now["state"], &now["listens"]), (&json!("ready"), &view["listens"]));
}

#[test]
fn a_wait_runs_the_check_even_if_the_socket_is_still_open() {
    let env = TestEnv::new();
    let view = start_ready(&env, &["--ready", "http:/"], &["python3", "-c", SOCKET_KEEPER]);
    signal(fs::read_to_string(env.file("worker")).unwrap().parse().unwrap(), "KILL");
    until("the worker is gone", || env.processes_with("http.server").len() == 1);
    assert_eq!(env.which("a")["listens"], view["listens"], "the reloader keeps the socket");
    for command in [["wait", "a", "--timeout=1s"], ["start", "a", "--wait=1s"]] {
        let failed = env.devport(command).fails(5, &["a is not ready after 1 s: GET / got no response within 1 s"]);
        assert_eq!(failed.json()["state"], "running", "{command:?}");
        assert!(failed.json()["error"].as_str().unwrap().contains("got no response"), "{command:?}");
    }
    let waiting = env.spawn(["wait", "a"]);
    env.write("go", "");
    assert_eq!(done(waiting).ok().json()["state"], "ready");
}

#[test]
fn a_wait_runs_the_check_again_until_it_passes() {
    let env = TestEnv::new();
    for (check, broken) in [("http:/up", "GET /up returned 404"), ("exec:test -e up", "test -e up exited with code 1")]
    {
        env.write("up", "");
        start_ready(&env, &["--replace", "--ready", check], &SERVER);
        fs::remove_file(env.file("up")).unwrap();
        // A server on a busy machine may not respond within the second that a check has.
        until("the check fails as expected", || {
            let failed = env.devport(["wait", "a", "--timeout", "300ms"]).fails(5, &["a is not ready"]);
            assert_eq!(failed.json()["state"], "running", "{check}");
            failed.stderr.contains(broken)
        });
        let waiting = env.spawn(["wait", "a"]);
        env.write("up", "");
        let view = done(waiting).ok().json();
        assert_eq!((&view["state"], &view["error"]), (&json!("ready"), &Value::Null), "{check}");
    }
}

#[test]
fn which_describes_a_listener_that_is_not_devports() {
    let env = TestEnv::new();
    let port = env.first_port + 20;
    let number = port.to_string();
    env.devport(["which", &number]).fails(4, &[&format!("nothing listens on port {port}")]);
    env.devport(["reserve", "--key", &format!("p{number}")]).ok();
    env.devport(["which", &number])
        .fails(4, &[&format!("nothing listens on port {port}"), &format!("hint: did you mean p{number}?")]);
    fs::create_dir_all(env.path("work/shop/.git")).unwrap();
    fs::create_dir_all(env.path("work/shop/web")).unwrap();
    let (shop, web) = (env.file("shop"), env.file("shop/web"));
    let server = foreign(&env, &web, &["python3", "-m", "http.server", "--bind", "127.0.0.1", &number]);
    let second = eventually("it listens", || TcpListener::bind(("::1", port)).ok().filter(|_| answers(port)));
    let view = env.which(&number);
    assert_eq!((&view["port"], view["listeners"].as_array().unwrap().len()), (&json!(port), 2), "{view}");
    let find = |pid: u32| view["listeners"].as_array().unwrap().iter().find(|one| one["pid"] == pid).unwrap().clone();
    let found = find(server.id());
    assert_eq!(found["addresses"], json!([format!("127.0.0.1:{port}")]));
    let command = format!("python3 -m http.server --bind 127.0.0.1 {port}");
    assert!(found["command"].as_str().unwrap().ends_with(&command), "{found}");
    assert_eq!((&found["cwd"], &found["checkout"]), (&json!(web), &json!(shop)));
    assert_eq!((&found["cwd_deleted"], &found["service"]), (&json!(false), &Value::Null));
    let started: jiff::Timestamp = found["started_at"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(started).as_secs() < 60, "{started}");
    assert_eq!(find(std::process::id())["addresses"], json!([format!("[::1]:{port}")]));
    drop(second);

    fs::remove_dir(&web).unwrap();
    // The processes that other tests start have the second socket until they execute their programs.
    let found = eventually("only the server listens", || {
        let listeners = env.which(&number)["listeners"].as_array().unwrap().clone();
        (listeners.len() == 1).then(|| listeners[0].clone())
    });
    assert_eq!((&found["cwd"], &found["cwd_deleted"]), (&json!(web), &json!(true)));
    let table = env.devport(["which", &number, "--format", "table"]).ok().stdout;
    for part in [format!("{web} (deleted)"), "none: not started by devport".into(), server.id().to_string()] {
        assert!(table.contains(&part), "{part}: {table}");
    }
    kill(server);
}

#[test]
fn processes_that_share_a_port_are_all_listed_and_children_with_the_same_socket_are_not() {
    let env = TestEnv::new();
    let port = env.first_port + 20;
    let script = format!(
        "import os, signal, socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(('127.0.0.1', {port}))
listener.listen()
os.fork()
while True:
    signal.pause()"
    );
    let servers = [(); 2].map(|()| foreign(&env, &env.file(""), &["python3", "-c", &script]));
    let pids: Vec<u32> = servers.iter().map(Child::id).collect();
    let listed = || {
        let view = env.devport(["which", &port.to_string()]);
        (view.code == 0).then(|| view.json()["listeners"].as_array().unwrap().clone())
    };
    until("all are there", || {
        env.processes_with("SO_REUSEPORT").len() == 4 && listed().is_some_and(|listeners| listeners.len() == 2)
    });
    for listener in listed().unwrap() {
        assert!(pids.iter().any(|pid| listener["pid"] == *pid), "{listener}");
    }
    let taken = env.devport(["start", "--key", "a", "--port", &port.to_string(), "--", "true"]);
    let ends: Vec<String> = pids.iter().map(|pid| format!("kill {pid}")).collect();
    let named: Vec<&str> = ends.iter().map(String::as_str).collect();
    let taken = taken.fails(1, &named);
    assert_eq!(taken.stderr.matches("kill ").count(), 2, "{taken:?}");
    for pid in env.processes_with("SO_REUSEPORT") {
        signal(pid, "KILL");
    }
    for mut server in servers {
        server.wait().unwrap();
    }
}

#[test]
fn which_finds_the_service_that_listens_on_another_port_than_its_own() {
    let env = TestEnv::new();
    let other = (env.first_port + 20).to_string();
    env.start("a", &["python3", "-m", "http.server", "--bind", "127.0.0.1", &other]);
    let view = eventually("it listens", || Some(env.devport(["which", &other])).filter(|done| done.code == 0)).json();
    assert_eq!(
        (&view["key"], &view["port"], &view["other_listeners"]),
        (&json!("a"), &json!(env.first_port), &Value::Null)
    );
}

#[test]
fn which_shows_a_service_together_with_a_stranger_on_its_port() {
    let env = TestEnv::new();
    let reserved = env.start("a", &["sleep", "1000"]);
    env.devport(["stop", "a"]).ok();
    let number = reserved["port"].to_string();
    assert_eq!(env.which(&number)["other_listeners"], Value::Null);
    // A separate process that only claims to belong to the service.
    let mut claims = env.command("python3");
    claims.args(["-m", "http.server", "--bind", "127.0.0.1", &number]).stdout(Stdio::null()).stderr(Stdio::null());
    claims.env("DEVPORT_HASH", reserved["hash"].as_str().unwrap());
    let claims = claims.spawn().unwrap();
    until("it listens", || answers(port(&reserved)));
    let view = env.which(&number);
    assert_eq!((&view["key"], &view["state"]), (&json!("a"), &json!("stopped")));
    let stranger = &view["other_listeners"][0];
    assert_eq!((&stranger["pid"], &stranger["service"]), (&json!(claims.id()), &Value::Null), "{view}");
    let table = env.devport(["which", &number, "--format", "table"]).ok().stdout;
    assert!(table.contains(&format!("also listens  pid {} (", claims.id())), "{table}");
    assert_eq!(env.which("a")["other_listeners"], Value::Null, "the target is not a port");
    kill(claims);
}

#[test]
fn a_listener_of_another_user_is_reported_with_its_user() {
    let env = TestEnv::new();
    if fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) != 0) {
        skip("only root can become another user");
        return;
    }
    let listener = TcpListener::bind(("127.0.0.1", env.first_port + 20)).unwrap();
    let number = listener.local_addr().unwrap().port().to_string();
    // A copy, because the build directory may be private. Another process makes it, as in `write_program`.
    let program = tempfile::Builder::new().prefix("devport-of-another-user").tempdir_in("/tmp").unwrap();
    let copy = program.path().join("devport");
    env.finish(env.command("cp").arg(DEVPORT).arg(&copy)).ok();
    fs::set_permissions(program.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = env.command(&copy);
    command.current_dir("/").env("DEVPORT_HOME", "/tmp/devport-of-another-user").uid(65534).gid(65534);
    let view = env.finish(command.args(["which", &number])).ok().json();
    let hidden = &view["listeners"][0];
    assert_eq!((&hidden["pid"], &hidden["user"], &hidden["command"]), (&Value::Null, &json!("root"), &Value::Null));
    let table = env.finish(command.args(["--format", "table"])).ok().stdout;
    assert!(table.contains("not visible") && !table.contains("not started by devport"), "{table}");
}
