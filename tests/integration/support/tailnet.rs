//! `Tailnet`: a machine on its own tailnet. The program and the API are stand-ins (`tests/standins`).

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Map, Value};

use crate::support::{Done, TestEnv, write_program};

/// The key that the stand-in accepts.
pub(crate) const KEY: &str = "tskey-api-GOOD";
/// The secret of the OAuth client that it accepts.
pub(crate) const CLIENT_SECRET: &str = "tskey-client-GOOD";
/// The token that it issues to that client.
pub(crate) const TOKEN: &str = "opaque-TOKEN";

/// A machine with a service `a`, and the state of its tailnet.
pub(crate) struct Tailnet {
    pub(crate) env: TestEnv,
    api: Child,
}

impl Tailnet {
    /// A connected, tagged machine with an API key.
    pub(crate) fn new() -> Self {
        let mut env = TestEnv::new();
        fs::create_dir(env.path("tailnet")).unwrap();
        fs::create_dir(env.path("bin")).unwrap();
        let standins = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/standins");
        let program = env.path("bin/tailscale");
        let script = format!(
            "#!/bin/sh\nexec python3 -S -B {} {} \"$@\"\n",
            standins.join("tailscale.py").display(),
            env.path("tailnet").display()
        );
        write_program(program, &script);
        env.prefer_programs_of(&env.path("bin"));
        let mut api = env
            .command("python3")
            .args(["-S", "-B"])
            .arg(standins.join("api.py"))
            .arg(env.path("tailnet"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(api.stdout.take().unwrap()).read_line(&mut port).unwrap();
        env.set("TAILSCALE_BASE_URL", &format!("http://127.0.0.1:{}", port.trim()));
        env.set("TAILSCALE_API_KEY", KEY);
        Self { env, api }
    }

    /// The same with a running service `a`.
    pub(crate) fn with_service() -> Self {
        let tailnet = Self::new();
        tailnet.env.start("a", &["sleep", "1000"]);
        tailnet
    }

    pub(crate) fn devport(&self, arguments: &[&str]) -> Done {
        self.env.devport(arguments)
    }

    /// Changes the state of the stand-ins.
    pub(crate) fn set(&self, name: &str, value: Value) {
        let mut state = self.raw();
        state.insert(name.into(), value);
        fs::write(self.env.path("tailnet/state.json"), serde_json::to_string(&state).unwrap()).unwrap();
    }

    fn raw(&self) -> Map<String, Value> {
        fs::read(self.env.path("tailnet/state.json"))
            .map(|bytes| serde_json::from_slice(&bytes).unwrap())
            .unwrap_or_default()
    }

    /// Returns the state of the stand-ins.
    pub(crate) fn get(&self, name: &str) -> Value {
        self.raw().get(name).cloned().unwrap_or(Value::Null)
    }

    /// Returns the arguments of the program's calls so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.env.path("tailnet/calls.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let call: Value = serde_json::from_str(line).unwrap();
                let words = call["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
                words.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    /// Returns the method and path of the API requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.env.path("tailnet/requests.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let request: Value = serde_json::from_str(line).unwrap();
                format!("{} {}", request["method"].as_str().unwrap(), request["path"].as_str().unwrap())
            })
            .collect()
    }

    /// The id of service `a`.
    pub(crate) fn id(&self) -> String {
        self.env.which("a")["hashid"].as_str().unwrap().to_owned()
    }

    /// The name of service `a` on the tailnet.
    pub(crate) fn service(&self) -> String {
        format!("svc:{}", self.id())
    }

    /// Returns what the program serves under a name; null if nothing.
    pub(crate) fn served(&self, name: &str) -> Value {
        self.get("serve")["Services"][name].clone()
    }

    pub(crate) fn is_advertised(&self, name: &str) -> bool {
        self.get("advertised").as_array().is_some_and(|names| names.iter().any(|other| other == name))
    }

    /// Asserts that nothing of a service is on the tailnet or reported as being there.
    #[track_caller]
    pub(crate) fn assert_nothing(&self, name: &str) {
        assert_eq!(self.served(name), Value::Null, "served");
        assert!(!self.is_advertised(name), "advertised");
        assert_eq!(self.get("definitions")[name], Value::Null, "defined");
        for view in self.env.ls() {
            assert_eq!((&view["tailnet"], &view["tailnet_url"]), (&Value::Bool(false), &Value::Null), "recorded");
        }
    }
}

impl Drop for Tailnet {
    fn drop(&mut self) {
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}
