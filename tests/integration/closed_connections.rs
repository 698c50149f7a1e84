//! Ports that closed connections block (`TIME_WAIT`): no process is to blame, and the services start by themselves. Only
//! Linux blocks a port for a bind with `SO_REUSEADDR`.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use serde_json::Value;

use crate::stacks::{at, machine};
use crate::support::{TestEnv, done, port, until};

/// A server that closes each connection first, and does not set `SO_REUSEADDR`.
const SERVER: &str = "
import os, socket
server = socket.socket()
server.bind(('127.0.0.1', int(os.environ['PORT'])))
server.listen()
while True:
    connection, _ = server.accept()
    connection.sendall(b'hello')
    connection.close()
";

/// Starts the server as the service `a`, and waits until it is ready.
fn start(env: &TestEnv) -> Value {
    env.devport(["start", "--wait", "--key", "a", "--", "python3", "-S", "-c", SERVER]).ok().json()
}

/// Makes a request that the server closes: the connection stays in `TIME_WAIT` for 60 s.
fn request(view: &Value) {
    TcpStream::connect(("127.0.0.1", port(view))).unwrap().read_to_end(&mut Vec::new()).unwrap();
}

/// Makes a request that the server closes, and waits until it has. Until the client is closed, the connection stays in
/// `FIN_WAIT2` for 60 s. The client has unread data, so that closing it resets the connection, which frees the port.
fn begin_request(view: &Value) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", port(view))).unwrap();
    // The 5 bytes, or the end of the connection before them.
    until("the server answers", || client.peek(&mut [0; 8]).unwrap() == 5);
    client
}

#[test]
fn a_start_succeeds_and_says_what_blocks_the_port() {
    let env = TestEnv::new();
    let view = start(&env);
    request(&view);
    let reason = format!("port {} is blocked for about a minute by closed connections (TIME_WAIT)", port(&view));
    for command in [&["restart", "a"][..], &["start", "a"], &["start", "--replace", "--key", "a", "--", "true"]] {
        let started = env.devport(command).ok();
        assert!(started.stderr.contains(&format!("a: {reason}")), "{}", started.stderr);
        assert_eq!(started.json()["state"], "port-conflict");
    }
    assert!(env.which("a")["error"].as_str().unwrap().starts_with(&reason));
    env.devport(["wait", "a", "--timeout", "100ms"])
        .fails(5, &["after 0.1 s", &reason, "it starts by itself once its port is free; `devport wait a`"]);
    env.devport(["rm", "a"]).ok();
    let number = port(&view).to_string();
    let again = env.devport(["start", "--key", "a", "--port", &number, "--", "python3", "-S", "-c", SERVER]).ok();
    assert_eq!(again.json()["state"], "port-conflict");
}

/// Has no listener any more, but one open connection beside one in `TIME_WAIT`.
const HOLDER: &str = "
import os, signal, socket, sys
server = socket.socket()
server.bind(('127.0.0.1', int(sys.argv[1])))
server.listen()
for stays in [False, True]:
    client = socket.create_connection(server.getsockname())
    connection, _ = server.accept()
    if not stays:
        connection.close()
        client.close()
server.close()
open('holds', 'w').close()
signal.pause()
";

#[test]
fn a_program_with_an_open_connection_takes_the_port_although_others_are_closed() {
    let env = TestEnv::new();
    let port = env.devport(["reserve", "--key", "a"]).ok().stdout.trim().to_owned();
    let mut holder = env.command("python3").args(["-S", "-c", HOLDER, &port]).spawn().unwrap();
    until("it holds the port", || fs::exists(env.file("holds")).unwrap());
    let owner = format!("port {port} is taken by pid {} (", holder.id());
    env.devport(["start", "--key", "a", "--", "python3", "-S", "-c", SERVER]).fails(1, &[&owner]);
    let view = env.which("a");
    assert!(view["state"] == "port-conflict" && view["error"].as_str().unwrap().starts_with(&owner), "{view}");
    env.devport(["rm", "a"]).ok();
    let end = format!("end it with `kill {}`", holder.id());
    env.devport(["start", "--key", "b", "--port", &port, "--", "sleep", "1000"]).fails(1, &[&owner, &end]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    // What is left of it is closed.
    let started = env.devport(["start", "--key", "b", "--port", &port, "--", "python3", "-S", "-c", SERVER]).ok();
    assert!(started.stderr.contains("(TIME_WAIT)"), "{}", started.stderr);
}

#[test]
fn a_restart_with_wait_goes_on_until_the_port_is_free() {
    let env = TestEnv::new();
    let client = begin_request(&start(&env));
    let restart = env.spawn(["restart", "--wait", "a"]);
    env.wait_state("a", "port-conflict");
    drop(client);
    assert_eq!(done(restart).ok().json()["state"], "ready");
}

#[test]
fn up_waits_within_its_limit_and_then_says_why() {
    let env = machine("services:\n  a: {exec: [python3, -S, server.py]}\n");
    env.write("shop/server.py", SERVER);
    at(&env, "shop", &["up", "-d"]).ok();
    let client = begin_request(&env.which("shop/a"));
    at(&env, "shop", &["down"]).ok();
    let up = at(&env, "shop", &["up", "-d", "--timeout", "3s"])
        .fails(5, &["(TIME_WAIT)", "it starts by itself once its port is free; then run `devport up -d` again"]);
    let (_, after) = up.stderr.split_once("a: shop/a is not ready after ").unwrap();
    let seconds: f64 = after.split_once(" s").unwrap().0.parse().unwrap();
    assert!(seconds <= 3.0, "{up:?}");
    let up = env.spawn(["-C", "shop", "up", "-d"]);
    env.wait_state("shop/a", "port-conflict");
    drop(client);
    assert_eq!(done(up).ok().json()[0]["state"], "ready");
}
