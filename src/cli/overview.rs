//! `Overview`: reads what `ServiceView` shows. Queries that serve all services run once per command.

use std::time::Duration;

use crate::config::Policy;
use crate::error::{Error, Result};
use crate::logs;
use crate::observe::Observer;
use crate::os::process::{self, ProcessIdentity};
use crate::os::{clock, parallel};
use crate::registry::{Registry, Reservation, State};
use crate::tailnet::Addresses;
use crate::view::{ChangeView, Details, ServiceView, Status, SupervisorView, Usage};

/// How many lines of output before a crash to show: enough for a stack trace.
const LAST_LINES: usize = 20;
/// How long CPU time is measured. Linux counts it in ticks of 10 ms (proc(5)), so the error is at most 5 % of a processor.
const SAMPLE: Duration = Duration::from_millis(200);

/// Reads the state of services.
#[derive(Debug)]
pub(super) struct Overview<'a> {
    registry: &'a Registry,
    addresses: Addresses<'a>,
    observer: Observer<'a>,
}

impl<'a> Overview<'a> {
    /// Creates an overview of the services in a registry. Reads nothing yet.
    pub(super) fn new(registry: &'a Registry, addresses: Addresses<'a>) -> Self {
        Self { registry, addresses, observer: Observer::new(registry) }
    }

    /// Returns the views of all services, and one error for each record that cannot be used.
    ///
    /// # Errors
    /// If the state directory cannot be read.
    pub(super) fn all(&self) -> Result<(Vec<ServiceView>, Vec<Error>)> {
        let (hashes, mut unusable) = self.registry.hashes()?;
        let found =
            parallel::map(&hashes, |hash| Ok(self.registry.find(hash)?.map(|reservation| self.view(reservation))));
        let usable = |found: Result<_>| found.map_err(|error| unusable.push(error)).ok().flatten();
        let views = found.into_iter().filter_map(usable).collect();
        Ok((views, unusable))
    }

    /// Returns the current view of a service.
    pub(super) fn view(&self, reservation: Reservation) -> ServiceView {
        let observation = self.observer.observe(&reservation);
        let url = self.addresses.of(&reservation);
        ServiceView::new(reservation, observation, url)
    }

    /// Leaves out the services that do not run on purpose: those that were stopped or have completed, and ports without a
    /// command. One that has crashed or was given up stays.
    pub(super) fn retain_meant_to_run(&self, services: &mut Vec<Reservation>) {
        services.retain(|service| {
            let is_over = |state| matches!(state, State::Stopped | State::Completed);
            !service.cmd.is_empty() && !is_over(self.observer.observe(service).observed.state)
        });
    }

    /// Leaves out the services whose command has ended by itself with exit code 0, and is not restarted then.
    pub(super) fn retain_unfinished(&self, services: &mut Vec<Reservation>) {
        services.retain(|service| {
            let run = self.registry.run_state(&service.hash).ok().flatten();
            !run.is_some_and(|run| run.has_completed(service.policy.restart))
        });
    }

    /// Adds how a service is set up and ran before. The last output is that before the last exit, unless devport caused
    /// the exit.
    pub(super) fn add_details(&self, view: &mut ServiceView, reservation: &Reservation) {
        let run = self.registry.run_state(&view.hash).ok().flatten();
        let supervisor = run.as_ref().filter(|_| view.status == Status::Running);
        let lines = match run.as_ref().and_then(|run| Some((run, run.exits.last()?))) {
            Some((run, exit)) if !exit.was_requested => {
                let ended = run.runs.saturating_sub(u64::from(run.child.is_some()));
                logs::run_output(&self.registry.paths().log(&view.hash), ended, LAST_LINES)
            }
            _ => Vec::new(),
        };
        view.last_output = Some(lines.iter().map(|line| logs::plain(line)).collect());
        let port = reservation.service_port();
        view.details = Some(Box::new(Details {
            file: reservation.file.clone(),
            port_env: port.map(|_| reservation.port_variable().to_owned()),
            env_files: reservation.env_files.clone(),
            policy: Policy {
                ready: Some(reservation.policy.ready_check(port.is_some())),
                ..reservation.policy.clone()
            },
            supervisor: supervisor.map(|run| SupervisorView { pid: run.supervisor.pid, version: run.version.clone() }),
            changes: run.iter().flat_map(|run| &run.changes).cloned().map(ChangeView::from).collect(),
            exits: run.map(|run| run.exits).unwrap_or_default(),
        }));
    }

    /// Adds the memory and CPU time that the processes of services use. Takes [`SAMPLE`].
    pub(super) fn add_usage(&self, views: &mut [ServiceView]) {
        let trees: Vec<Vec<ProcessIdentity>> = views.iter().map(|view| self.processes(view)).collect();
        let began = clock::now();
        let before: Vec<Duration> = trees.iter().map(|tree| cpu_time(tree)).collect();
        clock::pause(SAMPLE);
        let sampled = clock::now().saturating_duration_since(began).as_secs_f64();
        for ((view, tree), before) in views.iter_mut().zip(&trees).zip(before) {
            if !tree.is_empty() {
                let used = cpu_time(tree).saturating_sub(before).as_secs_f64();
                let cpu_percent = (used / sampled * 1000.0).round() / 10.0;
                let memory = tree.iter().map(|process| process::memory(process.pid)).sum();
                view.usage = Some(Usage { memory, cpu_percent });
            }
        }
    }

    /// Returns the processes of a service; empty if none runs, or they cannot be listed.
    fn processes(&self, view: &ServiceView) -> Vec<ProcessIdentity> {
        let run = self.registry.run_state(&view.hash).ok().flatten().filter(|_| view.pid.is_some());
        let found = run.and_then(|run| self.registry.members(&view.hash, &run).ok());
        found.map(|found| found.living).unwrap_or_default()
    }
}

/// Returns the CPU time that processes have used since they started.
fn cpu_time(tree: &[ProcessIdentity]) -> Duration {
    tree.iter().map(|process| process::cpu_time(process.pid)).sum()
}
