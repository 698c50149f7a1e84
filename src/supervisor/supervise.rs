//! Becoming the supervisor of a service: taking its lock, and finding out what an earlier supervisor left.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::clock::{self, Deadline};
use crate::os::process::{self, ProcessIdentity};
use crate::registry::{
    Acquired, ExitHow, IdentityLock, Pane, Registry, Reservation, Role, RunState, Scan, State, TreeEnded,
};
use crate::supervisor::audience::Audience;
use crate::supervisor::event::Outcome;
use crate::supervisor::event_loop::Supervisor;
use crate::supervisor::recorder::{HEARTBEAT, Recorder};
use crate::supervisor::screen::Screen;
use crate::supervisor::service::{Orphans, Service};
use crate::supervisor::signals::Signals;

/// How much longer than its grace period a command may keep a service locked until a supervisor gives up. `stop`
/// holds the lock while it ends what a killed supervisor left; a minute is ample for the scans around that.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// The time between attempts to take a lock that a command holds. Short, because `start` waits for the result.
const COMMAND_INTERVAL: Duration = Duration::from_millis(2);

/// How and where a supervisor runs.
#[derive(Debug)]
pub(crate) struct SupervisorSetup {
    /// Who sees the output, besides the log.
    pub(crate) audience: Audience,
    /// The tmux window that this process runs in, if devport created it.
    pub(crate) window: Option<Pane>,
    /// The value of `TERM`; `None` if this process has no terminal.
    pub(crate) term: Option<String>,
    /// The time between heartbeats; `None` for the standard one.
    pub(crate) heartbeat: Option<Duration>,
}

/// The result of an attempt to supervise a service.
#[derive(Debug)]
pub(crate) enum Supervised {
    /// This process supervised the service until it ended.
    Ended {
        outcome: Outcome,
        /// How the command ended; `None` if it could not be executed, or did not run at the end.
        exit: Option<ExitHow>,
    },
    /// Another process supervises it.
    AlreadyRunning,
}

/// Supervises a service until it ends.
///
/// # Errors
/// If the service's files cannot be used, or a process may belong to an earlier run and cannot be identified.
pub(crate) fn supervise(registry: &Registry, hash: &ServiceHash, setup: SupervisorSetup) -> Result<Supervised> {
    let signals = Signals::install()?;
    let me = ProcessIdentity::current().map_err(Error::system("identify this process"))?;
    let Some(identity) = acquire(registry, hash)? else { return Ok(Supervised::AlreadyRunning) };
    let Some(reservation) = registry.find(hash)? else {
        // The service was removed in the meantime. Delete the lock file that acquiring has created again.
        identity.delete()?;
        return Err(Error::NoSuchService { target: hash.to_string(), nearest: Vec::new() });
    };
    registry.sweep_run_states(hash);
    let (before, is_readable) = match registry.run_state(hash) {
        Ok(before) => (before, true),
        Err(Error::CorruptRecord { .. }) => (None, false),
        Err(error) => return Err(error),
    };
    let run = RunState::begin(me, setup.window, before.clone());
    // Fail before anything is started: commands could not see a supervisor that cannot write its state.
    registry.record_run(&identity, &run)?;
    // The recorded proof saves a scan of every process of the machine.
    let recorded_proof = if is_readable { TreeEnded::recorded(&identity, before.as_ref()) } else { None };
    match prepare(registry, reservation, &identity, &setup.audience, recorded_proof, before) {
        Ok((service, screen)) => {
            let service = Service { term: setup.term, ..service };
            let (policy, last_up) = (&service.reservation.policy, service.reservation.last_up);
            let heartbeat = setup.heartbeat.unwrap_or(HEARTBEAT);
            let mut run = run;
            if service.proof.is_some() {
                // No process of an earlier supervisor is left.
                run.child = None;
            }
            let recorder = Recorder::new(registry, &identity, run, policy, heartbeat, last_up);
            let (outcome, exit) = Supervisor::new(service, recorder, signals, screen, setup.audience).run();
            Ok(Supervised::Ended { outcome, exit })
        }
        Err(error) => {
            // `start` reads the reason from the run state; the window that shows the error itself may close at once.
            let mut failed = run;
            (failed.state, failed.error) = (State::Failed, Some(error.to_string().into()));
            let _ = registry.record_run(&identity, &failed);
            Err(error)
        }
    }
}

/// Opens what the supervisor needs, and scans for processes of an earlier run unless its end is recorded with proof.
/// Nothing is started yet.
fn prepare<'a>(
    registry: &'a Registry,
    reservation: Reservation,
    identity: &'a IdentityLock,
    audience: &Audience,
    recorded_proof: Option<TreeEnded>,
    before: Option<RunState>,
) -> Result<(Service<'a>, Screen)> {
    let environment = registry.environment(&reservation.hash)?;
    process::become_subreaper().map_err(Error::system("adopt orphaned descendants"))?;
    let screen = match audience {
        Audience::LogOnly => Screen::detached(),
        Audience::OwnStreams | Audience::Window { .. } => {
            Screen::of_own_streams().map_err(Error::system("use the terminal"))?
        }
    };
    let (proof, orphans) = match recorded_proof {
        Some(ended) => (Some(ended), None),
        None => match registry.scan_orphans(identity, reservation.name(), before.as_ref())? {
            Scan::Ended(ended) => (Some(ended), None),
            Scan::Left(_) => (None, Some(Orphans { before })),
        },
    };
    let service = Service { registry, identity, reservation, environment, term: None, child: None, orphans, proof };
    Ok((service, screen))
}

/// Takes the identity lock; `None` if another supervisor holds it. If a command holds it, such as a `stop` that ends
/// what a killed supervisor left, this waits for the command.
fn acquire(registry: &Registry, hash: &ServiceHash) -> Result<Option<IdentityLock>> {
    let mut deadline: Option<Deadline> = None;
    let busy = |holder: String, waited: Duration| Error::LockBusy {
        what: "the service's lock".into(),
        holder,
        waited_s: waited.as_secs(),
    };
    loop {
        match registry.acquire_identity(hash, Role::Supervisor)? {
            Acquired::Lock(identity) => return Ok(Some(identity)),
            Acquired::Held(Some(holder)) if holder.role == Role::Command => {
                let deadline = match deadline {
                    Some(deadline) => deadline,
                    None => {
                        // A service that the command has removed has no grace period.
                        let grace = registry.find(hash)?.map_or(Duration::ZERO, |found| found.policy.grace.0);
                        *deadline.insert(Deadline::after(command_limit(grace)))
                    }
                };
                if deadline.remaining().is_zero() {
                    return Err(busy(holder.process().to_string(), deadline.limit));
                }
                clock::pause(COMMAND_INTERVAL);
            }
            Acquired::Held(Some(_)) => return Ok(None),
            // Not a supervisor: the command that launched this process saw none.
            Acquired::Held(None) => return Err(busy("a process that it does not name".into(), Duration::ZERO)),
        }
    }
}

/// Returns how long to wait for a command that ends a service with this grace period.
fn command_limit(grace: Duration) -> Duration {
    grace.saturating_add(COMMAND_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_the_lock_for_longer_than_the_grace_period() {
        let grace = Duration::from_secs(3600);
        assert!(command_limit(grace) > grace);
    }
}
