//! `PortView`: what devport shows of a port that is not a service's.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::observe::PortListener;

/// What devport shows of a port. Its fields are the JSON of `which PORT`, and follow the rules of those of a service.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PortView {
    pub(crate) port: u16,
    pub(crate) listeners: Vec<ListenerView>,
}

/// What devport shows of a process that listens on a port.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListenerView {
    /// `None` if the process cannot be seen: it belongs to another user, or to a container.
    pub(crate) pid: Option<i32>,
    /// The user that opened the socket.
    pub(super) user: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) command: Option<String>,
    cwd: Option<PathBuf>,
    cwd_deleted: bool,
    /// The root of the checkout that contains the directory; `None` if it is in none.
    pub(super) checkout: Option<PathBuf>,
    pub(super) started_at: Option<Timestamp>,
    /// The key or hashid of the service that the process belongs to; `None` if it is not devport's.
    pub(super) service: Option<String>,
}

impl From<PortListener> for ListenerView {
    fn from(listener: PortListener) -> Self {
        let PortListener { process, user, addresses, service } = listener;
        let service = service.map(|service| service.name().to_owned());
        let Some(process) = process else {
            return Self {
                pid: None,
                user,
                addresses,
                command: None,
                cwd: None,
                cwd_deleted: false,
                checkout: None,
                started_at: None,
                service,
            };
        };
        Self {
            pid: Some(process.pid),
            user,
            addresses,
            command: process.command,
            cwd: process.directory,
            cwd_deleted: process.is_directory_deleted,
            checkout: process.checkout,
            started_at: process.started_at,
            service,
        }
    }
}

impl ListenerView {
    /// Returns who listens, on a line.
    pub(crate) fn summary(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let Some(pid) = self.pid else {
            return format!("a process of {} that cannot be seen, on {addresses}", self.user);
        };
        let command = self.command.as_ref().map(|command| format!(" ({command})")).unwrap_or_default();
        let directory = self.directory().map(|directory| format!(", in {directory}")).unwrap_or_default();
        format!("pid {pid}{command} of {}, on {addresses}{directory}", self.user)
    }

    /// Returns the directory, and whether it was deleted.
    pub(super) fn directory(&self) -> Option<String> {
        let cwd = self.cwd.as_ref()?.display();
        Some(if self.cwd_deleted { format!("{cwd} (deleted)") } else { cwd.to_string() })
    }
}
