//! `Executor`: runs the actions that the lifecycle decides on: starts, ends and records the child, and relays its
//! streams.

use crate::checks::SpawnError;
use crate::error::{Error, reason};
use crate::os::clock;
use crate::os::process::ProcessIdentity;
use crate::project::{DirectoryId, Presence};
use crate::registry::{Exit, ExitHow, PortInUse, Problem, Scan, State};
use crate::supervisor::address_in_use;
use crate::supervisor::audience::Audience;
use crate::supervisor::checkout_watch::CheckoutWatch;
use crate::supervisor::event::{Event, StopCause};
use crate::supervisor::lifecycle::{Lifecycle, port_retry};
use crate::supervisor::query_responder::QueryResponder;
use crate::supervisor::readiness_probe::{ProbeTarget, ReadinessProbe};
use crate::supervisor::recorder::{Recorder, Transition, is_restart_pending};
use crate::supervisor::retry_report::RetryReport;
use crate::supervisor::running_child::{OutputSink, RunningChild};
use crate::supervisor::screen::{self, Input, Screen};
use crate::supervisor::service::Service;
use crate::supervisor::stream::StreamKind;

/// A service with everything that acts on it.
pub(super) struct Executor<'a> {
    pub(super) service: Service<'a>,
    pub(super) recorder: Recorder<'a>,
    pub(super) screen: Screen,
    pub(super) probe: ReadinessProbe,
    pub(super) responder: QueryResponder,
    /// Whether the stop signal must be sent again: some processes may not have received it.
    must_terminate_again: bool,
    /// How the last child ended; `None` before that, and once another start was tried.
    pub(super) last_exit: Option<ExitHow>,
    checkout: CheckoutWatch,
    retry_report: RetryReport,
    /// Whether our own input has ended, so that the next child gets an end of file too.
    has_input_ended: bool,
    /// Whether this process prints the outcome at its end, as `devport run` in the foreground does.
    prints_outcome: bool,
}

/// Passes the child's output to the log, the screen and the readiness check.
struct Sinks<'s, 'a> {
    recorder: &'s mut Recorder<'a>,
    screen: &'s mut Screen,
    probe: &'s mut ReadinessProbe,
    responder: &'s mut QueryResponder,
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
            self.screen.show(&self.responder.filter(bytes, now, Audience::probe_visibility), now);
        }
        self.probe.handle_output(bytes);
    }
}

impl<'a> Executor<'a> {
    /// Creates the executor of a service whose child is not started yet.
    pub(super) fn new(service: Service<'a>, recorder: Recorder<'a>, screen: Screen, audience: Audience) -> Self {
        let probe = ReadinessProbe::new(&service.reservation);
        Self {
            service,
            recorder,
            screen,
            probe,
            prints_outcome: matches!(audience, Audience::OwnStreams),
            responder: QueryResponder::new(audience),
            must_terminate_again: false,
            last_exit: None,
            checkout: CheckoutWatch::default(),
            retry_report: RetryReport::default(),
            has_input_ended: false,
        }
    }

    /// Starts the child, if its port is free and no earlier process is left.
    pub(super) fn start_child(&mut self) -> Event {
        self.last_exit = None;
        if self.is_gone_since_first_child() {
            return Event::Stop(StopCause::CheckoutGone);
        }
        if let Some(port) = self.service.reservation.service_port() {
            match self.service.port_problem(port) {
                Ok(None) => {}
                Ok(Some(problem)) => {
                    if self.recorder.error() != Some(&problem) {
                        let interval = port_retry(&problem).as_secs();
                        self.note(&format!("{problem}; devport checks it again every {interval} s"));
                    }
                    return Event::PortTaken(problem);
                }
                Err(error) => {
                    let why = format!("could not check port {port}: {}", reason(&error));
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
        // Before the start: if the directory is replaced in between, the service is stopped at the next heartbeat.
        let root_id =
            self.service.reservation.root.as_deref().and_then(|root| DirectoryId::to_record(root).ok().flatten());
        let kind = self.screen.child_terminal().map_or(StreamKind::Pipes, StreamKind::Terminal);
        match self.service.spawn(ended, kind) {
            Ok(child) => {
                if self.has_input_ended {
                    // Each child needs its own: the previous one has consumed the character.
                    child.queue_end_of_input();
                }
                self.recorder.child_started(&child.identity, root_id);
                self.probe.begin(child.since);
                Event::Spawned { since: child.since }
            }
            Err(SpawnError { why, is_permanent }) => {
                // The checkout may have been deleted since the check above, and the working directory with it.
                if self.is_gone_since_first_child() {
                    Event::Stop(StopCause::CheckoutGone)
                } else {
                    Event::SpawnFailed { why: why.into(), is_permanent }
                }
            }
        }
    }

    /// Returns whether the checkout is gone in which an earlier child was started: a later one must not run in another.
    fn is_gone_since_first_child(&self) -> bool {
        self.recorder.root_id().is_some() && self.presence().is_some_and(Presence::is_gone)
    }

    /// Returns whether the checkout of the service is gone. Call this once for each heartbeat.
    pub(super) fn is_checkout_gone(&mut self) -> bool {
        let presence = self.presence();
        self.checkout.is_gone(presence)
    }

    /// Checks the root of the service's checkout; `None` if it cannot be read, or in records of earlier versions.
    fn presence(&self) -> Option<Presence> {
        let reservation = &self.service.reservation;
        let root = reservation.root.as_deref()?;
        Presence::of(root, self.recorder.root_id(), reservation.git_dir.as_deref()).ok()
    }

    /// Records the child's exit, after draining the output that it left. A command that ends with exit code 0 while
    /// another process of its tree listens on the service's port has handed over to it: this is no exit,
    /// and `None` is returned.
    pub(super) fn end_child(&mut self, how: ExitHow, lifecycle: &Lifecycle) -> Option<Event> {
        self.pass_output(RunningChild::drain);
        let is_clean = how == ExitHow::Code(0) && lifecycle.is_running();
        let processes = if is_clean { self.left_behind() } else { Vec::new() };
        if self.hand_over(&processes) {
            return None;
        }
        let held_back = self.responder.finish();
        self.screen.show(&held_back, clock::now());
        self.probe.end();
        let exit = self.service.child.as_mut()?.end(how);
        let ran = exit.ran();
        let left_behind = processes.iter().map(ToString::to_string).reduce(|all, process| format!("{all}, {process}"));
        let was_requested = lifecycle.is_clearing();
        let port_in_use = if was_requested || how == ExitHow::Code(0) { None } else { self.port_in_use() };
        let exit = Exit { was_requested, left_behind, port_in_use: port_in_use.clone(), ..exit };
        self.screen.say(&exit.to_string(), clock::now());
        self.recorder.child_exited(exit);
        self.last_exit = Some(how);
        Some(Event::Exited { how, ran, port_in_use })
    }

    /// Returns the port of another process that the child could not use, as it printed before it exited. Its own port is
    /// checked before the next start.
    fn port_in_use(&self) -> Option<Box<PortInUse>> {
        let own = self.service.reservation.service_port()?;
        let port = address_in_use::port_in(&self.recorder.last_output(address_in_use::LINES))?;
        if port == own {
            return None;
        }
        // Without an owner, the output is about something that has passed.
        let owner = match self.service.port_problem(port).ok().flatten()? {
            Problem::PortTaken { owner, .. } => owner,
            _ => "closed connections (TIME_WAIT)".into(),
        };
        Some(Box::new(PortInUse { port, owner, advice: self.service.port_advice(&[], None) }))
    }

    /// Returns the processes that the command left when it exited; none if they cannot be listed, which is noted. The
    /// scans that end the tree find them in any case.
    fn left_behind(&mut self) -> Vec<ProcessIdentity> {
        self.service.left_behind().unwrap_or_else(|error| {
            self.note(&error.to_string());
            Vec::new()
        })
    }

    /// Continues the run with the process of `left_behind` that serves in place of the command. Returns whether there is
    /// one.
    fn hand_over(&mut self, left_behind: &[ProcessIdentity]) -> bool {
        let successor = self.service.successor(left_behind).unwrap_or_else(|error| {
            self.note(&format!("could not check what the command left in the background: {}", reason(&error)));
            None
        });
        let (Some(successor), Some(child)) = (successor, &mut self.service.child) else { return false };
        let is_our_child = successor.parent().is_ok_and(|parent| parent == Some(nix::unistd::getpid().as_raw()));
        self.screen.say(&format!("the command has handed over to {successor}"), clock::now());
        self.recorder.handed_over(&successor);
        child.hand_over(successor, is_our_child);
        self.write_state();
        true
    }

    /// Records the end of the process that the command has handed over to, if the system does not report that end. Returns
    /// `None` while the process may be alive.
    pub(super) fn poll_successor(&mut self, lifecycle: &Lifecycle) -> Option<Event> {
        let child = self.service.child.as_ref().filter(|child| child.needs_polling())?;
        // An error means that it may be alive.
        let has_ended = matches!(child.identity.is_alive(), Ok(false));
        if has_ended { self.end_child(ExitHow::Unknown, lifecycle) } else { None }
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

    /// Repeats the stop signal if it failed, and scans the tree. Returns whether no process of it is left.
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

    /// Shows and logs a restart or a new error, and records the state.
    pub(super) fn record(&mut self, state: State, error: Option<Problem>, lifecycle: &Lifecycle) {
        let now = clock::now();
        let next_start = lifecycle.next_start().map(|at| at.saturating_duration_since(now));
        if let Some(wait) = next_start.filter(|_| is_restart_pending(state)) {
            let wait = match wait.as_millis() {
                short @ ..1000 => format!("{short} ms"),
                _ => format!("{:.0} s", wait.as_secs_f64()),
            };
            self.screen.say(&format!("restarting in {wait}"), now);
        }
        // A taken port was reported when it was found.
        let is_news = |error: &&Problem| state != State::PortConflict && self.recorder.error() != Some(error);
        match error.as_ref().filter(is_news).map(ToString::to_string) {
            Some(error) if state == State::Failed && self.prints_outcome => self.recorder.note(&error),
            Some(error) => self.note(&error),
            None => {}
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

    /// Notes that an operation failed and is retried, unless the same failure was noted and has not been overcome since.
    fn report_retry(&mut self, error: &Error) {
        let text = error.to_string();
        if self.retry_report.is_due(&text, clock::now()) {
            self.note(&format!("{text}; trying again"));
        }
    }

    /// Passes the child's output on, by [`RunningChild::relay`] or [`RunningChild::drain`].
    pub(super) fn pass_output(&mut self, pass: fn(&mut RunningChild, &mut dyn OutputSink)) {
        let Some(child) = &mut self.service.child else { return };
        let (recorder, screen) = (&mut self.recorder, &mut self.screen);
        pass(child, &mut Sinks { recorder, screen, probe: &mut self.probe, responder: &mut self.responder });
    }

    /// Passes the responses of devport to queries of the child on to the child.
    pub(super) fn respond_to_queries(&mut self) {
        let Some(child) = &mut self.service.child else { return };
        if let Some(responses) = self.responder.take_responses(|| child.reads_responses(), clock::now()) {
            child.queue_responses(&responses);
            child.write_input();
        }
    }

    /// Passes our input on to the child. What is read while no child runs is discarded.
    pub(super) fn relay_input(&mut self) {
        let child = &mut self.service.child;
        let is_blocked = child.as_ref().is_some_and(RunningChild::has_pending_input);
        if !is_blocked && self.screen.input_fd().is_some_and(screen::is_readable) {
            match (self.screen.read(), child.as_mut()) {
                (Input::Bytes(bytes), Some(child)) => {
                    self.responder.handle_input(&bytes);
                    child.queue_input(bytes);
                }
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
