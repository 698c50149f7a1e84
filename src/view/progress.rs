//! Formats the progress of a command that starts or stops services: one line for each.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use crate::logs;
use crate::registry::State;
use crate::text::printable;
use crate::view::grid::{TableStyle, cut_end};
use crate::view::list::paint;

/// The widest name that is shown whole.
const WIDEST_NAME: usize = 24;
/// The least width that is left for names.
const NARROWEST_NAME: usize = 6;
/// The width of the longest step, `port-conflict`.
const STEP_WIDTH: usize = 13;
/// The width of the time, up to `59m 59s`.
const TIME_WIDTH: usize = 7;
/// Grey (ECMA-48, SGR).
const GREY: &str = "90";

/// A service that a command starts or stops.
#[derive(Debug, Clone)]
pub(crate) struct ProgressRow {
    pub(crate) name: String,
    pub(crate) step: Step,
    /// How long the service has been handled, or how long that took; `None` if it has not begun.
    pub(crate) time: Option<Duration>,
    /// What keeps the service from being done; empty for nothing.
    pub(crate) detail: String,
}

/// How far a command has come with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits for other services.
    Waiting,
    /// The service is in this state, and the command waits for another one.
    Pending(State),
    /// The service is in this state, and the command is done with it.
    Reached(State),
    Failed,
    Skipped,
    /// There is nothing to do with it, for this reason.
    Omitted(&'static str),
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            // The command runs the check again.
            Self::Pending(State::Ready) => "checking",
            Self::Pending(state) | Self::Reached(state) => state.as_str(),
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Omitted(why) => why,
        }
    }

    /// Returns the colour of a step. One that is not the last is yellow, unless it needs attention.
    fn paint(self) -> &'static str {
        match self {
            Self::Waiting | Self::Skipped | Self::Omitted(_) => GREY,
            Self::Pending(State::Running | State::Ready) => paint(State::Starting),
            Self::Pending(state) | Self::Reached(state) => paint(state),
            Self::Failed => paint(State::Failed),
        }
    }

    /// Returns whether all is well and nothing more happens.
    fn is_well(self) -> bool {
        matches!(self, Self::Reached(_) | Self::Omitted(_))
    }
}

/// Formats rows as lines that fit on a terminal with so many rows. If there are too many, a last line counts those that
/// are done, and then those that wait, instead of showing them.
pub(crate) fn progress(rows: &[ProgressRow], style: TableStyle, height: usize) -> Vec<String> {
    // The cursor stands on the line below.
    let room = height.saturating_sub(1).max(1);
    let mut shown: Vec<&ProgressRow> = rows.iter().collect();
    if rows.len() > room {
        shown.retain(|row| !row.step.is_well());
        let begun = shown.iter().filter(|row| row.step != Step::Waiting).count();
        let mut waiting = (room - 1).saturating_sub(begun);
        shown.retain(|row| {
            let is_shown = row.step != Step::Waiting || waiting > 0;
            waiting -= usize::from(row.step == Step::Waiting && waiting > 0);
            is_shown
        });
        shown.truncate(room - 1);
    }
    // On a narrow terminal, step and time say more than the end of a name.
    let narrow =
        style.width.map_or(usize::MAX, |columns| usize::from(columns).saturating_sub(STEP_WIDTH + TIME_WIDTH + 4));
    let widest = WIDEST_NAME.min(narrow.max(NARROWEST_NAME));
    let width = rows.iter().map(|row| printable(&row.name).width()).max().unwrap_or(0).min(widest);
    let mut lines: Vec<String> = shown.iter().map(|row| line(row, width, style)).collect();
    if shown.len() < rows.len() {
        let count = |is_counted: &dyn Fn(Step) -> bool| rows.iter().filter(|row| is_counted(row.step)).count();
        let counts = [
            (count(&|step| matches!(step, Step::Pending(_))), "starting"),
            (count(&|step| step == Step::Waiting), "waiting"),
            (count(&|step| matches!(step, Step::Failed | Step::Skipped)), "failed or skipped"),
        ];
        let mut summary = format!("{} of {} done", count(&Step::is_well), rows.len());
        for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
            summary.extend([", ", &count.to_string(), " ", what]);
        }
        lines.push(cut_end(&summary, style.width.map_or(usize::MAX, usize::from)));
    }
    lines
}

/// Returns the number of columns that a line takes, without its escape sequences.
pub(crate) fn shown_width(line: &str) -> usize {
    logs::plain(line.as_bytes()).width()
}

/// Formats a row: name, step, time and detail.
fn line(row: &ProgressRow, name_width: usize, style: TableStyle) -> String {
    let mut left = style.width.map_or(usize::MAX, usize::from);
    let mut line = String::new();
    let time = row.time.map(format_time).unwrap_or_default();
    let detail = printable(&row.detail);
    let cells = [
        (printable(&row.name), name_width, "1"),
        (row.step.text().to_owned(), STEP_WIDTH, row.step.paint()),
        (format!("{time:>TIME_WIDTH$}"), TIME_WIDTH, ""),
        (detail, 0, GREY),
    ];
    for (text, width, color) in cells {
        if left == 0 {
            break;
        }
        let widest = if width == 0 { left } else { width.min(left) };
        let shown = cut_end(&text, widest);
        let space = (width.saturating_sub(shown.width()) + 2).min(left - shown.width());
        left -= shown.width() + space;
        if style.color && !color.is_empty() && !shown.is_empty() {
            line.extend(["\u{1b}[", color, "m", &shown, "\u{1b}[0m"]);
        } else {
            line += &shown;
        }
        line.extend(std::iter::repeat_n(' ', space));
    }
    line.truncate(line.trim_end().len());
    line
}

/// Formats a time in tenths of a second up to a minute.
fn format_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 60.. => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::grid::tests::{style, without_colors};

    fn row(name: &str, step: Step) -> ProgressRow {
        let time = (step != Step::Waiting).then_some(Duration::from_millis(1234));
        ProgressRow { name: name.into(), step, time, detail: String::new() }
    }

    #[test]
    fn each_service_has_a_line_in_columns() {
        let detail = "nothing listens on port 19003".to_owned();
        let rows = [
            row("db", Step::Reached(State::Ready)),
            ProgressRow { detail, ..row("api", Step::Pending(State::Running)) },
            row("migrate", Step::Waiting),
        ];
        let plain = progress(&rows, style(false, Some(80)), 24);
        assert_eq!(
            plain,
            [
                "db       ready            1.2 s",
                "api      running          1.2 s  nothing listens on port 19003",
                "migrate  waiting"
            ]
        );
        let colored = progress(&rows, style(true, Some(80)), 24);
        assert_ne!(colored, plain);
        assert_eq!(colored.iter().map(|line| without_colors(line)).collect::<Vec<_>>(), plain);
        for width in 1..80 {
            let lines = progress(&rows, style(false, Some(width)), 24);
            assert!(lines.iter().all(|line| line.width() <= usize::from(width)), "{lines:?}");
        }
    }

    #[test]
    fn a_low_terminal_shows_what_is_still_to_do() {
        let steps = [Step::Reached(State::Ready), Step::Pending(State::Starting), Step::Waiting, Step::Failed];
        let rows: Vec<ProgressRow> = (0..30).map(|index| row(&format!("s{index}"), steps[index % 4])).collect();
        let lines = progress(&rows, style(false, Some(80)), 24);
        assert_eq!((lines.len(), lines[22].as_str()), (23, "8 of 30 done, 8 starting, 7 waiting, 7 failed or skipped"));
        assert!(lines[0].starts_with("s1 ") && lines.iter().all(|line| !line.contains("ready")), "{lines:#?}");
        for height in 0..4 {
            assert!(progress(&rows, style(false, Some(80)), height).len() <= height.saturating_sub(1).max(1));
        }
        assert_eq!(progress(&rows[..3], style(false, Some(80)), 24).len(), 3);
        let narrow = progress(&[row("a-rather-long-name-of-a-service", steps[1])], style(false, Some(40)), 24);
        assert_eq!(narrow, ["a-rather-long-n…  starting         1.2 s"]);
    }
}
