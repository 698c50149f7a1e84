//! `devport logs`: prints the logs of services.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use regex::bytes::Regex;

use crate::cli::args::Logs;
use crate::cli::context::Context;
use crate::cli::output::{note, write_output};
use crate::config::Check;
use crate::error::{Error, Result};
use crate::logs::{self, Content, Follower, Line, Lines};
use crate::os::clock;
use crate::registry::Reservation;
use crate::view::{self, LineStyle};

/// How many existing lines `-f` prints first, unless `-n` is given. tail(1) has the same default.
const LINES_BEFORE: usize = 10;
/// The time between reads of new lines by `-f`: a person does not notice a delay of 50 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How many bytes to buffer before a write: the capacity of a pipe on Linux.
const BUFFER_SIZE: usize = 64 * 1024;
/// The colours of services' names: cyan, yellow, green, magenta, blue and red (ECMA-48, SGR).
const NAME_COLORS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// A service whose log is printed.
struct Source {
    reservation: Reservation,
    style: LineStyle,
    /// The number of the run whose lines are printed; `None`: all runs.
    run: Option<u64>,
}

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
            Content::Mark(_) => false,
        };
        self.since.is_none_or(|since| line.at.is_some_and(|at| at >= since))
            && run.is_none_or(|run| line.run == run)
            && self.pattern.as_ref().is_none_or(matches)
    }
}

/// Executes `devport logs`.
///
/// # Errors
/// If a target names no service, or a log cannot be read.
pub(super) fn execute(context: &Context, arguments: &Logs) -> Result<()> {
    let filter = Filter {
        since: arguments.since.map(|since| since_when(since.0)),
        pattern: arguments.grep.as_deref().map(pattern).transpose()?,
    };
    let sources = sources(context, arguments)?;
    let mut printer = Printer { is_json: context.output.wants_only_json(), buffer: Vec::new() };
    let limit = arguments.lines.or(arguments.follow.then_some(LINES_BEFORE));
    let path = |source: &Source| context.registry.paths().log(&source.reservation.hash);
    if arguments.follow {
        let mut followed = Vec::new();
        let mut before = Vec::new();
        for source in sources {
            let selects = |line: &Line| filter.selects(line, source.run);
            let (lines, rest) = logs::follow(&path(&source), limit, &selects)?;
            before.push(lines.into_iter().map(Ok));
            followed.push((source, rest));
        }
        let shown: Vec<&Source> = followed.iter().map(|(source, _)| source).collect();
        printer.merge(before, &shown)?;
        return follow(followed, &filter, &mut printer);
    }
    let shown: Vec<&Source> = sources.iter().collect();
    if let Some(limit) = limit {
        let tails = sources.iter().map(|source| {
            let selects = |line: &Line| filter.selects(line, source.run);
            Ok(logs::tail(&path(source), Some(limit), &selects)?.into_iter().map(Ok))
        });
        return printer.merge(tails.collect::<Result<Vec<_>>>()?, &shown);
    }
    let whole = sources.iter().map(|source| {
        let filter = &filter;
        let selects = |line: &Result<Line>| line.as_ref().map_or(true, |line| filter.selects(line, source.run));
        Ok(Lines::open(&path(source))?.filter(selects))
    });
    printer.merge(whole.collect::<Result<Vec<_>>>()?, &shown)
}

/// Returns the time that lies `ago` in the past.
fn since_when(ago: Duration) -> Timestamp {
    clock::wall().checked_sub(ago).unwrap_or(Timestamp::MIN)
}

/// Compiles the regular expression of `--grep`.
fn pattern(text: &str) -> Result<Regex> {
    Check::pattern(text)
        .map_err(|message| Error::Usage { message, hint: "quote it for your shell, and write \\. for a dot".into() })
}

/// Returns the services whose logs are printed, each with a prefix if there are several.
fn sources(context: &Context, arguments: &Logs) -> Result<Vec<Source>> {
    let reservations = if arguments.targets.is_empty() {
        context.all()?.services
    } else {
        context.resolve_all(&arguments.targets)?.services
    };
    let width = reservations.iter().map(|reservation| reservation.name().chars().count()).max().unwrap_or(0);
    let (several, is_terminal) = (reservations.len() != 1, io::stdout().is_terminal());
    let color = context.output.table_style().color;
    let mut sources = Vec::with_capacity(reservations.len());
    let (mut failed, total) = (0, reservations.len());
    for (index, reservation) in reservations.into_iter().enumerate() {
        let name = format!("{:<width$} | ", crate::text::printable(reservation.name()));
        let prefix = match (several, color) {
            (false, _) => String::new(),
            (true, false) => name,
            (true, true) => format!("\u{1b}[{}m{name}\u{1b}[0m", NAME_COLORS[index % NAME_COLORS.len()]),
        };
        match run(context, arguments, &reservation) {
            Ok(run) => {
                let style = LineStyle { prefix, is_terminal, has_timestamps: arguments.timestamps };
                sources.push(Source { reservation, style, run });
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
        None => context.registry.run_state(&reservation.hash)?.map_or(0, |run| run.runs).saturating_sub(1),
    };
    if kept.as_ref().is_some_and(|kept| kept.contains(&run)) {
        return Ok(Some(run));
    }
    Err(Error::NoSuchRun {
        service: reservation.name().to_owned(),
        run: arguments.run.map_or("previous run".into(), |run| format!("run {run}")),
        kept: match kept.map(RangeInclusive::into_inner) {
            None => "it is empty".into(),
            Some((first, last)) if first == last => format!("it has only run {first}"),
            Some((first, last)) => format!("it has runs {first} to {last}"),
        },
    })
}

/// Prints new lines of the logs, until all logs are deleted.
fn follow(mut followed: Vec<(Source, Follower)>, filter: &Filter, printer: &mut Printer) -> Result<()> {
    while !followed.is_empty() {
        let mut added = Vec::with_capacity(followed.len());
        let mut deleted = Vec::new();
        for (index, (source, follower)) in followed.iter_mut().enumerate() {
            // Check for deletion before reading, so that the last lines are not missed.
            if follower.is_deleted() {
                deleted.push(index);
            }
            let mut lines = follower.next()?;
            lines.retain(|line| filter.selects(line, source.run));
            added.push(lines.into_iter().map(Ok));
        }
        let shown: Vec<&Source> = followed.iter().map(|(source, _)| source).collect();
        printer.merge(added, &shown)?;
        for index in deleted.into_iter().rev() {
            let (source, _) = followed.remove(index);
            note(&format!("{} was removed", source.reservation.name()));
        }
        clock::pause(POLL_INTERVAL);
    }
    Ok(())
}

/// Buffers and prints lines.
struct Printer {
    is_json: bool,
    buffer: Vec<u8>,
}

impl Printer {
    /// Prints the lines of several services, merged by time. The lines of one service keep their order.
    ///
    /// # Errors
    /// The first error of an iterator, after the lines before it were printed.
    fn merge<I: Iterator<Item = Result<Line>>>(&mut self, mut lines: Vec<I>, sources: &[&Source]) -> Result<()> {
        let mut heads: Vec<Option<Line>> = Vec::with_capacity(lines.len());
        let mut order: BinaryHeap<Reverse<(Timestamp, usize)>> = BinaryHeap::new();
        let entry = |line: &Line, index| Reverse((line.at.unwrap_or(Timestamp::MIN), index));
        for (index, lines) in lines.iter_mut().enumerate() {
            let head = lines.next().transpose()?;
            order.extend(head.as_ref().map(|line| entry(line, index)));
            heads.push(head);
        }
        while let Some(Reverse((_, index))) = order.pop() {
            let Some(line) = heads[index].take() else { continue };
            self.push(&line, sources[index]);
            if self.buffer.len() >= BUFFER_SIZE {
                self.flush()?;
            }
            heads[index] = match lines[index].next().transpose() {
                Ok(line) => line,
                Err(error) => return self.flush().and(Err(error)),
            };
            order.extend(heads[index].as_ref().map(|line| entry(line, index)));
        }
        self.flush()
    }

    /// Appends a line to the buffer.
    fn push(&mut self, line: &Line, source: &Source) {
        if self.is_json {
            view::push_json(&mut self.buffer, line, source.reservation.name());
        } else {
            view::push_line(&mut self.buffer, line, &source.style);
        }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            write_output(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}
