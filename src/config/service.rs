//! `ServiceSpec`: a request with every path resolved and every file read.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::dotenv;
use crate::config::environment::{CallerEnvironment, Variables};
use crate::config::policy::Policy;
use crate::error::{Error, Result};
use crate::identity::{self, Key, ServiceHash, TailnetName};
use crate::project::Place;

/// The size that one `NAME=value` must stay below, in bytes (`execve(2)`, `MAX_ARG_STRLEN`).
const LARGEST_STRING: usize = 128 * 1024;
/// The largest environment and command in bytes: a quarter of the usual stack of 8 MiB on Linux (`execve(2)`), and
/// `ARG_MAX` on macOS. 64 KiB are left for PORT and the other variables that devport sets.
const LARGEST_TOTAL: usize = if cfg!(target_os = "macos") { 1024 * 1024 } else { 2 * 1024 * 1024 } - 64 * 1024;

/// What a user asks for, as typed or written in `devport.yaml`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// The user's name for the service; `None` if its directory and command name it.
    pub(crate) key: Option<Key>,
    /// The command and its arguments, unexpanded.
    pub(crate) cmd: Vec<String>,
    pub(crate) cwd: PathBuf,
    /// The canonical `devport.yaml` with the entry; `None` for a typed command.
    pub(crate) file: Option<PathBuf>,
    pub(crate) port: PortRequest,
    /// The variable with the port; `None` for `PORT`.
    pub(crate) port_env: Option<String>,
    /// Whether to publish it on the tailnet.
    pub(crate) tailnet: bool,
    /// Its name on the tailnet; `None` for the current one, or else its hashid.
    pub(crate) tailnet_name: Option<TailnetName>,
    /// Readiness, health, restarts, stopping and logs.
    pub(crate) policy: Policy,
    /// Dotenv files; later ones override earlier ones.
    pub(crate) env_files: Vec<PathBuf>,
    /// Variables with their values, over the dotenv files.
    pub(crate) env: Vec<(String, String)>,
}

impl Request {
    /// Returns the name for messages: the key, or else the command.
    pub(crate) fn name(&self) -> String {
        self.key.as_ref().map_or_else(|| shell_words::join(&self.cmd), Key::to_string)
    }

    /// Notes that an entry of this canonical file makes the request, and resolves its paths, which are relative to the
    /// file's directory.
    pub(crate) fn written_in(self, file: &Path, home: Option<&Path>) -> Self {
        let directory = file.parent().unwrap_or(Path::new("/"));
        let absolute = |path: PathBuf| directory.join(expand_home(&path, home));
        Self {
            cwd: absolute(self.cwd),
            file: Some(file.to_owned()),
            env_files: self.env_files.into_iter().map(absolute).collect(),
            ..self
        }
    }
}

/// Replaces a leading `~`.
fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// The port that a service requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PortRequest {
    /// Its current one, or else the lowest free one.
    #[default]
    Any,
    Exactly(u16),
    NoPort,
}

impl PortRequest {
    /// Combines the options for "no port" and for a certain port, of which the first wins.
    pub(crate) fn new(no_port: bool, port: Option<u16>) -> Self {
        match (no_port, port) {
            (true, _) => Self::NoPort,
            (false, Some(port)) => Self::Exactly(port),
            (false, None) => Self::Any,
        }
    }
}

/// A request with everything that registration needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ServiceSpec {
    /// The request. Its directory exists and is canonical.
    pub(crate) request: Request,
    pub(crate) hash: ServiceHash,
    /// The checkouts that the service belongs to.
    pub(crate) place: Place,
    /// The coding agent that runs the command; `None` if it is not known.
    pub(crate) started_by: Option<String>,
    /// The caller's environment with the dotenv files and the variables of the request over it.
    pub(crate) environment: Variables,
    /// Identifies the content of the dotenv files and the variables of the request; `None` without both.
    pub(crate) env_digest: Option<String>,
}

impl ServiceSpec {
    /// Resolves a request: checks the directory and the words, and reads the dotenv files.
    ///
    /// # Errors
    /// If the command is empty, the directory is missing, a name is not valid, a dotenv file cannot be read, or the
    /// environment is too large for `execve(2)`.
    pub(crate) fn resolve(mut request: Request, caller: &CallerEnvironment) -> Result<Self> {
        match request.cmd.first() {
            None => return Err(empty_command("there is no command to run")),
            Some(program) if program.is_empty() => return Err(empty_command("the command is an empty word")),
            Some(_) => {}
        }
        if request.cmd.iter().any(|word| word.contains('\0')) {
            return Err(empty_command("a word of the command contains a NUL byte"));
        }
        if let Some(name) = &request.port_env {
            check_variable_name(name)?;
        }
        if let Some(message) = request.policy.contradiction(request.port != PortRequest::NoPort) {
            return Err(Error::Usage { message, hint: "`devport start --help` says what each option takes".into() });
        }
        request.cwd = existing_directory(&request.cwd)?;
        let (environment, env_digest) = environment(&request, caller)?;
        Ok(Self {
            environment,
            env_digest,
            hash: match &request.key {
                Some(key) => ServiceHash::of_key(key),
                None => ServiceHash::of_command(&request.cwd, &request.cmd),
            },
            place: Place::new(&request.cwd, request.file.as_deref(), caller.home()),
            started_by: caller.agent(),
            request,
        })
    }

    /// Creates the spec of a port for a program that devport does not run, without command and environment.
    pub(crate) fn port_alone(key: Key, port: PortRequest, cwd: PathBuf, caller: &CallerEnvironment) -> Self {
        Self {
            place: Place::new(&cwd, None, caller.home()),
            hash: ServiceHash::of_key(&key),
            started_by: None,
            environment: Variables::default(),
            env_digest: None,
            request: Request { key: Some(key), port, cwd, ..Request::default() },
        }
    }

    /// Returns the name for messages: the key, or else the hash.
    pub(crate) fn name(&self) -> &str {
        self.request.key.as_ref().map_or(self.hash.as_str(), Key::as_str)
    }
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

/// Says which variable is too large for `execve`; `None` if none is.
fn oversized(variables: &[(String, String)]) -> Option<String> {
    let (name, _) = variables.iter().find(|(name, value)| name.len() + 1 + value.len() >= LARGEST_STRING)?;
    Some(format!("the variable {} has 128 KiB or more, which no program can be given", start_of(name)))
}

/// What to do about a variable that is too large.
const OVERSIZED_HINT: &str = "put the value into a file, and the file's path into the variable";

/// Builds the environment of a service: the caller's, with the dotenv files over it in order, and then the variables
/// that are set one by one. Returns it with what identifies the files' content and those variables.
fn environment(request: &Request, caller: &CallerEnvironment) -> Result<(Variables, Option<String>)> {
    let mut environment = caller.for_services()?;
    environment.set("PWD", path_text(&request.cwd)?);
    let mut digest = Sha256::new();
    for file in &request.env_files {
        let text = dotenv::read(file)?;
        // With the length, so that a line that moves from one file to the next is a change.
        digest.update(text.len().to_le_bytes());
        digest.update(&text);
        let variables = dotenv::variables(file, &text, &environment)?;
        if let Some(why) = oversized(&variables) {
            let (path, hint) = (file.clone(), Some(OVERSIZED_HINT.into()));
            return Err(Error::InvalidFile { path, line: None, why, hint });
        }
        environment.set_all(variables);
    }
    if let Some(message) = oversized(&request.env) {
        return Err(Error::Usage { message, hint: OVERSIZED_HINT.into() });
    }
    for (name, value) in &request.env {
        digest.update(format!("{name}={value}\0"));
    }
    environment.set_all(request.env.clone());
    environment.drop_secrets();
    check_total(&environment, &request.cmd)?;
    let has_own = !request.env_files.is_empty() || !request.env.is_empty();
    let digest = has_own.then(|| identity::hex(&digest.finalize()[..ENV_DIGEST_BYTES]));
    Ok((environment, digest))
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

/// Creates a usage error about the command.
fn empty_command(message: &str) -> Error {
    Error::Usage {
        message: message.into(),
        hint: "put the command behind --, as in `devport start --key api -- npm run dev`".into(),
    }
}

/// How many bytes of the digest of the dotenv files a record has: enough that two contents never share it.
const ENV_DIGEST_BYTES: usize = 16;

/// The prefix of devport's own variables. A dotenv file that sets one would hide which service a process belongs to.
const RESERVED_PREFIX: &str = "DEVPORT_";

/// Refuses a name that an environment cannot hold.
fn check_variable_name(name: &str) -> Result<()> {
    let good = |(index, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit());
    if name.starts_with(RESERVED_PREFIX) {
        return Err(Error::Usage {
            message: format!("{name:?} is a variable that devport sets itself"),
            hint: "choose a name that does not begin with DEVPORT_".into(),
        });
    }
    if !name.is_empty() && name.chars().enumerate().all(good) {
        return Ok(());
    }
    Err(Error::Usage {
        message: format!("{name:?} cannot be the name of a variable"),
        hint: "use letters, digits and _, as in VITE_PORT".into(),
    })
}

/// Returns the canonical path of an existing directory.
fn existing_directory(path: &Path) -> Result<PathBuf> {
    let invalid = |why: String| Error::InvalidDirectory { path: path.to_owned(), why };
    let canonical = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => invalid("does not exist".into()),
        _ => invalid(format!("cannot be used: {}", crate::error::reason(&error))),
    })?;
    match canonical.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(invalid("is not a directory".into())),
        Err(error) => return Err(invalid(format!("cannot be used: {}", crate::error::reason(&error)))),
    }
    path_text(&canonical)?;
    Ok(canonical)
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
            env_files: files.iter().enumerate().map(write).collect(),
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
