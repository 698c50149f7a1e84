//! The fields of an entry of `devport.yaml` that form its policy.

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess};

use crate::config::check::Check;
use crate::config::fields::Text;
use crate::config::policy::{Policy, RestartWhen, StopSignal};
use crate::config::span::{Size, Span};

/// Parses the value of a field into a policy.
///
/// # Errors
/// If the value is not valid.
pub(super) fn policy_field<'de, A: MapAccess<'de>>(
    field: &str,
    policy: &mut Policy,
    map: &mut A,
) -> Result<(), A::Error> {
    match field {
        "ready" => {
            let settings = map.next_value_seed(CheckSeed::Ready)?;
            policy.ready_interval = settings.interval.unwrap_or(policy.ready_interval);
            policy.ready_timeout = settings.timeout.unwrap_or(policy.ready_timeout);
            policy.ready = settings.check;
        }
        "health" => {
            let settings = map.next_value_seed(CheckSeed::Health)?;
            policy.health_interval = settings.interval.unwrap_or(policy.health_interval);
            policy.health_timeout = settings.timeout.unwrap_or(policy.health_timeout);
            policy.health_failures = settings.failures.unwrap_or(policy.health_failures);
            policy.health = settings.check;
        }
        "on-unhealthy" => policy.restart_unhealthy = map.next_value_seed(text("restart or show", on_unhealthy))?,
        "restart" => policy.restart = map.next_value_seed(text("always, on-failure or never", RestartWhen::parse))?,
        "backoff" => {
            let backoff: Backoff = map.next_value()?;
            policy.backoff_initial = backoff.initial.unwrap_or(policy.backoff_initial);
            policy.backoff_max = backoff.max.unwrap_or_else(|| policy.backoff_max.max(policy.backoff_initial));
        }
        "max-restarts" => policy.max_restarts = Some(map.next_value()?),
        "window" => policy.window = map.next_value_seed(text("a duration such as 60s", str::parse))?,
        "stop-signal" => policy.stop_signal = map.next_value_seed(text("the name of a signal", StopSignal::parse))?,
        "grace" => policy.grace = map.next_value_seed(text("a duration such as 5s", str::parse))?,
        "log" => {
            let log: Log = map.next_value()?;
            policy.log_max_size = log.max_size.map_or(policy.log_max_size, |size| size.0);
            policy.log_keep = log.keep.unwrap_or(policy.log_keep);
        }
        other => return Err(de::Error::custom(format!("the field `{other}` is not read"))),
    }
    Ok(())
}

/// Parses a text and checks it.
fn text<T, F: FnOnce(&str) -> Result<T, String>>(expected: &'static str, check: F) -> Text<F> {
    Text { expected, check }
}

/// Parses the action for an unhealthy service: whether it is restarted.
fn on_unhealthy(text: &str) -> Result<bool, String> {
    match text {
        "restart" => Ok(true),
        "show" => Ok(false),
        _ => Err(format!("{text:?} is not restart or show")),
    }
}

/// `backoff: {initial: 1s, max: 30s}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backoff {
    initial: Option<Span>,
    max: Option<Span>,
}

/// `log: {max-size: 10M, keep: 3}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Log {
    /// The size at which the log is rotated.
    max_size: Option<YamlSize>,
    /// How many old parts are kept.
    keep: Option<u32>,
}

/// Parses a size: a text or a number of bytes.
#[derive(Debug)]
struct YamlSize(Size);

impl<'de> Deserialize<'de> for YamlSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?;
        text.0.parse().map(Self).map_err(de::Error::custom)
    }
}

/// Parses a text or a whole number as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as 10M")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What `ready` or `health` says.
#[derive(Debug, Default)]
struct CheckSettings {
    /// The check; `None` for the default.
    check: Option<Check>,
    /// How often it runs.
    interval: Option<Span>,
    /// For `ready`, when the service is reported as not ready. For `health`, how long one run of the check may take.
    timeout: Option<Span>,
    /// The number of failures in a row.
    failures: Option<u32>,
}

/// `{http: /healthz, status: 204, interval: 1s, timeout: 1m}`. `F` is the number of failures, or [`NoEffect`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckFields<F> {
    /// Whether the port must accept a connection.
    tcp: Option<bool>,
    none: Option<bool>,
    /// The path of a request.
    http: Option<String>,
    status: Option<u16>,
    log: Option<String>,
    exec: Option<String>,
    interval: Option<Span>,
    timeout: Option<Span>,
    failures: Option<F>,
}

/// The value of `failures` in `ready`: none is valid, and the error names the line of the field.
#[derive(Debug)]
enum NoEffect {}

impl<'de> Deserialize<'de> for NoEffect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NoEffect;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("no `failures` in `ready`")
            }

            // The parser adds the line to errors of visitors only.
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<NoEffect, E> {
                Err(E::custom("`failures` belongs to `health`; `ready` is checked until it passes"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl From<NoEffect> for u32 {
    fn from(never: NoEffect) -> Self {
        match never {}
    }
}

impl<F: Into<u32>> CheckFields<F> {
    /// Returns the settings that the fields describe. Refuses fields that have no effect together.
    fn settings(self) -> Result<CheckSettings, String> {
        let check = self.check()?;
        let has_no_effect = |field: &str, check: &Check| Err(format!("`{field}` has no effect with `{check}`"));
        match &check {
            Some(check @ (Check::Log(_) | Check::None)) if self.interval.is_some() => has_no_effect("interval", check),
            Some(check @ Check::None) if self.timeout.is_some() => has_no_effect("timeout", check),
            _ => Ok(CheckSettings {
                check,
                interval: self.interval,
                timeout: self.timeout,
                failures: self.failures.map(Into::into),
            }),
        }
    }

    /// Returns the check that the fields describe.
    fn check(&self) -> Result<Option<Check>, String> {
        for (field, value) in [("tcp", self.tcp), ("none", self.none)] {
            if value == Some(false) {
                return Err(format!("`{field}: false` has no effect; leave it out"));
            }
        }
        let status = self.status.map_or_else(String::new, |status| format!("{status}:"));
        let texts = [
            self.tcp.map(|_| "tcp".to_owned()),
            self.none.map(|_| "none".to_owned()),
            self.http.as_ref().map(|path| format!("http:{status}{path}")),
            self.log.as_ref().map(|pattern| format!("log:{pattern}")),
            self.exec.as_ref().map(|command| format!("exec:{command}")),
        ];
        let mut texts = texts.into_iter().flatten();
        match (texts.next(), texts.next()) {
            (_, Some(_)) => Err("one check is enough: tcp, http, log, exec or none".into()),
            (Some(text), None) if self.status.is_none() || self.http.is_some() => text.parse().map(Some),
            (None, None) if self.status.is_none() => Ok(None),
            _ => Err("`status` belongs to `http`".into()),
        }
    }
}

/// Parses a check as text, or an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckSeed {
    Ready,
    Health,
}

impl<'de> DeserializeSeed<'de> for CheckSeed {
    type Value = CheckSettings;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CheckSettings, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for CheckSeed {
    type Value = CheckSettings;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a check such as `http:/healthz`, or an object with one")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CheckSettings, E> {
        let check = text.parse().map_err(E::custom)?;
        Ok(CheckSettings { check: Some(check), ..CheckSettings::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CheckSettings, A::Error> {
        let fields = de::value::MapAccessDeserializer::new(map);
        let settings = match self {
            Self::Ready => CheckFields::<NoEffect>::deserialize(fields)?.settings(),
            Self::Health => CheckFields::<u32>::deserialize(fields)?.settings(),
        };
        let settings = settings.map_err(de::Error::custom)?;
        if self == Self::Health && settings.check.is_none() {
            return Err(de::Error::custom("`health` needs a check: tcp, http or exec"));
        }
        Ok(settings)
    }
}
