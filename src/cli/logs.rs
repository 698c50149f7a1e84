//! `devport logs`: show what services have written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use jiff::Timestamp;
use regex::bytes::Regex;

use crate::cli::args::Logs;
use crate::cli::context::{Context, note, write_output};
use crate::error::{Error, Result};
use crate::logbook::{self, Content, Follower, Line, Lines};
use crate::os::clock;
use crate::registry::Reservation;
use crate::spec::Check;
use crate::view::{self, LineLook};

/// How many lines stand before what is followed, unless the user says.
const LINES_BEFORE: usize = 10;
/// How often a log is looked at while it is followed.
const INTERVAL: Duration = Duration::from_millis(50);
/// How much is gathered until it is written, in bytes.
const WRITE_AT: usize = 64 * 1024;
/// The colours of names. Source: ECMA-48, 8.3.117.
const NAME_COLORS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// One service whose log is shown.
struct Source {
    /// Its record.
    reservation: Reservation,
    /// How its lines look.
    look: LineLook,
    /// The run that is asked for; `None`: any.
    run: Option<u64>,
}

/// Which lines are asked for.
struct Filter {
    /// Only those since then.
    since: Option<Timestamp>,
    /// Only those that match.
    pattern: Option<Regex>,
}

impl Filter {
    /// Whether a line of a service is asked for.
    fn wants(&self, line: &Line, run: Option<u64>) -> bool {
        let matches = |pattern: &Regex| match &line.content {
            Content::Output(output) => pattern.is_match(&logbook::strip(output)),
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
pub(super) fn execute(context: &mut Context, arguments: &Logs) -> Result<()> {
    let filter = Filter {
        since: arguments.since.map(|since| since_when(since.0)),
        pattern: arguments.grep.as_deref().map(pattern).transpose()?,
    };
    let sources = sources(context, arguments)?;
    let mut printer = Printer { json: context.wants_only_json(), text: Vec::new() };
    let limit = arguments.lines.or(arguments.follow.then_some(LINES_BEFORE));
    let path = |source: &Source| context.registry.paths().log(&source.reservation.hash);
    if arguments.follow {
        let mut followed = Vec::new();
        let mut before = Vec::new();
        for source in sources {
            let wanted = |line: &Line| filter.wants(line, source.run);
            let (lines, rest) = logbook::follow(&path(&source), limit, &wanted)?;
            before.push(lines.into_iter());
            followed.push((source, rest));
        }
        let looks: Vec<&Source> = followed.iter().map(|(source, _)| source).collect();
        printer.merge(before, &looks)?;
        return follow(followed, &filter, &mut printer);
    }
    let looks: Vec<&Source> = sources.iter().collect();
    if let Some(limit) = limit {
        let tails = sources.iter().map(|source| {
            let wanted = |line: &Line| filter.wants(line, source.run);
            Ok(logbook::tail(&path(source), Some(limit), &wanted)?.into_iter())
        });
        return printer.merge(tails.collect::<Result<Vec<_>>>()?, &looks);
    }
    let whole = sources.iter().map(|source| {
        let filter = &filter;
        Ok(Lines::open(&path(source))?.filter(move |line| filter.wants(line, source.run)))
    });
    printer.merge(whole.collect::<Result<Vec<_>>>()?, &looks)
}

/// The moment that is so long ago.
fn since_when(ago: Duration) -> Timestamp {
    clock::wall().checked_sub(ago).unwrap_or(Timestamp::MIN)
}

/// The regular expression of `--grep`.
fn pattern(text: &str) -> Result<Regex> {
    Check::pattern(text)
        .map_err(|message| Error::Usage { message, hint: "quote it for your shell, and write \\. for a dot".into() })
}

/// The services that are asked for, with how their lines look.
fn sources(context: &Context, arguments: &Logs) -> Result<Vec<Source>> {
    let reservations = if arguments.targets.is_empty() {
        context.all()?.services
    } else {
        context.resolve_all(&arguments.targets)?.services
    };
    let width = reservations.iter().map(|reservation| reservation.name().chars().count()).max().unwrap_or(0);
    let (several, terminal) = (reservations.len() != 1, io::stdout().is_terminal());
    let color = context.look().color;
    let source = |(index, reservation): (usize, Reservation)| {
        let name = format!("{:<width$} | ", view::escape(reservation.name()));
        let prefix = match (several, color) {
            (false, _) => String::new(),
            (true, false) => name,
            (true, true) => format!("\u{1b}[{}m{name}\u{1b}[0m", NAME_COLORS[index % NAME_COLORS.len()]),
        };
        let newest = || context.registry.run_state(&reservation.hash).ok().flatten().map_or(0, |run| run.runs);
        let run = arguments.run.or_else(|| arguments.previous.then(|| newest().saturating_sub(1)));
        Source { look: LineLook { prefix, terminal, timestamps: arguments.timestamps }, run, reservation }
    };
    Ok(reservations.into_iter().enumerate().map(source).collect())
}

/// Prints what is added to the logs, until all of them are deleted.
fn follow(mut followed: Vec<(Source, Follower)>, filter: &Filter, printer: &mut Printer) -> Result<()> {
    while !followed.is_empty() {
        let mut added = Vec::with_capacity(followed.len());
        let mut deleted = Vec::new();
        for (index, (source, follower)) in followed.iter_mut().enumerate() {
            // Asked before the reading: what was written before it was deleted is still read.
            if follower.is_deleted() {
                deleted.push(index);
            }
            let mut lines = follower.next()?;
            lines.retain(|line| filter.wants(line, source.run));
            added.push(lines.into_iter());
        }
        let looks: Vec<&Source> = followed.iter().map(|(source, _)| source).collect();
        printer.merge(added, &looks)?;
        for index in deleted.into_iter().rev() {
            let (source, _) = followed.remove(index);
            note(format!("{} was removed", source.reservation.name()));
        }
        clock::pause(INTERVAL);
    }
    Ok(())
}

/// Writes lines.
struct Printer {
    /// As JSON.
    json: bool,
    /// What is gathered.
    text: Vec<u8>,
}

impl Printer {
    /// Writes the lines of several services in the order of their times; those of one stay in their own order.
    fn merge<I: Iterator<Item = Line>>(&mut self, mut lines: Vec<I>, sources: &[&Source]) -> Result<()> {
        let mut heads: Vec<Option<Line>> = lines.iter_mut().map(Iterator::next).collect();
        let time = |line: &Line| line.at.unwrap_or(Timestamp::MIN);
        let mut order: BinaryHeap<Reverse<(Timestamp, usize)>> = BinaryHeap::new();
        order.extend(heads.iter().enumerate().filter_map(|(index, line)| Some(Reverse((time(line.as_ref()?), index)))));
        while let Some(Reverse((_, index))) = order.pop() {
            let Some(line) = heads[index].take() else { continue };
            self.push(&line, sources[index]);
            if self.text.len() >= WRITE_AT {
                self.flush()?;
            }
            heads[index] = lines[index].next();
            order.extend(heads[index].as_ref().map(|line| Reverse((time(line), index))));
        }
        self.flush()
    }

    /// Adds a line.
    fn push(&mut self, line: &Line, source: &Source) {
        if self.json {
            view::push_json(&mut self.text, line, source.reservation.name());
        } else {
            view::push_line(&mut self.text, line, &source.look);
        }
    }

    /// Writes what is gathered.
    fn flush(&mut self) -> Result<()> {
        if !self.text.is_empty() {
            write_output(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }
}
