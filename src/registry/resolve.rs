//! Finds the service that a target names.

use std::path::Path;

use crate::config::{may_have_stack, nearest_file, stack_name_in};
use crate::error::{Error, Result};
use crate::identity::{Key, SHORTEST_PREFIX, ServiceHash, Target};
use crate::project::{Ownership, Place, default_name, possible_keys};
use crate::registry::reservation::Reservation;
use crate::registry::store::Registry;
use crate::text::shorten;

/// How many similar keys an error suggests: more would not fit on a line.
const SUGGESTIONS: usize = 3;

impl Registry {
    /// Finds the service that a target names. A whole key of a stack's service works from everywhere. Other names mean,
    /// in this order: a service of a stack of the place, a key that may be named there, and from everywhere an exact
    /// hashid, a prefix of the hash, or a port. Where no file of a stack is in reach, a key of the place comes first.
    /// `place` is `None` in a deleted directory.
    ///
    /// # Errors
    /// [`Error::KeyElsewhere`] if only other checkouts have it, [`Error::NoSuchService`], [`Error::PrefixTooShort`],
    /// [`Error::Ambiguous`], or the error of a record that cannot be used.
    pub(crate) fn resolve(&self, target: &Target, place: Option<&Place>) -> Result<Reservation> {
        let by_key = match self.find_by_key(target)? {
            Some(reservation) if reservation.stack.is_some() => return Ok(reservation),
            // Which stacks have the name is known only from all records. One read has to be enough where there is none.
            Some(reservation) if place.is_some_and(|place| is_own_key(&reservation, place)) => return Ok(reservation),
            by_key => by_key,
        };
        if let Some(place) = place
            && let Some(reservation) = self.find_in_nearest_stack(target, place)?
        {
            return Ok(reservation);
        }
        let mut elsewhere = self.services_of_stacks(target)?;
        if let Some(place) = place
            && let Some(reservation) = in_stacks_of(place, &elsewhere, target)?
        {
            return Ok(reservation);
        }
        let found = match by_key {
            Some(reservation) if can_be_named(&reservation, place.ok_or_else(no_directory)?)? => {
                return Ok(reservation);
            }
            Some(reservation) => {
                elsewhere.insert(0, reservation);
                // A key of another checkout may begin like the hash of a service that is not meant.
                self.resolve_exactly(target)?
            }
            None if target.as_str().len() < SHORTEST_PREFIX => None,
            None => self.resolve_prefix(target)?.map_or_else(|| self.resolve_port(target), |found| Ok(Some(found)))?,
        };
        match found {
            Some(found) => Ok(found),
            None if elsewhere.is_empty() => Err(self.no_match_error(target)?),
            None => Err(elsewhere_error(target, &elsewhere, place.ok_or_else(no_directory)?)?),
        }
    }

    /// Finds the service whose whole key is the target; `None` if there is none.
    fn find_by_key(&self, target: &Target) -> Result<Option<Reservation>> {
        let Some(key) = target.as_key() else { return Ok(None) };
        Ok(self.find(&ServiceHash::of_key(&key))?.filter(|reservation| reservation.key.as_ref() == Some(&key)))
    }

    /// Finds the service with this name in the stack of the nearest file by the keys that it can have, without reading all
    /// records; `None` if it is not found in this way.
    ///
    /// # Errors
    /// If a record that may be the one cannot be used. To look for the name elsewhere would find another service, or none.
    fn find_in_nearest_stack(&self, target: &Target, place: &Place) -> Result<Option<Reservation>> {
        let Some(file) = nearest_file(place) else { return Ok(None) };
        let Some(checkout) = place.checkout_of_stacks() else { return Ok(None) };
        let default = || default_name(&checkout, file.parent().unwrap_or(Path::new("/")));
        let Some(name) = stack_name_in(&file, default) else { return Ok(None) };
        let is_ours = |found: &Reservation| {
            let own = found.key.as_ref().map(Key::name_in_stack);
            let is_named = own == Some(target.as_str()) && found.stack.as_ref() == Some(&name);
            is_named && found.file.as_ref() == Some(&file) && place.lists(found.site())
        };
        let find = |key: String| match Key::new(key) {
            Ok(key) => Ok(self.find(&ServiceHash::of_key(&key))?.filter(is_ours)),
            Err(_) => Ok(None),
        };
        match possible_keys(&name, &checkout, target.as_str()).map(find) {
            [Ok(Some(_)), Ok(Some(_))] => Ok(None),
            [Ok(Some(found)), _] | [_, Ok(Some(found))] => Ok(Some(found)),
            [first, second] => first.and(second),
        }
    }

    /// Returns the services with this name in the stacks of all checkouts.
    fn services_of_stacks(&self, target: &Target) -> Result<Vec<Reservation>> {
        let name = target.as_str();
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !name.chars().all(is_allowed) {
            return Ok(Vec::new());
        }
        let is_named = |reservation: &Reservation| {
            let own = reservation.key.as_ref().map(Key::name_in_stack);
            reservation.stack.is_some() && own == Some(name)
        };
        // A key ends like this in the JSON of a record.
        let mut services = self.list_with(&format!("/{name}\""))?;
        services.retain(is_named);
        Ok(services)
    }

    /// Returns the error for a target that names no service.
    fn no_match_error(&self, target: &Target) -> Result<Error> {
        let text = target.as_str();
        let (nearest, target) = (self.nearest_keys(text)?, shorten(text));
        if text.len() < SHORTEST_PREFIX && nearest.is_empty() {
            return Ok(Error::PrefixTooShort { target, nearest });
        }
        Ok(Error::NoSuchService { target, nearest })
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

    /// Finds a service by hashid, else by a prefix of its hash; `None` if no hash begins with the target.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] if several hashes begin with it and none of their hashids equals it.
    fn resolve_prefix(&self, target: &Target) -> Result<Option<Reservation>> {
        let hashes = self.hashes_with_prefix(target.as_str())?;
        if let [only] = hashes.as_slice() {
            return self.find(only);
        }
        let mut readable: Vec<Reservation> = Vec::new();
        for hash in &hashes {
            readable.extend(self.find(hash).ok().flatten());
        }
        if let Some(exact) = readable.iter().find(|reservation| reservation.hashid.as_str() == target.as_str()) {
            return Ok(Some(exact.clone()));
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

/// Returns the error for a name that is typed in a deleted directory.
fn no_directory() -> Error {
    Error::InvalidDirectory { path: ".".into(), why: "has been deleted".into() }
}

/// Returns whether a key may be named from a place: its service belongs to it, or to no checkout.
fn can_be_named(reservation: &Reservation, place: &Place) -> Result<bool> {
    let ownership = place.can_name(reservation.site()).map_err(Error::io("check", &reservation.cwd))?;
    Ok(ownership == Ownership::Ours)
}

/// Returns whether a key of a place means its service without a look at the stacks: the directory has no file of a
/// stack. In a checkout, a key of a directory without version control comes after the stacks of other directories.
fn is_own_key(reservation: &Reservation, place: &Place) -> bool {
    (!place.is_versioned() || place.lists(reservation.site())) && !may_have_stack(place)
}

/// Chooses the service of a place among services of stacks with one name: the one of the nearest file above the
/// directory, else the only one of the checkout, else the shared one of the repository; `None` if there is none.
///
/// # Errors
/// [`Error::Ambiguous`] if several stacks of the checkout have the name.
fn in_stacks_of(place: &Place, named: &[Reservation], target: &Target) -> Result<Option<Reservation>> {
    let mut ours: Vec<&Reservation> = named.iter().filter(|service| place.lists(service.site())).collect();
    if ours.is_empty() && named.iter().any(|service| service.shared) {
        let main = place.checkout().and_then(|checkout| checkout.main_root());
        ours.extend(named.iter().filter(|service| service.shared && service.root == main && main.is_some()));
    }
    // How deep the directory of its file is, if that is above the current directory.
    let depth = |service: &&Reservation| {
        let directory = service.file.as_deref().and_then(Path::parent);
        directory.filter(|directory| place.directory().starts_with(directory)).map(|path| path.components().count())
    };
    let deepest = ours.iter().map(depth).max().flatten();
    ours.retain(|service| deepest.is_none() || depth(service) == deepest);
    match ours.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some((*only).clone())),
        several => {
            let matches = several.iter().map(|reservation| reservation.name().to_owned()).collect();
            Err(Error::Ambiguous { target: target.as_str().to_owned(), matches })
        }
    }
}

/// Returns the error for a name that only services of other checkouts have. There is at least one.
fn elsewhere_error(target: &Target, services: &[Reservation], place: &Place) -> Result<Error> {
    let owner = |service: &Reservation| -> Result<String> {
        let root = service.root.as_deref().unwrap_or(&service.cwd);
        Ok(match place.can_name(service.site()).map_err(Error::io("check", &service.cwd))? {
            Ownership::Ours => place.abbreviate(root),
            Ownership::Other(root) => place.abbreviate(&root),
            Ownership::Gone(root) => format!("{}, which no longer exists", place.abbreviate(&root)),
        })
    };
    let (key, owner, hint) = if let [only] = services {
        let kind = if only.stack.is_some() { "whole key" } else { "id" };
        let hint = format!("its {kind} works in every directory: `devport which {}`", only.global_name());
        (only.name().to_owned(), owner(only)?, hint)
    } else {
        let shown = &services[..services.len().min(SUGGESTIONS)];
        let owners = shown.iter().map(owner).collect::<Result<Vec<_>>>()?.join(", ");
        let more = match services.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names: Vec<String> =
            shown.iter().map(|service| format!("`devport which {}`", service.global_name())).collect();
        let hint = format!("these names work in every directory: {}", names.join(", "));
        (target.as_str().to_owned(), owners + &more, hint)
    };
    Ok(Error::KeyElsewhere { key, owner, state: None, here: place.abbreviate(place.root()), hint })
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
