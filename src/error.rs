//! The error type: values, a message, a hint, an exit code.
//!
//! It knows no other module and prints nothing; `main.rs` prints an error once.

mod exit_code;
mod hint;
#[cfg(test)]
mod samples;
mod tailnet;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use tailnet::{ApiProblem, SERVICES_PAGE, TailnetError};

/// The result of every fallible function.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Every failure, with the values that the user needs to fix it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call on a file failed.
    #[error("could not {verb} {}: {}", path.display(), reason(source))]
    Io {
        /// The verb of the message, as an infinitive: `read`, `write`.
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system refuses a write below the state directory that its permissions allow, as in a sandbox.
    #[error("could not {verb} {}: {}", path.display(), reason(source))]
    Unwritable {
        /// As in [`Error::Io`].
        verb: &'static str,
        path: PathBuf,
        /// The state directory.
        base: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The home directory, which would contain the state directory, does not exist.
    #[error("the home directory {} does not exist, and could not be created: {}", home.display(), reason(source))]
    MissingHome {
        home: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A system call that concerns no file failed.
    #[error("could not {verb}: {}", reason(source))]
    System {
        /// The verb of the message and its object.
        verb: String,
        #[source]
        source: io::Error,
    },
    /// A combination of arguments that clap cannot check.
    #[error("{message}")]
    Usage { message: String, hint: String },
    /// A key that cannot name a service.
    #[error("key {key:?} {why}")]
    InvalidKey {
        /// The key as typed.
        key: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A word, path or variable that is not UTF-8.
    #[error("{what} is not UTF-8: {lossy:?}")]
    NotUtf8 {
        what: String,
        /// The value, with U+FFFD for bytes that are not UTF-8; empty if it may be a secret.
        lossy: String,
    },
    /// `DEVPORT_PORT_RANGE` is not a range of ports.
    #[error("DEVPORT_PORT_RANGE={value:?} is not a range of ports")]
    InvalidPortRange { value: String },
    /// A signal that does not exist.
    #[error("unknown signal {name:?}")]
    InvalidSignal { name: String },
    /// There is no home directory for the state directory.
    #[error("could not find the home directory, where services are recorded")]
    NoHome,
    /// A file that the user wrote is not valid.
    #[error("{}{}: {why}", path.display(), at_line(*line))]
    InvalidFile {
        path: PathBuf,
        /// The line, from 1; `None` for the whole file.
        line: Option<usize>,
        /// The problem; never a value of a dotenv file.
        why: String,
        hint: Option<String>,
    },
    /// A file that the user wrote has several mistakes.
    #[error("{}", mistake_lines(path, mistakes, *omitted).join("\n"))]
    InvalidLines {
        path: PathBuf,
        /// In the order of their lines.
        mistakes: Vec<Mistake>,
        /// How many more there are.
        omitted: usize,
        hint: String,
    },
    /// The service's working directory is missing or not a directory.
    #[error("working directory {} {why}", path.display())]
    InvalidDirectory {
        path: PathBuf,
        /// `does not exist`, `is not a directory`, …
        why: String,
    },
    /// The target names no service.
    #[error("no service matching {target:?}")]
    NoSuchService {
        target: String,
        /// The most similar keys, best first.
        nearest: Vec<String>,
    },
    /// The target names a service of the nearest file, and no checkout has registered it.
    #[error("{service}, declared in {}, is not registered", file.display())]
    NeverStarted {
        /// Its key, or else its name in the file.
        service: String,
        file: PathBuf,
        /// The command line that starts it.
        command: String,
    },
    /// A command without targets means the services of this checkout, which has none.
    #[error("{checkout} has no services")]
    NoServicesHere {
        /// The root of the checkout.
        checkout: String,
        /// The name of the command.
        verb: &'static str,
        /// The command line that starts the services of the nearest file; `None` if there is no file.
        up: Option<String>,
    },
    /// A `devport.yaml` has no service with the key.
    #[error("{} has no service {key:?}", path.display())]
    NoSuchEntry {
        key: String,
        path: PathBuf,
        /// The most similar keys, best first.
        nearest: Vec<String>,
        /// All keys of the file.
        keys: Vec<String>,
    },
    /// A hash prefix that is too short to be one.
    #[error("no service matching {target:?} (an id has at least 3 characters)")]
    PrefixTooShort {
        target: String,
        /// The most similar keys, best first.
        nearest: Vec<String>,
    },
    /// A hash prefix that several services share.
    #[error("{target:?} is ambiguous: {}", matches.join(", "))]
    Ambiguous {
        target: String,
        /// The matches, each as `hash (key)`.
        matches: Vec<String>,
    },
    /// A port that no service has and on which nothing listens.
    #[error("nothing listens on port {port}, and it is reserved for no service")]
    UnusedPort {
        port: u16,
        /// The most similar keys: the number may be a mistyped name.
        nearest: Vec<String>,
    },
    /// Two different keys have one hash.
    #[error("key {key:?} has the same hash ({hash}) as the registered service {other:?}")]
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
        /// The root of the checkout that owns the key.
        owner: String,
        /// The state and port of its service; `None` if they do not matter.
        state: Option<String>,
        /// The root of the checkout in which the command ran.
        here: String,
        /// What to do instead.
        hint: String,
    },
    /// The service runs in a checkout that was deleted or replaced: it is not the service of the checkout that is there.
    #[error("{service} runs in a checkout that no longer exists: {}", root.display())]
    CheckoutGone { service: String, root: PathBuf, hint: String },
    /// The requested port belongs to another service.
    #[error("port {port} is reserved for {owner}")]
    PortReserved {
        port: u16,
        /// The service that has it, and its directory.
        owner: String,
        /// The target that names it, if it belongs to the same checkout or to a deleted one: no other needs its port.
        removable: Option<String>,
    },
    /// A program listens on the port.
    #[error("port {port} is taken by {owner}")]
    PortTaken {
        port: u16,
        /// The listening process, if it can be seen.
        owner: String,
        hint: String,
    },
    /// The URL of a check names another port than the service's.
    #[error("a check of {service} uses port {other}, but the port of {service} is {port}")]
    PortOfCheck { service: String, other: u16, port: u16 },
    /// The service has a port already, and ports never move.
    #[error("{service} already has port {port}, and ports never change")]
    PortFixed {
        service: String,
        port: u16,
        /// How to move it.
        hint: String,
    },
    /// Every port of the range is reserved or taken.
    #[error("no free port in {first}-{last}: {reserved} reserved, {listening} taken by other programs")]
    PoolExhausted {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// The number of ports of services.
        reserved: usize,
        /// The number of ports of other programs.
        listening: usize,
    },
    /// A record that cannot be read. devport does not change it.
    #[error("could not use the record {}: {why}", path.display())]
    CorruptRecord {
        path: PathBuf,
        /// Why it cannot be used.
        why: String,
    },
    /// A record of a later devport. This devport does not change it.
    #[error("{} was written by a newer devport (schema {schema})", path.display())]
    NewerRecord { path: PathBuf, schema: u32 },
    /// The state directory belongs to another user.
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
        /// The time limit, in seconds.
        waited_s: u64,
    },
    /// The service did not start.
    #[error("{service} did not start: {why}")]
    StartFailed {
        service: String,
        /// The reason, from its supervisor.
        why: String,
        hint: Option<String>,
    },
    /// The command of a service in the foreground has ended, and is not restarted.
    #[error("{service} ended: {why}")]
    CommandEnded {
        service: String,
        /// How it ended, and why it is not restarted.
        why: String,
        /// Its exit code; 128 and the number of the signal if one ended it.
        code: u8,
    },
    /// The process tree of the service did not end in time.
    #[error("{service} is still stopping after {waited_s} s: {left}")]
    StillStopping {
        service: String,
        /// The time limit, in seconds.
        waited_s: u64,
        left: String,
    },
    /// A supervisor runs, but it does not name itself in its lock file.
    #[error("{service} runs, but its supervisor cannot be identified: {why}")]
    UnknownSupervisor { service: String, why: String },
    /// A process may be left of an earlier run, but cannot be identified.
    #[error("{service} may still be running as {process}, but devport cannot prove that the process belongs to it")]
    UnprovenOrphan { service: String, process: String },
    /// The service has no port.
    #[error("{service} has no port")]
    NoPort { service: String },
    /// The environment of the service lacks the variable.
    #[error("{service} has no variable {name}")]
    NoSuchVariable { service: String, name: String },
    /// The service has a port and no command.
    #[error("{service} is a reserved port without a command")]
    NoCommand {
        service: String,
        /// What gives it one.
        hint: String,
    },
    /// The log has no lines of the requested run.
    #[error("the log of {service} has no {run}: {kept}")]
    NoSuchRun {
        service: String,
        /// `run 99` or `run that has ended`.
        run: String,
        /// The runs that it has.
        kept: String,
    },
    /// No browser can be started.
    #[error("could not open {url} in a browser: {why}")]
    NoBrowser { url: String, why: String },
    /// The command needs a running service.
    #[error("{service} is not running")]
    NotRunning { service: String },
    /// The service is supervised, but none of its processes runs.
    #[error("{service} has no running process to signal: its state is {state}")]
    NoProcess {
        service: String,
        /// The name of the state, such as `backoff`.
        state: &'static str,
    },
    /// A terminal cannot be attached.
    #[error("cannot attach to {service}: {why}")]
    CannotAttach {
        /// The service, or the window.
        service: String,
        why: String,
        /// What to do instead.
        hint: String,
    },
    /// A tmux command failed.
    #[error("tmux {command} failed: {message}")]
    Tmux { command: &'static str, message: String },
    /// The tmux server does not respond.
    #[error("the tmux server did not respond within {waited_s} s")]
    TmuxSilent {
        /// The time limit, in seconds.
        waited_s: u64,
    },
    /// An error of the tailnet.
    #[error(transparent)]
    Tailnet(#[from] TailnetError),
    /// Some of several services failed; each was reported already.
    #[error("{failed} of {total} services failed")]
    SomeFailed {
        failed: usize,
        /// How many there were.
        total: usize,
    },
    /// Records that could not be read are missing in a list; each was reported already.
    #[error("the list is incomplete: {} could not be read", records(*missing))]
    SomeUnread { missing: usize },
    /// A service did not reach a state within the timeout.
    #[error("{service} is not {state}{}: {why}", waited_s.map_or_else(String::new, |seconds| format!(" after {seconds} s")))]
    NotInTime {
        service: String,
        /// `ready` or `stopped`.
        state: &'static str,
        /// For how many seconds the command waited; `None` if waiting longer has no use.
        waited_s: Option<f64>,
        why: String,
        /// What shows more, or starts the service.
        hint: String,
    },
    /// A service that runs to completion failed.
    #[error("{service} failed: {why}")]
    NotCompleted { service: String, why: String },
    /// Some services of a stack did not come up; each was reported already.
    #[error("{failed} of {total} services did not come up")]
    SomeNotUp { failed: usize, total: usize },
    /// A command in the foreground was interrupted, and has stopped what it started.
    #[error("interrupted by {signal}")]
    Interrupted {
        /// The name of the signal.
        signal: String,
        /// 128 plus the number of the signal.
        code: u8,
    },
    /// `up` would start, restart or register services.
    #[error("`devport up` would change services")]
    WouldChange,
    /// There is no file that names the services of a stack.
    #[error("there is no devport.yaml in {}{}", .directory.display(), up_to(.directory, .root))]
    NoStackFile { directory: PathBuf, root: PathBuf },
    /// The `.git` file of a checkout names a directory that does not exist.
    #[error("the .git file of {} points to a directory that does not exist", .root.display())]
    DanglingCheckout { root: PathBuf },
    /// A shared service needs the main checkout.
    #[error("{service} is shared and runs in the main checkout, but {} has none", .root.display())]
    NoMainCheckout { service: String, root: PathBuf },
    /// Some of several services did not reach a state; each was reported already.
    #[error("{failed} of {total} services did not become {state}")]
    NotAllInTime {
        /// `ready` or `stopped`.
        state: &'static str,
        /// How many did not.
        failed: usize,
        /// How many there were.
        total: usize,
    },
    /// The user cancelled a prompt.
    #[error("cancelled")]
    Cancelled,
    /// Standard output is closed, as by `devport ls | head -1`.
    #[error("standard output is closed")]
    ClosedOutput,
}

/// A mistake in a file that the user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The problem and a suggestion; never a value of a variable.
    pub(crate) what: String,
}

impl Error {
    /// Returns the lines of the message. A line may contain text from outside, which is not escaped.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::InvalidLines { path, mistakes, omitted, .. } => mistake_lines(path, mistakes, *omitted),
            _ => vec![self.to_string()],
        }
    }

    /// Returns whether the exit code says everything: the user caused the end, or has seen the reason.
    pub(crate) fn is_silent(&self) -> bool {
        // The reader of standard output has closed the pipe, as `head` does: no failure for the user.
        matches!(self, Self::ClosedOutput | Self::Interrupted { .. } | Self::WouldChange)
    }

    /// Returns a function for `map_err` that turns an I/O error into an [`Error::Io`].
    pub(crate) fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { verb, path, source }
    }

    /// Returns a function for `map_err` that turns an error into an [`Error::System`].
    pub(crate) fn system<E: Into<io::Error>>(verb: impl Into<String>) -> impl FnOnce(E) -> Self {
        let verb = verb.into();
        move |source| Self::System { verb, source: source.into() }
    }
}

/// Returns the system's reason as a sentence fragment: lower case, without `(os error 13)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Returns a line for each mistake, and one that counts the omitted ones.
fn mistake_lines(path: &Path, mistakes: &[Mistake], omitted: usize) -> Vec<String> {
    let path = path.display();
    let mut lines: Vec<String> =
        mistakes.iter().map(|Mistake { line, what }| format!("{path}:{line}: {what}")).collect();
    if omitted > 0 {
        lines.push(format!("{path}: {omitted} more mistakes"));
    }
    lines
}

fn records(count: usize) -> String {
    if count == 1 { "1 record".into() } else { format!("{count} records") }
}

/// Returns where else a file was searched for, or nothing if `root` is the directory.
fn up_to(directory: &Path, root: &Path) -> String {
    if directory == root { String::new() } else { format!(" or its parent directories up to {}", root.display()) }
}

/// Returns `:7` for line 7, or nothing.
fn at_line(line: Option<usize>) -> String {
    line.map(|number| format!(":{number}")).unwrap_or_default()
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
