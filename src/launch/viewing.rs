//! Shows the window of a service in a separate tmux session. Each terminal that shows the service has its own session.
//!
//! In a session with other services, tmux would show one of their windows when this one closes, and the user's next keys
//! would go there. All clients of a session also show the same window. The session ends when no client shows it.
//!
//! tmux can end such a session itself (`destroy-unattached`). But up to 3.7, its server then crashes if the session's client
//! is suspended or about to detach while another client ends: `server_check_unattached` destroys the session under its
//! client. The crash would stop every service, so [`Viewing::close`] ends the session where it can.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::launch::tmux::{MARKER, Tmux, unsplit};

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
        let mut arguments = self.open("D");
        // The user's configuration may have it on.
        arguments.extend([";", "set-option", "-t", &self.target, "destroy-unattached", "off"].map(OsString::from));
        arguments.extend([";", "attach-session", "-t", &self.target].map(OsString::from));
        self.tmux.client(arguments)
    }

    /// Ends the session after its client has ended, unless the user has opened a window in it or another client shows it.
    /// Does nothing if it has ended with the service's window. A session that stays ends with that window.
    pub(crate) fn close(&self) {
        let (target, unused) = (&self.target, "#{&&:#{==:#{session_windows},1},#{==:#{session_attached},0}}");
        let kill = format!("kill-session -t '{target}'");
        let _ = self.tmux.query("kill-session", &["if-shell", "-F", "-t", target, unused, &kill].map(OsStr::new));
    }

    /// Shows the window in the client that the caller runs in. When the window closes, the client shows what it shows
    /// now, and a message. If that is another service, the client detaches instead. `pane`: the pane that the caller runs
    /// in, if it is known.
    ///
    /// # Errors
    /// [`Error::Tmux`] if no client shows the caller, or a command fails.
    pub(crate) fn switch(&self, pane: Option<&OsStr>, message: &str) -> Result<()> {
        let client = self.caller(pane)?;
        let mut arguments = if client.shows_service {
            let mut arguments = self.open("L");
            arguments.extend(self.end_unattached(1));
            arguments
        } else {
            self.open_next_to(&client, message)
        };
        arguments.extend([";", "switch-client", "-c", &client.name, "-t", &self.target].map(OsString::from));
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        self.tmux.query("switch-client", &arguments).map(drop)
    }

    /// Returns the commands that create the session with the window from which a client comes, and go back with a message
    /// when the service's window closes, but not when the other one does. tmux shows the other window at once, even before
    /// the hook runs.
    fn open_next_to(&self, client: &Client, message: &str) -> Vec<OsString> {
        let (Self { target, window: own, .. }, Client { name, session, window, .. }) = (self, client);
        let mut arguments = self.open("L");
        arguments.extend(self.end_unattached(2));
        arguments.extend([";", "link-window", "-d", "-s", window, "-t", target].map(OsString::from));
        // As an option, the message is not parsed as a command or a format.
        arguments.extend([";", "set-option", "-t", target, "@devport_message"].map(OsString::from));
        arguments.push(unsplit(OsStr::new(message)));
        let go_back = format!(
            "if-shell -F -t '{target}' '#{{&&:#{{==:#{{session_windows}},1}},#{{!=:#{{window_id}},{own}}}}}' \
             \"display-message -c '{name}' -t '{target}' '#{{@devport_message}}' ; switch-client -c '{name}' -t '{session}'\""
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

    /// Returns the commands that create the session. `leave`: see [`keys`].
    fn open(&self, leave: &str) -> Vec<OsString> {
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
        arguments
    }

    /// Returns the commands with which the session, which is to have this number of windows, ends without a client: with
    /// the next client that detaches. Attach one in the same sequence of commands.
    fn end_unattached(&self, windows: usize) -> Vec<OsString> {
        let Self { target, .. } = self;
        let mut arguments = [";", "set-option", "-t", target, "destroy-unattached", "on"].map(OsString::from).to_vec();
        // A window that the user opens in the session stays open, so the session does too.
        let keep = format!(
            "if-shell -F -t '{target}' '#{{!=:#{{session_windows}},{windows}}}' \
             \"set-option -t '{target}' destroy-unattached off\""
        );
        arguments.extend([";", "set-hook", "-t", target, "window-linked", &keep].map(OsString::from));
        arguments
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
