//! Registers a service: its record, its hashid and its port.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::{PortRequest, ServiceSpec, Variables};
use crate::error::{Error, Result};
use crate::frameworks::Source;
use crate::identity::{Key, ServiceHash, TailnetName};
use crate::os::process::ProcessIdentity;
use crate::os::socket::{self, PortUse};
use crate::project::{CheckoutName, DirectoryId, Ownership, Place};
use crate::registry::file;
use crate::registry::port::{is_free, is_unused};
use crate::registry::reclaim::Stale;
use crate::registry::reservation::{Reservation, salvage_port};
use crate::registry::store::Registry;

/// The result of a registration.
#[derive(Debug)]
pub(crate) struct Registration {
    /// The record as it is now.
    pub(crate) reservation: Reservation,
    /// The stale service that lost its port to this one; `None` if a port was free.
    pub(crate) reclaimed: Option<Reservation>,
    /// The directory that the service belonged to, if that no longer exists or was replaced.
    pub(crate) taken_over: Option<PathBuf>,
}

impl Registry {
    /// Registers a service or updates the registered one: command, directory, environment and options are replaced,
    /// port and hashid stay.
    ///
    /// # Errors
    /// If there is no free port, the record cannot be used or written, or another key has the hash.
    pub(crate) fn register(&self, spec: &ServiceSpec, now: Timestamp) -> Result<Registration> {
        let _lock = self.lock()?;
        let before = self.find_with_bytes(&spec.hash)?;
        self.register_locked(spec, before.as_ref(), now)
    }

    /// Does the work of [`Self::register`]. The caller holds the register lock and has read the record under it.
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
                reservation.check_schema(&self.paths.record(&spec.hash))?;
                check_same_name(reservation, spec)?;
                taken_over = check_checkout(reservation, spec)?;
                reservation.clone()
            }
            None => {
                let (hashes, _) = self.hashes()?;
                let hashid = spec.hash.shortest_unique_prefix(&hashes);
                Reservation::new(spec.hash.clone(), hashid, spec.request.key.clone())
            }
        };
        let stale = self.give_port(&mut reservation, spec, now)?;
        check_ports_of_checks(&reservation, spec)?;
        reservation.adopt();
        reservation.port_env.clone_from(&spec.request.port_env);
        reservation.tailnet_pending = pending_name(&reservation, spec);
        reservation.scheme.clone_from(&spec.request.scheme);
        reservation.policy.clone_from(&spec.request.policy);
        reservation.cwd.clone_from(&spec.request.cwd);
        reservation.cmd.clone_from(&spec.request.cmd);
        reservation.file.clone_from(&spec.request.file);
        reservation.stack.clone_from(&spec.request.stack);
        reservation.one_shot = spec.request.one_shot;
        reservation.shared = spec.request.shared;
        reservation.tmux_session.clone_from(&spec.request.tmux_session);
        reservation.env_files = spec.request.env_files().cloned().collect();
        reservation.env_digest.clone_from(&spec.env_digest);
        reservation.env_file_digests.clone_from(&spec.env_file_digests);
        reservation.env_names = spec.request.env_names();
        reservation.env_at_spawn.clone_from(&spec.env_at_spawn);
        reservation.started_by.clone_from(&spec.started_by);
        record_checkout(&mut reservation, &spec.place)?;
        reservation.last_up = now;
        let before = before.map(|(_, bytes)| bytes.as_slice());
        let reclaimed = self.replace(&reservation, before, Some(&spec.environment), stale)?;
        Ok(Registration { reservation, reclaimed, taken_over })
    }

    /// Reserves a port for a program that devport does not run. A registered service keeps everything else: its
    /// command, environment and policy.
    ///
    /// # Errors
    /// Like [`Self::register`].
    pub(crate) fn reserve(&self, spec: &ServiceSpec, now: Timestamp) -> Result<Registration> {
        let _lock = self.lock()?;
        let Some((mut reservation, bytes)) = self.find_with_bytes(&spec.hash)? else {
            return self.register_locked(spec, None, now);
        };
        check_same_name(&reservation, spec)?;
        let taken_over = check_checkout(&reservation, spec)?;
        let has_port = reservation.service_port().is_some();
        if taken_over.is_none() && has_port && matches!(spec.request.port, PortRequest::Any | PortRequest::ByHash) {
            return Ok(Registration { reservation, reclaimed: None, taken_over });
        }
        reservation.check_schema(&self.paths.record(&spec.hash))?;
        let stale = self.give_port(&mut reservation, spec, now)?;
        if taken_over.is_some() {
            reservation.cwd.clone_from(&spec.request.cwd);
            reservation.file.clone_from(&spec.request.file);
            record_checkout(&mut reservation, &spec.place)?;
        }
        reservation.adopt();
        let reclaimed = self.replace(&reservation, Some(&bytes), None, stale)?;
        Ok(Registration { reservation, reclaimed, taken_over })
    }

    /// Writes a record and removes the stale service that loses its port to it; returns that one. It is removed after the
    /// new record is synced and before that is renamed into place: no port has two records, and a full disk loses
    /// neither record.
    fn replace(
        &self,
        reservation: &Reservation,
        before: Option<&[u8]>,
        environment: Option<&Variables>,
        stale: Option<Stale>,
    ) -> Result<Option<Reservation>> {
        let path = self.paths.record(&reservation.hash);
        let staged = self.stage(&path, reservation, before, environment)?;
        let reclaimed = match stale {
            Some(Stale { reservation, launch, identity, ended }) => {
                self.delete_files(&ended)?;
                identity.delete()?;
                launch.delete()?;
                Some(reservation)
            }
            None => None,
        };
        staged.commit()?;
        Ok(reclaimed)
    }

    /// Records the checkout that is at a service's directory now and replaced an earlier one. Returns the record;
    /// `None` if there is none any more.
    ///
    /// # Errors
    /// If the record cannot be read, used or written.
    pub(crate) fn update_checkout(&self, hash: &ServiceHash, place: &Place) -> Result<Option<Reservation>> {
        let mut recorded = Ok(());
        let reservation = self.update(hash, |reservation| recorded = record_checkout(reservation, place))?;
        recorded.map(|()| reservation)
    }

    /// Sets the port of a service that is being registered. Returns the stale service whose port it takes if the range
    /// has no free one.
    ///
    /// # Errors
    /// [`Error::PortFixed`] if it has another port than requested, [`Error::PortReserved`], [`Error::PortTaken`], or
    /// [`Error::PoolExhausted`] if no service is stale.
    fn give_port(&self, reservation: &mut Reservation, spec: &ServiceSpec, now: Timestamp) -> Result<Option<Stale>> {
        reservation.no_port = spec.request.port == PortRequest::NoPort;
        match spec.request.port {
            PortRequest::NoPort => Ok(None),
            PortRequest::Any | PortRequest::ByHash if reservation.port != 0 => Ok(None),
            PortRequest::Exactly(port) if reservation.port == port => Ok(None),
            PortRequest::Exactly(port) if reservation.port != 0 => {
                let hint = move_hint(spec, reservation.global_name(), port);
                Err(Error::PortFixed { service: spec.name().to_owned(), port: reservation.port, hint })
            }
            PortRequest::Exactly(port) => {
                self.check_unreserved(port, &spec.place)?;
                if !is_unused(port)? {
                    return Err(Error::PortTaken { port, owner: owner_text(port), hint: self.taken_hint(port) });
                }
                reservation.port = port;
                Ok(None)
            }
            PortRequest::Any | PortRequest::ByHash => {
                let reserved = self.reserved_ports()?;
                let own = self.range.of_hash(&spec.hash);
                if spec.request.port == PortRequest::ByHash && !reserved.contains(&own) && is_unused(own)? {
                    reservation.port = own;
                    return Ok(None);
                }
                match self.range.lowest_free(&reserved, is_free) {
                    Ok(port) => {
                        reservation.port = port;
                        Ok(None)
                    }
                    Err(exhausted @ Error::PoolExhausted { .. }) => {
                        let stale = self.find_stale(now)?.ok_or(exhausted)?;
                        reservation.port = stale.reservation.port;
                        Ok(Some(stale))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Returns what to do about a requested port that another program uses.
    fn taken_hint(&self, port: u16) -> String {
        // Only a message: what cannot be found out is omitted. devport restarts a service whose process is killed.
        let service = |pid| self.find(&self.claimed_service(pid).ok().flatten()?).ok().flatten();
        let end = |pid: i32| match service(pid) {
            Some(service) => format!("devport stop {}", shell_words::quote(service.name())),
            None => format!("kill {pid}"),
        };
        let mut commands: Vec<String> = owners(port).into_iter().map(end).collect();
        commands.dedup();
        let end = if commands.is_empty() { String::new() } else { format!("end it with `{}`, ", commands.join("; ")) };
        format!("{end}choose another port, or request none: a service without `port:` or `--port` gets its own")
    }

    /// Returns the port of every record, also of records that do not parse.
    ///
    /// # Errors
    /// If a record cannot be read now, or is too damaged to tell its port: any port could be its own.
    fn reserved_ports(&self) -> Result<HashSet<u16>> {
        let mut ports = HashSet::new();
        for hash in self.hashes()?.0 {
            let path = self.paths.record(&hash);
            let bytes = match file::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", path)(error)),
            };
            let port = match Reservation::parse(&path, &hash, &bytes) {
                Ok(reservation) => reservation.port,
                Err(error) => salvage_port(&bytes).ok_or(error)?,
            };
            ports.extend(Some(port).filter(|port| *port != 0));
        }
        Ok(ports)
    }

    /// Refuses a port that another service has.
    fn check_unreserved(&self, port: u16, place: &Place) -> Result<()> {
        if !self.reserved_ports()?.contains(&port) {
            return Ok(());
        }
        let Some(other) = self.list()?.reservations.into_iter().find(|other| other.port == port) else {
            return Err(Error::PortReserved { port, owner: "a damaged record".into(), removable: None });
        };
        let owner = format!("{} in {}", other.name(), place.abbreviate(&other.cwd));
        let removable = match place.ownership(other.site()) {
            Ok(Ownership::Ours) => Some(other.name().to_owned()),
            Ok(Ownership::Gone(_)) => Some(other.hashid.to_string()),
            Ok(Ownership::Other(_)) | Err(_) => None,
        };
        Err(Error::PortReserved { port, owner, removable })
    }
}

/// Records the checkout that a service belongs to.
fn record_checkout(reservation: &mut Reservation, place: &Place) -> Result<()> {
    let root = place.root();
    reservation.root_id = DirectoryId::to_record(root).map_err(Error::io("check", root))?;
    reservation.root = Some(root.to_owned());
    reservation.git_dir = place.git_dir().map(Path::to_owned);
    let checkout = place.checkout();
    reservation.checkout = checkout.as_ref().map(|checkout| CheckoutName::of(checkout).to_string());
    reservation.branch = checkout.and_then(|checkout| checkout.branch);
    Ok(())
}

/// Refuses a service of another checkout. Returns the directory that the service belonged to if that no longer exists
/// or was replaced: the spec may take the service over then.
fn check_checkout(reservation: &Reservation, spec: &ServiceSpec) -> Result<Option<PathBuf>> {
    let failed = || Error::io("check", &reservation.cwd);
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

/// Returns the name under which a spec requests to publish a service; `None` if it requests none, or the service is
/// published under it.
fn pending_name(reservation: &Reservation, spec: &ServiceSpec) -> Option<String> {
    let current = reservation.name_on_tailnet();
    let name = spec.request.tailnet_name.as_ref().map_or(current, TailnetName::as_str);
    (spec.request.tailnet && !(reservation.tailnet && name == current)).then(|| name.to_owned())
}

/// Refuses a check whose URL names another port than the service's.
fn check_ports_of_checks(reservation: &Reservation, spec: &ServiceSpec) -> Result<()> {
    let Some(port) = reservation.service_port() else { return Ok(()) };
    let checks = [&spec.request.policy.ready, &spec.request.policy.health];
    match checks.into_iter().flatten().find_map(|check| check.foreign_port(port)) {
        Some(other) => Err(Error::PortOfCheck { service: spec.name().to_owned(), other, port }),
        None => Ok(()),
    }
}

/// Refuses a key whose hash another key already has.
fn check_same_name(reservation: &Reservation, spec: &ServiceSpec) -> Result<()> {
    if reservation.key == spec.request.key {
        return Ok(());
    }
    Err(Error::HashCollision {
        key: spec.name().to_owned(),
        hash: spec.hash.to_string(),
        other: reservation.name().to_owned(),
    })
}

/// Returns how to give a service another port than its own.
fn move_hint(spec: &ServiceSpec, name: &str, port: u16) -> String {
    let request = &spec.request;
    let source = Source {
        name,
        key: request.key.as_ref().map(Key::as_str),
        options: request.start_options().words(),
        port: None,
        env_names: &[],
        file: None,
        is_stack: false,
    };
    let rm = format!("devport rm {}", shell_words::quote(name));
    // The values of `--env` may be secrets, and the record has others.
    let is_repeatable = request.file.is_none() && !request.cmd.is_empty() && request.env_names().is_empty();
    match source.with_port(port, &request.cmd) {
        Some(commands) if is_repeatable => {
            format!("{commands} moves it; `rm` also deletes its log")
        }
        _ => format!("`{rm}` removes it with its log; then repeat this command"),
    }
}

/// Describes for a message which processes have taken a port.
pub(crate) fn owner_text(port: u16) -> String {
    let owners: Vec<String> = owners(port)
        .into_iter()
        .filter_map(|pid| ProcessIdentity::of(pid).ok().flatten())
        .map(|process| process.to_string())
        .collect();
    if owners.is_empty() { "a process that devport cannot see (another user's?)".into() } else { owners.join(", ") }
}

/// Returns the processes that have taken a port, as far as they can be seen: this is only for a message.
fn owners(port: u16) -> Vec<i32> {
    match socket::port_use(port) {
        Ok(PortUse::Taken(pids)) => pids,
        Ok(PortUse::Free | PortUse::Closing) | Err(_) => Vec::new(),
    }
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
        let taken = registry.register(&spec("c", PortRequest::Exactly(a)), NOW.parse().unwrap());
        assert!(matches!(taken, Err(Error::PortReserved { .. })));
        let moved = registry.register(&spec("a", PortRequest::Exactly(b + 1)), NOW.parse().unwrap());
        assert!(matches!(moved, Err(Error::PortFixed { .. })));
    }

    #[test]
    fn a_port_by_hash_is_that_of_the_hash_or_else_the_lowest_free_one() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61020, 61029);
        let by_hash = |key: &str| {
            let spec = spec(key, PortRequest::ByHash);
            let registered = registry.register(&spec, NOW.parse().unwrap()).unwrap().reservation.port;
            assert_eq!(registry.reserve(&spec, NOW.parse().unwrap()).unwrap().reservation.port, registered);
            (registered, registry.range.of_hash(&spec.hash))
        };
        let (first, own) = by_hash("shop/web");
        assert_eq!(first, own);
        let rival = (0..).map(|n| format!("shop/{n}"));
        let mut rivals = rival.filter(|key| registry.range.of_hash(&spec(key, PortRequest::Any).hash) == own);
        let lowest = if own == 61020 { 61021 } else { 61020 };
        assert_eq!(by_hash(&rivals.next().unwrap()), (lowest, own));
        assert_eq!(by_hash("shop/web").0, own, "it keeps its port");
    }

    #[test]
    fn a_port_with_a_listener_is_not_assigned() {
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let registry = registry(&directory, port, port);
        assert!(matches!(register(&registry, "a", NOW), Err(Error::PoolExhausted { listening: 1, .. })));
        let requested = registry.register(&spec("a", PortRequest::Exactly(port)), NOW.parse().unwrap()).unwrap_err();
        assert!(requested.to_string().contains(&format!("pid {}", std::process::id())), "{requested}");
        assert!(registry.list().unwrap().reservations.is_empty());
    }

    #[test]
    fn the_stalest_service_gives_its_port_and_its_record() {
        let directory = tempfile::tempdir().unwrap();
        let registry = registry(&directory, 61010, 61011);
        register(&registry, "older", "2026-01-01T00:00:00Z").unwrap();
        register(&registry, "old", "2026-02-01T00:00:00Z").unwrap();
        let new = register(&registry, "new", NOW).unwrap();
        assert_eq!(new.reclaimed.unwrap().name(), "older");
        let older = spec("older", PortRequest::Any).hash;
        assert!(!registry.paths().launch_lock(&older).exists() && !registry.paths().identity_lock(&older).exists());
        let names: Vec<_> = registry.list().unwrap().reservations.into_iter().map(|r| r.name().to_owned()).collect();
        assert!(names.contains(&"old".into()) && names.contains(&"new".into()) && names.len() == 2);
        let old = registry.list().unwrap().reservations.into_iter().find(|r| r.name() == "old").unwrap();
        registry.update(&old.hash, |record| record.tailnet = true).unwrap();
        assert!(register(&registry, "newer", NOW).is_err(), "the tailnet leads to its port");
        registry.update(&old.hash, |record| record.tailnet = false).unwrap();
        register(&registry, "newer", NOW).unwrap();
        assert!(matches!(register(&registry, "newest", NOW), Err(Error::PoolExhausted { reserved: 2, .. })));
    }
}
