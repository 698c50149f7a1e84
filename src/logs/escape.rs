//! Removes escape sequences from output, or keeps those that only set colours.

/// A piece of output.
pub(super) enum Piece<'a> {
    /// Text and control characters outside of sequences.
    Text(&'a [u8]),
    /// A sequence that only sets colours.
    Color(&'a [u8]),
    /// Any other sequence, or an unfinished one.
    Other(&'a [u8]),
}

/// The bytes that cancel a sequence: CAN and SUB (ECMA-48, 8.3.13 and 8.3.148).
const CANCEL: [u8; 2] = [0x18, 0x1a];
/// The byte that begins a sequence and aborts the previous one.
const ESCAPE: u8 = 0x1b;

/// Splits off the first piece; `None` at the end (ECMA-48, 5.3 to 5.6).
pub(super) fn take<'a>(output: &mut &'a [u8]) -> Option<Piece<'a>> {
    let all = *output;
    let [first, ..] = all else { return None };
    if *first != ESCAPE {
        let end = all.iter().position(|byte| *byte == ESCAPE).unwrap_or(all.len());
        *output = &all[end..];
        return Some(Piece::Text(&all[..end]));
    }
    // A sequence ends after its final byte or a cancelling byte, and before the next sequence.
    let find = |ends: &dyn Fn(u8) -> bool| {
        let stops = |byte: &u8| *byte == ESCAPE || CANCEL.contains(byte) || ends(*byte);
        let at = all.iter().skip(2).position(stops).map_or(all.len(), |at| at + 2);
        if all.get(at).is_some_and(|byte| *byte != ESCAPE) { at + 1 } else { at }
    };
    let (end, is_color) = match all.get(1) {
        Some(b'[') => {
            let end = find(&|byte| (0x40..=0x7e).contains(&byte));
            let parameters = all.get(2..end - 1).unwrap_or_default();
            let plain = parameters.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'));
            (end, plain && end > 2 && all[end - 1] == b'm')
        }
        // Strings, which end with a terminator: titles, links, private data.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let end = find(&|byte| byte == 0x07);
            (if all[end..].starts_with(&[ESCAPE, b'\\']) { end + 2 } else { end }, false)
        }
        // Sequences with intermediate bytes and one final byte.
        Some(0x20..=0x2f) => (find(&|byte| !(0x20..=0x2f).contains(&byte)), false),
        Some(&ESCAPE) | None => (1, false),
        Some(_) => (2, false),
    };
    *output = &all[end..];
    Some(if is_color { Piece::Color(&all[..end]) } else { Piece::Other(&all[..end]) })
}

/// Returns output without escape sequences. Every other byte stays, even if it is not UTF-8.
pub(crate) fn strip(mut output: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(output.len());
    while let Some(piece) = take(&mut output) {
        if let Piece::Text(text) = piece {
            kept.extend_from_slice(text);
        }
    }
    kept
}

/// Returns output as text for programs: without escape sequences, and with U+FFFD for what is not UTF-8.
pub(crate) fn plain(output: &[u8]) -> String {
    String::from_utf8_lossy(&strip(output)).into_owned()
}

/// Returns output that is safe on another terminal. Colours stay and are reset at the end; other sequences and control
/// characters, which could move the cursor or rename the window, are removed.
pub(crate) fn for_terminal(mut output: &[u8]) -> String {
    let mut kept = String::with_capacity(output.len());
    let mut colored = false;
    while let Some(piece) = take(&mut output) {
        match piece {
            Piece::Text(text) => {
                kept.extend(String::from_utf8_lossy(text).chars().filter(|c| *c == '\t' || !c.is_control()));
            }
            Piece::Color(sequence) => {
                kept += &String::from_utf8_lossy(sequence);
                colored = true;
            }
            Piece::Other(_) => {}
        }
    }
    if colored {
        kept += "\u{1b}[0m";
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_terminal_gets_colours_and_nothing_else() {
        let shown = |text: &str| for_terminal(text.as_bytes());
        assert_eq!(shown("\u{1b}[1;31mred\u{1b}[0m"), "\u{1b}[1;31mred\u{1b}[0m\u{1b}[0m");
        assert_eq!(shown("\u{1b}[2J\u{1b}[10;10Hx\u{1b}]0;title\u{7}y\u{1b}(Bz\u{9b}5m\r\u{8}\u{0}"), "xyz5m");
        assert_eq!(shown("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\"), "link");
        assert_eq!(shown("a\tb é"), "a\tb é");
        assert_eq!(for_terminal(b"\xff"), "\u{fffd}");
        for begun in ["\u{1b}", "\u{1b}[", "\u{1b}[31", "\u{1b}]x", "\u{1b}("] {
            assert_eq!(shown(begun), "", "{begun:?}");
        }
    }

    #[test]
    fn a_sequence_ends_where_another_begins_or_it_is_cancelled() {
        assert_eq!(strip(b"\x1b[31\x1b[0mred"), b"red");
        assert_eq!(for_terminal(b"\x1b[2\x1b[31mred"), "\u{1b}[31mred\u{1b}[0m");
        for text in
            [&b"\x1b\x1b[31mred"[..], b"\x1b]title\x1b[0mred", b"\x1b(\x1b(Bred", b"\x1b[3\x18red", b"\x1b]0\x1ared"]
        {
            assert_eq!(strip(text), b"red", "{text:?}");
        }
    }

    #[test]
    fn a_pipe_gets_every_byte_that_is_no_sequence() {
        assert_eq!(strip(b"\x1b[1;31mred\x1b[0m \xff\t\x1e\x00y"), b"red \xff\t\x1e\x00y");
    }

    proptest! {
        #[test]
        fn no_output_leaves_a_control_character_for_a_terminal(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let shown = for_terminal(&bytes);
            let without_colours = String::from_utf8(strip(shown.as_bytes())).unwrap();
            prop_assert!(without_colours.chars().all(|c| c == '\t' || !c.is_control()), "{shown:?}");
        }
    }
}
