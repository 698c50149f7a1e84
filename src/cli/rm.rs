//! `devport rm`: stops services, deletes their files and frees their ports.

use crate::cli::args::Rm;
use crate::cli::context::{Chosen, Context};
use crate::cli::output::{note, report};
use crate::cli::tailnet;
use crate::error::{Error, Result};
use crate::launch;
use crate::registry::Reservation;
use crate::view::{Outcome, ServiceView};

/// Executes `devport rm`. Prints the removed services as JSON; a table of them would say no more than the notes.
///
/// # Errors
/// If a target names no service, or a service could not be removed.
pub(super) fn execute(context: &Context, arguments: &Rm) -> Result<()> {
    let Chosen { services, unusable } = context.resolve_all(&arguments.targets)?;
    let several = arguments.targets.len() > 1;
    let (mut removed, mut failed) = (Vec::new(), unusable);
    for reservation in &services {
        match remove(context, reservation) {
            Ok(view) => removed.push(view),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &error);
            }
        }
    }
    if !context.output.wants_table() {
        context.output.print_views(&removed, several)?;
    }
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: services.len() + unusable });
    }
    Ok(())
}

/// Removes one service. Holds both of its locks, so that no other process starts it meanwhile. Returns its last view.
pub(super) fn remove(context: &Context, reservation: &Reservation) -> Result<ServiceView> {
    let (launch, reservation) = context.launcher().lock(reservation)?;
    let cleared = launch::stop_and_hold(&context.registry, &reservation)?;
    let view = context.view(&reservation).with(Outcome::Removed);
    tailnet::unpublish_removed(context, &reservation);
    context.registry.remove(launch, cleared.identity, &cleared.ended)?;
    match reservation.port {
        0 => note(&format!("removed {}", reservation.name())),
        port => note(&format!("removed {}; port {port} is free", reservation.name())),
    }
    Ok(view)
}
