//! Runs a readiness check to its end, for commands that wait for a service.

use std::time::Duration;

use nix::poll::{PollFd, PollTimeout, poll};

use crate::checks::command::execute;
use crate::checks::probe::{CheckResult, Probe, Request};
use crate::config::{CHECK_TIMEOUT, Check};
use crate::os::clock::{self, Deadline};
use crate::os::process;
use crate::os::spawn::ChildStreams;
use crate::registry::{Registry, Reservation};

/// The time between checks whether the command of a check has exited: most commands take longer.
const EXIT_INTERVAL: Duration = Duration::from_millis(5);

/// Runs the readiness check of a service, for at most `limit`. Returns `None` for a check that cannot be repeated, and
/// for `listen`, whose result follows from observing the service.
pub(crate) fn run_once(registry: &Registry, reservation: &Reservation, limit: Duration) -> Option<CheckResult> {
    let port = reservation.service_port();
    let now = clock::now();
    let probe = match (reservation.policy.ready_check(port.is_some()), port) {
        (Check::Tcp, Some(port)) => Probe::connect(port, None, CHECK_TIMEOUT, now),
        (Check::Http { path, status, .. }, Some(port)) => {
            Probe::connect(port, Some(Request { path, status }), CHECK_TIMEOUT, now)
        }
        (Check::Exec(words), _) => command(registry, reservation, &words),
        _ => return None,
    };
    Some(probe.and_then(|probe| finish(probe, limit)))
}

/// Returns why the readiness check of a service that is not ready fails now; `None` if it passes, or its check has no
/// result before the service is ready. Takes at most about `limit`.
pub(crate) fn why_not_ready(registry: &Registry, reservation: &Reservation, limit: Duration) -> Option<String> {
    let port = reservation.service_port();
    match (reservation.policy.ready_check(port.is_some()), port) {
        (Check::Listen, Some(port)) => Some(format!("nothing of the service listens on port {port}")),
        (Check::Log(pattern), _) => Some(format!("no line of its output matches {pattern:?}")),
        _ => run_once(registry, reservation, limit)?.err(),
    }
}

/// Starts the command of a check.
fn command(registry: &Registry, reservation: &Reservation, words: &[String]) -> Result<Probe, String> {
    let environment = registry.environment(&reservation.hash).map_err(|error| error.to_string())?;
    execute(words, reservation, &environment, registry, None, ChildStreams::Nothing)
        .map(|process| Probe::command(words, process, CHECK_TIMEOUT, clock::now()))
        .map_err(|error| error.why)
}

/// Waits for the result of a check.
fn finish(mut probe: Probe, limit: Duration) -> CheckResult {
    let deadline = Deadline::after(limit);
    loop {
        let ended = probe.pid().and_then(|pid| Some((pid, process::reap_child(pid)?)));
        if let Some(result) = ended.and_then(|(pid, status)| probe.handle_exit(pid, status.into())) {
            return result;
        }
        if let Some(result) = probe.step(clock::now()) {
            return result;
        }
        let left = deadline.remaining().min(probe.deadline().saturating_duration_since(clock::now()));
        if deadline.remaining().is_zero() {
            probe.abandon();
            return Err(probe.timed_out(limit));
        }
        match probe.poll_fd() {
            Some((fd, flags)) => {
                // Rounded up, so that the loop does not spin. An error is an interruption by a signal.
                let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
                let _ = poll(&mut [PollFd::new(fd, flags)], timeout);
            }
            None => clock::pause(left.min(EXIT_INTERVAL)),
        }
    }
}
