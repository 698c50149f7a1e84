//! `QueryResponder`: decides who responds to the queries that a program sends to its terminal: the terminal, or devport
//! if no user sees it. A program without a response waits, some for 10 seconds. Pure: times, the visibility of a window and
//! the mode of a terminal come from the caller.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::supervisor::audience::{Audience, Visibility};
use crate::supervisor::terminal_query::{ESCAPE, Piece, Query, QueryScanner};

/// How long a window counts as visible, or not, without another probe: programs send several queries in a row.
const VISIBILITY_AGE: Duration = Duration::from_secs(1);
/// How long a terminal may take to respond before devport does. tmux responds by itself, within milliseconds.
/// tmux 3.3a was seen to respond to a query for a colour only if its option `window-style` sets that colour.
const TERMINAL_LIMIT: Duration = Duration::from_millis(150);
/// How long a response waits for its reader: some programs send the query before they switch off the terminal's echo.
const READER_LIMIT: Duration = Duration::from_millis(100);
/// The time between attempts to write a response: programs that switch off the echo do so at once.
const READER_INTERVAL: Duration = Duration::from_millis(5);

/// Responds to queries in place of a terminal.
#[derive(Debug)]
pub(super) struct QueryResponder {
    audience: Audience,
    scanner: QueryScanner,
    /// The last result of a probe of the window.
    visibility: Option<Visibility>,
    /// Whether the terminal did not respond to a query for a colour in time.
    ignores_color_queries: bool,
    /// The queries that the terminal has not responded to yet, and its deadline.
    awaited: Vec<&'static Query>,
    awaited_until: Option<Instant>,
    /// Responses that wait for their reader, since when, and when the next attempt is due.
    responses: Vec<u8>,
    responses_since: Option<Instant>,
    next_attempt: Option<Instant>,
}

impl QueryResponder {
    /// Creates the responder of a service whose child is not started yet.
    pub(super) fn new(audience: Audience) -> Self {
        Self {
            audience,
            scanner: QueryScanner::default(),
            visibility: None,
            ignores_color_queries: false,
            awaited: Vec::new(),
            awaited_until: None,
            responses: Vec::new(),
            responses_since: None,
            next_attempt: None,
        }
    }

    /// Takes output of the child's terminal. Returns what to show of it: all but the queries that devport responds to.
    /// `probe` finds out whether a terminal shows the output; it is called only for a query in a window.
    pub(super) fn filter<'a>(
        &mut self,
        bytes: &'a [u8],
        now: Instant,
        probe: fn(&Audience) -> Visibility,
    ) -> Cow<'a, [u8]> {
        if matches!(self.audience, Audience::OwnStreams) || self.scanner.is_plain(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut shown = Vec::with_capacity(bytes.len());
        for piece in self.scanner.push(bytes) {
            match piece {
                Piece::Output(output) => shown.extend_from_slice(&output),
                Piece::Query(query) => {
                    let is_left = self.is_left_to_terminal(query, now, probe);
                    // A probe in between has taken time.
                    let now = self.visibility.map_or(now, |visibility| visibility.at.max(now));
                    if is_left {
                        shown.extend_from_slice(query.text);
                        self.awaited.push(query);
                        self.awaited_until = Some(now + TERMINAL_LIMIT);
                    } else {
                        self.respond(query, now);
                    }
                }
            }
        }
        Cow::Owned(shown)
    }

    /// Returns the output that was held back. Call it when the child has exited.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let held = self.scanner.finish();
        self.ignores_color_queries = false;
        (self.awaited, self.awaited_until) = (Vec::new(), None);
        self.forget_responses();
        held
    }

    /// Takes note of input from the terminal.
    pub(super) fn handle_input(&mut self, bytes: &[u8]) {
        // A terminal may respond to one kind of query and not to the other. A response may arrive in several parts.
        let is_cut = bytes.last() == Some(&ESCAPE);
        let begins = |kind: u8| is_cut || bytes.windows(2).any(|two| two == [ESCAPE, kind]);
        let (is_color, is_attributes) = (begins(b']'), begins(b'['));
        self.awaited.retain(|query| if query.is_color { !is_color } else { !is_attributes });
        if self.awaited.is_empty() {
            self.awaited_until = None;
        }
    }

    /// Returns when [`Self::take_responses`] is due; `None` if no response is pending.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.awaited_until, self.next_attempt].into_iter().flatten().min()
    }

    /// Returns the responses to write to the child's terminal now. `can_read` says whether the terminal is in the mode in
    /// which programs read responses. In any other mode it would echo them, or add them to the next line of input.
    pub(super) fn take_responses(&mut self, can_read: impl Fn() -> bool, now: Instant) -> Option<Vec<u8>> {
        if self.awaited_until.is_some_and(|until| until <= now) {
            self.awaited_until = None;
            for query in std::mem::take(&mut self.awaited) {
                self.ignores_color_queries |= query.is_color;
                self.respond(query, now);
            }
        }
        let since = self.responses_since?;
        if can_read() {
            let responses = std::mem::take(&mut self.responses);
            self.forget_responses();
            return Some(responses);
        }
        if now >= since + READER_LIMIT {
            self.forget_responses();
        } else {
            self.next_attempt = Some(now + READER_INTERVAL);
        }
        None
    }

    /// Appends the response of devport to the pending ones.
    fn respond(&mut self, query: &Query, now: Instant) {
        self.responses.extend_from_slice(query.response);
        self.responses_since = Some(now);
        self.next_attempt = Some(now);
    }

    fn forget_responses(&mut self) {
        self.responses.clear();
        (self.responses_since, self.next_attempt) = (None, None);
    }

    /// Returns whether a user sees the terminal, and the terminal responds to such queries as far as is known.
    fn is_left_to_terminal(&mut self, query: &Query, now: Instant, probe: fn(&Audience) -> Visibility) -> bool {
        let is_window = matches!(self.audience, Audience::Window { .. });
        if !is_window || (query.is_color && self.ignores_color_queries) {
            return false;
        }
        let known = self.visibility.filter(|known| now.saturating_duration_since(known.at) < VISIBILITY_AGE);
        let visibility = known.unwrap_or_else(|| probe(&self.audience));
        self.visibility = Some(visibility);
        visibility.is_visible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;

    const COLOR: &[u8] = b"\x1b]11;?\x07";
    const COLOR_RESPONSE: &[u8] = b"\x1b]11;rgb:0000/0000/0000\x07";
    const ATTRIBUTES: &[u8] = b"\x1b[c";
    const ATTRIBUTES_RESPONSE: &[u8] = b"\x1b[?1;2c";

    fn in_window() -> QueryResponder {
        QueryResponder::new(Audience::Window { count_viewers: Vec::new() })
    }

    fn visible(_: &Audience) -> Visibility {
        Visibility { at: clock::now(), is_visible: true }
    }

    fn hidden(_: &Audience) -> Visibility {
        Visibility { at: clock::now(), is_visible: false }
    }

    #[test]
    fn without_viewers_devport_responds_at_once_and_in_order() {
        for mut responder in [QueryResponder::new(Audience::LogOnly), in_window()] {
            let now = clock::now();
            assert_eq!(&responder.filter(b"a\x1b]1", now, hidden)[..], b"a");
            assert_eq!(&responder.filter(b"1;?\x07b\x1b[c", now, hidden)[..], b"b");
            let due = responder.deadline().unwrap();
            assert!((now..=clock::now()).contains(&due));
            let responses = responder.take_responses(|| true, now);
            assert_eq!(responses.unwrap(), [COLOR_RESPONSE, ATTRIBUTES_RESPONSE].concat());
            assert_eq!((responder.take_responses(|| true, now), responder.deadline()), (None, None));
        }
    }

    #[test]
    fn the_users_own_terminal_gets_every_query() {
        let mut responder = QueryResponder::new(Audience::OwnStreams);
        let now = clock::now();
        assert_eq!(&responder.filter(b"\x1b]1", now, hidden)[..], b"\x1b]1");
        assert_eq!(&responder.filter(COLOR, now, hidden)[..], COLOR);
        assert_eq!(responder.deadline(), None);
    }

    #[test]
    fn a_visible_terminal_responds_or_misses_its_deadline_once() {
        let mut responder = in_window();
        let now = clock::now();
        assert_eq!(&responder.filter(COLOR, now, visible)[..], COLOR);
        responder.handle_input(b"typed");
        // The time of the probe does not shorten the terminal's time.
        let due = responder.deadline().unwrap();
        assert!(due >= now + TERMINAL_LIMIT);
        responder.handle_input(b"\x1b]11;rgb:1/2/3\x07");
        assert_eq!(responder.take_responses(|| true, due), None, "the terminal has responded");
        responder.filter(COLOR, now, visible);
        assert_eq!(responder.take_responses(|| true, now), None);
        assert_eq!(responder.take_responses(|| true, due).unwrap(), COLOR_RESPONSE);
        // It gets no more queries for colours, but the others.
        assert_eq!(&responder.filter(COLOR, now, visible)[..], b"");
        assert_eq!(responder.take_responses(|| true, now).unwrap(), COLOR_RESPONSE);
        assert_eq!(&responder.filter(ATTRIBUTES, now, visible)[..], ATTRIBUTES);
        assert_eq!(responder.finish(), b"");
        assert_eq!(&responder.filter(COLOR, now, visible)[..], COLOR, "another child");
    }

    #[test]
    fn a_terminal_that_reports_its_attributes_may_still_owe_its_colors() {
        let mut responder = in_window();
        let now = clock::now();
        responder.filter(&[COLOR, ATTRIBUTES].concat(), now, visible);
        let due = responder.deadline().unwrap();
        responder.handle_input(b"\x1b[?1;2c");
        assert_eq!(responder.take_responses(|| true, due).unwrap(), COLOR_RESPONSE);
    }

    #[test]
    fn a_response_waits_for_its_reader_up_to_a_limit() {
        let mut responder = QueryResponder::new(Audience::LogOnly);
        let now = clock::now();
        responder.filter(COLOR, now, hidden);
        assert_eq!(responder.take_responses(|| false, now), None);
        assert_eq!(responder.deadline(), Some(now + READER_INTERVAL));
        assert_eq!(responder.take_responses(|| true, now + READER_INTERVAL).unwrap(), COLOR_RESPONSE);
        responder.filter(COLOR, now, hidden);
        assert_eq!(responder.take_responses(|| false, now + READER_LIMIT), None);
        assert_eq!((responder.take_responses(|| true, now + READER_LIMIT), responder.deadline()), (None, None));
    }

    #[test]
    fn output_that_was_held_back_is_returned_at_the_end() {
        let mut responder = QueryResponder::new(Audience::LogOnly);
        assert_eq!(&responder.filter(b"a\x1b]11;", clock::now(), hidden)[..], b"a");
        assert_eq!(responder.finish(), b"\x1b]11;");
    }
}
