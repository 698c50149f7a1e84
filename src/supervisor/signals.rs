//! The signals that a supervisor receives, delivered through a pipe that the event loop polls.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::signal as number;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::error::{Error, Result};
use crate::os::process::{self, SentStops};
use crate::os::signal::{LAST, NOT_RELAYED};

/// What a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Reap the children that have exited.
    Reap,
    /// End the service: ctrl-c, `kill` or a logout.
    Stop,
    /// End the service, on behalf of a devport command.
    StopCommand,
    /// End the service if the terminal has been closed; otherwise replace the child, as daemons do on SIGHUP.
    HangUp,
    /// Replace the child.
    Restart,
    /// Pass a new size of our terminal on to the child's.
    Resize,
    /// Pass the signal on to the child's process group.
    Forward(i32),
}

impl Request {
    fn of(signal: i32) -> Self {
        match signal {
            number::SIGCHLD => Self::Reap,
            // `Signals::pending` turns those that did not come from a devport command into `Stop`.
            number::SIGINT | number::SIGTERM => Self::StopCommand,
            number::SIGHUP => Self::HangUp,
            // ctrl-z: a supervisor cannot be suspended, so the key restarts the child.
            number::SIGTSTP => Self::Restart,
            number::SIGWINCH => Self::Resize,
            other => Self::Forward(other),
        }
    }
}

/// The real-time signals that glibc reserves for its threads (`nptl(7)`).
const RESERVED: std::ops::Range<i32> = 32..34;

/// Catches every signal that can be caught.
#[derive(Debug)]
pub(super) struct Signals {
    /// Reports each kind of signal that has arrived.
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Counts the stop signals that did not come from a devport command.
    sent: SentStops,
}

impl Signals {
    /// Begins to catch signals. Until this returns, a stop signal kills the process.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn install() -> Result<Self> {
        let failed = || Error::system("catch signals");
        process::ignore_terminal_stops().map_err(failed())?;
        // Before the delivery: handlers run in this order, so a stop is counted before it is delivered.
        let sent = SentStops::count([number::SIGINT, number::SIGTERM]).map_err(failed())?;
        let (read, write) = UnixStream::pair().map_err(failed())?;
        let caught = (1..=LAST).filter(|signal| !NOT_RELAYED.contains(signal) && !RESERVED.contains(signal));
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, caught).map_err(failed())?;
        Ok(Self { delivery, sent })
    }

    /// Returns a descriptor that becomes readable when a signal arrives.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// Returns the requests since the last call, with one [`Request::Stop`] for each stop signal that did not come from
    /// a devport command.
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
