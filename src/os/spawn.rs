//! Starting programs: the child of a service, a supervisor in the background, a tool such as tmux.

#![expect(clippy::disallowed_methods, reason = "this file owns starting programs")]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sys::{self, ControllingTerminal};

/// Where the streams of a child go.
#[derive(Debug)]
pub(crate) enum ChildStreams {
    /// All three to a pseudo-terminal, which becomes its controlling terminal.
    Terminal(OwnedFd),
    /// Output and errors to a pipe each; input is empty.
    Pipes {
        output: OwnedFd,
        errors: OwnedFd,
    },
    Nothing,
}

/// Starts a service's command and returns its pid. It leads a session of its own, and on Linux dies with
/// this process. It returns when the program has begun to execute.
///
/// # Errors
/// If it cannot be executed: no such program, no permission, no such directory.
pub(crate) fn child(
    words: &[String],
    environment: &[(String, String)],
    cwd: &Path,
    streams: ChildStreams,
) -> io::Result<i32> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value))).current_dir(cwd);
    match streams {
        ChildStreams::Terminal(terminal) => {
            command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
            sys::lead_own_session(&mut command, ControllingTerminal::StandardInput);
        }
        ChildStreams::Nothing => {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            sys::lead_own_session(&mut command, ControllingTerminal::None);
        }
        ChildStreams::Pipes { output, errors } => {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
            sys::lead_own_session(&mut command, ControllingTerminal::None);
        }
    }
    let child = command.spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Starts a program that outlives us: in a session of its own, with no terminal and no streams. Returns
/// its pid.
///
/// # Errors
/// If it cannot be executed.
pub(crate) fn detached(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Result<i32> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().cloned()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::detach_session(&mut command);
    i32::try_from(command.spawn()?.id()).map_err(io::Error::other)
}

/// A tool that devport asks something, with nothing to read; to be completed and run by the caller.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Replaces this process by a program; returns only if that fails.
pub(crate) fn replace(program: &Path, arguments: &[OsString]) -> io::Error {
    Command::new(program).args(arguments).exec()
}

/// Finds a program in the directories of a `PATH`; `None` if it is in none of them.
pub(crate) fn find_program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file() && nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok())
}
