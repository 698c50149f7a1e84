//! The process tree of a service: everything that its command started, and nothing else.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::platform;
use super::process::{ProcessIdentity, environment_values};
use super::status::ProcessState;

/// The variable with the hash of the service that a process belongs to.
pub(crate) const HASH_VARIABLE: &str = "DEVPORT_HASH";
/// The variable with the state directory in which that service is registered: two directories may hold services with
/// the same hash.
pub(crate) const HOME_VARIABLE: &str = "DEVPORT_HOME";

/// The two environment variables that mark the processes of one service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marker<'a> {
    pub(crate) hash: &'a str,
    /// The canonical state directory.
    pub(crate) home: &'a Path,
}

/// The service that a process belongs to according to its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) pid: i32,
    /// The value of `DEVPORT_HASH`.
    pub(crate) hash: String,
    /// The value of `DEVPORT_HOME`; empty if it is unset.
    pub(crate) home: String,
}

impl Claim {
    /// Reads the claim of a process; `None` if its environment has none or may not be read.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        let [hash, home] = environment_values(pid, [HASH_VARIABLE, HOME_VARIABLE])?;
        Ok(hash.map(|hash| Self { pid, hash: text(hash), home: text(home.unwrap_or_default()) }))
    }

    /// Returns whether the claim names this service.
    fn is_for(&self, marker: Marker<'_>) -> bool {
        self.hash == marker.hash && Path::new(&self.home) == marker.home
    }
}

/// The result of a walk through a tree.
#[derive(Debug, Default)]
pub(crate) struct Descendants {
    pub(crate) living: Vec<ProcessIdentity>,
    /// Whether some processes were ending during the walk: their children may have been missed.
    pub(crate) is_unsettled: bool,
}

/// Finds the living processes below `root`, without `root` itself, that belong to the service.
///
/// A service may start other services itself (`devport start` in a script). Their processes, and the tmux server that
/// devport starts for them, end up below our supervisor but do not belong to the service. Any process can set a
/// variable, so a process that names another service is skipped, with everything below it, only if `is_supervised`
/// confirms the claim.
///
/// # Errors
/// If the system cannot be queried: the tree is unknown then.
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
            // The title of the server on Linux. On macOS the server is not below us, because there are no subreapers.
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

/// Finds every living process with a service's marker, anywhere on the machine, except this one: these survived a
/// supervisor that was killed. Processes whose environment may not be read are not found.
///
/// # Errors
/// If the system cannot be queried: some may have been missed.
pub(crate) fn marked(marker: Marker<'_>) -> io::Result<Vec<ProcessIdentity>> {
    let found = all_marked(marker.home)?;
    Ok(found.into_iter().filter(|(hash, _)| hash == marker.hash).map(|(_, process)| process).collect())
}

/// Finds the living processes of every service of a state directory, each with the service's hash, except this process.
///
/// # Errors
/// If the system cannot be queried: some may have been missed.
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
/// If the system cannot be queried.
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
