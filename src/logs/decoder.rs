//! `Decoder`: assembles the lines of a log from its parts.

use std::io::{self, BufRead, Read};

use jiff::Timestamp;

use crate::logs::fold::fold;
use crate::logs::mark::{MARK_BYTE, Mark};

/// A longer line is returned in pieces of this many bytes: a log may be a single line that is larger than the memory.
const LONGEST_LINE: usize = 16 << 20;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was written, according to the marks before it; `None` if there are none.
    pub(crate) at: Option<Timestamp>,
    /// The run that wrote it; 0 if unknown.
    pub(crate) run: u64,
    pub(crate) content: Content,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Output of the service as a screen shows it, without the line's end.
    Output(Vec<u8>),
    /// A mark of devport.
    Mark(Mark),
}

/// Reads the parts of a log in order, and keeps its state between two lines.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The time of the last mark.
    at: Option<Timestamp>,
    run: u64,
    /// Whether `at` and `run` are known. Lines before that are skipped.
    is_dated: bool,
    /// The current line, as far as it was read from the current part.
    begun: Vec<u8>,
    /// The unfinished line of the previous part, which the current part may continue.
    head: Vec<u8>,
    /// Whether the start of the current line is missing: it was returned already, or was not read.
    in_line: bool,
    /// Whether the current line is the first of its part.
    at_part_start: bool,
}

impl Decoder {
    /// Starts at the first byte of a log.
    pub(super) fn at_log_start() -> Self {
        Self { is_dated: true, ..Self::at(0) }
    }

    /// Starts at an offset of a part. Skips lines until a mark gives their time and run.
    pub(super) fn at(offset: u64) -> Self {
        Self {
            at: None,
            run: 0,
            is_dated: false,
            begun: Vec::new(),
            head: Vec::new(),
            in_line: offset > 0,
            at_part_start: offset == 0,
        }
    }

    /// Returns whether the time and the run of the next line are known.
    pub(super) fn is_dated(&self) -> bool {
        self.is_dated
    }

    /// Reads the next line of the current part; `None` if the part has no further line end yet.
    pub(super) fn next(&mut self, part: &mut impl BufRead) -> io::Result<Option<Line>> {
        loop {
            if !self.is_complete() {
                let room = LONGEST_LINE - self.begun.len();
                Read::by_ref(part).take(room as u64).read_until(b'\n', &mut self.begun)?;
                if !self.is_complete() {
                    return Ok(None);
                }
            }
            if std::mem::take(&mut self.at_part_start) {
                if let Some((at, Mark::Continued { run })) = Mark::parse(without_end(&self.begun)) {
                    (self.at, self.run) = (Some(at), run);
                    self.in_line |= self.head.is_empty();
                    self.begun = std::mem::take(&mut self.head);
                    continue;
                }
                if let Some(line) = self.end_head() {
                    return Ok(Some(line));
                }
            }
            let in_line = std::mem::replace(&mut self.in_line, !self.begun.ends_with(b"\n"));
            let mut begun = std::mem::take(&mut self.begun);
            let line = self.line(&begun, in_line);
            begun.clear();
            self.begun = begun;
            if line.is_some() {
                return Ok(line);
            }
        }
    }

    /// Ends the current part. Returns its unfinished line if the next part cannot continue it.
    pub(super) fn end_part(&mut self) -> Option<Line> {
        if self.begun.is_empty() {
            self.at_part_start = true;
            return None;
        }
        // The line of a part without a line end is not continued.
        let line = if self.at_part_start { self.end_head() } else { None };
        self.head = std::mem::take(&mut self.begun);
        self.at_part_start = true;
        line
    }

    /// Returns the unfinished line of the previous part, if no part continues it.
    pub(super) fn end_head(&mut self) -> Option<Line> {
        let head = std::mem::take(&mut self.head);
        let in_line = std::mem::take(&mut self.in_line);
        // A mark without a line end is still being written.
        let is_mark = !in_line && head.starts_with(&[MARK_BYTE]) && !head.starts_with(&[MARK_BYTE; 2]);
        if head.is_empty() || is_mark { None } else { self.line(&head, in_line) }
    }

    /// Returns whether the current line is complete or has the maximum length of a piece.
    fn is_complete(&self) -> bool {
        self.begun.ends_with(b"\n") || self.begun.len() >= LONGEST_LINE
    }

    /// Decodes a line, with or without its end; `None` for marks that only date the lines after them.
    fn line(&mut self, bytes: &[u8], in_line: bool) -> Option<Line> {
        let line = without_end(bytes);
        // A mark starts a line. The same bytes elsewhere are output.
        let mark = if in_line { None } else { Mark::parse(line) };
        let content = match mark {
            Some((at, mark)) => {
                self.at = Some(at);
                match mark {
                    Mark::Time { run: None } | Mark::Continued { .. } => return None,
                    Mark::Time { run: Some(run) } => {
                        (self.run, self.is_dated) = (run, true);
                        return None;
                    }
                    Mark::Started { run, .. } => (self.run, self.is_dated) = (run, true),
                    Mark::Ended(_) | Mark::Note(_) => {}
                }
                Content::Mark(mark)
            }
            None if !self.is_dated => return None,
            // The end of a line that was returned in pieces.
            None if in_line && line.is_empty() => return None,
            None => {
                let is_doubled = !in_line && line.starts_with(&[MARK_BYTE; 2]);
                Content::Output(fold(&line[usize::from(is_doubled)..]).into_owned())
            }
        };
        self.is_dated.then_some(Line { at: self.at, run: self.run, content })
    }
}

/// Returns a line without its end.
fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}
