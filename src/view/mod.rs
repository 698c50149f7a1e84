//! Shows services: one `ServiceView` is the source of both the table and the JSON.

mod json;
mod output;
mod port;
mod service;
mod table;

pub(crate) use json::{Layout, object, service, services};
pub(crate) use output::{LineStyle, push_json, push_line, push_output};
pub(crate) use port::{ListenerView, PortView};
pub(crate) use service::{ChangeView, Details, Outcome, ServiceView, Status, SupervisorView, Usage};
pub(crate) use table::{TableStyle, batch, details, list, port_details};
