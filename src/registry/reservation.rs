//! `Reservation`: the durable record of a service, and its form on disk.
//!
//! The field names and meanings are those of the first devport, which can still read our records. Fields
//! that we do not know survive a rewrite.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::config::{ChildVariables, Policy, Variables};
use crate::error::{Error, Result};
use crate::identity::{HashId, Key, SHORTEST_PREFIX, ServiceHash, TailnetName};
use crate::project::{DirectoryId, Site};

/// The version of the record's form that this devport writes; the first devport's has no number.
const SCHEMA: u32 = 1;

/// The durable record of a service. While it exists its port and hashid are taken. Every field is written
/// by whoever registers the service, but for `last_up`, which its supervisor updates too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reservation {
    /// The version of this form; 0 for records of the first devport.
    #[serde(default)]
    schema: u32,
    /// What the service is filed under; also the name of the file.
    pub(crate) hash: ServiceHash,
    /// The short name, frozen at registration.
    pub(crate) hashid: HashId,
    /// The user's name; `None` if it is named by directory and command.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "key_or_empty")]
    pub(crate) key: Option<Key>,
    /// The reserved port; 0: none.
    #[serde(default)]
    pub(crate) port: u16,
    /// Whether the service shall not be told a port, though one may be reserved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_port: bool,
    /// The variable that tells the service its port; `None`: `PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port_env: Option<String>,
    /// Whether it is published on the tailnet.
    #[serde(default)]
    pub(crate) tailnet: bool,
    /// What it is called on the tailnet; `None`: as its hashid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tailnet_name: Option<TailnetName>,
    /// How it is reached there.
    #[serde(default, skip_serializing_if = "Protocol::is_https")]
    pub(crate) tailnet_protocol: Protocol,
    /// How it is watched over.
    #[serde(default, skip_serializing_if = "Policy::is_usual")]
    pub(crate) policy: Policy,
    /// Where the command runs, absolute.
    pub(crate) cwd: PathBuf,
    /// The command and its arguments, unexpanded; none: the port alone is reserved.
    pub(crate) cmd: Vec<String>,
    /// The `devport.yaml` that registered it, canonical; `None` if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The root of the checkout of `cwd` when it was registered; `None` in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<PathBuf>,
    /// Which directory `root` was, to tell it from a later one at the same path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_id: Option<DirectoryId>,
    /// The git directory of that checkout, if it is a linked worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) git_dir: Option<PathBuf>,
    /// When the service was last known to run.
    #[serde(default)]
    pub(crate) last_up: Timestamp,
}

/// How a service is reached on the tailnet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTPS on port 443.
    #[default]
    Https,
    /// HTTP on port 80.
    Http,
    /// TCP on the service's own port.
    Tcp,
}

impl Protocol {
    /// Whether it is the usual one, which is not written down.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks it so")]
    fn is_https(&self) -> bool {
        *self == Self::Https
    }
}

/// The field that holds the environment. Most readers have no use for it, parsing it is most of the work, and
/// what does not have it cannot print it: [`parse_environment`] reads it alone.
const ENVIRONMENT: &str = "env";
/// Every field that is written, in the order of new records, and the two of the first devport that ours replaces.
const FIELDS: [&str; 21] = [
    "schema",
    "hash",
    "hashid",
    "key",
    "port",
    "no_port",
    "port_env",
    "tailnet",
    "tailnet_name",
    "tailnet_protocol",
    "policy",
    "cwd",
    "cmd",
    "file",
    "root",
    "root_id",
    "git_dir",
    ENVIRONMENT,
    "last_up",
    "state",
    "error",
];

/// The first devport writes no key as an empty one.
fn key_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Key>, D::Error> {
    let key: Option<Key> = Option::deserialize(deserializer)?;
    Ok(key.filter(|key| !key.as_str().is_empty()))
}

impl Reservation {
    /// A reservation of a new service, without command and port.
    pub(super) fn new(hash: ServiceHash, hashid: HashId, key: Option<Key>) -> Self {
        Self {
            schema: SCHEMA,
            hash,
            hashid,
            key,
            port: 0,
            no_port: false,
            port_env: None,
            tailnet: false,
            tailnet_name: None,
            tailnet_protocol: Protocol::Https,
            policy: Policy::default(),
            cwd: PathBuf::new(),
            cmd: Vec::new(),
            file: None,
            root: None,
            root_id: None,
            git_dir: None,
            last_up: Timestamp::UNIX_EPOCH,
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] if it cannot be used, [`Error::NewerRecord`] if it does not even parse because
    /// it is newer.
    pub(super) fn parse(path: &Path, hash: &ServiceHash, bytes: &[u8]) -> Result<Self> {
        let corrupt = |why: String| Error::CorruptRecord { path: path.to_owned(), why };
        let record: Self = serde_json::from_slice(bytes).map_err(|error| match newer_schema(bytes) {
            Some(schema) => Error::NewerRecord { path: path.to_owned(), schema },
            None if error.is_eof() => corrupt("it ends too early".into()),
            None => corrupt(format!("line {}: {}", error.line(), without_place(&error))),
        })?;
        let hashid = record.hashid.as_str();
        if record.hash != *hash {
            return Err(corrupt(format!("it holds the hash {} instead of its own", record.hash)));
        }
        if hashid.len() < SHORTEST_PREFIX || !hash.as_str().starts_with(hashid) {
            return Err(corrupt(format!("its hashid {hashid:?} is not the beginning of its hash")));
        }
        Ok(record)
    }

    /// The record's bytes. `before` is the file that they replace: its unknown fields stay, and so does its
    /// environment unless there is a new one.
    ///
    /// # Errors
    /// If the record cannot be written as JSON. Nothing must be written then.
    pub(super) fn to_bytes(&self, before: Option<&[u8]>, environment: Option<&Variables>) -> Result<Vec<u8>> {
        let failed = || Error::system(format!("write down {}", self.name()));
        let mut fields: Map<String, Value> = match before {
            Some(bytes) => serde_json::from_slice(bytes).map_err(failed())?,
            None => Map::new(),
        };
        let mut known = match serde_json::to_value(self).map_err(failed())? {
            Value::Object(known) => known,
            _ => Map::new(),
        };
        for name in FIELDS {
            let value = if name == ENVIRONMENT {
                // Without a new one, that of the file before stays.
                let Some(environment) = environment else { continue };
                Some(serde_json::to_value(environment).map_err(failed())?)
            } else {
                known.remove(name)
            };
            match value {
                Some(value) => {
                    fields.insert(name.into(), value);
                }
                None => {
                    fields.shift_remove(name);
                }
            }
        }
        // A field that the list above forgot is written all the same, at the end.
        fields.extend(known);
        let mut bytes = serde_json::to_vec_pretty(&fields).map_err(failed())?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Refuses to change what a later devport wrote.
    ///
    /// # Errors
    /// [`Error::NewerRecord`].
    pub(super) fn check_writable(&self, path: &Path) -> Result<()> {
        if self.schema > SCHEMA {
            return Err(Error::NewerRecord { path: path.to_owned(), schema: self.schema });
        }
        Ok(())
    }

    /// Where the service belongs.
    pub(crate) fn site(&self) -> Site<'_> {
        Site {
            directory: &self.cwd,
            file: self.file.as_deref(),
            root: self.root.as_deref(),
            root_id: self.root_id.as_ref(),
        }
    }

    /// What messages call the service: its key, or else its hashid.
    pub(crate) fn name(&self) -> &str {
        self.key.as_ref().map_or(self.hashid.as_str(), Key::as_str)
    }

    /// What the service is called on the tailnet, published there or not: without `svc:`.
    pub(crate) fn name_on_tailnet(&self) -> &str {
        self.tailnet_name.as_ref().map_or(self.hashid.as_str(), TailnetName::as_str)
    }

    /// The port that the service is told and checked for; `None` if it wants none.
    pub(crate) fn service_port(&self) -> Option<u16> {
        (!self.no_port && self.port != 0).then_some(self.port)
    }

    /// Returns what devport sets in the environment of the service's command. `home` is the state directory, `term` the
    /// terminal type, if the command gets a terminal.
    pub(crate) fn child_variables<'a>(&'a self, home: &'a Path, term: Option<&'a str>) -> ChildVariables<'a> {
        ChildVariables {
            port: self.service_port(),
            port_variable: self.port_env.as_deref(),
            key: self.key.as_ref(),
            hash: &self.hash,
            home,
            cwd: &self.cwd,
            term,
        }
    }

    /// Marks the record as written by this devport.
    pub(super) fn adopt(&mut self) {
        self.schema = SCHEMA;
    }
}

/// Reads the environment of a record.
///
/// # Errors
/// [`Error::CorruptRecord`] if it is not a list of `K=V`.
pub(super) fn parse_environment(path: &Path, bytes: &[u8]) -> Result<Variables> {
    /// The one field that is read.
    #[derive(Deserialize)]
    struct Environment {
        /// `None`: there is none.
        #[serde(default)]
        env: Option<Variables>,
    }
    let parsed: Environment = serde_json::from_slice(bytes).map_err(|error| Error::CorruptRecord {
        path: path.to_owned(),
        why: format!("its env: {}", without_place(&error)),
    })?;
    Ok(parsed.env.unwrap_or_default())
}

/// A parser's message without ` at line 1 column 2`, and without the value that it quotes.
fn without_place(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().to_owned()
}

/// The schema number of a record, if it is newer than ours.
fn newer_schema(bytes: &[u8]) -> Option<u32> {
    /// The one field that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        /// The version.
        schema: u32,
    }
    serde_json::from_slice::<Versioned>(bytes).ok().map(|record| record.schema).filter(|schema| *schema > SCHEMA)
}

/// The port in a record that does not parse: it stays taken. `Some(0)`: it has none; `None`: it is not known.
pub(super) fn salvage_port(bytes: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(bytes);
    // A member of an object follows a brace or a comma, and a colon follows its name: `"key": "port"` is none.
    let members = text.match_indices("\"port\"").filter(|(at, _)| text[..*at].trim_end().ends_with(['{', ',']));
    let values = members.filter_map(|(at, name)| text[at + name.len()..].trim_start().strip_prefix(':'));
    let port = |value: &str| {
        let digits = value.trim_start();
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        digits[..end].parse().ok()
    };
    values.map(port).next()?
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_DEVPORT: &str = r#"{
  "hash": "c1b7024794",
  "hashid": "c1b",
  "key": "myapp",
  "port": 19007,
  "tailnet": false,
  "cwd": "/tmp",
  "cmd": [
    "python3",
    "-m"
  ],
  "env": [
    "A=1"
  ],
  "last_up": "2026-11-20T23:56:01.78005344-05:00",
  "state": "error",
  "error": "boom",
  "extra": {"b": 1, "a": 2}
}"#;

    fn hash() -> ServiceHash {
        ServiceHash::parse("c1b7024794").unwrap()
    }

    fn parse(text: &str) -> Result<Reservation> {
        Reservation::parse(Path::new("r.json"), &hash(), text.as_bytes())
    }

    #[test]
    fn a_record_of_the_first_devport_is_read() {
        let record = parse(FIRST_DEVPORT).unwrap();
        assert_eq!((record.port, record.name()), (19007, "myapp"));
        assert_eq!(record.last_up.to_string(), "2026-11-21T04:56:01.78005344Z");
        assert_eq!(
            parse_environment(Path::new("r"), FIRST_DEVPORT.as_bytes()).unwrap().iter().collect::<Vec<_>>(),
            [("A", "1")]
        );
    }

    #[test]
    fn unknown_fields_survive_a_rewrite_and_the_first_devports_error_does_not() {
        let record = parse(FIRST_DEVPORT).unwrap();
        let rewritten: Map<String, Value> =
            serde_json::from_slice(&record.to_bytes(Some(FIRST_DEVPORT.as_bytes()), None).unwrap()).unwrap();
        assert_eq!(rewritten["extra"].to_string(), r#"{"b":1,"a":2}"#);
        assert_eq!(rewritten["env"][0], "A=1");
        assert!(!rewritten.contains_key("error") && !rewritten.contains_key("state"));
    }

    #[test]
    fn a_newer_record_is_read_only() {
        let record = parse(&FIRST_DEVPORT.replace("\"hash\":", "\"schema\": 99, \"hash\":")).unwrap();
        assert!(matches!(record.check_writable(Path::new("r")), Err(Error::NewerRecord { schema: 99, .. })));
        assert!(matches!(parse(r#"{"schema": 99}"#), Err(Error::NewerRecord { schema: 99, .. })));
    }

    #[test]
    fn records_that_cannot_be_used_are_corrupt() {
        for text in [
            "",
            "{}",
            "null",
            "[]",
            "{",
            &FIRST_DEVPORT.replace("c1b7024794", "c1b7024795"),
            &FIRST_DEVPORT.replace("\"c1b\"", "\"c2b\""),
        ] {
            assert!(matches!(parse(text), Err(Error::CorruptRecord { .. })), "{text:?}");
        }
    }

    #[test]
    fn no_truncated_or_flipped_record_panics_or_loses_a_port_that_can_be_read() {
        let bytes = FIRST_DEVPORT.as_bytes();
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            assert!(Reservation::parse(Path::new("r"), &hash(), cut).is_err());
            // Without what follows, more digits may be missing.
            let port_is_whole = FIRST_DEVPORT.find("19007").unwrap() + 5 < end;
            assert!(!port_is_whole || salvage_port(cut) == Some(19007), "cut at {end}");
        }
        let named_port = FIRST_DEVPORT.replace("myapp", "port");
        assert_eq!(salvage_port(&named_port.as_bytes()[..named_port.len() - 5]), Some(19007));
        assert_eq!(salvage_port(br#"{"key": "port", "port": 0, "cw"#), Some(0));
        for unknown in ["", "{}", r#"{"key": "port""#, r#"{"port": 190"#] {
            assert_eq!(salvage_port(unknown.as_bytes()), None, "{unknown}");
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[index] ^= 1 << bit;
                let _ = Reservation::parse(Path::new("r"), &hash(), &flipped);
                let _ = salvage_port(&flipped);
            }
        }
    }
}
