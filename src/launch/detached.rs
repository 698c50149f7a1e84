//! A supervisor without a window: in a session of its own, with its log as the only output.

use std::ffi::OsString;
use std::path::Path;

use crate::error::{Error, Result};
use crate::os::{spawn, tree};
use crate::spec::CallerEnvironment;

/// Starts a supervisor that outlives us; returns its pid.
///
/// # Errors
/// If our own program cannot be executed.
pub(super) fn spawn(program: &Path, arguments: &[OsString], caller: &CallerEnvironment) -> Result<i32> {
    let mut environment = caller.for_background();
    environment.retain(|(name, _)| !name.to_string_lossy().starts_with("TMUX"));
    // Started from within a service, it would otherwise count as one of that service's processes.
    environment.push((tree::HASH_VARIABLE.into(), "supervisor".into()));
    spawn::detached(program, arguments, &environment).map_err(Error::io("start", program))
}
