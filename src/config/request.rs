//! `Request`: one service as typed or written in `devport.yaml`.

use std::path::{Path, PathBuf};

use crate::config::environment::is_secret;
use crate::config::policy::Policy;
use crate::identity::{Key, TailnetName};

/// A service that a user requests, as typed or written in `devport.yaml`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// The user's name for the service; `None` if its directory and command name it.
    pub(crate) key: Option<Key>,
    /// The name of the stack that it belongs to; `None` if it belongs to none.
    pub(crate) stack: Option<String>,
    /// Whether the command runs to completion.
    pub(crate) one_shot: bool,
    /// Whether all checkouts of its repository share it.
    pub(crate) shared: bool,
    /// The tmux session with its window; `None` for the default one.
    pub(crate) tmux_session: Option<String>,
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
    /// Where variables come from; later ones override earlier ones.
    pub(crate) env: Vec<EnvSource>,
    /// The scheme of its address; `None` for `http`.
    pub(crate) scheme: Option<String>,
}

/// Where variables of a service come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EnvSource {
    /// A dotenv file.
    File(PathBuf),
    /// Names with unexpanded values, in order.
    Values(Vec<(String, String)>),
}

/// What the options of `devport start` say about a service, apart from its key, its port and the variables of `--env`.
#[derive(Debug)]
pub(crate) struct StartOptions<'a> {
    pub(crate) cwd: &'a Path,
    pub(crate) no_port: bool,
    pub(crate) port_env: Option<&'a str>,
    pub(crate) env_files: Vec<&'a Path>,
    pub(crate) is_on_tailnet: bool,
    /// Its name on the tailnet; `None` for its id.
    pub(crate) tailnet_name: Option<&'a str>,
    pub(crate) policy: &'a Policy,
}

impl StartOptions<'_> {
    /// Returns the options with their values. They mean the same in every directory.
    pub(crate) fn words(&self) -> Vec<String> {
        let option = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        let path = |name: &str, path: &Path| option(name, &path.to_string_lossy());
        let mut words = path("--cwd", self.cwd).to_vec();
        words.extend(self.no_port.then(|| "--no-port".to_owned()));
        words.extend(self.port_env.into_iter().flat_map(|variable| option("--port-env", variable)));
        words.extend(self.env_files.iter().flat_map(|file| path("--env-file", file)));
        if self.is_on_tailnet {
            words.push("--tailnet".into());
            words.extend(self.tailnet_name.into_iter().flat_map(|name| option("--tailnet-name", name)));
        }
        words.extend(self.policy.start_options());
        words
    }
}

impl Request {
    /// Returns the name for messages: the key, or else the command.
    pub(crate) fn name(&self) -> String {
        self.key.as_ref().map_or_else(|| shell_words::join(&self.cmd), Key::to_string)
    }

    /// Returns what the options of `devport start` say about it.
    pub(crate) fn start_options(&self) -> StartOptions<'_> {
        StartOptions {
            cwd: &self.cwd,
            no_port: self.port == PortRequest::NoPort,
            port_env: self.port_env.as_deref(),
            env_files: self.env_files().map(PathBuf::as_path).collect(),
            is_on_tailnet: self.tailnet,
            tailnet_name: self.tailnet_name.as_ref().map(TailnetName::as_str),
            policy: &self.policy,
        }
    }

    /// Returns the names of the variables that options set; none if a file declares the service. Credentials are left out:
    /// the service does not get them.
    pub(crate) fn env_names(&self) -> Vec<String> {
        let names = |source: &EnvSource| match source {
            EnvSource::Values(values) => {
                values.iter().filter(|(name, value)| !is_secret(name, value)).map(|(name, _)| name.clone()).collect()
            }
            EnvSource::File(_) => Vec::new(),
        };
        if self.file.is_some() { Vec::new() } else { self.env.iter().flat_map(names).collect() }
    }

    /// Returns the dotenv files, in order.
    pub(crate) fn env_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.env.iter().filter_map(|source| match source {
            EnvSource::File(path) => Some(path),
            EnvSource::Values(_) => None,
        })
    }

    /// Notes that an entry of this canonical file makes the request, and resolves its paths, which are relative to the
    /// file's directory.
    pub(crate) fn written_in(self, file: &Path, home: Option<&Path>) -> Self {
        let directory = file.parent().unwrap_or(Path::new("/"));
        let absolute = |path: PathBuf| directory.join(expand_home(&path, home));
        Self {
            cwd: absolute(self.cwd),
            file: Some(file.to_owned()),
            env: self
                .env
                .into_iter()
                .map(|source| match source {
                    EnvSource::File(path) => EnvSource::File(absolute(path)),
                    values @ EnvSource::Values(_) => values,
                })
                .collect(),
            ..self
        }
    }
}

/// Replaces a leading `~`.
pub(super) fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
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
    /// Its current one, or else the one that its hash selects, or else the lowest free one: a service of a stack mostly has
    /// the same port on every machine.
    ByHash,
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
