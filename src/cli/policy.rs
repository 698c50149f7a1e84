//! The options of `start` and `run` for readiness, restarts and stopping.

use clap::Args;

use crate::config::{Check, Policy, RestartWhen, Span, StopSignal};

/// The options for readiness, restarts and stopping. Each defaults to the value of [`Policy::default`].
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[expect(clippy::doc_markdown, reason = "the help is plain text")]
#[command(next_help_heading = "Ready and well, restarting and stopping")]
pub(super) struct PolicyArguments {
    /// When it is ready: tcp, http:/PATH, log:REGEX, exec:COMMAND, none. Usual: it listens on its port.
    #[arg(long, value_name = "CHECK")]
    pub(super) ready: Option<Check>,
    /// After which time it is told that it is not ready (30s).
    #[arg(long, value_name = "TIME")]
    pub(super) ready_timeout: Option<Span>,
    /// Whether it is well, asked every 5s once it is ready: tcp, http:/PATH, exec:COMMAND.
    #[arg(long, value_name = "CHECK")]
    pub(super) health: Option<Check>,
    /// Restart it when it is unhealthy.
    #[arg(long, value_name = "WHAT", value_parser = ["restart", "show"])]
    pub(super) on_unhealthy: Option<String>,
    /// When it is started again: always (usual), on-failure, never.
    #[arg(long, value_name = "WHEN", value_parser = RestartWhen::parse)]
    pub(super) restart: Option<RestartWhen>,
    /// Wait after the first crash (1s); it doubles with each.
    #[arg(long, value_name = "TIME")]
    pub(super) backoff_initial: Option<Span>,
    /// Longest wait after a crash (30s).
    #[arg(long, value_name = "TIME")]
    pub(super) backoff_max: Option<Span>,
    /// How many restarts there may be within --window; one more, and it has failed.
    #[arg(long, value_name = "N")]
    pub(super) max_restarts: Option<u32>,
    /// What --max-restarts is counted in (60s).
    #[arg(long, value_name = "TIME")]
    pub(super) window: Option<Span>,
    /// What asks it to end (TERM).
    #[arg(long, value_name = "SIGNAL", value_parser = StopSignal::parse)]
    pub(super) stop_signal: Option<StopSignal>,
    /// How long it may take to end until it is killed (5s).
    #[arg(long, value_name = "TIME")]
    pub(super) grace: Option<Span>,
}

impl PolicyArguments {
    /// Returns whether no option is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Converts the options to a policy.
    pub(super) fn into_policy(self) -> Policy {
        let default = Policy::default();
        Policy {
            ready: self.ready,
            ready_timeout: self.ready_timeout.unwrap_or(default.ready_timeout),
            health: self.health,
            restart_unhealthy: self.on_unhealthy.as_deref() == Some("restart"),
            restart: self.restart.unwrap_or_default(),
            backoff_initial: self.backoff_initial.unwrap_or(default.backoff_initial),
            backoff_max: self
                .backoff_max
                .unwrap_or_else(|| default.backoff_max.max(self.backoff_initial.unwrap_or(default.backoff_initial))),
            max_restarts: self.max_restarts,
            window: self.window.unwrap_or(default.window),
            stop_signal: self.stop_signal.unwrap_or(default.stop_signal),
            grace: self.grace.unwrap_or(default.grace),
            ..default
        }
    }
}
