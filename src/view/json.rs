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
    Ok(text.map_err(io::Error::from).map_err(Error::system("write JSON"))? + "\n")
}

/// Formats one service as JSON and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn service(view: &ServiceView, layout: Layout) -> Result<String> {
    object(&value(view)?, layout)
}

/// Formats services as a JSON array and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn services(views: &[ServiceView], layout: Layout) -> Result<String> {
    array(&views.iter().map(value).collect::<Result<Vec<_>>>()?, layout)
}

/// Returns the JSON of a service.
fn value(view: &ServiceView) -> Result<Value> {
    view.json().map_err(io::Error::from).map_err(Error::system("write JSON"))
}

/// Formats values as a JSON array and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
fn array(values: &[impl Serialize], layout: Layout) -> Result<String> {
    if values.is_empty() || layout == Layout::Indented {
        return object(&values, layout);
    }
    let lines: Vec<String> = values.iter().map(|value| object(value, layout)).collect::<Result<_>>()?;
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
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
