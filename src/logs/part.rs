//! `Part`: one file of a log.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The most old parts that a log can have. Readers open each of them.
pub(super) const MOST_KEPT: u32 = 100;
/// How many times the parts are opened again if the log is rotated meanwhile, which takes 10 MiB of output by default.
const ATTEMPTS: u32 = 10;

/// The identity of a part, whatever its name: device and inode.
pub(super) type FileId = (u64, u64);

/// A part of a log, open for reading.
#[derive(Debug)]
pub(super) struct Part {
    /// The path under which it was opened.
    pub(super) path: PathBuf,
    pub(super) reader: BufReader<File>,
    /// Its size when it was opened, in bytes.
    pub(super) size: u64,
    /// Which file it is.
    pub(super) id: FileId,
}

impl Part {
    /// Opens a part; `None` if it does not exist.
    fn open(path: PathBuf) -> Result<Option<Self>> {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        match opened.and_then(|file| Ok((file.metadata()?, file))) {
            Ok((metadata, file)) => {
                let reader = BufReader::with_capacity(64 * 1024, file);
                Ok(Some(Self { path, reader, size: metadata.len(), id: id(&metadata) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }
}

/// Returns the path of an old part; 1 is the newest.
pub(super) fn old_path(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Returns the identity of a part.
fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// Returns the identity of the current part; `None` if there is none.
pub(super) fn current(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().as_ref().map(id)
}

/// Opens every part of a log, oldest first. A missing log has none.
///
/// # Errors
/// [`Error::Io`] if an existing part cannot be opened.
pub(super) fn open_all(path: &Path) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = current(path);
        parts.clear();
        // Rotation moves parts to higher numbers. Opened from the lowest number up, a part that moves meanwhile is
        // found twice and never missed, unless the log is rotated twice.
        for path in std::iter::once(path.to_owned()).chain((1..=MOST_KEPT).map(|number| old_path(path, number))) {
            let Some(part) = Part::open(path)? else { continue };
            if parts.iter().all(|other| other.id != part.id) {
                parts.push(part);
            }
        }
        if current(path) == before {
            break;
        }
    }
    parts.reverse();
    Ok(parts)
}
