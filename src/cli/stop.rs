//! `devport stop`: end services; their ports stay reserved.

use crate::cli::args::Stop;
use crate::cli::context::{Chosen, Context, note, report};
use crate::error::{Error, Result};
use crate::launch::{self, Ended, Urgency};
use crate::registry::Reservation;
use crate::view::Outcome;

/// Executes `devport stop`.
///
/// # Errors
/// If a target names no service, or one does not end in time.
pub(super) fn execute(context: &mut Context, arguments: &Stop) -> Result<()> {
    let several = arguments.all || arguments.targets.len() > 1;
    let urgency = if arguments.kill { Urgency::Kill } else { Urgency::Graceful };
    let Chosen { services, unusable } =
        if arguments.all { context.all()? } else { context.resolve_all(&arguments.targets)? };
    let mut views = Vec::new();
    let mut first_failure = None;
    let mut failed = unusable;
    for reservation in &services {
        match stop_one(context, reservation, urgency) {
            Ok(Ended::Nothing) if arguments.all => {}
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
    if !views.is_empty() || several {
        context.print_views(&views, several)?;
    }
    match first_failure {
        Some(error) if !several => Err(error),
        _ if failed > 0 => Err(Error::SomeFailed { failed, total: services.len() + unusable }),
        _ => Ok(()),
    }
}

/// Ends one service; says so if only processes without a supervisor were there to be ended.
fn stop_one(context: &Context, reservation: &Reservation, urgency: Urgency) -> Result<Ended> {
    let ended = launch::stop(&context.registry, reservation, urgency)?;
    if ended == Ended::Orphans {
        note(format!("{}: its supervisor had been killed; what it left was ended", reservation.name()));
    }
    Ok(ended)
}
