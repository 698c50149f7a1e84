//! `Plan`: what `devport up` does with each service of a stack.

use std::collections::BTreeSet;

use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::stack::{Located, Ports};
use crate::config::{Order, ServiceSpec, StackService};
use crate::error::{Error, Result};
use crate::launch::{Comparison, IfRunning};
use crate::registry::Reservation;

/// What `up` does with the services of a stack.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Each after those that it needs.
    pub(super) tasks: Vec<Task<'a>>,
    /// For each task, the positions of those that it needs.
    pub(super) needs: Vec<Vec<usize>>,
    /// For each task, why it cannot be started; `None` if it can.
    pub(super) errors: Vec<Option<Error>>,
}

/// What `up` does with one service.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) service: &'a StackService,
    /// Its key, or else its name in the file.
    pub(super) name: String,
    /// Its record; `None` if that was missing when the plan was made.
    pub(super) registered: Option<Reservation>,
    /// What to register and start, and how the registered service compares with it; `None` for a port alone, and for a
    /// service that cannot be started.
    pub(super) wanted: Option<(ServiceSpec, Comparison)>,
    /// The port that it keeps, although the file requests another one; `None` if it does not.
    pub(super) kept_port: Option<u16>,
    /// What to do if it runs.
    pub(super) if_running: IfRunning,
    /// The positions of the shared services that it needs, directly or not; none for a shared service.
    pub(super) shared: Vec<usize>,
    /// Whether it is left alone: a port alone, or a one-shot that no service needs now.
    pub(super) is_omitted: bool,
}

impl Task<'_> {
    /// Returns whether the service runs as the file wants it.
    pub(super) fn is_current(&self) -> bool {
        self.wanted.as_ref().is_some_and(|(_, comparison)| comparison.is_up && comparison.differences.is_empty())
    }

    /// Returns whether `up` starts the service, restarts it or runs it.
    pub(super) fn will_start(&self) -> bool {
        !self.is_omitted && !self.is_current()
    }

    /// Notes which changes of the file restart the service, if it runs.
    pub(super) fn note_restart(&self) {
        let fields = self.changed_fields();
        if !fields.is_empty() && self.wanted.as_ref().is_some_and(|(_, comparison)| comparison.is_up) {
            note(&format!("{} is restarted: its {} changed", self.service.name, fields.join(", ")));
        }
    }

    /// Returns the fields in which the file differs from the registered service, each once.
    pub(super) fn changed_fields(&self) -> Vec<&'static str> {
        let differences = self.wanted.iter().flat_map(|(_, comparison)| &comparison.differences);
        let mut fields: Vec<&str> = differences.map(|difference| difference.field).collect();
        fields.dedup();
        fields
    }
}

impl<'a> Plan<'a> {
    /// Plans the services in this order. `named`: the services that the user named.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if a key belongs to another checkout.
    pub(super) fn new(
        context: &Context,
        located: &'a Located,
        order: Order<'a>,
        ports: &Ports<'_>,
        named: &[String],
    ) -> Result<Self> {
        let Order { services, needs } = order;
        let (mut tasks, mut errors) = (Vec::with_capacity(services.len()), Vec::with_capacity(services.len()));
        for service in services {
            let (mut wanted, error) = match Self::wanted(context, located, service, ports) {
                Ok(wanted) => (wanted, None),
                Err(error @ Error::KeyElsewhere { .. }) => return Err(error),
                Err(error) => (None, Some(error)),
            };
            let registered = located.record(context, service).ok().flatten();
            let kept_port = registered.as_ref().filter(|record| located.other_port(service, record).is_some());
            let kept_port = kept_port.map(|record| record.port);
            let name = located.key(service)?.map_or_else(|| service.name.clone(), |key| key.to_string());
            let mut if_running = IfRunning::ReplaceChanged;
            if let (true, Some((_, comparison))) = (service.shared && !located.is_main(), &mut wanted) {
                if_running = IfRunning::Keep;
                keep_shared(&name, comparison);
            }
            tasks.push(Task {
                service,
                name,
                registered,
                wanted,
                kept_port,
                if_running,
                shared: Vec::new(),
                is_omitted: service.is_port_only(),
            });
            errors.push(error);
        }
        for position in 0..tasks.len() {
            // Those that it needs come before it.
            let needed = needs[position].iter().flat_map(|needed| {
                let is_shared = tasks[*needed].service.shared;
                tasks[*needed].shared.iter().copied().chain(is_shared.then_some(*needed))
            });
            let shared: BTreeSet<usize> = needed.collect();
            tasks[position].shared = shared.into_iter().collect();
        }
        let mut has_dependant = vec![false; tasks.len()];
        let mut is_needed = vec![false; tasks.len()];
        // Those that need a one-shot come after it.
        for position in (0..tasks.len()).rev() {
            let task = &mut tasks[position];
            if task.service.one_shot {
                let is_named = named.contains(&task.service.name);
                task.is_omitted = !is_named && has_dependant[position] && !is_needed[position];
            }
            let will_start = task.will_start();
            for needed in &needs[position] {
                has_dependant[*needed] = true;
                is_needed[*needed] |= will_start;
            }
        }
        Ok(Self { tasks, needs, errors })
    }

    /// Resolves a service and compares it with the registered one; `None` for a port alone.
    fn wanted(
        context: &Context,
        located: &Located,
        service: &StackService,
        ports: &Ports<'_>,
    ) -> Result<Option<(ServiceSpec, Comparison)>> {
        if service.is_port_only() {
            return Ok(None);
        }
        let spec = located.spec(context, service, ports)?;
        let comparison = context.launcher().compare(&spec)?;
        Ok(Some((spec, comparison)))
    }
}

/// Notes that a shared service differs from the file of a linked checkout. It is left as it is: the checkouts would
/// restart it in turns.
fn keep_shared(name: &str, comparison: &mut Comparison) {
    if comparison.is_registered && !comparison.differences.is_empty() {
        let fields: Vec<&str> = comparison.differences.iter().map(|difference| difference.field).collect();
        let fields = fields.join(", ");
        note(&format!("{name} is shared and stays as it is, although this file has another {fields}"));
        comparison.differences.clear();
    }
}
