//! `devport tailup`, `taildown` and `--tailnet`, on stand-ins for the `tailscale` program and the API.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tailnet::{CLIENT_SECRET, KEY, TOKEN, Tailnet};
use crate::support::{DEVPORT, has_program, port, write_program};

/// A fault: the response to a request, once.
fn fault(method: &str, path: &str, status: u16, body: &str) -> Value {
    json!({ "method": method, "path": path, "status": status, "body": body })
}

#[test]
fn tailup_defines_serves_approves_and_records_in_this_order() {
    let tailnet = Tailnet::with_service();
    let (id, name) = (tailnet.id(), tailnet.service());
    let port = port(&tailnet.env.which("a"));
    let view = tailnet.devport(&["tailup", "a"]).ok().json();
    assert_eq!((&view["tailnet"], &view["url"]), (&json!(true), &json!(format!("https://{id}.tail1234.ts.net"))));
    assert_eq!(tailnet.env.which("a")["url"], view["url"]);
    let served = tailnet.served(&name);
    assert_eq!(served["TCP"], json!({ "443": { "HTTPS": true } }));
    let handlers = &served["Web"][format!("{id}.tail1234.ts.net:443")]["Handlers"];
    assert_eq!(handlers, &json!({ "/": { "Proxy": format!("http://localhost:{port}") } }));
    assert!(tailnet.is_advertised(&name));
    let definition = &tailnet.get("definitions")[&name];
    assert_eq!(definition["ports"], json!(["tcp:443"]));
    assert!(definition["comment"].as_str().unwrap().contains("devport on dev (node n292kg92CNTRL"), "{definition}");
    assert_eq!(tailnet.get("approved")[&name], json!(["n292kg92CNTRL"]));
    let path = format!("/api/v2/tailnet/-/services/{name}");
    let device = format!("{path}/device/n292kg92CNTRL/approved");
    assert_eq!(tailnet.requests(), [format!("GET {path}"), format!("PUT {path}"), format!("POST {device}")]);
    let calls = tailnet.calls();
    assert_eq!(calls[0], "status --json --peers=false");
    let serve = calls.iter().position(|call| *call == format!("serve --service={name} http://localhost:{port}"));
    assert_eq!(calls[serve.unwrap() + 1], "serve status --json", "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains("reset") || call.ends_with("off")), "{calls:?}");
}

#[test]
fn tailup_again_and_twice_at_once_changes_nothing() {
    let tailnet = Tailnet::with_service();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| tailnet.devport(&["tailup", "a"]).ok());
        }
    });
    let (serve, definitions) = (tailnet.get("serve"), tailnet.get("definitions"));
    tailnet.devport(&["tailup", "a"]).ok();
    assert_eq!((tailnet.get("serve"), tailnet.get("definitions")), (serve, definitions));
    assert_eq!(tailnet.requests().iter().filter(|request| request.starts_with("PUT")).count(), 1);
    assert_eq!(tailnet.get("advertised"), json!([tailnet.service()]));
}

#[test]
fn taildown_leaves_nothing_and_is_idempotent() {
    let tailnet = Tailnet::with_service();
    tailnet.devport(&["tailup", "a"]).ok();
    let view = tailnet.devport(&["taildown", "a"]).ok().json();
    assert_eq!(
        (&view["tailnet"], &view["tailnet_url"], &view["status"]),
        (&json!(false), &Value::Null, &json!("running"))
    );
    tailnet.assert_nothing(&tailnet.service());
    let calls = tailnet.calls();
    let at = |start: &str| calls.iter().position(|call| call.starts_with(start)).unwrap();
    assert!(at("serve drain") < at("serve clear"));
    tailnet.devport(&["taildown", "a"]).ok();
    tailnet.devport(&["tailup", "a"]).ok();
}

#[test]
fn the_declared_port_follows_the_kind() {
    let tailnet = Tailnet::with_service();
    let (id, name, port) = (tailnet.id(), tailnet.service(), port(&tailnet.env.which("a")));
    let up = |option: &[&str]| tailnet.devport(&[&["tailup", "a"], option].concat()).ok().json()["url"].clone();
    assert_eq!(up(&["--tcp"]), format!("tcp://{id}.tail1234.ts.net:{port}"));
    assert_eq!(tailnet.get("definitions")[&name]["ports"], json!([format!("tcp:{port}")]));
    let forward = json!({ port.to_string(): { "TCPForward": format!("localhost:{port}") } });
    assert_eq!(tailnet.served(&name)["TCP"], forward);
    assert_eq!(up(&[]), format!("tcp://{id}.tail1234.ts.net:{port}"), "it stays what it is");
    assert_eq!(up(&["--http"]), format!("http://{id}.tail1234.ts.net"));
    assert_eq!(tailnet.get("definitions")[&name]["ports"], json!(["tcp:80"]));
    assert_eq!(tailnet.served(&name)["TCP"], json!({ "80": { "HTTP": true } }));
    assert_eq!(up(&["--https"]), format!("https://{id}.tail1234.ts.net"));
    tailnet.devport(&["tailup", "--http", "--tcp", "a"]).fails(2, &["cannot be used with"]);
}

#[test]
fn a_machine_that_may_not_host_services_gets_the_reason_and_nothing_is_left() {
    let tailnet = Tailnet::with_service();
    let name = tailnet.service();
    for (setting, value, restored, says) in [
        ("tags", json!([]), json!(["tag:x"]), ["has no tag", "tailscale serve --bg --https="]),
        ("state", json!("NeedsLogin"), json!("Running"), ["logged out", "tailscale login"]),
        ("state", json!("Stopped"), json!("Running"), ["is stopped", "tailscale up"]),
        ("state", json!("NeedsMachineAuth"), json!("Running"), ["not approved the machine", "admin/machines"]),
        ("state", json!("NoState"), json!("Running"), ["still starting", "try again"]),
        ("daemon", json!(false), json!(true), ["does not respond", "start tailscaled"]),
        ("version", json!("1.84.2"), json!("1.102.3"), ["tailscale 1.84.2 is too old", "1.86"]),
        ("knows_services", json!(false), json!(true), ["too old", "update"]),
        ("https", json!(false), json!(true), ["HTTPS is not enabled", "--http"]),
        (
            "prompts",
            json!(true),
            json!(false),
            ["HTTPS is not enabled", "login.tailscale.com/f/serve?node=n292kg92CNTRL"],
        ),
        ("denied", json!(true), json!(false), ["Access denied", "--operator=$USER"]),
        ("conflicts", json!(100), json!(0), ["another program keeps changing", "try again"]),
        ("post_fails", json!("netMap is nil"), json!(""), ["netMap is nil", "`tailscale serve`"]),
    ] {
        tailnet.set(setting, value);
        tailnet.devport(&["tailup", "a"]).fails(1, &says);
        tailnet.set(setting, restored);
        tailnet.assert_nothing(&name);
    }
    tailnet.devport(&["tailup", "a"]).ok();
}

#[test]
fn without_the_program_the_error_says_so() {
    let mut tailnet = Tailnet::with_service();
    tailnet.env.set("PATH", "/nowhere");
    tailnet.devport(&["tailup", "a"]).fails(1, &["there is no tailscale in PATH", "https://tailscale.com/download"]);
    tailnet.devport(&["taildown", "a"]).ok();
}

#[test]
fn a_concurrent_edit_is_retried_and_warnings_are_no_failure() {
    let tailnet = Tailnet::with_service();
    tailnet.set("conflicts", json!(3));
    tailnet.set("noise", json!(true));
    let done = tailnet.devport(&["tailup", "a"]).ok();
    assert_eq!(done.stderr, "");
    assert_eq!(tailnet.get("conflicts"), json!(0));
}

#[test]
fn a_program_that_hangs_is_ended_after_15_s() {
    let tailnet = Tailnet::with_service();
    let began = Instant::now();
    tailnet.set("prompts", json!(true));
    tailnet.set("prompt_waits", json!(true));
    tailnet.devport(&["tailup", "a"]).fails(1, &["HTTPS is not enabled", "f/serve?node="]);
    assert!(began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
    tailnet.set("prompts", json!(false));
    tailnet.assert_nothing(&tailnet.service());
    assert!(tailnet.env.processes_with(tailnet.env.path("tailnet").to_str().unwrap()).len() <= 1, "only the API");
}

#[test]
fn a_silent_daemon_and_a_silent_server_are_waited_for_15_s() {
    let tailnet = Tailnet::with_service();
    let silent = Tailnet::with_service();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tailnet.set("hangs", json!(["status"]));
            tailnet.devport(&["tailup", "a"]).fails(1, &["`tailscale status` did not respond within 15 s"]);
            tailnet.set("hangs", json!([]));
            tailnet.assert_nothing(&tailnet.service());
        });
        scope.spawn(|| {
            silent.set("faults", json!([{ "method": "GET", "delay": 1000 }]));
            silent.devport(&["tailup", "a"]).fails(1, &["could not read the definition", "no response within 15 s"]);
            silent.assert_nothing(&silent.service());
        });
    });
}

#[test]
fn every_response_of_the_api_has_its_own_message_and_leaves_nothing() {
    let tailnet = Tailnet::with_service();
    let name = tailnet.service();
    let message = |text: &str| json!({ "message": text }).to_string();
    for (fault, says) in [
        (
            fault("GET", "", 401, &message("API token invalid")),
            ["the key was rejected: API token invalid (401)", "settings/keys"],
        ),
        (fault("PUT", "", 403, &message("no")), ["could not define", "scopes `services` and `devices:core`"]),
        (fault("PUT", "", 404, &message("no")), ["not found (404)", "TAILSCALE_TAILNET"]),
        (
            fault("PUT", "", 409, &message("name in use")),
            ["conflicts with an existing name: name in use (409)", "--tailnet-name"],
        ),
        (fault("PUT", "", 400, &message("bad")), ["the request was refused: bad (400)", "could not define"]),
        (fault("GET", "", 200, "<html>hello</html>"), ["the response is not the API's JSON", "TAILSCALE_BASE_URL"]),
        (fault("GET", "", 404, "<html>hello</html>"), ["a page that was not found", "TAILSCALE_BASE_URL"]),
        (
            json!({ "status": 302, "headers": { "Location": "https://elsewhere/" } }),
            ["redirects to \"https://elsewhere/\" (302)", "not followed"],
        ),
        (
            json!({ "status": 429, "headers": { "Retry-After": "3600" }, "body": message("slow down") }),
            ["too many requests: slow down (429); retry in 3600 s", "try again later"],
        ),
        (json!({ "status": 503, "times": 9, "body": "<html>" }), ["the server failed (503)", "status.tailscale.com"]),
        (fault("POST", "", 401, &message("late")), ["could not approve this machine", "(401)"]),
        (fault("POST", "", 403, &message("late")), ["could not approve this machine", "(403)"]),
        (fault("POST", "", 200, "{\"approved\": false}"), ["could not approve", "approved: true"]),
    ] {
        tailnet.set("faults", json!([fault]));
        tailnet.devport(&["tailup", "a"]).fails(1, &says);
        tailnet.set("faults", json!([]));
        tailnet.assert_nothing(&name);
    }
}

#[test]
fn a_delay_that_the_api_requests_is_respected() {
    let tailnet = Tailnet::with_service();
    let limited = json!({ "status": 429, "headers": { "Retry-After": "1" } });
    tailnet.set("faults", json!([limited, { "status": 502, "body": "<html>" }]));
    let began = Instant::now();
    tailnet.devport(&["tailup", "a"]).ok();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn an_api_that_cannot_be_reached_or_trusted() {
    let mut tailnet = Tailnet::with_service();
    tailnet.env.set("TAILSCALE_BASE_URL", "http://127.0.0.1:9");
    tailnet.devport(&["tailup", "a"]).fails(1, &["could not connect: ", "efused"]);
    tailnet.env.set("TAILSCALE_BASE_URL", "http://example.com");
    tailnet.devport(&["tailup", "a"]).fails(3, &["TAILSCALE_BASE_URL: must be https"]);
    tailnet.assert_nothing(&tailnet.service());
}

#[test]
fn an_approval_that_tailscaled_does_not_learn_of_is_a_failure() {
    let tailnet = Tailnet::with_service();
    tailnet.set("hears", json!(false));
    tailnet.devport(&["tailup", "a"]).fails(1, &["did not learn of it within 10 s"]);
    tailnet.set("hears", json!(true));
    tailnet.assert_nothing(&tailnet.service());
}

#[test]
fn what_is_published_survives_a_tailup_that_fails() {
    let tailnet = Tailnet::with_service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.set("keys", json!([]));
    tailnet.devport(&["tailup", "a"]).fails(1, &["rejected"]);
    assert!(tailnet.is_advertised(&tailnet.service()));
    assert_eq!(tailnet.env.which("a")["tailnet"], true);
}

#[test]
fn a_name_of_another_machine_is_not_taken_over() {
    let tailnet = Tailnet::with_service();
    let name = tailnet.service();
    let theirs = json!({
        "name": name, "addrs": ["100.1.1.1", "fd7a::1"], "ports": ["tcp:443"],
        "comment": "made by devport on laptop (node nOTHERCNTRL, service 0123456789)",
    });
    tailnet.set("definitions", json!({ name.as_str(): theirs }));
    tailnet
        .devport(&["tailup", "a"])
        .fails(1, &["taken", "on laptop (node nOTHERCNTRL", "tailup --tailnet-name NAME a"]);
    assert_eq!(tailnet.get("definitions"), json!({ name.as_str(): theirs }));
    assert_eq!(tailnet.served(&name), Value::Null);
    let view = tailnet.devport(&["tailup", "--tailnet-name", "my-api", "a"]).ok().json();
    assert_eq!(view["url"], "https://my-api.tail1234.ts.net");
    tailnet.devport(&["taildown", "a"]).ok();
    assert_eq!(tailnet.get("definitions"), json!({ name.as_str(): theirs }));
    let again = tailnet.devport(&["tailup", "a"]).ok().json();
    assert_eq!(again["url"], "https://my-api.tail1234.ts.net", "the name is kept");
    tailnet.env.start("b", &["sleep", "1000"]);
    tailnet.devport(&["tailup", "--tailnet-name", "my-api", "b"]).fails(1, &["taken by a, another service"]);
    tailnet.devport(&["tailup", "--tailnet-name", "My_Api", "b"]).fails(2, &["cannot be a name", "1 to 63"]);
}

#[test]
fn a_new_name_comes_before_the_old_one_goes() {
    let tailnet = Tailnet::with_service();
    let old = tailnet.service();
    let theirs =
        json!({ "name": "svc:shop", "addrs": ["100.1.1.1", "fd7a::1"], "ports": ["tcp:443"], "comment": "devport n2" });
    tailnet.set("definitions", json!({ "svc:shop": theirs }));
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.devport(&["tailup", "--tailnet-name", "shop", "a"]).fails(1, &["taken by a service devport n2"]);
    assert!(tailnet.is_advertised(&old), "it still is what it was");
    assert!(tailnet.env.which("a")["url"].as_str().unwrap().starts_with(&format!("https://{}.", tailnet.id())));
    let view = tailnet.devport(&["tailup", "--tailnet-name", "my-shop", "a"]).ok().json();
    assert_eq!(view["url"], "https://my-shop.tail1234.ts.net");
    assert!(!tailnet.is_advertised(&old) && tailnet.served(&old).is_null());
    assert_eq!(tailnet.get("definitions")[&old], Value::Null);
}

#[test]
fn a_change_of_kind_that_fails_leaves_nothing_and_says_so() {
    let tailnet = Tailnet::with_service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.set("post_fails", json!("netMap is nil"));
    let failed =
        tailnet.devport(&["tailup", "--http", "a"]).fails(1, &["netMap is nil", "may be left on this machine"]);
    assert!(failed.stdout.is_empty());
    tailnet.set("post_fails", json!(""));
    assert_eq!(tailnet.env.which("a")["tailnet"], false);
    assert!(!tailnet.is_advertised(&tailnet.service()));
    tailnet.devport(&["tailup", "--http", "a"]).ok();
    // A failure of the last step leaves nothing behind.
    tailnet.set("approved", json!({}));
    tailnet.set("faults", json!([fault("POST", "", 400, "{}")]));
    tailnet.devport(&["tailup", "--https", "a"]).fails(1, &["could not approve"]);
    tailnet.assert_nothing(&tailnet.service());
}

#[test]
fn a_definition_of_an_admin_is_used_and_never_changed() {
    let tailnet = Tailnet::with_service();
    let admins =
        json!({ "name": "svc:shop", "addrs": ["100.1.1.1", "fd7a::1"], "ports": ["tcp:443"], "comment": "the shop" });
    tailnet.set("definitions", json!({ "svc:shop": admins }));
    tailnet
        .devport(&["tailup", "--tailnet-name", "shop", "--http", "a"])
        .fails(1, &["did not create, with tcp:443 only"]);
    tailnet.devport(&["tailup", "--tailnet-name", "shop", "a"]).ok();
    let down = tailnet.devport(&["taildown", "a"]).ok();
    assert!(down.stderr.contains("kept the definition of svc:shop: devport did not create it"), "{down:?}");
    assert_eq!(tailnet.get("definitions"), json!({ "svc:shop": admins }));
    assert_eq!(tailnet.served("svc:shop"), Value::Null);
}

#[test]
fn what_else_this_machine_serves_is_left_alone() {
    let tailnet = Tailnet::with_service();
    let own = json!({ "TCP": { "443": { "HTTPS": true } }, "Web": { "shop.tail1234.ts.net:443": { "Handlers": { "/": { "Proxy": "http://localhost:3000" } } } } });
    tailnet.set("serve", json!({ "Services": { "svc:shop": own } }));
    tailnet
        .devport(&["tailup", "--tailnet-name", "shop", "a"])
        .fails(1, &["taken by another program on this machine", "localhost:3000"]);
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.devport(&["rm", "a"]).ok();
    assert_eq!(tailnet.get("serve"), json!({ "Services": { "svc:shop": own } }));
}

#[test]
fn a_definition_that_other_machines_offer_too_stays() {
    let tailnet = Tailnet::with_service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.set("other_hosts", json!(["nOTHERCNTRL"]));
    let down = tailnet.devport(&["taildown", "a"]).ok();
    assert!(down.stderr.contains("other machines host it too"), "{down:?}");
    assert_ne!(tailnet.get("definitions")[tailnet.service()], Value::Null);
}

#[test]
fn rm_takes_it_off_the_tailnet_and_works_when_that_cannot_be_reached() {
    let tailnet = Tailnet::with_service();
    let name = tailnet.service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.devport(&["rm", "a"]).ok();
    tailnet.assert_nothing(&name);
    tailnet.env.start("a", &["sleep", "1000"]);
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.set("daemon", json!(false));
    let removed = tailnet.devport(&["rm", "a"]).ok();
    for part in
        ["may still be on the tailnet", "does not respond", &format!("tailscale serve drain {name}"), "admin/services"]
    {
        assert!(removed.stderr.contains(part), "{part}: {removed:?}");
    }
    assert_eq!(tailnet.env.ls().len(), 0);
}

#[test]
fn a_failing_taildown_says_so_and_can_be_repeated() {
    let tailnet = Tailnet::with_service();
    let name = tailnet.service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.set("daemon", json!(false));
    tailnet.devport(&["taildown", "a"]).fails(1, &["does not respond"]);
    assert_eq!(tailnet.env.which("a")["tailnet"], true);
    tailnet.set("daemon", json!(true));
    tailnet.set("faults", json!([fault("DELETE", "", 403, "{}")]));
    tailnet.devport(&["taildown", "a"]).fails(1, &["could not delete the definition"]);
    tailnet.devport(&["taildown", "a"]).ok();
    tailnet.assert_nothing(&name);
}

#[test]
fn without_a_key_it_is_served_and_the_message_names_the_administrator() {
    let mut tailnet = Tailnet::with_service();
    tailnet.env.set("TAILSCALE_API_KEY", "");
    let up = tailnet.devport(&["tailup", "a"]).ok();
    let polls = tailnet.calls().iter().filter(|call| *call == "status --json --peers=false").count();
    assert!(polls <= 3, "before, after and for the printed view; it does not wait: {:?}", tailnet.calls());
    assert!(
        up.stderr.contains("no API key") && up.stderr.contains("admin/services") && up.stderr.contains("tcp:443"),
        "{up:?}"
    );
    assert!(tailnet.is_advertised(&tailnet.service()) && tailnet.requests().is_empty());
    let down = tailnet.devport(&["taildown", "a"]).ok();
    assert_eq!(down.stderr, "", "there is no definition to speak of");
    tailnet.assert_nothing(&tailnet.service());
    tailnet.set("auto_approve", json!(true));
    assert_eq!(tailnet.devport(&["tailup", "a"]).ok().stderr, "");
}

#[test]
fn without_a_key_only_a_definition_that_was_made_is_left_to_the_user() {
    let mut tailnet = Tailnet::with_service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.env.set("TAILSCALE_API_KEY", "");
    tailnet.devport(&["tailup", "a"]).ok();
    let down = tailnet.devport(&["taildown", "a"]).ok();
    assert!(
        down.stderr.contains("kept the definition of") && down.stderr.contains("`devport taildown a` again"),
        "{down:?}"
    );
    tailnet.env.set("TAILSCALE_API_KEY", KEY);
    tailnet.devport(&["taildown", "a"]).ok();
    tailnet.assert_nothing(&tailnet.service());
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.env.set("TAILSCALE_API_KEY", "");
    let removed = tailnet.devport(&["rm", "a"]).ok();
    assert!(removed.stderr.contains("delete it at https://") && !removed.stderr.contains("again"), "{removed:?}");
    tailnet.env.start("a", &["sleep", "1000"]);
    tailnet.set("definitions", json!({}));
    tailnet.devport(&["tailup", "a"]).ok();
    let removed = tailnet.devport(&["rm", "a"]).ok();
    assert!(!removed.stderr.contains("definition"), "{removed:?}");
}

/// What a command was started with in the variable for Vite.
fn allowed_hosts(tailnet: &Tailnet) -> String {
    let pid = tailnet.env.which("a")["pid"].to_string();
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let value = environment.split('\0').find_map(|entry| entry.strip_prefix("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS="));
    value.unwrap_or_default().to_owned()
}

#[test]
fn a_published_command_knows_its_host_name_at_every_start() {
    let mut tailnet = Tailnet::new();
    tailnet.env.set("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS", ".example.com");
    let start = ["start", "--tailnet", "--tailnet-name", "shop", "--key", "a", "--", "sleep", "1000"];
    tailnet.devport(&start).ok();
    let both = ".example.com,shop.tail1234.ts.net";
    assert_eq!(allowed_hosts(&tailnet), both, "also the first time, before it is published");
    tailnet.devport(&["restart", "a"]).ok();
    assert_eq!(allowed_hosts(&tailnet), both);
    tailnet.devport(&["taildown", "a"]).ok();
    tailnet.devport(&["signal", "a"]).ok();
    assert_eq!(allowed_hosts(&tailnet), ".example.com", "a restart in place reads the record");
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.devport(&["signal", "a"]).ok();
    assert_eq!(allowed_hosts(&tailnet), both);
    let names = tailnet.devport(&["env", "--show-secrets", "a"]).ok().stdout;
    assert!(names.contains(&format!("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS={both}\n")), "{names}");
    tailnet.devport(&["rm", "a"]).ok();
    tailnet.set("tags", json!([]));
    tailnet.devport(&start).ok();
    assert_eq!(allowed_hosts(&tailnet), both, "it may be published later");
    tailnet.devport(&["start", "--replace", "--key", "a", "--", "sleep", "1000"]).ok();
    assert_eq!(allowed_hosts(&tailnet), ".example.com");
}

#[test]
fn tailup_says_what_a_running_dev_server_needs() {
    let tailnet = Tailnet::new();
    let program = |name: &str| {
        let path = tailnet.env.file(name);
        write_program(&path, "#!/bin/sh\nsleep 1000\n");
        path
    };
    let (vite, next) = (program("vite"), program("next"));
    // The command does not name Vite, but its tree does.
    tailnet.env.start("a", &["sh", "-c", &format!("{vite} --port 1 & wait")]);
    let line = format!("/bin/sh {vite} --port 1 ");
    crate::support::until("Vite runs", || tailnet.env.living(&line).iter().any(|(_, command)| *command == line));
    let host = format!("{}.tail1234.ts.net", tailnet.id());
    let up = tailnet.devport(&["tailup", "a"]).ok();
    assert!(
        up.stderr.contains(&format!("refuses the host {host} until it is started again: `devport restart a`")),
        "{up:?}"
    );
    tailnet.devport(&["restart", "a"]).ok();
    assert_eq!(tailnet.devport(&["tailup", "a"]).ok().stderr, "");
    tailnet.env.start("b", &[&next, "dev"]);
    let up = tailnet.devport(&["tailup", "--tailnet-name", "web", "b"]).ok();
    assert!(up.stderr.contains("allowedDevOrigins: ['web.tail1234.ts.net'],"), "{up:?}");
    tailnet.env.start("c", &["sleep", "1000"]);
    assert_eq!(tailnet.devport(&["tailup", "c"]).ok().stderr, "");
}

#[test]
fn a_published_vite_accepts_its_host_name() {
    if !has_program("vite") {
        return;
    }
    let tailnet = Tailnet::new();
    tailnet.env.write("index.html", "<p>hello</p>");
    let vite = ["vite", "--host", "127.0.0.1", "--port", "$PORT", "--strictPort"];
    let start = |options: &[&str]| {
        tailnet.devport(&[&["start", "--replace", "--wait", "--key", "a"], options, &["--"], &vite].concat()).ok();
    };
    let status = |host: &str| {
        let url = format!("http://127.0.0.1:{}/", tailnet.env.first_port);
        let host = format!("Host: {host}");
        let answer = tailnet.env.finish(tailnet.env.command("curl").args(["-si", "-H", &host, &url]));
        answer.stdout.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    start(&[]);
    assert_eq!(status("web.tail1234.ts.net"), "403", "Vite refuses names that it does not know");
    start(&["--tailnet", "--tailnet-name", "web"]);
    assert_eq!((status("web.tail1234.ts.net").as_str(), status("evil.ts.net").as_str()), ("200", "403"));
}

#[test]
fn a_policy_that_approves_needs_no_right_to_approve() {
    let tailnet = Tailnet::with_service();
    tailnet.set("auto_approve", json!(true));
    tailnet.set("faults", json!([{ "method": "POST", "status": 403, "times": 9, "body": "{}" }]));
    tailnet.devport(&["tailup", "a"]).ok();
}

#[test]
fn start_always_starts_and_warns_with_the_remedy() {
    let tailnet = Tailnet::new();
    tailnet.set("tags", json!([]));
    let started = tailnet.devport(&["start", "--tailnet", "--key", "a b", "--", "sleep", "1000"]).ok();
    assert_eq!((&started.json()["status"], &started.json()["tailnet"]), (&json!("running"), &json!(false)));
    for part in ["not published on the tailnet: this machine has no tag", "hint: ", "retry: devport tailup 'a b'\n"] {
        assert!(started.stderr.contains(part), "{part}: {started:?}");
    }
    tailnet.set("tags", json!(["tag:x"]));
    let again = tailnet.devport(&["start", "--tailnet", "--key", "a b", "--", "sleep", "1000"]).ok().json();
    assert!(again["url"].as_str().unwrap().starts_with("https://"), "{again}");
    let no_port = tailnet.devport(&["start", "--tailnet", "--no-port", "--key", "c", "--", "sleep", "1000"]).ok();
    assert!(no_port.stderr.contains("c has no port to publish"), "{no_port:?}");
    tailnet.devport(&["start", "--tailnet-name", "x", "--key", "d", "--", "sleep", "1000"]).fails(2, &["--tailnet"]);
}

#[test]
fn a_file_publishes_its_services() {
    let tailnet = Tailnet::new();
    let file = tailnet.env.write(
        "devport.yaml",
        "- key: a\n  exec: sleep 1000\n  tailnet: true\n  tailnet-name: shop\n- key: b\n  exec: sleep 1000\n",
    );
    let views = tailnet.devport(&["start", "-f", &file]).ok().json();
    assert_eq!(
        (&views[0]["tailnet_url"], &views[1]["tailnet_url"]),
        (&json!("https://shop.tail1234.ts.net"), &Value::Null)
    );
    let before = tailnet.requests().len();
    tailnet.devport(&["start", "-f", &file]).ok();
    assert_eq!(tailnet.requests().len(), before, "what runs and is published is left as it is");
}

#[test]
fn run_publishes_too() {
    let tailnet = Tailnet::new();
    let child = tailnet.env.spawn(["run", "--tailnet", "--key", "a", "--", "sleep", "1000"]);
    crate::support::until("it is published", || {
        tailnet.env.ls().first().is_some_and(|view| view["tailnet"] == true && view["status"] == "running")
    });
    tailnet.devport(&["stop", "a"]).ok();
    crate::support::done(child).ok();
    assert_eq!(tailnet.env.which("a")["tailnet"], true, "a stop is no removal");
}

#[test]
fn the_record_keeps_it_over_restarts_and_heartbeats() {
    let tailnet = Tailnet::with_service();
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.devport(&["restart", "a"]).ok();
    tailnet.env.start("a", &["sleep", "1000"]);
    assert_eq!(tailnet.env.which("a")["tailnet"], true);
    tailnet.devport(&["taildown", "a"]).ok();
    tailnet.devport(&["restart", "a"]).ok();
    assert_eq!(tailnet.env.which("a")["tailnet"], false);
}

#[test]
fn an_oauth_client_gets_a_token_first() {
    let mut tailnet = Tailnet::with_service();
    tailnet.env.set("TAILSCALE_API_KEY", "");
    tailnet.env.set("TAILSCALE_OAUTH_CLIENT_ID", "client1");
    tailnet.devport(&["tailup", "a"]).fails(3, &["TAILSCALE_OAUTH_CLIENT_SECRET: is not set"]);
    let file = tailnet.env.write("secret", CLIENT_SECRET);
    tailnet.env.set("TAILSCALE_OAUTH_CLIENT_SECRET_FILE", &file);
    tailnet.devport(&["tailup", "a"]).fails(3, &["others can read", "chmod 600"]);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tailnet.devport(&["tailup", "a"]).ok();
    assert_eq!(tailnet.requests()[0], "POST /api/v2/oauth/token");
    assert_eq!(tailnet.requests().iter().filter(|request| request.contains("oauth")).count(), 1);
    tailnet.env.set("TAILSCALE_TAILNET", "T1234CNTRL");
    tailnet.devport(&["taildown", "a"]).ok();
    tailnet.devport(&["tailup", "a"]).ok();
    assert!(tailnet.requests().last().unwrap().contains("/tailnet/T1234CNTRL/services/"));
    tailnet.env.set("TAILSCALE_TAILNET", "foreign");
    tailnet.devport(&["tailup", "a"]).fails(1, &["could not define", "check TAILSCALE_TAILNET"]);
    tailnet.env.set("TAILSCALE_TAILNET", "-");
    tailnet.set("clients", json!({}));
    tailnet.devport(&["tailup", "a"]).fails(1, &["could not get a token for the OAuth client", "(401)"]);
}

#[test]
fn ls_queries_tailscaled_once_for_500_ms_and_only_if_a_service_is_published() {
    let tailnet = Tailnet::with_service();
    tailnet.set("hangs", json!(["status"]));
    let began = Instant::now();
    tailnet.env.ls();
    assert!(began.elapsed() < Duration::from_secs(10) && tailnet.calls().is_empty());
    tailnet.set("hangs", json!([]));
    tailnet.env.start("b", &["sleep", "1000"]);
    tailnet.devport(&["tailup", "a"]).ok();
    tailnet.devport(&["tailup", "b"]).ok();
    let (url, before) = (tailnet.env.which("a")["url"].clone(), tailnet.calls().len());
    assert_eq!(tailnet.env.ls().iter().filter(|view| view["tailnet_url"].is_string()).count(), 2);
    assert!(tailnet.calls().len() <= before + 1);
    tailnet.devport(&["wait", "a", "b", "--timeout", "300ms"]).fails(5, &["2 of 2"]);
    // On a busy machine, tailscaled may not respond in time, and its stand-in not even notice the query.
    assert!(tailnet.calls().len() <= before + 2, "at most two queries");
    tailnet.set("hangs", json!(["status"]));
    let began = Instant::now();
    assert_eq!(tailnet.env.which("a")["url"], url, "it comes from the last response");
    let took = began.elapsed();
    assert!((Duration::from_millis(450)..Duration::from_secs(10)).contains(&took), "{took:?}");
    tailnet.set("hangs", json!([]));
    tailnet.set("suffix", json!("other.ts.net"));
    // On a busy machine, the stand-in may need longer than the 500 ms.
    crate::support::until("the new suffix is shown", || {
        tailnet.env.which("a")["url"].as_str().unwrap().ends_with(".other.ts.net")
    });
}

#[test]
fn no_credential_is_left_anywhere() {
    let mut tailnet = Tailnet::new();
    tailnet.env.set("TAILSCALE_OAUTH_CLIENT_SECRET", CLIENT_SECRET);
    tailnet.env.set("TS_AUTHKEY", "tskey-auth-GOOD");
    let script = "env; echo up; exec sleep 1000";
    let mut shown = String::new();
    let mut take = |tailnet: &Tailnet, arguments: &[&str]| {
        let done = tailnet.devport(arguments);
        shown += &done.stdout;
        shown += &done.stderr;
    };
    take(&tailnet, &["start", "--tailnet", "--key", "a", "--", "sh", "-c", script]);
    crate::support::until("it is up", || tailnet.env.devport(["logs", "a"]).ok().stdout.contains("up"));
    tailnet.set("faults", json!([{ "status": 401, "body": format!("{{\"message\": \"bad key {KEY}\"}}") }]));
    take(&tailnet, &["tailup", "a"]);
    tailnet.set("faults", json!([{ "status": 302, "headers": { "Location": format!("http://x/{KEY}") } }]));
    take(&tailnet, &["tailup", "a"]);
    tailnet.set("post_fails", json!(format!("says {KEY}")));
    take(&tailnet, &["tailup", "a"]);
    tailnet.set("post_fails", json!(""));
    tailnet.env.set("TAILSCALE_API_KEY", "");
    tailnet.env.set("TAILSCALE_OAUTH_CLIENT_ID", "client1");
    tailnet.set(
        "faults",
        json!([{ "path": "services", "status": 403, "body": format!("{{\"message\": \"{TOKEN} {CLIENT_SECRET}\"}}") }]),
    );
    take(&tailnet, &["tailup", "a"]);
    for command in
        [["tailup", "a"], ["ls", "--json"], ["which", "a"], ["logs", "a"], ["restart", "a"], ["taildown", "a"]]
    {
        take(&tailnet, &command);
    }
    assert!(shown.contains("bad key tskey-…") && shown.contains("says tskey-…"), "{shown}");
    let mut places = vec![("what was printed".to_owned(), shown.into_bytes())];
    let mut directories = vec![tailnet.env.path("state"), tailnet.env.path("home"), tailnet.env.path("work")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
            } else {
                places.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    places.push(("calls of tailscale".into(), fs::read(tailnet.env.path("tailnet/calls.jsonl")).unwrap()));
    places.push(("requests".into(), fs::read(tailnet.env.path("tailnet/requests.jsonl")).unwrap()));
    for (pid, _) in tailnet.env.processes() {
        places.push((format!("environment of {pid}"), fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()));
        places.push((format!("arguments of {pid}"), fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()));
    }
    places.push(("tmux".into(), tailnet.env.tmux(&["show-environment", "-g"]).ok().stdout.into_bytes()));
    assert!(places.len() > 12, "{}", places.len());
    for (place, bytes) in places {
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["GOOD", TOKEN] {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
    }
}

#[test]
fn a_command_that_does_not_need_the_tailnet_starts_no_thread_and_sends_nothing() {
    let tailnet = Tailnet::with_service();
    let trace = tailnet.env.file("trace");
    for command in [["ls"].as_slice(), &["which", "a"], &["stop", "a"]] {
        let done = tailnet.env.finish(
            tailnet
                .env
                .command("strace")
                .args(["-f", "-e", "trace=clone,clone3,connect,execve", "-o", &trace, DEVPORT])
                .args(command),
        );
        done.ok();
        let text = fs::read_to_string(&trace).unwrap();
        assert_eq!(text.matches(" execve(").count(), 1, "{text}");
        assert!(!text.contains(" clone") && !text.contains(" connect("), "{text}");
    }
}
