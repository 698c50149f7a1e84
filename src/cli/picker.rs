//! Lets the user choose one of the running services: with fzf if it is installed, else with a built-in picker.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;

use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::os::spawn::{find_program, tool};
use crate::registry::Reservation;
use crate::text::printable;

/// Lets the user choose one of the running services that have a window.
///
/// # Errors
/// [`Error::Cancelled`], or [`Error::CannotAttach`] if there is no such service, or there is no terminal.
pub(super) fn pick(context: &Context) -> Result<Reservation> {
    let mut running = context.all()?.services;
    running.retain(|reservation| has_window(context, reservation));
    let cannot =
        |why: &str, hint: &str| Error::CannotAttach { service: "a service".into(), why: why.into(), hint: hint.into() };
    if running.is_empty() {
        return Err(cannot(
            "no running service has a window",
            "`devport ls` lists the services, and `devport logs -f TARGET` follows one",
        ));
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(cannot("there is no terminal to choose in", "name the service, as in `devport attach api`"));
    }
    let lines: Vec<String> = running.iter().map(line).collect();
    let chosen = match find_program("fzf", context.environment().get("PATH")) {
        Some(fzf) => with_fzf(&fzf, &lines)?,
        None => built_in(&lines)?,
    };
    Ok(running.swap_remove(chosen))
}

/// Returns whether a service runs in a tmux window.
fn has_window(context: &Context, reservation: &Reservation) -> bool {
    let run = context.registry.run_state(&reservation.hash).ok().flatten();
    context.registry.liveness(&reservation.hash).is_held() && run.is_some_and(|run| run.window.is_some())
}

/// Formats a service as a line of the picker.
fn line(reservation: &Reservation) -> String {
    let port = reservation.service_port().map_or_else(|| "-".into(), |port| port.to_string());
    printable(&format!("{:<20} {:<6} {port:<6} {}", reservation.name(), reservation.hashid, reservation.cmd.join(" ")))
}

/// Lets the user choose with fzf, which opens the terminal itself. Returns the index of the chosen line. The exit codes
/// are those of fzf(1): 1 means no match, 130 cancelled.
fn with_fzf(fzf: &Path, lines: &[String]) -> Result<usize> {
    let failed = || Error::system("choose with fzf");
    let mut child = tool(fzf)
        .args(["--no-multi", "--delimiter=\t", "--with-nth=2..", "--prompt=attach> ", "--height=~50%", "--reverse"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    if let Some(mut input) = child.stdin.take() {
        for (index, line) in lines.iter().enumerate() {
            // The user may have closed fzf already. Its exit code says so.
            let _ = writeln!(input, "{index}\t{line}");
        }
    }
    let output = child.wait_with_output().map_err(failed())?;
    let chosen = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => chosen
            .split('\t')
            .next()
            .and_then(|index| index.parse().ok())
            .filter(|index| *index < lines.len())
            .ok_or(Error::Cancelled),
        Some(1 | 130) => Err(Error::Cancelled),
        _ => Err(failed()(io::Error::other(format!("fzf ended with {}", output.status)))),
    }
}

/// Lets the user choose with the built-in picker. Returns the index of the chosen line.
fn built_in(lines: &[String]) -> Result<usize> {
    let chosen = dialoguer::FuzzySelect::new().with_prompt("attach").items(lines).default(0).interact_opt();
    match chosen {
        Ok(Some(index)) => Ok(index),
        Ok(None) => Err(Error::Cancelled),
        Err(dialoguer::Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => Err(Error::Cancelled),
        Err(dialoguer::Error::IO(error)) => Err(Error::system("choose")(error)),
    }
}
