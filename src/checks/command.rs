//! Starts commands in the directory and the environment of a service: its own command, and those of its checks.

use std::io;
use std::path::Path;

use crate::config::{Variables, expand};
use crate::os::process::{self, ProcessIdentity};
use crate::os::spawn::{self, ChildStreams};
use crate::registry::{Registry, Reservation};

/// Why a command could not be started.
#[derive(Debug)]
pub(crate) struct SpawnError {
    /// A sentence fragment for people.
    pub(crate) why: String,
    /// Whether a later attempt would fail in the same way.
    pub(crate) is_permanent: bool,
}

/// Executes a command in the directory and the environment of a service.
///
/// # Errors
/// If it cannot be executed.
pub(crate) fn execute(
    words: &[String],
    reservation: &Reservation,
    environment: &Variables,
    registry: &Registry,
    term: Option<&str>,
    streams: ChildStreams,
) -> Result<ProcessIdentity, SpawnError> {
    let host = registry.tailnet_host(reservation);
    let own = reservation.child_variables(registry.paths().base(), host.as_deref(), term);
    let environment = environment.for_child(&own);
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
        // Without an identity, a later process with the same pid could be mistaken for the child, so stopping it would
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
