//! Warns of values that could lead the services of a stack to those of another checkout: addresses in its files, and
//! variables of the caller's environment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use regex::bytes::Regex;

use crate::cli::context::Context;
use crate::cli::output::note;
use crate::error::Result;
use crate::os::file::read_regular;
use crate::project::{Ownership, Place};
use crate::registry::Reservation;

/// The largest file that is searched, in bytes: dotenv files and stacks have at most 1 MiB.
const LARGEST: u64 = 1024 * 1024;
/// A local address, or a variable with a port, which is the last group. `PORT` itself is set by devport.
const ADDRESS: &str = "(?-u)(?:(?:localhost|127\\.0\\.0\\.1|0\\.0\\.0\\.0|\\[::1\\]):\
                       |[A-Z0-9]_PORT[ \\t]*[=:][ \\t]*[\"']?)([0-9]{4,5})(?:[^0-9]|$)";

/// A local address in a line of a file.
struct LocalAddress<'a> {
    file: &'a Path,
    /// From 1.
    line: usize,
    port: u16,
}

/// Warns of lines in files of a stack that have the address of a service of another checkout, as a copied `.env` has.
/// Each file names each service once.
///
/// # Errors
/// If the records cannot be read.
pub(super) fn warn_of_addresses(context: &Context, place: &Place, files: &[PathBuf]) -> Result<()> {
    let found: Vec<LocalAddress<'_>> = files.iter().flat_map(|file| addresses(file)).collect();
    if found.is_empty() {
        return Ok(());
    }
    let services = context.registry.list()?.reservations;
    let main = place.checkout().and_then(|checkout| checkout.main_root());
    let mut warned = HashSet::new();
    for LocalAddress { file, line, port } in found {
        let Some(service) = services.iter().find(|service| service.service_port() == Some(port)) else { continue };
        let is_shared_with_us = service.shared && service.root == main;
        if let Some(owner) = other_owner(place, service).filter(|_| !is_shared_with_us)
            && warned.insert((file, &service.hash))
        {
            let (file, name) = (file.display(), service.name());
            note(&format!("{file}:{line} has the address of {name}, which belongs to {owner}"));
        }
    }
    Ok(())
}

/// Returns the checkout of a service that may not be named from a place; `None` if it may, or its owner is not known.
fn other_owner(place: &Place, service: &Reservation) -> Option<String> {
    match place.can_name(service.site()) {
        Ok(Ownership::Other(root) | Ownership::Gone(root)) => Some(place.abbreviate(&root)),
        Ok(Ownership::Ours) | Err(_) => None,
    }
}

/// Returns the local addresses in a file, except for those in comments; none if the file cannot be read, because the
/// code that needs its content reports that.
fn addresses(file: &Path) -> Vec<LocalAddress<'_>> {
    let (Ok(text), Ok(pattern)) = (read_regular(file, LARGEST), Regex::new(ADDRESS)) else { return Vec::new() };
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    let is_comment = |text: &[u8]| text.trim_ascii_start().starts_with(b"#");
    let found = |(text, line): (&[u8], usize)| {
        let ports = pattern.captures_iter(text).filter_map(|found| found.get(1));
        let parse = |port: regex::bytes::Match<'_>| std::str::from_utf8(port.as_bytes()).ok()?.parse().ok();
        ports.filter_map(parse).map(|port| LocalAddress { file, line, port }).collect::<Vec<_>>()
    };
    lines.filter(|(text, _)| !is_comment(text)).flat_map(found).collect()
}

/// Notes the variables of the caller's environment that services get with other values: those of their siblings.
pub(super) fn note_replaced_variables(context: &Context, siblings: &[(String, String)]) {
    let is_replaced = |(name, value): &&(String, String)| {
        context.environment().get(name).is_some_and(|callers| callers != value.as_str())
    };
    let names: Vec<&str> = siblings.iter().filter(is_replaced).map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        note(&format!("the services get the stack's values of {names}, not those of this environment"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_found_by_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".env");
        let text = "A=http://localhost:19001/x\n# B=http://localhost:19002\nC=postgres://u:p@127.0.0.1:5432/db\n\
                    D=example.com:19004\nWEB_PORT=19005\nPORT=19006\nE=[::1]:19007,0.0.0.0:19008\nF=localhost:190099\n\
                    web-port: 19010\n  API_PORT: \"19011\"\nG=19012\n";
        std::fs::write(&file, text).unwrap();
        let found: Vec<_> = addresses(&file).iter().map(|found| (found.line, found.port)).collect();
        assert_eq!(found, [(1, 19001), (3, 5432), (5, 19005), (7, 19007), (7, 19008), (10, 19011)]);
        assert!(addresses(&directory.path().join("missing")).is_empty());
    }
}
