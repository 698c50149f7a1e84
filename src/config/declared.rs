//! `DeclaredEnvironment`: the caller's environment with the dotenv files and maps of a request over it.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::config::dotenv;
use crate::config::environment::{CallerEnvironment, PORT_VARIABLE, Variables};
use crate::config::expand::{expand, plain_name};
use crate::config::request::{EnvSource, PortRequest, Request};
use crate::error::{Error, Result};
use crate::identity;

/// The size that one `NAME=value` must stay below, in bytes (`execve(2)`, `MAX_ARG_STRLEN`).
const LARGEST_STRING: usize = 128 * 1024;
/// The largest environment and command in bytes: a quarter of the usual stack of 8 MiB on Linux (`execve(2)`), and
/// `ARG_MAX` on macOS. 64 KiB are left for PORT and the other variables that devport sets.
const LARGEST_TOTAL: usize = if cfg!(target_os = "macos") { 1024 * 1024 } else { 2 * 1024 * 1024 } - 64 * 1024;

/// How many bytes of a digest of dotenv files a record has: enough that two contents never share it.
const ENV_DIGEST_BYTES: usize = 16;
/// More bytes than the value of a variable has that devport sets at a spawn, except for paths of unusual length.
const SPAWN_VALUE: usize = 256;

/// The environment of a service before its port is known.
pub(super) struct DeclaredEnvironment {
    pub(super) variables: Variables,
    /// Variables with unexpanded values that refer to what is known only at a spawn.
    pub(super) at_spawn: Variables,
    /// Identifies the declared part; `None` if there is none.
    pub(super) digest: Option<String>,
    /// Identifies the content of each dotenv file, in order.
    pub(super) file_digests: Vec<String>,
}

impl DeclaredEnvironment {
    /// Builds the environment of a service: the caller's, with the request's variables over it in order.
    ///
    /// # Errors
    /// If a dotenv file cannot be read, or the environment is too large for `execve(2)`.
    pub(super) fn of(request: &Request, caller: &CallerEnvironment) -> Result<Self> {
        let (mut variables, mut at_spawn) = (caller.for_services()?, Variables::default());
        variables.set("PWD", path_text(&request.cwd)?);
        let (mut digest, mut file_digests) = (Sha256::new(), Vec::new());
        for source in &request.env {
            let (set, waiting) = match source {
                EnvSource::File(file) => {
                    let text = dotenv::read(file)?;
                    // With the length, so that a line that moves from one file to the next is a change.
                    digest.update(text.len().to_le_bytes());
                    digest.update(&text);
                    file_digests.push(digest_of(&text));
                    let read = dotenv::variables(file, &text, &variables)?;
                    if let Some((name, _)) = read.iter().find(|(name, value)| is_too_large(name, value.len())) {
                        return Err(too_large(Some(file), name));
                    }
                    (read, Vec::new())
                }
                EnvSource::Values(values) => {
                    for (name, value) in values {
                        digest.update([b"=", name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
                    }
                    let names = expand_values(values, request, &variables, &at_spawn);
                    names.map_err(|name| too_large(request.file.as_deref(), name))?
                }
            };
            at_spawn.unset_all(&set);
            at_spawn.set_all(waiting);
            variables.set_all(set);
        }
        variables.drop_secrets();
        at_spawn.drop_secrets();
        check_total(&variables, &request.cmd)?;
        let digest = (!request.env.is_empty()).then(|| identity::hex(&digest.finalize()[..ENV_DIGEST_BYTES]));
        Ok(Self { variables, at_spawn, digest, file_digests })
    }
}

/// Returns whether a dotenv file has another content than when `digest` was taken. One that cannot be read has.
pub(crate) fn has_env_file_changed(path: &Path, digest: &str) -> bool {
    dotenv::read(path).map_or(true, |text| digest_of(&text) != digest)
}

/// Identifies the text of a dotenv file.
fn digest_of(text: &str) -> String {
    identity::hex_digest(text.as_bytes(), 2 * ENV_DIGEST_BYTES)
}

/// Names and values, in order.
type Pairs = Vec<(String, String)>;

/// Expands the values of a map. Returns the variables that are known now, and unexpanded those that refer to something
/// that is known only at a spawn. The error is the name of one that is too large.
fn expand_values<'a>(
    values: &'a [(String, String)],
    request: &Request,
    variables: &Variables,
    at_spawn: &Variables,
) -> std::result::Result<(Pairs, Pairs), &'a str> {
    let port_variable =
        (request.port != PortRequest::NoPort).then(|| request.port_env.as_deref().unwrap_or(PORT_VARIABLE));
    let mut known: HashMap<&str, String> = variables.iter().map(|(name, value)| (name, value.to_owned())).collect();
    // What waits for the spawn, with the bytes that its value may have then.
    let mut waiting: HashMap<&str, usize> =
        at_spawn.iter().map(|(name, value)| (name, value.len() + SPAWN_VALUE)).collect();
    let (mut set, mut wait) = (Vec::new(), Vec::new());
    for (name, value) in values {
        let (waits, size) = (Cell::new(false), Cell::new(value.len()));
        expand(value, |name| {
            let at_spawn = waiting.get(name).copied();
            let is_own = Some(name) == port_variable || name.starts_with(RESERVED_PREFIX);
            waits.set(waits.get() || is_own || at_spawn.is_some());
            let now = known.get(name).map_or(0, String::len);
            size.set(size.get().saturating_add(now.max(at_spawn.unwrap_or(0)).max(if is_own {
                SPAWN_VALUE
            } else {
                0
            })));
            // Unset, so that the names in a default are seen.
            None
        });
        // Measured before it is expanded: every line could double what the lines before it have.
        if is_too_large(name, size.get()) {
            return Err(name);
        }
        if waits.get() {
            waiting.insert(name, size.get());
            wait.push((name.clone(), value.clone()));
        } else {
            let value = expand(value, |name| known.get(name).map(String::as_str));
            waiting.remove(name.as_str());
            known.insert(name, value.clone());
            set.push((name.clone(), value));
        }
    }
    Ok((set, wait))
}

/// Returns whether a variable is too large for `execve`.
fn is_too_large(name: &str, value_bytes: usize) -> bool {
    name.len().saturating_add(1).saturating_add(value_bytes) >= LARGEST_STRING
}

/// Returns the error for a variable of this file, or of the command line, that is too large.
fn too_large(path: Option<&Path>, name: &str) -> Error {
    let why = format!("the variable {} has 128 KiB or more, which no program can be given", start_of(name));
    let hint = "put the value into a file, and the file's path into the variable".to_owned();
    match path {
        Some(path) => Error::InvalidFile { path: path.to_owned(), line: None, why, hint: Some(hint) },
        None => Error::Usage { message: why, hint },
    }
}

/// Refuses an environment that is too large for `execve` together with the words of the command.
fn check_total(environment: &Variables, words: &[String]) -> Result<()> {
    // The kernel counts the NUL and a pointer for each string.
    let string_size = |length: usize| length + 1 + size_of::<usize>();
    let variables: Vec<(usize, &str)> =
        environment.iter().map(|(name, value)| (string_size(name.len() + 1 + value.len()), name)).collect();
    let total: usize =
        variables.iter().map(|(size, _)| *size).chain(words.iter().map(|word| string_size(word.len()))).sum();
    if total <= LARGEST_TOTAL {
        return Ok(());
    }
    let largest = variables.into_iter().max().map_or("", |(_, name)| name);
    Err(Error::Usage {
        message: format!(
            "the service's environment and command have {} KiB, and no program can be given more than {} KiB; \
             the largest variable is {}",
            total.div_ceil(1024),
            LARGEST_TOTAL / 1024,
            start_of(largest)
        ),
        hint: "put large values into files, or unset what the service does not need".into(),
    })
}

/// Returns the start of a variable's name, which may itself be the part that is too large.
fn start_of(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The prefix of devport's own variables. A dotenv file that sets one would hide which service a process belongs to.
const RESERVED_PREFIX: &str = "DEVPORT_";

/// Returns what is wrong with the name of a variable that a service declares, and what to do; `None` if nothing is.
pub(super) fn variable_name_problem(name: &str) -> Option<(String, &'static str)> {
    let shown = start_of(name);
    if name.starts_with(RESERVED_PREFIX) {
        let hint = "choose a name that does not begin with DEVPORT_";
        return Some((format!("{shown:?} is a variable that devport sets itself"), hint));
    }
    let is_valid = matches!(plain_name(name), Some((_, "")));
    let problem =
        || (format!("{shown:?} cannot be the name of a variable"), "use letters, digits and _, as in VITE_PORT");
    (!is_valid).then(problem)
}

/// Checks the name of a variable that an option declares.
pub(super) fn check_variable_name(name: &str) -> Result<()> {
    variable_name_problem(name).map_or(Ok(()), |(message, hint)| Err(Error::Usage { message, hint: hint.into() }))
}

/// Parses `NAME=VALUE`.
///
/// # Errors
/// If there is no `=`, or no environment can hold the name.
pub(crate) fn parse_assignment(text: &str) -> Result<(String, String)> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Error::Usage {
            message: format!("{text:?} has no ="),
            hint: "write NAME=VALUE, as in `--env NODE_ENV=test`".into(),
        });
    };
    check_variable_name(name)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Returns a path as text.
pub(super) fn path_text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::NotUtf8 { what: "the path".into(), lossy: path.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::service::ServiceSpec;
    use std::fs;

    /// Resolves a request with dotenv files of these texts.
    fn resolved(files: &[String]) -> Result<ServiceSpec> {
        let directory = tempfile::tempdir().unwrap();
        let write = |(index, text): (usize, &String)| {
            let path = directory.path().join(format!("{index}.env"));
            fs::write(&path, text).unwrap();
            path
        };
        let request = Request {
            cmd: vec!["true".into()],
            cwd: directory.path().to_owned(),
            env: files.iter().enumerate().map(write).map(EnvSource::File).collect(),
            ..Request::default()
        };
        let caller = CallerEnvironment::new([("CALLER".into(), "outside".into())]);
        ServiceSpec::resolve(request, &caller)
    }

    #[test]
    fn a_dotenv_file_sees_the_caller_and_the_files_before_it() {
        let spec = resolved(&["A=1$CALLER\nA=2$A".into(), "B=$A".into()]).unwrap();
        let value = |name: &str| spec.environment.iter().find(|(n, _)| *n == name).unwrap().1.to_owned();
        assert_eq!((value("A"), value("B")), ("21outside".into(), "21outside".into()));
    }

    #[test]
    fn values_see_what_is_set_before_them_and_the_port_waits_for_the_spawn() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x.env"), "A=file-$B\nGONE=1\n").unwrap();
        let values = |pairs: &[(&str, &str)]| {
            EnvSource::Values(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        let request = Request {
            cmd: vec!["true".into()],
            cwd: directory.path().to_owned(),
            env: vec![
                values(&[
                    ("B", "${CALLER}/b"),
                    ("P", "h:$PORT"),
                    ("Q", "${X:-$P}"),
                    ("GONE", "$PORT"),
                    ("K", "$DEVPORT_KEY"),
                ]),
                EnvSource::File(directory.path().join("x.env")),
                values(&[("B", "$B$$A ${NONE:-d}")]),
            ],
            ..Request::default()
        };
        let caller = CallerEnvironment::new([("CALLER".into(), "outside".into())]);
        let spec = ServiceSpec::resolve(request.clone(), &caller).unwrap();
        assert_eq!(spec.environment.get("A"), Some("file-outside/b"));
        assert_eq!(spec.environment.get("B"), Some("outside/b$A d"));
        assert_eq!(spec.environment.get("GONE"), Some("1"));
        let waiting: Vec<_> = spec.env_at_spawn.iter().collect();
        assert_eq!(waiting, [("P", "h:$PORT"), ("Q", "${X:-$P}"), ("K", "$DEVPORT_KEY")]);

        let changed = Request { env: vec![values(&[("B", "other")])], ..request.clone() };
        assert_ne!(ServiceSpec::resolve(changed, &caller).unwrap().env_digest, spec.env_digest);
        let portless =
            Request { port: PortRequest::NoPort, port_env: None, env: vec![values(&[("P", "$PORT")])], ..request };
        assert!(ServiceSpec::resolve(portless, &caller).unwrap().env_at_spawn.is_empty());
    }

    #[test]
    fn values_cannot_double_without_end() {
        let double = |first: &str| {
            let line = |n: u32| (format!("A{n}"), format!("$A{0}$A{0}", n - 1));
            [("A0".to_owned(), first.to_owned())].into_iter().chain((1..60).map(line)).collect::<Vec<_>>()
        };
        for first in ["xxxx", "$PORT"] {
            let request = Request {
                cmd: vec!["true".into()],
                cwd: "/".into(),
                file: Some("/d.yaml".into()),
                env: vec![EnvSource::Values(double(first))],
                ..Request::default()
            };
            let error = ServiceSpec::resolve(request, &CallerEnvironment::default()).unwrap_err().to_string();
            assert!(error.starts_with("/d.yaml: the variable A") && error.contains("128 KiB"), "{error}");
        }
    }

    #[test]
    fn an_environment_that_is_too_large_for_execve_is_refused_by_name() {
        let line = |name: &str, length: usize| format!("{name}={}\n", "x".repeat(length - name.len() - 1));
        assert!(resolved(&[line("BIG", LARGEST_STRING - 1)]).is_ok());
        let error = resolved(&["A=1\n".into(), line("BIG", LARGEST_STRING)]).unwrap_err().to_string();
        assert!(error.contains("1.env: the variable BIG has 128 KiB or more") && !error.contains("xx"), "{error}");

        let eight = |letter: &str| (0..8).map(|n| line(&format!("{letter}{n}"), 120_000)).collect::<String>();
        assert!(resolved(&[eight("A")]).is_ok());
        let error = resolved(&[eight("A"), eight("B"), line("C", 120_001)]).unwrap_err().to_string();
        assert!(error.contains("the largest variable is C") && !error.contains("xx"), "{error}");
    }

    #[test]
    fn a_file_of_many_variables_is_read_in_linear_time() {
        let text = (0..90_000).fold(String::new(), |text, n| text + &format!("A{n}=\n"));
        assert!(resolved(&[text]).unwrap().environment.iter().count() > 90_000);
    }
}
