//! Formats services as JSON.

use std::io;

use crate::error::{Error, Result};
use crate::view::port::PortView;
use crate::view::service::ServiceView;

/// Formats one service as a JSON object and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn object(view: &ServiceView) -> Result<String> {
    pretty(view)
}

/// Formats a port as a JSON object and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn port_object(view: &PortView) -> Result<String> {
    pretty(view)
}

/// Formats services as a JSON array and a newline.
///
/// # Errors
/// If a path is not valid UTF-8.
pub(crate) fn array(views: &[ServiceView]) -> Result<String> {
    pretty(&views)
}

/// Formats a value with an indentation of two spaces, as every version of devport has done.
fn pretty(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from).map_err(Error::system("write JSON"))?;
    Ok(text + "\n")
}
