//! Checkouts: which working copy a directory or a service belongs to. Neither runs git nor links a git library:
//! `checkout.rs` and `repository.rs` read git's files.

mod checkout;
mod directory;
mod owner;
mod repository;
mod stack;

pub(crate) use checkout::{Root, VersionControl, root_of, same_root};
pub(crate) use directory::{DirectoryId, Presence};
pub(crate) use owner::{Ownership, Place, Site};
pub(crate) use repository::{Checkout, CheckoutKind, branch};
pub(crate) use stack::{CheckoutName, Stack, StackUser, default_name, possible_keys};
