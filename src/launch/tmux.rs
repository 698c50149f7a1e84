//! Windows of the shared tmux session. Source: tmux(1).
//!
//! tmux reads its arguments more than once: names are matched loosely unless `=` stands in front, `-n` and
//! `-c` expand formats (which can run commands), a `;` at the end of any argument ends the command. And the
//! user's configuration may set anything. So: targets are ids, names are only for people, whatever shall not
//! be expanded is escaped, and what is needed is set on our own window and session alone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::os::{spawn, tool};
use crate::registry::{Pane, Reservation};

/// The session that all services share.
const SESSION: &str = "devport";
/// It as a target: `=` takes the name exactly, `:` says that it is a session and no window.
const SESSION_TARGET: &str = "=devport:";
/// The window option that says which service a window belongs to.
const MARKER: &str = "@devport_service";
/// How long a tmux server may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How often opening a window is tried: others may create or end the session meanwhile.
const ATTEMPTS: usize = 8;

/// A tmux program, and what it may know of our environment.
#[derive(Debug)]
pub(crate) struct Tmux {
    /// The program.
    program: PathBuf,
    /// Its environment; a server that it starts keeps that for ever, and shows it to every window.
    environment: Vec<(OsString, OsString)>,
    /// The server's socket; `None`: the one of the caller's own session, or the standard one.
    socket: Option<String>,
}

/// What tmux answered.
struct Answer {
    /// What it printed.
    printed: String,
    /// Its error; `None` if all went well.
    failure: Option<Error>,
}

/// A window that was just opened.
#[derive(Debug)]
pub(super) struct Window {
    /// Its id, such as `@3`.
    id: String,
    /// The pid of what runs in it.
    pub(super) pid: i32,
}

/// Where a pane is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowId {
    /// The id of the session, such as `$0`.
    pub(crate) session: String,
    /// The id of the window.
    pub(crate) window: String,
}

/// A marking under way.
#[derive(Debug)]
pub(super) struct Marking<'a> {
    /// The tmux that marks.
    tmux: &'a Tmux,
    /// The window's id.
    window: String,
    /// What is written on the service's windows.
    marker: PathBuf,
    /// The tmux command; `None` if it could not be run.
    client: Option<Child>,
}

impl Tmux {
    /// A tmux for the server of the caller's own session, or the standard one.
    pub(crate) fn new(program: PathBuf, environment: Vec<(OsString, OsString)>) -> Self {
        Self { program, environment, socket: None }
    }

    /// The same for the server at a socket.
    pub(crate) fn at_socket(self, socket: &str) -> Self {
        Self { socket: Some(socket.to_owned()), ..self }
    }

    /// A tmux command, to be completed and run.
    fn tmux(&self, arguments: &[&OsStr]) -> Command {
        let mut command = spawn::tool(&self.program);
        command.env_clear().envs(self.environment.iter().cloned()).current_dir("/");
        if let Some(socket) = &self.socket {
            command.arg("-S").arg(socket);
        }
        command.args(arguments);
        command
    }

    /// Runs a tmux command to its end.
    fn run(&self, name: &'static str, arguments: &[&OsStr]) -> Result<Answer> {
        let failed = |error| Error::Tmux { command: name, message: crate::error::reason(&error) };
        let client = self.tmux(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let finished = client.and_then(|client| tool::finish(client, LIMIT)).map_err(failed)?;
        let status = finished.status.ok_or(Error::TmuxSilent { waited_s: LIMIT.as_secs() })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let failure = Error::Tmux { command: name, message: text(&finished.errors).trim().to_owned() };
        Ok(Answer { printed: text(&finished.output), failure: (!status.success()).then_some(failure) })
    }

    /// Runs a tmux command and returns what it prints.
    fn ask(&self, name: &'static str, arguments: &[&OsStr]) -> Result<String> {
        let answer = self.run(name, arguments)?;
        answer.failure.map_or(Ok(answer.printed), Err)
    }

    /// Opens a window of the shared session in which `command` runs; creates the session if need be. No focus
    /// moves.
    ///
    /// # Errors
    /// [`Error::Tmux`] with what tmux says.
    pub(super) fn open_window(&self, reservation: &Reservation, command: &[OsString]) -> Result<Window> {
        let name = literal_name(reservation.name());
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
        let mut in_session: Vec<&OsStr> = vec![OsStr::new("new-window"), OsStr::new("-t"), OsStr::new(SESSION_TARGET)];
        in_session.extend(common);
        in_session.push(OsStr::new("--"));
        in_session.extend(words.clone());
        let mut new_session: Vec<&OsStr> = vec![OsStr::new("new-session"), OsStr::new("-s"), OsStr::new(SESSION)];
        new_session.extend(common);
        new_session.push(OsStr::new("--"));
        new_session.extend(words);
        // A session that nobody looks at must last, whatever the configuration says of the user's own.
        new_session.extend([";", "set-option", "-t", SESSION_TARGET, "destroy-unattached", "off"].map(OsStr::new));
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            match self.ask("new-window", &in_session) {
                Ok(report) => return Window::parse(&report),
                Err(error @ Error::TmuxSilent { .. }) => return Err(error),
                Err(error) => failure.get_or_insert(error),
            };
            let answer = self.run("new-session", &new_session)?;
            match (Window::parse(&answer.printed), answer.failure) {
                // Also if the session is gone already, and could not be set up: its supervisor was started.
                (Ok(window), _) => return Ok(window),
                (Err(error), None) => return Err(error),
                // Somebody else was faster ("duplicate session"): there is one now.
                (Err(_), error) => failure = error,
            }
        }
        Err(failure.unwrap_or(Error::Tmux { command: "new-window", message: "no window".into() }))
    }

    /// Begins to write on a window which service it belongs to, while its supervisor starts.
    pub(super) fn mark(&self, window: &Window, base: &Path, reservation: &Reservation) -> Marking<'_> {
        let marker = base.join(reservation.hash.as_str());
        let id = OsStr::new(&window.id);
        let value = unsplit(marker.as_os_str());
        let mut arguments =
            vec![OsStr::new("set-option"), OsStr::new("-w"), OsStr::new("-t"), id, OsStr::new(MARKER), &value];
        arguments.extend([";", "set-option", "-w", "-t"].map(OsStr::new));
        arguments.extend([id, OsStr::new("remain-on-exit"), OsStr::new("off")]);
        let list = format!("#{{window_id}}\t#{{pane_dead}}\t#{{{MARKER}}}");
        arguments.extend([";", "list-windows", "-t", SESSION_TARGET, "-F", &list].map(OsStr::new));
        arguments.extend(
            [";", "list-clients", "-F", "client", ";", "show-options", "-sv", "exit-unattached"].map(OsStr::new),
        );
        let client = self.tmux(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok();
        Marking { tmux: self, window: window.id.clone(), marker, client }
    }

    /// Where a pane is now; `None` if it is gone, or is not that service's.
    ///
    /// # Errors
    /// [`Error::Tmux`] if the server does not answer.
    pub(crate) fn find(&self, pane: &Pane, base: &Path, reservation: &Reservation) -> Result<Option<WindowId>> {
        let format = format!("#{{pane_id}}\t#{{session_id}}\t#{{window_id}}\t#{{{MARKER}}}");
        let panes = self.ask("list-panes", &["list-panes", "-a", "-F", &format].map(OsStr::new))?;
        let marker = base.join(reservation.hash.as_str());
        let place = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [id, session, window, service] = fields.as_slice() else { return None };
            (*id == pane.pane && Path::new(service) == marker)
                .then(|| WindowId { session: (*session).into(), window: (*window).into() })
        };
        // A window may be linked into other sessions; the shared one comes first if it is among them.
        Ok(panes.lines().find_map(place))
    }

    /// The command line that shows a window: to the client that we are in, or as a new client.
    pub(crate) fn show(&self, place: &WindowId, inside: bool) -> (PathBuf, Vec<OsString>) {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(socket) = &self.socket {
            arguments.extend(["-S".into(), socket.into()]);
        }
        let target = format!("{}:{}", place.session, place.window);
        let command = if inside { "switch-client" } else { "attach-session" };
        arguments.extend([command.into(), "-t".into(), target.into()]);
        (self.program.clone(), arguments)
    }
}

impl Window {
    /// Reads what `-P -F '#{window_id} #{pane_pid}'` prints.
    fn parse(report: &str) -> Result<Self> {
        let line = report.lines().next().unwrap_or_default();
        let parsed =
            line.split_once(' ').and_then(|(id, pid)| Some(Self { id: id.to_owned(), pid: pid.parse().ok()? }));
        parsed.ok_or_else(|| Error::Tmux { command: "new-window", message: format!("unexpected answer {line:?}") })
    }
}

impl Marking<'_> {
    /// Waits for it, and removes dead windows of the same service, which `remain-on-exit` keeps; `false` if the
    /// window is gone, or will be. The caller holds the launch lock.
    pub(super) fn finish(self) -> bool {
        let Some(finished) = self.client.and_then(|client| tool::finish(client, LIMIT).ok()) else { return false };
        let windows = String::from_utf8_lossy(&finished.output);
        for line in windows.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            if let [id, "1", service] = fields.as_slice()
                && Path::new(service) == self.marker
            {
                // One that stays is only ugly.
                let _ = self.tmux.ask("kill-window", &["kill-window", "-t", id].map(OsStr::new));
            }
        }
        // A server that ends as soon as nobody looks at it (`exit-unattached`) is no place for a service.
        let doomed = windows.lines().any(|line| line == "on") && !windows.lines().any(|line| line == "client");
        if doomed {
            let _ = self.tmux.ask("kill-window", &["kill-window", "-t", &self.window].map(OsStr::new));
        }
        finished.status.is_some_and(|status| status.success()) && !doomed
    }
}

/// A name that tmux shows as it is: `#` begins a format.
fn literal_name(name: &str) -> OsString {
    unsplit(OsStr::new(&name.replace('#', "##")))
}

/// An argument that does not end a command: tmux takes a `;` at its end for a separator.
fn unsplit(argument: &OsStr) -> OsString {
    let mut bytes = argument.as_bytes().to_vec();
    if bytes.last() == Some(&b';') {
        bytes.pop();
        bytes.extend_from_slice(b"\\;");
    }
    OsString::from_vec(bytes)
}

/// The window that this process runs in, if tmux says so. Source: tmux(1), `TMUX` and `TMUX_PANE`.
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
    fn a_window_is_read_from_tmuxs_report() {
        assert_eq!(Window::parse("@3 4711\n").unwrap().pid, 4711);
        assert!(Window::parse("").is_err());
    }

    #[test]
    fn our_own_window_is_told_by_the_environment() {
        let pane = own_window(Some(OsStr::new("/tmp/tmux-0/default,123,0")), Some(OsStr::new("%5")));
        assert_eq!(pane, Some(Pane { socket: "/tmp/tmux-0/default".into(), pane: "%5".into() }));
        assert_eq!(own_window(None, Some(OsStr::new("%5"))), None);
    }
}
