//! Reading a log: its last lines, and what is added to it, across rotation.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::logbook::mark::{MARK_BYTE, Mark};
use crate::logbook::writer::parts;

/// A line longer than this is shown in pieces, in bytes.
const LONGEST_LINE: u64 = 1024 * 1024;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was written, as far as the marks before it tell; `None` if none did.
    pub(crate) at: Option<Timestamp>,
    /// Which run wrote it; 0 if nobody counted.
    pub(crate) run: u64,
    /// What it says.
    pub(crate) content: Content,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// What the service wrote, without the line's end.
    Output(Vec<u8>),
    /// A word of devport's own.
    Mark(Mark),
}

/// What the marks before a line told.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// What time it is.
    at: Option<Timestamp>,
    /// Which run it is.
    run: u64,
}

impl Told {
    /// Reads a line, with or without its end; `None` for marks that only tell the time.
    fn read(&mut self, line: &[u8]) -> Option<Line> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let content = match Mark::parse(line) {
            Some((at, mark)) => {
                self.at = Some(at);
                match mark {
                    Mark::Time => return None,
                    Mark::Started { run, .. } => self.run = run,
                    Mark::Ended(_) | Mark::Note(_) => {}
                }
                Content::Mark(mark)
            }
            None => {
                // The pseudo-terminal ends lines with CR LF.
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let doubled = line.starts_with(&[MARK_BYTE, MARK_BYTE]);
                Content::Output(line[usize::from(doubled)..].to_vec())
            }
        };
        Some(Line { at: self.at, run: self.run, content })
    }
}

/// Which lines are wanted.
pub(crate) type Wanted<'a> = &'a dyn Fn(&Line) -> bool;

/// The last wanted lines of what is read, if there is a limit.
struct Last<'a> {
    /// How many are kept; `None`: all.
    limit: Option<usize>,
    /// Which.
    wanted: Wanted<'a>,
    /// Those, oldest first.
    lines: VecDeque<Line>,
}

impl<'a> Last<'a> {
    /// Nothing yet.
    fn new(limit: Option<usize>, wanted: Wanted<'a>) -> Self {
        Self { limit, wanted, lines: VecDeque::new() }
    }

    /// Takes one in, and forgets the oldest if there are too many.
    fn push(&mut self, line: Line) {
        if !(self.wanted)(&line) {
            return;
        }
        self.lines.push_back(line);
        if self.limit.is_some_and(|limit| self.lines.len() > limit) {
            self.lines.pop_front();
        }
    }
}

/// The last wanted lines of a log, oldest first; all of them without a `limit`. A log that does not exist is
/// empty.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn tail(path: &Path, limit: Option<usize>, wanted: Wanted<'_>) -> Result<Vec<Line>> {
    let (mut last, mut follower) = read_to_end(path, limit, wanted)?;
    // A line that has no end yet is a line too.
    let begun = std::mem::take(&mut follower.begun);
    if let Some(line) = follower.told.read(&begun).filter(|_| !begun.is_empty()) {
        last.push(line);
    }
    Ok(last.lines.into())
}

/// The last wanted lines of a log as [`tail`], and what reads on behind them: nothing is missing or twice.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn follow(path: &Path, limit: Option<usize>, wanted: Wanted<'_>) -> Result<(Vec<Line>, Follower)> {
    let (last, follower) = read_to_end(path, limit, wanted)?;
    Ok((last.lines.into(), follower))
}

/// Reads every complete line that there is.
fn read_to_end<'a>(path: &Path, limit: Option<usize>, wanted: Wanted<'a>) -> Result<(Last<'a>, Follower)> {
    // The current part is opened first: if it is cut meanwhile, it is found again among the old ones by its inode.
    let mut follower = Follower::new(path.to_owned())?;
    let current = follower.inode();
    let mut last = Last::new(limit, wanted);
    for part in parts(path) {
        let Some(file) = open(&part)? else { continue };
        if file.metadata().ok().map(|metadata| metadata.ino()) == current || part == path {
            break;
        }
        let mut reader = BufReader::with_capacity(256 * 1024, file);
        read_lines(&mut reader, &mut follower.told, &mut Vec::new(), &mut |line| last.push(line))
            .map_err(Error::io("read", &part))?;
    }
    follower.read_on(&mut |line| last.push(line))?;
    Ok((last, follower))
}

/// Reads a log from its first line to its last, one at a time: a log may be large.
pub(crate) struct Lines {
    /// The parts that were not begun yet, oldest first; each is open, so that it is there even if it is cut.
    parts: VecDeque<File>,
    /// The part that is being read.
    reader: Option<BufReader<File>>,
    /// What the marks so far told.
    told: Told,
}

impl Lines {
    /// Opens every part of a log.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let parts = parts(path).iter().filter_map(|part| open(part).transpose()).collect::<Result<_>>()?;
        Ok(Self { parts, reader: None, told: Told::default() })
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            if self.reader.is_none() {
                self.reader = Some(BufReader::with_capacity(64 * 1024, self.parts.pop_front()?));
            }
            let reader = self.reader.as_mut()?;
            let mut line = Vec::new();
            match read_line(reader, &mut line) {
                // What cannot be read any more has ended.
                Ok(0) | Err(_) => self.reader = None,
                Ok(_) => {
                    if let Some(line) = self.told.read(&line) {
                        return Some(line);
                    }
                }
            }
        }
    }
}

/// The last lines that a service wrote before its child last ended, oldest first; none if it never did.
pub(crate) fn before_last_end(path: &Path, limit: usize) -> Vec<Vec<u8>> {
    for part in parts(path).into_iter().rev() {
        let Ok(Some(file)) = open(&part) else { continue };
        let lines = Lines { parts: VecDeque::from([file]), reader: None, told: Told::default() };
        let (mut last, mut before_end) = (VecDeque::new(), None);
        for line in lines {
            match line.content {
                Content::Output(output) => last.push_back(output),
                Content::Mark(Mark::Ended(_)) => before_end = Some(last.clone()),
                Content::Mark(Mark::Started { .. }) => last.clear(),
                Content::Mark(_) => {}
            }
            if last.len() > limit {
                last.pop_front();
            }
        }
        if let Some(lines) = before_end {
            return lines.into();
        }
    }
    Vec::new()
}

/// Reads every line to the end; what has no end yet stays in `begun`.
fn read_lines(
    reader: &mut impl BufRead,
    told: &mut Told,
    begun: &mut Vec<u8>,
    take: &mut dyn FnMut(Line),
) -> io::Result<()> {
    loop {
        let read = read_line(reader, begun)?;
        if begun.ends_with(b"\n") || begun.len() as u64 >= LONGEST_LINE {
            if let Some(line) = told.read(begun) {
                take(line);
            }
            begun.clear();
        } else if read == 0 {
            return Ok(());
        }
    }
}

/// Appends the next line, or a piece of one that is too long, to `line`; returns how many bytes that were.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    reader.by_ref().take(LONGEST_LINE).read_until(b'\n', line)
}

/// Opens a part of a log; `None` if it is not there.
fn open(path: &Path) -> Result<Option<File>> {
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Reads what is added to a log.
#[derive(Debug)]
pub(crate) struct Follower {
    /// Where the log is.
    path: PathBuf,
    /// The part that is being read; `None` while there is none.
    reader: Option<BufReader<File>>,
    /// A line that has no end yet.
    begun: Vec<u8>,
    /// What the marks so far told.
    told: Told,
}

impl Follower {
    /// Begins at the start of the log's current part.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        let reader = open(&path)?.map(BufReader::new);
        Ok(Self { path, reader, begun: Vec::new(), told: Told::default() })
    }

    /// Reads every line that was completed since the last call; follows the log through rotation.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn next(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            // Asked before the reading: what is written to this part after that is in a part that we see next.
            let current = self.is_current();
            self.read_on(&mut |line| lines.push(line))?;
            if current {
                return Ok(lines);
            }
            let Some(file) = open(&self.path)? else { return Ok(lines) };
            self.reader = Some(BufReader::new(file));
        }
    }

    /// Reads to the end of the part that is open.
    fn read_on(&mut self, take: &mut dyn FnMut(Line)) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        read_lines(reader, &mut self.told, &mut self.begun, take).map_err(Error::io("read", &self.path))
    }

    /// Which file the part that is open is; `None` while there is none.
    fn inode(&self) -> Option<u64> {
        self.reader.as_ref()?.get_ref().metadata().ok().map(|metadata| metadata.ino())
    }

    /// Whether the part that is open is the one that is written to.
    fn is_current(&self) -> bool {
        let open = self.reader.as_ref().and_then(|reader| reader.get_ref().metadata().ok());
        match (open, fs::symlink_metadata(&self.path)) {
            (Some(open), Ok(there)) => open.ino() == there.ino() && open.dev() == there.dev(),
            (None, Ok(_)) => false,
            (_, Err(_)) => true,
        }
    }

    /// Whether the log has been deleted.
    pub(crate) fn is_deleted(&self) -> bool {
        self.reader.is_some() && !self.path.exists()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logbook::LogWriter;

    fn output(text: &str) -> Content {
        Content::Output(text.as_bytes().to_vec())
    }

    const ALL: Wanted<'static> = &|_| true;

    #[test]
    fn the_last_lines_come_with_their_times_and_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
        let mut log = LogWriter::new(path.clone(), &crate::spec::Policy::default());
        log.append(b"zero\n", at(1).unwrap());
        log.mark(&Mark::Started { pid: 7, run: 2 }, at(2).unwrap());
        log.append(b"one\r\n\x1etwo\nthree", at(3).unwrap());
        let line = |second, run, content| Line { at: at(second), run, content };
        let all = [
            line(1, 0, output("zero")),
            line(2, 2, Content::Mark(Mark::Started { pid: 7, run: 2 })),
            line(3, 2, output("one")),
            line(3, 2, output("\u{1e}two")),
            line(3, 2, output("three")),
        ];
        assert_eq!(tail(&path, None, ALL).unwrap(), all);
        assert_eq!(Lines::open(&path).unwrap().collect::<Vec<_>>(), all);
        assert_eq!(tail(&path, Some(2), ALL).unwrap(), all[3..]);
        assert_eq!(tail(&path, Some(2), &|line| line.run == 0 || line.at == at(2)).unwrap(), all[..2]);
        assert_eq!(tail(&directory.path().join("none.log"), None, ALL).unwrap(), []);
    }

    #[test]
    fn a_follower_loses_no_line_through_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &crate::spec::Policy::default());
        let mut follower = Follower::new(path.clone()).unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let mut seen = 0;
        for round in 0..300_000_u32 {
            log.append(format!("{round:060}\n").as_bytes(), at);
            if round % 5_000 == 0 {
                for line in follower.next().unwrap() {
                    assert_eq!(line.content, output(&format!("{seen:060}")));
                    seen += 1;
                }
            }
        }
        seen += u32::try_from(follower.next().unwrap().len()).unwrap();
        assert_eq!(seen, 300_000);
        assert_eq!(Lines::open(&path).unwrap().count(), 300_000, "through every part");
    }

    proptest! {
        #[test]
        fn every_line_comes_back_however_it_was_cut_and_whatever_is_in_it(
            chunks in proptest::collection::vec((proptest::collection::vec(prop_oneof![
                Just(b'a'), Just(b'\n'), Just(MARK_BYTE), Just(b'\r'), Just(0xff), Just(b'2'), any::<u8>()
            ], 0..12), 0_i64..40), 0..20)
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.log");
            let mut log = LogWriter::new(path.clone(), &crate::spec::Policy::default());
            let (mut now, mut written) = (1_000_000, Vec::new());
            for (chunk, ms) in &chunks {
                now += ms;
                log.append(chunk, Timestamp::from_millisecond(now).unwrap());
                written.extend_from_slice(chunk);
            }
            let mut expected: Vec<&[u8]> = written.split(|byte| *byte == b'\n').collect();
            // What is behind the last line's end is a line only if there is something.
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            let expected: Vec<Content> = expected
                .into_iter()
                .map(|line| Content::Output(line.strip_suffix(b"\r").unwrap_or(line).to_vec()))
                .collect();
            let contents = |lines: Vec<Line>| lines.into_iter().map(|line| line.content).collect::<Vec<_>>();
            prop_assert_eq!(&contents(Lines::open(&path).unwrap().collect()), &expected);
            prop_assert_eq!(&contents(tail(&path, None, ALL).unwrap()), &expected);
            let times: Vec<_> = Lines::open(&path).unwrap().map(|line| line.at).collect();
            prop_assert!(times.is_sorted(), "times never go back");
        }
    }
}
