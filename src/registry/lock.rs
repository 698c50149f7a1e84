//! Locks: a kernel `flock` on a file. Who holds it is the truth; what the file says about the holder is
//! advice.
//!
//! Every lock is closed on exec, so that no child can keep it alive. A lock file may be deleted by its
//! holder; whoever takes a lock therefore checks that the file it locked is the one at the path.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::process::ProcessIdentity;
use crate::registry::file::no_link;

/// How long somebody who wants the identity lock disbelieves that it is held: a probe holds it, shared, for
/// microseconds. Source: trust.md, point 2.
const DISBELIEF: Duration = Duration::from_millis(200);
/// When waiting for a lock becomes worth a word.
const PATIENCE: Duration = Duration::from_secs(2);
/// When waiting for a lock fails.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether a service runs, as the kernel says.
#[derive(Debug)]
pub(crate) enum Liveness {
    /// Nobody holds the lock.
    Free,
    /// A supervisor holds it; `None` if the file does not say which.
    Held(Option<ProcessIdentity>),
    /// The lock cannot be opened.
    Unknown(io::Error),
}

impl Liveness {
    /// Asks the kernel, with a shared lock that is held for microseconds.
    pub(super) fn probe(path: &Path) -> Self {
        let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::Free,
            Err(error) => return Self::Unknown(no_link(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Self::Free,
            Err(TryLockError::WouldBlock) => Self::Held(recorded_holder(&mut file)),
            Err(TryLockError::Error(error)) => Self::Unknown(error),
        }
    }

    /// Whether a supervisor is known to hold the lock.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

/// Who the file says holds the lock; `None` if it does not say.
fn recorded_holder(file: &mut File) -> Option<ProcessIdentity> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// A lock that is held until this is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct FileLock {
    /// The open file that carries the lock.
    file: File,
    /// Where it is.
    path: PathBuf,
}

/// What came of an attempt to take the identity lock.
#[derive(Debug)]
pub(crate) enum Acquired {
    /// It is ours.
    Lock(IdentityLock),
    /// Another supervisor has it; `None` if the file does not say which.
    Held(Option<ProcessIdentity>),
}

/// The lock that makes its holder the one supervisor of a service.
#[derive(Debug)]
pub(crate) struct IdentityLock(FileLock);

impl IdentityLock {
    /// Tries to become the service's supervisor, and writes down who we are.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file cannot be made or locked.
    pub(super) fn acquire(path: &Path, me: &ProcessIdentity) -> Result<Acquired> {
        let mut holder = None;
        let lock = clock::poll(Duration::from_millis(5), DISBELIEF, || match FileLock::try_acquire(path) {
            Ok(Some(lock)) => Some(Ok(Some(lock))),
            Ok(None) => {
                holder = File::open(path).ok().as_mut().and_then(recorded_holder);
                // A living holder is believed at once; anything else may be a probe.
                holder.as_ref().is_some_and(ProcessIdentity::is_alive).then_some(Ok(None))
            }
            Err(error) => Some(Err(error)),
        });
        match lock.transpose()?.flatten() {
            Some(mut lock) => {
                lock.sign(me);
                Ok(Acquired::Lock(Self(lock)))
            }
            None => Ok(Acquired::Held(holder)),
        }
    }

    /// Deletes the lock file and gives the lock up. Whoever waits for it notices.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub(crate) fn delete(self) -> Result<()> {
        self.0.delete()
    }
}

impl FileLock {
    /// Takes a lock if nobody has it.
    fn try_acquire(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(|error| Error::io("open the lock", path)(no_link(error)))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            }
            let ours = file.metadata().map_err(Error::io("look at", path))?;
            match std::fs::symlink_metadata(path) {
                Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {
                    if ours.mode() & 0o777 != 0o600 {
                        file.set_permissions(std::fs::Permissions::from_mode(0o600))
                            .map_err(Error::io("make private", path))?;
                    }
                    return Ok(Some(Self { file, path: path.to_owned() }));
                }
                // The holder before us deleted the file: the lock that we have is on nothing.
                _ => {}
            }
        }
    }

    /// Waits for a lock. After 2 s it tells `notice` who has it; after 30 s it fails.
    ///
    /// # Errors
    /// [`Error::LockBusy`], or [`Error::Io`] if the lock file cannot be made or locked.
    pub(super) fn wait(path: &Path, what: &str, notice: &mut dyn FnMut(String)) -> Result<Self> {
        let began = clock::now();
        let mut noticed = false;
        let holder = || match Liveness::probe(path) {
            // What the file says of a holder that has ended is an old story.
            Liveness::Held(Some(holder)) if holder.is_alive() => holder.to_string(),
            _ => "another process".to_owned(),
        };
        let lock = clock::poll(Duration::from_millis(1), LIMIT, || {
            let lock = Self::try_acquire(path).transpose();
            if lock.is_none() && !noticed && clock::now() > began + PATIENCE {
                noticed = true;
                notice(format!("waiting for {what}, held by {}", holder()));
            }
            lock
        });
        let mut lock = lock.transpose()?.ok_or_else(|| Error::LockBusy {
            what: what.to_owned(),
            holder: holder(),
            waited_s: LIMIT.as_secs(),
        })?;
        if let Ok(me) = ProcessIdentity::current() {
            lock.sign(&me);
        }
        Ok(lock)
    }

    /// Takes a lock if nobody has it, and does not wait.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file cannot be made or locked.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>> {
        let mut lock = Self::try_acquire(path)?;
        if let (Some(lock), Ok(me)) = (&mut lock, ProcessIdentity::current()) {
            lock.sign(&me);
        }
        Ok(lock)
    }

    /// Writes down who holds the lock. It is advice only, so a full disk does not matter.
    fn sign(&mut self, me: &ProcessIdentity) {
        let Ok(text) = serde_json::to_vec(me) else { return };
        // Shorter content is padded by the rest of the old one unless it is cut: cut last, so that a reader
        // rarely sees nothing.
        let _ = self
            .file
            .rewind()
            .and_then(|()| self.file.write_all(&text))
            .and_then(|()| self.file.set_len(text.len() as u64));
    }

    /// Deletes the lock file and gives the lock up.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub(crate) fn delete(self) -> Result<()> {
        super::file::remove(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> ProcessIdentity {
        ProcessIdentity::current().unwrap()
    }

    fn try_take(path: &Path, who: &ProcessIdentity) -> Option<IdentityLock> {
        match IdentityLock::acquire(path, who).unwrap() {
            Acquired::Lock(lock) => Some(lock),
            Acquired::Held(_) => None,
        }
    }

    fn take(path: &Path) -> IdentityLock {
        try_take(path, &me()).expect("the lock is free")
    }

    #[test]
    fn t01_the_lock_is_private_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        assert!(matches!(Liveness::probe(&path), Liveness::Free));
        let lock = take(&path);
        assert!(matches!(Liveness::probe(&path), Liveness::Held(Some(holder)) if holder == me()));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(IdentityLock::acquire(&path, &me()).unwrap(), Acquired::Held(Some(holder)) if holder == me()));
        drop(lock);
        assert!(matches!(Liveness::probe(&path), Liveness::Free));
    }

    #[test]
    fn t02_a_probe_does_not_pass_for_a_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        Liveness::probe(&path);
                    }
                });
            }
            // The recorded holder must not be alive, as that of a lock that is free never is.
            let gone = ProcessIdentity { start_time: Some(1), ..me() };
            let failed = (0..2_000).filter(|_| try_take(&path, &gone).is_none()).count();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(failed, 0);
        });
    }

    #[test]
    fn t03_a_lock_whose_file_was_deleted_holds_nothing() {
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
    fn t23_a_symbolic_link_is_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        std::os::unix::fs::symlink(directory.path().join("target"), &path).unwrap();
        assert!(IdentityLock::acquire(&path, &me()).unwrap_err().to_string().contains("symbolic link"));
        assert!(matches!(Liveness::probe(&path), Liveness::Unknown(_)));
        assert!(!directory.path().join("target").exists());
    }
}
