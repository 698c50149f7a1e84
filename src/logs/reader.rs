//! Reads the last lines of a log, or all of them.

use std::collections::VecDeque;
use std::io::{Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::error::{Error, Result};
use crate::logs::decoder::{Content, Decoder, Line};
use crate::logs::escape::strip;
use crate::logs::follower::{Follower, read_part};
use crate::logs::mark::{LONGEST_HEADER, Mark};
use crate::logs::part::{self, Part};

/// How much of the end of a log is read first, in bytes: enough for a screen of lines.
const FIRST_WINDOW: u64 = 64 * 1024;
/// The factor by which more is read if that was not enough: all earlier reads together have a seventh of the
/// bytes of the last.
const WINDOW_GROWTH: u64 = 8;

/// Selects the lines to return.
pub(crate) type LineFilter<'a> = &'a dyn Fn(&Line) -> bool;

/// Collects lines from the end of a log.
trait Collect {
    /// Adds the next line.
    fn push(&mut self, line: Line);
    /// Returns whether earlier lines cannot change the result.
    fn is_done(&self) -> bool;
}

/// The last selected lines.
struct Tail<'a> {
    /// How many are kept; `None` for all.
    limit: Option<usize>,
    is_selected: LineFilter<'a>,
    lines: VecDeque<Line>,
}

impl Collect for Tail<'_> {
    fn push(&mut self, line: Line) {
        if !(self.is_selected)(&line) {
            return;
        }
        self.lines.push_back(line);
        if self.limit.is_some_and(|limit| self.lines.len() > limit) {
            self.lines.pop_front();
        }
    }

    fn is_done(&self) -> bool {
        self.limit.is_some_and(|limit| self.lines.len() >= limit)
    }
}

/// The last lines of output of one run.
struct RunOutput {
    run: u64,
    /// How many lines are kept.
    limit: usize,
    lines: VecDeque<Vec<u8>>,
    /// Whether everything from the start of the run was read.
    has_start: bool,
}

impl Collect for RunOutput {
    fn push(&mut self, line: Line) {
        let is_start =
            |line: &Line| line.run == self.run && matches!(line.content, Content::Mark(Mark::Started { .. }));
        self.has_start |= line.run < self.run || is_start(&line);
        let Content::Output(output) = line.content else { return };
        // Programs clear the screen with blank lines. One says as much as twenty.
        let is_blank = |line: &Vec<u8>| strip(line).trim_ascii().is_empty();
        if line.run != self.run || (is_blank(&output) && self.lines.back().is_none_or(is_blank)) {
            return;
        }
        self.lines.push_back(output);
        if self.lines.len() > self.limit {
            self.lines.pop_front();
        }
    }

    fn is_done(&self) -> bool {
        self.has_start || self.lines.len() >= self.limit
    }
}

/// Reads the last `window` bytes of a log, and more until the collector is done or everything was read. Returns the
/// position to continue from.
fn read_end<C: Collect>(path: &Path, mut window: u64, new: impl Fn() -> C) -> Result<(C, Follower)> {
    let mut parts = part::open_all(path)?;
    loop {
        let (index, offset) = start_of_window(&parts, window);
        let is_whole = (index, offset) == (0, 0);
        let mut decoder = if is_whole { Decoder::at_log_start() } else { Decoder::at(offset) };
        let mut collected = new();
        for (part, offset) in parts[index..].iter_mut().zip(std::iter::once(offset).chain(std::iter::repeat(0))) {
            decoder.end_part().into_iter().for_each(|line| collected.push(line));
            part.reader.seek(SeekFrom::Start(offset)).map_err(Error::io("read", &part.path))?;
            read_part(part, &mut decoder, &mut |line| collected.push(line))?;
        }
        if is_whole || (collected.is_done() && decoder.is_dated()) {
            return Ok((collected, Follower::new(path, parts.pop(), decoder)));
        }
        window = window.saturating_mul(WINDOW_GROWTH);
    }
}

/// Returns the part and offset where the last `window` bytes of a log start.
fn start_of_window(parts: &[Part], window: u64) -> (usize, u64) {
    let mut left = window;
    for (index, part) in parts.iter().enumerate().rev() {
        if left <= part.size {
            let offset = part.size - left;
            // The offset must not be within the part's first mark: it says whether the part continues a line.
            return (index, if offset < LONGEST_HEADER { 0 } else { offset });
        }
        left -= part.size;
    }
    (0, 0)
}

/// Returns the last selected lines of a log, oldest first; all of them if `limit` is `None`. A missing log is empty.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn tail(path: &Path, limit: Option<usize>, is_selected: LineFilter<'_>) -> Result<Vec<Line>> {
    tail_of(path, limit.map_or(u64::MAX, |_| FIRST_WINDOW), limit, is_selected)
}

/// Like [`tail`], with the number of bytes to read first.
fn tail_of(path: &Path, window: u64, limit: Option<usize>, is_selected: LineFilter<'_>) -> Result<Vec<Line>> {
    let (mut tail, follower) = read_end(path, window, || Tail { limit, is_selected, lines: VecDeque::new() })?;
    // A line without an end counts too.
    let mut decoder = follower.into_decoder();
    decoder.end_part().into_iter().for_each(|line| tail.push(line));
    decoder.end_head().into_iter().for_each(|line| tail.push(line));
    Ok(tail.lines.into())
}

/// Like [`tail`], and returns a reader for the lines after them: no line is missing or returned twice.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn follow(path: &Path, limit: Option<usize>, is_selected: LineFilter<'_>) -> Result<(Vec<Line>, Follower)> {
    let window = limit.map_or(u64::MAX, |_| FIRST_WINDOW);
    let (tail, follower) = read_end(path, window, || Tail { limit, is_selected, lines: VecDeque::new() })?;
    Ok((tail.lines.into(), follower))
}

/// Returns the last lines of output of a run, oldest first, with at most one blank line in a row; none if the log cannot
/// be read.
pub(crate) fn run_output(path: &Path, run: u64, limit: usize) -> Vec<Vec<u8>> {
    let new = || RunOutput { run, limit, lines: VecDeque::new(), has_start: false };
    read_end(path, FIRST_WINDOW, new).map(|(output, _)| output.lines.into()).unwrap_or_default()
}

/// Returns the first and the last run with lines in a log; `None` if there is none.
///
/// # Errors
/// [`Error::Io`] if a part of it cannot be read.
pub(crate) fn runs(path: &Path) -> Result<Option<RangeInclusive<u64>>> {
    let is_counted = |line: &Line| line.run > 0;
    let first = Lines::open(path)?.find(|line| line.as_ref().map_or(true, is_counted)).transpose()?;
    let last = tail(path, Some(1), &is_counted)?.pop();
    Ok(first.zip(last).map(|(first, last)| first.run..=last.run))
}

/// Reads a log line by line, because it may be large.
pub(crate) struct Lines {
    /// The parts that are not read to the end, oldest first.
    parts: VecDeque<Part>,
    /// What makes lines of them.
    decoder: Decoder,
}

impl Lines {
    /// Opens every part of a log.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self { parts: part::open_all(path)?.into(), decoder: Decoder::at_log_start() })
    }
}

impl Iterator for Lines {
    /// [`Error::Io`] if a part cannot be read; that is the last item.
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Result<Line>> {
        loop {
            let Some(part) = self.parts.front_mut() else { return self.decoder.end_head().map(Ok) };
            match self.decoder.next(&mut part.reader) {
                Ok(Some(line)) => return Some(Ok(line)),
                Ok(None) => {
                    self.parts.pop_front();
                    if let Some(line) = self.decoder.end_part() {
                        return Some(Ok(line));
                    }
                }
                Err(error) => {
                    let error = Error::io("read", &part.path)(error);
                    *self = Self { parts: VecDeque::new(), decoder: Decoder::at_log_start() };
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Policy;
    use crate::logs::LogWriter;
    use crate::logs::fold::fold;
    use crate::logs::mark::MARK_BYTE;

    const ALL: LineFilter<'static> = &|_| true;
    const FORGED: &[u8] = b"\x1e2026-11-24T05:00:00.000Z ended exit code 0";

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn output(text: impl AsRef<[u8]>) -> Content {
        Content::Output(text.as_ref().to_vec())
    }

    fn started(run: u64) -> Mark {
        Mark::Started { pid: 7, run }
    }

    fn policy(max_size: u64, keep: u32) -> Policy {
        let mut policy = Policy { log_keep: keep, ..Policy::default() };
        policy.log_max_size.0 = max_size;
        policy
    }

    /// A directory with the path of a log in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        (directory, path)
    }

    /// Every line of a log, from the first to the last.
    fn lines(path: &Path) -> Vec<Line> {
        Lines::open(path).unwrap().collect::<Result<_>>().unwrap()
    }

    fn contents(lines: impl IntoIterator<Item = Line>) -> Vec<Content> {
        lines.into_iter().map(|line| line.content).collect()
    }

    #[test]
    fn the_last_lines_come_with_their_times_and_runs() {
        let (directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 1);
        log.append(b"zero\n", at(1000));
        log.mark(&started(2), at(2000));
        log.append(b"one\r\n\x1etwo\nthree", at(3000));
        let line = |second: i64, run, content| Line { at: Some(at(second * 1000)), run, content };
        let all = [
            line(1, 1, output("zero")),
            line(2, 2, Content::Mark(started(2))),
            line(3, 2, output("one")),
            line(3, 2, output("\u{1e}two")),
            line(3, 2, output("three")),
        ];
        assert_eq!(tail(&path, None, ALL).unwrap(), all);
        assert_eq!(lines(&path), all);
        assert_eq!(tail(&path, Some(2), ALL).unwrap(), all[3..]);
        assert_eq!(tail(&path, Some(2), &|line| line.run == 1 || line.at == Some(at(2000))).unwrap(), all[..2]);
        assert_eq!(tail(&directory.path().join("none.log"), None, ALL).unwrap(), []);
    }

    #[test]
    fn a_log_of_an_earlier_devport_is_read() {
        let (_directory, path) = place();
        let old = "\u{1e}1970-01-01T00:00:01.000Z started pid 7\nzero\n\u{1e}1970-01-01T00:00:02.000Z started pid 8 run 2\n\u{1e}1970-01-01T00:00:03.000Z\none\ncu";
        fs::write(part::old_path(&path, 1), old).unwrap();
        fs::write(&path, "t\n\u{1e}1970-01-01T00:00:04.000Z\n\u{1e}\u{1e}two\n").unwrap();
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 2);
        log.append(b"three\n", at(5000));
        let line = |second: i64, run, text: &str| Line { at: Some(at(second * 1000)), run, content: output(text) };
        let all = [
            line(1, 0, "zero"),
            line(3, 2, "one"),
            line(3, 2, "cu"),
            line(3, 2, "t"),
            line(4, 2, "\u{1e}two"),
            line(5, 2, "three"),
        ];
        let is_output = |line: &Line| matches!(line.content, Content::Output(_));
        assert_eq!(lines(&path).into_iter().filter(is_output).collect::<Vec<_>>(), all);
        for window in [20, 50, 80, 120, 200] {
            assert_eq!(tail_of(&path, window, Some(4), &is_output).unwrap(), all[2..], "{window}");
        }
        assert_eq!(runs(&path).unwrap(), Some(2..=2), "a run that was not counted cannot be named");
    }

    #[test]
    fn a_run_is_found_after_its_start_was_rotated_away() {
        let (_directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &policy(4096, 1), 0);
        for run in 1..=4 {
            log.mark(&started(run), at(0));
            for number in 0..200 {
                log.append(format!("line {number:040}\n").as_bytes(), at(i64::try_from(run).unwrap() * 1000 + number));
            }
        }
        assert!(lines(&path).iter().all(|line| line.at.is_some()), "each part has its time");
        assert_eq!(runs(&path).unwrap(), Some(4..=4));
        let newest = tail(&path, None, &|line| line.run == 4).unwrap();
        assert_eq!(newest, lines(&path));
        assert!(newest.len() > 50 && !newest.iter().any(|line| line.content == Content::Mark(started(4))));
    }

    #[test]
    fn a_line_that_is_read_in_pieces_forges_no_mark() {
        let (_directory, path) = place();
        let long = vec![b'x'; 16 << 20];
        fs::write(&path, [&long, FORGED, b"\nend\n"].concat()).unwrap();
        let expected = [output(long), output(FORGED), output("end")];
        assert!(contents(lines(&path)) == expected);
        assert!(contents(tail(&path, None, ALL).unwrap()) == expected);
        assert_eq!(contents(tail(&path, Some(2), ALL).unwrap()), expected[1..]);
    }

    #[test]
    fn a_line_that_is_cut_forges_no_mark() {
        let forged = b"\x1e2026-11-24T05:00:00.000Z started pid 7 run 9";
        let header = "\u{1e}1970-01-01T00:00:00.000Z run 1\n".len();
        let head = vec![b'x'; 2048 - header];
        for kept in [0, 1] {
            let (_directory, path) = place();
            let mut log = LogWriter::new(path.clone(), &policy(1024, kept), 1);
            log.append(&head, at(0));
            log.append(&[forged, &b"\nend\n"[..]].concat(), at(500));
            let part = fs::read(&path).unwrap();
            assert!(
                part.windows(forged.len() + 1).any(|bytes| bytes == [b"\n", &forged[..]].concat()),
                "it is cut there"
            );
            let line = if kept == 0 { forged.to_vec() } else { [&head, &forged[..]].concat() };
            let expected = [output(line), output("end")].map(|content| Line { at: Some(at(500)), run: 1, content });
            assert_eq!(lines(&path), expected);
            for window in 1..200 {
                assert_eq!(tail_of(&path, window, Some(1), ALL).unwrap(), expected[1..]);
                assert_eq!(tail_of(&path, window, Some(2), ALL).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_follower_of_no_earlier_line_knows_the_run() {
        let (_directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 1);
        log.append(&b"line\n".repeat(50_000), at(0));
        let (before, mut follower) = follow(&path, Some(0), ALL).unwrap();
        log.append(b"next\n", at(0));
        assert_eq!(before, []);
        assert_eq!(follower.next().unwrap(), [Line { at: Some(at(0)), run: 1, content: output("next") }]);
    }

    #[test]
    fn a_part_that_cannot_be_read_is_an_error() {
        let (directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 0);
        for ms in 0..50 {
            log.append(&b"line\n".repeat(1000), at(ms * 10));
        }
        // A directory can be opened but not read.
        fs::create_dir(part::old_path(&path, 1)).unwrap();
        let error = Lines::open(&path).unwrap().next().unwrap().unwrap_err().to_string();
        let expected = format!("could not read {}: ", directory.path().join("a.log.1").display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(tail(&path, None, ALL).unwrap_err().to_string().starts_with(&expected));
        assert_eq!(contents(tail(&path, Some(1), ALL).unwrap()), [output("line")], "what is not needed is not read");
    }

    #[test]
    fn a_follower_loses_no_line_through_rotation() {
        let (_directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 0);
        let (_, mut follower) = follow(&path, Some(0), ALL).unwrap();
        let mut seen = 0;
        for round in 0..300_000_u32 {
            log.append(format!("{round:060}\n").as_bytes(), at(0));
            if round % 5_000 == 0 {
                for line in follower.next().unwrap() {
                    assert_eq!(line.content, output(format!("{seen:060}")));
                    seen += 1;
                }
            }
        }
        seen += u32::try_from(follower.next().unwrap().len()).unwrap();
        assert_eq!(seen, 300_000);
        assert_eq!(lines(&path).len(), 300_000, "through every part");
    }

    #[test]
    fn a_follower_reads_every_part_of_several_rotations() {
        let (_directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &policy(1024, 100), 0);
        log.append(b"first\n", at(0));
        let (before, mut follower) = follow(&path, Some(1), ALL).unwrap();
        assert_eq!(contents(before), [output("first")]);
        let written: Vec<Vec<u8>> = (0..200).map(|number| format!("{number:060}").into_bytes()).collect();
        for line in &written {
            log.append(&[line, &b"\n"[..]].concat(), at(0));
        }
        assert!(part::open_all(&path).unwrap().len() > 10);
        assert_eq!(contents(follower.next().unwrap()), written.iter().map(output).collect::<Vec<_>>());
    }

    #[test]
    fn a_log_that_is_missing_while_it_is_rotated_is_not_deleted() {
        let (directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &Policy::default(), 0);
        log.append(b"line\n", at(0));
        let (_, mut follower) = follow(&path, None, ALL).unwrap();
        let away = directory.path().join("away");
        fs::rename(&path, &away).unwrap();
        assert!(!follower.is_deleted());
        fs::rename(&away, &path).unwrap();
        assert!(!follower.is_deleted());
        fs::remove_file(&path).unwrap();
        assert!(!follower.is_deleted());
        assert!(follower.is_deleted());
    }

    #[test]
    fn the_last_output_of_a_run_is_found_in_every_part() {
        let (_directory, path) = place();
        let mut log = LogWriter::new(path.clone(), &policy(1024, 100), 0);
        log.mark(&started(1), at(0));
        log.append(b"\none\n\n \x1b[2J\n\ntwo\n", at(0));
        assert_eq!(run_output(&path, 1, 3), [&b"one"[..], b"", b"two"]);
        log.mark(&started(2), at(0));
        assert_eq!(run_output(&path, 2, 3), Vec::<Vec<u8>>::new(), "nothing of an earlier run");
        log.append(b"two\nthree\n", at(0));
        log.append(&[&[b'x'; 5000][..], b"\nfour\n"].concat(), at(0));
        log.mark(&Mark::Ended("x".into()), at(0));
        // More than is read first.
        for _ in 0..1500 {
            log.mark(&started(3), at(0));
        }
        assert_eq!(run_output(&path, 2, 3), [b"three".to_vec(), vec![b'x'; 5000], b"four".to_vec()]);
    }

    /// An event in the life of a service's log.
    #[derive(Debug, Clone)]
    enum Step {
        /// Writes output, this many milliseconds later.
        Write(Vec<u8>, i64),
        Mark(Mark),
        /// A new supervisor takes over.
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes =
            prop_oneof![Just(b'a'), Just(b'\n'), Just(MARK_BYTE), Just(b'\r'), Just(0xff), Just(b'2'), any::<u8>()];
        let chunk = prop_oneof![
            6 => proptest::collection::vec(bytes, 0..12),
            2 => Just(FORGED.to_vec()),
            2 => Just([b"\n", FORGED, b"\n"].concat()),
            // Longer than a part, and cut where the next part would begin with a mark.
            2 => (1_usize..5000).prop_map(|length| vec![b'x'; length]),
            1 => (1_usize..3000).prop_map(|length| FORGED.repeat(length / FORGED.len() + 1)),
            1 => (1_usize..1500).prop_map(|lines| b"\x1e\n".repeat(lines)),
        ];
        prop_oneof![
            12 => (chunk, 0_i64..40).prop_map(|(chunk, ms)| Step::Write(chunk, ms)),
            1 => (1_u64..5).prop_map(|run| Step::Mark(started(run))),
            1 => Just(Step::Mark(Mark::Ended("exit code 7".into()))),
            1 => Just(Step::Mark(Mark::Note("note".into()))),
            1 => Just(Step::Reopen),
        ]
    }

    /// The lines that the steps must produce; the last one may have no end.
    fn expected(steps: &[Step]) -> Vec<Content> {
        let (mut expected, mut begun) = (Vec::new(), Vec::new());
        let line = |begun: &mut Vec<u8>| {
            let begun = std::mem::take(begun);
            output(fold(&begun))
        };
        for step in steps {
            match step {
                Step::Write(chunk, _) => {
                    for byte in chunk {
                        if *byte == b'\n' { expected.push(line(&mut begun)) } else { begun.push(*byte) }
                    }
                }
                Step::Mark(mark) => {
                    if !begun.is_empty() {
                        expected.push(line(&mut begun));
                    }
                    expected.push(Content::Mark(mark.clone()));
                }
                Step::Reopen => {}
            }
        }
        if !begun.is_empty() {
            expected.push(line(&mut begun));
        }
        expected
    }

    proptest! {
        #[test]
        fn every_line_comes_back_and_only_devport_writes_marks(
            steps in proptest::collection::vec(step(), 0..25),
            limit in 0_usize..30,
            window in 1_u64..9000,
            follow_from in 0_usize..25,
        ) {
            let (_directory, path) = place();
            let policy = policy(1024, 100);
            let (mut now, mut run) = (1_000_000, 1);
            let mut log = LogWriter::new(path.clone(), &policy, run);
            let (mut followed, mut follower) = (Vec::new(), None);
            for (number, step) in steps.iter().enumerate() {
                match step {
                    Step::Write(chunk, ms) => {
                        now += ms;
                        log.append(chunk, at(now));
                    }
                    Step::Mark(mark) => {
                        if let Mark::Started { run: new, .. } = mark {
                            run = *new;
                        }
                        log.mark(mark, at(now));
                    }
                    Step::Reopen => log = LogWriter::new(path.clone(), &policy, run),
                }
                if number == follow_from {
                    let (lines, new) = follow(&path, None, ALL).unwrap();
                    followed = lines;
                    follower = Some(new);
                } else if let Some(follower) = &mut follower {
                    followed.extend(follower.next().unwrap());
                }
            }
            let expected = expected(&steps);
            let all = lines(&path);
            prop_assert_eq!(&contents(all.clone()), &expected);
            prop_assert!(all.iter().map(|line| line.at).is_sorted(), "times never go back");
            prop_assert!(all.iter().all(|line| line.at.is_some()), "each part has a time");
            for part in part::open_all(&path).unwrap() {
                prop_assert!(part.size < 1024 * 4, "the bound holds, and a second byte for each mark byte");
            }
            // Reading from the end gives the same lines, times and runs.
            prop_assert_eq!(&tail(&path, None, ALL).unwrap(), &all);
            let last = &all[all.len().saturating_sub(limit)..];
            prop_assert_eq!(&tail_of(&path, window, Some(limit), ALL).unwrap()[..], last);
            // A follower has every complete line.
            if follower.is_some() {
                let followed = contents(followed);
                prop_assert!(followed.len() + 1 >= expected.len());
                prop_assert_eq!(&followed[..], &expected[..followed.len()]);
            }
        }
    }
}
