//! Registers services, starts their supervisors in the background, and stops them again.
//!
//! A supervisor receives only the hash of its service and the path of the state directory: it reads everything else from
//! the record.

mod detached;
mod difference;
mod ensure;
mod launcher;
mod response;
mod stop;
mod tmux;
mod viewing;

pub(crate) use ensure::{Comparison, Ensured, IfRunning, LaunchMode, Previous};
pub(crate) use launcher::Launcher;
pub(crate) use stop::{Ended, Urgency, kill_group, stop, stop_and_hold, supervisor};
pub(crate) use tmux::{Tmux, count_viewers, own_window};
pub(crate) use viewing::Viewing;
