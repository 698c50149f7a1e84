//! Publishes a service and takes it back: the steps in their order, and how each is undone.

use std::time::Duration;

use crate::config::{CallerEnvironment, ServiceSpec};
use crate::error::{ApiProblem, Error, Result, SERVICES_PAGE, TailnetError};
use crate::identity::TailnetName;
use crate::os::clock::{self, Deadline};
use crate::registry::{Protocol, Registry, Reservation};
use crate::tailnet::api::Api;
use crate::tailnet::definition::{self, Definition, Owner};
use crate::tailnet::endpoint::{Endpoint, Serving};
use crate::tailnet::node::Node;
use crate::tailnet::program::{self, Tailscale};

/// The time limit for publishing or taking back one service.
const LIMIT: Duration = Duration::from_secs(15);
/// The time limit for undoing a publication that failed.
const UNDO_LIMIT: Duration = Duration::from_secs(10);
/// How long tailscaled may take to learn of an approval.
const APPROVAL_LIMIT: Duration = Duration::from_secs(10);
/// How long an approval by the tailnet's own policy may take. It needs no request from devport.
const AUTOMATIC_LIMIT: Duration = Duration::from_secs(2);
/// How often tailscaled is polled meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);

/// How a service is to be published.
#[derive(Debug, Clone, Default)]
pub(crate) struct PublishRequest {
    /// The name; `None` for the current one, or else its hashid.
    pub(crate) name: Option<TailnetName>,
    /// The protocol; `None` for the current one, or else HTTPS.
    pub(crate) protocol: Option<Protocol>,
}

impl PublishRequest {
    /// Returns what `devport start` requested.
    pub(crate) fn of(spec: &ServiceSpec) -> Self {
        Self { name: spec.request.tailnet_name.clone(), protocol: None }
    }
}

/// The tailnet, for the services of a registry.
#[derive(Debug)]
pub(crate) struct Tailnet<'a> {
    pub(crate) registry: &'a Registry,
    /// Has the path of the `tailscale` program and the credentials.
    pub(crate) environment: &'a CallerEnvironment,
}

impl Tailnet<'_> {
    /// Publishes a service, or repairs its publication. `notify` gets notes for the user.
    ///
    /// # Errors
    /// The step that failed. Nothing is left of a service that was not published before.
    pub(crate) fn expose(
        &self,
        reservation: &Reservation,
        request: &PublishRequest,
        notify: &mut dyn FnMut(String),
    ) -> Result<()> {
        let _lock = self.registry.acquire_tailnet()?;
        let now = self.current(reservation)?;
        let local_port = now.service_port().ok_or_else(|| TailnetError::NoPort { service: now.name().to_owned() })?;
        let name = request.name.clone().or_else(|| now.tailnet_name.clone());
        let protocol = request.protocol.unwrap_or(if now.tailnet { now.tailnet_protocol } else { Protocol::Https });
        let mut wanted = now.clone();
        (wanted.tailnet, wanted.tailnet_name, wanted.tailnet_protocol) = (true, name, protocol);
        (wanted.tailnet_pending, wanted.tailnet_undefined) = (None, now.tailnet_undefined);
        self.check_unused(&wanted)?;
        let deadline = Deadline::after(LIMIT);
        let endpoint = Endpoint { protocol, local_port };
        let program = Tailscale::find(self.environment)?;
        let node = program.node(deadline)?;
        node.check(endpoint)?;
        if let Some(suffix) = node.suffix() {
            // `devport ls` then knows the address even if tailscaled is too busy to respond.
            self.registry.keep_tailnet_suffix(suffix);
        }
        let api = Api::from_environment(self.environment, deadline)?;
        // What is served under the name may be changed if it was published under it.
        let is_renamed = now.tailnet && now.name_on_tailnet() != wanted.name_on_tailnet();
        let is_ours = now.tailnet && !is_renamed;
        // Without credentials this publication makes no definition. An earlier one may have.
        wanted.tailnet_undefined |= !is_ours;
        let mut publication = Publication {
            program,
            api,
            node,
            reservation: wanted,
            endpoint,
            deadline,
            has_defined: false,
            has_served: false,
        };
        let published = publication.publish(is_ours, notify).and_then(|()| self.record(&publication.reservation));
        match published {
            Ok(()) if is_renamed => {
                // It is already reached under the new name.
                self.withdraw_or_report(&now, notify);
                Ok(())
            }
            // It is still published as before.
            Err(error) if is_ours && now.tailnet_protocol == protocol => Err(error),
            // It is published neither as before nor as requested.
            Err(error) if is_ours && publication.has_served => {
                self.withdraw_or_report(&now, notify);
                self.record_off(&now)?;
                Err(error)
            }
            Err(error) => {
                publication.undo(notify);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes a service off the tailnet. One that is not published is not an error. `retry` is the command that finishes
    /// the job later, if there is one; `notify` gets notes for the user.
    ///
    /// # Errors
    /// The step that failed. The record says "published" until the service is off the tailnet.
    pub(crate) fn unexpose(
        &self,
        reservation: &Reservation,
        retry: Option<&str>,
        notify: &mut dyn FnMut(String),
    ) -> Result<()> {
        let _lock = self.registry.acquire_tailnet()?;
        let now = self.current(reservation)?;
        self.withdraw(&now, retry, notify)?;
        if now.tailnet { self.record_off(&now) } else { Ok(()) }
    }

    /// Takes a service off the tailnet without recording it. The caller holds the tailnet's lock.
    fn withdraw(&self, now: &Reservation, retry: Option<&str>, notify: &mut dyn FnMut(String)) -> Result<()> {
        let deadline = Deadline::after(LIMIT);
        let name = now.name_on_tailnet();
        let program = match Tailscale::find(self.environment) {
            // Without the program, nothing can have published it.
            Err(_) if !now.tailnet => return Ok(()),
            found => found?,
        };
        let endpoint = Endpoint { protocol: now.tailnet_protocol, local_port: now.port };
        if !now.tailnet && matches!(program.config(deadline)?.compare(name, endpoint), Serving::Other(_)) {
            notify(format!("kept svc:{name} on this machine: devport did not create it"));
            return Ok(());
        }
        stop_serving(&program, name, deadline)?;
        match Api::from_environment(self.environment, deadline)? {
            Some(api) => delete_definition(&api, &program.node(deadline)?, now, notify)?,
            None if now.tailnet && !now.tailnet_undefined => {
                let retry = retry.map(|retry| format!(", or set TAILSCALE_API_KEY and run `{retry}` again"));
                let retry = retry.unwrap_or_default();
                notify(format!("kept the definition of svc:{name}: delete it at {SERVICES_PAGE}{retry}"));
            }
            None => {}
        }
        Ok(())
    }

    /// Takes a service off the tailnet; only reports failures.
    fn withdraw_or_report(&self, now: &Reservation, notify: &mut dyn FnMut(String)) {
        if let Err(error) = self.withdraw(now, None, notify) {
            let name = now.name_on_tailnet();
            notify(format!("svc:{name} may be left on this machine, and its definition at {SERVICES_PAGE}: {error}"));
        }
    }

    /// Records that a service is not published.
    fn record_off(&self, now: &Reservation) -> Result<()> {
        let mut off = now.clone();
        (off.tailnet, off.tailnet_protocol, off.tailnet_undefined) = (false, Protocol::Https, false);
        self.record(&off)
    }

    /// Reads the service's current record.
    fn current(&self, reservation: &Reservation) -> Result<Reservation> {
        self.registry.find(&reservation.hash)?.ok_or_else(|| removed_meanwhile(reservation))
    }

    /// Refuses a name under which another service of this machine is published.
    fn check_unused(&self, wanted: &Reservation) -> Result<()> {
        let name = wanted.name_on_tailnet();
        let others = self.registry.list()?.reservations;
        let same = |other: &&Reservation| other.tailnet && other.hash != wanted.hash && other.name_on_tailnet() == name;
        match others.iter().find(same) {
            Some(other) => Err(name_taken(wanted, format!("{}, another service of this machine", other.name()))),
            None => Ok(()),
        }
    }

    /// Records whether and how a service is published.
    fn record(&self, published: &Reservation) -> Result<()> {
        let set = |record: &mut Reservation| {
            record.tailnet = published.tailnet;
            record.tailnet_name.clone_from(&published.tailnet_name);
            record.tailnet_protocol = published.tailnet_protocol;
            record.tailnet_undefined = published.tailnet_undefined;
            record.tailnet_pending = None;
        };
        self.registry.update(&published.hash, set)?.map(drop).ok_or_else(|| removed_meanwhile(published))
    }
}

/// Creates the error for a service that was removed meanwhile.
fn removed_meanwhile(reservation: &Reservation) -> Error {
    Error::NoSuchService { target: reservation.name().to_owned(), nearest: Vec::new() }
}

/// Creates the error for a name that belongs to something else.
fn name_taken(wanted: &Reservation, owner: String) -> Error {
    TailnetError::NameTaken { name: wanted.name_on_tailnet().to_owned(), owner, service: wanted.name().to_owned() }
        .into()
}

/// Stops serving a name on this machine. Both steps are needed: `drain` stops advertising and keeps the handlers,
/// `clear` deletes the handlers and keeps advertising.
fn stop_serving(program: &Tailscale, name: &str, deadline: Deadline) -> Result<()> {
    let drained = program.drain(name, deadline);
    program.clear(name, deadline).and(drained)
}

/// Deletes the definition of a service if devport created it here and no other machine hosts it.
fn delete_definition(api: &Api, node: &Node, now: &Reservation, notify: &mut dyn FnMut(String)) -> Result<()> {
    let name = now.name_on_tailnet();
    let Some(definition) = api.definition(name)? else { return Ok(()) };
    match definition.owner(node, now.hash.as_str()) {
        Owner::Us => {}
        Owner::OtherDevport(_) | Owner::Foreign if !now.tailnet => return Ok(()),
        Owner::OtherDevport(comment) => {
            notify(format!("kept the definition of svc:{name}: another machine created it ({comment})"));
            return Ok(());
        }
        Owner::Foreign => {
            notify(format!("kept the definition of svc:{name}: devport did not create it"));
            return Ok(());
        }
    }
    if api.hosts(name)?.iter().any(|host| host != node.id()) {
        notify(format!("kept the definition of svc:{name}: other machines host it too"));
        return Ok(());
    }
    api.delete(name)
}

/// The publication of one service, under way.
struct Publication {
    /// Serves the name on this machine.
    program: Tailscale,
    /// Defines and approves the service; `None` without credentials.
    api: Option<Api>,
    /// This machine before any change.
    node: Node,
    /// The service as it will be recorded.
    reservation: Reservation,
    endpoint: Endpoint,
    /// The time limit for all steps.
    deadline: Deadline,
    /// Whether this publication created the definition.
    has_defined: bool,
    /// Whether this publication started to serve the name.
    has_served: bool,
}

impl Publication {
    /// The name on the tailnet.
    fn name(&self) -> &str {
        self.reservation.name_on_tailnet()
    }

    /// Runs all steps. `is_ours` is whether what is served under the name was published by devport before.
    fn publish(&mut self, is_ours: bool, notify: &mut dyn FnMut(String)) -> Result<()> {
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
    fn undo(&mut self, notify: &mut dyn FnMut(String)) {
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
