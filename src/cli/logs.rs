//! `devport logs`: prints the logs of services.

use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use regex::bytes::Regex;

use crate::cli::args::Logs;
use crate::cli::context::Context;
use crate::cli::log_stream::{LogStream, Printer, Selects, Source, prefixes};
use crate::cli::output::note;
use crate::config::Check;
use crate::error::{Error, Result};
use crate::identity::Key;
use crate::logs::{self, Content, Line, Lines};
use crate::os::clock;
use crate::registry::Reservation;
use crate::text::shorten;
use crate::view::LineStyle;

/// How many existing lines `-f` prints first, unless `-n` is given. tail(1) has the same default.
const LINES_BEFORE: usize = 10;
/// The time between reads of new lines by `-f`: a person does not notice a delay of 50 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Selects the lines that are printed.
struct Filter {
    since: Option<Timestamp>,
    pattern: Option<Regex>,
}

impl Filter {
    /// Returns whether a line is printed. `run` is the number of the run whose lines are; `None`: all runs.
    fn selects(&self, line: &Line, run: Option<u64>) -> bool {
        let matches = |pattern: &Regex| match &line.content {
            Content::Output(output) => pattern.is_match(&logs::strip(output)),
            Content::Mark(mark) => {
                let text = mark.to_string();
                // A mark that has no text is not shown.
                !text.is_empty() && pattern.is_match(text.as_bytes())
            }
        };
        self.since.is_none_or(|since| line.at.is_some_and(|at| at >= since))
            && run.is_none_or(|run| line.run == run)
            && self.pattern.as_ref().is_none_or(matches)
    }
}

/// Executes `devport logs`.
///
/// # Errors
/// If a target names no service, this checkout has none, or a log cannot be read.
pub(super) fn execute(context: &Context, arguments: &Logs) -> Result<()> {
    let filter = Filter {
        since: arguments.since.map(|since| since_when(since.0)),
        pattern: arguments.grep.as_deref().map(|text| pattern(text, arguments.ignore_case)).transpose()?,
    };
    let sources = sources(context, arguments)?;
    let mut printer = Printer::new(context.output);
    let limit = arguments.lines.or(arguments.follow.then_some(LINES_BEFORE));
    if arguments.follow {
        let selects: Selects<'_> = &|line, run| filter.selects(line, run);
        let mut stream = LogStream::start(sources, limit, selects, printer)?;
        while !stream.is_over() {
            stream.print_new(selects)?;
            clock::pause(POLL_INTERVAL);
        }
        return Ok(());
    }
    let shown: Vec<&Source> = sources.iter().collect();
    if let Some(limit) = limit {
        let tails = sources.iter().map(|source| {
            let selects = |line: &Line| filter.selects(line, source.run);
            Ok(logs::tail(&source.log, Some(limit), &selects)?.into_iter().map(Ok))
        });
        printer.merge(tails.collect::<Result<Vec<_>>>()?, &shown)?;
    } else {
        let whole = sources.iter().map(|source| {
            let filter = &filter;
            let selects = |line: &Result<Line>| line.as_ref().map_or(true, |line| filter.selects(line, source.run));
            Ok(Lines::open(&source.log)?.filter(selects))
        });
        printer.merge(whole.collect::<Result<Vec<_>>>()?, &shown)?;
    }
    if let Some(text) = arguments.grep.as_deref().filter(|_| !printer.has_printed()) {
        let remedy = if arguments.ignore_case { "" } else { "; -i ignores case" };
        note(&format!("no line matches {:?}{remedy}", shorten(text)));
    }
    Ok(())
}

/// Returns the time that lies `ago` in the past.
fn since_when(ago: Duration) -> Timestamp {
    clock::wall().checked_sub(ago).unwrap_or(Timestamp::MIN)
}

/// Compiles the regular expression of `--grep`.
fn pattern(text: &str, ignores_case: bool) -> Result<Regex> {
    let compiled = Check::pattern(text);
    // The flag is added to a valid pattern only, so that an error quotes what was typed.
    let compiled = if ignores_case { compiled.and_then(|_| Check::pattern(&format!("(?i){text}"))) } else { compiled };
    compiled
        .map_err(|message| Error::Usage { message, hint: "quote it for your shell, and write \\. for a dot".into() })
}

/// Returns the services whose logs are printed, each with a prefix if there are several.
fn sources(context: &Context, arguments: &Logs) -> Result<Vec<Source>> {
    let mut reservations = context.choose("logs", &arguments.targets, arguments.all)?.services;
    if arguments.targets.is_empty() {
        // A port without a command has no log.
        reservations.retain(|reservation| !reservation.cmd.is_empty());
    }
    let several = reservations.len() != 1;
    let prefixes = if several { prefixes(&labels(&reservations), context.output) } else { vec![String::new()] };
    let mut sources = Vec::with_capacity(reservations.len());
    let (mut failed, total) = (0, reservations.len());
    for (reservation, prefix) in reservations.iter().zip(prefixes) {
        match run(context, arguments, reservation) {
            Ok(run) => {
                let style =
                    LineStyle { prefix, is_terminal: io::stdout().is_terminal(), has_timestamps: arguments.timestamps };
                let log = context.registry.paths().log(&reservation.hash);
                sources.push(Source { name: reservation.name().to_owned(), log, style, run });
            }
            // Another service may have that run.
            Err(error @ Error::NoSuchRun { .. }) if several => {
                note(&error.to_string());
                failed += 1;
            }
            Err(error) => return Err(error),
        }
    }
    if sources.is_empty() && failed > 0 { Err(Error::SomeFailed { failed, total }) } else { Ok(sources) }
}

/// Returns the names before the lines: those of the file if all services are of one stack, as `up` prints them, else the
/// keys.
fn labels(reservations: &[Reservation]) -> Vec<&str> {
    let stack = |reservation: &Reservation| Some((reservation.stack.clone()?, reservation.root.clone()));
    let first = reservations.first().and_then(stack);
    let are_of_one = first.is_some() && reservations.iter().all(|reservation| stack(reservation) == first);
    reservations
        .iter()
        .map(|reservation| {
            let key = reservation.key.as_ref().filter(|_| are_of_one);
            key.map_or(reservation.name(), Key::name_in_stack)
        })
        .collect()
}

/// Returns the number of the run whose lines are printed; `None`: all runs.
///
/// # Errors
/// [`Error::NoSuchRun`] if the log has no lines of that run.
fn run(context: &Context, arguments: &Logs, reservation: &Reservation) -> Result<Option<u64>> {
    if arguments.run.is_none() && !arguments.previous {
        return Ok(None);
    }
    let kept = logs::runs(&context.registry.paths().log(&reservation.hash))?;
    let run = match arguments.run {
        Some(run) => run,
        None => last_ended_run(context, reservation)?,
    };
    if kept.as_ref().is_some_and(|kept| kept.contains(&run)) {
        return Ok(Some(run));
    }
    Err(Error::NoSuchRun {
        service: reservation.name().to_owned(),
        run: arguments.run.map_or("run that has ended".into(), |run| format!("run {run}")),
        kept: match kept.map(RangeInclusive::into_inner) {
            None => "it is empty".into(),
            Some((first, last)) if first == last => format!("it has only run {first}"),
            Some((first, last)) => format!("it has runs {first} to {last}"),
        },
    })
}

/// Returns the number of the last run that has ended; 0 if none has.
fn last_ended_run(context: &Context, reservation: &Reservation) -> Result<u64> {
    let runs = context.registry.run_state(&reservation.hash)?.map_or(0, |run| run.runs);
    let is_running = context.view(reservation).pid.is_some();
    Ok(if is_running { runs.saturating_sub(1) } else { runs })
}
