//! Notes that there is no tmux, so that services have no windows.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::output::note_with_hint;
use crate::launch::{Ensured, LaunchMode, Previous};
use crate::os::spawn::find_program;

/// Package managers, and how they install tmux. The system's own come first.
const PACKAGE_MANAGERS: [(&str, &str); 6] = [
    ("apt-get", "sudo apt-get install tmux"),
    ("dnf", "sudo dnf install tmux"),
    ("pacman", "sudo pacman -S tmux"),
    ("zypper", "sudo zypper install tmux"),
    ("apk", "sudo apk add tmux"),
    ("brew", "brew install tmux"),
];

/// Notes once per command that there is no tmux, if the command started a service that would have a window.
pub(super) fn note_once<'a>(context: &Context, mode: LaunchMode, services: impl IntoIterator<Item = &'a Ensured>) {
    let has_started = |ensured: &&Ensured| ensured.previous != Previous::StillRunning;
    if mode.is_detached || context.launcher().has_tmux() || !services.into_iter().any(|ensured| has_started(&ensured)) {
        return;
    }
    note_with_hint("there is no tmux, so `devport attach` has no window to show", Some(&install_hint(context)));
}

/// Returns how to install tmux on this system.
pub(super) fn install_hint(context: &Context) -> String {
    hint(|program| find_program(program, context.environment().get("PATH")))
}

/// Returns how to install tmux with the first package manager that exists.
fn hint(find: impl Fn(&str) -> Option<PathBuf>) -> String {
    match PACKAGE_MANAGERS.iter().find(|(program, _)| find(program).is_some()) {
        Some((_, command)) => format!("install it with `{command}`"),
        None => "install the package tmux".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_for_the_package_manager_of_the_system() {
        let with = |programs: &[&str]| hint(|program| programs.contains(&program).then(PathBuf::new));
        assert_eq!(with(&["brew", "dnf"]), "install it with `sudo dnf install tmux`");
        assert_eq!(with(&["brew"]), "install it with `brew install tmux`");
        assert_eq!(with(&[]), "install the package tmux");
    }
}
