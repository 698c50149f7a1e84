//! `devport rm`: stops services, deletes their files and frees their ports.

use crate::cli::args::Rm;
use crate::cli::context::{Chosen, Context};
use crate::cli::output::{note, report};
use crate::cli::tailnet;
use crate::error::{Error, Result};
use crate::launch;
use crate::project::Presence;
use crate::registry::{FileLock, Reservation};
use crate::view::{Outcome, ServiceView};

/// Executes `devport rm`. Prints the removed services as JSON; a table of them would say no more than the notes.
///
/// # Errors
/// If a target names no service, or a service could not be removed.
pub(super) fn execute(context: &Context, arguments: &Rm) -> Result<()> {
    let several = arguments.gone || arguments.targets.len() > 1;
    let Chosen { services, unusable } =
        if arguments.gone { lost(context)? } else { context.resolve_all(&arguments.targets)? };
    if services.is_empty() && unusable == 0 {
        note("no service has lost its checkout");
    }
    let (mut removed, mut failed) = (Vec::new(), unusable);
    for reservation in &services {
        let result =
            if arguments.gone { remove_lost(context, reservation) } else { remove(context, reservation).map(Some) };
        match result {
            Ok(view) => removed.extend(view),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &error);
            }
        }
    }
    if !context.output.wants_table() {
        context.output.print_views(&removed, several)?;
    }
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: services.len() + unusable });
    }
    Ok(())
}

/// Returns the services of the machine whose checkout was deleted. Those that cannot be checked are reported and counted.
/// Notes which services stay although their checkout is not there: it was created again, or may come back.
fn lost(context: &Context) -> Result<Chosen> {
    let Chosen { services, mut unusable } = context.all()?;
    let (overview, mut lost) = (context.overview(), Vec::new());
    for reservation in services {
        let name = shell_words::quote(reservation.global_name());
        match reservation.presence() {
            Ok(Presence::Missing) => lost.push(reservation),
            Ok(Presence::Away) => note(&format!(
                "{} stays: its worktree is locked, or on a volume that is not mounted; `devport rm {name}` removes it",
                reservation.name()
            )),
            Ok(_) if overview.view(reservation.clone()).gone => note(&format!(
                "{} stays: its checkout was created again; `devport start {name}` starts it there",
                reservation.name()
            )),
            Ok(_) => {}
            Err(error) => {
                report(reservation.name(), &error);
                unusable += 1;
            }
        }
    }
    Ok(Chosen { services: lost, unusable })
}

/// Removes one service. Holds both of its locks, so that no other process starts it meanwhile. Returns its last view.
pub(super) fn remove(context: &Context, reservation: &Reservation) -> Result<ServiceView> {
    let (launch, reservation) = context.launcher().lock(reservation)?;
    remove_locked(context, launch, &reservation)
}

/// Removes one service that had lost its checkout; `None` if that was created again meanwhile.
fn remove_lost(context: &Context, reservation: &Reservation) -> Result<Option<ServiceView>> {
    let (launch, reservation) = context.launcher().lock(reservation)?;
    if !reservation.has_lost_checkout()? {
        note(&format!("{} stays: its checkout was created again", reservation.name()));
        return Ok(None);
    }
    remove_locked(context, launch, &reservation).map(Some)
}

fn remove_locked(context: &Context, launch: FileLock, reservation: &Reservation) -> Result<ServiceView> {
    let cleared = launch::stop_and_hold(&context.registry, reservation)?;
    let view = context.view(reservation).with(Outcome::Removed);
    tailnet::unpublish_removed(context, reservation);
    context.registry.remove(launch, cleared.identity, &cleared.ended)?;
    match reservation.port {
        0 => note(&format!("removed {}", reservation.name())),
        port => note(&format!("removed {}; port {port} is free", reservation.name())),
    }
    Ok(view)
}
