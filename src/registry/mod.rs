//! All reservations of this user on this machine, and the only code that writes them.
//!
//! The file system is the database: one JSON file per service, replaced by rename under one lock. A kernel lock per
//! service shows which services run.

mod directory;
mod ended;
mod file;
mod holder;
mod liveness;
mod lock;
mod lost;
mod paths;
mod port;
mod reclaim;
mod refusal;
mod register;
mod reservation;
mod resolve;
mod run_state;
mod scan;
mod store;
mod supervision;

pub(crate) use ended::TreeEnded;
pub(crate) use holder::{Holder, Role};
pub(crate) use liveness::Liveness;
pub(crate) use lock::{Acquired, FileLock, IdentityLock};
pub(crate) use paths::Paths;
pub(crate) use port::PortRange;
pub(crate) use register::{Registration, owner_text};
pub(crate) use reservation::{Protocol, Reservation};
pub(crate) use resolve::nearest;
pub(crate) use run_state::{Exit, ExitHow, Pane, PortInUse, Problem, RunState, State, StateChange, UP_AFTER};
pub(crate) use scan::{Scan, supervisor_mark};
pub(crate) use store::Registry;
pub(crate) use supervision::Supervision;
