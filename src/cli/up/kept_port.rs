//! Notes which services keep their ports although the file requests others, and how to move them.

use crate::cli::context::Context;
use crate::cli::output::{note, note_with_hint};
use crate::cli::own_stack::up_line;
use crate::cli::stack::Located;
use crate::config::StackService;
use crate::error::Result;
use crate::registry::Reservation;

/// Notes which of these services keep their ports although the file requests others: the port of a service never changes.
///
/// # Errors
/// If the records cannot be read.
pub(super) fn note_kept_ports(context: &Context, located: &Located, services: &[&StackService]) -> Result<()> {
    for service in services {
        // The plan has the error of a record that cannot be used.
        let Ok(Some((kept, requested))) = located.kept_port(context, service) else { continue };
        let (name, port) = (&service.name, kept.port);
        let text = format!("{name} keeps port {port}, although the file has port {requested}: ports never change");
        let others = context.registry.list()?.reservations;
        match others.iter().find(|other| other.port == requested) {
            Some(other) => note(&format!("{text}, and port {requested} is reserved for {}", other.name())),
            None => note_with_hint(&text, Some(&remedy(context, located, service, &kept))),
        }
    }
    Ok(())
}

/// Returns how to give a service the port of the file.
fn remedy(context: &Context, located: &Located, service: &StackService, kept: &Reservation) -> String {
    let rm = shell_words::quote(kept.global_name());
    let up = up_line(context, located.file(), Some(&service.name));
    format!("`devport rm {rm} && {up}` moves it; `rm` also deletes its log")
}
