//! Notes what the file of a stack says about services that `start NAME` and `restart` start from their records, alone: it
//! was edited since `up`, or they need others that do not run.

use std::path::Path;

use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::own_stack::up_line;
use crate::cli::stack::{Located, Ports};
use crate::config::StackService;
use crate::error::{Error, Result};
use crate::registry::{Reservation, State};
use crate::view::{ServiceView, Status};

/// Notes in what services of stacks differ from their files, and which services they need. Reads each file and its ports
/// once.
pub(super) fn note_edits<'a>(context: &Context, services: impl IntoIterator<Item = &'a Reservation>) {
    let mut files: Vec<(&Path, Vec<&Reservation>)> = Vec::new();
    for service in services {
        let Some(file) = service.file.as_deref().filter(|_| service.stack.is_some()) else { continue };
        match files.iter_mut().find(|(path, _)| *path == file) {
            Some((_, of_file)) => of_file.push(service),
            None => files.push((file, vec![service])),
        }
    }
    for (file, services) in files {
        note_edits_of_file(context, file, &services);
    }
}

/// Notes in what services of one file differ from it, and which services they need.
fn note_edits_of_file(context: &Context, file: &Path, services: &[&Reservation]) {
    let note_failure = |service: &Reservation, error: &Error| {
        // The first mistake in the file is enough for a note.
        let why = error.lines().into_iter().next().unwrap_or_default();
        note(&format!("could not compare {} with its file: {why}", service.name()));
    };
    let note_failures = |error: &Error| services.iter().for_each(|service| note_failure(service, error));
    let located = match Located::find(context, Some(file)) {
        Ok(located) => located,
        Err(error) => return note_failures(&error),
    };
    let ports = match located.known_ports(context) {
        Ok(ports) => ports,
        Err(error) => return note_failures(&error),
    };
    for service in services {
        let edit = describe_edit(context, service, file, &located, &ports).unwrap_or_else(|error| {
            note_failure(service, &error);
            None
        });
        edit.iter().chain(&missing(context, service, file, &located)).for_each(|text| note(text));
    }
}

/// Returns the note for a service that needs others which do not run; `None` if it needs none of them, or that is not
/// known.
fn missing(context: &Context, service: &Reservation, file: &Path, located: &Located) -> Option<String> {
    let declared = located.service_with_key(service.key.as_ref()?).ok()??;
    let needed = located.stack.order(std::slice::from_ref(&declared.name), false).ok()?.services;
    let is_missing = |other: &&&StackService| {
        let view = located.record(context, other).ok().flatten().map(|record| context.view(&record));
        let is_there = |view: ServiceView| view.status == Status::Running || view.state == State::Completed;
        other.name != declared.name && !view.is_some_and(is_there)
    };
    let names: Vec<&str> = needed.iter().filter(is_missing).map(|other| other.name.as_str()).collect();
    let (verb, them) = if names.len() == 1 { ("does", "it") } else { ("do", "them") };
    (!names.is_empty()).then(|| {
        let (name, needed, up) = (service.name(), names.join(" and "), up_line(context, file, &[&declared.name]));
        format!("{name} needs {needed}, which {verb} not run; `{up}` starts {them} first")
    })
}

/// Returns the note for a service that differs from its file; `None` if it does not.
///
/// # Errors
/// If what the file declares cannot be resolved, such as a missing dotenv file.
fn describe_edit(
    context: &Context,
    service: &Reservation,
    file: &Path,
    located: &Located,
    ports: &Ports<'_>,
) -> Result<Option<String>> {
    let (name, path) = (service.name(), file);
    let file = path.display();
    let declared = service.key.as_ref().map_or(Ok(None), |key| located.service_with_key(key))?;
    let Some(declared) = declared else {
        return Ok(Some(format!("{file} no longer has {name}; `devport rm {}` removes it", shell_words::quote(name))));
    };
    let spec = located.spec(context, declared, ports)?;
    let differences = context.launcher().compare(&spec)?.differences;
    Ok((!differences.is_empty()).then(|| {
        let differences: Vec<&str> = differences.iter().map(|difference| difference.now.as_str()).collect();
        let differences = differences.join(" and ");
        let up = up_line(context, path, &[&declared.name]);
        format!("{name} still has {differences}; `{up}` applies the changes of {file}")
    }))
}
