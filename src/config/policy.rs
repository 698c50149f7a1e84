//! `Policy`: the readiness and health checks, restarts, stopping and log size of a service.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::check::Check;
use crate::config::span::{Size, Span};
use crate::os::signal;

/// How long one run of a check may take unless the policy says otherwise: a local service that takes longer is of no use
/// to its callers.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a service is restarted after it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartWhen {
    #[default]
    Always,
    /// Unless it exited with 0.
    OnFailure,
    Never,
}

impl RestartWhen {
    /// Parses the name of a value.
    ///
    /// # Errors
    /// The list of valid values.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self::Always),
            "on-failure" => Ok(Self::OnFailure),
            "never" => Ok(Self::Never),
            _ => Err(format!("{text:?} is not always, on-failure or never")),
        }
    }
}

/// The signal that stops a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct StopSignal(pub(crate) i32);

impl StopSignal {
    /// Parses a name or a number.
    ///
    /// # Errors
    /// Why it cannot stop a service.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match signal::parse(text) {
            Some(libc::SIGCONT | libc::SIGSTOP | libc::SIGTSTP | libc::SIGCHLD | libc::SIGWINCH) => {
                Err(format!("{text} does not end a process"))
            }
            Some(number) => Ok(Self(number)),
            None => Err(format!("there is no signal {text:?}; use a name such as TERM or INT")),
        }
    }
}

impl TryFrom<String> for StopSignal {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<StopSignal> for String {
    fn from(stop: StopSignal) -> Self {
        signal::name(stop.0)
    }
}

/// The policy of a service. A field that a record lacks has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Policy {
    /// When it is restarted.
    pub(crate) restart: RestartWhen,
    /// The delay after the first crash.
    #[serde(deserialize_with = "Span::recorded")]
    pub(crate) backoff_initial: Span,
    /// The longest delay after a crash.
    #[serde(deserialize_with = "Span::recorded")]
    pub(crate) backoff_max: Span,
    /// The most restarts within `window`; `None` for no limit.
    pub(crate) max_restarts: Option<u32>,
    /// The period for `max_restarts`.
    #[serde(deserialize_with = "Span::recorded")]
    pub(crate) window: Span,
    /// The signal that stops it.
    pub(crate) stop_signal: StopSignal,
    /// Time between the stop signal and SIGKILL.
    #[serde(deserialize_with = "Span::recorded")]
    pub(crate) grace: Span,
    /// The readiness check; `None` for the default.
    pub(crate) ready: Option<Check>,
    /// The time between runs of the readiness check.
    #[serde(deserialize_with = "Span::recorded_interval")]
    pub(crate) ready_interval: Span,
    /// The service is reported as not ready after this time.
    #[serde(deserialize_with = "Span::recorded")]
    pub(crate) ready_timeout: Span,
    /// The health check, once it is ready; `None` for none.
    pub(crate) health: Option<Check>,
    /// The time between runs of the health check.
    #[serde(deserialize_with = "Span::recorded_interval")]
    pub(crate) health_interval: Span,
    /// How long one run of the health check may take.
    #[serde(deserialize_with = "Span::recorded_interval")]
    pub(crate) health_timeout: Span,
    /// After this many failures in a row it is unhealthy.
    pub(crate) health_failures: u32,
    /// Whether an unhealthy service is restarted.
    pub(crate) restart_unhealthy: bool,
    /// The size at which its log is rotated.
    pub(crate) log_max_size: Size,
    /// How many old parts of its log are kept.
    pub(crate) log_keep: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: RestartWhen::Always,
            // A command that fails at once must not use a whole processor.
            backoff_initial: Span::seconds(1),
            // A service notices within half a minute that what it needs is back.
            backoff_max: Span::seconds(30),
            max_restarts: None,
            window: Span::seconds(60),
            stop_signal: StopSignal(libc::SIGTERM),
            // Most dev servers end within a second. One that hangs must not hold up a restart for long.
            grace: Span::seconds(5),
            ready: None,
            ready_interval: Span(Duration::from_millis(250)),
            // The first start of a dev server compiles.
            ready_timeout: Span::seconds(30),
            health: None,
            health_interval: Span::seconds(5),
            health_timeout: Span(CHECK_TIMEOUT),
            // A single failure may be a reload.
            health_failures: 3,
            restart_unhealthy: false,
            log_max_size: Size(10 << 20),
            log_keep: 3,
        }
    }
}

impl Policy {
    /// Returns the options of `devport start` for what differs from the default.
    pub(crate) fn start_options(&self) -> Vec<String> {
        /// What only a file can set.
        const ONLY_IN_FILES: [&str; 4] = ["log", "check", "ready-interval", "health-"];
        let fields = |policy: &Self| match serde_json::to_value(policy) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let default = fields(&Self::default());
        let differs = |(name, value): &(String, Value)| default.get(name) != Some(value);
        let option = |(name, value): (String, Value)| match value {
            _ if ONLY_IN_FILES.iter().any(|prefix| name.starts_with(prefix)) => None,
            Value::Bool(_) => Some(["--on-unhealthy".to_owned(), "restart".to_owned()]),
            Value::String(text) => Some([format!("--{name}"), text]),
            Value::Number(number) => Some([format!("--{name}"), number.to_string()]),
            _ => None,
        };
        fields(self).into_iter().filter(differs).filter_map(option).flatten().collect()
    }

    /// Returns whether this is the default, which records omit.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the readiness check.
    pub(crate) fn ready_check(&self, has_port: bool) -> Check {
        self.ready.clone().unwrap_or_else(|| Check::default_for(has_port))
    }

    /// Returns which values contradict each other; `None` if none do. `has_port` is whether the service has a port.
    pub(crate) fn contradiction(&self, has_port: bool) -> Option<String> {
        let is_zero = |span: Span| span.0.is_zero();
        let needs_port = |check: &Option<Check>| check.as_ref().is_some_and(Check::needs_port);
        if !has_port && (needs_port(&self.ready) || needs_port(&self.health)) {
            return Some("the check needs the service's port, and it has none".into());
        }
        if let Some(health) = self.health.as_ref().filter(|health| !health.is_repeatable()) {
            return Some(format!("`{health}` cannot be a health check: use tcp, http, exec or listen"));
        }
        if self.restart_unhealthy && self.health.is_none() {
            return Some("on-unhealthy needs a health check".into());
        }
        if self.health_failures == 0 {
            return Some("the number of failures must be at least 1".into());
        }
        if is_zero(self.ready_interval) || is_zero(self.health_interval) {
            return Some("an interval cannot be zero".into());
        }
        if is_zero(self.health_timeout) {
            return Some("the timeout of a check cannot be zero".into());
        }
        if self.window != Self::default().window && self.max_restarts.is_none() {
            return Some("`window` has no effect without max-restarts".into());
        }
        if self.backoff_initial > self.backoff_max {
            return Some(format!(
                "the initial backoff {} is longer than the maximum, {}",
                self.backoff_initial, self.backoff_max
            ));
        }
        if self.log_max_size.0 < 1024 {
            return Some("the log size must be at least 1K".into());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_back_as_it_was_written_and_the_rest_is_default() {
        let policy = Policy {
            restart: RestartWhen::OnFailure,
            ready: Some("http:204:/healthz".parse().unwrap()),
            grace: "500ms".parse().unwrap(),
            stop_signal: StopSignal::parse("INT").unwrap(),
            ..Policy::default()
        };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        assert!(serde_json::from_str::<Policy>("{}").unwrap().is_default());
        assert!(text.contains(r#""stop-signal":"SIGINT""#) && text.contains(r#""grace":"500ms""#), "{text}");
    }

    #[test]
    fn a_policy_with_durations_that_are_refused_now_stays_readable() {
        let text =
            r#"{"grace":"2562047788015215h","window":"1500us","ready-interval":"0ms","health-interval":"500us"}"#;
        let policy: Policy = serde_json::from_str(text).unwrap();
        let ms = [policy.grace, policy.window, policy.ready_interval, policy.health_interval].map(|s| s.0.as_millis());
        assert_eq!(ms, [366 * 24 * 3_600_000, 2, 1, 1]);
        let again = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&again).unwrap(), policy);
    }

    #[test]
    fn contradictions_are_named() {
        let with = |change: fn(&mut Policy)| {
            let mut policy = Policy::default();
            change(&mut policy);
            policy.contradiction(false)
        };
        assert_eq!(with(|_| {}), None);
        assert!(with(|policy| policy.ready = Some(Check::Tcp)).unwrap().contains("it has none"));
        assert!(with(|policy| policy.health = Some(Check::None)).unwrap().contains("cannot be a health check"));
        assert!(with(|policy| policy.restart_unhealthy = true).unwrap().contains("needs a health check"));
        assert!(with(|policy| policy.window = Span::seconds(9)).unwrap().contains("without max-restarts"));
        assert!(with(|policy| policy.health_timeout = Span::seconds(0)).unwrap().contains("timeout"));
        assert!(
            with(|policy| policy.backoff_initial = Span::seconds(60)).unwrap().contains("60s")
                || with(|policy| policy.backoff_initial = Span::seconds(60)).unwrap().contains("1m")
        );
        assert!(StopSignal::parse("CONT").is_err() && StopSignal::parse("FOO").is_err());
    }
}
