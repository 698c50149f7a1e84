//! `Context`: the services, the caller's environment and the output that every command uses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::output::{Format, Output, note, report};
use crate::cli::overview::Overview;
use crate::cli::recheck::Rechecks;
use crate::config::CallerEnvironment;
use crate::error::{Error, Result};
use crate::identity::Target;
use crate::launch::Launcher;
use crate::os::clock;
use crate::project::Place;
use crate::registry::{Paths, PortRange, Registry, Reservation, State};
use crate::tailnet::{Addresses, Suffix, Tailnet};
use crate::view::{ServiceView, Status};

/// The time between checks whether a service has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long the end of a service is awaited that a command has started: most end within milliseconds after their command.
const SETTLING: Duration = Duration::from_secs(1);

/// What this process inherited from its caller. `main` reads it once.
#[derive(Debug)]
pub(crate) struct CallerContext {
    pub(super) environment: CallerEnvironment,
    /// The current directory; `None` if it was deleted.
    pub(super) cwd: Option<PathBuf>,
    /// The current directory of the user's shell, without `-C`; `None` if it was deleted.
    shell_directory: Option<PathBuf>,
    /// The path of this program; `None` if the system does not know it.
    pub(super) program: Option<PathBuf>,
}

impl CallerContext {
    /// Collects what the system reports: `cwd` and `program` are `None` if it does not know them.
    pub(crate) fn new(environment: CallerEnvironment, cwd: Option<PathBuf>, program: Option<PathBuf>) -> Self {
        Self { environment, shell_directory: cwd.clone(), cwd, program }
    }

    /// Changes the current directory of this process, for `-C`.
    ///
    /// # Errors
    /// If the directory does not exist or cannot be entered.
    pub(super) fn enter(&mut self, directory: &Path) -> Result<()> {
        std::env::set_current_dir(directory).map_err(Error::io("go to", directory))?;
        self.cwd = Some(Path::new(".").canonicalize().map_err(Error::io("check", directory))?);
        Ok(())
    }
}

/// The services, the caller's environment and the output that every command uses.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) registry: Registry,
    pub(super) output: Output,
    caller: CallerContext,
    /// The tailnet's domain, queried from tailscaled at most once per command.
    suffix: Suffix,
    /// The readiness checks that this command ran.
    rechecks: Rechecks,
}

/// The services that a command's targets name.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// The services whose records can be used.
    pub(super) services: Vec<Reservation>,
    /// The number of records that cannot be used. Each was reported.
    pub(super) unusable: usize,
}

impl Context {
    /// Finds the state directory. Creates nothing.
    ///
    /// # Errors
    /// If no state directory can be determined, or `DEVPORT_PORT_RANGE` is invalid.
    pub(super) fn new(caller: CallerContext, format: Format) -> Result<Self> {
        let environment = &caller.environment;
        let home = dirs::home_dir();
        let cwd = caller.cwd.as_deref().unwrap_or(Path::new("/"));
        let paths =
            Paths::choose(environment.get("DEVPORT_HOME"), environment.get("XDG_DATA_HOME"), home.as_deref(), cwd)?;
        let range = PortRange::from_variable(environment.get("DEVPORT_PORT_RANGE"))?;
        let output = Output { format, forbids_color: environment.get("NO_COLOR").is_some() };
        let registry = Registry::new(paths, range, note);
        Ok(Self { registry, output, caller, suffix: Suffix::default(), rechecks: Rechecks::default() })
    }

    pub(super) fn environment(&self) -> &CallerEnvironment {
        &self.caller.environment
    }

    /// Returns the current directory.
    ///
    /// # Errors
    /// [`Error::InvalidDirectory`] if it was deleted.
    pub(super) fn cwd(&self) -> Result<PathBuf> {
        self.caller
            .cwd
            .clone()
            .ok_or_else(|| Error::InvalidDirectory { path: ".".into(), why: "has been deleted".into() })
    }

    /// Returns the launcher of services, which prints its notes on standard error.
    pub(super) fn launcher(&self) -> Launcher<'_> {
        Launcher {
            registry: &self.registry,
            program: self.caller.program.as_deref(),
            caller: &self.caller.environment,
            notify: note,
        }
    }

    /// Returns the service that a target names, as seen from the checkout of the current directory.
    ///
    /// # Errors
    /// If no service matches, several do, or the key belongs to another checkout.
    pub(super) fn resolve(&self, target: &str) -> Result<Reservation> {
        self.registry.resolve(&Target::new(target), self.place().as_ref())
    }

    /// Returns the checkout of the current directory; `None` if the directory was deleted.
    pub(super) fn place(&self) -> Option<Place> {
        Some(Place::new(self.caller.cwd.as_ref()?, None, self.environment().home()))
    }

    /// Returns the checkout where the user types the next command, without `-C`; `None` if the directory was deleted.
    pub(super) fn place_of_shell(&self) -> Option<Place> {
        Some(Place::new(self.caller.shell_directory.as_ref()?, None, self.environment().home()))
    }

    /// Returns the services that targets name, each once. All targets are resolved before a command acts on one of them.
    /// A record that cannot be used is reported and counted in [`Chosen::unusable`].
    ///
    /// # Errors
    /// If a target matches no service, or several, or if it is the only target and its record cannot be used.
    pub(super) fn resolve_all(&self, targets: &[String]) -> Result<Chosen> {
        let mut chosen = Chosen::default();
        for target in targets {
            match self.resolve(target) {
                Ok(reservation) if chosen.services.iter().any(|other| other.hash == reservation.hash) => {}
                Ok(reservation) => chosen.services.push(reservation),
                Err(error @ (Error::CorruptRecord { .. } | Error::NewerRecord { .. } | Error::Io { .. }))
                    if targets.len() > 1 =>
                {
                    report(target, &error);
                    chosen.unusable += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(chosen)
    }

    /// Returns the services that a command means: those that targets name; without targets those of this checkout, or
    /// with `all` those of the machine. `verb` is the command's name.
    ///
    /// # Errors
    /// As [`Self::resolve_all`], or [`Error::NoServicesHere`] if this checkout has none.
    pub(super) fn choose(&self, verb: &'static str, targets: &[String], all: bool) -> Result<Chosen> {
        match targets {
            [] if all => self.all(),
            [] => self.all_here(verb),
            targets => self.resolve_all(targets),
        }
    }

    /// Returns the services of this checkout. Records that cannot be used are reported; those that could not be read are
    /// counted, because they may be of this checkout.
    fn all_here(&self, verb: &'static str) -> Result<Chosen> {
        let place = Place::new(&self.cwd()?, None, self.environment().home());
        let mut listing = self.registry.list()?;
        for error in &listing.unusable {
            report("a record", error);
        }
        let unusable = listing.unusable.iter().filter(|error| matches!(error, Error::Io { .. })).count();
        listing.reservations.retain(|reservation| place.lists(reservation.site()));
        if listing.reservations.is_empty() && unusable == 0 {
            return Err(self.no_services_here(verb)?);
        }
        Ok(Chosen { services: listing.reservations, unusable })
    }

    /// Returns the error for a command without targets in a checkout that has no services. `verb` is the command's name.
    ///
    /// # Errors
    /// As [`Self::cwd`].
    pub(super) fn no_services_here(&self, verb: &'static str) -> Result<Error> {
        let place = Place::new(&self.cwd()?, None, self.environment().home());
        Ok(Error::NoServicesHere { checkout: place.abbreviate(place.root()), verb, up: None })
    }

    /// Notes that a command without targets found nothing that runs.
    pub(super) fn note_none_runs(&self, all: bool) {
        match self.place().filter(|_| !all) {
            Some(place) => note(&format!("no service of {} runs", place.abbreviate(place.root()))),
            None => note("no service runs"),
        }
    }

    /// Returns every service. Records that cannot be used are reported and counted.
    ///
    /// # Errors
    /// If the state directory cannot be read.
    pub(super) fn all(&self) -> Result<Chosen> {
        let listing = self.registry.list()?;
        for error in &listing.unusable {
            report("a record", error);
        }
        Ok(Chosen { services: listing.reservations, unusable: listing.unusable.len() })
    }

    /// Returns the current view of a service that a command acted on. If its record was removed or cannot be read, the
    /// view shows `reservation`.
    pub(super) fn view(&self, reservation: &Reservation) -> ServiceView {
        let now = self.registry.find(&reservation.hash).ok().flatten();
        self.rechecks.apply(self.overview().view(now.unwrap_or_else(|| reservation.clone())))
    }

    /// Returns the view of a service that a command has started, like [`Self::view`]. Waits for a moment if its command
    /// has ended already and its supervisor is about to record how.
    pub(super) fn settled_view(&self, reservation: &Reservation) -> ServiceView {
        let is_ending = |view: &ServiceView| {
            let has_ended = matches!(view.state, State::Stopping | State::Stopped | State::Failed | State::Completed);
            has_ended && view.status == Status::Running
        };
        let settled = || Some(self.view(reservation)).filter(|view| !is_ending(view));
        clock::poll(POLL_INTERVAL, SETTLING, settled).unwrap_or_else(|| self.view(reservation))
    }

    /// Returns the current view of a service.
    ///
    /// # Errors
    /// [`Error::NoSuchService`] if it was removed, or if its record cannot be read.
    pub(super) fn view_if_registered(&self, reservation: &Reservation) -> Result<ServiceView> {
        Ok(self.rechecks.apply(self.recorded_view(reservation)?))
    }

    /// Returns the current view of a service, like [`Self::view_if_registered`]. If the service is recorded as ready,
    /// its readiness check is run again, for about `limit`. If that fails, this view and later ones of this command say
    /// `running`, with the reason.
    ///
    /// # Errors
    /// As [`Self::view_if_registered`].
    pub(super) fn checked_view(&self, reservation: &Reservation, limit: Duration) -> Result<ServiceView> {
        let view = self.recorded_view(reservation)?;
        self.rechecks.run(&self.registry, reservation, &view, limit);
        Ok(self.rechecks.apply(view))
    }

    /// Returns the view of a service without the results of [`Rechecks`].
    fn recorded_view(&self, reservation: &Reservation) -> Result<ServiceView> {
        let removed = || Error::NoSuchService { target: reservation.name().to_owned(), nearest: Vec::new() };
        let now = self.registry.find(&reservation.hash)?.ok_or_else(removed)?;
        Ok(self.overview().view(now))
    }

    /// Returns what builds the views of services from their records, states and tailnet addresses.
    pub(super) fn overview(&self) -> Overview<'_> {
        Overview::new(&self.registry, self.addresses())
    }

    /// Returns what knows the tailnet addresses of services. Nothing is queried until one is needed.
    pub(super) fn addresses(&self) -> Addresses<'_> {
        Addresses::new(&self.registry, self.environment(), &self.suffix)
    }

    /// Returns the publisher of services on the tailnet.
    pub(super) fn tailnet(&self) -> Tailnet<'_> {
        Tailnet { registry: &self.registry, environment: self.environment() }
    }
}
