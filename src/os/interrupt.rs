//! The signals that end a command in the foreground.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{clock, sys};

/// A signal that has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupt {
    pub(crate) number: i32,
    /// When it arrived.
    pub(crate) at: Instant,
}

/// Catches ctrl-c, `kill` and the loss of the terminal, so that a command can end in order. A thread receives the signals:
/// the command may be busy when they arrive.
#[derive(Debug)]
pub(crate) struct Interrupts(Receiver<Interrupt>);

impl Interrupts {
    /// Begins to catch the signals. SIGHUP stays ignored if it is, as under `nohup`. Shells also ignore SIGINT for the
    /// commands that scripts start in the background; a script that sends it nevertheless means it.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let wanted =
            [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !sys::is_ignored(SIGHUP));
        let mut signals = Signals::new(wanted)?;
        let (sender, arrived) = mpsc::channel();
        let receive = move || {
            for number in signals.forever() {
                if sender.send(Interrupt { number, at: clock::now() }).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().spawn(receive)?;
        Ok(Self(arrived))
    }

    /// Returns the first signal that was not returned yet; `None` if there is none.
    pub(crate) fn take(&self) -> Option<Interrupt> {
        self.0.try_recv().ok()
    }
}
