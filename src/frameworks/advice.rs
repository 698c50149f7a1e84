//! `PortAdvice`: why a service listens on a wrong port, and what to type instead, for people and in records.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a service listens on a wrong port, and how to start it instead. Its `Display` is a sentence fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortAdvice {
    /// The name of the framework; `None` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) framework: Option<String>,
    pub(super) cause: Cause,
    /// The variable that holds the service's port.
    pub(super) variable: String,
    /// The whole command that passes the port, quoted for a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<String>,
    /// The command that must stand in `script`, or else somewhere in the service's command; `None` if `line` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<String>,
    /// The script of `package.json` that sets the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) script: Option<String>,
    /// What to do to start the service with `line`, or again after another change; `None` in records of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
    /// How to give the service the port that it listens on; `None` if it cannot have that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fixed_port: Option<String>,
    /// How the app's code reads the variable, such as `process.env.PORT`; `None` if its language is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expression: Option<String>,
    /// Whether the caller's shell may have replaced the variable: the command lacks only that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_unquoted: bool,
}

/// Why a service listens on a wrong port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    /// The framework does not read the variable.
    NotRead,
    /// The framework reads the variable, but an option or its configuration overrides it.
    Overridden,
    /// The framework reads `PORT`, and the service has its port in another variable.
    OtherVariable,
    /// The app's own code sets the port.
    AppCode,
    /// The command passes the variable, and the framework does not use it.
    Ignored,
    /// The framework is unknown, or a later devport recorded another cause.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for PortAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = &self.variable;
        match (&self.framework, self.cause) {
            (Some(name), Cause::NotRead) => write!(f, "{name} does not read {variable}: ")?,
            (Some(name), Cause::Overridden) => {
                write!(f, "{name} reads {variable}, but something else sets its port: ")?;
            }
            (Some(name), Cause::OtherVariable) => {
                return write!(f, "{name} reads PORT, not {variable}: start it without --port-env");
            }
            (Some(name), Cause::Ignored) => {
                write!(f, "{name} does not use the port that its command passes: set it in its configuration")?;
                self.fmt_remedy(f)?;
                return self.fmt_fixed_port(f);
            }
            (Some(name), Cause::AppCode) => {
                write!(f, "the port of {name} is set in the app's own code: ")?;
                return self.fmt_code(f);
            }
            (Some(_) | None, Cause::Unknown) | (None, _) => {
                write!(f, "it ignores {variable}: ")?;
                return self.fmt_code(f);
            }
        }
        if self.is_unquoted {
            write!(f, "quote '${variable}', or your shell replaces it by nothing: ")?;
        }
        match (&self.line, &self.part, &self.script) {
            (Some(line), ..) => match &self.remedy {
                Some(remedy) => f.write_str(remedy),
                None => write!(f, "start it with `{line}`"),
            },
            (None, Some(part), script) => {
                match script {
                    Some(script) => write!(f, "in the script {script} of package.json, write `{part}`")?,
                    None => write!(f, "where it is started, write `{part}`")?,
                }
                self.fmt_remedy(f)
            }
            (None, None, _) => {
                f.write_str("set it in its configuration")?;
                self.fmt_remedy(f)
            }
        }
    }
}

impl PortAdvice {
    /// Says what the code of the program must do.
    fn fmt_code(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expression {
            Some(expression) => write!(f, "make its code read `{expression}`")?,
            None => write!(f, "make it read {}", self.variable)?,
        }
        self.fmt_remedy(f)?;
        self.fmt_fixed_port(f)
    }

    /// Says which command applies the change.
    fn fmt_remedy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, ", {remedy}"))
    }

    fn fmt_fixed_port(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(fixed) = &self.fixed_port else { return Ok(()) };
        write!(f, ", or give it that fixed port, which deletes its log: {fixed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_of_a_later_version_is_still_read() {
        let later = r#"{"framework": "X", "cause": "new", "variable": "PORT", "more": 1}"#;
        let advice: PortAdvice = serde_json::from_str(later).unwrap();
        assert_eq!(advice.to_string(), "it ignores PORT: make it read PORT");
        let earlier = r#"{"framework": "Vite", "cause": "not_read", "variable": "PORT", "line": "vite --port 1"}"#;
        let advice: PortAdvice = serde_json::from_str(earlier).unwrap();
        assert_eq!(advice.to_string(), "Vite does not read PORT: start it with `vite --port 1`");
    }
}
