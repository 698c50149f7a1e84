//! A supervisor without a window: in a session of its own, with its log as the only output.

use std::ffi::OsString;
use std::path::Path;

use crate::config::CallerEnvironment;
use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::{spawn, tree};
use crate::registry::{Registry, supervisor_mark};

/// Starts the supervisor of a service; it outlives us. Returns its pid.
///
/// # Errors
/// If our own program cannot be executed.
pub(super) fn spawn(
    program: &Path,
    arguments: &[OsString],
    caller: &CallerEnvironment,
    registry: &Registry,
    hash: &ServiceHash,
) -> Result<i32> {
    let mut environment = caller.for_background();
    environment.retain(|(name, _)| !name.to_string_lossy().starts_with("TMUX"));
    // Started from within a service, it would otherwise count as one of that service's processes.
    environment.push((tree::HASH_VARIABLE.into(), supervisor_mark(hash).into()));
    environment.push((tree::HOME_VARIABLE.into(), registry.paths().base().into()));
    spawn::detached(program, arguments, &environment).map_err(Error::io("start", program))
}
