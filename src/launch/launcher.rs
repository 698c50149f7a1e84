//! `Launcher`: starts the supervisor of a registered service in a tmux window, or detached.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::config::{CallerEnvironment, expand};
use crate::error::{Error, Result};
use crate::launch::tmux::Tmux;
use crate::launch::{detached, response};
use crate::os::spawn::find_program;
use crate::os::{clock, process};
use crate::registry::{Problem, Registry, Reservation, RunState, State};

/// How long a supervisor may take to exit after its window was closed: it stops the service first, for which the default
/// grace period is 5 s.
const EXIT_LIMIT: Duration = Duration::from_secs(6);
/// The time between checks whether it has exited.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Registers services and starts their supervisors.
#[derive(Debug)]
pub(crate) struct Launcher<'a> {
    /// The services of the state directory.
    pub(crate) registry: &'a Registry,
    /// The path of this program; `None` if the system does not know it.
    pub(crate) program: Option<&'a Path>,
    /// The environment of the command.
    pub(crate) caller: &'a CallerEnvironment,
    /// Receives notes for the user.
    pub(crate) notify: fn(&str),
}

impl Launcher<'_> {
    /// Starts the supervisor of a service and waits until it reports whether the service runs. The caller holds the
    /// launch lock.
    ///
    /// # Errors
    /// The reason why the service does not run, as its supervisor recorded it.
    pub(super) fn launch(&self, reservation: &Reservation, is_detached: bool) -> Result<()> {
        let unknown =
            || Error::System { verb: "find the devport program".into(), source: io::ErrorKind::NotFound.into() };
        let program = self.program.ok_or_else(unknown)?;
        self.warn_of_unset_variables(reservation);
        let arguments = self.arguments(reservation);
        let in_window = match self.tmux().filter(|_| !is_detached) {
            Some(tmux) => self.launch_in_window(&tmux, program, &arguments, reservation)?,
            None => None,
        };
        let result = if let Some(result) = in_window {
            result
        } else {
            let before = self.last_supervisor(reservation)?;
            let pid = detached::spawn(program, &arguments, self.caller, self.registry, &reservation.hash)?;
            response::wait(self.registry, reservation, before.as_ref(), pid)
        };
        if let Some(obstacle) = result? {
            (self.notify)(&format!("{}: {obstacle}; devport starts it once the port is free", reservation.name()));
        }
        Ok(())
    }

    /// Warns of each variable in the words of a service's command that is not set in its environment.
    pub(crate) fn warn_of_unset_variables(&self, reservation: &Reservation) {
        for name in self.unset_variables(reservation) {
            (self.notify)(&format!(
                "{}: ${name} is not set and was replaced by nothing; write $${name} to pass it to the command",
                reservation.name()
            ));
        }
    }

    /// Returns the variables in the words of a service's command that are not set in its environment; none if that
    /// cannot be read, which the supervisor reports.
    fn unset_variables(&self, reservation: &Reservation) -> BTreeSet<String> {
        if !reservation.cmd.iter().any(|word| word.contains('$')) {
            return BTreeSet::new();
        }
        let Ok(environment) = self.registry.environment(&reservation.hash) else { return BTreeSet::new() };
        let host = self.registry.tailnet_host(reservation);
        // The value does not matter here. A supervisor sets TERM if it has a terminal.
        let own = reservation.child_variables(self.registry.paths().base(), host.as_deref(), Some(""));
        let set: BTreeSet<String> = environment.for_child(&own).into_iter().map(|(name, _)| name).collect();
        let unset = RefCell::new(BTreeSet::new());
        for word in &reservation.cmd {
            expand(word, |name| {
                if !set.contains(name) {
                    unset.borrow_mut().insert(name.to_owned());
                }
                None
            });
        }
        unset.into_inner()
    }

    /// Returns whether services can have windows: whether tmux is in `PATH`.
    pub(crate) fn has_tmux(&self) -> bool {
        self.tmux().is_some()
    }

    /// Starts the supervisor in a tmux window and waits for its report. Returns `None` if tmux opens no window, or
    /// closes it at once: a broken tmux must not keep a service from running.
    ///
    /// # Errors
    /// If the run state cannot be read.
    fn launch_in_window(
        &self,
        tmux: &Tmux,
        program: &Path,
        arguments: &[OsString],
        reservation: &Reservation,
    ) -> Result<Option<Result<Option<Problem>>>> {
        let before = self.last_supervisor(reservation)?;
        let mut command = vec![program.as_os_str().to_owned()];
        command.extend_from_slice(arguments);
        let window = match tmux.open_window(reservation, &command) {
            Ok(window) => window,
            Err(error) => {
                (self.notify)(&format!("{error}; {} runs without a window", reservation.name()));
                return Ok(None);
            }
        };
        let marking = tmux.mark(&window, self.registry.paths().base(), reservation);
        let result = response::wait(self.registry, reservation, before.as_ref(), window.pid);
        if marking.finish() || self.has_ended(reservation, before.as_ref()) || outlives_window(window.pid) {
            return Ok(Some(result));
        }
        (self.notify)(&format!("tmux closed the window at once; {} runs without a window", reservation.name()));
        Ok(None)
    }

    /// Returns the last supervisor that recorded a run state; `None` if there was none, or its record is corrupt.
    fn last_supervisor(&self, reservation: &Reservation) -> Result<Option<process::ProcessIdentity>> {
        match self.registry.run_state(&reservation.hash) {
            Ok(run) => Ok(run.map(|run| run.supervisor)),
            Err(Error::CorruptRecord { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether a supervisor other than `before` recorded that the service cannot be started, or has run to its
    /// end. A command that the closed window ended does not count.
    fn has_ended(&self, reservation: &Reservation, before: Option<&process::ProcessIdentity>) -> bool {
        let is_own_end = |run: &RunState| {
            run.says_ended()
                && run
                    .exits
                    .last()
                    .is_some_and(|exit| !exit.was_requested && run.began_at.is_some_and(|began| exit.at >= began))
        };
        let is_new_end =
            |run: RunState| Some(&run.supervisor) != before && (run.state == State::Failed || is_own_end(&run));
        self.registry.run_state(&reservation.hash).is_ok_and(|run| run.is_some_and(is_new_end))
    }

    /// Returns tmux; `None` if it is not in `PATH`.
    fn tmux(&self) -> Option<Tmux> {
        let program = find_program("tmux", self.caller.get("PATH"))?;
        Some(Tmux::new(program, self.caller.for_background()))
    }

    /// Returns the arguments that make this program the supervisor of a service. `cli/run.rs` parses them.
    fn arguments(&self, reservation: &Reservation) -> Vec<OsString> {
        let base = self.registry.paths().base().as_os_str().to_owned();
        vec!["run".into(), "--launched".into(), reservation.hash.as_str().into(), "--home".into(), base]
    }
}

/// Returns whether a supervisor still runs [`EXIT_LIMIT`] after its window was closed. One that cannot be checked does.
fn outlives_window(pid: i32) -> bool {
    let has_exited = || matches!(process::is_running(pid), Ok(false)).then_some(());
    clock::poll(POLL_INTERVAL, EXIT_LIMIT, has_exited).is_none()
}
