//! `devport signal`: sends a signal to a service.

use crate::cli::args::Signal;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::error::{Error, Result};
use crate::launch;
use crate::os::process::Delivery;
use crate::os::signal;

/// Executes `devport signal`.
///
/// # Errors
/// If there is no such signal or service, or the service does not run.
pub(super) fn execute(context: &Context, arguments: &Signal) -> Result<()> {
    let signal =
        signal::parse(&arguments.signal).ok_or_else(|| Error::InvalidSignal { name: arguments.signal.clone() })?;
    let reservation = context.resolve(&arguments.target)?;
    context.registry.check_owner()?;
    let not_running = || Error::NotRunning { service: reservation.name().to_owned() };
    let supervisor = launch::supervisor(&context.registry, &reservation)?.ok_or_else(not_running)?;
    // The supervisor relays the signals that it catches. Others would hit the supervisor itself, so they go to the
    // child's process group.
    if signal::NOT_RELAYED.contains(&signal) {
        launch::kill_group(&reservation, context.registry.run_state(&reservation.hash)?.as_ref(), signal)?;
    } else if supervisor.signal(signal).map_err(Error::system(format!("signal {supervisor}")))? == Delivery::Gone {
        return Err(not_running());
    }
    note(&format!("sent {} to {}", signal::name(signal), reservation.name()));
    context.output.print_views(&[context.view(&reservation)], false)
}
