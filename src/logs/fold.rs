//! Folds a line as a screen shows it: what a spinner or a progress bar prints over its earlier text replaces that.
//!
//! Only movements within the line count: carriage return, backspace, and the sequences that erase the line (EL) or move
//! the cursor to a column (CHA). A line of output cannot show what a program paints on other lines.

use std::borrow::Cow;
use std::rc::Rc;

use unicode_width::UnicodeWidthChar;

use crate::logs::escape::{Piece, take};

/// The width of the screen in columns. What is longer wraps and stays as it is. Wider than any terminal; bounds the memory.
const SCREEN_WIDTH: usize = 4096;
/// How many bytes of colour sequences in a row are remembered. Programs that never reset their colours send more.
const LONGEST_PAINT: usize = 128;
const BACKSPACE: u8 = 0x08;

/// The text at one column.
#[derive(Debug, Clone, Default)]
struct Cell {
    /// The character and what has no width; empty after a wide character.
    text: Vec<u8>,
    /// The sequences that colour it.
    paint: Rc<Vec<u8>>,
}

/// A row of a screen.
#[derive(Debug, Default)]
struct Screen {
    /// The rows that the text has filled.
    above: Vec<u8>,
    cells: Vec<Cell>,
    /// The column of the cursor.
    at: usize,
    /// The colours of what comes next.
    paint: Rc<Vec<u8>>,
}

/// Returns a line as a screen shows it, with its colours. A line without movements stays as it is, byte for byte, except
/// for carriage returns at its end.
pub(super) fn fold(line: &[u8]) -> Cow<'_, [u8]> {
    // The pseudo-terminal adds a carriage return to each line feed, and a program may have written another one.
    let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    let line = &line[..end];
    if !moves(line) {
        return Cow::Borrowed(line);
    }
    let mut screen = Screen::default();
    let mut rest = line;
    while let Some(piece) = take(&mut rest) {
        match piece {
            Piece::Text(text) => screen.write(text),
            Piece::Color(sequence) => screen.color(sequence),
            Piece::Other(sequence) => screen.control(sequence),
        }
    }
    screen.flush();
    Cow::Owned(screen.above)
}

/// Returns whether a line moves the cursor back.
fn moves(line: &[u8]) -> bool {
    let mut rest = line;
    if rest.iter().any(|byte| matches!(*byte, b'\r' | BACKSPACE)) {
        return true;
    }
    while let Some(piece) = take(&mut rest) {
        if let Piece::Other([0x1b, b'[', .., b'G']) = piece {
            return true;
        }
    }
    false
}

impl Screen {
    fn write(&mut self, text: &[u8]) {
        for chunk in text.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\r' => self.at = 0,
                    '\u{8}' => self.at = self.at.saturating_sub(1),
                    '\t' => self.at += 8 - self.at % 8,
                    _ => self.put(c.encode_utf8(&mut [0; 4]).as_bytes(), c.width().unwrap_or(0)),
                }
            }
            if !chunk.invalid().is_empty() {
                self.put(chunk.invalid(), 1);
            }
        }
    }

    /// Puts a character at the cursor, over what is there.
    fn put(&mut self, text: &[u8], width: usize) {
        if width == 0 {
            // A combining or control character belongs to the one before.
            let before = self.cells.iter_mut().take(self.at).rfind(|cell| !cell.text.is_empty());
            if let Some(cell) = before {
                cell.text.extend_from_slice(text);
            }
            return;
        }
        if self.at + width > SCREEN_WIDTH {
            self.flush();
        }
        let end = self.at + width;
        if self.cells.len() < end {
            self.cells.resize_with(end, Self::blank);
        }
        // The other half of a wide character that is overwritten becomes blank.
        if self.cells.get(end).is_some_and(|cell| cell.text.is_empty()) {
            self.cells[end] = Self::blank();
        }
        if self.cells[self.at].text.is_empty() {
            self.cells[self.at - 1] = Self::blank();
        }
        self.cells[self.at..end].fill_with(Cell::default);
        self.cells[self.at] = Cell { text: text.to_vec(), paint: self.paint.clone() };
        self.at = end;
    }

    fn blank() -> Cell {
        Cell { text: b" ".to_vec(), ..Cell::default() }
    }

    /// Adds a sequence that sets colours. One that resets them replaces those before.
    fn color(&mut self, sequence: &[u8]) {
        let parameters = &sequence[2..sequence.len() - 1];
        let is_reset = parameters.first().is_none_or(|first| *first == b'0');
        let mut paint = if is_reset || self.paint.len() > LONGEST_PAINT { Vec::new() } else { self.paint.to_vec() };
        if !parameters.iter().all(|byte| *byte == b'0') {
            paint.extend_from_slice(sequence);
        }
        self.paint = paint.into();
    }

    /// Executes a sequence that erases in the line or moves to a column; ignores any other.
    fn control(&mut self, sequence: &[u8]) {
        let [0x1b, b'[', parameters @ .., end] = sequence else { return };
        let number = std::str::from_utf8(parameters).ok().and_then(|text| text.parse::<usize>().ok());
        if number.is_none() && !parameters.is_empty() {
            return;
        }
        match (end, number.unwrap_or(0)) {
            (b'K', 0) => self.erase_from(self.at),
            (b'K', 1) => {
                let end = (self.at + 1).min(self.cells.len());
                self.cells[..end].fill_with(Self::blank);
            }
            (b'K', 2) => self.erase_from(0),
            (b'G', column) => self.at = column.clamp(1, SCREEN_WIDTH) - 1,
            _ => {}
        }
    }

    fn erase_from(&mut self, column: usize) {
        self.cells.truncate(column);
    }

    /// Moves the row to those above, and begins another one.
    fn flush(&mut self) {
        let mut paint = Rc::default();
        for cell in self.cells.drain(..) {
            if cell.paint != paint && !cell.text.is_empty() {
                if !paint.is_empty() {
                    self.above.extend_from_slice(b"\x1b[0m");
                }
                self.above.extend_from_slice(&cell.paint);
                paint = cell.paint;
            }
            self.above.extend(cell.text);
        }
        if !paint.is_empty() {
            self.above.extend_from_slice(b"\x1b[0m");
        }
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::escape::strip;
    use proptest::prelude::*;

    fn folded(line: &str) -> String {
        String::from_utf8(fold(line.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn the_last_text_replaces_what_it_covers() {
        for (line, shown) in [
            ("10%\r50%\r100%", "100%"),
            ("building\rdone", "doneding"),
            ("building\rdone\x1b[K", "done"),
            ("building\r\x1b[Kdone", "done"),
            ("building\r\x1b[2Kdone", "done"),
            ("building\r", "building"),
            ("building\r\r", "building"),
            ("a\rb\r", "b"),
            // ora, listr and readline: erase the line, go to its first column.
            ("\x1b[2K\x1b[1G| one\x1b[2K\x1b[1G/ two", "/ two"),
            ("\x1b[2K\x1b[G| three\x1b[2K\x1b[G/ t", "/ t"),
            ("abc\x1b[5Gx", "abc x"),
            ("abc\x1b[1K\rx", "x  "),
            (" 9%\x08\x08\x0810%", "10%"),
            ("\x08a", "a"),
            ("日本\rx", "x 本"),
            ("日本\rab\rx", "xb本"),
            ("abcd\r日", "日cd"),
            ("a日\x08x", "a x"),
            ("e\u{301}\rx", "x"),
            ("a\tb\rxy", "xy      b"),
        ] {
            assert_eq!(folded(line), shown, "{line:?}");
        }
    }

    #[test]
    fn each_character_keeps_its_colour() {
        assert_eq!(folded("\x1b[31mred\x1b[0m\r\x1b[1;32mg"), "\x1b[1;32mg\x1b[0m\x1b[31med\x1b[0m");
        assert_eq!(folded("\x1b[1m\x1b[31mx\x1b[mab\r\x1b[0;32my"), "\x1b[0;32my\x1b[0mab");
        let endless = "\x1b[31m.".repeat(10_000) + "\rx";
        assert!(folded(&endless).len() < 20 * endless.len());
    }

    #[test]
    fn a_line_without_movements_stays_byte_for_byte() {
        for line in [&b"\xff\x00\x1b[31ma\x1b[0m\tb\x1b]0;t\x07"[..], b"", b"\x1b[2Kx", b"\x1b[3Ax"] {
            assert!(matches!(fold(line), Cow::Borrowed(same) if same == line), "{line:?}");
        }
        assert_eq!(*fold(b"\xff\x00a\rb"), *b"ba", "a byte that is no text has a column");
    }

    #[test]
    fn a_text_longer_than_the_screen_wraps() {
        let long = "x".repeat(3 * SCREEN_WIDTH) + "y\rz";
        assert_eq!(folded(&long), "x".repeat(3 * SCREEN_WIDTH) + "z");
    }

    proptest! {
        #[test]
        fn what_was_folded_stays(line in "[ab日\u{301}\t\r\u{8}]{0,20}") {
            let once = folded(&line);
            prop_assert_eq!(folded(&once), once.clone());
        }

        #[test]
        fn no_bytes_break_it(line in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(0x1b), Just(b'['), Just(b'G'), Just(b'K'), Just(0xe6), any::<u8>()], 0..60
        )) {
            let _ = strip(&fold(&line));
        }
    }
}
