//! `devport ls`: lists services.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crate::cli::args::Ls;
use crate::cli::context::Context;
use crate::cli::output::{report, write_output};
use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::terminal::WindowSize;
use crate::view::{self, ServiceView, Status};

/// How often `--watch` refreshes the list: a period in whole seconds (the column UP) changes no faster.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Executes `devport ls`. Records that cannot be used are reported on standard error, and the others are listed.
///
/// # Errors
/// If the state directory cannot be read, or [`Error::SomeUnread`] if a record cannot.
pub(super) fn execute(context: &Context, arguments: &Ls) -> Result<()> {
    if arguments.watch {
        return watch(context, arguments);
    }
    let (views, unusable) = fetch(context, arguments)?;
    for error in &unusable {
        report("ls", error);
    }
    if context.output.wants_table() {
        write_output(view::list(&views, context.output.table_style(), arguments.wide).as_bytes())?;
    } else {
        context.output.print_views(&views, true)?;
    }
    // A corrupt record is no service. One that could not be read is probably fine, so the list is incomplete.
    let missing = unusable.iter().filter(|error| matches!(error, Error::Io { .. })).count();
    if missing > 0 {
        return Err(Error::SomeUnread { missing });
    }
    Ok(())
}

/// Returns the current services, sorted by port, and one error for each record that cannot be used.
fn fetch(context: &Context, arguments: &Ls) -> Result<(Vec<ServiceView>, Vec<Error>)> {
    let overview = context.overview();
    let (mut views, unusable) = overview.all()?;
    if arguments.active {
        views.retain(|view| view.status == Status::Running);
    }
    views.sort_by(|a, b| (a.port.unwrap_or(u16::MAX), &a.hash).cmp(&(b.port.unwrap_or(u16::MAX), &b.hash)));
    if arguments.wide {
        overview.add_usage(&mut views);
    }
    Ok((views, unusable))
}

/// Shows the list and refreshes it in place. What the terminal showed before stays above it.
fn watch(context: &Context, arguments: &Ls) -> Result<()> {
    if !io::stdout().is_terminal() {
        return Err(Error::Usage {
            message: "--watch needs a terminal".into(),
            hint: "a program asks `devport ls --json`, or waits with `devport wait`".into(),
        });
    }
    let mut drawn = 0;
    loop {
        let (views, unusable) = fetch(context, arguments)?;
        let mut text = view::list(&views, context.output.table_style(), arguments.wide);
        if !unusable.is_empty() {
            text += &unusable.len().to_string();
            text += " records cannot be used; `devport ls` names them\n";
        }
        let height = WindowSize::of(io::stdout()).map_or(24, |size| usize::from(size.rows()));
        let (frame, lines) = frame(&text, drawn, height);
        drawn = lines;
        write_output(frame.as_bytes())?;
        clock::pause(REFRESH_INTERVAL);
    }
}

/// Returns the text that replaces a list of `drawn` lines on a terminal, and the number of lines of the new list.
/// A single write keeps the terminal from flickering.
fn frame(text: &str, drawn: usize, height: usize) -> (String, usize) {
    let mut frame = if drawn > 0 { format!("\u{1b}[{drawn}A\r") } else { String::new() };
    // The cursor stands on the line below the list. If that did not fit, the terminal would scroll.
    let lines: Vec<&str> = text.lines().take(height.saturating_sub(1).max(1)).collect();
    for line in &lines {
        frame += line;
        frame += "\u{1b}[K\r\n";
    }
    frame += "\u{1b}[J";
    (frame, lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before_and_never_scrolls() {
        assert_eq!(frame("a\nb\n", 0, 24), ("a\u{1b}[K\r\nb\u{1b}[K\r\n\u{1b}[J".into(), 2));
        assert_eq!(frame("a\n", 2, 24), ("\u{1b}[2A\ra\u{1b}[K\r\n\u{1b}[J".into(), 1));
        assert_eq!(frame("a\nb\nc\nd\n", 0, 3).1, 2);
    }
}
