//! `devport run`: be the supervisor of a service, in the foreground or where `start` put us.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use crate::cli::args::Run;
use crate::cli::context::{CallerContext, Context, note};
use crate::cli::start::{Registered, prepare_to_run, register_for_run, spec};
use crate::cli::tailnet;
use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::launch::own_window;
use crate::registry::{Paths, PortRange, Registry, Reservation, RunState};
use crate::supervisor::{Outcome, Supervised, SupervisorSetup, supervise};
use crate::tailnet::PublishRequest;

/// What `start` hands to a supervisor: nothing but the service's hash and where it is registered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Launched {
    /// The service.
    hash: ServiceHash,
    /// The state directory.
    home: OsString,
}

impl Launched {
    /// Reads `run --launched HASH --home DIR`; `None` if that is not what the arguments are.
    pub(super) fn parse(arguments: &[OsString]) -> Option<Self> {
        let [_, run, launched, hash, home, directory] = arguments else { return None };
        (run == "run" && launched == "--launched" && home == "--home").then_some(())?;
        Some(Self { hash: ServiceHash::parse(hash.to_str()?)?, home: directory.clone() })
    }
}

/// Supervises a service that `start` has registered.
///
/// # Errors
/// What keeps it from running; `start` reads that from the run state.
pub(super) fn launched(launched: &Launched, caller_context: CallerContext) -> Result<ExitCode> {
    let paths = Paths::choose(Some(&launched.home), None, None, std::path::Path::new("/"))?;
    let registry = Registry::new(paths, PortRange::STANDARD);
    let environment = caller_context.environment;
    let watched = io::stdout().is_terminal();
    let window = if watched { own_window(environment.get("TMUX"), environment.get("TMUX_PANE")) } else { None };
    let term = environment.get("TERM").filter(|_| watched).and_then(|term| term.to_str()).map(str::to_owned);
    drop(environment);
    let supervised = supervise(&registry, &launched.hash, SupervisorSetup { is_attached: watched, window, term })
        .inspect_err(|error| {
            let me = i32::try_from(std::process::id()).unwrap_or_default();
            let is_recorded = |run: Option<RunState>| run.is_some_and(|run| run.supervisor.pid == me);
            if !registry.run_state(&launched.hash).is_ok_and(is_recorded) {
                registry.leave_launch_failure(&launched.hash, error);
            }
        })?;
    Ok(if matches!(supervised, Supervised::Ended(Outcome::Failed(_))) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Executes `devport run`.
///
/// # Errors
/// What keeps the service from running.
pub(super) fn execute(context: &mut Context, arguments: Run) -> Result<()> {
    let reservation = match arguments.target {
        Some(target) => {
            let reservation = context.resolve(&target)?;
            prepare_to_run(context, &reservation)?
        }
        None => {
            let spec = spec(context, arguments.service)?;
            match register_for_run(context, &spec, arguments.replace)? {
                Registered::Ready(reservation) => {
                    if spec.tailnet {
                        tailnet::expose_started(context, &reservation, &PublishRequest::of(&spec));
                    }
                    reservation
                }
                Registered::Running(running) => return print_running(context, &running),
            }
        }
    };
    let name = reservation.name();
    match reservation.service_port() {
        Some(port) => note(format!("{name} on http://localhost:{port}")),
        None => note(name),
    }
    let term = context.environment().get("TERM").and_then(|term| term.to_str()).map(str::to_owned);
    match supervise(&context.registry, &reservation.hash, SupervisorSetup { is_attached: true, window: None, term })? {
        Supervised::AlreadyRunning => print_running(context, &reservation),
        Supervised::Ended(Outcome::Stopped) => Ok(()),
        Supervised::Ended(Outcome::Failed(why)) => {
            Err(Error::StartFailed { service: name.to_owned(), why, hint: None })
        }
    }
}

/// Prints a service that somebody else supervises.
fn print_running(context: &Context, reservation: &Reservation) -> Result<()> {
    note(format!("{} already runs", reservation.name()));
    context.print_views(&[context.view(reservation).with(crate::view::Outcome::AlreadyRunning)], false)
}
