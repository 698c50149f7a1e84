//! The fields of `devport.yaml` that form the policy of a service.

use std::str::FromStr;

use crate::config::check::Check;
use crate::config::fields::{boolean, known_fields, number, text, wrong_type};
use crate::config::mistakes::Mistakes;
use crate::config::policy::{Policy, RestartWhen, StopSignal};
use crate::config::span::{Size, Span};
use crate::config::yaml::{Kind, Node, Value};

/// Reads the value of a field into a policy. A field that is not part of it is ignored.
pub(super) fn read_policy_field(field: &str, node: &Node, policy: &mut Policy, mistakes: &mut Mistakes) {
    match field {
        "ready" => {
            let settings = check_settings(node, false, mistakes);
            policy.ready_interval = settings.interval.unwrap_or(policy.ready_interval);
            policy.ready_timeout = settings.timeout.unwrap_or(policy.ready_timeout);
            policy.ready = settings.check;
        }
        "health" => {
            let settings = check_settings(node, true, mistakes);
            policy.health_interval = settings.interval.unwrap_or(policy.health_interval);
            policy.health_timeout = settings.timeout.unwrap_or(policy.health_timeout);
            policy.health_failures = settings.failures.unwrap_or(policy.health_failures);
            policy.health = settings.check;
        }
        "on-unhealthy" => set(&mut policy.restart_unhealthy, text(node, "restart or show", mistakes, on_unhealthy)),
        "restart" => {
            set(&mut policy.restart, text(node, "always, on-failure or never", mistakes, RestartWhen::parse));
        }
        "backoff" => read_backoff(node, policy, mistakes),
        "max-restarts" => policy.max_restarts = number(node, mistakes),
        "window" => set(&mut policy.window, text(node, "a duration such as 60s", mistakes, Span::from_str)),
        "stop-signal" => {
            set(&mut policy.stop_signal, text(node, "the name of a signal", mistakes, StopSignal::parse));
        }
        "grace" => set(&mut policy.grace, text(node, "a duration such as 5s", mistakes, Span::from_str)),
        "log" => read_log(node, policy, mistakes),
        _ => {}
    }
}

/// Sets a field that was read.
fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// Reads the action for an unhealthy service: whether it is restarted.
fn on_unhealthy(text: &str) -> Result<bool, String> {
    match text {
        "restart" => Ok(true),
        "show" => Ok(false),
        _ => Err(format!("{text:?} is not restart or show")),
    }
}

/// Reads `{initial: 1s, max: 30s}`.
fn read_backoff(node: &Node, policy: &mut Policy, mistakes: &mut Mistakes) {
    let Value::Map(fields) = &node.value else {
        return wrong_type(node, "a map such as {initial: 1s, max: 30s}", mistakes);
    };
    let mut max = None;
    for (field, _, node) in known_fields(fields, &[&["initial", "max"]], |_| None, mistakes) {
        let span = text(node, "a duration such as 1s", mistakes, Span::from_str);
        match field {
            "initial" => set(&mut policy.backoff_initial, span),
            _ => max = span,
        }
    }
    policy.backoff_max = max.unwrap_or_else(|| policy.backoff_max.max(policy.backoff_initial));
}

/// Reads `{max-size: 10M, keep: 3}`.
fn read_log(node: &Node, policy: &mut Policy, mistakes: &mut Mistakes) {
    let Value::Map(fields) = &node.value else {
        return wrong_type(node, "a map such as {max-size: 10M, keep: 3}", mistakes);
    };
    for (field, _, node) in known_fields(fields, &[&["max-size", "keep"]], |_| None, mistakes) {
        match (field, &node.value) {
            ("keep", _) => set(&mut policy.log_keep, number(node, mistakes)),
            (_, Value::Scalar(Kind::Text | Kind::Int, size)) => {
                set(&mut policy.log_max_size, mistakes.keep(node.line, Size::from_str(size)));
            }
            _ => wrong_type(node, "a size such as 10M", mistakes),
        }
    }
}

/// The value of `ready` or `health`.
#[derive(Debug, Default)]
struct CheckSettings {
    /// `None` for the default.
    check: Option<Check>,
    /// The time between runs.
    interval: Option<Span>,
    /// For `ready`, when the service is reported as not ready. For `health`, how long one run of the check may take.
    timeout: Option<Span>,
    /// The number of failures in a row.
    failures: Option<u32>,
}

/// The fields of a check in object form.
const CHECK_FIELDS: [&str; 9] = ["tcp", "none", "http", "status", "log", "exec", "interval", "timeout", "failures"];

/// Reads a check as text, or an object such as `{http: /healthz, status: 204, interval: 1s, timeout: 1m}`.
fn check_settings(node: &Node, is_health: bool, mistakes: &mut Mistakes) -> CheckSettings {
    let Value::Map(fields) = &node.value else {
        let check = text(node, "a check such as `http:/healthz`, or an object with one", mistakes, Check::from_str);
        return CheckSettings { check, ..CheckSettings::default() };
    };
    let mut settings = CheckSettings::default();
    let mut checks = Vec::new();
    let mut status: Option<u16> = None;
    for (field, line, node) in known_fields(fields, &[&CHECK_FIELDS], |_| None, mistakes) {
        match field {
            "tcp" | "none" => match boolean(node, mistakes) {
                Some(true) => checks.push(field.to_owned()),
                Some(false) => mistakes.add(line, format!("`{field}: false` has no effect; leave it out")),
                None => {}
            },
            "http" | "log" | "exec" => {
                checks.extend(text(node, "a text", mistakes, |value| Ok(format!("{field}:{value}"))));
            }
            "status" => status = number(node, mistakes),
            "interval" => settings.interval = text(node, "a duration such as 1s", mistakes, Span::from_str),
            "timeout" => settings.timeout = text(node, "a duration such as 1m", mistakes, Span::from_str),
            _ if is_health => settings.failures = number(node, mistakes),
            _ => mistakes.add(line, "`failures` belongs to `health`; `ready` is checked until it passes"),
        }
    }
    settings.check = mistakes.keep(node.line, one_check(&checks, status)).flatten();
    if is_health && checks.is_empty() {
        mistakes.add(node.line, "`health` needs a check: tcp, http or exec");
    }
    if let Some(field) = field_without_effect(&settings) {
        let check = settings.check.as_ref().map(Check::to_string).unwrap_or_default();
        mistakes.add(node.line, format!("`{field}` has no effect with `{check}`"));
    }
    settings
}

/// Returns a field that has no effect with the check.
fn field_without_effect(settings: &CheckSettings) -> Option<&'static str> {
    match settings.check {
        Some(Check::Log(_) | Check::None) if settings.interval.is_some() => Some("interval"),
        Some(Check::None) if settings.timeout.is_some() => Some("timeout"),
        _ => None,
    }
}

/// Returns the check that the fields describe. `checks` has them as text, such as `http:/healthz`.
fn one_check(checks: &[String], status: Option<u16>) -> Result<Option<Check>, String> {
    match (checks, status) {
        ([], None) => Ok(None),
        ([_, _, ..], _) => Err("one check is enough: tcp, http, log, exec or none".into()),
        ([check], None) => check.parse().map(Some),
        ([check], Some(status)) => match check.strip_prefix("http:") {
            Some(path) => format!("http:{status}:{path}").parse().map(Some),
            None => Err("`status` belongs to `http`".into()),
        },
        ([], Some(_)) => Err("`status` belongs to `http`".into()),
    }
}
