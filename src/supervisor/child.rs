//! Starting the child of a service, and finding out which process listens on its port.

use std::io;
use std::path::Path;

use crate::config::{Variables, expand};
use crate::os::process::{self, ProcessIdentity, command_of, environment_value};
use crate::os::spawn::{self, ChildStreams};
use crate::os::{socket, tree};
use crate::registry::{Registry, Reservation};
use crate::supervisor::stream::{Stream, StreamKind};

/// Why a child could not be started.
#[derive(Debug)]
pub(super) struct SpawnError {
    /// A sentence fragment for people.
    pub(super) why: String,
    /// Whether a later attempt would fail in the same way.
    pub(super) is_permanent: bool,
}

/// Starts the child of a service. `term` is its `TERM`. Returns the child and our ends of its streams.
///
/// # Errors
/// If it cannot be executed.
pub(super) fn spawn(
    reservation: &Reservation,
    environment: &Variables,
    registry: &Registry,
    term: Option<&str>,
    kind: StreamKind,
) -> Result<(ProcessIdentity, Vec<Stream>), SpawnError> {
    let (ours, childs) = Stream::open(kind).map_err(|error| SpawnError {
        why: format!("no terminal for it: {}", crate::error::reason(&error)),
        is_permanent: false,
    })?;
    let child = execute(&reservation.cmd, reservation, environment, registry, term, childs)?;
    Ok((child, ours))
}

/// Starts the command of a check in the service's directory and environment, without streams.
///
/// # Errors
/// If it cannot be executed.
pub(super) fn spawn_check(
    words: &[String],
    reservation: &Reservation,
    environment: &Variables,
    registry: &Registry,
) -> Result<ProcessIdentity, SpawnError> {
    execute(words, reservation, environment, registry, None, ChildStreams::Nothing)
}

/// Executes a command in the directory and the environment of a service.
fn execute(
    words: &[String],
    reservation: &Reservation,
    environment: &Variables,
    registry: &Registry,
    term: Option<&str>,
    streams: ChildStreams,
) -> Result<ProcessIdentity, SpawnError> {
    let environment = environment.for_child(&reservation.child_variables(registry.paths().base(), term));
    let value_of = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let expanded: Vec<String> = words.iter().map(|word| expand(word, value_of)).collect();
    if expanded.first().is_none_or(String::is_empty) {
        let why = format!("the command {:?} expands to nothing", words.first().map_or("", String::as_str));
        return Err(SpawnError { why, is_permanent: true });
    }
    let pid = spawn::child(&expanded, &environment, &reservation.cwd, streams).map_err(|error| SpawnError {
        why: spawn_failure(&expanded[0], &reservation.cwd, &error),
        is_permanent: is_permanent_failure(&error),
    })?;
    ProcessIdentity::of_child(pid).map_err(|error| {
        // Without an identity, a later process with the same pid would look like the child, so stopping it would
        // never be safe. The child is not reaped yet, so its pid is still its own.
        let _ = process::kill_child(pid);
        SpawnError {
            why: format!("could not identify pid {pid}: {}", crate::error::reason(&error)),
            is_permanent: false,
        }
    })
}

/// Returns whether an error concerns the program or its directory, rather than a shortage such as too many processes.
fn is_permanent_failure(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | NotADirectory | IsADirectory)
        || error.raw_os_error().is_some_and(|code| UNUSABLE_PROGRAM.contains(&code))
}

/// The error for a file that is not a program (`execve(2)`).
#[cfg(target_os = "linux")]
const UNUSABLE_PROGRAM: [i32; 1] = [libc::ENOEXEC];
/// The errors for a file that is not a program, among them one for a program for another processor (`execve(2)`).
#[cfg(target_os = "macos")]
const UNUSABLE_PROGRAM: [i32; 4] = [libc::ENOEXEC, libc::EBADARCH, libc::EBADEXEC, libc::EBADMACHO];

/// Explains why a program could not be executed. `execve(2)` has the same error for a missing program, a missing
/// interpreter and a missing directory.
fn spawn_failure(program: &str, cwd: &Path, error: &io::Error) -> String {
    match std::fs::metadata(cwd) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return format!("its working directory {} is not a directory", cwd.display()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return format!("its working directory {} does not exist", cwd.display());
        }
        Err(cause) => {
            return format!("its working directory {} cannot be used: {}", cwd.display(), crate::error::reason(&cause));
        }
    }
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("{program}: no such file, or its interpreter is missing")
        }
        io::ErrorKind::NotFound => format!("{program}: command not found in its PATH"),
        _ => format!("{program}: {}", crate::error::reason(error)),
    }
}

/// Describes the processes that listen on a port, by pid, command and service; `None` if the port is free.
///
/// # Errors
/// If the system does not report the port's listeners.
pub(super) fn port_owner(port: u16, registry: &Registry, own: &Reservation) -> io::Result<Option<String>> {
    if socket::is_free(port)? {
        return Ok(None);
    }
    let owners: Vec<String> = socket::listeners(port)?
        .into_iter()
        .map(|pid| {
            let command = command_of(pid).unwrap_or_default();
            format!("pid {pid} ({command}), {}", service_of(pid, registry, own))
        })
        .collect();
    Ok(Some(if owners.is_empty() {
        "a process that cannot be seen (of another user?)".into()
    } else {
        owners.join("; ")
    }))
}

/// Describes which service a process belongs to.
fn service_of(pid: i32, registry: &Registry, own: &Reservation) -> String {
    use std::os::unix::ffi::OsStrExt;
    // An environment that cannot be read counts as none: this only words a message.
    let value = |name| environment_value(pid, name).ok().flatten();
    let (hash, home) = (value(tree::HASH_VARIABLE), value(tree::HOME_VARIABLE));
    let (Some(hash), Some(home)) = (hash, home) else { return "not a devport service".into() };
    if home != registry.paths().base().as_os_str().as_bytes() {
        return "a service of another devport directory".into();
    }
    let hash = String::from_utf8_lossy(&hash);
    if hash == own.hash.as_str() {
        return "a leftover of this service".into();
    }
    let other = crate::identity::ServiceHash::parse(&hash).and_then(|hash| registry.find(&hash).ok().flatten());
    other.map_or_else(
        || "a devport service that was removed".into(),
        |other| format!("the devport service {}", other.name()),
    )
}
