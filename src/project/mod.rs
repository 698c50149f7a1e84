//! Checkouts: which working copy a directory belongs to, and which one a service belongs to. Runs no git and links no
//! git library; `checkout.rs` reads what git writes.

mod checkout;
mod owner;

pub(crate) use checkout::{DirectoryId, Root, root_of, same_root};
pub(crate) use owner::{Ownership, Place, Site};
