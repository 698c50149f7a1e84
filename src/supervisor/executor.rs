//! `Executor`: runs the actions that the lifecycle decides on: starts, ends and records the child, and relays its
//! streams.

use crate::checks::SpawnError;
use crate::error::{Error, reason};
use crate::os::clock;
use crate::registry::{Exit, ExitHow, Problem, Scan, State};
use crate::supervisor::lifecycle::{Event, Lifecycle};
use crate::supervisor::readiness_probe::ReadinessProbe;
use crate::supervisor::recorder::{Recorder, Transition, is_restart_pending};
use crate::supervisor::relay::{self, Input, Screen};
use crate::supervisor::running_child::{OutputSink, RunningChild};
use crate::supervisor::service::Service;
use crate::supervisor::stream::StreamKind;

/// A service with everything that acts on it.
pub(super) struct Executor<'a> {
    pub(super) service: Service<'a>,
    pub(super) recorder: Recorder<'a>,
    pub(super) screen: Screen,
    pub(super) probe: ReadinessProbe,
    /// Whether some processes could not be sent the stop signal yet.
    must_terminate_again: bool,
    /// How the child ended, unless another start was tried since.
    pub(super) last_exit: Option<ExitHow>,
    /// The last failure that was reported while its operation is retried.
    last_failure: Option<String>,
    /// Whether our own input has ended, so that the next child gets an end of file too.
    has_input_ended: bool,
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

impl<'a> Executor<'a> {
    /// Acts on a service whose child is not started yet.
    pub(super) fn new(service: Service<'a>, recorder: Recorder<'a>, screen: Screen) -> Self {
        let probe = ReadinessProbe::new(&service.reservation);
        Self {
            service,
            recorder,
            screen,
            probe,
            must_terminate_again: false,
            last_exit: None,
            last_failure: None,
            has_input_ended: false,
        }
    }

    /// Starts the child, if its port is free and no earlier process is left.
    pub(super) fn start_child(&mut self) -> Event {
        self.last_exit = None;
        if let Some(port) = self.service.reservation.service_port() {
            match self.service.port_owner(port) {
                Ok(None) => {}
                Ok(Some(owner)) => {
                    let problem = Problem::PortTaken { port, owner };
                    self.note(&format!("{problem}; devport checks it again every 5 s"));
                    return Event::PortTaken(problem);
                }
                Err(error) => {
                    let why = format!("could not look at port {port}: {}", reason(&error));
                    return Event::SpawnFailed { why: why.into(), is_permanent: false };
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
            Err(SpawnError { why, is_permanent }) => Event::SpawnFailed { why: why.into(), is_permanent },
        }
    }

    /// Records the child's exit, after draining the output that it left. `was_requested`: devport is ending the tree.
    pub(super) fn end_child(&mut self, how: ExitHow, was_requested: bool) -> Option<Event> {
        self.pass_output(RunningChild::drain);
        self.probe.end();
        let exit = self.service.child.as_mut()?.end(how);
        let ran = exit.ran();
        self.screen.say(&exit.to_string(), clock::now());
        self.recorder.child_exited(Exit { was_requested, ..exit });
        self.last_exit = Some(how);
        Some(Event::Exited { how, ran })
    }

    /// Sends the stop signal to every process of the tree, and stops checking whether it is ready.
    pub(super) fn terminate(&mut self) {
        self.probe.end();
        let result = self.service.terminate();
        self.must_terminate_again = result.is_err();
        if let Err(error) = result {
            self.report_retry(&error);
        }
    }

    /// Kills every process of the tree.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.service.kill() {
            self.report_retry(&error);
        }
    }

    /// Continues to end the tree; returns whether no process of it is left.
    pub(super) fn check_tree(&mut self) -> bool {
        if self.must_terminate_again {
            self.terminate();
        }
        // A scan does not find a child that has exited, but its exit must be recorded before the tree's end.
        if self.service.running_child().is_some() {
            return false;
        }
        match self.service.scan() {
            Ok(Scan::Ended(ended)) => {
                self.pass_output(RunningChild::drain);
                self.service.tree_ended(ended);
                self.recorder.tree_ended();
                true
            }
            Ok(Scan::Left(_)) => false,
            // Processes may be left. The next turn scans again.
            Err(error) => {
                self.report_retry(&error);
                false
            }
        }
    }

    /// Shows and records a state.
    pub(super) fn record(&mut self, state: State, error: Option<Problem>, lifecycle: &Lifecycle) {
        let now = clock::now();
        let next_start = lifecycle.next_start().map(|at| at.saturating_duration_since(now));
        if let Some(wait) = next_start.filter(|_| is_restart_pending(state)) {
            self.screen.say(&format!("starting again in {:.0} s", wait.as_secs_f64()), now);
        }
        // A taken port was reported when it was found.
        if let Some(error) = error.as_ref().filter(|_| state != State::PortConflict) {
            self.note(&error.to_string());
        }
        let (restarts, listens) = (lifecycle.restarts(), self.probe.listens().to_vec());
        self.recorder.change(Transition { state, error, restarts, next_start, listens });
        self.write_state();
    }

    /// Writes the state, with proof if it says that nothing runs. If that fails, the service goes on and the next turn
    /// retries.
    pub(super) fn write_state(&mut self) {
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
    pub(super) fn pass_output(&mut self, pass: fn(&mut RunningChild, &mut dyn OutputSink)) {
        let Some(child) = &mut self.service.child else { return };
        pass(child, &mut Sinks { recorder: &mut self.recorder, screen: &mut self.screen, probe: &mut self.probe });
    }

    /// Passes our input on to the child. What is read while no child runs is discarded.
    pub(super) fn relay_input(&mut self) {
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
