//! `devport open`: shows a service in the browser.

use std::path::{Path, PathBuf};

use crate::cli::args::Target;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::url;
use crate::error::{Error, Result};
use crate::os::spawn;
use crate::registry::ExitHow;

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
    let browsers = environment.get("BROWSER").and_then(|browsers| browsers.to_str()).unwrap_or_default();
    let (program, arguments) = browsers
        .split(':')
        .chain([OPENER])
        .find_map(|browser| command(browser, &url, |name| spawn::find_program(name, environment.get("PATH"))))
        .ok_or_else(|| Error::NoBrowser { url: url.clone(), why: missing(browsers) })?;
    note(&format!("opening {url}"));
    let status = spawn::tool(&program)
        .args(arguments)
        .status()
        .map_err(Error::system(format!("start {}", program.display())))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::NoBrowser { url, why: format!("{}: {}", program.display(), ExitHow::from(status)) })
}

/// Returns why there is no program: the names of those that were looked for.
fn missing(browsers: &str) -> String {
    let names = browsers.split(':').filter_map(|browser| browser.split_whitespace().next()).chain([OPENER]);
    format!("could not find {}", names.collect::<Vec<_>>().join(" or "))
}

/// Returns the program and the arguments that show an address, for an entry of `BROWSER`: a command in which `%s` stands
/// for the address, or which takes it as its last argument (as xdg-open(1) and Debian's sensible-browser(1) read it).
/// `None` if there is no such program.
fn command(browser: &str, url: &str, find: impl Fn(&str) -> Option<PathBuf>) -> Option<(PathBuf, Vec<String>)> {
    let mut words = shell_words::split(browser).ok()?.into_iter();
    let name = words.next()?;
    let path = Path::new(&name);
    let program = if path.is_absolute() { path.exists().then(|| path.to_owned()) } else { find(&name) }?;
    let has_place = browser.contains("%s");
    let mut arguments: Vec<String> = words.map(|word| word.replace("%s", url)).collect();
    arguments.extend((!has_place).then(|| url.to_owned()));
    Some((program, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_browser_is_a_command_with_the_address() {
        let found = |browser: &str| {
            let find = |name: &str| (name == "firefox").then(|| PathBuf::from("/bin/firefox"));
            command(browser, "http://x", find).map(|(_, arguments)| arguments)
        };
        assert_eq!(found("firefox").unwrap(), ["http://x"]);
        assert_eq!(found("firefox -P 'my own' %s --tab").unwrap(), ["-P", "my own", "http://x", "--tab"]);
        for missing in ["", "chromium", "/nonexistent/firefox", "firefox '"] {
            assert_eq!(found(missing), None, "{missing}");
        }
    }
}
