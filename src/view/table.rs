//! Services as tables for people: no borders, colours only where they are seen.

use std::time::Duration;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Row, Table};
use jiff::Timestamp;

use crate::registry::State;
use crate::text::printable;
use crate::view::service::ServiceView;

/// How a table shall look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableStyle {
    /// Whether colours are seen.
    pub(crate) color: bool,
    /// How wide it may be, in columns; `None`: as wide as it is.
    pub(crate) width: Option<u16>,
    /// What time it is.
    pub(crate) now: Timestamp,
}

/// A table of services, one a line; `wide`: with what they use and where they are.
pub(crate) fn list(views: &[ServiceView], look: TableStyle, wide: bool) -> String {
    if views.is_empty() {
        return "no services; `devport start --key api -- npm run dev` starts one\n".into();
    }
    let mut header = vec!["NAME", "ID", "PORT", "STATE", "PID", "UP", "RESTARTS"];
    if wide {
        header.extend(["MEMORY", "CPU", "ADDRESS", "DIRECTORY"]);
    }
    header.push("COMMAND");
    let mut table = table(look, &header);
    for view in views {
        let name = view.key.as_ref().map_or("-", |key| key.as_str());
        let name = Cell::new(printable(name));
        let mut cells = vec![
            if look.color { name.add_attribute(Attribute::Bold) } else { name },
            Cell::new(view.hashid.as_str()),
            Cell::new(view.port.map_or_else(|| "-".into(), |port| port.to_string())),
            state_cell(view.state, look),
            Cell::new(view.pid.map_or_else(|| "-".into(), |pid| pid.to_string())),
            Cell::new(up(view, look.now)),
            Cell::new(view.restarts),
        ];
        if wide {
            let usage = view.usage.as_ref();
            cells.extend([
                Cell::new(usage.map_or_else(|| "-".into(), |usage| megabytes(usage.memory))),
                Cell::new(usage.map_or_else(|| "-".into(), |usage| format!("{:.1}%", usage.cpu_percent))),
                Cell::new(address(view).unwrap_or_else(|| "-".into())),
                Cell::new(printable(&view.cwd.display().to_string())),
            ]);
        }
        cells.push(Cell::new(command_and_error(view)));
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    render(&table)
}

/// Where a service is reached; `None` if it has no port.
fn address(view: &ServiceView) -> Option<String> {
    view.url.clone().or_else(|| view.port.map(|port| format!("http://localhost:{port}")))
}

/// The command, behind what is wrong if that needs somebody's attention.
fn command_and_error(view: &ServiceView) -> String {
    let command = if view.cmd.is_empty() { "(reserved)".to_owned() } else { printable(&view.cmd.join(" ")) };
    match &view.error {
        Some(error) if view.pid.is_some() => format!("{command}  [{}]", printable(error)),
        _ if view.exposed => format!("{command}  [exposed to the network]"),
        _ => command,
    }
}

/// An amount of memory for people.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// Everything about one service, one fact a line.
pub(crate) fn details(view: &ServiceView, look: TableStyle) -> String {
    let mut table = table(look, &[]);
    let mut row = |name: &str, value: String| {
        table.add_row(vec![Cell::new(name), Cell::new(printable(&value))]);
    };
    row("name", view.key.as_ref().map_or_else(|| "-".into(), ToString::to_string));
    row("id", format!("{} ({})", view.hashid, view.hash));
    row("state", view.state.as_str().into());
    if let Some(port) = view.port {
        row("port", port.to_string());
        row("address", format!("http://localhost:{port}"));
    }
    if let Some(url) = &view.url {
        row("tailnet", url.clone());
    }
    row("command", shell_words::join(&view.cmd));
    row("directory", view.cwd.display().to_string());
    if let Some(pid) = view.pid {
        row("pid", pid.to_string());
    }
    if !view.listens.is_empty() {
        let listens = view.listens.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        row("listens on", if view.exposed { format!("{listens} (exposed to the network)") } else { listens });
    }
    row("up", up(view, look.now));
    row("restarts", view.restarts.to_string());
    if let Some(next) = view.next_start_at {
        row("next start", format!("in {}", span(look.now, next)));
    }
    if let Some(exit) = &view.last_exit {
        row("last exit", format!("{}, {} ago", exit.how, span(exit.at, look.now)));
    }
    if let Some(error) = &view.error {
        row("error", error.clone());
    }
    let Some(story) = &view.story else { return render(&table) };
    for (index, exit) in story.exits.iter().rev().enumerate() {
        let ran = Duration::from_millis(exit.ran_ms).as_secs_f64();
        let title = if index == 0 { "exits" } else { "" };
        row(title, format!("{} ago: {} after {ran:.1} s", span(exit.at, look.now), exit.how));
    }
    for (index, line) in story.last_output.iter().enumerate() {
        row(if index == 0 { "last output" } else { "" }, line.clone());
    }
    render(&table)
}

/// The summary of a batch: name, and the service or what went wrong.
pub(crate) fn batch(rows: &[(String, Result<ServiceView, String>)], look: TableStyle) -> String {
    let mut table = table(look, &["NAME", "ID", "PORT", "STATE"]);
    for (name, outcome) in rows {
        let mut row = vec![Cell::new(printable(name))];
        match outcome {
            Ok(view) => row.extend([
                Cell::new(view.hashid.as_str()),
                Cell::new(view.port.map_or_else(|| "-".into(), |port| port.to_string())),
                state_cell(view.state, look),
            ]),
            Err(error) => {
                let cell = Cell::new(format!("error: {}", printable(error)));
                row.extend([Cell::new("-"), Cell::new("-"), if look.color { cell.fg(Color::Red) } else { cell }]);
            }
        }
        table.add_row(row);
    }
    render(&table)
}

/// A table without borders.
fn table(look: TableStyle, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    match look.width {
        Some(width) => table.set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if look.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if !header.is_empty() {
        table.set_header(header);
    }
    table
}

/// The table as text, without blanks at the ends of lines.
fn render(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text += line.strip_prefix(' ').unwrap_or(&line).trim_end();
        text.push('\n');
    }
    text
}

/// A state, in the colour that says how good it is.
fn state_cell(state: State, look: TableStyle) -> Cell {
    let cell = Cell::new(state.as_str());
    if !look.color {
        return cell;
    }
    match state {
        State::Running | State::Ready => cell.fg(Color::Green),
        State::Starting | State::Stopping => cell.fg(Color::Yellow),
        State::Stopped | State::Unknown => cell.fg(Color::DarkGrey),
        State::Unhealthy
        | State::Backoff
        | State::CrashLoop
        | State::PortConflict
        | State::Failed
        | State::Orphaned => cell.fg(Color::Red),
    }
}

/// Since when it runs, or when it last did.
fn up(view: &ServiceView, now: Timestamp) -> String {
    match view.started_at {
        Some(started) => span(started, now),
        None if view.last_up == Timestamp::UNIX_EPOCH => "never".into(),
        None => format!("{} ago", span(view.last_up, now)),
    }
}

/// The time between two moments, as its two largest units: `3d 4h`.
fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| span(start, Timestamp::from_second(seconds).unwrap());
        assert_eq!([5, 65, 3_700, 90_000].map(after), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
    }
}
