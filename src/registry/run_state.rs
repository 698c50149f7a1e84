//! `RunState`: what a supervisor last recorded about its service. Only the holder of the identity lock writes it, at
//! transitions.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::RestartWhen;
use crate::frameworks::PortAdvice;
use crate::os::clock;
use crate::os::process::ProcessIdentity;
use crate::os::signal;
use crate::project::DirectoryId;

/// How many exits and how many changes of the state are kept: enough to show a crash loop.
const KEPT: usize = 20;

/// A child that ran for longer than this was up; one that ended sooner has failed at its start. Most failures of a start
/// take less than a second.
pub(crate) const UP_AFTER: Duration = Duration::from_secs(5);

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// The supervisor runs, but the child does not yet.
    Starting,
    Running,
    /// The service listens on its port, or passes its check.
    Ready,
    /// The service was ready and fails its health check now.
    Unhealthy,
    /// The child crashed; devport restarts it after a delay.
    Backoff,
    /// The child crashes repeatedly, soon after each start; devport restarts it after a delay.
    CrashLoop,
    /// Another process listens on its port, or closed connections block it; devport starts it once the port is free.
    PortConflict,
    /// devport is ending the process tree.
    Stopping,
    /// Not running, on purpose.
    Stopped,
    /// Not running; devport has given up (`error` says why).
    Failed,
    /// The supervisor is gone, but the child lives. Readers derive this state; it is never recorded.
    Orphaned,
    /// A one-shot has ended with exit code 0. Readers derive this state; it is never recorded.
    Completed,
    /// A state of a later devport.
    #[serde(other)]
    Unknown,
}

impl State {
    /// Returns whether the child runs.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Ready | Self::Unhealthy)
    }

    /// Returns whether the supervisor waits to start the child again after a crash or a failed start.
    pub(crate) fn is_down(self) -> bool {
        matches!(self, Self::Backoff | Self::CrashLoop | Self::PortConflict)
    }

    /// Returns the name in JSON and tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Backoff => "backoff",
            Self::CrashLoop => "crash-loop",
            Self::PortConflict => "port-conflict",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Orphaned => "orphaned",
            Self::Unknown => "unknown",
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExitHow {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It ended, and its supervisor was not its parent, so the system did not report how. Only macOS has such children.
    Unknown,
}

impl fmt::Display for ExitHow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "killed by {}", signal::name(*number)),
            Self::Unknown => f.write_str("unknown exit code"),
        }
    }
}

impl From<ExitStatus> for ExitHow {
    fn from(status: ExitStatus) -> Self {
        status.signal().map_or_else(|| Self::Code(status.code().unwrap_or(0)), Self::Signal)
    }
}

/// What is wrong with a service. Its `Display` is the sentence fragment that users read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Problem {
    /// A process that is not part of the service uses its port.
    PortTaken {
        port: u16,
        /// The process, such as `pid 7 (nginx)`.
        owner: String,
    },
    /// No process uses its port. Connections that its last server closed block the port for about a minute.
    PortClosing { port: u16 },
    /// The service listens, but not on its port.
    WrongPort {
        port: u16,
        listens: Vec<u16>,
        /// Why, and what to do; `None` in records of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        advice: Option<Box<PortAdvice>>,
    },
    /// The last run ended, and devport has not restarted it yet.
    Exited(Exit),
    /// devport has given up, for this reason, after the command could not use a port that another process has.
    GaveUp { why: String, port_in_use: Box<PortInUse> },
    /// The readiness check had not passed at the end of its time limit.
    Late {
        /// The time limit, such as `30s`.
        limit: String,
        /// Why the check failed last.
        why: String,
    },
    /// The checkout of the service was deleted, or another directory is at its path.
    CheckoutGone,
    /// Anything else. Earlier versions recorded every problem in this form.
    #[serde(untagged)]
    Other(String),
}

impl Problem {
    /// Returns why devport has given up after an exit. `port_in_use` is the other port that the child could not use.
    pub(crate) fn gave_up(why: String, port_in_use: Option<Box<PortInUse>>) -> Self {
        match port_in_use {
            Some(port_in_use) => Self::GaveUp { why, port_in_use },
            None => Self::Other(why),
        }
    }

    /// Returns whether the service uses its port in a way that waiting will not fix.
    pub(crate) fn is_about_port(&self) -> bool {
        matches!(self, Self::PortTaken { .. } | Self::WrongPort { .. })
    }

    /// Returns the fact without the advice, for a column of a table.
    pub(crate) fn short(&self) -> String {
        match self {
            Self::WrongPort { listens, .. } => format!("listens on {}", ports(listens)),
            Self::PortClosing { port } => format!("port {port} is in TIME_WAIT"),
            Self::Exited(Exit { how, port_in_use: Some(taken), .. }) => format!("{how}: port {} is taken", taken.port),
            Self::GaveUp { port_in_use: taken, .. } => format!("port {} is taken", taken.port),
            other => other.to_string(),
        }
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Self::Other(text.to_owned())
    }
}

/// Lists ports for people.
fn ports(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { port, owner } => write!(f, "port {port} is taken by {owner}"),
            Self::PortClosing { port } => write!(
                f,
                "port {port} is blocked for about a minute by closed connections (TIME_WAIT); a server that sets \
                 SO_REUSEADDR avoids this"
            ),
            Self::WrongPort { port, listens, advice } => {
                write!(f, "it listens on {}, not on its port {port}", ports(listens))?;
                advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
            }
            Self::Exited(exit) => {
                exit.fmt(f)?;
                exit.port_in_use.as_ref().map_or(Ok(()), |taken| write!(f, "; {}", taken.advice))
            }
            Self::GaveUp { why, port_in_use } => write!(f, "{why}; {port_in_use}; {}", port_in_use.advice),
            Self::Late { limit, why } => write!(f, "not ready within {limit}: {why}"),
            Self::CheckoutGone => f.write_str("its checkout is gone"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// One exit of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) at: Timestamp,
    /// Serialized as a field `code`, `signal` or `unknown`.
    #[serde(flatten)]
    pub(crate) how: ExitHow,
    /// How long the child had run, in milliseconds.
    pub(crate) ran_ms: u64,
    /// Whether the service was ready at some time of this run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) was_ready: bool,
    /// Whether devport ended it: for a stop, a restart, or because it was unhealthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) was_requested: bool,
    /// The processes that a command left in the background when it ended with exit code 0, such as `pid 7 (sleep 1000)`,
    /// and that devport ended because none of them listened on the service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_behind: Option<String>,
    /// The other port that the child could not use, as it printed; `None` if it printed no such error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port_in_use: Option<Box<PortInUse>>,
}

/// A port that a service tried to use although it is not its own, and that another process has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortInUse {
    pub(crate) port: u16,
    /// The process that listens there, such as `pid 7 (nginx)`.
    pub(crate) owner: String,
    /// Why the service tries to use it, and what to do.
    pub(crate) advice: PortAdvice,
}

impl fmt::Display for PortInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} is taken by {}", self.port, self.owner)
    }
}

impl Exit {
    /// Creates the exit of a child that was not ready and that devport did not end.
    pub(crate) fn new(at: Timestamp, how: ExitHow, ran: Duration) -> Self {
        let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        Self { at, how, ran_ms, was_ready: false, was_requested: false, left_behind: None, port_in_use: None }
    }

    /// Returns how long the child had run.
    pub(crate) fn ran(&self) -> Duration {
        Duration::from_millis(self.ran_ms)
    }
}

/// Formats an exit for people: `exit code 1 after 0.2 s`, `killed by SIGTERM after 3.0 s`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:.1} s", self.how, self.ran().as_secs_f64())?;
        if let Some(processes) = &self.left_behind {
            write!(f, "; devport ended what it left in the background: {processes}")?;
        }
        match &self.port_in_use {
            Some(taken) => write!(f, "; {taken}"),
            None => Ok(()),
        }
    }
}

/// The tmux window of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pane {
    /// The socket of the tmux server.
    pub(crate) socket: String,
    /// The pane's id in that server, such as `%3`.
    pub(crate) pane: String,
}

/// A change of a service's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateChange {
    pub(crate) at: Timestamp,
    pub(crate) state: State,
    /// What was wrong; `None` if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Problem>,
}

/// What a supervisor last recorded about its service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) state: State,
    pub(crate) supervisor: ProcessIdentity,
    /// The version of devport that the supervisor runs; `None` in records of earlier versions.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// When that supervisor started; `None` in records of earlier versions.
    #[serde(default)]
    pub(crate) began_at: Option<Timestamp>,
    /// The child; `None` if there is none.
    #[serde(default)]
    pub(crate) child: Option<ProcessIdentity>,
    /// The process that serves in place of the command, which has ended with exit code 0: the same as `child`. `None` if
    /// the command itself runs, or nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handed_over: Option<ProcessIdentity>,
    /// When the child was started; `None` if there is none.
    #[serde(default)]
    pub(crate) started_at: Option<Timestamp>,
    /// The identity of the root of the service's checkout when the child was started; `None` if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_id: Option<DirectoryId>,
    /// How many times the child was restarted after a crash, since the supervisor started.
    #[serde(default)]
    pub(crate) restarts: u32,
    /// How many children were ever started, across supervisors: the number of the current run.
    #[serde(default)]
    pub(crate) runs: u64,
    /// The last exits, oldest first, across supervisors.
    #[serde(default)]
    pub(crate) exits: Vec<Exit>,
    /// The last changes of the state, oldest first, across supervisors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<StateChange>,
    /// When the child will be restarted; `None` unless a restart is due.
    #[serde(default)]
    pub(crate) next_start_at: Option<Timestamp>,
    /// What is wrong; `None` if nothing is.
    #[serde(default)]
    pub(crate) error: Option<Problem>,
    /// The addresses that the service listened on when it became ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) listens: Vec<SocketAddr>,
    /// The ids of those sockets ([`crate::os::Listener::id`]), by which readers find out cheaply whether they
    /// are still open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sockets: Vec<u64>,
    /// The service's window; `None` if it runs detached or in the terminal of `devport run`.
    #[serde(default)]
    pub(crate) window: Option<Pane>,
    /// When a scan proved that no process of the service was left; `None` if none has since the last start. Only
    /// [`super::Registry::record_end`] sets it.
    #[serde(default)]
    pub(super) ended_at: Option<Timestamp>,
}

impl RunState {
    /// Returns the state of a supervisor that just started; `before` is its predecessor's last state.
    pub(crate) fn begin(supervisor: ProcessIdentity, window: Option<Pane>, before: Option<Self>) -> Self {
        let (child, exits, runs, changes) =
            before.map_or_else(Default::default, |before| (before.child, before.exits, before.runs, before.changes));
        Self {
            state: State::Starting,
            supervisor,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            began_at: Some(clock::wall()),
            // Keep the old child: if this supervisor is killed early, the next one must still find it.
            child,
            handed_over: None,
            started_at: None,
            root_id: None,
            restarts: 0,
            runs,
            exits,
            changes,
            next_start_at: None,
            error: None,
            listens: Vec::new(),
            sockets: Vec::new(),
            window,
            ended_at: None,
        }
    }

    /// Returns whether a scan proved that no process is left.
    pub(crate) fn is_final(&self) -> bool {
        self.ended_at.is_some() && self.says_ended() && self.child.is_none()
    }

    /// Returns when the last child ended, for a run state without a child; `None` if that is not recorded.
    pub(crate) fn last_run_ended_at(&self) -> Option<Timestamp> {
        let exited = self.exits.last().map(|exit| exit.at);
        let up = self.changes.iter().rfind(|change| change.state.is_up()).map(|change| change.at);
        // If a supervisor is killed, the end of its child is found later, and not recorded as an exit.
        if up > exited { self.ended_at.or(up) } else { exited }
    }

    /// Returns whether no child was ever started. Earlier versions did not count the children.
    pub(crate) fn has_never_run(&self) -> bool {
        self.runs == 0 && self.began_at.is_some()
    }

    /// Returns the last exit that the supervisor of this run state saw; `None` if it saw none.
    pub(crate) fn exit_of_this_start(&self) -> Option<&Exit> {
        self.exits.last().filter(|exit| self.began_at.is_some_and(|began| exit.at >= began))
    }

    /// Returns whether the command has ended by itself with exit code 0, and the policy does not restart it.
    pub(crate) fn has_completed(&self, restart: RestartWhen) -> bool {
        let is_clean = |exit: &Exit| exit.how == ExitHow::Code(0) && !exit.was_requested;
        restart != RestartWhen::Always
            && self.state == State::Stopped
            && self.exit_of_this_start().is_some_and(is_clean)
    }

    /// Returns whether the recorded state means that nothing runs, proved or not.
    pub(crate) fn says_ended(&self) -> bool {
        matches!(self.state, State::Stopped | State::Failed)
    }

    /// Returns the last exit if the one before was the same: both of the current supervisor, soon after the start and
    /// before the service was ever ready.
    pub(crate) fn repeated_failure(&self) -> Option<&Exit> {
        let is_early = |exit: &Exit| {
            !exit.was_ready
                && !exit.was_requested
                && exit.ran() < UP_AFTER
                && self.began_at.is_some_and(|began| exit.at >= began)
        };
        match self.exits.as_slice() {
            [.., before, last] if before.how == last.how && is_early(before) && is_early(last) => Some(last),
            _ => None,
        }
    }

    /// Adds an exit, and drops the oldest if there are too many.
    pub(crate) fn add_exit(&mut self, exit: Exit) {
        self.exits.push(exit);
        self.exits.drain(..self.exits.len().saturating_sub(KEPT));
    }

    /// Changes the state and what is wrong, and remembers that if it is new.
    pub(crate) fn change_to(&mut self, state: State, error: Option<Problem>, at: Timestamp) {
        if self.changes.last().is_none_or(|last| (last.state, &last.error) != (state, &error)) {
            self.changes.push(StateChange { at, state, error: error.clone() });
            self.changes.drain(..self.changes.len().saturating_sub(KEPT));
        }
        (self.state, self.error) = (state, error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_code_or_signal_with_time_and_duration() {
        let exit = Exit::new(Timestamp::UNIX_EPOCH, ExitHow::Signal(9), Duration::from_millis(1200));
        let text = serde_json::to_string(&exit).unwrap();
        assert_eq!(text, r#"{"at":"1970-01-01T00:00:00Z","signal":9,"ran_ms":1200}"#);
        assert_eq!(serde_json::from_str::<Exit>(&text).unwrap(), exit);
    }

    #[test]
    fn an_unknown_exit_is_read_as_it_was_written() {
        let exit = Exit::new(Timestamp::UNIX_EPOCH, ExitHow::Unknown, Duration::from_millis(7));
        let text = serde_json::to_string(&exit).unwrap();
        assert_eq!(text, r#"{"at":"1970-01-01T00:00:00Z","unknown":null,"ran_ms":7}"#);
        assert_eq!(serde_json::from_str::<Exit>(&text).unwrap(), exit);
    }

    #[test]
    fn the_last_run_ended_at_its_exit_or_when_the_end_of_a_killed_supervisors_child_was_found() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut run = RunState::begin(ProcessIdentity { pid: 1, start_time: None, boot_id: None }, None, None);
        assert!(run.has_never_run());
        assert_eq!(run.last_run_ended_at(), None);
        run.runs = 1;
        run.change_to(State::Running, None, at(1));
        run.add_exit(Exit::new(at(2), ExitHow::Code(1), Duration::from_secs(1)));
        run.change_to(State::Backoff, None, at(2));
        assert_eq!(run.last_run_ended_at(), Some(at(2)));
        run.change_to(State::Running, None, at(3));
        assert_eq!(run.last_run_ended_at(), Some(at(3)), "it ran then");
        run.ended_at = Some(at(9));
        assert_eq!(run.last_run_ended_at(), Some(at(9)));
        assert!(!run.has_never_run());
    }

    #[test]
    fn the_last_twenty_exits_are_kept() {
        let mut run = RunState::begin(ProcessIdentity { pid: 1, start_time: None, boot_id: None }, None, None);
        for code in 0..25 {
            run.add_exit(Exit::new(Timestamp::UNIX_EPOCH, ExitHow::Code(code), Duration::ZERO));
        }
        assert_eq!(run.exits.len(), 20);
        assert_eq!(run.exits[0].how, ExitHow::Code(5));
    }

    #[test]
    fn two_early_exits_in_the_same_way_are_a_repeated_failure() {
        let began = ProcessIdentity { pid: 1, start_time: None, boot_id: None };
        let exit = |code, ran| Exit::new(clock::wall(), ExitHow::Code(code), Duration::from_secs(ran));
        let early = || exit(1, 0);
        let repeated = |exits: Vec<Exit>| {
            let mut run = RunState::begin(began.clone(), None, None);
            let later = clock::wall() + Duration::from_secs(1);
            run.exits = exits.into_iter().map(|exit| Exit { at: exit.at.max(later), ..exit }).collect();
            run.repeated_failure().is_some()
        };
        assert!(repeated(vec![exit(2, 0), early(), early()]));
        for exits in [
            vec![],
            vec![early()],
            vec![early(), exit(2, 0)],
            vec![early(), exit(1, 5)],
            vec![exit(1, 5), early()],
            vec![early(), Exit { was_ready: true, ..early() }],
            vec![Exit { was_requested: true, ..early() }, early()],
        ] {
            assert!(!repeated(exits.clone()), "{exits:?}");
        }
        let mut run = RunState::begin(began.clone(), None, None);
        run.exits = vec![Exit { at: Timestamp::UNIX_EPOCH, ..early() }, early()];
        assert!(run.repeated_failure().is_none(), "an earlier supervisor recorded the first");
    }
}
