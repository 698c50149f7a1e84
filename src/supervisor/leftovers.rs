//! What survived a supervisor that was killed: found by pid, start time and boot, and by the marker in its
//! environment. A process whose identity cannot be proved is never signalled.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::process::{self, ProcessIdentity};
use crate::os::{clock, tree};
use crate::registry::{Registry, RunState};

/// The time between SIGTERM and SIGKILL for what nobody supervises any more.
const GRACE: Duration = Duration::from_secs(5);

/// The living processes of a service whose supervisor is gone. The caller holds the service's identity
/// lock, or knows that nobody does.
///
/// # Errors
/// [`Error::UnprovenLeftover`] if a process may be one and cannot be told.
pub(crate) fn find(
    registry: &Registry,
    hash: &ServiceHash,
    service: &str,
    before: Option<&RunState>,
) -> Result<Vec<ProcessIdentity>> {
    // Looking at every process of the machine is for those who have a reason to.
    let Some(before) = before.filter(|before| !before.is_final()) else { return Ok(Vec::new()) };
    let mut found = tree::marked(tree::Marker { hash: hash.as_str(), home: registry.paths().base() });
    let Some(child) = &before.child else { return Ok(found) };
    if found.contains(child) {
        return Ok(found);
    }
    if child.is_alive() {
        found.push(child.clone());
    } else if (child.start_time.is_none() || child.boot_id.is_none()) && ProcessIdentity::of(child.pid).is_some() {
        let command = process::command_of(child.pid).unwrap_or_default();
        let process = format!("pid {} ({command})", child.pid);
        return Err(Error::UnprovenLeftover { service: service.to_owned(), process });
    }
    Ok(found)
}

/// Ends processes: SIGTERM, after the grace period SIGKILL. Returns those that are left after `limit`.
pub(crate) fn reap(processes: Vec<ProcessIdentity>, limit: Duration) -> Vec<ProcessIdentity> {
    let mut left = processes;
    send(&left, libc::SIGTERM);
    send(&left, libc::SIGCONT);
    let mut gone = |wait: Duration| {
        clock::poll(Duration::from_millis(5), wait, || {
            left.retain(ProcessIdentity::is_alive);
            left.is_empty().then_some(())
        })
        .is_some()
    };
    if gone(GRACE) {
        return Vec::new();
    }
    send(&left, libc::SIGKILL);
    clock::poll(Duration::from_millis(5), limit.saturating_sub(GRACE), || {
        left.retain(ProcessIdentity::is_alive);
        left.is_empty().then_some(())
    });
    left
}

/// Sends a signal to each; one that is gone or not ours to signal is found again later.
fn send(processes: &[ProcessIdentity], signal: i32) {
    for process in processes {
        let _ = process.signal(signal);
    }
}
