//! `Rechecks`: runs the readiness checks of services that are recorded as ready, for commands that wait. A supervisor
//! stops checking once a service is ready, so only a new check shows whether it still passes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::checks;
use crate::identity::ServiceHash;
use crate::os::clock;
use crate::registry::{Registry, Reservation, State};
use crate::view::ServiceView;

/// The longest time for one check, as in a supervisor.
const LONGEST: Duration = Duration::from_secs(5);
/// The time that a check gets at least, even if the caller's time is up: a working service responds within it.
const SHORTEST: Duration = Duration::from_secs(1);

/// The services whose readiness check failed when this command ran it.
#[derive(Debug, Default)]
pub(super) struct Rechecks(Mutex<HashMap<ServiceHash, Failure>>);

/// A check that failed.
#[derive(Debug)]
struct Failure {
    why: String,
    /// When the child was started that was checked: the result says nothing about a later one.
    started_at: Option<Timestamp>,
    /// When the check is run again.
    next: Instant,
}

impl Rechecks {
    /// Runs the check of a service that is recorded as ready, for at most `limit`, unless it failed a moment ago. The
    /// next [`Self::apply`] knows the result.
    pub(super) fn run(&self, registry: &Registry, reservation: &Reservation, view: &ServiceView, limit: Duration) {
        let is_pending = self
            .failures()
            .get(&view.hash)
            .is_some_and(|failure| failure.started_at == view.started_at && clock::now() < failure.next);
        if view.state != State::Ready || is_pending {
            return;
        }
        match checks::run_once(registry, reservation, limit.clamp(SHORTEST, LONGEST)) {
            Some(Err(why)) => {
                let next = clock::later(clock::now(), reservation.policy.ready_interval.0);
                self.failures().insert(view.hash.clone(), Failure { why, started_at: view.started_at, next });
            }
            Some(Ok(())) | None => drop(self.failures().remove(&view.hash)),
        }
    }

    /// Corrects the view of a service that is recorded as ready, and whose check failed.
    pub(super) fn apply(&self, mut view: ServiceView) -> ServiceView {
        let failures = self.failures();
        let failure = failures.get(&view.hash).filter(|failure| failure.started_at == view.started_at);
        if let (State::Ready, Some(failure)) = (view.state, failure) {
            (view.state, view.error, view.short_error) = (State::Running, Some(failure.why.clone()), None);
        }
        view
    }

    /// Returns the failures. A thread that panicked while it had them has left them whole.
    fn failures(&self) -> MutexGuard<'_, HashMap<ServiceHash, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
