//! `devport logs`: show what services have written.

use std::time::Duration;

use crate::cli::args::Logs;
use crate::cli::context::{Context, write_output};
use crate::error::Result;
use crate::logbook::{self, Entry, Follower, tail};
use crate::os::clock;
use crate::registry::Reservation;

/// How many lines stand before what is followed, unless the user says.
const LINES_BEFORE: usize = 10;
/// How often a log is looked at while it is followed.
const INTERVAL: Duration = Duration::from_millis(50);

/// Executes `devport logs`.
///
/// # Errors
/// If a target names no service, or a log cannot be read.
pub(super) fn execute(context: &mut Context, arguments: &Logs) -> Result<()> {
    let reservations = context.resolve_all(&arguments.targets)?;
    let limit = arguments.lines.or(arguments.follow.then_some(LINES_BEFORE));
    let width = reservations.iter().map(|reservation| reservation.name().len()).max().unwrap_or(0);
    let prefix_of = |reservation: &Reservation| match reservations.len() {
        1 => String::new(),
        _ => format!("{:<width$} | ", crate::view::escape(reservation.name())),
    };
    let mut followed = Vec::new();
    for reservation in &reservations {
        let path = context.registry.paths().log(&reservation.hash);
        if arguments.follow {
            let (entries, reader) = logbook::follow(&path, limit)?;
            write_entries(&entries, &prefix_of(reservation))?;
            followed.push((prefix_of(reservation), reader));
        } else {
            write_entries(&tail(&path, limit)?, &prefix_of(reservation))?;
        }
    }
    follow(followed)
}

/// Prints what is added to the logs, until all of them are deleted.
fn follow(mut followed: Vec<(String, Follower)>) -> Result<()> {
    while !followed.is_empty() {
        let mut failure = None;
        followed.retain_mut(|(prefix, follower)| {
            let deleted = follower.is_deleted();
            let written = follower.next().and_then(|entries| write_entries(&entries, prefix));
            if let Err(error) = written {
                failure.get_or_insert(error);
            }
            !deleted
        });
        if let Some(error) = failure {
            return Err(error);
        }
        clock::poll(INTERVAL, INTERVAL, || None::<()>);
    }
    Ok(())
}

/// Prints entries, each behind the prefix.
fn write_entries(entries: &[Entry], prefix: &str) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for entry in entries {
        text.extend_from_slice(prefix.as_bytes());
        match entry {
            Entry::Output(line) => text.extend_from_slice(line),
            Entry::Mark(at, mark) => text.extend_from_slice(format!("--- {at:.3} {mark}").as_bytes()),
        }
        text.push(b'\n');
    }
    write_output(&text)
}
