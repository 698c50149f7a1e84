//! `Liveness`: whether a supervisor holds the identity lock of a service, found out without disturbing it.
//!
//! The holder of an identity lock announces it by a second lock that can be queried ([`file_lock`]). Supervisors of earlier
//! versions do not; they are found by the content of the lock file.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use jiff::Timestamp;

use crate::os::file_lock;
use crate::os::process::ProcessIdentity;
use crate::registry::holder::{Holder, Role, open_for_reading};

/// Whether a supervisor runs a service, according to the kernel.
#[derive(Debug)]
pub(crate) enum Liveness {
    /// No supervisor holds the lock.
    Free,
    /// A supervisor holds the lock; `None` if the file does not name it.
    Held(Option<ProcessIdentity>),
    /// The lock could not be checked.
    Unknown(io::Error),
}

impl Liveness {
    /// Checks the lock without taking it, so that a probe never blocks a supervisor.
    pub(super) fn probe(path: &Path) -> Self {
        Self::probe_with(path, Self::try_empty)
    }

    /// Like [`Self::probe`], with one system call less. Does not find supervisors of the first devport.
    pub(super) fn probe_announced(path: &Path) -> Self {
        Self::probe_with(path, |_| Ok(Self::Free))
    }

    /// Reads an announced lock; `unannounced` decides about any other.
    fn probe_with(path: &Path, unannounced: impl FnOnce(&File) -> io::Result<Self>) -> Self {
        let probe = || -> io::Result<Self> {
            let Some(mut file) = open_for_reading(path)? else { return Ok(Self::Free) };
            if !file_lock::is_announced(&file)? {
                return unannounced(&file);
            }
            Ok(match Holder::read(&mut file) {
                Some(Holder { role: Role::Command, .. }) => Self::Free,
                holder => Self::Held(holder.map(|holder| holder.process())),
            })
        };
        probe().unwrap_or_else(Self::Unknown)
    }

    /// Like [`Self::probe`], for a lock that seems free although its service recorded no end. Also finds supervisors of
    /// earlier versions, which do not announce their locks: those of this devport by the name in the file, and those of
    /// the first devport, which leaves the file empty, by trying the lock.
    pub(super) fn probe_unannounced(path: &Path) -> Self {
        let probe = || -> io::Result<Self> {
            let Some(mut file) = open_for_reading(path)? else { return Ok(Self::Free) };
            match Holder::read(&mut file) {
                Some(holder) if holder.role == Role::Supervisor && holder.is_verified(&file)? => {
                    Ok(Self::Held(Some(holder.process())))
                }
                None => Self::try_empty(&file),
                Some(_) => Ok(Self::Free),
            }
        };
        probe().unwrap_or_else(Self::Unknown)
    }

    /// Tries the lock of an empty file, shared and for microseconds. Only the first devport leaves the file empty: its
    /// supervisors cannot be seen in another way.
    fn try_empty(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() > 0 {
            return Ok(Self::Free);
        }
        match file.try_lock_shared() {
            Ok(()) => Ok(Self::Free),
            Err(TryLockError::WouldBlock) => Ok(Self::Held(None)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Returns whether a supervisor is known to hold the lock.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

/// Returns the time of the last heartbeat; `None` if there was none.
pub(super) fn last_beat(path: &Path) -> Option<Timestamp> {
    // The first devport leaves the file empty and does not maintain its time.
    let metadata = std::fs::symlink_metadata(path).ok().filter(|metadata| metadata.len() > 0)?;
    Timestamp::try_from(metadata.modified().ok()?).ok()
}
