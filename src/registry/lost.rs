//! Services whose checkout or working directory was deleted.

use std::path::Path;

use crate::error::{Error, Result};
use crate::project::Presence;
use crate::registry::reservation::Reservation;

impl Reservation {
    /// Returns whether the checkout was deleted, and no directory is at its path now.
    ///
    /// # Errors
    /// If a directory cannot be read: it may exist.
    pub(crate) fn has_lost_checkout(&self) -> Result<bool> {
        Ok(self.presence(self.checkout_root())?.is_gone())
    }

    /// Returns whether the checkout was deleted, or the working directory in it. What may come back is not lost: a
    /// directory of a locked worktree, or on a volume that is not mounted.
    ///
    /// # Errors
    /// If a directory cannot be read: it may exist.
    pub(crate) fn has_lost_directory(&self) -> Result<bool> {
        let root = self.checkout_root();
        let mut directories: Vec<&Path> = self.cwd.ancestors().take_while(|directory| *directory != root).collect();
        if !self.cwd.starts_with(root) {
            directories.truncate(1);
        }
        directories.push(root);
        // From the root down: below a deleted directory, the parent directory is always missing too.
        for directory in directories.into_iter().rev() {
            match self.presence(directory)? {
                Presence::Here => {}
                presence => return Ok(presence.is_gone()),
            }
        }
        Ok(false)
    }

    /// Returns the error for a service that still runs although its checkout was deleted or replaced. The hint suggests
    /// `start` only if a directory is there in which the service could start.
    pub(crate) fn checkout_gone(&self) -> Error {
        let root = self.checkout_root().to_owned();
        let hint = if root.is_dir() {
            format!("`devport start {}` restarts it in the checkout that is there now", shell_words::quote(self.name()))
        } else {
            format!("`devport rm {}` stops and removes it", shell_words::quote(self.global_name()))
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

    /// Looks for a directory of the checkout. Only its path counts: another directory there can be used as well.
    fn presence(&self, directory: &Path) -> Result<Presence> {
        Presence::of(directory, None, self.git_dir.as_deref()).map_err(Error::io("check", directory))
    }
}
