//! How a service is started that this checkout's file declares and that was not started yet. Reads the file, so it is
//! only for errors and notes.

use std::path::Path;

use crate::cli::context::Context;
use crate::cli::stack::Located;
use crate::config::nearest_file;
use crate::error::Error;
use crate::registry::Reservation;

/// Adds to an error about a service that the file of a stack declares how it is started.
pub(super) fn explain(context: &Context, error: Error) -> Error {
    match error {
        // A registration that was refused has a state and its own hint: `up` does not replace it.
        Error::KeyElsewhere { key, owner, state: None, here, hint } => {
            let own = declared_here(context, &key);
            let hint = own.map_or(hint, |name| format!("`devport up -d {name}` starts this checkout's own"));
            Error::KeyElsewhere { key, owner, state: None, here, hint }
        }
        Error::NoCommand { service, command } => {
            let reserved = context.resolve(&service).ok();
            let command = reserved.and_then(|reserved| up_command(context, &reserved)).unwrap_or(command);
            Error::NoCommand { service, command }
        }
        error => error,
    }
}

/// Returns the command that starts a service of a stack of which only the port is reserved so far; `None` if its file
/// cannot be read or has no command for it.
pub(super) fn up_command(context: &Context, reserved: &Reservation) -> Option<String> {
    let (key, file) = (reserved.key.as_ref()?, reserved.file.as_deref()?);
    let located = Located::find(context, Some(file)).ok()?;
    let declared = located.service_with_key(key).ok()??;
    (!declared.request.cmd.is_empty()).then(|| up_line(context, file, &declared.name))
}

/// Returns the command that starts a service of a file, as it can be typed in the current directory: `up` finds the
/// nearest file without `-f`.
pub(super) fn up_line(context: &Context, file: &Path, name: &str) -> String {
    let is_nearest = context.place().and_then(|place| nearest_file(&place)).is_some_and(|nearest| nearest == file);
    if is_nearest {
        format!("devport up -d {name}")
    } else {
        format!("devport up -d -f {} {name}", shell_words::quote(&file.to_string_lossy()))
    }
}

/// Returns the name in a key if the nearest file has a service with that name, a command and another key. The keys of a
/// list are the same in all checkouts.
fn declared_here<'k>(context: &Context, key: &'k str) -> Option<&'k str> {
    let name = key.rsplit('/').next()?;
    let located = Located::find(context, None).ok()?;
    let declared = located.stack.services.iter().find(|service| service.name == name)?;
    let own = located.key(declared).ok()??;
    (!declared.request.cmd.is_empty() && own.as_str() != key).then_some(name)
}
