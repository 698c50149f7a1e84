//! `devport.yaml`: a list of services, each a command or an object.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::config::dotenv::text_of;
use crate::config::fields::{EnvFiles, FieldSeed, Port, Text};
use crate::config::policy_fields::policy_field;
use crate::config::service::{PortRequest, Request};
use crate::error::{Error, Result};
use crate::identity::{Key, TailnetName};
use crate::os::file::read_any;

/// How many brackets may be open at a time, quoted ones included. Deeper nesting makes the parser slow.
const DEEPEST: usize = 500;

/// Reads and checks a whole `devport.yaml` before anything is started from it.
///
/// # Errors
/// [`Error::InvalidFile`] with the line, if it cannot be read or used.
pub(crate) fn load(path: &Path) -> Result<Vec<Request>> {
    let text = text_of(path, "configuration", read_any)?;
    parse(path, &text)
}

/// Parses the text of a `devport.yaml`.
fn parse(path: &Path, text: &str) -> Result<Vec<Request>> {
    check_nesting(path, text)?;
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(document) = documents.next() else { return Ok(Vec::new()) };
    let entries = Entries::deserialize(document).map_err(|error| invalid(path, &error))?;
    if documents.next().is_some() {
        return Err(Error::InvalidFile {
            path: path.to_owned(),
            line: None,
            why: "more than one YAML document".into(),
            hint: Some("keep all services in one list".into()),
        });
    }
    Ok(entries.0)
}

/// Refuses deeply nested brackets: the parser's time grows with the square of their depth.
fn check_nesting(path: &Path, text: &str) -> Result<()> {
    let mut depth = 0_usize;
    for (index, line) in text.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth > DEEPEST {
            let why = format!("brackets nest deeper than {DEEPEST} levels");
            return Err(Error::InvalidFile {
                path: path.to_owned(),
                line: Some(index + 1),
                why,
                hint: Some("is it the right file?".into()),
            });
        }
    }
    Ok(())
}

/// Moves the line of a parser's error to the front.
fn invalid(path: &Path, error: &serde_yaml::Error) -> Error {
    let line = error.location().map(|location| location.line());
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    // A path such as `[2].port: ` says less than the line.
    let text = match text.split_once(": ") {
        Some((place, rest)) if place.starts_with(".[") || place.starts_with('[') => rest,
        _ => text,
    };
    Error::InvalidFile {
        path: path.to_owned(),
        line,
        why: text.to_owned(),
        hint: Some("devport.yaml.example shows every field".into()),
    }
}

struct Entries(Vec<Request>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

/// Parses the list; an empty file is an empty list.
struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of services (lines that begin with \"- \")")
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Entries, E> {
        Ok(Entries(Vec::new()))
    }

    fn visit_none<E: de::Error>(self) -> std::result::Result<Entries, E> {
        Ok(Entries(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Entries, A::Error> {
        let mut entries: Vec<Request> = Vec::new();
        let mut keys = Vec::new();
        while let Some(entry) = list.next_element_seed(EntrySeed { keys: &mut keys })? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

/// Parses one entry; `keys` are those of the earlier entries.
struct EntrySeed<'a> {
    /// The keys of all entries so far.
    keys: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Request;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Request, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Request;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command or an object with `exec`")
    }

    fn visit_str<E: de::Error>(self, exec: &str) -> std::result::Result<Request, E> {
        Ok(Request { cmd: split(exec).map_err(E::custom)?, ..Request::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Request, A::Error> {
        let (mut entry, mut no_port, mut port) = (Request::default(), false, None);
        let mut seen = Vec::new();
        while let Some(field) = map.next_key_seed(FieldSeed { seen: &mut seen })? {
            match field {
                "key" => {
                    entry.key = Some(map.next_value_seed(Text {
                        expected: "a key (put quotes around a number)",
                        check: |name: &str| unused_key(self.keys, name),
                    })?);
                }
                "exec" => {
                    entry.cmd = map.next_value_seed(Text { expected: "a command", check: split })?;
                }
                "cwd" => entry.cwd = map.next_value()?,
                "no-port" => no_port = map.next_value()?,
                "port" => port = Some(map.next_value::<Port>()?.0),
                "port-env" => entry.port_env = Some(map.next_value()?),
                "tailnet" => entry.tailnet = map.next_value()?,
                "tailnet-name" => {
                    entry.tailnet_name = Some(map.next_value_seed(Text {
                        expected: "a name (put quotes around a number)",
                        check: |name: &str| TailnetName::new(name).map_err(|error| error.to_string()),
                    })?);
                }
                "env" => entry.env_files = map.next_value::<EnvFiles>()?.0,
                field => policy_field(field, &mut entry.policy, &mut map)?,
            }
        }
        if entry.cmd.is_empty() {
            return Err(de::Error::custom("this service has no `exec`"));
        }
        if no_port && port.is_some() {
            return Err(de::Error::custom("`port` and `no-port: true` exclude each other"));
        }
        if let Some(contradiction) = entry.policy.contradiction(!no_port) {
            return Err(de::Error::custom(contradiction));
        }
        entry.port = PortRequest::new(no_port, port);
        Ok(entry)
    }
}

/// Splits a command as a POSIX shell splits words.
fn split(exec: &str) -> std::result::Result<Vec<String>, String> {
    let words = shell_words::split(exec).map_err(|error| format!("`exec` does not split into words: {error}"))?;
    if words.first().is_none_or(String::is_empty) {
        return Err("the command is empty".into());
    }
    Ok(words)
}

/// Checks that no earlier entry has the key.
fn unused_key(keys: &mut Vec<String>, name: &str) -> std::result::Result<Key, String> {
    if keys.iter().any(|key| key == name) {
        return Err(format!("key {name:?} belongs to an earlier service of this file"));
    }
    keys.push(name.to_owned());
    Key::new(name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<Request>> {
        parse(Path::new("d.yaml"), text)
    }

    fn message(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    #[test]
    fn every_field_is_read() {
        let text = "- sleep '1 2'\n- key: web\n  exec: \"npm run 'a b'\"\n  cwd: ~/x\n  port: 20000\n  port-env: VITE_PORT\n  tailnet: true\n  tailnet-name: my-web\n  env: [a.env, ~/b.env]\n- {exec: x, no-port: true, env: /c.env}\n";
        let entries = parsed(text).unwrap();
        assert_eq!(entries[0].cmd, ["sleep", "1 2"]);
        assert_eq!(entries[0].name(), "sleep '1 2'");
        let requests: Vec<_> = entries
            .into_iter()
            .map(|entry| entry.written_in(Path::new("/p/devport.yaml"), Some(Path::new("/h"))))
            .collect();
        assert_eq!(requests[0].cwd, Path::new("/p"));
        assert_eq!(requests[1].cmd, ["npm", "run", "a b"]);
        assert_eq!(requests[1].cwd, Path::new("/h/x"));
        assert_eq!(requests[1].port, PortRequest::Exactly(20000));
        assert_eq!(requests[1].port_env.as_deref(), Some("VITE_PORT"));
        assert!(requests[1].tailnet);
        assert_eq!(requests[1].tailnet_name.as_ref().map(TailnetName::as_str), Some("my-web"));
        assert_eq!(requests[1].env_files, [Path::new("/p/a.env"), Path::new("/h/b.env")]);
        assert_eq!(requests[2].port, PortRequest::NoPort);
        assert_eq!(requests[2].env_files, [Path::new("/c.env")]);
    }

    #[test]
    fn a_check_has_its_own_times() {
        let text = "- exec: x\n  ready: {tcp: true, timeout: 9s}\n  health:\n    http: http://localhost:$PORT/up\n    status: 204\n    interval: 1s\n    timeout: 2s\n    failures: 4\n";
        let policy = parsed(text).unwrap().remove(0).policy;
        let times = [policy.ready_timeout, policy.health_interval, policy.health_timeout];
        assert_eq!((times.map(|span| span.0.as_secs()), policy.health_failures), ([9, 1, 2], 4));
        assert_eq!(policy.health.unwrap().to_string(), "http:204:/up");
    }

    #[test]
    fn an_empty_file_is_an_empty_list() {
        for text in ["", "# nothing\n", "[]\n", "null\n", "---\n"] {
            assert_eq!(parsed(text).unwrap().len(), 0, "{text:?}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_was_meant() {
        for (text, line, part) in [
            ("- key: a\n  exec: x\n  prot: 1\n", 3, "unknown field `prot`, did you mean `port`?"),
            ("- exec: x\n  port_env: A\n", 2, "did you mean `port-env`?"),
            ("- command: x\n", 1, "did you mean `exec`?"),
            ("- exec: x\n  exec: y\n", 2, "second time"),
            ("- key: a\n  exec: x\n- key: a\n  exec: y\n", 3, "\"a\" belongs to an earlier service"),
            ("- key: a\n", 1, "no `exec`"),
            ("- exec: x\n  no-port: maybe\n", 2, "expected a boolean"),
            ("- exec: x\n  port: 80\n", 2, "not in 1024-65535"),
            ("- exec: x\n  port: many\n", 2, "invalid type"),
            ("- exec: \"a 'b\"\n", 1, "does not split"),
            ("- \"  \"\n", 1, "command is empty"),
            ("- x\n- null\n", 2, "expected a command"),
            ("- 12345\n", 1, "expected a command"),
            ("- exec: x\n  env: {a: b}\n", 2, "expected the path"),
            ("- key: -x\n  exec: x\n", 1, "leading dash"),
            ("a: b\n", 1, "expected a list of services"),
            ("- a\n\t- b\n", 2, ""),
            ("- [\n", 1, "expected a command"),
            ("- exec: x\n  ready:\n    tcp: true\n    failures: 3\n", 4, "`failures` belongs to `health`"),
            ("- exec: x\n  ready: {log: up, interval: 1s}\n", 2, "`interval` has no effect with `log:up`"),
            ("- exec: x\n  ready: {none: true, timeout: 1s}\n", 2, "`timeout` has no effect with `none`"),
            ("- exec: x\n  ready:\n    tcp: false\n", 3, "`tcp: false` has no effect"),
            ("- exec: x\n  health:\n    interval: 1s\n", 3, "`health` needs a check"),
            ("- exec: x\n  window: 9s\n", 1, "no effect without max-restarts"),
            ("- exec: x\n  ready: http://example.com/\n", 2, "a check queries this machine"),
        ] {
            let message = message(text);
            let part = if part == "leading dash" { "starts with a dash" } else { part };
            assert!(message.starts_with(&format!("d.yaml:{line}: ")), "{text:?}: {message}");
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    #[test]
    fn alias_bombs_and_deep_nesting_end_quickly() {
        let mut bomb = String::from("- &a [x, x]\n");
        for level in 'b'..='z' {
            let before = char::from_u32(u32::from(level) - 1).unwrap();
            bomb += &["- &", &level.to_string(), " [", &format!("*{before}, ").repeat(8), "x]\n"].concat();
        }
        assert!(parsed(&bomb).is_err());
        assert!(parsed(&"[".repeat(100_000)).is_err());
        assert!(parsed(&format!("- exec: x\n  env: {}", "[".repeat(100_000))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z:&*\\[\\]{}'\"\n |>#!%0-9]{0,60}") {
            let _ = parsed(&text);
        }
    }
}
