//! Registers a service and starts it, unless it runs already.
//!
//! Registering and starting happen under the service's launch lock, so that two commands cannot start one service twice,
//! and none starts a service that another one removes.

use std::path::Path;
use std::time::Duration;

use crate::config::{ServiceSpec, existing_directory};
use crate::error::{Error, Result};
use crate::launch::difference::{Difference, changed_variables, differences, outdated_env_files};
use crate::launch::launcher::Launcher;
use crate::launch::stop::{self, Urgency};
use crate::observe::Observer;
use crate::os::clock;
use crate::project::{Ownership, Place};
use crate::registry::{FileLock, Liveness, Registration, Reservation, RunState, State};

/// The time between checks whether a service that is stopping has ended. Most services end within milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How a service is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaunchMode {
    /// The supervisor runs without a tmux window.
    pub(crate) is_detached: bool,
    pub(crate) if_running: IfRunning,
}

/// What to do with a service that runs already. One that is down (see [`State::is_down`]) is always started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfRunning {
    Keep,
    /// Stop it and start it with the new options if they differ.
    ReplaceChanged,
    /// Stop it and start it with the new options.
    Replace,
}

/// What a service did before a command started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Previous {
    /// The service did not run.
    NotRunning,
    /// The service ran, and was stopped.
    Stopped,
    /// The service had crashed or could not be started, and its next attempt was due later.
    Down,
    /// The service runs, and was left alone.
    StillRunning,
}

/// A service that is registered and started, or ready to be started.
#[derive(Debug, Clone)]
pub(crate) struct Ensured {
    /// The service's record, as it is now.
    pub(crate) reservation: Reservation,
    /// What the service did before.
    pub(crate) previous: Previous,
    /// In what a service that was left running differs from the request.
    pub(crate) differences: Vec<Difference>,
}

impl Ensured {
    /// Creates the result of a start without differences.
    pub(crate) fn new(reservation: Reservation, previous: Previous) -> Self {
        Self { reservation, previous, differences: Vec::new() }
    }
}

/// How a registered service compares with a request for it.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Whether it is registered with a command.
    pub(crate) is_registered: bool,
    /// Whether it runs, and is not about to be started again after a crash.
    pub(crate) is_up: bool,
    /// In what it differs from the request; empty if it is not registered.
    pub(crate) differences: Vec<Difference>,
}

/// A service that has a supervisor.
struct Running {
    reservation: Reservation,
    /// What its supervisor recorded last; `None` if it has not recorded anything yet.
    run: Option<RunState>,
}

impl Running {
    /// Returns whether the service has crashed or could not be started, so that its supervisor waits to try again.
    fn is_down(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state.is_down())
    }
}

/// The supervisor of a service.
enum SupervisorState {
    Missing,
    /// It ends its service, or is about to exit.
    Ending,
    /// It recorded this last; `None` if it has not recorded anything yet.
    Working(Option<Box<RunState>>),
}

impl Launcher<'_> {
    /// Registers a service and starts it, unless it runs.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if the key belongs to another checkout, or the reason why the service does not run.
    pub(crate) fn start(&self, spec: &ServiceSpec, mode: LaunchMode) -> Result<Ensured> {
        let (_launch, ensured) = self.register_locked(spec, mode.if_running)?;
        if ensured.previous != Previous::StillRunning {
            self.launch(&ensured.reservation, mode.is_detached)?;
        }
        Ok(ensured)
    }

    /// Registers a service that the caller will supervise, unless it runs.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if the key belongs to another checkout, or if the service cannot be registered.
    pub(crate) fn register(&self, spec: &ServiceSpec, if_running: IfRunning) -> Result<Ensured> {
        self.register_locked(spec, if_running).map(|(_, ensured)| ensured)
    }

    /// Starts a registered service with its recorded command and environment, unless it runs.
    ///
    /// # Errors
    /// [`Error::NoSuchService`] if it was removed meanwhile, or the reason why it does not run.
    pub(crate) fn start_registered(&self, reservation: &Reservation, mode: LaunchMode) -> Result<Ensured> {
        let (_launch, ensured) = self.prepare_registered(reservation, mode.if_running)?;
        if ensured.previous != Previous::StillRunning {
            self.launch(&ensured.reservation, mode.is_detached)?;
        }
        Ok(ensured)
    }

    /// Prepares a registered service that the caller will supervise, and stops it if it is to be replaced or is down.
    /// Returns its record as it is now.
    ///
    /// # Errors
    /// [`Error::NoSuchService`] if it was removed meanwhile, [`Error::NoCommand`], or if it cannot be stopped.
    pub(crate) fn prepare_to_run(&self, reservation: &Reservation, if_running: IfRunning) -> Result<Reservation> {
        self.prepare_registered(reservation, if_running).map(|(_, ensured)| ensured.reservation)
    }

    /// Reserves a port for a program that devport does not run.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if the key belongs to another checkout, or if no port can be reserved.
    pub(crate) fn reserve(&self, spec: &ServiceSpec) -> Result<Reservation> {
        let _launch = self.stop_in_lost_directory(spec)?;
        self.registry.prepare()?;
        let registration = self.registry.reserve(spec, clock::wall())?;
        Ok(self.announce(registration, spec))
    }

    /// Refuses a key that belongs to another checkout, before any file is written. Another checkout can still take the
    /// key before it is registered.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`], or if a directory cannot be read.
    pub(crate) fn check_checkout(&self, spec: &ServiceSpec) -> Result<()> {
        let Some(reservation) = self.registry.find(&spec.hash)? else { return Ok(()) };
        self.has_lost_directory(spec, &reservation).map(drop)
    }

    /// Compares a request with the service that is registered, without waiting for one that is stopping.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if the key belongs to another checkout, or if its record or state cannot be read.
    pub(crate) fn compare(&self, spec: &ServiceSpec) -> Result<Comparison> {
        let none = Comparison { is_registered: false, is_up: false, differences: Vec::new() };
        let Some(reservation) = self.registry.find(&spec.hash)? else { return Ok(none) };
        let has_lost_directory = self.has_lost_directory(spec, &reservation)?;
        if reservation.cmd.is_empty() {
            return Ok(none);
        }
        let is_up = match self.probe_supervisor(&reservation)? {
            SupervisorState::Working(run) => !has_lost_directory && !run.is_some_and(|run| run.state.is_down()),
            SupervisorState::Ending | SupervisorState::Missing => false,
        };
        Ok(Comparison { is_registered: true, is_up, differences: differences(&reservation, spec) })
    }

    /// Acquires the launch lock of a registered service and reads its record again: another command may have changed or
    /// removed it meanwhile.
    ///
    /// # Errors
    /// [`Error::NoSuchService`] if the service was removed, even if another checkout registered its key since.
    pub(crate) fn lock(&self, named: &Reservation) -> Result<(FileLock, Reservation)> {
        self.registry.prepare()?;
        let launch = self.registry.acquire_launch(&named.hash, named.name())?;
        match self.registry.find(&named.hash)? {
            Some(now) if now.root == named.root || named.root.is_none() => return Ok((launch, now)),
            Some(_) => {}
            // Acquiring the lock created its file again.
            None => launch.delete()?,
        }
        Err(Error::NoSuchService { target: named.name().to_owned(), nearest: Vec::new() })
    }

    /// Registers a service unless it runs. Returns its launch lock too.
    fn register_locked(&self, spec: &ServiceSpec, if_running: IfRunning) -> Result<(FileLock, Ensured)> {
        self.check_checkout(spec)?;
        self.registry.prepare()?;
        let launch = self.registry.acquire_launch(&spec.hash, spec.name())?;
        match self.claim(spec, if_running) {
            Ok(ensured) => Ok((launch, ensured)),
            Err(error) => {
                if !self.registry.paths().record(&spec.hash).exists() {
                    // The service was not registered, so its lock file has no use. One that stays does no harm.
                    let _ = launch.delete();
                }
                Err(error)
            }
        }
    }

    /// Registers a service, and stops it if it runs and is to be replaced, is down, or has lost its directory. The caller
    /// holds the launch lock.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if the key belongs to another checkout, or if the service cannot be registered or
    /// stopped. The record stays as it was.
    fn claim(&self, spec: &ServiceSpec, if_running: IfRunning) -> Result<Ensured> {
        let Some((running, has_lost_directory)) = self.find_running_for(spec)? else {
            return Ok(Ensured::new(self.write_record(spec)?, Previous::NotRunning));
        };
        if has_lost_directory {
            // Stop first: the running processes belong to the old directory, not to what the new record says.
            self.stop(&running.reservation)?;
            return Ok(Ensured::new(self.write_record(spec)?, Previous::Stopped));
        }
        let differences = differences(&running.reservation, spec);
        let is_replaced = match if_running {
            IfRunning::Keep => false,
            IfRunning::ReplaceChanged => !differences.is_empty(),
            IfRunning::Replace => true,
        };
        if !is_replaced && !running.is_down() {
            return Ok(Ensured { differences, ..Ensured::new(running.reservation, Previous::StillRunning) });
        }
        if !is_replaced {
            let environment = self.registry.environment(&spec.hash)?;
            self.notify_retry(&running, changed_variables(&environment, &spec.environment));
        }
        // Register first: the service keeps running if the new options are invalid.
        let before = self.registry.record_bytes(&spec.hash)?;
        let registered = self.write_record(spec)?;
        if let Err(error) = self.stop(&running.reservation) {
            // What still runs is what the old record says.
            self.registry.restore_record(&spec.hash, before.as_deref())?;
            return Err(error);
        }
        Ok(Ensured::new(registered, if is_replaced { Previous::Stopped } else { Previous::Down }))
    }

    /// Makes a registered service ready to be started, unless it runs: stops it if it is to be replaced or is down, and
    /// records its checkout and who starts it. Returns its launch lock too.
    ///
    /// # Errors
    /// [`Error::NoSuchService`], [`Error::NoCommand`], [`Error::Unwritable`], or if the service cannot be stopped. If it
    /// runs, also [`Error::CheckoutGone`] or [`Error::InvalidDirectory`]: it could not be started again.
    fn prepare_registered(&self, named: &Reservation, if_running: IfRunning) -> Result<(FileLock, Ensured)> {
        let (launch, reservation) = self.lock(named)?;
        if reservation.cmd.is_empty() {
            let service = reservation.name().to_owned();
            let hint = format!("start it with `devport start --key {} -- npm run dev`", shell_words::quote(&service));
            return Err(Error::NoCommand { service, hint });
        }
        let place = Place::new(&reservation.cwd, reservation.file.as_deref(), self.caller.home());
        let Ensured { reservation, mut previous, .. } = self.adopt_checkout(reservation, &place)?;
        let running = self.find_running(&reservation)?;
        let is_replaced = if_running == IfRunning::Replace;
        if running.is_some() && reservation.has_lost_checkout()? {
            return Err(reservation.checkout_gone());
        }
        if let Some(Running { reservation, .. }) = running.as_ref().filter(|running| !is_replaced && !running.is_down())
        {
            return Ok((launch, Ensured::new(reservation.clone(), Previous::StillRunning)));
        }
        // Before the stop: the service could not be started again.
        launch.check_writable()?;
        if running.is_some() {
            existing_directory(&reservation.cwd)?;
        }
        if let Some(note) = outdated_env_files(&reservation) {
            (self.notify)(&note);
        }
        if let Some(running) = running {
            if !is_replaced {
                self.notify_retry(&running, None);
            }
            self.stop(&running.reservation)?;
            previous = if is_replaced { Previous::Stopped } else { Previous::Down };
        }
        Ok((launch, Ensured::new(self.record_origin(reservation, &place)?, previous)))
    }

    /// If the checkout of a service was deleted and created again, stops what still runs of the service and records the
    /// new checkout. The caller holds the launch lock.
    fn adopt_checkout(&self, reservation: Reservation, place: &Place) -> Result<Ensured> {
        let failed = || Error::io("check", &reservation.cwd);
        let old = match place.ownership(reservation.site()).map_err(failed())? {
            // If the directory itself is missing, the launch fails and says so.
            Ownership::Gone(old) if reservation.cwd.is_dir() => old,
            _ => return Ok(Ensured::new(reservation, Previous::NotRunning)),
        };
        let previous =
            if self.find_running(&reservation)?.is_some() { Previous::Stopped } else { Previous::NotRunning };
        self.stop(&reservation)?;
        let updated = self.registry.update_checkout(&reservation.hash, place)?;
        self.notify_taken_over(reservation.name(), place, &old);
        Ok(Ensured::new(updated.unwrap_or(reservation), previous))
    }

    /// Records on which branch a registered service is started, and by which agent. Writes the record only if that has
    /// changed since the last start. The caller holds the launch lock.
    fn record_origin(&self, reservation: Reservation, place: &Place) -> Result<Reservation> {
        let (branch, agent) = (place.branch(), self.caller.agent());
        if (&reservation.branch, &reservation.started_by) == (&branch, &agent) {
            return Ok(reservation);
        }
        let change = |record: &mut Reservation| (record.branch, record.started_by) = (branch, agent);
        match self.registry.update(&reservation.hash, change) {
            Ok(updated) => Ok(updated.unwrap_or(reservation)),
            // A record of a later devport can be started, though not changed.
            Err(Error::NewerRecord { .. }) => Ok(reservation),
            Err(error) => Err(error),
        }
    }

    /// Stops a service that has lost its directory, so that its port can be reserved. Returns the launch lock, which
    /// keeps other commands from starting the service.
    fn stop_in_lost_directory(&self, spec: &ServiceSpec) -> Result<Option<FileLock>> {
        let Some(reservation) = self.registry.find(&spec.hash)? else { return Ok(None) };
        if !self.has_lost_directory(spec, &reservation)? {
            return Ok(None);
        }
        self.registry.prepare()?;
        let launch = self.registry.acquire_launch(&spec.hash, spec.name())?;
        if let Some((running, _)) = self.find_running_for(spec)? {
            self.stop(&running.reservation)?;
        }
        Ok(Some(launch))
    }

    /// Returns the registered service if it runs, and whether its directory was deleted, or replaced by another one. The
    /// caller holds the launch lock.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if the key belongs to another checkout.
    fn find_running_for(&self, spec: &ServiceSpec) -> Result<Option<(Running, bool)>> {
        let Some(reservation) = self.registry.find(&spec.hash)? else { return Ok(None) };
        let has_lost_directory = self.has_lost_directory(spec, &reservation)?;
        let running = self.find_running(&reservation)?;
        Ok(running.map(|running| (running, has_lost_directory)))
    }

    /// Returns a service that runs, with its current record; `None` if it does not run. Waits for one that is stopping.
    ///
    /// # Errors
    /// [`Error::StillStopping`], or if the service's lock or run state cannot be read.
    fn find_running(&self, reservation: &Reservation) -> Result<Option<Running>> {
        let limit = stop::limit(reservation);
        let probe = || match self.probe_supervisor(reservation) {
            Ok(SupervisorState::Missing) => Some(Ok(None)),
            Ok(SupervisorState::Ending) => None,
            Ok(SupervisorState::Working(run)) => Some(Ok(Some(run))),
            Err(error) => Some(Err(error)),
        };
        let found = clock::poll(POLL_INTERVAL, limit, probe).unwrap_or_else(|| {
            Err(Error::StillStopping {
                service: reservation.name().to_owned(),
                waited_s: limit.as_secs(),
                left: "its supervisor".into(),
            })
        });
        let Some(run) = found? else { return Ok(None) };
        let current = self.registry.find(&reservation.hash)?;
        Ok(current.map(|reservation| Running { reservation, run: run.map(|run| *run) }))
    }

    /// Checks once whether a service has a supervisor, and reads what it recorded last.
    fn probe_supervisor(&self, reservation: &Reservation) -> Result<SupervisorState> {
        match self.registry.liveness_of_any_version(&reservation.hash) {
            Liveness::Free => Ok(SupervisorState::Missing),
            Liveness::Held(_) => Ok(match self.registry.run_state(&reservation.hash)? {
                Some(run) if run.says_ended() || run.state == State::Stopping => SupervisorState::Ending,
                run => SupervisorState::Working(run.map(Box::new)),
            }),
            Liveness::Unknown(source) => {
                Err(Error::System { verb: format!("check whether {} runs", reservation.name()), source })
            }
        }
    }

    /// Returns whether the directory of a service was deleted, or replaced by another one.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if it belongs to another checkout that exists.
    fn has_lost_directory(&self, spec: &ServiceSpec, reservation: &Reservation) -> Result<bool> {
        let failed = || Error::io("check", &reservation.cwd);
        match spec.place.ownership(reservation.site()).map_err(failed())? {
            Ownership::Ours => Ok(false),
            Ownership::Gone(_) => Ok(true),
            Ownership::Other(root) => Err(self.key_elsewhere(spec, reservation, &root)),
        }
    }

    /// Returns the error for a key of another checkout, with the state of its service.
    fn key_elsewhere(&self, spec: &ServiceSpec, reservation: &Reservation, root: &Path) -> Error {
        let state = Observer::new(self.registry).observe(reservation).observed.state.as_str();
        let directory =
            spec.place.root().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let port = reservation.service_port();
        Error::KeyElsewhere {
            key: reservation.name().to_owned(),
            owner: spec.place.abbreviate(root),
            state: Some(port.map_or_else(|| state.to_owned(), |port| format!("{state}, port {port}"))),
            here: spec.place.abbreviate(spec.place.root()),
            hint: format!("choose another key for this checkout, such as {}-{directory}", reservation.name()),
        }
    }

    /// Writes the record of a service. The caller holds the launch lock.
    fn write_record(&self, spec: &ServiceSpec) -> Result<Reservation> {
        let registration = self.registry.register(spec, clock::wall())?;
        Ok(self.announce(registration, spec))
    }

    /// Notifies the user of what other services and checkouts lost to a registration. Returns the new record.
    fn announce(&self, registration: Registration, spec: &ServiceSpec) -> Reservation {
        let Registration { reservation, reclaimed, taken_over } = registration;
        if let Some(directory) = taken_over {
            self.notify_taken_over(spec.name(), &spec.place, &directory);
        }
        if let Some(old) = reclaimed {
            (self.notify)(&format!(
                "no port was free: removed {} (last up {:.0}) and gave its port {} to {}",
                old.name(),
                old.last_up,
                old.port,
                reservation.name()
            ));
        }
        reservation
    }

    /// Notifies the user that a service that is down is started at once. `changed`: the variables that now have other
    /// values than before.
    fn notify_retry(&self, running: &Running, changed: Option<String>) {
        let name = running.reservation.name();
        let Some(run) = &running.run else { return };
        let with = changed.map_or_else(String::new, |names| format!(", with new values of {names}"));
        (self.notify)(&format!("{name} was in {}; starting it now{with}", run.state.as_str()));
    }

    /// Notifies the user that a service belongs to another checkout from now on.
    fn notify_taken_over(&self, name: &str, place: &Place, directory: &Path) {
        let (old, new) = (place.abbreviate(directory), place.abbreviate(place.root()));
        (self.notify)(&if directory.is_dir() {
            format!("{old} was deleted and created again; {name} now belongs to {new}")
        } else {
            format!("{name} belonged to {old}, which no longer exists; it now belongs to {new}")
        });
    }

    /// Stops a service with its grace period.
    fn stop(&self, reservation: &Reservation) -> Result<()> {
        stop::stop(self.registry, reservation, Urgency::Graceful).map(drop)
    }
}
