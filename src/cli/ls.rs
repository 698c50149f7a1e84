//! `devport ls`: list services.

use crate::cli::args::Ls;
use crate::cli::context::{Context, report};
use crate::error::Result;
use crate::view::Status;

/// Executes `devport ls`. A record that cannot be used is named on standard error, and the rest is listed.
///
/// # Errors
/// If the state directory cannot be read.
pub(super) fn execute(context: &mut Context, arguments: &Ls) -> Result<()> {
    let (mut views, unusable) = context.overview().all()?;
    if arguments.active {
        views.retain(|view| view.status == Status::Running);
    }
    views.sort_by(|a, b| (a.port.unwrap_or(u16::MAX), &a.hash).cmp(&(b.port.unwrap_or(u16::MAX), &b.hash)));
    for error in unusable {
        report("ls", &error);
    }
    context.print_views(&views, true)
}
