//! Tailscale's HTTP API: definitions of services and approvals. See <https://tailscale.com/api>.

use std::cell::OnceCell;
use std::io::Read;
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};

use crate::config::CallerEnvironment;
use crate::error::{ApiProblem, Error, Result, TailnetError};
use crate::os::clock::{self, Deadline};
use crate::tailnet::credentials::{Credentials, Secret, redact};
use crate::tailnet::definition::Definition;
use crate::text::printable;

/// The API's address unless `TAILSCALE_BASE_URL` is set.
const BASE: &str = "https://api.tailscale.com";
/// Stands for the tailnet that the credentials belong to.
const OWN_TAILNET: &str = "-";
/// The most bytes of a response that are read: its JSON has a few KiB.
const LARGEST_RESPONSE: u64 = 1024 * 1024;
/// How many times a request is sent if the server reports an internal error (5xx) or a rate limit.
const ATTEMPTS: u32 = 4;
/// The delay before the second attempt. It doubles for each further one, so all attempts fit into the time limit.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A connection to the API for one command, with its time limit.
#[derive(Debug)]
pub(super) struct Api {
    /// Sends the requests. reqwest starts a thread for it, so it is created only if it is needed.
    client: Client,
    /// The scheme, host and port of the API.
    base: Url,
    tailnet: String,
    /// The credentials of the user.
    credentials: Credentials,
    /// The OAuth client's token, once it was fetched.
    token: OnceCell<Secret>,
    /// The time limit of the command.
    pub(super) deadline: Deadline,
}

/// A successful response, or "not found".
struct ApiResponse {
    /// 200, 404, …
    status: StatusCode,
    /// The body; empty if there is none.
    fields: Map<String, Value>,
}

impl Api {
    /// Prepares a connection; `None` if there are no credentials. Sends nothing.
    ///
    /// # Errors
    /// [`TailnetError::Credential`] if the credentials, the tailnet or the address are not valid.
    pub(super) fn from_environment(environment: &CallerEnvironment, deadline: Deadline) -> Result<Option<Self>> {
        let Some(credentials) = Credentials::from_environment(environment)? else { return Ok(None) };
        let text = |name: &str| environment.get(name).map(|value| value.to_string_lossy().trim().to_owned());
        let base = base_url(text("TAILSCALE_BASE_URL").as_deref().unwrap_or(BASE))?;
        let tailnet = text("TAILSCALE_TAILNET").unwrap_or_else(|| OWN_TAILNET.into());
        // Another client in this process may have installed one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            // A redirect would send the key to another server.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("devport/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| api_error("prepare a connection", unreachable(error)))?;
        Ok(Some(Self { client, base, tailnet, credentials, token: OnceCell::new(), deadline }))
    }

    /// Reads the definition of a service; `None` if there is none.
    ///
    /// # Errors
    /// [`TailnetError::Api`].
    pub(super) fn definition(&self, name: &str) -> Result<Option<Definition>> {
        let action = format!("read the definition of svc:{name}");
        let response = self.request(&action, &Method::GET, &self.service(name, &[]), None)?;
        Ok((response.status != StatusCode::NOT_FOUND).then(|| Definition::from_response(response.fields)))
    }

    /// Creates or replaces the definition of a service.
    ///
    /// # Errors
    /// [`TailnetError::Api`].
    pub(super) fn define(&self, name: &str, definition: &Definition) -> Result<()> {
        let action = format!("define svc:{name}");
        let response = self.request(&action, &Method::PUT, &self.service(name, &[]), Some(definition.fields()))?;
        require_found(&action, response.status)
    }

    /// Deletes the definition of a service. A missing one is not an error.
    ///
    /// # Errors
    /// [`TailnetError::Api`].
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let action = format!("delete the definition of svc:{name}");
        self.request(&action, &Method::DELETE, &self.service(name, &[]), None).map(drop)
    }

    /// Returns the ids of the machines that host a service or request to.
    ///
    /// # Errors
    /// [`TailnetError::Api`].
    pub(super) fn hosts(&self, name: &str) -> Result<Vec<String>> {
        let action = format!("list the hosts of svc:{name}");
        let response = self.request(&action, &Method::GET, &self.service(name, &["devices"]), None)?;
        let hosts = response.fields.get("hosts").and_then(Value::as_array).cloned().unwrap_or_default();
        let id = |host: &Value| host.get("stableNodeID").and_then(Value::as_str).map(str::to_owned);
        Ok(hosts.iter().filter_map(id).collect())
    }

    /// Approves a machine as a host of a service.
    ///
    /// # Errors
    /// [`TailnetError::Api`].
    pub(super) fn approve(&self, name: &str, device: &str) -> Result<()> {
        let action = format!("approve this machine for svc:{name}");
        let url = self.service(name, &["device", device, "approved"]);
        let body = json!({ "approved": true });
        let response = self.request(&action, &Method::POST, &url, body.as_object())?;
        require_found(&action, response.status)?;
        if response.fields.get("approved").and_then(Value::as_bool) != Some(true) {
            return Err(api_error(&action, ApiProblem::NotJson("one that does not say `approved: true`".into())));
        }
        Ok(())
    }

    /// Returns the URL of a service, or of a part of it.
    fn service(&self, name: &str, rest: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(["api", "v2", "tailnet", &self.tailnet, "services", &format!("svc:{name}")]).extend(rest);
        }
        url
    }

    /// Sends a request; "not found" is not an error here. Fetches the OAuth client's token before the first request.
    fn request(
        &self,
        action: &str,
        method: &Method,
        url: &Url,
        body: Option<&Map<String, Value>>,
    ) -> Result<ApiResponse> {
        let token = self.token()?;
        self.attempt(action, &|| {
            let mut request = self.client.request(method.clone(), url.clone()).bearer_auth(token.expose());
            if let Some(body) = body {
                let text = serde_json::to_vec(body).unwrap_or_default();
                request = request.header(CONTENT_TYPE, "application/json").body(text);
            }
            request
        })
    }

    /// Returns the token to send: an API key as it is, or the one that the OAuth client was exchanged for.
    fn token(&self) -> Result<&Secret> {
        let (id, secret) = match &self.credentials {
            Credentials::Key(key) => return Ok(key),
            Credentials::Client { id, secret } => (id, secret),
        };
        if let Some(token) = self.token.get() {
            return Ok(token);
        }
        let action = "get a token for the OAuth client";
        let mut url = self.base.clone();
        url.set_path("/api/v2/oauth/token");
        let form = [("client_id", id.as_str()), ("client_secret", secret.expose())];
        let response = self.attempt(action, &|| self.client.post(url.clone()).form(&form))?;
        require_found(action, response.status)?;
        let token = response.fields.get("access_token").and_then(Value::as_str);
        let token = token.ok_or_else(|| api_error(action, ApiProblem::NotJson("one without `access_token`".into())))?;
        Ok(self.token.get_or_init(|| Secret::new(token.to_owned())))
    }

    /// Sends a request until there is a final response, the time is up, or the attempts are used up.
    fn attempt(&self, action: &str, request: &dyn Fn() -> reqwest::blocking::RequestBuilder) -> Result<ApiResponse> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let sent = request().timeout(self.deadline.remaining().max(Duration::from_millis(1))).send();
            let response = sent.map_err(|error| api_error(action, self.no_response(error)))?;
            let problem = match self.read(response) {
                Ok(response) => return Ok(response),
                Err(problem) => problem,
            };
            let wait = match &problem {
                ApiProblem::RateLimited { retry_after_s: Some(seconds), .. } => Duration::from_secs(*seconds),
                ApiProblem::RateLimited { .. } | ApiProblem::Server { .. } => pause,
                _ => return Err(api_error(action, problem)),
            };
            if attempt >= ATTEMPTS || wait >= self.deadline.remaining() {
                return Err(api_error(action, problem));
            }
            clock::pause(wait);
            pause *= 2;
        }
        Err(api_error(action, ApiProblem::Silent { waited_s: self.deadline.limit.as_secs() }))
    }

    /// Reads a response and classifies its status.
    fn read(&self, response: Response) -> std::result::Result<ApiResponse, ApiProblem> {
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (to, kind) = (header(LOCATION), header(CONTENT_TYPE));
        let retry_after_s = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
        if status.is_redirection() {
            let to = self.clean(&to.unwrap_or_default());
            return Err(ApiProblem::Redirect { status: status.as_u16(), to });
        }
        let mut body = Vec::new();
        response.take(LARGEST_RESPONSE).read_to_end(&mut body).map_err(|error| {
            if error.kind() == std::io::ErrorKind::TimedOut || self.deadline.remaining().is_zero() {
                ApiProblem::Silent { waited_s: self.deadline.limit.as_secs() }
            } else {
                ApiProblem::Unreachable("it closed the connection in the middle of a response".into())
            }
        })?;
        let fields = serde_json::from_slice::<Map<String, Value>>(&body);
        let message = self.message(fields.as_ref().ok());
        let number = status.as_u16();
        match number {
            200..=299 if body.iter().all(u8::is_ascii_whitespace) => Ok(ApiResponse { status, fields: Map::new() }),
            200..=299 => match fields {
                Ok(fields) => Ok(ApiResponse { status, fields }),
                Err(_) => {
                    Err(ApiProblem::NotJson(kind.map_or_else(|| "something else".into(), |kind| self.clean(&kind))))
                }
            },
            // A 404 that is not JSON is not from the API: the address is invalid.
            404 if fields.is_ok() => Ok(ApiResponse { status, fields: Map::new() }),
            404 => Err(ApiProblem::NotJson("a page that was not found (404)".into())),
            401 => Err(ApiProblem::Unauthorized(message)),
            403 => Err(ApiProblem::Forbidden(message)),
            409 => Err(ApiProblem::Conflict(message)),
            429 => Err(ApiProblem::RateLimited { message, retry_after_s }),
            500..=599 => Err(ApiProblem::Server { status: number, message }),
            _ => Err(ApiProblem::Refused { status: number, message }),
        }
    }

    /// Explains why there is no response.
    fn no_response(&self, error: reqwest::Error) -> ApiProblem {
        if error.is_timeout() {
            ApiProblem::Silent { waited_s: self.deadline.limit.as_secs() }
        } else {
            match unreachable(error) {
                ApiProblem::Unreachable(reason) => ApiProblem::Unreachable(self.clean(&reason)),
                other => other,
            }
        }
    }

    /// Returns the API's own error message; empty if there is none.
    fn message(&self, fields: Option<&Map<String, Value>>) -> String {
        let text = |name: &str| fields?.get(name)?.as_str();
        let message = text("message").or_else(|| text("error")).unwrap_or_default();
        self.clean(message)
    }

    /// Shortens text from outside to one printable line without secrets.
    fn clean(&self, text: &str) -> String {
        let mut text = redact(text);
        let secrets = match &self.credentials {
            Credentials::Key(key) => [Some(key), None],
            Credentials::Client { secret, .. } => [Some(secret), self.token.get()],
        };
        for secret in secrets.into_iter().flatten() {
            text = text.replace(secret.expose(), "…");
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        printable(&line.chars().take(300).collect::<String>())
    }
}

/// Creates an error of the API.
fn api_error(action: &str, problem: ApiProblem) -> Error {
    TailnetError::Api { action: action.to_owned(), problem }.into()
}

/// Turns "not found" into an error, for requests that do not expect it.
fn require_found(action: &str, status: StatusCode) -> Result<()> {
    if status == StatusCode::NOT_FOUND {
        return Err(api_error(action, ApiProblem::NotFound(String::new())));
    }
    Ok(())
}

/// Returns the innermost cause of a failed connection, without the URL.
fn unreachable(error: reqwest::Error) -> ApiProblem {
    let error = error.without_url();
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    ApiProblem::Unreachable(deepest.to_string().split(" (os error").next().unwrap_or_default().to_owned())
}

/// Checks the address of the API, to which the key is sent.
fn base_url(text: &str) -> Result<Url> {
    let invalid = |why: &str| {
        Error::from(TailnetError::Credential {
            variable: "TAILSCALE_BASE_URL".into(),
            why: why.into(),
            hint: format!("it is scheme, host and port, such as {BASE}"),
        })
    };
    let url = Url::parse(text).map_err(|_| invalid("is not an address"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("must not hold a name or password"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("holds more than scheme, host and port"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(invalid("must be https, or a loopback address")),
    }
}

/// Returns whether an address is on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host_str().unwrap_or_default() {
        "localhost" => true,
        host => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_goes_to_https_or_to_this_machine() {
        for good in [
            "https://api.tailscale.com",
            "https://x:8443/",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in [
            "api.tailscale.com",
            "http://api.tailscale.com",
            "ftp://127.0.0.1",
            "https://me:tskey-x@host",
            "https://host/api/v2",
            "https://host?x",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
        ] {
            let error = base_url(bad).unwrap_err();
            assert!(
                error.to_string().starts_with("TAILSCALE_BASE_URL: ") && !error.to_string().contains("tskey"),
                "{error}"
            );
        }
    }
}
