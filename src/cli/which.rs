//! `devport which`: shows one service in detail.

use crate::cli::args::Which;
use crate::cli::context::Context;
use crate::error::Result;

/// Executes `devport which`.
///
/// # Errors
/// If the target names no service.
pub(super) fn execute(context: &Context, arguments: &Which) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let mut view = context.view_if_registered(&reservation)?;
    context.overview().add_history(&mut view);
    context.output.print_details(&view)
}
