//! `Mark`: a line in a log that devport wrote.

use std::fmt;

use jiff::Timestamp;

/// The first byte of a mark (ASCII "record separator"). If a line of output begins with this byte, the log has it
/// twice.
pub(super) const MARK_BYTE: u8 = 0x1e;

/// The maximum length of a mark before its text, in bytes: a time, two words and two numbers have less than 100.
pub(super) const LONGEST_HEADER: u64 = 256;

/// The content of a mark, after its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The following lines were written at this time or later.
    Time {
        /// `None` in logs of an earlier devport.
        run: Option<u64>,
    },
    /// The first mark of a part that continues the last line of the previous part.
    Continued {
        /// The run that wrote that line.
        run: u64,
    },
    /// A child was started.
    Started {
        pid: i32,
        /// The number of the run since registration; 0 if unknown.
        run: u64,
    },
    /// A child ended: how, and after how long.
    Ended(String),
    /// Another event, for the reader.
    Note(String),
}

impl Mark {
    /// Returns the mark as a line with its end.
    pub(super) fn to_line(&self, at: Timestamp) -> Vec<u8> {
        // A line break would end the mark, and the rest would count as output.
        let one_line = |text: &str| text.replace('\n', " ");
        let text = match self {
            Self::Time { run: None } => String::new(),
            Self::Time { run: Some(run) } => format!(" run {run}"),
            Self::Continued { run } => format!(" run {run} continued"),
            Self::Started { pid, run } => format!(" started pid {pid} run {run}"),
            Self::Ended(how) => format!(" ended {}", one_line(how)),
            Self::Note(text) => format!(" note {}", one_line(text)),
        };
        let mut line = vec![MARK_BYTE];
        line.extend_from_slice(format!("{at:.3}{text}\n").as_bytes());
        line
    }

    /// Parses a line without its end; `None` if it is output.
    pub(super) fn parse(line: &[u8]) -> Option<(Timestamp, Self)> {
        let text = std::str::from_utf8(line.strip_prefix(&[MARK_BYTE])?).ok()?;
        let (time, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mark = match rest.split_once(' ') {
            None if rest.is_empty() => Self::Time { run: None },
            Some(("run", rest)) => match rest.strip_suffix(" continued") {
                Some(run) => Self::Continued { run: run.parse().ok()? },
                None => Self::Time { run: Some(rest.parse().ok()?) },
            },
            Some(("started", rest)) => {
                let (pid, run) =
                    rest.strip_prefix("pid ")?.split_once(" run ").unwrap_or((rest.strip_prefix("pid ")?, "0"));
                Self::Started { pid: pid.parse().ok()?, run: run.parse().ok()? }
            }
            Some(("ended", how)) => Self::Ended(how.to_owned()),
            Some(("note", note)) => Self::Note(note.to_owned()),
            _ => return None,
        };
        Some((time.parse().ok()?, mark))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time { .. } | Self::Continued { .. } => Ok(()),
            Self::Started { pid, run: 0 } => write!(f, "started, pid {pid}"),
            Self::Started { pid, run } => write!(f, "run {run} started, pid {pid}"),
            Self::Ended(how) => write!(f, "ended: {how}"),
            Self::Note(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_as_they_were_written() {
        let at: Timestamp = "2026-11-21T05:06:07.089Z".parse().unwrap();
        for mark in [
            Mark::Time { run: None },
            Mark::Time { run: Some(3) },
            Mark::Continued { run: 3 },
            Mark::Started { pid: 7, run: 3 },
            Mark::Ended("exit code 1 after 0.2 s".into()),
            Mark::Note("a b".into()),
        ] {
            let line = mark.to_line(at);
            assert_eq!(Mark::parse(&line[..line.len() - 1]), Some((at, mark)));
        }
    }

    #[test]
    fn a_mark_is_one_line() {
        let line = Mark::Ended("a\nb".into()).to_line(Timestamp::UNIX_EPOCH);
        assert_eq!(line, b"\x1e1970-01-01T00:00:00.000Z ended a b\n");
    }

    #[test]
    fn a_start_without_the_number_of_its_run_is_read_too() {
        let mark = Mark::parse(b"\x1e2026-11-21T05:06:07Z started pid 7").unwrap().1;
        assert_eq!(mark, Mark::Started { pid: 7, run: 0 });
    }

    #[test]
    fn output_is_no_mark() {
        for line in [&b""[..], b"text", b"\x1e\x1e2026-11-21T05:06:07Z", b"\x1enonsense", b"\x1e2026-11-21T05:06:07Z x"]
        {
            assert_eq!(Mark::parse(line), None, "{line:?}");
        }
    }
}
