//! Formats services as tables for people, without borders.

use std::net::SocketAddr;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Row, Table};
use jiff::Timestamp;

use crate::registry::{Exit, State};
use crate::text::printable;
use crate::view::port::PortView;
use crate::view::service::ServiceView;

/// How a table is formatted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableStyle {
    /// The table contains colours.
    pub(crate) color: bool,
    /// The greatest width in columns; `None` for no limit.
    pub(crate) width: Option<u16>,
    /// The current time, from which ages are computed.
    pub(crate) now: Timestamp,
}

/// Formats services as a table with one line each. `wide` adds their resource usage, address, directory and origin.
pub(crate) fn list(views: &[ServiceView], style: TableStyle, wide: bool) -> String {
    if views.is_empty() {
        return "no services; `devport start --key api -- npm run dev` starts one\n".into();
    }
    let mut header = vec!["NAME", "ID", "PORT", "STATE", "PID", "UP", "RESTARTS"];
    if wide {
        header.extend(["MEMORY", "CPU", "ADDRESS", "DIRECTORY", "ROOT", "CHECKOUT", "BRANCH", "STARTED BY"]);
    }
    header.push("COMMAND");
    let mut table = table(style, &header);
    for view in views {
        let name = view.key.as_ref().map_or("-", |key| key.as_str());
        let name = Cell::new(printable(name));
        let mut cells = vec![
            if style.color { name.add_attribute(Attribute::Bold) } else { name },
            Cell::new(view.hashid.as_str()),
            Cell::new(view.port.map_or_else(|| "-".into(), |port| port.to_string())),
            state_cell(view.state, style),
            Cell::new(view.pid.map_or_else(|| "-".into(), |pid| pid.to_string())),
            Cell::new(up(view, style.now)),
            Cell::new(view.restarts),
        ];
        if wide {
            let usage = view.usage.as_ref();
            cells.extend([
                Cell::new(usage.map_or_else(|| "-".into(), |usage| megabytes(usage.memory))),
                Cell::new(usage.map_or_else(|| "-".into(), |usage| format!("{:.1}%", usage.cpu_percent))),
                Cell::new(view.url.clone().unwrap_or_else(|| "-".into())),
                Cell::new(printable(&view.cwd.display().to_string())),
            ]);
            cells.extend(
                origin(view).map(|(_, value)| Cell::new(value.map_or_else(|| "-".into(), |text| printable(&text)))),
            );
        }
        cells.push(Cell::new(command_and_error(view)));
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    render(&table)
}

/// Returns where a service came from: the name and the value of each fact, which is `None` if it is not known.
fn origin(view: &ServiceView) -> [(&'static str, Option<String>); 4] {
    [
        ("root", view.root.as_ref().map(|root| root.display().to_string())),
        ("checkout", view.checkout.clone()),
        ("branch", view.branch.clone()),
        ("started by", view.started_by.clone()),
    ]
}

/// Returns the command, followed by what needs the user's attention: the error of a running service, or that other
/// machines can reach it.
fn command_and_error(view: &ServiceView) -> String {
    let command = if view.cmd.is_empty() { "(reserved)".to_owned() } else { printable(&view.cmd.join(" ")) };
    match &view.error {
        Some(error) if view.pid.is_some() => format!("{command}  [{}]", printable(error)),
        _ if view.gone => format!("{command}  [its checkout is gone]"),
        _ if view.exposed => format!("{command}  [exposed to the network]"),
        _ => command,
    }
}

/// Formats a number of bytes in mebibytes.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// Formats one service with all its details, one on each line.
pub(crate) fn details(view: &ServiceView, style: TableStyle) -> String {
    let mut table = table(style, &[]);
    let mut row = |name: &str, value: String| add_row(&mut table, name, &value);
    row("name", view.key.as_ref().map_or_else(|| "-".into(), ToString::to_string));
    row("id", format!("{} ({})", view.hashid, view.hash));
    row("state", view.state.as_str().into());
    if let Some(port) = view.port {
        row("port", port.to_string());
    }
    if let Some(address) = view.local_address() {
        row("address", address);
    }
    if let Some(url) = &view.tailnet_url {
        row("tailnet", url.clone());
    }
    row("command", shell_words::join(&view.cmd));
    row("directory", view.cwd.display().to_string());
    for (name, value) in origin(view) {
        if let Some(value) = value {
            row(name, value);
        }
    }
    if let Some(pid) = view.pid {
        row("pid", pid.to_string());
    }
    if let Some(pid) = view.handed_over_to {
        row("background", format!("the command ended with exit code 0, handed over to pid {pid}"));
    }
    if !view.listens.is_empty() {
        let listens = addresses(&view.listens);
        row("listens on", if view.exposed { format!("{listens} (exposed to the network)") } else { listens });
    }
    row("up", up(view, style.now));
    row("restarts", view.restarts.to_string());
    if let Some(next) = view.next_start_at {
        row("next start", format!("in {}", span(style.now, next)));
    }
    if let Some(exit) = &view.last_exit {
        row("last exit", format!("{}, {} ago", exit.how, span(exit.at, style.now)));
    }
    if let Some(error) = &view.error {
        row("error", error.clone());
    }
    for listener in &view.other_listeners {
        row("also listens", listener.summary());
    }
    let Some(details) = &view.details else { return render(&table) };
    for (index, exit) in details.exits.iter().rev().enumerate() {
        let title = if index == 0 { "exits" } else { "" };
        row(title, format!("{} ago: {}", span(exit.at, style.now), exit_story(exit)));
    }
    for (index, line) in details.last_output.iter().enumerate() {
        row(if index == 0 { "output before" } else { "" }, line.clone());
    }
    render(&table)
}

/// Formats a port and the processes that listen on it, one fact on each line.
pub(crate) fn port_details(view: &PortView, style: TableStyle) -> String {
    let mut table = table(style, &[]);
    let mut row = |name: &str, value: String| add_row(&mut table, name, &value);
    row("port", view.port.to_string());
    for listener in &view.listeners {
        row("listens on", addresses(&listener.addresses));
        row(
            "pid",
            listener
                .pid
                .map_or_else(|| "not visible (of another user, or of a container)".into(), |pid| pid.to_string()),
        );
        row("user", listener.user.clone());
        let started = listener.started_at.map(|at| format!("{at:.0} ({} ago)", span(at, style.now)));
        let checkout = listener.checkout.as_ref().map(|checkout| checkout.display().to_string());
        for (name, value) in [
            ("command", listener.command.clone()),
            ("directory", listener.directory()),
            ("checkout", checkout),
            ("started", started),
        ] {
            if let Some(value) = value {
                row(name, value);
            }
        }
        if listener.pid.is_some() {
            row("service", listener.service.clone().unwrap_or_else(|| "none: not started by devport".into()));
        }
    }
    render(&table)
}

/// Adds a line with a name and a value.
fn add_row(table: &mut Table, name: &str, value: &str) {
    table.add_row(vec![Cell::new(name), Cell::new(printable(value))]);
}

/// Formats addresses for people.
fn addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Formats the summary of a batch: the name of each entry, and its service or the error.
pub(crate) fn batch(rows: &[(String, Result<ServiceView, String>)], style: TableStyle) -> String {
    let mut table = table(style, &["NAME", "ID", "PORT", "STATE"]);
    for (name, outcome) in rows {
        let mut row = vec![Cell::new(printable(name))];
        match outcome {
            Ok(view) => row.extend([
                Cell::new(view.hashid.as_str()),
                Cell::new(view.port.map_or_else(|| "-".into(), |port| port.to_string())),
                state_cell(view.state, style),
            ]),
            Err(error) => {
                let cell = Cell::new(format!("error: {}", printable(error)));
                row.extend([Cell::new("-"), Cell::new("-"), if style.color { cell.fg(Color::Red) } else { cell }]);
            }
        }
        table.add_row(row);
    }
    render(&table)
}

/// Creates a table without borders.
fn table(style: TableStyle, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    match style.width {
        Some(width) => table.set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if !header.is_empty() {
        table.set_header(header);
    }
    table
}

/// Renders a table without trailing spaces.
fn render(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text += line.strip_prefix(' ').unwrap_or(&line).trim_end();
        text.push('\n');
    }
    text
}

/// Formats a state: green while the service runs, yellow while it changes, red if it needs attention.
fn state_cell(state: State, style: TableStyle) -> Cell {
    let cell = Cell::new(state.as_str());
    if !style.color {
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

/// Returns for how long a service has been running, or when it last ran.
fn up(view: &ServiceView, now: Timestamp) -> String {
    match view.started_at {
        Some(started) => span(started, now),
        None if view.last_up == Timestamp::UNIX_EPOCH => "never".into(),
        None => format!("{} ago", span(view.last_up, now)),
    }
}

/// Formats an exit, and whether devport ended the run.
fn exit_story(exit: &Exit) -> String {
    if exit.was_requested { format!("{exit}, stopped by devport") } else { exit.to_string() }
}

/// Formats the time between two moments in its two largest units, such as `3d 4h`.
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
    use std::time::Duration;

    use super::*;
    use crate::registry::{ExitHow, Liveness};
    use crate::view::service::tests::view;

    #[test]
    fn spans_have_two_units() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| span(start, Timestamp::from_second(seconds).unwrap());
        assert_eq!([5, 65, 3_700, 90_000].map(after), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn the_command_is_followed_by_what_needs_attention() {
        let held = || Liveness::Held(None);
        let ready = view(held(), State::Ready, None);
        let local = ServiceView { exposed: false, ..ready.clone() };
        let failing = ServiceView { error: Some("no\u{7}".into()), ..ready.clone() };
        let stopped = ServiceView { pid: None, exposed: false, ..failing.clone() };
        let reserved = ServiceView { cmd: Vec::new(), ..local.clone() };
        let gone = ServiceView { gone: true, ..stopped.clone() };
        for (view, expected) in [
            (local, "true"),
            (ready, "true  [exposed to the network]"),
            (failing, "true  [no\\u{7}]"),
            // The column STATE says that it does not run; `which` has the reason.
            (stopped, "true"),
            (gone, "true  [its checkout is gone]"),
            (reserved, "(reserved)"),
        ] {
            assert_eq!(command_and_error(&view), expected);
        }
    }

    #[test]
    fn the_details_name_the_process_that_a_command_has_handed_over_to() {
        let running = view(Liveness::Held(None), State::Ready, None);
        let style = TableStyle { color: false, width: None, now: Timestamp::UNIX_EPOCH };
        assert!(!details(&running, style).contains("handed over"));
        let handed_over = ServiceView { handed_over_to: Some(9), ..running };
        assert!(details(&handed_over, style).contains("handed over to pid 9"));
    }

    #[test]
    fn a_service_is_up_since_its_start_or_was_up_some_time_ago() {
        let running = view(Liveness::Held(None), State::Ready, None);
        let stopped = ServiceView { started_at: None, ..running.clone() };
        let reserved = ServiceView { last_up: Timestamp::UNIX_EPOCH, ..stopped.clone() };
        let now = "2026-11-22T00:05:00Z".parse().unwrap();
        let started = ServiceView { started_at: Some("2026-11-22T00:04:58Z".parse().unwrap()), ..running };
        assert_eq!([started, stopped, reserved].map(|view| up(&view, now)), ["2s", "5m 0s ago", "never"]);
    }

    #[test]
    fn an_exit_says_whether_devport_ended_the_run() {
        let exit = Exit::new(Timestamp::UNIX_EPOCH, ExitHow::Signal(15), Duration::from_millis(2_540));
        assert_eq!(exit_story(&exit), "killed by SIGTERM after 2.5 s");
        assert_eq!(
            exit_story(&Exit { was_requested: true, ..exit }),
            "killed by SIGTERM after 2.5 s, stopped by devport"
        );
    }
}
