//! Locks: a kernel `flock` on a file, in which the holder names itself.
//!
//! Every lock is closed on exec, so no child can keep it. A holder may delete its lock file, so after locking a file
//! devport checks that it is still the one at the path.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::process::ProcessIdentity;
use crate::os::{clock, file_lock};
use crate::registry::file::no_link;
use crate::registry::holder::{Holder, Role, open_for_reading};
use crate::registry::refusal::write_error;

/// How long a holder may take to name itself in the lock file. It does so right after taking the lock, so this only covers
/// a busy machine.
const NAMING: Duration = Duration::from_millis(200);
/// How long a command waits for a lock before it says so. A holder that works normally is done in less.
const NOTIFY_AFTER: Duration = Duration::from_secs(2);
/// How long a command waits for a lock before it fails. A start with the default grace period waits for its supervisor for
/// up to 25 s, and holds the launch lock meanwhile.
const LIMIT: Duration = Duration::from_secs(30);

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct FileLock {
    /// The open file that carries the lock.
    file: File,
    path: PathBuf,
}

/// The result of an attempt to take the identity lock.
#[derive(Debug)]
pub(crate) enum Acquired {
    Lock(IdentityLock),
    /// Another process holds it; `None` if the file does not name a living process that has it open.
    Held(Option<Holder>),
}

/// The identity lock of a service. Only its holder may start, stop or remove the service.
#[derive(Debug)]
pub(crate) struct IdentityLock {
    lock: FileLock,
    hash: ServiceHash,
}

impl IdentityLock {
    /// Tries to take a service's lock, and writes this process's name into it.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file cannot be created or locked.
    pub(super) fn acquire(path: &Path, hash: &ServiceHash, me: &ProcessIdentity, role: Role) -> Result<Acquired> {
        let mut holder = None;
        let lock = clock::poll(Duration::from_millis(5), NAMING, || match FileLock::try_acquire(path) {
            Ok(Some(lock)) => Some(Ok(Some(lock))),
            Ok(None) => match Holder::verified(path) {
                // The name of the last holder is no reason to fail: a new holder is about to write its own.
                Ok(None) => None,
                Ok(verified) => {
                    holder = verified;
                    Some(Ok(None))
                }
                Err(error) => Some(Err(Error::io("read", path)(error))),
            },
            Err(error) => Some(Err(error)),
        });
        match lock.transpose()?.flatten() {
            Some(mut lock) => {
                let named = lock.name_holder(role, me);
                if role == Role::Supervisor {
                    // Without a name in the file, no command could ever stop this supervisor.
                    named.map_err(Error::io("write", path))?;
                }
                // Write the name first: a process that sees the announced lock must not read the last holder's name.
                if lock.is_writable()? {
                    file_lock::announce(&lock.file).map_err(Error::io("lock", path))?;
                }
                Ok(Acquired::Lock(Self { lock, hash: hash.clone() }))
            }
            None => Ok(Acquired::Held(holder)),
        }
    }

    /// Records a heartbeat as the time of the lock file, which readers use as `last_up`. Nothing is written, so the
    /// durable record is not at risk every 30 seconds.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn beat(&self, now: Timestamp) -> io::Result<()> {
        self.lock.file.set_modified(now.into())
    }

    /// The service that the lock belongs to.
    pub(crate) fn hash(&self) -> &ServiceHash {
        &self.hash
    }

    /// Deletes the lock file and releases the lock. Waiting processes notice.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub(crate) fn delete(self) -> Result<()> {
        self.lock.delete()
    }
}

impl FileLock {
    /// Tries once to take a lock. Returns `None` if another process holds it, or has deleted its file since this one opened
    /// it: a later attempt may succeed.
    fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = open_for_locking(path).map_err(|error| write_error("open the lock", path)(no_link(error)))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        let locked = file.metadata().map_err(Error::io("check", path))?;
        let current = match std::fs::symlink_metadata(path) {
            Ok(current) => current,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("check", path)(error)),
        };
        if (current.dev(), current.ino()) != (locked.dev(), locked.ino()) {
            // The lock is on a file without a name, so another process can lock the new file at the same time.
            return Ok(None);
        }
        if locked.mode() & 0o777 != 0o600 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(write_error("make private", path))?;
        }
        Ok(Some(Self { file, path: path.to_owned() }))
    }

    /// Waits for a lock. After 2 s it calls `notify` with the holder; after 30 s it fails.
    ///
    /// # Errors
    /// [`Error::LockBusy`], or [`Error::Io`] if the lock file cannot be created or locked.
    pub(super) fn wait(path: &Path, what: &str, notify: fn(&str)) -> Result<Self> {
        Self::wait_for(path, what, LIMIT, notify)
    }

    /// Waits for a lock as [`Self::wait`] does, for at most `limit`.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(super) fn wait_for(path: &Path, what: &str, limit: Duration, notify: fn(&str)) -> Result<Self> {
        let began = clock::now();
        let mut has_notified = false;
        let holder = || match Holder::verified(path) {
            Ok(Some(holder)) => holder.process().to_string(),
            _ => "another process".to_owned(),
        };
        let lock = clock::poll(Duration::from_millis(1), limit, || {
            let lock = Self::try_acquire(path).transpose();
            if lock.is_none() && !has_notified && clock::now() > began + NOTIFY_AFTER {
                has_notified = true;
                notify(&format!("waiting for {what}, held by {}", holder()));
            }
            lock
        });
        let mut lock = lock.transpose()?.ok_or_else(|| Error::LockBusy {
            what: what.to_owned(),
            holder: holder(),
            waited_s: limit.as_secs(),
        })?;
        if let Ok(me) = ProcessIdentity::current() {
            let _ = lock.name_holder(Role::Command, &me);
        }
        Ok(lock)
    }

    /// Takes a lock if it is free, without waiting.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file cannot be created or locked.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>> {
        let mut lock = Self::try_acquire(path)?;
        if let (Some(lock), Ok(me)) = (&mut lock, ProcessIdentity::current()) {
            let _ = lock.name_holder(Role::Command, &me);
        }
        Ok(lock)
    }

    /// Makes the lock visible to [`Self::is_announced`]. On a read-only file system it stays invisible.
    pub(super) fn announce(&self) {
        let _ = file_lock::announce(&self.file);
    }

    /// Returns whether another open file holds this lock and has announced it, as far as can be known. Takes no lock.
    pub(super) fn is_announced(path: &Path) -> bool {
        let announced = |file: Option<File>| file.map_or(Ok(false), |file| file_lock::is_announced(&file));
        open_for_reading(path).and_then(announced).unwrap_or(false)
    }

    /// Writes the holder into the lock file. If that fails, as on a full disk, the file is emptied so that it does not
    /// name another process. For a command the content is only advisory.
    fn name_holder(&mut self, role: Role, me: &ProcessIdentity) -> io::Result<()> {
        let text = serde_json::to_vec(&Holder::new(role, me))?;
        let beat = self.file.metadata().and_then(|metadata| metadata.modified());
        // Truncate last, so that a reader rarely sees an empty file.
        let named = self
            .file
            .rewind()
            .and_then(|()| self.file.write_all(&text))
            .and_then(|()| self.file.set_len(text.len() as u64));
        if named.is_err() {
            let _ = self.file.set_len(0);
        }
        // The time of the file is the supervisor's last heartbeat. A command must not change it.
        if let (Role::Command, Ok(beat)) = (role, beat) {
            let _ = self.file.set_modified(beat);
        }
        named
    }

    /// Refuses a lock on a read-only file system: it can be held, but a supervisor could not record its state there.
    ///
    /// # Errors
    /// [`Error::Unwritable`].
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_writable()? {
            return Ok(());
        }
        Err(write_error("write", &self.path)(io::Error::from_raw_os_error(libc::EROFS)))
    }

    /// Returns whether the file is open for writing. On a read-only file system it is not.
    fn is_writable(&self) -> Result<bool> {
        let flags = nix::fcntl::fcntl(&self.file, nix::fcntl::FcntlArg::F_GETFL)
            .map_err(|errno| Error::io("check", &self.path)(errno.into()))?;
        Ok(flags & libc::O_ACCMODE == libc::O_RDWR)
    }

    /// Deletes the lock file and releases the lock.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub(crate) fn delete(self) -> Result<()> {
        super::file::remove(&self.path)
    }
}

/// Opens a lock file, and creates it if needed. On a read-only file system an existing one can still be locked, so that
/// `stop` works.
fn open_for_locking(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            open_for_reading(path).and_then(|existing| existing.ok_or(error))
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Key;
    use crate::os::clock::comes_true;
    use crate::registry::liveness::Liveness;

    fn me() -> ProcessIdentity {
        ProcessIdentity::current().unwrap()
    }

    fn acquire(path: &Path, role: Role) -> Acquired {
        let hash = ServiceHash::of_key(&Key::new("a").unwrap());
        IdentityLock::acquire(path, &hash, &me(), role).unwrap()
    }

    #[track_caller]
    fn take(path: &Path, role: Role) -> IdentityLock {
        let lock = || match acquire(path, role) {
            Acquired::Lock(lock) => Some(lock),
            Acquired::Held(_) => None,
        };
        clock::poll(Duration::from_millis(5), Duration::from_secs(5), lock).expect("the lock becomes free")
    }

    #[test]
    fn the_lock_is_private_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        assert!(matches!(Liveness::probe(&path), Liveness::Free));
        let lock = take(&path, Role::Supervisor);
        assert!(matches!(Liveness::probe(&path), Liveness::Held(Some(holder)) if holder == me()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let Acquired::Held(Some(holder)) = acquire(&path, Role::Command) else { panic!("two holders") };
        assert_eq!((holder.role, holder.process()), (Role::Supervisor, me()));
        drop(lock);
        assert!(comes_true(|| matches!(Liveness::probe(&path), Liveness::Free)));
    }

    #[test]
    fn a_command_that_holds_the_lock_is_no_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let _lock = take(&path, Role::Command);
        assert!(matches!(Liveness::probe(&path), Liveness::Free));
        assert!(matches!(acquire(&path, Role::Supervisor), Acquired::Held(Some(Holder { role: Role::Command, .. }))));
    }

    #[test]
    fn a_probe_takes_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        drop(take(&path, Role::Supervisor));
        // The file that a prober has open when it is suspended.
        let file = open_for_reading(&path).unwrap().unwrap();
        assert!(comes_true(|| !file_lock::is_announced(&file).unwrap()));
        drop(take(&path, Role::Supervisor));
    }

    #[test]
    fn a_holder_that_does_not_have_the_file_open_is_not_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        // Another user's lock file that names one of our processes.
        let planted = FileLock::try_acquire(&path).unwrap().unwrap();
        let init = ProcessIdentity::of(1).unwrap().unwrap();
        std::fs::write(&path, serde_json::to_vec(&Holder::new(Role::Supervisor, &init)).unwrap()).unwrap();
        if cfg!(target_os = "linux") {
            assert!(matches!(acquire(&path, Role::Command), Acquired::Held(None)));
        }
        drop(planted);
    }

    #[test]
    fn locks_of_earlier_versions_are_found_where_an_end_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let lock = FileLock::try_acquire(&path).unwrap().unwrap();
        assert!(matches!(Liveness::probe(&path), Liveness::Held(None)));
        assert!(
            matches!(Liveness::probe_unannounced(&path), Liveness::Held(None)),
            "the first devport's file is empty"
        );
        std::fs::write(&path, serde_json::to_vec(&me()).unwrap()).unwrap();
        assert!(matches!(Liveness::probe_unannounced(&path), Liveness::Held(Some(holder)) if holder == me()));
        let gone = ProcessIdentity { start_time: Some(1), ..me() };
        std::fs::write(&path, serde_json::to_vec(&gone).unwrap()).unwrap();
        assert!(matches!(Liveness::probe_unannounced(&path), Liveness::Free));
        drop(lock);
    }

    #[test]
    fn a_lock_whose_file_was_deleted_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let witness = directory.path().join("witness");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut taken = 0;
                    while taken < 300 {
                        let Some(lock) = FileLock::try_acquire(&path).unwrap() else { continue };
                        taken += 1;
                        std::fs::File::create_new(&witness).expect("two holders at once");
                        std::fs::remove_file(&witness).unwrap();
                        if taken % 2 == 0 { lock.delete().unwrap() } else { drop(lock) }
                    }
                });
            }
        });
    }

    #[test]
    fn a_symbolic_link_is_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        std::os::unix::fs::symlink(directory.path().join("target"), &path).unwrap();
        assert!(FileLock::try_acquire(&path).unwrap_err().to_string().contains("symbolic link"));
        assert!(matches!(Liveness::probe(&path), Liveness::Unknown(_)));
        assert!(!directory.path().join("target").exists());
    }
}
