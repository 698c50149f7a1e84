//! Registering a service: its record, its hashid and its port.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::process::ProcessIdentity;
use crate::os::socket;
use crate::project::{DirectoryId, Ownership, Place};
use crate::registry::file::{self, Durability};
use crate::registry::lock::{FileLock, Liveness};
use crate::registry::reservation::{Reservation, salvage_port};
use crate::registry::store::Registry;
use crate::spec::{PortRequest, ServiceSpec};

/// How long a stopped service keeps its port when others need one.
const RECLAIM_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What came of a registration.
#[derive(Debug)]
pub(crate) struct Registration {
    /// The record as it is now.
    pub(crate) reservation: Reservation,
    /// A stale service that had to give up its port for this one.
    pub(crate) reclaimed: Option<Reservation>,
    /// The directory that the service belonged to before, and that is gone.
    pub(crate) taken_over: Option<PathBuf>,
}

impl Registry {
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
        let before = self.find_with_bytes(&spec.hash)?;
        self.register_locked(spec, before.as_ref(), now)
    }

    /// Does what [`Self::register`] does. The caller holds the register lock, and has read the record under it.
    fn register_locked(
        &self,
        spec: &ServiceSpec,
        before: Option<&(Reservation, Vec<u8>)>,
        now: Timestamp,
    ) -> Result<Registration> {
        file::sweep(&self.paths.services(), "");
        file::sweep_stale(self.paths.base(), "suffix", now);
        let mut taken_over = None;
        let mut reservation = match before {
            Some((reservation, _)) => {
                reservation.check_writable(&self.paths.record(&spec.hash))?;
                check_same_name(reservation, spec)?;
                taken_over = check_place(reservation, spec)?;
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
        reservation.policy.clone_from(&spec.policy);
        reservation.cwd.clone_from(&spec.cwd);
        reservation.cmd.clone_from(&spec.words);
        reservation.file.clone_from(&spec.file);
        settle(&mut reservation, &spec.place)?;
        reservation.last_up = now;
        let before = before.map(|(_, bytes)| bytes.as_slice());
        self.write(&reservation, before, Some(&spec.environment), Durability::Synced)?;
        Ok(Registration { reservation, reclaimed, taken_over })
    }

    /// Reserves a port for something that devport does not run. A service that is registered keeps everything else: its
    /// command, its environment and its rules. `now` is when that is.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub(crate) fn reserve(
        &self,
        spec: &ServiceSpec,
        now: Timestamp,
        notice: &mut dyn FnMut(String),
    ) -> Result<Registration> {
        let _lock = self.lock(notice)?;
        let Some((mut reservation, bytes)) = self.find_with_bytes(&spec.hash)? else {
            return self.register_locked(spec, None, now);
        };
        check_same_name(&reservation, spec)?;
        let taken_over = check_place(&reservation, spec)?;
        let has_port = reservation.service_port().is_some();
        if taken_over.is_none() && has_port && matches!(spec.port, PortRequest::Any) {
            return Ok(Registration { reservation, reclaimed: None, taken_over });
        }
        reservation.check_writable(&self.paths.record(&spec.hash))?;
        let reclaimed = self.give_port(&mut reservation, spec, now)?;
        if taken_over.is_some() {
            reservation.cwd.clone_from(&spec.cwd);
            reservation.file.clone_from(&spec.file);
            settle(&mut reservation, &spec.place)?;
        }
        reservation.adopt();
        self.write(&reservation, Some(&bytes), None, Durability::Synced)?;
        Ok(Registration { reservation, reclaimed, taken_over })
    }

    /// Records the checkout that is at a service's directory now, which replaced an earlier one. Returns the record;
    /// `None` if there is none any more.
    ///
    /// # Errors
    /// If the record cannot be read, used or written.
    pub(crate) fn move_in(
        &self,
        hash: &ServiceHash,
        place: &Place,
        notice: &mut dyn FnMut(String),
    ) -> Result<Option<Reservation>> {
        let mut settled = Ok(());
        let reservation = self.update(hash, notice, |reservation| settled = settle(reservation, place))?;
        settled.map(|()| reservation)
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
                // Its port is what the tailnet reaches: another service must not get it.
                && !reservation.tailnet
                // Whoever uses it does not tell us when.
                && !reservation.cmd.is_empty()
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
}

/// Writes down the checkout that a service belongs to.
fn settle(reservation: &mut Reservation, place: &Place) -> Result<()> {
    let root = place.root();
    reservation.root_id = DirectoryId::of(root).map_err(Error::io("look at", root))?;
    reservation.root = Some(root.to_owned());
    Ok(())
}

/// Refuses a service of another checkout. Returns the directory that the service belonged to if that is gone: then
/// the service may be taken over.
fn check_place(reservation: &Reservation, spec: &ServiceSpec) -> Result<Option<PathBuf>> {
    let failed = || Error::io("look at", &reservation.cwd);
    match spec.place.ownership(reservation.site()).map_err(failed())? {
        Ownership::Ours => Ok(None),
        Ownership::Gone(directory) => Ok(Some(directory)),
        Ownership::Other(root) => Err(Error::KeyElsewhere {
            key: reservation.name().to_owned(),
            owner: spec.place.abbreviate(&root),
            state: None,
            here: spec.place.abbreviate(spec.place.root()),
            hint: "choose another key for this checkout".into(),
        }),
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
    // Only a message: who cannot be seen is not named.
    let owners: Vec<String> = socket::listeners(port)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|pid| ProcessIdentity::of(pid).ok().flatten())
        .map(|process| process.to_string())
        .collect();
    if owners.is_empty() { "a process that cannot be seen (of another user?)".into() } else { owners.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::store::tests::{NOW, register, registry, spec};

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
        let old = registry.list().unwrap().reservations.into_iter().find(|r| r.name() == "old").unwrap();
        registry.update(&old.hash, &mut |_| {}, |record| record.tailnet = true).unwrap();
        assert!(register(&registry, "newer", NOW).is_err(), "the tailnet leads to its port");
        registry.update(&old.hash, &mut |_| {}, |record| record.tailnet = false).unwrap();
        register(&registry, "newer", NOW).unwrap();
        assert!(matches!(register(&registry, "newest", NOW), Err(Error::PoolExhausted { reserved: 2, .. })));
    }
}
