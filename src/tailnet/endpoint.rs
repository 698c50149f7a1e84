//! The endpoint of a service on the tailnet, and how `tailscale serve status` describes it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::local_url;
use crate::registry::Protocol;

/// The way from the tailnet to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The protocol on the tailnet.
    pub(super) protocol: Protocol,
    /// Where the service listens on this machine.
    pub(super) local_port: u16,
}

impl Endpoint {
    /// Returns the port on the tailnet.
    pub(super) fn public_port(self) -> u16 {
        match self.protocol {
            Protocol::Https => 443,
            Protocol::Http => 80,
            Protocol::Tcp => self.local_port,
        }
    }

    /// Returns the port in the notation of the API's definitions.
    pub(super) fn declared(self) -> String {
        format!("tcp:{}", self.public_port())
    }

    /// Returns the option of `tailscale serve`; `None` for the default.
    pub(super) fn option(self) -> Option<String> {
        match self.protocol {
            Protocol::Https => None,
            Protocol::Http => Some("--http=80".into()),
            Protocol::Tcp => Some(format!("--tcp={}", self.local_port)),
        }
    }

    /// Returns the target of `tailscale serve`.
    pub(super) fn target(self) -> String {
        match self.protocol {
            Protocol::Https | Protocol::Http => local_url(None, self.local_port),
            Protocol::Tcp => format!("tcp://localhost:{}", self.local_port),
        }
    }

    /// Returns the URL on the tailnet.
    pub(super) fn url(self, name: &str, suffix: &str) -> String {
        match self.protocol {
            Protocol::Https => format!("https://{name}.{suffix}"),
            Protocol::Http => format!("http://{name}.{suffix}"),
            Protocol::Tcp => format!("tcp://{name}.{suffix}:{}", self.local_port),
        }
    }
}

/// What this machine serves, as `tailscale serve status --json` prints it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ServeConfig {
    /// By `svc:name`.
    #[serde(rename = "Services", default)]
    services: BTreeMap<String, Served>,
}

/// What is served for one service.
#[derive(Debug, Default, Deserialize)]
struct Served {
    #[serde(rename = "TCP", default)]
    tcp: BTreeMap<String, TcpHandler>,
    /// By `host:port`.
    #[serde(rename = "Web", default)]
    web: BTreeMap<String, WebHandlers>,
}

/// The handler of a port.
#[derive(Debug, Default, Deserialize)]
struct TcpHandler {
    #[serde(rename = "HTTPS", default)]
    https: bool,
    #[serde(rename = "HTTP", default)]
    http: bool,
    #[serde(rename = "TCPForward", default)]
    forward: String,
}

/// The handlers of a web server's paths.
#[derive(Debug, Default, Deserialize)]
struct WebHandlers {
    #[serde(rename = "Handlers", default)]
    handlers: BTreeMap<String, WebHandler>,
}

/// The handler of a path.
#[derive(Debug, Default, Deserialize)]
struct WebHandler {
    #[serde(rename = "Proxy", default)]
    proxy: String,
}

/// How what is served differs from an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Serving {
    /// Nothing is served under the name.
    Nothing,
    Exactly,
    /// The service's own port, with another protocol.
    OtherWay,
    /// Something else: its target, for a message.
    Other(String),
}

impl ServeConfig {
    /// Compares what is served under a name with an endpoint.
    pub(super) fn compare(&self, name: &str, endpoint: Endpoint) -> Serving {
        let Some(served) = self.services.get(&format!("svc:{name}")) else { return Serving::Nothing };
        let targets = served.targets();
        if targets.is_empty() {
            return Serving::Nothing;
        }
        let local = format!("localhost:{}", endpoint.local_port);
        let plain = |target: &String| {
            let place = target.split_once("://").map_or(target.as_str(), |(_, place)| place);
            place.replace("127.0.0.1", "localhost")
        };
        match targets.iter().map(plain).find(|target| *target != local) {
            Some(other) => Serving::Other(other),
            None if served.is_exactly(endpoint) => Serving::Exactly,
            None => Serving::OtherWay,
        }
    }
}

impl Served {
    /// Returns the targets of its ports and paths.
    fn targets(&self) -> Vec<String> {
        let forwards = self.tcp.values().map(|handler| handler.forward.clone());
        let proxies = self.web.values().flat_map(|web| web.handlers.values().map(|handler| handler.proxy.clone()));
        forwards.chain(proxies).filter(|target| !target.is_empty()).collect()
    }

    /// Returns whether it serves one port, as the endpoint requires.
    fn is_exactly(&self, endpoint: Endpoint) -> bool {
        let Some(handler) = self.tcp.get(&endpoint.public_port().to_string()) else { return false };
        let right = match endpoint.protocol {
            Protocol::Https => handler.https,
            Protocol::Http => handler.http,
            Protocol::Tcp => !handler.forward.is_empty(),
        };
        let at_root = self.web.values().all(|web| web.handlers.keys().all(|path| path == "/"));
        right && self.tcp.len() == 1 && at_root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(protocol: Protocol) -> Endpoint {
        Endpoint { protocol, local_port: 3000 }
    }

    /// The output of the real program.
    const HTTPS: &str = r#"{"Services":{"svc:d7e":{"TCP":{"443":{"HTTPS":true}},"Web":{"d7e.tail1234.ts.net:443":{"Handlers":{"/":{"Proxy":"http://localhost:3000"}}}}}}}"#;
    const TCP_AND_HTTP: &str = r#"{"Services":{"svc:d7e":{"TCP":{"5432":{"TCPForward":"localhost:5432"},"80":{"HTTP":true}},"Web":{"d7e.tail1234.ts.net:80":{"Handlers":{"/":{"Proxy":"http://127.0.0.1:3000"}}}}}}}"#;

    #[test]
    fn what_is_served_is_compared() {
        let compare = |text: &str, name: &str, protocol| {
            serde_json::from_str::<ServeConfig>(text).unwrap().compare(name, endpoint(protocol))
        };
        assert_eq!(compare("{}", "d7e", Protocol::Https), Serving::Nothing);
        assert_eq!(compare(HTTPS, "d7e", Protocol::Https), Serving::Exactly);
        assert_eq!(compare(HTTPS, "d7f", Protocol::Https), Serving::Nothing);
        assert_eq!(compare(HTTPS, "d7e", Protocol::Http), Serving::OtherWay);
        assert_eq!(compare(TCP_AND_HTTP, "d7e", Protocol::Tcp), Serving::Other("localhost:5432".into()));
        let tcp = r#"{"Services":{"svc:d7e":{"TCP":{"3000":{"TCPForward":"localhost:3000"}}}}}"#;
        assert_eq!(compare(tcp, "d7e", Protocol::Tcp), Serving::Exactly);
        assert_eq!(compare(&HTTPS.replace("\"/\"", "\"/api\""), "d7e", Protocol::Https), Serving::OtherWay);
    }

    #[test]
    fn the_declared_port_follows_the_protocol() {
        let all = [Protocol::Https, Protocol::Http, Protocol::Tcp].map(endpoint);
        assert_eq!(all.map(Endpoint::declared), ["tcp:443", "tcp:80", "tcp:3000"]);
        assert_eq!(
            all.map(|endpoint| endpoint.url("b7d", "tail1234.ts.net")),
            ["https://b7d.tail1234.ts.net", "http://b7d.tail1234.ts.net", "tcp://b7d.tail1234.ts.net:3000"]
        );
    }
}
