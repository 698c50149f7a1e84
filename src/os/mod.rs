//! Everything that differs by operating system: clock, process identity and trees, listening sockets,
//! terminals, starting programs.
//!
//! The only room with `unsafe` code (`sys.rs`). `linux.rs` and `macos.rs` offer the same functions; the
//! files beside them build what the rest of devport uses.

pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod file_lock;
pub(crate) mod parallel;
pub(crate) mod process;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spawn;
mod status;
pub(crate) mod terminal;
pub(crate) mod tool;
pub(crate) mod tree;

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod platform;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod platform;
#[cfg(target_os = "linux")]
mod sock_diag;
mod sys;

pub(crate) use sys::trim_heap;
