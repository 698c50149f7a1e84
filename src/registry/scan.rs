//! Scans for the processes of a service, and with them the proof that none is left.

use std::path::Path;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::process::{self, ProcessIdentity};
use crate::os::tree::{self, Claim, Marker};
use crate::registry::ended::TreeEnded;
use crate::registry::liveness::Liveness;
use crate::registry::lock::IdentityLock;
use crate::registry::paths::Paths;
use crate::registry::run_state::RunState;
use crate::registry::store::Registry;

/// The result of a scan for the processes of a service.
#[derive(Debug)]
pub(crate) enum Scan {
    /// No process is left.
    Ended(TreeEnded),
    /// These processes are left. If the list is empty, some processes were ending: scan again.
    Left(Vec<ProcessIdentity>),
}

/// The prefix that a supervisor puts before the hash in its own environment. A supervisor may be started from another
/// service, and must not count as a process of it.
const SUPERVISOR_MARK: &str = "supervisor:";

/// Returns the value of `DEVPORT_HASH` for the supervisor of a service.
pub(crate) fn supervisor_mark(hash: &ServiceHash) -> String {
    format!("{SUPERVISOR_MARK}{hash}")
}

impl Registry {
    /// Returns the marker of the processes of a service.
    pub(crate) fn marker<'a>(&'a self, hash: &'a ServiceHash) -> Marker<'a> {
        Marker { hash: hash.as_str(), home: self.paths.base() }
    }

    /// Scans for processes of a service below its supervisor, which is this process.
    ///
    /// # Errors
    /// If the system cannot be queried: some may be left.
    pub(crate) fn scan_below(&self, lock: &IdentityLock, supervisor: i32) -> Result<Scan> {
        let found = self.descendants(lock.hash(), supervisor)?;
        Ok(if found.living.is_empty() && !found.is_unsettled {
            Scan::Ended(TreeEnded::proved_by_scan(lock))
        } else {
            Scan::Left(found.living)
        })
    }

    /// Finds the processes of a service below its supervisor.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn descendants(&self, hash: &ServiceHash, supervisor: i32) -> Result<tree::Descendants> {
        tree::descendants(supervisor, self.marker(hash), &is_supervised)
            .map_err(Error::system(format!("list the processes below pid {supervisor}")))
    }

    /// Finds the processes of a service whose supervisor recorded `run`.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn members(&self, hash: &ServiceHash, run: &RunState) -> Result<tree::Descendants> {
        let found = self.descendants(hash, run.supervisor.pid)?;
        // macOS has no subreapers, so some are found by the child's session or by the marker only.
        #[cfg(not(target_os = "linux"))]
        let found = {
            let unknown = || Error::system(format!("search for processes of {hash}"));
            let mut found = found;
            if let Some(child) = &run.child {
                found.living.extend(tree::session(child.pid).map_err(unknown())?);
            }
            found.living.extend(tree::marked(self.marker(hash)).map_err(unknown())?);
            found
        };
        Ok(found)
    }

    /// Returns the service of this state directory that a process claims to belong to: the one that its environment
    /// names, or else that of the nearest ancestor. `None` if none does.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(crate) fn claimed_service(&self, pid: i32) -> std::io::Result<Option<ServiceHash>> {
        let mut next = Some(pid);
        while let Some(pid) = next.filter(|pid| *pid > 1) {
            if let Some(claim) = Claim::of(pid)? {
                let hash = claim.hash.strip_prefix(SUPERVISOR_MARK).unwrap_or(&claim.hash);
                return Ok(ServiceHash::parse(hash).filter(|_| Path::new(&claim.home) == self.paths.base()));
            }
            next = process::parent(pid)?;
        }
        Ok(None)
    }

    /// Scans for processes that survived the supervisor that recorded `before`: by the recorded child, and by the
    /// marker in every process's environment. An empty scan is repeated once, because a process that forks and exits,
    /// or executes a program, can be missed once.
    ///
    /// # Errors
    /// [`Error::UnprovenOrphan`] if a process may belong to the service but cannot be identified, or if the system
    /// cannot be queried.
    pub(crate) fn scan_orphans(&self, lock: &IdentityLock, service: &str, before: Option<&RunState>) -> Result<Scan> {
        for _ in 0..2 {
            let found = self.orphans(lock.hash(), service, before)?;
            if !found.is_empty() {
                return Ok(Scan::Left(found));
            }
        }
        Ok(Scan::Ended(TreeEnded::proved_by_scan(lock)))
    }

    /// Scans once for processes that survived a supervisor.
    fn orphans(&self, hash: &ServiceHash, service: &str, before: Option<&RunState>) -> Result<Vec<ProcessIdentity>> {
        let unknown = || Error::system(format!("search for processes of {service}"));
        let mut found = tree::marked(self.marker(hash)).map_err(unknown())?;
        let Some(child) = before.and_then(|before| before.child.as_ref()) else { return Ok(found) };
        if found.contains(child) {
            return Ok(found);
        }
        // The environment of Apple's own programs cannot be read, so the rest of the child's session is included.
        #[cfg(target_os = "macos")]
        if child.start_time.is_some() && child.boot_id == ProcessIdentity::current().map_err(unknown())?.boot_id {
            let session = tree::session(child.pid).map_err(unknown())?;
            let is_later = |process: &ProcessIdentity| process.start_time >= child.start_time;
            found.extend(session.into_iter().filter(|process| *process != *child && is_later(process)));
        }
        if child.is_alive().map_err(unknown())? {
            found.push(child.clone());
        } else if (child.start_time.is_none() || child.boot_id.is_none())
            && ProcessIdentity::of(child.pid).map_err(unknown())?.is_some()
        {
            let command = process::command_of(child.pid).unwrap_or_default();
            let process = format!("pid {} ({command})", child.pid);
            return Err(Error::UnprovenOrphan { service: service.to_owned(), process });
        }
        Ok(found)
    }
}

/// Returns whether a process really belongs to another supervised service: the service that its environment names must
/// have a supervisor, and a process that claims to be that supervisor must be it.
fn is_supervised(claim: &Claim) -> std::io::Result<bool> {
    let (text, is_supervisor) = match claim.hash.strip_prefix(SUPERVISOR_MARK) {
        Some(hash) => (hash, true),
        None => (claim.hash.as_str(), false),
    };
    let Some(hash) = ServiceHash::parse(text) else { return Ok(false) };
    match Liveness::probe(&Paths::at(Path::new(&claim.home)).identity_lock(&hash)) {
        Liveness::Held(holder) => Ok(!is_supervisor || holder.is_some_and(|holder| holder.pid == claim.pid)),
        Liveness::Free => Ok(false),
        Liveness::Unknown(error) => Err(error),
    }
}
