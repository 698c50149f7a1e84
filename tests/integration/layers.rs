//! The layout of the source: a file uses only what stands on a lower layer, or in its own folder.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. Source: design.md, section 10.
const LAYERS: [&[&str]; 10] = [
    &["error", "os"],
    &["identity"],
    &["project"],
    &["config"],
    &["registry", "logs"],
    &["tailnet", "supervisor", "observe"],
    &["launch"],
    &["view"],
    &["cli"],
    &["main"],
];

fn layer(room: &str) -> usize {
    LAYERS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} stands on no layer"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn room_of(path: &Path) -> String {
    let first =
        path.strip_prefix(root()).unwrap().components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_import_goes_down() {
    let mut wrong = Vec::new();
    let mut imports = 0;
    for path in sources(&root()) {
        let room = room_of(&path);
        let text = fs::read_to_string(&path).unwrap();
        for (index, _) in text.match_indices("crate::") {
            let name: String = text[index + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() || name == room {
                continue;
            }
            imports += 1;
            if layer(&name) >= layer(&room) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(imports > 100, "only {imports} imports were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_command_line_knows_clap_and_only_the_operating_system_is_unsafe() {
    for path in sources(&root()) {
        let text = fs::read_to_string(&path).unwrap();
        let room = room_of(&path);
        assert!(room == "cli" || !text.contains("clap::"), "{}", path.display());
        assert!(path.ends_with("os/sys.rs") || !text.contains("unsafe {"), "{}", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}
