//! `devport port`, `url`, `open`, `env` and `reserve`: one fact about a service, alone on standard output.

use crate::cli::args::{Env, Reserve, Target};
use crate::cli::context::{Context, note, write_output};
use crate::cli::start::{make_way_for_port, note_reclaimed, note_taken_over};
use crate::config::{ChildVariables, PortRequest, ServiceSpec};
use crate::error::{Error, Result};
use crate::identity::Key;
use crate::os::{clock, spawn};
use crate::registry::{Registration, Reservation};

/// Executes `devport port`.
///
/// # Errors
/// If the target names no service, or one without a port.
pub(super) fn port(context: &mut Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    write_output(format!("{}\n", port_of(&reservation)?).as_bytes())
}

/// Executes `devport url`.
///
/// # Errors
/// If the target names no service, or one without a port.
pub(super) fn url(context: &mut Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    write_output(format!("{}\n", address(context, &reservation)?).as_bytes())
}

/// Executes `devport open`: shows a service in the browser.
///
/// # Errors
/// If the target names no service or one without a port, or no browser can be started.
pub(super) fn open(context: &mut Context, arguments: &Target) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let url = address(context, &reservation)?;
    let environment = context.environment();
    let candidates = [environment.get("BROWSER").and_then(|browser| browser.to_str()), Some(opener())];
    let program = candidates.into_iter().flatten().find_map(|name| {
        let path = std::path::Path::new(name);
        if path.is_absolute() { Some(path.to_owned()) } else { spawn::find_program(name, environment.get("PATH")) }
    });
    let program = program.ok_or_else(|| Error::NoBrowser { url: url.clone() })?;
    note(format!("opening {url}"));
    let status =
        spawn::tool(&program).arg(&url).status().map_err(Error::system(format!("start {}", program.display())))?;
    if status.success() { Ok(()) } else { Err(Error::NoBrowser { url }) }
}

/// The program that opens an address on this system.
fn opener() -> &'static str {
    if cfg!(target_os = "macos") { "open" } else { "xdg-open" }
}

/// Executes `devport env`: what a service's command gets. Values are shown only if that is asked for.
///
/// # Errors
/// If the target names no service.
pub(super) fn env(context: &mut Context, arguments: &Env) -> Result<()> {
    let reservation = context.resolve(&arguments.target)?;
    let told = ChildVariables {
        port: reservation.service_port(),
        port_variable: reservation.port_env.as_deref(),
        key: reservation.key.as_ref(),
        hash: &reservation.hash,
        home: context.registry.paths().base(),
        cwd: &reservation.cwd,
        term: None,
    };
    let mut variables = context.registry.environment(&reservation.hash)?.for_child(&told);
    variables.sort();
    let text = match (context.wants_only_json(), arguments.show_secrets) {
        (true, true) => {
            let object: serde_json::Map<_, _> =
                variables.into_iter().map(|(name, value)| (name, value.into())).collect();
            serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
        }
        (true, false) => {
            let names: Vec<String> = variables.into_iter().map(|(name, _)| name).collect();
            serde_json::to_string_pretty(&names).unwrap_or_default() + "\n"
        }
        (false, true) => {
            variables.into_iter().map(|(name, value)| [name, "=".into(), value, "\n".into()].concat()).collect()
        }
        (false, false) => variables.into_iter().map(|(name, _)| name + "\n").collect(),
    };
    write_output(text.as_bytes())
}

/// Executes `devport reserve`: a port for something that devport does not run.
///
/// # Errors
/// If no port can be had.
pub(super) fn reserve(context: &mut Context, arguments: Reserve) -> Result<()> {
    let key = Key::new(arguments.key)?;
    let cwd = context.cwd()?;
    let port = arguments.port.map_or(PortRequest::Any, PortRequest::Exactly);
    let spec = ServiceSpec::port_alone(key, port, cwd, context.environment());
    let _launch = make_way_for_port(context, &spec)?;
    context.registry.prepare()?;
    let Registration { reservation, reclaimed, taken_over } =
        context.registry.reserve(&spec, clock::wall(), &mut |text| note(text))?;
    if let Some(directory) = taken_over {
        note_taken_over(spec.name(), &spec.place, &directory);
    }
    if let Some(old) = reclaimed {
        note_reclaimed(&old, &reservation);
    }
    if context.wants_only_json() {
        return context.print_views(&[context.view(&reservation)], false);
    }
    write_output(format!("{}\n", port_of(&reservation)?).as_bytes())
}

/// The port of a service.
fn port_of(reservation: &Reservation) -> Result<u16> {
    reservation.service_port().ok_or_else(|| Error::NoPort { service: reservation.name().to_owned() })
}

/// Where a service is reached: on the tailnet if it is published there, else on this machine.
fn address(context: &Context, reservation: &Reservation) -> Result<String> {
    let port = port_of(reservation)?;
    Ok(context.view(reservation).url.unwrap_or_else(|| format!("http://localhost:{port}")))
}
