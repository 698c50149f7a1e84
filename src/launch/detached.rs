//! Starts a supervisor without a window: in a new session, with the log as the only output.

use std::ffi::OsString;
use std::path::Path;

use crate::config::CallerEnvironment;
use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::{spawn, tree};
use crate::registry::{Registry, supervisor_mark};

/// Starts the supervisor of a service, which outlives this process. Returns its pid.
///
/// # Errors
/// If `program` cannot be executed.
pub(super) fn spawn(
    program: &Path,
    arguments: &[OsString],
    caller: &CallerEnvironment,
    registry: &Registry,
    hash: &ServiceHash,
) -> Result<i32> {
    let mut environment = caller.for_background();
    environment.retain(|(name, _)| !name.to_string_lossy().starts_with("TMUX"));
    // A supervisor that is started from within a service inherits that service's marker. Its own marker keeps a scan from
    // counting it as one of that service's processes.
    environment.push((tree::HASH_VARIABLE.into(), supervisor_mark(hash).into()));
    environment.push((tree::HOME_VARIABLE.into(), registry.paths().base().into()));
    spawn::detached(program, arguments, &environment).map_err(Error::io("start", program))
}
