//! `Mark`: a line of devport's own in a log.

use std::fmt;

use jiff::Timestamp;

/// The byte that begins a mark (ASCII "record separator"). A line of output that begins with it gets another
/// one in front.
pub(super) const MARK_BYTE: u8 = 0x1e;

/// What a mark says, behind its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The following lines were written at this time or later.
    Time,
    /// A child was started.
    Started {
        /// Its pid.
        pid: i32,
        /// Its number, counted since the service was registered; 0 if nobody counted.
        run: u64,
    },
    /// A child ended: how, and after how long.
    Ended(String),
    /// Something else that the reader should know.
    Note(String),
}

impl Mark {
    /// The line, with its end.
    pub(super) fn to_line(&self, at: Timestamp) -> Vec<u8> {
        let mut line = vec![MARK_BYTE];
        line.extend_from_slice(format!("{at:.3}").as_bytes());
        match self {
            Self::Time => {}
            Self::Started { pid, run } => line.extend_from_slice(format!(" started pid {pid} run {run}").as_bytes()),
            Self::Ended(how) => line.extend_from_slice(format!(" ended {how}").as_bytes()),
            Self::Note(text) => line.extend_from_slice(format!(" note {}", text.replace('\n', " ")).as_bytes()),
        }
        line.push(b'\n');
        line
    }

    /// Reads a line without its end; `None` if it is output.
    pub(super) fn parse(line: &[u8]) -> Option<(Timestamp, Self)> {
        let text = std::str::from_utf8(line.strip_prefix(&[MARK_BYTE])?).ok()?;
        let (time, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mark = match rest.split_once(' ') {
            None if rest.is_empty() => Self::Time,
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
            Self::Time => Ok(()),
            Self::Started { pid, .. } => write!(f, "started, pid {pid}"),
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
            Mark::Time,
            Mark::Started { pid: 7, run: 3 },
            Mark::Ended("exit code 1 after 0.2 s".into()),
            Mark::Note("a b".into()),
        ] {
            let line = mark.to_line(at);
            assert_eq!(Mark::parse(&line[..line.len() - 1]), Some((at, mark)));
        }
    }

    #[test]
    fn a_start_that_nobody_counted_is_read_too() {
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
