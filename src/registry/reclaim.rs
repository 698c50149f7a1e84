//! Chooses the service that loses its port when the pool is exhausted.

use jiff::{SignedDuration, Timestamp};

use crate::error::Result;
use crate::registry::ended::TreeEnded;
use crate::registry::holder::Role;
use crate::registry::lock::{Acquired, FileLock, IdentityLock};
use crate::registry::port::is_free;
use crate::registry::reservation::Reservation;
use crate::registry::scan::Scan;
use crate::registry::store::Registry;

/// How long a stopped service keeps its port when the pool is exhausted: longer than a holiday.
const RECLAIM_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A service that loses its port, with the locks that keep it from being started.
pub(super) struct Stale {
    pub(super) reservation: Reservation,
    pub(super) launch: FileLock,
    pub(super) identity: IdentityLock,
    /// Nothing of it runs: its record may be deleted.
    pub(super) ended: TreeEnded,
}

impl Registry {
    /// Returns a stopped service whose port may be reassigned: one whose checkout no longer exists, else the one with
    /// the oldest `last_up`, if that is over 30 days ago. `None` if there is none.
    pub(super) fn find_stale(&self, now: Timestamp) -> Result<Option<Stale>> {
        let mut stale = Vec::new();
        for reservation in self.list()?.reservations {
            let is_candidate = !reservation.tailnet
                && (self.range.first..=self.range.last).contains(&reservation.port)
                && reservation.check_schema(&self.paths.record(&reservation.hash)).is_ok();
            let last_up = self.last_beat(&reservation.hash).unwrap_or_default().max(reservation.last_up);
            // A reservation without a command has no supervisor that updates `last_up`.
            let is_old = !reservation.cmd.is_empty() && now.duration_since(last_up) > RECLAIM_AFTER;
            let is_orphaned = reservation.has_lost_checkout()?;
            if is_candidate && (is_old || is_orphaned) {
                stale.push((!is_orphaned, last_up, reservation));
            }
        }
        stale.sort_by_key(|(keeps_checkout, last_up, _)| (*keeps_checkout, *last_up));
        for (_, _, reservation) in stale {
            // A service that is being launched holds one of these locks.
            let Some(launch) = FileLock::try_take(&self.paths.launch_lock(&reservation.hash))? else { continue };
            let Acquired::Lock(identity) = self.acquire_identity(&reservation.hash, Role::Command)? else { continue };
            let Some(ended) = self.proof(&identity, &reservation)? else { continue };
            if is_free(reservation.port)? {
                return Ok(Some(Stale { reservation, launch, identity, ended }));
            }
        }
        Ok(None)
    }

    /// Returns the recorded proof that nothing of a service runs, or the one of a new scan; `None` if something runs.
    fn proof(&self, identity: &IdentityLock, reservation: &Reservation) -> Result<Option<TreeEnded>> {
        let before = self.run_state(&reservation.hash)?;
        if let Some(ended) = TreeEnded::recorded(identity, before.as_ref()) {
            return Ok(Some(ended));
        }
        Ok(match self.scan_orphans(identity, reservation.name(), before.as_ref())? {
            Scan::Ended(ended) => Some(ended),
            Scan::Left(_) => None,
        })
    }
}
