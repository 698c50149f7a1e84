//! `ReadinessProbe`: finds out whether the child is ready and well. `readiness` says when to ask, `probe` asks what takes time.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use regex::bytes::Regex;

use crate::config::Check;
use crate::logs;
use crate::os::process::ProcessIdentity;
use crate::os::{process, socket};
use crate::registry::{ExitHow, Reservation};
use crate::supervisor::lifecycle::Event;
use crate::supervisor::probe::{Answer, Probe, Request};
use crate::supervisor::readiness::{Readiness, Reason};

/// How long a line may be to be looked at, in bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// What a watch asks about.
pub(super) trait ProbeTarget {
    /// The living processes of the service.
    ///
    /// # Errors
    /// If the system does not answer.
    fn members(&self) -> Result<Vec<ProcessIdentity>, String>;

    /// Starts a command in the service's directory and environment.
    ///
    /// # Errors
    /// Why it cannot be executed.
    fn start_check(&self, words: &[String]) -> Result<ProcessIdentity, String>;
}

/// Finds out whether a child is ready and well.
#[derive(Debug)]
pub(super) struct ReadinessProbe {
    /// When to ask, and what answers mean.
    readiness: Readiness,
    /// The port that the service shall listen on; `None` if it has none.
    port: Option<u16>,
    /// A question under way.
    probe: Option<Probe>,
    /// What makes a line of output the answer, if one is.
    pattern: Option<Regex>,
    /// The beginning of a line of output.
    line: Vec<u8>,
    /// Whether a line was what is waited for; the next turn takes note.
    matched: bool,
    /// Where it listens, as last seen.
    listens: Vec<SocketAddr>,
}

impl ReadinessProbe {
    /// Watches a service of which nothing runs yet.
    pub(super) fn new(reservation: &Reservation) -> Self {
        let port = reservation.service_port();
        let pattern = match reservation.policy.ready_check(port.is_some()) {
            // It was checked when it was registered.
            Check::Log(pattern) => Check::pattern(&pattern).ok(),
            _ => None,
        };
        Self {
            readiness: Readiness::new(&reservation.policy, port.is_some()),
            port,
            probe: None,
            pattern,
            line: Vec::new(),
            matched: false,
            listens: Vec::new(),
        }
    }

    /// The child was started.
    pub(super) fn begin(&mut self, now: Instant) {
        self.end();
        self.readiness.begin(now);
    }

    /// The child ended, or shall.
    pub(super) fn end(&mut self) {
        self.readiness.end();
        self.line = Vec::new();
        self.matched = false;
        self.listens = Vec::new();
        if let Some(probe) = self.probe.take() {
            probe.abandon();
        }
    }

    /// When there is something to do; `None` if never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let probe = self.probe.as_ref().map(Probe::deadline);
        [self.readiness.deadline(), probe].into_iter().flatten().min()
    }

    /// What is waited for besides; `None` if nothing is.
    pub(super) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.probe.as_ref().and_then(Probe::waits_for)
    }

    /// Where the service listened when it was last asked.
    pub(super) fn listens(&self) -> &[SocketAddr] {
        &self.listens
    }

    /// The child wrote something: looks whether that is what is waited for.
    pub(super) fn output(&mut self, bytes: &[u8]) {
        if !self.readiness.wants_output() {
            return;
        }
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LONGEST_LINE {
                let line = std::mem::take(&mut self.line);
                self.matched |= self.matches(&line);
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        // A prompt has no end of line.
        self.matched |= !self.line.is_empty() && self.matches(&self.line);
    }

    /// Whether a line of output is what is waited for; colours and the terminal's line ends do not count.
    fn matches(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(&logs::strip(line)))
    }

    /// Takes in which processes have ended, asks what is due, and goes on with what is under way.
    pub(super) fn turn(&mut self, watched: &dyn ProbeTarget, ended: &[(i32, ExitHow)], now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if std::mem::take(&mut self.matched) {
            events.extend(self.take(Ok(()), watched, now));
        }
        for (pid, how) in ended {
            if let Some(answer) = self.probe.as_ref().and_then(|probe| probe.reaped(*pid, *how)) {
                self.probe = None;
                events.extend(self.take(answer, watched, now));
            }
        }
        if let Some((check, limit)) = self.readiness.due(now) {
            events.extend(self.ask(&check, limit, watched, now));
        }
        if let Some(answer) = self.probe.as_mut().and_then(|probe| probe.step(now)) {
            self.probe = None;
            events.extend(self.take(answer, watched, now));
        }
        events.extend(self.readiness.tick(now));
        events
    }

    /// Asks a question; what takes time becomes a probe.
    fn ask(&mut self, check: &Check, limit: Duration, watched: &dyn ProbeTarget, now: Instant) -> Option<Event> {
        let port = self.port.unwrap_or_default();
        let probe = match check {
            Check::None | Check::Alive => return self.readiness.answer(Ok(()), now),
            // Its answer comes by itself.
            Check::Log(_) => return None,
            Check::Listen => {
                let listens = self.look(watched);
                return self.readiness.answer(listens, now);
            }
            Check::Tcp => Probe::connect(port, None, limit, now),
            Check::Http { path, status } => {
                Probe::connect(port, Some(Request { path: path.clone(), status: *status }), limit, now)
            }
            Check::Exec(words) => watched.start_check(words).map(|process| Probe::command(process, limit, now)),
        };
        match probe {
            Ok(probe) => {
                self.probe = Some(probe);
                None
            }
            Err(why) => self.take(Err(why), watched, now),
        }
    }

    /// Takes in the answer of a probe. One that failed at a port may have a reason that says more.
    fn take(&mut self, answer: Answer, watched: &dyn ProbeTarget, now: Instant) -> Option<Event> {
        let looked = self.port.map(|_| self.look(watched));
        let answer = answer.map_err(|why| match looked {
            Some(Err(reason)) if reason.is_mistake => reason,
            _ => Reason::passing(why),
        });
        self.readiness.answer(answer, now)
    }

    /// Looks where the service listens; `Err` says why its port is not among that.
    fn look(&mut self, watched: &dyn ProbeTarget) -> Result<(), Reason> {
        let Some(port) = self.port else { return Ok(()) };
        let members = watched.members().map_err(Reason::passing)?;
        let pids: Vec<i32> = members.iter().map(|member| member.pid).collect();
        let unknown = |error: std::io::Error| {
            Reason::passing(format!("could not list its sockets: {}", crate::error::reason(&error)))
        };
        self.listens = socket::listens(&pids).map_err(unknown)?;
        if self.listens.iter().any(|address| address.port() == port) {
            return Ok(());
        }
        if !self.listens.is_empty() {
            let mut others: Vec<String> = self.listens.iter().map(|address| address.port().to_string()).collect();
            others.dedup();
            let others = others.join(", ");
            let text = format!(
                "listens on {others}, reserved {port} (it may ignore $PORT; pass the port as an argument: … '$PORT')"
            );
            return Err(Reason { text, is_mistake: true });
        }
        let strangers: Vec<String> = socket::listeners(port)
            .map_err(unknown)?
            .into_iter()
            .map(|pid| {
                process::command_of(pid)
                    .map_or_else(|| format!("pid {pid}"), |command| format!("pid {pid} ({command})"))
            })
            .collect();
        if strangers.is_empty() {
            return Err(Reason::passing(format!("nothing of it listens on port {port}")));
        }
        let text = format!("port {port} is taken by {}, which is not part of it", strangers.join(", "));
        Err(Reason { text, is_mistake: true })
    }
}
