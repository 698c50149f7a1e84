//! `devport up --dry-run`: shows what `up` would do, and does nothing.

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::{json_layout, report, write_output};
use crate::cli::stack::Located;
use crate::cli::up::plan::{Plan, Task};
use crate::error::{Error, Result};
use crate::registry::Reservation;
use crate::text::printable;
use crate::view;

/// Prints what `up` would do with each service.
///
/// # Errors
/// [`Error::WouldChange`] if it would do anything, or the error of a service that cannot be started.
pub(super) fn execute(context: &Context, located: &Located, plan: Plan<'_>) -> Result<()> {
    let unlisted = located.unlisted(context)?;
    let mut sets = Sets { not_in_file: unlisted.iter().map(Reservation::name).collect(), ..Sets::default() };
    let mut lines = Vec::new();
    for (position, task) in plan.tasks.iter().enumerate().filter(|(position, _)| plan.errors[*position].is_none()) {
        let name = task.service.name.as_str();
        let action = action(&plan, position);
        if action.is_some() {
            sets.starts.push(name);
        }
        let kept = task.kept_port.map(|port| format!("keeps port {port}"));
        let then = action.iter().chain(&kept).fold(String::new(), |then, next| then + "; " + next);
        lines.push(match change(task) {
            Change::New => {
                sets.new.push(name);
                format!("+ {name} new{then}")
            }
            Change::Changed(fields) => {
                let line = format!("~ {name} changed ({}){then}", fields.join(", "));
                sets.changed.push(Changed { name, fields });
                line
            }
            Change::Unchanged => {
                sets.unchanged.push(name);
                format!("{} {name} unchanged{then}", if action.is_some() { '>' } else { '=' })
            }
        });
    }
    let would_change = !sets.starts.is_empty();
    lines.extend(sets.not_in_file.iter().map(|name| format!("- {name} not in the file")));
    if context.output.wants_table() {
        let text: String = lines.iter().map(|line| printable(line) + "\n").collect();
        write_output(text.as_bytes())?;
    } else {
        write_output(view::object(&sets, json_layout())?.as_bytes())?;
    }
    let errors = plan.tasks.iter().zip(plan.errors).filter_map(|(task, error)| Some((&task.service.name, error?)));
    let mut errors: Vec<(&String, Error)> = errors.collect();
    // The caller prints the last one.
    let last = errors.pop();
    for (name, error) in &errors {
        report(name, error);
    }
    match last {
        Some((_, error)) => Err(error),
        None if would_change => Err(Error::WouldChange),
        None => Ok(()),
    }
}

/// The services of a file by what `up` would do, as JSON has them.
#[derive(Debug, Default, Serialize)]
struct Sets<'a> {
    new: Vec<&'a str>,
    changed: Vec<Changed<'a>>,
    not_in_file: Vec<&'a str>,
    unchanged: Vec<&'a str>,
    /// Those of the other sets that `up` would start, restart or run, in this order.
    starts: Vec<&'a str>,
}

/// A service whose entry differs from its record.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    name: &'a str,
    fields: Vec<&'static str>,
}

/// How a service of the file compares with the registered one.
enum Change {
    New,
    /// These fields differ.
    Changed(Vec<&'static str>),
    Unchanged,
}

fn change(task: &Task<'_>) -> Change {
    let is_registered =
        task.wanted.as_ref().map_or(task.registered.is_some(), |(_, comparison)| comparison.is_registered);
    let mut fields = task.changed_fields();
    if task.kept_port.is_some() && !fields.contains(&"port") {
        fields.push("port");
    }
    match (is_registered, fields.is_empty()) {
        (false, _) => Change::New,
        (true, false) => Change::Changed(fields),
        (true, true) => Change::Unchanged,
    }
}

/// Returns what `up` would do with the service at a position of the plan; `None` if it would leave it alone.
fn action(plan: &Plan<'_>, position: usize) -> Option<String> {
    let task = &plan.tasks[position];
    if !task.will_start() {
        return None;
    }
    if !task.service.one_shot {
        let is_up = task.wanted.as_ref().is_some_and(|(_, comparison)| comparison.is_up);
        return Some(if is_up { "restarts" } else { "starts" }.to_owned());
    }
    let needs = |other: &usize| plan.needs[*other].contains(&position) && plan.tasks[*other].will_start();
    let needed_by: Vec<&str> =
        (0..plan.tasks.len()).filter(needs).map(|other| plan.tasks[other].service.name.as_str()).collect();
    Some(match needed_by.as_slice() {
        [] => "runs".to_owned(),
        [only] => format!("runs, because {only} needs it"),
        several => format!("runs, because {} need it", several.join(", ")),
    })
}
