//! `devport down`: stops the services of a stack, each before those that it needs.

use crate::cli::args::Down;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::stack::Located;
use crate::cli::teardown::{Ending, end_all};
use crate::config::StackService;
use crate::error::{Error, Result};
use crate::registry::Reservation;

/// Executes `devport down`.
///
/// # Errors
/// If the file or a name is not valid, or a service does not end in time.
pub(super) fn execute(context: &Context, arguments: &Down) -> Result<()> {
    let located = Located::find(context, arguments.file.as_deref())?;
    let order = located.stack.order(&arguments.names, true)?;
    let lock = located.lock(context)?;
    let (mut services, mut needs) = (Vec::with_capacity(order.services.len()), order.needs);
    for service in &order.services {
        let registered = located.record(context, service)?;
        services.push(match (registered, user_elsewhere(context, &located, service)?) {
            (Some(reservation), Some(user)) => {
                note(&format!("{} stays: {user} needs it", reservation.name()));
                None
            }
            (registered, _) => registered,
        });
    }
    if arguments.names.is_empty() {
        services.extend(located.unlisted(context)?.into_iter().map(Some));
        needs.resize_with(services.len(), Vec::new);
    }
    let ending = if arguments.rm { Ending::Remove } else { Ending::Stop };
    let views = end_all(context, &services, &needs, ending, &mut || false);
    lock.delete()?;
    context.output.print_views(&views, true)?;
    let total = services.iter().flatten().count();
    let failed = total - views.len();
    if failed > 0 { Err(Error::SomeFailed { failed, total }) } else { Ok(()) }
}

/// Returns the key of a running service of another checkout that needs a shared service; `None` if there is none, or the
/// service is not shared.
fn user_elsewhere(context: &Context, located: &Located, service: &StackService) -> Result<Option<String>> {
    if !service.shared {
        return Ok(None);
    }
    // Through others too, such as a one-shot that has completed.
    let needs = |name: &str| {
        let order = located.stack.order(&[name.to_owned()], false);
        order.is_ok_and(|order| order.services.iter().any(|other| other.name == service.name))
    };
    let is_user = |reservation: &Reservation| {
        !reservation.shared
            && located.service_elsewhere(reservation).is_some_and(needs)
            && context.registry.liveness(&reservation.hash).is_held()
    };
    let users = context.registry.list()?.reservations;
    Ok(users.into_iter().find(is_user).map(|reservation| reservation.name().to_owned()))
}
