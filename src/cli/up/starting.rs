//! `Starting`: starts the services of a plan, each as soon as those that it needs are up, and keeps what became of them.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::cli::context::Context;
use crate::cli::output::{note, note_with_hint};
use crate::cli::own_stack::up_line;
use crate::cli::stack::Located;
use crate::cli::up::job::{Job, Report};
use crate::cli::up::plan::{Plan, Task};
use crate::cli::{last_output, screen, wait};
use crate::config::{Schedule, StackService};
use crate::error::{Error, Result};
use crate::launch::{Ensured, IfRunning, LaunchMode, Previous};
use crate::os::clock::{self, Deadline};
use crate::os::parallel;
use crate::os::terminal::WindowSize;
use crate::registry::{Reservation, State};
use crate::view::{self, Outcome, ProgressRow, ServiceView, Step};

/// How often progress is drawn, logs are printed and signals are noticed.
const TICK: Duration = Duration::from_millis(50);
/// Services have windows, and are restarted if the file has changed.
pub(super) const MODE: LaunchMode = LaunchMode { is_detached: false, if_running: IfRunning::ReplaceChanged };

/// The start of the services of a plan.
pub(super) struct Starting<'a> {
    pub(super) context: &'a Context,
    located: &'a Located,
    pub(super) tasks: &'a [Task<'a>],
    /// For each task, why it cannot be begun; `None` if it can.
    errors: Vec<Option<Error>>,
    deadline: Deadline,
    schedule: Schedule,
    /// One for each task.
    statuses: Vec<Status>,
    /// The tasks whose services ran before and are not announced yet, in the order of the file. They end in any order.
    unannounced: VecDeque<usize>,
    /// How many threads have not reported yet.
    running: usize,
    /// Whether nothing is started any more.
    is_cancelled: bool,
    /// The names that the user gave, for a second `up` that also starts what was skipped; `None` if this one does so.
    again: Option<Vec<&'a str>>,
}

/// How far a task has come.
#[derive(Debug)]
enum Status {
    Waiting,
    Begun(Begun),
    Ended(Box<TaskResult>),
}

/// When a task was begun.
#[derive(Debug, Clone, Copy)]
struct Begun {
    since: Instant,
    /// The same moment, to compare with recorded times.
    at: Timestamp,
}

/// The result of starting one service.
#[derive(Debug)]
pub(super) struct TaskResult {
    pub(super) outcome: Outcome,
    /// The service that was started, or ran already; `None` if it could not be started.
    pub(super) ensured: Option<Ensured>,
    /// Why it did not come up; `None` if it did, or was skipped.
    pub(super) error: Option<Error>,
    /// When it was begun; `None` if it was not.
    begun: Option<Begun>,
    /// How long it took.
    time: Duration,
}

impl<'a> Starting<'a> {
    /// Prepares the start of the services of a plan. All together may take `limit` from now. `again`: the names that the
    /// user gave; `None` if this command starts later what it skips at first.
    pub(super) fn new(
        context: &'a Context,
        located: &'a Located,
        plan: &'a mut Plan<'_>,
        limit: Duration,
        again: Option<&'a [String]>,
    ) -> Self {
        let (errors, tasks) = (std::mem::take(&mut plan.errors), plan.tasks.as_slice());
        // A service that runs as the file wants it is left alone, whatever becomes of those that it needs.
        let needs =
            |(task, needs): (&Task<'_>, &Vec<usize>)| if task.is_current() { Vec::new() } else { needs.clone() };
        let place =
            |task: &Task<'_>| located.stack.services.iter().position(|service| service.name == task.service.name);
        let mut unannounced: Vec<usize> = (0..tasks.len()).filter(|position| tasks[*position].is_current()).collect();
        unannounced.sort_by_key(|position| place(&tasks[*position]));
        Self {
            context,
            located,
            tasks,
            unannounced: unannounced.into(),
            errors,
            deadline: Deadline::after(limit),
            schedule: Schedule::new(tasks.iter().zip(&plan.needs).map(needs).collect()),
            statuses: tasks.iter().map(|_| Status::Waiting).collect(),
            running: 0,
            is_cancelled: false,
            again: again.map(|names| names.iter().map(String::as_str).collect()),
        }
    }

    /// Starts services as those that they need come up. Returns when `tick` breaks, which runs every 50 ms and after each
    /// result. Then waits are cancelled, and `drain` runs every 50 ms until no start is under way.
    ///
    /// # Errors
    /// Those of `tick`.
    pub(super) fn run<T>(
        &mut self,
        mut tick: impl FnMut(&mut Self) -> Result<ControlFlow<T>>,
        mut drain: impl FnMut(&Self),
    ) -> Result<T> {
        let is_cancelled = &AtomicBool::new(false);
        let (sender, reports) = mpsc::channel();
        let wait = |starting: &mut Self| {
            let next = reports.recv_timeout(TICK).ok();
            next.into_iter().chain(reports.try_iter()).for_each(|report| starting.record(report));
        };
        thread::scope(|scope| {
            let result = loop {
                for position in self.begin() {
                    let Some(job) = self.job(position, is_cancelled) else { continue };
                    let sender = sender.clone();
                    self.running += 1;
                    scope.spawn(move || {
                        let (ensured, result) = parallel::catch(|| job.bring_up())
                            .unwrap_or_else(|error| (None, Err(Error::system("start the service")(error))));
                        // The receiver outlives the threads.
                        drop(sender.send(Report { position, ensured, result }));
                    });
                }
                self.draw();
                match tick(self) {
                    Ok(ControlFlow::Continue(())) => wait(self),
                    Ok(ControlFlow::Break(value)) => break Ok(value),
                    Err(error) => break Err(error),
                }
            };
            is_cancelled.store(true, Ordering::Relaxed);
            self.is_cancelled = true;
            screen::clear();
            while self.running > 0 {
                drain(self);
                wait(self);
            }
            result
        })
    }

    /// Returns whether all services have come up, failed or were skipped.
    pub(super) fn is_over(&self) -> bool {
        self.schedule.is_over()
    }

    /// Returns the positions and the results of the tasks that have ended.
    pub(super) fn results(&self) -> impl Iterator<Item = (usize, &TaskResult)> {
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

    /// Returns the records of the services that are being started now.
    pub(super) fn begun(&self) -> impl Iterator<Item = Reservation> {
        let is_begun = |position: &usize| matches!(self.statuses[*position], Status::Begun(_));
        (0..self.statuses.len()).filter(is_begun).filter_map(|position| self.registered(position))
    }

    /// Returns the record of a service; `None` if there is none.
    pub(super) fn registered(&self, position: usize) -> Option<Reservation> {
        let task = &self.tasks[position];
        let Some((spec, _)) = &task.wanted else { return task.registered.clone() };
        self.context.registry.find(&spec.hash).ok().flatten()
    }

    /// Returns whether a service did not come up.
    pub(super) fn has_failed(&self, position: usize) -> bool {
        self.schedule.has_failed(position)
    }

    /// Returns whether a service did not come up, but has since this command started it.
    pub(super) fn came_up_late(&self, position: usize, view: &ServiceView) -> bool {
        let Status::Ended(end) = &self.statuses[position] else { return false };
        let is_newer = |at: Timestamp| end.begun.is_some_and(|begun| at > begun.at);
        let is_up = match view.state {
            // A process that ran before is up only if its readiness was waited for.
            State::Ready => matches!(end.error, Some(Error::NotInTime { .. })) || view.started_at.is_some_and(is_newer),
            State::Completed => view.last_exit.as_ref().is_some_and(|exit| is_newer(exit.at)),
            _ => false,
        };
        is_up && self.schedule.has_failed(position)
    }

    /// Lets the services begin that were skipped because of a service that has come up meanwhile.
    pub(super) fn recover(&mut self, position: usize) {
        note(&format!("{} came up late", self.tasks[position].service.name));
        self.schedule.recover(position);
        if let Status::Ended(end) = &mut self.statuses[position] {
            let is_one_shot = self.tasks[position].service.one_shot;
            end.outcome = if is_one_shot { Outcome::Completed } else { Outcome::Started };
            end.error = None;
        }
        for (position, status) in self.statuses.iter_mut().enumerate() {
            let was_skipped = matches!(status, Status::Ended(end) if end.outcome == Outcome::Skipped);
            if was_skipped && self.schedule.is_waiting(position) {
                *status = Status::Waiting;
            }
        }
        self.deadline = Deadline::after(self.deadline.limit);
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
                    self.statuses[position] = TaskResult::without_service(Outcome::NotRunning);
                } else if let Some(error) = self.errors[position].take() {
                    self.record(Report { position, ensured: None, result: Err(error) });
                } else if self.deadline.remaining().is_zero() {
                    note(&format!("{} was not started: --timeout has expired", self.tasks[position].service.name));
                    self.skip(position);
                    self.skip_dependants(position);
                } else {
                    self.tasks[position].note_restart();
                    self.statuses[position] = Status::Begun(Begun { since: clock::now(), at: clock::wall() });
                    begun.push(position);
                }
            }
        }
    }

    /// Records the result of a task, and notes it.
    fn record(&mut self, Report { position, ensured, result }: Report) {
        let service = self.tasks[position].service;
        let begun = match &self.statuses[position] {
            Status::Begun(begun) => Some(*begun),
            Status::Waiting | Status::Ended(_) => None,
        };
        self.running -= usize::from(begun.is_some());
        let (outcome, error) = match result {
            Ok(()) => {
                self.schedule.complete(position);
                let previous = ensured.as_ref().map(|ensured| ensured.previous.into());
                (if service.one_shot { Outcome::Completed } else { previous.unwrap_or(Outcome::Started) }, None)
            }
            Err(error) => {
                if !self.is_cancelled {
                    if let (Some(ensured), Error::NotInTime { .. } | Error::NotCompleted { .. }) = (&ensured, &error) {
                        last_output::show(self.context, &ensured.reservation);
                    }
                    let hint = match &error {
                        Error::NotInTime { .. } | Error::NotCompleted { .. } => None,
                        error => error.hint(),
                    };
                    let hint = hint.or_else(|| Some(self.remedy(service, ensured.as_ref())));
                    note_with_hint(&format!("{}: {error}", service.name), hint.as_deref());
                }
                self.skip_dependants(position);
                (Outcome::Failed, Some(error))
            }
        };
        let time = begun.map_or(Duration::ZERO, |begun| clock::now().saturating_duration_since(begun.since));
        self.statuses[position] = Status::Ended(Box::new(TaskResult { outcome, ensured, error, begun, time }));
        if !has_terminal() {
            self.announce(position);
        }
    }

    /// Returns what to do about a service that did not come up. `restart` would use the old entry of the file.
    fn remedy(&self, service: &StackService, ensured: Option<&Ensured>) -> String {
        let has_closing_port =
            ensured.is_some_and(|ensured| wait::starts_by_itself(self.context, &ensured.reservation));
        let up = |names: &[&str]| up_line(self.context, self.located.file(), names);
        match (&self.again, has_closing_port) {
            (Some(names), false) => format!("after the fix, run `{}`", up(names)),
            (None, false) => format!("after the fix, run `{}`", up(&[&service.name])),
            (Some(names), true) => {
                format!("it starts by itself once its port is free; then run `{}` again", up(names))
            }
            (None, true) => "it starts by itself once its port is free".into(),
        }
    }

    /// Notes that a service has come up. One that ran before is noted after those that stand before it in the file and
    /// ran before too.
    fn announce(&mut self, position: usize) {
        if !self.unannounced.contains(&position) {
            return self.note_end(position);
        }
        while let Some(next) = self.unannounced.front().copied()
            && matches!(self.statuses[next], Status::Ended(_))
        {
            self.unannounced.pop_front();
            self.note_end(next);
        }
    }

    /// Notes that a service has come up, if it has.
    fn note_end(&self, position: usize) {
        if let Status::Ended(end) = &self.statuses[position]
            && end.error.is_none()
            && end.outcome != Outcome::Skipped
        {
            note(&end.announcement(&self.tasks[position].service.name));
        }
    }

    /// Skips the services that need one that failed.
    fn skip_dependants(&mut self, failed: usize) {
        let skipped = self.schedule.fail(failed);
        let described = |position: &usize| {
            let task = &self.tasks[*position];
            let is_up = task.wanted.as_ref().is_some_and(|(_, comparison)| comparison.is_up);
            format!("{}{}", task.service.name, if is_up { " (it runs on as it was)" } else { "" })
        };
        if !skipped.is_empty() && !self.is_cancelled {
            let names: Vec<String> = skipped.iter().map(described).collect();
            let failed = &self.tasks[failed].service.name;
            note(&format!("skipped because {failed} did not come up: {}", names.join(", ")));
        }
        for position in skipped {
            self.skip(position);
        }
    }

    /// Marks a service as skipped, and registers it, so that its command is known.
    fn skip(&mut self, position: usize) {
        self.statuses[position] = TaskResult::without_service(Outcome::Skipped);
        let is_registered = self.registered(position).is_some_and(|reservation| !reservation.cmd.is_empty());
        if let (Some((spec, _)), false) = (&self.tasks[position].wanted, is_registered) {
            // Without a record, its row says only that it was skipped.
            let _ = self.context.launcher().register(spec, IfRunning::Keep);
        }
    }

    /// Returns what a thread needs to start a service; `None` for a task without one, which is never begun.
    fn job<'j>(&self, position: usize, is_cancelled: &'j AtomicBool) -> Option<Job<'j>>
    where
        'a: 'j,
    {
        let task = &self.tasks[position];
        let (spec, before) = task.wanted.as_ref()?;
        let shared = task.shared.iter().filter_map(|shared| Some(self.tasks[*shared].wanted.as_ref()?.0.clone()));
        Some(Job {
            context: self.context,
            located: self.located,
            spec: spec.clone(),
            mode: LaunchMode { if_running: task.if_running, ..MODE },
            shared: shared.collect(),
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
            Status::Begun(begun) => {
                let wanted = task.wanted.as_ref();
                let run = wanted.and_then(|(spec, _)| self.context.registry.run_state(&spec.hash).ok().flatten());
                let state = run.as_ref().map_or(State::Starting, |run| run.state);
                let detail = run.and_then(|run| run.error).map_or_else(String::new, |error| error.to_string());
                row(Step::Pending(state), Some(clock::now().saturating_duration_since(begun.since)), detail)
            }
            Status::Ended(end) => row(end.step(task), Some(end.time).filter(|time| !time.is_zero()), String::new()),
        }
    }
}

impl TaskResult {
    /// Returns the status of a task for which no service was started.
    fn without_service(outcome: Outcome) -> Status {
        Status::Ended(Box::new(Self { outcome, ensured: None, error: None, begun: None, time: Duration::ZERO }))
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

    /// Returns whether a service came up. A one-shot completes instead.
    pub(super) fn came_up(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed | Outcome::Skipped | Outcome::NotRunning | Outcome::Completed)
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

/// Returns whether the user watches the progress.
fn has_terminal() -> bool {
    io::stderr().is_terminal()
}
