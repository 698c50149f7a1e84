//! `devport up`: starts the services of a stack, each after those that it needs.

mod dry_run;
mod foreground;
mod job;
mod kept_port;
mod plan;
mod report;
mod starting;

use std::ops::ControlFlow;

use crate::cli::args::Up;
use crate::cli::context::Context;
use crate::cli::missing_tmux;
use crate::cli::output::{json_layout, note, write_output};
use crate::cli::stack::Located;
use crate::cli::up::kept_port::note_kept_ports;
use crate::cli::up::plan::Plan;
use crate::cli::up::report::{Rows, rows};
use crate::cli::up::starting::{MODE, Starting};
use crate::error::{Error, Result};
use crate::view;

/// Executes `devport up`.
///
/// # Errors
/// If the file or a name is not valid, or [`Error::SomeNotUp`] if not all services came up.
pub(super) fn execute(context: &Context, arguments: &Up) -> Result<()> {
    let located = Located::find(context, arguments.file.as_deref())?;
    let order = located.order(&arguments.names, arguments.no_deps)?;
    located.check_keys(context)?;
    if arguments.dry_run {
        note_kept_ports(context, &located, &order.services)?;
        let ports = located.known_ports(context)?;
        let plan = Plan::new(context, &located, order, &ports, &arguments.names)?;
        return dry_run::execute(context, &located, plan);
    }
    let lock = located.lock(context)?;
    note_kept_ports(context, &located, &order.services)?;
    let ports = located.reserve(context)?;
    located.note_rival();
    for reservation in located.unlisted(context)? {
        let name = reservation.name();
        note(&format!("{name} is not in the file any more; `devport rm {}` removes it", shell_words::quote(name)));
    }
    let mut plan = Plan::new(context, &located, order, &ports, &arguments.names)?;
    if arguments.detach {
        let result = detached(context, &located, &mut plan, arguments);
        lock.delete().and(result)
    } else {
        foreground::execute(context, &located, &mut plan, arguments.timeout.0, lock)
    }
}

/// Starts the services of a plan, and prints them once all have come up or failed.
fn detached(context: &Context, located: &Located, plan: &mut Plan<'_>, arguments: &Up) -> Result<()> {
    let mut starting = Starting::new(context, located, plan, arguments.timeout.0, Some(&arguments.names));
    let is_over = |starting: &mut Starting<'_>| {
        Ok(if starting.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    starting.run(is_over, |_| {})?;
    missing_tmux::note_once(context, MODE, starting.results().filter_map(|(_, end)| end.ensured.as_ref()));
    let Rows { table, json, failed } = rows(&starting);
    let text = if context.output.wants_table() {
        view::batch(&table, context.output.table_style())
    } else {
        view::values(&json, json_layout())?
    };
    write_output(text.as_bytes())?;
    if failed > 0 { Err(Error::SomeNotUp { failed, total: starting.tasks.len() }) } else { Ok(()) }
}
