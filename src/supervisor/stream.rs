//! Our ends of a child's streams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::os::spawn::ChildStreams;
use crate::os::terminal::{PseudoTerminal, WindowSize, set_nonblocking};

/// How many bytes one read of a stream returns at most, so that a child that writes without pause does not delay
/// signals. 64 KiB is the capacity of a pipe on Linux (`pipe(7)`).
const READ_LIMIT: usize = 64 * 1024;

/// Which kind of streams a child gets.
#[derive(Debug, Clone, Copy)]
pub(super) enum StreamKind {
    /// A pseudo-terminal of this size.
    Terminal(WindowSize),
    /// One pipe for standard output and one for standard error.
    Pipes,
}

/// Our end of one stream of a child. Reads do not block.
#[derive(Debug)]
pub(super) struct Stream {
    fd: OwnedFd,
    /// Whether this is a separate pipe for standard error.
    pub(super) is_errors: bool,
    /// Whether this is a pseudo-terminal, which also takes input.
    pub(super) is_terminal: bool,
    /// Whether the other end may still be open.
    pub(super) is_open: bool,
}

impl Stream {
    /// Creates the streams of a child. Returns our ends and the child's.
    ///
    /// # Errors
    /// If the system cannot create a terminal or a pipe.
    pub(super) fn open(kind: StreamKind) -> io::Result<(Vec<Self>, ChildStreams)> {
        let ours = |fd: OwnedFd, is_errors, is_terminal| Self { fd, is_errors, is_terminal, is_open: true };
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

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Appends what the stream holds to the buffer, up to a limit. A stream whose other end is closed stays open on
    /// our side but is no longer polled: closing our end of a terminal would send SIGHUP to a child that has only
    /// closed its own streams.
    pub(super) fn read_available(&mut self, buffer: &mut Vec<u8>) {
        let mut chunk = [0; 4096];
        while buffer.len() < READ_LIMIT {
            match nix::unistd::read(&self.fd, &mut chunk) {
                Ok(count) if count > 0 => {
                    self.is_open = true;
                    buffer.extend_from_slice(&chunk[..count]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Ok(_) | Err(_) => {
                    self.is_open = false;
                    return;
                }
            }
        }
    }
}
