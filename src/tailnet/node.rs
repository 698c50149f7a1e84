//! `Node`: this machine as its tailscaled describes it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Result, TailnetError};
use crate::registry::Protocol;
use crate::tailnet::endpoint::Endpoint;

/// The first version with services, as major and minor number.
const FIRST_VERSION: (u32, u32) = (1, 86);
/// The state of a connected tailscaled.
const CONNECTED: &str = "Running";

/// This machine, as `tailscale status --json --peers=false` prints it.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    #[serde(rename = "Version", default)]
    version: String,
    /// `Running`, `NeedsLogin`, …
    #[serde(rename = "BackendState", default)]
    state: String,
    #[serde(rename = "Self", default)]
    own: Option<Own>,
    /// The tailnet; `None` while it is not connected.
    #[serde(rename = "CurrentTailnet", default)]
    tailnet: Option<CurrentTailnet>,
}

#[derive(Debug, Default, Deserialize)]
struct Own {
    /// Its id in the API.
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "HostName", default)]
    host_name: String,
    /// Its tags; `None` or empty if a person owns it.
    #[serde(rename = "Tags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "CapMap", default)]
    capabilities: Option<BTreeMap<String, Value>>,
}

/// The tailnet that the machine is connected to.
#[derive(Debug, Deserialize)]
struct CurrentTailnet {
    /// The suffix of host names, without dots around it.
    #[serde(rename = "MagicDNSSuffix", default)]
    suffix: String,
}

impl Node {
    /// Returns the machine's id in the API; empty if tailscaled does not report it.
    pub(super) fn id(&self) -> &str {
        self.own.as_ref().map_or("", |own| &own.id)
    }

    pub(super) fn host_name(&self) -> &str {
        self.own.as_ref().map_or("", |own| &own.host_name)
    }

    /// Returns the suffix of host names on the tailnet; `None` while it is not connected.
    pub(super) fn suffix(&self) -> Option<&str> {
        self.tailnet.as_ref().map(|tailnet| tailnet.suffix.trim_matches('.')).filter(|suffix| !suffix.is_empty())
    }

    /// Checks that the machine may host a service. The `tailscale` program would not report these problems, or only
    /// after a change.
    ///
    /// # Errors
    /// The first problem that the user has to solve.
    pub(super) fn check(&self, endpoint: Endpoint) -> Result<()> {
        if version(&self.version).is_some_and(|version| version < FIRST_VERSION) {
            return Err(TailnetError::TooOld { version: self.version.clone() }.into());
        }
        if self.state != CONNECTED || self.suffix().is_none() {
            return Err(TailnetError::NotConnected { state: self.state.clone() }.into());
        }
        if self.own.as_ref().and_then(|own| own.tags.as_ref()).is_none_or(Vec::is_empty) {
            return Err(TailnetError::Untagged { port: endpoint.local_port }.into());
        }
        // The capability's value is null.
        if endpoint.protocol == Protocol::Https && self.capability("https").is_none() {
            return Err(TailnetError::NoHttps { visit: None }.into());
        }
        Ok(())
    }

    /// Returns whether the machine is approved for a service, by the capability that tailscaled itself uses.
    pub(super) fn is_approved_for(&self, name: &str) -> bool {
        let service = format!("svc:{name}");
        let Some(Value::Array(hosted)) = self.capability("service-host") else { return false };
        hosted.iter().any(|services| services.get(&service).is_some())
    }

    /// Returns a capability of the machine; `None` if it does not have it.
    fn capability(&self, name: &str) -> Option<&Value> {
        self.own.as_ref()?.capabilities.as_ref()?.get(name)
    }
}

/// Parses the major and minor number; `None` if the text does not begin with them.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn node(version: &str, state: &str, tags: &str, capabilities: &str, tailnet: &str) -> Node {
        serde_json::from_str(&format!(
            r#"{{"Version":"{version}","BackendState":"{state}","Self":{{"ID":"n1","HostName":"dev","Tags":{tags},"CapMap":{capabilities}}},"CurrentTailnet":{tailnet}}}"#
        ))
        .unwrap()
    }

    const TAILNET: &str = r#"{"Name":"example.com","MagicDNSSuffix":"tail1234.ts.net"}"#;
    const HTTPS: &str = r#"{"https":null}"#;
    const TAGGED: &str = r#"["tag:x"]"#;

    #[test]
    fn the_first_problem_is_reported() {
        let check = |node: Node, protocol| match node.check(Endpoint { protocol, local_port: 3000 }) {
            Ok(()) => "fine",
            Err(Error::Tailnet(TailnetError::TooOld { .. })) => "old",
            Err(Error::Tailnet(TailnetError::NotConnected { .. })) => "away",
            Err(Error::Tailnet(TailnetError::Untagged { port: 3000 })) => "untagged",
            Err(Error::Tailnet(TailnetError::NoHttps { .. })) => "no https",
            Err(other) => panic!("{other}"),
        };
        let https = Protocol::Https;
        assert_eq!(check(node("1.102.3-ERR-BuildInfo", "Running", TAGGED, HTTPS, TAILNET), https), "fine");
        assert_eq!(check(node("1.84.2", "Running", TAGGED, HTTPS, TAILNET), https), "old");
        assert_eq!(check(node("1.86.0", "NeedsLogin", TAGGED, HTTPS, "null"), https), "away");
        assert_eq!(check(node("1.86.0", "Running", TAGGED, HTTPS, "null"), https), "away");
        assert_eq!(check(node("1.86.0", "Running", "null", HTTPS, TAILNET), https), "untagged");
        assert_eq!(check(node("1.86.0", "Running", "[]", HTTPS, TAILNET), https), "untagged");
        assert_eq!(check(node("1.86.0", "Running", TAGGED, "null", TAILNET), https), "no https");
        assert_eq!(check(node("1.86.0", "Running", TAGGED, "{}", TAILNET), Protocol::Tcp), "fine");
    }

    #[test]
    fn approval_is_read_from_the_capabilities() {
        let hosting = r#"{"service-host":[{"svc:d7e":["100.93.49.180","fd7a::1"]}]}"#;
        let node = node("1.102.3", "Running", TAGGED, hosting, TAILNET);
        assert!(node.is_approved_for("d7e") && !node.is_approved_for("d7"));
        assert_eq!((node.id(), node.host_name(), node.suffix()), ("n1", "dev", Some("tail1234.ts.net")));
    }
}
