//! The signals that end a command in the foreground.

use std::io;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::sys;

/// Catches ctrl-c, `kill` and the loss of the terminal, so that a command can end in order.
#[derive(Debug)]
pub(crate) struct Interrupts(Signals);

impl Interrupts {
    /// Begins to catch the signals. One that is ignored stays ignored: `nohup` and shells start background commands that
    /// way.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !sys::is_ignored(*signal));
        Signals::new(wanted).map(Self)
    }

    /// Returns the number of a signal that has arrived since the last call; `None` if there was none.
    pub(crate) fn take(&mut self) -> Option<i32> {
        self.0.pending().next()
    }
}
