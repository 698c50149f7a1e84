//! Stops a service: signals its supervisor, waits for the whole process tree, and ends the orphans of a killed supervisor.
//!
//! A service counts as stopped only with proof: a [`TreeEnded`], made under the service's identity lock.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::os::clock::{self, Deadline};
use crate::os::process::{Delivery, ProcessIdentity};
use crate::registry::{
    Acquired, Holder, IdentityLock, Liveness, Registry, Reservation, Role, RunState, Scan, State, Supervision,
    TreeEnded,
};

/// How long a stop may take beyond the grace period: a process in uninterruptible sleep (slow disk, NFS) ends some time
/// after SIGKILL.
pub(crate) const MARGIN: Duration = Duration::from_secs(10);
/// How long a process that has locked the identity lock may take to write its pid into the file. It does so at once, so
/// this only covers a busy machine.
const NAMING: Duration = Duration::from_millis(500);
/// The time between checks whether the lock is free and whether processes are left. Most services end within milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What a stop found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The service ran, and was stopped.
    Running,
    /// Only orphans of a killed supervisor ran, and were ended.
    Orphans,
    /// No process of the service ran.
    Nothing,
}

/// How a service is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// With the stop signal, and SIGKILL after the grace period.
    Graceful,
    /// With SIGKILL at once.
    Kill,
}

/// A service of which no process runs. Its identity lock is held, so no process can start it.
#[derive(Debug)]
pub(crate) struct Cleared {
    /// What the stop found.
    pub(crate) what: Ended,
    /// The service's identity lock.
    pub(crate) identity: IdentityLock,
    /// The proof that no process is left.
    pub(crate) ended: TreeEnded,
}

/// Stops a service and waits until none of its processes is left. Works on a full or read-only disk.
///
/// # Errors
/// If the service does not end in time, its supervisor cannot be identified, or its processes cannot be listed.
pub(crate) fn stop(registry: &Registry, reservation: &Reservation, urgency: Urgency) -> Result<Ended> {
    registry.check_owner()?;
    // Read the state before the lock: a service that ends in between still counts as running, and is then cleared.
    let has_ended = match registry.run_state(&reservation.hash) {
        Ok(run) => run.is_none_or(|run| run.is_final()),
        Err(Error::CorruptRecord { .. }) => false,
        Err(error) => return Err(error),
    };
    if has_ended && matches!(registry.liveness(&reservation.hash), Liveness::Free) {
        return Ok(Ended::Nothing);
    }
    Ok(match clear(registry, reservation, urgency, ScanWhen::Unproven)? {
        Outcome::Cleared(cleared) => cleared.what,
        Outcome::Ended | Outcome::Restarted => Ended::Running,
    })
}

/// Stops a service as [`stop`] does and returns its identity lock. Scans for processes even if the last supervisor
/// recorded that none was left.
///
/// # Errors
/// As [`stop`].
pub(crate) fn stop_and_hold(registry: &Registry, reservation: &Reservation) -> Result<Cleared> {
    registry.check_owner()?;
    loop {
        // Stop a new supervisor too: `devport run` starts one without holding the launch lock.
        if let Outcome::Cleared(cleared) = clear(registry, reservation, Urgency::Graceful, ScanWhen::Always)? {
            return Ok(cleared);
        }
    }
}

/// When to scan for processes of a service that no supervisor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanWhen {
    /// Unless the last supervisor recorded that no process was left.
    Unproven,
    Always,
}

/// The result of clearing a service.
enum Outcome {
    /// No process of the service runs.
    Cleared(Cleared),
    /// The supervisor that ran at first has ended, and recorded with proof that no process was left.
    Ended,
    /// The supervisor that ran at first has ended, and another one has started the service since.
    Restarted,
}

/// Returns whether a supervisor recorded, with proof, that no process of its service was left.
fn has_recorded_end(registry: &Registry, reservation: &Reservation, supervisor: &ProcessIdentity) -> Result<bool> {
    match registry.run_state(&reservation.hash) {
        Ok(run) => Ok(run.is_some_and(|run| run.supervisor == *supervisor && run.is_final())),
        // Then a scan decides.
        Err(Error::CorruptRecord { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Stops a service and acquires its identity lock.
fn clear(registry: &Registry, reservation: &Reservation, urgency: Urgency, scan_when: ScanWhen) -> Result<Outcome> {
    let deadline = Deadline::after(limit(reservation));
    let mut ended: Option<ProcessIdentity> = None;
    let mut unproven: Option<Deadline> = None;
    loop {
        let holder = match registry.acquire_identity(&reservation.hash, Role::Command)? {
            Acquired::Lock(identity) => {
                let (found, proof) = end_orphans(registry, reservation, &identity, urgency, scan_when, deadline)?;
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
            holder => {
                let supervisor = match holder {
                    Some(holder) => Some(holder.process()),
                    None => supervisor(registry, reservation)?,
                };
                match (supervisor, &ended) {
                    // The supervisor has ended since, or another program holds the lock and keeps it.
                    (None, _) => {
                        if unproven.get_or_insert_with(|| Deadline::after(NAMING)).remaining().is_zero() {
                            return Err(unknown_supervisor(reservation));
                        }
                    }
                    (Some(other), Some(first)) if other != *first => return Ok(Outcome::Restarted),
                    (Some(supervisor), _) => {
                        end_supervisor(registry, reservation, &supervisor, urgency, deadline)?;
                        if scan_when == ScanWhen::Unproven && has_recorded_end(registry, reservation, &supervisor)? {
                            return Ok(Outcome::Ended);
                        }
                        ended = Some(supervisor);
                    }
                }
            }
        }
    }
}

/// Returns the supervisor of a service; `None` if the service does not run.
///
/// # Errors
/// [`Error::UnknownSupervisor`] if the lock is held, but its file names no living process that has it open. Also if the
/// lock or the process cannot be checked.
pub(crate) fn supervisor(registry: &Registry, reservation: &Reservation) -> Result<Option<ProcessIdentity>> {
    let poll = || match registry.supervision(&reservation.hash) {
        Ok(Supervision::Free) => Some(Ok(None)),
        Ok(Supervision::By(supervisor)) => Some(Ok(Some(supervisor))),
        Ok(Supervision::Unnamed) => None,
        Err(error) => Some(Err(error)),
    };
    clock::poll(Duration::from_millis(5), NAMING, poll).unwrap_or_else(|| Err(unknown_supervisor(reservation)))
}

/// Returns the error for a lock file that does not name the process that holds it.
fn unknown_supervisor(reservation: &Reservation) -> Error {
    Error::UnknownSupervisor {
        service: reservation.name().to_owned(),
        why: "its lock is held, but names no process that holds it".into(),
    }
}

/// Signals a supervisor to stop its service, unless it is stopping already, and waits until the supervisor has exited.
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
            // The supervisor kills the service at the second signal. It counts SIGINT and SIGTERM, and the system merges
            // pending signals only if they are the same.
            for signal in [libc::SIGINT, libc::SIGTERM] {
                supervisor.signal(signal).map_err(failed())?;
            }
        }
        Urgency::Graceful if is_stopping() => {}
        Urgency::Graceful => drop(supervisor.request_stop().map_err(failed())?),
    }
    // A supervisor that was suspended with SIGSTOP handles no signal before SIGCONT.
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

/// Waits until another devport command has released the identity lock.
fn wait_for_command(registry: &Registry, reservation: &Reservation, deadline: Deadline) -> Result<()> {
    let mut holder = None;
    let freed = clock::poll(POLL_INTERVAL, deadline.remaining(), || match registry.lock_holder(&reservation.hash) {
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

/// Returns how long a stop may take.
pub(crate) fn limit(reservation: &Reservation) -> Duration {
    reservation.policy.grace.0.saturating_add(MARGIN)
}

/// Returns the error for a service that has not ended in time.
fn still_stopping(reservation: &Reservation, deadline: Deadline, left: &[String]) -> Error {
    Error::StillStopping {
        service: reservation.name().to_owned(),
        waited_s: deadline.limit.as_secs(),
        left: left.join(", "),
    }
}

/// Ends the orphans of a killed supervisor: sends the stop signal, and SIGKILL after the grace period, until a scan finds
/// no process. Returns whether there were any, and the proof that none is left.
fn end_orphans(
    registry: &Registry,
    reservation: &Reservation,
    identity: &IdentityLock,
    urgency: Urgency,
    scan_when: ScanWhen,
    deadline: Deadline,
) -> Result<(bool, TreeEnded)> {
    let (before, is_readable) = match registry.run_state(&reservation.hash) {
        Ok(before) => (before, true),
        Err(Error::CorruptRecord { .. }) => (None, false),
        Err(error) => return Err(error),
    };
    if scan_when == ScanWhen::Unproven
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
        // A scan reads the environment of every process. Pause as long as it took, to use at most half of a processor.
        clock::pause(POLL_INTERVAL.max(clock::now().saturating_duration_since(now)));
    }
}

/// Sends a signal to each process. Failures are ignored: the next scan finds the process again.
fn send(processes: &[ProcessIdentity], signal: i32) {
    for process in processes {
        let _ = process.signal(signal);
    }
}

/// Records the end of a service, as its killed supervisor could not.
fn record_stopped(registry: &Registry, identity: &IdentityLock, before: Option<RunState>, ended: &TreeEnded) {
    let Some(mut run) = before.filter(|run| !run.is_final()) else { return };
    if !run.says_ended() {
        (run.state, run.error) = (State::Stopped, None);
    }
    (run.started_at, run.next_start_at) = (None, None);
    // On a full disk the old state stays. The next command then scans again.
    let _ = registry.record_end(identity, &run, ended);
}

/// Sends a signal that a supervisor does not relay to its child and the process group that the child leads.
///
/// # Errors
/// [`Error::NotRunning`] if no child runs, or if the signal cannot be sent.
pub(crate) fn kill_group(reservation: &Reservation, run: Option<&RunState>, signal: i32) -> Result<()> {
    let not_running = || Error::NotRunning { service: reservation.name().to_owned() };
    let child = run.and_then(|run| run.child.as_ref()).ok_or_else(not_running)?;
    let failed = || Error::system(format!("signal {child}"));
    // The group has the child's pid as its id. The system may reuse that id once the child has ended.
    if !child.is_alive().map_err(failed())? {
        return Err(not_running());
    }
    match child.signal_job(signal).map_err(failed())? {
        Delivery::Sent => Ok(()),
        Delivery::Gone => Err(not_running()),
    }
}
