//! Who a process is: identity that survives the reuse of pids, and signals that reach nobody else.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::clock::{self, Deadline};
use super::platform;
use super::status::ProcessState;
use super::sys::{self, SignalOrigin};
use crate::text::{printable, shorten};

/// One process, for ever: a pid alone comes back within seconds. Source: trust.md, point 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
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
    /// The identity of the process that has this pid now; `None` if there is none (zombies do not count).
    ///
    /// # Errors
    /// If the system does not answer: then the process may well exist.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        // First, so that a system without `/proc` is an error and not an empty machine.
        let boot_id = platform::boot_id()?;
        let status = platform::process_status(pid)?.filter(|status| status.state == ProcessState::Alive);
        Ok(status.map(|status| Self { pid, start_time: Some(status.start_time), boot_id: Some(boot_id.to_owned()) }))
    }

    /// The identity of a child of this process that has not been reaped: its pid is its own, alive or not.
    ///
    /// # Errors
    /// If the system does not answer.
    pub(crate) fn of_child(pid: i32) -> io::Result<Self> {
        let boot_id = platform::boot_id()?.to_owned();
        let status = platform::process_status(pid)?;
        Ok(Self { pid, start_time: status.map(|status| status.start_time), boot_id: Some(boot_id) })
    }

    /// The id of its process group; `None` if it has ended.
    ///
    /// # Errors
    /// If the system does not answer.
    pub(crate) fn group(&self) -> io::Result<Option<i32>> {
        Ok(platform::process_status(self.pid)?.map(|status| status.group))
    }

    /// This process.
    ///
    /// # Errors
    /// If the system does not say who we are, as without `/proc`.
    pub(crate) fn current() -> io::Result<Self> {
        Self::of(nix::unistd::getpid().as_raw())?
            .ok_or_else(|| io::Error::other("the system does not list this process"))
    }

    /// Whether this very process is alive. An identity without start time or boot proves nothing: `false`.
    ///
    /// # Errors
    /// If the system does not answer: then it may be alive.
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        if self.start_time.is_none() || self.boot_id.is_none() {
            return Ok(false);
        }
        Ok(Self::of(self.pid)?.as_ref() == Some(self))
    }

    /// Whether this process has a file open; `None` where the system cannot tell (macOS).
    ///
    /// # Errors
    /// If the system does not answer.
    pub(crate) fn has_open(&self, file: &Metadata) -> io::Result<Option<bool>> {
        platform::has_open(self.pid, file)
    }

    /// Sends a signal to this very process and to no other.
    ///
    /// # Errors
    /// If the system refuses, as for a process of another user, or does not answer.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<Delivery> {
        self.deliver(signal, SignalOrigin::Kill)
    }

    /// Asks a supervisor to stop its service: SIGTERM, marked on Linux as sent by devport (`sigqueue(3)`), so that
    /// it does not count as a second Ctrl-C.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub(crate) fn request_stop(&self) -> io::Result<Delivery> {
        self.deliver(libc::SIGTERM, SignalOrigin::Queue)
    }

    /// Sends a signal after proving that the pid is still this process's.
    #[cfg(target_os = "linux")]
    fn deliver(&self, signal: i32, origin: SignalOrigin) -> io::Result<Delivery> {
        // The descriptor is opened before the identity is checked: then it cannot be a later process.
        let pidfd = match sys::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(Delivery::Gone),
            Err(error) => return Err(error),
        };
        if !self.is_alive()? {
            return Ok(Delivery::Gone);
        }
        delivery(sys::pidfd_send_signal(&pidfd, signal, origin))
    }

    /// Sends a signal after proving that the pid is still this process's. Without pidfds the pid could be reused
    /// between the two calls, within microseconds.
    #[cfg(not(target_os = "linux"))]
    fn deliver(&self, signal: i32, _origin: SignalOrigin) -> io::Result<Delivery> {
        if !self.is_alive()? {
            return Ok(Delivery::Gone);
        }
        delivery(sys::kill(self.pid, signal))
    }

    /// Sends a signal to the process group that this process leads. A group's number is proof against reuse only
    /// while a process of it is known to exist: the caller must know one, or be the parent of an unreaped leader.
    ///
    /// # Errors
    /// If the system refuses; for pids 0 and 1, whose groups are our own and everybody's.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<Delivery> {
        if self.pid <= 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("pid {} leads no service", self.pid)));
        }
        delivery(sys::kill(-self.pid, signal))
    }

    /// Waits until this process has ended; `false` if it has not within `limit`.
    ///
    /// # Errors
    /// If the system gave no answer to the end of the limit.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Deadline::after(limit);
        #[cfg(target_os = "linux")]
        if let Ok(pidfd) = sys::pidfd_open(self.pid) {
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            use std::os::fd::AsFd;
            if !matches!(self.is_alive(), Ok(false)) {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                // Interrupted or not: whether it has ended is checked below.
                let _ = poll(&mut fds, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
            }
        }
        let mut failure = None;
        let ended = clock::poll(Duration::from_millis(2), deadline.remaining(), || match self.is_alive() {
            Ok(true) => {
                failure = None;
                None
            }
            Ok(false) => Some(()),
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        match (ended, failure) {
            (Some(()), _) => Ok(true),
            (None, None) => Ok(false),
            (None, Some(error)) => Err(error),
        }
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
    let name = || platform::process_status(pid).ok().flatten().map(|status| status.name);
    let line = platform::command_line(pid).or_else(name)?;
    Some(shorten(&printable(&line)))
}

/// Whether some process has this pid now, and has not ended.
///
/// # Errors
/// If the system does not answer.
pub(crate) fn is_running(pid: i32) -> io::Result<bool> {
    Ok(platform::process_status(pid)?.is_some_and(|status| status.state == ProcessState::Alive))
}

/// Whether a pid is in use, zombies included. One system call, so `ls` can afford it for every service; the pid
/// may be another process's by now.
pub(crate) fn exists(pid: i32) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// The value of a variable in the environment that a process was started with; `None` if it is unset or
/// may not be read.
///
/// # Errors
/// If the system does not answer.
pub(crate) fn environment_value(pid: i32, name: &str) -> io::Result<Option<Vec<u8>>> {
    let Some(environment) = platform::environment(pid)? else { return Ok(None) };
    let prefix = format!("{name}=");
    let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()));
    Ok(value.map(<[u8]>::to_vec))
}

/// Kills our own child, which has not been reaped.
///
/// # Errors
/// If it is gone.
pub(crate) fn kill_child(pid: i32) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
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

/// Counts stop signals that were sent as `kill(2)` does, and not by [`ProcessIdentity::request_stop`]. Where there is
/// no `sigqueue(3)` (macOS), those of devport count too.
#[derive(Debug)]
pub(crate) struct SentStops(Arc<AtomicUsize>);

impl SentStops {
    /// Begins to count signals; they are caught from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn count(signals: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let counter = Arc::new(AtomicUsize::new(0));
        for signal in signals {
            sys::count_sent(signal, Arc::clone(&counter))?;
        }
        Ok(Self(counter))
    }

    /// How many came since the last call.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
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
        assert!(me.is_alive().unwrap());
        assert_eq!(me.signal(0).unwrap(), Delivery::Sent);
    }

    #[test]
    fn a_wrong_start_time_another_boot_or_no_start_time_is_nobody() {
        let me = ProcessIdentity::current().unwrap();
        let strangers = [
            ProcessIdentity { start_time: me.start_time.map(|time| time + 1), ..me.clone() },
            ProcessIdentity { boot_id: Some("another".into()), ..me.clone() },
            ProcessIdentity { start_time: None, ..me.clone() },
            ProcessIdentity { boot_id: None, ..me.clone() },
        ];
        for stranger in strangers {
            assert!(!stranger.is_alive().unwrap());
            // SIGKILL to ourselves would end the test run.
            assert_eq!(stranger.signal(libc::SIGKILL).unwrap(), Delivery::Gone);
        }
    }

    #[test]
    fn a_zombie_and_a_process_that_is_gone_are_nobody() {
        let mut child = super::super::spawn::tool("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let identity = ProcessIdentity::of_child(pid).unwrap();
        // Waits without reaping: now it is a zombie, which `kill(pid, 0)` takes for alive.
        sys::wait_without_reaping(pid).unwrap();
        assert!(kill(Pid::from_raw(pid), None).is_ok());
        assert!(!identity.is_alive().unwrap() && !is_running(pid).unwrap() && exists(pid));
        assert_eq!(identity.signal(libc::SIGTERM).unwrap(), Delivery::Gone);
        child.wait().unwrap();
        assert_eq!(identity.signal(libc::SIGTERM).unwrap(), Delivery::Gone);
        assert_eq!(identity.signal_group(libc::SIGTERM).unwrap(), Delivery::Gone);
    }

    #[test]
    fn the_groups_of_pids_0_and_1_are_never_signalled() {
        for pid in [-1, 0, 1] {
            let planted = ProcessIdentity { pid, start_time: Some(1), boot_id: Some("x".into()) };
            // Signal 0 would only check: a mistake here must not end the machine.
            assert!(planted.signal_group(0).is_err(), "{pid}");
        }
    }

    #[test]
    fn the_command_of_this_process_is_known() {
        assert!(command_of(nix::unistd::getpid().as_raw()).unwrap().contains("devport"));
    }
}
