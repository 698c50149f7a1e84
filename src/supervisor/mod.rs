//! The process that owns one running service (`devport run`).
//!
//! `lifecycle`, `backoff` and `readiness` decide and are pure; `child`, `probe`, `relay`, `service`, `signals`, `stream`
//! and `watch` act; `event_loop` is the one thread between them. Nothing here prints with the standard macros: a terminal that has
//! vanished must not kill the supervisor.

mod backoff;
mod child;
mod event_loop;
mod lifecycle;
mod probe;
mod readiness;
mod relay;
mod service;
mod signals;
mod stream;
mod watch;

pub(crate) use event_loop::{Supervised, SupervisorSetup, supervise};
pub(crate) use lifecycle::Outcome;
