//! Shows services: one `ServiceView` is the source of both the table and the JSON.

mod age;
mod details;
mod grid;
mod json;
mod list;
mod output;
mod port;
mod progress;
mod service;

pub(crate) use age::next_start;
pub(crate) use details::{details, port_details};
pub(crate) use grid::TableStyle;
pub(crate) use json::{Layout, object, service, services, values};
pub(crate) use list::{Group, batch, list};
pub(crate) use output::{LineStyle, push_json, push_line, push_output};
pub(crate) use port::{ListenerView, PortView};
pub(crate) use progress::{ProgressRow, Step, progress, shown_width};
pub(crate) use service::{ChangeView, Details, Outcome, ServiceView, Status, SupervisorView, Usage};
