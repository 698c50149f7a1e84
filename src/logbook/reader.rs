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
pub(crate) enum Entry {
    /// A line that the service wrote, without its end.
    Output(Vec<u8>),
    /// A line of devport's own.
    Mark(Timestamp, Mark),
}

impl Entry {
    /// Reads a line, with or without its end; `None` for marks that only tell the time.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match Mark::parse(line) {
            Some((_, Mark::Time)) => None,
            Some((at, mark)) => Some(Self::Mark(at, mark)),
            None => {
                // The pseudo-terminal ends lines with CR LF.
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let doubled = line.starts_with(&[MARK_BYTE, MARK_BYTE]);
                Some(Self::Output(line[usize::from(doubled)..].to_vec()))
            }
        }
    }
}

/// The last entries of what is read, if there is a limit.
struct Last {
    /// How many are kept; `None`: all.
    limit: Option<usize>,
    /// Those, oldest first.
    entries: VecDeque<Entry>,
}

impl Last {
    /// Nothing yet.
    fn new(limit: Option<usize>) -> Self {
        Self { limit, entries: VecDeque::new() }
    }

    /// Takes one in, and forgets the oldest if there are too many.
    fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if self.limit.is_some_and(|limit| self.entries.len() > limit) {
            self.entries.pop_front();
        }
    }
}

/// The last entries of a log, oldest first; all of them without a `limit`. A log that does not exist is
/// empty.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn tail(path: &Path, limit: Option<usize>) -> Result<Vec<Entry>> {
    let (mut last, follower) = read_to_end(path, limit)?;
    // A line that has no end yet is a line too.
    if let Some(begun) = Entry::parse(&follower.begun).filter(|_| !follower.begun.is_empty()) {
        last.push(begun);
    }
    Ok(last.entries.into())
}

/// The last entries of a log as [`tail`], and what reads on behind them: nothing is missing or twice.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn follow(path: &Path, limit: Option<usize>) -> Result<(Vec<Entry>, Follower)> {
    let (last, follower) = read_to_end(path, limit)?;
    Ok((last.entries.into(), follower))
}

/// Reads every complete line that there is.
fn read_to_end(path: &Path, limit: Option<usize>) -> Result<(Last, Follower)> {
    // The current part is opened first: if it is cut meanwhile, it is found again among the old ones by its inode.
    let mut follower = Follower::new(path.to_owned())?;
    let current = follower.inode();
    let mut last = Last::new(limit);
    for part in parts(path) {
        let Some(file) = open(&part)? else { continue };
        if file.metadata().ok().map(|metadata| metadata.ino()) == current || part == path {
            break;
        }
        read_entries(&mut BufReader::with_capacity(256 * 1024, file), &mut Vec::new(), &mut |entry| last.push(entry))
            .map_err(Error::io("read", &part))?;
    }
    follower.read_on(&mut |entry| last.push(entry))?;
    Ok((last, follower))
}

/// Reads every line to the end; what has no end yet stays in `begun`.
fn read_entries(reader: &mut impl BufRead, begun: &mut Vec<u8>, take: &mut dyn FnMut(Entry)) -> io::Result<()> {
    loop {
        let read = read_line(reader, begun)?;
        if begun.ends_with(b"\n") || begun.len() as u64 >= LONGEST_LINE {
            if let Some(entry) = Entry::parse(begun) {
                take(entry);
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
}

impl Follower {
    /// Begins at the start of the log's current part.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        let reader = open(&path)?.map(BufReader::new);
        Ok(Self { path, reader, begun: Vec::new() })
    }

    /// Reads every line that was completed since the last call; follows the log through rotation.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn next(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            // Asked before the reading: what is written to this part after that is in a part that we see next.
            let current = self.is_current();
            self.read_on(&mut |entry| entries.push(entry))?;
            if current {
                return Ok(entries);
            }
            let Some(file) = open(&self.path)? else { return Ok(entries) };
            self.reader = Some(BufReader::new(file));
        }
    }

    /// Reads to the end of the part that is open.
    fn read_on(&mut self, take: &mut dyn FnMut(Entry)) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        read_entries(reader, &mut self.begun, take).map_err(Error::io("read", &self.path))
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
    use super::*;
    use crate::logbook::LogWriter;

    fn output(text: &str) -> Entry {
        Entry::Output(text.as_bytes().to_vec())
    }

    #[test]
    fn the_last_lines_come_without_time_marks_and_line_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let at: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let mut log = LogWriter::new(path.clone(), &crate::spec::Policy::default());
        log.mark(&Mark::Started(7), at);
        log.append(b"one\r\n\x1etwo\nthree", at);
        let all = [Entry::Mark(at, Mark::Started(7)), output("one"), output("\u{1e}two"), output("three")];
        assert_eq!(tail(&path, None).unwrap(), all);
        assert_eq!(tail(&path, Some(2)).unwrap(), all[2..]);
        assert_eq!(tail(&directory.path().join("none.log"), None).unwrap(), []);
    }

    #[test]
    fn a_follower_loses_no_line_through_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &crate::spec::Policy::default());
        let mut follower = Follower::new(path).unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let mut seen = 0;
        for round in 0..300_000_u32 {
            log.append(format!("{round:060}\n").as_bytes(), at);
            if round % 5_000 == 0 {
                for entry in follower.next().unwrap() {
                    assert_eq!(entry, output(&format!("{seen:060}")));
                    seen += 1;
                }
            }
        }
        seen += u32::try_from(follower.next().unwrap().len()).unwrap();
        assert_eq!(seen, 300_000);
    }
}
