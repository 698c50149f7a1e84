//! Ends services of a stack at the same time, but each after those that need it.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::output::report;
use crate::cli::{rm, stop};
use crate::config::Schedule;
use crate::error::Result;
use crate::launch::{Ended, Urgency};
use crate::registry::Reservation;
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
    ending: Ending,
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
                    // The receiver outlives the threads.
                    scope.spawn(move || drop(sender.send((service, end_one(context, reservation, ending)))));
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

/// Ends one service.
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
