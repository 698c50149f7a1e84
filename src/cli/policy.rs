//! The options of `start` and `run` for readiness, restarts and stopping.

use clap::Args;

use crate::config::{Check, Policy, RestartWhen, Span, StopSignal};

/// The options for readiness, restarts and stopping. Each defaults to the value of [`Policy::default`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Readiness and health")]
pub(super) struct PolicyArguments {
    /// Readiness check [default: listen, or alive for a service without a port]
    #[arg(long, value_name = "CHECK")]
    pub(super) ready: Option<Check>,
    /// Report the service as not ready after this time
    #[arg(long, value_name = "TIME", default_value_t = Policy::default().ready_timeout)]
    pub(super) ready_timeout: Span,
    /// Health check (tcp, http or exec), run every 5s once the service is ready
    #[arg(long, value_name = "CHECK")]
    pub(super) health: Option<Check>,
    /// What to do if the health check fails 3 times
    #[arg(long, value_name = "ACTION", value_parser = ["show", "restart"], default_value = "show")]
    pub(super) on_unhealthy: String,
    /// When to restart the command: always, on-failure, never
    #[arg(long, value_name = "WHEN", value_parser = RestartWhen::parse, default_value = "always", help_heading = "Restarts")]
    pub(super) restart: RestartWhen,
    /// Delay after the first crash; it doubles with each further one
    #[arg(long, value_name = "TIME", default_value_t = Policy::default().backoff_initial, help_heading = "Restarts")]
    pub(super) backoff_initial: Span,
    /// Longest delay after a crash [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Restarts")]
    pub(super) backoff_max: Option<Span>,
    /// Give up after more than N restarts within --window [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Restarts")]
    pub(super) max_restarts: Option<u32>,
    /// Time in which --max-restarts counts
    #[arg(long, value_name = "TIME", default_value_t = Policy::default().window, help_heading = "Restarts")]
    pub(super) window: Span,
    /// Signal that stops the service
    #[arg(long, value_name = "SIGNAL", value_parser = StopSignal::parse, default_value = "TERM", help_heading = "Stopping")]
    pub(super) stop_signal: StopSignal,
    /// Time between the stop signal and SIGKILL
    #[arg(long, value_name = "TIME", default_value_t = Policy::default().grace, help_heading = "Stopping")]
    pub(super) grace: Span,
}

impl PolicyArguments {
    /// Returns whether no option was given, or each has its default value.
    pub(super) fn is_default(&self) -> bool {
        self.clone().into_policy() == Policy::default()
    }

    /// Converts the options to a policy.
    pub(super) fn into_policy(self) -> Policy {
        let default = Policy::default();
        Policy {
            ready: self.ready,
            ready_timeout: self.ready_timeout,
            health: self.health,
            restart_unhealthy: self.on_unhealthy == "restart",
            restart: self.restart,
            backoff_initial: self.backoff_initial,
            backoff_max: self.backoff_max.unwrap_or(default.backoff_max.max(self.backoff_initial)),
            max_restarts: self.max_restarts,
            window: self.window,
            stop_signal: self.stop_signal,
            grace: self.grace,
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    #[test]
    fn no_option_means_the_default_policy_and_the_help_says_so() {
        let mut command = PolicyArguments::augment_args(Command::new("x"));
        let matches = command.try_get_matches_from_mut(["x"]).unwrap();
        let policy = PolicyArguments::from_arg_matches(&matches).unwrap().into_policy();
        assert_eq!(policy, Policy::default());
        let longest = format!("Longest delay after a crash [default: {}]", policy.backoff_max);
        assert!(command.render_help().to_string().contains(&longest));
    }
}
