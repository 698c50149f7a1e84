//! Waits for tools that may hang.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::clock::Deadline;
use super::process::ProcessIdentity;

/// The result of a tool.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended; `None` if it was killed at the time limit.
    pub(crate) status: Option<ExitStatus>,
    /// Its standard output, if that was a pipe.
    pub(crate) output: Vec<u8>,
    /// Its standard error, if that was a pipe.
    pub(crate) errors: Vec<u8>,
}

/// Waits for a tool for at most `limit`. After that it is killed, with its process group if it leads one.
///
/// # Errors
/// If its output cannot be read.
pub(crate) fn finish(mut child: Child, limit: Duration) -> io::Result<Finished> {
    let deadline = Deadline::after(limit);
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let mut pipes = [
        PipeReader { pipe: child.stdout.take().map(OwnedFd::from), read: Vec::new() },
        PipeReader { pipe: child.stderr.take().map(OwnedFd::from), read: Vec::new() },
    ];
    while pipes.iter().any(|reader| reader.pipe.is_some()) && !deadline.remaining().is_zero() {
        wait(&pipes, deadline.remaining())?;
        for reader in &mut pipes {
            reader.read_available()?;
        }
    }
    let process = ProcessIdentity::of_child(pid);
    let ended = process.and_then(|process| process.wait_for_end(deadline.remaining()));
    if !matches!(ended, Ok(true)) {
        // The call fails if the tool leads no group.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        child.kill()?;
    }
    let ended = ended?;
    let status = child.wait()?;
    let [output, errors] = pipes.map(|reader| reader.read);
    Ok(Finished { status: ended.then_some(status), output, errors })
}

/// A pipe that is being read.
struct PipeReader {
    /// `None` once the pipe has ended.
    pipe: Option<OwnedFd>,
    read: Vec<u8>,
}

impl PipeReader {
    /// Reads what the pipe holds now.
    fn read_available(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            return Ok(());
        }
        let mut part = [0; 4096];
        match nix::unistd::read(pipe, &mut part)? {
            0 => self.pipe = None,
            length => self.read.extend_from_slice(&part[..length]),
        }
        Ok(())
    }
}

/// Waits until a pipe is readable or has ended.
fn wait(pipes: &[PipeReader], limit: Duration) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> =
        pipes.iter().filter_map(|reader| Some(PollFd::new(reader.pipe.as_ref()?.as_fd(), PollFlags::POLLIN))).collect();
    match poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    use super::*;
    use crate::os::{clock, spawn};

    fn shell(script: &str) -> Child {
        let mut command = spawn::tool("sh");
        command.args(["-c", script]).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn more_than_a_pipe_holds_is_read_from_both() {
        let finished =
            finish(shell("head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3"), Duration::from_secs(20))
                .unwrap();
        assert_eq!((finished.output.len(), finished.errors.len()), (300_000, 200_000));
        assert_eq!(finished.status.unwrap().code(), Some(3));
    }

    #[test]
    fn a_hanging_tool_is_killed_with_its_children_and_its_output_is_kept() {
        let began = clock::now();
        let child = shell("echo before; sleep 7772001 & sleep 7772001");
        let group = i32::try_from(child.id()).unwrap();
        let finished = finish(child, Duration::from_millis(300)).unwrap();
        assert!(finished.status.is_none());
        assert_eq!(finished.output, b"before\n");
        assert!(clock::now() - began < Duration::from_secs(10));
        let gone = || (killpg(Pid::from_raw(group), None) == Err(Errno::ESRCH)).then_some(());
        assert!(clock::poll(Duration::from_millis(5), Duration::from_secs(10), gone).is_some());
    }
}
