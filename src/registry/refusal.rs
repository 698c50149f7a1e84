//! Why a write below the state directory failed: a sandbox, a missing home directory, or anything else.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The default state directory, relative to the home directory.
pub(super) const BELOW_HOME: &str = ".local/share/devport";
/// The directories in the state directory.
pub(super) const DIRECTORIES: [&str; 4] = ["services", "run", "locks", "logs"];
/// The permission bits with which the owner may create files in a directory.
const OWNER_CREATES: u32 = 0o300;

/// Returns a function for `map_err` for a failed write of a file of the state directory, or of the directory itself.
pub(super) fn write_error(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| write_error_below(base_of(&path).to_owned(), verb, path, source)
}

/// Returns the error for a failed write of a file of the state directory `base`, or of one of its parents.
pub(super) fn write_error_below(base: PathBuf, verb: &'static str, path: PathBuf, source: io::Error) -> Error {
    match missing_home(&base) {
        Some(home) => Error::MissingHome { home: home.to_owned(), source },
        None if is_refused_anyway(&source, || has_permission(&path)) => Error::Unwritable { verb, path, base, source },
        None => Error::Io { verb, path, source },
    }
}

/// Returns the state directory that contains a state file, or `path` if that is not below one.
pub(super) fn base_of(path: &Path) -> &Path {
    let is_part = |path: &&Path| path.file_name().is_some_and(|name| DIRECTORIES.iter().any(|part| name == *part));
    path.ancestors().take(2).find(is_part).and_then(Path::parent).unwrap_or(path)
}

/// Returns the home directory of a state directory at its default place, if it does not exist.
fn missing_home(base: &Path) -> Option<&Path> {
    let home = base.ends_with(BELOW_HOME).then(|| base.ancestors().nth(3)).flatten()?;
    matches!(fs::symlink_metadata(home), Err(error) if error.kind() == io::ErrorKind::NotFound).then_some(home)
}

/// Returns whether the system refuses what the permissions of files allow. `has_permission` says whether they do.
fn is_refused_anyway(error: &io::Error, has_permission: impl FnOnce() -> bool) -> bool {
    match error.kind() {
        // A read-only mount, as by bubblewrap.
        io::ErrorKind::ReadOnlyFilesystem => true,
        // EPERM by Apple's Seatbelt (`sandbox(7)`), EACCES by Landlock (`landlock(7)`) or for missing permissions.
        io::ErrorKind::PermissionDenied => error.raw_os_error() == Some(libc::EPERM) || has_permission(),
        _ => false,
    }
}

/// Returns whether this user may write a file, or create it, according to its permissions and its directory's.
fn has_permission(path: &Path) -> bool {
    let Some(metadata) = path.ancestors().find_map(|path| fs::metadata(path).ok()) else { return false };
    let me = my_uid();
    let needed = if metadata.is_dir() { OWNER_CREATES } else { 0o200 };
    me == 0 || (metadata.uid() == me && metadata.mode() & needed == needed)
}

/// Returns the user whose files devport uses.
pub(super) fn my_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn a_refusal_that_permissions_do_not_explain_is_a_sandbox() {
        assert!(is_refused_anyway(&error(libc::EROFS), || false));
        assert!(is_refused_anyway(&error(libc::EPERM), || false));
        assert!(is_refused_anyway(&error(libc::EACCES), || true));
        assert!(!is_refused_anyway(&error(libc::EACCES), || false));
        assert!(!is_refused_anyway(&error(libc::ENOSPC), || true));
    }

    #[test]
    fn the_state_directory_is_named_for_each_of_its_files() {
        for path in ["/s", "/s/locks", "/s/locks/a.lock", "/s/services/a.json"] {
            assert_eq!(base_of(Path::new(path)), Path::new("/s"), "{path}");
        }
        assert_eq!(base_of(Path::new("/logs/x/devport")), Path::new("/logs/x/devport"));
    }

    #[test]
    fn a_missing_home_is_no_sandbox() {
        let directory = tempfile::tempdir().unwrap();
        let write = |home: &Path| write_error("create", home.join(BELOW_HOME))(error(libc::EROFS));
        assert!(matches!(write(&directory.path().join("none")), Error::MissingHome { .. }));
        let refused = write(directory.path());
        let hint = refused.hint().unwrap();
        let base = directory.path().join(BELOW_HOME);
        assert!(hint.contains(&format!("allow writing to {}", base.display())), "{hint}");
        assert!(!hint.contains("DEVPORT_HOME"), "{hint}");
    }
}
