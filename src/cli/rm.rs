//! `devport rm`: end services, forget them and free their ports.

use crate::cli::args::Rm;
use crate::cli::context::{Context, note, report};
use crate::cli::tailnet;
use crate::error::{Error, Result};
use crate::launch;
use crate::os::process::ProcessIdentity;
use crate::registry::{Acquired, Reservation};

/// Executes `devport rm`.
///
/// # Errors
/// If a target names no service, or one could not be removed.
pub(super) fn execute(context: &mut Context, arguments: &Rm) -> Result<()> {
    let reservations = context.resolve_all(&arguments.targets)?;
    let mut failed = 0;
    for reservation in &reservations {
        if let Err(error) = remove(context, reservation) {
            if reservations.len() == 1 {
                return Err(error);
            }
            failed += 1;
            report(reservation.name(), &error);
        }
    }
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: reservations.len() });
    }
    Ok(())
}

/// Removes one service. Both its locks are held, so that nobody starts it meanwhile.
fn remove(context: &mut Context, reservation: &Reservation) -> Result<()> {
    context.registry.prepare()?;
    let registry = &context.registry;
    let launch = registry.acquire_launch(&reservation.hash, reservation.name(), &mut |text| note(text))?;
    launch::stop(registry, reservation)?;
    let me = ProcessIdentity::current().map_err(Error::system("identify this process"))?;
    let identity = match registry.acquire_identity(&reservation.hash, &me)? {
        Acquired::Lock(identity) => identity,
        Acquired::Held(holder) => {
            let why = holder.map_or_else(
                || "its lock was taken meanwhile".into(),
                |holder| format!("{holder} took its lock meanwhile"),
            );
            return Err(Error::UnknownSupervisor { service: reservation.name().to_owned(), why });
        }
    };
    tailnet::unexpose_removed(context, reservation);
    registry.remove(&reservation.hash, launch, identity, &mut |text| note(text))?;
    match reservation.port {
        0 => note(format!("removed {}", reservation.name())),
        port => note(format!("removed {}; port {port} is free", reservation.name())),
    }
    Ok(())
}
