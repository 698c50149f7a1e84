//! The system layer: clocks, process identity and trees, sockets, terminals, starting programs.
//!
//! `linux.rs` and `macos.rs` offer the same functions; the other files build on them what the rest of devport uses.
//!
//! devport calls the system through the crate nix: it covers both systems, signals, terminals and sockets, with safe
//! types. libc is used only for its constants and structures, and for calls that nix does not wrap safely: those are
//! in `sys.rs`, the only file with `unsafe` code. rustix comes with tempfile and crossterm and is not used directly: it
//! has no signal masks or handlers, so a second layer beside it would remain.

pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod file_lock;
pub(crate) mod interrupt;
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

pub(crate) use status::Listener;
pub(crate) use sys::trim_heap;
