//! How a service is started that this checkout's file declares and that was not started yet. Reads the file, so it is
//! only for errors and notes.

use crate::cli::context::Context;
use crate::cli::stack::Located;
use crate::error::Error;
use crate::registry::Reservation;

/// Adds to an error about a service that the file of a stack declares how it is started.
pub(super) fn explain(context: &Context, error: Error) -> Error {
    match error {
        // A registration that was refused has a state and its own hint: `up` does not replace it.
        Error::KeyElsewhere { key, owner, state: None, here, hint } => {
            let hint = match key.rsplit('/').next().and_then(|name| declared_here(context, name)) {
                Some(name) => format!("`devport up -d {name}` starts this checkout's own"),
                None => hint,
            };
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
    let is_here = context.place().is_some_and(|place| place.lists(reserved.site()));
    let file = if is_here { String::new() } else { format!("-f {} ", shell_words::quote(&file.to_string_lossy())) };
    (!declared.request.cmd.is_empty()).then(|| format!("devport up -d {file}{}", declared.name))
}

/// Returns the name if the nearest file has a service with it and a command.
fn declared_here<'n>(context: &Context, name: &'n str) -> Option<&'n str> {
    let located = Located::find(context, None).ok()?;
    let is_declared =
        located.stack.services.iter().any(|service| service.name == name && !service.request.cmd.is_empty());
    is_declared.then_some(name)
}
