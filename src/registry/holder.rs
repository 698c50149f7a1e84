//! `Holder`: what a lock file says about the process that holds the lock. The kernel decides who holds it; the content is
//! only advisory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::os::process::ProcessIdentity;
use crate::registry::file::no_link;

/// The most bytes of a lock file that are read. devport writes less than 200; another program may have written more.
const LONGEST: u64 = 4096;

/// The kind of process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// The supervisor of a running service. devport signals only supervisors.
    Supervisor,
    /// A devport command that needs the service to itself, such as `rm`.
    Command,
}

/// What a lock file says about its holder. The holder writes it; it is advisory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Missing in files of earlier versions: only supervisors wrote those.
    #[serde(default = "supervisor")]
    pub(crate) role: Role,
    pid: i32,
    /// Start time, as in [`ProcessIdentity`].
    #[serde(default)]
    start_time: Option<u64>,
    /// The boot that it started in, as in [`ProcessIdentity`].
    #[serde(default)]
    boot_id: Option<String>,
}

/// The role in files without one.
fn supervisor() -> Role {
    Role::Supervisor
}

impl Holder {
    pub(super) fn new(role: Role, process: &ProcessIdentity) -> Self {
        let ProcessIdentity { pid, start_time, boot_id } = process.clone();
        Self { role, pid, start_time, boot_id }
    }

    /// Parses the content of a lock file; `None` if it is empty or not valid.
    pub(super) fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(LONGEST).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Returns the holder that a lock file names; `None` unless that is a living process that has the file open.
    pub(super) fn verified(path: &Path) -> io::Result<Option<Self>> {
        let Some(mut file) = open_for_reading(path)? else { return Ok(None) };
        match Self::read(&mut file) {
            Some(holder) if holder.is_verified(&file)? => Ok(Some(holder)),
            _ => Ok(None),
        }
    }

    /// Returns the identity of the holder.
    pub(crate) fn process(&self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid, start_time: self.start_time, boot_id: self.boot_id.clone() }
    }

    /// Returns whether the named process is alive and has the lock file open: the content alone could name any process.
    /// Where the system cannot tell what a process has open (macOS), being alive is enough.
    pub(super) fn is_verified(&self, file: &File) -> io::Result<bool> {
        let process = self.process();
        Ok(process.is_alive()? && process.has_open(&file.metadata()?)? != Some(false))
    }
}

/// Opens a lock file for reading; `None` if there is none.
pub(super) fn open_for_reading(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(no_link(error)),
    }
}
