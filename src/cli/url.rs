//! `devport url`: prints the address of a service, for scripts.

use crate::cli::args::Target;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::own_stack::{Entry, entry};
use crate::error::{Error, Result};
use crate::registry::{Reservation, State};
use crate::view::Status;

/// Executes `devport url`.
///
/// # Errors
/// If the target names no service, or one without a port.
pub(super) fn execute(context: &Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    context.output.print_fact("url", &address(context, &reservation)?.into())
}

/// Returns the address of a service: on the tailnet if it is published there, else on this machine. Notes that a service
/// is not running, or why it is not ready.
///
/// # Errors
/// [`Error::NoPort`] if the service has no port, or [`Error::CheckoutGone`] if it runs in a checkout that is gone.
pub(super) fn address(context: &Context, reservation: &Reservation) -> Result<String> {
    let without_port = || Error::NoPort { service: reservation.name().to_owned() };
    // Check the port first: the view may query tailscaled.
    reservation.service_port().ok_or_else(without_port)?;
    let view = context.view(reservation);
    if view.gone && view.status == Status::Running {
        return Err(reservation.checkout_gone());
    }
    let name = reservation.name();
    match (view.state, &view.error) {
        (State::Running | State::Unhealthy, Some(error)) => {
            note(&format!("{name} is {}: {error}", view.state.as_str()));
        }
        // A program that devport does not run may use a reserved port.
        _ if reservation.cmd.is_empty() => {
            if let Some((Entry::Startable, up)) = entry(context, reservation) {
                note(&format!("{name} was never started; `{up}` starts it"));
            }
        }
        (state, error) if !state.is_up() => {
            let why = error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
            note(&format!("{name} does not run (state {}){why}", state.as_str()));
        }
        _ => {}
    }
    view.url.ok_or_else(without_port)
}
