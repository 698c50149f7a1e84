//! `devport start`: registers a service and starts it in the background.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::args::{NewService, Start};
use crate::cli::context::{Chosen, Context};
use crate::cli::output::{note, report};
use crate::cli::own_stack::{Entry, entry, explain, never_started, up_lines};
use crate::cli::policy::PolicyArguments;
use crate::cli::{edited, missing_tmux, tailnet, wait};
use crate::config::{EnvSource, PortRequest, Request, ServiceSpec, Span, parse_assignment};
use crate::error::{Error, Result};
use crate::identity::{Key, TailnetName};
use crate::launch::{Ensured, IfRunning, LaunchMode, Previous};
use crate::registry::{PortRange, Reservation, State};
use crate::text::shorten;
use crate::view::{Outcome, Status};

/// Executes `devport start` without `-f`.
///
/// # Errors
/// The reason why a service does not run, or is not ready in time.
pub(super) fn execute(context: &Context, arguments: Start) -> Result<()> {
    let mode = mode(&arguments, IfRunning::Replace);
    if !arguments.targets.is_empty() {
        let chosen = resolve_words(context, &arguments.targets)?;
        let several = arguments.targets.len() > 1;
        return start_registered(context, &chosen, several, mode, arguments.wait, Outcome::from);
    }
    if arguments.service == NewService::default()
        && arguments.policy == PolicyArguments::default()
        && !arguments.replace
    {
        return start_registered(context, &all_here(context)?, true, mode, arguments.wait, Outcome::from);
    }
    let spec = spec(context, arguments.service, arguments.policy)?;
    let ensured = start(context, &spec, mode)?;
    note_fixed_port(context, &spec, &ensured);
    tailnet::publish_started(context, &spec, &ensured);
    missing_tmux::note_once(context, mode, [&ensured]);
    let waited = wait::until_ready(context, std::slice::from_ref(&ensured.reservation), arguments.wait);
    let view = context.settled_view(&ensured.reservation).with(ensured.previous.into());
    context.output.print_views(&[view], false)?;
    waited
}

/// Starts registered services, one after the other, and prints them. If there are several, one that fails does not keep
/// the others from starting. `outcome` says what was done to a service that was in this condition.
///
/// # Errors
/// If a service could not be started, or is not ready in time.
pub(super) fn start_registered(
    context: &Context,
    chosen: &Chosen,
    several: bool,
    mode: LaunchMode,
    wait: Option<Span>,
    outcome: fn(Previous) -> Outcome,
) -> Result<()> {
    let (mut started, mut failed) = (Vec::new(), chosen.unusable);
    for reservation in &chosen.services {
        match context.launcher().start_registered(reservation, mode) {
            Ok(ensured) => started.push(ensured),
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed += 1;
                report(reservation.name(), &explain(context, error));
            }
        }
    }
    missing_tmux::note_once(context, mode, &started);
    let running: Vec<Reservation> = started.iter().map(|ensured| ensured.reservation.clone()).collect();
    edited::note_edits(context, &running);
    let waited = wait::until_ready(context, &running, wait);
    let view = |ensured: &Ensured| context.settled_view(&ensured.reservation).with(outcome(ensured.previous));
    context.output.print_views(&started.iter().map(view).collect::<Vec<_>>(), several)?;
    waited?;
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: chosen.services.len() + chosen.unusable });
    }
    Ok(())
}

/// Returns the registered services that words name.
///
/// # Errors
/// As [`Context::resolve_all`]. If several words name no service at all, they are probably a command without `--`.
fn resolve_words(context: &Context, words: &[String]) -> Result<Chosen> {
    let is_unknown = |error: &Error| matches!(error, Error::NoSuchService { .. } | Error::PrefixTooShort { .. });
    context.resolve_all(words).map_err(|error| {
        let is_foreign = |word: &String| {
            context.resolve(word).is_err_and(|error| is_unknown(&error)) && never_started(context, word).is_none()
        };
        let are_misplaced = words.len() > 1 && is_unknown(&error) && words.iter().all(is_foreign);
        if are_misplaced { misplaced_words(words) } else { error }
    })
}

/// Returns the services of this checkout that have a command, have not done their work, and belong to no stack: `up`
/// starts those of a stack in their order.
///
/// # Errors
/// As [`Context::choose`], or if only services of stacks are here.
fn all_here(context: &Context) -> Result<Chosen> {
    let mut chosen = context.choose("start", &[], false)?;
    let (of_stacks, others): (Vec<_>, Vec<_>) =
        chosen.services.into_iter().partition(|service| service.stack.is_some());
    chosen.services = others.into_iter().filter(|service| !service.cmd.is_empty()).collect();
    let have_commands = !chosen.services.is_empty();
    context.overview().retain_unfinished(&mut chosen.services);
    let is_empty = chosen.services.is_empty() && chosen.unusable == 0;
    if is_empty && of_stacks.is_empty() && have_commands {
        note("the commands here have completed; `devport start NAME` runs one again");
        return Ok(chosen);
    }
    if is_empty && of_stacks.is_empty() {
        return Err(context.no_services_here("start")?);
    }
    if is_empty {
        return Err(Error::Usage {
            message: "the services of this checkout are in a stack, and `start` does not order them".into(),
            hint: format!("start them with {}", up_lines(context, &of_stacks).join(" and ")),
        });
    }
    for up in up_lines(context, of_stacks.iter().filter(|service| can_start(context, service))) {
        note(&format!("{up} starts the services of the stack"));
    }
    Ok(chosen)
}

/// Returns whether `up` would start a service of a stack: it does not run, and its file has a command for it.
fn can_start(context: &Context, service: &Reservation) -> bool {
    if !service.cmd.is_empty() {
        let view = context.view(service);
        if view.status == Status::Running || view.state == State::Completed {
            return false;
        }
    }
    matches!(entry(context, service), Some((Entry::Startable, _)))
}

/// Returns how the arguments request services to be started. `replace`: what `--replace` means.
pub(super) fn mode(arguments: &Start, replace: IfRunning) -> LaunchMode {
    let if_running = if arguments.replace { replace } else { IfRunning::Keep };
    LaunchMode { is_detached: arguments.no_tmux, if_running }
}

/// Starts a service unless it runs, and notes how a running service differs from the request.
///
/// # Errors
/// The reason why the service does not run.
pub(super) fn start(context: &Context, spec: &ServiceSpec, mode: LaunchMode) -> Result<Ensured> {
    if spec.request.tailnet {
        // The command gets its host name, which is published later.
        context.registry.prepare()?;
        context.addresses().learn_suffix();
    }
    let ensured = context.launcher().start(spec, mode)?;
    note_differences(spec, &ensured);
    Ok(ensured)
}

/// Returns the error for words that are neither options nor targets: probably a command without `--`.
fn misplaced_words(words: &[String]) -> Error {
    let words = shorten(&words.join(" "));
    Error::Usage {
        message: format!("unexpected {words:?}: no service has such a name"),
        hint: format!("put the command after --, as in `devport start --key api -- {words}`"),
    }
}

/// Resolves the options of a new service, for `start` and `run`.
///
/// # Errors
/// If an option is invalid, or a dotenv file cannot be read.
pub(super) fn spec(context: &Context, service: NewService, policy: PolicyArguments) -> Result<ServiceSpec> {
    let here = context.cwd()?;
    let request = Request {
        // Scripts pass `--key "$NAME"` with an empty variable: that means no key.
        key: service.key.filter(|key| !key.is_empty()).map(Key::new).transpose()?,
        cmd: service.command.into_iter().map(utf8).collect::<Result<_>>()?,
        port: PortRequest::new(service.no_port, service.port),
        port_env: service.port_env,
        tailnet: service.tailnet,
        tailnet_name: service.tailnet_name.map(TailnetName::new).transpose()?,
        policy: policy.into_policy(),
        env: env_sources(service.env_file, &service.env, &here)?,
        scheme: None,
        file: None,
        stack: None,
        one_shot: false,
        shared: false,
        tmux_session: None,
        cwd: service.cwd.map_or_else(|| here.clone(), |directory| here.join(directory)),
    };
    ServiceSpec::resolve(request, context.environment())
}

/// Returns where the variables come from that the options name: dotenv files, and then variables with their values.
fn env_sources(files: Vec<PathBuf>, assignments: &[String], cwd: &Path) -> Result<Vec<EnvSource>> {
    let mut sources: Vec<EnvSource> = files.into_iter().map(|file| EnvSource::File(cwd.join(file))).collect();
    if !assignments.is_empty() {
        // The caller's shell has expanded the values: a `$` in one is a `$`.
        let literal = |text: &String| parse_assignment(text).map(|(name, value)| (name, value.replace('$', "$$")));
        sources.push(EnvSource::Values(assignments.iter().map(literal).collect::<Result<_>>()?));
    }
    Ok(sources)
}

/// Converts a word of the command to text: records are JSON, which holds only Unicode.
fn utf8(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::NotUtf8 {
        what: "a word of the command".into(),
        lossy: word.to_string_lossy().into_owned(),
    })
}

/// Notes that a service that was replaced keeps a port outside of the range, although the request names none: the user may
/// expect another one.
fn note_fixed_port(context: &Context, spec: &ServiceSpec, ensured: &Ensured) {
    let PortRange { first, last } = context.registry.range();
    let fixed = ensured.reservation.service_port().filter(|port| !(first..=last).contains(port));
    if let (PortRequest::Any, Previous::Stopped, Some(port)) = (spec.request.port, ensured.previous, fixed) {
        let name = ensured.reservation.name();
        note(&format!(
            "{name} keeps port {port}; to get a port of {first}-{last}, first remove it and its log with `devport rm {}`",
            shell_words::quote(name)
        ));
    }
}

/// Notes how a service that was left running differs from the request.
pub(super) fn note_differences(spec: &ServiceSpec, ensured: &Ensured) {
    if !ensured.differences.is_empty() {
        let name = ensured.reservation.name();
        let differences: Vec<&str> = ensured.differences.iter().map(|difference| difference.now.as_str()).collect();
        let differences = differences.join(" and ");
        let requests_other_port =
            matches!(spec.request.port, PortRequest::Exactly(port) if port != ensured.reservation.port);
        let remedy = if requests_other_port {
            let name = shell_words::quote(name);
            format!("ports never change: `devport rm {name}` removes it with its log; then start it again")
        } else {
            "add --replace to restart it with the new options".into()
        };
        note(&format!("{name} is already running with {differences}; {remedy}"));
    }
}
