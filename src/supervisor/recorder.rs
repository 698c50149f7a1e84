//! `Recorder`: writes what happens to a service: its run state, its log and its heartbeat.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::config::Policy;
use crate::error::Result;
use crate::logs::{self, LogWriter, Mark};
use crate::os::Listener;
use crate::os::process::ProcessIdentity;
use crate::os::{clock, socket};
use crate::project::DirectoryId;
use crate::registry::{Exit, IdentityLock, Problem, Registry, RunState, State, TreeEnded};

/// The time between heartbeats, which readers show as `last_up`: precise enough for people, and a wake-up that no battery
/// notices.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// The time until a state that could not be written, as on a full disk, is written again. Readers see the old one until
/// then.
const RETRY: Duration = Duration::from_secs(1);

/// A change of a service's state.
#[derive(Debug)]
pub(super) struct Transition {
    pub(super) state: State,
    /// What is wrong; `None` if nothing is.
    pub(super) error: Option<Problem>,
    /// How many times the child was restarted after a crash.
    pub(super) restarts: u32,
    /// The time until the next start; `None` unless one is scheduled.
    pub(super) next_start: Option<Duration>,
    /// Where the service listens.
    pub(super) listens: Vec<Listener>,
}

/// Writes a service's run state, log and heartbeat for the holder of its identity lock.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    registry: &'a Registry,
    identity: &'a IdentityLock,
    run: RunState,
    log: LogWriter,
    /// Whether the child has been ready since it was started.
    was_ready: bool,
    /// Whether the run state has changed since it was last written successfully.
    is_unrecorded: bool,
    /// The time between heartbeats.
    heartbeat: Duration,
    next_heartbeat: Instant,
    last_heartbeat: Timestamp,
    /// `last_up` in the service's record.
    recorded_heartbeat: Timestamp,
}

impl<'a> Recorder<'a> {
    /// Records for the supervisor that `run` names. `heartbeat` is the time between heartbeats, and `last_up` the value in
    /// the service's record.
    pub(super) fn new(
        registry: &'a Registry,
        identity: &'a IdentityLock,
        run: RunState,
        policy: &Policy,
        heartbeat: Duration,
        last_up: Timestamp,
    ) -> Self {
        let log = LogWriter::new(registry.paths().log(identity.hash()), policy, run.runs);
        // Spread the first heartbeat over half an interval, so services that were started together do not contend for
        // the registry's lock each time.
        let first_heartbeat = heartbeat.mul_f64(1.0 - f64::from(run.supervisor.pid % 64) / 128.0);
        Self {
            registry,
            identity,
            run,
            log,
            was_ready: false,
            is_unrecorded: false,
            heartbeat,
            next_heartbeat: clock::later(clock::now(), first_heartbeat),
            last_heartbeat: clock::wall(),
            recorded_heartbeat: last_up,
        }
    }

    /// Returns a number that differs between supervisors, also after a reboot.
    pub(super) fn seed(&self) -> u64 {
        let supervisor = &self.run.supervisor;
        supervisor.start_time.unwrap_or_default() ^ (u64::from(supervisor.pid.unsigned_abs()) << 32)
    }

    /// Returns the identity of the checkout's root at the last start of a child; `None` if it is not known.
    pub(super) fn root_id(&self) -> Option<&DirectoryId> {
        self.run.root_id.as_ref()
    }

    /// Appends output of the child to the log.
    pub(super) fn append_output(&mut self, bytes: &[u8]) {
        self.log.append(bytes, clock::wall());
    }

    /// Returns the last lines of output of the current run.
    pub(super) fn last_output(&self, limit: usize) -> Vec<Vec<u8>> {
        logs::run_output(&self.registry.paths().log(self.identity.hash()), self.run.runs, limit)
    }

    /// Appends a message of devport to the log.
    pub(super) fn note(&mut self, text: &str) {
        self.log.mark(&Mark::Note(text.to_owned()), clock::wall());
    }

    /// Notes in log and run state that a child was started in a checkout with this root. [`Self::write`] follows.
    pub(super) fn child_started(&mut self, child: &ProcessIdentity, root_id: Option<DirectoryId>) {
        let at = clock::wall();
        self.run.runs += 1;
        self.was_ready = false;
        self.log.mark(&Mark::Started { pid: child.pid, run: self.run.runs }, at);
        self.run.started_at = Some(at);
        self.run.root_id = root_id;
        self.run.child = Some(child.clone());
        self.run.handed_over = None;
    }

    /// Notes in log and run state that the command exited and that another process of its tree serves in its place.
    /// [`Self::write`] follows.
    pub(super) fn handed_over(&mut self, successor: &ProcessIdentity) {
        self.note(&format!("the command ended with exit code 0 and has handed over to {successor}"));
        self.run.child = Some(successor.clone());
        self.run.handed_over = Some(successor.clone());
    }

    /// Notes in log and run state that the child exited. [`Self::write`] follows.
    pub(super) fn child_exited(&mut self, mut exit: Exit) {
        exit.was_ready = self.was_ready;
        self.log.mark(&Mark::Ended(exit.to_string()), exit.at);
        self.run.add_exit(exit);
        self.run.child = None;
        self.run.handed_over = None;
        self.run.started_at = None;
    }

    /// Notes that no process is left, neither of the child nor of an earlier supervisor's.
    pub(super) fn tree_ended(&mut self) {
        self.run.child = None;
    }

    /// Changes the state. [`Self::write`] follows. After a crash without an error, the last exit says what is wrong.
    pub(super) fn change(&mut self, transition: Transition) {
        let Transition { state, error, restarts, next_start, listens } = transition;
        let last_exit = self.run.exits.last().filter(|_| is_restart_pending(state));
        self.was_ready |= state == State::Ready;
        let error = error.or_else(|| last_exit.cloned().map(Problem::Exited));
        self.run.change_to(state, error, clock::wall());
        self.run.restarts = restarts;
        self.run.next_start_at = next_start.and_then(|wait| clock::wall().checked_add(wait).ok());
        self.run.listens = socket::addresses(&listens);
        self.run.sockets = listens.iter().map(|socket| socket.id).collect();
    }

    /// Returns what is wrong, as it was recorded last.
    pub(super) fn error(&self) -> Option<&Problem> {
        self.run.error.as_ref()
    }

    /// Returns whether the state says that nothing runs. Readers trust it only if it is written with proof.
    pub(super) fn says_ended(&self) -> bool {
        self.run.says_ended()
    }

    /// Writes the run state: as a proven end if there is a proof.
    ///
    /// # Errors
    /// If it cannot be written. The state counts as unrecorded until a later call succeeds.
    pub(super) fn write(&mut self, proof: Option<&TreeEnded>) -> Result<()> {
        let written = match proof {
            Some(ended) => self.registry.record_end(self.identity, &self.run, ended),
            None => self.registry.record_run(self.identity, &self.run),
        };
        self.is_unrecorded = written.is_err();
        written
    }

    /// Returns whether the last [`Self::write`] failed.
    pub(super) fn is_unrecorded(&self) -> bool {
        self.is_unrecorded
    }

    /// Returns when the recorder has to write next: a heartbeat, or an unrecorded state.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        if self.is_unrecorded { self.next_heartbeat.min(now + RETRY) } else { self.next_heartbeat }
    }

    pub(super) fn is_heartbeat_due(&self, now: Instant) -> bool {
        now >= self.next_heartbeat
    }

    /// Updates the time of the lock file, which readers show as `last_up`. Errors are ignored: the next heartbeat
    /// retries.
    pub(super) fn beat(&mut self) {
        self.next_heartbeat = clock::now() + self.heartbeat;
        self.last_heartbeat = clock::wall();
        let _ = self.identity.beat(self.last_heartbeat);
    }

    /// Copies the last heartbeat into the service's record if the record's is older than `max_age`. Earlier versions
    /// of devport, and copies of the state directory, have only the record. Errors are ignored: a later call retries.
    pub(super) fn record_last_up(&mut self, max_age: SignedDuration) {
        if self.last_heartbeat.duration_since(self.recorded_heartbeat) < max_age {
            return;
        }
        if let Ok(true) = self.registry.record_last_up(self.identity.hash(), self.last_heartbeat) {
            self.recorded_heartbeat = self.last_heartbeat;
        }
    }
}

/// Returns whether the service crashed and is about to be restarted in this state.
pub(super) fn is_restart_pending(state: State) -> bool {
    matches!(state, State::Backoff | State::CrashLoop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ServiceHash;
    use crate::registry::{Acquired, ExitHow, Paths, PortRange, Role};

    /// A registry in a temporary directory, and the lock of a service there.
    fn locked(directory: &tempfile::TempDir) -> (Registry, IdentityLock) {
        let home = directory.path().join("home");
        let paths = Paths::choose(Some(home.as_os_str()), None, None, directory.path()).unwrap();
        let registry = Registry::new(paths, PortRange { first: 61040, last: 61049 }, |_| {});
        registry.prepare().unwrap();
        let hash = ServiceHash::parse("0123456789").unwrap();
        let Acquired::Lock(identity) = registry.acquire_identity(&hash, Role::Supervisor).unwrap() else {
            unreachable!()
        };
        (registry, identity)
    }

    fn recorder<'a>(registry: &'a Registry, identity: &'a IdentityLock) -> Recorder<'a> {
        let run = RunState::begin(ProcessIdentity::current().unwrap(), None, None);
        Recorder::new(registry, identity, run, &Policy::default(), HEARTBEAT, Timestamp::UNIX_EPOCH)
    }

    fn to(state: State) -> Transition {
        Transition { state, error: None, restarts: 0, next_start: None, listens: Vec::new() }
    }

    #[test]
    fn a_state_that_could_not_be_written_stays_unrecorded_until_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, identity) = locked(&directory);
        let mut recorder = recorder(&registry, &identity);
        let runs = registry.paths().run_state(identity.hash()).parent().unwrap().to_owned();
        let away = directory.path().join("away");
        std::fs::rename(&runs, &away).unwrap();
        recorder.change(to(State::Running));
        assert!(recorder.write(None).is_err() && recorder.is_unrecorded());
        let now = clock::now();
        assert!(recorder.deadline(now) <= now + RETRY);
        std::fs::rename(&away, &runs).unwrap();
        recorder.write(None).unwrap();
        assert!(!recorder.is_unrecorded());
        assert_eq!(registry.run_state(identity.hash()).unwrap().unwrap().state, State::Running);
    }

    #[test]
    fn an_end_is_final_only_if_it_is_written_with_proof() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, identity) = locked(&directory);
        let mut recorder = recorder(&registry, &identity);
        recorder.change(to(State::Stopped));
        recorder.write(None).unwrap();
        assert!(!registry.run_state(identity.hash()).unwrap().unwrap().is_final());
        let proof = TreeEnded::recorded(&identity, None).unwrap();
        recorder.write(Some(&proof)).unwrap();
        assert!(registry.run_state(identity.hash()).unwrap().unwrap().is_final());
    }

    #[test]
    fn a_crash_without_an_error_is_explained_by_the_last_exit() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, identity) = locked(&directory);
        let mut recorder = recorder(&registry, &identity);
        recorder.child_started(&ProcessIdentity::current().unwrap(), None);
        recorder.child_exited(Exit::new(Timestamp::UNIX_EPOCH, ExitHow::Code(3), Duration::from_millis(1240)));
        recorder.change(to(State::Backoff));
        assert_eq!(recorder.run.error.as_ref().unwrap().to_string(), "exit code 3 after 1.2 s");
        assert_eq!((recorder.run.runs, &recorder.run.child), (1, &None));
        recorder.change(to(State::Stopping));
        assert_eq!(recorder.run.error, None);
    }
}
