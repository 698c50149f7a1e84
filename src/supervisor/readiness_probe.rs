//! `ReadinessProbe`: finds out whether the child is ready and healthy. `readiness` schedules the checks; `checks::Probe`
//! runs those that take time.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::poll::PollFlags;
use regex::bytes::Regex;

use crate::checks::{CheckResult, Probe, Request};
use crate::config::{Check, Policy};
use crate::frameworks::PortAdvice;
use crate::logs;
use crate::os::Listener;
use crate::os::process::ProcessIdentity;
use crate::os::{process, socket};
use crate::registry::{ExitHow, Problem, Reservation};
use crate::supervisor::event::Event;
use crate::supervisor::readiness::Readiness;

/// How many bytes of a line are matched. It bounds the memory for a service that never ends its lines.
const LONGEST_LINE: usize = 64 * 1024;

/// The service that is checked.
pub(super) trait ProbeTarget {
    /// Lists the living processes of the service.
    ///
    /// # Errors
    /// If the system cannot list them, as a sentence fragment.
    fn members(&self) -> Result<Vec<ProcessIdentity>, String>;

    /// Starts a command in the service's directory and environment.
    ///
    /// # Errors
    /// Why it cannot be executed, as a sentence fragment.
    fn start_check(&self, words: &[String]) -> Result<ProcessIdentity, String>;

    /// Finds out why the service listens on this wrong port, from the command lines of its processes that listen.
    fn port_advice(&self, listeners: &[String], port: Option<u16>) -> PortAdvice;
}

/// Finds out whether a child is ready and healthy.
#[derive(Debug)]
pub(super) struct ReadinessProbe {
    readiness: Readiness,
    /// The port that is reserved for the service; `None` if it has none.
    port: Option<u16>,
    /// The check that runs now.
    probe: Option<Probe>,
    /// The pattern of the line of output that makes the service ready, if its check is of that kind.
    pattern: Option<Regex>,
    /// The beginning of a line of output.
    line: Vec<u8>,
    /// Whether a line has matched since the last turn.
    has_matched: bool,
    /// Where the service listened at the last check.
    listens: Vec<Listener>,
}

impl ReadinessProbe {
    /// Creates the probe of a service whose child is not started yet.
    pub(super) fn new(reservation: &Reservation) -> Self {
        Self::with(&reservation.policy, reservation.service_port())
    }

    fn with(policy: &Policy, port: Option<u16>) -> Self {
        let pattern = match policy.ready_check(port.is_some()) {
            // Registration has already rejected invalid patterns.
            Check::Log(pattern) => Check::pattern(&pattern).ok(),
            _ => None,
        };
        Self {
            readiness: Readiness::new(policy, port.is_some()),
            port,
            probe: None,
            pattern,
            line: Vec::new(),
            has_matched: false,
            listens: Vec::new(),
        }
    }

    /// Begins to check a child that was started now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.end();
        self.readiness.begin(now);
    }

    /// Stops checking: the child has exited or is being ended.
    pub(super) fn end(&mut self) {
        self.readiness.end();
        self.line = Vec::new();
        self.has_matched = false;
        self.listens = Vec::new();
        if let Some(probe) = self.probe.take() {
            probe.abandon();
        }
    }

    /// Returns when [`Self::turn`] is due; `None` if only an event can change anything.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let probe = self.probe.as_ref().map(Probe::deadline);
        [self.readiness.deadline(), probe].into_iter().flatten().min()
    }

    /// Returns the descriptor that the running check waits for, if it waits for one.
    pub(super) fn poll_fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.probe.as_ref().and_then(Probe::poll_fd)
    }

    /// Returns where the service listened at the last check.
    pub(super) fn listens(&self) -> &[Listener] {
        &self.listens
    }

    /// Matches output of the child. The next turn reports a match.
    pub(super) fn handle_output(&mut self, bytes: &[u8]) {
        if !self.readiness.needs_output() {
            return;
        }
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LONGEST_LINE {
                let line = std::mem::take(&mut self.line);
                self.has_matched |= self.matches(&line);
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        // An unfinished line counts too: a prompt has no line end.
        self.has_matched |= !self.line.is_empty() && self.matches(&self.line);
    }

    /// Matches a line without its escape sequences and without the carriage return that a terminal adds.
    fn matches(&self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(&logs::strip(line)))
    }

    /// Handles exits, starts the check that is due, and advances the running one.
    pub(super) fn turn(&mut self, target: &dyn ProbeTarget, reaped: &[(i32, ExitHow)], now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        if std::mem::take(&mut self.has_matched) {
            events.extend(self.handle_result(Ok(()), target, now));
        }
        for (pid, how) in reaped {
            if let Some(result) = self.probe.as_ref().and_then(|probe| probe.handle_exit(*pid, *how)) {
                self.probe = None;
                events.extend(self.handle_result(result, target, now));
            }
        }
        if let Some(check) = self.readiness.due(now) {
            events.extend(self.start_check(&check, target, now));
        }
        if let Some(result) = self.probe.as_mut().and_then(|probe| probe.step(now)) {
            self.probe = None;
            events.extend(self.handle_result(result, target, now));
        }
        events.extend(self.readiness.tick(now));
        events
    }

    /// Runs a check. One that takes time becomes the running probe.
    fn start_check(&mut self, check: &Check, target: &dyn ProbeTarget, now: Instant) -> Option<Event> {
        let port = self.port.unwrap_or_default();
        let timeout = self.readiness.check_timeout();
        let probe = match check {
            Check::None | Check::Alive => return self.readiness.handle_result(Ok(()), now),
            // The output decides, see `handle_output`.
            Check::Log(_) => return None,
            Check::Listen => {
                let result = self.probe_listeners(target);
                return self.readiness.handle_result(result, now);
            }
            Check::Tcp => Probe::connect(port, None, timeout, now),
            Check::Http { path, status, .. } => {
                Probe::connect(port, Some(Request { path: path.clone(), status: *status }), timeout, now)
            }
            Check::Exec(words) => target.start_check(words).map(|process| Probe::command(words, process, timeout, now)),
        };
        match probe {
            Ok(probe) => {
                self.probe = Some(probe);
                None
            }
            Err(why) => self.handle_result(Err(why), target, now),
        }
    }

    /// Handles the result of a check, and updates where the service listens. If the check failed because the service
    /// uses the wrong port, that is the better reason.
    fn handle_result(&mut self, result: CheckResult, target: &dyn ProbeTarget, now: Instant) -> Option<Event> {
        let listening = self.port.map(|_| self.probe_listeners(target));
        let result = result.map_err(|why| match listening {
            Some(Err(problem)) if problem.is_about_port() => problem,
            _ => Problem::from(why),
        });
        self.readiness.handle_result(result, now)
    }

    /// Finds out where the service listens. Returns why it does not listen on its own port.
    fn probe_listeners(&mut self, target: &dyn ProbeTarget) -> Result<(), Problem> {
        let Some(port) = self.port else { return Ok(()) };
        let members = target.members().map_err(Problem::from)?;
        let pids: Vec<i32> = members.iter().map(|member| member.pid).collect();
        let unknown = |error: std::io::Error| {
            Problem::from(format!("could not list its sockets: {}", crate::error::reason(&error)))
        };
        self.listens = socket::listens(&pids).map_err(unknown)?;
        if self.listens.iter().any(|socket| socket.address.port() == port) {
            return Ok(());
        }
        if !self.listens.is_empty() {
            let mut listens: Vec<u16> = self.listens.iter().map(|socket| socket.address.port()).collect();
            listens.dedup();
            let is_listener = |pid: &&i32| socket::listens(&[**pid]).is_ok_and(|sockets| !sockets.is_empty());
            let lines: Vec<String> =
                pids.iter().filter(is_listener).filter_map(|pid| process::command_line(*pid)).collect();
            let advice = Some(Box::new(target.port_advice(&lines, listens.first().copied())));
            return Err(Problem::WrongPort { port, listens, advice });
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
            return Err(format!("nothing of the service listens on port {port}").into());
        }
        Err(Problem::PortTaken { port, owner: strangers.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::frameworks::{Launch, Source};
    use crate::os::clock;

    /// The pid of the command of a check: above the system's highest, so that no process has it.
    const COMMAND: i32 = i32::MAX;

    /// A service whose only process is this one.
    struct ThisProcess;

    impl ProbeTarget for ThisProcess {
        fn members(&self) -> Result<Vec<ProcessIdentity>, String> {
            ProcessIdentity::current().map(|me| vec![me]).map_err(|error| error.to_string())
        }

        fn start_check(&self, _words: &[String]) -> Result<ProcessIdentity, String> {
            ProcessIdentity::current()
                .map(|me| ProcessIdentity { pid: COMMAND, ..me })
                .map_err(|error| error.to_string())
        }

        fn port_advice(&self, listeners: &[String], port: Option<u16>) -> PortAdvice {
            let source = Source {
                name: "a",
                key: None,
                options: Vec::new(),
                port: None,
                env_names: &[],
                file: None,
                is_stack: false,
            };
            Launch { words: &[], directory: Path::new("/"), variable: "PORT", listeners, port, source }.advise()
        }
    }

    /// A probe with this check, of a child that was started just now.
    fn probe(check: Check, port: Option<u16>) -> (ReadinessProbe, Instant) {
        let policy = Policy { ready: Some(check), ..Policy::default() };
        let mut probe = ReadinessProbe::with(&policy, port);
        let now = clock::now();
        probe.begin(now);
        (probe, now)
    }

    #[test]
    fn a_coloured_or_unfinished_line_of_output_can_match() {
        for output in ["x\nserver \x1b[32mis up\x1b[0m\r\n", "is up> "] {
            let (mut probe, now) = probe(Check::Log("is up".into()), None);
            let (first, second) = output.as_bytes().split_at(4);
            probe.handle_output(first);
            assert_eq!(probe.turn(&ThisProcess, &[], now), []);
            probe.handle_output(second);
            assert_eq!(probe.turn(&ThisProcess, &[], now), [Event::Ready], "{output:?}");
        }
    }

    #[test]
    fn a_service_that_listens_on_its_port_is_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mut probe, now) = probe(Check::Listen, Some(address.port()));
        assert_eq!(probe.turn(&ThisProcess, &[], now), [Event::Ready]);
        assert!(socket::addresses(probe.listens()).contains(&address));
    }

    #[test]
    fn a_command_passes_with_exit_code_0_and_the_exit_of_another_process_changes_nothing() {
        let (mut probe, now) = probe(Check::Exec(vec!["true".into()]), None);
        assert_eq!(probe.turn(&ThisProcess, &[], now), []);
        assert_eq!(probe.turn(&ThisProcess, &[(COMMAND - 1, ExitHow::Code(0))], now), []);
        assert_eq!(probe.turn(&ThisProcess, &[(COMMAND, ExitHow::Code(1))], now), []);
        let later = now + Duration::from_millis(20);
        assert_eq!(probe.turn(&ThisProcess, &[], later), []);
        assert_eq!(probe.turn(&ThisProcess, &[(COMMAND, ExitHow::Code(0))], later), [Event::Ready]);
    }
}
