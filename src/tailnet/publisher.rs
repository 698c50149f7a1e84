//! `Tailnet`: publishes services and takes them off the tailnet, and records that.

use std::time::Duration;

use crate::config::{CallerEnvironment, ServiceSpec};
use crate::error::{Error, Result, SERVICES_PAGE, TailnetError};
use crate::identity::TailnetName;
use crate::os::clock::Deadline;
use crate::registry::{Protocol, Registry, Reservation};
use crate::tailnet::api::Api;
use crate::tailnet::definition::Owner;
use crate::tailnet::endpoint::{Endpoint, Serving};
use crate::tailnet::node::Node;
use crate::tailnet::program::Tailscale;
use crate::tailnet::publication::{Publication, name_taken, stop_serving};

/// The time limit for publishing or taking back one service: enough for an approval, and not longer than a user waits.
const LIMIT: Duration = Duration::from_secs(15);

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
    pub(crate) fn publish(
        &self,
        reservation: &Reservation,
        request: &PublishRequest,
        notify: &mut dyn FnMut(String),
    ) -> Result<()> {
        let _lock = self.registry.acquire_tailnet()?;
        let current = self.current(reservation)?;
        let local_port =
            current.service_port().ok_or_else(|| TailnetError::NoPort { service: current.name().to_owned() })?;
        let name = request.name.clone().or_else(|| current.tailnet_name.clone());
        let protocol =
            request.protocol.unwrap_or(if current.tailnet { current.tailnet_protocol } else { Protocol::Https });
        let mut wanted = current.clone();
        (wanted.tailnet, wanted.tailnet_name, wanted.tailnet_protocol) = (true, name, protocol);
        (wanted.tailnet_pending, wanted.tailnet_undefined) = (None, current.tailnet_undefined);
        self.check_name_unused(&wanted)?;
        let deadline = Deadline::after(LIMIT);
        let endpoint = Endpoint { protocol, local_port };
        let program = Tailscale::find(self.environment)?;
        let node = program.node(deadline)?;
        node.check(endpoint)?;
        if let Some(suffix) = node.suffix() {
            // `devport ls` then knows the address even if tailscaled is too busy to respond.
            self.registry.record_tailnet_suffix(suffix);
        }
        let api = Api::from_environment(self.environment, deadline)?;
        // What is served under the name may be changed if it was published under it.
        let is_renamed = current.tailnet && current.name_on_tailnet() != wanted.name_on_tailnet();
        let is_ours = current.tailnet && !is_renamed;
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
                self.withdraw_or_report(&current, notify);
                Ok(())
            }
            // It is still published as before.
            Err(error) if is_ours && current.tailnet_protocol == protocol => Err(error),
            // It is published neither as before nor as requested.
            Err(error) if is_ours && publication.has_served => {
                self.withdraw_or_report(&current, notify);
                self.record_unpublished(&current)?;
                Err(error)
            }
            Err(error) => {
                publication.undo(notify);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes a service off the tailnet. Succeeds if it is not published. `retry` is the command to run again with
    /// credentials, if there is one; `notify` gets notes for the user.
    ///
    /// # Errors
    /// The step that failed. The record says "published" until the service is off the tailnet.
    pub(crate) fn unpublish(
        &self,
        reservation: &Reservation,
        retry: Option<&str>,
        notify: &mut dyn FnMut(String),
    ) -> Result<()> {
        let _lock = self.registry.acquire_tailnet()?;
        let current = self.current(reservation)?;
        self.withdraw(&current, retry, notify)?;
        if current.tailnet { self.record_unpublished(&current) } else { Ok(()) }
    }

    /// Takes a service off the tailnet without recording it. The caller holds the tailnet's lock.
    fn withdraw(&self, current: &Reservation, retry: Option<&str>, notify: &mut dyn FnMut(String)) -> Result<()> {
        let deadline = Deadline::after(LIMIT);
        let name = current.name_on_tailnet();
        let program = match Tailscale::find(self.environment) {
            // Without the program, nothing can have published it.
            Err(_) if !current.tailnet => return Ok(()),
            found => found?,
        };
        let endpoint = Endpoint { protocol: current.tailnet_protocol, local_port: current.port };
        if !current.tailnet && matches!(program.config(deadline)?.compare(name, endpoint), Serving::Other(_)) {
            notify(format!("kept svc:{name} on this machine: devport did not create it"));
            return Ok(());
        }
        stop_serving(&program, name, deadline)?;
        match Api::from_environment(self.environment, deadline)? {
            Some(api) => delete_definition(&api, &program.node(deadline)?, current, notify)?,
            None if current.tailnet && !current.tailnet_undefined => {
                let retry = retry.map(|retry| format!(", or set TAILSCALE_API_KEY and run `{retry}` again"));
                let retry = retry.unwrap_or_default();
                notify(format!("kept the definition of svc:{name}: delete it at {SERVICES_PAGE}{retry}"));
            }
            None => {}
        }
        Ok(())
    }

    /// Takes a service off the tailnet; only reports failures.
    fn withdraw_or_report(&self, current: &Reservation, notify: &mut dyn FnMut(String)) {
        if let Err(error) = self.withdraw(current, None, notify) {
            let name = current.name_on_tailnet();
            notify(format!("svc:{name} may be left on this machine, and its definition at {SERVICES_PAGE}: {error}"));
        }
    }

    /// Records that a service is not published.
    fn record_unpublished(&self, current: &Reservation) -> Result<()> {
        let mut off = current.clone();
        (off.tailnet, off.tailnet_protocol, off.tailnet_undefined) = (false, Protocol::Https, false);
        self.record(&off)
    }

    /// Reads the service's current record.
    fn current(&self, reservation: &Reservation) -> Result<Reservation> {
        self.registry.find(&reservation.hash)?.ok_or_else(|| removed_meanwhile(reservation))
    }

    /// Refuses a name under which another service of this machine is published.
    fn check_name_unused(&self, wanted: &Reservation) -> Result<()> {
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

/// Deletes the definition of a service if devport created it here and no other machine hosts it.
fn delete_definition(api: &Api, node: &Node, current: &Reservation, notify: &mut dyn FnMut(String)) -> Result<()> {
    let name = current.name_on_tailnet();
    let Some(definition) = api.definition(name)? else { return Ok(()) };
    match definition.owner(node, current.hash.as_str()) {
        Owner::Us => {}
        Owner::OtherDevport(_) | Owner::Foreign if !current.tailnet => return Ok(()),
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
