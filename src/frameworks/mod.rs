//! Frameworks: how dev servers take their port, and what to type so that one listens on the port of its service.
//!
//! `table` has the facts, one `Framework` per row. `recognize` finds the row of a command, and `advice` makes the line to
//! type.

mod advice;
mod command;
mod framework;
mod package;
mod recognize;
mod source;
mod table;

#[cfg(test)]
mod page;

pub(crate) use advice::{Launch, PortAdvice};
pub(crate) use source::Source;
