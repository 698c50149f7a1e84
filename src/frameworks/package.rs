//! `package.json`, and the commands that run its scripts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::frameworks::command::basename;

/// What npm runs with a script's name alone, without `run`.
const NPM_SHORTHANDS: [&str; 4] = ["start", "stop", "test", "restart"];
/// Words before a package manager that run the rest of the line.
const PREFIXES: [&str; 7] = ["--", "env", "exec", "corepack", "time", "nice", "cross-env"];

/// The part of a `package.json` that says how an app is started. Fields of an unexpected type count as missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Package {
    #[serde(default)]
    scripts: BTreeMap<String, Value>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Value>,
}

impl Package {
    /// Reads the `package.json` of a directory or of the nearest parent that has one, as npm does; `None` if there is
    /// none that can be read.
    pub(super) fn load(directory: &Path) -> Option<Self> {
        let path = directory.ancestors().map(|parent| parent.join("package.json")).find(|path| path.is_file())?;
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(super) fn script(&self, name: &str) -> Option<&str> {
        self.scripts.get(name)?.as_str()
    }

    pub(super) fn depends_on(&self, package: &str) -> bool {
        self.dependencies.contains_key(package) || self.dev_dependencies.contains_key(package)
    }
}

/// A command that runs a script of a `package.json`, such as `npm run dev`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScriptCall {
    pub(super) script: String,
    /// How many words there are up to the script's name; the rest are its arguments.
    pub(super) head: usize,
    /// Whether the script's arguments must follow `--`: npm takes the others for itself, and pnpm passes a `--` on.
    pub(super) is_npm: bool,
    /// Whether the words say that this is a script. `pnpm dev` may be a program too.
    pub(super) is_explicit: bool,
    /// Where the `package.json` is, relative to the directory of the command; `None` if it is that of a workspace.
    pub(super) directory: Option<PathBuf>,
}

impl ScriptCall {
    /// Parses a command; `None` if it runs no script.
    pub(super) fn parse(words: &[String]) -> Option<Self> {
        let is_manager = |word: &String| matches!(basename(word), "npm" | "pnpm" | "yarn" | "bun");
        let first = words.iter().position(is_manager)?;
        if first > 0 && !PREFIXES.contains(&basename(&words[first - 1])) && !words[first - 1].contains('=') {
            return None;
        }
        let is_npm = basename(&words[first]) == "npm";
        let mut is_explicit = false;
        let mut directory = Some(PathBuf::new());
        let mut index = first + 1;
        loop {
            let word = words.get(index)?.as_str();
            index += 1;
            match word {
                "--prefix" | "-C" | "--dir" | "--cwd" => {
                    directory = Some(words.get(index)?.into());
                    index += 1;
                }
                "--filter" | "-F" | "-w" | "--workspace" | "workspace" => {
                    directory = None;
                    index += 1;
                }
                "run" | "run-script" if !is_explicit => is_explicit = true,
                _ if word.starts_with("--filter=") || word.starts_with("--workspace=") => directory = None,
                _ if word.starts_with('-') => {
                    if let Some((_, path)) =
                        word.split_once('=').filter(|(name, _)| ["--prefix", "--cwd"].contains(name))
                    {
                        directory = Some(path.into());
                    }
                }
                "exec" | "x" | "dlx" | "create" if !is_explicit => return None,
                _ if is_npm && !is_explicit && !NPM_SHORTHANDS.contains(&word) => return None,
                _ => return Some(Self { script: word.into(), head: index, is_npm, is_explicit, directory }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_each_package_manager_is_found() {
        for (line, script, arguments, directory) in [
            ("npm run dev", "dev", 0, Some("")),
            ("npm start -- --port 1", "start", 3, Some("")),
            ("npm --prefix web run -s dev -- x", "dev", 2, Some("web")),
            ("npm run dev -w web", "dev", 2, Some("")),
            ("pnpm dev --port 1", "dev", 2, Some("")),
            ("pnpm --filter web dev", "dev", 0, None),
            ("pnpm --filter=web run dev", "dev", 0, None),
            ("pnpm -C apps/web dev", "dev", 0, Some("apps/web")),
            ("yarn workspace web dev", "dev", 0, None),
            ("yarn --cwd=web dev", "dev", 0, Some("web")),
            ("bun --bun run dev", "dev", 0, Some("")),
            ("env A=1 /usr/bin/npm run dev", "dev", 0, Some("")),
        ] {
            let words = shell_words::split(line).unwrap();
            let call = ScriptCall::parse(&words).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((call.script.as_str(), words.len() - call.head), (script, arguments), "{line}");
            assert_eq!(call.directory, directory.map(PathBuf::from), "{line}");
        }
        for line in ["npx vite", "npm exec vite", "pnpm dlx vite", "npm install", "npm", "node npm run dev", "vite"] {
            assert_eq!(ScriptCall::parse(&shell_words::split(line).unwrap()), None, "{line}");
        }
    }
}
