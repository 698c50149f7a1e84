//! The one thread of a supervisor: waits for signals, output, input and deadlines, passes them to the lifecycle, and
//! runs the actions that the lifecycle returns. Scans for processes and file writes are the only calls that can block.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, reason};
use crate::os::{clock, process, trim_heap};
use crate::registry::{ExitHow, Scan, State};
use crate::supervisor::child::SpawnError;
use crate::supervisor::lifecycle::{Action, Event, Lifecycle, Outcome, StopCause};
use crate::supervisor::readiness_probe::ReadinessProbe;
use crate::supervisor::recorder::{Recorder, Transition, exit_text, is_restart_pending};
use crate::supervisor::relay::{self, Input, Screen};
use crate::supervisor::running_child::{OutputSink, RunningChild};
use crate::supervisor::service::Service;
use crate::supervisor::signals::{Request, Signals};
use crate::supervisor::stream::StreamKind;

/// How old `last_up` in the record may be while the service runs: a day is precise enough to find stale services.
const LAST_UP_AGE_WHILE_UP: SignedDuration = SignedDuration::from_hours(24);
/// How old it may be when the service starts or stops. A synced write takes 8 ms on an ordinary disk, twice as long as
/// the rest of `stop`, so services that restart often skip it.
const LAST_UP_AGE_AT_ENDS: SignedDuration = SignedDuration::from_hours(1);
/// The time between scans of a tree that is ending: processes that are not our children end without a signal to us.
const TREE_CHECK: Duration = Duration::from_millis(50);
/// The shortest wait whose timer may be late by more than a millisecond (see [`poll_timeout`]).
const LONG_WAIT: Duration = Duration::from_millis(500);

/// A supervisor at work.
pub(super) struct Supervisor<'a> {
    service: Service<'a>,
    recorder: Recorder<'a>,
    signals: Signals,
    screen: Screen,
    lifecycle: Lifecycle,
    probe: ReadinessProbe,
    /// Whether some processes could not be sent the stop signal yet.
    must_terminate_again: bool,
    /// The last failure that was reported while its operation is retried.
    last_failure: Option<String>,
    /// Whether our own input has ended, so that the next child gets an end of file too.
    has_input_ended: bool,
    /// Processes other than the child that were reaped; one may be the command of a check.
    reaped_others: Vec<(i32, ExitHow)>,
}

/// Passes the child's output to the log, the screen and the readiness check.
struct Sinks<'s, 'a> {
    recorder: &'s mut Recorder<'a>,
    screen: &'s mut Screen,
    probe: &'s mut ReadinessProbe,
}

impl OutputSink for Sinks<'_, '_> {
    fn is_full(&self) -> bool {
        self.screen.holds_back()
    }

    fn accept(&mut self, bytes: &[u8], is_errors: bool) {
        self.recorder.append_output(bytes);
        let now = clock::now();
        if is_errors {
            self.screen.show_error(bytes, now);
        } else {
            self.screen.show(bytes, now);
        }
        self.probe.handle_output(bytes);
    }
}

impl<'a> Supervisor<'a> {
    /// Creates the supervisor of a service whose child is not started yet.
    pub(super) fn new(service: Service<'a>, recorder: Recorder<'a>, signals: Signals, screen: Screen) -> Self {
        Self {
            lifecycle: Lifecycle::new(service.reservation.policy.clone(), recorder.seed()),
            probe: ReadinessProbe::new(&service.reservation),
            service,
            recorder,
            signals,
            screen,
            must_terminate_again: false,
            last_failure: None,
            has_input_ended: false,
            reaped_others: Vec::new(),
        }
    }

    /// Runs the service until it ends.
    pub(super) fn run(mut self) -> Outcome {
        let begin = Event::Begin { orphans: self.service.orphans.is_some() };
        self.recorder.beat();
        let mut flow = self.feed(begin);
        // After the child is started: this write takes milliseconds.
        self.recorder.record_last_up(LAST_UP_AGE_AT_ENDS);
        trim_heap();
        let outcome = loop {
            match flow {
                ControlFlow::Continue(()) => flow = self.turn(),
                ControlFlow::Break(outcome) => break outcome,
            }
        };
        self.recorder.beat();
        self.recorder.record_last_up(LAST_UP_AGE_AT_ENDS);
        self.screen.drain(clock::now());
        outcome
    }

    /// Waits, and handles everything that has happened.
    fn turn(&mut self) -> ControlFlow<Outcome> {
        self.wait();
        let mut events = Vec::new();
        for request in self.signals.pending() {
            events.extend(self.handle(request));
        }
        if self.screen.is_gone() {
            self.screen.close();
            events.push(Event::Stop(StopCause::HangUp));
        }
        self.relay_input();
        self.pass_output(RunningChild::relay);
        self.feed_all(events)?;
        // After the signals: a check must not delay a stop.
        let reaped = std::mem::take(&mut self.reaped_others);
        let events = self.probe.turn(&self.service, &reaped, clock::now());
        self.feed_all(events)?;
        self.check_tree()?;
        if self.recorder.is_unrecorded() {
            self.write_state();
        }
        let now = clock::now();
        self.screen.drain(now);
        if self.recorder.is_heartbeat_due(now) {
            self.recorder.beat();
            self.recorder.record_last_up(LAST_UP_AGE_WHILE_UP);
        }
        self.feed(Event::Tick)
    }

    /// Waits until something happens or a deadline comes.
    fn wait(&self) {
        let now = clock::now();
        let tree_check = self.lifecycle.is_clearing().then(|| now + TREE_CHECK);
        let deadlines = [self.lifecycle.deadline(), self.probe.deadline(), self.screen.deadline(), tree_check];
        let next = deadlines.into_iter().flatten().fold(self.recorder.deadline(now), Instant::min);
        let timeout = poll_timeout(next.saturating_duration_since(now), self.lifecycle.deadline() == Some(next));
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let child = self.service.child.as_ref();
        if !self.screen.holds_back() {
            let streams = child.into_iter().flat_map(RunningChild::open_streams);
            fds.extend(streams.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        match child.filter(|child| child.has_pending_input()) {
            Some(child) => fds.extend(child.terminal().map(|fd| PollFd::new(fd, PollFlags::POLLOUT))),
            None => fds.extend(self.screen.input_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN))),
        }
        fds.extend(self.probe.poll_fd().map(|(fd, flags)| PollFd::new(fd, flags)));
        fds.extend(self.screen.terminal_fd().map(|fd| PollFd::new(fd, PollFlags::POLLHUP)));
        fds.extend(self.screen.blocked_fds().map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
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
            Request::HangUp if self.screen.is_gone() => {}
            Request::HangUp | Request::Restart => return vec![Event::Restart],
            Request::Resize => {
                let terminal = self.service.child.as_ref().and_then(RunningChild::terminal);
                if let (Some(size), Some(terminal)) = (self.screen.size(), terminal) {
                    let _ = size.apply(terminal);
                }
            }
            Request::Forward(signal) => {
                if let Some(child) = self.service.running_child() {
                    let _ = child.identity.signal_group(signal);
                }
            }
        }
        Vec::new()
    }

    /// Reaps every process that has exited: the child, the commands of checks, and orphans that this process adopted.
    fn reap(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((pid, status)) = process::reap() {
            let how = status.signal().map_or_else(|| ExitHow::Code(status.code().unwrap_or(0)), ExitHow::Signal);
            if self.service.running_child().is_some_and(|child| child.identity.pid == pid) {
                events.extend(self.end_child(how));
            } else {
                self.reaped_others.push((pid, how));
            }
        }
        events
    }

    /// Records the child's exit, after draining the output that it left.
    fn end_child(&mut self, how: ExitHow) -> Option<Event> {
        self.pass_output(RunningChild::drain);
        self.probe.end();
        let exit = self.service.child.as_mut()?.end(how);
        let ran = Duration::from_millis(exit.ran_ms);
        self.screen.say(&exit_text(&exit), clock::now());
        self.recorder.child_exited(exit);
        Some(Event::Exited { how, ran })
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
                    Action::Spawn => events.push_back(self.start_child()),
                    Action::Terminate => {
                        self.probe.end();
                        self.terminate();
                    }
                    Action::Kill => {
                        if let Err(error) = self.service.kill() {
                            self.report_retry(&error);
                        }
                    }
                    Action::Record(state, error) => self.record(state, error),
                    Action::Quit(outcome) => return ControlFlow::Break(outcome),
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Starts the child, if its port is free and no earlier process is left.
    fn start_child(&mut self) -> Event {
        if let Some(port) = self.service.reservation.service_port() {
            match self.service.port_owner(port) {
                Ok(None) => {}
                Ok(Some(owner)) => {
                    let why = format!("port {port} is taken by {owner}");
                    self.note(&format!("{why}; it is looked at again every 5 s"));
                    return Event::PortTaken(why);
                }
                Err(error) => {
                    let why = format!("could not look at port {port}: {}", reason(&error));
                    return Event::SpawnFailed { why, is_permanent: false };
                }
            }
        }
        let proof = self.service.take_proof().unwrap_or_else(|error| {
            self.report_retry(&error);
            None
        });
        let Some(ended) = proof else {
            let why = "could not prove that no process of the last run is left".into();
            return Event::SpawnFailed { why, is_permanent: false };
        };
        let kind = self.screen.child_terminal().map_or(StreamKind::Pipes, StreamKind::Terminal);
        match self.service.spawn(ended, kind) {
            Ok(child) => {
                if self.has_input_ended {
                    // Each child needs its own: the previous one has consumed the character.
                    child.queue_end_of_input();
                }
                self.recorder.child_started(&child.identity);
                self.probe.begin(child.since);
                Event::Spawned { since: child.since }
            }
            Err(SpawnError { why, is_permanent }) => Event::SpawnFailed { why, is_permanent },
        }
    }

    /// Sends the stop signal to every process of the tree.
    fn terminate(&mut self) {
        let result = self.service.terminate();
        self.must_terminate_again = result.is_err();
        if let Err(error) = result {
            self.report_retry(&error);
        }
    }

    /// If the tree is being ended, reports to the lifecycle when no process of it is left.
    fn check_tree(&mut self) -> ControlFlow<Outcome> {
        if !self.lifecycle.is_clearing() {
            return ControlFlow::Continue(());
        }
        if self.must_terminate_again {
            self.terminate();
        }
        // A scan does not find a child that has exited, but its exit must be recorded before the tree's end.
        if self.service.running_child().is_some() {
            return ControlFlow::Continue(());
        }
        match self.service.scan() {
            Ok(Scan::Ended(ended)) => {
                self.pass_output(RunningChild::drain);
                self.service.tree_ended(ended);
                self.recorder.tree_ended();
                self.feed(Event::TreeGone)
            }
            Ok(Scan::Left(_)) => ControlFlow::Continue(()),
            // Processes may be left. The next turn scans again.
            Err(error) => {
                self.report_retry(&error);
                ControlFlow::Continue(())
            }
        }
    }

    /// Shows and records a state.
    fn record(&mut self, state: State, error: Option<String>) {
        let now = clock::now();
        let next_start = self.lifecycle.next_start().map(|at| at.saturating_duration_since(now));
        if let Some(wait) = next_start.filter(|_| is_restart_pending(state)) {
            self.screen.say(&format!("starting again in {:.0} s", wait.as_secs_f64()), now);
        }
        // A taken port was reported when it was found.
        if let Some(error) = error.as_ref().filter(|_| state != State::PortConflict) {
            self.note(error);
        }
        let (restarts, listens) = (self.lifecycle.restarts(), self.probe.listens().to_vec());
        self.recorder.change(Transition { state, error, restarts, next_start, listens });
        self.write_state();
    }

    /// Writes the state, with proof if it says that nothing runs. If that fails, the service goes on and the next turn
    /// retries.
    fn write_state(&mut self) {
        if self.recorder.says_ended() {
            match self.service.take_proof() {
                Ok(proof) => self.service.proof = proof,
                Err(error) => self.report_retry(&error),
            }
        }
        let proof = self.service.proof.as_ref().filter(|_| self.recorder.says_ended());
        if let Err(error) = self.recorder.write(proof) {
            self.report_retry(&error);
        }
    }

    /// Shows a message and appends it to the log.
    fn note(&mut self, text: &str) {
        self.recorder.note(text);
        self.screen.say(text, clock::now());
    }

    /// Reports a failure of an operation that is retried, once for each different failure.
    fn report_retry(&mut self, error: &Error) {
        let text = format!("{error}; trying again");
        if self.last_failure.as_ref() != Some(&text) {
            self.note(&text);
            self.last_failure = Some(text);
        }
    }

    /// Passes the child's output on, by [`RunningChild::relay`] or [`RunningChild::drain`].
    fn pass_output(&mut self, pass: fn(&mut RunningChild, &mut dyn OutputSink)) {
        let Some(child) = &mut self.service.child else { return };
        pass(child, &mut Sinks { recorder: &mut self.recorder, screen: &mut self.screen, probe: &mut self.probe });
    }

    /// Passes our input on to the child. What is read while no child runs is discarded.
    fn relay_input(&mut self) {
        let child = &mut self.service.child;
        let is_blocked = child.as_ref().is_some_and(RunningChild::has_pending_input);
        if !is_blocked && self.screen.input_fd().is_some_and(relay::is_readable) {
            match (self.screen.read(), child.as_mut()) {
                (Input::Bytes(bytes), Some(child)) => child.queue_input(bytes),
                (Input::End, child) => {
                    self.has_input_ended = true;
                    if let Some(child) = child {
                        child.queue_end_of_input();
                    }
                }
                (Input::Bytes(_), None) | (Input::Nothing, _) => {}
            }
        }
        if let Some(child) = child {
            child.write_input();
        }
    }
}

/// Converts a wait into a timeout. A long wait for an `exact` deadline is cut by 0.5 % so that a second, short wait
/// meets the deadline: Linux may end a poll late by 0.1 % of its timeout, or 0.5 % for a process with a positive nice
/// value (`select_estimate_accuracy` in `fs/select.c`).
fn poll_timeout(wait: Duration, exact: bool) -> PollTimeout {
    let wait = if exact && wait > LONG_WAIT {
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
