//! devport as its users see it: the built program, real processes, a real tmux.
//!
//! Each test has its own home, state directory, tmux server and ports, and leaves nothing behind.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests say what they do by their names, and may panic"
)]

mod support;
mod tables;
mod tailnet;
mod terminal_queries;

mod attach;
mod background;
mod batch;
mod checkouts;
mod closed_connections;
mod disappearing;
mod edited;
mod environment;
mod examples;
mod facts;
mod foreground;
mod foreign_values;
mod here;
mod launch;
mod layers;
mod listeners;
mod logs;
mod ls;
mod port_advice;
mod processes;
mod readiness;
mod readme;
mod records;
mod registry;
mod retry;
mod rm;
mod run;
mod sessions;
mod spellings;
mod stack_ports;
mod stacks;
mod start;
mod stop;
mod stopping;
mod strangers;
mod supervisor;
mod targets;
mod tmux_session;
mod unknown;
mod views;
mod wait;
