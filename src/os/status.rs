//! `ProcessStatus`: what the kernel reports about a process, in one form for every system.

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
