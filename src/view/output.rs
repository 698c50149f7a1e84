//! Formats lines of logs for people and programs. Colours are kept on a terminal; other control characters are removed.

use serde::Serialize;

use crate::logs::{self, Content, Line};
use crate::text::printable;

/// How the lines of a service's log are formatted.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineStyle {
    /// The text before each line, such as `api | `.
    pub(crate) prefix: String,
    /// The reader is a terminal: colours are kept, and all other escape sequences are removed.
    pub(crate) is_terminal: bool,
    /// The time of each line is printed before it.
    pub(crate) has_timestamps: bool,
}

/// Appends a line for people, with a newline.
pub(crate) fn push_line(text: &mut Vec<u8>, line: &Line, style: &LineStyle) {
    text.extend_from_slice(style.prefix.as_bytes());
    if let (true, Some(at)) = (style.has_timestamps, line.at) {
        text.extend_from_slice(format!("{at:.3} ").as_bytes());
    }
    match &line.content {
        Content::Output(output) => push_output(text, output, style),
        Content::Mark(mark) => {
            let at = line.at.map(|at| format!("{at:.3} ")).unwrap_or_default();
            // A note may quote a path that contains control characters.
            text.extend_from_slice(format!("--- {at}{}", printable(&mark.to_string())).as_bytes());
        }
    }
    text.push(b'\n');
}

/// Appends a line of output for people, without a newline: on a terminal with its colours.
pub(crate) fn push_output(text: &mut Vec<u8>, output: &[u8], style: &LineStyle) {
    if style.is_terminal {
        text.extend_from_slice(logs::for_terminal(output).as_bytes());
    } else {
        text.extend(logs::strip(output));
    }
}

/// A line of a log as JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: Option<jiff::Timestamp>,
    service: &'a str,
    /// The number of the run that wrote the line.
    run: u64,
    /// The output without escape sequences; `None` if the line is a marker.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<String>,
    /// The text of a marker that devport wrote; `None` if the line is output.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
}

/// Appends a line as a JSON object, with a newline.
pub(crate) fn push_json(text: &mut Vec<u8>, line: &Line, service: &str) {
    let (output, event) = match &line.content {
        Content::Output(output) => (Some(logs::plain(output)), None),
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
    fn control_characters_in_a_marker_are_escaped() {
        let content = Content::Mark(Mark::Note("in d\u{1b}[31m\u{9b}2J\u{7} é".into()));
        for is_terminal in [false, true] {
            let mut text = Vec::new();
            let line = Line { at: None, run: 1, content: content.clone() };
            push_line(&mut text, &line, &LineStyle { is_terminal, ..LineStyle::default() });
            assert_eq!(String::from_utf8(text).unwrap(), "--- in d\\u{1b}[31m\\u{9b}2J\\u{7} é\n");
        }
    }
}
