//! Captured output on disk: writing with rotation and marks, reading, following.
//!
//! A log is what the service wrote, byte for byte, with devport's own marks between its lines: when a child
//! was started and ended, and what time it was. See [`Mark`] for their form.
//!
//! A log consists of parts, one file each. A part begins with a mark that has the time and the number of the
//! run, so that it can be read without the parts before it. It ends after a line; only a line that is longer
//! than a part may be is cut, and the next part then begins with [`Mark::Continued`].

mod decoder;
mod escape;
mod mark;
mod part;
mod reader;
mod writer;

pub(crate) use decoder::{Content, Line};
pub(crate) use escape::{for_terminal, strip};
pub(crate) use mark::Mark;
pub(crate) use reader::{Follower, Lines, before_last_end, follow, runs, tail};
pub(crate) use writer::LogWriter;
