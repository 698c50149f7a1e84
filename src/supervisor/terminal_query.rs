//! `QueryScanner`: finds the queries that a program sends to its terminal, in the program's output. Pure.
//!
//! A query is an escape sequence, and the terminal's response arrives as input. Only the queries that almost every
//! terminal responds to are found.

/// A query to the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The escape sequence.
    pub(super) text: &'static [u8],
    /// The response of a terminal with white text on black and no special capabilities.
    pub(super) response: &'static [u8],
    /// Whether it is for a colour. Not every terminal responds to that.
    pub(super) is_color: bool,
}

/// The queries that are found. A response ends as its query does: with BEL or ST ("OSC Ps ; Pt" in xterm's ctlseqs).
/// `CSI c` is "Send Device Attributes (Primary DA)" there.
static QUERIES: [Query; 6] = [
    color(b"\x1b]10;?\x07", b"\x1b]10;rgb:ffff/ffff/ffff\x07"),
    color(b"\x1b]10;?\x1b\\", b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\"),
    color(b"\x1b]11;?\x07", b"\x1b]11;rgb:0000/0000/0000\x07"),
    color(b"\x1b]11;?\x1b\\", b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
    attributes(b"\x1b[c"),
    attributes(b"\x1b[0c"),
];

const fn color(text: &'static [u8], response: &'static [u8]) -> Query {
    Query { text, response, is_color: true }
}

const fn attributes(text: &'static [u8]) -> Query {
    // A VT100 with the advanced video option, like the response of tmux.
    Query { text, response: b"\x1b[?1;2c", is_color: false }
}

/// The byte that begins every query.
pub(super) const ESCAPE: u8 = 0x1b;

/// A part of a program's output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes that are no query.
    Output(Vec<u8>),
    Query(&'static Query),
}

/// Splits output into queries and the rest, also if a query arrives in several reads. Nothing is lost or changed.
#[derive(Debug, Default)]
pub(super) struct QueryScanner {
    /// The beginning of a sequence that may become a query. Shorter than the longest query.
    held: Vec<u8>,
    /// Whether the last byte before `held` was an escape. Doubled ones belong to a sequence that is wrapped in another
    /// one, such as a query through tmux to the terminal outside (`allow-passthrough` in tmux(1)).
    is_after_escape: bool,
}

impl QueryScanner {
    /// Scans the next bytes. The end of the output may be held back until it is known whether it begins a query.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let [first, rest @ ..] = bytes {
            if self.held.is_empty() && (*first != ESCAPE || self.is_after_escape) {
                let next = rest.iter().position(|byte| *byte == ESCAPE).map_or(bytes.len(), |at| at + 1);
                self.pass(&bytes[..next], &mut pieces);
                bytes = &bytes[next..];
            } else {
                self.extend(*first, &mut pieces);
                bytes = rest;
            }
        }
        pieces
    }

    /// Returns what is still held back, because the output has ended.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(self).held
    }

    /// Returns whether this output has no query and nothing is held back, without scanning further than that needs.
    pub(super) fn is_plain(&self, bytes: &[u8]) -> bool {
        self.held.is_empty() && !self.is_after_escape && !bytes.contains(&ESCAPE)
    }

    /// Adds a byte to what may become a query.
    fn extend(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        self.held.push(byte);
        if let Some(query) = QUERIES.iter().find(|query| query.text == self.held) {
            self.held.clear();
            pieces.push(Piece::Query(query));
            return;
        }
        if QUERIES.iter().any(|query| query.text.starts_with(&self.held)) {
            return;
        }
        let held = std::mem::take(&mut self.held);
        // An escape inside aborts the sequence before it and begins another one.
        match held.iter().skip(1).position(|byte| *byte == ESCAPE).map(|at| at + 1) {
            Some(at) if held[at - 1] != ESCAPE => {
                self.pass(&held[..at], pieces);
                for byte in &held[at..] {
                    self.extend(*byte, pieces);
                }
            }
            _ => self.pass(&held, pieces),
        }
    }

    /// Appends bytes that are no query to the pieces.
    fn pass(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        self.is_after_escape = bytes.last() == Some(&ESCAPE);
        match pieces.last_mut() {
            Some(Piece::Output(output)) => output.extend_from_slice(bytes),
            _ => pieces.push(Piece::Output(bytes.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scans output in parts. Returns the bytes without the queries, the queries, and the bytes with them.
    fn scan<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<&'static [u8]>, Vec<u8>) {
        let mut scanner = QueryScanner::default();
        let (mut output, mut queries, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut pieces: Vec<Piece> = parts.into_iter().flat_map(|part| scanner.push(part)).collect();
        pieces.push(Piece::Output(scanner.finish()));
        for piece in pieces {
            match piece {
                Piece::Output(bytes) => {
                    output.extend_from_slice(&bytes);
                    all.extend_from_slice(&bytes);
                }
                Piece::Query(query) => {
                    queries.push(query.text);
                    all.extend_from_slice(query.text);
                }
            }
        }
        (output, queries, all)
    }

    #[test]
    fn queries_are_found_between_other_output_and_everything_else_passes() {
        let none: [&[u8]; 0] = [];
        for (output, rest, queries) in [
            (&b"a\x1b]10;?\x07b"[..], &b"ab"[..], &[&b"\x1b]10;?\x07"[..]][..]),
            (b"\x1b]11;?\x1b\\\x1b[c", b"", &[b"\x1b]11;?\x1b\\", b"\x1b[c"]),
            (b"\x1b[0c\x1b[31mred\x1b[m", b"\x1b[31mred\x1b[m", &[b"\x1b[0c"]),
            // An unfinished query, then a whole one.
            (b"\x1b]10;?\x1b]11;?\x07", b"\x1b]10;?", &[b"\x1b]11;?\x07"]),
            (b"\x1b[\x1b[c", b"\x1b[", &[b"\x1b[c"]),
            // Other sequences of the same kind: set a colour, secondary attributes, forward by a column, a title.
            (b"\x1b]10;#fff\x07\x1b[>c\x1b[1c\x1b]0;?\x07", b"\x1b]10;#fff\x07\x1b[>c\x1b[1c\x1b]0;?\x07", &none),
            // A query to the terminal around tmux is no query to tmux.
            (b"\x1bPtmux;\x1b\x1b]11;?\x07\x1b\\", b"\x1bPtmux;\x1b\x1b]11;?\x07\x1b\\", &none),
            // The output ends within a query.
            (b"x\x1b]11;?\x1b", b"x\x1b]11;?\x1b", &none),
        ] {
            let found = scan([output]);
            assert_eq!((&found.0[..], &found.1[..]), (rest, queries), "{}", output.escape_ascii());
        }
    }

    #[test]
    fn output_is_held_back_only_while_it_may_begin_a_query() {
        let mut scanner = QueryScanner::default();
        assert_eq!(scanner.push(b"prompt> \x1b[3"), [Piece::Output(b"prompt> \x1b[3".to_vec())]);
        assert_eq!(scanner.push(b"\x1b]1"), []);
        assert_eq!(scanner.push(b"2;?\x07"), [Piece::Output(b"\x1b]12;?\x07".to_vec())]);
        assert!(scanner.is_plain(b"text") && !scanner.is_plain(b"\x1b"));
        scanner.push(b"\x1b");
        assert!(!scanner.is_plain(b"]11;?\x07"));
    }

    #[test]
    fn a_response_ends_as_its_query_does() {
        for query in &QUERIES {
            assert!(query.text.last() == query.response.last() && query.response.starts_with(&query.text[..2]));
        }
    }

    /// Output that is full of parts of queries, and of `queries` whole ones per ten parts.
    fn any_output(queries: u32) -> impl Strategy<Value = Vec<u8>> {
        let fragments: Vec<&[u8]> = vec![
            b"\x1b", b"]", b"[", b"10", b"11", b"1", b"0", b";?", b"?", b"\x07", b"\\", b"\x1b\\", b"c", b"\n", b"\xc3",
        ];
        let fragment = prop_oneof![
            8 => proptest::sample::select(fragments).prop_map(<[u8]>::to_vec),
            queries => (0..QUERIES.len()).prop_map(|index| QUERIES[index].text.to_vec()),
            2 => proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(fragment, 0..30).prop_map(|fragments| fragments.concat())
    }

    proptest! {
        #[test]
        fn splits_change_nothing_and_no_byte_is_lost(
            output in any_output(4),
            splits in proptest::collection::vec(0_usize..200, 0..12)
        ) {
            let whole = scan([&output[..]]);
            prop_assert_eq!(&whole.2, &output);
            let mut splits: Vec<usize> = splits.into_iter().map(|at| at.min(output.len())).collect();
            splits.extend([0, output.len()]);
            splits.sort_unstable();
            let parts = splits.windows(2).map(|ends| &output[ends[0]..ends[1]]);
            prop_assert_eq!(scan(parts), whole);
        }

        #[test]
        fn output_without_a_query_is_unchanged(output in any_output(0)) {
            let has_query =
                QUERIES.iter().any(|query| output.windows(query.text.len()).any(|part| part == query.text));
            prop_assume!(!has_query);
            let (rest, queries, _) = scan([&output[..]]);
            prop_assert_eq!(rest, output);
            prop_assert!(queries.is_empty());
        }
    }
}
