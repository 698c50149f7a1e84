//! `devport wait`, and `--wait` of other commands: come back as soon as services are ready, or have ended.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::cli::args::{Goal, Wait};
use crate::cli::context::{Chosen, Context, note};
use crate::error::{Error, Result};
use crate::logs::{self, Content, Line};
use crate::os::clock;
use crate::registry::{Reservation, State};
use crate::view::{self, LineStyle, ServiceView, Status};

/// How often services are looked at.
const INTERVAL: Duration = Duration::from_millis(10);
/// How many lines of output say why a service is not ready.
const LINES: usize = 20;

/// Executes `devport wait`.
///
/// # Errors
/// [`Error::NotInTime`] if it does not come to be.
pub(super) fn execute(context: &mut Context, arguments: &Wait) -> Result<()> {
    let Chosen { services, unusable } = context.resolve_all(&arguments.targets)?;
    let waited = wait(context, &services, arguments.goal, arguments.timeout.0);
    let views: Vec<ServiceView> = services.iter().map(|reservation| context.view(reservation)).collect();
    context.print_views(&views, arguments.targets.len() > 1)?;
    waited?;
    if unusable > 0 {
        return Err(Error::SomeFailed { failed: unusable, total: services.len() + unusable });
    }
    Ok(())
}

/// Waits until all of some services are ready, or have ended. Why one is not is told on standard error, with the end
/// of its output, so that nobody need ask again.
///
/// # Errors
/// [`Error::NotInTime`], or [`Error::NotAllInTime`] if several do not come to it.
pub(super) fn wait(context: &Context, reservations: &[Reservation], goal: Goal, limit: Duration) -> Result<()> {
    let deadline = clock::Deadline::after(limit);
    let mut progress = Progress::new();
    let mut failures = Vec::new();
    for reservation in reservations {
        let verdict = clock::poll(INTERVAL, deadline.remaining(), || {
            progress.show(reservation.name(), limit.saturating_sub(deadline.remaining()));
            match context.view_if_registered(reservation) {
                Ok(view) => verdict(&view, goal).map(|verdict| verdict.map_err(|why| failure(reservation, goal, why))),
                Err(error) => Some(Err(error)),
            }
        });
        progress.clear();
        let verdict = verdict.unwrap_or_else(|| {
            let view = context.view_if_registered(reservation)?;
            let why = view.error.unwrap_or_else(|| format!("it is {}", view.state.as_str()));
            Err(failure(reservation, goal, format!("{why} (waited for {} s)", limit.as_secs_f64())))
        });
        if let Err(error) = verdict {
            if goal == Goal::Ready {
                tell_story(context, reservation);
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
                note(error.to_string());
            }
            Err(Error::NotAllInTime { failed, total: reservations.len() })
        }
    }
}

/// What is the case with a service that is waited for; `None` if it may still come to it.
fn verdict(view: &ServiceView, goal: Goal) -> Option<std::result::Result<(), String>> {
    let why = || view.error.clone().unwrap_or_else(|| format!("it is {}", view.state.as_str()));
    match (goal, view.state) {
        (Goal::Ready, State::Ready) => Some(Ok(())),
        (Goal::Stopped, State::Stopped | State::Failed) if view.status == Status::Stopped => Some(Ok(())),
        (Goal::Ready, State::Failed | State::CrashLoop | State::Orphaned) => Some(Err(why())),
        (Goal::Ready, State::Stopped) if view.status == Status::Stopped => Some(Err(why())),
        _ => None,
    }
}

/// A service that is not what it was waited for.
fn failure(reservation: &Reservation, goal: Goal, why: String) -> Error {
    let state = match goal {
        Goal::Ready => "ready",
        Goal::Stopped => "stopped",
    };
    Error::NotInTime { service: reservation.name().to_owned(), state, why }
}

/// Tells how a service last ended, and what it said at the end.
fn tell_story(context: &Context, reservation: &Reservation) {
    let name = reservation.name();
    if let Some(exit) = context.view(reservation).last_exit {
        let ran = Duration::from_millis(exit.ran_ms).as_secs_f64();
        note(format!("{name}: last {} after {ran:.1} s, at {:.0}", exit.how, exit.at));
    }
    let log = context.registry.paths().log(&reservation.hash);
    let is_output = |line: &Line| matches!(line.content, Content::Output(_));
    let lines = logs::tail(&log, Some(LINES), &is_output).unwrap_or_default();
    if !lines.is_empty() {
        note(format!("{name}: the end of its output:"));
        let look = LineStyle { terminal: io::stderr().is_terminal(), ..LineStyle::default() };
        let mut text = Vec::new();
        for line in &lines {
            view::push_line(&mut text, line, &look);
        }
        let _ = io::stderr().write_all(&text);
    }
}

/// A line on a terminal that says what is being waited for.
struct Progress {
    /// Whether somebody sees it.
    seen: bool,
    /// What it says now.
    shown: String,
}

impl Progress {
    /// Nothing yet.
    fn new() -> Self {
        Self { seen: io::stderr().is_terminal(), shown: String::new() }
    }

    /// Says it, unless that stands there already.
    fn show(&mut self, name: &str, waited: Duration) {
        let text = format!("waiting for {}, {} s", crate::text::printable(name), waited.as_secs());
        if self.seen && text != self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            self.shown = text;
        }
    }

    /// Takes it away.
    fn clear(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.shown.clear();
        }
    }
}
