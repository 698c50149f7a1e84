//! The process that owns one running service (`devport run`).
//!
//! `lifecycle`, `backoff` and `readiness` decide, and are pure. `recorder`, `service`, `child`, `running_child`, `relay`,
//! `signals`, `stream`, `probe` and `readiness_probe` act. `supervise` takes the service's lock and sets these up;
//! `event_loop` is the one thread that connects them. Nothing here prints with the standard macros, which panic if the
//! terminal has vanished.

mod backoff;
mod child;
mod event_loop;
mod lifecycle;
mod probe;
mod readiness;
mod readiness_probe;
mod recorder;
mod relay;
mod running_child;
mod service;
mod signals;
mod stream;
mod supervise;

pub(crate) use lifecycle::Outcome;
pub(crate) use supervise::{Supervised, SupervisorSetup, supervise};
