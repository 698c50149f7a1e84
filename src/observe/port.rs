//! Finds out which processes listen on a port, and which services they belong to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::os::{process, socket};
use crate::project::{Root, root_of};
use crate::registry::{Liveness, Registry, Reservation};

/// A process that listens on a port.
#[derive(Debug)]
pub(crate) struct PortListener {
    /// `None` if the process cannot be seen: it belongs to another user, or to a container.
    pub(crate) process: Option<ListeningProcess>,
    /// The user that opened the socket.
    pub(crate) user: String,
    /// Sorted, without duplicates.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The service that the process belongs to; `None` if it belongs to none of this state directory.
    pub(crate) service: Option<Reservation>,
}

/// What the system reports about a listening process. What it does not report is `None`.
#[derive(Debug)]
pub(crate) struct ListeningProcess {
    pub(crate) pid: i32,
    pub(crate) command: Option<String>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) is_directory_deleted: bool,
    /// The root of the checkout that contains the directory; `None` if it is in none.
    pub(crate) checkout: Option<PathBuf>,
    pub(crate) started_at: Option<Timestamp>,
}

/// Finds the processes that listen on a port. A process that has the socket from its parent is left out, if that one
/// listens too. `home` is the user's home directory, which is no checkout.
///
/// # Errors
/// If the system cannot be queried.
pub(crate) fn port_listeners(registry: &Registry, port: u16, home: Option<&Path>) -> Result<Vec<PortListener>> {
    let failed = || Error::system(format!("check port {port}"));
    let mut found: Vec<(Option<i32>, u32, Vec<SocketAddr>)> = Vec::new();
    for (socket, pids) in socket::holders(port).map_err(failed())? {
        let mut openers: Vec<Option<i32>> = socket::openers(&pids).map_err(failed())?.into_iter().map(Some).collect();
        if openers.is_empty() {
            openers.push(None);
        }
        for opener in openers {
            match found.iter_mut().find(|(pid, uid, _)| (*pid, *uid) == (opener, socket.uid)) {
                Some((_, _, addresses)) => addresses.push(socket.address),
                None => found.push((opener, socket.uid, vec![socket.address])),
            }
        }
    }
    let describe = |(pid, uid, mut addresses): (Option<i32>, u32, Vec<SocketAddr>)| {
        addresses.sort_unstable();
        addresses.dedup();
        Ok(PortListener {
            process: pid.map(|pid| describe_process(pid, home)),
            user: process::user_name(uid),
            addresses,
            service: pid.map(|pid| service_of(registry, pid)).transpose()?.flatten(),
        })
    };
    found.sort_unstable_by_key(|(pid, _, _)| pid.unwrap_or(i32::MAX));
    found.into_iter().map(describe).collect()
}

/// Reads what the system reports about a process.
fn describe_process(pid: i32, home: Option<&Path>) -> ListeningProcess {
    let (directory, is_directory_deleted) = process::working_directory(pid).unzip();
    let root = directory.as_deref().map(|directory| root_of(directory, home)).filter(Root::is_versioned);
    ListeningProcess {
        pid,
        command: process::command_line(pid),
        directory,
        is_directory_deleted: is_directory_deleted.unwrap_or(false),
        checkout: root.map(|root| root.path),
        started_at: process::started_at(pid),
    }
}

/// Returns the service that a process belongs to. Every program can set the variables that mark a service's processes,
/// so it also has to be in the tree of the service, or to be what a killed supervisor left.
fn service_of(registry: &Registry, pid: i32) -> Result<Option<Reservation>> {
    let failed = || Error::system(format!("check pid {pid}"));
    let Some(hash) = registry.claimed_service(pid).map_err(failed())? else { return Ok(None) };
    let Some(run) = registry.run_state(&hash)? else { return Ok(None) };
    let is_member = match registry.liveness(&hash) {
        Liveness::Held(_) => registry.members(&hash, &run)?.living.iter().any(|member| member.pid == pid),
        Liveness::Free => !run.says_ended(),
        Liveness::Unknown(_) => false,
    };
    if is_member { registry.find(&hash) } else { Ok(None) }
}
