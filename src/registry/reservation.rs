//! `Reservation`: the durable record of a service, and its form on disk.
//!
//! Names and meanings of the fields are those of the first devport, which can still read these records. Unknown fields
//! survive a rewrite.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::config::{ChildVariables, DEFAULT_SESSION, PORT_VARIABLE, Policy, StartOptions, Variables};
use crate::error::{Error, Result};
use crate::frameworks::Source;
use crate::identity::{HashId, Key, SHORTEST_PREFIX, ServiceHash, TailnetName};
use crate::project::{DirectoryId, Site};

/// The version of the format. The first devport's records have no number.
const SCHEMA: u32 = 1;

/// The durable record of a service. While it exists its port and hashid are taken. Registration writes every field; the
/// supervisor also updates `last_up`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the record")]
pub(crate) struct Reservation {
    /// The version of the format; 0 for records of the first devport.
    #[serde(default)]
    schema: u32,
    /// The service's hash; also the name of the file.
    pub(crate) hash: ServiceHash,
    /// The short name, frozen at registration.
    pub(crate) hashid: HashId,
    /// The user's name for the service; `None` if its directory and command name it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "key_or_empty")]
    pub(crate) key: Option<Key>,
    /// The reserved port; 0 if there is none.
    #[serde(default)]
    pub(crate) port: u16,
    /// Whether the service gets no port, even if one is reserved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_port: bool,
    /// The variable that holds the port; `None` for `PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port_env: Option<String>,
    /// The scheme of its address; `None` for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scheme: Option<String>,
    /// Whether the service is published on the tailnet.
    #[serde(default)]
    pub(crate) tailnet: bool,
    /// Its name on the tailnet; `None` for its hashid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tailnet_name: Option<TailnetName>,
    /// Its protocol on the tailnet.
    #[serde(default, skip_serializing_if = "Protocol::is_https")]
    pub(crate) tailnet_protocol: Protocol,
    /// The name under which `start --tailnet` will publish the service; `None` once it is published. The command needs
    /// it before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tailnet_pending: Option<String>,
    /// Whether it was published without a definition of devport's: there were no credentials, or an admin's exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tailnet_undefined: bool,
    /// Readiness, health, restarts, stopping and logs.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub(crate) policy: Policy,
    /// The absolute directory that the command runs in.
    pub(crate) cwd: PathBuf,
    /// The command and its arguments, unexpanded; empty if only the port is reserved.
    pub(crate) cmd: Vec<String>,
    /// The canonical path of the `devport.yaml` that registered it; `None` if the command line did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The name of the stack that it belongs to; `None` if it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stack: Option<String>,
    /// Whether the command runs to completion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) one_shot: bool,
    /// Whether all checkouts of its repository share it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shared: bool,
    /// The tmux session with its window; `None` for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tmux_session: Option<String>,
    /// The root of the checkout of `cwd` at registration; `None` in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<PathBuf>,
    /// The identity of the directory `root`, to tell it from a later one at the same path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_id: Option<DirectoryId>,
    /// The git directory of that checkout, if it is a linked worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) git_dir: Option<PathBuf>,
    /// The name of that checkout at registration; `None` without version control, and in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkout: Option<String>,
    /// The branch of that checkout when a command last started the service; `None` if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch: Option<String>,
    /// The coding agent whose command last started the service; `None` if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_by: Option<String>,
    /// Its dotenv files, as absolute paths; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Identifies the content of its dotenv files at registration and the variables that were set one by one; `None`
    /// without both, and in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) env_digest: Option<String>,
    /// Identifies the content of each of `env_files` at registration; empty in records of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_file_digests: Vec<String>,
    /// The names of the variables that `--env` set, except credentials; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_names: Vec<String>,
    /// Variables of its `env` that refer to what is known only at a spawn, such as `$PORT`.
    #[serde(default, skip_serializing_if = "Variables::is_empty")]
    pub(crate) env_at_spawn: Variables,
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
    /// Returns whether this is the default, which is not written.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_https(&self) -> bool {
        *self == Self::Https
    }
}

/// The field that holds the environment. [`Reservation`] does not have it: most readers have no use for it, parsing it
/// is most of the work, and what is not in memory cannot be printed. [`parse_environment`] reads it alone.
const ENVIRONMENT: &str = "env";
/// Fields of the first devport that this one replaces by the run state.
const REPLACED: [&str; 2] = ["state", "error"];

/// Returns the names of all fields of [`Reservation`], from its `Deserialize` implementation.
fn field_names() -> &'static [&'static str] {
    /// Keeps the names that serde passes to a deserializer, and deserializes nothing.
    struct Names(&'static [&'static str]);

    impl<'de> Deserializer<'de> for &mut Names {
        type Error = serde::de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> std::result::Result<V::Value, Self::Error> {
            self.0 = fields;
            self.deserialize_any(visitor)
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> std::result::Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only the names are wanted"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names = Names(&[]);
    let _ = Reservation::deserialize(&mut names);
    names.0
}

/// Reads a key. The first devport writes a missing one as an empty text.
fn key_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Key>, D::Error> {
    let key: Option<Key> = Option::deserialize(deserializer)?;
    Ok(key.filter(|key| !key.as_str().is_empty()))
}

impl Reservation {
    /// Creates a reservation without command and port.
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
            tailnet_pending: None,
            tailnet_undefined: false,
            policy: Policy::default(),
            cwd: PathBuf::new(),
            cmd: Vec::new(),
            file: None,
            stack: None,
            one_shot: false,
            shared: false,
            tmux_session: None,
            root: None,
            root_id: None,
            git_dir: None,
            checkout: None,
            branch: None,
            started_by: None,
            env_files: Vec::new(),
            env_digest: None,
            env_file_digests: Vec::new(),
            env_names: Vec::new(),
            env_at_spawn: Variables::default(),
            scheme: None,
            last_up: Timestamp::UNIX_EPOCH,
        }
    }

    /// Parses a record.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] if it cannot be used, [`Error::NewerRecord`] if it does not parse because it is newer.
    pub(super) fn parse(path: &Path, hash: &ServiceHash, bytes: &[u8]) -> Result<Self> {
        let corrupt = |why: String| Error::CorruptRecord { path: path.to_owned(), why };
        let record: Self = serde_json::from_slice(bytes).map_err(|error| match newer_schema(bytes) {
            Some(schema) => Error::NewerRecord { path: path.to_owned(), schema },
            None if error.is_eof() => corrupt("it ends too early".into()),
            None => corrupt(format!("line {}: {}", error.line(), without_place(&error))),
        })?;
        let hashid = record.hashid.as_str();
        if record.hash != *hash {
            return Err(corrupt(format!("it holds the hash {}, and its name another one", record.hash)));
        }
        if hashid.len() < SHORTEST_PREFIX || !hash.as_str().starts_with(hashid) {
            return Err(corrupt(format!("its hashid {hashid:?} is not the beginning of its hash")));
        }
        Ok(record)
    }

    /// Serializes the record. `before` is the file that it replaces: unknown fields stay, and the environment stays
    /// unless `environment` has a new one.
    ///
    /// # Errors
    /// If the record cannot be written as JSON. The caller must not write anything then.
    pub(super) fn to_bytes(&self, before: Option<&[u8]>, environment: Option<&Variables>) -> Result<Vec<u8>> {
        let failed = || Error::system(format!("write down {}", self.name()));
        let mut fields: Map<String, Value> = match before {
            Some(bytes) => serde_json::from_slice(bytes).map_err(failed())?,
            None => Map::new(),
        };
        let mut known: Map<String, Value> =
            serde_json::to_value(self).and_then(serde_json::from_value).map_err(failed())?;
        // A field that is no longer written, such as a port variable that is the default again.
        for name in field_names().iter().chain(&REPLACED).filter(|name| !known.contains_key(**name)) {
            fields.shift_remove(*name);
        }
        if let Some(environment) = environment {
            // Before the last field, `last_up`, where the first devport writes it.
            let environment = serde_json::to_value(environment).map_err(failed())?;
            known.shift_insert(known.len().saturating_sub(1), ENVIRONMENT.into(), environment);
        }
        fields.extend(known);
        let mut bytes = serde_json::to_vec_pretty(&fields).map_err(failed())?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Returns whether the first devport wrote the record: it recorded no run states.
    pub(crate) fn is_of_first_devport(&self) -> bool {
        self.schema == 0
    }

    /// Refuses to change a record of a later devport.
    ///
    /// # Errors
    /// [`Error::NewerRecord`].
    pub(super) fn check_schema(&self, path: &Path) -> Result<()> {
        if self.schema > SCHEMA {
            return Err(Error::NewerRecord { path: path.to_owned(), schema: self.schema });
        }
        Ok(())
    }

    /// Returns where the service belongs.
    pub(crate) fn site(&self) -> Site<'_> {
        Site {
            directory: &self.cwd,
            file: self.file.as_deref(),
            root: self.root.as_deref(),
            root_id: self.root_id.as_ref(),
        }
    }

    /// Returns the name for messages: the key, or else the hashid.
    pub(crate) fn name(&self) -> &str {
        self.key.as_ref().map_or(self.hashid.as_str(), Key::as_str)
    }

    /// Returns the name on the tailnet without `svc:`, whether or not it is published.
    pub(crate) fn name_on_tailnet(&self) -> &str {
        self.tailnet_name.as_ref().map_or(self.hashid.as_str(), TailnetName::as_str)
    }

    /// Returns the host name on the tailnet under which the service is published, or will be by `start --tailnet`;
    /// `None` if neither. `suffix` is that of the tailnet.
    pub(super) fn tailnet_host(&self, suffix: &str) -> Option<String> {
        let published = self.tailnet.then(|| self.name_on_tailnet());
        let name = self.tailnet_pending.as_deref().or(published)?;
        Some(format!("{name}.{suffix}"))
    }

    /// Returns the port that the service gets and is checked on; `None` if it has none.
    pub(crate) fn service_port(&self) -> Option<u16> {
        (!self.no_port && self.port != 0).then_some(self.port)
    }

    /// Returns what devport sets in the environment of the service's command. `home` is the state directory, `host` the
    /// host name on the tailnet, `term` the terminal type, if the command gets a terminal.
    pub(crate) fn child_variables<'a>(
        &'a self,
        home: &'a Path,
        host: Option<&'a str>,
        term: Option<&'a str>,
    ) -> ChildVariables<'a> {
        ChildVariables {
            port: self.service_port(),
            port_env: self.port_env.as_deref(),
            scheme: self.scheme.as_deref(),
            at_spawn: &self.env_at_spawn,
            key: self.key.as_ref(),
            hash: &self.hash,
            home,
            cwd: &self.cwd,
            tailnet_host: host,
            term,
        }
    }

    /// Returns the name of the tmux session with the service's window.
    pub(crate) fn tmux_session(&self) -> &str {
        self.tmux_session.as_deref().unwrap_or(DEFAULT_SESSION)
    }

    /// Returns what the options of `devport start` say about it.
    fn start_options(&self) -> StartOptions<'_> {
        // `start` publishes HTTPS only. Another protocol is from `tailup`.
        let published = (self.tailnet && self.tailnet_protocol.is_https()).then(|| self.name_on_tailnet());
        let name = self.tailnet_pending.as_deref().or(published);
        StartOptions {
            cwd: &self.cwd,
            no_port: self.no_port,
            port_env: self.port_env.as_deref(),
            env_files: self.env_files.iter().map(PathBuf::as_path).collect(),
            is_on_tailnet: name.is_some(),
            tailnet_name: name.filter(|name| *name != self.hashid.as_str()),
            policy: &self.policy,
        }
    }

    /// Returns where its command is written.
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            name: self.global_name(),
            key: self.key.as_ref().map(Key::as_str),
            options: self.start_options().words(),
            port: self.service_port(),
            env_names: &self.env_names,
            file: self.file.as_deref(),
            is_stack: self.stack.is_some(),
        }
    }

    /// Returns the name of the variable that holds the port.
    pub(crate) fn port_variable(&self) -> &str {
        self.port_env.as_deref().unwrap_or(PORT_VARIABLE)
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
    /// The only field that is read.
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

/// Returns a parser's message without ` at line 1 column 2`, and without the value that it quotes.
fn without_place(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().to_owned()
}

/// Returns the schema number of a record if it is newer than ours.
fn newer_schema(bytes: &[u8]) -> Option<u32> {
    /// The only field that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    serde_json::from_slice::<Versioned>(bytes).ok().map(|record| record.schema).filter(|schema| *schema > SCHEMA)
}

/// Finds the port in a record that does not parse, so that it stays taken. `Some(0)` means that it has none, `None`
/// that it is unknown.
pub(super) fn salvage_port(bytes: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(bytes);
    // The name of a member follows a brace or a comma and precedes a colon: `"key": "port"` is not a match.
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
    fn a_field_that_is_no_longer_set_is_removed_and_the_others_keep_their_order() {
        let mut record = parse(FIRST_DEVPORT).unwrap();
        record.port_env = Some("WEB_PORT".into());
        record.root = Some("/tmp".into());
        let set = record.to_bytes(Some(FIRST_DEVPORT.as_bytes()), None).unwrap();
        assert!(String::from_utf8_lossy(&set).contains("WEB_PORT"));
        (record.key, record.port_env, record.root) = (None, None, None);
        let unset: Map<String, Value> = serde_json::from_slice(&record.to_bytes(Some(&set), None).unwrap()).unwrap();
        let names: Vec<_> = unset.keys().map(String::as_str).collect();
        let expected = ["hash", "hashid", "port", "tailnet", "cwd", "cmd", "env", "last_up", "extra", "schema"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_new_record_has_every_field_in_the_order_of_the_first_devport() {
        let mut record = Reservation::new(hash(), parse(FIRST_DEVPORT).unwrap().hashid, Some(Key::new("a").unwrap()));
        record.port_env = Some("WEB_PORT".into());
        let new = record.to_bytes(None, Some(&Variables::default())).unwrap();
        let new: Map<String, Value> = serde_json::from_slice(&new).unwrap();
        let names: Vec<_> = new.keys().map(String::as_str).collect();
        let expected =
            ["schema", "hash", "hashid", "key", "port", "port_env", "tailnet", "cwd", "cmd", "env", "last_up"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_newer_record_is_read_only() {
        let record = parse(&FIRST_DEVPORT.replace("\"hash\":", "\"schema\": 99, \"hash\":")).unwrap();
        assert!(matches!(record.check_schema(Path::new("r")), Err(Error::NewerRecord { schema: 99, .. })));
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
            // If the record is cut within the number, digits are missing.
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
