//! The one thread of a supervisor: waits for signals, output, input and deadlines, passes them to the lifecycle, and
//! dispatches the actions that the lifecycle returns. Only scans for processes and file writes can block it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::os::{clock, process, trim_heap};
use crate::registry::ExitHow;
use crate::supervisor::audience::Audience;
use crate::supervisor::event::{Action, Event, Outcome, StopCause};
use crate::supervisor::executor::Executor;
use crate::supervisor::lifecycle::Lifecycle;
use crate::supervisor::recorder::Recorder;
use crate::supervisor::running_child::RunningChild;
use crate::supervisor::screen::Screen;
use crate::supervisor::service::Service;
use crate::supervisor::signals::{Request, Signals};

/// How old `last_up` in the record may be while the service runs: a day is precise enough to find stale services.
const LAST_UP_AGE_WHILE_UP: SignedDuration = SignedDuration::from_hours(24);
/// How old `last_up` may be when the service starts or stops. A synced write takes 8 ms on an ordinary disk, twice as long as
/// the rest of `stop`, so services that restart often skip it.
const LAST_UP_AGE_AT_ENDS: SignedDuration = SignedDuration::from_hours(1);
/// The time between scans of a tree that is ending: processes that are not our children end without a signal to us.
const TREE_CHECK: Duration = Duration::from_millis(50);
/// The time between checks of a process that a command has handed over to, if its end is not reported (macOS).
const SUCCESSOR_CHECK: Duration = Duration::from_secs(1);
/// The shortest wait whose timer may be late by more than a millisecond (see [`poll_timeout`]).
const LONG_WAIT: Duration = Duration::from_millis(500);

/// A supervisor at work.
pub(super) struct Supervisor<'a> {
    executor: Executor<'a>,
    signals: Signals,
    lifecycle: Lifecycle,
    /// Processes other than the child that were reaped; one may be the command of a check.
    reaped_others: Vec<(i32, ExitHow)>,
}

impl<'a> Supervisor<'a> {
    /// Creates the supervisor of a service whose child is not started yet.
    pub(super) fn new(
        service: Service<'a>,
        recorder: Recorder<'a>,
        signals: Signals,
        screen: Screen,
        audience: Audience,
    ) -> Self {
        let lifecycle = Lifecycle::new(service.reservation.policy.clone(), recorder.seed());
        let executor = Executor::new(service, recorder, screen, audience);
        Self { executor, signals, lifecycle, reaped_others: Vec::new() }
    }

    /// Runs the service until it ends. Returns the outcome, and how the last command ended; `None` if none ended since the
    /// last attempt to start one.
    pub(super) fn run(mut self) -> (Outcome, Option<ExitHow>) {
        let begin = Event::Begin { orphans: self.executor.service.orphans.is_some() };
        self.executor.recorder.beat();
        let mut flow = self.feed(begin);
        // After the child is started: this write takes milliseconds.
        self.executor.recorder.record_last_up(LAST_UP_AGE_AT_ENDS);
        trim_heap();
        let outcome = loop {
            match flow {
                ControlFlow::Continue(()) => flow = self.turn(),
                ControlFlow::Break(outcome) => break outcome,
            }
        };
        self.executor.recorder.beat();
        self.executor.recorder.record_last_up(LAST_UP_AGE_AT_ENDS);
        self.executor.screen.drain(clock::now());
        (outcome, self.executor.last_exit)
    }

    /// Waits, and handles everything that has happened.
    fn turn(&mut self) -> ControlFlow<Outcome> {
        self.wait();
        let mut events = Vec::new();
        for request in self.signals.pending() {
            events.extend(self.handle(request));
        }
        events.extend(self.executor.poll_successor(&self.lifecycle));
        if self.executor.screen.is_gone() {
            self.executor.screen.close();
            events.push(Event::Stop(StopCause::HangUp));
        }
        self.executor.relay_input();
        self.executor.pass_output(RunningChild::relay);
        self.executor.respond_to_queries();
        self.feed_all(events)?;
        // After the signals: a check must not delay a stop.
        let reaped = std::mem::take(&mut self.reaped_others);
        let events = self.executor.probe.turn(&self.executor.service, &reaped, clock::now());
        self.feed_all(events)?;
        if self.lifecycle.is_clearing() && self.executor.check_tree() {
            self.feed(Event::TreeGone)?;
        }
        if self.executor.recorder.is_unrecorded() {
            self.executor.write_state();
        }
        let now = clock::now();
        self.executor.screen.drain(now);
        if self.executor.recorder.is_heartbeat_due(now) {
            self.heartbeat()?;
        }
        self.feed(Event::Tick)
    }

    /// Records that the service is up, and stops it if its checkout is gone.
    fn heartbeat(&mut self) -> ControlFlow<Outcome> {
        self.executor.recorder.beat();
        self.executor.recorder.record_last_up(LAST_UP_AGE_WHILE_UP);
        if self.executor.is_checkout_gone() {
            self.feed(Event::Stop(StopCause::CheckoutGone))?;
        }
        ControlFlow::Continue(())
    }

    /// Waits until something happens or a deadline comes.
    fn wait(&self) {
        let now = clock::now();
        let tree_check = self.lifecycle.is_clearing().then(|| now + TREE_CHECK);
        let is_polled = self.executor.service.child.as_ref().is_some_and(RunningChild::needs_polling);
        let deadlines = [
            self.lifecycle.deadline(),
            self.executor.probe.deadline(),
            self.executor.screen.deadline(),
            self.executor.responder.deadline(),
            tree_check,
            is_polled.then(|| now + SUCCESSOR_CHECK),
        ];
        let next = deadlines.into_iter().flatten().fold(self.executor.recorder.deadline(now), Instant::min);
        let timeout = poll_timeout(next.saturating_duration_since(now), self.lifecycle.deadline() == Some(next));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let child = self.executor.service.child.as_ref();
        if !self.executor.screen.holds_back() {
            let streams = child.into_iter().flat_map(RunningChild::open_streams);
            fds.extend(streams.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        match child.filter(|child| child.has_pending_input()) {
            Some(child) => fds.extend(child.terminal().map(|fd| PollFd::new(fd, PollFlags::POLLOUT))),
            None => fds.extend(self.executor.screen.input_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN))),
        }
        fds.extend(self.executor.probe.poll_fd().map(|(fd, flags)| PollFd::new(fd, flags)));
        fds.extend(self.executor.screen.terminal_fd().map(|fd| PollFd::new(fd, PollFlags::POLLHUP)));
        fds.extend(self.executor.screen.blocked_fds().map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        // An error is an interruption by a signal, which also makes the signals' pipe readable.
        let _ = poll(&mut fds, timeout);
    }

    /// Handles a signal; returns what it means for the lifecycle.
    fn handle(&mut self, request: Request) -> Vec<Event> {
        match request {
            Request::Reap => return self.reap(),
            Request::Stop => return vec![Event::Stop(StopCause::Signal)],
            Request::StopCommand => return vec![Event::Stop(StopCause::Request)],
            // The turn itself finds a closed terminal, and stops the service.
            Request::HangUp if self.executor.screen.is_gone() => {}
            Request::HangUp | Request::Restart => return vec![Event::Restart],
            Request::Resize => {
                let terminal = self.executor.service.child.as_ref().and_then(RunningChild::terminal);
                if let (Some(size), Some(terminal)) = (self.executor.screen.size(), terminal) {
                    let _ = size.apply(terminal);
                }
            }
            Request::Forward(signal) => {
                if let Some(child) = self.executor.service.running_child() {
                    let _ = child.identity.signal_job(signal);
                }
            }
        }
        Vec::new()
    }

    /// Reaps every process that has exited: the child, the commands of checks, and orphans that this process adopted.
    fn reap(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((pid, status)) = process::reap() {
            let how = ExitHow::from(status);
            if self.executor.service.running_child().is_some_and(|child| child.identity.pid == pid) {
                events.extend(self.executor.end_child(how, &self.lifecycle));
            } else {
                self.reaped_others.push((pid, how));
            }
        }
        events
    }

    /// Feeds events to the lifecycle, until one ends the supervisor.
    fn feed_all(&mut self, events: Vec<Event>) -> ControlFlow<Outcome> {
        events.into_iter().try_for_each(|event| self.feed(event))
    }

    /// Feeds one event to the lifecycle and runs its actions. An action can cause another event, which is fed too.
    fn feed(&mut self, event: Event) -> ControlFlow<Outcome> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.lifecycle.step(event, clock::now()) {
                match action {
                    Action::Spawn => events.push_back(self.executor.start_child()),
                    Action::Terminate => self.executor.terminate(),
                    Action::Kill => self.executor.kill(),
                    Action::Record(state, error) => self.executor.record(state, error, &self.lifecycle),
                    Action::Quit(outcome) => return ControlFlow::Break(outcome),
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Converts a wait into a timeout. A long wait for an exact deadline is cut by 0.5 % so that a second, short wait
/// meets the deadline: Linux may end a poll late by 0.1 % of its timeout, or 0.5 % for a process with a positive nice
/// value (`select_estimate_accuracy` in `fs/select.c`).
fn poll_timeout(wait: Duration, is_exact: bool) -> PollTimeout {
    let wait = if is_exact && wait > LONG_WAIT {
        wait.mul_f64(0.995)
    } else {
        // Rounded up to the next millisecond, or the loop would spin until the deadline.
        wait + Duration::from_micros(999)
    };
    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_wait_is_rounded_up_and_a_long_exact_one_is_cut() {
        let timeout = |wait: Duration, exact| poll_timeout(wait, exact).as_millis();
        assert_eq!(timeout(Duration::from_micros(1), true), Some(1));
        assert_eq!(timeout(Duration::from_secs(30), true), Some(29_850));
        assert_eq!(timeout(Duration::from_secs(30), false), Some(30_000));
        assert_eq!(timeout(Duration::ZERO, false), Some(0));
    }
}
