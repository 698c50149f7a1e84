//! `devport signal`: sends a signal to a service.

use std::time::Duration;

use crate::cli::args::Signal;
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::error::{Error, Result};
use crate::launch;
use crate::os::process::Delivery;
use crate::os::{clock, signal};
use crate::registry::{RunState, State};

/// The time between reads of the run state until the supervisor has acted on a signal, which takes milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long the supervisor may take to act on a signal, in addition to the grace period: ample on a busy machine, because
/// it does not wait for the service to become ready.
const MARGIN: Duration = Duration::from_secs(5);
/// The signals that end the process of a service, most of them to replace it.
const END_THE_PROCESS: [i32; 5] = [libc::SIGHUP, libc::SIGTSTP, libc::SIGINT, libc::SIGTERM, libc::SIGKILL];

/// Executes `devport signal`. Prints the service as it is once its supervisor has acted on the signal.
///
/// # Errors
/// If there is no such signal or service, the service does not run, or it has no process that could get the signal.
pub(super) fn execute(context: &Context, arguments: &Signal) -> Result<()> {
    let signal =
        signal::parse(&arguments.signal).ok_or_else(|| Error::InvalidSignal { name: arguments.signal.clone() })?;
    let reservation = context.resolve(&arguments.target)?;
    context.registry.check_owner()?;
    let not_running = || Error::NotRunning { service: reservation.name().to_owned() };
    let supervisor = launch::supervisor(&context.registry, &reservation)?.ok_or_else(not_running)?;
    let before = context.registry.run_state(&reservation.hash)?;
    let ends_process = END_THE_PROCESS.contains(&signal);
    // SIGHUP and the other signals for the supervisor itself need no process.
    if !ends_process || signal == libc::SIGKILL {
        check_process(before.as_ref(), reservation.name())?;
    }
    // The supervisor relays the signals that it catches. Others would hit the supervisor itself, so they go to the
    // child's process group.
    if signal::NOT_RELAYED.contains(&signal) {
        launch::kill_group(&reservation, before.as_ref(), signal)?;
    } else if supervisor.signal(signal).map_err(Error::system(format!("signal {supervisor}")))? == Delivery::Gone {
        return Err(not_running());
    }
    note(&format!("sent {} to {}", signal::name(signal), reservation.name()));
    if ends_process {
        let has_acted = || {
            let now = context.registry.run_state(&reservation.hash).ok().flatten();
            // A supervisor that has recorded the end exits next. Until then the service counts as stopping.
            let is_exiting = now.as_ref().is_some_and(RunState::says_ended)
                && context.registry.liveness(&reservation.hash).is_held();
            (!is_exiting && has_taken_effect(before.as_ref(), now.as_ref())).then_some(())
        };
        // If this takes longer, the printed record shows the state in which the service is stuck.
        let _ = clock::poll(POLL_INTERVAL, reservation.policy.grace.0.saturating_add(MARGIN), has_acted);
    }
    context.output.print_views(&[context.view(&reservation)], false)
}

/// Refuses a signal to a service without a process, such as one that waits for its next start.
fn check_process(run: Option<&RunState>, service: &str) -> Result<()> {
    let Some(run) = run else { return Ok(()) };
    match &run.child {
        Some(child) if child.is_alive().map_err(Error::system(format!("signal {child}")))? => Ok(()),
        _ => Err(Error::NoProcess { service: service.to_owned(), state: run.state.as_str() }),
    }
}

/// Returns whether a run state is the result of a signal that ends the process that `before` names.
fn has_taken_effect(before: Option<&RunState>, now: Option<&RunState>) -> bool {
    let (Some(before), Some(now)) = (before, now) else { return true };
    let is_replaced = match &before.child {
        Some(child) => now.child.as_ref() != Some(child),
        // A crash is recorded again, with the time of the next start, once the rest of the tree has ended.
        None => {
            (now.state, now.runs, now.restarts) != (before.state, before.runs, before.restarts)
                || (before.next_start_at.is_some() && now.next_start_at != before.next_start_at)
        }
    };
    is_replaced && !matches!(now.state, State::Starting | State::Stopping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::ProcessIdentity;

    fn run(state: State, child: Option<i32>, restarts: u32) -> RunState {
        let process = |pid| ProcessIdentity { pid, start_time: Some(1), boot_id: None };
        let mut run = RunState::begin(process(1), None, None);
        (run.state, run.child, run.restarts) = (state, child.map(process), restarts);
        run
    }

    #[test]
    fn a_signal_has_taken_effect_once_the_process_is_another_one_or_gone() {
        let took_effect = |before: &RunState, now: &RunState| has_taken_effect(Some(before), Some(now));
        let ready = run(State::Ready, Some(10), 0);
        assert!(!took_effect(&ready, &ready), "nothing has happened yet");
        assert!(!took_effect(&ready, &run(State::Starting, Some(10), 0)));
        assert!(!took_effect(&ready, &run(State::Starting, None, 0)));
        assert!(took_effect(&ready, &run(State::Running, Some(11), 0)));
        assert!(took_effect(&ready, &run(State::Stopped, None, 0)));
        let backoff = run(State::Backoff, None, 0);
        assert!(!took_effect(&backoff, &backoff));
        let mut scheduled = backoff.clone();
        scheduled.next_start_at = Some(clock::wall());
        assert!(!took_effect(&backoff, &scheduled), "its tree has ended");
        assert!(took_effect(&scheduled, &backoff), "another start was tried");
        assert!(took_effect(&backoff, &run(State::Backoff, None, 1)), "it crashed again");
        assert!(took_effect(&backoff, &run(State::Running, Some(11), 0)));
    }
}
