//! Opens and finds the windows of services, in a tmux session that they share.
//!
//! tmux(1) interprets its arguments: it matches a target by prefix or pattern unless it begins with `=`, it expands
//! formats in `-n` and `-c` (which can run commands), and a `;` at the end of any argument ends the command. Also, the
//! user's configuration may set any option. Therefore windows are targeted by id, arguments are escaped, and options that
//! devport depends on are set on its own session and windows.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::identity::Key;
use crate::os::{spawn, tool};
use crate::registry::{Pane, Reservation};

/// The user option on a window that names its service: state directory and hash.
pub(super) const MARKER: &str = "@devport_service";
/// How long a tmux command may take. It takes milliseconds unless the server hangs.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many times devport tries to open a window. An attempt fails if another process creates or ends the session in between; eight
/// in a row mean that another reason makes it fail.
const ATTEMPTS: usize = 8;

/// The tmux program and the server that it connects to.
#[derive(Debug)]
pub(crate) struct Tmux {
    program: PathBuf,
    /// The environment of tmux. A server that it starts keeps this and passes it to every window, so it has no secrets.
    environment: Vec<(OsString, OsString)>,
    /// The server's socket; `None` for the server that the caller runs in, or else the default one.
    socket: Option<String>,
}

/// The result of a tmux command. A command sequence may print output and fail later.
struct Response {
    output: String,
    /// `None` if the command succeeded.
    failure: Option<Error>,
}

/// A window that was just opened.
#[derive(Debug)]
pub(super) struct Window {
    /// The window's id, such as `@3`.
    id: String,
    /// The pid of the process in the window: the supervisor.
    pub(super) pid: i32,
}

/// A tmux command that marks a window, running in the background.
#[derive(Debug)]
pub(super) struct Marking<'a> {
    tmux: &'a Tmux,
    window: String,
    /// The value of [`MARKER`] on the service's windows.
    marker: PathBuf,
    /// `None` if tmux could not be executed.
    client: Option<Child>,
}

impl Tmux {
    /// Creates a client of the server that the caller runs in, or else of the default one.
    pub(crate) fn new(program: PathBuf, environment: Vec<(OsString, OsString)>) -> Self {
        Self { program, environment, socket: None }
    }

    /// Connects to the server at a socket instead.
    pub(crate) fn at_socket(self, socket: &str) -> Self {
        Self { socket: Some(socket.to_owned()), ..self }
    }

    /// Builds a tmux command.
    fn tmux(&self, arguments: &[&OsStr]) -> Command {
        let mut command = spawn::tool(&self.program);
        command.env_clear().envs(self.environment.iter().cloned()).current_dir("/");
        if let Some(socket) = &self.socket {
            command.arg("-S").arg(socket);
        }
        command.args(arguments);
        command
    }

    /// Runs a tmux command. `name` is its name in errors.
    ///
    /// # Errors
    /// If tmux cannot be executed or does not exit in time. A command that fails is in the response.
    fn run(&self, name: &'static str, arguments: &[&OsStr]) -> Result<Response> {
        let failed = |error| Error::Tmux { command: name, message: crate::error::reason(&error) };
        let client = self.tmux(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let finished = client.and_then(|client| tool::finish(client, TIMEOUT)).map_err(failed)?;
        let status = finished.status.ok_or(Error::TmuxSilent { waited_s: TIMEOUT.as_secs() })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let failure = Error::Tmux { command: name, message: text(&finished.errors).trim().to_owned() };
        Ok(Response { output: text(&finished.output), failure: (!status.success()).then_some(failure) })
    }

    /// Runs a tmux command and returns its output.
    ///
    /// # Errors
    /// As [`Self::run`], or if the command fails.
    pub(super) fn query(&self, name: &'static str, arguments: &[&OsStr]) -> Result<String> {
        let response = self.run(name, arguments)?;
        response.failure.map_or(Ok(response.output), Err)
    }

    /// Opens a window in the session of a service and runs `command` in it. Creates the session if it does not exist. The
    /// user's terminals keep showing the windows that they show.
    ///
    /// # Errors
    /// [`Error::Tmux`] with the message of tmux, or [`Error::TmuxSilent`].
    pub(super) fn open_window(&self, reservation: &Reservation, command: &[OsString]) -> Result<Window> {
        let name = literal_name(reservation.key.as_ref().map_or(reservation.hash.as_str(), Key::as_str));
        let session = OsStr::new(reservation.tmux_session());
        let target = session_target(reservation);
        let target = OsStr::new(&target);
        let report = OsStr::new("#{window_id} #{pane_pid}");
        let words: Vec<OsString> = command.iter().map(|word| unsplit(word)).collect();
        let words = words.iter().map(OsString::as_os_str);
        let common = [
            OsStr::new("-d"),
            OsStr::new("-P"),
            OsStr::new("-F"),
            report,
            OsStr::new("-c"),
            OsStr::new("/"),
            OsStr::new("-n"),
            &name,
        ];
        let mut in_session: Vec<&OsStr> = vec![OsStr::new("new-window"), OsStr::new("-t"), target];
        in_session.extend(common);
        in_session.push(OsStr::new("--"));
        in_session.extend(words.clone());
        let mut new_session: Vec<&OsStr> = vec![OsStr::new("new-session"), OsStr::new("-s"), session];
        new_session.extend(common);
        new_session.push(OsStr::new("--"));
        new_session.extend(words);
        // With `destroy-unattached on` in the user's configuration, the session would end at once: no client is attached.
        new_session.extend([";", "set-option", "-t"].map(OsStr::new));
        new_session.extend([target, OsStr::new("destroy-unattached"), OsStr::new("off")]);
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            match self.query("new-window", &in_session) {
                Ok(report) => return Window::parse(&report),
                Err(error @ Error::TmuxSilent { .. }) => return Err(error),
                Err(error) => failure.get_or_insert(error),
            };
            let response = self.run("new-session", &new_session)?;
            match (Window::parse(&response.output), response.failure) {
                // The window was opened, and its supervisor started, even if setting the option failed.
                (Ok(window), _) => return Ok(window),
                (Err(error), None) => return Err(error),
                // "duplicate session": another process has created it in between.
                (Err(_), error) => failure = error,
            }
        }
        Err(failure.unwrap_or(Error::Tmux { command: "new-window", message: "no window".into() }))
    }

    /// Starts to mark a window with the service that it belongs to. The supervisor starts meanwhile.
    pub(super) fn mark(&self, window: &Window, base: &Path, reservation: &Reservation) -> Marking<'_> {
        let marker = base.join(reservation.hash.as_str());
        let id = OsStr::new(&window.id);
        let value = unsplit(marker.as_os_str());
        let mut arguments =
            vec![OsStr::new("set-option"), OsStr::new("-w"), OsStr::new("-t"), id, OsStr::new(MARKER), &value];
        arguments.extend([";", "set-option", "-w", "-t"].map(OsStr::new));
        arguments.extend([id, OsStr::new("remain-on-exit"), OsStr::new("off")]);
        let list = format!("#{{window_id}}\t#{{pane_dead}}\t#{{{MARKER}}}");
        // Of all sessions: the service may have had its last window in another one.
        arguments.extend([";", "list-windows", "-a", "-F", &list].map(OsStr::new));
        arguments.extend(
            [";", "list-clients", "-F", "client", ";", "show-options", "-sv", "exit-unattached"].map(OsStr::new),
        );
        let client = self.tmux(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok();
        Marking { tmux: self, window: window.id.clone(), marker, client }
    }

    /// Returns the id of the window that contains a pane, such as `@3`; `None` if the pane is closed, or belongs to
    /// another service.
    ///
    /// # Errors
    /// [`Error::Tmux`] if tmux fails.
    pub(crate) fn find(&self, pane: &Pane, base: &Path, reservation: &Reservation) -> Result<Option<String>> {
        let format = format!("#{{pane_id}}\t#{{window_id}}\t#{{{MARKER}}}");
        let panes = self.query("list-panes", &["list-panes", "-a", "-F", &format].map(OsStr::new))?;
        let marker = base.join(reservation.hash.as_str());
        let window = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [id, window, service] = fields.as_slice() else { return None };
            (*id == pane.pane && Path::new(service) == marker).then(|| (*window).to_owned())
        };
        Ok(panes.lines().find_map(window))
    }

    /// Returns the program and arguments of a tmux command that has the caller's terminal.
    pub(super) fn client(&self, commands: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
        let socket = self.socket.iter().flat_map(|socket| ["-S".into(), socket.into()]);
        (self.program.clone(), socket.chain(commands).collect())
    }
}

impl Window {
    /// Parses the output of `-P -F '#{window_id} #{pane_pid}'`.
    fn parse(report: &str) -> Result<Self> {
        let line = report.lines().next().unwrap_or_default();
        let parsed =
            line.split_once(' ').and_then(|(id, pid)| Some(Self { id: id.to_owned(), pid: pid.parse().ok()? }));
        parsed.ok_or_else(|| Error::Tmux { command: "new-window", message: format!("unexpected response {line:?}") })
    }
}

impl Marking<'_> {
    /// Waits until the window is marked, and closes the dead windows of the same service, which `remain-on-exit` has kept.
    /// Returns `false` if the window is closed, or will be. The caller holds the launch lock.
    pub(super) fn finish(self) -> bool {
        let Some(finished) = self.client.and_then(|client| tool::finish(client, TIMEOUT).ok()) else { return false };
        let windows = String::from_utf8_lossy(&finished.output);
        for line in windows.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            if let [id, "1", service] = fields.as_slice()
                && Path::new(service) == self.marker
            {
                // A dead window that stays open does no harm.
                let _ = self.tmux.query("kill-window", &["kill-window", "-t", id].map(OsStr::new));
            }
        }
        // With `exit-unattached on`, the server ends when the last client detaches, and takes its services with it.
        let is_doomed = windows.lines().any(|line| line == "on") && !windows.lines().any(|line| line == "client");
        if is_doomed {
            let _ = self.tmux.query("kill-window", &["kill-window", "-t", &self.window].map(OsStr::new));
        }
        finished.status.is_some_and(|status| status.success()) && !is_doomed
    }
}

/// Returns the session of a service as a target: `=` demands the exact name, and `:` makes it a session rather than a
/// window.
fn session_target(reservation: &Reservation) -> String {
    format!("={}:", reservation.tmux_session())
}

/// Escapes a name, so that tmux does not expand formats in it: `#` begins a format.
fn literal_name(name: &str) -> OsString {
    unsplit(OsStr::new(&name.replace('#', "##")))
}

/// Escapes an argument, so that a `;` at its end does not end the command.
pub(super) fn unsplit(argument: &OsStr) -> OsString {
    let mut bytes = argument.as_bytes().to_vec();
    if bytes.last() == Some(&b';') {
        bytes.pop();
        bytes.extend_from_slice(b"\\;");
    }
    OsString::from_vec(bytes)
}

/// Returns the words of a command that prints how many terminals show the window of a pane, or nothing if tmux does
/// not know the variable. It starts no server.
pub(crate) fn count_viewers(program: PathBuf, pane: &Pane) -> Vec<OsString> {
    let arguments = ["-S", &pane.socket, "display-message", "-p", "-t", &pane.pane, "#{window_active_clients}"];
    std::iter::once(program.into_os_string()).chain(arguments.map(OsString::from)).collect()
}

/// Returns the pane that this process runs in; `None` if it does not run in tmux. The arguments are the values of `TMUX`
/// and `TMUX_PANE` (tmux(1)).
pub(crate) fn own_window(tmux: Option<&OsStr>, pane: Option<&OsStr>) -> Option<Pane> {
    let socket = tmux?.to_str()?.split(',').next()?;
    Some(Pane { socket: socket.to_owned(), pane: pane?.to_str()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arguments_are_not_expanded_or_split() {
        assert_eq!(literal_name("#(touch x)"), "##(touch x)");
        assert_eq!(literal_name("end;"), "end\\;");
        assert_eq!(unsplit(OsStr::new("a;b")), "a;b");
    }

    #[test]
    fn the_output_of_new_window_is_parsed() {
        assert_eq!(Window::parse("@3 4711\n").unwrap().pid, 4711);
        assert!(Window::parse("").is_err());
    }

    #[test]
    fn the_environment_names_the_own_pane() {
        let pane = own_window(Some(OsStr::new("/tmp/tmux-0/default,123,0")), Some(OsStr::new("%5")));
        assert_eq!(pane, Some(Pane { socket: "/tmp/tmux-0/default".into(), pane: "%5".into() }));
        assert_eq!(own_window(None, Some(OsStr::new("%5"))), None);
    }
}
