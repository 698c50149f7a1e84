//! The process that owns one running service (`devport run`).
//!
//! `lifecycle` and `backoff` decide and are pure; `child`, `leftovers`, `relay`, `signals` and `stream` act; `event_loop`
//! is the one thread between them. Nothing here prints with the standard macros: a terminal that has
//! vanished must not kill the supervisor.

mod backoff;
mod child;
mod event_loop;
mod leftovers;
mod lifecycle;
mod relay;
mod signals;
mod stream;

pub(crate) use event_loop::{Supervised, Terms, supervise};
pub(crate) use leftovers::{find as find_leftovers, reap as reap_leftovers};
pub(crate) use lifecycle::Outcome;
