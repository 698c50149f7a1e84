//! `devport tailup` and `devport taildown`: publish a service on the tailnet, and unpublish it.

use crate::cli::args::{Tailup, Target};
use crate::cli::context::Context;
use crate::cli::output::{note, report_with_retry};
use crate::config::ServiceSpec;
use crate::error::Result;
use crate::identity::TailnetName;
use crate::launch::{Ensured, Previous};
use crate::registry::{Protocol, Reservation};
use crate::tailnet::{PublishRequest, dev_server_advice};

/// Executes `devport tailup`.
///
/// # Errors
/// Why the service could not be published. What was published before stays so.
pub(super) fn up(context: &Context, arguments: Tailup) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let protocol = match (arguments.https, arguments.http, arguments.tcp) {
        (true, _, _) => Some(Protocol::Https),
        (_, true, _) => Some(Protocol::Http),
        (_, _, true) => Some(Protocol::Tcp),
        _ => None,
    };
    let request = PublishRequest { name: arguments.tailnet_name.map(TailnetName::new).transpose()?, protocol };
    context.registry.prepare()?;
    context.tailnet().publish(&reservation, &request, &mut |text| note(&text))?;
    note_dev_server(context, &reservation);
    context.output.print_views(&[context.view(&reservation)], false)
}

/// Executes `devport taildown`.
///
/// # Errors
/// Why the service could not be unpublished.
pub(super) fn down(context: &Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    context.registry.prepare()?;
    let retry = format!("devport taildown {}", shell_words::quote(reservation.name()));
    context.tailnet().unpublish(&reservation, Some(&retry), &mut |text| note(&text))?;
    context.output.print_views(&[context.view(&reservation)], false)
}

/// Publishes a service that was started, if its spec requests it. A failure is reported, and the start still counts as a
/// success: the service runs on this machine.
pub(super) fn publish_started(context: &Context, spec: &ServiceSpec, ensured: &Ensured) {
    let reservation = &ensured.reservation;
    if !spec.request.tailnet || (ensured.previous == Previous::StillRunning && is_published(spec, reservation)) {
        return;
    }
    let request = PublishRequest::of(spec);
    match context.tailnet().publish(reservation, &request, &mut |text| note(&text)) {
        Ok(()) => note_dev_server(context, reservation),
        Err(error) => {
            let service = reservation.name();
            let retry = format!("devport tailup {}", shell_words::quote(service));
            report_with_retry(&format!("{service} is not published on the tailnet"), &error, Some(&retry));
        }
    }
}

/// Notes what a published dev server needs to accept its name on the tailnet.
fn note_dev_server(context: &Context, reservation: &Reservation) {
    if let Some(advice) = dev_server_advice(&context.registry, reservation) {
        note(&advice);
    }
}

/// Returns whether a service is published under the name that a spec requests.
fn is_published(spec: &ServiceSpec, reservation: &Reservation) -> bool {
    let has_name = |name: &TailnetName| name.as_str() == reservation.name_on_tailnet();
    reservation.tailnet && spec.request.tailnet_name.as_ref().is_none_or(has_name)
}

/// Unpublishes a service that is being removed. A failure is reported, with the names of what may be left.
pub(super) fn unpublish_removed(context: &Context, reservation: &Reservation) {
    if !reservation.tailnet {
        return;
    }
    if let Err(error) = context.tailnet().unpublish(reservation, None, &mut |text| note(&text)) {
        let name = reservation.name_on_tailnet();
        let what = format!("removed {}, which may still be on the tailnet", reservation.name());
        report_with_retry(&what, &error, None);
        note(&format!(
            "svc:{name} may be left on this machine (remove it with `tailscale serve drain svc:{name}` and `tailscale serve \
             clear svc:{name}`), and its definition at {}",
            crate::error::SERVICES_PAGE
        ));
    }
}
