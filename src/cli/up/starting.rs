//! `Starting`: starts the services of a plan, each as soon as those that it needs are up, and keeps what became of them.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::args::Goal;
use crate::cli::context::Context;
use crate::cli::output::{note, note_with_hint};
use crate::cli::up::plan::{Plan, Task};
use crate::cli::{last_output, screen, tailnet, wait};
use crate::config::{Schedule, ServiceSpec};
use crate::error::{Error, Result};
use crate::launch::{Ensured, IfRunning, LaunchMode, Previous};
use crate::os::clock::{self, Deadline};
use crate::os::terminal::WindowSize;
use crate::registry::{Reservation, State};
use crate::view::{self, Outcome, ProgressRow, Step};

/// How often progress is drawn, logs are printed and signals are noticed.
const TICK: Duration = Duration::from_millis(50);
/// Services have windows, and are restarted if the file has changed.
pub(super) const MODE: LaunchMode = LaunchMode { is_detached: false, if_running: IfRunning::ReplaceChanged };

/// The start of the services of a plan.
pub(super) struct Starting<'a> {
    pub(super) context: &'a Context,
    pub(super) tasks: &'a [Task<'a>],
    /// For each task, why it cannot be begun; `None` if it can.
    errors: Vec<Option<Error>>,
    deadline: Deadline,
    schedule: Schedule,
    /// One for each task.
    statuses: Vec<Status>,
}

/// How far a task has come.
#[derive(Debug)]
enum Status {
    Waiting,
    /// It was begun at this time.
    Begun(Instant),
    /// It has ended.
    Ended(Box<End>),
}

/// What became of a service.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    /// The service that was started, or ran already; `None` if it could not be started.
    pub(super) ensured: Option<Ensured>,
    /// Why it did not come up; `None` if it did, or was skipped.
    pub(super) error: Option<Error>,
    /// How long it took.
    time: Duration,
}

/// What a thread reports of a task: the service that it started, and whether it came up.
type Report = (usize, Option<Ensured>, Result<()>);

impl<'a> Starting<'a> {
    /// Prepares the start of the services of a plan. All together may take `limit` from now.
    pub(super) fn new(context: &'a Context, plan: &'a mut Plan<'_>, limit: Duration) -> Self {
        let (errors, tasks) = (std::mem::take(&mut plan.errors), plan.tasks.as_slice());
        // A service that runs as the file wants it is left alone, whatever becomes of those that it needs.
        let needs =
            |(task, needs): (&Task<'_>, &Vec<usize>)| if task.is_current() { Vec::new() } else { needs.clone() };
        let schedule = Schedule::new(tasks.iter().zip(&plan.needs).map(needs).collect());
        let statuses = tasks.iter().map(|_| Status::Waiting).collect();
        Self { context, tasks, errors, deadline: Deadline::after(limit), schedule, statuses }
    }

    /// Starts what can be started, again and again, until `tick` ends it. `tick` runs every 50 ms, and when a service
    /// has come up or failed. At its end, waits are cancelled, and what was begun is recorded.
    ///
    /// # Errors
    /// Those of `tick`.
    pub(super) fn run<T>(&mut self, mut tick: impl FnMut(&mut Self) -> Result<ControlFlow<T>>) -> Result<T> {
        let is_cancelled = &AtomicBool::new(false);
        let (sender, reports) = mpsc::channel();
        let result = thread::scope(|scope| {
            let result = loop {
                for position in self.begin() {
                    let (sender, Some(job)) = (sender.clone(), self.job(position, is_cancelled)) else { continue };
                    scope.spawn(move || {
                        let (ensured, result) = job.bring_up();
                        // The receiver outlives the threads.
                        let _ = sender.send((position, ensured, result));
                    });
                }
                self.draw();
                match tick(self) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(value)) => break Ok(value),
                    Err(error) => break Err(error),
                }
                let next = reports.recv_timeout(TICK).ok();
                next.into_iter().chain(reports.try_iter()).for_each(|report| self.record(report));
            };
            is_cancelled.store(true, Ordering::Relaxed);
            screen::clear();
            result
        });
        for report in reports.try_iter() {
            self.record(report);
        }
        result
    }

    /// Returns whether all services have come up, failed or were skipped.
    pub(super) fn is_over(&self) -> bool {
        self.schedule.is_over()
    }

    /// Returns how many services did not come up.
    pub(super) fn failures(&self) -> usize {
        let has_failed = |end: &End| matches!(end.outcome, Outcome::Failed | Outcome::Skipped);
        self.ends().filter(|(_, end)| has_failed(end)).count()
    }

    /// Returns the positions and the ends of the tasks that have ended.
    pub(super) fn ends(&self) -> impl Iterator<Item = (usize, &End)> {
        self.statuses.iter().enumerate().filter_map(|(position, status)| match status {
            Status::Ended(end) => Some((position, end.as_ref())),
            Status::Waiting | Status::Begun(_) => None,
        })
    }

    /// Returns a service if this command started it; `None` if it ran before.
    pub(super) fn started(&self, position: usize) -> Option<&Reservation> {
        let Status::Ended(end) = &self.statuses[position] else { return None };
        let ensured = end.ensured.as_ref()?;
        (ensured.previous != Previous::StillRunning).then_some(&ensured.reservation)
    }

    /// Returns the record of a service. One that could be started but was skipped is registered first, so that its port
    /// and its command are known. `None` if there is none.
    pub(super) fn registered(&self, position: usize) -> Option<Reservation> {
        let task = &self.tasks[position];
        let registry = &self.context.registry;
        let Some((spec, _)) = &task.wanted else { return task.registered.clone() };
        match registry.find(&spec.hash).ok().flatten() {
            Some(reservation) if !reservation.cmd.is_empty() => Some(reservation),
            _ => self.context.launcher().register(spec, IfRunning::Keep).ok().map(|ensured| ensured.reservation),
        }
    }

    /// Starts the services that were skipped because of a service that has come up meanwhile.
    pub(super) fn recover(&mut self, position: usize) {
        note(&format!("{} came up late", self.tasks[position].service.name));
        self.schedule.recover(position);
        if let Status::Ended(end) = &mut self.statuses[position] {
            (end.outcome, end.error) = (Outcome::Started, None);
        }
        for (position, status) in self.statuses.iter_mut().enumerate() {
            let was_skipped = matches!(status, Status::Ended(end) if end.outcome == Outcome::Skipped);
            if was_skipped && self.schedule.is_waiting(position) {
                *status = Status::Waiting;
            }
        }
        self.deadline = Deadline::after(self.deadline.limit);
    }

    /// Returns whether a service did not come up, and may still.
    pub(super) fn has_failed(&self, position: usize) -> bool {
        self.schedule.has_failed(position)
    }

    /// Returns the tasks to begin now. What is left alone ends at once.
    fn begin(&mut self) -> Vec<usize> {
        let mut begun = Vec::new();
        loop {
            let next = self.schedule.begin();
            if next.is_empty() {
                return begun;
            }
            for position in next {
                if self.tasks[position].is_omitted {
                    self.schedule.complete(position);
                    self.statuses[position] = End::without_service(Outcome::NotRunning);
                } else if let Some(error) = self.errors[position].take() {
                    self.record((position, None, Err(error)));
                } else if self.deadline.remaining().is_zero() {
                    note(&format!("{} was not started: the time limit is over", self.tasks[position].service.name));
                    self.skip_dependants(position);
                    self.statuses[position] = End::without_service(Outcome::Skipped);
                } else {
                    self.statuses[position] = Status::Begun(clock::now());
                    begun.push(position);
                }
            }
        }
    }

    /// Records what became of a service, and tells the user.
    fn record(&mut self, (position, ensured, result): Report) {
        let service = self.tasks[position].service;
        let time = match &self.statuses[position] {
            Status::Begun(since) => clock::now().saturating_duration_since(*since),
            Status::Waiting | Status::Ended(_) => Duration::ZERO,
        };
        let (outcome, error) = match result {
            Ok(()) => {
                self.schedule.complete(position);
                let previous = ensured.as_ref().map(|ensured| ensured.previous.into());
                (if service.one_shot { Outcome::Completed } else { previous.unwrap_or(Outcome::Started) }, None)
            }
            Err(error) => {
                if let (Some(ensured), Error::NotInTime { .. } | Error::NotCompleted { .. }) = (&ensured, &error) {
                    last_output::show(self.context, &ensured.reservation);
                }
                note_with_hint(&format!("{}: {error}", service.name), error.hint().as_deref());
                self.skip_dependants(position);
                (Outcome::Failed, Some(error))
            }
        };
        let end = End { outcome, ensured, error, time };
        if !has_terminal() && end.error.is_none() {
            note(&end.announcement(&service.name));
        }
        self.statuses[position] = Status::Ended(Box::new(end));
    }

    /// Skips the services that need one that failed.
    fn skip_dependants(&mut self, failed: usize) {
        let skipped = self.schedule.fail(failed);
        let name = |position: &usize| self.tasks[*position].service.name.as_str();
        if !skipped.is_empty() {
            let names: Vec<&str> = skipped.iter().map(name).collect();
            note(&format!("skipped because {} did not come up: {}", name(&failed), names.join(", ")));
        }
        for position in skipped {
            self.statuses[position] = End::without_service(Outcome::Skipped);
        }
    }

    /// Returns what a thread needs to start a service; `None` for a task without one, which is never begun.
    fn job<'j>(&self, position: usize, is_cancelled: &'j AtomicBool) -> Option<Job<'j>>
    where
        'a: 'j,
    {
        let task = &self.tasks[position];
        let (spec, before) = task.wanted.as_ref()?;
        Some(Job {
            context: self.context,
            spec: spec.clone(),
            one_shot: task.service.one_shot,
            was_up: before.is_up,
            deadline: self.deadline,
            is_cancelled,
        })
    }

    /// Shows on a terminal how far each service has come, until all have ended.
    fn draw(&self) {
        if self.is_over() || !has_terminal() {
            return screen::clear();
        }
        let size = WindowSize::of(io::stderr());
        let style = self.context.output.error_style();
        let rows: Vec<ProgressRow> = (0..self.statuses.len()).map(|position| self.row(position)).collect();
        screen::draw(view::progress(&rows, style, size.map_or(24, WindowSize::rows).into()));
    }

    /// Returns the line of a service.
    fn row(&self, position: usize) -> ProgressRow {
        let task = &self.tasks[position];
        let row = |step, time, detail| ProgressRow { name: task.service.name.clone(), step, time, detail };
        match &self.statuses[position] {
            Status::Waiting => row(Step::Waiting, None, String::new()),
            Status::Begun(since) => {
                let wanted = task.wanted.as_ref();
                let run = wanted.and_then(|(spec, _)| self.context.registry.run_state(&spec.hash).ok().flatten());
                let state = run.as_ref().map_or(State::Starting, |run| run.state);
                let detail = run.and_then(|run| run.error).map_or_else(String::new, |error| error.to_string());
                row(Step::Pending(state), Some(clock::now().saturating_duration_since(*since)), detail)
            }
            Status::Ended(end) => row(end.step(task), Some(end.time).filter(|time| !time.is_zero()), String::new()),
        }
    }
}

impl End {
    /// Returns the end of a task for which no service was started.
    fn without_service(outcome: Outcome) -> Status {
        Status::Ended(Box::new(Self { outcome, ensured: None, error: None, time: Duration::ZERO }))
    }

    fn step(&self, task: &Task<'_>) -> Step {
        match self.outcome {
            Outcome::Failed => Step::Failed,
            Outcome::Skipped => Step::Skipped,
            Outcome::Completed => Step::Reached(State::Completed),
            Outcome::NotRunning => Step::Omitted(if task.service.one_shot { "not needed" } else { "reserved" }),
            _ => Step::Reached(State::Ready),
        }
    }

    /// Returns the line for a service that has come up.
    fn announcement(&self, name: &str) -> String {
        let seconds = self.time.as_secs_f64();
        match self.outcome {
            Outcome::AlreadyRunning => format!("{name} was already running"),
            Outcome::Completed => format!("{name} completed in {seconds:.1} s"),
            _ => format!("{name} is ready after {seconds:.1} s"),
        }
    }
}

/// What a thread needs to start a service.
struct Job<'a> {
    context: &'a Context,
    spec: ServiceSpec,
    /// Whether the service runs to completion.
    one_shot: bool,
    /// Whether the service ran before.
    was_up: bool,
    deadline: Deadline,
    /// Whether waits are to end.
    is_cancelled: &'a AtomicBool,
}

impl Job<'_> {
    /// Starts a service and waits until it is ready, or has completed. Returns the service if it was started or ran
    /// already, and why it did not come up.
    fn bring_up(&self) -> (Option<Ensured>, Result<()>) {
        let spec = &self.spec;
        if spec.request.tailnet {
            // The command gets its host name, which is published later.
            self.context.addresses().learn_suffix();
        }
        let ensured = match self.context.launcher().start(spec, MODE) {
            Ok(ensured) => ensured,
            Err(error) => {
                // Its supervisor may try again.
                let previous = if self.was_up { Previous::StillRunning } else { Previous::NotRunning };
                let registered = self.context.registry.find(&spec.hash).ok().flatten();
                let ensured = registered.map(|reservation| Ensured::new(reservation, previous));
                // A one-shot that has ended before its state was read has run all the same.
                let result = match (&error, &ensured) {
                    (Error::StartFailed { .. }, Some(ensured)) if self.one_shot => self.wait_for(&ensured.reservation),
                    _ => Err(error),
                };
                return (ensured, result);
            }
        };
        let result = self.wait_for(&ensured.reservation);
        if result.is_ok() {
            tailnet::publish_started(self.context, spec, &ensured);
        }
        (Some(ensured), result)
    }

    /// Waits until a service is ready, or has completed.
    fn wait_for(&self, reservation: &Reservation) -> Result<()> {
        // A service that is ready already is found ready, even if the time is up.
        let limit = self.deadline.remaining().max(Duration::from_millis(1));
        let is_cancelled = || self.is_cancelled.load(Ordering::Relaxed);
        let goal = if self.one_shot { Goal::Stopped } else { Goal::Ready };
        wait::quietly(self.context, reservation, goal, limit, &is_cancelled)?;
        if self.one_shot { wait::check_completed(self.context, reservation) } else { Ok(()) }
    }
}

/// Returns whether the user watches the progress.
fn has_terminal() -> bool {
    io::stderr().is_terminal()
}
