//! Captured output on disk: writing with rotation and marks, reading, following.
//!
//! A log holds the service's output byte for byte, with devport's marks between the lines: when a child started and
//! ended, and the time. See [`Mark`] for their format.
//!
//! A log consists of parts, one file each. A part begins with a mark that has the time and the number of the run, so it
//! can be read without the earlier parts. It ends after a line; only a line that is longer than a part is cut, and the
//! next part begins with [`Mark::Continued`] then.

mod decoder;
mod escape;
mod fold;
mod follower;
mod mark;
mod part;
mod reader;
mod writer;

pub(crate) use decoder::{Content, Line};
pub(crate) use escape::{for_terminal, plain, strip};
pub(crate) use follower::Follower;
pub(crate) use mark::Mark;
pub(crate) use reader::{Lines, follow, run_output, runs, tail};
pub(crate) use writer::LogWriter;
