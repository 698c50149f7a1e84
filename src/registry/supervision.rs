//! Locks and run states: whether a service is supervised, and what its supervisor recorded.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::clock;
use crate::os::process::ProcessIdentity;
use crate::registry::ended::TreeEnded;
use crate::registry::file::{self, Durability};
use crate::registry::holder::{Holder, Role};
use crate::registry::liveness::{self, Liveness};
use crate::registry::lock::{Acquired, FileLock, IdentityLock};
use crate::registry::run_state::RunState;
use crate::registry::store::Registry;

/// How long a command waits for another one that starts or stops the same stack, which by default takes up to a minute.
const STACK_LIMIT: Duration = Duration::from_secs(300);

/// Which process supervises a service.
#[derive(Debug)]
pub(crate) enum Supervision {
    Free,
    /// This process, which is alive and has the lock file open.
    By(ProcessIdentity),
    /// A process that is not known: the lock file names no living process, for example because it was just locked.
    Unnamed,
}

impl Registry {
    /// Returns whether a supervisor runs a service, according to the kernel.
    pub(crate) fn liveness(&self, hash: &ServiceHash) -> Liveness {
        Liveness::probe(&self.paths.identity_lock(hash))
    }

    /// Does what [`Self::liveness`] does with one system call less, but does not find supervisors of the first devport.
    pub(crate) fn announced_liveness(&self, hash: &ServiceHash) -> Liveness {
        Liveness::probe_announced(&self.paths.identity_lock(hash))
    }

    /// Returns the time of the last heartbeat; `None` if there was none.
    pub(crate) fn last_beat(&self, hash: &ServiceHash) -> Option<Timestamp> {
        liveness::last_beat(&self.paths.identity_lock(hash))
    }

    /// Returns whether a supervisor of an earlier version runs a service whose lock seems free.
    pub(crate) fn unannounced_liveness(&self, hash: &ServiceHash) -> Liveness {
        Liveness::probe_unannounced(&self.paths.identity_lock(hash))
    }

    /// Returns whether a supervisor of any version runs a service. Slower than [`Self::liveness`] if none does.
    pub(crate) fn liveness_of_any_version(&self, hash: &ServiceHash) -> Liveness {
        match self.liveness(hash) {
            Liveness::Free => self.unannounced_liveness(hash),
            known => known,
        }
    }

    /// Returns which process supervises a service.
    ///
    /// # Errors
    /// If the lock or its holder cannot be checked.
    pub(crate) fn supervision(&self, hash: &ServiceHash) -> Result<Supervision> {
        match self.liveness_of_any_version(hash) {
            Liveness::Free => return Ok(Supervision::Free),
            Liveness::Held(_) => {}
            Liveness::Unknown(error) => {
                return Err(Error::io("check the lock", self.paths.identity_lock(hash))(error));
            }
        }
        let holder = self.lock_holder(hash)?.filter(|holder| holder.role == Role::Supervisor);
        Ok(holder.map_or(Supervision::Unnamed, |holder| Supervision::By(holder.process())))
    }

    /// Returns the living process that a service's lock file names and that has it open; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, or the process cannot be checked.
    pub(crate) fn lock_holder(&self, hash: &ServiceHash) -> Result<Option<Holder>> {
        let path = self.paths.identity_lock(hash);
        Holder::verified(&path).map_err(Error::io("read", path))
    }

    /// Tries to take the identity lock of a service.
    ///
    /// # Errors
    /// If the lock file cannot be created or locked.
    pub(crate) fn acquire_identity(&self, hash: &ServiceHash, role: Role) -> Result<Acquired> {
        let me = ProcessIdentity::current().map_err(Error::system("identify this process"))?;
        IdentityLock::acquire(&self.paths.identity_lock(hash), hash, &me, role)
    }

    /// Takes the launch lock of a service.
    ///
    /// # Errors
    /// If that takes longer than 30 s, or the lock file cannot be created.
    pub(crate) fn acquire_launch(&self, hash: &ServiceHash, name: &str) -> Result<FileLock> {
        let lock = FileLock::wait(&self.paths.launch_lock(hash), &format!("the launch lock of {name}"), self.notify)?;
        lock.announce();
        Ok(lock)
    }

    /// Returns whether a service may run, or a command is about to start it: `restart` stops it first, and holds the
    /// launch lock until its new supervisor has reported.
    pub(crate) fn may_run(&self, hash: &ServiceHash) -> bool {
        let is_supervised = || !matches!(self.liveness(hash), Liveness::Free);
        let launch = self.paths.launch_lock(hash);
        // The launch may have ended between the first two checks.
        is_supervised() || FileLock::is_announced(&launch) || is_supervised()
    }

    /// Takes the lock under which the services of a file are started and stopped together.
    ///
    /// # Errors
    /// If that takes longer than 5 minutes, or the lock file cannot be created.
    pub(crate) fn acquire_stack(&self, file: &Path) -> Result<FileLock> {
        let what = format!("the services of {}", file.display());
        FileLock::wait_for(&self.paths.stack_lock(file), &what, STACK_LIMIT, self.notify)
    }

    /// Takes that lock if it is free; `None` if another command holds it.
    ///
    /// # Errors
    /// If the lock file cannot be created.
    pub(crate) fn try_acquire_stack(&self, file: &Path) -> Result<Option<FileLock>> {
        FileLock::try_take(&self.paths.stack_lock(file))
    }

    /// Returns what the service's supervisor last recorded; `None` if it recorded nothing.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] if the file is not valid, [`Error::Io`] if it cannot be read now.
    pub(crate) fn run_state(&self, hash: &ServiceHash) -> Result<Option<RunState>> {
        let path = self.paths.run_state(hash);
        match file::read_with(&path, |bytes| serde_json::from_slice(bytes)) {
            Ok(Ok(run)) => Ok(Some(run)),
            Ok(Err(error)) => Err(Error::CorruptRecord { why: error.to_string(), path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Records a run state without an end: processes of the service may be left.
    ///
    /// # Errors
    /// If it cannot be written; the old one is intact.
    pub(crate) fn record_run(&self, lock: &IdentityLock, run: &RunState) -> Result<()> {
        self.write_run_state(lock, &RunState { ended_at: None, ..run.clone() })
    }

    /// Records the end of a service that has no process left.
    ///
    /// # Errors
    /// If it cannot be written; the old one is intact.
    pub(crate) fn record_end(&self, lock: &IdentityLock, run: &RunState, _ended: &TreeEnded) -> Result<()> {
        let ended_at = run.ended_at.or_else(|| Some(clock::wall()));
        self.write_run_state(lock, &RunState { child: None, ended_at, ..run.clone() })
    }

    /// Writes a run state.
    fn write_run_state(&self, lock: &IdentityLock, run: &RunState) -> Result<()> {
        let path = self.paths.run_state(lock.hash());
        let bytes = serde_json::to_vec(run).map_err(io::Error::from).map_err(Error::io("write", &path))?;
        file::write(&path, lock.hash().as_str(), &bytes, Durability::Renamed)
    }

    /// Writes an error to a file for the launcher of this supervisor, which exits without having recorded a state.
    pub(crate) fn report_launch_failure(&self, hash: &ServiceHash, failure: &Error) {
        let path = self.paths.launch_failure(hash, std::process::id().cast_signed());
        // If this fails, the launcher only sees that the supervisor ended.
        let _ = file::write(&path, hash.as_str(), failure.to_string().as_bytes(), Durability::Renamed);
    }

    /// Reads and deletes the error of a supervisor that exited without having recorded a state; `None` if there is none.
    pub(crate) fn take_launch_failure(&self, hash: &ServiceHash, pid: i32) -> Option<String> {
        let path = self.paths.launch_failure(hash, pid);
        let text = file::read(&path).ok()?;
        let _ = fs::remove_file(&path);
        String::from_utf8(text).ok()
    }

    /// Deletes temporary files of a service's earlier supervisors. The caller holds its identity lock.
    pub(crate) fn sweep_run_states(&self, hash: &ServiceHash) {
        file::sweep(&self.paths.run(), hash.as_str());
    }
}
