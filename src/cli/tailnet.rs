//! `devport tailup` and `devport taildown`: publication on the tailnet, which is not built yet.

use crate::cli::args::Target;
use crate::cli::context::{Context, note};
use crate::error::{Error, Result};
use crate::registry::Reservation;

/// Executes `devport tailup`.
///
/// # Errors
/// [`Error::TailnetNotBuilt`].
pub(super) fn up(context: &mut Context, arguments: &Target) -> Result<()> {
    context.resolve(&arguments.target)?;
    Err(Error::TailnetNotBuilt)
}

/// Executes `devport taildown`.
///
/// # Errors
/// [`Error::TailnetNotBuilt`].
pub(super) fn down(context: &mut Context, arguments: &Target) -> Result<()> {
    context.resolve(&arguments.target)?;
    Err(Error::TailnetNotBuilt)
}

/// Says that a service which asked for it is not published.
pub(super) fn warn_not_built(reservation: &Reservation) {
    note(format!("{} runs here, but {}; the wish is stored", reservation.name(), Error::TailnetNotBuilt));
}
