//! `Screen`: our own standard streams, which show the child's output and supply its input and window size.
//!
//! A terminal that does not accept output delays the child for a moment and then misses output. The log and the signals
//! never wait for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::os::terminal::{self, RawTerminal, WindowSize};
use crate::text::printable;

/// How many bytes may wait for an outlet before the child is delayed: as many as one read of a stream returns.
const HIGH_WATER: usize = 64 * 1024;
/// How long an outlet may delay the child without accepting a byte. A terminal that is only slow accepts some within
/// that time, and a child is not delayed noticeably.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many bytes a pipe accepts without blocking when poll reports it as writable (`PIPE_BUF` in `pipe(7)`).
const PIPE_CHUNK: usize = 4096;

/// One destination of output: a terminal, a pipe or a file.
#[derive(Debug)]
pub(super) struct Outlet {
    /// `None` once it is closed.
    fd: Option<OwnedFd>,
    /// Whether writes to it return at once instead of blocking.
    is_nonblocking: bool,
    /// Output that it has not accepted yet.
    pending: Vec<u8>,
    /// Since when it has accepted nothing; `None` if nothing is pending.
    stuck_since: Option<Instant>,
    /// How many bytes were skipped since it was given up; `None` while it works.
    skipped: Option<u64>,
}

impl Outlet {
    /// A descriptor that other processes share stays blocking, because `O_NONBLOCK` would apply to them too (`open(2)`).
    fn new(fd: OwnedFd, is_nonblocking: bool) -> Self {
        Self { fd: Some(fd), is_nonblocking, pending: Vec::new(), stuck_since: None, skipped: None }
    }

    /// Writes bytes, and keeps as pending what is not accepted now.
    fn push(&mut self, bytes: &[u8], now: Instant) {
        if let Some(skipped) = &mut self.skipped {
            *skipped += bytes.len() as u64;
            return;
        }
        if self.fd.is_none() {
            return;
        }
        if self.pending.is_empty() && self.is_nonblocking {
            let written = self.write_some(bytes);
            self.pending.extend_from_slice(&bytes[written.min(bytes.len())..]);
        } else {
            self.pending.extend_from_slice(bytes);
            self.drain(now);
        }
        if self.pending.is_empty() {
            self.stuck_since = None;
        } else {
            self.stuck_since.get_or_insert(now);
        }
    }

    /// Writes what is accepted without blocking, and returns how much that was. Closes the outlet if it fails.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(fd) = &self.fd
            && written < bytes.len()
        {
            let end = if self.is_nonblocking { bytes.len() } else { bytes.len().min(written + PIPE_CHUNK) };
            if !self.is_nonblocking && !is_ready(fd.as_fd(), PollFlags::POLLOUT) {
                break;
            }
            match nix::unistd::write(fd, &bytes[written..end]) {
                Ok(count) => written += count,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    self.fd = None;
                    self.pending.clear();
                    return bytes.len();
                }
            }
        }
        written
    }

    /// Writes pending bytes. An outlet that was given up and accepts bytes again first gets a note about the gap.
    fn drain(&mut self, now: Instant) {
        let pending = std::mem::take(&mut self.pending);
        let written = self.write_some(&pending);
        if self.fd.is_none() {
            return;
        }
        self.pending = pending;
        self.pending.drain(..written.min(self.pending.len()));
        if written > 0 {
            self.stuck_since = Some(now);
            if let Some(skipped) = self.skipped.take() {
                let note = format!("\r\n[devport: {skipped} bytes are not shown here; `devport logs` has them]\r\n");
                self.pending.extend_from_slice(note.as_bytes());
            }
        }
        if self.pending.is_empty() {
            self.stuck_since = None;
            self.pending = Vec::new();
        }
    }

    /// Gives up an outlet that has not accepted a byte for too long.
    fn give_up_if_stuck(&mut self, now: Instant) {
        if self.holds_back() && self.stuck_since.is_some_and(|since| now >= since + PATIENCE) {
            // Pending bytes stay, so that the terminal gets complete escape sequences when it accepts bytes again.
            self.skipped = Some(0);
        }
    }

    /// Returns whether the child must wait for this outlet.
    fn holds_back(&self) -> bool {
        self.pending.len() >= HIGH_WATER && self.skipped.is_none()
    }

    /// Returns when [`Self::give_up_if_stuck`] is due; `None` while the child is not delayed.
    fn deadline(&self) -> Option<Instant> {
        self.stuck_since.filter(|_| self.holds_back()).map(|since| since + PATIENCE)
    }
}

/// Returns whether a descriptor can be read without blocking.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::POLLIN)
}

fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) && fds[0].any().unwrap_or(false)
}

/// Our own standard streams, as the child's screen and keyboard.
#[derive(Debug)]
pub(super) struct Screen {
    /// Shows standard output, and errors too if `errors` is `None`. `None` if output goes to the log alone.
    output: Option<Outlet>,
    /// Shows standard error, if our own streams are not one terminal.
    errors: Option<Outlet>,
    /// `None` if there is none, or it has ended.
    input: Option<OwnedFd>,
    /// The terminal that stops the service when it is closed; `None` if there is none.
    terminal: Option<OwnedFd>,
    /// Restores the terminal's settings when it is dropped.
    raw: Option<RawTerminal>,
    /// Whether the child gets a terminal, and not pipes.
    has_child_terminal: bool,
}

/// The result of reading our input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Bytes(Vec<u8>),
    /// The end of the input; returned once.
    End,
    /// Nothing to read now, or no input.
    Nothing,
}

impl Screen {
    /// Creates a screen that shows nothing: the log is the only output.
    pub(super) fn detached() -> Self {
        Self { output: None, errors: None, input: None, terminal: None, raw: None, has_child_terminal: true }
    }

    /// Opens our own streams: a terminal, or what they were redirected to.
    ///
    /// # Errors
    /// If a stream cannot be duplicated.
    pub(super) fn of_own_streams() -> io::Result<Self> {
        use std::io::IsTerminal;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let terminal = if stdin.is_terminal() {
            Some(stdin.as_fd().try_clone_to_owned()?)
        } else if stdout.is_terminal() {
            Some(stdout.as_fd().try_clone_to_owned()?)
        } else {
            None
        };
        let shared = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(|fd| Outlet::new(fd, false));
        if !stdout.is_terminal() {
            let (output, errors) = (Some(shared(stdout.as_fd())?), Some(shared(stderr.as_fd())?));
            return Ok(Self { output, errors, input: None, terminal, raw: None, has_child_terminal: false });
        }
        let output = match terminal::reopen(&stdout) {
            Some(own) => Outlet::new(own, true),
            None => shared(stdout.as_fd())?,
        };
        // Raw for output too: the child's terminal has already turned line feeds into line ends. In the background,
        // changing the settings would disturb the foreground job.
        let own = if stdin.is_terminal() { stdin.as_fd() } else { stdout.as_fd() };
        let in_foreground = nix::unistd::tcgetpgrp(own).is_ok_and(|group| group == nix::unistd::getpgrp());
        let raw = if in_foreground { RawTerminal::enter(own) } else { None };
        let input =
            if raw.is_some() || !stdin.is_terminal() { Some(stdin.as_fd().try_clone_to_owned()?) } else { None };
        Ok(Self { output: Some(output), errors: None, input, terminal, raw, has_child_terminal: true })
    }

    /// Returns the size of the child's terminal; `None` if the child gets pipes.
    pub(super) fn child_terminal(&self) -> Option<WindowSize> {
        self.has_child_terminal.then(|| self.size().unwrap_or(WindowSize::STANDARD))
    }

    /// Returns the size of our terminal; `None` if there is none.
    pub(super) fn size(&self) -> Option<WindowSize> {
        self.output.as_ref().and_then(|output| output.fd.as_ref()).and_then(WindowSize::of)
    }

    pub(super) fn show(&mut self, bytes: &[u8], now: Instant) {
        if let Some(output) = &mut self.output {
            output.push(bytes, now);
        }
    }

    /// Shows bytes from the child's standard error.
    pub(super) fn show_error(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.errors {
            Some(errors) => errors.push(bytes, now),
            None => self.show(bytes, now),
        }
    }

    /// Shows a message of devport.
    pub(super) fn say(&mut self, text: &str, now: Instant) {
        let end = if self.raw.is_some() { "\r\n" } else { "\n" };
        self.show_error(format!("devport: {}{end}", printable(text)).as_bytes(), now);
    }

    pub(super) fn read(&mut self) -> Input {
        let Some(input) = &self.input else { return Input::Nothing };
        let mut buffer = [0; 4096];
        match nix::unistd::read(input, &mut buffer) {
            Ok(0) => {
                self.input = None;
                Input::End
            }
            Ok(count) => Input::Bytes(buffer[..count].to_vec()),
            Err(Errno::EINTR | Errno::EAGAIN) => Input::Nothing,
            Err(_) => {
                self.input = None;
                Input::Nothing
            }
        }
    }

    /// Returns whether the terminal was closed.
    pub(super) fn is_gone(&self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        // Linux always reports a hang-up; XNU reports one only if POLLHUP is requested (`bsd/kern/sys_generic.c`).
        let mut fds = [PollFd::new(terminal.as_fd(), PollFlags::POLLHUP)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            && fds[0]
                .revents()
                .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
    }

    /// Closes the streams, after the terminal was closed.
    pub(super) fn close(&mut self) {
        *self = Self { has_child_terminal: self.has_child_terminal, ..Self::detached() };
    }

    pub(super) fn input_fd(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// Returns the terminal whose hang-up to poll for.
    pub(super) fn terminal_fd(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// Returns the outlets that have pending output.
    pub(super) fn blocked_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let outlets = self.output.iter().chain(&self.errors);
        outlets.filter(|outlet| !outlet.pending.is_empty()).filter_map(|outlet| outlet.fd.as_ref().map(AsFd::as_fd))
    }

    /// Writes pending output, and gives up outlets that have not accepted any for too long.
    pub(super) fn drain(&mut self, now: Instant) {
        for outlet in self.output.iter_mut().chain(&mut self.errors) {
            if !outlet.pending.is_empty() {
                outlet.drain(now);
                outlet.give_up_if_stuck(now);
            }
        }
    }

    /// Returns whether the child must wait until an outlet accepts more.
    pub(super) fn holds_back(&self) -> bool {
        self.output.iter().chain(&self.errors).any(Outlet::holds_back)
    }

    /// Returns when [`Self::drain`] is due even if no outlet accepts bytes; `None` while the child is not delayed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.output.iter().chain(&self.errors).filter_map(Outlet::deadline).min()
    }
}
