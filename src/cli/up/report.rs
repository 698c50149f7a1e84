//! What `devport up` prints of the services that it started.

use serde_json::{Value, json};

use crate::cli::last_output;
use crate::cli::output::note;
use crate::cli::up::starting::{Starting, TaskResult};
use crate::registry::State;
use crate::view::{Outcome, ServiceView};

/// The services as a table and as JSON.
pub(super) struct Rows {
    /// The name of each service, and its view or why it has none.
    pub(super) table: Vec<(String, std::result::Result<ServiceView, String>)>,
    pub(super) json: Vec<Value>,
    /// How many did not come up, or have crashed since.
    pub(super) failed: usize,
}

/// Returns what became of each service, in the order in which they were planned.
pub(super) fn rows(starting: &Starting<'_>) -> Rows {
    let mut rows = Rows { table: Vec::new(), json: Vec::new(), failed: 0 };
    for (position, end) in starting.results() {
        let name = starting.tasks[position].name.clone();
        let view = view(starting, position, end);
        let outcome = view.as_ref().and_then(|view| view.outcome).unwrap_or(end.outcome);
        rows.failed += usize::from(matches!(outcome, Outcome::Failed | Outcome::Skipped));
        let Some(view) = view else {
            let why = end.error.as_ref().map_or_else(|| "it was not started".to_owned(), ToString::to_string);
            rows.json.push(json!({ "key": name, "outcome": outcome, "error": why }));
            rows.table.push((name, Err(why)));
            continue;
        };
        if outcome != end.outcome {
            let why = view.error.as_deref().unwrap_or("it was stopped");
            note(&format!("{}: it came up, and has ended since: {why}", starting.tasks[position].service.name));
        }
        // Paths that are not UTF-8 are refused when a service is registered.
        rows.json.extend(view.brief_json().ok().flatten());
        rows.table.push((name, Ok(view)));
    }
    rows
}

/// Returns the view of a service; `None` if it is not registered. One that came up may have ended since.
fn view(starting: &Starting<'_>, position: usize, end: &TaskResult) -> Option<ServiceView> {
    let context = starting.context;
    let reservation = starting.registered(position)?;
    let view = context.view(&reservation);
    let has_ended = view.state.is_down() || matches!(view.state, State::Stopped | State::Failed);
    let mut view = view.with(if end.came_up() && has_ended { Outcome::Failed } else { end.outcome });
    if view.outcome == Some(Outcome::Failed) {
        view.error = view.error.or_else(|| end.error.as_ref().map(ToString::to_string));
        view.last_output = Some(last_output::text(context, &reservation)).filter(|lines| !lines.is_empty());
    }
    Some(view)
}
