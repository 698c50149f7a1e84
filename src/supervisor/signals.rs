//! The signals that a supervisor gets, through a pipe of its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::signal as number;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::error::{Error, Result};
use crate::os::process;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// A child has ended.
    Reap,
    /// End the service.
    Stop,
    /// The terminal is gone, or the child shall be replaced.
    HangUp,
    /// The child shall be replaced.
    Restart,
    /// The terminal has another size.
    Resize,
    /// Anything else goes on to the child's process group.
    Forward(i32),
}

impl Request {
    /// What a signal asks for. Source: design.md, section 6.
    fn of(signal: i32) -> Self {
        match signal {
            number::SIGCHLD => Self::Reap,
            number::SIGINT | number::SIGTERM => Self::Stop,
            number::SIGHUP => Self::HangUp,
            number::SIGTSTP => Self::Restart,
            number::SIGWINCH => Self::Resize,
            other => Self::Forward(other),
        }
    }
}

/// The highest signal number.
const LAST: i32 = if cfg!(target_os = "linux") { 64 } else { 31 };
/// Signals that cannot be caught, that say that we ourselves are broken, or that this process ignores;
/// and the two that glibc keeps to itself.
const LEFT_ALONE: [i32; 10] = [
    number::SIGKILL,
    number::SIGSTOP,
    number::SIGILL,
    number::SIGFPE,
    number::SIGSEGV,
    number::SIGBUS,
    number::SIGPIPE,
    number::SIGTTIN,
    number::SIGTTOU,
    number::SIGABRT,
];

/// Catches every signal that can be caught.
#[derive(Debug)]
pub(super) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Begins to catch signals. Before this returns, a stop would kill the supervisor.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn install() -> Result<Self> {
        let failed = || Error::system("catch signals");
        process::ignore_terminal_stops().map_err(failed())?;
        let (read, write) = UnixStream::pair().map_err(failed())?;
        let caught = (1..=LAST).filter(|signal| !LEFT_ALONE.contains(signal) && !(32..34).contains(signal));
        SignalDelivery::with_pipe(read, write, SignalOnly, caught).map(Self).map_err(failed())
    }

    /// Readable when a signal has come.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }

    /// What has been asked for since the last call.
    pub(super) fn pending(&mut self) -> Vec<Request> {
        self.0.pending().map(Request::of).collect()
    }
}
