//! `devport restart`: stops services and starts them again with their recorded command, environment and options.

use crate::cli::args::Restart;
use crate::cli::context::{Chosen, Context};
use crate::cli::output::report;
use crate::cli::{edited, missing_tmux, wait};
use crate::error::{Error, Result};
use crate::launch::{Ensured, IfRunning, LaunchMode};
use crate::registry::Reservation;
use crate::view::{Outcome, ServiceView};

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
    let (mut started, mut failed) = (Vec::new(), unusable);
    for reservation in &services {
        match context.launcher().start_registered(reservation, mode) {
            Ok(ensured) => started.push(ensured),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &error);
            }
        }
    }
    missing_tmux::note_once(context, mode, &started);
    let running: Vec<Reservation> = started.iter().map(|ensured| ensured.reservation.clone()).collect();
    edited::note_edits(context, &running);
    let waited = wait::until_ready(context, &running, arguments.wait);
    let views: Vec<ServiceView> = started.iter().map(|ensured| view(context, ensured)).collect();
    context.output.print_views(&views, several)?;
    waited?;
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: services.len() + unusable });
    }
    Ok(())
}

/// Returns the view of a service that was started. A service that ran before was restarted, not replaced: its options
/// are the same.
fn view(context: &Context, ensured: &Ensured) -> ServiceView {
    let outcome = match Outcome::from(ensured.previous) {
        Outcome::Replaced => Outcome::Restarted,
        other => other,
    };
    context.settled_view(&ensured.reservation).with(outcome)
}
