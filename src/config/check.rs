//! `Check`: a condition for readiness or health.

use std::fmt;
use std::str::FromStr;

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

/// A condition for readiness or health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Check {
    /// A process of the service listens on its port.
    Listen,
    /// The child has run for a second.
    Alive,
    /// The port accepts a connection, whichever process listens.
    Tcp,
    /// An HTTP request gets a response.
    Http {
        /// The path, with its leading slash.
        path: String,
        /// The port, if the check was written as a URL with one. It must be the service's own.
        port: Option<u16>,
        /// The required status; `None` for 200 to 399.
        status: Option<u16>,
    },
    /// A line of its output matches this regular expression.
    Log(String),
    /// A command exits with 0.
    Exec(Vec<String>),
    None,
}

impl Check {
    /// Returns the default: `listen` for a service with a port, else `alive`.
    pub(crate) fn default_for(has_port: bool) -> Self {
        if has_port { Self::Listen } else { Self::Alive }
    }

    /// Returns whether the check needs a port.
    pub(crate) fn needs_port(&self) -> bool {
        matches!(self, Self::Listen | Self::Tcp | Self::Http { .. })
    }

    /// Returns whether the check can be repeated, as a health check is.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(self, Self::Listen | Self::Tcp | Self::Http { .. } | Self::Exec(_))
    }

    /// Returns the port of the check's URL, if that is another one than the service's: checks query the service only.
    pub(crate) fn foreign_port(&self, service_port: u16) -> Option<u16> {
        match self {
            Self::Http { port, .. } => port.filter(|port| *port != service_port),
            _ => None,
        }
    }

    /// Compiles the pattern of a `log` check.
    ///
    /// # Errors
    /// Why it is not a regular expression, on one line.
    pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
        Regex::new(text).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{text:?} is not a regular expression: {reason}")
        })
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind.trim(), rest) {
            ("listen", None) => Ok(Self::Listen),
            ("alive", None) => Ok(Self::Alive),
            ("tcp", None) => Ok(Self::Tcp),
            ("none", None) => Ok(Self::None),
            ("http", rest) => http(rest.unwrap_or("/")),
            ("https", _) => {
                Err(format!("{text:?}: checks do not use TLS; use tcp, or exec:'curl -kfsS https://localhost:$PORT/'"))
            }
            ("log", Some(pattern)) => Self::pattern(pattern).map(|_| Self::Log(pattern.to_owned())),
            ("exec", Some(command)) => match shell_words::split(command) {
                Ok(words) if words.first().is_some_and(|word| !word.is_empty()) => Ok(Self::Exec(words)),
                Ok(_) => Err("exec: needs a command".into()),
                Err(error) => Err(format!("exec: does not split into words: {error}")),
            },
            _ => Err(format!(
                "{text:?} is not a check; use tcp, http:/PATH, log:REGEX, exec:COMMAND, listen, alive or none"
            )),
        }
    }
}

/// Parses the rest of an `http` check: `/path`, or `204:/path` with a required status. The path may be a URL of this
/// machine, as `//localhost:19000/path` or with `http:` in front.
fn http(text: &str) -> Result<Check, String> {
    let (status, path) = match text.split_once(':') {
        Some((status, path)) if !status.is_empty() && status.bytes().all(|byte| byte.is_ascii_digit()) => {
            let status = status.parse().ok().filter(|status| (100..=599).contains(status));
            (Some(status.ok_or_else(|| format!("http:{text}: the status is not in 100-599"))?), path)
        }
        _ => (None, text),
    };
    let invalid = || format!("http:{text}: write it like http:/healthz");
    let (port, path) = match path.strip_prefix("http:").unwrap_or(path).strip_prefix("//") {
        Some(rest) => local_url(rest)?,
        None => (None, path),
    };
    if !path.starts_with('/') || path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(invalid());
    }
    Ok(Check::Http { path: path.to_owned(), port, status })
}

/// Splits a URL of this machine, without `http://`, into its port and its path. Without a port, or with `$PORT`, it is
/// the service's.
fn local_url(url: &str) -> Result<(Option<u16>, &str), String> {
    let (authority, path) = url.split_at(url.find(['/', '?']).unwrap_or(url.len()));
    let path = if path.is_empty() { "/" } else { path };
    // The colons of an IPv6 address are in brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
        return Err(format!("http://{url}: a check queries this machine; write only its path, such as http:/healthz"));
    }
    match port {
        None | Some("$PORT" | "${PORT}") => Ok((None, path)),
        Some(port) => match port.parse() {
            Ok(port) => Ok((Some(port), path)),
            Err(_) => Err(format!("http://{url}: {port:?} is not a port")),
        },
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen => f.write_str("listen"),
            Self::Alive => f.write_str("alive"),
            Self::Tcp => f.write_str("tcp"),
            Self::Http { path, port, status } => {
                f.write_str("http:")?;
                if let Some(status) = status {
                    write!(f, "{status}:")?;
                }
                if let Some(port) = port {
                    write!(f, "//localhost:{port}")?;
                }
                f.write_str(path)
            }
            Self::Log(pattern) => write!(f, "log:{pattern}"),
            Self::Exec(words) => write!(f, "exec:{}", shell_words::join(words)),
            Self::None => f.write_str("none"),
        }
    }
}

impl TryFrom<String> for Check {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checks_read_as_they_are_written() {
        for text in [
            "listen",
            "alive",
            "tcp",
            "none",
            "http:/",
            "http:204:/a?b:c",
            "log:now serving (\\d+)",
            "exec:pg_isready -p 'a b'",
        ] {
            assert_eq!(text.parse::<Check>().unwrap().to_string(), text);
        }
        assert_eq!("http".parse::<Check>().unwrap(), Check::Http { path: "/".into(), port: None, status: None });
        for text in ["", "tpc", "http:healthz", "http:99:/", "http:/a b", "log", "log:(", "exec:", "exec:'a", "tcp:1"] {
            assert!(text.parse::<Check>().is_err(), "{text:?}");
        }
        assert_eq!("log:(".parse::<Check>().unwrap_err(), "\"(\" is not a regular expression: unclosed group");
    }

    #[test]
    fn a_url_of_this_machine_means_its_path() {
        for (text, same) in [
            ("http://localhost:19000/x?y=//z", "http://localhost:19000/x?y=//z"),
            ("http:204:http://127.0.0.1:19000", "http:204://localhost:19000/"),
            ("http://[::1]:80/", "http://localhost:80/"),
            ("http://localhost", "http:/"),
            ("http://localhost:$PORT/healthz", "http:/healthz"),
            ("http:http://localhost:${PORT}/a", "http:/a"),
        ] {
            let check: Check = text.parse().unwrap();
            assert_eq!(check.to_string(), same, "{text}");
            assert_eq!(check.to_string().parse(), Ok(check), "{text}");
        }
        let port = |text: &str| text.parse::<Check>().unwrap().foreign_port(19000);
        assert_eq!((port("http://localhost:3000/x"), port("http://localhost:19000/x")), (Some(3000), None));
        for (text, says) in [
            ("http://example.com/x", "write only its path, such as http:/healthz"),
            ("http:///x", "write only its path"),
            ("http://localhost?x", "write it like http:/healthz"),
            ("http://localhost:web/", "\"web\" is not a port"),
            ("https://localhost:19000/", "checks do not use TLS; use tcp"),
        ] {
            let error = text.parse::<Check>().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_as_a_check(text in ".*") {
            if let Ok(check) = text.parse::<Check>() {
                prop_assert_eq!(check.to_string().parse::<Check>().unwrap(), check);
            }
        }
    }
}
