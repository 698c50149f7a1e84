//! `devport ls`: list services.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crate::cli::args::Ls;
use crate::cli::context::{Context, report, write_output};
use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::terminal::WindowSize;
use crate::view::{self, ServiceView, Status};

/// How often a list that goes on is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Executes `devport ls`. A record that cannot be used is named on standard error, and the rest is listed.
///
/// # Errors
/// If the state directory cannot be read.
pub(super) fn execute(context: &mut Context, arguments: &Ls) -> Result<()> {
    if arguments.watch {
        return watch(context, arguments);
    }
    let (views, unusable) = look(context, arguments)?;
    for error in &unusable {
        report("ls", error);
    }
    if context.wants_table() {
        write_output(view::list(&views, context.table_style(), arguments.wide).as_bytes())?;
    } else {
        context.print_views(&views, true)?;
    }
    // A record that has no meaning stays so, and is not listed. One that could not be read now is missing.
    let missing = unusable.iter().filter(|error| matches!(error, Error::Io { .. })).count();
    if missing > 0 {
        return Err(Error::SomeUnread { missing });
    }
    Ok(())
}

/// The services, as they are now, and one error for each record that cannot be used.
fn look(context: &Context, arguments: &Ls) -> Result<(Vec<ServiceView>, Vec<Error>)> {
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

/// Shows the list again and again, in its place: what was on the screen before stays where it was.
fn watch(context: &Context, arguments: &Ls) -> Result<()> {
    if !io::stdout().is_terminal() {
        return Err(Error::Usage {
            message: "--watch needs a terminal".into(),
            hint: "a program asks `devport ls --json`, or waits with `devport wait`".into(),
        });
    }
    let mut drawn = 0;
    loop {
        let (views, unusable) = look(context, arguments)?;
        let mut text = view::list(&views, context.table_style(), arguments.wide);
        if !unusable.is_empty() {
            text += &unusable.len().to_string();
            text += " records cannot be used; `devport ls` names them\n";
        }
        let height = WindowSize::of(io::stdout()).map_or(24, |size| usize::from(size.rows()));
        let (frame, lines) = frame(&text, drawn, height);
        drawn = lines;
        write_output(frame.as_bytes())?;
        clock::pause(INTERVAL);
    }
}

/// What replaces a list of `drawn` lines on a terminal by another, in one piece; and how many lines that has.
fn frame(text: &str, drawn: usize, height: usize) -> (String, usize) {
    let mut frame = if drawn > 0 { format!("\u{1b}[{drawn}A\r") } else { String::new() };
    // One line is left for the cursor: the terminal must not scroll.
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
