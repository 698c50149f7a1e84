//! Services whose checkout was deleted.

use std::path::Path;

use crate::error::{Error, Result};
use crate::project::Presence;
use crate::registry::reservation::Reservation;

impl Reservation {
    /// Returns whether the checkout of the service exists. A service that belongs to no checkout has its directory
    /// instead. [`Presence::Replaced`] says that another directory is there, which can be used as well.
    ///
    /// # Errors
    /// If a directory cannot be read: it may exist.
    pub(crate) fn presence(&self) -> Result<Presence> {
        let root = self.checkout_root();
        Presence::of(root, self.root_id.as_ref(), self.git_dir.as_deref()).map_err(Error::io("check", root))
    }

    /// Returns whether the checkout was deleted, and no directory is at its path now. One that may come back is not lost.
    ///
    /// # Errors
    /// As [`Self::presence`].
    pub(crate) fn has_lost_checkout(&self) -> Result<bool> {
        Ok(self.presence()? == Presence::Missing)
    }

    /// Returns the error for a service that still runs although its checkout was deleted or replaced. The hint suggests
    /// `start` only if a directory is there in which the service could start.
    pub(crate) fn checkout_gone(&self) -> Error {
        let root = self.checkout_root().to_owned();
        let name = shell_words::quote(self.global_name());
        let hint = if root.is_dir() {
            format!("`devport start {name}` restarts it in the checkout that is there now")
        } else {
            format!("`devport rm {name}` stops and removes it")
        };
        Error::CheckoutGone { service: self.name().to_owned(), root, hint }
    }

    /// Returns a target that names the service in every directory: the whole key of a service of a stack, else the id.
    pub(crate) fn global_name(&self) -> &str {
        if self.stack.is_some() { self.name() } else { self.hashid.as_str() }
    }

    fn checkout_root(&self) -> &Path {
        self.root.as_deref().unwrap_or(&self.cwd)
    }
}
