//! `Registry`: every reading and every change of reservations.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::process::ProcessIdentity;
use crate::os::socket;
use crate::registry::file::{self, Durability};
use crate::registry::lock::{Acquired, FileLock, IdentityLock, Liveness};
use crate::registry::paths::Paths;
use crate::registry::port::PortRange;
use crate::registry::reservation::{Reservation, salvage_port};
use crate::registry::run_state::RunState;
use crate::spec::{PortRequest, ServiceSpec};

/// How long a stopped service keeps its port when others need one.
const RECLAIM_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// All reservations of this user on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    /// Where the files are.
    paths: Paths,
    /// The ports that new services get.
    range: PortRange,
}

/// Every record that there is.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Those that can be used, by hash.
    pub(crate) reservations: Vec<Reservation>,
    /// One error for each that cannot.
    pub(crate) unusable: Vec<Error>,
}

/// What came of a registration.
#[derive(Debug)]
pub(crate) struct Registration {
    /// The record as it is now.
    pub(crate) reservation: Reservation,
    /// A stale service that had to give up its port for this one.
    pub(crate) reclaimed: Option<Reservation>,
}

impl Registry {
    /// A registry in a directory that need not exist yet.
    pub(crate) fn new(paths: Paths, range: PortRange) -> Self {
        Self { paths, range }
    }

    /// Where the files are.
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Makes the directories, private; the base is canonical from then on.
    ///
    /// # Errors
    /// If one cannot be made, or belongs to somebody else.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        for directory in self.paths.directories() {
            file::create_private_directory(&directory)?;
        }
        self.paths = Paths::choose(Some(self.paths.base().as_os_str()), None, None, self.paths.base())?;
        Ok(())
    }

    /// The hashes that are taken, sorted; names of files that are not a hash's come back as errors.
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

    /// The hashes that begin with a prefix.
    pub(super) fn hashes_with_prefix(&self, prefix: &str) -> Result<Vec<ServiceHash>> {
        let (mut hashes, _) = self.hashes()?;
        hashes.retain(|hash| hash.as_str().starts_with(prefix));
        Ok(hashes)
    }

    /// Reads every record.
    ///
    /// # Errors
    /// If the directory cannot be read; records that cannot be are in the listing.
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

    /// Reads one record; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or used.
    pub(crate) fn find(&self, hash: &ServiceHash) -> Result<Option<Reservation>> {
        Ok(self.find_with_bytes(hash)?.map(|(reservation, _)| reservation))
    }

    /// Reads one record and keeps what it was read from.
    fn find_with_bytes(&self, hash: &ServiceHash) -> Result<Option<(Reservation, Vec<u8>)>> {
        let path = self.paths.record(hash);
        match file::read(&path) {
            Ok(bytes) => Ok(Some((Reservation::parse(&path, hash, &bytes)?, bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::CorruptRecord { why: crate::error::reason(&error), path }),
        }
    }

    /// Takes the lock under which every change is made, and sweeps what a kill left behind.
    fn lock(&self, notice: &mut dyn FnMut(String)) -> Result<FileLock> {
        FileLock::wait(&self.paths.register_lock(), "the registry's lock", notice)
    }

    /// Registers a service, or updates the one that is registered: command, directory, environment and
    /// options are the new ones, port and hashid stay. `notice` gets notes for the user.
    ///
    /// # Errors
    /// If no port can be had, the record cannot be used or written, or another key has the hash.
    pub(crate) fn register(
        &self,
        spec: &ServiceSpec,
        now: Timestamp,
        notice: &mut dyn FnMut(String),
    ) -> Result<Registration> {
        let _lock = self.lock(notice)?;
        file::sweep(&self.paths.services(), "");
        let before = self.find_with_bytes(&spec.hash)?;
        let mut reservation = match &before {
            Some((reservation, _)) => {
                reservation.check_writable(&self.paths.record(&spec.hash))?;
                check_same_name(reservation, spec)?;
                reservation.clone()
            }
            None => {
                let (hashes, _) = self.hashes()?;
                let hashid = spec.hash.shortest_unique_prefix(&hashes);
                Reservation::new(spec.hash.clone(), hashid, spec.key.clone())
            }
        };
        let reclaimed = self.give_port(&mut reservation, spec, now)?;
        reservation.adopt();
        reservation.port_env.clone_from(&spec.port_variable);
        reservation.tailnet |= spec.tailnet;
        reservation.cwd.clone_from(&spec.cwd);
        reservation.cmd.clone_from(&spec.words);
        reservation.set_environment(&spec.environment);
        reservation.last_up = now;
        self.write(&reservation, before.as_ref().map(|(_, bytes)| bytes.as_slice()), Durability::Synced)?;
        Ok(Registration { reservation, reclaimed })
    }

    /// Sets the port of a service that is being registered. Returns the service that lost its own for it.
    fn give_port(
        &self,
        reservation: &mut Reservation,
        spec: &ServiceSpec,
        now: Timestamp,
    ) -> Result<Option<Reservation>> {
        reservation.no_port = spec.port == PortRequest::NoPort;
        match spec.port {
            PortRequest::NoPort => Ok(None),
            PortRequest::Any if reservation.port != 0 => Ok(None),
            PortRequest::Exactly(port) if reservation.port == port => Ok(None),
            PortRequest::Exactly(_) if reservation.port != 0 => {
                Err(Error::PortFixed { service: spec.name().to_owned(), port: reservation.port })
            }
            PortRequest::Exactly(port) => {
                self.check_unreserved(port)?;
                if !is_free(port)? {
                    let hint = "choose another port, or end that process first".into();
                    return Err(Error::PortTaken { port, owner: listener_text(port), hint });
                }
                reservation.port = port;
                Ok(None)
            }
            PortRequest::Any => {
                let reserved = self.reserved_ports()?;
                match self.range.lowest_free(&reserved, is_free) {
                    Ok(port) => {
                        reservation.port = port;
                        Ok(None)
                    }
                    Err(exhausted @ Error::PoolExhausted { .. }) => {
                        let stale = self.reclaim(now)?.ok_or(exhausted)?;
                        reservation.port = stale.port;
                        Ok(Some(stale))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Every port that a record holds, records that do not parse included.
    fn reserved_ports(&self) -> Result<HashSet<u16>> {
        let (hashes, _) = self.hashes()?;
        let port_of = |hash: &ServiceHash| {
            let path = self.paths.record(hash);
            let bytes = file::read(&path).ok()?;
            match Reservation::parse(&path, hash, &bytes) {
                Ok(reservation) => Some(reservation.port).filter(|port| *port != 0),
                Err(_) => salvage_port(&bytes),
            }
        };
        Ok(hashes.iter().filter_map(port_of).collect())
    }

    /// Refuses a port that another service has.
    fn check_unreserved(&self, port: u16) -> Result<()> {
        let listing = self.list()?;
        match listing.reservations.iter().find(|other| other.port == port) {
            Some(other) => Err(Error::PortReserved { port, owner: other.name().to_owned() }),
            None if self.reserved_ports()?.contains(&port) => {
                Err(Error::PortReserved { port, owner: "a record that cannot be read".into() })
            }
            None => Ok(()),
        }
    }

    /// Removes the stalest reservation that nobody has used for 30 days, and returns it; `None` if there is
    /// none.
    fn reclaim(&self, now: Timestamp) -> Result<Option<Reservation>> {
        let mut stale: Vec<Reservation> = self.list()?.reservations;
        stale.retain(|reservation| {
            now.duration_since(reservation.last_up).unsigned_abs() > RECLAIM_AFTER
                && reservation.last_up < now
                && (self.range.first..=self.range.last).contains(&reservation.port)
                && reservation.check_writable(&self.paths.record(&reservation.hash)).is_ok()
        });
        stale.sort_by_key(|reservation| reservation.last_up);
        for reservation in stale {
            // A service that is being launched right now holds one of these locks.
            let Some(launch) = FileLock::try_take(&self.paths.launch_lock(&reservation.hash))? else { continue };
            if matches!(self.liveness(&reservation.hash), Liveness::Free) && is_free(reservation.port)? {
                self.delete_files(&reservation.hash)?;
                launch.delete()?;
                return Ok(Some(reservation));
            }
        }
        Ok(None)
    }

    /// Sets `last_up` to now, unless the registry is busy: a supervisor never waits for it.
    ///
    /// # Errors
    /// If the record cannot be read, used or written.
    pub(crate) fn heartbeat(&self, hash: &ServiceHash, now: Timestamp) -> Result<()> {
        if let Some(_lock) = FileLock::try_take(&self.paths.register_lock())? {
            self.change(hash, Durability::Renamed, |reservation| reservation.last_up = now)?;
        }
        Ok(())
    }

    /// Reads again, changes, writes. The caller holds the lock.
    fn change(
        &self,
        hash: &ServiceHash,
        durability: Durability,
        change: impl FnOnce(&mut Reservation),
    ) -> Result<Option<Reservation>> {
        let Some((mut reservation, bytes)) = self.find_with_bytes(hash)? else { return Ok(None) };
        reservation.check_writable(&self.paths.record(hash))?;
        change(&mut reservation);
        self.write(&reservation, Some(&bytes), durability)?;
        Ok(Some(reservation))
    }

    /// Writes a record. The caller holds the lock.
    fn write(&self, reservation: &Reservation, before: Option<&[u8]>, durability: Durability) -> Result<()> {
        let path = self.paths.record(&reservation.hash);
        file::write(&path, reservation.hash.as_str(), &reservation.to_bytes(before), durability)
    }

    /// Removes a service that does not run: every file of it. The caller holds both locks of the service;
    /// they are deleted last.
    ///
    /// # Errors
    /// If the record is newer than we are, or a file cannot be deleted.
    pub(crate) fn remove(
        &self,
        hash: &ServiceHash,
        launch: FileLock,
        identity: IdentityLock,
        notice: &mut dyn FnMut(String),
    ) -> Result<()> {
        let _lock = self.lock(notice)?;
        if let Some(reservation) = self.find(hash)? {
            reservation.check_writable(&self.paths.record(hash))?;
        }
        self.delete_files(hash)?;
        identity.delete()?;
        launch.delete()
    }

    /// Deletes record, run state and logs. The record goes first: from then on the port is free.
    fn delete_files(&self, hash: &ServiceHash) -> Result<()> {
        file::remove(&self.paths.record(hash))?;
        file::remove(&self.paths.run_state(hash))?;
        let log = self.paths.log(hash);
        let directory = log.parent().unwrap_or(self.paths.base());
        let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{hash}.log")) {
                file::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Whether a service runs, as the kernel says.
    pub(crate) fn liveness(&self, hash: &ServiceHash) -> Liveness {
        Liveness::probe(&self.paths.identity_lock(hash))
    }

    /// Tries to become a service's supervisor.
    ///
    /// # Errors
    /// If the lock file cannot be made or locked.
    pub(crate) fn acquire_identity(&self, hash: &ServiceHash, me: &ProcessIdentity) -> Result<Acquired> {
        IdentityLock::acquire(&self.paths.identity_lock(hash), me)
    }

    /// Waits until nobody else launches or removes the service.
    ///
    /// # Errors
    /// If that takes longer than 30 s, or the lock file cannot be made.
    pub(crate) fn acquire_launch(
        &self,
        hash: &ServiceHash,
        name: &str,
        notice: &mut dyn FnMut(String),
    ) -> Result<FileLock> {
        FileLock::wait(&self.paths.launch_lock(hash), &format!("the launch lock of {name}"), notice)
    }

    /// What the service's supervisor last recorded; `None` if it recorded nothing that can be read, which
    /// is never a reason to fail.
    pub(crate) fn run_state(&self, hash: &ServiceHash) -> Option<RunState> {
        serde_json::from_slice(&file::read(&self.paths.run_state(hash)).ok()?).ok()
    }

    /// Records a run state. The caller holds the identity lock.
    ///
    /// # Errors
    /// If it cannot be written; the old one is intact.
    pub(crate) fn write_run_state(&self, hash: &ServiceHash, run: &RunState) -> Result<()> {
        let path = self.paths.run_state(hash);
        let bytes = serde_json::to_vec(run).map_err(io::Error::from).map_err(Error::io("write", &path))?;
        file::write(&path, hash.as_str(), &bytes, Durability::Renamed)
    }

    /// Deletes temporary files of earlier supervisors of a service. The caller holds its identity lock.
    pub(crate) fn sweep_run_states(&self, hash: &ServiceHash) {
        file::sweep(&self.paths.run(), hash.as_str());
    }
}

/// Two keys with one hash must not share a service.
fn check_same_name(reservation: &Reservation, spec: &ServiceSpec) -> Result<()> {
    if reservation.key == spec.key {
        return Ok(());
    }
    Err(Error::HashCollision {
        key: spec.name().to_owned(),
        hash: spec.hash.to_string(),
        other: reservation.name().to_owned(),
    })
}

/// Whether nothing listens on a port.
fn is_free(port: u16) -> Result<bool> {
    socket::is_free(port).map_err(Error::system(format!("look at port {port}")))
}

/// Who listens on a port, for a message.
fn listener_text(port: u16) -> String {
    let owners: Vec<String> = socket::listeners(port)
        .into_iter()
        .filter_map(ProcessIdentity::of)
        .map(|process| process.to_string())
        .collect();
    if owners.is_empty() { "a process that cannot be seen (of another user?)".into() } else { owners.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Key;
    use crate::spec::{CallerEnvironment, Request};

    fn registry(directory: &tempfile::TempDir, first: u16, last: u16) -> Registry {
        let paths =
            Paths::choose(Some(directory.path().join("home").as_os_str()), None, None, directory.path()).unwrap();
        let mut registry = Registry::new(paths, PortRange { first, last });
        registry.prepare().unwrap();
        registry
    }

    fn spec(key: &str, port: PortRequest) -> ServiceSpec {
        let request = Request {
            key: Some(Key::new(key).unwrap()),
            words: vec!["true".into()],
            cwd: "/".into(),
            port,
            port_variable: None,
            tailnet: false,
            env_files: Vec::new(),
        };
        ServiceSpec::resolve(request, &CallerEnvironment::new([("A".into(), "1".into())])).unwrap()
    }

    fn register(registry: &Registry, key: &str, now: &str) -> Result<Registration> {
        registry.register(&spec(key, PortRequest::Any), now.parse().unwrap(), &mut |_| {})
    }

    const NOW: &str = "2026-11-21T00:00:00Z";

    #[test]
    fn ports_are_stable_and_never_shared() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61000, 61003);
        let port = |key: &str| register(&registry, key, NOW).unwrap().reservation.port;
        let (a, b) = (port("a"), port("b"));
        assert_ne!(a, b);
        assert_eq!((port("a"), port("b")), (a, b));
        let taken = registry.register(&spec("c", PortRequest::Exactly(a)), NOW.parse().unwrap(), &mut |_| {});
        assert!(matches!(taken, Err(Error::PortReserved { .. })));
        let moved = registry.register(&spec("a", PortRequest::Exactly(b + 1)), NOW.parse().unwrap(), &mut |_| {});
        assert!(matches!(moved, Err(Error::PortFixed { .. })));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_given() {
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let registry = registry(&directory, port, port);
        assert!(matches!(register(&registry, "a", NOW), Err(Error::PoolExhausted { listening: 1, .. })));
        let asked =
            registry.register(&spec("a", PortRequest::Exactly(port)), NOW.parse().unwrap(), &mut |_| {}).unwrap_err();
        assert!(asked.to_string().contains(&format!("pid {}", std::process::id())), "{asked}");
        assert!(registry.list().unwrap().reservations.is_empty());
    }

    #[test]
    fn d14_the_stalest_service_gives_its_port_and_its_record() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61010, 61011);
        register(&registry, "older", "2026-01-01T00:00:00Z").unwrap();
        register(&registry, "old", "2026-02-01T00:00:00Z").unwrap();
        let new = register(&registry, "new", NOW).unwrap();
        assert_eq!(new.reclaimed.unwrap().name(), "older");
        let names: Vec<_> = registry.list().unwrap().reservations.into_iter().map(|r| r.name().to_owned()).collect();
        assert!(names.contains(&"old".into()) && names.contains(&"new".into()) && names.len() == 2);
        register(&registry, "newer", NOW).unwrap();
        assert!(matches!(register(&registry, "newest", NOW), Err(Error::PoolExhausted { reserved: 2, .. })));
    }

    #[test]
    fn d16_a_corrupt_record_keeps_its_port_and_its_place() {
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
    fn t19_concurrent_changes_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61030, 61039);
        let hash = register(&registry, "a", NOW).unwrap().reservation.hash;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let _lock = registry.lock(&mut |_| {}).unwrap();
                        registry.change(&hash, Durability::Renamed, |r| r.cmd.push("x".into())).unwrap();
                    }
                });
            }
        });
        assert_eq!(registry.find(&hash).unwrap().unwrap().cmd.len(), 4_001);
    }

    #[test]
    fn t23_a_symbolic_link_in_place_of_a_record_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61040, 61049);
        let a = register(&registry, "a", NOW).unwrap().reservation;
        let (path, elsewhere) = (registry.paths().record(&a.hash), directory.path().join("elsewhere"));
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(registry.find(&a.hash).unwrap_err().to_string().contains("symbolic link"));
    }
}
