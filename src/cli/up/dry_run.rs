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
    let (mut lines, mut would_change) = (Vec::new(), false);
    for (task, _) in plan.tasks.iter().zip(&plan.errors).filter(|(_, error)| error.is_none()) {
        let name = task.service.name.as_str();
        would_change |= would_start(task);
        lines.push(match change(task) {
            Change::New => {
                sets.new.push(name);
                format!("+ {name} new")
            }
            Change::Changed(fields) => {
                let line = format!("~ {name} changed ({})", fields.join(", "));
                sets.changed.push(Changed { name, fields });
                line
            }
            Change::Unchanged => {
                sets.unchanged.push(name);
                format!("= {name} unchanged{}", if would_start(task) { ", not running" } else { "" })
            }
        });
    }
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
    let Some((_, comparison)) = &task.wanted else {
        return if task.registered.is_some() { Change::Unchanged } else { Change::New };
    };
    let fields = task.changed_fields();
    match (comparison.is_registered, fields.is_empty()) {
        (false, _) => Change::New,
        (true, false) => Change::Changed(fields),
        (true, true) => Change::Unchanged,
    }
}

/// Returns whether `up` would start a service, or restart it.
fn would_start(task: &Task<'_>) -> bool {
    !task.is_omitted && !task.is_current()
}
