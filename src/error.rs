//! The one error type: plain data, a message, a hint, an exit code.
//!
//! It knows nothing of the rest of the program and prints nothing; `main.rs` prints an error once.

mod tailnet;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use tailnet::{ApiProblem, SERVICES_PAGE, TailnetError};

/// What every fallible function of devport returns.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, each with the values that a person needs to put it right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call on a file failed.
    #[error("could not {verb} {}: {}", path.display(), reason(source))]
    Io {
        /// What was attempted, as an infinitive: `read`, `write`.
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A system call that concerns no file failed.
    #[error("could not {verb}: {}", reason(source))]
    System {
        /// What was attempted, as an infinitive with its object.
        verb: String,
        #[source]
        source: io::Error,
    },
    /// The command line does not make sense, in a way that clap cannot see.
    #[error("{message}")]
    Usage {
        message: String,
        /// What to type instead.
        hint: String,
    },
    /// A key that cannot name a service.
    #[error("key {key:?} {why}")]
    InvalidKey {
        /// The key as typed.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A word, path or variable that is not UTF-8.
    #[error("{what} is not UTF-8: {lossy:?}")]
    NotUtf8 {
        what: String,
        /// It, with U+FFFD in place of what cannot be shown; empty where it might be a secret.
        lossy: String,
    },
    /// `DEVPORT_PORT_RANGE` is not a range of ports.
    #[error("DEVPORT_PORT_RANGE={value:?} is not a range of ports")]
    InvalidPortRange { value: String },
    /// A signal that does not exist.
    #[error("unknown signal {name:?}")]
    InvalidSignal { name: String },
    /// The state directory cannot be derived.
    #[error("there is no home directory to keep services in")]
    NoHome,
    /// A file of the user's that devport reads is wrong.
    #[error("{}{}: {why}", path.display(), at_line(*line))]
    InvalidFile {
        path: PathBuf,
        /// Line in the file, from 1; `None` if it is the file as a whole.
        line: Option<usize>,
        /// What is wrong; never a value of a dotenv file.
        why: String,
        hint: Option<String>,
    },
    /// The directory that a service shall run in is not there.
    #[error("working directory {} {why}", path.display())]
    InvalidDirectory {
        path: PathBuf,
        /// `does not exist`, `is not a directory`, …
        why: String,
    },
    /// No service answers to the target.
    #[error("no service matching {target:?}")]
    NoSuchService {
        target: String,
        /// The keys nearest to it, best first.
        nearest: Vec<String>,
    },
    /// A hash prefix that is too short to be one.
    #[error("no service matching {target:?} (a hash prefix needs at least 3 characters)")]
    PrefixTooShort {
        target: String,
        /// The keys nearest to it, best first.
        nearest: Vec<String>,
    },
    /// A hash prefix that several services share.
    #[error("{target:?} is ambiguous: {}", matches.join(", "))]
    Ambiguous {
        target: String,
        /// What it matches, each as `hash (key)`.
        matches: Vec<String>,
    },
    /// Two different keys with one hash.
    #[error("key {key:?} has the same hash {hash} as the registered {other:?}")]
    HashCollision {
        key: String,
        hash: String,
        /// The name of the registered service.
        other: String,
    },
    /// The key belongs to another checkout.
    #[error("{key} belongs to {owner}{}; this is {here}", state.as_ref().map(|state| format!(" ({state})")).unwrap_or_default())]
    KeyElsewhere {
        key: String,
        /// The root of the checkout that it belongs to.
        owner: String,
        /// The state and port of its service; `None` if it does not matter.
        state: Option<String>,
        /// The root of the checkout that the command was run in.
        here: String,
        /// What to do instead.
        hint: String,
    },
    /// The port asked for belongs to another service.
    #[error("port {port} is reserved for {owner}")]
    PortReserved { port: u16, owner: String },
    /// Something listens on the port.
    #[error("port {port} is taken by {owner}")]
    PortTaken {
        port: u16,
        /// Who listens on it, as far as can be told.
        owner: String,
        hint: String,
    },
    /// The service has a port already, and ports never move.
    #[error("{service} has port {port} already, and a port never moves")]
    PortFixed { service: String, port: u16 },
    /// Every port of the range is reserved or taken.
    #[error("no free port in {first}-{last}: {reserved} reserved, {listening} taken by other programs")]
    PoolExhausted {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// How many belong to services.
        reserved: usize,
        /// How many something else listens on.
        listening: usize,
    },
    /// A record that cannot be read; it is left alone.
    #[error("{} is not a usable record: {why}", path.display())]
    CorruptRecord {
        path: PathBuf,
        /// Why it cannot be used.
        why: String,
    },
    /// A record of a later devport; it is left alone.
    #[error("{} was written by a newer devport (schema {schema})", path.display())]
    NewerRecord { path: PathBuf, schema: u32 },
    /// The state directory belongs to somebody else.
    #[error("{} belongs to user {owner}, not to user {me}", path.display())]
    ForeignDirectory {
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        me: u32,
    },
    /// A lock stayed busy past its time limit.
    #[error("{what} is still held by {holder} after {waited_s} s")]
    LockBusy {
        what: String,
        holder: String,
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// The service did not come up.
    #[error("{service} did not start: {why}")]
    StartFailed {
        service: String,
        /// The reason, from its supervisor.
        why: String,
        hint: Option<String>,
    },
    /// The supervisor or its tree did not end in time.
    #[error("{service} is still stopping after {waited_s} s: {left}")]
    StillStopping {
        service: String,
        /// How long we waited, in seconds.
        waited_s: u64,
        /// The processes that are left.
        left: String,
    },
    /// The supervisor runs, but cannot be told apart from a stranger.
    #[error("{service} runs, but its supervisor cannot be identified: {why}")]
    UnknownSupervisor { service: String, why: String },
    /// Leftovers of an earlier run that cannot be proved to be ours.
    #[error("{service} may still run as {process}, which cannot be proved to be its process")]
    UnprovenLeftover { service: String, process: String },
    /// The service has no port.
    #[error("{service} has no port")]
    NoPort { service: String },
    /// The service has a port and no command.
    #[error("{service} is a reserved port without a command")]
    NoCommand { service: String },
    /// The log has no lines of a run.
    #[error("the log of {service} has no {run}: {kept}")]
    NoSuchRun {
        service: String,
        /// `run 99` or `previous run`.
        run: String,
        /// Which runs it has.
        kept: String,
    },
    /// No browser can be started.
    #[error("no browser could be started for {url}")]
    NoBrowser { url: String },
    /// The command needs a running service.
    #[error("{service} is not running")]
    NotRunning { service: String },
    /// The terminal part cannot do what was asked.
    #[error("cannot attach to {service}: {why}")]
    CannotAttach {
        /// The service, or what was to be attached.
        service: String,
        why: String,
        /// What to do instead.
        hint: String,
    },
    /// tmux answered with an error.
    #[error("tmux {command}: {message}")]
    Tmux { command: &'static str, message: String },
    /// The tmux server hangs.
    #[error("the tmux server gives no answer in {waited_s} s")]
    TmuxSilent {
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// Publication on the tailnet.
    #[error(transparent)]
    Tailnet(#[from] TailnetError),
    /// One or more of several services failed; each was reported already.
    #[error("{failed} of {total} services failed")]
    SomeFailed {
        failed: usize,
        /// How many there were.
        total: usize,
    },
    /// Services are missing in a list, because their records could not be read; each was reported already.
    #[error("the list is not complete: {missing} records could not be read")]
    SomeUnread { missing: usize },
    /// A service did not come to be what it was waited for.
    #[error("{service} is not {state}: {why}")]
    NotInTime {
        service: String,
        /// `ready` or `stopped`.
        state: &'static str,
        /// Why, as far as is known.
        why: String,
    },
    /// So did several; each was reported already.
    #[error("{failed} of {total} services did not come to it")]
    NotAllInTime {
        /// How many did not.
        failed: usize,
        /// How many there were.
        total: usize,
    },
    /// The user changed their mind.
    #[error("cancelled")]
    Cancelled,
    /// Standard output is closed; nobody is there to be told.
    #[error("standard output is closed")]
    ClosedOutput,
}

impl Error {
    /// Makes an [`Error::Io`] out of what a system call returned: for `map_err`.
    pub(crate) fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { verb, path, source }
    }

    /// Makes an [`Error::System`] out of what a system call returned: for `map_err`.
    pub(crate) fn system<E: Into<io::Error>>(verb: impl Into<String>) -> impl FnOnce(E) -> Self {
        let verb = verb.into();
        move |source| Self::System { verb, source: source.into() }
    }

    /// What the user can do about it; `None` if there is nothing that the message does not say.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => io_hint(source, path),
            Self::Usage { hint, .. }
            | Self::PortTaken { hint, .. }
            | Self::CannotAttach { hint, .. }
            | Self::KeyElsewhere { hint, .. } => Some(hint.clone()),
            Self::InvalidFile { hint, .. } | Self::StartFailed { hint, .. } => hint.clone(),
            Self::Tailnet(error) => error.hint(),
            _ => self.standard_hint(),
        }
    }

    /// The hint of an error that carries none of its own.
    fn standard_hint(&self) -> Option<String> {
        let hint = match self {
            Self::InvalidKey { .. } => "a key has 1 to 128 bytes, no control characters and no leading dash".into(),
            Self::NotUtf8 { .. } => {
                "devport keeps commands, paths and variables as UTF-8 text; rename or unset it".into()
            }
            Self::InvalidPortRange { .. } => "write it as FIRST-LAST within 1024-65535, such as 19000-19999".into(),
            Self::InvalidSignal { .. } => "use a name such as HUP or SIGUSR1, or a number; `kill -l` lists them".into(),
            Self::NoHome => "set HOME, or DEVPORT_HOME to an absolute path".into(),
            Self::InvalidDirectory { .. } => "create it, or start the service from another directory".into(),
            Self::NoSuchService { nearest, .. } | Self::PrefixTooShort { nearest, .. } => match nearest.as_slice() {
                [] => "`devport ls` lists the services".into(),
                keys => format!("did you mean {}?", keys.join(" or ")),
            },
            Self::Ambiguous { .. } => "type more of the hash, or the key".into(),
            Self::HashCollision { .. } => "choose another key".into(),
            Self::PortReserved { owner, .. } => format!("choose another port, or free it with `devport rm {owner}`"),
            Self::PortFixed { service, .. } => {
                format!("`devport rm {service}` frees the port; then start it with the new one")
            }
            Self::PoolExhausted { .. } => {
                "`devport rm` frees ports of services that you no longer need; DEVPORT_PORT_RANGE sets another range"
                    .into()
            }
            Self::CorruptRecord { path, .. } => {
                format!("devport will not touch it: repair it, or move it away (`mv {0} {0}.broken`)", path.display())
            }
            Self::NewerRecord { .. } => "upgrade devport".into(),
            Self::ForeignDirectory { .. } => {
                "run devport as that user, or set DEVPORT_HOME to your own directory".into()
            }
            Self::LockBusy { .. } => "that process may hang; end it and try again".into(),
            Self::StillStopping { .. } => "try again, or look at these processes with `ps`".into(),
            Self::UnknownSupervisor { .. } => "wait a moment and try again".into(),
            Self::UnprovenLeftover { .. } => {
                "look at it with `ps`, end it yourself if it is a leftover, and start again".into()
            }
            Self::TmuxSilent { .. } => "look at it with `ps`: it may be stopped (`kill -CONT`) or busy".into(),
            Self::NotRunning { service } => format!("`devport start {service}` starts it"),
            Self::NoPort { service } => format!("`devport which {service}` shows what there is to know of it"),
            Self::NoCommand { service } => format!("give it one: `devport start --key {service} -- npm run dev`"),
            Self::NoBrowser { .. } => "open it by hand; BROWSER names a program to do it with".into(),
            Self::NotInTime { service, .. } => {
                format!("`devport which {service}` and `devport logs {service}` tell more")
            }
            // The others say all there is in the message, or carry a hint of their own.
            _ => return None,
        };
        Some(hint)
    }

    /// The documented exit code. Source: design.md, section 9.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ClosedOutput => 0,
            Self::Usage { .. } | Self::InvalidKey { .. } | Self::NotUtf8 { .. } | Self::InvalidSignal { .. } => 2,
            Self::InvalidPortRange { .. } | Self::NoHome | Self::InvalidFile { .. } | Self::InvalidDirectory { .. } => {
                3
            }
            Self::NoSuchService { .. } | Self::PrefixTooShort { .. } | Self::Ambiguous { .. } => 4,
            Self::NotInTime { .. } | Self::NotAllInTime { .. } => 5,
            Self::KeyElsewhere { .. } => 6,
            Self::Cancelled => 130,
            Self::Tailnet(error) => error.exit_code(),
            Self::Io { .. }
            | Self::System { .. }
            | Self::HashCollision { .. }
            | Self::PortReserved { .. }
            | Self::PortTaken { .. }
            | Self::PortFixed { .. }
            | Self::PoolExhausted { .. }
            | Self::CorruptRecord { .. }
            | Self::NewerRecord { .. }
            | Self::ForeignDirectory { .. }
            | Self::LockBusy { .. }
            | Self::StartFailed { .. }
            | Self::StillStopping { .. }
            | Self::UnknownSupervisor { .. }
            | Self::UnprovenLeftover { .. }
            | Self::NotRunning { .. }
            | Self::NoPort { .. }
            | Self::NoCommand { .. }
            | Self::NoSuchRun { .. }
            | Self::NoBrowser { .. }
            | Self::CannotAttach { .. }
            | Self::Tmux { .. }
            | Self::TmuxSilent { .. }
            | Self::SomeFailed { .. }
            | Self::SomeUnread { .. } => 1,
        })
    }
}

/// The operating system's reason as a sentence fragment: lower case, without `(os error 13)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// `, line 7`, or nothing.
fn at_line(line: Option<usize>) -> String {
    line.map(|number| format!(":{number}")).unwrap_or_default()
}

/// The remedy for the failures of the file system that have one.
fn io_hint(error: &io::Error, path: &std::path::Path) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space and try again; `devport ls`, `stop` and `logs` still work".into())
        }
        io::ErrorKind::ReadOnlyFilesystem => Some("set DEVPORT_HOME to a directory that can be written".into()),
        io::ErrorKind::PermissionDenied => Some(format!("check who may use it: `ls -ld {}`", path.display())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_lower_case_fragment_without_a_number() {
        assert_eq!(reason(&io::Error::from_raw_os_error(libc::EACCES)), "permission denied");
        assert_eq!(reason(&io::Error::from_raw_os_error(libc::ENOSPC)), "no space left on device");
    }

    #[test]
    fn a_file_error_names_the_line_if_there_is_one() {
        let at = |line| Error::InvalidFile { path: "a.yaml".into(), line, why: "no".into(), hint: None }.to_string();
        assert_eq!(at(Some(7)), "a.yaml:7: no");
        assert_eq!(at(None), "a.yaml: no");
    }
}
