//! `devport start -f devport.yaml`: starts the services of a file one after the other. One that fails does not keep the
//! others from starting.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::cli::args::Start;
use crate::cli::context::Context;
use crate::cli::output::{json_layout, report, write_output};
use crate::cli::{missing_tmux, start, tailnet, wait};
use crate::config::{ConfigFile, FileContext, Request, ServiceSpec, load_config};
use crate::error::{Error, Result};
use crate::identity::Key;
use crate::launch::{Ensured, IfRunning};
use crate::registry::{Reservation, nearest};
use crate::view::{self, ServiceView, TableStyle};

/// A row of the summary: the name of an entry, and its service or the error.
type Row = (String, std::result::Result<ServiceView, String>);

/// Executes `devport start -f FILE`: starts the services with the given keys, or all services of the file.
///
/// # Errors
/// If the file is invalid, a key is not in it, a service does not start, or one is not ready in time.
pub(super) fn execute(context: &Context, file: &Path, arguments: &Start) -> Result<()> {
    let entries = select(load(context, file)?, &arguments.targets, file)?;
    let specs = resolve(context, entries, file)?;
    check_checkouts(context, &specs)?;
    let started = start_all(context, specs, arguments)?;
    let running: Vec<Reservation> = started
        .iter()
        .filter_map(|(_, service)| service.as_ref().ok())
        .map(|ensured| ensured.reservation.clone())
        .collect();
    let mode = start::mode(arguments, IfRunning::ReplaceChanged);
    missing_tmux::note_once(context, mode, started.iter().filter_map(|(_, service)| service.as_ref().ok()));
    let waited = wait::until_ready(context, &running, arguments.wait);
    let rows: Vec<Row> = started
        .into_iter()
        .map(|(name, service)| {
            let view = service.map(|ensured| context.settled_view(&ensured.reservation).with(ensured.previous.into()));
            (name, view.map_err(|error| error.to_string()))
        })
        .collect();
    print(context, &rows)?;
    let failed = rows.iter().filter(|(_, view)| view.is_err()).count();
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: rows.len() });
    }
    waited
}

/// Reads a file in list form.
///
/// # Errors
/// If it is not valid, or is in object form.
fn load(context: &Context, file: &Path) -> Result<Vec<Request>> {
    match load_config(&FileContext { path: file, caller: context.environment(), checkout: None, checks_paths: true })? {
        ConfigFile::List(entries) => Ok(entries),
        ConfigFile::Stack(_) => Err(Error::Usage {
            message: format!("{} is a stack, whose services `start` does not order", file.display()),
            hint: format!("use `devport up -d -f {}`", file.display()),
        }),
    }
}

/// Starts services, then publishes those that request it: the tailnet can be slow, and must not delay a start.
///
/// # Errors
/// [`Error::KeyElsewhere`] if another checkout registered a key since it was checked. That checkout probably starts the
/// same file, so the remaining keys are lost too.
fn start_all(
    context: &Context,
    specs: Vec<(String, Result<ServiceSpec>)>,
    arguments: &Start,
) -> Result<Vec<(String, Result<Ensured>)>> {
    let mut started = Vec::with_capacity(specs.len());
    let mut requests = Vec::new();
    for (name, spec) in specs {
        let service = spec.and_then(|spec| {
            let ensured = start::start(context, &spec, start::mode(arguments, IfRunning::ReplaceChanged))?;
            requests.push((spec, ensured.clone()));
            Ok(ensured)
        });
        match service {
            Err(error @ Error::KeyElsewhere { .. }) => return Err(error),
            service => {
                if let Err(error) = &service {
                    report(&name, error);
                }
                started.push((name, service));
            }
        }
    }
    for (spec, ensured) in &requests {
        tailnet::publish_started(context, spec, ensured);
    }
    Ok(started)
}

/// Resolves entries of a file. Returns a spec or an error for each name.
///
/// # Errors
/// If the directory of the file cannot be read.
fn resolve(context: &Context, entries: Vec<Request>, file: &Path) -> Result<Vec<(String, Result<ServiceSpec>)>> {
    let path = context.cwd()?.join(file);
    let is_regular = path.is_file();
    let failed = || Error::io("check", &path);
    let path = match (path.parent(), path.file_name()) {
        // Resolve the directory only: worktrees may share one file by symbolic links, and each has its own services.
        (Some(parent), Some(name)) if is_regular => parent.canonicalize().map_err(failed())?.join(name),
        // A pipe (`-f /dev/stdin`) has no directory: its services belong to the current one.
        _ => context.cwd()?.join("-"),
    };
    let resolve = |entry: Request| {
        let name = entry.name();
        let mut request = entry.written_in(&path, context.environment().home());
        request.file = request.file.filter(|_| is_regular);
        (name, ServiceSpec::resolve(request, context.environment()))
    };
    Ok(entries.into_iter().map(resolve).collect())
}

/// Refuses keys of other checkouts before any service is started.
///
/// # Errors
/// [`Error::KeyElsewhere`] of the last such key. The others are reported.
fn check_checkouts(context: &Context, specs: &[(String, Result<ServiceSpec>)]) -> Result<()> {
    let check = |(name, spec): &(String, Result<ServiceSpec>)| {
        let checked = context.launcher().check_checkout(spec.as_ref().ok()?);
        checked.err().filter(|error| matches!(error, Error::KeyElsewhere { .. })).map(|error| (name.clone(), error))
    };
    let mut elsewhere: Vec<_> = specs.iter().filter_map(check).collect();
    let Some((_, last)) = elsewhere.pop() else { return Ok(()) };
    for (name, error) in &elsewhere {
        report(name, error);
    }
    Err(last)
}

/// Returns the entries with the given keys, or all entries if there are no keys.
///
/// # Errors
/// [`Error::NoSuchEntry`] if the file lacks a key.
fn select(entries: Vec<Request>, keys: &[String], file: &Path) -> Result<Vec<Request>> {
    if keys.is_empty() {
        return Ok(entries);
    }
    let has = |entry: &Request, key: &String| entry.key.as_ref().is_some_and(|own| own.as_str() == key);
    if let Some(missing) = keys.iter().find(|key| !entries.iter().any(|entry| has(entry, key))) {
        let keys: Vec<String> = entries.iter().filter_map(|entry| entry.key.as_ref().map(Key::to_string)).collect();
        let nearest = nearest(missing, keys.iter().map(String::as_str));
        return Err(Error::NoSuchEntry { key: missing.clone(), path: file.to_owned(), nearest, keys });
    }
    Ok(entries.into_iter().filter(|entry| keys.iter().any(|key| has(entry, key))).collect())
}

/// Prints the summary. For JSON, standard output has the services that run, and standard error the summary.
fn print(context: &Context, rows: &[Row]) -> Result<()> {
    let style = context.output.table_style();
    if context.output.wants_table() {
        return write_output(view::batch(rows, style).as_bytes());
    }
    let style = TableStyle { color: style.color && io::stderr().is_terminal(), width: None, ..style };
    let _ = io::stderr().write_all(view::batch(rows, style).as_bytes());
    let started: Vec<ServiceView> = rows.iter().filter_map(|(_, view)| view.clone().ok()).collect();
    write_output(view::services(&started.iter().collect::<Vec<_>>(), json_layout())?.as_bytes())
}
