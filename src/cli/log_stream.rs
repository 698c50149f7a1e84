//! Prints lines of several logs, merged by time, once or as they are written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::cli::output::{Output, note, write_output};
use crate::error::Result;
use crate::logs::{self, Follower, Line};
use crate::text::printable;
use crate::view::{self, LineStyle};

/// How many bytes to buffer before a write: the capacity of a pipe on Linux.
const BUFFER_SIZE: usize = 64 * 1024;
/// The colours of services' names: cyan, yellow, green, magenta, blue and red (ECMA-48, SGR).
const NAME_COLORS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// A service whose log is printed.
#[derive(Debug)]
pub(super) struct Source {
    /// The name in JSON and notes.
    pub(super) name: String,
    pub(super) log: PathBuf,
    pub(super) style: LineStyle,
    /// The number of the run whose lines are printed; `None`: all runs.
    pub(super) run: Option<u64>,
}

/// Decides whether a line is printed, for a source with this [`Source::run`].
pub(super) type Selects<'a> = &'a dyn Fn(&Line, Option<u64>) -> bool;

/// Returns the text before the lines of each service: its name in a column, in its own colour on a terminal.
pub(super) fn prefixes(names: &[&str], output: Output) -> Vec<String> {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let has_color = output.table_style().color;
    let prefix = |(index, name): (usize, &&str)| {
        let name = format!("{:<width$} | ", printable(name));
        let color = NAME_COLORS[index % NAME_COLORS.len()];
        if has_color { format!("\u{1b}[{color}m{name}\u{1b}[0m") } else { name }
    };
    names.iter().enumerate().map(prefix).collect()
}

/// Prints what is added to logs.
#[derive(Debug)]
pub(super) struct LogStream {
    followed: Vec<(Source, Follower)>,
    printer: Printer,
    /// Whether a log that was deleted is followed once it exists again.
    keeps_deleted: bool,
}

impl LogStream {
    /// Prints the last lines of each log, or all if `limit` is `None`, and follows the logs from there.
    ///
    /// # Errors
    /// If a log cannot be read, or standard output cannot be written to.
    pub(super) fn start(
        sources: Vec<Source>,
        limit: Option<usize>,
        selects: Selects<'_>,
        mut printer: Printer,
    ) -> Result<Self> {
        let mut followed = Vec::with_capacity(sources.len());
        let mut before = Vec::with_capacity(sources.len());
        for source in sources {
            let (lines, rest) = logs::follow(&source.log, limit, &|line| selects(line, source.run))?;
            before.push(lines.into_iter().map(Ok));
            followed.push((source, rest));
        }
        let shown: Vec<&Source> = followed.iter().map(|(source, _)| source).collect();
        printer.merge(before, &shown)?;
        Ok(Self { followed, printer, keeps_deleted: false })
    }

    /// Follows logs that are deleted once they exist again.
    pub(super) fn keep_deleted(self) -> Self {
        Self { keeps_deleted: true, ..self }
    }

    /// Prints the lines that were added since the last call. Unless [`Self::keep_deleted`], logs that were deleted are not
    /// followed any more.
    ///
    /// # Errors
    /// If a log cannot be read, or standard output cannot be written to.
    pub(super) fn print_new(&mut self, selects: Selects<'_>) -> Result<()> {
        let mut added = Vec::with_capacity(self.followed.len());
        let mut deleted = Vec::new();
        for (index, (source, follower)) in self.followed.iter_mut().enumerate() {
            // Check for deletion before reading, so that the last lines are not missed.
            if follower.is_deleted() {
                deleted.push(index);
            }
            let mut lines = follower.next()?;
            lines.retain(|line| selects(line, source.run));
            added.push(lines.into_iter().map(Ok));
        }
        let shown: Vec<&Source> = self.followed.iter().map(|(source, _)| source).collect();
        self.printer.merge(added, &shown)?;
        for index in deleted.into_iter().rev().filter(|_| !self.keeps_deleted) {
            let (source, _) = self.followed.remove(index);
            note(&format!("{} was removed", source.name));
        }
        Ok(())
    }

    /// Returns whether all logs were deleted.
    pub(super) fn is_over(&self) -> bool {
        self.followed.is_empty()
    }
}

/// Buffers and prints lines.
#[derive(Debug)]
pub(super) struct Printer {
    is_json: bool,
    buffer: Vec<u8>,
    has_printed: bool,
}

impl Printer {
    /// Creates a printer of JSON if the user requested that, else of text.
    pub(super) fn new(output: Output) -> Self {
        Self { is_json: output.wants_only_json(), buffer: Vec::new(), has_printed: false }
    }

    /// Returns whether any line was printed.
    pub(super) fn has_printed(&self) -> bool {
        self.has_printed
    }

    /// Prints the lines of several services, merged by time. The lines of one service keep their order.
    ///
    /// # Errors
    /// The first error of an iterator, after the lines before it were printed.
    pub(super) fn merge<I: Iterator<Item = Result<Line>>>(
        &mut self,
        mut lines: Vec<I>,
        sources: &[&Source],
    ) -> Result<()> {
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
        self.has_printed = true;
        if self.is_json {
            view::push_json(&mut self.buffer, line, &source.name);
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
