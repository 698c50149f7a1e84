//! Text from outside that devport prints: keys, paths, commands, messages of other programs.
//!
//! A terminal acts on control characters, and some Unicode characters hide or reorder text. The name of a directory or
//! a process may contain them, so everything that devport prints goes through [`printable`].

/// How many characters of a text a message shows: one line of a terminal.
const LONGEST_SHOWN: usize = 80;

/// Returns a text that a terminal only displays: control characters (C0, DEL and C1, line breaks included) and
/// characters that hide or reorder text become escapes such as `\u{1b}`.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_deceptive(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Returns whether Unicode has a character to hide, break or reorder text: soft hyphen, zero-width characters, line and
/// paragraph separators, bidirectional marks, overrides and isolates (UAX #9). The zero-width joiners U+200C and U+200D
/// are not among them: emoji and several scripts need them.
pub(crate) fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Returns the beginning of a text that is too long for a message, with `…` at its end.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_and_bidi_overrides_are_escaped() {
        for (text, shown) in [
            ("a\u{1b}[31m", "a\\u{1b}[31m"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}2J\u{85}\u{7f}", "\\u{9b}2J\\u{85}\\u{7f}"),
            ("one\ntwo\r\tthree\0", "one\\ntwo\\r\\tthree\\u{0}"),
            ("a\u{202e}b\u{2066}c\u{200f}d", "a\\u{202e}b\\u{2066}c\\u{200f}d"),
            ("a\u{200b}b\u{feff}c\u{2028}d", "a\\u{200b}b\\u{feff}c\\u{2028}d"),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(printable(shown), shown, "escaped twice");
        }
        for text in ["", "plain", "é ü 日本語", "C:\\n", "👩\u{200d}💻", "שלום"] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(shorten(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(shorten(&"é".repeat(81)), "é".repeat(80) + "…");
    }

    proptest! {
        #[test]
        fn no_printable_text_has_a_character_that_a_terminal_acts_on(text in any::<String>()) {
            prop_assert!(printable(&text).chars().all(|c| !c.is_control() && !is_deceptive(c)));
        }
    }
}
