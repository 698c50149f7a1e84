//! `devport run`: supervises a service in the foreground, or in the window or session where `start` launched it.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use crate::cli::args::Run;
use crate::cli::context::{CallerContext, Context};
use crate::cli::output::note;
use crate::cli::{start, tailnet};
use crate::config::{local_url, shell_hint};
use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::launch::{IfRunning, Previous, count_viewers, own_window};
use crate::os::spawn::find_program;
use crate::registry::{ExitHow, Paths, PortRange, Registry, Reservation, RunState};
use crate::supervisor::{Audience, Outcome, Supervised, SupervisorSetup, supervise};
use crate::view;

/// The arguments that a launcher passes to a supervisor: `run --launched HASH --home DIR`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Launched {
    hash: ServiceHash,
    /// The state directory.
    home: OsString,
}

impl Launched {
    /// Parses a supervisor's arguments; `None` if they are those of another command.
    pub(super) fn parse(arguments: &[OsString]) -> Option<Self> {
        let [_, run, launched, hash, home, directory] = arguments else { return None };
        (run == "run" && launched == "--launched" && home == "--home").then_some(())?;
        Some(Self { hash: ServiceHash::parse(hash.to_str()?)?, home: directory.clone() })
    }
}

/// Supervises a registered service that another process launched.
///
/// # Errors
/// Why the service does not run. The launcher reads that from the run state, or from the failure file if no run state
/// could be written.
pub(super) fn launched(launched: &Launched, caller: CallerContext) -> Result<ExitCode> {
    let paths = Paths::choose(Some(&launched.home), None, None, Path::new("/"))?;
    let registry = Registry::new(paths, PortRange::STANDARD, note);
    let environment = caller.environment;
    let watched = io::stdout().is_terminal();
    let window = if watched { own_window(environment.get("TMUX"), environment.get("TMUX_PANE")) } else { None };
    let audience = match &window {
        Some(pane) => Audience::Window {
            count_viewers: find_program("tmux", environment.get("PATH"))
                .map(|program| count_viewers(program, pane))
                .unwrap_or_default(),
        },
        None if watched => Audience::OwnStreams,
        None => Audience::LogOnly,
    };
    let term = environment.get("TERM").filter(|_| watched).and_then(|term| term.to_str()).map(str::to_owned);
    let heartbeat = environment.heartbeat();
    // The service's environment comes from its record. Do not keep a copy of the caller's for days.
    drop(environment);
    let setup = SupervisorSetup { audience, window, term, heartbeat };
    let supervised = supervise(&registry, &launched.hash, setup).inspect_err(|error| {
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let is_recorded = |run: Option<RunState>| run.is_some_and(|run| run.supervisor.pid == me);
        if !registry.run_state(&launched.hash).is_ok_and(is_recorded) {
            registry.report_launch_failure(&launched.hash, error);
        }
    })?;
    let has_failed = matches!(supervised, Supervised::Ended { outcome: Outcome::Failed(_), .. });
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Executes `devport run`.
///
/// # Errors
/// [`Error::CommandEnded`] with the exit code of the command, or why devport could not run it.
pub(super) fn execute(context: &Context, arguments: Run) -> Result<()> {
    let if_running = if arguments.replace { IfRunning::Replace } else { IfRunning::Keep };
    let reservation = match arguments.target {
        Some(target) => context.launcher().prepare_to_run(&context.resolve(&target)?, if_running)?,
        None => {
            let spec = start::spec(context, arguments.service, arguments.policy)?;
            let ensured = context.launcher().register(&spec, if_running)?;
            if ensured.previous == Previous::StillRunning {
                start::note_differences(&spec, &ensured);
                return print_running(context, &ensured.reservation);
            }
            tailnet::publish_started(context, &spec, &ensured);
            ensured.reservation
        }
    };
    context.launcher().warn_of_unset_variables(&reservation);
    let name = reservation.name();
    match reservation.service_port() {
        Some(port) => note(&format!("starting {name} on {}", local_url(reservation.scheme.as_deref(), port))),
        None => note(&format!("starting {name}")),
    }
    let term = context.environment().get("TERM").and_then(|term| term.to_str()).map(str::to_owned);
    let heartbeat = context.environment().heartbeat();
    let setup = SupervisorSetup { audience: Audience::OwnStreams, window: None, term, heartbeat };
    match supervise(&context.registry, &reservation.hash, setup)? {
        Supervised::AlreadyRunning => print_running(context, &reservation),
        Supervised::Ended { outcome: Outcome::Stopped | Outcome::CheckoutGone, .. } => Ok(()),
        Supervised::Ended { outcome: Outcome::Failed(why), exit } => {
            Err(failure(name.to_owned(), &reservation.cmd, why.to_string(), exit))
        }
    }
}

/// Returns the error for a service that ended and is not restarted. `exit` is `None` if its command was not executed.
fn failure(service: String, command: &[String], why: String, exit: Option<ExitHow>) -> Error {
    let Some(how) = exit else { return Error::StartFailed { service, why, hint: shell_hint(command) } };
    let text = how.to_string();
    let why = if why.starts_with(&text) { why } else { format!("{text}; {why}") };
    // As shells report the end by a signal (POSIX, "Shell Command Language", 2.8.2).
    let code = match how {
        ExitHow::Code(code) => code,
        ExitHow::Signal(signal) => 128 + signal,
        ExitHow::Unknown => 1,
    };
    Error::CommandEnded { service, why, code: u8::try_from(code).unwrap_or(1) }
}

/// Prints a service that another process supervises.
fn print_running(context: &Context, reservation: &Reservation) -> Result<()> {
    note(&format!("{} is already running", reservation.name()));
    let view = context.view(reservation).with(view::Outcome::AlreadyRunning);
    context.output.print_views(&[view], false)
}
