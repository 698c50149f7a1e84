//! The lines at the bottom of the terminal that a command redraws in place. Everything else that the command prints goes
//! above them.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::os::terminal::WindowSize;
use crate::view::shown_width;

/// The lines that the terminal shows now. They belong to the terminal, of which a process has one.
static SHOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Shows lines instead of the last ones. Does nothing if standard error is no terminal. A terminal that cannot be written
/// to is ignored: progress is not a result.
pub(super) fn draw(lines: Vec<String>) {
    let mut shown = lock();
    if *shown == lines || !io::stderr().is_terminal() {
        return;
    }
    let mut text = erase(&shown);
    for line in &lines {
        text += line;
        text.push('\n');
    }
    let _ = io::stderr().write_all(text.as_bytes());
    *shown = lines;
}

/// Removes the lines.
pub(super) fn clear() {
    above(|| ());
}

/// Prints something in place of the lines. The next [`draw`] shows them below it.
pub(super) fn above<T>(print: impl FnOnce() -> T) -> T {
    let mut shown = lock();
    if !shown.is_empty() {
        let _ = io::stderr().write_all(erase(&shown).as_bytes());
        shown.clear();
    }
    print()
}

/// Returns the escape sequences that erase the lines and move the cursor to the first of them (ECMA-48, CUU and EL). A
/// terminal that has become narrower has wrapped the lines. tmux keeps in its history what one sequence (ED) erases from
/// the first row of the screen on.
fn erase(lines: &[String]) -> String {
    let columns = WindowSize::of(io::stderr()).map_or(usize::MAX, |size| size.columns().into());
    let rows: usize = lines.iter().map(|line| shown_width(line).div_ceil(columns).max(1)).sum();
    let up = format!("\r\u{1b}[{rows}A");
    if rows == 0 { String::new() } else { format!("{up}{}{up}", "\u{1b}[2K\n".repeat(rows)) }
}

/// Returns the lines. A thread that panicked while it had them has left them whole.
fn lock() -> MutexGuard<'static, Vec<String>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
