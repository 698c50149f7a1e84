//! Publication on the tailnet: the `tailscale` program on this machine, and the vendor's HTTP API.
//!
//! A service becomes a Tailscale Service: the API defines it, the local daemon serves it, the API approves
//! this machine for it. Source of every fact: `tailnet.md`.

mod address;
mod api;
mod credentials;
mod definition;
mod endpoint;
mod exposure;
mod node;
mod program;

pub(crate) use address::{Addresses, Suffix};
pub(crate) use exposure::{PublishRequest, Tailnet};
