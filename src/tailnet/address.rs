//! `Addresses`: the tailnet addresses of services, for lists.

use std::sync::OnceLock;
use std::time::Duration;

use crate::config::CallerEnvironment;
use crate::os::clock::Deadline;
use crate::registry::{Registry, Reservation};
use crate::tailnet::endpoint::Endpoint;
use crate::tailnet::program::Tailscale;

/// Time limit for tailscaled in `devport ls`: a list must not hang with it.
const LIMIT: Duration = Duration::from_millis(500);
/// Time limit of the first `start --tailnet`, which knows no earlier suffix. Publishing waits for longer.
const FIRST_LIMIT: Duration = Duration::from_secs(5);

/// The suffix of host names on the tailnet, once it was queried; the inner `None` means that it is unknown.
#[derive(Debug, Default)]
pub(crate) struct Suffix(OnceLock<Option<String>>);

/// The tailnet addresses of services. Queries tailscaled at most once, for the first published service.
#[derive(Debug)]
pub(crate) struct Addresses<'a> {
    /// Keeps the last suffix.
    registry: &'a Registry,
    /// Has the path of the `tailscale` program.
    environment: &'a CallerEnvironment,
    /// What host names end in.
    suffix: &'a Suffix,
}

impl<'a> Addresses<'a> {
    /// Creates the addresses for a registry.
    pub(crate) fn new(registry: &'a Registry, environment: &'a CallerEnvironment, suffix: &'a Suffix) -> Self {
        Self { registry, environment, suffix }
    }

    /// Returns the address of a service; `None` if it is not published or the suffix is unknown.
    pub(crate) fn of(&self, reservation: &Reservation) -> Option<String> {
        if !reservation.tailnet {
            return None;
        }
        let local_port = reservation.service_port()?;
        let suffix = self.suffix.0.get_or_init(|| self.query_suffix(LIMIT).or_else(|| self.registry.tailnet_suffix()));
        let endpoint = Endpoint { protocol: reservation.tailnet_protocol, local_port };
        Some(endpoint.url(reservation.name_on_tailnet(), suffix.as_deref()?))
    }

    /// Queries tailscaled for the suffix of host names and keeps it. If that fails, the last suffix is kept.
    pub(crate) fn learn_suffix(&self) {
        let limit = if self.registry.tailnet_suffix().is_some() { LIMIT } else { FIRST_LIMIT };
        if self.suffix.0.get().is_none()
            && let Some(suffix) = self.query_suffix(limit)
        {
            let _ = self.suffix.0.set(Some(suffix));
        }
    }

    /// Queries tailscaled and keeps the suffix for when it cannot be queried.
    fn query_suffix(&self, limit: Duration) -> Option<String> {
        let node = Tailscale::find(self.environment).ok()?.node(Deadline::after(limit)).ok()?;
        let suffix = node.suffix()?.to_owned();
        self.registry.record_tailnet_suffix(&suffix);
        Some(suffix)
    }
}
