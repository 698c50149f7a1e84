//! `LogWriter`: appends output and marks, and rotates. Only a service's supervisor has one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::config::Policy;
use crate::logs::mark::{MARK_BYTE, Mark};
use crate::logs::part::{MOST_KEPT, old_path};

/// How far a part may exceed its maximum size to end with a line, in bytes; at most by that size again. Lines that are
/// longer than 1 MiB are rare, and cut.
const SLACK: u64 = 1024 * 1024;
/// The resolution of time marks in milliseconds: finer marks would make logs of chatty services much larger.
const TIME_GRAIN_MS: i64 = 10;

/// The log of one service, open for appending.
#[derive(Debug)]
pub(crate) struct LogWriter {
    /// The path of the current part.
    path: PathBuf,
    /// The current part; `None` after a failure, until the next attempt.
    file: Option<File>,
    /// The size of the current part, in bytes.
    size: u64,
    /// The maximum size of a part, in bytes.
    largest: u64,
    /// How many old parts are kept.
    kept: u32,
    /// The number of the current run.
    run: u64,
    /// Whether the last byte of the log ended a line.
    at_line_start: bool,
    /// Whether the current part has output or marks besides its first mark.
    has_content: bool,
    /// The time of the last mark, in units of [`TIME_GRAIN_MS`].
    marked: i64,
    /// How many bytes of output could not be written since the last success.
    lost: u64,
    /// Bytes to be written; kept to reuse the allocation.
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Returns a writer for a log that need not exist yet. `run` is the number of its last run. A failed write is
    /// retried with the next output: a full disk loses output and nothing else.
    pub(crate) fn new(path: PathBuf, policy: &Policy, run: u64) -> Self {
        let mut writer = Self {
            path,
            file: None,
            size: 0,
            largest: policy.log_max_size.0,
            kept: policy.log_keep.min(MOST_KEPT),
            run,
            at_line_start: true,
            has_content: false,
            marked: 0,
            lost: 0,
            buffer: Vec::new(),
        };
        writer.open();
        writer.remove_old_parts();
        writer
    }

    /// Deletes the parts that an earlier policy kept, and this one does not. Ends at the second missing number: a kill
    /// during a rotation leaves one gap.
    fn remove_old_parts(&self) {
        let mut missing = 0;
        for number in self.kept + 1..=MOST_KEPT {
            let removed = fs::remove_file(old_path(&self.path, number));
            missing += u32::from(removed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
            if missing == 2 {
                return;
            }
        }
    }

    /// Opens the current part; returns whether that succeeded.
    fn open(&mut self) -> bool {
        let options = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path);
        let Ok(file) = options else { return false };
        // The umask may have removed the owner's bits.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
        self.size = file.metadata().map_or(0, |metadata| metadata.len());
        self.at_line_start = self.size == 0 || ends_line(&file, self.size);
        self.has_content = self.size > 0;
        self.file = Some(file);
        true
    }

    /// Opens the current part again after a failure, and notes how much was lost; returns whether that succeeded.
    fn reopen(&mut self, now: Timestamp) -> bool {
        if self.file.is_some() {
            return true;
        }
        if !self.open() {
            return false;
        }
        // The failed write may have left half a mark, which output must not complete.
        self.end_line();
        if self.lost > 0 {
            self.begin_part(now);
            let note = format!("{} bytes of output could not be written to this log", self.lost);
            self.buffer.extend_from_slice(&Mark::Note(note).to_line(now));
        }
        true
    }

    pub(crate) fn append(&mut self, output: &[u8], now: Timestamp) {
        let mut rest = output;
        if !self.reopen(now) {
            self.lost += rest.len() as u64;
            return;
        }
        while !rest.is_empty() {
            self.begin_part(now);
            let mut end = self.fitting(rest);
            if end == 0 && self.rotate() {
                self.begin_part(now);
                end = self.fitting(rest);
            }
            // If rotation fails, the part grows.
            let end = if end == 0 { rest.len() } else { end };
            let (piece, after) = rest.split_at(end);
            self.push_output(piece, now);
            if !self.flush() {
                self.lost += rest.len() as u64;
                return;
            }
            rest = after;
        }
    }

    /// Returns how many bytes of the output fit into the current part; 0 if the next part must begin first.
    fn fitting(&self, output: &[u8]) -> usize {
        let used = self.size + self.buffer.len() as u64;
        let room = |largest: u64| usize::try_from(largest.saturating_sub(used)).unwrap_or(usize::MAX);
        let is_end = |byte: &u8| *byte == b'\n';
        let Some(fitting) = output.get(..room(self.largest)) else { return output.len() };
        if let Some(end) = fitting.iter().rposition(is_end) {
            return end + 1;
        }
        if self.at_line_start && self.has_content {
            return 0;
        }
        let most = output.len().min(room(self.largest + SLACK.min(self.largest)));
        output[..most].iter().position(is_end).map_or(most, |end| end + 1)
    }

    /// Appends output to the buffer, with a time mark if the time has changed.
    fn push_output(&mut self, output: &[u8], now: Timestamp) {
        self.has_content = true;
        let mut rest = output;
        let grain = now.as_millisecond() / TIME_GRAIN_MS;
        if grain != self.marked {
            // A mark stands between lines, so finish the current line first.
            if !self.at_line_start {
                let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
                let (begun, after) = rest.split_at(end);
                self.buffer.extend_from_slice(begun);
                self.at_line_start = begun.ends_with(b"\n");
                rest = after;
            }
            if !rest.is_empty() {
                self.marked = grain;
                self.buffer.extend_from_slice(&Mark::Time { run: Some(self.run) }.to_line(now));
            }
        }
        self.push_escaped(rest);
    }

    /// Appends output to the buffer, and doubles the first byte of a line that begins like a mark.
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

    /// Appends a mark as a separate line.
    pub(crate) fn mark(&mut self, mark: &Mark, now: Timestamp) {
        if let Mark::Started { run, .. } = mark {
            self.run = *run;
        }
        if !self.reopen(now) {
            return;
        }
        self.end_line();
        if self.size >= self.largest && self.has_content {
            self.rotate();
        }
        // The mark of a start has the time and the run itself.
        if !matches!(mark, Mark::Started { .. }) {
            self.begin_part(now);
        }
        self.has_content = true;
        self.buffer.extend_from_slice(&mark.to_line(now));
        self.flush();
    }

    /// Ends the current line.
    fn end_line(&mut self) {
        if !self.at_line_start {
            self.buffer.push(b'\n');
            self.at_line_start = true;
        }
    }

    /// Writes the first mark of the current part, if it is empty.
    fn begin_part(&mut self, now: Timestamp) {
        if self.size > 0 || !self.buffer.is_empty() {
            return;
        }
        let mark =
            if self.at_line_start { Mark::Time { run: Some(self.run) } } else { Mark::Continued { run: self.run } };
        self.buffer.extend_from_slice(&mark.to_line(now));
        self.marked = now.as_millisecond() / TIME_GRAIN_MS;
    }

    /// Writes the buffer; returns whether that succeeded.
    fn flush(&mut self) -> bool {
        let written = self.file.as_mut().is_some_and(|file| file.write_all(&self.buffer).is_ok());
        if written {
            self.size += self.buffer.len() as u64;
            self.lost = 0;
        } else {
            self.file = None;
        }
        self.buffer.clear();
        written
    }

    /// Moves the current part to the old ones and begins a new one; returns whether that succeeded.
    fn rotate(&mut self) -> bool {
        // The buffer belongs to the old part.
        if !self.buffer.is_empty() && !self.flush() {
            return false;
        }
        for number in (1..self.kept).rev() {
            // A missing old part is not an error.
            let _ = fs::rename(old_path(&self.path, number), old_path(&self.path, number + 1));
        }
        let moved = match self.kept {
            0 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, old_path(&self.path, 1)),
        };
        // A part whose name is gone counts as moved.
        if moved.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            return false;
        }
        let at_line_start = self.at_line_start;
        (self.file, self.size, self.has_content) = (None, 0, false);
        self.open();
        self.at_line_start = at_line_start;
        true
    }
}

/// Returns whether the last byte of a file ends a line.
fn ends_line(file: &File, size: u64) -> bool {
    let mut last = [0];
    file.read_exact_at(&mut last, size - 1).is_ok() && last[0] == b'\n'
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn written(write: impl FnOnce(&mut LogWriter)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        write(&mut LogWriter::new(path.clone(), &Policy::default(), 0));
        fs::read_to_string(path).unwrap()
    }

    /// Returns the existing old parts, newest first.
    fn old_parts(path: &Path) -> Vec<PathBuf> {
        (1..=MOST_KEPT).map(|number| old_path(path, number)).filter(|path| path.exists()).collect()
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
        let expected = "\u{1e}1970-01-01T00:00:00.000Z started pid 1 run 1\n\u{1e}1970-01-01T00:00:01.000Z run 1\none\ntwo\n\u{1e}1970-01-01T00:00:02.000Z run 1\nthree\nfour\n\u{1e}1970-01-01T00:00:03.000Z ended x\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn output_that_looks_like_a_mark_is_not_one() {
        let text = written(|log| log.append(b"\x1ex\ny\x1e\n\x1ez", at(0)));
        assert_eq!(text, "\u{1e}1970-01-01T00:00:00.000Z run 0\n\u{1e}\u{1e}x\ny\u{1e}\n\u{1e}\u{1e}z");
    }

    #[test]
    fn a_log_is_cut_at_ten_mebibytes_and_three_old_parts_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 0);
        let line = [vec![b'x'; 65_535], vec![b'\n']].concat();
        for _ in 0..(6 * 161) {
            log.append(&line, at(0));
        }
        let old = old_parts(&path);
        assert_eq!(old.len(), 3);
        for part in old.iter().chain([&path]) {
            assert!(fs::metadata(part).unwrap().len() <= 10 << 20, "{part:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_part_begins_with_its_time_and_run_and_ends_after_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut policy = Policy::default();
        policy.log_max_size.0 = 1024;
        let mut log = LogWriter::new(path.clone(), &policy, 3);
        // A chunk that is larger than a part, and ends within a line.
        log.append(&[&b"0123456789\n".repeat(120)[..], b"01234"].concat(), at(5000));
        log.append(b"56789\n", at(6000));
        let old = fs::read_to_string(old_path(&path, 1)).unwrap();
        let header = "\u{1e}1970-01-01T00:00:05.000Z run 3\n";
        assert!(old.starts_with(header) && old.ends_with("789\n") && old.len() <= 1024, "{old}");
        let new = fs::read_to_string(&path).unwrap();
        assert_eq!((old + &new).replace(header, ""), "0123456789\n".repeat(121));
    }

    #[test]
    fn an_endless_line_is_cut_and_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 3);
        for _ in 0..200 {
            log.append(&vec![b'x'; 65_536], at(0));
        }
        assert_eq!(old_parts(&path).len(), 1);
        assert_eq!(fs::metadata(old_path(&path, 1)).unwrap().len(), (10 << 20) + SLACK);
        assert!(fs::read_to_string(&path).unwrap().starts_with("\u{1e}1970-01-01T00:00:00.000Z run 3 continued\nxxx"));
    }

    #[test]
    fn fewer_old_parts_are_kept_if_the_policy_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        // A rotation that was killed has left a gap.
        for number in (1..=9).filter(|number| *number != 3) {
            fs::write(old_path(&path, number), "old\n").unwrap();
        }
        LogWriter::new(path.clone(), &Policy { log_keep: 2, ..Policy::default() }, 0);
        assert_eq!(old_parts(&path), [old_path(&path, 1), old_path(&path, 2)]);
        LogWriter::new(path.clone(), &Policy { log_keep: 0, ..Policy::default() }, 0);
        assert_eq!(old_parts(&path), [] as [PathBuf; 0]);
    }

    #[test]
    fn output_that_could_not_be_written_is_noted_and_completes_no_mark() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 1);
        // A full disk leaves half a mark; a file opened for reading then refuses output.
        fs::write(&path, "\u{1e}1970-01-01T00:00:00").unwrap();
        log.file = Some(File::open(&path).unwrap());
        log.append(b"lost\n", at(0));
        log.append(b".000Z ended forged\n", at(0));
        let expected = "\u{1e}1970-01-01T00:00:00\n\u{1e}1970-01-01T00:00:00.000Z note 5 bytes of output could not be written to this log\n.000Z ended forged\n";
        assert_eq!(fs::read_to_string(path).unwrap(), expected);
    }
}
