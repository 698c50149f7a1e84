//! What the kernel reports about processes and sockets, in one form for every system.

use std::net::SocketAddr;

/// What the kernel reports about a process at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ProcessStatus {
    /// The program's short name.
    pub(crate) name: String,
    /// Whether it can still run.
    pub(crate) state: ProcessState,
    pub(crate) parent: i32,
    /// The process group's id: the pid of the process that leads it.
    pub(crate) group: i32,
    /// The session's id: the pid of the process that began it. Linux does not need it: orphans are found by their
    /// parents there.
    #[cfg(not(target_os = "linux"))]
    pub(crate) session: i32,
    /// Start time in the system's own units. Together with the pid it is unique within one boot.
    pub(crate) start_time: u64,
}

/// Whether a process can still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// Running, sleeping or stopped.
    Alive,
    /// Ended, but not reaped.
    Dead,
}

/// A listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// The id of the user that opened it.
    pub(crate) uid: u32,
    /// Distinguishes it from all other open sockets: its inode on Linux, the address of its control block on macOS.
    pub(crate) id: u64,
}
