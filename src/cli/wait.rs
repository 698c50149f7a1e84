//! `devport wait`, and `--wait` of other commands: wait until services are ready, or have stopped.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::checks;
use crate::cli::args::{Goal, Wait};
use crate::cli::context::{Chosen, Context};
use crate::cli::output::note;
use crate::cli::{last_output, own_stack, screen};
use crate::config::Span;
use crate::error::{Error, Result};
use crate::logs;
use crate::os::{clock, process};
use crate::registry::{Problem, Reservation, State};
use crate::text::printable;
use crate::view::{self, ServiceView, Status};

/// The time between checks of a service: a script waits at most this much too long.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time limit of the check whose failure explains why a wait failed: the user has waited already.
const LAST_CHECK: Duration = Duration::from_secs(1);
/// How long a service may use its port wrongly after that was reported, which takes a second: some servers open another
/// port first.
const WRONG_PORT: Duration = Duration::from_secs(2);

/// A word with so many digits is likely to have a date. A number of attempts, a port or a pid has fewer.
const MANY_DIGITS: usize = 8;

/// Executes `devport wait`.
///
/// # Errors
/// [`Error::NotInTime`] or [`Error::NotAllInTime`] if the services do not reach the state, or if this checkout has none.
pub(super) fn execute(context: &Context, arguments: &Wait) -> Result<()> {
    let Chosen { mut services, unusable } = context.choose("wait", &arguments.targets, arguments.all)?;
    if arguments.targets.is_empty() {
        // A port without a command becomes neither ready nor stopped.
        services.retain(|service| !service.cmd.is_empty());
        let stopped = services.clone();
        context.overview().retain_meant_to_run(&mut services);
        if services.is_empty() && arguments.goal == Goal::Ready {
            // Nothing runs: a script must not take that for ready.
            services = stopped;
        }
    }
    let waited = wait(context, &services, arguments.goal, arguments.timeout.0);
    let views: Vec<ServiceView> = services.iter().map(|reservation| context.view(reservation)).collect();
    context.output.print_views(&views, arguments.targets.len() != 1)?;
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

/// Waits for at most `limit` until a service has reached a goal. Prints nothing. `rechecks`: whether the readiness check
/// of a service that is recorded as ready is run again, which makes no sense for one that was just started.
///
/// # Errors
/// [`Error::NotInTime`], or [`Error::Cancelled`] once `is_cancelled` returns true.
pub(super) fn quietly(
    context: &Context,
    reservation: &Reservation,
    goal: Goal,
    limit: Duration,
    rechecks: bool,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let deadline = clock::Deadline::after(limit);
    let mut awaited = Awaited { rechecks, ..Awaited::new(context, reservation, goal) };
    let _ = clock::poll(POLL_INTERVAL, limit, || {
        (awaited.is_decided(deadline.remaining()) || is_cancelled()).then_some(())
    });
    if is_cancelled() && !awaited.has_reached {
        return Err(Error::Cancelled);
    }
    awaited.finish(limit).map_or(Ok(()), Err)
}

/// Checks that a service that has stopped ran to its end.
///
/// # Errors
/// [`Error::NotCompleted`] if it did not exit with code 0.
pub(super) fn check_completed(context: &Context, reservation: &Reservation) -> Result<()> {
    let view = context.view_if_registered(reservation)?;
    if view.state == State::Completed {
        return Ok(());
    }
    let why = view.error.unwrap_or_else(|| "it was stopped".into());
    Err(Error::NotCompleted { service: reservation.name().to_owned(), why })
}

/// Waits until all services are ready at the same time, or have stopped. Prints the last output of each that does not
/// become ready, so that a script needs no second command to learn the reason.
///
/// # Errors
/// [`Error::NotInTime`] for a single service, [`Error::NotAllInTime`] for several.
fn wait(context: &Context, reservations: &[Reservation], goal: Goal, limit: Duration) -> Result<()> {
    let deadline = clock::Deadline::after(limit);
    let mut awaited: Vec<Awaited> =
        reservations.iter().map(|reservation| Awaited::new(context, reservation, goal)).collect();
    let _ = clock::poll(POLL_INTERVAL, limit, || {
        let mut pending = None;
        for service in &mut awaited {
            if !service.is_decided(deadline.remaining()) {
                pending.get_or_insert(service.reservation.name());
            }
        }
        if let Some(name) = pending {
            let waited = limit.saturating_sub(deadline.remaining()).as_secs();
            screen::draw(vec![format!("waiting for {}, {waited} s", printable(name))]);
        }
        pending.is_none().then_some(())
    });
    screen::clear();
    let total = awaited.len();
    let mut failures = Vec::new();
    for service in awaited {
        let reservation = service.reservation;
        if let Some(error) = service.finish(limit) {
            if goal == Goal::Ready {
                last_output::show(context, reservation);
            }
            failures.push(error);
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 if total == 1 => Err(failures.remove(0)),
        failed => {
            for error in &failures {
                note(&error.to_string());
            }
            Err(Error::NotAllInTime { state: goal.state(), failed, total })
        }
    }
}

/// Decides whether a service has reached the goal, or never will; `None` if it still may.
fn verdict(view: &ServiceView, goal: Goal) -> Option<std::result::Result<(), String>> {
    match (goal, view.state) {
        // A command that has just exited is recorded as ready until its supervisor reaps it.
        (Goal::Ready, State::Ready) => view.pid.is_none_or(may_run).then_some(Ok(())),
        (Goal::Ready, State::Completed) => Some(Ok(())),
        (Goal::Stopped, State::Stopped | State::Failed | State::Completed) if view.status == Status::Stopped => {
            Some(Ok(()))
        }
        // The next start is scheduled once no process is left.
        (Goal::Ready, State::CrashLoop) => view.next_start_at.map(|_| Err(reason(view))),
        (Goal::Ready, State::Failed | State::Orphaned) => Some(Err(reason(view))),
        (Goal::Ready, State::Stopped) if view.status == Status::Stopped => Some(Err(reason(view))),
        // Its supervisor stops it at the next heartbeat.
        (Goal::Ready, State::Running) if view.gone => Some(Err(reason(view))),
        _ => None,
    }
}

/// Returns whether a process has not ended, as far as is known.
fn may_run(pid: i32) -> bool {
    process::is_running(pid).unwrap_or(true)
}

/// A service that is waited for.
struct Awaited<'a> {
    context: &'a Context,
    reservation: &'a Reservation,
    goal: Goal,
    /// Whether the readiness check of a service that is recorded as ready is run again.
    rechecks: bool,
    /// Whether it had reached the goal at the last check.
    has_reached: bool,
    /// Why it will never reach the goal; `None` as far as is known.
    failure: Option<Error>,
    /// When it was first seen to use its port wrongly.
    wrong_port_since: Option<Instant>,
    /// How many runs there had been when the last two were compared.
    compared_runs: u64,
}

impl<'a> Awaited<'a> {
    fn new(context: &'a Context, reservation: &'a Reservation, goal: Goal) -> Self {
        Self {
            context,
            reservation,
            goal,
            rechecks: true,
            has_reached: false,
            failure: None,
            wrong_port_since: None,
            compared_runs: 0,
        }
    }

    /// Checks the service once; returns whether it has reached the goal, or never will. `left` is the time that is left.
    fn is_decided(&mut self, left: Duration) -> bool {
        if self.failure.is_some() {
            return true;
        }
        // A check that has passed is not run again while other services are waited for.
        let view = if self.goal == Goal::Ready && self.rechecks && !self.has_reached {
            self.context.checked_view(self.reservation, left)
        } else {
            self.context.view_if_registered(self.reservation)
        };
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                self.failure = Some(error);
                return true;
            }
        };
        self.failure = match verdict(&view, self.goal) {
            Some(result) => {
                self.has_reached = result.is_ok();
                result.err().map(|why| self.failed(&view, None, why))
            }
            None => {
                self.has_reached = false;
                self.hopeless()
            }
        };
        self.has_reached || self.failure.is_some()
    }

    /// Returns the error of a service that has not reached the goal within `limit`.
    fn finish(mut self, limit: Duration) -> Option<Error> {
        if self.has_reached {
            return None;
        }
        let failure = self.failure.take();
        Some(failure.unwrap_or_else(|| match self.context.view_if_registered(self.reservation) {
            Ok(view) => {
                let check = match self.goal {
                    Goal::Ready => failing_check(self.context, self.reservation, &view),
                    Goal::Stopped => None,
                };
                self.failed(&view, Some(limit), check.unwrap_or_else(|| reason(&view)))
            }
            Err(error) => error,
        }))
    }

    /// Returns the error of a service that will not become ready, although its supervisor goes on trying; `None` if it
    /// still may.
    fn hopeless(&mut self) -> Option<Error> {
        let why = (self.goal == Goal::Ready).then(|| self.hopeless_reason())??;
        // A view from before the reason may be from before the last failure.
        Some(match self.context.view_if_registered(self.reservation) {
            Ok(view) => self.failed(&view, None, why),
            Err(error) => error,
        })
    }

    /// Returns the error of a service that has not reached the goal. `waited` is `None` if it never will.
    fn failed(&self, view: &ServiceView, waited: Option<Duration>, mut why: String) -> Error {
        let waited_s = waited.map(|waited| (waited.as_secs_f64() * 10.0).round() / 10.0);
        let name = self.reservation.name();
        let quoted = shell_words::quote(name);
        let was_stopped = view.last_exit.as_ref().is_none_or(|exit| exit.was_requested);
        let hint = match (self.goal, view.state) {
            (Goal::Ready, State::Stopped) if was_stopped => {
                let reserved = view.cmd.is_empty().then(|| own_stack::start_hint(self.context, self.reservation));
                reserved.flatten().unwrap_or_else(|| format!("start it with `devport start --wait {quoted}`"))
            }
            (Goal::Ready, State::PortConflict) if starts_by_itself(self.context, self.reservation) => {
                format!("it starts by itself once its port is free; `devport wait {quoted}` waits for it")
            }
            (Goal::Ready, state) => match command_after_fix(state) {
                Some(command) if !why.contains(command) => {
                    format!("after the fix, run `{command} {quoted}`")
                }
                _ => format!("`devport logs {quoted}` shows more"),
            },
            (Goal::Stopped, _) => format!("`devport logs {quoted}` shows more"),
        };
        if let Some(next) = view::next_start(view, clock::wall())
            && matches!(view.state, State::Backoff | State::CrashLoop)
        {
            let _ = write!(why, "; devport tries again in {next}");
        }
        Error::NotInTime { service: name.to_owned(), state: self.goal.state(), waited_s, why, hint }
    }

    /// Returns the reason of [`Self::hopeless`].
    fn hopeless_reason(&mut self) -> Option<String> {
        let registry = &self.context.registry;
        let run = registry.run_state(&self.reservation.hash).ok()??;
        match run.error.as_ref().filter(|problem| problem.is_about_port() && run.state == State::Running) {
            Some(problem) => {
                let since = *self.wrong_port_since.get_or_insert_with(clock::now);
                if clock::now().saturating_duration_since(since) >= WRONG_PORT {
                    return Some(problem.to_string());
                }
            }
            None => self.wrong_port_since = None,
        }
        let exit = run.repeated_failure()?;
        // The next start is scheduled once no process is left.
        if run.child.is_some() || run.next_start_at.is_none() || run.runs == self.compared_runs {
            return None;
        }
        self.compared_runs = run.runs;
        let log = registry.paths().log(&self.reservation.hash);
        // No two lines in a row are blank.
        let last_line = |run| {
            logs::run_output(&log, run, 2).iter().rev().map(|line| lasting_words(line)).find(|line| !line.is_empty())
        };
        (last_line(run.runs) == last_line(run.runs - 1))
            .then(|| format!("it ended twice in the same way: {}", Problem::Exited(exit.clone())))
    }
}

/// Returns the words of a line that another run would print too: those with many digits are times or names of files, such
/// as that of npm's log.
fn lasting_words(line: &[u8]) -> Vec<Vec<u8>> {
    let is_lasting = |word: &&[u8]| word.iter().filter(|byte| byte.is_ascii_digit()).count() < MANY_DIGITS;
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).filter(is_lasting).map(<[u8]>::to_vec).collect()
}

/// Returns whether a service waits only for connections to end that block its port.
pub(super) fn starts_by_itself(context: &Context, reservation: &Reservation) -> bool {
    let run = context.registry.run_state(&reservation.hash).ok().flatten();
    matches!(run.and_then(|run| run.error), Some(Problem::PortClosing { .. }))
}

/// Returns the command that starts a service again whose command has failed; `None` if it has not.
fn command_after_fix(state: State) -> Option<&'static str> {
    match state {
        State::Backoff | State::CrashLoop => Some("devport restart --wait"),
        State::Failed => Some("devport start --wait"),
        _ => None,
    }
}

/// Returns why a service has not reached the goal: its error, or else its state.
fn reason(view: &ServiceView) -> String {
    view.error.clone().unwrap_or_else(|| format!("it is {}", view.state.as_str()))
}

/// Returns why the check of a running service fails now; `None` if something else is wrong, or nothing. A failure that
/// was recorded when the check was late is old.
fn failing_check(context: &Context, reservation: &Reservation, view: &ServiceView) -> Option<String> {
    let run = context.registry.run_state(&reservation.hash).ok()??;
    let is_late = matches!(run.error, Some(Problem::Late { .. }));
    let is_unexplained = view.state == State::Running && (view.error.is_none() || is_late);
    is_unexplained.then(|| checks::why_not_ready(&context.registry, reservation, LAST_CHECK)).flatten()
}
