//! Ends services of a stack at the same time, but each after those that need it.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::output::{note, report};
use crate::cli::stack::Located;
use crate::cli::{rm, stop};
use crate::config::{Schedule, StackService};
use crate::error::{Error, Result};
use crate::launch::{Ended, Urgency};
use crate::os::parallel;
use crate::registry::{FileLock, Reservation};
use crate::view::{Outcome, ServiceView};

/// How often to check whether the user wants the services to be killed.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How services are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Their ports stay reserved.
    Stop,
    Remove,
}

/// Ends services; `None` is one that is left alone. `needs` has the positions of the services that each needs. Once
/// `wants_kill` returns true, all are killed at once. Reports each failure. Returns the views of the others, each after
/// those that need it.
pub(super) fn end_all(
    context: &Context,
    services: &[Option<Reservation>],
    needs: &[Vec<usize>],
    ending: &(dyn Fn(&Reservation) -> Ending + Sync),
    wants_kill: &mut dyn FnMut() -> bool,
) -> Vec<ServiceView> {
    let mut schedule = Schedule::reversed(needs);
    let mut views: Vec<Option<ServiceView>> = vec![None; services.len()];
    let (sender, ended) = mpsc::channel();
    thread::scope(|scope| {
        let mut is_killing = false;
        while !schedule.is_over() {
            let mut next = schedule.begin();
            while let Some(service) = next.pop() {
                if let Some(reservation) = &services[service] {
                    let sender = sender.clone();
                    scope.spawn(move || {
                        let result = parallel::catch(|| end_one(context, reservation, ending(reservation)))
                            .unwrap_or_else(|error| Err(Error::system("end the service")(error)));
                        // The receiver outlives the threads.
                        drop(sender.send((service, result)));
                    });
                } else {
                    schedule.complete(service);
                    next.extend(schedule.begin());
                }
            }
            if let Ok((service, result)) = ended.recv_timeout(POLL_INTERVAL) {
                schedule.complete(service);
                match result {
                    Ok(view) => views[service] = Some(view),
                    Err(error) => report(services[service].as_ref().map_or("a service", Reservation::name), &error),
                }
            }
            if !is_killing && wants_kill() {
                is_killing = true;
                for reservation in services.iter().flatten() {
                    // The thread that ends the service in order reports the outcome.
                    scope.spawn(move || drop(stop::stop(context, reservation, Urgency::Kill)));
                }
            }
        }
    });
    views.into_iter().rev().flatten().collect()
}

/// Spares the shared services that running services of other checkouts need: replaces them by `None`, and notes each.
/// Returns the lock under which no other checkout starts a service that needs one; `None` if there is no shared service.
///
/// # Errors
/// If the records cannot be read, or the lock cannot be taken.
pub(super) fn spare_shared(
    context: &Context,
    located: &Located,
    services: &[&StackService],
    reservations: &mut [Option<Reservation>],
) -> Result<Option<FileLock>> {
    if !services.iter().any(|service| service.shared) {
        return Ok(None);
    }
    let lock = located.lock_shared(context)?;
    let others = context.registry.list()?.reservations;
    for (service, slot) in services.iter().zip(reservations).filter(|(service, _)| service.shared) {
        let user = others.iter().find(|other| is_user(context, located, service, other));
        if let (Some(reservation), Some(user)) = (slot.as_ref(), user) {
            note(&format!("{} stays: {} needs it", reservation.name(), user.name()));
            *slot = None;
        }
    }
    Ok(Some(lock))
}

/// Returns whether a service runs in another checkout and needs a shared one, directly or through others, such as a
/// one-shot that has completed. One that this checkout's file does not have may need it too.
fn is_user(context: &Context, located: &Located, shared: &StackService, other: &Reservation) -> bool {
    let needs = |name: &str| match located.stack.order(&[name.to_owned()], false) {
        Ok(order) => order.services.iter().any(|service| service.name == shared.name),
        Err(_) => true,
    };
    !other.shared
        && located.service_elsewhere(other).is_some_and(needs)
        && context.registry.liveness(&other.hash).is_held()
}

/// Ends one service in order, and returns its view.
fn end_one(context: &Context, reservation: &Reservation, ending: Ending) -> Result<ServiceView> {
    if ending == Ending::Remove {
        return rm::remove(context, reservation);
    }
    let outcome = match stop::stop(context, reservation, Urgency::Graceful)? {
        Ended::Nothing => Outcome::NotRunning,
        _ => Outcome::Stopped,
    };
    Ok(context.view(reservation).with(outcome))
}
