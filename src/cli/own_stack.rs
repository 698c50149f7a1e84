//! How a service is started that this checkout's file declares and that was not started yet. Reads the file, so it is
//! only for errors and notes.

use std::path::{Path, PathBuf};

use crate::cli::context::Context;
use crate::cli::stack::Located;
use crate::config::{StackService, nearest_file};
use crate::error::Error;
use crate::identity::Key;
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

/// Adds to an error about a service that the file of a stack declares how it is started.
pub(super) fn explain(context: &Context, error: Error) -> Error {
    match error {
        // A registration that was refused has a state and its own hint: `up` does not replace it.
        Error::KeyElsewhere { key, owner, state: None, here, hint } => {
            let name = key.rsplit('/').next().unwrap_or(&key);
            // The keys of a list are the same in all checkouts.
            let is_own = |own: &Declared| own.has_command && own.key.as_ref().is_some_and(|own| own.as_str() != key);
            let own = declared_here(context, name).filter(is_own);
            let hint = own.map_or(hint, |own| format!("`{}` starts this checkout's own", own.up_line(context)));
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
        error => error,
    }
}

/// Returns the error for a target that is no registered service, and that the nearest file declares; `None` if that file
/// does not have it either.
pub(super) fn never_started(context: &Context, target: &str) -> Option<Error> {
    let declared = declared_here(context, target)?;
    let command = declared.up_line(context);
    let service = declared.key.map_or(declared.name, |key| key.to_string());
    Some(Error::NeverStarted { service, file: declared.file, command })
}

/// Returns the command that starts a service of a stack of which only the port is reserved so far; `None` if its file
/// cannot be read or has no command for it.
pub(super) fn up_command(context: &Context, reserved: &Reservation) -> Option<String> {
    let (key, file) = (reserved.key.as_ref()?, reserved.file.as_deref()?);
    let located = Located::find(context, Some(file)).ok()?;
    let declared = located.service_with_key(key).ok()??;
    (!declared.is_port_only()).then(|| up_line(context, file, &declared.name))
}

/// Returns what to do so that a reserved port of a stack has a service, as a hint; `None` if it belongs to no stack. Only
/// its file can give it a command.
pub(super) fn start_hint(context: &Context, reserved: &Reservation) -> Option<String> {
    let (key, file) = (reserved.key.as_ref()?, reserved.file.as_deref().filter(|_| reserved.stack.is_some())?);
    let name = key.name_in_stack();
    let (up, path) = (up_line(context, file, name), file.display());
    let declared = |located: &Located| located.service_with_key(key).ok().flatten().map(StackService::is_port_only);
    Some(match Located::find_to_stop(context, Some(file)).ok().as_ref().map(declared) {
        Some(Some(false)) => format!("start it with `{up}`"),
        Some(None) => format!("{path} no longer has {name}: add it with `exec`, then run `{up}`"),
        Some(Some(true)) | None => format!("add `exec` to {name} in {path}, then run `{up}`"),
    })
}

/// Returns the command that starts a service of a file, as it can be typed in the current directory: `up` finds the
/// nearest file without `-f`.
pub(super) fn up_line(context: &Context, file: &Path, name: &str) -> String {
    let name = shell_words::quote(name);
    let is_nearest = context.place().and_then(|place| nearest_file(&place)).is_some_and(|nearest| nearest == file);
    if is_nearest {
        format!("devport up -d {name}")
    } else {
        format!("devport up -d -f {} {name}", shell_words::quote(&file.to_string_lossy()))
    }
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
        up_line(context, &self.file, &self.name)
    }
}
