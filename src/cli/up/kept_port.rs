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
    // The plan has the error of a record that cannot be used.
    let kept = services.iter().filter_map(|service| Some((service, located.kept_port(context, service).ok()??)));
    let kept: Vec<_> = kept.collect();
    let others = if kept.is_empty() { Vec::new() } else { context.registry.list()?.reservations };
    for (service, (record, requested)) in kept {
        let (name, port) = (&service.name, record.port);
        let text = format!("{name} keeps port {port}, although the file has port {requested}: ports never change");
        match others.iter().find(|other| other.port == requested) {
            Some(other) => note(&format!("{text}, and port {requested} is reserved for {}", other.name())),
            None => note_with_hint(&text, Some(&remedy(context, located, service, &record))),
        }
    }
    Ok(())
}

/// Returns how to give a service the port of the file. In a stack, other services know the port and start again.
fn remedy(context: &Context, located: &Located, service: &StackService, kept: &Reservation) -> String {
    let rm = shell_words::quote(kept.global_name());
    let names = if located.is_list() { &[service.name.as_str()][..] } else { &[] };
    let up = up_line(context, located.file(), names);
    format!("`devport rm {rm} && {up}` moves it; `rm` also deletes its log")
}
