//! `devport reserve`: reserves a port for a program that devport does not run.

use crate::cli::args::Reserve;
use crate::cli::context::Context;
use crate::cli::port;
use crate::config::{PortRequest, ServiceSpec};
use crate::error::Result;
use crate::identity::Key;

/// Executes `devport reserve`. Prints the port, so that a script can use it.
///
/// # Errors
/// If the key is invalid or belongs to another checkout, or no port can be reserved.
pub(super) fn execute(context: &Context, arguments: Reserve) -> Result<()> {
    let key = Key::new(arguments.key)?;
    let port = PortRequest::new(false, arguments.port);
    let spec = ServiceSpec::port_alone(key, port, context.cwd()?, context.environment());
    let reservation = context.launcher().reserve(&spec)?;
    if context.output.wants_only_json() {
        return context.output.print_views(&[context.view(&reservation)], false);
    }
    port::print(context, &reservation)
}
