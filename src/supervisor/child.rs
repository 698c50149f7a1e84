//! Starting the child of a service, and finding out what uses its port.

use std::io;

use crate::checks::{SpawnError, execute};
use crate::config::Variables;
use crate::os::process::{ProcessIdentity, command_of, environment_values};
use crate::os::socket::{self, PortUse};
use crate::os::tree;
use crate::registry::{Problem, Registry, Reservation};
use crate::supervisor::stream::{Stream, StreamKind};

/// Starts the child of a service. `term` is its `TERM`. Returns the child and our ends of its streams.
///
/// # Errors
/// If it cannot be executed.
pub(super) fn spawn(
    reservation: &Reservation,
    environment: &Variables,
    registry: &Registry,
    term: Option<&str>,
    kind: StreamKind,
) -> Result<(ProcessIdentity, Vec<Stream>), SpawnError> {
    let (ours, childs) = Stream::open(kind).map_err(|error| SpawnError {
        why: format!("could not open a terminal: {}", crate::error::reason(&error)),
        is_permanent: false,
    })?;
    let child = execute(&reservation.cmd, reservation, environment, registry, term, childs)?;
    Ok((child, ours))
}

/// Returns why a port cannot be used, with the processes that listen on it by pid, command and service; `None` if the
/// port is free.
///
/// # Errors
/// If the system does not report the port's listeners.
pub(super) fn port_problem(port: u16, registry: &Registry, own: &Reservation) -> io::Result<Option<Problem>> {
    let pids = match socket::port_use(port)? {
        PortUse::Free => return Ok(None),
        PortUse::Closing => return Ok(Some(Problem::PortClosing { port })),
        PortUse::Taken(pids) => pids,
    };
    let owners: Vec<String> = pids
        .into_iter()
        .map(|pid| {
            let command = command_of(pid).unwrap_or_default();
            format!("pid {pid} ({command}), {}", service_of(pid, registry, own))
        })
        .collect();
    let owner = if owners.is_empty() {
        "a process that devport cannot see (another user's?)".into()
    } else {
        owners.join("; ")
    };
    Ok(Some(Problem::PortTaken { port, owner }))
}

/// Describes which service a process belongs to.
fn service_of(pid: i32, registry: &Registry, own: &Reservation) -> String {
    use std::os::unix::ffi::OsStrExt;
    // An environment that cannot be read counts as none: this only words a message.
    let values = environment_values(pid, [tree::HASH_VARIABLE, tree::HOME_VARIABLE]);
    let Ok([Some(hash), Some(home)]) = values else { return "not a devport service".into() };
    if home != registry.paths().base().as_os_str().as_bytes() {
        return "a service of another devport directory".into();
    }
    let hash = String::from_utf8_lossy(&hash);
    if hash == own.hash.as_str() {
        return "an earlier process of this service".into();
    }
    let other = crate::identity::ServiceHash::parse(&hash).and_then(|hash| registry.find(&hash).ok().flatten());
    other.map_or_else(
        || "a devport service that was removed".into(),
        |other| format!("the devport service {}", other.name()),
    )
}
