//! Waiting for what a supervisor that was just launched has to say.

use std::time::Duration;

use crate::config::{Policy, RestartWhen};
use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::process::{self, ProcessIdentity};
use crate::registry::{Exit, ExitHow, Registry, Reservation, RunState, State};

/// How often we look at first: most supervisors answer within milliseconds.
const EAGER: Duration = Duration::from_millis(1);
/// How long we look, beyond the grace period that processes of an earlier run may take to end.
const LIMIT: Duration = Duration::from_secs(20);

/// Waits until the supervisor has recorded what came of the start. `before` is the last supervisor, whose
/// record does not count; `pid` is the new one's.
///
/// # Errors
/// The reason why the service does not run.
pub(super) fn wait(
    registry: &Registry,
    reservation: &Reservation,
    before: Option<&ProcessIdentity>,
    pid: i32,
) -> Result<()> {
    let failed = |why: &str, hint: Option<String>| Error::StartFailed {
        service: reservation.name().to_owned(),
        why: why.to_owned(),
        hint,
    };
    let limit = limit(&reservation.policy);
    let mut unanswered: Option<Error> = None;
    let look = || -> Result<Option<Result<()>>> {
        // Checked before the state is read, so that the last write of a supervisor that ends is not missed.
        let gone = !process::is_running(pid).map_err(Error::system(format!("look at pid {pid}")))?;
        let run = registry.run_state(&reservation.hash)?.filter(|run| Some(&run.supervisor) != before);
        // A supervisor that failed is gone in a moment, and until then its lock says that it runs.
        let run = run.filter(|run| gone || run.state != State::Failed);
        Ok(match run.and_then(|run| verdict(run, reservation)) {
            Some(verdict) => Some(verdict),
            None if gone => Some(match registry.take_launch_failure(&reservation.hash, pid) {
                Some(why) => Err(failed(&why, None)),
                None if registry.liveness(&reservation.hash).is_held() => Ok(()),
                None => {
                    let hint = format!("`devport run {}` shows what happens", reservation.name());
                    Err(failed("its supervisor ended before it could say why", Some(hint)))
                }
            }),
            None => None,
        })
    };
    let verdict = clock::poll(EAGER, limit, || match look() {
        Ok(verdict) => verdict,
        Err(error) => {
            // Not an answer; the next look may get one.
            unanswered = Some(error);
            None
        }
    });
    verdict.unwrap_or_else(|| {
        let cause = unanswered.map(|error| format!(": {error}")).unwrap_or_default();
        Err(failed(&format!("its supervisor gave no answer in {} s{cause}", limit.as_secs()), None))
    })
}

/// How long a supervisor may take to answer: it may first have to end what an earlier one left.
fn limit(policy: &Policy) -> Duration {
    policy.grace.0.saturating_add(LIMIT)
}

/// Whether a service has ended as its policy lets it end.
fn is_done(exits: &[Exit], reservation: &Reservation) -> bool {
    let clean = exits.last().is_some_and(|exit| exit.how == ExitHow::Code(0));
    clean && reservation.policy.restart != RestartWhen::Always
}

/// What a run state says about the start; `None` if it is not decided.
fn verdict(run: RunState, reservation: &Reservation) -> Option<Result<()>> {
    let service = reservation.name().to_owned();
    let why = run.error.unwrap_or_default();
    match run.state {
        State::Running | State::Ready | State::Unhealthy | State::Backoff | State::CrashLoop => Some(Ok(())),
        State::PortConflict => {
            let owner = why.split_once("taken by ").map_or(why.as_str(), |(_, owner)| owner).to_owned();
            let hint =
                format!("end that process, and {service} starts by itself within 5 s; or `devport stop {service}`");
            Some(Err(Error::PortTaken { port: reservation.port, owner, hint }))
        }
        State::Failed => Some(Err(Error::StartFailed { service, why, hint: None })),
        // It did what it had to do, faster than we looked.
        State::Stopping | State::Stopped if is_done(&run.exits, reservation) => Some(Ok(())),
        State::Stopping | State::Stopped => {
            Some(Err(Error::StartFailed { service, why: "it was stopped at once".into(), hint: None }))
        }
        State::Starting | State::Orphaned | State::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use crate::launch::stop::MARGIN;

    #[test]
    fn a_start_waits_longer_than_the_processes_that_it_must_end_may_take() {
        for grace in [0, 5, 30, 3600].map(Duration::from_secs) {
            let policy = Policy { grace: Span(grace), ..Policy::default() };
            assert!(limit(&policy) > grace + MARGIN, "{grace:?}");
        }
    }
}
