//! `devport attach`: shows the terminal of a service until it ends or the user leaves it.

use std::io::{self, IsTerminal};

use crate::cli::args::Attach;
use crate::cli::context::Context;
use crate::cli::output::note_with_hint;
use crate::cli::{missing_tmux, picker};
use crate::error::{Error, Result};
use crate::launch::{Tmux, Viewing};
use crate::os::process::ProcessIdentity;
use crate::os::spawn::{find_program, in_foreground};
use crate::registry::{Liveness, Pane, Reservation, State};

/// Executes `devport attach`: runs a tmux client, or switches the one that this process runs in. The terminal never
/// shows the window of another service.
///
/// # Errors
/// [`Error::CannotAttach`] if the service has no window or there is no terminal to show it in, or if tmux fails.
pub(super) fn execute(context: &Context, arguments: &Attach) -> Result<()> {
    let reservation = match &arguments.target {
        Some(target) => context.resolve(target)?,
        None => picker::pick(context)?,
    };
    let quoted = shell_words::quote(reservation.name());
    let mut attached = Window::of(context, &reservation)?;
    let cannot = |why: &str, hint: &str| Error::CannotAttach {
        service: reservation.name().to_owned(),
        why: why.into(),
        hint: hint.into(),
    };
    let Some(program) = find_program("tmux", context.environment().get("PATH")) else {
        return Err(cannot("there is no tmux in PATH", &missing_tmux::install_hint(context)));
    };
    let tmux = Tmux::new(program, context.environment().for_background()).at_socket(&attached.pane.socket);
    // tmux(1): TMUX is the socket, the pid of the server and the session, separated by commas.
    let own_server =
        context.environment().get("TMUX").and_then(|tmux| tmux.to_str()).and_then(|tmux| tmux.split(',').next());
    let is_inside = match own_server {
        None => false,
        Some(socket) if socket == attached.pane.socket => true,
        Some(_) => {
            let hint = format!("detach from this one first (Ctrl-B D), then run `devport attach {quoted}`");
            return Err(cannot("its window is in another tmux server than this terminal", &hint));
        }
    };
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !is_inside && !has_terminal {
        let hint = format!("`devport logs -f {quoted}` follows its output");
        return Err(cannot("this is not a terminal", &hint));
    }
    let find = |pane: &Pane| tmux.find(pane, context.registry.paths().base(), &reservation);
    let view = |pane: &Pane| {
        let window = find(pane)?
            .ok_or_else(|| cannot("its window is gone", &format!("`devport restart {quoted}` opens a new one")))?;
        let session = format!("devport-{}-{}", context.view(&reservation).hashid, std::process::id());
        Ok::<_, Error>(Viewing::new(&tmux, window, session))
    };
    if is_inside {
        let name = reservation.name();
        let message = format!("the window of {name} has closed: `devport which {quoted}` shows why");
        return view(&attached.pane)?.switch(context.environment().get("TMUX_PANE"), &message);
    }
    loop {
        let viewing = view(&attached.pane)?;
        let (program, arguments) = viewing.client();
        let ended = in_foreground(&program, &arguments);
        viewing.close();
        let succeeded = ended.map_err(Error::io("start", program))?;
        let still_runs = Window::of(context, &reservation).is_ok_and(|now| now == attached);
        // If there is no tmux server now, there is no window either.
        if still_runs && matches!(find(&attached.pane), Ok(Some(_))) {
            let failed = Error::Tmux { command: "attach-session", message: "the reason is above".into() };
            return if succeeded { Ok(()) } else { Err(failed) };
        }
        let Some(reopened) = reopened(context, &reservation, &attached) else { break };
        attached = reopened;
    }
    let (ending, hint) = ending(context, &reservation);
    note_with_hint(&ending, hint.as_deref());
    Ok(())
}

/// Returns the new window of a service whose window has closed; `None` if it does not run, or has no window.
fn reopened(context: &Context, reservation: &Reservation, closed: &Window) -> Option<Window> {
    // A restart holds the launch lock until the new window is open.
    drop(context.launcher().lock(reservation).ok()?);
    Window::of(context, reservation).ok().filter(|window| window != closed)
}

/// Says what became of a service whose window has closed, and how to start it again if it does not run.
fn ending(context: &Context, reservation: &Reservation) -> (String, Option<String>) {
    let name = reservation.name();
    let Ok(view) = context.view_if_registered(reservation) else { return (format!("{name} was removed"), None) };
    let state = if view.state == State::Failed { "has failed" } else { &format!("is {}", view.state.as_str()) };
    let why = view.error.or_else(|| Some(view.last_exit.filter(|exit| !exit.was_requested)?.to_string()));
    let ending = why.map_or_else(|| format!("{name} {state}"), |why| format!("{name} {state}: {why}"));
    let has_ended = matches!(view.state, State::Stopped | State::Failed);
    (ending, has_ended.then(|| format!("start it again with `devport start {}`", shell_words::quote(name))))
}

/// The tmux window of a running service.
#[derive(PartialEq, Eq)]
struct Window {
    pane: Pane,
    /// The supervisor in the window. A new tmux server gives the same ids to its panes.
    supervisor: Option<ProcessIdentity>,
}

impl Window {
    /// Finds the window of a service.
    ///
    /// # Errors
    /// [`Error::NotRunning`], or [`Error::CannotAttach`] if the service runs without a window.
    fn of(context: &Context, reservation: &Reservation) -> Result<Self> {
        let service = || reservation.name().to_owned();
        let supervisor = match context.registry.liveness(&reservation.hash) {
            Liveness::Held(supervisor) => supervisor,
            Liveness::Free => return Err(Error::NotRunning { service: service() }),
            Liveness::Unknown(source) => {
                return Err(Error::System { verb: format!("check whether {} runs", service()), source });
            }
        };
        let run = context.registry.run_state(&reservation.hash)?;
        let pane = run.and_then(|run| run.window).ok_or_else(|| Error::CannotAttach {
            service: service(),
            why: "it has no tmux window".into(),
            hint: format!(
                "`devport logs -f {0}` follows its output; `devport restart {0}` opens a window if there is tmux",
                shell_words::quote(reservation.name())
            ),
        })?;
        Ok(Self { pane, supervisor })
    }
}
