//! `devport attach`: shows the terminal of a service.

use std::io::{self, IsTerminal};

use crate::cli::args::Attach;
use crate::cli::context::Context;
use crate::cli::{missing_tmux, picker};
use crate::error::{Error, Result};
use crate::launch::Tmux;
use crate::os::spawn::{find_program, replace};
use crate::registry::{Liveness, Pane, Reservation};

/// Executes `devport attach`: replaces this process by a tmux client.
///
/// # Errors
/// [`Error::CannotAttach`] if the service has no window or there is no terminal to show it in, or if tmux fails.
pub(super) fn execute(context: &Context, arguments: &Attach) -> Result<()> {
    let reservation = match &arguments.target {
        Some(target) => context.resolve(target)?,
        None => picker::pick(context)?,
    };
    let pane = pane(context, &reservation)?;
    let cannot = |why: &str, hint: &str| Error::CannotAttach {
        service: reservation.name().to_owned(),
        why: why.into(),
        hint: hint.into(),
    };
    let Some(program) = find_program("tmux", context.environment().get("PATH")) else {
        return Err(cannot("there is no tmux in PATH", &missing_tmux::install_hint(context)));
    };
    let tmux = Tmux::new(program, context.environment().for_background()).at_socket(&pane.socket);
    let window = tmux.find(&pane, context.registry.paths().base(), &reservation)?.ok_or_else(|| {
        cannot("its window is gone", &format!("`devport restart {}` opens a new one", reservation.name()))
    })?;
    // tmux(1): TMUX is the socket, the pid of the server and the session, separated by commas.
    let own_server =
        context.environment().get("TMUX").and_then(|tmux| tmux.to_str()).and_then(|tmux| tmux.split(',').next());
    let is_inside = match own_server {
        None => false,
        Some(socket) if socket == pane.socket => true,
        Some(_) => {
            let session = reservation.tmux_session();
            let hint = format!("detach from this one first, then run `tmux -S {} attach -t {session}`", pane.socket);
            return Err(cannot("its window is in another tmux server than this terminal", &hint));
        }
    };
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !is_inside && !has_terminal {
        let hint = format!("`devport logs -f {}` follows its output", reservation.name());
        return Err(cannot("this is not a terminal", &hint));
    }
    let (program, arguments) = tmux.show(&window, is_inside);
    Err(Error::io("start", program.clone())(replace(&program, &arguments)))
}

/// Returns the tmux pane of a running service.
///
/// # Errors
/// [`Error::NotRunning`], or [`Error::CannotAttach`] if the service runs without a window.
fn pane(context: &Context, reservation: &Reservation) -> Result<Pane> {
    let service = || reservation.name().to_owned();
    match context.registry.liveness(&reservation.hash) {
        Liveness::Held(_) => {}
        Liveness::Free => return Err(Error::NotRunning { service: service() }),
        Liveness::Unknown(source) => {
            return Err(Error::System { verb: format!("check whether {} runs", service()), source });
        }
    }
    let run = context.registry.run_state(&reservation.hash)?;
    run.and_then(|run| run.window).ok_or_else(|| Error::CannotAttach {
        service: service(),
        why: "it has no tmux window".into(),
        hint: format!(
            "`devport logs -f {0}` follows its output; `devport restart {0}` opens a window if there is tmux",
            reservation.name()
        ),
    })
}
