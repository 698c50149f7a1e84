//! `devport port`: prints the port of a service, for scripts.

use crate::cli::args::Target;
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::registry::Reservation;

/// Executes `devport port`.
///
/// # Errors
/// If the target names no service, or one without a port.
pub(super) fn execute(context: &Context, arguments: &Target) -> Result<()> {
    print(context, &context.resolve(&arguments.target)?)
}

/// Prints the port of a service.
///
/// # Errors
/// [`Error::NoPort`] if the service has none.
pub(super) fn print(context: &Context, reservation: &Reservation) -> Result<()> {
    let port = reservation.service_port().ok_or_else(|| Error::NoPort { service: reservation.name().to_owned() })?;
    context.output.print_fact("port", &port.into())
}
