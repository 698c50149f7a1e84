//! `devport which`: shows one service in detail, or what listens on a port.

use crate::cli::args::Which;
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::identity::Target;
use crate::observe::{PortListener, port_listeners};
use crate::registry::Reservation;
use crate::view::{ListenerView, PortView};

/// Executes `devport which`.
///
/// # Errors
/// If the target names no service and no port on which something listens.
pub(super) fn execute(context: &Context, arguments: &Which) -> Result<()> {
    let target = Target::new(&arguments.target);
    let listeners = match target.as_port() {
        Some(port) => port_listeners(&context.registry, port, context.environment().home())?,
        None => Vec::new(),
    };
    match (context.resolve(&arguments.target), target.as_port()) {
        (Ok(reservation), _) => show(context, &reservation, listeners),
        (
            Err(error @ (Error::NoSuchService { .. } | Error::PrefixTooShort { .. } | Error::Ambiguous { .. })),
            Some(port),
        ) => show_port(context, port, listeners, error),
        (Err(error), _) => Err(error),
    }
}

/// Shows a service, and the processes that listen on the port in the target without being part of it.
fn show(context: &Context, reservation: &Reservation, listeners: Vec<PortListener>) -> Result<()> {
    let mut view = context.view_if_registered(reservation)?;
    context.overview().add_details(&mut view, reservation);
    let is_other =
        |listener: &PortListener| listener.service.as_ref().is_none_or(|service| service.hash != reservation.hash);
    view.other_listeners = listeners.into_iter().filter(is_other).map(ListenerView::from).collect();
    context.output.print_details(&view)
}

/// Shows the service that listens on a port which is not reserved for it, or else all processes that listen there.
fn show_port(context: &Context, port: u16, listeners: Vec<PortListener>, error: Error) -> Result<()> {
    let Some(first) = listeners.first() else {
        return Err(match error {
            Error::NoSuchService { nearest, .. } | Error::PrefixTooShort { nearest, .. } => {
                Error::UnusedPort { port, nearest }
            }
            error => error,
        });
    };
    let hash = |listener: &PortListener| listener.service.as_ref().map(|service| service.hash.clone());
    match first.service.clone() {
        Some(service) if listeners.iter().all(|other| hash(other).as_ref() == Some(&service.hash)) => {
            show(context, &service, listeners)
        }
        _ => context
            .output
            .print_port(&PortView { port, listeners: listeners.into_iter().map(ListenerView::from).collect() }),
    }
}
