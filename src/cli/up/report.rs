//! What `devport up` prints of the services that it started.

use serde_json::{Value, json};

use crate::cli::last_output;
use crate::cli::up::starting::{End, Starting};
use crate::view::{Outcome, ServiceView};

/// The services as a table and as JSON.
pub(super) struct Rows {
    /// The name of each service, and its view or why it has none.
    pub(super) table: Vec<(String, std::result::Result<ServiceView, String>)>,
    pub(super) json: Vec<Value>,
}

/// Returns what became of each service, in the order in which they were planned.
pub(super) fn rows(starting: &Starting<'_>) -> Rows {
    let mut rows = Rows { table: Vec::new(), json: Vec::new() };
    for (position, end) in starting.ends() {
        let name = starting.tasks[position].name.clone();
        let Some(view) = view(starting, position, end) else {
            let why = end.error.as_ref().map_or_else(|| "not started".to_owned(), ToString::to_string);
            rows.json.push(json!({ "key": name, "outcome": end.outcome, "error": why }));
            rows.table.push((name, Err(why)));
            continue;
        };
        // Paths that are not UTF-8 are refused when a service is registered.
        rows.json.extend(view.brief_json().ok().flatten());
        rows.table.push((name, Ok(view)));
    }
    rows
}

/// Returns the view of a service; `None` if it is not registered.
fn view(starting: &Starting<'_>, position: usize, end: &End) -> Option<ServiceView> {
    let context = starting.context;
    let reservation = starting.registered(position)?;
    let mut view = context.view(&reservation).with(end.outcome);
    if end.outcome == Outcome::Failed {
        view.error = view.error.or_else(|| end.error.as_ref().map(ToString::to_string));
        view.last_output = Some(last_output::text(context, &reservation)).filter(|lines| !lines.is_empty());
    }
    Some(view)
}
