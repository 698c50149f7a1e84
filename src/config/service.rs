//! `ServiceSpec`: a request with every path resolved and every file read.

use std::path::{Path, PathBuf};

use crate::config::declared::{DeclaredEnvironment, check_variable_name, path_text};
use crate::config::environment::{CallerEnvironment, Variables};
use crate::config::request::{PortRequest, Request};
use crate::error::{Error, Result};
use crate::identity::{Key, ServiceHash};
use crate::project::Place;

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
    /// The caller's environment with the request's variables over it.
    pub(crate) environment: Variables,
    /// The variables with unexpanded values that refer to what is known only at a spawn, such as `$PORT`.
    pub(crate) env_at_spawn: Variables,
    /// Identifies what `env` declares, with the content of the dotenv files; `None` without `env`.
    pub(crate) env_digest: Option<String>,
    /// Identifies the content of each dotenv file, in the order of [`Request::env_files`].
    pub(crate) env_file_digests: Vec<String>,
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
            return Err(Error::Usage { message, hint: "`devport start --help` describes the options".into() });
        }
        request.cwd = existing_directory(&request.cwd)?;
        let DeclaredEnvironment { variables, at_spawn, digest, file_digests } =
            DeclaredEnvironment::of(&request, caller)?;
        Ok(Self {
            environment: variables,
            env_at_spawn: at_spawn,
            env_digest: digest,
            env_file_digests: file_digests,
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
            env_at_spawn: Variables::default(),
            env_digest: None,
            env_file_digests: Vec::new(),
            request: Request { key: Some(key), port, cwd, ..Request::default() },
        }
    }

    /// Returns the name for messages: the key, or else the hash.
    pub(crate) fn name(&self) -> &str {
        self.request.key.as_ref().map_or(self.hash.as_str(), Key::as_str)
    }
}

/// Creates a usage error about the command.
fn empty_command(message: &str) -> Error {
    Error::Usage {
        message: message.into(),
        hint: "put the command after --, as in `devport start --key api -- npm run dev`".into(),
    }
}

/// Returns the canonical path of an existing directory.
///
/// # Errors
/// [`Error::InvalidDirectory`] if it does not exist, or cannot be used as a working directory.
pub(crate) fn existing_directory(path: &Path) -> Result<PathBuf> {
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
