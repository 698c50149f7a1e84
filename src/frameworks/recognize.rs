//! Which framework a command or a process is.

use crate::frameworks::command::{basename, program, program_name};
use crate::frameworks::framework::{Framework, Reads};
use crate::frameworks::package::Package;
use crate::frameworks::table::FRAMEWORKS;

/// Recognizes the program of a command. If several frameworks have the same one, such as Vite, the dependencies decide.
pub(super) fn of_words(words: &[String], package: Option<&Package>) -> Option<&'static Framework> {
    let words = words.get(program(words)?..)?;
    let mut rows = FRAMEWORKS.iter().filter(|row| row.programs.iter().any(|program| is_program(program, words)));
    let first = rows.next()?;
    let depends = |row: &&'static Framework| package.is_some_and(|package| row.is_dependency_of(package));
    Some(std::iter::once(first).chain(rows).rfind(depends).unwrap_or(first))
}

/// Recognizes the command line of a process.
pub(super) fn of_process(line: &str, package: Option<&Package>) -> Option<&'static Framework> {
    let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
    of_words(&words, package).or_else(|| {
        let path = words.get(program(&words)?)?;
        // `node …/node_modules/@scope/name/dist/main.js`
        let (_, inside) = path.rsplit_once("/node_modules/")?;
        let is_inside = |name: &&str| inside.strip_prefix(*name).is_some_and(|rest| rest.starts_with('/'));
        FRAMEWORKS.iter().find(|row| row.reads != Reads::AppCode && row.packages.iter().any(&is_inside))
    })
}

/// Returns whether a process runs JavaScript or TypeScript.
pub(super) fn is_javascript(line: &str) -> bool {
    matches!(basename(first_word(line)), "node" | "nodejs" | "bun" | "deno")
}

/// Returns how the code of a program reads a variable; `None` if its language is not known. `line` is a command line.
pub(super) fn expression(line: &str, variable: &str) -> Option<String> {
    match basename(first_word(line)) {
        "node" | "nodejs" | "bun" | "deno" | "npm" | "npx" | "pnpm" | "yarn" | "tsx" | "nodemon" => {
            Some(format!("process.env.{variable}"))
        }
        python if python.starts_with("python") => Some(format!("os.environ[\"{variable}\"]")),
        "go" => Some(format!("os.Getenv(\"{variable}\")")),
        "cargo" => Some(format!("std::env::var(\"{variable}\")")),
        _ => None,
    }
}

fn first_word(line: &str) -> &str {
    line.split_ascii_whitespace().next().unwrap_or_default()
}

/// Recognizes an app whose own code listens, by its dependencies.
pub(super) fn of_dependencies(package: &Package) -> Option<&'static Framework> {
    FRAMEWORKS.iter().find(|row| row.reads == Reads::AppCode && row.is_dependency_of(package))
}

impl Framework {
    fn is_dependency_of(&self, package: &Package) -> bool {
        self.packages.iter().any(|name| package.depends_on(name))
    }
}

/// Returns whether a command runs a program with its subcommand, if it has one.
fn is_program(program: &str, words: &[String]) -> bool {
    let (name, subcommand) = program.split_once(' ').map_or((program, None), |(name, rest)| (name, Some(rest)));
    program_name(&words[0]) == name
        && subcommand.is_none_or(|subcommand| words[1..].iter().any(|word| word == subcommand))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recognized_by_its_program_title_or_package() {
        for (line, name) in [
            ("node /p/node_modules/.bin/vite --port 1", Some("Vite")),
            ("node /p/node_modules/vite/bin/vite.js", Some("Vite")),
            ("next-server (v16.4.0)", Some("Next.js")),
            ("ng serve", Some("Angular")),
            ("ng build", None),
            ("/usr/bin/node /p/node_modules/@nuxt/cli/bin/nuxi.mjs dev", Some("Nuxt")),
            ("node /p/node_modules/storybook/dist/bin/dispatcher.js dev", Some("Storybook")),
            ("node /p/node_modules/.pnpm/astro@5/node_modules/astro/astro.js dev", Some("Astro")),
            ("python manage.py runserver 8000", Some("Django")),
            ("python manage.py migrate", None),
            ("python3 -m http.server", Some("http.server")),
            ("node server.js serve", None),
            ("", None),
        ] {
            assert_eq!(of_process(line, None).map(|row| row.name), name, "{line}");
        }
    }

    #[test]
    fn the_dependencies_decide_between_frameworks_with_one_program() {
        let words = ["vite".to_owned()];
        let package = |text: &str| serde_json::from_str::<Package>(text).unwrap();
        let kit = package(r#"{"devDependencies": {"vite": "8", "@sveltejs/kit": "2"}}"#);
        let vite = package(r#"{"devDependencies": {"vite": "8"}}"#);
        let name = |package: Option<&Package>| of_words(&words, package).unwrap().name;
        assert_eq!([name(None), name(Some(&vite)), name(Some(&kit))], ["Vite", "Vite", "SvelteKit"]);
        let nest = package(r#"{"dependencies": {"express": "5", "@nestjs/core": "12"}}"#);
        assert_eq!(of_dependencies(&nest).unwrap().name, "NestJS");
        assert!(of_dependencies(&vite).is_none());
    }

    #[test]
    fn every_plain_command_is_recognized_as_its_framework() {
        for row in FRAMEWORKS.iter().filter(|row| !row.programs.is_empty() && row.name != "SvelteKit") {
            let words = shell_words::split(row.command).unwrap();
            assert_eq!(of_words(&words, None).map(|found| found.name), Some(row.name), "{}", row.command);
        }
    }
}
