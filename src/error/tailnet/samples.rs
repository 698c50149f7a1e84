//! One sample of every error of the tailnet.

use super::*;

/// How many places there are.
pub(in crate::error) const COUNT: usize = 16 + 11;

/// Returns the place of an error. The compiler demands a place for every variant.
#[rustfmt::skip]
pub(in crate::error) fn place(error: &TailnetError) -> usize {
    match error {
        TailnetError::NoProgram => 0, TailnetError::DaemonDown { .. } => 1, TailnetError::NotConnected { .. } => 2,
        TailnetError::TooOld { .. } => 3, TailnetError::Untagged { .. } => 4, TailnetError::NoHttps { .. } => 5,
        TailnetError::Denied { .. } => 6, TailnetError::Silent { .. } => 7, TailnetError::ConcurrentEdit => 8,
        TailnetError::Program { .. } => 9, TailnetError::NotServed { .. } => 10, TailnetError::NoPort { .. } => 11,
        TailnetError::NameTaken { .. } => 12, TailnetError::InvalidName { .. } => 13,
        TailnetError::Credential { .. } => 14, TailnetError::NotApproved { .. } => 15,
        TailnetError::Api { problem, .. } => 16 + match problem {
            ApiProblem::Unauthorized(_) => 0, ApiProblem::Forbidden(_) => 1, ApiProblem::NotFound(_) => 2,
            ApiProblem::Conflict(_) => 3, ApiProblem::Refused { .. } => 4, ApiProblem::RateLimited { .. } => 5,
            ApiProblem::Server { .. } => 6, ApiProblem::Redirect { .. } => 7, ApiProblem::NotJson(_) => 8,
            ApiProblem::Silent { .. } => 9, ApiProblem::Unreachable(_) => 10,
        },
    }
}

/// Returns one error of every variant, or several if its text differs.
pub(in crate::error) fn all() -> Vec<TailnetError> {
    let shop = || "shop".to_owned();
    let message = || "no such host".to_owned();
    let mut all = vec![
        TailnetError::NoProgram,
        TailnetError::DaemonDown { message: "connection refused".into() },
        TailnetError::TooOld { version: "1.80.0".into() },
        TailnetError::Untagged { port: 19001 },
        TailnetError::NoHttps { visit: None },
        TailnetError::Denied { message: "access denied".into() },
        TailnetError::Silent { command: "serve".into(), waited_s: 15 },
        TailnetError::ConcurrentEdit,
        TailnetError::Program { command: "serve".into(), message: "bad request".into() },
        TailnetError::NotServed { name: shop(), message: String::new() },
        TailnetError::NoPort { service: "job".into() },
        TailnetError::NameTaken {
            name: shop(),
            owner: "web, another service of this machine".into(),
            service: "api".into(),
        },
        TailnetError::InvalidName { name: "a_b".into() },
        TailnetError::Credential {
            variable: "TAILSCALE_API_KEY".into(),
            why: "it is empty".into(),
            hint: "unset it".into(),
        },
        TailnetError::NotApproved { name: shop(), waited_s: 10 },
    ];
    let states = ["NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", ""];
    all.extend(states.map(|state| TailnetError::NotConnected { state: state.into() }));
    let problems = [
        ApiProblem::Unauthorized(String::new()),
        ApiProblem::Forbidden(String::new()),
        ApiProblem::NotFound(message()),
        ApiProblem::Conflict("name in use".into()),
        ApiProblem::Refused { status: 400, message: "bad comment".into() },
        ApiProblem::RateLimited { message: String::new(), retry_after_s: Some(30) },
        ApiProblem::Server { status: 503, message: String::new() },
        ApiProblem::Redirect { status: 302, to: "http://evil".into() },
        ApiProblem::NotJson("text/html".into()),
        ApiProblem::Silent { waited_s: 15 },
        ApiProblem::Unreachable(message()),
    ];
    all.extend(problems.map(|problem| TailnetError::Api { action: "define svc:shop".into(), problem }));
    all
}
