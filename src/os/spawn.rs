//! Starts programs: a service's child, a background supervisor, a tool such as tmux.

#![expect(clippy::disallowed_methods, reason = "this file owns starting programs")]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::sys::{self, ControllingTerminal};

/// What the standard streams of a child are connected to.
#[derive(Debug)]
pub(crate) enum ChildStreams {
    /// All three are a pseudo-terminal, which becomes the child's controlling terminal.
    Terminal(OwnedFd),
    /// Output and errors are a pipe each; input is empty.
    Pipes {
        output: OwnedFd,
        errors: OwnedFd,
    },
    Nothing,
}

/// Starts a service's command and returns its pid once the program has begun to execute. It leads a new session, and on
/// Linux the kernel kills it when the calling thread ends: a supervisor calls this in its main thread, and a thread that
/// runs a check waits for its end.
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

/// Starts a program that outlives this process, in a new session without terminal and streams. Returns its pid.
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

/// Creates a command for a tool, with empty standard input. The caller completes and runs it.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Runs a program in the caller's terminal until it ends; returns whether it succeeded. If the program suspends itself, so
/// does this process, until the user's shell continues both.
///
/// # Errors
/// If it cannot be executed or waited for.
pub(crate) fn in_foreground(program: &Path, arguments: &[OsString]) -> io::Result<bool> {
    let pid = i32::try_from(Command::new(program).args(arguments).spawn()?.id()).map_err(io::Error::other)?;
    let pid = Pid::from_raw(pid);
    loop {
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code == 0),
            Ok(WaitStatus::Signaled(..)) => return Ok(false),
            Ok(WaitStatus::Stopped(..)) => {
                raise(Signal::SIGSTOP)?;
                kill(pid, Signal::SIGCONT)?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Finds a program in the absolute directories of a `PATH`; `None` if none has it.
pub(crate) fn find_program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file() && nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok())
}
