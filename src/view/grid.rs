//! `Grid`: rows of cells under headings, fitted to the width of a terminal. Knows nothing of services.

use std::cmp::Reverse;
use std::fmt::Write;

use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::text::printable;

/// The space between two columns.
const GAP: usize = 2;
/// The space before rows that stand below a title.
const INDENT: usize = 2;

/// How a table is formatted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableStyle {
    /// The table contains colours.
    pub(crate) color: bool,
    /// The greatest width in columns; `None` for no limit.
    pub(crate) width: Option<u16>,
    /// The current time, from which ages are computed.
    pub(crate) now: Timestamp,
}

/// What happens to the cells of a column if the grid is too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// They stay whole, or the column is dropped.
    Never,
    /// They lose their end.
    End(Limits),
    /// They lose their start. The end of a path says more.
    Start(Limits),
}

/// How narrow the cells of a column may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// A column that cannot be this wide is dropped.
    pub(super) least: usize,
    /// Columns of lower rank are dropped before this one becomes narrower.
    pub(super) good: usize,
}

/// A column of a grid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    /// If the grid is too wide, the column with the lowest rank is dropped first.
    pub(super) rank: u8,
    pub(super) cut: Cut,
}

/// A cell, and the parameters of the escape sequence that colours it (ECMA-48, SGR); empty for none.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    paint: &'static str,
}

impl Cell {
    pub(super) fn painted(self, paint: &'static str) -> Self {
        Self { paint, ..self }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: printable(&text.to_string()), paint: "" }
    }
}

/// A row of a grid.
#[derive(Debug)]
enum Row {
    /// A separate line above the rows that it names.
    Title(String),
    Cells(Vec<Cell>),
}

/// A table without borders.
#[derive(Debug)]
pub(super) struct Grid {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

impl Grid {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn push_title(&mut self, title: &str) {
        self.rows.push(Row::Title(printable(title)));
    }

    /// Adds a row with one cell for each column.
    pub(super) fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::Cells(cells));
    }

    /// Formats the grid. No line is wider than the terminal. Rows are indented if there are titles.
    pub(super) fn render(&self, style: TableStyle) -> String {
        let limit = style.width.map_or(usize::MAX, usize::from);
        let has_titles = self.rows.iter().any(|row| matches!(row, Row::Title(_)));
        let indent = if has_titles && limit > INDENT { INDENT } else { 0 };
        let widths = self.fit(limit - indent);
        let headings = self.columns.iter().map(|column| Cell::from(column.heading)).collect();
        let mut text = String::new();
        for row in std::iter::once(&Row::Cells(headings)).chain(&self.rows) {
            match row {
                Row::Title(title) => text += &cut_end(title, limit),
                Row::Cells(cells) => text += &self.line(cells, &widths, indent, style.color),
            }
            text.push('\n');
        }
        text
    }

    /// Formats a row. Columns without a width are left out. Colours do not extend to the space between columns.
    fn line(&self, cells: &[Cell], widths: &[Option<usize>], indent: usize, color: bool) -> String {
        let mut line = " ".repeat(indent);
        for ((column, cell), width) in self.columns.iter().zip(cells).zip(widths) {
            let Some(width) = *width else { continue };
            let shown = match column.cut {
                Cut::Start(_) => cut_start(&cell.text, width),
                Cut::Never | Cut::End(_) => cut_end(&cell.text, width),
            };
            let space = (width - shown.width()).saturating_add(GAP);
            if color && !cell.paint.is_empty() {
                let _ = write!(line, "\u{1b}[{}m{shown}\u{1b}[0m", cell.paint);
            } else {
                line += &shown;
            }
            line.extend(std::iter::repeat_n(' ', space));
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// Returns the width of each column; `None` for the columns that are dropped.
    fn fit(&self, limit: usize) -> Vec<Option<usize>> {
        let mut natural: Vec<usize> = self.columns.iter().map(|column| column.heading.width()).collect();
        for row in &self.rows {
            if let Row::Cells(cells) = row {
                natural.iter_mut().zip(cells).for_each(|(width, cell)| *width = cell.text.width().max(*width));
            }
        }
        let limits = |index: usize| match self.columns[index].cut {
            Cut::Never => (natural[index], natural[index]),
            Cut::End(limits) | Cut::Start(limits) => {
                (natural[index].min(limits.least), natural[index].min(limits.good))
            }
        };
        let mut by_rank: Vec<usize> = (0..natural.len()).collect();
        by_rank.sort_by_key(|index| Reverse(self.columns[*index].rank));
        let mut widths = vec![None; natural.len()];
        let mut left = limit.saturating_add(GAP);
        let mut reserved = 0;
        for index in by_rank {
            let is_first = widths.iter().all(Option::is_none);
            let (least, good) = limits(index);
            let width = if is_first { least.min(limit) } else { least };
            if left < reserved + width + GAP {
                break;
            }
            widths[index] = Some(width);
            left -= width + GAP;
            reserved += good.saturating_sub(least);
        }
        let good: Vec<usize> = (0..natural.len()).map(|index| limits(index).1).collect();
        share(&mut widths, &good, &mut left);
        share(&mut widths, &natural, &mut left);
        widths
    }
}

/// Widens the kept columns in turns, up to their wanted widths, as long as there is space left.
fn share(widths: &mut [Option<usize>], wanted: &[usize], left: &mut usize) {
    let mut is_done = false;
    while !is_done {
        is_done = true;
        for (width, wanted) in widths.iter_mut().zip(wanted) {
            if let Some(width) = width.as_mut().filter(|width| **width < *wanted && *left > 0) {
                *width += 1;
                *left -= 1;
                is_done = false;
            }
        }
    }
}

/// Returns a text of at most this width, with `…` in place of what is cut from its end.
pub(super) fn cut_end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let mut left = room;
    let fits = |(_, c): &(usize, char)| take(&mut left, *c);
    let mut kept = text.char_indices().take_while(fits).last().map_or("", |(at, c)| &text[..at + c.len_utf8()]);
    // A sequence of characters, such as an emoji with its variation, may be wider than their sum.
    while kept.width() > room {
        kept = kept.char_indices().last().map_or("", |(at, _)| &kept[..at]);
    }
    format!("{kept}…")
}

/// Returns a text of at most this width, with `…` in place of what is cut from its start.
fn cut_start(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let mut left = room;
    let fits = |(_, c): &(usize, char)| take(&mut left, *c);
    let mut kept = text.char_indices().rev().take_while(fits).last().map_or("", |(at, _)| &text[at..]);
    while kept.width() > room {
        kept = kept.char_indices().nth(1).map_or("", |(at, _)| &kept[at..]);
    }
    format!("…{kept}")
}

/// Takes the width of a character from `left`. Returns whether there was enough.
fn take(left: &mut usize, c: char) -> bool {
    let rest = left.checked_sub(c.width().unwrap_or(0));
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a text without the escape sequences of colours.
    pub(crate) fn without_colors(text: &str) -> String {
        String::from_utf8(crate::logs::strip(text.as_bytes())).unwrap()
    }

    pub(crate) fn style(color: bool, width: Option<u16>) -> TableStyle {
        TableStyle { color, width, now: Timestamp::UNIX_EPOCH }
    }

    fn grid() -> Grid {
        let column = |heading, rank, cut| Column { heading, rank, cut };
        let limits = |least, good| Limits { least, good };
        let mut grid = Grid::new(vec![
            column("NAME", 9, Cut::End(limits(6, 6))),
            column("PATH", 2, Cut::Start(limits(6, 6))),
            column("PID", 1, Cut::Never),
            column("COMMAND", 3, Cut::End(limits(8, 10))),
        ]);
        grid.push(vec![Cell::from("web").painted("1"), "/a/b/c/d".into(), 7.into(), "npm run dev".into()]);
        grid.push(vec![
            Cell::from("日本語日本語").painted("1"),
            "/a".into(),
            12345.into(),
            Cell::from("x\n").painted("31"),
        ]);
        grid
    }

    #[test]
    fn columns_stand_under_their_headings_with_and_without_colours() {
        let plain = grid().render(style(false, None));
        assert_eq!(
            plain,
            "NAME          PATH      PID    COMMAND\nweb           /a/b/c/d  7      npm run dev\n日本語日本語  /a        12345  x\\n\n"
        );
        for width in [None, Some(38), Some(30), Some(20), Some(9)] {
            let colored = grid().render(style(true, width));
            assert!(colored.contains("\u{1b}[1mweb\u{1b}[0m"), "{colored}");
            assert_eq!(without_colors(&colored), grid().render(style(false, width)));
        }
    }

    #[test]
    fn a_narrow_grid_loses_its_least_important_columns_and_cells_are_cut() {
        let at = |width| grid().render(style(false, Some(width)));
        assert_eq!(
            at(33),
            "NAME    PATH    PID    COMMAND\nweb     …b/c/d  7      npm run d…\n日本…   /a      12345  x\\n\n"
        );
        // PID would leave too little of COMMAND.
        assert_eq!(at(31), "NAME      PATH      COMMAND\nweb       /a/b/c/d  npm run dev\n日本語…   /a        x\\n\n");
        assert_eq!(at(23), "NAME        COMMAND\nweb         npm run dev\n日本語日…   x\\n\n");
        assert_eq!(at(10), "NAME\nweb\n日本語日…\n");
        assert_eq!(at(1), "…\n…\n…\n");
    }

    #[test]
    fn rows_are_indented_below_titles() {
        let mut grid = Grid::new(vec![Column { heading: "NAME", rank: 0, cut: Cut::Never }]);
        grid.push_title("~/shop");
        grid.push(vec!["web".into()]);
        assert_eq!(grid.render(style(false, Some(6))), "  NAME\n~/shop\n  web\n");
        assert_eq!(grid.render(style(false, Some(5))), "  NA…\n~/sh…\n  web\n");
        assert_eq!(grid.render(style(false, None)), "  NAME\n~/shop\n  web\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            cells in proptest::collection::vec(proptest::collection::vec(any::<String>(), 4), 0..5),
            width in 1_u16..80,
            has_title in any::<bool>(),
        ) {
            let mut grid = grid();
            if has_title {
                grid.push_title("a title that is rather long");
            }
            for row in cells {
                grid.push(row.into_iter().map(Cell::from).collect());
            }
            for line in grid.render(style(false, Some(width))).lines() {
                prop_assert!(line.width() <= usize::from(width), "{line:?}");
            }
        }
    }
}
