//! `Context`: what every command works with, and how it speaks to the user.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use crate::config::CallerEnvironment;
use crate::error::{Error, Result};
use crate::identity::Target;
use crate::launch::Launcher;
use crate::os::clock;
use crate::os::terminal::WindowSize;
use crate::project::Place;
use crate::registry::{FileLock, Paths, PortRange, Registry, Reservation};
use crate::tailnet::{Addresses, Suffix, Tailnet};
use crate::text::printable;
use crate::view::{self, Overview, ServiceView, TableStyle};

/// What is outside: read once, in `main`.
#[derive(Debug)]
pub(crate) struct CallerContext {
    /// The environment.
    pub(super) environment: CallerEnvironment,
    /// The current directory; `None` if it is gone.
    pub(super) cwd: Option<PathBuf>,
    /// Our own program; `None` if the system does not say.
    pub(super) program: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A table on a terminal, JSON otherwise.
    Auto,
    /// JSON.
    Json,
    /// A table.
    Table,
}

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// The services.
    pub(super) registry: Registry,
    /// What is outside.
    caller: CallerContext,
    /// How results are printed.
    format: Format,
    /// What host names on the tailnet end in: the daemon is asked once.
    suffix: Suffix,
}

/// The services that a command is about.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Those whose records can be used.
    pub(super) services: Vec<Reservation>,
    /// How many cannot; each was reported already.
    pub(super) unusable: usize,
}

/// Writes a line of devport's own on standard error; one that nobody can read is lost.
pub(super) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "devport: {}", printable(text.as_ref()));
}

impl Context {
    /// Finds the state directory; nothing is created.
    ///
    /// # Errors
    /// If there is no such directory to be had, or `DEVPORT_PORT_RANGE` is wrong.
    pub(super) fn new(caller_context: CallerContext, format: Format) -> Result<Self> {
        let environment = &caller_context.environment;
        let home = dirs::home_dir();
        let cwd = caller_context.cwd.clone().unwrap_or_else(|| PathBuf::from("/"));
        let paths =
            Paths::choose(environment.get("DEVPORT_HOME"), environment.get("XDG_DATA_HOME"), home.as_deref(), &cwd)?;
        let range = PortRange::from_variable(environment.get("DEVPORT_PORT_RANGE"))?;
        Ok(Self { registry: Registry::new(paths, range), caller: caller_context, format, suffix: Suffix::default() })
    }

    /// The caller's environment.
    pub(super) fn environment(&self) -> &CallerEnvironment {
        &self.caller.environment
    }

    /// The current directory.
    ///
    /// # Errors
    /// If it has been deleted.
    pub(super) fn cwd(&self) -> Result<PathBuf> {
        self.caller
            .cwd
            .clone()
            .ok_or_else(|| Error::InvalidDirectory { path: ".".into(), why: "has been deleted".into() })
    }

    /// How services are put in the background.
    ///
    /// # Errors
    /// If the system does not say which program we are.
    pub(super) fn launcher(&self, detach: bool) -> Result<Launcher<'_>> {
        let unknown =
            || Error::System { verb: "find out which program this is".into(), source: io::ErrorKind::NotFound.into() };
        let program = self.caller.program.clone().ok_or_else(unknown)?;
        Ok(Launcher { registry: &self.registry, program, caller: &self.caller.environment, detach })
    }

    /// The place that commands are run at: the checkout of the current directory; `None` if that has been deleted.
    fn place(&self) -> Option<Place> {
        self.caller.cwd.as_ref().map(|cwd| Place::new(cwd, None, self.environment().home()))
    }

    /// The service that a target names.
    ///
    /// # Errors
    /// If there is none, or several, or only another checkout has the name.
    pub(super) fn resolve(&self, target: &str) -> Result<Reservation> {
        self.registry.resolve(&Target::new(target), self.place().as_ref())
    }

    /// The services that targets name, each once, all resolved before anything is done with one. A record that cannot
    /// be used does not hide the others: it is reported, and counted in [`Chosen::unusable`].
    ///
    /// # Errors
    /// If a target names no service, or several, or if it is the only one and its record cannot be used.
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

    /// Every service of the state directory. Records that cannot be used are reported and counted.
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

    /// Takes the launch lock of a service that a target named, and reads its record again: it may have been changed or
    /// removed while the lock was waited for.
    ///
    /// # Errors
    /// [`Error::NoSuchService`] if the record was removed, and perhaps made again by another checkout.
    pub(super) fn take(&self, named: &Reservation) -> Result<(FileLock, Reservation)> {
        let launch = self.registry.acquire_launch(&named.hash, named.name(), &mut |text| note(text))?;
        match self.registry.find(&named.hash)? {
            Some(now) if now.root == named.root || named.root.is_none() => return Ok((launch, now)),
            Some(_) => {}
            None => launch.delete()?,
        }
        Err(Error::NoSuchService { target: named.name().to_owned(), nearest: Vec::new() })
    }

    /// The view of a service that a command acted on, as it is now. If its record is gone meanwhile, or cannot be read,
    /// the one that the command knew is shown.
    pub(super) fn view(&self, reservation: &Reservation) -> ServiceView {
        let now = self.registry.find(&reservation.hash).ok().flatten();
        self.overview().view(now.unwrap_or_else(|| reservation.clone()))
    }

    /// The view of a service, as it is now.
    ///
    /// # Errors
    /// If it was removed, or its record cannot be read.
    pub(super) fn view_if_registered(&self, reservation: &Reservation) -> Result<ServiceView> {
        let gone = || Error::NoSuchService { target: reservation.name().to_owned(), nearest: Vec::new() };
        let now = self.registry.find(&reservation.hash)?.ok_or_else(gone)?;
        Ok(self.overview().view(now))
    }

    /// Looks at the services.
    pub(super) fn overview(&self) -> Overview<'_> {
        Overview::new(&self.registry, Addresses::new(&self.registry, self.environment(), &self.suffix))
    }

    /// The tailnet, for the services.
    pub(super) fn tailnet(&self) -> Tailnet<'_> {
        Tailnet { registry: &self.registry, environment: self.environment() }
    }

    /// Whether results are printed as tables.
    pub(super) fn wants_table(&self) -> bool {
        match self.format {
            Format::Auto => io::stdout().is_terminal(),
            Format::Json => false,
            Format::Table => true,
        }
    }

    /// Whether JSON was asked for by name.
    pub(super) fn wants_only_json(&self) -> bool {
        self.format == Format::Json
    }

    /// How tables on standard output look.
    pub(super) fn table_style(&self) -> TableStyle {
        let terminal = io::stdout().is_terminal();
        TableStyle {
            color: terminal && self.environment().get("NO_COLOR").is_none(),
            width: WindowSize::of(io::stdout()).map(WindowSize::columns),
            now: clock::wall(),
        }
    }

    /// Prints services as the result: one as an object with all there is to say, several as a list.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(super) fn print_views(&self, views: &[ServiceView], several: bool) -> Result<()> {
        let text = match (self.wants_table(), views, several) {
            (true, _, _) => view::list(views, self.table_style(), false),
            (false, [view], false) => view::object(view),
            (false, views, _) => view::array(views),
        };
        write_output(text.as_bytes())
    }

    /// Prints one service, with all there is to say about it.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(super) fn print_details(&self, view: &ServiceView) -> Result<()> {
        let text = if self.wants_table() { view::details(view, self.table_style()) } else { view::object(view) };
        write_output(text.as_bytes())
    }
}

/// Writes on standard output.
///
/// # Errors
/// [`Error::ClosedOutput`] if nobody reads it, or what the system says.
pub(super) fn write_output(bytes: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::ClosedOutput),
        written => written.map_err(Error::system("write to standard output")),
    }
}

/// Tells of a failure that does not end the command: of one service among several.
pub(super) fn report(name: &str, error: &Error) {
    report_with(name, error, None);
}

/// As [`report`], with the command that does again what failed.
pub(super) fn report_with(what: &str, error: &Error, retry: Option<&str>) {
    note(format!("{what}: {error}"));
    if let Some(hint) = error.hint() {
        let _ = writeln!(io::stderr(), "hint: {}", printable(&hint));
    }
    if let Some(retry) = retry {
        let _ = writeln!(io::stderr(), "retry: {}", printable(retry));
    }
}
