//! The process tree of a service: everything that its command has spawned, and nothing else.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::platform;
use super::process::{ProcessIdentity, environment_value};
use super::status::ProcessState;

/// The variable that names the service that a process belongs to, by its hash.
pub(crate) const HASH_VARIABLE: &str = "DEVPORT_HASH";
/// The variable that names the state directory which the service is registered in: two directories may hold
/// services with the same hash.
pub(crate) const HOME_VARIABLE: &str = "DEVPORT_HOME";

/// What marks the processes of one service: two variables of their environment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marker<'a> {
    pub(crate) hash: &'a str,
    /// The canonical state directory.
    pub(crate) home: &'a Path,
}

/// What the environment of a process says about the service that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) pid: i32,
    /// The value of `DEVPORT_HASH`.
    pub(crate) hash: String,
    /// The value of `DEVPORT_HOME`; empty if it is unset.
    pub(crate) home: String,
}

impl Claim {
    /// Reads the claim of a process; `None` if its environment makes none or may not be read.
    ///
    /// # Errors
    /// If the system does not answer.
    fn of(pid: i32) -> io::Result<Option<Self>> {
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let Some(hash) = environment_value(pid, HASH_VARIABLE)? else { return Ok(None) };
        let home = environment_value(pid, HOME_VARIABLE)?.unwrap_or_default();
        Ok(Some(Self { pid, hash: text(hash), home: text(home) }))
    }

    /// Whether the claim names this service.
    fn is_for(&self, marker: Marker<'_>) -> bool {
        self.hash == marker.hash && Path::new(&self.home) == marker.home
    }
}

/// What a walk through a tree found.
#[derive(Debug, Default)]
pub(crate) struct Descendants {
    pub(crate) living: Vec<ProcessIdentity>,
    /// Whether the walk met processes that were ending: what they leave behind may not have been seen.
    pub(crate) is_unsettled: bool,
}

/// The processes below `root`, itself not included, that belong to the service.
///
/// A service may itself start other services (`devport start` in a script). Those, and the tmux server that devport
/// made for them, end up below our supervisor, but are not part of the service. A process that names another service
/// is left out with everything below it only if `is_supervised` confirms the claim: anybody can set a variable.
///
/// # Errors
/// If the system does not answer: then the tree is not known.
pub(crate) fn descendants(
    root: i32,
    marker: Marker<'_>,
    is_supervised: &dyn Fn(&Claim) -> io::Result<bool>,
) -> io::Result<Descendants> {
    let mut found = Descendants::default();
    let mut seen = HashSet::from([root]);
    let mut pending = platform::children(root)?;
    while let Some(pid) = pending.pop() {
        if !seen.insert(pid) {
            continue;
        }
        let Some(status) = platform::process_status(pid)? else {
            found.is_unsettled = true;
            continue;
        };
        let is_elsewhere = match Claim::of(pid)? {
            Some(claim) => !claim.is_for(marker) && is_supervised(&claim)?,
            // The server's title on Linux; a server on macOS is not below us.
            None => status.name.starts_with("tmux: server"),
        };
        if is_elsewhere {
            continue;
        }
        if status.state == ProcessState::Dead {
            found.is_unsettled = true;
            continue;
        }
        pending.extend(platform::children(pid)?);
        match ProcessIdentity::of(pid)? {
            Some(process) => found.living.push(process),
            None => found.is_unsettled = true,
        }
    }
    Ok(found)
}

/// Every living process that carries a service's marker, wherever it is, but for this process itself: what survived
/// a supervisor that was killed. Processes whose environment may not be read are not found.
///
/// # Errors
/// If the system does not answer: then some may not have been seen.
pub(crate) fn marked(marker: Marker<'_>) -> io::Result<Vec<ProcessIdentity>> {
    let found = all_marked(marker.home)?;
    Ok(found.into_iter().filter(|(hash, _)| hash == marker.hash).map(|(_, process)| process).collect())
}

/// The living processes of every service of a state directory, each with the service's hash, but for this process
/// itself.
///
/// # Errors
/// If the system does not answer: then some may not have been seen.
pub(crate) fn all_marked(home: &Path) -> io::Result<Vec<(String, ProcessIdentity)>> {
    let me = nix::unistd::getpid().as_raw();
    let mut found = Vec::new();
    for pid in platform::all_pids()? {
        if pid == me {
            continue;
        }
        let Some(claim) = Claim::of(pid)?.filter(|claim| Path::new(&claim.home) == home) else { continue };
        found.extend(ProcessIdentity::of(pid)?.map(|process| (claim.hash, process)));
    }
    Ok(found)
}

/// Every living process of a session: what is left of a child that has ended. XNU gives no new process the number
/// of a session that is not empty (`kern_fork.c`), so the number means this session while a process of it lives.
///
/// # Errors
/// If the system does not answer.
#[cfg(not(target_os = "linux"))]
pub(crate) fn session(id: i32) -> io::Result<Vec<ProcessIdentity>> {
    let mut found = Vec::new();
    for pid in platform::all_pids()? {
        if platform::status_if_visible(pid)?.is_some_and(|status| status.session == id) {
            found.extend(ProcessIdentity::of(pid)?);
        }
    }
    Ok(found)
}
