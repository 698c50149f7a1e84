//! Publication on the tailnet, through the `tailscale` program on this machine and Tailscale's HTTP API.
//!
//! A service becomes a Tailscale Service: the API defines it, the local tailscaled serves it, and the API approves this
//! machine as its host.

mod address;
mod api;
mod credentials;
mod definition;
mod dev_server;
mod endpoint;
mod node;
mod program;
mod publication;
mod publisher;

pub(crate) use address::{Addresses, Suffix};
pub(crate) use dev_server::advice as dev_server_advice;
pub(crate) use publisher::{PublishRequest, Tailnet};
