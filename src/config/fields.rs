//! The fields of an entry of `devport.yaml`. Each is checked while it is parsed, so that an error names its line.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// The fields of an entry, as they are written.
const FIELDS: [&str; 19] = [
    "key",
    "exec",
    "cwd",
    "no-port",
    "port",
    "port-env",
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

/// Parses the name of a field.
pub(super) struct FieldSeed<'a> {
    /// The fields that the entry has so far.
    pub(super) seen: &'a mut Vec<&'static str>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<&'static str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<&'static str, E> {
        let Some(field) = FIELDS.into_iter().find(|field| *field == name) else {
            return Err(E::custom(format!("unknown field `{}`{}", name.escape_debug(), suggestion(name))));
        };
        if self.seen.contains(&field) {
            return Err(E::custom(format!("field `{field}` stands here for the second time")));
        }
        self.seen.push(field);
        Ok(field)
    }
}

/// Returns `, did you mean …?`, or a list of all fields.
fn suggestion(name: &str) -> String {
    let plain = name.replace('_', "-").to_lowercase();
    let near = FIELDS.into_iter().map(|field| (strsim::damerau_levenshtein(&plain, field), field)).min();
    let meant = match plain.as_str() {
        "command" | "cmd" | "run" => Some("exec"),
        "name" | "id" => Some("key"),
        "dir" | "directory" | "workdir" => Some("cwd"),
        "env-file" | "envfile" | "dotenv" => Some("env"),
        _ => near.filter(|(distance, field)| *distance <= field.len() / 2).map(|(_, field)| field),
    };
    match meant {
        Some(field) => format!(", did you mean `{field}`?"),
        None => format!(" (there are {})", FIELDS.join(", ")),
    }
}

/// Parses and checks a text, so that an error names its line.
pub(super) struct Text<F> {
    /// The expected type, for the error about another one.
    pub(super) expected: &'static str,
    pub(super) check: F,
}

impl<'de, T, F: FnOnce(&str) -> std::result::Result<T, String>> DeserializeSeed<'de> for Text<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T, F: FnOnce(&str) -> std::result::Result<T, String>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<T, E> {
        (self.check)(text).map_err(E::custom)
    }
}

pub(super) struct Port(pub(super) u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port in 1024-65535")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<Port, E> {
        let port = u16::try_from(number).ok().filter(|port| *port >= 1024);
        port.map(Port).ok_or_else(|| E::custom(format!("port {number} is not in 1024-65535")))
    }
}

/// A path, or a list of paths.
pub(super) struct EnvFiles(pub(super) Vec<PathBuf>);

impl<'de> Deserialize<'de> for EnvFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(EnvFilesVisitor)
    }
}

/// Parses a path or a list of paths.
struct EnvFilesVisitor;

impl<'de> Visitor<'de> for EnvFilesVisitor {
    type Value = EnvFiles;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the path of a dotenv file, or a list of them")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> std::result::Result<EnvFiles, E> {
        Ok(EnvFiles(vec![path.into()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<EnvFiles, A::Error> {
        let mut paths = Vec::new();
        while let Some(path) = list.next_element()? {
            paths.push(path);
        }
        Ok(EnvFiles(paths))
    }
}
