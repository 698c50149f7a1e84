//! The fields of `devport.yaml`: their names, and reading a value of a certain type. What is wrong is added to the
//! mistakes, with its line.

use crate::config::mistakes::Mistakes;
use crate::config::yaml::{Kind, Name, Node, Value};

/// The fields of a service in both forms.
pub(super) const COMMON_FIELDS: [&str; 19] = [
    "exec",
    "cwd",
    "no-port",
    "port",
    "port-env",
    "scheme",
    "tailnet",
    "tailnet-name",
    "env",
    "ready",
    "health",
    "on-unhealthy",
    "restart",
    "backoff",
    "max-restarts",
    "window",
    "stop-signal",
    "grace",
    "log",
];
/// The fields that only a service of a list has.
pub(super) const LIST_FIELDS: [&str; 1] = ["key"];
/// The fields that only a service of a stack has.
pub(super) const STACK_FIELDS: [&str; 3] = ["depends-on", "one-shot", "shared"];
/// The fields of a file in object form.
pub(super) const TOP_FIELDS: [&str; 3] = ["name", "tmux-session", "services"];

/// Returns the known and unrepeated fields of a map. A name is known if it is in one of the lists; `explain` returns
/// what to write instead of an unknown one, if it knows.
pub(super) fn known_fields<'n>(
    fields: &'n [(Name, Node)],
    known: &[&[&'static str]],
    explain: impl Fn(&str) -> Option<String>,
    mistakes: &mut Mistakes,
) -> Vec<(&'static str, usize, &'n Node)> {
    let mut found: Vec<(&'static str, usize, &Node)> = Vec::new();
    for (name, node) in fields {
        let Some(field) = known.iter().copied().flatten().copied().find(|field| *field == name.text) else {
            let advice = match explain(&name.text) {
                Some(advice) => advice,
                None if mistakes.wants_suggestions() => suggestion(&name.text, known),
                None => String::new(),
            };
            mistakes.add(name.line, format!("unknown field `{}`{advice}", shown(&name.text)));
            continue;
        };
        if found.iter().any(|(earlier, ..)| *earlier == field) {
            mistakes.add(name.line, format!("duplicate field `{field}`"));
            continue;
        }
        found.push((field, name.line, node));
    }
    found
}

/// Escapes the name of a field, and shortens a long one.
fn shown(name: &str) -> String {
    crate::text::shorten(&name.escape_debug().to_string())
}

/// Returns the advice about an unknown field: the nearest known one, or all of them.
fn suggestion(name: &str, known: &[&[&'static str]]) -> String {
    let all = || known.iter().copied().flatten().copied();
    match nearest(&name.replace('_', "-").to_lowercase(), all()) {
        Some(field) => format!(", did you mean `{field}`?"),
        None => format!(" (there are {})", all().collect::<Vec<_>>().join(", ")),
    }
}

/// Returns the most similar of the names; `None` if none is similar.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time in the product of the lengths.
    let name: String = name.chars().take(64).collect();
    let distances = names.into_iter().map(|other| (strsim::damerau_levenshtein(&name, other), other));
    distances.min().filter(|(distance, other)| *distance <= other.len() / 2).map(|(_, other)| other)
}

/// Returns the advice about a field of a service that docker compose or another tool has. `is_stack` is whether the
/// file is in object form.
pub(super) fn foreign_service_field(name: &str, is_stack: bool) -> Option<String> {
    let plain = name.replace('_', "-").to_lowercase();
    let meant = match plain.as_str() {
        "command" | "cmd" | "run" | "entrypoint" => "exec",
        "dir" | "directory" | "workdir" | "working-dir" => "cwd",
        "environment" | "env-file" | "envfile" | "dotenv" => "env",
        "depends" | "needs" | "dependson" if is_stack => "depends-on",
        "oneshot" if is_stack => "one-shot",
        "healthcheck" => "health",
        "stop-grace-period" => "grace",
        "name" | "id" if !is_stack => "key",
        "name" | "id" | "key" | "container-name" if is_stack => {
            return Some("; the name of a service is the text before its colon".into());
        }
        "ports" | "expose" => {
            return Some(
                ", did you mean `port`? devport maps no ports: `port` is the one that the service listens on".into(),
            );
        }
        "build" | "image" | "volumes" | "networks" | "deploy" => {
            return Some("; devport runs commands, not containers: write the command into `exec`".into());
        }
        _ if !is_stack && STACK_FIELDS.contains(&plain.as_str()) => {
            return Some("; only a file in object form (`services:`) has it".into());
        }
        _ => return None,
    };
    Some(format!(", did you mean `{meant}`?"))
}

/// Returns the advice about a field of a file in object form that another tool has.
pub(super) fn foreign_top_field(name: &str) -> Option<String> {
    match name {
        "version" | "volumes" | "networks" | "secrets" | "configs" => Some("; devport needs none, remove it".into()),
        "processes" | "daemons" | "tasks" => Some(", did you mean `services`?".into()),
        _ => None,
    }
}

/// Adds that a value has the wrong type.
pub(super) fn wrong_type(node: &Node, expected: &str, mistakes: &mut Mistakes) {
    mistakes.add(node.line, format!("expected {expected}, found {}", node.type_name()));
}

/// Reads a text and checks it.
pub(super) fn text<T>(
    node: &Node,
    expected: &str,
    mistakes: &mut Mistakes,
    check: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    match &node.value {
        Value::Scalar(Kind::Text, text) => mistakes.keep(node.line, check(text)),
        _ => {
            wrong_type(node, expected, mistakes);
            None
        }
    }
}

/// Reads `true` or `false`.
pub(super) fn boolean(node: &Node, mistakes: &mut Mistakes) -> Option<bool> {
    match &node.value {
        Value::Scalar(Kind::Bool, text) => Some(text.eq_ignore_ascii_case("true")),
        // YAML 1.1 has these booleans, YAML 1.2 does not (section 10.3.2).
        Value::Scalar(Kind::Text, text)
            if matches!(text.to_ascii_lowercase().as_str(), "yes" | "on" | "no" | "off") =>
        {
            let meant = matches!(text.to_ascii_lowercase().as_str(), "yes" | "on");
            mistakes.add(node.line, format!("write `{meant}` instead of `{text}`"));
            None
        }
        _ => {
            wrong_type(node, "a boolean (true or false)", mistakes);
            None
        }
    }
}

/// Reads a whole number from 0.
pub(super) fn number<T: TryFrom<u64>>(node: &Node, mistakes: &mut Mistakes) -> Option<T> {
    let number = node.whole_number().and_then(|number| T::try_from(number).ok());
    if number.is_none() {
        wrong_type(node, "a whole number from 0", mistakes);
    }
    number
}

/// Reads a port.
pub(super) fn port(node: &Node, mistakes: &mut Mistakes) -> Option<u16> {
    match node.whole_number() {
        Some(number) => mistakes.keep(node.line, valid_port(number)),
        None => {
            wrong_type(node, "a port in 1024-65535", mistakes);
            None
        }
    }
}

/// Checks the number of a port.
pub(super) fn valid_port(number: u64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port >= 1024);
    port.ok_or_else(|| format!("port {number} is not in 1024-65535"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_page_describes_every_field() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/devport-yaml.md");
        let page = std::fs::read_to_string(page).unwrap();
        for field in [&COMMON_FIELDS[..], &LIST_FIELDS, &STACK_FIELDS, &TOP_FIELDS].concat() {
            assert!(page.contains(&format!("\n| `{field}` | ")), "docs/devport-yaml.md has no row for `{field}`");
        }
    }
}
