//! The process that owns one running service (`devport run`).
//!
//! `supervise` takes the service's lock; `event_loop` is the one thread, which waits and dispatches. `lifecycle`,
//! `backoff` and `readiness` decide, and are pure. `executor` acts on their decisions through `service`, `child`,
//! `running_child`, `recorder`, `relay`, `query_responder`, `signals`, `stream` and `readiness_probe`. Nothing here
//! prints with the standard macros, which panic if the terminal has vanished.

mod backoff;
mod checkout_watch;
mod child;
mod event_loop;
mod executor;
mod lifecycle;
mod query_responder;
mod readiness;
mod readiness_probe;
mod recorder;
mod relay;
mod running_child;
mod service;
mod signals;
mod stream;
mod supervise;
mod terminal_query;

pub(crate) use lifecycle::Outcome;
pub(crate) use query_responder::Audience;
pub(crate) use supervise::{Supervised, SupervisorSetup, supervise};
