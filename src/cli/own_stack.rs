//! How a service is started that this checkout's file declares and that was not started yet. Reads the file, so it is
//! only for errors and notes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::context::Context;
use crate::cli::stack::Located;
use crate::config::{StackService, nearest_file};
use crate::error::Error;
use crate::identity::{Key, ServiceHash};
use crate::registry::Reservation;

/// A service that the nearest file declares.
struct Declared {
    /// Its name in the file.
    name: String,
    /// Its key in this checkout; `None` for an entry of a list without a key.
    key: Option<Key>,
    file: PathBuf,
    has_command: bool,
}

/// What the file of a stack says about a registered service.
pub(super) enum Entry {
    /// It has a command.
    Startable,
    PortOnly,
    /// The file no longer has the service.
    Removed,
    /// The file cannot be read.
    Unknown,
}

/// Adds to an error how services are started that the nearest file declares. If this checkout has the service that was not
/// found, and its record cannot be used, that is the error.
pub(super) fn explain(context: &Context, error: Error) -> Error {
    match error {
        // A registration that was refused has a state and its own hint: `up` does not replace it.
        Error::KeyElsewhere { key, owner, state: None, here, hint } => {
            let name = key.rsplit('/').next().unwrap_or(&key);
            // The keys of a list are the same in all checkouts.
            let is_own = |own: &Declared| own.has_command && own.key.as_ref().is_some_and(|own| own.as_str() != key);
            let own = declared_here(context, name);
            if let Some(error) = own.as_ref().and_then(|own| own.unusable_record(context)) {
                return error;
            }
            let hint =
                own.filter(is_own).map_or(hint, |own| format!("`{}` starts this checkout's own", own.up_line(context)));
            Error::KeyElsewhere { key, owner, state: None, here, hint }
        }
        Error::NoSuchService { ref target, .. } | Error::PrefixTooShort { ref target, .. } => {
            never_started(context, target).unwrap_or(error)
        }
        Error::NoCommand { service, hint } => {
            let reserved = context.resolve(&service).ok();
            let hint = reserved.and_then(|reserved| start_hint(context, &reserved)).unwrap_or(hint);
            Error::NoCommand { service, hint }
        }
        Error::NoServicesHere { checkout, verb, .. } => {
            let file = context.place().and_then(|place| nearest_file(&place));
            Error::NoServicesHere { checkout, verb, up: file.map(|file| up_line(context, &file, &[])) }
        }
        error => error,
    }
}

/// Returns the error for a target that is no registered service, and that the nearest file declares; `None` if that file
/// does not have it either. If it is registered and its record cannot be used, that is the error.
pub(super) fn never_started(context: &Context, target: &str) -> Option<Error> {
    let declared = declared_here(context, target)?;
    if let Some(error) = declared.unusable_record(context) {
        return Some(error);
    }
    let command = declared.up_line(context);
    let service = declared.key.map_or(declared.name, |key| key.to_string());
    Some(Error::NeverStarted { service, file: declared.file, command })
}

/// Returns what the file of a stack says about a registered service, and the command line that starts the service once the
/// file has a command for it; `None` if it belongs to no stack.
pub(super) fn entry(context: &Context, registered: &Reservation) -> Option<(Entry, String)> {
    let (key, file) = (registered.key.as_ref()?, registered.file.as_deref().filter(|_| registered.stack.is_some())?);
    let entry = Located::find_to_stop(context, Some(file)).ok().map_or(Entry::Unknown, |located| {
        match located.service_with_key(key).ok().flatten().map(StackService::is_port_only) {
            Some(false) => Entry::Startable,
            Some(true) => Entry::PortOnly,
            None => Entry::Removed,
        }
    });
    Some((entry, up_line(context, file, &[key.name_in_stack()])))
}

/// Returns what to do so that a reserved port of a stack has a service, as a hint; `None` if it belongs to no stack. Only
/// its file can give it a command.
pub(super) fn start_hint(context: &Context, reserved: &Reservation) -> Option<String> {
    let (entry, up) = entry(context, reserved)?;
    let (name, file) = (reserved.key.as_ref()?.name_in_stack(), reserved.file.as_deref()?.display());
    Some(match entry {
        Entry::Startable => format!("start it with `{up}`"),
        Entry::Removed => format!("{file} no longer has {name}: add it with `exec`, then run `{up}`"),
        Entry::PortOnly | Entry::Unknown => format!("add `exec` to {name} in {file}, then run `{up}`"),
    })
}

/// Returns the command lines that start all services of the files of these services, one for each file.
pub(super) fn up_lines<'a>(context: &Context, services: impl IntoIterator<Item = &'a Reservation>) -> Vec<String> {
    let files: BTreeSet<&Path> = services.into_iter().filter_map(|service| service.file.as_deref()).collect();
    files.into_iter().map(|file| format!("`{}`", up_line(context, file, &[]))).collect()
}

/// Returns the command line that starts these services of a file, or all if there are no names, as it can be typed in the
/// directory of the user's shell: `up` finds the nearest file without `-f`.
pub(super) fn up_line(context: &Context, file: &Path, names: &[&str]) -> String {
    let mut line = String::from("devport up -d");
    if context.place_of_shell().and_then(|place| nearest_file(&place)).is_none_or(|nearest| nearest != file) {
        let _ = write!(line, " -f {}", shell_words::quote(&file.to_string_lossy()));
    }
    for name in names {
        let _ = write!(line, " {}", shell_words::quote(name));
    }
    line
}

/// Returns the service of the nearest file that a target names by its name or its key; `None` if there is none.
fn declared_here(context: &Context, target: &str) -> Option<Declared> {
    // `up` says what else is wrong with the file.
    let located = Located::find_to_stop(context, None).ok()?;
    let keys = located.stack.services.iter().filter_map(|service| Some((service, located.key(service).ok()?)));
    let is_named = |(service, key): &(&StackService, Option<Key>)| {
        service.name == target || key.as_ref().is_some_and(|key| key.as_str() == target)
    };
    let (service, key) = keys.into_iter().find(is_named)?;
    let (name, has_command) = (service.name.clone(), !service.is_port_only());
    Some(Declared { name, key, file: located.file().to_owned(), has_command })
}

impl Declared {
    /// Returns the command that starts it, as it can be typed in the current directory.
    fn up_line(&self, context: &Context) -> String {
        up_line(context, &self.file, &[&self.name])
    }

    /// Returns why its record cannot be used; `None` if it can, or there is none.
    fn unusable_record(&self, context: &Context) -> Option<Error> {
        context.registry.find(&ServiceHash::of_key(self.key.as_ref()?)).err()
    }
}
