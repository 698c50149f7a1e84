//! `devport start -f devport.yaml`: one service after the other; one that fails does not stop the rest.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::cli::context::{Context, report, write_output};
use crate::cli::start::{LaunchMode, check_place, start_spec, wait_if_asked};
use crate::config::{ConfigEntry, ServiceSpec, Span, load_config};
use crate::error::{Error, Result};
use crate::identity::Key;
use crate::registry::Reservation;
use crate::view::{self, Outcome, ServiceView, TableStyle};

/// Starts the services of a file, or those with the given keys.
///
/// # Errors
/// If the file cannot be used, a key is not in it, or any service failed.
pub(super) fn execute(
    context: &mut Context,
    file: &Path,
    keys: &[String],
    manner: LaunchMode,
    wait: Option<Span>,
) -> Result<()> {
    let entries = chosen(load_config(file)?, keys, file)?;
    let specs = resolve(context, entries, file)?;
    check_places(context, &specs)?;
    let mut started = Vec::new();
    for (name, spec) in specs {
        let service = spec.and_then(|spec| start_spec(context, &spec, manner));
        match &service {
            // Another checkout was faster: it has the whole file, most likely.
            Err(Error::KeyElsewhere { .. }) => return service.map(drop),
            Err(error) => report(&name, error),
            Ok(_) => {}
        }
        started.push((name, service));
    }
    // All of them run before one is published: the tailnet may be slow.
    let started: Vec<(String, Result<(Reservation, Outcome)>)> = started
        .into_iter()
        .map(|(name, service)| {
            let published = service.map(|started| {
                let outcome = started.outcome;
                (started.publish(context), outcome)
            });
            (name, published)
        })
        .collect();
    let running: Vec<Reservation> =
        started.iter().filter_map(|(_, service)| service.as_ref().ok()).map(|(service, _)| service.clone()).collect();
    let waited = wait_if_asked(context, &running, wait);
    let rows: Vec<(String, std::result::Result<ServiceView, String>)> = started
        .into_iter()
        .map(|(name, service)| {
            let view = service.map(|(reservation, outcome)| context.view(&reservation).with(outcome));
            (name, view.map_err(|error| error.to_string()))
        })
        .collect();
    print(context, &rows)?;
    let failed = rows.iter().filter(|(_, outcome)| outcome.is_err()).count();
    if failed > 0 {
        return Err(Error::SomeFailed { failed, total: rows.len() });
    }
    waited
}

/// What entries ask for, with their names.
///
/// # Errors
/// If the directory of the file cannot be looked at.
fn resolve(context: &Context, entries: Vec<ConfigEntry>, file: &Path) -> Result<Vec<(String, Result<ServiceSpec>)>> {
    let path = context.cwd()?.join(file);
    let is_regular = path.is_file();
    let failed = || Error::io("look at", &path);
    let path = match (path.parent(), path.file_name()) {
        // Of a symbolic link the place counts, not the target: worktrees share a file by links.
        (Some(parent), Some(name)) if is_regular => parent.canonicalize().map_err(failed())?.join(name),
        // What a pipe brings belongs to the directory that it is read in.
        _ => context.cwd()?.join("-"),
    };
    let resolve = |entry: ConfigEntry| {
        let name = entry.name().to_owned();
        let mut request = entry.into_request(&path, context.environment().home());
        request.file = request.file.filter(|_| is_regular);
        (name, ServiceSpec::resolve(request, context.environment()))
    };
    Ok(entries.into_iter().map(resolve).collect())
}

/// Refuses keys of other checkouts, before anything is started.
///
/// # Errors
/// [`Error::KeyElsewhere`] of the last of them; those before it are reported.
fn check_places(context: &Context, specs: &[(String, Result<ServiceSpec>)]) -> Result<()> {
    let check = |(name, spec): &(String, Result<ServiceSpec>)| {
        let checked = check_place(context, spec.as_ref().ok()?);
        checked.err().filter(|error| matches!(error, Error::KeyElsewhere { .. })).map(|error| (name.clone(), error))
    };
    let mut elsewhere: Vec<_> = specs.iter().filter_map(check).collect();
    let Some((_, last)) = elsewhere.pop() else { return Ok(()) };
    for (name, error) in &elsewhere {
        report(name, error);
    }
    Err(last)
}

/// The entries with the given keys; all of them if no key is given.
fn chosen(entries: Vec<ConfigEntry>, keys: &[String], file: &Path) -> Result<Vec<ConfigEntry>> {
    if keys.is_empty() {
        return Ok(entries);
    }
    let has = |entry: &ConfigEntry, key: &String| entry.key().is_some_and(|own| own.as_str() == key);
    if let Some(missing) = keys.iter().find(|key| !entries.iter().any(|entry| has(entry, key))) {
        let there: Vec<String> = entries.iter().filter_map(|entry| entry.key().map(Key::to_string)).collect();
        return Err(Error::NoSuchService { target: format!("{missing} in {}", file.display()), nearest: there });
    }
    Ok(entries.into_iter().filter(|entry| keys.iter().any(|key| has(entry, key))).collect())
}

/// Prints the summary; for a program the services as JSON, and the summary beside it.
fn print(context: &Context, rows: &[(String, std::result::Result<ServiceView, String>)]) -> Result<()> {
    if context.wants_table() {
        return write_output(view::batch(rows, context.table_style()).as_bytes());
    }
    let terminal = io::stderr().is_terminal();
    let look = TableStyle { color: terminal && context.table_style().color, width: None, ..context.table_style() };
    let _ = io::stderr().write_all(view::batch(rows, look).as_bytes());
    let started: Vec<ServiceView> = rows.iter().filter_map(|(_, outcome)| outcome.clone().ok()).collect();
    write_output(view::array(&started).as_bytes())
}
