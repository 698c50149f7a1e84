//! `QueryResponder`: decides who answers the questions that a program asks its terminal: the terminal, or devport if
//! nobody looks at it. A program that gets no answer waits, some for ten seconds.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::os::{clock, spawn, tool};
use crate::supervisor::terminal_query::{ESCAPE, Piece, Query, QueryScanner};

/// How long the command that counts viewers may take. tmux answers in milliseconds; meanwhile the loop handles nothing
/// else.
const COUNT_LIMIT: Duration = Duration::from_millis(500);
/// For how long a count of viewers is used: programs ask several questions in a row.
const COUNT_AGE: Duration = Duration::from_secs(1);
/// How long a terminal may take to answer a question before devport does. tmux answers by itself, in milliseconds; before
/// version 3.4 it answers for colours only if its option `window-style` sets them.
const TERMINAL_LIMIT: Duration = Duration::from_millis(200);
/// How long an answer waits for the program to read it: some ask first, and switch the echo of their terminal off then.
const READER_LIMIT: Duration = Duration::from_millis(100);
/// The time between attempts to give an answer.
const READER_INTERVAL: Duration = Duration::from_millis(5);

/// Who sees the output of the child.
#[derive(Debug)]
pub(crate) enum Audience {
    /// Nobody: the log is the only output.
    Nobody,
    /// The user's own terminal, or whatever the streams were redirected to. It gets every question.
    OwnStreams,
    /// A tmux window, which may be out of sight.
    Window {
        /// The words of the command that prints how many clients show the window; empty if there is none.
        count_viewers: Vec<OsString>,
    },
}

/// Answers questions that no terminal answers.
#[derive(Debug)]
pub(super) struct QueryResponder {
    audience: Audience,
    scanner: QueryScanner,
    /// The last count of viewers: when, and whether there was one.
    counted: Option<(Instant, bool)>,
    /// Whether the terminal has left a question for a colour unanswered.
    ignores_colors: bool,
    /// The questions that the terminal has and did not answer, and until when it may.
    awaited: Vec<&'static Query>,
    awaited_until: Option<Instant>,
    /// Answers for the child that its terminal does not take yet, since when, and when the next attempt is due.
    answers: Vec<u8>,
    answers_since: Option<Instant>,
    next_attempt: Option<Instant>,
}

impl QueryResponder {
    /// Creates the responder of a service whose child is not started yet.
    pub(super) fn new(audience: Audience) -> Self {
        Self {
            audience,
            scanner: QueryScanner::default(),
            counted: None,
            ignores_colors: false,
            awaited: Vec::new(),
            awaited_until: None,
            answers: Vec::new(),
            answers_since: None,
            next_attempt: None,
        }
    }

    /// Takes output of the child's terminal. Returns what to show of it: all but the questions that devport answers.
    pub(super) fn filter<'a>(&mut self, bytes: &'a [u8], now: Instant) -> Cow<'a, [u8]> {
        if matches!(self.audience, Audience::OwnStreams) || self.scanner.is_plain(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut shown = Vec::with_capacity(bytes.len());
        for piece in self.scanner.push(bytes) {
            match piece {
                Piece::Output(output) => shown.extend_from_slice(&output),
                Piece::Query(query) if self.has_answering_terminal(query, now) => {
                    shown.extend_from_slice(query.text);
                    self.awaited.push(query);
                    self.awaited_until = Some(now + TERMINAL_LIMIT);
                }
                Piece::Query(query) => self.answer(query, now),
            }
        }
        Cow::Owned(shown)
    }

    /// Returns the output that was held back. Call it when the child has exited.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let held = self.scanner.finish();
        self.ignores_colors = false;
        (self.awaited, self.awaited_until) = (Vec::new(), None);
        self.forget_answers();
        held
    }

    /// Takes note of input from the terminal.
    pub(super) fn handle_input(&mut self, bytes: &[u8]) {
        // Answers begin with an escape. One may come in several parts, and the program has several questions to wait for,
        // so the first one is enough to leave it all to the terminal.
        if bytes.contains(&ESCAPE) {
            (self.awaited, self.awaited_until) = (Vec::new(), None);
        }
    }

    /// Returns when [`Self::take_answers`] is due; `None` if there is nothing to answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.awaited_until, self.next_attempt].into_iter().flatten().min()
    }

    /// Returns the answers that the child gets now. `can_read` says whether its terminal is in the mode in which a
    /// program reads answers: in any other, they would be echoed, or become part of the user's next line of input.
    pub(super) fn take_answers(&mut self, can_read: impl Fn() -> bool, now: Instant) -> Option<Vec<u8>> {
        if self.awaited_until.is_some_and(|until| until <= now) {
            self.awaited_until = None;
            for query in std::mem::take(&mut self.awaited) {
                self.ignores_colors |= query.is_color;
                self.answer(query, now);
            }
        }
        let since = self.answers_since?;
        if can_read() {
            let answers = std::mem::take(&mut self.answers);
            self.forget_answers();
            return Some(answers);
        }
        if now >= since + READER_LIMIT {
            self.forget_answers();
        } else {
            self.next_attempt = Some(now + READER_INTERVAL);
        }
        None
    }

    /// Puts an answer behind the earlier ones.
    fn answer(&mut self, query: &Query, now: Instant) {
        self.answers.extend_from_slice(query.answer);
        self.answers_since.get_or_insert(now);
        self.next_attempt = Some(now);
    }

    fn forget_answers(&mut self) {
        self.answers.clear();
        (self.answers_since, self.next_attempt) = (None, None);
    }

    /// Returns whether a terminal will see this question, and answer it as far as is known.
    fn has_answering_terminal(&mut self, query: &Query, now: Instant) -> bool {
        let Audience::Window { count_viewers } = &self.audience else { return false };
        if query.is_color && self.ignores_colors {
            return false;
        }
        match self.counted {
            Some((at, has_viewer)) if now.saturating_duration_since(at) < COUNT_AGE => has_viewer,
            _ => {
                let has_viewer = has_viewer(count_viewers);
                // Not `now`: the command has taken time.
                self.counted = Some((clock::now(), has_viewer));
                has_viewer
            }
        }
    }
}

/// Runs the command that counts viewers. Failures count as none: the program must get its answer.
fn has_viewer(count_viewers: &[OsString]) -> bool {
    let Some((program, arguments)) = count_viewers.split_first() else { return false };
    let mut command = spawn::tool(Path::new(program));
    command.args(arguments).env_clear().current_dir("/").stdout(Stdio::piped()).stderr(Stdio::null());
    let finished = command.spawn().and_then(|child| tool::finish(child, COUNT_LIMIT));
    let count = finished.map(|finished| String::from_utf8_lossy(&finished.output).trim().parse().unwrap_or(0));
    count.unwrap_or(0_u32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOR: &[u8] = b"\x1b]11;?\x07";
    const COLOR_ANSWER: &[u8] = b"\x1b]11;rgb:0000/0000/0000\x07";
    const ATTRIBUTES: &[u8] = b"\x1b[c";
    const ATTRIBUTES_ANSWER: &[u8] = b"\x1b[?1;2c";

    /// The responder of a window that this many terminals show.
    fn in_window(viewers: &str) -> QueryResponder {
        let count_viewers = ["/bin/echo", viewers].map(OsString::from).to_vec();
        QueryResponder::new(Audience::Window { count_viewers })
    }

    #[test]
    fn without_viewers_the_answers_come_at_once_and_in_order() {
        for audience in [
            Audience::Nobody,
            Audience::Window { count_viewers: Vec::new() },
            Audience::Window { count_viewers: vec!["/does/not/exist".into()] },
            in_window("0").audience,
            in_window("").audience,
        ] {
            let mut responder = QueryResponder::new(audience);
            let now = clock::now();
            assert_eq!(&responder.filter(b"a\x1b]1", now)[..], b"a");
            assert_eq!(&responder.filter(b"1;?\x07b\x1b[c", now)[..], b"b");
            assert_eq!(responder.deadline(), Some(now));
            let answers = responder.take_answers(|| true, now);
            assert_eq!(answers.unwrap(), [COLOR_ANSWER, ATTRIBUTES_ANSWER].concat());
            assert_eq!((responder.take_answers(|| true, now), responder.deadline()), (None, None));
        }
    }

    #[test]
    fn the_own_terminal_gets_every_question() {
        let mut responder = QueryResponder::new(Audience::OwnStreams);
        let now = clock::now();
        assert_eq!(&responder.filter(b"\x1b]1", now)[..], b"\x1b]1");
        assert_eq!(&responder.filter(COLOR, now)[..], COLOR);
        assert_eq!(responder.deadline(), None);
    }

    #[test]
    fn a_terminal_that_is_seen_answers_or_misses_its_time_once() {
        let mut responder = in_window("1");
        let now = clock::now();
        assert_eq!(&responder.filter(COLOR, now)[..], COLOR);
        responder.handle_input(b"typed");
        assert_eq!(responder.deadline(), Some(now + TERMINAL_LIMIT));
        responder.handle_input(b"\x1b]11;rgb:1/2/3\x07");
        assert_eq!(responder.take_answers(|| true, now + TERMINAL_LIMIT), None, "the terminal has answered");
        responder.filter(COLOR, now);
        assert_eq!(responder.take_answers(|| true, now), None);
        assert_eq!(responder.take_answers(|| true, now + TERMINAL_LIMIT).unwrap(), COLOR_ANSWER);
        // It is not asked for colours again, but for the rest.
        assert_eq!(&responder.filter(COLOR, now)[..], b"");
        assert_eq!(responder.take_answers(|| true, now).unwrap(), COLOR_ANSWER);
        assert_eq!(&responder.filter(ATTRIBUTES, now)[..], ATTRIBUTES);
        assert_eq!(responder.finish(), b"");
        assert_eq!(&responder.filter(COLOR, now)[..], COLOR, "another child");
    }

    #[test]
    fn an_answer_waits_for_its_reader_and_not_for_ever() {
        let mut responder = QueryResponder::new(Audience::Nobody);
        let now = clock::now();
        responder.filter(COLOR, now);
        assert_eq!(responder.take_answers(|| false, now), None);
        assert_eq!(responder.deadline(), Some(now + READER_INTERVAL));
        assert_eq!(responder.take_answers(|| true, now + READER_INTERVAL).unwrap(), COLOR_ANSWER);
        responder.filter(COLOR, now);
        assert_eq!(responder.take_answers(|| false, now + READER_LIMIT), None);
        assert_eq!((responder.take_answers(|| true, now + READER_LIMIT), responder.deadline()), (None, None));
    }

    #[test]
    fn output_that_was_held_back_is_there_at_the_end() {
        let mut responder = QueryResponder::new(Audience::Nobody);
        assert_eq!(&responder.filter(b"a\x1b]11;", clock::now())[..], b"a");
        assert_eq!(responder.finish(), b"\x1b]11;");
    }
}
