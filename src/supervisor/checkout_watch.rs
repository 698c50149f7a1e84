//! `CheckoutWatch`: decides at each heartbeat whether the checkout of a service is gone. Pure: it reads no directory.

use crate::project::Presence;

/// Whether the last heartbeat missed the root of the checkout.
#[derive(Debug, Default)]
pub(super) struct CheckoutWatch {
    was_missing: bool,
}

impl CheckoutWatch {
    /// Returns whether the checkout is gone: another directory is at its path, or it is missing for the second time in a
    /// row. A checkout that is missing once may be about to be moved back. `None`: the root could not be read.
    pub(super) fn is_gone(&mut self, presence: Option<Presence>) -> bool {
        let is_missing = presence == Some(Presence::Missing);
        let was_missing = std::mem::replace(&mut self.was_missing, is_missing);
        presence == Some(Presence::Replaced) || (is_missing && was_missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Presence::{Away, Here, Missing, Replaced};

    #[test]
    fn a_checkout_is_gone_if_it_is_replaced_or_missing_twice_in_a_row() {
        for (seen, expected) in [
            (&[Some(Here), Some(Here)][..], false),
            (&[Some(Replaced)], true),
            (&[Some(Missing)], false),
            (&[Some(Missing), Some(Missing)], true),
            (&[Some(Missing), Some(Here), Some(Missing)], false),
            (&[Some(Missing), Some(Away), Some(Missing)], false),
            (&[Some(Missing), None, Some(Missing)], false),
            (&[Some(Away), Some(Away)], false),
            (&[None, None], false),
        ] {
            let mut watch = CheckoutWatch::default();
            let gone: Vec<bool> = seen.iter().map(|presence| watch.is_gone(*presence)).collect();
            assert_eq!(gone.last(), Some(&expected), "{seen:?}");
        }
    }
}
