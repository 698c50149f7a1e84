//! `devport restart`: end services and start them again as they were registered.

use crate::cli::args::Restart;
use crate::cli::context::{Chosen, Context, report};
use crate::cli::start::{LaunchMode, start_registered, wait_if_asked};
use crate::error::{Error, Result};
use crate::view::Outcome;

/// Executes `devport restart`.
///
/// # Errors
/// If a target names no service, or one could not be restarted.
pub(super) fn execute(context: &mut Context, arguments: &Restart) -> Result<()> {
    let Chosen { services, unusable } = context.resolve_all(&arguments.targets)?;
    let several = arguments.targets.len() > 1;
    let manner = LaunchMode { detach: arguments.detach, replace: true };
    let (mut started, mut failed) = (Vec::new(), unusable);
    for reservation in &services {
        match start_registered(context, reservation, manner) {
            Ok(done) => started.push(done),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &error);
            }
        }
    }
    let running: Vec<_> = started.iter().map(|(reservation, _)| reservation.clone()).collect();
    let waited = wait_if_asked(context, &running, arguments.wait);
    let outcome = |outcome| if outcome == Outcome::Replaced { Outcome::Restarted } else { outcome };
    let views: Vec<_> =
        started.iter().map(|(reservation, done)| context.view(reservation).with(outcome(*done))).collect();
    context.print_views(&views, several)?;
    waited?;
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: services.len() + unusable });
    }
    Ok(())
}
