//! `Publication`: the steps by which a service is published, in their order, and how each is undone.

use std::time::Duration;

use crate::error::{ApiProblem, Error, Result, SERVICES_PAGE, TailnetError};
use crate::os::clock::{self, Deadline};
use crate::registry::Reservation;
use crate::tailnet::api::Api;
use crate::tailnet::definition::{self, Definition, Owner};
use crate::tailnet::endpoint::{Endpoint, Serving};
use crate::tailnet::node::Node;
use crate::tailnet::program::{self, Tailscale};

/// The time limit for undoing a publication that failed: it needs no approval.
const UNDO_LIMIT: Duration = Duration::from_secs(10);
/// How long tailscaled may take to learn of an approval, which the API sends to it within seconds.
const APPROVAL_LIMIT: Duration = Duration::from_secs(10);
/// How long an approval by the tailnet's own policy may take. It needs no request from devport.
const AUTOMATIC_LIMIT: Duration = Duration::from_secs(2);
/// The time between polls of tailscaled meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);

/// The publication of one service, under way.
pub(super) struct Publication {
    /// Serves the name on this machine.
    pub(super) program: Tailscale,
    /// Defines and approves the service; `None` without credentials.
    pub(super) api: Option<Api>,
    /// This machine before any change.
    pub(super) node: Node,
    /// The service as it will be recorded.
    pub(super) reservation: Reservation,
    pub(super) endpoint: Endpoint,
    /// The time limit for all steps.
    pub(super) deadline: Deadline,
    /// Whether this publication created the definition.
    pub(super) has_defined: bool,
    /// Whether this publication started to serve the name.
    pub(super) has_served: bool,
}

impl Publication {
    /// The name on the tailnet.
    fn name(&self) -> &str {
        self.reservation.name_on_tailnet()
    }

    /// Runs all steps. `is_ours` is whether what is served under the name was published by devport before.
    pub(super) fn publish(&mut self, is_ours: bool, notify: &mut dyn FnMut(String)) -> Result<()> {
        let served = self.program.config(self.deadline)?.compare(self.name(), self.endpoint);
        match &served {
            Serving::Other(target) if !is_ours => {
                let owner = format!("another program on this machine, which serves {target} under it");
                return Err(name_taken(&self.reservation, owner));
            }
            _ => {}
        }
        if let Some(is_owner) = self.define()? {
            self.reservation.tailnet_undefined = !is_owner;
        }
        // tailscaled refuses another protocol on a port that is being served.
        if matches!(served, Serving::Other(_) | Serving::OtherWay) {
            self.has_served = true;
            self.program.clear(self.name(), self.deadline)?;
        }
        self.serve()?;
        self.approve(notify)
    }

    /// Makes sure that the tailnet has a definition of the service with the right port. Returns whether devport owns the
    /// definition; `None` without credentials.
    fn define(&mut self) -> Result<Option<bool>> {
        let Some(api) = &self.api else { return Ok(None) };
        let name = self.reservation.name_on_tailnet();
        let hash = self.reservation.hash.as_str();
        let Some(mut existing) = api.definition(name)? else {
            let new = Definition::new(name, self.endpoint, &definition::comment(&self.node, hash));
            match api.define(name, &new) {
                Ok(()) => {
                    self.has_defined = true;
                    return Ok(Some(true));
                }
                // Another machine may have created it in the meantime.
                Err(error) => match api.definition(name) {
                    Ok(Some(existing)) => return self.adopt(api, &existing).map(Some),
                    _ => return Err(error),
                },
            }
        };
        // Between reading and updating, the name may have changed owner. After a conflict it is read once more.
        for _ in 0..2 {
            match self.adopt(api, &existing) {
                Err(Error::Tailnet(TailnetError::Api { problem: ApiProblem::Conflict(_), .. })) => {
                    existing = api.definition(name)?.unwrap_or(existing);
                }
                done => return done.map(Some),
            }
        }
        self.adopt(api, &existing).map(Some)
    }

    /// Uses an existing definition, unless it belongs to something else. Returns whether devport owns it.
    fn adopt(&self, api: &Api, existing: &Definition) -> Result<bool> {
        match existing.owner(&self.node, self.reservation.hash.as_str()) {
            Owner::Us if existing.declares_only(self.endpoint) => Ok(true),
            Owner::Us => api.define(self.name(), &existing.with_port(self.endpoint)).map(|()| true),
            Owner::Foreign if existing.declares(self.endpoint) => Ok(false),
            Owner::Foreign => {
                let ports: Vec<&str> = existing.ports().collect();
                let owner = format!("a definition that devport did not create, with {} only", ports.join(", "));
                Err(name_taken(&self.reservation, owner))
            }
            Owner::OtherDevport(comment) => Err(name_taken(&self.reservation, format!("a service {comment}"))),
        }
    }

    /// Serves the name on this machine, and checks the result.
    fn serve(&mut self) -> Result<()> {
        self.has_served = true;
        let message = self.program.serve(self.name(), self.endpoint, self.deadline)?;
        match self.program.config(self.deadline)?.compare(self.name(), self.endpoint) {
            Serving::Exactly => Ok(()),
            _ => Err(program::not_enabled(&message)
                .unwrap_or_else(|| TailnetError::NotServed {
                    name: self.name().to_owned(),
                    message: program::first_words(&message),
                })
                .into()),
        }
    }

    /// Gets this machine approved as a host of the service.
    fn approve(&self, notify: &mut dyn FnMut(String)) -> Result<()> {
        let Some(api) = &self.api else {
            // No waiting: only the tailnet's policy could approve it, and no result depends on that.
            if !self.is_approved() {
                notify(self.admin_needed());
            }
            return Ok(());
        };
        if self.is_approved() {
            return Ok(());
        }
        let refused = match api.approve(self.name(), self.node.id()) {
            Ok(()) => None,
            // The tailnet's policy may approve the machine even if this key may not.
            Err(error @ Error::Tailnet(TailnetError::Api { problem: ApiProblem::Forbidden(_), .. })) => Some(error),
            Err(error) => return Err(error),
        };
        let limit = if refused.is_some() { AUTOMATIC_LIMIT } else { APPROVAL_LIMIT };
        if self.is_approved_within(limit) {
            return Ok(());
        }
        Err(refused.unwrap_or_else(|| {
            TailnetError::NotApproved { name: self.name().to_owned(), waited_s: limit.as_secs() }.into()
        }))
    }

    /// Polls tailscaled until it knows that this machine is approved, or the limit passes.
    fn is_approved_within(&self, limit: Duration) -> bool {
        clock::poll(INTERVAL, limit.min(self.deadline.remaining()), || self.is_approved().then_some(())).is_some()
    }

    /// Returns whether tailscaled knows that this machine is approved.
    fn is_approved(&self) -> bool {
        self.program.node(self.deadline).is_ok_and(|node| node.is_approved_for(self.name()))
    }

    /// Returns what an administrator has to do if devport has no key.
    fn admin_needed(&self) -> String {
        format!(
            "svc:{name} is served, but no API key is set: an admin must define it with port {port} and approve {host} \
             for it at {SERVICES_PAGE}, unless it is defined and the tailnet's policy approves it",
            name = self.name(),
            port = self.endpoint.declared(),
            host = self.node.host_name(),
        )
    }

    /// Undoes the steps that were done, and reports what cannot be undone.
    pub(super) fn undo(&mut self, notify: &mut dyn FnMut(String)) {
        let deadline = Deadline::after(UNDO_LIMIT);
        let name = self.name().to_owned();
        if self.has_served
            && let Err(error) = stop_serving(&self.program, &name, deadline)
        {
            notify(format!(
                "svc:{name} may still be served here ({error}): `tailscale serve drain svc:{name}` and `tailscale \
                 serve clear svc:{name}` end that"
            ));
        }
        if self.has_defined
            && let Some(api) = &mut self.api
        {
            api.deadline = deadline;
            if let Err(error) = api.delete(&name) {
                notify(format!("the definition of svc:{name} is left on the tailnet ({error}): {SERVICES_PAGE}"));
            }
        }
    }
}

/// Creates the error for a name that belongs to something else.
pub(super) fn name_taken(wanted: &Reservation, owner: String) -> Error {
    TailnetError::NameTaken { name: wanted.name_on_tailnet().to_owned(), owner, service: wanted.name().to_owned() }
        .into()
}

/// Stops serving a name on this machine. Both steps are needed: `drain` stops advertising and keeps the handlers,
/// `clear` deletes the handlers and keeps advertising.
pub(super) fn stop_serving(program: &Tailscale, name: &str, deadline: Deadline) -> Result<()> {
    let drained = program.drain(name, deadline);
    program.clear(name, deadline).and(drained)
}
