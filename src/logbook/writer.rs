//! `LogWriter`: appends output and marks, and rotates. Only the supervisor of the service has one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::logbook::mark::{MARK_BYTE, Mark};
use crate::spec::Policy;

/// How much further it may grow in search of the end of a line.
const SLACK: u64 = 1024 * 1024;
/// How many old files a reader looks for.
const MOST_KEPT: u32 = 100;
/// How often the time is marked at most, in milliseconds.
const TIME_GRAIN_MS: i64 = 10;

/// The log of one service, open for appending.
#[derive(Debug)]
pub(crate) struct LogWriter {
    /// Where it is.
    path: PathBuf,
    /// It; `None` after a failure, until the next attempt.
    file: Option<File>,
    /// How large it is, in bytes.
    size: u64,
    /// How large it may grow until it is cut, in bytes.
    largest: u64,
    /// How many old ones are kept.
    kept: u32,
    /// Whether the last byte ended a line.
    at_line_start: bool,
    /// The last time that was marked, in grains.
    marked: i64,
    /// Bytes on their way to the file; kept to be used again.
    buffer: Vec<u8>,
}

impl LogWriter {
    /// A writer for a log that need not exist yet. What fails is tried again with the next output: a full disk
    /// costs output and nothing else.
    pub(crate) fn new(path: PathBuf, policy: &Policy) -> Self {
        let (largest, kept) = (policy.log_max_size.0, policy.log_keep.min(MOST_KEPT));
        let mut writer =
            Self { path, file: None, size: 0, largest, kept, at_line_start: true, marked: 0, buffer: Vec::new() };
        writer.open();
        writer
    }

    /// Opens the file if it is not open; `false` if that cannot be done.
    fn open(&mut self) -> bool {
        if self.file.is_some() {
            return true;
        }
        let options = |path: &Path| {
            OpenOptions::new()
                .append(true)
                .read(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
        };
        let Ok(file) = options(&self.path) else { return false };
        // The umask may have taken our own bits away.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
        self.size = file.metadata().map_or(0, |metadata| metadata.len());
        self.at_line_start = self.size == 0 || ends_line(&file, self.size);
        self.file = Some(file);
        true
    }

    /// Appends output.
    pub(crate) fn append(&mut self, output: &[u8], now: Timestamp) {
        let mut rest = output;
        let grain = now.as_millisecond() / TIME_GRAIN_MS;
        if grain != self.marked {
            // A mark stands between lines: first what ends the line that is begun.
            if !self.at_line_start {
                let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
                let (begun, after) = rest.split_at(end);
                self.buffer.extend_from_slice(begun);
                self.at_line_start = begun.ends_with(b"\n");
                rest = after;
            }
            if !rest.is_empty() {
                self.marked = grain;
                self.buffer.extend_from_slice(&Mark::Time.to_line(now));
            }
        }
        self.push_escaped(rest);
        self.flush();
    }

    /// Appends output to the buffer, with a second byte where a line begins like a mark.
    fn push_escaped(&mut self, output: &[u8]) {
        let Some(last) = output.last() else { return };
        if output.contains(&MARK_BYTE) {
            for byte in output {
                if *byte == MARK_BYTE && self.at_line_start {
                    self.buffer.push(MARK_BYTE);
                }
                self.buffer.push(*byte);
                self.at_line_start = *byte == b'\n';
            }
        } else {
            self.buffer.extend_from_slice(output);
            self.at_line_start = *last == b'\n';
        }
    }

    /// Appends a mark, on a line of its own.
    pub(crate) fn mark(&mut self, mark: &Mark, now: Timestamp) {
        if !self.at_line_start {
            self.buffer.push(b'\n');
            self.at_line_start = true;
        }
        self.buffer.extend_from_slice(&mark.to_line(now));
        self.flush();
    }

    /// Writes the buffer, and cuts the log if it has become too large.
    fn flush(&mut self) {
        let full = self.size > self.largest && (self.at_line_start || self.size > self.largest + SLACK);
        if full {
            self.rotate();
        }
        if self.open()
            && let Some(file) = &mut self.file
        {
            match file.write_all(&self.buffer) {
                Ok(()) => self.size += self.buffer.len() as u64,
                Err(_) => self.file = None,
            }
        }
        self.buffer.clear();
    }

    /// Makes the log an old one, and begins a new one.
    fn rotate(&mut self) {
        for number in (1..self.kept).rev() {
            // One that is not there need not be moved.
            let _ = fs::rename(old_path(&self.path, number), old_path(&self.path, number + 1));
        }
        let gone = match self.kept {
            0 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, old_path(&self.path, 1)),
        };
        if gone.is_ok() {
            self.file = None;
        }
    }
}

/// The path of an old log; 1 is the youngest.
fn old_path(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The parts of a log that are there, oldest first; the last is the one that is written.
pub(super) fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> =
        (1..=MOST_KEPT).map(|number| old_path(path, number)).take_while(|path| path.exists()).collect();
    parts.reverse();
    parts.push(path.to_owned());
    parts
}

/// Whether the last byte of a file ends a line.
fn ends_line(file: &File, size: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    let read: io::Result<()> = file.read_exact_at(&mut last, size - 1);
    read.is_ok() && last[0] == b'\n'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn written(write: impl FnOnce(&mut LogWriter)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        write(&mut LogWriter::new(path.clone(), &Policy::default()));
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn marks_stand_between_lines() {
        let text = written(|log| {
            log.mark(&Mark::Started { pid: 1, run: 1 }, at(0));
            log.append(b"one\ntw", at(1000));
            log.append(b"o\nthree\n", at(2000));
            log.append(b"four", at(2001));
            log.mark(&Mark::Ended("x".into()), at(3000));
        });
        let expected = "\u{1e}1970-01-01T00:00:00.000Z started pid 1 run 1\n\u{1e}1970-01-01T00:00:01.000Z\none\ntwo\n\u{1e}1970-01-01T00:00:02.000Z\nthree\nfour\n\u{1e}1970-01-01T00:00:03.000Z ended x\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn output_that_looks_like_a_mark_is_not_one() {
        let text = written(|log| log.append(b"\x1ex\ny\x1e\n\x1ez", at(0)));
        assert_eq!(text, "\u{1e}\u{1e}x\ny\u{1e}\n\u{1e}\u{1e}z", "no time mark in the first grain");
    }

    #[test]
    fn a_log_is_cut_at_ten_mebibytes_and_three_old_ones_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &Policy::default());
        let line = [vec![b'x'; 65_535], vec![b'\n']].concat();
        for _ in 0..(6 * 161) {
            log.append(&line, at(0));
        }
        let sizes: Vec<u64> = parts(&path).iter().map(|part| fs::metadata(part).unwrap().len()).collect();
        assert_eq!(sizes.len(), 4);
        assert!(sizes.iter().all(|size| *size <= (10 << 20) + SLACK), "{sizes:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn an_endless_line_is_cut_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &Policy::default());
        for _ in 0..200 {
            log.append(&vec![b'x'; 65_536], at(0));
        }
        assert_eq!(parts(&path).len(), 2);
    }
}
