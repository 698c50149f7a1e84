//! Formats services as JSON.

use crate::view::service::ServiceView;

/// Formats one service as a JSON object and a newline.
pub(crate) fn object(view: &ServiceView) -> String {
    pretty(view)
}

/// Formats services as a JSON array and a newline.
pub(crate) fn array(views: &[ServiceView]) -> String {
    pretty(&views)
}

/// Formats a value with an indentation of two spaces, as every version of devport has done.
fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
