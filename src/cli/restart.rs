//! `devport restart`: end services and start them again as they were registered.

use crate::cli::args::Restart;
use crate::cli::context::{Context, report};
use crate::cli::start::{Manner, start_registered, wait_if_asked};
use crate::error::{Error, Result};

/// Executes `devport restart`.
///
/// # Errors
/// If a target names no service, or one could not be restarted.
pub(super) fn execute(context: &mut Context, arguments: &Restart) -> Result<()> {
    let reservations = context.resolve_all(&arguments.targets)?;
    let several = arguments.targets.len() > 1;
    let manner = Manner { detach: arguments.detach, replace: true };
    let (mut started, mut failed) = (Vec::new(), 0);
    for reservation in &reservations {
        match start_registered(context, reservation, manner) {
            Ok(()) => started.push(reservation.clone()),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &error);
            }
        }
    }
    let waited = wait_if_asked(context, &started, arguments.wait);
    let views = started.iter().map(|reservation| context.view(reservation)).collect::<Result<Vec<_>>>()?;
    context.print_views(&views, several)?;
    waited?;
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: reservations.len() });
    }
    Ok(())
}
