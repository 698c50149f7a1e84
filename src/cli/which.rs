//! `devport which`: show one service.

use crate::cli::args::Which;
use crate::cli::context::Context;
use crate::error::Result;

/// Executes `devport which`.
///
/// # Errors
/// If the target names no service.
pub(super) fn execute(context: &mut Context, arguments: &Which) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let mut view = context.view_if_registered(&reservation)?;
    context.overview().add_story(&mut view);
    context.print_details(&view)
}
