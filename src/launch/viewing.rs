//! Shows the window of a service in a separate tmux session. Each terminal that shows the service has its own session.
//!
//! In a session with other services, tmux would show one of their windows when this one closes, and the user's next keys
//! would go there. All clients of a session also show the same window.
//!
//! Hooks end the session when no client shows it any more. tmux has `destroy-unattached` for that, but up to 3.7 its server
//! crashes, and with it every service, if the session's client is suspended while another client ends:
//! `server_check_unattached` destroys the session under its client.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::launch::tmux::{MARKER, Tmux, unsplit};

/// The option of a session that devport may end. It is removed once the user has opened a window there.
const OURS: &str = "@devport_view";

/// A session that shows the window of one service.
#[derive(Debug)]
pub(crate) struct Viewing<'a> {
    tmux: &'a Tmux,
    /// The id of the service's window, such as `@3`.
    window: String,
    /// The name of the session: letters, digits and `-`.
    session: String,
    /// The session as a target.
    target: String,
}

/// The client that the caller runs in, and what it shows. Each is a name or id of tmux without blanks.
struct Client {
    name: String,
    session: String,
    window: String,
    /// Whether that is the window of a service.
    shows_service: bool,
}

/// Returns the format that says whether devport may end a session: no client shows it, and the user has no window there.
fn unused() -> String {
    format!("#{{?{OURS},#{{==:#{{session_attached}},0}},0}}")
}

/// Returns the names of the global hooks for the session of this process. The index keeps other hooks in place.
fn hooks() -> [String; 2] {
    ["client-detached", "client-session-changed"].map(|event| format!("{event}[{}]", std::process::id()))
}

/// Returns the command that deletes those hooks.
fn delete_hooks() -> String {
    hooks().map(|hook| format!("set-hook -gu {hook}")).join(" ; ")
}

/// Returns the format for the status line that says which keys work in the window. `leave`: the key that leaves it, after
/// the user's prefix.
fn keys(leave: &str) -> String {
    let prefix = "#{?#{==:#{prefix},C-b},Ctrl-B,#{prefix}}";
    format!("{prefix} {leave} goes back; Ctrl-C stops the service, Ctrl-Z restarts it ")
}

impl<'a> Viewing<'a> {
    /// Prepares a session; opens nothing. `name` has only letters, digits and `-`, and no other session has it.
    pub(crate) fn new(tmux: &'a Tmux, window: String, name: String) -> Self {
        Self { tmux, window, target: format!("={name}:"), session: name }
    }

    /// Returns the program and arguments of a client that shows the window in this terminal, and ends with the window.
    /// [`Self::close`] follows.
    pub(crate) fn client(&self) -> (PathBuf, Vec<OsString>) {
        let mut arguments = self.open(1, "D");
        arguments.extend([";", "attach-session", "-t", &self.target].map(OsString::from));
        self.tmux.client(arguments)
    }

    /// Cleans up after the client has ended: no hook runs if it could not be attached, or if the window has closed.
    pub(crate) fn close(&self) {
        let kill = format!("kill-session -t '{}'", self.target);
        // The rest is not executed if there is no session.
        let mut arguments: Vec<String> =
            hooks().into_iter().flat_map(|hook| ["set-hook".into(), "-gu".into(), hook, ";".into()]).collect();
        arguments.extend(["if-shell", "-F", "-t", &self.target, &unused(), &kill].map(String::from));
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let _ = self.tmux.query("kill-session", &arguments);
    }

    /// Shows the window in the client that the caller runs in. When the window closes, the client shows what it shows
    /// now, and a message. If that is another service, the client detaches instead. `pane`: the pane that the caller runs
    /// in, if it is known.
    ///
    /// # Errors
    /// [`Error::Tmux`] if no client shows the caller, or a command fails.
    pub(crate) fn switch(&self, pane: Option<&OsStr>, message: &str) -> Result<()> {
        let client = self.caller(pane)?;
        let mut arguments = if client.shows_service { self.open(1, "L") } else { self.open_next_to(&client, message) };
        arguments.extend([";", "switch-client", "-c", &client.name, "-t", &self.target].map(OsString::from));
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        self.tmux.query("switch-client", &arguments).map(drop)
    }

    /// Returns the commands that create the session with the window from which a client comes, and go back with a message
    /// when the service's window closes, but not when the other one does. tmux shows the other window at once, even before
    /// the hook runs.
    fn open_next_to(&self, client: &Client, message: &str) -> Vec<OsString> {
        let (Self { target, window: own, .. }, Client { name, session, window, .. }) = (self, client);
        let mut arguments = self.open(2, "L");
        arguments.extend([";", "link-window", "-d", "-s", window, "-t", target].map(OsString::from));
        // As an option, the message is not parsed as a command or a format.
        arguments.extend([";", "set-option", "-t", target, "@devport_message"].map(OsString::from));
        arguments.push(unsplit(OsStr::new(message)));
        let go_back = format!(
            "if-shell -F -t '{target}' '#{{&&:#{{==:#{{session_windows}},1}},#{{!=:#{{window_id}},{own}}}}}' \
             \"display-message -c '{name}' -t '{target}' '#{{@devport_message}}' ; \
             switch-client -c '{name}' -t '{session}' ; kill-session -t '{target}'\""
        );
        arguments.extend([";", "set-hook", "-t", target, "window-unlinked", &go_back].map(OsString::from));
        // If the other window closes first, the current one of the user's session takes its place.
        let replace = format!(
            "if-shell -F -t '{target}' '#{{&&:#{{==:#{{session_windows}},1}},#{{==:#{{window_id}},{own}}}}}' \
             \"link-window -d -s '{session}:' -t '{target}'\""
        );
        arguments.extend([";", "set-hook", "-a", "-t", target, "window-unlinked", &replace].map(OsString::from));
        arguments
    }

    /// Returns the commands that create the session. Attach a client in the same sequence of commands: without one, a hook
    /// may end the session. `windows`: how many windows devport puts into it. `leave`: see [`keys`].
    fn open(&self, windows: usize, leave: &str) -> Vec<OsString> {
        let Self { window, session, target, .. } = self;
        // `new-session` always makes a window. The service's window replaces it at once.
        let mut arguments =
            ["new-session", "-d", "-s", session, "-c", "/", "--", "sleep", "10"].map(OsString::from).to_vec();
        let first = format!("{target}^");
        arguments.extend([";", "link-window", "-k", "-s", window, "-t", &first].map(OsString::from));
        arguments.extend([";", "set-option", "-t", target, "detach-on-destroy", "on"].map(OsString::from));
        // A message would stop the output of the window while it is shown.
        for (option, value) in [("status", "on"), ("status-right", &keys(leave)), ("status-right-length", "80")] {
            arguments.extend([";", "set-option", "-t", target, option, value].map(OsString::from));
        }
        // The user's configuration may have it on.
        arguments.extend([";", "set-option", "-t", target, "destroy-unattached", "off"].map(OsString::from));
        arguments.extend([";", "set-option", "-t", target, OURS, "1"].map(OsString::from));
        let keep = format!(
            "if-shell -F -t '{target}' '#{{!=:#{{session_windows}},{windows}}}' \"set-option -u -t '{target}' {OURS}\""
        );
        arguments.extend([";", "set-hook", "-t", target, "window-linked", &keep].map(OsString::from));
        arguments.extend(self.end_unused());
        arguments
    }

    /// Returns the commands for the hooks that end the session once its client detaches or switches to another session.
    /// They are global: tmux runs those of the session to which the client switches, and after a detach those of the
    /// session that was used last. If the user's session has such a hook, this session may stay until the service's window
    /// closes. The hooks delete themselves after the end of the session.
    fn end_unused(&self) -> Vec<OsString> {
        let Self { session, target, .. } = self;
        let is_it = format!("#{{==:#{{session_name}},{session}}}");
        let is_unused = format!("#{{S:#{{?#{{&&:{is_it},{}}},1,}}}}", unused());
        let has_ended = format!("#{{?#{{S:#{{?{is_it},1,}}}},,1}}");
        let end = format!(
            "if-shell -F '{is_unused}' \"kill-session -t '{target}'\" ; if-shell -F '{has_ended}' '{}'",
            delete_hooks()
        );
        hooks().iter().flat_map(|hook| [";", "set-hook", "-g", hook, &end].map(OsString::from)).collect()
    }

    /// Finds the client that the caller runs in.
    fn caller(&self, pane: Option<&OsStr>) -> Result<Client> {
        let mut arguments = vec![OsStr::new("display-message"), OsStr::new("-p")];
        if let Some(pane) = pane {
            arguments.extend([OsStr::new("-t"), pane]);
        }
        let format = format!("#{{session_id}} #{{window_id}} #{{?{MARKER},1,0}} #{{client_name}}");
        arguments.push(OsStr::new(&format));
        let shown = self.tmux.query("display-message", &arguments)?;
        let fields: Vec<&str> = shown.split_whitespace().collect();
        let [session, window, service, name] = fields.as_slice() else {
            return Err(Error::Tmux { command: "switch-client", message: "no client shows this terminal".into() });
        };
        Ok(Client {
            name: (*name).into(),
            session: (*session).into(),
            window: (*window).into(),
            shows_service: *service == "1",
        })
    }
}
