//! `devport start`: registers a service and starts it in the background.

use std::ffi::OsString;

use crate::cli::args::{NewService, Start};
use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::{tailnet, wait};
use crate::config::{PortRequest, Request, ServiceSpec};
use crate::error::{Error, Result};
use crate::identity::{Key, TailnetName};
use crate::launch::{Ensured, LaunchMode, Previous};
use crate::registry::Reservation;
use crate::text::{printable, shorten};

/// Executes `devport start` without `-f`.
///
/// # Errors
/// The reason why the service does not run, or is not ready in time.
pub(super) fn execute(context: &Context, arguments: Start) -> Result<()> {
    let mode = mode(&arguments);
    let ensured = match (arguments.targets.as_slice(), arguments.service.command.is_empty()) {
        ([], _) => {
            let spec = spec(context, arguments.service)?;
            let ensured = start(context, &spec, mode)?;
            tailnet::publish_started(context, &spec, &ensured);
            ensured
        }
        ([target], true) if is_bare(&arguments.service) => {
            context.launcher().start_registered(&context.resolve(target)?, mode)?
        }
        (words, _) => return Err(misplaced_words(words)),
    };
    let waited = wait::until_ready(context, std::slice::from_ref(&ensured.reservation), arguments.wait);
    let view = context.view(&ensured.reservation).with(ensured.previous.into());
    context.output.print_views(&[view], false)?;
    waited
}

/// Returns how the arguments request services to be started.
pub(super) fn mode(arguments: &Start) -> LaunchMode {
    LaunchMode { is_detached: arguments.detach, replaces_running: arguments.replace }
}

/// Starts a service unless it runs, and notes how a running service differs from the request.
///
/// # Errors
/// The reason why the service does not run.
pub(super) fn start(context: &Context, spec: &ServiceSpec, mode: LaunchMode) -> Result<Ensured> {
    let ensured = context.launcher().start(spec, mode)?;
    note_differences(&ensured, spec);
    Ok(ensured)
}

/// Returns whether no option of a new service is given.
fn is_bare(service: &NewService) -> bool {
    service.key.is_none()
        && service.port.is_none()
        && service.port_env.is_none()
        && !service.no_port
        && !service.tailnet
        && service.env_file.is_empty()
        && service.policy.is_empty()
}

/// Returns the error for words that are neither options nor one target: probably a command without `--`.
fn misplaced_words(words: &[String]) -> Error {
    let words = shorten(&words.join(" "));
    Error::Usage {
        message: format!("unexpected {words:?}"),
        hint: format!("put the command behind --, as in `devport start --key api -- {words}`"),
    }
}

/// Resolves the options of a new service, for `start` and `run`.
///
/// # Errors
/// If an option is invalid, or a dotenv file cannot be read.
pub(super) fn spec(context: &Context, service: NewService) -> Result<ServiceSpec> {
    let cwd = context.cwd()?;
    let request = Request {
        // Scripts pass `--key "$NAME"` with an empty variable: that means no key.
        key: service.key.filter(|key| !key.is_empty()).map(Key::new).transpose()?,
        cmd: service.command.into_iter().map(utf8).collect::<Result<_>>()?,
        port: PortRequest::new(service.no_port, service.port),
        port_env: service.port_env,
        tailnet: service.tailnet,
        tailnet_name: service.tailnet_name.map(TailnetName::new).transpose()?,
        policy: service.policy.into_policy(),
        env_files: service.env_file.into_iter().map(|file| cwd.join(file)).collect(),
        file: None,
        cwd,
    };
    ServiceSpec::resolve(request, context.environment())
}

/// Converts a word of the command to text: records are JSON, which holds only Unicode.
fn utf8(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::NotUtf8 {
        what: "a word of the command".into(),
        lossy: word.to_string_lossy().into_owned(),
    })
}

/// Notes how a service that was left running differs from the request.
pub(super) fn note_differences(ensured: &Ensured, spec: &ServiceSpec) {
    if ensured.previous != Previous::StillRunning {
        return;
    }
    let running = &ensured.reservation;
    let differences = differences(running, spec);
    if !differences.is_empty() {
        let differences = differences.join(" and ");
        note(&format!("{} already runs with {differences}; --replace restarts it", running.name()));
    }
}

/// Lists in what a running service differs from a request.
fn differences(running: &Reservation, spec: &ServiceSpec) -> Vec<String> {
    let mut differences = Vec::new();
    if running.cmd != spec.request.cmd {
        differences.push(format!("the command {}", printable(&running.cmd.join(" "))));
    }
    if running.cwd != spec.request.cwd {
        differences.push(format!("the directory {}", running.cwd.display()));
    }
    if running.policy != spec.request.policy {
        differences.push("other rules for readiness, restarts or stopping".into());
    }
    if running.port_env != spec.request.port_env || running.no_port != (spec.request.port == PortRequest::NoPort) {
        differences.push("other port options".into());
    }
    if matches!(spec.request.port, PortRequest::Exactly(port) if port != running.port) {
        differences.push(format!("port {}", running.port));
    }
    differences
}
