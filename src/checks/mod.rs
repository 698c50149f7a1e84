//! The checks of readiness and health: `probe` runs one that takes time, and `command` starts its command. A supervisor
//! drives them from its loop; `once` runs one to its end for a command that waits.

mod command;
mod once;
mod probe;

pub(crate) use command::{SpawnError, execute};
pub(crate) use once::{run_once, why_not_ready};
pub(crate) use probe::{CheckResult, Probe, Request};
