//! The paths of all state files.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::identity::{ServiceHash, hex_digest};
use crate::registry::refusal::{BELOW_HOME, DIRECTORIES};

/// The number of hexadecimal digits that tell the locks of stacks apart: 64 bits.
const STACK_DIGITS: usize = 16;

/// The state directory and the files in it.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The base directory, absolute and canonical.
    base: PathBuf,
}

impl Paths {
    /// Chooses the base directory: `DEVPORT_HOME`, else `XDG_DATA_HOME/devport` if that is absolute, else
    /// `~/.local/share/devport`.
    ///
    /// # Errors
    /// [`Error::NoHome`] if there is no home directory or it is relative.
    pub(crate) fn choose(
        devport_home: Option<&OsStr>,
        xdg_data_home: Option<&OsStr>,
        home: Option<&Path>,
        cwd: &Path,
    ) -> Result<Self> {
        let xdg = xdg_data_home.map(Path::new).filter(|path| path.is_absolute());
        let base = match (devport_home, xdg, home.filter(|home| home.is_absolute())) {
            (Some(base), _, _) => cwd.join(base),
            (None, Some(xdg), _) => xdg.join("devport"),
            (None, None, Some(home)) => home.join(BELOW_HOME),
            (None, None, None) => return Err(Error::NoHome),
        };
        if base.to_str().is_none() {
            return Err(Error::NotUtf8 {
                what: "the state directory".into(),
                lossy: base.to_string_lossy().into_owned(),
            });
        }
        // Before resolving links: a user who controls one of them would choose the directory.
        super::directory::check_links(&base)?;
        Ok(Self { base: canonical(&base) })
    }

    /// Uses the state directory at a path as it is.
    pub(super) fn at(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// All directories, the base first.
    pub(super) fn directories(&self) -> impl Iterator<Item = PathBuf> {
        std::iter::once(self.base.clone()).chain(DIRECTORIES.map(|name| self.base.join(name)))
    }

    /// The directory of the records.
    pub(super) fn services(&self) -> PathBuf {
        self.base.join("services")
    }

    /// The directory of the run states.
    pub(super) fn run(&self) -> PathBuf {
        self.base.join("run")
    }

    /// Returns the path of a file of one service, with a single allocation: `ls` needs three of these paths for each
    /// service.
    fn of_service(&self, directory: &str, hash: &ServiceHash, suffix: &str) -> PathBuf {
        let length = self.base.as_os_str().len() + 1 + directory.len() + hash.as_str().len() + suffix.len();
        let mut path = PathBuf::with_capacity(length);
        path.push(&self.base);
        path.push(directory);
        path.as_mut_os_string().push(hash.as_str());
        path.as_mut_os_string().push(suffix);
        path
    }

    /// The record of a service.
    pub(crate) fn record(&self, hash: &ServiceHash) -> PathBuf {
        self.of_service("services/", hash, ".json")
    }

    /// The run state that the service's supervisor last recorded.
    pub(crate) fn run_state(&self, hash: &ServiceHash) -> PathBuf {
        self.of_service("run/", hash, ".json")
    }

    /// The identity lock, which a service's supervisor holds for its whole life.
    pub(super) fn identity_lock(&self, hash: &ServiceHash) -> PathBuf {
        self.of_service("locks/", hash, ".lock")
    }

    /// The launch lock, held while a service is launched or removed.
    pub(super) fn launch_lock(&self, hash: &ServiceHash) -> PathBuf {
        self.of_service("locks/", hash, ".launch.lock")
    }

    /// The lock under which every change of the registry is made.
    pub(super) fn register_lock(&self) -> PathBuf {
        self.base.join("locks/register.lock")
    }

    /// The lock under which the services of a file are started and stopped together.
    pub(super) fn stack_lock(&self, file: &Path) -> PathBuf {
        let digest = hex_digest(file.as_os_str().as_encoded_bytes(), STACK_DIGITS);
        self.base.join(format!("locks/{digest}.stack.lock"))
    }

    /// The lock under which publications on the tailnet are changed.
    pub(super) fn tailnet_lock(&self) -> PathBuf {
        self.base.join("locks/tailnet.lock")
    }

    /// The tailnet's suffix, as last reported.
    pub(super) fn tailnet_suffix(&self) -> PathBuf {
        self.base.join("tailnet-suffix")
    }

    /// The file in which a supervisor reports to its launcher why it ended before it could record a state. It is named
    /// like a temporary file, so that it is swept like one.
    pub(super) fn launch_failure(&self, hash: &ServiceHash, pid: i32) -> PathBuf {
        self.base.join(format!("run/{}{hash}-launch-{pid}", super::file::TEMPORARY_PREFIX))
    }

    /// The log of a service. Older parts have the suffixes `.1`, `.2`, ….
    pub(crate) fn log(&self, hash: &ServiceHash) -> PathBuf {
        self.of_service("logs/", hash, ".log")
    }
}

/// Resolves the symbolic links of a path that need not exist. Processes compare the state directory as text, so the
/// command that creates it must already use the path that later commands see.
fn canonical(path: &Path) -> PathBuf {
    if let Ok(canonical) = path.canonicalize() {
        return canonical;
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => canonical(parent).join(name),
        // The directory before `..` does not exist, so it is no symbolic link.
        (Some(parent), Some(Component::ParentDir)) => {
            let mut base = canonical(parent);
            base.pop();
            base
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_directory_is_the_first_of_three() {
        let choose = |devport: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            Paths::choose(devport.map(OsStr::new), xdg.map(OsStr::new), home.map(Path::new), Path::new("/w"))
                .map(|paths| paths.base)
        };
        assert_eq!(choose(Some("/nowhere/d"), Some("/x"), Some("/h")).unwrap(), Path::new("/nowhere/d"));
        assert_eq!(choose(Some("nowhere"), None, None).unwrap(), Path::new("/w/nowhere"));
        assert_eq!(choose(None, Some("/x"), Some("/h")).unwrap(), Path::new("/x/devport"));
        assert_eq!(choose(None, Some("x"), Some("/h")).unwrap(), Path::new("/h/.local/share/devport"));
        assert!(matches!(choose(None, None, Some("relative")), Err(Error::NoHome)));
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_has_the_path_that_it_gets() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(directory.path(), directory.path().join("link")).unwrap();
        let real = directory.path().canonicalize().unwrap();
        for (given, expected) in [("link/a/b", "a/b"), ("link/missing/../a", "a"), ("link/missing/./a", "missing/a")] {
            let base = directory.path().join(given);
            let paths = Paths::choose(Some(base.as_os_str()), None, None, Path::new("/")).unwrap();
            assert_eq!(paths.base(), real.join(expected), "{given}");
        }
    }
}
