//! Compares a registered service with a request for it.

use std::collections::BTreeMap;

use crate::config::{EnvSource, PortRequest, ServiceSpec, Variables, has_env_file_changed};
use crate::registry::Reservation;
use crate::text::printable;

/// How many names of variables a message has: more would hide the rest of it.
const MOST_NAMES: usize = 3;

/// In what a registered service differs from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The field of `devport.yaml`; `policy` for readiness, restarts, stopping and logs.
    pub(crate) field: &'static str,
    /// What the service has now: "the directory /srv/web".
    pub(crate) now: String,
}

/// Lists in what a service differs from a request. The caller's environment does not count: it differs between
/// terminals.
pub(super) fn differences(service: &Reservation, spec: &ServiceSpec) -> Vec<Difference> {
    let request = &spec.request;
    let mut differences = Vec::new();
    let mut add = |field, now: String| differences.push(Difference { field, now });
    if service.cmd != request.cmd {
        add("exec", format!("the command {}", printable(&shell_words::join(&service.cmd))));
    }
    if service.cwd != request.cwd {
        add("cwd", format!("the directory {}", printable(&service.cwd.display().to_string())));
    }
    if service.one_shot != request.one_shot {
        add("one-shot", if service.one_shot { "a command that ends" } else { "a command that does not end" }.into());
    }
    if service.policy != request.policy {
        add("policy", "other options for readiness, restarts or stopping".into());
    }
    let has_other_port_options =
        service.port_env != request.port_env || service.no_port != (request.port == PortRequest::NoPort);
    if has_other_port_options {
        add("port", "other port options".into());
    }
    if matches!(request.port, PortRequest::Exactly(port) if port != service.port) {
        add("port", format!("port {}", service.port));
    }
    if service.scheme != request.scheme {
        add("scheme", format!("the scheme {}", service.scheme.as_deref().unwrap_or("http")));
    }
    if service.tmux_session != request.tmux_session {
        add("tmux-session", format!("the tmux session {}", printable(service.tmux_session())));
    }
    if service.env_digest != spec.env_digest {
        let has_only_files = request.env.iter().all(|source| matches!(source, EnvSource::File(_)));
        let changed = changed_env_files(service);
        let text = match request.stack {
            Some(_) if !changed.is_empty() => format!("variables from before {} changed", changed.join(", ")),
            Some(_) => "its earlier variables".into(),
            None if has_only_files && !request.env.is_empty() => "variables from before its env files changed".into(),
            None => "other variables of --env, `env` or its env files".into(),
        };
        add("env", text);
    }
    differences
}

/// Returns the dotenv files that have changed since a service was registered.
fn changed_env_files(service: &Reservation) -> Vec<String> {
    let files = service.env_files.iter().zip(&service.env_file_digests);
    let changed = files.filter(|(file, digest)| has_env_file_changed(file, digest));
    changed.map(|(file, _)| file.display().to_string()).collect()
}

/// Says which dotenv files have changed since a service was registered, and which command registers it again; `None` if
/// none has. A start by name uses the recorded variables. `None` for a service of a stack: its whole entry is compared.
pub(super) fn outdated_env_files(service: &Reservation) -> Option<String> {
    let changed = changed_env_files(service);
    if changed.is_empty() || service.stack.is_some() {
        return None;
    }
    let (verb, object) = if changed.len() == 1 { ("has", "it") } else { ("have", "them") };
    let (name, files, line) = (service.name(), changed.join(", "), service.source().replace(&service.cmd));
    Some(format!("{files} {verb} changed since {name} was registered; `{line}` applies {object}"))
}

/// Names the variables in which two environments differ, such as `PATH, NODE_ENV and 3 more`; `None` if they do not.
/// Values are never shown: they may be secrets.
pub(super) fn changed_variables(before: &Variables, now: &Variables) -> Option<String> {
    let (before, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (before.iter().collect(), now.iter().collect());
    let mut names: Vec<&str> =
        now.iter().filter(|(name, value)| before.get(*name) != Some(*value)).map(|(name, _)| *name).collect();
    names.extend(before.keys().filter(|name| !now.contains_key(*name)));
    let shown: Vec<String> = names.iter().take(MOST_NAMES).map(|name| printable(name)).collect();
    match names.len() {
        0 => None,
        count if count > MOST_NAMES => Some(format!("{} and {} more", shown.join(", "), count - MOST_NAMES)),
        _ => Some(shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_variables_are_named_without_their_values() {
        let variables = |pairs: &[(&str, &str)]| {
            let mut variables = Variables::default();
            for (name, value) in pairs {
                variables.set(name, value);
            }
            variables
        };
        let before = variables(&[("A", "secret"), ("B", "2"), ("C", "3")]);
        assert_eq!(changed_variables(&before, &before), None);
        assert_eq!(changed_variables(&before, &variables(&[("A", "1"), ("B", "2")])).unwrap(), "A, C");
        let many = variables(&[("V", ""), ("W", ""), ("X", ""), ("Y", ""), ("Z", "")]);
        assert_eq!(changed_variables(&Variables::default(), &many).unwrap(), "V, W, X and 2 more");
    }
}
