//! Checkouts: which working copy a directory belongs to. Runs no git and links no git library; `checkout.rs`
//! reads what git writes.

#![expect(unused_imports, reason = "the commands that use it come next")]
#![cfg_attr(not(test), expect(dead_code, reason = "the commands that use it come next"))]

mod checkout;

pub(crate) use checkout::{DirectoryId, Root, root_of, same_root};
