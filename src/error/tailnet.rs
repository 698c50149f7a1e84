//! Errors of the tailnet: the `tailscale` program, Tailscale's HTTP API, credentials.

#[cfg(test)]
pub(super) mod samples;

/// The page on which an administrator sees and approves services.
pub(crate) const SERVICES_PAGE: &str = "https://login.tailscale.com/admin/services";
/// The page on which keys are created.
const KEYS_PAGE: &str = "https://login.tailscale.com/admin/settings/keys";

/// Why a service could not be published or taken back. Text from outside contains no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TailnetError {
    /// There is no `tailscale` program.
    #[error("there is no tailscale in PATH")]
    NoProgram,
    /// tailscaled does not run.
    #[error("tailscaled does not respond: {message}")]
    DaemonDown { message: String },
    /// tailscaled runs, but the machine is not connected to its tailnet.
    #[error("this machine is not connected to a tailnet: {}", state_text(state))]
    NotConnected {
        /// The state of tailscaled, such as `NeedsLogin`.
        state: String,
    },
    /// A version of `tailscale` without services.
    #[error("tailscale {version} is too old: services need 1.86 or later")]
    TooOld { version: String },
    /// The machine belongs to a person; only tagged machines may host services.
    #[error("this machine has no tag, and only tagged machines can host services on a tailnet")]
    Untagged {
        /// The service's port, for the hint that works without a tag.
        port: u16,
    },
    /// The tailnet has no HTTPS certificates.
    #[error("HTTPS is not enabled on this tailnet")]
    NoHttps {
        /// The page to enable it; `None` if tailscale names none.
        visit: Option<String>,
    },
    /// The user may not change what tailscaled serves.
    #[error("tailscaled refused the change: {message}")]
    Denied { message: String },
    #[error("`tailscale {command}` did not respond within {waited_s} s")]
    Silent {
        /// Its arguments up to the first option.
        command: String,
        /// The time limit, in seconds.
        waited_s: u64,
    },
    /// Other clients keep changing tailscaled's configuration.
    #[error("another program keeps changing what this machine serves")]
    ConcurrentEdit,
    /// Any other failure of the program.
    #[error("`tailscale {command}`: {message}")]
    Program {
        /// Its arguments up to the first option.
        command: String,
        message: String,
    },
    /// The program reported success, but tailscaled does not serve the service.
    #[error("tailscale reported success, but does not serve svc:{name}{}", detail(message))]
    NotServed {
        /// The service's name on the tailnet.
        name: String,
        message: String,
    },
    /// The service has no port.
    #[error("{service} has no port to publish")]
    NoPort { service: String },
    /// The name belongs to something else.
    #[error("the name svc:{name} is taken by {owner}")]
    NameTaken {
        name: String,
        owner: String,
        /// The service that requested the name.
        service: String,
    },
    /// The name is not valid for a service on a tailnet.
    #[error("{name:?} cannot be a name on the tailnet")]
    InvalidName { name: String },
    /// A credential that cannot be used.
    #[error("{variable}: {why}")]
    Credential {
        /// The variable that holds or names it.
        variable: String,
        /// The problem; never the credential.
        why: String,
        hint: String,
    },
    /// A request to the API failed.
    #[error("could not {action}: {problem}")]
    Api {
        /// The request, as an infinitive with its object.
        action: String,
        problem: ApiProblem,
    },
    /// The API approved the machine, but tailscaled did not learn of it.
    #[error("this machine was approved for svc:{name}, but tailscaled did not learn of it within {waited_s} s")]
    NotApproved {
        /// The service's name on the tailnet.
        name: String,
        /// The time limit, in seconds.
        waited_s: u64,
    },
}

/// Why a request to the API failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiProblem {
    #[error("the key was rejected{} (401)", detail(.0))]
    Unauthorized(String),
    #[error("the key may not do that{} (403)", detail(.0))]
    Forbidden(String),
    #[error("not found{} (404)", detail(.0))]
    NotFound(String),
    #[error("it conflicts with an existing name{} (409)", detail(.0))]
    Conflict(String),
    /// 400 and other refusals.
    #[error("the request was refused{} ({})", detail(.message), .status)]
    Refused { status: u16, message: String },
    /// 429, also after the delay that the API requested.
    #[error("too many requests{} (429){}", detail(.message), retry_text(*.retry_after_s))]
    RateLimited {
        message: String,
        /// The requested delay, in seconds; `None` if there is none.
        retry_after_s: Option<u64>,
    },
    /// 5xx on every attempt.
    #[error("the server failed{} ({})", detail(.message), .status)]
    Server { status: u16, message: String },
    /// A redirect. Following it would send the key to another server.
    #[error("the server redirects to {to:?} ({status}), which is not followed")]
    Redirect { status: u16, to: String },
    /// A success whose body cannot be parsed.
    #[error("the response is not the API's JSON, but {0}")]
    NotJson(String),
    /// No response in time.
    #[error("no response within {waited_s} s")]
    Silent {
        /// The time limit, in seconds.
        waited_s: u64,
    },
    #[error("could not connect: {0}")]
    Unreachable(String),
}

impl TailnetError {
    /// Returns what the user can do about it; `None` if the message says everything.
    pub(super) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProgram => "install it from https://tailscale.com/download, then run `sudo tailscale up`".into(),
            Self::DaemonDown { .. } => {
                "start it with `sudo systemctl start tailscaled`; on macOS, open the Tailscale app".into()
            }
            Self::NotConnected { state } => connect_hint(state).into(),
            Self::TooOld { .. } => "update it with `sudo tailscale update` or your package manager".into(),
            Self::Untagged { port } => format!(
                "tag it with `sudo tailscale up --advertise-tags=tag:devport` (the policy file must name the tag's owner), or \
                 publish the port under the machine's own name with `tailscale serve --bg --https={port} \
                 http://localhost:{port}`"
            ),
            Self::NoHttps { visit } => format!(
                "enable it at {}, or publish without it: `devport tailup --http`",
                visit.as_deref().unwrap_or("https://login.tailscale.com/admin/dns")
            ),
            Self::Denied { .. } => "allow your user once with `sudo tailscale set --operator=$USER`".into(),
            Self::Silent { .. } => "check tailscaled with `tailscale status` and `tailscale serve status`".into(),
            Self::ConcurrentEdit => "try again in a moment".into(),
            Self::NotServed { .. } => "`tailscale serve status --json` shows what is served".into(),
            Self::NoPort { .. } => "start it without --no-port".into(),
            Self::NameTaken { service, .. } => {
                format!("choose another name: `devport tailup --tailnet-name NAME {}`", shell_words::quote(service))
            }
            Self::InvalidName { .. } => "use 1 to 63 letters a-z, digits and dashes, with no dash at either end".into(),
            Self::Credential { hint, .. } => hint.clone(),
            Self::Api { problem, .. } => return problem.hint(),
            Self::NotApproved { name, .. } => {
                format!("try again in a minute; {SERVICES_PAGE} shows the state of svc:{name}")
            }
            Self::Program { .. } => return None,
        })
    }

    /// Returns the exit code: 2 for a name, which the user typed; 3 for a credential, which was configured; else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::InvalidName { .. } => 2,
            Self::Credential { .. } => 3,
            _ => 1,
        }
    }
}

impl ApiProblem {
    /// Returns what the user can do about it.
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unauthorized(_) => {
                format!("create a new key at {KEYS_PAGE}; keys expire after at most 90 days")
            }
            Self::Forbidden(_) => {
                "give an OAuth client the scopes `services` and `devices:core` (write); the owner of a key must be Owner, \
                 Admin, IT admin or Network admin"
                    .into()
            }
            Self::NotFound(_) => "check TAILSCALE_TAILNET; if it is unset, devport uses the tailnet of the key".into(),
            Self::Conflict(_) => {
                "choose another name with `devport tailup --tailnet-name NAME`: a machine may have this one".into()
            }
            Self::RateLimited { .. } => "try again later".into(),
            Self::Server { .. } => "try again later; https://status.tailscale.com lists known problems".into(),
            Self::Redirect { .. } | Self::NotJson(_) => {
                "check TAILSCALE_BASE_URL: it is scheme, host and port, such as https://api.tailscale.com".into()
            }
            Self::Silent { .. } | Self::Unreachable(_) => {
                "check the network, and TAILSCALE_BASE_URL and HTTPS_PROXY if they are set".into()
            }
            Self::Refused { .. } => return None,
        })
    }
}

/// Returns `: message`, or nothing.
fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Returns `; retry in 30 s`, or nothing.
fn retry_text(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!("; retry in {seconds} s"))
}

/// Describes a state of tailscaled.
fn state_text(state: &str) -> &str {
    match state {
        "NeedsLogin" => "it is logged out",
        "NeedsMachineAuth" => "an admin has not approved the machine yet",
        "Stopped" => "tailscale is stopped",
        "NoState" | "Starting" => "tailscaled is still starting",
        "" => "tailscaled reports no state",
        other => other,
    }
}

/// Returns how to leave a state of tailscaled.
fn connect_hint(state: &str) -> &'static str {
    match state {
        "NeedsLogin" => "log it in with `sudo tailscale login`",
        "NeedsMachineAuth" => "approve it at https://login.tailscale.com/admin/machines",
        "NoState" | "Starting" => "try again in a moment",
        _ => "connect it with `sudo tailscale up`",
    }
}
