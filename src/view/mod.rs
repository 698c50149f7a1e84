//! What people and programs see of a service: one `ServiceView` feeds the table and the JSON.

mod json;
mod output;
mod service;
mod table;

pub(crate) use json::{array, object};
pub(crate) use output::{LineStyle, push_json, push_line};
pub(crate) use service::{Outcome, Overview, ServiceView, Status};
pub(crate) use table::{TableStyle, batch, details, list};
