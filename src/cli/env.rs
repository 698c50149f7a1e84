//! `devport env`: prints the environment of a service's command.

use crate::cli::args::Env;
use crate::cli::context::Context;
use crate::cli::output::{json_layout, write_output};
use crate::error::{Error, Result};
use crate::view;

/// Executes `devport env`. Prints the names of the variables, and the values only with `--show-secrets`.
///
/// # Errors
/// If the target names no service, or the service has no such variable.
pub(super) fn execute(context: &Context, arguments: &Env) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let registry = &context.registry;
    let host = registry.tailnet_host(&reservation);
    let child = reservation.child_variables(registry.paths().base(), host.as_deref(), None);
    let mut variables = registry.environment(&reservation.hash)?.for_child(&child);
    variables.sort();
    if let Some(wanted) = &arguments.name {
        variables.retain(|(name, _)| name == wanted);
        if variables.is_empty() {
            let service = reservation.name().to_owned();
            return Err(Error::NoSuchVariable { service, name: wanted.clone() });
        }
    }
    let text = match (context.output.wants_only_json(), arguments.show_secrets) {
        (true, true) => {
            let object: serde_json::Map<_, _> =
                variables.into_iter().map(|(name, value)| (name, value.into())).collect();
            view::object(&object, json_layout())?
        }
        (true, false) => {
            let names: Vec<String> = variables.into_iter().map(|(name, _)| name).collect();
            view::object(&names, json_layout())?
        }
        // A script can read a value with several lines only on its own.
        (false, true) if arguments.name.is_some() => variables.into_iter().map(|(_, value)| value + "\n").collect(),
        (false, true) => {
            variables.into_iter().map(|(name, value)| [name, "=".into(), value, "\n".into()].concat()).collect()
        }
        (false, false) => variables.into_iter().map(|(name, _)| name + "\n").collect(),
    };
    write_output(text.as_bytes())
}
