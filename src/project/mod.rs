//! Checkouts: which working copy a directory or a service belongs to. Neither runs git nor links a git library:
//! `checkout.rs` reads git's files.

mod checkout;
mod owner;

pub(crate) use checkout::{DirectoryId, Root, root_of, same_root};
pub(crate) use owner::{Ownership, Place, Site};
