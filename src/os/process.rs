//! Who a process is: identity that survives the reuse of pids, and signals that reach nobody else.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock;
use super::platform;
use super::sys;

/// What the kernel says of a process at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ProcessStatus {
    /// The program's short name.
    pub(crate) name: String,
    /// Whether it still runs.
    pub(crate) state: ProcessState,
    /// The parent's pid.
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

/// One process, for ever: a pid alone comes back within seconds. Source: trust.md, point 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    /// The process id.
    pub(crate) pid: i32,
    /// When it started (`ProcessStatus::start_time`); `None` in records that do not say, which prove
    /// nothing.
    #[serde(default)]
    pub(crate) start_time: Option<u64>,
    /// The boot that it started in; `None` in records that do not say, which prove nothing.
    #[serde(default)]
    pub(crate) boot_id: Option<String>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The process got it.
    Sent,
    /// There is no such process any more.
    Gone,
}

impl ProcessIdentity {
    /// The identity of a process that exists now; `None` if there is none (zombies included).
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let status = platform::process_status(pid).filter(|status| status.state == ProcessState::Alive)?;
        Some(Self { pid, start_time: Some(status.start_time), boot_id: platform::boot_id().ok() })
    }

    /// The identity of our own child, which stays its own until it is reaped, ended or not.
    pub(crate) fn of_child(pid: i32) -> Self {
        let start_time = platform::process_status(pid).map(|status| status.start_time);
        Self { pid, start_time, boot_id: platform::boot_id().ok() }
    }

    /// The id of its process group; `None` if it has ended.
    pub(crate) fn group(&self) -> Option<i32> {
        platform::process_status(self.pid).map(|status| status.group)
    }

    /// This process.
    ///
    /// # Errors
    /// If the system does not say who we are, as without `/proc`.
    pub(crate) fn current() -> io::Result<Self> {
        Self::of(nix::unistd::getpid().as_raw())
            .ok_or_else(|| io::Error::other("the system does not list this process"))
    }

    /// Whether this very process still runs. One that cannot be proved to be it does not count.
    pub(crate) fn is_alive(&self) -> bool {
        self.start_time.is_some() && self.boot_id.is_some() && Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to this very process and to no other.
    ///
    /// # Errors
    /// If the system refuses, as for a process of another user.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<Delivery> {
        // The descriptor is opened before the identity is checked: then it cannot be a later process.
        #[cfg(target_os = "linux")]
        let pidfd = match sys::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(Delivery::Gone),
            Err(error) => return Err(error),
        };
        if !self.is_alive() {
            return Ok(Delivery::Gone);
        }
        #[cfg(target_os = "linux")]
        let sent = sys::pidfd_send_signal(&pidfd, signal);
        #[cfg(not(target_os = "linux"))]
        let sent = sys::kill(self.pid, signal);
        delivery(sent)
    }

    /// Sends a signal to the process group that this process leads. The caller must own the process
    /// (be its parent): a group is not proof against reuse of pids.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<Delivery> {
        delivery(sys::kill(-self.pid, signal))
    }

    /// Waits until this process has ended; `false` if it has not within `limit`.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        #[cfg(target_os = "linux")]
        if let Ok(pidfd) = sys::pidfd_open(self.pid) {
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            use std::os::fd::AsFd;
            if self.is_alive() {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                // An interruption is as good as an end that is not: the question below is asked either way.
                let _ = poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
            }
            return !self.is_alive();
        }
        clock::poll(Duration::from_millis(2), limit, || (!self.is_alive()).then_some(())).is_some()
    }
}

/// "No such process" is an answer and not a failure; so is macOS's EPERM for a group of zombies.
fn delivery(sent: io::Result<()>) -> io::Result<Delivery> {
    match sent {
        Ok(()) => Ok(Delivery::Sent),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(Delivery::Gone),
        Err(error) if cfg!(target_os = "macos") && error.raw_os_error() == Some(libc::EPERM) => Ok(Delivery::Gone),
        Err(error) => Err(error),
    }
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match command_of(self.pid) {
            Some(command) => write!(f, "pid {} ({command})", self.pid),
            None => write!(f, "pid {}", self.pid),
        }
    }
}

/// How much of processors' time a process has used; zero if nobody says.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    platform::cpu_time(pid).unwrap_or_default()
}

/// How much memory a process uses, in bytes, what it shares counted in part; 0 if nobody says.
pub(crate) fn memory(pid: i32) -> u64 {
    platform::memory(pid).unwrap_or_default()
}

/// A process's command for messages: at most 80 characters, control characters escaped; `None` if there
/// is no such process.
pub(crate) fn command_of(pid: i32) -> Option<String> {
    let line = platform::command_line(pid).or_else(|| platform::process_status(pid).map(|status| status.name))?;
    let escaped: String = line
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    match escaped.char_indices().nth(80) {
        Some((end, _)) => Some(format!("{}…", &escaped[..end])),
        None => Some(escaped),
    }
}

/// Whether some process has this pid now, and has not ended.
pub(crate) fn is_running(pid: i32) -> bool {
    platform::process_status(pid).is_some_and(|status| status.state == ProcessState::Alive)
}

/// The value of a variable in the environment that a process was started with; `None` if it is unset or
/// may not be read.
pub(crate) fn environment_value(pid: i32, name: &str) -> Option<Vec<u8>> {
    let environment = platform::environment(pid)?;
    let prefix = format!("{name}=");
    environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes())).map(<[u8]>::to_vec)
}

/// Reaps one child that has ended, whichever: its pid and how it ended; `None` if there is none now.
pub(crate) fn reap() -> Option<(i32, ExitStatus)> {
    sys::reap().map(|(pid, status)| (pid, ExitStatus::from_raw(status)))
}

/// Makes this process the parent of descendants whose own parent has ended (Linux; elsewhere nothing).
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn become_subreaper() -> io::Result<()> {
    platform::become_subreaper()
}

/// Ignores the signals that would stop a background process which touches its terminal.
///
/// # Errors
/// If the system refuses.
pub(crate) fn ignore_terminal_stops() -> io::Result<()> {
    sys::ignore_signal(nix::sys::signal::SIGTTIN)?;
    sys::ignore_signal(nix::sys::signal::SIGTTOU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself() {
        let me = ProcessIdentity::current().unwrap();
        assert!(me.is_alive());
        assert_eq!(me.signal(0).unwrap(), Delivery::Sent);
    }

    #[test]
    fn t08_a_wrong_start_time_another_boot_or_no_start_time_is_nobody() {
        let me = ProcessIdentity::current().unwrap();
        let strangers = [
            ProcessIdentity { start_time: me.start_time.map(|time| time + 1), ..me.clone() },
            ProcessIdentity { boot_id: Some("another".into()), ..me.clone() },
            ProcessIdentity { start_time: None, ..me.clone() },
            ProcessIdentity { boot_id: None, ..me.clone() },
        ];
        for stranger in strangers {
            assert!(!stranger.is_alive());
            // SIGKILL to ourselves would end the test run.
            assert_eq!(stranger.signal(libc::SIGKILL).unwrap(), Delivery::Gone);
        }
    }

    #[test]
    fn t04_t10_a_zombie_and_a_process_that_is_gone_are_nobody() {
        let mut child = super::super::spawn::tool("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let identity = ProcessIdentity::of_child(pid);
        // Waits without reaping: now it is a zombie, which `kill(pid, 0)` takes for alive.
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid)), flags).unwrap();
        assert!(sys::kill(pid, 0).is_ok());
        assert!(!identity.is_alive() && !is_running(pid));
        assert_eq!(identity.signal(libc::SIGTERM).unwrap(), Delivery::Gone);
        child.wait().unwrap();
        assert_eq!(identity.signal(libc::SIGTERM).unwrap(), Delivery::Gone);
        assert_eq!(identity.signal_group(libc::SIGTERM).unwrap(), Delivery::Gone);
    }

    #[test]
    fn the_command_of_this_process_is_known() {
        assert!(command_of(nix::unistd::getpid().as_raw()).unwrap().contains("devport"));
    }
}
