//! The checks of a stack that concern several services.

use std::collections::HashMap;

use crate::config::entry::{Entry, check_ports};
use crate::config::fields::nearest;
use crate::config::mistakes::Mistakes;
use crate::config::plan::find_cycles;
use crate::config::reference::{Reference, references};
use crate::config::request::PortRequest;
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
