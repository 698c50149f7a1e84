//! Waits until a supervisor that was just launched has recorded whether its service runs.

use std::time::Duration;

use crate::config::{Policy, shell_hint};
use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::process::{self, ProcessIdentity};
use crate::registry::{ExitHow, Problem, Registry, Reservation, RunState, State};

/// The time between reads of the run state at first: most supervisors record one within a few milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long a supervisor may take to record a state, in addition to the grace period of processes that it must end
/// first. It must be longer than the time that a stop waits for processes after SIGKILL (`stop::MARGIN`).
const LIMIT: Duration = Duration::from_secs(20);

/// Waits until the supervisor `pid` has recorded whether the service runs. `before` is the previous supervisor, whose
/// run state is ignored. Returns what keeps the service from running for now; `None` if nothing does.
///
/// # Errors
/// The reason why the service does not run.
pub(super) fn wait(
    registry: &Registry,
    reservation: &Reservation,
    before: Option<&ProcessIdentity>,
    pid: i32,
) -> Result<Option<Problem>> {
    let limit = limit(&reservation.policy);
    let mut last_error: Option<Error> = None;
    let verdict = clock::poll(POLL_INTERVAL, limit, || {
        // The next attempt may succeed.
        poll(registry, reservation, before, pid).unwrap_or_else(|error| {
            last_error = Some(error);
            None
        })
    });
    verdict.unwrap_or_else(|| {
        let cause = last_error.map(|error| format!(": {error}")).unwrap_or_default();
        let why = format!("its supervisor did not report within {} s{cause}", limit.as_secs());
        Err(start_failed(reservation, why, None))
    })
}

/// Reads once what a supervisor has recorded; `None` if the start is undecided.
///
/// # Errors
/// If the run state cannot be read, or the system does not say whether the supervisor runs.
fn poll(
    registry: &Registry,
    reservation: &Reservation,
    before: Option<&ProcessIdentity>,
    pid: i32,
) -> Result<Option<Result<Option<Problem>>>> {
    // Check for exit before reading the state, so that the supervisor's last write is not missed.
    let has_exited = !process::is_running(pid).map_err(Error::system(format!("check pid {pid}")))?;
    let run = registry.run_state(&reservation.hash)?.filter(|run| Some(&run.supervisor) != before);
    // A supervisor that records a failure exits next. Until then it holds the identity lock, and a command that follows
    // would see the service as running.
    let run = run.filter(|run| has_exited || run.state != State::Failed);
    let verdict = run.and_then(|run| verdict(run, reservation));
    if verdict.is_some() || !has_exited {
        return Ok(verdict);
    }
    Ok(Some(match registry.take_launch_failure(&reservation.hash, pid) {
        Some(why) => Err(start_failed(reservation, why, None)),
        // Another supervisor was faster.
        None if registry.liveness(&reservation.hash).is_held() => Ok(None),
        None => {
            let hint = format!("`devport run {}` shows what happens", shell_words::quote(reservation.name()));
            Err(start_failed(reservation, "its supervisor ended without a reason".into(), Some(hint)))
        }
    }))
}

/// Returns the error of a service that could not be started. In a deleted directory, no other hint helps.
fn start_failed(reservation: &Reservation, why: String, hint: Option<String>) -> Error {
    let name = shell_words::quote(reservation.name());
    let remove = || format!("create it, or remove the service with `devport rm {name}`");
    let hint = if reservation.cwd.exists() { hint } else { Some(remove()) };
    Error::StartFailed { service: reservation.name().to_owned(), why, hint }
}

/// Returns how long to wait for a supervisor: it may have to end orphans of the previous one first.
fn limit(policy: &Policy) -> Duration {
    policy.grace.0.saturating_add(LIMIT)
}

/// Returns whether the supervisor that recorded a failure has run the command. The exit codes 126 and 127 say that there
/// was nothing to run (see `supervisor/lifecycle.rs`).
fn has_run(run: &RunState) -> bool {
    run.exit_of_this_start().is_some_and(|exit| !matches!(exit.how, ExitHow::Code(126 | 127)))
}

/// Derives the result of [`wait`] from a run state; `None` if the start is undecided.
fn verdict(run: RunState, reservation: &Reservation) -> Option<Result<Option<Problem>>> {
    let service = reservation.name();
    match run.state {
        State::Running | State::Ready | State::Unhealthy | State::Backoff | State::CrashLoop => Some(Ok(None)),
        State::PortConflict => {
            let owner = match run.error {
                // The port becomes free without anybody's help.
                Some(closing @ Problem::PortClosing { .. }) => return Some(Ok(Some(closing))),
                Some(Problem::PortTaken { owner, .. }) => owner,
                other => other.map_or_else(|| "another process".into(), |problem| problem.to_string()),
            };
            let hint = format!(
                "end that process, and {service} starts within 5 s; or stop {service} with `devport stop {}`",
                shell_words::quote(service)
            );
            Some(Err(Error::PortTaken { port: reservation.port, owner, hint }))
        }
        // The command has run and is not restarted. One that is restarted has started too.
        State::Failed if has_run(&run) => Some(Ok(None)),
        State::Failed => {
            let is_new = run.exits.is_empty() && reservation.file.is_none();
            let forget = is_new.then(|| {
                format!("it stays registered; `devport rm {}` removes it", shell_words::quote(reservation.name()))
            });
            let hint = [shell_hint(&reservation.cmd), forget]
                .into_iter()
                .flatten()
                .reduce(|hint, forget| format!("{hint}; {forget}"));
            let why = run.error.map_or_else(String::new, |why| why.to_string());
            Some(Err(start_failed(reservation, why, hint)))
        }
        // A short command ends before its state is read.
        State::Stopped if run.has_completed(reservation.policy.restart) => Some(Ok(None)),
        State::Stopped => Some(Err(start_failed(reservation, "it was stopped immediately".into(), None))),
        State::Starting | State::Stopping | State::Orphaned | State::Completed | State::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use crate::launch::stop::MARGIN;

    #[test]
    fn the_limit_exceeds_the_grace_period_and_the_margin_of_a_stop() {
        for grace in [0, 5, 30, 3600].map(Duration::from_secs) {
            let policy = Policy { grace: Span(grace), ..Policy::default() };
            assert!(limit(&policy) > grace + MARGIN, "{grace:?}");
        }
    }
}
