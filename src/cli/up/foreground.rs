//! `devport up` in the foreground: prints the logs of its services, starts late what had to be skipped, and stops what it
//! started when it is interrupted.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::context::Context;
use crate::cli::log_stream::{LogStream, Printer, Source, prefixes};
use crate::cli::output::{note, report, write_error};
use crate::cli::stack::Located;
use crate::cli::stop;
use crate::cli::teardown::{Ending, end_all, spare_shared};
use crate::cli::up::plan::Plan;
use crate::cli::up::report::{Rows, rows};
use crate::cli::up::starting::Starting;
use crate::error::{Error, Result};
use crate::launch::Urgency;
use crate::os::clock;
use crate::os::interrupt::{Interrupt, Interrupts};
use crate::os::signal;
use crate::registry::{FileLock, Reservation, State};
use crate::view::{self, LineStyle, Outcome};

/// How often to check whether services have come up late, or were stopped.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often to print new lines of logs: a person does not notice a delay of 50 ms.
const LOG_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait for the last lines of the logs: a full pipe without a reader blocks them.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long after a signal the next one is taken for a copy of it: `npm run` passes ctrl-c on to a command that has
/// received it too.
const ECHO: Duration = Duration::from_millis(500);

/// Why `up` ends.
enum End {
    /// A signal with this number.
    Interrupted(i32),
    /// No service runs any more.
    AllStopped,
}

/// The thread that prints the logs. It may block on standard output, so nothing waits for it without a limit.
struct Logs {
    is_ending: Arc<AtomicBool>,
    /// Receives the thread's result.
    result: Receiver<Result<()>>,
}

/// What happens while `up` is in the foreground.
struct Foreground<'a> {
    context: &'a Context,
    located: &'a Located,
    interrupts: Interrupts,
    /// When the first signal arrived; `None` as long as none has.
    interrupted: Option<Instant>,
    logs: Logs,
    /// The lock of the stack; `None` while no service is being started.
    lock: Option<FileLock>,
    /// Whether the services were shown after the first start.
    has_shown: bool,
    next_check: Instant,
}

/// Starts the services of a plan and stays until a signal arrives or none of them runs.
///
/// # Errors
/// [`Error::Interrupted`], [`Error::SomeNotUp`] if a service has failed, or if standard output cannot be written to.
pub(super) fn execute(
    context: &Context,
    located: &Located,
    plan: &mut Plan<'_>,
    limit: Duration,
    lock: FileLock,
) -> Result<()> {
    let foreground = std::cell::RefCell::new(Foreground {
        context,
        located,
        interrupts: Interrupts::catch().map_err(Error::system("catch signals"))?,
        interrupted: None,
        logs: Logs::start(context, plan)?,
        lock: Some(lock),
        has_shown: false,
        next_check: clock::now(),
    });
    let needs = plan.needs.clone();
    let mut starting = Starting::new(context, located, plan, limit, None);
    let ended = starting
        .run(|starting| foreground.borrow_mut().tick(starting), |starting| foreground.borrow().kill_begun(starting));
    let foreground = foreground.into_inner();
    let result = match ended {
        Ok(End::AllStopped) => all_stopped(context, &starting),
        Ok(End::Interrupted(number)) => {
            if number != libc::SIGINT {
                note(&format!("received {}", signal::name(number)));
            }
            foreground.stop(&starting, &needs);
            Err(Error::Interrupted { signal: signal::name(number), code: signal::exit_code(number) })
        }
        Err(error) => {
            if matches!(error, Error::ClosedOutput) {
                note("standard output was closed");
            }
            foreground.stop(&starting, &needs);
            Err(error)
        }
    };
    foreground.logs.finish();
    result
}

/// Notes that no service runs any more, if one was up, and returns the result of the command.
///
/// # Errors
/// [`Error::SomeNotUp`] if a service has failed, with those that were skipped because of it. Those that others stopped
/// have not failed.
fn all_stopped(context: &Context, starting: &Starting<'_>) -> Result<()> {
    let (mut failed, mut skipped, mut was_up) = (0, 0, false);
    for (position, result) in starting.results() {
        let view = starting.registered(position).map(|reservation| context.view(&reservation));
        // One that was not ready in time, or had to wait for its port, went on until another command stopped it.
        let is_late = matches!(result.error, Some(Error::NotInTime { .. } | Error::PortTaken { .. }));
        let has_ended = view.as_ref().is_some_and(|view| view.state == State::Failed);
        // One that could not be planned may have been registered before.
        let was_begun = view.is_some() && starting.tasks[position].wanted.is_some();
        let has_failed = has_ended || (result.error.is_some() && !was_begun);
        let went_on = is_late && was_begun && !has_ended;
        was_up |= result.came_up() || went_on;
        failed += usize::from(has_failed);
        skipped += usize::from(result.outcome == Outcome::Skipped);
        if let (true, None, Some(view)) = (has_failed, &result.error, view) {
            let why = view.error.unwrap_or_default();
            note(&format!("{}: it has ended: {why}", starting.tasks[position].service.name));
        }
    }
    if was_up {
        note("none of the services runs any more");
    }
    if failed > 0 { Err(Error::SomeNotUp { failed: failed + skipped, total: starting.tasks.len() }) } else { Ok(()) }
}

impl Logs {
    /// Starts to print what is added to the logs of the services.
    fn start(context: &Context, plan: &Plan<'_>) -> Result<Self> {
        let wanted: Vec<_> = plan.tasks.iter().filter_map(|task| Some((task.service, task.wanted.as_ref()?))).collect();
        let names: Vec<&str> = wanted.iter().map(|(service, _)| service.name.as_str()).collect();
        let sources =
            wanted.iter().zip(prefixes(&names, context.output)).map(|((service, (spec, _)), prefix)| Source {
                name: service.name.clone(),
                log: context.registry.paths().log(&spec.hash),
                style: LineStyle { prefix, is_terminal: std::io::stdout().is_terminal(), has_timestamps: false },
                run: None,
            });
        let printer = Printer::new(context.output);
        let mut stream = LogStream::start(sources.collect(), Some(0), &|_, _| true, printer)?.keep_deleted();
        let is_ending = Arc::new(AtomicBool::new(false));
        let (sender, result) = mpsc::channel();
        let ending = Arc::clone(&is_ending);
        thread::spawn(move || {
            let result = loop {
                // Before the lines are read, so that the last ones are printed.
                let is_last = ending.load(Ordering::Relaxed);
                if let Err(error) = stream.print_new(&|_, _| true) {
                    break Err(error);
                }
                if is_last {
                    break Ok(());
                }
                clock::pause(LOG_INTERVAL);
            };
            // The command may have ended.
            let _ = sender.send(result);
        });
        Ok(Self { is_ending, result })
    }

    /// Returns whether the logs are still printed.
    ///
    /// # Errors
    /// Why they are not.
    fn check(&self) -> Result<()> {
        self.result.try_recv().unwrap_or(Ok(()))
    }

    /// Waits for a moment until the last lines are printed.
    fn finish(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        // An error of standard output has ended the command already.
        let _ = self.result.recv_timeout(LAST_LINES);
    }
}

impl Foreground<'_> {
    /// Returns why `up` ends, if it does.
    fn tick(&mut self, starting: &mut Starting<'_>) -> Result<ControlFlow<End>> {
        if let Some(Interrupt { number, at }) = self.interrupts.take() {
            self.interrupted = Some(at);
            return Ok(ControlFlow::Break(End::Interrupted(number)));
        }
        self.logs.check()?;
        if !starting.is_over() {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(lock) = self.lock.take() {
            lock.delete()?;
        }
        if self.has_shown && clock::now() < self.next_check {
            return Ok(ControlFlow::Continue(()));
        }
        self.next_check = clock::later(clock::now(), CHECK_INTERVAL);
        let runs = self.check(starting)?;
        if !std::mem::replace(&mut self.has_shown, true) {
            show_services(starting, runs);
        }
        Ok(if runs || !starting.is_over() { ControlFlow::Continue(()) } else { ControlFlow::Break(End::AllStopped) })
    }

    /// Lets services begin that were skipped because of one that has come up meanwhile. Returns whether a service runs.
    fn check(&mut self, starting: &mut Starting<'_>) -> Result<bool> {
        let mut runs = false;
        for position in 0..starting.tasks.len() {
            let Some((spec, _)) = &starting.tasks[position].wanted else { continue };
            runs |= self.context.registry.may_run(&spec.hash);
            if !starting.has_failed(position) {
                continue;
            }
            let Some(reservation) = starting.registered(position) else { continue };
            if starting.came_up_late(position, &self.context.view(&reservation)) {
                // Another command may be about to stop the services.
                let lock = self.lock.take().map_or_else(|| self.located.try_lock(self.context), |lock| Ok(Some(lock)));
                self.lock = lock?;
                if self.lock.is_some() {
                    starting.recover(position);
                }
            }
        }
        Ok(runs)
    }

    /// Returns whether the user wants to kill the services: whether another signal has arrived.
    fn wants_kill(&self) -> bool {
        let is_copy = |at: Instant| self.interrupted.is_some_and(|first| at.saturating_duration_since(first) < ECHO);
        std::iter::from_fn(|| self.interrupts.take()).any(|Interrupt { at, .. }| !is_copy(at))
    }

    /// Kills the services that are being started, or stopped to be started again, if the user wants that.
    fn kill_begun(&self, starting: &Starting<'_>) {
        if self.wants_kill() {
            for reservation in starting.begun() {
                if let Err(error) = stop::stop(self.context, &reservation, Urgency::Kill) {
                    report(reservation.name(), &error);
                }
            }
        }
    }

    /// Stops what this command started, each service before those that it needs, except for shared ones that other
    /// checkouts need. After another signal it kills them.
    fn stop(&self, starting: &Starting<'_>, needs: &[Vec<usize>]) {
        let started = |position| starting.started(position).cloned();
        let mut services: Vec<Option<Reservation>> = (0..starting.tasks.len()).map(started).collect();
        if services.iter().all(Option::is_none) {
            return;
        }
        note("stopping the services; press ctrl-c again to kill them");
        let stack: Vec<_> = starting.tasks.iter().map(|task| task.service).collect();
        let lock = spare_shared(self.context, self.located, &stack, &mut services);
        if let Err(error) = &lock {
            report("shared services", error);
            // Others may need them.
            for (service, slot) in stack.iter().zip(&mut services).filter(|(service, _)| service.shared) {
                note(&format!("{} stays", service.name));
                *slot = None;
            }
        }
        end_all(self.context, &services, needs, &|_| Ending::Stop, &mut || self.wants_kill());
    }
}

/// Shows the services once all have come up or failed, and how to end them. `runs`: whether one of them runs.
fn show_services(starting: &Starting<'_>, runs: bool) {
    let Rows { table, .. } = rows(starting);
    if table.is_empty() {
        return note("the file has no services");
    }
    write_error(view::batch(&table, starting.context.output.error_style()).as_bytes());
    if !runs {
        return;
    }
    if (0..starting.tasks.len()).any(|position| starting.started(position).is_some()) {
        note("press ctrl-c to stop what this command started");
    } else {
        note("these services ran before, and run on after ctrl-c; `devport down` stops them");
    }
}
