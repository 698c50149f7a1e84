//! Ending a service: ask its supervisor, wait for the whole tree, and end what a killed supervisor left.
//!
//! An end counts only with proof: a [`TreeEnded`], made under the service's identity lock.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::os::clock::{self, Deadline};
use crate::os::process::{Delivery, ProcessIdentity};
use crate::registry::{
    Acquired, Holder, IdentityLock, Liveness, Registry, Reservation, Role, RunState, Scan, State, Supervision,
    TreeEnded,
};

/// How long a service may take to end beyond its grace period, for what survives SIGKILL for a moment.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);
/// How long a new holder of the lock may take to write down who it is.
const SIGNING: Duration = Duration::from_millis(500);
/// How often the lock, and what is left of a service, are looked at.
const INTERVAL: Duration = Duration::from_millis(2);

/// What there was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A service that ran.
    Running,
    /// What a killed supervisor had left.
    Orphans,
    /// Nothing.
    Nothing,
}

/// How a service is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// With its grace period.
    Graceful,
    /// With SIGKILL, at once.
    Kill,
}

/// A service of which nothing runs, and which nobody can start: the lock is held.
#[derive(Debug)]
pub(crate) struct Cleared {
    /// What there was to end.
    pub(crate) what: Ended,
    /// The lock.
    pub(crate) identity: IdentityLock,
    /// The proof.
    pub(crate) ended: TreeEnded,
}

/// Ends a service and waits until no process of it is left. Works on a full disk and on a read-only one.
///
/// # Errors
/// If it does not end in time, its supervisor cannot be found, or the system does not say whether anything is left.
pub(crate) fn stop(registry: &Registry, reservation: &Reservation, urgency: Urgency) -> Result<Ended> {
    registry.check_owner()?;
    // In this order: an end that is recorded after the lock was seen free is not missed.
    let has_ended = match registry.run_state(&reservation.hash) {
        Ok(run) => run.is_none_or(|run| run.is_final()),
        Err(Error::CorruptRecord { .. }) => false,
        Err(error) => return Err(error),
    };
    if has_ended && matches!(registry.liveness(&reservation.hash), Liveness::Free) {
        return Ok(Ended::Nothing);
    }
    Ok(match clear(registry, reservation, urgency, Thoroughness::AsRecorded)? {
        Outcome::Cleared(cleared) => cleared.what,
        Outcome::Succeeded => Ended::Running,
    })
}

/// Ends a service as [`stop`] does, looks for processes even if its last supervisor recorded that none was left, and
/// keeps its lock.
///
/// # Errors
/// As [`stop`].
pub(crate) fn stop_and_hold(registry: &Registry, reservation: &Reservation) -> Result<Cleared> {
    registry.check_owner()?;
    loop {
        // A successor was started by somebody who does not take the launch lock: `devport run`.
        if let Outcome::Cleared(cleared) = clear(registry, reservation, Urgency::Graceful, Thoroughness::Always)? {
            return Ok(cleared);
        }
    }
}

/// Whether a recorded end is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thoroughness {
    /// It is.
    AsRecorded,
    /// Processes are looked for all the same.
    Always,
}

/// What came of ending a service.
enum Outcome {
    /// Nothing of it runs.
    Cleared(Cleared),
    /// What ran when we began has ended; another supervisor has started the service since.
    Succeeded,
}

/// Ends a service, under its identity lock.
fn clear(
    registry: &Registry,
    reservation: &Reservation,
    urgency: Urgency,
    thoroughness: Thoroughness,
) -> Result<Outcome> {
    let deadline = Deadline::after(limit(reservation));
    let mut ended: Option<ProcessIdentity> = None;
    let mut unproven: Option<Deadline> = None;
    loop {
        let holder = match registry.acquire_identity(&reservation.hash, Role::Command)? {
            Acquired::Lock(identity) => {
                let (found, proof) = end_orphans(registry, reservation, &identity, urgency, thoroughness, deadline)?;
                let what = match (ended, found) {
                    (Some(_), _) => Ended::Running,
                    (None, true) => Ended::Orphans,
                    (None, false) => Ended::Nothing,
                };
                return Ok(Outcome::Cleared(Cleared { what, identity, ended: proof }));
            }
            Acquired::Held(holder) => holder,
        };
        match holder {
            Some(Holder { role: Role::Command, .. }) => wait_for_command(registry, reservation, deadline)?,
            _ => {
                let supervisor = supervisor(registry, reservation)?;
                match (supervisor, &ended) {
                    // It has ended meanwhile, unless the lock is a stranger's and stays.
                    (None, _) => {
                        if unproven.get_or_insert_with(|| Deadline::after(SIGNING)).remaining().is_zero() {
                            return Err(unknown_supervisor(reservation));
                        }
                    }
                    (Some(other), Some(first)) if other != *first => return Ok(Outcome::Succeeded),
                    (Some(supervisor), _) => {
                        end_supervisor(registry, reservation, &supervisor, urgency, deadline)?;
                        ended = Some(supervisor);
                    }
                }
            }
        }
    }
}

/// The supervisor of a service; `None` if it does not run.
///
/// # Errors
/// [`Error::UnknownSupervisor`] if the lock is held and names no living process that has it open, or if the system
/// does not answer.
pub(crate) fn supervisor(registry: &Registry, reservation: &Reservation) -> Result<Option<ProcessIdentity>> {
    let look = || match registry.supervision(&reservation.hash) {
        Ok(Supervision::Free) => Some(Ok(None)),
        Ok(Supervision::By(supervisor)) => Some(Ok(Some(supervisor))),
        Ok(Supervision::Unproven) => None,
        Err(error) => Some(Err(error)),
    };
    clock::poll(Duration::from_millis(5), SIGNING, look).unwrap_or_else(|| Err(unknown_supervisor(reservation)))
}

/// The error of a service whose lock is held by a process that it does not name.
fn unknown_supervisor(reservation: &Reservation) -> Error {
    Error::UnknownSupervisor {
        service: reservation.name().to_owned(),
        why: "its lock is held, but names no process that holds it".into(),
    }
}

/// Asks a supervisor to end its service, unless it is doing so already, and waits until it has ended.
fn end_supervisor(
    registry: &Registry,
    reservation: &Reservation,
    supervisor: &ProcessIdentity,
    urgency: Urgency,
    deadline: Deadline,
) -> Result<()> {
    let failed = || Error::system(format!("signal {supervisor}"));
    let is_stopping = || {
        let run = registry.run_state(&reservation.hash).ok().flatten();
        run.is_some_and(|run| run.supervisor == *supervisor && run.state == State::Stopping)
    };
    match urgency {
        Urgency::Kill => {
            // Two signals that a person could send: the second one means at once.
            for signal in [libc::SIGINT, libc::SIGTERM] {
                supervisor.signal(signal).map_err(failed())?;
            }
        }
        Urgency::Graceful if is_stopping() => {}
        Urgency::Graceful => drop(supervisor.request_stop().map_err(failed())?),
    }
    // A supervisor that was stopped (SIGSTOP) would not notice the one without the other.
    let _ = supervisor.signal(libc::SIGCONT);
    if supervisor.wait_for_end(deadline.remaining()).map_err(Error::system(format!("wait for {supervisor}")))? {
        return Ok(());
    }
    let mut left: Vec<String> = registry
        .descendants(&reservation.hash, supervisor.pid)
        .map(|found| found.living.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    left.push(format!("its supervisor, pid {}", supervisor.pid));
    Err(still_stopping(reservation, deadline, &left))
}

/// Waits until a devport command that is alone with the service has ended, or let go.
fn wait_for_command(registry: &Registry, reservation: &Reservation, deadline: Deadline) -> Result<()> {
    let mut holder = None;
    let freed = clock::poll(INTERVAL, deadline.remaining(), || match registry.lock_holder(&reservation.hash) {
        Ok(Some(found)) if found.role == Role::Command => {
            holder = Some(found);
            None
        }
        Ok(_) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    });
    freed.unwrap_or_else(|| {
        Err(Error::LockBusy {
            what: format!("the lock of {}", reservation.name()),
            holder: holder.map_or_else(|| "a command".into(), |holder| holder.process().to_string()),
            waited_s: deadline.limit.as_secs(),
        })
    })
}

/// How long a service may take to end.
pub(crate) fn limit(reservation: &Reservation) -> Duration {
    reservation.policy.grace.0.saturating_add(MARGIN)
}

/// The error of a service that has not ended in time.
fn still_stopping(reservation: &Reservation, deadline: Deadline, left: &[String]) -> Error {
    Error::StillStopping {
        service: reservation.name().to_owned(),
        waited_s: deadline.limit.as_secs(),
        left: left.join(", "),
    }
}

/// Ends what a killed supervisor left: the stop signal, after the grace period SIGKILL, until a scan finds nothing.
/// What must be killed at once has no grace period.
/// Whether there was anything comes first.
fn end_orphans(
    registry: &Registry,
    reservation: &Reservation,
    identity: &IdentityLock,
    urgency: Urgency,
    thoroughness: Thoroughness,
    deadline: Deadline,
) -> Result<(bool, TreeEnded)> {
    let (before, is_readable) = match registry.run_state(&reservation.hash) {
        Ok(before) => (before, true),
        Err(Error::CorruptRecord { .. }) => (None, false),
        Err(error) => return Err(error),
    };
    if thoroughness == Thoroughness::AsRecorded
        && is_readable
        && let Some(ended) = TreeEnded::recorded(identity, before.as_ref())
    {
        return Ok((false, ended));
    }
    let mut kill_at = None;
    loop {
        let left = match registry.scan_orphans(identity, reservation.name(), before.as_ref())? {
            Scan::Ended(ended) => {
                record_stopped(registry, identity, before, &ended);
                return Ok((kill_at.is_some(), ended));
            }
            Scan::Left(left) => left,
        };
        let now = clock::now();
        match kill_at {
            None if urgency == Urgency::Kill => {
                send(&left, libc::SIGKILL);
                kill_at = Some(Deadline::after(Duration::ZERO));
            }
            None => {
                send(&left, reservation.policy.stop_signal.0);
                send(&left, libc::SIGCONT);
                kill_at = Some(Deadline::after(reservation.policy.grace.0));
            }
            Some(kill_at) if kill_at.remaining().is_zero() => send(&left, libc::SIGKILL),
            Some(_) => {}
        }
        if deadline.remaining().is_zero() {
            let left: Vec<String> = left.iter().map(ToString::to_string).collect();
            return Err(still_stopping(reservation, deadline, &left));
        }
        // A scan reads the environment of every process: it may take longer than the interval.
        clock::pause(INTERVAL.max(clock::now().saturating_duration_since(now)));
    }
}

/// Sends a signal to each process; one that is gone or not ours to signal is found again by the next scan.
fn send(processes: &[ProcessIdentity], signal: i32) {
    for process in processes {
        let _ = process.signal(signal);
    }
}

/// Records the end that a killed supervisor could not record.
fn record_stopped(registry: &Registry, identity: &IdentityLock, before: Option<RunState>, ended: &TreeEnded) {
    let Some(mut run) = before.filter(|run| !run.is_final()) else { return };
    if !run.says_ended() {
        (run.state, run.error) = (State::Stopped, None);
    }
    (run.started_at, run.next_start_at) = (None, None);
    // Nothing runs either way; a full disk only keeps the old state, which the next `stop` finds.
    let _ = registry.record_end(identity, &run, ended);
}

/// Sends a signal that a supervisor cannot pass on to the process group of its child.
///
/// # Errors
/// [`Error::NotRunning`] if there is no child now, or what the system says.
pub(crate) fn kill_group(reservation: &Reservation, run: Option<&RunState>, signal: i32) -> Result<()> {
    let not_running = || Error::NotRunning { service: reservation.name().to_owned() };
    let child = run.and_then(|run| run.child.as_ref()).ok_or_else(not_running)?;
    let failed = || Error::system(format!("signal {child}"));
    // The group's number is the child's own as long as the child lives.
    if !child.is_alive().map_err(failed())? {
        return Err(not_running());
    }
    match child.signal_group(signal).map_err(failed())? {
        Delivery::Sent => Ok(()),
        Delivery::Gone => Err(not_running()),
    }
}
