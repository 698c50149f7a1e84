//! Frameworks: how dev servers take their port, and what to type so that one listens on the port of its service.
//!
//! `table` has the facts, one `Framework` per row. `recognize` finds the row of a command, `launch` the reason of a
//! wrong port and the words that pass the right one, and `source` the line to type.

mod advice;
mod command;
mod framework;
mod launch;
mod package;
mod recognize;
mod source;
mod table;

#[cfg(test)]
mod page;

pub(crate) use advice::PortAdvice;
pub(crate) use launch::Launch;
pub(crate) use source::Source;
