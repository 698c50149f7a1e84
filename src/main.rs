//! devport: a port that never moves, and a supervisor, for every dev service on this machine.
//!
//! This file reads the environment and the directory once, hands over to the command line, and prints an error once.

mod cli;
mod config;
mod error;
mod identity;
mod launch;
mod logs;
mod observe;
mod os;
mod project;
mod registry;
mod supervisor;
mod tailnet;
mod text;
mod view;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::error::Error;
use crate::text::printable;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment and the directory")]
    let caller_context = cli::CallerContext::new(
        config::CallerEnvironment::new(std::env::vars_os()),
        std::env::current_dir().ok(),
        std::env::current_exe().ok(),
    );
    match cli::dispatch(&arguments, caller_context) {
        Ok(code) => code,
        Err(error) => {
            print(&error);
            error.exit_code()
        }
    }
}

/// Prints an error and what to do about it; if nobody can read that, so be it.
fn print(error: &Error) {
    if matches!(error, Error::ClosedOutput) {
        return;
    }
    let mut text = format!("devport: {}\n", printable(&error.to_string()));
    if let Some(hint) = error.hint() {
        text += "hint: ";
        text += &printable(&hint);
        text += "\n";
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
