//! `devport up`: starts the services of a stack, each after those that it needs.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use crate::cli::args::Up;
use crate::cli::context::Context;
use crate::cli::output::{note, report};
use crate::cli::stack::{Located, Ports};
use crate::cli::{missing_tmux, wait};
use crate::config::{ServiceSpec, StackService};
use crate::error::{Error, Result};
use crate::launch::{Ensured, IfRunning, LaunchMode, Previous};
use crate::os::clock::Deadline;
use crate::registry::Reservation;
use crate::view::{Outcome, ServiceView};

/// Executes `devport up -d`.
///
/// # Errors
/// If the file or a name is not valid, or [`Error::SomeNotUp`] if not all services came up.
pub(super) fn execute(context: &Context, arguments: &Up) -> Result<()> {
    let located = Located::find(context, arguments.file.as_deref())?;
    let layers = located.stack.layers(&arguments.names, arguments.no_deps)?;
    let ports = located.reserve(context)?;
    located.note_rival();
    let total = layers.iter().map(Vec::len).sum();
    let mut up = Starting {
        context,
        located: &located,
        ports,
        named: &arguments.names,
        planned: layers.iter().flatten().map(|service| service.name.as_str()).collect(),
        deadline: Deadline::after(arguments.timeout.0),
        failed: HashSet::new(),
        mode: LaunchMode { is_detached: false, if_running: IfRunning::ReplaceChanged },
        started: Vec::new(),
        views: Vec::new(),
    };
    for layer in &layers {
        up.start_layer(layer)?;
    }
    missing_tmux::note_once(context, up.mode, &up.started);
    let failed = up.failed.len();
    context.output.print_views(&up.views, true)?;
    if failed > 0 { Err(Error::SomeNotUp { failed, total }) } else { Ok(()) }
}

/// The progress of `up`.
struct Starting<'a> {
    context: &'a Context,
    located: &'a Located,
    ports: Ports<'a>,
    /// The services that the user named.
    named: &'a [String],
    /// The services to start.
    planned: HashSet<&'a str>,
    deadline: Deadline,
    /// The services that did not come up, or were skipped because of one that did not.
    failed: HashSet<&'a str>,
    mode: LaunchMode,
    /// The services that came up.
    started: Vec<Ensured>,
    views: Vec<ServiceView>,
}

impl<'a> Starting<'a> {
    /// Starts services that do not need each other, and waits until each is ready or has completed.
    ///
    /// # Errors
    /// If standard output cannot be written to, or a record cannot be read.
    fn start_layer(&mut self, layer: &[&'a StackService]) -> Result<()> {
        let (mut to_start, mut specs) = (Vec::new(), Vec::new());
        for service in layer.iter().copied() {
            let is_late = self.deadline.remaining().is_zero();
            if is_late || service.depends_on.iter().any(|name| self.failed.contains(name.as_str())) {
                if is_late {
                    note(&format!("{} was not started: the time limit is over", service.name));
                }
                self.failed.insert(&service.name);
                self.show(service, Outcome::Skipped)?;
            } else if service.is_port_only() || (service.one_shot && !self.is_needed(service)?) {
                self.show(service, Outcome::NotRunning)?;
            } else {
                specs.push(self.located.spec(self.context, service, &self.ports)?);
                to_start.push(service);
            }
        }
        for (service, started) in to_start.into_iter().zip(self.launch(specs)) {
            let started = match started {
                // A one-shot that fails at once has run to its end all the same.
                Err(Error::StartFailed { .. }) if service.one_shot => self.registered(service),
                started => started,
            };
            let settled = started.and_then(|ensured| {
                self.settle(service, &ensured.reservation)?;
                Ok(ensured)
            });
            match settled {
                Ok(ensured) => {
                    let outcome = if service.one_shot { Outcome::Completed } else { ensured.previous.into() };
                    self.views.push(self.context.view(&ensured.reservation).with(outcome));
                    self.started.push(ensured);
                }
                Err(error) => {
                    report(&service.name, &error);
                    self.failed.insert(&service.name);
                    self.show(service, Outcome::Failed)?;
                }
            }
        }
        Ok(())
    }

    /// Starts services at the same time. Returns the results in the same order.
    fn launch(&self, specs: Vec<ServiceSpec>) -> Vec<Result<Ensured>> {
        let launcher = &self.context.launcher();
        let mode = self.mode;
        thread::scope(|scope| {
            let threads: Vec<_> =
                specs.into_iter().map(|spec| scope.spawn(move || launcher.start(&spec, mode))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Ensured>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        })
    }

    /// Waits until a service is ready, or has completed.
    fn settle(&self, service: &StackService, reservation: &Reservation) -> Result<()> {
        let limit = self.deadline.remaining().max(Duration::from_millis(1));
        if service.one_shot {
            wait::until_completed(self.context, reservation, limit)
        } else {
            wait::until_ready_within(self.context, reservation, limit)
        }
    }

    /// Returns a service that was registered, and ended at once.
    fn registered(&self, service: &StackService) -> Result<Ensured> {
        let removed = || Error::NoSuchService { target: service.name.clone(), nearest: Vec::new() };
        let reservation = self.located.record(self.context, service)?.ok_or_else(removed)?;
        Ok(Ensured { reservation, previous: Previous::NotRunning, differences: Vec::new() })
    }

    /// Returns whether a one-shot must run: it is named, nothing depends on it, or a service that needs it will be
    /// started.
    fn is_needed(&self, one_shot: &StackService) -> Result<bool> {
        if self.named.contains(&one_shot.name) {
            return Ok(true);
        }
        let mut has_dependants = false;
        for service in &self.located.stack.services {
            if self.planned.contains(service.name.as_str()) && service.depends_on.contains(&one_shot.name) {
                has_dependants = true;
                // A one-shot that need not run does not need this one either.
                let is_up = if service.one_shot { !self.is_needed(service)? } else { self.is_running(service)? };
                if !is_up {
                    return Ok(true);
                }
            }
        }
        Ok(!has_dependants)
    }

    /// Returns whether a service runs, and is not about to be started again after a crash: the one-shots that it needs
    /// have done their work.
    fn is_running(&self, service: &StackService) -> Result<bool> {
        let registry = &self.context.registry;
        let Some(reservation) = self.located.record(self.context, service)? else { return Ok(false) };
        let is_down = registry.run_state(&reservation.hash)?.is_some_and(|run| run.state.is_down());
        Ok(registry.liveness(&reservation.hash).is_held() && !is_down)
    }

    /// Adds the view of a service that was not started, if it is registered.
    fn show(&mut self, service: &StackService, outcome: Outcome) -> Result<()> {
        if let Some(reservation) = self.located.record(self.context, service)? {
            self.views.push(self.context.view(&reservation).with(outcome));
        }
        Ok(())
    }
}
