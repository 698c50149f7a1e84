//! `devport signal`: send a signal to a service.

use std::str::FromStr;

use nix::sys::signal::Signal as Named;

use crate::cli::args::Signal;
use crate::cli::context::{Context, note};
use crate::error::{Error, Result};
use crate::launch;
use crate::os::process::Delivery;
use crate::registry::Liveness;

/// Signals that a supervisor cannot catch and pass on: they go to the child's process group directly.
const DIRECT: [i32; 8] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGPIPE,
];

/// Executes `devport signal`.
///
/// # Errors
/// If there is no such signal or service, or the service does not run.
pub(super) fn execute(context: &mut Context, arguments: &Signal) -> Result<()> {
    let signal = parse(&arguments.signal)?;
    let reservation = context.resolve(&arguments.target)?;
    let not_running = || Error::NotRunning { service: reservation.name().to_owned() };
    let Liveness::Held(Some(supervisor)) = context.registry.liveness(&reservation.hash) else {
        return Err(not_running());
    };
    if DIRECT.contains(&signal) || signal == libc::SIGTTIN || signal == libc::SIGTTOU {
        launch::kill_group(&reservation, context.registry.run_state(&reservation.hash).as_ref(), signal)?;
    } else if supervisor.signal(signal).map_err(Error::system(format!("signal {supervisor}")))? == Delivery::Gone {
        return Err(not_running());
    }
    note(format!("sent {} to {}", name(signal), reservation.name()));
    context.print_views(&[context.view(&reservation)?], false)
}

/// Reads a signal's name, with or without `SIG`, in any case, or its number.
fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::InvalidSignal { name: text.to_owned() };
    if let Ok(number) = text.parse::<i32>() {
        let last = if cfg!(target_os = "linux") { 64 } else { 31 };
        return (1..=last).contains(&number).then_some(number).ok_or_else(unknown);
    }
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    Named::from_str(&name).map(|signal| signal as i32).map_err(|_| unknown())
}

/// A signal's name for people.
fn name(signal: i32) -> String {
    Named::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["HUP", "hup", "SIGHUP", "sighup", "1"] {
            assert_eq!(parse(text).unwrap(), 1, "{text}");
        }
        for text in ["", "0", "-1", "65", "99", "SIG", "FOO", "1.0", "+x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn t27_no_name_panics(text in ".*") {
            let _ = parse(&text);
        }
    }
}
