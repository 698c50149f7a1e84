//! Services as JSON.

use crate::view::service::ServiceView;

/// One service, as an object, with a line's end.
pub(crate) fn object(view: &ServiceView) -> String {
    pretty(view)
}

/// Services, as an array, with a line's end.
pub(crate) fn array(views: &[ServiceView]) -> String {
    pretty(&views)
}

/// Indented by two blanks, as the first devport did.
fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
