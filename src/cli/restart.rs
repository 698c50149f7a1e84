//! `devport restart`: stops services and starts them again with their recorded command, environment and options.

use crate::cli::args::Restart;
use crate::cli::context::{Chosen, Context};
use crate::cli::start;
use crate::error::Result;
use crate::launch::{IfRunning, LaunchMode, Previous};
use crate::view::Outcome;

/// Executes `devport restart`.
///
/// # Errors
/// If a target names no service, this checkout has none, a service could not be restarted, or one is not ready in time.
pub(super) fn execute(context: &Context, arguments: &Restart) -> Result<()> {
    let several = arguments.targets.len() != 1;
    let Chosen { mut services, unusable } = context.choose("restart", &arguments.targets, arguments.all)?;
    if arguments.targets.is_empty() {
        context.overview().retain_meant_to_run(&mut services);
        if services.is_empty() && unusable == 0 {
            context.note_none_runs(arguments.all);
        }
    }
    let mode = LaunchMode { is_detached: arguments.no_tmux, if_running: IfRunning::Replace };
    start::start_registered(context, &Chosen { services, unusable }, several, mode, arguments.wait, outcome)
}

/// Returns what was done. A service that ran before was restarted, not replaced: its options are the same.
fn outcome(previous: Previous) -> Outcome {
    match Outcome::from(previous) {
        Outcome::Replaced => Outcome::Restarted,
        other => other,
    }
}
