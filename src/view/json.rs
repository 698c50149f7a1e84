//! Formats results as JSON: indented for people on a terminal, and one object per line for programs.

use std::io;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::view::service::ServiceView;

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Indented by two spaces.
    Indented,
    /// Each object on one line.
    Lines,
}

/// Formats a value as JSON and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn object(value: &impl Serialize, layout: Layout) -> Result<String> {
    let text = match layout {
        Layout::Indented => serde_json::to_string_pretty(value),
        Layout::Lines => serde_json::to_string(value),
    };
    Ok(text.map_err(invalid)? + "\n")
}

/// Formats one service as JSON and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn service(view: &ServiceView, layout: Layout) -> Result<String> {
    match view.brief_json().map_err(invalid)? {
        Some(brief) => object(&brief, layout),
        None => object(view, layout),
    }
}

/// Formats services as a JSON array and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn services(views: &[&ServiceView], layout: Layout) -> Result<String> {
    // Only commands that act on services print briefly, and those act on few.
    let briefs: Vec<Value> = views
        .iter()
        .filter_map(|view| view.brief_json().transpose())
        .collect::<serde_json::Result<_>>()
        .map_err(invalid)?;
    if briefs.is_empty() { array(views, layout) } else { array(&briefs, layout) }
}

/// Formats objects as a JSON array and a newline.
///
/// # Errors
/// If one cannot be written as JSON.
pub(crate) fn values(values: &[Value], layout: Layout) -> Result<String> {
    array(values, layout)
}

/// Formats values as a JSON array and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
fn array(values: &[impl Serialize], layout: Layout) -> Result<String> {
    if values.is_empty() || layout == Layout::Indented {
        return object(&values, layout);
    }
    let mut text = b"[".to_vec();
    for (index, value) in values.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut text, value).map_err(invalid)?;
    }
    text.extend_from_slice(b"\n]\n");
    String::from_utf8(text).map_err(io::Error::other).map_err(Error::system("write JSON"))
}

/// Returns the error of a value that JSON cannot hold.
fn invalid(error: serde_json::Error) -> Error {
    Error::system("write JSON")(io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_one_object_per_line() {
        let objects = [serde_json::json!({"a": [1, 2]}), serde_json::json!({"b": null})];
        assert_eq!(array(&objects, Layout::Lines).unwrap(), "[\n{\"a\":[1,2]},\n{\"b\":null}\n]\n");
        assert_eq!(array(&objects[1..], Layout::Indented).unwrap(), "[\n  {\n    \"b\": null\n  }\n]\n");
        for layout in [Layout::Lines, Layout::Indented] {
            assert_eq!(array(&objects[..0], layout).unwrap(), "[]\n");
        }
        assert_eq!(object(&objects[1], Layout::Lines).unwrap(), "{\"b\":null}\n");
    }
}
