//! The process that owns one running service (`devport run`).
//!
//! `supervise` takes the service's lock; `event_loop` is the one thread, which waits and dispatches. `lifecycle`,
//! `backoff`, `readiness`, `checkout_watch`, `query_responder`, `terminal_query` and `retry_report` decide, and are pure.
//! `executor` acts on their decisions through `service`, `child`, `running_child`, `recorder`, `screen`, `audience`,
//! `signals`, `stream` and `readiness_probe`. Nothing here prints with the standard macros, which panic if the terminal has
//! vanished.

mod address_in_use;
mod audience;
mod backoff;
mod checkout_watch;
mod child;
mod event;
mod event_loop;
mod executor;
mod lifecycle;
mod query_responder;
mod readiness;
mod readiness_probe;
mod recorder;
mod retry_report;
mod running_child;
mod screen;
mod service;
mod signals;
mod stream;
mod supervise;
mod terminal_query;

pub(crate) use audience::Audience;
pub(crate) use event::Outcome;
pub(crate) use supervise::{Supervised, SupervisorSetup, supervise};
