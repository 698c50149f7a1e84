//! `devport down`: stops the services of a stack, each before those that it needs.

use crate::cli::args::Down;
use crate::cli::context::Context;
use crate::cli::stack::Located;
use crate::cli::teardown::{Ending, end_all, spare_shared};
use crate::error::{Error, Result};
use crate::registry::Reservation;

/// Executes `devport down`.
///
/// # Errors
/// If the file or a name is not valid, or a service does not end in time.
pub(super) fn execute(context: &Context, arguments: &Down) -> Result<()> {
    let located = Located::find_to_stop(context, arguments.file.as_deref())?;
    let order = located.order(&arguments.names, true)?;
    let lock = located.lock(context)?;
    let mut services = Vec::with_capacity(order.services.len());
    for service in &order.services {
        services.push(located.record(context, service)?);
    }
    let shared_lock = spare_shared(context, &located, &order.services, &mut services)?;
    let mut needs = order.needs;
    if arguments.names.is_empty() {
        services.extend(located.unlisted(context)?.into_iter().map(Some));
        needs.resize_with(services.len(), Vec::new);
    }
    // A shared service belongs to the main checkout, with its log and its port. `shared` is not in its record until a
    // linked checkout has started it, so compare the key.
    let is_own =
        |service: &Reservation| service.key.as_ref().is_some_and(|key| located.service_of(key.as_str()).is_some());
    let removes = |service: &Reservation| arguments.rm && (located.is_main() || is_own(service));
    let ending = |service: &Reservation| if removes(service) { Ending::Remove } else { Ending::Stop };
    let views = end_all(context, &services, &needs, &ending, &mut || false);
    drop(shared_lock);
    lock.delete()?;
    context.output.print_views(&views, true)?;
    let total = services.iter().flatten().count();
    let failed = total - views.len();
    if failed > 0 { Err(Error::SomeFailed { failed, total }) } else { Ok(()) }
}
