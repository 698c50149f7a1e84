//! `devport rm`: end services, forget them and free their ports.

use crate::cli::args::Rm;
use crate::cli::context::{Chosen, Context, note, report};
use crate::cli::tailnet;
use crate::error::{Error, Result};
use crate::launch;
use crate::registry::Reservation;
use crate::view::{Outcome, ServiceView};

/// Executes `devport rm`. Programs get the services as they were last.
///
/// # Errors
/// If a target names no service, or one could not be removed.
pub(super) fn execute(context: &mut Context, arguments: &Rm) -> Result<()> {
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
    if !context.wants_table() {
        context.print_views(&removed, several)?;
    }
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: services.len() + unusable });
    }
    Ok(())
}

/// Removes one service. Both its locks are held, so that nobody starts it meanwhile.
fn remove(context: &mut Context, reservation: &Reservation) -> Result<ServiceView> {
    context.registry.prepare()?;
    let (launch, reservation) = context.take(reservation)?;
    let cleared = launch::stop_and_hold(&context.registry, &reservation)?;
    let view = context.view(&reservation).with(Outcome::Removed);
    tailnet::unexpose_removed(context, &reservation);
    context.registry.remove(launch, cleared.identity, &cleared.ended, &mut |text| note(text))?;
    match reservation.port {
        0 => note(format!("removed {}", reservation.name())),
        port => note(format!("removed {}; port {port} is free", reservation.name())),
    }
    Ok(view)
}
