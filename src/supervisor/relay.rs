//! Between the child and whoever watches it: output to the pane, input and window size to the child.
//!
//! A pane that does not drain holds the child back for a moment, and is then passed over: the log and the
//! signals never wait for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::os::terminal::{self, RawTerminal, WindowSize};

/// How many bytes wait for a pane before the child is held back.
const HIGH_WATER: usize = 64 * 1024;
/// How long a pane may hold the child back without taking a byte.
const PATIENCE: Duration = Duration::from_millis(200);
/// What a pipe takes without blocking when it says that it is writable. Source: `pipe(7)`, `PIPE_BUF`.
const PIPE_CHUNK: usize = 4096;

/// One way out: a terminal, a pipe or a file.
#[derive(Debug)]
pub(super) struct Outlet {
    /// Where it goes; `None` when it is closed.
    fd: Option<OwnedFd>,
    /// Whether writes return at once.
    nonblocking: bool,
    /// What has not gone out yet.
    pending: Vec<u8>,
    /// Since when nothing has gone out though there was something; `None` while it flows.
    stuck_since: Option<Instant>,
    /// How many bytes were passed over since it was given up; `None` while it is not.
    skipped: Option<u64>,
}

impl Outlet {
    /// A way out through our own end of a terminal, or through a shared descriptor.
    fn new(fd: OwnedFd, nonblocking: bool) -> Self {
        Self { fd: Some(fd), nonblocking, pending: Vec::new(), stuck_since: None, skipped: None }
    }

    /// Sends bytes out, as far as they go now.
    fn push(&mut self, bytes: &[u8], now: Instant) {
        if let Some(skipped) = &mut self.skipped {
            *skipped += bytes.len() as u64;
            return;
        }
        if self.fd.is_none() {
            return;
        }
        if self.pending.is_empty() && self.nonblocking {
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

    /// Writes what goes without waiting; closes the outlet if nobody is there any more.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(fd) = &self.fd
            && written < bytes.len()
        {
            let end = if self.nonblocking { bytes.len() } else { bytes.len().min(written + PIPE_CHUNK) };
            if !self.nonblocking && !is_ready(fd.as_fd(), PollFlags::POLLOUT) {
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

    /// Sends out what is pending. One that was given up comes back with a word about what is missing.
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

    /// Gives up a pane that has not taken a byte for too long.
    fn give_up_if_stuck(&mut self, now: Instant) {
        if self.holds_back() && self.stuck_since.is_some_and(|since| now >= since + PATIENCE) {
            // What was begun is kept, so that the terminal gets whole sequences when it comes back.
            self.skipped = Some(0);
        }
    }

    /// Whether the child must wait for this outlet.
    fn holds_back(&self) -> bool {
        self.pending.len() >= HIGH_WATER && self.skipped.is_none()
    }

    /// When [`Self::give_up_if_stuck`] is due; `None` while nothing is held back.
    fn deadline(&self) -> Option<Instant> {
        self.stuck_since.filter(|_| self.holds_back()).map(|since| since + PATIENCE)
    }
}

/// Whether a descriptor can be read without waiting.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::POLLIN)
}

/// Whether a descriptor is ready now.
fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, flags)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) && fds[0].any().unwrap_or(false)
}

/// Who watches the service.
#[derive(Debug)]
pub(super) struct Screen {
    /// Where output goes; `None`: to the log alone.
    output: Option<Outlet>,
    /// Where errors go, if they are kept apart from output.
    errors: Option<Outlet>,
    /// Where input comes from; `None` once it has ended.
    input: Option<OwnedFd>,
    /// The terminal whose end is the service's end; `None` if there is none.
    terminal: Option<OwnedFd>,
    /// Keeps the terminal raw.
    raw: Option<RawTerminal>,
    /// Whether the child gets a terminal.
    child_terminal: bool,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Bytes for the child.
    Bytes(Vec<u8>),
    /// There will be no more.
    End,
    /// Nothing now.
    Nothing,
}

impl Screen {
    /// Nobody watches; the log is the only output.
    pub(super) fn detached() -> Self {
        Self { output: None, errors: None, input: None, terminal: None, raw: None, child_terminal: true }
    }

    /// Whoever is at our own streams: a terminal, or whatever they were redirected to.
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
            return Ok(Self { output, errors, input: None, terminal, raw: None, child_terminal: false });
        }
        let output = match terminal::reopen(&stdout) {
            Some(own) => Outlet::new(own, true),
            None => shared(stdout.as_fd())?,
        };
        // Raw on the way out too: the child's terminal has ended its lines already.
        let own = if stdin.is_terminal() { stdin.as_fd() } else { stdout.as_fd() };
        let in_foreground = nix::unistd::tcgetpgrp(own).is_ok_and(|group| group == nix::unistd::getpgrp());
        let raw = if in_foreground { RawTerminal::enter(own) } else { None };
        let input =
            if raw.is_some() || !stdin.is_terminal() { Some(stdin.as_fd().try_clone_to_owned()?) } else { None };
        Ok(Self { output: Some(output), errors: None, input, terminal, raw, child_terminal: true })
    }

    /// Whether the child gets a terminal, and of what size.
    pub(super) fn child_terminal(&self) -> Option<WindowSize> {
        self.child_terminal.then(|| self.size().unwrap_or(WindowSize::STANDARD))
    }

    /// The size of our terminal; `None` if there is none.
    pub(super) fn size(&self) -> Option<WindowSize> {
        self.output.as_ref().and_then(|output| output.fd.as_ref()).and_then(WindowSize::of)
    }

    /// Shows the child's output.
    pub(super) fn show(&mut self, bytes: &[u8], now: Instant) {
        if let Some(output) = &mut self.output {
            output.push(bytes, now);
        }
    }

    /// Shows the child's errors.
    pub(super) fn show_error(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.errors {
            Some(errors) => errors.push(bytes, now),
            None => self.show(bytes, now),
        }
    }

    /// Shows a line of devport's own.
    pub(super) fn say(&mut self, text: &str, now: Instant) {
        let end = if self.raw.is_some() { "\r\n" } else { "\n" };
        self.show_error(format!("devport: {text}{end}").as_bytes(), now);
    }

    /// Reads input, if there is any.
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

    /// Whether the terminal is gone: closed, or hung up.
    pub(super) fn is_gone(&self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        // XNU tells of a hang-up only if it is asked for (`sys_generic.c`); Linux always does.
        let mut fds = [PollFd::new(terminal.as_fd(), PollFlags::POLLHUP)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            && fds[0]
                .revents()
                .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
    }

    /// Stops watching: nothing more can be shown.
    pub(super) fn close(&mut self) {
        *self = Self { child_terminal: self.child_terminal, ..Self::detached() };
    }

    /// Where input comes from.
    pub(super) fn input_fd(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(AsFd::as_fd)
    }

    /// The terminal to be terminal.
    pub(super) fn terminal_fd(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// The outlets that have something pending.
    pub(super) fn blocked_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let outlets = self.output.iter().chain(&self.errors);
        outlets.filter(|outlet| !outlet.pending.is_empty()).filter_map(|outlet| outlet.fd.as_ref().map(AsFd::as_fd))
    }

    /// Sends out what is pending, and gives up what is stuck.
    pub(super) fn drain(&mut self, now: Instant) {
        for outlet in self.output.iter_mut().chain(&mut self.errors) {
            if !outlet.pending.is_empty() {
                outlet.drain(now);
                outlet.give_up_if_stuck(now);
            }
        }
    }

    /// Whether the child must wait for somebody to read.
    pub(super) fn holds_back(&self) -> bool {
        self.output.iter().chain(&self.errors).any(Outlet::holds_back)
    }

    /// When [`Self::drain`] is due even if nobody reads; `None` while nothing is held back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.output.iter().chain(&self.errors).filter_map(Outlet::deadline).min()
    }
}
