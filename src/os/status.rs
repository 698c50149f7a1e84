//! `ProcessStatus`: what the kernel reports about a process, in one form for every system.

/// What the kernel reports about a process at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ProcessStatus {
    /// The program's short name.
    pub(crate) name: String,
    /// Whether it still runs.
    pub(crate) state: ProcessState,
    pub(crate) parent: i32,
    /// The process group's id: the pid of the process that leads it.
    pub(crate) group: i32,
    /// The session's id: the pid of the process that began it. Linux finds what left a group by its parents.
    #[cfg(not(target_os = "linux"))]
    pub(crate) session: i32,
    /// When it started, in units of the system's own; with the pid it is unique within one boot.
    pub(crate) start_time: u64,
}

/// Whether a process can still do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// It runs, sleeps or is stopped.
    Alive,
    /// It has ended and waits to be reaped.
    Dead,
}
