//! Exposing a service and taking it back: the steps in their order, and the way back from each.

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

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long taking back what was begun may take.
const UNDO_LIMIT: Duration = Duration::from_secs(10);
/// How long the daemon may take to hear of an approval.
const APPROVAL_LIMIT: Duration = Duration::from_secs(10);
/// How long an approval that nobody asked for may take: the tailnet's policy may approve by itself.
const AUTOMATIC_LIMIT: Duration = Duration::from_secs(2);
/// How often the daemon is asked meanwhile.
const INTERVAL: Duration = Duration::from_millis(100);

/// How a service shall be published.
#[derive(Debug, Clone, Default)]
pub(crate) struct PublishRequest {
    /// Under which name; `None`: as before, or its hashid.
    pub(crate) name: Option<TailnetName>,
    /// How it is reached; `None`: as it is now, or by HTTPS.
    pub(crate) protocol: Option<Protocol>,
}

impl PublishRequest {
    /// What was asked for when the service was started.
    pub(crate) fn of(spec: &ServiceSpec) -> Self {
        Self { name: spec.tailnet_name.clone(), protocol: None }
    }
}

/// The tailnet, for the services of a registry.
#[derive(Debug)]
pub(crate) struct Tailnet<'a> {
    pub(crate) registry: &'a Registry,
    /// Where the `tailscale` program and the credentials are.
    pub(crate) environment: &'a CallerEnvironment,
}

impl Tailnet<'_> {
    /// Publishes a service; what is published already is put right. `notice` gets notes for the user.
    ///
    /// # Errors
    /// What stands in the way. Nothing is left of a service that was not published before.
    pub(crate) fn expose(
        &self,
        reservation: &Reservation,
        wish: &PublishRequest,
        notice: &mut dyn FnMut(String),
    ) -> Result<()> {
        let _lock = self.registry.acquire_tailnet(notice)?;
        let now = self.current(reservation)?;
        let local_port = now.service_port().ok_or_else(|| TailnetError::NoPort { service: now.name().to_owned() })?;
        let name = wish.name.clone().or_else(|| now.tailnet_name.clone());
        let protocol = wish.protocol.unwrap_or(if now.tailnet { now.tailnet_protocol } else { Protocol::Https });
        let mut wanted = now.clone();
        (wanted.tailnet, wanted.tailnet_name, wanted.tailnet_protocol) = (true, name, protocol);
        self.check_unused(&wanted)?;
        let deadline = Deadline::after(LIMIT);
        let endpoint = Endpoint { protocol, local_port };
        let program = Tailscale::find(self.environment)?;
        let node = program.node(deadline)?;
        node.check(endpoint)?;
        if let Some(suffix) = node.suffix() {
            // Addresses are known from now on, also when the daemon is too busy to be asked.
            self.registry.keep_tailnet_suffix(suffix);
        }
        let api = Api::from_environment(self.environment, deadline)?;
        // What is served under the name is ours to change if it was published under it.
        let renamed = now.tailnet && now.name_on_tailnet() != wanted.name_on_tailnet();
        let ours = now.tailnet && !renamed;
        let mut publication =
            Publication { program, api, node, reservation: wanted, endpoint, deadline, defined: false, touched: false };
        let done = publication.publish(ours, notice).and_then(|()| self.record(&publication.reservation, notice));
        match done {
            Ok(()) if renamed => {
                // It is reached under the new name already.
                self.take_away_or_tell(&now, notice);
                Ok(())
            }
            // It still is what it was.
            Err(error) if ours && now.tailnet_protocol == protocol => Err(error),
            // It is neither what it was nor what it shall be.
            Err(error) if ours && publication.touched => {
                self.take_away_or_tell(&now, notice);
                self.record_off(&now, notice)?;
                Err(error)
            }
            Err(error) => {
                publication.undo(notice);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes a service off the tailnet; one that is not on it is fine. `notice` gets notes for the user.
    ///
    /// # Errors
    /// What stands in the way. The record says that it is published until it is not.
    pub(crate) fn unexpose(&self, reservation: &Reservation, notice: &mut dyn FnMut(String)) -> Result<()> {
        let _lock = self.registry.acquire_tailnet(notice)?;
        let now = self.current(reservation)?;
        self.take_away(&now, notice)?;
        if now.tailnet { self.record_off(&now, notice) } else { Ok(()) }
    }

    /// Takes a service off the tailnet, and records nothing. The caller holds the tailnet's lock.
    fn take_away(&self, now: &Reservation, notice: &mut dyn FnMut(String)) -> Result<()> {
        let deadline = Deadline::after(LIMIT);
        let name = now.name_on_tailnet();
        let program = match Tailscale::find(self.environment) {
            // There is nothing that could have published it.
            Err(_) if !now.tailnet => return Ok(()),
            found => found?,
        };
        let endpoint = Endpoint { protocol: now.tailnet_protocol, local_port: now.port };
        if !now.tailnet && matches!(program.config(deadline)?.compare(name, endpoint), Serving::Other(_)) {
            notice(format!("svc:{name} on this machine is not devport's, and stays"));
            return Ok(());
        }
        withdraw(&program, name, deadline)?;
        match Api::from_environment(self.environment, deadline)? {
            Some(api) => delete_definition(&api, &program.node(deadline)?, now, notice)?,
            None if now.tailnet => notice(format!(
                "the definition of svc:{name} stays on the tailnet: {SERVICES_PAGE}, or set TAILSCALE_API_KEY and run \
                 `devport taildown {}` again",
                now.name()
            )),
            None => {}
        }
        Ok(())
    }

    /// Takes a service off the tailnet; what stands in the way is only told.
    fn take_away_or_tell(&self, now: &Reservation, notice: &mut dyn FnMut(String)) {
        if let Err(error) = self.take_away(now, notice) {
            let name = now.name_on_tailnet();
            notice(format!("svc:{name} may be left on this machine, and its definition at {SERVICES_PAGE}: {error}"));
        }
    }

    /// Writes down that a service is not published.
    fn record_off(&self, now: &Reservation, notice: &mut dyn FnMut(String)) -> Result<()> {
        let mut off = now.clone();
        (off.tailnet, off.tailnet_protocol) = (false, Protocol::Https);
        self.record(&off, notice)
    }

    /// The service as it is registered now.
    fn current(&self, reservation: &Reservation) -> Result<Reservation> {
        self.registry.find(&reservation.hash)?.ok_or_else(|| gone(reservation))
    }

    /// Refuses a name under which another service of this machine is published.
    fn check_unused(&self, wanted: &Reservation) -> Result<()> {
        let name = wanted.name_on_tailnet();
        let others = self.registry.list()?.reservations;
        let same = |other: &&Reservation| other.tailnet && other.hash != wanted.hash && other.name_on_tailnet() == name;
        match others.iter().find(same) {
            Some(other) => Err(taken(wanted, format!("{}, another service of this machine", other.name()))),
            None => Ok(()),
        }
    }

    /// Writes down whether and how a service is published.
    fn record(&self, published: &Reservation, notice: &mut dyn FnMut(String)) -> Result<()> {
        let set = |record: &mut Reservation| {
            record.tailnet = published.tailnet;
            record.tailnet_name.clone_from(&published.tailnet_name);
            record.tailnet_protocol = published.tailnet_protocol;
        };
        self.registry.update(&published.hash, notice, set)?.map(drop).ok_or_else(|| gone(published))
    }
}

/// A service that was removed meanwhile.
fn gone(reservation: &Reservation) -> Error {
    Error::NoSuchService { target: reservation.name().to_owned(), nearest: Vec::new() }
}

/// A name that belongs to something else.
fn taken(wanted: &Reservation, owner: String) -> Error {
    TailnetError::NameTaken { name: wanted.name_on_tailnet().to_owned(), owner, service: wanted.name().to_owned() }
        .into()
}

/// Stops offering a name on this machine. Both steps are needed: each leaves what the other takes away.
fn withdraw(program: &Tailscale, name: &str, deadline: Deadline) -> Result<()> {
    let drained = program.drain(name, deadline);
    program.clear(name, deadline).and(drained)
}

/// Deletes the definition of a service if devport made it here and no other machine offers it.
fn delete_definition(api: &Api, node: &Node, now: &Reservation, notice: &mut dyn FnMut(String)) -> Result<()> {
    let name = now.name_on_tailnet();
    let Some(definition) = api.definition(name)? else { return Ok(()) };
    match definition.maker(node, now.hash.as_str()) {
        Owner::Us => {}
        Owner::OtherDevport(_) | Owner::Somebody if !now.tailnet => return Ok(()),
        Owner::OtherDevport(comment) => {
            notice(format!("the definition of svc:{name} stays: it is not of this machine ({comment})"));
            return Ok(());
        }
        Owner::Somebody => {
            notice(format!("the definition of svc:{name} stays: devport did not make it"));
            return Ok(());
        }
    }
    if api.hosts(name)?.iter().any(|host| host != node.id()) {
        notice(format!("the definition of svc:{name} stays: other machines offer it too"));
        return Ok(());
    }
    api.delete(name)
}

/// One service on its way to the tailnet.
struct Publication {
    /// What serves it here.
    program: Tailscale,
    /// What defines and approves it; `None` without credentials.
    api: Option<Api>,
    /// This machine, before anything was done.
    node: Node,
    /// The service, as it shall be recorded.
    reservation: Reservation,
    /// How it shall be reached.
    endpoint: Endpoint,
    /// When all must be done.
    deadline: Deadline,
    /// Whether we made its definition just now.
    defined: bool,
    /// Whether the daemon was told to serve it just now.
    touched: bool,
}

impl Publication {
    /// Its name on the tailnet.
    fn name(&self) -> &str {
        self.reservation.name_on_tailnet()
    }

    /// Does all that makes the service answer on the tailnet. `ours`: what is served under the name is what was
    /// published before.
    fn publish(&mut self, ours: bool, notice: &mut dyn FnMut(String)) -> Result<()> {
        let served = self.program.config(self.deadline)?.compare(self.name(), self.endpoint);
        match &served {
            Serving::Other(target) if !ours => {
                let owner = format!("something else on this machine, which serves {target} there");
                return Err(taken(&self.reservation, owner));
            }
            _ => {}
        }
        self.define()?;
        // One port cannot change what it speaks while it is served.
        if matches!(served, Serving::Other(_) | Serving::OtherWay) {
            self.touched = true;
            self.program.clear(self.name(), self.deadline)?;
        }
        self.serve()?;
        self.approve(notice)
    }

    /// Sees to it that the tailnet knows the service, with the right port.
    fn define(&mut self) -> Result<()> {
        let Some(api) = &self.api else { return Ok(()) };
        let name = self.reservation.name_on_tailnet();
        let hash = self.reservation.hash.as_str();
        let Some(mut there) = api.definition(name)? else {
            let new = Definition::new(name, self.endpoint, &definition::comment(&self.node, hash));
            match api.define(name, &new) {
                Ok(()) => {
                    self.defined = true;
                    return Ok(());
                }
                // Somebody may have been faster.
                Err(error) => match api.definition(name) {
                    Ok(Some(there)) => return self.adopt(&there),
                    _ => return Err(error),
                },
            }
        };
        // A name that was ours a moment ago may be somebody else's by the time of the update: look once more
        // after a conflict.
        for _ in 0..2 {
            match self.adopt(&there) {
                Err(Error::Tailnet(TailnetError::Api { problem: ApiProblem::Conflict(_), .. })) => {
                    there = api.definition(name)?.unwrap_or(there);
                }
                done => return done,
            }
        }
        self.adopt(&there)
    }

    /// Uses a definition that is there, if it is ours to use.
    fn adopt(&self, there: &Definition) -> Result<()> {
        let Some(api) = &self.api else { return Ok(()) };
        match there.maker(&self.node, self.reservation.hash.as_str()) {
            Owner::Us if there.declares_only(self.endpoint) => Ok(()),
            Owner::Us => api.define(self.name(), &there.with_port(self.endpoint)),
            Owner::Somebody if there.declares(self.endpoint) => Ok(()),
            Owner::Somebody => {
                let ports: Vec<&str> = there.ports().collect();
                let owner = format!("a definition that devport did not make, with {} only", ports.join(", "));
                Err(taken(&self.reservation, owner))
            }
            Owner::OtherDevport(comment) => Err(taken(&self.reservation, format!("a service {comment}"))),
        }
    }

    /// Serves it on this machine, and looks whether that is so.
    fn serve(&mut self) -> Result<()> {
        self.touched = true;
        let said = self.program.serve(self.name(), self.endpoint, self.deadline)?;
        match self.program.config(self.deadline)?.compare(self.name(), self.endpoint) {
            Serving::Exactly => Ok(()),
            _ => Err(program::not_enabled(&said)
                .unwrap_or_else(|| TailnetError::NotServed {
                    name: self.name().to_owned(),
                    message: program::first_words(&said),
                })
                .into()),
        }
    }

    /// Gets this machine approved as a host of the service.
    fn approve(&self, notice: &mut dyn FnMut(String)) -> Result<()> {
        let Some(api) = &self.api else {
            if !self.is_approved_within(AUTOMATIC_LIMIT) {
                notice(self.admin_needed());
            }
            return Ok(());
        };
        if self.is_approved_within(Duration::ZERO) {
            return Ok(());
        }
        let refused = match api.approve(self.name(), self.node.id()) {
            Ok(()) => None,
            // The tailnet's policy may approve by itself what this key may not.
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

    /// Whether the daemon knows, or soon knows, that this machine is approved.
    fn is_approved_within(&self, limit: Duration) -> bool {
        let approved = || self.program.node(self.deadline).ok().filter(|node| node.is_approved_for(self.name()));
        clock::poll(INTERVAL, limit.min(self.deadline.remaining()), approved).is_some()
    }

    /// What an administrator has to do where we have no key to do it with.
    fn admin_needed(&self) -> String {
        format!(
            "svc:{name} is served, but no API key is set: an admin must define it with port {port} (unless it is) and \
             approve {host} for it at {SERVICES_PAGE}",
            name = self.name(),
            port = self.endpoint.declared(),
            host = self.node.host_name(),
        )
    }

    /// Takes back what was done. What cannot be is said.
    fn undo(&mut self, notice: &mut dyn FnMut(String)) {
        let deadline = Deadline::after(UNDO_LIMIT);
        let name = self.name().to_owned();
        if self.touched
            && let Err(error) = withdraw(&self.program, &name, deadline)
        {
            notice(format!(
                "svc:{name} may still be served here ({error}): `tailscale serve drain svc:{name}` and `tailscale \
                 serve clear svc:{name}` end that"
            ));
        }
        if self.defined
            && let Some(api) = &mut self.api
        {
            api.deadline = deadline;
            if let Err(error) = api.delete(&name) {
                notice(format!("the definition of svc:{name} is left on the tailnet ({error}): {SERVICES_PAGE}"));
            }
        }
    }
}
