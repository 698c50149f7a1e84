//! Shows on standard error what the last run of a service printed, so that no second command
//! is needed to learn why a wait failed.

use std::io::{self, IsTerminal, Write};

use crate::cli::context::Context;
use crate::cli::output::note;
use crate::logs;
use crate::registry::Reservation;
use crate::view::{self, LineStyle};

/// How many lines of output to print: enough for a stack trace, and less than a screen.
const LAST_LINES: usize = 20;

/// Prints the end of the output of the current run of a service, or else of its last one.
pub(super) fn show(context: &Context, reservation: &Reservation) {
    let name = reservation.name();
    // The error that follows says why the command failed. A state or log that cannot be read must not hide it.
    let Some(run) = context.registry.run_state(&reservation.hash).ok().flatten() else { return };
    let lines = logs::run_output(&context.registry.paths().log(&reservation.hash), run.runs, LAST_LINES);
    if lines.is_empty() {
        return;
    }
    note(&format!("last output of {name}:"));
    let style = LineStyle { is_terminal: io::stderr().is_terminal(), ..LineStyle::default() };
    let mut text = Vec::new();
    for line in lines {
        view::push_output(&mut text, &line, &style);
        text.push(b'\n');
    }
    let _ = io::stderr().write_all(&text);
}
