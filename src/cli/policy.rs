//! The options of `start` and `run` for readiness, restarts and stopping.

use clap::Args;

use crate::config::{Check, Policy, RestartWhen, Span, StopSignal};

/// The options for readiness, restarts and stopping. `None` means the value of [`Policy::default`].
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Readiness and health")]
pub(super) struct PolicyArguments {
    /// Readiness check [default: listen, or alive for a service without a port]
    #[arg(long, value_name = "CHECK")]
    pub(super) ready: Option<Check>,
    /// Time after which `ls` shows why the service is not ready; does not limit --wait [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub(super) ready_timeout: Option<Span>,
    /// Health check (tcp, http or exec), run every 5s once the service is ready
    #[arg(long, value_name = "CHECK")]
    pub(super) health: Option<Check>,
    /// What to do if the health check fails 3 times [default: show]
    #[arg(long, value_name = "ACTION", value_parser = ["show", "restart"])]
    pub(super) on_unhealthy: Option<String>,
    /// When to restart the command: always, on-failure, never [default: always]
    #[arg(long, value_name = "WHEN", value_parser = RestartWhen::parse, help_heading = "Restarts")]
    pub(super) restart: Option<RestartWhen>,
    /// Delay after the first crash; it doubles with each further one [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Restarts")]
    pub(super) backoff_initial: Option<Span>,
    /// Longest delay after a crash [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Restarts")]
    pub(super) backoff_max: Option<Span>,
    /// Give up after more than N restarts within --window [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Restarts")]
    pub(super) max_restarts: Option<u32>,
    /// Time in which --max-restarts counts [default: 1m]
    #[arg(long, value_name = "TIME", help_heading = "Restarts")]
    pub(super) window: Option<Span>,
    /// Signal that stops the service [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = StopSignal::parse, help_heading = "Stopping")]
    pub(super) stop_signal: Option<StopSignal>,
    /// Time between the stop signal and SIGKILL [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Stopping")]
    pub(super) grace: Option<Span>,
}

impl PolicyArguments {
    /// Converts the options to a policy.
    pub(super) fn into_policy(self) -> Policy {
        let default = Policy::default();
        let backoff_initial = self.backoff_initial.unwrap_or(default.backoff_initial);
        Policy {
            ready: self.ready,
            ready_timeout: self.ready_timeout.unwrap_or(default.ready_timeout),
            health: self.health,
            restart_unhealthy: self.on_unhealthy.as_deref() == Some("restart"),
            restart: self.restart.unwrap_or(default.restart),
            backoff_initial,
            backoff_max: self.backoff_max.unwrap_or(default.backoff_max.max(backoff_initial)),
            max_restarts: self.max_restarts,
            window: self.window.unwrap_or(default.window),
            stop_signal: self.stop_signal.unwrap_or(default.stop_signal),
            grace: self.grace.unwrap_or(default.grace),
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
        let help = command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for (option, value) in [
            ("Longest delay after a crash", policy.backoff_max.to_string()),
            ("does not limit --wait", policy.ready_timeout.to_string()),
            ("it doubles with each further one", policy.backoff_initial.to_string()),
            ("in which --max-restarts counts", policy.window.to_string()),
            ("between the stop signal and SIGKILL", policy.grace.to_string()),
            ("always, on-failure, never", "always".into()),
            ("Signal that stops the service", "TERM".into()),
        ] {
            assert!(help.contains(&format!("{option} [default: {value}]")), "{option}: {help}");
        }
    }
}
