//! Terminals: pseudo-terminals for children, and the raw mode and size of our own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::sys;

/// The size of a terminal in rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize(libc::winsize);

impl WindowSize {
    /// The size for a child without a window: the traditional 24 rows of 80 columns.
    pub(crate) const STANDARD: Self = Self(libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });

    /// Returns the size of a terminal; `None` if it is not a terminal or has no size.
    pub(crate) fn of(terminal: impl AsFd) -> Option<Self> {
        sys::window_size(terminal).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0).map(Self)
    }

    /// Returns the number of columns.
    pub(crate) fn columns(self) -> u16 {
        self.0.ws_col
    }

    /// Returns the number of rows.
    pub(crate) fn rows(self) -> u16 {
        self.0.ws_row
    }

    /// Gives a terminal this size.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub(crate) fn apply(self, terminal: impl AsFd) -> io::Result<()> {
        sys::set_window_size(terminal, self.0)
    }
}

/// A new pseudo-terminal: the supervisor's end, and the child's end.
#[derive(Debug)]
pub(crate) struct PseudoTerminal {
    pub(crate) controller: OwnedFd,
    pub(crate) terminal: OwnedFd,
}

impl PseudoTerminal {
    /// Opens one. Programs that are executed inherit neither end unless it is passed to them.
    ///
    /// # Errors
    /// If the system has no pseudo-terminals left.
    pub(crate) fn open(size: WindowSize) -> io::Result<Self> {
        let pair = nix::pty::openpty(&size.0, None)?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        set_nonblocking(&pair.master)?;
        Ok(Self { controller: pair.master, terminal: pair.slave })
    }
}

/// Returns the end-of-file character of the terminal behind `controller` (usually Ctrl-D, 4).
pub(crate) fn end_of_file_character(controller: impl AsFd) -> u8 {
    tcgetattr(controller).map_or(4, |settings| settings.control_chars[SpecialCharacterIndices::VEOF as usize])
}

/// Returns whether the terminal behind `controller` neither echoes input nor collects it until a line end.
pub(crate) fn is_unbuffered(controller: impl AsFd) -> bool {
    let is_off = |settings: Termios| !settings.local_flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON);
    tcgetattr(controller).is_ok_and(is_off)
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

/// Opens the terminal behind a descriptor again. Non-blocking mode belongs to the open file, so setting it on the
/// original would affect every process that shares it, such as a shell. `None` if it is not a terminal.
pub(crate) fn reopen(fd: impl AsFd) -> Option<OwnedFd> {
    let name = nix::unistd::ttyname(fd).ok()?;
    open_terminal(&name).ok()
}

/// Opens a terminal by name without making it the controlling terminal.
fn open_terminal(name: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(
        name,
        OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
}

/// Our terminal in raw mode, except for the keys that send signals. Dropping this restores it.
///
/// Bytes pass unchanged, because the child's pseudo-terminal processes them. Ctrl-C and Ctrl-Z still arrive as signals.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    fd: OwnedFd,
    /// The settings to restore.
    before: Termios,
}

impl RawTerminal {
    /// Puts a terminal in raw mode; `None` if it is not a terminal or refuses.
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
