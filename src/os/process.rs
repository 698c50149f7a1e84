//! Process identity that survives the reuse of pids, and signals that reach only that process.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::clock::{self, Deadline};
use super::platform;
use super::status::ProcessState;
use super::sys::{self, SignalOrigin};
use crate::text::{printable, shorten};

/// One process. A pid alone does not identify it: the system can reuse a pid within seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    /// Start time ([`super::status::ProcessStatus::start_time`]); `None` in records without one, which identify
    /// nothing.
    #[serde(default)]
    pub(crate) start_time: Option<u64>,
    /// The boot that it started in; `None` in records without one, which identify nothing.
    #[serde(default)]
    pub(crate) boot_id: Option<String>,
}

/// Whether a signal arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The signal was sent to the process.
    Sent,
    /// The process no longer exists.
    Gone,
}

impl ProcessIdentity {
    /// Returns the identity of the process that has this pid now; `None` if there is none or it is a zombie.
    ///
    /// # Errors
    /// If the system cannot be queried: the process may exist.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        // First, so that a system without `/proc` is an error and not a machine without processes.
        let boot_id = platform::boot_id()?;
        let status = platform::process_status(pid)?.filter(|status| status.state == ProcessState::Alive);
        Ok(status.map(|status| Self { pid, start_time: Some(status.start_time), boot_id: Some(boot_id.to_owned()) }))
    }

    /// Returns the identity of an unreaped child of this process. Its pid cannot be reused, alive or not.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn of_child(pid: i32) -> io::Result<Self> {
        let boot_id = platform::boot_id()?.to_owned();
        let status = platform::process_status(pid)?;
        Ok(Self { pid, start_time: status.map(|status| status.start_time), boot_id: Some(boot_id) })
    }

    /// Returns the id of its process group; `None` if it has ended.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn group(&self) -> io::Result<Option<i32>> {
        Ok(platform::process_status(self.pid)?.map(|status| status.group))
    }

    /// Returns the pid of its parent; `None` if it has ended.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn parent(&self) -> io::Result<Option<i32>> {
        Ok(platform::process_status(self.pid)?.map(|status| status.parent))
    }

    /// Returns the identity of this process.
    ///
    /// # Errors
    /// If the system does not report this process, as without `/proc`.
    pub(crate) fn current() -> io::Result<Self> {
        Self::of(nix::unistd::getpid().as_raw())?
            .ok_or_else(|| io::Error::other("the system does not list this process"))
    }

    /// Returns whether this very process is alive; `false` for an identity without start time or boot.
    ///
    /// # Errors
    /// If the system cannot be queried: the process may be alive.
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        if self.start_time.is_none() || self.boot_id.is_none() {
            return Ok(false);
        }
        Ok(Self::of(self.pid)?.as_ref() == Some(self))
    }

    /// Returns whether this process has a file open; `None` where the system cannot tell (macOS).
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn has_open(&self, file: &Metadata) -> io::Result<Option<bool>> {
        platform::has_open(self.pid, file)
    }

    /// Sends a signal to this very process and to no other.
    ///
    /// # Errors
    /// If the system refuses, as for a process of another user, or cannot be queried.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<Delivery> {
        self.deliver(signal, SignalOrigin::Kill)
    }

    /// Sends SIGTERM to a supervisor so that it stops its service. On Linux the signal is sent by `sigqueue(3)`, which
    /// the supervisor does not count as a second Ctrl-C.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub(crate) fn request_stop(&self) -> io::Result<Delivery> {
        self.deliver(libc::SIGTERM, SignalOrigin::Queue)
    }

    /// Sends a signal once the pid is known to be still this process's.
    #[cfg(target_os = "linux")]
    fn deliver(&self, signal: i32, origin: SignalOrigin) -> io::Result<Delivery> {
        // Open the descriptor before checking the identity: it cannot refer to a later process then.
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

    /// Sends a signal once the pid is known to be still this process's. macOS has no pidfds, so the pid could be reused
    /// in the microseconds between the two calls.
    #[cfg(not(target_os = "linux"))]
    fn deliver(&self, signal: i32, _origin: SignalOrigin) -> io::Result<Delivery> {
        if !self.is_alive()? {
            return Ok(Delivery::Gone);
        }
        delivery(sys::kill(self.pid, signal))
    }

    /// Sends a signal to the process group that this process leads. The number of a group cannot be reused while one of
    /// its processes exists: the caller must know of one, or be the parent of the unreaped leader.
    ///
    /// # Errors
    /// If the system refuses, and for pids 0 and 1: their groups are this process's own and every process.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<Delivery> {
        if self.pid <= 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("pid {} leads no service", self.pid)));
        }
        delivery(sys::kill(-self.pid, signal))
    }

    /// Sends a signal to the process group that this process leads, or to this process alone if it leads none. The caller
    /// must know that it is alive, or be its parent and not have reaped it.
    ///
    /// # Errors
    /// As [`Self::signal_group`], or if the system cannot be queried.
    pub(crate) fn signal_job(&self, signal: i32) -> io::Result<Delivery> {
        if self.group()? == Some(self.pid) { self.signal_group(signal) } else { self.signal(signal) }
    }

    /// Waits until this process has ended; returns `false` if `limit` passes first.
    ///
    /// # Errors
    /// If the system could not be queried up to the end of the limit.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Deadline::after(limit);
        #[cfg(target_os = "linux")]
        if let Ok(pidfd) = sys::pidfd_open(self.pid) {
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            use std::os::fd::AsFd;
            if !matches!(self.is_alive(), Ok(false)) {
                let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                // Ignore an interruption: the loop below checks whether the process has ended.
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

/// "No such process" is a result and not a failure; so is macOS's EPERM for a group of zombies.
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

/// Returns the CPU time that a process has used; zero if the system does not report it.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    platform::cpu_time(pid).unwrap_or_default()
}

/// Returns the memory of a process in bytes, shared memory counted in part on Linux; 0 if the system does not report
/// it.
pub(crate) fn memory(pid: i32) -> u64 {
    platform::memory(pid).unwrap_or_default()
}

/// Returns a process's command for messages, printable and at most 80 characters; `None` if there is no such process.
pub(crate) fn command_of(pid: i32) -> Option<String> {
    command_line(pid).map(|line| shorten(&printable(&line)))
}

/// Returns the whole command line of a process, or its name if it has none; `None` if there is no such process.
pub(crate) fn command_line(pid: i32) -> Option<String> {
    let name = || platform::process_status(pid).ok().flatten().map(|status| status.name);
    platform::command_line(pid).or_else(name)
}

/// Returns the pid of a process's parent; `None` if the process is gone.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn parent(pid: i32) -> io::Result<Option<i32>> {
    Ok(platform::process_status(pid)?.map(|status| status.parent))
}

/// Returns when a process was started; `None` if it is gone or the system does not report it.
pub(crate) fn started_at(pid: i32) -> Option<Timestamp> {
    platform::start_moment(platform::process_status(pid).ok()??.start_time)
}

/// Returns the working directory of a process, and whether it was deleted; `None` if it may not be read.
pub(crate) fn working_directory(pid: i32) -> Option<(PathBuf, bool)> {
    platform::working_directory(pid)
}

/// Returns the name of a user, or the number if it has no name.
pub(crate) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Returns whether a process has this pid now and has not ended.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn is_running(pid: i32) -> io::Result<bool> {
    Ok(platform::process_status(pid)?.is_some_and(|status| status.state == ProcessState::Alive))
}

/// Returns whether a pid is in use, by a zombie too. This is one system call, so `ls` can afford it for every service;
/// another process may have the pid by now.
pub(crate) fn exists(pid: i32) -> bool {
    pid > 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// Returns variables of the environment that a process was started with; `None` for one that is unset or may not be
/// read.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn environment_values<const N: usize>(pid: i32, names: [&str; N]) -> io::Result<[Option<Vec<u8>>; N]> {
    let environment = platform::environment(pid)?.unwrap_or_default();
    Ok(names.map(|name| {
        let value = |entry: &[u8]| Some(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
        environment.split(|byte| *byte == 0).find_map(value)
    }))
}

/// Kills an unreaped child of this process.
///
/// # Errors
/// If the child is gone.
pub(crate) fn kill_child(pid: i32) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// Reaps any child that has ended; returns its pid and exit status, or `None` if no child has ended.
pub(crate) fn reap() -> Option<(i32, ExitStatus)> {
    sys::reap(-1).map(|(pid, status)| (pid, ExitStatus::from_raw(status)))
}

/// Reaps the child with this pid and no other; returns its exit status, or `None` if it has not ended. Other threads may
/// wait for other children.
pub(crate) fn reap_child(pid: i32) -> Option<ExitStatus> {
    // 0 and negative numbers mean groups of children (`waitpid(2)`).
    if pid <= 0 {
        return None;
    }
    sys::reap(pid).map(|(_, status)| ExitStatus::from_raw(status))
}

/// Makes this process the parent of orphaned descendants (Linux; does nothing on macOS).
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn become_subreaper() -> io::Result<()> {
    platform::become_subreaper()
}

/// Counts stop signals that were sent by `kill(2)` and not by [`ProcessIdentity::request_stop`]. macOS has no
/// `sigqueue(3)`, so devport's own signals count there too.
#[derive(Debug)]
pub(crate) struct SentStops(Arc<AtomicUsize>);

impl SentStops {
    /// Installs handlers that count these signals.
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

    /// Returns how many arrived since the last call.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// Ignores SIGTTIN and SIGTTOU, which would stop a background process that uses its terminal.
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
    fn an_identity_with_a_wrong_or_missing_start_time_or_boot_matches_no_process() {
        let me = ProcessIdentity::current().unwrap();
        let strangers = [
            ProcessIdentity { start_time: me.start_time.map(|time| time + 1), ..me.clone() },
            ProcessIdentity { boot_id: Some("another".into()), ..me.clone() },
            ProcessIdentity { start_time: None, ..me.clone() },
            ProcessIdentity { boot_id: None, ..me.clone() },
        ];
        for stranger in strangers {
            assert!(!stranger.is_alive().unwrap());
            // SIGKILL to this process would end the test run.
            assert_eq!(stranger.signal(libc::SIGKILL).unwrap(), Delivery::Gone);
        }
    }

    #[test]
    fn a_child_is_reaped_without_the_others() {
        let mut children = [3, 5].map(|code| {
            let mut exit = super::super::spawn::tool("sh");
            exit.args(["-c", &format!("exit {code}")]).spawn().unwrap()
        });
        let pids = children.each_ref().map(|child| i32::try_from(child.id()).unwrap());
        for pid in pids {
            sys::wait_without_reaping(pid).unwrap();
        }
        assert_eq!(reap_child(pids[1]).unwrap().code(), Some(5));
        assert_eq!(children[0].wait().unwrap().code(), Some(3), "another thread may wait for it");
        assert!(reap_child(pids[1]).is_none() && reap_child(0).is_none() && reap_child(-1).is_none());
    }

    #[test]
    fn a_zombie_or_an_ended_process_is_not_alive() {
        let mut child = super::super::spawn::tool("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let identity = ProcessIdentity::of_child(pid).unwrap();
        // Wait without reaping: the child is a zombie now, which `kill(pid, 0)` reports as alive.
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
            // Signal 0 only checks: a bug here must not shut the machine down.
            assert!(planted.signal_group(0).is_err(), "{pid}");
        }
    }

    #[test]
    fn the_start_of_a_process_and_its_directory_are_known_also_if_its_name_ends_like_that_of_a_deleted_one() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["plain", "odd (deleted)"] {
            let directory = scratch.path().canonicalize().unwrap().join(name);
            std::fs::create_dir(&directory).unwrap();
            let mut child = super::super::spawn::tool("sleep").arg("1000").current_dir(&directory).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            assert_eq!(working_directory(pid), Some((directory.clone(), false)));
            std::fs::remove_dir(&directory).unwrap();
            assert_eq!(working_directory(pid), Some((directory, true)));
            let age = clock::wall().duration_since(started_at(pid).unwrap());
            assert!((-1..60).contains(&age.as_secs()), "{age}");
            assert_eq!(parent(pid).unwrap(), Some(nix::unistd::getpid().as_raw()));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn the_command_of_this_process_is_known() {
        assert!(command_of(nix::unistd::getpid().as_raw()).unwrap().contains("devport"));
    }
}
