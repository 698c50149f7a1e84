//! `Service`: what a supervisor is responsible for, and the processes that run of it.

use std::io;

use crate::checks::{self, SpawnError};
use crate::config::Variables;
use crate::error::Result;
use crate::frameworks::{Launch, PortAdvice};
use crate::os::process::ProcessIdentity;
use crate::os::socket;
use crate::os::spawn::ChildStreams;
use crate::registry::{IdentityLock, Problem, Registry, Reservation, RunState, Scan, TreeEnded};
use crate::supervisor::child;
use crate::supervisor::readiness_probe::ProbeTarget;
use crate::supervisor::running_child::RunningChild;
use crate::supervisor::stream::StreamKind;

/// How many scans for processes that a command has left find none before there are none: a scan can miss the children of
/// a process that is ending.
const SCANS: usize = 3;

/// A service and its processes.
#[derive(Debug)]
pub(super) struct Service<'a> {
    pub(super) registry: &'a Registry,
    /// The lock that makes this process the supervisor.
    pub(super) identity: &'a IdentityLock,
    pub(super) reservation: Reservation,
    /// What the child's environment is made of.
    pub(super) environment: Variables,
    /// The value of `TERM` for the child; `None` if this process has no terminal.
    pub(super) term: Option<String>,
    /// The child, from its start until its tree has ended.
    pub(super) child: Option<RunningChild>,
    /// What an earlier supervisor left, until it has ended.
    pub(super) orphans: Option<Orphans>,
    /// The proof that no process runs; `None` while one may.
    pub(super) proof: Option<TreeEnded>,
}

/// Processes that an earlier supervisor may have left running.
#[derive(Debug)]
pub(super) struct Orphans {
    /// What that supervisor recorded last; `None` if its run state is missing or corrupt.
    pub(super) before: Option<RunState>,
}

impl Service<'_> {
    /// Returns the child if the command itself has not exited.
    pub(super) fn running_child(&self) -> Option<&RunningChild> {
        self.child.as_ref().filter(|child| child.is_running())
    }

    /// Scans for processes of the service.
    ///
    /// # Errors
    /// If the system cannot list them; some may be left.
    pub(super) fn scan(&self) -> Result<Scan> {
        let mut scans = vec![self.registry.scan_below(self.identity, nix::unistd::getpid().as_raw())?];
        if let Some(Orphans { before }) = &self.orphans {
            scans.push(self.registry.scan_orphans(self.identity, self.reservation.name(), before.as_ref())?);
        }
        let mut left = self.scan_session()?;
        let (mut proof, mut has_ended) = (None, left.is_empty());
        for scan in scans {
            match scan {
                Scan::Ended(ended) => proof = Some(ended),
                Scan::Left(more) => {
                    has_ended = false;
                    left.extend(more);
                }
            }
        }
        Ok(match proof {
            Some(ended) if has_ended => Scan::Ended(ended),
            _ => Scan::Left(left),
        })
    }

    /// Returns processes that are no longer descendants of this one. Linux has none: a supervisor is a subreaper
    /// (`PR_SET_CHILD_SUBREAPER` in `prctl(2)`), so it becomes the parent of orphaned descendants.
    #[cfg(target_os = "linux")]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signature on every system")]
    fn scan_session(&self) -> Result<Vec<ProcessIdentity>> {
        Ok(Vec::new())
    }

    /// Returns processes that are no longer descendants of this one: those in the child's session, and those whose
    /// environment has the service's marker. macOS has no subreaper.
    #[cfg(not(target_os = "linux"))]
    fn scan_session(&self) -> Result<Vec<ProcessIdentity>> {
        use crate::error::Error;
        let Some(child) = &self.child else { return Ok(Vec::new()) };
        let unknown = || Error::system(format!("search for processes of {}", self.reservation.name()));
        let mut left = crate::os::tree::session(child.identity.pid).map_err(unknown())?;
        let marker = self.registry.marker(self.identity.hash());
        left.extend(crate::os::tree::marked(marker).map_err(unknown())?);
        Ok(left)
    }

    /// Takes the proof that no process runs, from a new scan if there is none yet; `None` if some process may run.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub(super) fn take_proof(&mut self) -> Result<Option<TreeEnded>> {
        if let Some(ended) = self.proof.take() {
            return Ok(Some(ended));
        }
        Ok(match self.scan()? {
            Scan::Ended(ended) => Some(ended),
            Scan::Left(_) => None,
        })
    }

    /// Forgets the child and the orphans, of which no process is left.
    pub(super) fn tree_ended(&mut self, ended: TreeEnded) {
        self.proof = Some(ended);
        self.child = None;
        self.orphans = None;
    }

    /// Sends the stop signal to every process: to the child's process group as a whole, and to each process outside
    /// it.
    ///
    /// # Errors
    /// If the processes cannot be listed. The group of a child that has not been reaped has got the signal anyway.
    pub(super) fn terminate(&self) -> Result<()> {
        // SIGCONT after it, because a stopped process handles the stop signal only once it continues (`signal(7)`).
        self.signal_tree(&[self.reservation.policy.stop_signal.0, libc::SIGCONT])
    }

    /// Kills every process.
    ///
    /// # Errors
    /// As [`Self::terminate`].
    pub(super) fn kill(&self) -> Result<()> {
        self.signal_tree(&[libc::SIGKILL])
    }

    /// Sends signals, one after the other, to every process of the service.
    fn signal_tree(&self, signals: &[i32]) -> Result<()> {
        // Before the first signal: the kernel's lists of children can miss one while others exit (`proc_tid_children(5)`),
        // and a process outside the group that is missed would wait for SIGKILL.
        let members = self.members();
        for signal in signals {
            let mut signalled_group = None;
            if let Some(child) = self.running_child() {
                // No scan is needed: until the child is reaped, its pid cannot belong to another process.
                let _ = child.identity.signal_group(*signal);
                signalled_group = Some(child.identity.pid);
            }
            for member in members.iter().flatten() {
                // A process that has ended since the scan has no group and needs no signal.
                let group = member.group().ok().flatten();
                if group.is_some() && group == signalled_group {
                    continue;
                }
                match &self.child {
                    // The member is alive, so the number still belongs to the child's group.
                    Some(child) if group == Some(child.identity.pid) => {
                        let _ = child.identity.signal_group(*signal);
                        signalled_group = group;
                    }
                    _ => drop(member.signal(*signal)),
                }
            }
        }
        members.map(drop)
    }

    /// Lists the living processes of the service.
    fn members(&self) -> Result<Vec<ProcessIdentity>> {
        Ok(match self.scan()? {
            Scan::Ended(_) => Vec::new(),
            Scan::Left(left) => left,
        })
    }

    /// Lists the living processes that the command has left when it exited. Scans again while some are just ending.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub(super) fn left_behind(&self) -> Result<Vec<ProcessIdentity>> {
        for _ in 1..SCANS {
            match self.scan()? {
                Scan::Left(left) if left.is_empty() => {}
                Scan::Left(left) => return Ok(left),
                Scan::Ended(_) => return Ok(Vec::new()),
            }
        }
        self.members()
    }

    /// Returns the process that serves in place of the command, which has exited and left these processes: the oldest
    /// one that listens on the service's port, or rather its topmost ancestor among them, whose end this process can
    /// learn. `None` if none of them listens there.
    ///
    /// # Errors
    /// If the system cannot be queried.
    pub(super) fn successor(&self, left: &[ProcessIdentity]) -> io::Result<Option<ProcessIdentity>> {
        let Some(port) = self.reservation.service_port() else { return Ok(None) };
        let mut by_age: Vec<&ProcessIdentity> = left.iter().collect();
        by_age.sort_unstable_by_key(|process| (process.start_time, process.pid));
        for listener in by_age {
            if !socket::listens(&[listener.pid])?.iter().any(|socket| socket.address.port() == port) {
                continue;
            }
            let mut topmost = listener;
            while let Some(parent) = topmost.parent()?
                && let Some(ancestor) = left.iter().find(|process| process.pid == parent)
            {
                topmost = ancestor;
            }
            return Ok(Some(topmost.clone()));
        }
        Ok(None)
    }

    /// Returns why a port cannot be used; `None` if it is free.
    ///
    /// # Errors
    /// If the system does not report the port's listeners.
    pub(super) fn port_problem(&self, port: u16) -> io::Result<Option<Problem>> {
        child::port_problem(port, self.registry, &self.reservation)
    }

    /// Starts the child, and uses up the proof that no process runs.
    ///
    /// # Errors
    /// If the command cannot be executed.
    pub(super) fn spawn(
        &mut self,
        _ended: TreeEnded,
        kind: StreamKind,
    ) -> std::result::Result<&mut RunningChild, SpawnError> {
        let term = self.term.as_deref();
        let (identity, streams) = child::spawn(&self.reservation, &self.environment, self.registry, term, kind)?;
        Ok(self.child.insert(RunningChild::new(identity, streams)))
    }
}

impl ProbeTarget for Service<'_> {
    fn members(&self) -> std::result::Result<Vec<ProcessIdentity>, String> {
        self.members().map_err(|error| error.to_string())
    }

    fn start_check(&self, words: &[String]) -> std::result::Result<ProcessIdentity, String> {
        checks::execute(words, &self.reservation, &self.environment, self.registry, None, ChildStreams::Nothing)
            .map_err(|error| error.why)
    }

    fn port_advice(&self, listeners: &[String], port: Option<u16>) -> PortAdvice {
        let Reservation { cmd: words, cwd: directory, .. } = &self.reservation;
        let (variable, source) = (self.reservation.port_variable(), self.reservation.source());
        Launch { words, directory, variable, listeners, port, source }.advise()
    }
}
