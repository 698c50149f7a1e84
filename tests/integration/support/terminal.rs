//! `Terminal`: a terminal for a test. Each is a separate tmux server.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Done, TestEnv, poll};

/// The number of the next terminal: each is a tmux server.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A terminal of 30 rows that runs a command.
pub(crate) struct Terminal<'a>(&'a TestEnv, String);

impl<'a> Terminal<'a> {
    /// Runs a command in a terminal of 100 columns.
    pub(crate) fn run(env: &'a TestEnv, command: &str) -> Self {
        Self::sized(env, 100, command)
    }

    /// Runs a command in a terminal with this number of columns.
    pub(crate) fn sized(env: &'a TestEnv, columns: u16, command: &str) -> Self {
        let command = format!("env -u TMUX -u TMUX_PANE {command}; echo ended with $?; exec sleep 1000");
        let terminal = Self(env, format!("outer{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        terminal
            .tmux(&["new-session", "-d", "-x", &columns.to_string(), "-y", "30", "-s", "t", "sh", "-c", &command])
            .ok();
        terminal
    }

    pub(crate) fn tmux(&self, arguments: &[&str]) -> Done {
        self.0.finish(self.0.command("tmux").args(["-L", &self.1, "-f", "/dev/null"]).args(arguments))
    }

    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "=t:"], keys].concat()).ok();
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "=t:"]).ok().stdout
    }

    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        let mut last = String::new();
        let shown = poll(|| {
            last = self.screen();
            last.contains(text).then_some(())
        });
        assert!(shown.is_some(), "{text:?} does not show in:\n{last}");
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
