//! `Definition`: a service as the API stores it, and its owner.

use serde_json::{Map, Value, json};

use crate::tailnet::endpoint::Endpoint;
use crate::tailnet::node::Node;

/// Stands for every port. The API does not compare the served ports with the definition then.
const ANY_PORT: &str = "do-not-validate";

/// A service as the API stores it. Unknown fields survive an update.
#[derive(Debug, Clone)]
pub(super) struct Definition(Map<String, Value>);

/// The owner of a definition, according to its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// devport, on this machine and for this service.
    Us,
    /// devport, for another service or on another machine; the comment says which.
    OtherDevport(String),
    /// A person or another program.
    Foreign,
}

impl Definition {
    /// Creates a new definition. The API assigns the addresses.
    pub(super) fn new(name: &str, endpoint: Endpoint, comment: &str) -> Self {
        let value = json!({ "name": format!("svc:{name}"), "ports": [endpoint.declared()], "comment": comment });
        Self(value.as_object().cloned().unwrap_or_default())
    }

    /// Takes the API's response.
    pub(super) fn from_response(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// Returns the definition with another port. The API requires everything else unchanged in an update, the addresses
    /// included.
    pub(super) fn with_port(&self, endpoint: Endpoint) -> Self {
        let mut fields = self.0.clone();
        fields.insert("ports".into(), json!([endpoint.declared()]));
        Self(fields)
    }

    /// The JSON object to send.
    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns whether a port is declared.
    pub(super) fn declares(&self, endpoint: Endpoint) -> bool {
        let declared = endpoint.declared();
        self.ports().any(|port| port == declared || port == ANY_PORT)
    }

    /// Returns whether exactly this port is declared: a host must serve every declared port.
    pub(super) fn declares_only(&self, endpoint: Endpoint) -> bool {
        self.declares(endpoint) && self.ports().count() == 1
    }

    /// Returns the declared ports, such as `tcp:443`.
    pub(super) fn ports(&self) -> impl Iterator<Item = &str> {
        self.0.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Returns the owner according to the comment.
    pub(super) fn owner(&self, node: &Node, hash: &str) -> Owner {
        let comment = self.0.get("comment").and_then(Value::as_str).unwrap_or_default();
        let words: Vec<&str> = comment.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        if !words.contains(&"devport") {
            return Owner::Foreign;
        }
        let names_us = !node.id().is_empty() && words.contains(&node.id());
        // A comment that names no service fits any service of the machine.
        let other_service = words.iter().position(|word| *word == "service").and_then(|at| words.get(at + 1));
        if names_us && other_service.is_none_or(|other| *other == hash) {
            Owner::Us
        } else {
            Owner::OtherDevport(comment.to_owned())
        }
    }
}

/// Returns the comment of devport's own definitions.
pub(super) fn comment(node: &Node, hash: &str) -> String {
    format!("made by devport on {} (node {}, service {hash})", node.host_name(), node.id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Protocol;

    fn node(id: &str) -> Node {
        serde_json::from_str(&format!(r#"{{"Self":{{"ID":"{id}","HostName":"dev"}}}}"#)).unwrap()
    }

    const HTTPS: Endpoint = Endpoint { protocol: Protocol::Https, local_port: 3000 };
    const HTTP: Endpoint = Endpoint { protocol: Protocol::Http, local_port: 3000 };

    #[test]
    fn the_owner_is_identified_by_machine_and_service() {
        let of = |comment: &str| Definition::new("a", HTTPS, comment).owner(&node("n1CNTRL"), "0a1b2c3d4e");
        assert_eq!(of(&comment(&node("n1CNTRL"), "0a1b2c3d4e")), Owner::Us);
        assert_eq!(of("devport n1CNTRL"), Owner::Us);
        assert_eq!(of("the shop's own"), Owner::Foreign);
        assert_eq!(of(""), Owner::Foreign);
        for other in [comment(&node("n2CNTRL"), "0a1b2c3d4e"), comment(&node("n1CNTRL"), "ffffffffff")] {
            assert_eq!(of(&other), Owner::OtherDevport(other.clone()));
        }
        assert!(matches!(Definition::new("a", HTTPS, "devport").owner(&node(""), "0"), Owner::OtherDevport(_)));
    }

    #[test]
    fn an_update_keeps_what_it_does_not_change() {
        let text = r#"{"name":"svc:a","addrs":["100.1.2.3","fd7a::1"],"ports":["tcp:443"],"comment":"c","tags":["tag:x"],"annotations":{"k":"v"}}"#;
        let definition = Definition::from_response(serde_json::from_str(text).unwrap());
        assert!(definition.declares_only(HTTPS) && !definition.declares(HTTP));
        let updated = definition.with_port(HTTP);
        assert_eq!(serde_json::to_string(updated.fields()).unwrap(), text.replace("443", "80"));
    }
}
