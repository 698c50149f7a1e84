//! `TreeEnded`: the proof that no process of a service is left.
//!
//! Only a scan under the service's identity lock makes it, so no other process can start the service meanwhile.
//! Recording an end, deleting a record and starting a successor require the proof.

use crate::identity::ServiceHash;
use crate::registry::lock::IdentityLock;
use crate::registry::run_state::RunState;

/// The proof that no process of a service is left, for as long as its identity lock is held.
#[derive(Debug)]
pub(crate) struct TreeEnded {
    hash: ServiceHash,
}

impl TreeEnded {
    /// Makes the proof. Only a scan under the service's identity lock that found no process may call this.
    pub(super) fn proved_by_scan(lock: &IdentityLock) -> Self {
        Self { hash: lock.hash().clone() }
    }

    /// Returns the proof that the last holder of the lock recorded; `None` if it recorded none. A service that was
    /// never supervised has no process.
    pub(crate) fn recorded(lock: &IdentityLock, before: Option<&RunState>) -> Option<Self> {
        before.is_none_or(RunState::is_final).then(|| Self { hash: lock.hash().clone() })
    }

    /// The service that has no process.
    pub(crate) fn hash(&self) -> &ServiceHash {
        &self.hash
    }
}
