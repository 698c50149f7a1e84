//! `devport wait`, and `--wait` of other commands: wait until services are ready, or have stopped.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::cli::args::{Goal, Wait};
use crate::cli::context::{Chosen, Context};
use crate::cli::output::note;
use crate::config::Span;
use crate::error::{Error, Result};
use crate::logs::{self, Content, Line};
use crate::os::clock;
use crate::registry::{Reservation, State};
use crate::text::printable;
use crate::view::{self, LineStyle, ServiceView, Status};

/// How often to poll the state of a service: the longest time by which a script waits too long.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How many lines of output to print for a service that is not ready: enough for a stack trace, and less than a screen.
const LAST_LINES: usize = 20;

/// Executes `devport wait`.
///
/// # Errors
/// [`Error::NotInTime`] or [`Error::NotAllInTime`] if the services do not reach the state.
pub(super) fn execute(context: &Context, arguments: &Wait) -> Result<()> {
    let Chosen { services, unusable } = context.resolve_all(&arguments.targets)?;
    let waited = wait(context, &services, arguments.goal, arguments.timeout.0);
    let views: Vec<ServiceView> = services.iter().map(|reservation| context.view(reservation)).collect();
    context.output.print_views(&views, arguments.targets.len() > 1)?;
    waited?;
    if unusable > 0 {
        return Err(Error::SomeFailed { failed: unusable, total: services.len() + unusable });
    }
    Ok(())
}

/// Waits until services that were started are ready, if `--wait` is given.
///
/// # Errors
/// [`Error::NotInTime`] or [`Error::NotAllInTime`].
pub(super) fn until_ready(context: &Context, reservations: &[Reservation], limit: Option<Span>) -> Result<()> {
    limit.map_or(Ok(()), |limit| wait(context, reservations, Goal::Ready, limit.0))
}

/// Waits until all services are ready, or have stopped. Prints the last exit and output of each that does not become
/// ready, so that a script needs no second command to learn the reason.
///
/// # Errors
/// [`Error::NotInTime`] for a single service, [`Error::NotAllInTime`] for several.
fn wait(context: &Context, reservations: &[Reservation], goal: Goal, limit: Duration) -> Result<()> {
    let deadline = clock::Deadline::after(limit);
    let mut progress = Progress::new();
    let mut failures = Vec::new();
    for reservation in reservations {
        let result = clock::poll(POLL_INTERVAL, deadline.remaining(), || {
            progress.show(reservation.name(), limit.saturating_sub(deadline.remaining()));
            match context.view_if_registered(reservation) {
                Ok(view) => verdict(&view, goal).map(|verdict| verdict.map_err(|why| failure(reservation, goal, why))),
                Err(error) => Some(Err(error)),
            }
        });
        progress.clear();
        let result = result.unwrap_or_else(|| {
            let why = reason(&context.view_if_registered(reservation)?);
            Err(failure(reservation, goal, format!("{why} (waited for {} s)", limit.as_secs_f64())))
        });
        if let Err(error) = result {
            if goal == Goal::Ready {
                note_last_run(context, reservation);
            }
            failures.push(error);
        }
    }
    let failed = failures.len();
    match failures.pop() {
        None => Ok(()),
        Some(error) if reservations.len() == 1 => Err(error),
        Some(last) => {
            failures.push(last);
            for error in &failures {
                note(&error.to_string());
            }
            Err(Error::NotAllInTime { failed, total: reservations.len() })
        }
    }
}

/// Decides whether a service has reached the goal, or never will; `None` if it still may.
fn verdict(view: &ServiceView, goal: Goal) -> Option<std::result::Result<(), String>> {
    match (goal, view.state) {
        (Goal::Ready, State::Ready) => Some(Ok(())),
        (Goal::Stopped, State::Stopped | State::Failed) if view.status == Status::Stopped => Some(Ok(())),
        (Goal::Ready, State::Failed | State::CrashLoop | State::Orphaned) => Some(Err(reason(view))),
        (Goal::Ready, State::Stopped) if view.status == Status::Stopped => Some(Err(reason(view))),
        _ => None,
    }
}

/// Returns why a service has not reached the goal: its error, or else its state.
fn reason(view: &ServiceView) -> String {
    view.error.clone().unwrap_or_else(|| format!("it is {}", view.state.as_str()))
}

/// Returns the error of a service that has not reached the goal.
fn failure(reservation: &Reservation, goal: Goal, why: String) -> Error {
    let state = match goal {
        Goal::Ready => "ready",
        Goal::Stopped => "stopped",
    };
    Error::NotInTime { service: reservation.name().to_owned(), state, why }
}

/// Prints the last exit of a service and the end of its output on standard error.
fn note_last_run(context: &Context, reservation: &Reservation) {
    let name = reservation.name();
    if let Some(exit) = context.view(reservation).last_exit {
        note(&format!("{name}: last {}, at {:.0}", view::exit_summary(&exit), exit.at));
    }
    let log = context.registry.paths().log(&reservation.hash);
    let is_output = |line: &Line| matches!(line.content, Content::Output(_));
    // The error that follows says why the wait failed. A log that cannot be read must not hide it.
    let lines = logs::tail(&log, Some(LAST_LINES), &is_output).unwrap_or_default();
    if !lines.is_empty() {
        note(&format!("{name}: the end of its output:"));
        let style = LineStyle { is_terminal: io::stderr().is_terminal(), ..LineStyle::default() };
        let mut text = Vec::new();
        for line in &lines {
            view::push_line(&mut text, line, &style);
        }
        let _ = io::stderr().write_all(&text);
    }
}

/// A line on the terminal that says which service is being waited for.
struct Progress {
    is_terminal: bool,
    /// The text that the terminal shows.
    shown: String,
}

impl Progress {
    /// Creates a line that is not shown yet.
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown: String::new() }
    }

    /// Shows for how long a service has been waited for. Writes only if the text has changed.
    fn show(&mut self, name: &str, waited: Duration) {
        let text = format!("waiting for {}, {} s", printable(name), waited.as_secs());
        if self.is_terminal && text != self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            self.shown = text;
        }
    }

    fn clear(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.shown.clear();
        }
    }
}
