//! `devport down`: stops the services of a stack, each before those that it needs.

use crate::cli::args::Down;
use crate::cli::context::Context;
use crate::cli::output::{note, report};
use crate::cli::stack::Located;
use crate::cli::{rm, stop};
use crate::config::StackService;
use crate::error::{Error, Result};
use crate::launch::{Ended, Urgency};
use crate::registry::Reservation;
use crate::view::{Outcome, ServiceView};

/// Executes `devport down`.
///
/// # Errors
/// If the file or a name is not valid, or a service does not end in time.
pub(super) fn execute(context: &Context, arguments: &Down) -> Result<()> {
    let located = Located::find(context, arguments.file.as_deref())?;
    let layers = located.stack.layers(&arguments.names, true)?;
    let mut services = Vec::new();
    if arguments.names.is_empty() {
        services.extend(unlisted(context, &located)?);
    }
    for service in layers.iter().rev().flatten() {
        let Some(reservation) = located.record(context, service)? else { continue };
        match user_elsewhere(context, &located, service)? {
            Some(user) => note(&format!("{} stays: {user} needs it", reservation.name())),
            None => services.push(reservation),
        }
    }
    let total = services.len();
    let mut views = Vec::with_capacity(total);
    let mut failed = 0;
    for reservation in &services {
        match end(context, reservation, arguments.rm) {
            Ok(view) => views.push(view),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &error);
            }
        }
    }
    context.output.print_views(&views, true)?;
    if failed > 0 { Err(Error::SomeFailed { failed, total }) } else { Ok(()) }
}

/// Stops a service, and removes it if the user wishes.
fn end(context: &Context, reservation: &Reservation, removes: bool) -> Result<ServiceView> {
    if removes {
        return rm::remove(context, reservation);
    }
    let outcome = match stop::stop(context, reservation, Urgency::Graceful)? {
        Ended::Nothing => Outcome::NotRunning,
        _ => Outcome::Stopped,
    };
    Ok(context.view(reservation).with(outcome))
}

/// Returns the services of the stack in this checkout that its file no longer has.
fn unlisted(context: &Context, located: &Located) -> Result<Vec<Reservation>> {
    let is_unlisted = |reservation: &Reservation| {
        let name = reservation.key.as_ref().and_then(|key| located.service_of(key.as_str()));
        name.is_some_and(|name| located.stack.services.iter().all(|service| service.name != name))
    };
    Ok(context.registry.list()?.reservations.into_iter().filter(is_unlisted).collect())
}

/// Returns the key of a running service of another checkout that needs a shared service; `None` if there is none, or the
/// service is not shared.
fn user_elsewhere(context: &Context, located: &Located, service: &StackService) -> Result<Option<String>> {
    if !service.shared {
        return Ok(None);
    }
    let needs = |name: &str| {
        located.stack.services.iter().any(|other| other.name == name && other.depends_on.contains(&service.name))
    };
    let is_user = |reservation: &Reservation| {
        let name = reservation.key.as_ref().and_then(|key| located.service_elsewhere(key.as_str()));
        name.is_some_and(needs) && context.registry.liveness(&reservation.hash).is_held()
    };
    let users = context.registry.list()?.reservations;
    Ok(users.into_iter().find(is_user).map(|reservation| reservation.name().to_owned()))
}
