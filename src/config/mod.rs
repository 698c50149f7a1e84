//! Configuration: a request to run one command, from arguments or `devport.yaml`.
//!
//! Both become a [`ServiceSpec`]. Nothing here knows which services exist.

mod agent_marker;
mod check;
mod declared;
mod dotenv;
mod entry;
mod environment;
mod expand;
mod fields;
mod file;
mod file_context;
mod mistakes;
mod names;
mod object_form;
mod plan;
mod policy;
mod policy_fields;
mod procfile;
mod reference;
mod request;
mod schedule;
mod service;
mod shell;
mod span;
mod stack;
mod stack_check;
mod stack_file;
mod yaml;

pub(crate) use check::Check;
pub(crate) use declared::{has_env_file_changed, parse_assignment};
pub(crate) use environment::{
    CREDENTIAL_PREFIX, CallerEnvironment, ChildVariables, PORT_VARIABLE, VITE_HOSTS, Variables, allows_host, local_url,
};
pub(crate) use expand::expand;
pub(crate) use file::{ConfigFile, load as load_config, may_have_stack, nearest_file, stack_name_in};
pub(crate) use file_context::FileContext;
pub(crate) use object_form::object_form;
pub(crate) use policy::{CHECK_TIMEOUT, Policy, RestartWhen, StopSignal};
pub(crate) use request::{EnvSource, PortRequest, Request, StartOptions};
pub(crate) use schedule::Schedule;
pub(crate) use service::{ServiceSpec, existing_directory};
pub(crate) use shell::shell_hint;
pub(crate) use span::Span;
pub(crate) use {
    reference::{CheckoutNames, Reference},
    stack::{DEFAULT_SESSION, Order, Stack, StackService},
};
