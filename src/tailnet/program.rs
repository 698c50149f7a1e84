//! The `tailscale` program, which changes what this machine serves.
//!
//! Its options must precede the target, or they are parsed as part of it. It exits with 0 after some failures, and
//! writes warnings to standard error after successes, so devport checks the result. `serve reset` and `… off` would
//! delete handlers that devport did not create, or keep some that devport created, so devport uses neither.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::config::CallerEnvironment;
use crate::error::{Error, Result, TailnetError};
use crate::os::clock::{self, Deadline};
use crate::os::{spawn, tool};
use crate::tailnet::credentials::redact;
use crate::tailnet::endpoint::{Endpoint, ServeConfig};
use crate::tailnet::node::Node;
use crate::text::printable;

/// The path on macOS if the program is not in `PATH`: the app brings its own.
const IN_APP: &str = "/Applications/Tailscale.app/Contents/MacOS/Tailscale";
/// How many times a change is tried if another client changes the configuration at the same time, which takes milliseconds.
const ATTEMPTS: u32 = 5;

/// The program and the environment for it.
#[derive(Debug)]
pub(super) struct Tailscale {
    program: PathBuf,
    /// The caller's environment without credentials, which the program does not need.
    environment: Vec<(OsString, OsString)>,
}

/// The result of the program.
struct ProgramOutput {
    output: String,
    /// Whether it exited with 0.
    success: bool,
    /// Both output streams, for a message.
    message: String,
}

impl Tailscale {
    /// Finds the program.
    ///
    /// # Errors
    /// [`TailnetError::NoProgram`].
    pub(super) fn find(environment: &CallerEnvironment) -> Result<Self> {
        let in_app = || Some(PathBuf::from(IN_APP)).filter(|_| cfg!(target_os = "macos") && Path::new(IN_APP).exists());
        let program =
            spawn::find_program("tailscale", environment.get("PATH")).or_else(in_app).ok_or(TailnetError::NoProgram)?;
        Ok(Self { program, environment: environment.for_tools() })
    }

    /// Returns this machine's state. The program exits with 0 in every state of tailscaled, unless that is not running.
    ///
    /// # Errors
    /// If tailscaled does not run or cannot be queried.
    pub(super) fn node(&self, deadline: Deadline) -> Result<Node> {
        let finished = self.run(&["status", "--json", "--peers=false"], deadline)?;
        read(&["status"], &finished)
    }

    /// Returns what this machine serves.
    ///
    /// # Errors
    /// If tailscaled does not run or cannot be queried.
    pub(super) fn config(&self, deadline: Deadline) -> Result<ServeConfig> {
        let finished = self.run(&["serve", "status", "--json"], deadline)?;
        read(&["serve", "status"], &finished)
    }

    /// Serves a service under a name, and returns the program's output. The caller must check the result.
    ///
    /// # Errors
    /// The failure that the program reports.
    pub(super) fn serve(&self, name: &str, endpoint: Endpoint, deadline: Deadline) -> Result<String> {
        let service = format!("--service=svc:{name}");
        let (option, target) = (endpoint.option(), endpoint.target());
        let mut arguments = vec!["serve", &service];
        arguments.extend(option.as_deref());
        arguments.push(&target);
        Ok(self.change(&arguments, deadline)?.message)
    }

    /// Stops advertising a name. One that is not advertised is not an error.
    ///
    /// # Errors
    /// The failure that the program reports.
    pub(super) fn drain(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.change(&["serve", "drain", &format!("svc:{name}")], deadline).map(drop)
    }

    /// Deletes the handlers of a name. One that is not served is not an error.
    ///
    /// # Errors
    /// The failure that the program reports.
    pub(super) fn clear(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.change(&["serve", "clear", &format!("svc:{name}")], deadline).map(drop)
    }

    /// Runs a command that changes the configuration, and repeats it if another client changed it at the same time.
    fn change(&self, arguments: &[&str], deadline: Deadline) -> Result<ProgramOutput> {
        for attempt in 1.. {
            let finished = self.run(arguments, deadline)?;
            if finished.success {
                return Ok(finished);
            }
            match failure(arguments, &finished.message) {
                TailnetError::ConcurrentEdit if attempt < ATTEMPTS => {
                    clock::pause(Duration::from_millis(50) * attempt);
                }
                error => return Err(error.into()),
            }
        }
        Err(TailnetError::ConcurrentEdit.into())
    }

    fn run(&self, arguments: &[&str], deadline: Deadline) -> Result<ProgramOutput> {
        let cannot = |error: std::io::Error| {
            Error::Tailnet(TailnetError::Program { command: name_of(arguments), message: crate::error::reason(&error) })
        };
        let mut command = spawn::tool(&self.program);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned()).current_dir("/").process_group(0);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(cannot)?;
        let finished = tool::finish(child, deadline.remaining()).map_err(cannot)?;
        let output = String::from_utf8_lossy(&finished.output).into_owned();
        let errors = String::from_utf8_lossy(&finished.errors);
        let message = redact(format!("{errors}\n{output}").trim());
        match finished.status {
            Some(status) => Ok(ProgramOutput { output, success: status.success(), message }),
            // Without HTTPS the program waits until it is enabled, and prints the page for that.
            None => Err(not_enabled(&message)
                .unwrap_or_else(|| TailnetError::Silent {
                    command: name_of(arguments),
                    waited_s: deadline.limit.as_secs(),
                })
                .into()),
        }
    }
}

/// Parses a JSON response.
fn read<T: serde::de::DeserializeOwned>(arguments: &[&str], finished: &ProgramOutput) -> Result<T> {
    if !finished.success {
        return Err(failure(arguments, &finished.message).into());
    }
    serde_json::from_str(&finished.output).map_err(|error| {
        TailnetError::Program { command: name_of(arguments), message: format!("could not parse its response: {error}") }
            .into()
    })
}

/// Returns the arguments up to the first option, to name the command in a message.
fn name_of(arguments: &[&str]) -> String {
    arguments.iter().take_while(|argument| !argument.starts_with('-')).copied().collect::<Vec<_>>().join(" ")
}

/// Classifies a failure by the program's message.
fn failure(arguments: &[&str], message: &str) -> TailnetError {
    let says = |text: &str| message.contains(text);
    let not_connected = |state: &str| TailnetError::NotConnected { state: state.into() };
    // Log lines precede some messages, and the usage follows some.
    let words = || first_words(message);
    if says("etag mismatch") || says("Another client is changing") {
        TailnetError::ConcurrentEdit
    } else if says("Access denied") || says("permission denied") {
        TailnetError::Denied { message: words() }
    } else if says("ailed to connect to local") {
        TailnetError::DaemonDown { message: words() }
    } else if says("Logged out.") {
        not_connected("NeedsLogin")
    } else if says("Tailscale is stopped.") {
        not_connected("Stopped")
    } else if says("unexpected state: NoState") {
        not_connected("NoState")
    } else if says("not yet approved by tailnet admin") {
        not_connected("NeedsMachineAuth")
    } else if says("flag provided but not defined: -service") {
        TailnetError::TooOld { version: "(this one)".into() }
    } else {
        not_enabled(message).unwrap_or_else(|| TailnetError::Program { command: name_of(arguments), message: words() })
    }
}

/// Returns the error in a message about HTTPS that is not enabled; `None` for another message.
pub(super) fn not_enabled(message: &str) -> Option<TailnetError> {
    if !message.contains("is not enabled on your tailnet") {
        return None;
    }
    let visit = message.split_whitespace().find(|word| word.starts_with("https://")).map(str::to_owned);
    Some(TailnetError::NoHttps { visit })
}

/// Returns the first informative lines of a message, joined and printable: without usage and without dated log lines.
pub(super) fn first_words(message: &str) -> String {
    let lines = message
        .lines()
        .take_while(|line| *line != "USAGE" && !line.starts_with("try `tailscale"))
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty() && !line.starts_with("Warning: client version"))
        .filter(|line| !(line.starts_with("20") && line.get(4..5) == Some("/")));
    let words: String = lines.take(3).collect::<Vec<_>>().join("; ");
    printable(&words.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(message: &str) -> String {
        format!("{:?}", failure(&["serve", "--service=svc:a"], message))
    }

    #[test]
    fn the_messages_of_the_program_are_classified() {
        for (message, variant) in [
            (
                "Another client is changing the serve config; please try again.\nsending serve config: Preconditions failed: etag mismatch",
                "ConcurrentEdit",
            ),
            ("sending serve config: Access denied: serve config denied\n\nUse 'sudo tailscale serve'.", "Denied"),
            (
                "error getting serve config: getting serve config: Failed to connect to local Tailscale daemon for /localapi/v0/serve-config; not running? Error: dial unix /s: connect: no such file or directory",
                "DaemonDown",
            ),
            (
                "failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)",
                "DaemonDown",
            ),
            ("Logged out.\nLog in at: https://login.tailscale.com/a/abc", "NeedsLogin"),
            ("Tailscale is stopped.", "Stopped"),
            ("unexpected state: NoState", "NoState"),
            ("Machine is not yet approved by tailnet admin.", "NeedsMachineAuth"),
            ("flag provided but not defined: -service\nServe content\n\nUSAGE\n  tailscale serve", "TooOld"),
            (
                "\nServe is not enabled on your tailnet.\nTo enable, visit:\n\n         https://login.tailscale.com/f/serve?node=n1\n",
                "https://login.tailscale.com/f/serve?node=n1",
            ),
            ("sending serve config: updating config: netMap is nil", "netMap is nil"),
        ] {
            assert!(meaning(message).contains(variant), "{message}: {}", meaning(message));
        }
    }

    #[test]
    fn noise_and_usage_are_left_out_of_messages() {
        assert_eq!(
            first_words(
                "2026/11/21 05:02:10 error checking SO mark\nWarning: client version \"a\" != b\nerror: failed apply web serve: x\n\ntry `tailscale serve --help` for usage info"
            ),
            "failed apply web serve: x"
        );
        assert_eq!(
            first_words("invalid value \"d7e\"\nServe content\n\nUSAGE\n  tailscale"),
            "invalid value \"d7e\"; Serve content"
        );
    }
}
