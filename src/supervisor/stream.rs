//! Our ends of a child's streams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::os::spawn::ChildStreams;
use crate::os::terminal::{PseudoTerminal, WindowSize, set_nonblocking};

/// How many bytes of output are taken in before anything else is looked at.
const READ_AT_ONCE: usize = 64 * 1024;

/// Which streams a child gets.
#[derive(Debug, Clone, Copy)]
pub(super) enum StreamKind {
    /// A pseudo-terminal of this size.
    Terminal(WindowSize),
    /// Pipes, standard output and standard error apart.
    Pipes,
}

/// One stream from the child, non-blocking.
#[derive(Debug)]
pub(super) struct Stream {
    /// Our end.
    fd: OwnedFd,
    /// Whether it is standard error.
    pub(super) is_errors: bool,
    /// Whether it is a pseudo-terminal, which takes input too.
    pub(super) is_terminal: bool,
    /// Whether the other end may still be open.
    pub(super) open: bool,
}

impl Stream {
    /// Makes the streams of a child: our ends, and the child's.
    ///
    /// # Errors
    /// If the system has none left.
    pub(super) fn open(kind: StreamKind) -> io::Result<(Vec<Self>, ChildStreams)> {
        let ours = |fd: OwnedFd, is_errors, is_terminal| Self { fd, is_errors, is_terminal, open: true };
        match kind {
            StreamKind::Terminal(size) => {
                let pair = PseudoTerminal::open(size)?;
                Ok((vec![ours(pair.controller, false, true)], ChildStreams::Terminal(pair.terminal)))
            }
            StreamKind::Pipes => {
                let (output, childs_output) = io::pipe()?;
                let (errors, childs_errors) = io::pipe()?;
                set_nonblocking(&output)?;
                set_nonblocking(&errors)?;
                let childs = ChildStreams::Pipes { output: childs_output.into(), errors: childs_errors.into() };
                Ok((vec![ours(output.into(), false, false), ours(errors.into(), true, false)], childs))
            }
        }
    }

    /// Our end.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads what there is, up to a limit. A stream whose other end is closed is kept, but not waited for: a
    /// terminal that we closed would hang up on a child that only has closed its streams.
    pub(super) fn read_available(&mut self, buffer: &mut Vec<u8>) {
        let mut chunk = [0; 4096];
        while buffer.len() < READ_AT_ONCE {
            match nix::unistd::read(&self.fd, &mut chunk) {
                Ok(count) if count > 0 => {
                    self.open = true;
                    buffer.extend_from_slice(&chunk[..count]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Ok(_) | Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
    }
}
