//! `Registry`: reads and changes records.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use crate::config::Variables;
use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::parallel;
use crate::registry::directory;
use crate::registry::ended::TreeEnded;
use crate::registry::file::{self, Durability, Staged};
use crate::registry::lock::{FileLock, IdentityLock};
use crate::registry::paths::Paths;
use crate::registry::port::PortRange;
use crate::registry::reservation::{Reservation, parse_environment};

/// All reservations of this user on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// The paths of the state files.
    pub(super) paths: Paths,
    /// The range for new services.
    pub(super) range: PortRange,
    /// Receives notes for the user.
    pub(super) notify: fn(&str),
}

/// The records of the state directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The usable ones, by hash.
    pub(crate) reservations: Vec<Reservation>,
    /// One error for each unusable record.
    pub(crate) unusable: Vec<Error>,
}

impl Registry {
    /// Creates a registry for a directory that need not exist yet. `notify` receives notes for the user.
    pub(crate) fn new(paths: Paths, range: PortRange, notify: fn(&str)) -> Self {
        Self { paths, range, notify }
    }

    /// The range of ports for new services.
    pub(crate) fn range(&self) -> PortRange {
        self.range
    }

    /// The paths of the state files.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Refuses a state directory of another user: its files could name any process and lead anywhere. A missing one is
    /// allowed.
    ///
    /// # Errors
    /// [`Error::ForeignDirectory`], or [`Error::Io`] if its owner cannot be read.
    pub(crate) fn check_owner(&self) -> Result<()> {
        for directory in self.paths.directories() {
            directory::check_owner(&directory)?;
        }
        Ok(())
    }

    /// Creates the directories that are missing, private to this user.
    ///
    /// # Errors
    /// If one cannot be created, or belongs to another user.
    pub(crate) fn prepare(&self) -> Result<()> {
        for directory in self.paths.directories() {
            directory::create_private(&directory)?;
        }
        Ok(())
    }

    /// Returns the hashes of all records, sorted, and an error for each file whose name is not a hash.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn hashes(&self) -> Result<(Vec<ServiceHash>, Vec<Error>)> {
        let directory = self.paths.services();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(Error::io("read", directory)(error)),
        };
        let (mut hashes, mut strange) = (Vec::new(), Vec::new());
        for entry in entries {
            let name = entry.map_err(Error::io("read", &directory))?.file_name();
            let name = name.to_string_lossy();
            let Some(stem) = name.strip_suffix(".json") else { continue };
            match ServiceHash::parse(stem) {
                Some(hash) => hashes.push(hash),
                None if stem.starts_with(file::TEMPORARY_PREFIX) => {}
                None => strange
                    .push(Error::CorruptRecord { path: directory.join(&*name), why: "its name is not a hash".into() }),
            }
        }
        hashes.sort_unstable();
        Ok((hashes, strange))
    }

    /// Returns the hashes that begin with a prefix.
    pub(super) fn hashes_with_prefix(&self, prefix: &str) -> Result<Vec<ServiceHash>> {
        let (mut hashes, _) = self.hashes()?;
        hashes.retain(|hash| hash.as_str().starts_with(prefix));
        Ok(hashes)
    }

    /// Reads every record.
    ///
    /// # Errors
    /// If the directory cannot be read. Unusable records are part of the listing.
    pub(crate) fn list(&self) -> Result<Listing> {
        let (hashes, unusable) = self.hashes()?;
        let mut listing = Listing { reservations: Vec::with_capacity(hashes.len()), unusable };
        for hash in &hashes {
            match self.find(hash) {
                Ok(reservation) => listing.reservations.extend(reservation),
                Err(error) => listing.unusable.push(error),
            }
        }
        Ok(listing)
    }

    /// Returns the usable records that contain a text. Parsing takes most of the time that [`Self::list`] does, and few
    /// records have the text.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn list_with(&self, text: &str) -> Result<Vec<Reservation>> {
        let parse = |hash: &ServiceHash| {
            let path = self.paths.record(hash);
            let has_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|record| record.contains(text));
            let parse = |bytes: &[u8]| has_text(bytes).then(|| Reservation::parse(&path, hash, bytes)).transpose();
            file::read_with(&path, parse).ok()?.ok()?
        };
        let (hashes, _) = self.hashes()?;
        Ok(parallel::map(&hashes, parse).into_iter().flatten().collect())
    }

    /// Reads one record; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub(crate) fn find(&self, hash: &ServiceHash) -> Result<Option<Reservation>> {
        self.read_record(hash, |reservation, _| reservation)
    }

    /// Reads the environment of a service; empty if there is no such service.
    ///
    /// # Errors
    /// If the record cannot be read or used.
    pub(crate) fn environment(&self, hash: &ServiceHash) -> Result<Variables> {
        let path = self.paths.record(hash);
        self.find_with_bytes(hash)?
            .map_or_else(|| Ok(Variables::default()), |(_, bytes)| parse_environment(&path, &bytes))
    }

    /// Returns the content of a record, for [`Self::restore_record`]; `None` if there is none.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub(crate) fn record_bytes(&self, hash: &ServiceHash) -> Result<Option<Vec<u8>>> {
        Ok(self.find_with_bytes(hash)?.map(|(_, bytes)| bytes))
    }

    /// Writes back the record of a service that could not be replaced. The caller holds its launch lock.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(crate) fn restore_record(&self, hash: &ServiceHash, bytes: Option<&[u8]>) -> Result<()> {
        let _lock = self.lock()?;
        bytes.map_or(Ok(()), |bytes| file::write(&self.paths.record(hash), hash.as_str(), bytes, Durability::Synced))
    }

    /// Reads one record and its bytes.
    pub(super) fn find_with_bytes(&self, hash: &ServiceHash) -> Result<Option<(Reservation, Vec<u8>)>> {
        self.read_record(hash, |reservation, bytes| (reservation, bytes.to_vec()))
    }

    /// Reads one record and applies `make` to it and its bytes.
    fn read_record<R>(&self, hash: &ServiceHash, make: impl FnOnce(Reservation, &[u8]) -> R) -> Result<Option<R>> {
        let path = self.paths.record(hash);
        match file::read_with(&path, |bytes| Ok(make(Reservation::parse(&path, hash, bytes)?, bytes))) {
            Ok(result) => result.map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory) => {
                Err(Error::CorruptRecord { why: crate::error::reason(&error), path })
            }
            // The record may be intact: the system refused to read it.
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Takes the lock under which every change of a record is made.
    pub(super) fn lock(&self) -> Result<FileLock> {
        FileLock::wait(&self.paths.register_lock(), "the registry's lock", self.notify)
    }

    /// Writes `last_up` into the record, unless the registry is busy: a supervisor never waits for it. Returns whether
    /// it was written.
    ///
    /// # Errors
    /// If the record cannot be read, used or written.
    pub(crate) fn record_last_up(&self, hash: &ServiceHash, now: Timestamp) -> Result<bool> {
        let Some(_lock) = FileLock::try_take(&self.paths.register_lock())? else { return Ok(false) };
        self.change(hash, |reservation| reservation.last_up = now)?;
        Ok(true)
    }

    /// Changes the record of a service and returns it; `None` if there is none.
    ///
    /// # Errors
    /// If the record cannot be read, used or written.
    pub(crate) fn update(
        &self,
        hash: &ServiceHash,
        change: impl FnOnce(&mut Reservation),
    ) -> Result<Option<Reservation>> {
        let _lock = self.lock()?;
        self.change(hash, change)
    }

    /// Takes the lock for changes of publications on the tailnet.
    ///
    /// # Errors
    /// If that takes longer than 30 s, or the lock file cannot be created.
    pub(crate) fn acquire_tailnet(&self) -> Result<FileLock> {
        FileLock::wait(&self.paths.tailnet_lock(), "the tailnet's lock", self.notify)
    }

    /// Returns the tailnet's suffix as last reported; `None` if it never was.
    pub(crate) fn tailnet_suffix(&self) -> Option<String> {
        String::from_utf8(file::read(&self.paths.tailnet_suffix()).ok()?).ok()
    }

    /// Returns the host name of a service on the tailnet, by its record as it is now; `None` if the service is not
    /// published, or the suffix was never reported. `known` is used if the record cannot be read.
    pub(crate) fn tailnet_host(&self, known: &Reservation) -> Option<String> {
        let suffix = self.tailnet_suffix()?;
        let now = self.find(&known.hash).ok().flatten();
        now.as_ref().unwrap_or(known).tailnet_host(&suffix)
    }

    /// Keeps the suffix for when tailscaled cannot be queried. Errors are ignored: it is queried again.
    pub(crate) fn record_tailnet_suffix(&self, suffix: &str) {
        if self.tailnet_suffix().as_deref() != Some(suffix) {
            let _ = file::write(&self.paths.tailnet_suffix(), "suffix", suffix.as_bytes(), Durability::Renamed);
        }
    }

    /// Reads, changes and writes a record. The caller holds the register lock.
    pub(super) fn change(
        &self,
        hash: &ServiceHash,
        change: impl FnOnce(&mut Reservation),
    ) -> Result<Option<Reservation>> {
        let Some((mut reservation, bytes)) = self.find_with_bytes(hash)? else { return Ok(None) };
        reservation.check_schema(&self.paths.record(hash))?;
        change(&mut reservation);
        self.write(&reservation, Some(&bytes), None)?;
        Ok(Some(reservation))
    }

    /// Writes and syncs a record. Its environment stays unless there is a new one. The caller holds the register lock.
    pub(super) fn write(
        &self,
        reservation: &Reservation,
        before: Option<&[u8]>,
        environment: Option<&Variables>,
    ) -> Result<()> {
        let path = self.paths.record(&reservation.hash);
        self.stage(&path, reservation, before, environment)?.commit()
    }

    /// Writes a record beside the one that it will replace, like [`Self::write`].
    #[expect(clippy::unused_self, reason = "only a registry writes records")]
    pub(super) fn stage<'a>(
        &self,
        path: &'a Path,
        reservation: &Reservation,
        before: Option<&[u8]>,
        environment: Option<&Variables>,
    ) -> Result<Staged<'a>> {
        let bytes = reservation.to_bytes(before, environment)?;
        Staged::new(path, reservation.hash.as_str(), &bytes, Durability::Synced)
    }

    /// Removes every file of a service. The caller holds both locks of the service; they are deleted last.
    ///
    /// # Errors
    /// If the record is newer than this devport, or a file cannot be deleted.
    pub(crate) fn remove(&self, launch: FileLock, identity: IdentityLock, ended: &TreeEnded) -> Result<()> {
        let hash = ended.hash();
        let _lock = self.lock()?;
        if let Some(reservation) = self.find(hash)? {
            reservation.check_schema(&self.paths.record(hash))?;
        }
        self.delete_files(ended)?;
        identity.delete()?;
        launch.delete()
    }

    /// Deletes logs, run state and record. The record goes last: if this is interrupted, the service can still be
    /// removed.
    pub(super) fn delete_files(&self, ended: &TreeEnded) -> Result<()> {
        let hash = ended.hash();
        let log = self.paths.log(hash);
        let directory = log.parent().unwrap_or(self.paths.base());
        match fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(Error::io("read", directory))?;
                    if entry.file_name().to_string_lossy().starts_with(&format!("{hash}.log")) {
                        file::remove(&entry.path())?;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", directory)(error)),
        }
        self.sweep_run_states(hash);
        file::remove(&self.paths.run_state(hash))?;
        file::remove(&self.paths.record(hash))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{CallerEnvironment, PortRequest, Request, ServiceSpec};
    use crate::identity::Key;
    use crate::registry::register::Registration;

    pub(crate) fn registry(directory: &tempfile::TempDir, first: u16, last: u16) -> Registry {
        let paths =
            Paths::choose(Some(directory.path().join("home").as_os_str()), None, None, directory.path()).unwrap();
        let registry = Registry::new(paths, PortRange { first, last }, |_| {});
        registry.prepare().unwrap();
        registry
    }

    pub(crate) fn spec(key: &str, port: PortRequest) -> ServiceSpec {
        let request = Request {
            key: Some(Key::new(key).unwrap()),
            cmd: vec!["true".into()],
            cwd: "/".into(),
            port,
            ..Request::default()
        };
        ServiceSpec::resolve(request, &CallerEnvironment::new([("A".into(), "1".into())])).unwrap()
    }

    pub(crate) fn register(registry: &Registry, key: &str, now: &str) -> Result<Registration> {
        registry.register(&spec(key, PortRequest::Any), now.parse().unwrap())
    }

    pub(crate) const NOW: &str = "2026-11-21T00:00:00Z";

    #[test]
    fn a_corrupt_record_keeps_its_port_and_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61020, 61029);
        let a = register(&registry, "a", NOW).unwrap().reservation;
        let path = registry.paths().record(&a.hash);
        let whole = fs::read(&path).unwrap();
        for cut in [whole.len() - 4, whole.len() / 2] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_ne!(register(&registry, "b", NOW).unwrap().reservation.port, a.port, "cut at {cut}");
            assert!(matches!(register(&registry, "a", NOW), Err(Error::CorruptRecord { .. })));
            assert_eq!(fs::read(&path).unwrap().len(), cut);
            let listing = registry.list().unwrap();
            assert_eq!((listing.reservations.len(), listing.unusable.len()), (1, 1));
        }
    }

    #[test]
    fn concurrent_changes_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61030, 61039);
        let hash = register(&registry, "a", NOW).unwrap().reservation.hash;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _lock = registry.lock().unwrap();
                        registry.change(&hash, |r| r.cmd.push("x".into())).unwrap();
                    }
                });
            }
        });
        assert_eq!(registry.find(&hash).unwrap().unwrap().cmd.len(), 401);
    }

    #[test]
    fn a_symbolic_link_in_place_of_a_record_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61040, 61049);
        let a = register(&registry, "a", NOW).unwrap().reservation;
        let (path, elsewhere) = (registry.paths().record(&a.hash), directory.path().join("elsewhere"));
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(registry.find(&a.hash).unwrap_err().to_string().contains("symbolic link"));
    }
}
