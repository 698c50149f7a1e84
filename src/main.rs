//! devport runs dev services on fixed ports, and restarts them after a crash.
//!
//! This file reads the environment and the current directory, runs the command, and prints its error.

mod checks;
mod cli;
mod config;
mod error;
mod frameworks;
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
    let caller = cli::CallerContext::new(
        config::CallerEnvironment::new(std::env::vars_os()),
        std::env::current_dir().ok(),
        std::env::current_exe().ok(),
    );
    match cli::dispatch(&arguments, caller) {
        Ok(code) => code,
        Err(error) => {
            print(&error);
            error.exit_code()
        }
    }
}

/// Prints an error and its hint on standard error. There is no place to report a failure to, so it is ignored.
fn print(error: &Error) {
    if error.is_silent() {
        return;
    }
    let mut text = String::new();
    for line in error.lines() {
        text.extend(["devport: ", &printable(&line), "\n"]);
    }
    for (index, line) in error.hint().iter().flat_map(|hint| hint.lines()).enumerate() {
        text.extend([if index == 0 { "hint: " } else { "" }, &printable(line), "\n"]);
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
