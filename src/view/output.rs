//! Lines of logs for people and programs: colours where they are seen, nothing that could move the cursor.

use serde::Serialize;

use crate::logs::{self, Content, Line};
use crate::text::printable;

/// How lines of a service's log shall look.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineStyle {
    /// What stands in front of each, such as `api | `.
    pub(crate) prefix: String,
    /// Whether it is for a terminal: colours are kept there, and whatever else could act on it is not.
    pub(crate) terminal: bool,
    /// Whether the time stands in front of each.
    pub(crate) timestamps: bool,
}

/// Appends a line, with its end.
pub(crate) fn push_line(text: &mut Vec<u8>, line: &Line, look: &LineStyle) {
    text.extend_from_slice(look.prefix.as_bytes());
    if let (true, Some(at)) = (look.timestamps, line.at) {
        text.extend_from_slice(format!("{at:.3} ").as_bytes());
    }
    match &line.content {
        Content::Output(output) if look.terminal => text.extend_from_slice(logs::for_terminal(output).as_bytes()),
        Content::Output(output) => text.extend(logs::strip(output)),
        Content::Mark(mark) => {
            let at = line.at.map(|at| format!("{at:.3} ")).unwrap_or_default();
            // A note may quote a name or a path with control characters.
            text.extend_from_slice(format!("--- {at}{}", printable(&mark.to_string())).as_bytes());
        }
    }
    text.push(b'\n');
}

/// A line as a program reads it.
#[derive(Serialize)]
struct JsonLine<'a> {
    /// When it was written.
    time: Option<jiff::Timestamp>,
    /// The service's name.
    service: &'a str,
    /// Which run wrote it.
    run: u64,
    /// What it says, without colours.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<String>,
    /// A word of devport's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
}

/// Appends a line as a JSON object, with its end.
pub(crate) fn push_json(text: &mut Vec<u8>, line: &Line, service: &str) {
    let (output, event) = match &line.content {
        Content::Output(output) => (Some(String::from_utf8_lossy(&logs::strip(output)).into_owned()), None),
        Content::Mark(mark) => (None, Some(mark.to_string())),
    };
    let object = JsonLine { time: line.at, service, run: line.run, line: output, event };
    text.extend(serde_json::to_vec(&object).unwrap_or_default());
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Mark;

    #[test]
    fn a_mark_cannot_move_the_cursor() {
        let content = Content::Mark(Mark::Note("in d\u{1b}[31m\u{9b}2J\u{7} é".into()));
        for terminal in [false, true] {
            let mut text = Vec::new();
            let line = Line { at: None, run: 1, content: content.clone() };
            push_line(&mut text, &line, &LineStyle { terminal, ..LineStyle::default() });
            assert_eq!(String::from_utf8(text).unwrap(), "--- in d\\u{1b}[31m\\u{9b}2J\\u{7} é\n");
        }
    }
}
