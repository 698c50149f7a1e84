//! Ports: the range, and the choice for a new service.

use std::collections::HashSet;
use std::ffi::OsStr;

use crate::error::{Error, Result};
use crate::identity::ServiceHash;
use crate::os::socket::{self, PortUse};

/// The ports that devport assigns, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    /// The range unless `DEVPORT_PORT_RANGE` is set: registered ports that few programs use, below the ephemeral range
    /// of Linux.
    pub(crate) const STANDARD: Self = Self { first: 19000, last: 19999 };

    /// Parses `DEVPORT_PORT_RANGE`; `None` means the default range.
    ///
    /// # Errors
    /// [`Error::InvalidPortRange`] unless it is `FIRST-LAST` within 1024-65535.
    pub(crate) fn from_variable(value: Option<&OsStr>) -> Result<Self> {
        let Some(value) = value else { return Ok(Self::STANDARD) };
        let parse = || {
            let (first, last) = value.to_str()?.split_once('-')?;
            let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
            (1024 <= range.first && range.first <= range.last).then_some(range)
        };
        parse().ok_or_else(|| Error::InvalidPortRange { value: value.to_string_lossy().into_owned() })
    }

    /// Returns the port that the hash of a service selects.
    pub(super) fn of_hash(self, hash: &ServiceHash) -> u16 {
        let size = u64::from(self.last - self.first) + 1;
        // A hash has 10 hexadecimal digits, so the number has 40 bits.
        let number = u64::from_str_radix(hash.as_str(), 16).unwrap_or_default();
        self.first + u16::try_from(number % size).unwrap_or_default()
    }

    /// Returns the lowest port that is neither reserved nor taken.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`] if there is none, or the error of `is_free`.
    pub(super) fn lowest_free(
        self,
        reserved: &HashSet<u16>,
        mut is_free: impl FnMut(u16) -> Result<bool>,
    ) -> Result<u16> {
        let mut listening = 0;
        for port in self.first..=self.last {
            if reserved.contains(&port) {
                continue;
            }
            if is_free(port)? {
                return Ok(port);
            }
            listening += 1;
        }
        let within = reserved.iter().filter(|port| (self.first..=self.last).contains(*port)).count();
        Err(Error::PoolExhausted { first: self.first, last: self.last, reserved: within, listening })
    }
}

/// Returns whether a server could use a port now.
///
/// # Errors
/// If the system cannot be queried.
pub(super) fn is_free(port: u16) -> Result<bool> {
    socket::is_free(port).map_err(Error::system(format!("check port {port}")))
}

/// Returns whether no program uses a port. Connections that are closed already may block it for about a minute.
///
/// # Errors
/// If the system cannot be queried.
pub(super) fn is_unused(port: u16) -> Result<bool> {
    let port_use = socket::port_use(port).map_err(Error::system(format!("check port {port}")))?;
    Ok(!matches!(port_use, PortUse::Taken(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_strictly() {
        let read = |text: &str| PortRange::from_variable(Some(OsStr::new(text))).ok();
        assert_eq!(read("20000-20010"), Some(PortRange { first: 20000, last: 20010 }));
        for bad in ["", "20000", "80-90", "3000-2000", "a-b", "1-70000", "20000-20010-3"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(PortRange::from_variable(None).unwrap(), PortRange::STANDARD);
    }

    #[test]
    fn a_hash_selects_a_port_within_the_range() {
        let port = |first, last, hash: &str| PortRange { first, last }.of_hash(&ServiceHash::parse(hash).unwrap());
        assert_eq!(port(19000, 19999, "00000003e7"), 19999);
        assert_eq!(port(19000, 19999, "00000003e8"), 19000);
        assert_eq!(port(19000, 19000, "ffffffffff"), 19000);
        assert_eq!(port(1024, 65535, "000000fbff"), 65535);
    }

    proptest! {
        #[test]
        fn the_lowest_free_port_is_chosen(reserved in proptest::collection::hash_set(19000_u16..19020, 0..20), listening in proptest::collection::hash_set(19000_u16..19020, 0..20)) {
            let range = PortRange { first: 19000, last: 19019 };
            let free = (19000..=19019).find(|port| !reserved.contains(port) && !listening.contains(port));
            let chosen = range.lowest_free(&reserved, |port| Ok(!listening.contains(&port)));
            prop_assert_eq!(chosen.ok(), free);
        }
    }
}
