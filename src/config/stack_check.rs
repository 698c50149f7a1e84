//! The checks of a stack: its services alone, together, and with the directories and files that they name.

use std::collections::HashMap;
use std::path::Path;

use crate::config::entry::{Entry, check_ports, directory_problem};
use crate::config::fields::nearest;
use crate::config::file_context::FileContext;
use crate::config::mistakes::Mistakes;
use crate::config::plan::find_cycles;
use crate::config::reference::{Reference, references};
use crate::config::request::{PortRequest, expand_home};
use crate::config::stack::StackService;
use crate::config::yaml::Node;
use crate::text::shorten;

/// The most services of a circle that a message names: a file of a megabyte may have a circle of thousands.
const LONGEST_CIRCLE: usize = 50;

/// A service that was read, with what is needed to check it.
pub(super) struct Draft<'n> {
    pub(super) service: StackService,
    /// Without its request, which the service has.
    pub(super) entry: Entry,
    /// The names in `depends-on`, with their lines.
    pub(super) dependencies: Vec<(String, usize)>,
    /// Its value in the file.
    pub(super) node: &'n Node,
}

impl Draft<'_> {
    fn name(&self) -> &str {
        &self.service.name
    }

    /// Returns whether it is shared, and `other` is not.
    fn leaves_shared(&self, other: &Self) -> bool {
        self.service.shared && !other.service.shared
    }

    fn has_port(&self) -> bool {
        self.service.request.port != PortRequest::NoPort
    }
}

/// Adds what is wrong with the services of a stack together.
pub(super) fn check_services(drafts: &[Draft<'_>], mistakes: &mut Mistakes) {
    let positions: HashMap<&str, usize> =
        drafts.iter().enumerate().map(|(index, draft)| (draft.name(), index)).collect();
    for draft in drafts {
        check_alone(draft, mistakes);
        check_references(draft, drafts, &positions, mistakes);
    }
    check_dependencies(drafts, &positions, mistakes);
    check_variables(drafts, mistakes);
    check_ports(drafts.iter().map(|draft| &draft.entry), mistakes);
}

/// Adds fields of one service that exclude each other in a stack.
fn check_alone(draft: &Draft<'_>, mistakes: &mut Mistakes) {
    let line = draft.service.line;
    if !draft.has_port() && draft.service.request.tailnet {
        mistakes.add(line, "`tailnet: true` needs a port, and this service has none");
    }
    if draft.entry.exec_line.is_none() && !draft.has_port() {
        mistakes.add(line, "this service has neither `exec` nor a port");
    } else if draft.entry.exec_line.is_none() && draft.service.one_shot {
        mistakes.add(line, "this one-shot has no `exec`");
    }
}

/// Adds a mistake if the directory of a service does not exist, and one for each missing dotenv file.
pub(super) fn check_paths(entry: &Entry, is_shared: bool, context: &FileContext<'_>, mistakes: &mut Mistakes) {
    // A shared service runs from the main checkout, which may have what is not committed.
    if !context.checks_paths || is_shared && context.checkout.is_some_and(|checkout| !checkout.is_main()) {
        return;
    }
    let directory = context.path.parent().unwrap_or(Path::new(""));
    let absolute = |path: &Path| directory.join(expand_home(path, context.caller.home()));
    // Without the checkout, a path with `${checkout.root}` is not known.
    let is_known = |path: &Path| !path.to_string_lossy().contains("${checkout.");
    if let Some(line) = entry.cwd_line.filter(|_| is_known(&entry.request.cwd)) {
        let problem = directory_problem(&absolute(&entry.request.cwd));
        if let Some(problem) = problem {
            mistakes.add(line, problem);
        }
    }
    for (path, line) in entry.env_files.iter().filter(|(path, _)| is_known(path)) {
        let path = absolute(path);
        if !path.exists() {
            mistakes.add(*line, format!("the env file {} does not exist", path.display()));
        }
    }
}

/// Adds references that mean nothing.
fn check_references(
    draft: &Draft<'_>,
    drafts: &[Draft<'_>],
    positions: &HashMap<&str, usize>,
    mistakes: &mut Mistakes,
) {
    draft.node.each_text(&mut |line, text| {
        for reference in references(text) {
            let problem = match reference {
                Err(problem) => Some(problem),
                Ok(Reference::Port(name) | Reference::Url(name)) => match positions.get(name) {
                    None => Some(unknown_service(name, drafts, mistakes)),
                    Some(index) if !drafts[*index].has_port() => Some(format!("`{name}` has no port to refer to")),
                    Some(index) if draft.leaves_shared(&drafts[*index]) => Some(not_shared(draft.name(), name)),
                    Some(_) => None,
                },
                Ok(_) if draft.service.shared => Some(
                    "a shared service is the same in every checkout, so `${checkout…}` cannot be used in it".into(),
                ),
                Ok(_) => None,
            };
            if let Some(problem) = problem {
                mistakes.add(line, problem);
            }
        }
    });
}

/// Describes the mistake of a shared service that refers to one that is not shared.
fn not_shared(shared: &str, other: &str) -> String {
    format!("`{shared}` is shared by all checkouts, and `{other}` is not; share both or none")
}

/// Returns that there is no such service, and the nearest one.
fn unknown_service(name: &str, drafts: &[Draft<'_>], mistakes: &Mistakes) -> String {
    let shown = shorten(name);
    let nearest = || nearest(name, drafts.iter().map(Draft::name));
    match mistakes.wants_suggestions().then(nearest).flatten() {
        Some(nearest) => format!("there is no service `{shown}`, did you mean `{nearest}`?"),
        None => format!("there is no service `{shown}` in this file"),
    }
}

/// Adds dependencies that cannot be fulfilled.
fn check_dependencies(drafts: &[Draft<'_>], positions: &HashMap<&str, usize>, mistakes: &mut Mistakes) {
    let mut needs = vec![Vec::new(); drafts.len()];
    for (index, draft) in drafts.iter().enumerate() {
        for (name, line) in &draft.dependencies {
            match positions.get(name.as_str()) {
                None => mistakes.add(*line, unknown_service(name, drafts, mistakes)),
                Some(needed) if *needed == index => mistakes.add(*line, format!("`{name}` depends on itself")),
                Some(needed) if drafts[*needed].entry.exec_line.is_none() => {
                    mistakes.add(*line, format!("`{name}` only reserves a port, so it never becomes ready"));
                }
                Some(needed) if draft.leaves_shared(&drafts[*needed]) => {
                    mistakes.add(*line, not_shared(draft.name(), name));
                }
                Some(needed) => needs[index].push(*needed),
            }
        }
    }
    for cycle in find_cycles(&needs) {
        let mut names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|index| drafts[*index].name()).collect();
        let closing = drafts[cycle[0]].dependencies.iter().find(|(name, _)| name == names[1]);
        let line = closing.map_or(drafts[cycle[0]].service.line, |(_, line)| *line);
        if names.len() > LONGEST_CIRCLE {
            names.splice(LONGEST_CIRCLE / 2..names.len() - LONGEST_CIRCLE / 2, ["…"]);
        }
        mistakes.add(line, format!("services depend on each other in a circle: {}", names.join(" -> ")));
    }
}

/// Adds services whose sibling variables would have one name.
fn check_variables(drafts: &[Draft<'_>], mistakes: &mut Mistakes) {
    let mut seen: HashMap<String, &Draft<'_>> = HashMap::new();
    for draft in drafts {
        let variable = draft.service.port_variable();
        if let Some(other) = seen.get(&variable) {
            let (name, other, line) = (draft.name(), other.name(), other.service.line);
            let what =
                format!("the variables of `{name}` would be those of `{other}` on line {line}: {variable}; rename one");
            mistakes.add(draft.service.line, what);
        } else {
            seen.insert(variable, draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::CallerEnvironment;
    use crate::config::file::parse;
    use crate::config::stack_file::tests::{Row, assert_mistakes, checkout, services};

    const MISTAKES: &[Row] = &[
        ("  api: x\n  web:\n    exec: y\n    depends-on:\n      - aip\n", 6, "no service `aip`, did you mean `api`?"),
        ("  api: x\n  web: {exec: y, depends-on: [database]}\n", 3, "no service `database` in this file"),
        ("  a: {exec: x, depends-on: [a]}\n", 2, "`a` depends on itself"),
        (
            "  a:\n    exec: x\n    depends-on: [b]\n  b: {exec: x, depends-on: [c]}\n  c: {exec: x, depends-on: [a]}\n",
            4,
            "circle: a -> b -> c -> a",
        ),
        ("  a: {}\n  b: {exec: y, depends-on: [a]}\n", 3, "only reserves a port"),
        (
            "  a: {exec: x, port: 5432}\n  b:\n    exec: y\n    port: 5432\n",
            5,
            "port 5432 is already that of the service on line 2",
        ),
        ("  {a: {exec: x, port: 5432}, b: {exec: y, port: 5432}}\n", 2, "on line 2; leave one out"),
        ("  api-debug: x\n  api_debug: y\n", 3, "on line 2: API_DEBUG_PORT"),
        ("  api: x\n  API: y\n", 3, "on line 2: API_PORT"),
        ("  a: {exec: x, no-port: true, tailnet: true}\n", 2, "`tailnet: true` needs a port"),
        ("  a: {exec: x, one-shot: true, tailnet: true}\n", 2, "`tailnet: true` needs a port"),
        ("  a: {no-port: true}\n", 2, "neither `exec` nor a port"),
        ("  a: {one-shot: true, port: 5432}\n", 2, "this one-shot has no `exec`"),
        (
            "  a: {exec: x, shared: true, depends-on: [b]}\n  b: y\n",
            2,
            "`a` is shared by all checkouts, and `b` is not",
        ),
        ("  a: {exec: 'x ${services.b.url}', shared: true}\n  b: y\n", 2, "`a` is shared by all checkouts"),
        ("  a: {exec: x, shared: true, env: {A: '${checkout.slug}'}}\n", 2, "`${checkout…}` cannot be used"),
        ("  a:\n    exec: x\n    cwd: nowhere\n", 4, "directory nowhere does not exist"),
        ("  a:\n    exec: x\n    env: [nowhere.env]\n", 4, "env file nowhere.env does not exist"),
        ("  a: {exec: x, cwd: src/main.rs}\n", 2, "is not a directory"),
        ("  a:\n    exec: x --db ${services.bd.port}\n  db: y\n", 3, "no service `bd`, did you mean `db`?"),
        ("  a: {exec: 'x ${services.db.prot}'}\n  db: y\n", 2, "${services.db.port}"),
        ("  a: {exec: 'x ${services.m.url}'}\n  m: {exec: y, one-shot: true}\n", 2, "`m` has no port to refer to"),
        (
            "  a: {exec: x}\n  b:\n    exec: y\n    env:\n      A: hunter2 ${checkout.foo}\n",
            6,
            "a checkout has `name`, `slug` and `root`",
        ),
    ];

    #[test]
    fn a_mistake_of_several_services_has_its_line() {
        assert_mistakes(MISTAKES);
    }

    #[test]
    fn all_mistakes_of_a_stack_are_reported() {
        let text = "  a: {exec: x, depends-on: [b, nope]}\n  b: {exec: x, depends-on: [a]}\n  c: {exec: x, cwd: nowhere, port: 80}\n";
        let error = services(text).unwrap_err();
        let starts: Vec<String> = error.lines().iter().map(|line| line[..9].to_owned()).collect();
        assert_eq!(starts, ["d.yaml:2:", "d.yaml:2:", "d.yaml:4:", "d.yaml:4:"]);
        assert!(matches!(error, crate::error::Error::InvalidLines { .. }));
    }

    #[test]
    fn large_files_are_checked_in_linear_time() {
        let file = |line: fn(usize) -> String| services(&(0..10_000).map(line).collect::<String>());
        let chain = file(|n| match n {
            0 => "  s0: {exec: x}\n".into(),
            _ => format!("  s{n}: {{exec: x, depends-on: [s{}]}}\n", n - 1),
        });
        assert_eq!(chain.unwrap().order(&[], false).unwrap().services.len(), 10_000);
        let wrong: [fn(usize) -> String; 4] = [
            |n| format!("  s{n}: {{exec: x, depends-on: [s{}, s0]}}\n", (n + 1) % 10_000),
            |n| format!("  s{n}: {{exec: '${{services.t{n}.port}}', depends-on: [u{n}], w{n}: 5}}\n"),
            |n| format!("  s{n}: {{exec: x, port: {}}}\n", 2000 + n / 4),
            |n| format!("  s{}: {{exec: x}}\n", n / 2),
        ];
        for line in wrong {
            let lines = file(line).unwrap_err().lines();
            assert!(lines.len() >= 20 && lines.iter().all(|line| line.len() < 1000), "{lines:?}");
        }
    }

    #[test]
    fn a_shared_service_may_need_what_only_the_main_checkout_has() {
        let text = "  db: {exec: x, cwd: nowhere, env: nowhere.env, shared: true}\n";
        assert!(services(text).is_ok());
        let caller = CallerEnvironment::default();
        let main = checkout("main");
        let context =
            FileContext { path: Path::new("d.yaml"), caller: &caller, checkout: Some(&main), checks_paths: true };
        assert_eq!(parse(&format!("services:\n{text}"), &context).unwrap_err().lines().len(), 2);
    }
}
