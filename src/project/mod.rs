//! Checkouts: which working copy a directory or a service belongs to. Neither runs git nor links a git library:
//! `checkout.rs` and `repository.rs` read git's files.

mod checkout;
mod directory;
mod owner;
mod repository;
#[cfg_attr(not(test), expect(dead_code, reason = "`up` names the services of a stack"))]
mod stack;

pub(crate) use checkout::{Root, VersionControl, root_of, same_root};
pub(crate) use directory::{DirectoryId, Presence};
pub(crate) use owner::{Ownership, Place, Site};
pub(crate) use repository::{Checkout, branch};
pub(crate) use stack::CheckoutName;
