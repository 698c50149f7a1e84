//! One service of `devport.yaml`: the fields that both forms have.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::config::declared::variable_name_problem;
use crate::config::fields::{boolean, port, text, valid_port, wrong_type};
use crate::config::mistakes::Mistakes;
use crate::config::policy_fields::read_policy_field;
use crate::config::request::{EnvSource, PortRequest, Request};
use crate::config::yaml::{Kind, Node, Value};
use crate::identity::TailnetName;
use crate::text::shorten;

/// Expands a text that must be known before anything is registered, such as a path. The error is the problem.
pub(super) type ExpandEarly<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// What the fields of a service say, except for the key and what only one of the forms has.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Without its port until [`Self::finish`].
    pub(super) request: Request,
    /// The requested port and its line.
    pub(super) port: Option<(u16, usize)>,
    pub(super) no_port: Option<bool>,
    /// The line of `exec`; `None` if there is none, even an invalid one.
    pub(super) exec_line: Option<usize>,
    /// The line of `cwd`.
    pub(super) cwd_line: Option<usize>,
    /// The lines of the dotenv files.
    pub(super) env_files: Vec<(PathBuf, usize)>,
}

impl Entry {
    /// Reads a service that is written as a command alone.
    pub(super) fn command(node: &Node, mistakes: &mut Mistakes) -> Self {
        let mut entry = Self { exec_line: Some(node.line), ..Self::default() };
        entry.request.cmd = command(node, mistakes);
        entry
    }

    /// Reads the fields that both forms have; others are ignored.
    pub(super) fn read(
        fields: &[(&'static str, usize, &Node)],
        expand: Option<ExpandEarly<'_>>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut entry = Self::default();
        let early = |text: &str| expand.map_or_else(|| Ok(text.to_owned()), |expand| expand(text));
        for &(field, line, node) in fields {
            let request = &mut entry.request;
            match field {
                "exec" => {
                    entry.exec_line = Some(line);
                    request.cmd = command(node, mistakes);
                }
                "cwd" => {
                    if let Some(path) = text(node, "the path of a directory", mistakes, early) {
                        entry.cwd_line = Some(node.line);
                        request.cwd = path.into();
                    }
                }
                "no-port" => entry.no_port = boolean(node, mistakes),
                "port" => entry.port = requested_port(node, expand, mistakes).map(|port| (port, node.line)),
                "port-env" => {
                    // In a list, only the service with the invalid name fails: `ServiceSpec::resolve` checks it.
                    let check = |name: &str| expand.map_or(Ok(name), |_| variable_name(name)).map(str::to_owned);
                    request.port_env = text(node, "the name of a variable", mistakes, check);
                }
                "scheme" => request.scheme = text(node, "a scheme such as https or postgres", mistakes, scheme),
                "tailnet" => request.tailnet = boolean(node, mistakes).unwrap_or_default(),
                "tailnet-name" => {
                    request.tailnet_name = text(node, "a name (put quotes around a number)", mistakes, |name| {
                        TailnetName::new(early(name)?).map_err(|error| error.to_string())
                    });
                }
                "env" => entry.read_env(node, &early, mistakes),
                field => read_policy_field(field, node, &mut request.policy, mistakes),
            }
        }
        entry
    }

    /// Reads a dotenv file, a map, or a list of both.
    fn read_env(&mut self, node: &Node, early: ExpandEarly<'_>, mistakes: &mut Mistakes) {
        let sources = match &node.value {
            Value::List(sources) => sources.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for source in sources {
            match &source.value {
                Value::Map(_) => self.request.env.extend(env_values(source, mistakes).map(EnvSource::Values)),
                _ => {
                    let expected = "the path of a dotenv file, a map of variables, or a list of both";
                    if let Some(path) = text(source, expected, mistakes, |path| dotenv_path(path, early)) {
                        self.env_files.push((path.clone(), source.line));
                        self.request.env.push(EnvSource::File(path));
                    }
                }
            }
        }
    }

    /// Checks the fields against each other and sets the port. `line` is that of the service. `portless` is whether it
    /// has no port unless it requests one.
    pub(super) fn finish(&mut self, line: usize, portless: bool, mistakes: &mut Mistakes) {
        let requests_port = self.port.is_some() || self.request.port_env.is_some();
        let no_port = self.no_port.unwrap_or(portless && !requests_port);
        if let (true, Some((_, port_line))) = (no_port, self.port) {
            mistakes.add(port_line, "`port` and `no-port: true` exclude each other");
        }
        if let Some(contradiction) = self.request.policy.contradiction(!no_port) {
            mistakes.add(line, contradiction);
        }
        self.request.port = PortRequest::new(no_port, self.port.map(|(port, _)| port));
    }
}

/// Adds a mistake for every port that an earlier service requests too.
pub(super) fn check_ports<'a>(entries: impl IntoIterator<Item = &'a Entry>, mistakes: &mut Mistakes) {
    let mut seen: HashMap<u16, usize> = HashMap::new();
    for (port, line) in entries.into_iter().filter_map(|entry| entry.port) {
        if let Some(first) = seen.get(&port) {
            mistakes.add(line, format!("port {port} is already that of the service on line {first}; leave one out"));
        } else {
            seen.insert(port, line);
        }
    }
}

/// Reads a command: a text that is split as a POSIX shell splits words, or a list of words.
fn command(node: &Node, mistakes: &mut Mistakes) -> Vec<String> {
    let words = match &node.value {
        Value::Scalar(Kind::Text, text) => mistakes.keep(node.line, split(text)),
        Value::List(items) => {
            let words: Vec<String> = items.iter().filter_map(|item| word(item, mistakes)).collect();
            (words.len() == items.len()).then_some(words)
        }
        _ => {
            wrong_type(node, "a command or a list of words", mistakes);
            None
        }
    };
    let words = words.unwrap_or_default();
    if words.first().is_some_and(String::is_empty) || matches!(&node.value, Value::List(items) if items.is_empty()) {
        mistakes.add(node.line, "the command is empty");
    }
    if words.iter().any(|word| word.contains('\0')) {
        mistakes.add(node.line, "a word of the command contains a NUL byte");
    }
    words
}

/// Reads a word of a command. Numbers and booleans are words as they are written.
fn word(node: &Node, mistakes: &mut Mistakes) -> Option<String> {
    match &node.value {
        Value::Scalar(kind, text) if *kind != Kind::Null => Some(text.clone()),
        _ => {
            wrong_type(node, "a word of the command", mistakes);
            None
        }
    }
}

/// Splits a command as a POSIX shell splits words.
fn split(exec: &str) -> Result<Vec<String>, String> {
    let words = shell_words::split(exec).map_err(|error| format!("`exec` does not split into words: {error}"))?;
    if words.first().is_none_or(String::is_empty) {
        return Err("the command is empty".into());
    }
    Ok(words)
}

/// Reads a port: a number, or in the object form a text such as `${DB_PORT:-5432}`.
fn requested_port(node: &Node, expand: Option<ExpandEarly<'_>>, mistakes: &mut Mistakes) -> Option<u16> {
    match (&node.value, expand) {
        (Value::Scalar(Kind::Text, text), Some(expand)) if text.contains('$') => {
            let number =
                |text: String| text.trim().parse().map_err(|_| "`port` does not expand to a number".to_owned());
            mistakes.keep(node.line, expand(text).and_then(number).and_then(valid_port))
        }
        _ => port(node, mistakes),
    }
}

/// Checks the scheme of a URL (RFC 3986, 3.1).
fn scheme(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.');
    if text.len() <= 32 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_part) {
        return Ok(text.to_owned());
    }
    Err(format!("{:?} is no scheme; write it like https, postgres or redis", shorten(text)))
}

/// Returns the path of a dotenv file. A `NAME=value` is refused without its value: compose has such lists.
fn dotenv_path(text: &str, early: ExpandEarly<'_>) -> Result<PathBuf, String> {
    if let Some((name, _)) = text.split_once('=').filter(|(name, _)| !name.contains('/')) {
        let name = shorten(name);
        return Err(format!("expected the path of a dotenv file; write a variable as a map: `{name}: value`"));
    }
    early(text).map(PathBuf::from)
}

/// Checks the name of a variable.
fn variable_name(name: &str) -> Result<&str, String> {
    variable_name_problem(name).map_or(Ok(name), |(problem, hint)| Err(format!("{problem}; {hint}")))
}

/// Reads a map of variables. A mistake never contains a value.
fn env_values(node: &Node, mistakes: &mut Mistakes) -> Option<Vec<(String, String)>> {
    let Value::Map(fields) = &node.value else { return None };
    let mut values: Vec<(String, String)> = Vec::new();
    let mut names = HashSet::new();
    for (name, node) in fields {
        if mistakes.keep(name.line, variable_name(&name.text)).is_none() {
            continue;
        }
        if !names.insert(&name.text) {
            mistakes.add(name.line, format!("duplicate variable {}", name.text));
            continue;
        }
        match &node.value {
            Value::Scalar(Kind::Null, _) => {
                mistakes
                    .add(name.line, format!("the variable {0} has no value; write `{0}: \"\"` for none", name.text));
            }
            Value::Scalar(_, value) if value.contains('\0') => {
                mistakes.add(name.line, format!("the variable {} contains a NUL byte", name.text));
            }
            Value::Scalar(_, value) => values.push((name.text.clone(), value.clone())),
            _ => wrong_type(node, &format!("a text, number or boolean for the variable {}", name.text), mistakes),
        }
    }
    Some(values)
}

/// Returns what is wrong with a directory that a service needs; `None` if nothing is.
pub(super) fn directory_problem(path: &Path) -> Option<String> {
    // A relative path of no words is the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some(format!("the directory {} is not a directory", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("the directory {} does not exist; create it, or correct `cwd`", path.display()))
        }
        Err(error) => {
            Some(format!("the directory {} cannot be used: {}", path.display(), crate::error::reason(&error)))
        }
    }
}
