//! `devport start`: register and launch in the background.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::cli::args::{Goal, NewService, Start};
use crate::cli::batch;
use crate::cli::context::{Context, note};
use crate::cli::tailnet;
use crate::cli::wait;
use crate::config::{PortRequest, Request, ServiceSpec, Span};
use crate::error::{Error, Result};
use crate::identity::{Key, TailnetName};
use crate::launch::{self, Urgency};
use crate::os::clock;
use crate::project::{Ownership, Place};
use crate::registry::{FileLock, Liveness, Registration, Reservation, State};
use crate::tailnet::PublishRequest;
use crate::text::{printable, shorten};
use crate::view::Outcome;

/// How a start goes about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaunchMode {
    /// Without a tmux window.
    pub(super) detach: bool,
    /// A running service is restarted with the new options.
    pub(super) replace: bool,
}

/// Executes `devport start`.
///
/// # Errors
/// What kept the service, or one of several, from running.
pub(super) fn execute(context: &mut Context, arguments: Start) -> Result<()> {
    let manner = LaunchMode { detach: arguments.detach, replace: arguments.replace };
    if let Some(file) = arguments.file {
        return batch::execute(context, &file, &arguments.targets, manner, arguments.wait);
    }
    let (reservation, outcome) = match (arguments.targets.as_slice(), arguments.service.command.is_empty()) {
        ([], _) => {
            let spec = spec(context, arguments.service)?;
            let started = start_spec(context, &spec, manner)?;
            let outcome = started.outcome;
            (started.publish(context), outcome)
        }
        ([target], true) if is_bare(&arguments.service) => {
            let reservation = context.resolve(target)?;
            start_registered(context, &reservation, manner)?
        }
        (words, _) => return Err(misplaced_words(words)),
    };
    let waited = wait_if_asked(context, std::slice::from_ref(&reservation), arguments.wait);
    context.print_views(&[context.view(&reservation).with(outcome)], false)?;
    waited
}

/// Waits until services that were started are ready, if that was asked for.
///
/// # Errors
/// If one is not in time.
pub(super) fn wait_if_asked(context: &Context, reservations: &[Reservation], limit: Option<Span>) -> Result<()> {
    limit.map_or(Ok(()), |limit| wait::wait(context, reservations, Goal::Ready, limit.0))
}

/// Whether nothing is said about the service.
fn is_bare(service: &NewService) -> bool {
    service.key.is_none()
        && service.port.is_none()
        && service.port_env.is_none()
        && !service.no_port
        && !service.tailnet
        && service.env_file.is_empty()
        && service.policy.is_empty()
}

/// A command without `--`, most likely.
fn misplaced_words(words: &[String]) -> Error {
    let words = shorten(&words.join(" "));
    Error::Usage {
        message: format!("unexpected {words:?}"),
        hint: format!("put the command behind --, as in `devport start --key api -- {words}`"),
    }
}

/// What the arguments of `start` and `run` ask for.
///
/// # Errors
/// If they cannot be a service.
pub(super) fn spec(context: &Context, service: NewService) -> Result<ServiceSpec> {
    let cwd = context.cwd()?;
    let words: Vec<String> = service.command.into_iter().map(utf8).collect::<Result<_>>()?;
    let port = match (service.no_port, service.port) {
        (true, _) => PortRequest::NoPort,
        (false, Some(port)) => PortRequest::Exactly(port),
        (false, None) => PortRequest::Any,
    };
    let request = Request {
        // An empty key is none, as it always was.
        key: service.key.filter(|key| !key.is_empty()).map(Key::new).transpose()?,
        words,
        port,
        port_variable: service.port_env,
        tailnet: service.tailnet,
        tailnet_name: service.tailnet_name.map(TailnetName::new).transpose()?,
        policy: service.policy.into_policy(),
        env_files: service.env_file.into_iter().map(|file| cwd.join(file)).collect(),
        file: None,
        cwd,
    };
    ServiceSpec::resolve(request, context.environment())
}

/// A word of the command as text.
fn utf8(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::NotUtf8 {
        what: "a word of the command".into(),
        lossy: word.to_string_lossy().into_owned(),
    })
}

/// A service that runs now.
pub(super) struct Started {
    /// Its record.
    reservation: Reservation,
    /// How it shall be published; `None` if it shall not be, or is already.
    wish: Option<PublishRequest>,
    /// Whether it was started, or ran already.
    pub(super) outcome: Outcome,
}

impl Started {
    /// Publishes the service if it shall be, and returns it. That it cannot be published is told, and is no failure.
    pub(super) fn publish(self, context: &Context) -> Reservation {
        if let Some(wish) = &self.wish {
            tailnet::expose_started(context, &self.reservation, wish);
        }
        self.reservation
    }
}

/// Starts what a spec asks for, unless it runs. It is for the caller to publish it.
///
/// # Errors
/// What kept it from running.
pub(super) fn start_spec(context: &mut Context, spec: &ServiceSpec, manner: LaunchMode) -> Result<Started> {
    let (reservation, outcome) = ensure_running(context, spec, manner)?;
    let launched = outcome != Outcome::AlreadyRunning;
    let is_as_wished = reservation.tailnet
        && spec.tailnet_name.as_ref().is_none_or(|name| name.as_str() == reservation.name_on_tailnet());
    let wish = (spec.tailnet && (launched || !is_as_wished)).then(|| PublishRequest::of(spec));
    Ok(Started { reservation, wish, outcome })
}

/// Starts what a spec asks for, unless it runs.
fn ensure_running(context: &mut Context, spec: &ServiceSpec, manner: LaunchMode) -> Result<(Reservation, Outcome)> {
    check_place(context, spec)?;
    context.registry.prepare()?;
    let launch = context.registry.acquire_launch(&spec.hash, spec.name(), &mut |text| note(text))?;
    let (reservation, outcome) = match claim(context, spec, manner.replace) {
        Ok(Claimed::Running(reservation)) => return Ok((reservation, Outcome::AlreadyRunning)),
        Ok(Claimed::Free { reservation, ran: true }) => (reservation, Outcome::Replaced),
        Ok(Claimed::Free { reservation, ran: false }) => (reservation, Outcome::Started),
        Err(error) => return Err(give_up(context, spec, launch, error)),
    };
    context.launcher(manner.detach)?.launch(&reservation, &mut |text| note(text))?;
    Ok((reservation, outcome))
}

/// A service that a command asked for.
enum Claimed {
    /// It runs, and goes on running; nothing was changed.
    Running(Reservation),
    /// It is registered as asked for, and does not run.
    Free {
        /// Its record.
        reservation: Reservation,
        /// Whether it ran, and was stopped.
        ran: bool,
    },
}

/// Registers a service, and ends it if it runs and is to be replaced, or if its directory is gone. What is to be
/// replaced ends only after the new record was checked and written. The caller holds the launch lock.
///
/// # Errors
/// [`Error::KeyElsewhere`] if it belongs to another checkout, or if it cannot be registered: nothing was changed then.
fn claim(context: &Context, spec: &ServiceSpec, replace: bool) -> Result<Claimed> {
    let registry = &context.registry;
    let stop = |reservation| launch::stop(registry, reservation, Urgency::Graceful);
    match find_running(context, spec)? {
        None => Ok(Claimed::Free { reservation: register(context, spec)?, ran: false }),
        // Another directory at the same path: what runs is not what the record says.
        Some(Found { reservation, is_gone: true }) => {
            stop(&reservation)?;
            Ok(Claimed::Free { reservation: register(context, spec)?, ran: true })
        }
        Some(Found { reservation, is_gone: false }) if replace => {
            let registered = register(context, spec)?;
            stop(&reservation)?;
            Ok(Claimed::Free { reservation: registered, ran: true })
        }
        Some(Found { reservation, is_gone: false }) => {
            note_differences(&reservation, spec);
            Ok(Claimed::Running(reservation))
        }
    }
}

/// A service that runs.
struct Found {
    /// Its record.
    reservation: Reservation,
    /// Whether its directory is gone, or another one by now.
    is_gone: bool,
}

/// Looks whether a service runs that a command asks for. The caller holds the launch lock.
///
/// # Errors
/// [`Error::KeyElsewhere`] if it belongs to another checkout.
fn find_running(context: &Context, spec: &ServiceSpec) -> Result<Option<Found>> {
    let Some(reservation) = context.registry.find(&spec.hash)? else { return Ok(None) };
    let is_gone = is_gone(context, spec, &reservation)?;
    Ok(running(context, &reservation)?.map(|reservation| Found { reservation, is_gone }))
}

/// Refuses a key of another checkout, before any file is touched. It may still lose the key until it is registered.
///
/// # Errors
/// [`Error::KeyElsewhere`], or if a directory cannot be looked at.
pub(super) fn check_place(context: &Context, spec: &ServiceSpec) -> Result<()> {
    let Some(reservation) = context.registry.find(&spec.hash)? else { return Ok(()) };
    is_gone(context, spec, &reservation).map(drop)
}

/// Prepares reserving a port: ends what still runs of a service whose directory is gone. It cannot be launched while the
/// lock that is returned is held.
///
/// # Errors
/// As [`check_place`], or if the service does not end.
pub(super) fn make_way_for_port(context: &mut Context, spec: &ServiceSpec) -> Result<Option<FileLock>> {
    let Some(reservation) = context.registry.find(&spec.hash)? else { return Ok(None) };
    if !is_gone(context, spec, &reservation)? {
        return Ok(None);
    }
    context.registry.prepare()?;
    let launch = context.registry.acquire_launch(&spec.hash, spec.name(), &mut |text| note(text))?;
    if let Some(Found { reservation, .. }) = find_running(context, spec)? {
        launch::stop(&context.registry, &reservation, Urgency::Graceful)?;
    }
    Ok(Some(launch))
}

/// Returns whether the directory that a service belongs to is gone.
///
/// # Errors
/// [`Error::KeyElsewhere`] if it is another checkout's.
fn is_gone(context: &Context, spec: &ServiceSpec, reservation: &Reservation) -> Result<bool> {
    let failed = || Error::io("look at", &reservation.cwd);
    match spec.place.ownership(reservation.site()).map_err(failed())? {
        Ownership::Ours => Ok(false),
        Ownership::Gone(_) => Ok(true),
        Ownership::Other(root) => Err(elsewhere(context, spec, reservation, &root)),
    }
}

/// The error for a key of another checkout, with the state of its service.
fn elsewhere(context: &Context, spec: &ServiceSpec, reservation: &Reservation, root: &Path) -> Error {
    let view = context.view(reservation);
    let state = view.state.as_str();
    let directory = spec.place.root().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Error::KeyElsewhere {
        key: reservation.name().to_owned(),
        owner: spec.place.abbreviate(root),
        state: Some(view.port.map_or_else(|| state.to_owned(), |port| format!("{state}, port {port}"))),
        here: spec.place.abbreviate(spec.place.root()),
        hint: format!("choose another key for this checkout, such as {}-{directory}", reservation.name()),
    }
}

/// Gives up the launch lock of a service that cannot be registered. A lock file that was made for nothing is deleted.
fn give_up(context: &Context, spec: &ServiceSpec, launch: FileLock, error: Error) -> Error {
    if !context.registry.paths().record(&spec.hash).exists() {
        // One that stays does no harm.
        let _ = launch.delete();
    }
    error
}

/// Registers a service. The caller holds its launch lock.
fn register(context: &Context, spec: &ServiceSpec) -> Result<Reservation> {
    let Registration { reservation, reclaimed, taken_over } =
        context.registry.register(spec, clock::wall(), &mut |text| note(text))?;
    if let Some(directory) = taken_over {
        note_taken_over(spec.name(), &spec.place, &directory);
    }
    if let Some(old) = reclaimed {
        note_reclaimed(&old, &reservation);
    }
    Ok(reservation)
}

/// Says that a service lost its port for another.
pub(super) fn note_reclaimed(old: &Reservation, new: &Reservation) {
    note(format!(
        "no port was free: removed {} (last up {:.0}), whose port {} {} gets",
        old.name(),
        old.last_up,
        old.port,
        new.name()
    ));
}

/// Says that a service has another checkout from now on.
pub(super) fn note_taken_over(name: &str, place: &Place, directory: &Path) {
    let (old, new) = (place.abbreviate(directory), place.abbreviate(place.root()));
    note(if directory.is_dir() {
        format!("{old} was deleted and made again; {name} belongs to {new} now")
    } else {
        format!("{name} belonged to {old}, which no longer exists; it belongs to {new} now")
    });
}

/// If the checkout of a service was deleted and made again, ends what still runs of it and records the new checkout.
/// Returns the record as it is now, and whether anything ran. The caller holds the launch lock.
///
/// # Errors
/// If the service does not end, or the record cannot be written.
fn move_in(context: &Context, reservation: Reservation) -> Result<(Reservation, bool)> {
    let failed = || Error::io("look at", &reservation.cwd);
    let place = Place::new(&reservation.cwd, reservation.file.as_deref(), context.environment().home());
    let old = match place.ownership(reservation.site()).map_err(failed())? {
        // A directory that is missing stops the launch.
        Ownership::Gone(old) if reservation.cwd.is_dir() => old,
        _ => return Ok((reservation, false)),
    };
    let ran = running(context, &reservation)?.is_some();
    launch::stop(&context.registry, &reservation, Urgency::Graceful)?;
    let moved = context.registry.move_in(&reservation.hash, &place, &mut |text| note(text))?;
    note_taken_over(reservation.name(), &place, &old);
    Ok((moved.unwrap_or(reservation), ran))
}

/// Prepares supervising a registered service in the foreground. Returns its record as it is now.
///
/// # Errors
/// As [`start_registered`].
pub(super) fn prepare_to_run(context: &mut Context, reservation: &Reservation) -> Result<Reservation> {
    context.registry.prepare()?;
    let (_launch, reservation) = context.take(reservation)?;
    check_command(&reservation)?;
    Ok(move_in(context, reservation)?.0)
}

/// Refuses a port that is reserved without a command.
fn check_command(reservation: &Reservation) -> Result<()> {
    if reservation.cmd.is_empty() {
        return Err(Error::NoCommand { service: reservation.name().to_owned() });
    }
    Ok(())
}

/// What came of registering a service for a supervisor in the foreground.
pub(super) enum Registered {
    /// It can be supervised now.
    Ready(Reservation),
    /// Somebody else supervises it, and nothing was changed.
    Running(Reservation),
}

/// Registers what a spec asks for, for a supervisor in the foreground.
///
/// # Errors
/// If it cannot be registered.
pub(super) fn register_for_run(context: &mut Context, spec: &ServiceSpec, replace: bool) -> Result<Registered> {
    check_place(context, spec)?;
    context.registry.prepare()?;
    let launch = context.registry.acquire_launch(&spec.hash, spec.name(), &mut |text| note(text))?;
    match claim(context, spec, replace) {
        Ok(Claimed::Running(reservation)) => Ok(Registered::Running(reservation)),
        Ok(Claimed::Free { reservation, .. }) => Ok(Registered::Ready(reservation)),
        Err(error) => Err(give_up(context, spec, launch, error)),
    }
}

/// Starts a registered service as it is, unless it runs. Returns its record as it is now.
///
/// # Errors
/// What kept it from running; [`Error::NoSuchService`] if it was removed meanwhile.
pub(super) fn start_registered(
    context: &mut Context,
    reservation: &Reservation,
    manner: LaunchMode,
) -> Result<(Reservation, Outcome)> {
    context.registry.prepare()?;
    let (_launch, reservation) = context.take(reservation)?;
    check_command(&reservation)?;
    let (reservation, ran) = move_in(context, reservation)?;
    let outcome = match running(context, &reservation)? {
        Some(running) if !manner.replace => return Ok((running, Outcome::AlreadyRunning)),
        Some(running) => {
            launch::stop(&context.registry, &running, Urgency::Graceful)?;
            Outcome::Replaced
        }
        None if ran => Outcome::Replaced,
        None => Outcome::Started,
    };
    context.launcher(manner.detach)?.launch(&reservation, &mut |text| note(text))?;
    Ok((reservation, outcome))
}

/// The record of a service that runs; `None` if it does not. One that is ending is waited for.
fn running(context: &Context, reservation: &Reservation) -> Result<Option<Reservation>> {
    let (registry, hash) = (&context.registry, &reservation.hash);
    let limit = launch::stop_limit(reservation);
    let look = || -> Result<Option<bool>> {
        let liveness = match registry.liveness(hash) {
            Liveness::Free => registry.unannounced_liveness(hash),
            known => known,
        };
        match liveness {
            Liveness::Free => Ok(Some(false)),
            Liveness::Held(_) => {
                let run = registry.run_state(hash)?;
                let is_ending = run.is_some_and(|run| run.says_ended() || run.state == State::Stopping);
                Ok((!is_ending).then_some(true))
            }
            Liveness::Unknown(source) => {
                Err(Error::System { verb: format!("check whether {} runs", reservation.name()), source })
            }
        }
    };
    match clock::poll(Duration::from_millis(2), limit, || look().transpose()) {
        Some(Ok(true)) => registry.find(hash),
        Some(Ok(false)) => Ok(None),
        Some(Err(error)) => Err(error),
        None => Err(Error::StillStopping {
            service: reservation.name().to_owned(),
            waited_s: limit.as_secs(),
            left: "its supervisor".into(),
        }),
    }
}

/// Says in what a running service differs from what was asked for.
fn note_differences(running: &Reservation, spec: &ServiceSpec) {
    let mut differences = Vec::new();
    if running.cmd != spec.words {
        differences.push(format!("the command {}", printable(&running.cmd.join(" "))));
    }
    if Path::new(&running.cwd) != spec.cwd {
        differences.push(format!("the directory {}", running.cwd.display()));
    }
    if running.policy != spec.policy {
        differences.push("other rules for readiness, restarts or stopping".into());
    }
    if running.port_env != spec.port_variable || running.no_port != (spec.port == PortRequest::NoPort) {
        differences.push("other port options".into());
    }
    if matches!(spec.port, PortRequest::Exactly(port) if port != running.port) {
        differences.push(format!("port {}", running.port));
    }
    if !differences.is_empty() {
        note(format!("{} already runs with {}; --replace restarts it", running.name(), differences.join(" and ")));
    }
}
