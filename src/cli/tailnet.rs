//! `devport tailup` and `devport taildown`: publish a service on the tailnet, and take it back.

use crate::cli::args::{Tailup, Target};
use crate::cli::context::{Context, note, report_with};
use crate::error::Result;
use crate::identity::TailnetName;
use crate::registry::{Protocol, Reservation};
use crate::tailnet::PublishRequest;

/// Executes `devport tailup`.
///
/// # Errors
/// What stands in the way; nothing is published then that was not before.
pub(super) fn up(context: &mut Context, arguments: Tailup) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let protocol = match (arguments.https, arguments.http, arguments.tcp) {
        (true, _, _) => Some(Protocol::Https),
        (_, true, _) => Some(Protocol::Http),
        (_, _, true) => Some(Protocol::Tcp),
        _ => None,
    };
    let wish = PublishRequest { name: arguments.tailnet_name.map(TailnetName::new).transpose()?, protocol };
    context.registry.prepare()?;
    context.tailnet().expose(&reservation, &wish, &mut |text| note(text))?;
    context.print_views(&[context.view(&reservation)], false)
}

/// Executes `devport taildown`.
///
/// # Errors
/// What stands in the way.
pub(super) fn down(context: &mut Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    context.registry.prepare()?;
    context.tailnet().unexpose(&reservation, &mut |text| note(text))?;
    context.print_views(&[context.view(&reservation)], false)
}

/// Publishes a service that runs and shall be on the tailnet. What stands in the way is told, and is no failure.
pub(super) fn expose_started(context: &Context, reservation: &Reservation, wish: &PublishRequest) {
    if let Err(error) = context.tailnet().expose(reservation, wish, &mut |text| note(text)) {
        let service = reservation.name();
        let retry = format!("devport tailup {}", shell_words::quote(service));
        report_with(&format!("{service} runs here, but is not on the tailnet"), &error, Some(&retry));
    }
}

/// Takes a service that is being removed off the tailnet. What stands in the way is told, with what may be left.
pub(super) fn unexpose_removed(context: &Context, reservation: &Reservation) {
    if !reservation.tailnet {
        return;
    }
    if let Err(error) = context.tailnet().unexpose(reservation, &mut |text| note(text)) {
        let name = reservation.name_on_tailnet();
        report_with(&format!("{} is removed, but may still be on the tailnet", reservation.name()), &error, None);
        note(format!(
            "what may be left: svc:{name} on this machine (`tailscale serve drain svc:{name}`, then `tailscale serve \
             clear svc:{name}`), and its definition ({})",
            crate::error::SERVICES_PAGE
        ));
    }
}
