//! The signals that a supervisor gets, through a pipe of its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::signal as number;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::error::{Error, Result};
use crate::os::process::{self, SentStops};
use crate::os::signal::NOT_RELAYED;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// A child has ended.
    Reap,
    /// End the service, as a signal of a person or of the system asks: ctrl-c, `kill`, a logout.
    Stop,
    /// End the service, as a devport command asks.
    StopCommand,
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
            // Those that people sent are counted apart.
            number::SIGINT | number::SIGTERM => Self::StopCommand,
            number::SIGHUP => Self::HangUp,
            number::SIGTSTP => Self::Restart,
            number::SIGWINCH => Self::Resize,
            other => Self::Forward(other),
        }
    }
}

/// The highest signal number.
const LAST: i32 = if cfg!(target_os = "linux") { 64 } else { 31 };
/// Catches every signal that can be caught.
#[derive(Debug)]
pub(super) struct Signals {
    /// Tells of each kind of signal that came.
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Counts the stop signals that people and the system sent.
    sent: SentStops,
}

impl Signals {
    /// Begins to catch signals. Before this returns, a stop would kill the supervisor.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn install() -> Result<Self> {
        let failed = || Error::system("catch signals");
        process::ignore_terminal_stops().map_err(failed())?;
        // First, so that a stop is counted by the time that it is seen.
        let sent = SentStops::count([number::SIGINT, number::SIGTERM]).map_err(failed())?;
        let (read, write) = UnixStream::pair().map_err(failed())?;
        let caught = (1..=LAST).filter(|signal| !NOT_RELAYED.contains(signal) && !(32..34).contains(signal));
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, caught).map_err(failed())?;
        Ok(Self { delivery, sent })
    }

    /// Readable when a signal has come.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// What has been asked for since the last call, with one [`Request::Stop`] for each stop signal that was sent.
    pub(super) fn pending(&mut self) -> Vec<Request> {
        let mut requests: Vec<Request> = self.delivery.pending().map(Request::of).collect();
        let sent = self.sent.take();
        if sent > 0 {
            requests.retain(|request| *request != Request::StopCommand);
            requests.extend(std::iter::repeat_n(Request::Stop, sent));
        }
        requests
    }
}
