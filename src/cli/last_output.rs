//! The output of the last run of a service: a command that fails shows its end, so that no second command is needed to
//! learn the reason.

use std::io::{self, IsTerminal};

use crate::cli::context::Context;
use crate::cli::output::{note, write_error};
use crate::logs;
use crate::registry::Reservation;
use crate::view::{self, LineStyle};

/// How many lines of output to print: enough for a stack trace, and less than a screen.
const LAST_LINES: usize = 20;

/// Returns the end of the output of the current run of a service, or else of its last one, without escape sequences.
pub(super) fn text(context: &Context, reservation: &Reservation) -> Vec<String> {
    lines(context, reservation).iter().map(|line| logs::plain(line)).collect()
}

/// Prints the end of the output of the current run of a service, or else of its last one.
pub(super) fn show(context: &Context, reservation: &Reservation) {
    let name = reservation.name();
    let lines = lines(context, reservation);
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
    write_error(&text);
}

/// Reads the lines. The error that they explain says why the command failed, so a state or log that cannot be read is no
/// further error.
fn lines(context: &Context, reservation: &Reservation) -> Vec<Vec<u8>> {
    let Some(run) = context.registry.run_state(&reservation.hash).ok().flatten() else { return Vec::new() };
    logs::run_output(&context.registry.paths().log(&reservation.hash), run.runs, LAST_LINES)
}
