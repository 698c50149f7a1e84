//! Ending a service: ask its supervisor, wait for the whole tree, and reap what a killed supervisor left.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::os::process::{Delivery, ProcessIdentity};
use crate::os::{clock, tree};
use crate::registry::{Acquired, Liveness, Registry, Reservation, RunState, State};
use crate::supervisor::{find_leftovers, reap_leftovers};

/// How long a supervisor may take beyond the grace period, for what survives that.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a supervisor may take to write down who it is.
const SIGNING: Duration = Duration::from_millis(500);

/// What there was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A service that ran.
    Running,
    /// What a killed supervisor had left.
    Leftovers,
    /// Nothing.
    Nothing,
}

/// Ends a service and waits until no process of it is left. Writes nothing but the state of one whose
/// supervisor was killed, so that it works on a full disk.
///
/// # Errors
/// If it does not end in time, or its supervisor cannot be found.
pub(crate) fn stop(registry: &Registry, reservation: &Reservation) -> Result<Ended> {
    let Some(supervisor) = supervisor(registry, reservation)? else {
        return reap(registry, reservation);
    };
    let delivered = supervisor.signal(libc::SIGTERM).map_err(Error::system(format!("signal {supervisor}")))?;
    // Somebody may have stopped it; then it would not notice the one without the other.
    let _ = supervisor.signal(libc::SIGCONT);
    if delivered == Delivery::Sent {
        wait_for_end(registry, reservation, &supervisor)?;
    }
    Ok(Ended::Running)
}

/// The supervisor of a service; `None` if it does not run.
fn supervisor(registry: &Registry, reservation: &Reservation) -> Result<Option<ProcessIdentity>> {
    let unknown = |why: &str| Error::UnknownSupervisor { service: reservation.name().to_owned(), why: why.to_owned() };
    clock::poll(Duration::from_millis(5), SIGNING, || match registry.liveness(&reservation.hash) {
        Liveness::Free => Some(Ok(None)),
        Liveness::Held(Some(holder)) if holder.is_alive() => Some(Ok(Some(holder))),
        Liveness::Held(_) => None,
        Liveness::Unknown(error) => {
            Some(Err(Error::System { verb: format!("ask whether {} runs", reservation.name()), source: error }))
        }
    })
    .unwrap_or_else(|| Err(unknown("its lock is held, but does not say by whom")))
}

/// Waits until a supervisor that was asked to end has done so.
fn wait_for_end(registry: &Registry, reservation: &Reservation, supervisor: &ProcessIdentity) -> Result<()> {
    let limit = limit(reservation);
    if supervisor.wait_for_end(limit) {
        return Ok(());
    }
    let marker = tree::Marker { hash: reservation.hash.as_str(), home: registry.paths().base() };
    let mut left: Vec<String> = tree::descendants(supervisor.pid, marker).iter().map(ToString::to_string).collect();
    left.push(format!("its supervisor, pid {}", supervisor.pid));
    Err(Error::StillStopping {
        service: reservation.name().to_owned(),
        waited_s: limit.as_secs(),
        left: left.join(", "),
    })
}

/// How long a service may take to end.
fn limit(reservation: &Reservation) -> Duration {
    reservation.policy.grace.0 + MARGIN
}

/// Ends what a killed supervisor has left.
fn reap(registry: &Registry, reservation: &Reservation) -> Result<Ended> {
    let Some(run) = registry.run_state(&reservation.hash).filter(|run| !run.is_final()) else {
        return Ok(Ended::Nothing);
    };
    let leftovers = find_leftovers(registry, &reservation.hash, reservation.name(), Some(&run))?;
    let ended = if leftovers.is_empty() { Ended::Nothing } else { Ended::Leftovers };
    let limit = limit(reservation);
    let left = reap_leftovers(leftovers, limit);
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        return Err(Error::StillStopping {
            service: reservation.name().to_owned(),
            waited_s: limit.as_secs(),
            left: left.join(", "),
        });
    }
    record_stopped(registry, reservation, run)?;
    Ok(ended)
}

/// Records the end that a killed supervisor could not record; who holds the identity lock may write.
fn record_stopped(registry: &Registry, reservation: &Reservation, run: RunState) -> Result<()> {
    let me = ProcessIdentity::current().map_err(Error::system("identify this process"))?;
    if let Ok(Acquired::Lock(_identity)) = registry.acquire_identity(&reservation.hash, &me) {
        let stopped =
            RunState { state: State::Stopped, child: None, started_at: None, next_start_at: None, error: None, ..run };
        // Nothing runs either way; a full disk only keeps the old word for it.
        let _ = registry.write_run_state(&reservation.hash, &stopped);
    }
    Ok(())
}

/// Sends a signal that a supervisor cannot pass on to the process group of its child.
///
/// # Errors
/// [`Error::NotRunning`] if there is no child now, or what the system says.
pub(crate) fn kill_group(reservation: &Reservation, run: Option<&RunState>, signal: i32) -> Result<()> {
    let not_running = || Error::NotRunning { service: reservation.name().to_owned() };
    let child = run.and_then(|run| run.child.as_ref()).filter(|child| child.is_alive()).ok_or_else(not_running)?;
    match child.signal_group(signal).map_err(Error::system(format!("signal {child}")))? {
        Delivery::Sent => Ok(()),
        Delivery::Gone => Err(not_running()),
    }
}
