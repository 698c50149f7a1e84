//! Terminals: pseudo-terminals for children, the state of our own, and its size.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::sys;

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize(libc::winsize);

impl WindowSize {
    /// What a child without a window gets: 24 rows of 80 columns.
    pub(crate) const STANDARD: Self = Self(libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });

    /// The size of a terminal; `None` if it is not one or has none.
    pub(crate) fn of(terminal: impl AsFd) -> Option<Self> {
        sys::window_size(terminal).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0).map(Self)
    }

    /// How many columns that are.
    pub(crate) fn columns(self) -> u16 {
        self.0.ws_col
    }

    /// How many rows that are.
    pub(crate) fn rows(self) -> u16 {
        self.0.ws_row
    }

    /// Gives a terminal this size.
    ///
    /// # Errors
    /// If it is gone.
    pub(crate) fn apply(self, terminal: impl AsFd) -> io::Result<()> {
        sys::set_window_size(terminal, self.0)
    }
}

/// A new pseudo-terminal: our end, and the end that the child gets.
#[derive(Debug)]
pub(crate) struct PseudoTerminal {
    pub(crate) controller: OwnedFd,
    pub(crate) terminal: OwnedFd,
}

impl PseudoTerminal {
    /// Makes one. Neither end is inherited by a program unless it is handed over.
    ///
    /// # Errors
    /// If the system has none left.
    pub(crate) fn open(size: WindowSize) -> io::Result<Self> {
        let pair = nix::pty::openpty(&size.0, None)?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        set_nonblocking(&pair.master)?;
        Ok(Self { controller: pair.master, terminal: pair.slave })
    }
}

/// The character that means end of file to whoever reads the terminal behind `controller` (usually
/// ctrl-d).
pub(crate) fn end_of_file_character(controller: impl AsFd) -> u8 {
    tcgetattr(controller).map_or(4, |settings| settings.control_chars[SpecialCharacterIndices::VEOF as usize])
}

/// Makes reads and writes of a descriptor return at once.
///
/// # Errors
/// If the descriptor does not allow it.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Opens the terminal behind a descriptor once more, so that it can be made non-blocking for us without
/// being so for everybody who shares the descriptor (a shell, say). `None` if it is not a terminal.
pub(crate) fn reopen(fd: impl AsFd) -> Option<OwnedFd> {
    let name = nix::unistd::ttyname(fd).ok()?;
    open_terminal(&name).ok()
}

/// Opens a terminal by its name, without making it ours.
fn open_terminal(name: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(
        name,
        OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
}

/// Our own terminal, in raw mode but for the keys that make signals, until this is dropped.
///
/// Bytes pass unchanged, because the child's pseudo-terminal does all the processing; ctrl-c and ctrl-z
/// still reach us as signals.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    fd: OwnedFd,
    /// How it was before.
    before: Termios,
}

impl RawTerminal {
    /// Puts a terminal in raw mode; `None` if it is not a terminal, or does not let us.
    pub(crate) fn enter(fd: BorrowedFd<'_>) -> Option<Self> {
        let before = tcgetattr(fd).ok()?;
        let fd = fd.try_clone_to_owned().ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.local_flags |= LocalFlags::ISIG;
        tcsetattr(&fd, SetArg::TCSANOW, &raw).ok()?;
        Some(Self { fd, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that has vanished needs no restoring.
        let _ = tcsetattr(&self.fd, SetArg::TCSADRAIN, &self.before);
    }
}
