//! `devport stop`: end services; their ports stay reserved.

use crate::cli::args::Stop;
use crate::cli::context::{Context, note, report};
use crate::error::{Error, Result};
use crate::launch::{self, Ended};
use crate::registry::Reservation;

/// Executes `devport stop`.
///
/// # Errors
/// If a target names no service, or one does not end in time.
pub(super) fn execute(context: &mut Context, arguments: &Stop) -> Result<()> {
    let several = arguments.all || arguments.targets.len() > 1;
    let reservations =
        if arguments.all { context.registry.list()?.reservations } else { context.resolve_all(&arguments.targets)? };
    let mut views = Vec::new();
    let mut first_failure = None;
    let mut failed = 0;
    for reservation in &reservations {
        match stop_one(context, reservation) {
            Ok(Ended::Nothing) if arguments.all => {}
            Ok(_) => views.push(context.view(reservation)?),
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
        Some(_) if several => Err(Error::SomeFailed { failed, total: reservations.len() }),
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Ends one service; says so if only leftovers of it were there to be ended.
fn stop_one(context: &Context, reservation: &Reservation) -> Result<Ended> {
    let ended = launch::stop(&context.registry, reservation)?;
    if ended == Ended::Leftovers {
        note(format!("{}: its supervisor had been killed; what it left was ended", reservation.name()));
    }
    Ok(ended)
}
