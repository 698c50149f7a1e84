//! Finds the service that a target names.

use std::path::Path;

use crate::error::{Error, Result};
use crate::identity::{Key, SHORTEST_PREFIX, ServiceHash, Target};
use crate::project::{Ownership, Place};
use crate::registry::reservation::Reservation;
use crate::registry::store::Registry;
use crate::text::shorten;

/// How many similar keys an error suggests: more would not fit on a line.
const SUGGESTIONS: usize = 3;

/// The error for a key that only another checkout has.
fn is_elsewhere(reservation: &Reservation, place: &Place, root: &Path, addition: &str) -> Error {
    Error::KeyElsewhere {
        key: reservation.name().to_owned(),
        owner: format!("{}{addition}", place.abbreviate(root)),
        state: None,
        here: place.abbreviate(place.root()),
        hint: format!("its id works from everywhere: `devport logs {}` shows its output", reservation.hashid),
    }
}

/// Returns why a service cannot be named from a place; `None` if it can.
///
/// # Errors
/// If its directory cannot be read.
fn not_nameable(reservation: &Reservation, place: Option<&Place>) -> Result<Option<Error>> {
    let Some(place) = place else {
        return Ok(Some(Error::InvalidDirectory { path: ".".into(), why: "has been deleted".into() }));
    };
    let failed = || Error::io("check", &reservation.cwd);
    Ok(match place.can_name(reservation.site()).map_err(failed())? {
        Ownership::Ours => None,
        Ownership::Other(root) => Some(is_elsewhere(reservation, place, &root, "")),
        Ownership::Gone(root) => Some(is_elsewhere(reservation, place, &root, ", which no longer exists")),
    })
}

impl Registry {
    /// Finds the service that a target names: by key, if the key's service may be named from `place`; then by exact
    /// hashid, by a prefix of the hash, and by port, from everywhere. `place` is `None` in a deleted directory.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if only another checkout has the key, [`Error::NoSuchService`],
    /// [`Error::PrefixTooShort`], [`Error::Ambiguous`], or the error of a record that cannot be used.
    pub(crate) fn resolve(&self, target: &Target, place: Option<&Place>) -> Result<Reservation> {
        if let Some(key) = target.as_key()
            && let Some(reservation) = self.find(&ServiceHash::of_key(&key))?
            && reservation.key.as_ref() == Some(&key)
        {
            // The key of a stack's service says which checkout is meant.
            if reservation.stack.is_some() {
                return Ok(reservation);
            }
            // A key of this checkout wins over a hash that happens to begin like it.
            let Some(error) = not_nameable(&reservation, place)? else { return Ok(reservation) };
            return match self.resolve_in_stack(target, place)? {
                Some(reservation) => Ok(reservation),
                None => self.resolve_exactly(target)?.ok_or(error),
            };
        }
        if let Some(reservation) = self.resolve_in_stack(target, place)? {
            return Ok(reservation);
        }
        let text = target.as_str();
        if text.len() >= SHORTEST_PREFIX {
            match self.resolve_prefix(target)? {
                Some(reservation) => return Ok(reservation),
                None => {
                    if let Some(reservation) = self.resolve_port(target)? {
                        return Ok(reservation);
                    }
                }
            }
        }
        if let (Some(place), Some(other)) = (place, self.services_of_stacks(target)?.first())
            && let Some(root) = &other.root
        {
            return Err(is_elsewhere(other, place, root, ""));
        }
        let nearest = self.nearest_keys(text)?;
        let target = shorten(text);
        if text.len() < SHORTEST_PREFIX && nearest.is_empty() {
            return Err(Error::PrefixTooShort { target, nearest });
        }
        Err(Error::NoSuchService { target, nearest })
    }

    /// Finds the service with this name in the stacks of this checkout; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] if several stacks have it.
    fn resolve_in_stack(&self, target: &Target, place: Option<&Place>) -> Result<Option<Reservation>> {
        let Some(place) = place else { return Ok(None) };
        let mut found = self.services_of_stacks(target)?;
        found.retain(|reservation| reservation.root.as_deref() == Some(place.root()));
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => {
                let matches = found.iter().map(|reservation| reservation.name().to_owned()).collect();
                Err(Error::Ambiguous { target: target.as_str().to_owned(), matches })
            }
        }
    }

    /// Returns the services with this name in the stacks of all checkouts.
    fn services_of_stacks(&self, target: &Target) -> Result<Vec<Reservation>> {
        let is_named = |reservation: &Reservation| {
            let name = reservation.key.as_ref().and_then(|key| key.as_str().rsplit('/').next());
            reservation.stack.is_some() && name == Some(target.as_str())
        };
        Ok(self.list()?.reservations.into_iter().filter(is_named).collect())
    }

    /// Finds a service by its exact hashid, its whole hash or its port.
    fn resolve_exactly(&self, target: &Target) -> Result<Option<Reservation>> {
        let text = target.as_str();
        for hash in self.hashes_with_prefix(text)? {
            let found = self.find(&hash).ok().flatten();
            if let Some(found) = found.filter(|found| found.hashid.as_str() == text || found.hash.to_string() == text) {
                return Ok(Some(found));
            }
        }
        self.resolve_port(target)
    }

    /// Finds a service by hashid, else by prefix; `None` if no hash begins so.
    fn resolve_prefix(&self, target: &Target) -> Result<Option<Reservation>> {
        let hashes = self.hashes_with_prefix(target.as_str())?;
        if let [only] = hashes.as_slice() {
            return self.find(only);
        }
        let mut readable: Vec<Reservation> = Vec::new();
        for hash in &hashes {
            readable.extend(self.find(hash).ok().flatten());
        }
        if let Some(frozen) = readable.iter().find(|reservation| reservation.hashid.as_str() == target.as_str()) {
            return Ok(Some(frozen.clone()));
        }
        if hashes.is_empty() {
            return Ok(None);
        }
        let name = |hash: &ServiceHash| match readable.iter().find(|reservation| reservation.hash == *hash) {
            Some(Reservation { key: Some(key), .. }) => format!("{hash} ({key})"),
            _ => hash.to_string(),
        };
        Err(Error::Ambiguous { target: target.as_str().to_owned(), matches: hashes.iter().map(name).collect() })
    }

    /// Finds a service by port; `None` if the target is not a port or no service has it.
    fn resolve_port(&self, target: &Target) -> Result<Option<Reservation>> {
        let Some(port) = target.as_port() else { return Ok(None) };
        Ok(self.list()?.reservations.into_iter().find(|reservation| reservation.port == port))
    }

    /// Returns the most similar keys, best first.
    fn nearest_keys(&self, text: &str) -> Result<Vec<String>> {
        let reservations = self.list()?.reservations;
        Ok(nearest(text, reservations.iter().filter_map(|reservation| reservation.key.as_ref().map(Key::as_str))))
    }
}

/// Returns the keys that are most similar to a text, best first.
pub(crate) fn nearest<'a>(text: &str, keys: impl Iterator<Item = &'a str>) -> Vec<String> {
    let distance = |key: &str| strsim::damerau_levenshtein(text, key);
    let is_near = |(distance, key): &(usize, &str)| {
        *distance <= (text.chars().count() / 3).max(1) || (text.len() >= 2 && key.contains(text))
    };
    let mut scored: Vec<(usize, &str)> =
        keys.filter(|key| *key != text).map(|key| (distance(key), key)).filter(is_near).collect();
    scored.sort_unstable();
    scored.into_iter().take(SUGGESTIONS).map(|(_, key)| key.to_owned()).collect()
}
