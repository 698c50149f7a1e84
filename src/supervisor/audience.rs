//! `Audience`: who sees the output of a child.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::os::{clock, spawn, tool};

/// How long the command that counts viewers may take. tmux takes milliseconds; meanwhile the loop handles nothing
/// else.
const COUNT_LIMIT: Duration = Duration::from_millis(500);

/// Who sees the output of the child.
#[derive(Debug)]
pub(crate) enum Audience {
    /// No person: the log is the only output.
    LogOnly,
    /// The user's own terminal, or whatever the streams were redirected to. It gets every query.
    OwnStreams,
    /// A tmux window, which may be out of sight.
    Window {
        /// The words of the command that prints how many clients show the window; empty if there is none.
        count_viewers: Vec<OsString>,
    },
}

/// Whether a terminal showed a window at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visibility {
    pub(super) at: Instant,
    pub(super) is_visible: bool,
}

impl Audience {
    /// Finds out whether a terminal shows the window: runs the command that counts viewers, for at most 500 ms. Failures
    /// count as not visible.
    pub(super) fn probe_visibility(&self) -> Visibility {
        let is_visible = match self {
            Self::LogOnly => false,
            Self::OwnStreams => true,
            Self::Window { count_viewers } => has_viewer(count_viewers),
        };
        Visibility { at: clock::now(), is_visible }
    }
}

/// Runs a command that prints a count; returns whether it prints one above 0.
fn has_viewer(words: &[OsString]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let mut command = spawn::tool(program);
    command.args(arguments).env_clear().current_dir("/").stdout(Stdio::piped()).stderr(Stdio::null());
    let finished = command.spawn().and_then(|child| tool::finish(child, COUNT_LIMIT));
    let count = finished.map(|finished| String::from_utf8_lossy(&finished.output).trim().parse().unwrap_or(0));
    count.unwrap_or(0_u32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_visible_if_the_count_of_its_viewers_is_above_zero() {
        for (words, expected) in [
            (&["/bin/echo", "1"][..], true),
            (&["/bin/echo", "0"], false),
            (&["/bin/echo", ""], false),
            (&["/does/not/exist"], false),
            (&[], false),
        ] {
            let window = Audience::Window { count_viewers: words.iter().map(OsString::from).collect() };
            assert_eq!(window.probe_visibility().is_visible, expected, "{words:?}");
        }
    }
}
