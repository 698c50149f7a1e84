//! Rewrites a list of services as a file in object form.

use std::collections::HashSet;
use std::fmt::Write;

use crate::config::names::LONGEST_NAME;
use crate::config::yaml::{self, Kind, Node, Value};

/// Texts that YAML 1.1 or 1.2 reads as something else than a text.
const SPECIAL: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "y"];

/// Returns the object form of a list of services; `None` if the text is no list.
pub(crate) fn object_form(text: &str) -> Option<String> {
    let Ok(Some(Node { value: Value::List(items), .. })) = yaml::parse(text) else { return None };
    let mut names = HashSet::new();
    let mut form = String::from("services:\n");
    for item in &items {
        let name = unused(name(item)?, &mut names);
        match &item.value {
            Value::Map(fields) => {
                let _ = writeln!(form, "  {}:", quoted(&name));
                for (field, node) in fields.iter().filter(|(field, _)| field.text != "key") {
                    let _ = writeln!(form, "    {}: {}", field.text, inline(node));
                }
            }
            _ => {
                let _ = writeln!(form, "  {}: {}", quoted(&name), inline(item));
            }
        }
    }
    Some(form)
}

/// Returns the name for an entry, from its key or else from its program. Names of services have only some characters.
fn name(item: &Node) -> Option<String> {
    let field = |name: &str| match &item.value {
        Value::Map(fields) => fields.iter().find(|(field, _)| field.text == name).map(|(_, node)| node),
        Value::Scalar(..) | Value::List(_) => None,
    };
    let text = match (field("key").map(|node| &node.value), &item.value) {
        (Some(Value::Scalar(_, key)), _) => key.as_str(),
        (_, Value::Scalar(_, command)) => program(command)?,
        _ => match &field("exec")?.value {
            Value::Scalar(_, command) => program(command)?,
            Value::List(words) => match &words.first()?.value {
                Value::Scalar(_, word) => program(word)?,
                Value::List(_) | Value::Map(_) => return None,
            },
            Value::Map(_) => return None,
        },
    };
    let part = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = text.chars().map(part).collect();
    let name = name.trim_start_matches(['-', '_']);
    let name = &name[..name.len().min(LONGEST_NAME - 4)];
    Some(if name.is_empty() { "service".to_owned() } else { name.to_owned() })
}

/// Returns the name of a command's program.
fn program(command: &str) -> Option<&str> {
    command.split_whitespace().next()?.rsplit('/').next()
}

/// Returns the name, with a number if an earlier service has it, or would have the same variables.
fn unused(name: String, names: &mut HashSet<String>) -> String {
    let variable = |name: &str| name.to_ascii_uppercase().replace('-', "_");
    let candidates = (2..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.clone()).chain(candidates).find(|name| !names.contains(&variable(name)));
    let free = free.unwrap_or(name);
    names.insert(variable(&free));
    free
}

/// Formats a value on one line (YAML 1.2, flow style).
fn inline(node: &Node) -> String {
    match &node.value {
        Value::Scalar(Kind::Text, text) => quoted(text),
        Value::Scalar(Kind::Null, _) => "null".into(),
        Value::Scalar(Kind::Bool | Kind::Int | Kind::Float, text) => text.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Map(fields) => {
            let field = |(name, node): &(yaml::Name, Node)| format!("{}: {}", quoted(&name.text), inline(node));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Returns a text as it is if YAML reads it so, else in quotes. JSON's strings are YAML's too.
fn quoted(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || "/.$".contains(c))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./$-".contains(c))
        && text.chars().any(|c| c.is_ascii_alphabetic())
        && !SPECIAL.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_map_of_services() {
        let list = "# mine\n- key: web\n  exec: npm run dev -- --port $PORT\n  port: 3000\n  env: [.env, {A: \"1\", B: yes}]\n- ./run.sh\n- exec: [./run.sh, 'a b', 1.10]\n  ready: {http: /up, status: 204}\n";
        let form = object_form(list).unwrap();
        assert_eq!(
            form,
            "services:\n  web:\n    exec: \"npm run dev -- --port $PORT\"\n    port: 3000\n    env: [.env, {A: \"1\", B: \"yes\"}]\n  run-sh: ./run.sh\n  run-sh-2:\n    exec: [./run.sh, \"a b\", 1.10]\n    ready: {http: /up, status: 204}\n"
        );
        assert!(matches!(yaml::parse(&form), Ok(Some(Node { value: Value::Map(_), .. }))));
        let form = object_form("- {key: My_App/web, exec: x}\n- {key: my-app-web, exec: x}\n- {key: -日本, exec: x}\n")
            .unwrap();
        assert_eq!(
            form,
            "services:\n  My_App-web:\n    exec: x\n  my-app-web-2:\n    exec: x\n  service:\n    exec: x\n"
        );
        for text in ["services: {}", "", "- [", "- {}\n"] {
            assert_eq!(object_form(text), None, "{text}");
        }
    }
}
