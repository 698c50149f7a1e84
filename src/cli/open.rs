//! `devport open`: shows a service in the browser.

use std::path::Path;

use crate::cli::args::Target;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::url;
use crate::error::{Error, Result};
use crate::os::spawn;

/// The program that opens an address in the user's browser.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Executes `devport open`.
///
/// # Errors
/// If the target names no service or one without a port, or no browser can be started.
pub(super) fn execute(context: &Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let url = url::address(context, &reservation)?;
    let environment = context.environment();
    let browser = environment.get("BROWSER").and_then(|browser| browser.to_str());
    let program = [browser, Some(OPENER)].into_iter().flatten().find_map(|name| {
        let path = Path::new(name);
        if path.is_absolute() { Some(path.to_owned()) } else { spawn::find_program(name, environment.get("PATH")) }
    });
    let program = program.ok_or_else(|| Error::NoBrowser { url: url.clone() })?;
    note(&format!("opening {url}"));
    let status =
        spawn::tool(&program).arg(&url).status().map_err(Error::system(format!("start {}", program.display())))?;
    if status.success() { Ok(()) } else { Err(Error::NoBrowser { url }) }
}
