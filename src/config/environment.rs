//! Environments: the caller's, the part that a service keeps, and the child's.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::agent_marker::{agent, is_agent_marker};
use crate::config::expand::expand;
use crate::config::span::Span;
use crate::error::{Error, Result};
use crate::identity::{Key, ServiceHash};
use crate::os::tree::{HASH_VARIABLE, HOME_VARIABLE};

/// Variables that describe the caller's shell or terminal. The service's terminal is another one.
const OF_THE_CALLER: [&str; 9] =
    ["STY", "_", "SHLVL", "OLDPWD", "COLUMNS", "LINES", "PWD", "TERM_PROGRAM", "TERM_PROGRAM_VERSION"];
/// Tailscale's credentials: never recorded, never passed on.
const CREDENTIALS: [&str; 5] = [
    "TAILSCALE_API_KEY",
    "TAILSCALE_OAUTH_CLIENT_SECRET",
    "TAILSCALE_IDENTITY_TOKEN",
    "TS_AUTHKEY",
    "TS_CLIENT_SECRET",
];
/// How every Tailscale key begins.
pub(crate) const CREDENTIAL_PREFIX: &str = "tskey-";
/// A variable for devport's own tests: the time between the heartbeats of a supervisor, such as `50ms`. Supervisors
/// inherit it, and services do not.
const HEARTBEAT: &str = "DEVPORT_TEST_HEARTBEAT";
/// The variable with the port, unless the service names another one.
pub(crate) const PORT_VARIABLE: &str = "PORT";

/// Host names that Vite accepts in addition to its own, or it responds with 403. Vite 8 reads a list with commas; from 6.1 on,
/// Vite reads one name. Source: `resolveServerOptions` in `packages/vite/src/node/server/index.ts`.
pub(crate) const VITE_HOSTS: &str = "__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS";

/// The environment of the devport command, read once in `main`.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallerEnvironment(Vec<(OsString, OsString)>);

impl CallerEnvironment {
    /// Takes the environment as the system passes it.
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// Returns a variable; `None` if it is unset or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// Returns the home directory; `None` if it is unset or relative.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.get("HOME").map(Path::new).filter(|home| home.is_absolute())
    }

    /// Returns the time between heartbeats that a test sets; `None` for the standard one.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        let span: Span = self.get(HEARTBEAT)?.to_str()?.parse().ok()?;
        Some(span.0).filter(|duration| !duration.is_zero())
    }

    /// Returns the name of the coding agent that runs the command; `None` if the environment names none.
    pub(crate) fn agent(&self) -> Option<String> {
        agent(|name| self.get(name))
    }

    /// Returns the variables that a service keeps: all except those of the caller's shell or terminal, the markers of
    /// coding agents, and credentials.
    ///
    /// # Errors
    /// If a variable is not UTF-8: a record could not hold it unchanged.
    pub(crate) fn for_services(&self) -> Result<Variables> {
        let mut kept = Variables::default();
        for (name, value) in &self.0 {
            let Some(name) = name.to_str() else {
                return Err(Error::NotUtf8 {
                    what: "the name of a variable".into(),
                    lossy: name.to_string_lossy().into_owned(),
                });
            };
            let is_of_the_caller =
                name == HEARTBEAT || name.starts_with("TMUX") || OF_THE_CALLER.contains(&name) || is_agent_marker(name);
            if is_of_the_caller || CREDENTIALS.contains(&name) {
                continue;
            }
            let Some(value) = value.to_str() else {
                return Err(Error::NotUtf8 { what: format!("the value of the variable {name}"), lossy: String::new() });
            };
            kept.set(name, value);
        }
        Ok(kept)
    }

    /// Returns all variables except credentials, for a tool that must behave as in the caller's shell.
    pub(crate) fn for_tools(&self) -> Vec<(OsString, OsString)> {
        self.0
            .iter()
            .filter(|(name, value)| !is_secret(&name.to_string_lossy(), &value.to_string_lossy()))
            .cloned()
            .collect()
    }

    /// Returns the variables for a program that outlives this command: paths, terminal and locale, nothing that could
    /// be secret. A tmux server passes its environment to every window.
    pub(crate) fn for_background(&self) -> Vec<(OsString, OsString)> {
        const HARMLESS: [&str; 17] = [
            "HOME",
            "PATH",
            "USER",
            "LOGNAME",
            "SHELL",
            "TERM",
            "COLORTERM",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TMUX",
            "TMUX_PANE",
            "TMUX_TMPDIR",
            "TMPDIR",
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            HEARTBEAT,
        ];
        let harmless =
            |name: &OsStr| name.to_str().is_some_and(|name| HARMLESS.contains(&name) || name.starts_with("LC_"));
        self.0.iter().filter(|(name, _)| harmless(name)).cloned().collect()
    }
}

/// Returns whether a variable is a credential, which must never be recorded, passed on or shown.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    CREDENTIALS.contains(&name) || value.contains(CREDENTIAL_PREFIX)
}

/// An environment as a record keeps it: a list of `NAME=value` in order, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Variables(Vec<String>);

impl Variables {
    /// Sets a variable; an existing one keeps its position.
    pub(crate) fn set(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) {
        let name = name.as_ref();
        let entry = format!("{name}={}", value.as_ref());
        match self.0.iter_mut().find(|entry| entry.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }

    /// Sets variables; later values replace earlier ones. A dotenv file may have 100,000 of them: setting one at a time
    /// would take minutes.
    pub(crate) fn set_all(&mut self, variables: Vec<(String, String)>) {
        let place = |(place, entry): (usize, &String)| entry.split_once('=').map(|(name, _)| (name.to_owned(), place));
        let mut places: HashMap<String, usize> = self.0.iter().enumerate().filter_map(place).collect();
        for (name, value) in variables {
            let entry = format!("{name}={value}");
            match places.entry(name) {
                Entry::Occupied(place) => self.0[*place.get()] = entry,
                Entry::Vacant(place) => {
                    place.insert(self.0.len());
                    self.0.push(entry);
                }
            }
        }
    }

    /// Removes the variables with these names.
    pub(super) fn unset_all(&mut self, variables: &[(String, String)]) {
        if self.0.is_empty() {
            return;
        }
        let names: HashSet<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        self.0.retain(|entry| entry.split_once('=').is_none_or(|(name, _)| !names.contains(name)));
    }

    /// Returns the value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Returns whether there are no variables, which records omit.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn drop_secrets(&mut self) {
        self.0.retain(|entry| entry.split_once('=').is_none_or(|(name, value)| !is_secret(name, value)));
    }

    /// Returns names and values in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|entry| entry.split_once('='))
    }

    /// Adds a host name to those that Vite accepts, unless they include it.
    fn allow_host(&mut self, host: &str) {
        let hosts = self.iter().find(|(name, _)| *name == VITE_HOSTS).map_or("", |(_, hosts)| hosts).to_owned();
        if !allows_host(&hosts, host) {
            let separator = if hosts.is_empty() { "" } else { "," };
            self.set(VITE_HOSTS, format!("{hosts}{separator}{host}"));
        }
    }

    /// Returns the environment of a child: these variables, with devport's own over them.
    pub(crate) fn for_child(&self, own: &ChildVariables<'_>) -> Vec<(String, String)> {
        let mut all = self.clone();
        all.drop_secrets();
        let port_variable = own.port_env.unwrap_or(PORT_VARIABLE);
        if let Some(port) = own.port {
            all.set(port_variable, port.to_string());
            all.set("DEVPORT_URL", local_url(own.scheme, port));
        } else {
            all.0.retain(|entry| !entry.starts_with("DEVPORT_URL="));
        }
        match own.key {
            Some(key) => all.set("DEVPORT_KEY", key.as_str()),
            None => all.0.retain(|entry| !entry.starts_with("DEVPORT_KEY=")),
        }
        all.set(HASH_VARIABLE, own.hash.as_str());
        all.set(HOME_VARIABLE, own.home.to_string_lossy());
        all.set("PWD", own.cwd.to_string_lossy());
        for (name, value) in own.at_spawn.iter().filter(|(name, _)| own.port.is_none() || *name != port_variable) {
            let value = expand(value, |name| all.get(name));
            all.set(name, value);
        }
        all.drop_secrets();
        if let Some(host) = own.tailnet_host {
            all.allow_host(host);
        }
        if let Some(term) = own.term {
            all.set("TERM", term);
        }
        all.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Returns whether a value of [`VITE_HOSTS`] includes a host. Like Vite, takes `.example.com` for all names below it.
pub(crate) fn allows_host(hosts: &str, host: &str) -> bool {
    let is_match = |allowed: &str| {
        host == allowed.trim_start_matches('.') || (allowed.starts_with('.') && host.ends_with(allowed))
    };
    hosts.split(',').map(str::trim).any(|allowed| !allowed.is_empty() && is_match(allowed))
}

/// Returns the address of a service on this machine. Without a scheme it is `http`.
pub(crate) fn local_url(scheme: Option<&str>, port: u16) -> String {
    [scheme.unwrap_or("http"), "://localhost:", &port.to_string()].concat()
}

/// The variables that devport sets for a child.
#[derive(Debug)]
pub(crate) struct ChildVariables<'a> {
    /// The service's port; `None` if it has none.
    pub(crate) port: Option<u16>,
    /// The variable with the port; `None` for `PORT`.
    pub(crate) port_env: Option<&'a str>,
    /// The scheme of its address; `None` for `http`.
    pub(crate) scheme: Option<&'a str>,
    /// Variables of the service with values that are expanded now.
    pub(crate) at_spawn: &'a Variables,
    /// The service's key, if it has one.
    pub(crate) key: Option<&'a Key>,
    pub(crate) hash: &'a ServiceHash,
    /// The state directory, so that `devport` commands of the child find the same services.
    pub(crate) home: &'a Path,
    pub(crate) cwd: &'a Path,
    /// The service's host name on the tailnet; `None` if it is not published.
    pub(crate) tailnet_host: Option<&'a str>,
    /// The terminal type of the supervisor; `None` if it has no terminal.
    pub(crate) term: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(variables: &[(&str, &str)]) -> CallerEnvironment {
        CallerEnvironment::new(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    static NONE: Variables = Variables(Vec::new());

    fn child_variables(hash: &ServiceHash) -> ChildVariables<'_> {
        ChildVariables {
            scheme: None,
            at_spawn: &NONE,
            port: Some(19042),
            port_env: None,
            key: None,
            hash,
            home: Path::new("/h"),
            cwd: Path::new("/w"),
            tailnet_host: None,
            term: None,
        }
    }

    #[test]
    fn the_callers_environment_is_kept_but_for_its_shell_and_terminal() {
        let kept = caller(&[
            ("PATH", "/a:/b"),
            ("TMUX", "x"),
            ("TMUX_PANE", "%1"),
            ("SHLVL", "2"),
            ("TERM_PROGRAM", "vscode"),
            ("CLAUDECODE", "1"),
            ("AI_AGENT", "codex"),
            ("_", "/x"),
            ("EMPTY", ""),
            ("EQ", "a=b"),
        ]);
        let kept = kept.for_services().unwrap();
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("PATH", "/a:/b"), ("EMPTY", ""), ("EQ", "a=b")]);
    }

    #[test]
    fn credentials_are_never_kept() {
        let mut kept = caller(&[("TS_AUTHKEY", "x"), ("TAILSCALE_API_KEY", "y"), ("MINE", "see tskey-auth-1")])
            .for_services()
            .unwrap();
        kept.set("FROM_DOTENV", "tskey-api-2");
        kept.drop_secrets();
        assert_eq!(kept, Variables::default());
    }

    #[test]
    fn a_variable_that_is_not_utf8_is_refused_without_its_value() {
        use std::os::unix::ffi::OsStringExt;
        let environment = CallerEnvironment::new([("BAD".into(), OsString::from_vec(vec![b's', 0xff]))]);
        let error = environment.for_services().unwrap_err().to_string();
        assert_eq!(error, "the value of the variable BAD is not UTF-8: \"\"");
    }

    #[test]
    fn a_child_gets_its_port_and_its_identity() {
        let mut kept = Variables::default();
        kept.set("PORT", "3000");
        kept.set("DEVPORT_KEY", "of-the-caller");
        let hash = ServiceHash::of_key(&Key::new("a").unwrap());
        let child = kept.for_child(&child_variables(&hash));
        let get = |name: &str| child.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(get("PORT"), Some("19042"));
        assert_eq!(get("DEVPORT_URL"), Some("http://localhost:19042"));
        assert_eq!(get("DEVPORT_HASH"), Some(hash.as_str()));
        assert_eq!(get("DEVPORT_KEY"), None);
        assert_eq!(get("PWD"), Some("/w"));
    }

    #[test]
    fn a_published_child_accepts_its_host_name_beside_those_of_the_user() {
        let hash = ServiceHash::of_key(&Key::new("a").unwrap());
        let own = ChildVariables { tailnet_host: Some("shop.t.ts.net"), ..child_variables(&hash) };
        for (before, after) in [
            (None, "shop.t.ts.net"),
            (Some(""), "shop.t.ts.net"),
            (Some("a.test, .b.test"), "a.test, .b.test,shop.t.ts.net"),
            (Some("a.test,shop.t.ts.net"), "a.test,shop.t.ts.net"),
            (Some(".ts.net"), ".ts.net"),
            (Some("op.t.ts.net"), "op.t.ts.net,shop.t.ts.net"),
        ] {
            let mut kept = Variables::default();
            if let Some(before) = before {
                kept.set(VITE_HOSTS, before);
            }
            assert!(kept.for_child(&own).contains(&(VITE_HOSTS.into(), after.into())), "{before:?}");
            assert_eq!(
                kept.for_child(&child_variables(&hash)).iter().any(|(name, _)| name == VITE_HOSTS),
                before.is_some()
            );
        }
    }

    #[test]
    fn values_that_refer_to_the_port_are_expanded_for_the_child() {
        let (mut kept, mut at_spawn) = (Variables::default(), Variables::default());
        kept.set("PATH", "/bin");
        at_spawn.set("PATH", "/p$PORT:$PATH");
        at_spawn.set("AGAIN", "${PATH}!$$PORT");
        at_spawn.set("PORT", "1$PORT");
        at_spawn.set("SECRET", "${PORT:-x}tskey-1");
        let hash = ServiceHash::of_key(&Key::new("a").unwrap());
        let child =
            kept.for_child(&ChildVariables { at_spawn: &at_spawn, scheme: Some("https"), ..child_variables(&hash) });
        let get = |name: &str| child.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(get("DEVPORT_URL"), Some("https://localhost:19042"));
        assert_eq!(get("PATH"), Some("/p19042:/bin"));
        assert_eq!(get("AGAIN"), Some("/p19042:/bin!$PORT"));
        assert_eq!((get("PORT"), get("SECRET")), (Some("19042"), None));
    }

    #[test]
    fn without_a_port_an_inherited_one_is_left_alone() {
        let mut kept = Variables::default();
        kept.set("PORT", "3000");
        let hash = ServiceHash::of_key(&Key::new("a").unwrap());
        let child = kept.for_child(&ChildVariables { port: None, ..child_variables(&hash) });
        assert!(child.contains(&("PORT".into(), "3000".into())));
    }

    #[test]
    fn what_outlives_a_command_gets_nothing_that_could_be_a_secret() {
        let names: Vec<_> =
            caller(&[("HOME", "/h"), ("SECRET", "s"), ("LC_ALL", "C"), ("AWS_KEY", "k")]).for_background();
        assert_eq!(names, [("HOME".into(), "/h".into()), ("LC_ALL".into(), "C".into())]);
    }
}
