//! Formats services as tables for people: one line for each service.

use jiff::Timestamp;

use crate::registry::State;
use crate::view::age::{next_start, up};
use crate::view::grid::{Cell, Column, Cut, Grid, Limits, TableStyle};
use crate::view::service::ServiceView;

/// Bold (ECMA-48, SGR).
const BOLD: &str = "1";
const RED: &str = "31";

/// Services that stand together in a table.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// The line above them; `None` for none.
    pub(crate) title: Option<String>,
    pub(crate) views: Vec<&'a ServiceView>,
}

/// How much of a path says where it leads.
const PATH: Limits = Limits { least: 24, good: 24 };
/// How much of a name says which service it is. The services of a stack differ at the end of their keys.
const NAME: Limits = Limits { least: 16, good: 24 };

/// A column, and whether only `--wide` shows it.
const COLUMNS: [(Column, bool); 17] = [
    column("NAME", 15, Cut::Start(NAME), false),
    // The id stands in for a name that was cut.
    column("ID", 13, Cut::Never, false),
    column("STATE", 14, Cut::Never, false),
    column("ADDRESS", 12, Cut::Never, false),
    column("UP", 8, Cut::Never, false),
    column("PID", 5, Cut::Never, false),
    column("RESTARTS", 6, Cut::Never, false),
    column("MEMORY", 11, Cut::Never, true),
    column("CPU", 10, Cut::Never, true),
    column("PORT", 1, Cut::Never, true),
    column("DIRECTORY", 7, Cut::Start(PATH), true),
    column("ROOT", 0, Cut::Start(PATH), true),
    column("CHECKOUT", 2, Cut::Never, true),
    column("STACK", 2, Cut::Never, true),
    column("BRANCH", 4, Cut::Never, true),
    column("STARTED BY", 3, Cut::Never, true),
    column("COMMAND", 9, Cut::End(Limits { least: 12, good: 20 }), false),
];

const fn column(heading: &'static str, rank: u8, cut: Cut, is_wide: bool) -> (Column, bool) {
    (Column { heading, rank, cut }, is_wide)
}

/// Creates a table with the columns of services.
fn grid(is_wide: bool) -> Grid {
    Grid::new(COLUMNS.iter().filter(|(_, only_wide)| is_wide || !only_wide).map(|(column, _)| *column).collect())
}

/// Formats services as a table with one line each. `is_wide` adds their resource usage, port, directory and origin.
pub(crate) fn list(groups: &[Group<'_>], style: TableStyle, is_wide: bool) -> String {
    let mut grid = grid(is_wide);
    for group in groups {
        if let Some(title) = &group.title {
            grid.push_title(title);
        }
        for view in &group.views {
            let name = view.key.as_ref().map_or("-", |key| key.as_str());
            grid.push(cells(name, view, style.now, is_wide));
        }
    }
    grid.render(style)
}

/// Formats the summary of a batch: the name of each entry, and its service or the error.
pub(crate) fn batch(rows: &[(String, Result<ServiceView, String>)], style: TableStyle) -> String {
    let mut grid = grid(false);
    for (name, outcome) in rows {
        grid.push(match outcome {
            Ok(view) => cells(name, view, style.now, false),
            Err(error) => failed(name, error),
        });
    }
    grid.render(style)
}

/// Returns the cells of a service.
fn cells(name: &str, view: &ServiceView, now: Timestamp, is_wide: bool) -> Vec<Cell> {
    let mut cells = vec![
        Cell::from(name).painted(BOLD),
        view.hashid.as_str().into(),
        Cell::from(view.state.as_str()).painted(paint(view.state)),
        or_dash(view.url.as_ref()),
        up(view, now).into(),
        or_dash(view.pid),
        view.restarts.into(),
    ];
    if is_wide {
        let usage = view.usage.as_ref();
        cells.extend([
            or_dash(usage.map(|usage| megabytes(usage.memory))),
            or_dash(usage.map(|usage| format!("{:.1}%", usage.cpu_percent))),
            or_dash(view.port),
            view.cwd.display().into(),
        ]);
        cells.extend(view.origin().map(|(_, value)| or_dash(value)));
    }
    cells.push(warning_and_command(view, now).into());
    cells
}

/// Returns the cells of an entry of a file that did not start.
fn failed(name: &str, error: &str) -> Vec<Cell> {
    let mut cells = vec![Cell::from(name).painted(BOLD), "-".into(), Cell::from(State::Failed.as_str()).painted(RED)];
    cells.extend(std::iter::repeat_n(Cell::from("-"), 4));
    cells.push(format!("[{error}]").into());
    cells
}

fn or_dash(value: Option<impl ToString>) -> Cell {
    value.map_or_else(|| "-".into(), Cell::from)
}

/// Returns the command as it can be pasted into a shell. What needs attention stands before it, because a narrow
/// terminal cuts the end: the error of a service that should run, that its checkout is gone, or that other machines can
/// reach it.
fn warning_and_command(view: &ServiceView, now: Timestamp) -> String {
    let command = if view.cmd.is_empty() { "(reserved)".to_owned() } else { shell_words::join(&view.cmd) };
    match (view.short_error.as_ref().or(view.error.as_ref()), next_start(view, now)) {
        (Some(error), Some(next)) => format!("[{error}; restarts in {next}]  {command}"),
        // A stopped service is no concern; `which` says why it last failed.
        (Some(error), None) if view.state != State::Stopped => format!("[{error}]  {command}"),
        _ if view.gone => format!("[its checkout is gone]  {command}"),
        _ if view.exposed => format!("[exposed to the network]  {command}"),
        _ => command,
    }
}

/// Formats a number of bytes in mebibytes.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// Returns the colour of a state: green while the service runs, yellow while it changes, red if it needs attention, grey
/// otherwise.
pub(super) fn paint(state: State) -> &'static str {
    match state {
        State::Running | State::Ready | State::Completed => "32",
        State::Starting | State::Stopping => "33",
        State::Stopped | State::Unknown => "90",
        State::Unhealthy
        | State::Backoff
        | State::CrashLoop
        | State::PortConflict
        | State::Failed
        | State::Orphaned => RED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Liveness;
    use crate::view::grid::tests::{style, without_colors};
    use crate::view::service::tests::view;

    #[test]
    fn the_command_stands_behind_what_needs_attention() {
        let now = Timestamp::UNIX_EPOCH;
        let held = || Liveness::Held(None);
        let ready = view(held(), State::Ready, None);
        let local = ServiceView { exposed: false, ..ready.clone() };
        let failing = ServiceView { error: Some("no".into()), ..ready.clone() };
        let stopped = ServiceView { pid: None, exposed: false, state: State::Stopped, ..failing.clone() };
        let down =
            ServiceView { state: State::Backoff, next_start_at: Timestamp::from_second(3).ok(), ..stopped.clone() };
        let failed = ServiceView { state: State::Failed, ..stopped.clone() };
        let gone = ServiceView { gone: true, ..stopped.clone() };
        let conflict = ServiceView { state: State::PortConflict, ..stopped.clone() };
        let reserved = ServiceView { cmd: Vec::new(), ..local.clone() };
        let quoted = ServiceView { cmd: ["sh", "-c", "echo a; sleep $N"].map(String::from).into(), ..local.clone() };
        for (view, expected) in [
            (local, "true"),
            (ready, "[exposed to the network]  true"),
            (failing, "[no]  true"),
            (down, "[no; restarts in 3s]  true"),
            (gone, "[its checkout is gone]  true"),
            (conflict, "[no]  true"),
            (failed, "[no]  true"),
            (stopped, "true"),
            (reserved, "(reserved)"),
            (quoted, "sh -c 'echo a; sleep $N'"),
        ] {
            assert_eq!(warning_and_command(&view, now), expected);
        }
    }

    #[test]
    fn a_list_has_the_address_and_stands_under_its_headings_in_colour() {
        let services = [view(Liveness::Held(None), State::Ready, None), view(Liveness::Free, State::Stopped, None)];
        for title in [None, Some("~/shop".to_owned())] {
            let groups = [Group { title, views: services.iter().collect() }];
            for (is_wide, width) in [(false, Some(80)), (true, Some(160)), (true, None)] {
                let plain = list(&groups, style(false, width), is_wide);
                let colored = list(&groups, style(true, width), is_wide);
                assert_ne!(colored, plain);
                assert_eq!(without_colors(&colored), plain);
                let heading = plain.lines().next().unwrap();
                for (name, value) in [("ID", "012"), ("STATE", "ready"), ("ADDRESS", "http://localhost:19000")] {
                    let row = plain.lines().find(|line| line.contains("ready")).unwrap();
                    assert_eq!(heading.find(name), row.find(value), "{plain}");
                }
            }
        }
    }

    #[test]
    fn a_name_that_is_cut_keeps_its_end_and_other_columns_make_room_for_it() {
        let service = |key: &str| {
            let running = view(Liveness::Held(None), State::Ready, None);
            ServiceView { key: crate::identity::Key::new(key).ok(), ..running }
        };
        let services = [service("shop@feature-payment/web"), service("shop@feature-payment-retry/web")];
        let groups = [Group { title: Some("~/shop".into()), views: services.iter().collect() }];
        let names = |width| -> Vec<String> {
            let table = list(&groups, style(false, Some(width)), false);
            table.lines().skip(2).map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(100), ["shop@feature-payment/web", "…eature-payment-retry/web"]);
        assert_eq!(names(80), ["…p@feature-payment/web", "…ure-payment-retry/web"]);
    }

    #[test]
    fn every_width_has_the_columns_that_matter_most() {
        let services = [view(Liveness::Held(None), State::Ready, None)];
        let headings = |width, is_wide| -> Vec<String> {
            let table = list(&[Group { title: None, views: services.iter().collect() }], style(false, width), is_wide);
            table.lines().next().unwrap().split_whitespace().map(ToString::to_string).collect()
        };
        let all: Vec<_> = COLUMNS.iter().flat_map(|(column, _)| column.heading.split(' ')).collect();
        assert_eq!(headings(None, true), all);
        assert_eq!(headings(Some(70), true), ["NAME", "ID", "STATE", "ADDRESS", "MEMORY", "CPU", "COMMAND"]);
        assert_eq!(headings(Some(70), false), ["NAME", "ID", "STATE", "ADDRESS", "UP", "COMMAND"]);
        assert_eq!(headings(Some(42), false), ["NAME", "ID", "STATE", "ADDRESS"]);
        assert_eq!(headings(Some(11), true), ["NAME", "STATE"]);
    }

    #[test]
    fn an_entry_that_failed_has_a_row_with_the_error() {
        let rows = [
            ("a".to_owned(), Ok(view(Liveness::Held(None), State::Ready, None))),
            ("b".to_owned(), Err("nowhere does not exist\u{7}".to_owned())),
        ];
        let table = batch(&rows, style(false, None));
        let row = table.lines().last().unwrap();
        assert!(
            row.starts_with('b') && row.contains("failed") && row.ends_with("[nowhere does not exist\\u{7}]"),
            "{table}"
        );
    }
}
