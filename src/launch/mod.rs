//! Putting a supervisor in the background, hearing what came of it, and ending it again.
//!
//! A supervisor gets nothing but the hash of its service and where the state directory is.

mod answer;
mod detached;
mod stop;
mod tmux;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::CallerEnvironment;
use crate::error::{Error, Result};
use crate::os::spawn::find_program;
use crate::os::{clock, process};
use crate::registry::{Registry, Reservation};

pub(crate) use stop::{Ended, Urgency, kill_group, limit as stop_limit, stop, stop_and_hold, supervisor};
pub(crate) use tmux::{Tmux, own_window};

/// What a launch needs besides the service.
#[derive(Debug)]
pub(crate) struct Launcher<'a> {
    /// Where the service is registered.
    pub(crate) registry: &'a Registry,
    /// Our own program.
    pub(crate) program: PathBuf,
    /// The environment of whoever launches.
    pub(crate) caller: &'a CallerEnvironment,
    /// Whether tmux is left out even if it is there.
    pub(crate) detach: bool,
}

impl Launcher<'_> {
    /// Starts the supervisor of a service and waits for its answer. The caller holds the launch lock.
    /// `notice` gets notes for the user.
    ///
    /// # Errors
    /// The reason why the service does not run, as its supervisor told it.
    pub(crate) fn launch(&self, reservation: &Reservation, notice: &mut dyn FnMut(String)) -> Result<()> {
        let before = self.last_supervisor(reservation)?;
        let wait = |pid| answer::wait(self.registry, reservation, before.as_ref(), pid);
        let tmux = if self.detach { None } else { self.tmux() };
        if let Some(tmux) = tmux {
            match tmux.open_window(reservation, &self.command(reservation)) {
                Ok(window) => {
                    let marking = tmux.mark(&window, self.registry.paths().base(), reservation);
                    let answer = wait(window.pid);
                    if marking.finish() || self.has_failed(reservation, before.as_ref()) || outlives_window(window.pid)
                    {
                        return answer;
                    }
                    // A tmux that takes its windows down again must not keep a service from running.
                    notice("tmux closed the window at once; the service runs detached".into());
                }
                Err(error) => notice(format!("{error}; the service runs detached")),
            }
        }
        let before = self.last_supervisor(reservation)?;
        let arguments = self.arguments(reservation);
        let pid = detached::spawn(&self.program, &arguments, self.caller, self.registry, &reservation.hash)?;
        answer::wait(self.registry, reservation, before.as_ref(), pid)
    }

    /// The last supervisor that recorded anything; `None` if there was none, or its record has no meaning.
    fn last_supervisor(&self, reservation: &Reservation) -> Result<Option<process::ProcessIdentity>> {
        match self.registry.run_state(&reservation.hash) {
            Ok(run) => Ok(run.map(|run| run.supervisor)),
            Err(Error::CorruptRecord { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a supervisor other than `before` recorded that the service cannot be started.
    fn has_failed(&self, reservation: &Reservation, before: Option<&process::ProcessIdentity>) -> bool {
        self.registry.run_state(&reservation.hash).is_ok_and(|run| {
            run.is_some_and(|run| Some(&run.supervisor) != before && run.state == crate::registry::State::Failed)
        })
    }

    /// tmux; `None` if it is not on this machine.
    fn tmux(&self) -> Option<Tmux> {
        let program = find_program("tmux", self.caller.get("PATH"))?;
        Some(Tmux::new(program, self.caller.for_background()))
    }

    /// The supervisor's command line.
    fn command(&self, reservation: &Reservation) -> Vec<OsString> {
        let mut command = vec![self.program.clone().into_os_string()];
        command.extend(self.arguments(reservation));
        command
    }

    /// The supervisor's arguments.
    fn arguments(&self, reservation: &Reservation) -> Vec<OsString> {
        let base = self.registry.paths().base().as_os_str().to_owned();
        vec!["run".into(), "--launched".into(), reservation.hash.as_str().into(), "--home".into(), base]
    }
}

/// How long a supervisor may take to notice that its window is gone.
const NOTICING: Duration = Duration::from_secs(6);

/// Whether a supervisor goes on although tmux does not know its window.
fn outlives_window(pid: i32) -> bool {
    clock::poll(Duration::from_millis(5), NOTICING, || matches!(process::is_running(pid), Ok(false)).then_some(()))
        .is_none()
}
