//! `FileContext`: what the content of a file may refer to.

use std::path::Path;

use crate::config::environment::CallerEnvironment;
use crate::config::reference::CheckoutNames;

/// Where a file is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileContext<'a> {
    pub(crate) path: &'a Path,
    /// Expands `$NAME` in paths and ports.
    pub(crate) caller: &'a CallerEnvironment,
    /// The names of its checkout; `None` if they are not known yet: `${checkout.root}` in a path stays as it is then.
    pub(crate) checkout: Option<&'a CheckoutNames>,
    /// Whether directories and dotenv files must exist: not for a command that only stops services.
    pub(crate) checks_paths: bool,
}
