//! The process tree of a service: everything that its command has spawned, and nothing else.

use std::collections::HashSet;
use std::path::Path;

use super::platform;
use super::process::{ProcessIdentity, ProcessState, environment_value};

/// The variable that names the service a process belongs to.
pub(crate) const HASH_VARIABLE: &str = "DEVPORT_HASH";
/// The variable that names the state directory which the service is registered in: two directories may
/// hold services with the same hash.
pub(crate) const HOME_VARIABLE: &str = "DEVPORT_HOME";

/// What marks the processes of one service: two variables of their environment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marker<'a> {
    /// The service's hash.
    pub(crate) hash: &'a str,
    /// The canonical state directory.
    pub(crate) home: &'a Path,
}

/// What the environment of a process says about where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// To the service that was asked for.
    Ours,
    /// To another service, or to a supervisor.
    Another,
    /// It does not say.
    Unmarked,
}

impl Marker<'_> {
    /// Where a process belongs by its environment.
    fn membership(&self, pid: i32) -> Membership {
        use std::os::unix::ffi::OsStrExt;
        match environment_value(pid, HASH_VARIABLE) {
            None => Membership::Unmarked,
            Some(hash) if hash != self.hash.as_bytes() => Membership::Another,
            Some(_) => match environment_value(pid, HOME_VARIABLE) {
                Some(home) if home == self.home.as_os_str().as_bytes() => Membership::Ours,
                _ => Membership::Another,
            },
        }
    }
}

/// The living processes below `root`, itself not included, that belong to the service.
///
/// A service may itself start other services (`devport start` in a script). Those, and the tmux server
/// that devport made for them, end up below our supervisor, but are not part of the service: a process
/// that is marked as another's, and an unmarked tmux server, are left out with all that they started.
pub(crate) fn descendants(root: i32, marker: Marker<'_>) -> Vec<ProcessIdentity> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([root]);
    let mut pending = platform::children(root);
    while let Some(pid) = pending.pop() {
        if !seen.insert(pid) {
            continue;
        }
        let Some(status) = platform::process_status(pid) else { continue };
        let ours = match marker.membership(pid) {
            Membership::Ours => true,
            Membership::Another => false,
            Membership::Unmarked => !status.name.starts_with("tmux: server"),
        };
        if !ours {
            continue;
        }
        pending.extend(platform::children(pid));
        if status.state == ProcessState::Alive {
            found.extend(ProcessIdentity::of(pid));
        }
    }
    found
}

/// Every living process that carries a service's marker, wherever it is: what survived a supervisor that was
/// killed. Processes whose environment may not be read are not found.
pub(crate) fn marked(marker: Marker<'_>) -> Vec<ProcessIdentity> {
    all_marked(marker.home).into_iter().filter(|(hash, _)| hash == marker.hash).map(|(_, process)| process).collect()
}

/// The living processes of every service of a state directory, each with the service's hash, but for this
/// process itself.
pub(crate) fn all_marked(home: &Path) -> Vec<(String, ProcessIdentity)> {
    use std::os::unix::ffi::OsStrExt;
    let me = nix::unistd::getpid().as_raw();
    let mut found = Vec::new();
    for pid in platform::all_pids() {
        if pid == me || environment_value(pid, HOME_VARIABLE).as_deref() != Some(home.as_os_str().as_bytes()) {
            continue;
        }
        let Some(hash) = environment_value(pid, HASH_VARIABLE) else { continue };
        let hash = String::from_utf8_lossy(&hash).into_owned();
        found.extend(ProcessIdentity::of(pid).map(|process| (hash, process)));
    }
    found
}

/// Every living process of a session: what is left of a child that has ended. Only its own parent may
/// rely on the number, because it comes back once the session is empty.
#[cfg(not(target_os = "linux"))]
pub(crate) fn session(id: i32) -> Vec<ProcessIdentity> {
    platform::all_pids()
        .into_iter()
        .filter(|pid| platform::process_status(*pid).is_some_and(|status| status.session == id))
        .filter_map(ProcessIdentity::of)
        .collect()
}
