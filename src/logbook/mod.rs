//! Captured output on disk: writing with rotation and marks, reading, following.
//!
//! A log is what the service wrote, byte for byte, with marks of devport's own between its lines: when a
//! child was started and ended, and what time it was. See [`Mark`] for their form.

mod escape;
mod mark;
mod reader;
mod writer;

pub(crate) use escape::{for_terminal, strip};
pub(crate) use mark::Mark;
pub(crate) use reader::{Content, Follower, Line, Lines, before_last_end, follow, tail};
pub(crate) use writer::LogWriter;
