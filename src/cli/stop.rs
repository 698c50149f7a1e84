//! `devport stop`: stops services. Their ports stay reserved.

use crate::cli::args::Stop;
use crate::cli::context::{Chosen, Context};
use crate::cli::output::{note, report};
use crate::error::{Error, Result};
use crate::launch::{self, Ended, Urgency};
use crate::registry::Reservation;
use crate::view::Outcome;

/// Executes `devport stop`.
///
/// # Errors
/// If a target names no service, this checkout has none, or a service does not end in time.
pub(super) fn execute(context: &Context, arguments: &Stop) -> Result<()> {
    let are_named = !arguments.targets.is_empty();
    let several = arguments.targets.len() != 1;
    let urgency = if arguments.kill { Urgency::Kill } else { Urgency::Graceful };
    let Chosen { services, unusable } = context.choose("stop", &arguments.targets, arguments.all)?;
    let mut views = Vec::new();
    let mut first_failure = None;
    let mut failed = unusable;
    for reservation in &services {
        match stop(context, reservation, urgency) {
            Ok(Ended::Nothing) if !are_named => {}
            Ok(Ended::Nothing) => views.push(context.view(reservation).with(Outcome::NotRunning)),
            Ok(_) => views.push(context.view(reservation).with(Outcome::Stopped)),
            Err(error) => {
                failed += 1;
                if several {
                    report(reservation.name(), &error);
                }
                first_failure.get_or_insert(error);
            }
        }
    }
    if views.is_empty() && failed == 0 {
        context.note_none_runs(arguments.all);
    }
    if !views.is_empty() || several {
        context.output.print_views(&views, several)?;
    }
    match first_failure {
        Some(error) if !several => Err(error),
        _ if failed > 0 => Err(Error::SomeFailed { failed, total: services.len() + unusable }),
        _ => Ok(()),
    }
}

/// Stops one service. Adds a note if only orphans of a killed supervisor were left to stop.
pub(super) fn stop(context: &Context, reservation: &Reservation, urgency: Urgency) -> Result<Ended> {
    let ended = launch::stop(&context.registry, reservation, urgency)?;
    if ended == Ended::Orphans {
        note(&format!(
            "{}: its supervisor had been killed; devport stopped the processes that were left",
            reservation.name()
        ));
    }
    Ok(ended)
}
