//! The shape of the source: imports go down the layers and never in a circle, and functions and files stay short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. A file imports from lower layers and from its own folder only.
const LAYERS: [&[&str]; 12] = [
    &["text", "frameworks"],
    &["error", "os"],
    &["identity"],
    &["project"],
    &["config"],
    &["registry", "logs"],
    &["checks"],
    &["tailnet", "supervisor", "observe"],
    &["launch"],
    &["view"],
    &["cli"],
    &["main"],
];
/// The number of lines that a reader sees at once; clippy.toml has the same limit.
const LONGEST_FUNCTION: usize = 60;
/// The number of lines of code, without tests, up to which a file is about one thing.
const LONGEST_FILE: usize = 450;

/// A module: `["registry", "store"]` for `src/registry/store.rs`, `["registry"]` for `src/registry/mod.rs`.
type Module = Vec<String>;

/// Returns the Rust files below a folder of the repository.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the lines of a file that hold code: no comments, no blank lines.
fn lines_of_code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
}

/// Returns the code of a file without its module of tests.
fn code_without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = lines_of_code(text).peekable();
    while let Some(line) = lines.next() {
        let is_test_module = line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.ends_with("mod tests {"));
        if is_test_module {
            lines.find(|line| *line == "}");
        } else {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// The files of `src/`, each with its code without tests.
fn modules() -> BTreeMap<Module, String> {
    let root = repository().join("src");
    let mut modules = BTreeMap::new();
    for path in files_below(&root) {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        modules.insert(module, code_without_tests(&fs::read_to_string(&path).unwrap()));
    }
    modules
}

/// Reads a path as it stands after `use`, with its `{…}` groups. Appends every path that it names to `found`, and
/// returns the rest of the text.
fn read_paths<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Module>) -> &'a str {
    let mut path = prefix.to_vec();
    let mut rest = text;
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = group.trim_start();
            while !rest.starts_with('}') && !rest.is_empty() {
                let after = read_paths(rest, &path, found);
                let next = after.find([',', '}']).unwrap_or(after.len());
                rest = after[next..].trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            }
            return rest.get(1..).unwrap_or_default();
        }
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        match rest[end..].strip_prefix("::") {
            Some(after) => rest = after,
            None => {
                found.push(path);
                return &rest[end..];
            }
        }
    }
}

/// Returns the absolute paths that the code of a module names: those that begin with `crate::` or `super::`, and those
/// that begin with the name of a child module.
fn paths_in(module: &Module, code: &str, children: &BTreeSet<&str>) -> Vec<Module> {
    let mut found = Vec::new();
    for (index, _) in code.match_indices("::") {
        let begin = code[..index].rfind(|c: char| c != '_' && !c.is_alphanumeric()).map_or(0, |before| before + 1);
        if begin == index || code[..begin].ends_with("::") {
            continue;
        }
        let (first, rest) = (&code[begin..index], &code[index + 2..]);
        match first {
            "crate" => drop(read_paths(rest, &[], &mut found)),
            "super" => drop(read_paths(rest, &module[..module.len() - 1], &mut found)),
            child if children.contains(child) => drop(read_paths(&code[begin..], module, &mut found)),
            _ => {}
        }
    }
    found
}

/// Returns the names that a folder's `mod.rs` takes from its files and passes on, each with the file that defines it.
fn passed_on(module: &Module, code: &str) -> BTreeMap<String, Module> {
    let mut names = BTreeMap::new();
    for (index, start) in code.match_indices("pub(crate) use ") {
        let text = &code[index + start.len()..];
        let mut paths = Vec::new();
        read_paths(text, module, &mut paths);
        for mut path in paths {
            let name = path.pop().unwrap();
            names.insert(name, path);
        }
        // `load as load_config` passes the name after `as` on.
        let statement = &text[..text.find(';').unwrap()];
        for (at, _) in statement.match_indices(" as ") {
            let file = statement.split("::").next().unwrap().to_owned();
            let name = statement[at + 4..].chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
            names.insert(name, [&module[..], &[file]].concat());
        }
    }
    names
}

/// Returns which modules each module imports. A name that a `mod.rs` passes on counts as an import of the file that
/// defines it; passing it on is no import.
fn imports(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let names: BTreeMap<&Module, _> = modules.iter().map(|(module, code)| (module, passed_on(module, code))).collect();
    let mut imports = BTreeMap::new();
    for (module, code) in modules {
        let children: BTreeSet<&str> = modules
            .keys()
            .filter(|child| child.len() > 1 && child[..child.len() - 1] == module[..])
            .map(|child| child.last().unwrap().as_str())
            .collect();
        let own: String = code.split_inclusive(';').filter(|part| !part.contains("pub(crate) use ")).collect();
        let mut targets = BTreeSet::new();
        for mut path in paths_in(module, &own, &children) {
            // The operating systems' files share one name.
            if path.starts_with(&["os".into(), "platform".into()]) {
                path[1] = "linux".into();
            }
            let length = (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]));
            let Some(length) = length else { panic!("{} names {}", module.join("::"), path.join("::")) };
            let target = path[..length].to_vec();
            let passed_on = path.get(length).and_then(|name| names[&target].get(name));
            targets.insert(passed_on.cloned().unwrap_or(target));
        }
        targets.remove(module);
        imports.insert(module.clone(), targets);
    }
    imports
}

/// Returns a way from a module back to itself; `None` if there is none.
fn cycle(imports: &BTreeMap<Module, BTreeSet<Module>>, start: &Module) -> Option<String> {
    let mut pending = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = pending.pop() {
        for target in &imports[way[way.len() - 1]] {
            let way: Vec<&Module> = way.iter().copied().chain([target]).collect();
            if target == start {
                return Some(way.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" -> "));
            }
            if seen.insert(target) {
                pending.push(way);
            }
        }
    }
    None
}

fn layer(module: &Module) -> usize {
    let folder = module[0].as_str();
    LAYERS.iter().position(|folders| folders.contains(&folder)).unwrap_or_else(|| panic!("{folder} has no layer"))
}

#[test]
fn every_import_goes_down() {
    let imports = imports(&modules());
    let all: Vec<_> = imports.iter().flat_map(|(module, targets)| targets.iter().map(move |to| (module, to))).collect();
    let upward = all.iter().filter(|(module, target)| module[0] != target[0] && layer(target) >= layer(module));
    let upward: Vec<_> =
        upward.map(|(module, target)| format!("{} -> {}", module.join("::"), target.join("::"))).collect();
    assert!(all.len() > 200, "only {} imports were found", all.len());
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports(&modules());
    let cycles: Vec<_> = imports.keys().filter_map(|module| cycle(&imports, module)).collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn the_import_reader_follows_groups_renames_super_and_names_that_a_folder_passes_on() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let modules = [
        ("a", "mod b;\nmod c;\npub(crate) use b::{B, load as load_b};\nfn x() { c::run(); }\n"),
        ("a::b", "use crate::d::{self, e::E};\nuse super::c;\n"),
        ("a::c", "fn x() { super::b::y() }\n"),
        ("d", "use crate::a::{B, load_b};\n"),
        ("d::e", ""),
    ];
    let modules = modules.map(|(path, code)| (module(path), code.to_owned())).into();
    let imports = imports(&modules);
    let of = |path: &str| imports[&module(path)].iter().map(|target| target.join("::")).collect::<Vec<_>>();
    assert_eq!(of("a"), ["a::c"]);
    assert_eq!(of("a::b"), ["a::c", "d", "d::e"]);
    assert_eq!(of("a::c"), ["a::b"]);
    assert_eq!(of("d"), ["a::b"]);
    assert_eq!(cycle(&imports, &module("a::c")).unwrap(), "a::c -> a::b -> a::c");
    assert_eq!(cycle(&imports, &module("a")), None);
}

#[test]
fn only_the_command_line_knows_clap_and_only_the_operating_system_is_unsafe() {
    for path in files_below(&repository().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let is_cli = path.starts_with(repository().join("src/cli"));
        assert!(is_cli || !text.contains("clap::"), "{}", path.display());
        assert!(path.ends_with("os/sys.rs") || !text.contains("unsafe {"), "{}", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}

/// Returns the functions of a formatted file that are too long, each with its number of lines of code.
fn long_functions(text: &str) -> Vec<String> {
    let lines: Vec<&str> = lines_of_code(text).collect();
    let mut long = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let (indent, code) = line.split_at(line.len() - line.trim_start().len());
        let is_qualifier = |word: &&str| ["pub", "pub(crate)", "pub(super)", "const", "unsafe"].contains(word);
        let is_function = code.split(' ').find(|word| !is_qualifier(word)) == Some("fn");
        if !is_function || line.ends_with(['}', ';']) {
            continue;
        }
        // The first line with the same indentation that ends the item; a signature ends with `{` or with `;`.
        let is_end = |line: &&&str| {
            line.strip_prefix(indent).is_some_and(|code| code == "}" || (!code.starts_with(' ') && code.ends_with(';')))
        };
        let length = lines[index..].iter().position(|line| is_end(&line)).unwrap_or(lines.len()).saturating_sub(1);
        if length > LONGEST_FUNCTION {
            long.push(format!("{} ({length} lines)", code.trim()));
        }
    }
    long
}

#[test]
fn no_function_has_over_60_lines() {
    let mut long = Vec::new();
    for path in ["src", "tests"].iter().flat_map(|folder| files_below(&repository().join(folder))) {
        let functions = long_functions(&fs::read_to_string(&path).unwrap());
        long.extend(functions.into_iter().map(|function| format!("{}: {function}", path.display())));
    }
    assert!(long.is_empty(), "{long:#?}");
    let function = |lines: usize| format!("    pub(crate) fn x(\n    ) {{\n{}    }}\n", "        y();\n".repeat(lines));
    assert_eq!(long_functions(&function(LONGEST_FUNCTION - 1)), [""; 0]);
    assert_eq!(long_functions(&function(LONGEST_FUNCTION)), ["pub(crate) fn x( (61 lines)"]);
}

#[test]
fn no_file_has_over_450_lines_of_code() {
    let lengths = modules().into_iter().map(|(module, code)| (module.join("::"), code.lines().count()));
    let long: Vec<_> = lengths.filter(|(_, length)| *length > LONGEST_FILE).collect();
    assert!(long.is_empty(), "{long:#?}");
}
