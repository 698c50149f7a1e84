//! `Service`: what a supervisor is responsible for, and what it can do with it.

use crate::config::Variables;
use crate::error::Result;
use crate::os::process::ProcessIdentity;
use crate::registry::{IdentityLock, Registry, Reservation, RunState, Scan, TreeEnded};
use crate::supervisor::child::{self, SpawnError};
use crate::supervisor::stream::{Stream, StreamKind};
use crate::supervisor::watch::ProbeTarget;

/// A service, and the processes that run of it.
#[derive(Debug)]
pub(super) struct Service<'a> {
    /// Where everything is recorded.
    pub(super) registry: &'a Registry,
    /// The lock that makes us the supervisor; held to the end.
    pub(super) identity: IdentityLock,
    /// Our own pid.
    pub(super) supervisor: i32,
    /// The record.
    pub(super) reservation: Reservation,
    /// What the child's environment is made of.
    pub(super) environment: Variables,
    /// The child, from its start until its tree has ended.
    pub(super) child: Option<ProcessIdentity>,
    /// What an earlier supervisor left, until it has ended.
    pub(super) orphans: Option<Orphans>,
}

/// What an earlier supervisor may have left running.
#[derive(Debug)]
pub(super) struct Orphans {
    /// What that supervisor last recorded; `None` if that cannot be read.
    pub(super) before: Option<RunState>,
}

impl Service<'_> {
    /// Looks, afresh, for processes of the service.
    ///
    /// # Errors
    /// If the system does not answer: then some may be left.
    pub(super) fn scan(&self) -> Result<Scan> {
        let mut scans = vec![self.registry.scan_below(&self.identity, self.supervisor)?];
        if let Some(Orphans { before }) = &self.orphans {
            scans.push(self.registry.scan_orphans(&self.identity, self.reservation.name(), before.as_ref())?);
        }
        let mut left = self.left_session()?;
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

    /// Processes that are no longer below us. On Linux there are none: a supervisor is a subreaper.
    #[cfg(target_os = "linux")]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the same signature on every system")]
    fn left_session(&self) -> Result<Vec<ProcessIdentity>> {
        Ok(Vec::new())
    }

    /// Processes that are no longer below us: those of the child's session, and those that its marker shows.
    #[cfg(not(target_os = "linux"))]
    fn left_session(&self) -> Result<Vec<ProcessIdentity>> {
        use crate::error::Error;
        let Some(child) = &self.child else { return Ok(Vec::new()) };
        let unknown = || Error::system(format!("look for processes of {}", self.reservation.name()));
        let mut left = crate::os::tree::session(child.pid).map_err(unknown())?;
        let marker = self.registry.marker(self.identity.hash());
        left.extend(crate::os::tree::marked(marker).map_err(unknown())?);
        Ok(left)
    }

    /// Asks every process to end, with this signal: the child's process group as a whole, and one by one those that
    /// left it.
    ///
    /// # Errors
    /// If the processes cannot be listed. The group of a child that has not been reaped (`is_child_ours`) has got the
    /// signal all the same.
    pub(super) fn terminate(&self, signal: i32, is_child_ours: bool) -> Result<()> {
        // SIGCONT behind it: a stopped process would not notice the one without the other.
        for signal in [signal, libc::SIGCONT] {
            self.signal_tree(signal, is_child_ours)?;
        }
        Ok(())
    }

    /// Kills every process that is left.
    ///
    /// # Errors
    /// As [`Self::terminate`].
    pub(super) fn kill(&self, is_child_ours: bool) -> Result<()> {
        self.signal_tree(libc::SIGKILL, is_child_ours)
    }

    /// Sends a signal to every process of the service, each once.
    fn signal_tree(&self, signal: i32, is_child_ours: bool) -> Result<()> {
        let mut group = None;
        if let Some(child) = self.child.as_ref().filter(|_| is_child_ours) {
            // Without /proc: the number is the child's own until it is reaped.
            let _ = child.signal_group(signal);
            group = Some(child.pid);
        }
        for member in self.members()? {
            // A process that is gone meanwhile has no group and needs no signal.
            let own_group = member.group().ok().flatten();
            if own_group.is_some() && own_group == group {
                continue;
            }
            match &self.child {
                // A member is alive, so the number is still that of the child's group.
                Some(child) if own_group == Some(child.pid) => {
                    let _ = child.signal_group(signal);
                    group = own_group;
                }
                _ => drop(member.signal(signal)),
            }
        }
        Ok(())
    }

    /// The living processes of the service.
    ///
    /// # Errors
    /// If the system does not answer.
    fn members(&self) -> Result<Vec<ProcessIdentity>> {
        Ok(match self.scan()? {
            Scan::Ended(_) => Vec::new(),
            Scan::Left(left) => left,
        })
    }

    /// Starts the child. `term` is the kind of terminal that we sit in. The proof that nothing runs is used up.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub(super) fn spawn(
        &self,
        _ended: TreeEnded,
        term: Option<&str>,
        kind: StreamKind,
    ) -> std::result::Result<(ProcessIdentity, Vec<Stream>), SpawnError> {
        child::spawn(&self.reservation, &self.environment, self.registry, term, kind)
    }
}

impl ProbeTarget for Service<'_> {
    fn members(&self) -> std::result::Result<Vec<ProcessIdentity>, String> {
        self.members().map_err(|error| error.to_string())
    }

    fn start_check(&self, words: &[String]) -> std::result::Result<ProcessIdentity, String> {
        child::spawn_check(words, &self.reservation, &self.environment, self.registry).map_err(|error| error.why)
    }
}
