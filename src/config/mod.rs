//! Configuration: a request to run one command, from arguments or `devport.yaml`.
//!
//! Both become a [`ServiceSpec`]. Nothing here knows which services exist.

mod agent_marker;
mod check;
mod dotenv;
mod environment;
mod expand;
mod fields;
mod file;
mod policy;
mod policy_fields;
mod service;
mod span;

pub(crate) use check::Check;
pub(crate) use environment::{
    CREDENTIAL_PREFIX, CallerEnvironment, ChildVariables, PORT_VARIABLE, VITE_HOSTS, Variables, allows_host, local_url,
};
pub(crate) use expand::expand;
pub(crate) use file::load as load_config;
pub(crate) use policy::{CHECK_TIMEOUT, Policy, RestartWhen, StopSignal};
pub(crate) use service::{PortRequest, Request, ServiceSpec, parse_assignment};
pub(crate) use span::Span;
