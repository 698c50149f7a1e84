//! `devport up` in the foreground: prints the logs of its services, starts late what had to be skipped, and stops what it
//! started when it is interrupted.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::cli::context::Context;
use crate::cli::log_stream::{LogStream, Printer, Source, prefixes};
use crate::cli::output::{note, write_error};
use crate::cli::teardown::{Ending, end_all};
use crate::cli::up::plan::Plan;
use crate::cli::up::report::{Rows, rows};
use crate::cli::up::starting::Starting;
use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::interrupt::Interrupts;
use crate::os::signal;
use crate::registry::{FileLock, State};
use crate::view::{self, LineStyle, Status};

/// How often to check whether services have come up late, or were stopped.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Why `up` ends.
enum End {
    /// A signal with this number.
    Interrupted(i32),
    /// No service runs any more.
    AllStopped,
}

/// What happens while `up` is in the foreground.
struct Foreground {
    interrupts: Interrupts,
    logs: LogStream,
    /// The lock of the stack; `None` once all services have come up or failed.
    lock: Option<FileLock>,
    next_check: Instant,
}

/// Starts the services of a plan and stays until a signal arrives or none of them runs.
///
/// # Errors
/// [`Error::Interrupted`], [`Error::SomeNotUp`] if a service gave up, or if standard output cannot be written to.
pub(super) fn execute(context: &Context, plan: &mut Plan<'_>, limit: Duration, lock: FileLock) -> Result<()> {
    let mut foreground = Foreground {
        interrupts: Interrupts::catch().map_err(Error::system("catch signals"))?,
        logs: follow_logs(context, plan)?,
        lock: Some(lock),
        next_check: clock::now(),
    };
    let needs = plan.needs.clone();
    let mut starting = Starting::new(context, plan, limit);
    let ended = starting.run(|starting| foreground.tick(starting));
    match ended {
        Ok(End::AllStopped) if has_given_up(context, &starting) => {
            Err(Error::SomeNotUp { failed: starting.failures(), total: starting.tasks.len() })
        }
        Ok(End::AllStopped) => Ok(()),
        Ok(End::Interrupted(number)) => {
            foreground.stop(context, &starting, &needs);
            Err(Error::Interrupted { signal: signal::name(number), code: signal::exit_code(number) })
        }
        Err(error) => {
            foreground.stop(context, &starting, &needs);
            Err(error)
        }
    }
}

/// Follows the logs of the services from now on.
fn follow_logs(context: &Context, plan: &Plan<'_>) -> Result<LogStream> {
    let wanted: Vec<_> = plan.tasks.iter().filter_map(|task| Some((task.service, task.wanted.as_ref()?))).collect();
    let names: Vec<&str> = wanted.iter().map(|(service, _)| service.name.as_str()).collect();
    let sources = wanted.iter().zip(prefixes(&names, context.output)).map(|((service, (spec, _)), prefix)| Source {
        name: service.name.clone(),
        log: context.registry.paths().log(&spec.hash),
        style: LineStyle { prefix, is_terminal: std::io::stdout().is_terminal(), has_timestamps: false },
        run: None,
    });
    LogStream::start(sources.collect(), Some(0), &|_, _| true, Printer::new(context.output))
}

/// Returns whether a service has not come up, and its supervisor has given up.
fn has_given_up(context: &Context, starting: &Starting<'_>) -> bool {
    let has_failed = |position: usize| {
        let Some((spec, _)) = &starting.tasks[position].wanted else { return true };
        let run = context.registry.run_state(&spec.hash).ok().flatten();
        run.is_none_or(|run| run.state == State::Failed || starting.tasks[position].service.one_shot)
    };
    (0..starting.tasks.len()).any(|position| starting.has_failed(position) && has_failed(position))
}

impl Foreground {
    /// Prints new lines of the logs. Returns why `up` ends, if it does.
    fn tick(&mut self, starting: &mut Starting<'_>) -> Result<ControlFlow<End>> {
        self.logs.print_new(&|_, _| true)?;
        if let Some(number) = self.interrupts.take() {
            return Ok(ControlFlow::Break(End::Interrupted(number)));
        }
        if !starting.is_over() {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(lock) = self.lock.take() {
            lock.delete()?;
            show_services(starting);
        }
        if clock::now() < self.next_check {
            return Ok(ControlFlow::Continue(()));
        }
        self.next_check = clock::later(clock::now(), CHECK_INTERVAL);
        Ok(check(starting))
    }

    /// Stops what this command started, each service before those that it needs. After another signal it kills them.
    fn stop(&mut self, context: &Context, starting: &Starting<'_>, needs: &[Vec<usize>]) {
        let services: Vec<_> = (0..starting.tasks.len()).map(|position| starting.started(position).cloned()).collect();
        if services.iter().any(Option::is_some) {
            note("stopping the services; press ctrl-c again to kill them");
        }
        let Self { interrupts, logs, .. } = self;
        end_all(context, &services, needs, Ending::Stop, &mut || {
            // Nothing more can be done if standard output is closed.
            let _ = logs.print_new(&|_, _| true);
            interrupts.take().is_some()
        });
        let _ = logs.print_new(&|_, _| true);
    }
}

/// Shows the services once all have come up or failed, and how to end them.
fn show_services(starting: &Starting<'_>) {
    let context = starting.context;
    let Rows { table, .. } = rows(starting);
    write_error(view::batch(&table, context.output.error_style()).as_bytes());
    let is_ours = |position: &usize| starting.started(*position).is_some();
    if (0..starting.tasks.len()).any(|position| is_ours(&position)) {
        note("press ctrl-c to stop what this command started");
    } else if starting.failures() == 0 {
        note("all services ran before, and run on after ctrl-c; `devport down` stops them");
    }
}

/// Starts services that were skipped because of one that has come up meanwhile. Returns the end if no service runs.
fn check(starting: &mut Starting<'_>) -> ControlFlow<End> {
    let mut runs = false;
    for position in 0..starting.tasks.len() {
        let task = &starting.tasks[position];
        let Some((spec, _)) = &task.wanted else { continue };
        let Ok(Some(reservation)) = starting.context.registry.find(&spec.hash) else { continue };
        let view = starting.context.view(&reservation);
        runs |= view.status != Status::Stopped;
        let is_up = matches!(view.state, State::Ready | State::Completed);
        if is_up && starting.has_failed(position) {
            starting.recover(position);
        }
    }
    if runs || !starting.is_over() { ControlFlow::Continue(()) } else { ControlFlow::Break(End::AllStopped) }
}
