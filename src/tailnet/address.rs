//! `Addresses`: where services are on the tailnet, for lists.

use std::sync::OnceLock;
use std::time::Duration;

use crate::config::CallerEnvironment;
use crate::os::clock::Deadline;
use crate::registry::{Registry, Reservation};
use crate::tailnet::endpoint::Endpoint;
use crate::tailnet::program::Tailscale;

/// How long a list waits for the tailscale daemon.
const LIMIT: Duration = Duration::from_millis(500);

/// What host names on the tailnet end in, once somebody asked; `None` inside: nobody knows.
#[derive(Debug, Default)]
pub(crate) struct Suffix(OnceLock<Option<String>>);

/// Where services are on the tailnet. The daemon is asked once, when the first published service is looked at.
#[derive(Debug)]
pub(crate) struct Addresses<'a> {
    /// What keeps the last answer.
    registry: &'a Registry,
    /// Where the `tailscale` program is.
    environment: &'a CallerEnvironment,
    /// What host names end in.
    suffix: &'a Suffix,
}

impl<'a> Addresses<'a> {
    /// Addresses of services of a registry.
    pub(crate) fn new(registry: &'a Registry, environment: &'a CallerEnvironment, suffix: &'a Suffix) -> Self {
        Self { registry, environment, suffix }
    }

    /// The address of a service; `None` if it is not published, or nobody knows the tailnet's suffix.
    pub(crate) fn of(&self, reservation: &Reservation) -> Option<String> {
        if !reservation.tailnet {
            return None;
        }
        let local_port = reservation.service_port()?;
        let suffix = self.suffix.0.get_or_init(|| self.ask().or_else(|| self.registry.tailnet_suffix()));
        let endpoint = Endpoint { protocol: reservation.tailnet_protocol, local_port };
        Some(endpoint.url(reservation.name_on_tailnet(), suffix.as_deref()?))
    }

    /// Asks the daemon, and keeps the answer for when it cannot be asked.
    fn ask(&self) -> Option<String> {
        let node = Tailscale::find(self.environment).ok()?.node(Deadline::after(LIMIT)).ok()?;
        let suffix = node.suffix()?.to_owned();
        self.registry.keep_tailnet_suffix(&suffix);
        Some(suffix)
    }
}
