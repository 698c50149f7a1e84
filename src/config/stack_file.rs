//! Reads a `devport.yaml` in object form.

use std::collections::{HashMap, HashSet};

use crate::config::entry::Entry;
use crate::config::expand::expand;
use crate::config::fields::{
    COMMON_FIELDS, STACK_FIELDS, TOP_FIELDS, boolean, foreign_service_field, foreign_top_field, known_fields, text,
    wrong_type,
};
use crate::config::file_context::FileContext;
use crate::config::mistakes::Mistakes;
use crate::config::names::{service_name, session_name, stack_name};
use crate::config::policy::RestartWhen;
use crate::config::reference::{Reference, references, substitute};
use crate::config::stack::{DEFAULT_SESSION, Stack, StackService};
use crate::config::stack_check::{Draft, check_paths, check_services};
use crate::config::yaml::{Kind, Name, Node, Value};
use crate::text::shorten;

/// Reads the fields of a file in object form. Adds what is wrong to the mistakes.
pub(super) fn read(fields: &[(Name, Node)], context: &FileContext<'_>, mistakes: &mut Mistakes) -> Stack {
    let mut stack = Stack::default();
    let mut drafts = Vec::new();
    let fields = known_fields(fields, &[&TOP_FIELDS], foreign_top_field, mistakes);
    for (field, _, node) in &fields {
        match *field {
            "name" => stack.name = text(node, "a name (put quotes around a number)", mistakes, stack_name),
            "tmux-session" => {
                let session = text(node, "the name of a tmux session", mistakes, session_name);
                stack.tmux_session = session.filter(|session| session != DEFAULT_SESSION);
            }
            _ => drafts = read_services(node, context, mistakes),
        }
    }
    if !fields.iter().any(|(field, ..)| *field == "services") {
        mistakes.add(1, "expected a list of services (lines that begin with \"- \"), or a map with `services:`");
    }
    check_services(&drafts, mistakes);
    stack.services = drafts.into_iter().map(|draft| draft.service).collect();
    stack
}

/// Reads the map of services.
fn read_services<'n>(node: &'n Node, context: &FileContext<'_>, mistakes: &mut Mistakes) -> Vec<Draft<'n>> {
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    let mut lines: HashMap<&str, usize> = HashMap::new();
    match &node.value {
        Value::Map(services) => {
            for (name, node) in services {
                if let Err(problem) = service_name(&name.text) {
                    mistakes.add(name.line, problem);
                }
                if let Some(first) = lines.get(name.text.as_str()) {
                    let what = format!("the service `{}` is already on line {first}", shorten(&name.text));
                    mistakes.add(name.line, what);
                    continue;
                }
                lines.insert(&name.text, name.line);
                drafts.push(read_service(name, node, context, mistakes));
            }
        }
        _ if node.is_null() => {}
        Value::List(_) => {
            mistakes.add(node.line, "expected a map of services: write `web:` instead of `- key: web`");
        }
        Value::Scalar(..) => wrong_type(node, "a map of services", mistakes),
    }
    drafts
}

/// Reads one service: a command, a map, or nothing for a port alone.
fn read_service<'n>(name: &Name, node: &'n Node, context: &FileContext<'_>, mistakes: &mut Mistakes) -> Draft<'n> {
    let mut service = StackService { name: name.text.clone(), line: name.line, ..StackService::default() };
    let mut dependencies = Vec::new();
    let mut restart_line = None;
    let mut entry = match &node.value {
        Value::Map(fields) => {
            let explain = |field: &str| foreign_service_field(field, true);
            let fields = known_fields(fields, &[&COMMON_FIELDS, &STACK_FIELDS], explain, mistakes);
            for (field, line, node) in &fields {
                match *field {
                    "depends-on" => dependencies = depends_on(node, mistakes),
                    "one-shot" => service.one_shot = boolean(node, mistakes).unwrap_or_default(),
                    "shared" => service.shared = boolean(node, mistakes).unwrap_or_default(),
                    "restart" => restart_line = Some(*line),
                    _ => {}
                }
            }
            Entry::read(&fields, Some(&|text: &str| expand_early(text, context)), mistakes)
        }
        Value::Scalar(Kind::Text, _) => Entry::command(node, mistakes),
        _ if node.is_null() => Entry::default(),
        _ => {
            wrong_type(node, "a command, or a map with `exec`", mistakes);
            Entry { exec_line: Some(node.line), ..Entry::default() }
        }
    };
    entry.finish(name.line, service.one_shot, mistakes);
    if service.one_shot {
        if let Some(line) = restart_line {
            mistakes.add(line, "`restart` and `one-shot: true` exclude each other: a one-shot runs once");
        }
        entry.request.policy.restart = RestartWhen::Never;
    }
    check_paths(&entry, service.shared, context, mistakes);
    service.request = std::mem::take(&mut entry.request);
    service.depends_on = dependencies.iter().map(|(name, _)| name.clone()).collect();
    Draft { service, entry, dependencies, node }
}

/// Reads the value of `depends-on`: names of services, each with its line.
fn depends_on(node: &Node, mistakes: &mut Mistakes) -> Vec<(String, usize)> {
    let Value::List(items) = &node.value else {
        wrong_type(node, "a list of services such as [db, api]", mistakes);
        return Vec::new();
    };
    let mut names: Vec<(String, usize)> = Vec::new();
    let mut seen = HashSet::new();
    for item in items {
        let Value::Scalar(Kind::Text | Kind::Int, name) = &item.value else {
            wrong_type(item, "the name of a service", mistakes);
            continue;
        };
        if seen.insert(name) {
            names.push((name.clone(), item.line));
        } else {
            mistakes.add(item.line, format!("`{}` is twice in `depends-on`", shorten(name)));
        }
    }
    names
}

/// Expands a text that must be known before ports are: `$NAME` from the caller's environment, and the checkout.
fn expand_early(text: &str, context: &FileContext<'_>) -> Result<String, String> {
    let refers_to_service =
        |found: &Result<Reference<'_>, String>| matches!(found, Ok(Reference::Port(_) | Reference::Url(_)));
    if references(text).iter().any(refers_to_service) {
        return Err("`${services…}` cannot be used here: this is read before the services have ports".into());
    }
    let text = substitute(text, |reference| context.checkout.and_then(|checkout| checkout.value_of(reference)));
    Ok(expand(&text, |name| context.caller.get(name).and_then(|value| value.to_str())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::environment::CallerEnvironment;
    use crate::config::file::{ConfigFile, parse};
    use crate::config::reference::CheckoutNames;
    use crate::config::request::{EnvSource, PortRequest};
    use crate::error::Result;
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};

    pub(in crate::config) fn checkout(name: &str) -> CheckoutNames {
        CheckoutNames { name: name.into(), slug: name.replace('-', "_"), root: "/w/feat".into() }
    }

    /// Reads the text of `d.yaml` in `directory` in the checkout `feat-1`, with `DB_PORT=5433` in the environment.
    fn read_in(directory: &Path, text: &str) -> Result<Stack> {
        let caller = CallerEnvironment::new([("DB_PORT".into(), "5433".into()), ("HOME".into(), "/".into())]);
        let context = FileContext {
            path: &directory.join("d.yaml"),
            caller: &caller,
            checkout: Some(&checkout("feat-1")),
            checks_paths: true,
        };
        match parse(text, &context)? {
            ConfigFile::Stack(stack) => Ok(stack),
            ConfigFile::List(entries) => panic!("{entries:?}"),
        }
    }

    pub(in crate::config) fn read(text: &str) -> Result<Stack> {
        read_in(Path::new(""), text)
    }

    /// Returns the stack with this text below `services:`.
    pub(in crate::config) fn services(text: &str) -> Result<Stack> {
        read(&format!("services:\n{text}"))
    }

    pub(in crate::config) const SHOP: &str = "name: shop\ntmux-session: dev\nservices:\n  db:        {exec: ./pg.sh, port: 5432, shared: true, scheme: postgres, ready: tcp}\n  migrate:   {exec: ./migrate.sh, one-shot: true, depends-on: [db], env: {DB: \"shop_${checkout.slug}\"}}\n  api:       {exec: [npm, run, api], depends-on: [migrate], env: [{DATABASE_URL: \"postgres://localhost:${services.db.port}/shop_${checkout.slug}\"}], ready: \"exec:check ${services.db.url}\"}\n  api-debug: {}\n  web:       {exec: npm run dev -- --port $PORT --strictPort, depends-on: [api]}\n";

    #[test]
    fn every_field_of_a_stack_is_read() {
        let stack = read(SHOP).unwrap();
        assert_eq!((stack.name.as_deref(), stack.tmux_session.as_deref()), (Some("shop"), Some("dev")));
        let names: Vec<_> = stack.services.iter().map(|service| (service.name.as_str(), service.line)).collect();
        assert_eq!(names, [("db", 4), ("migrate", 5), ("api", 6), ("api-debug", 7), ("web", 8)]);
        let [db, migrate, api, debug, web] = &stack.services[..] else { panic!() };
        assert!(db.shared && !db.one_shot && db.depends_on.is_empty());
        assert_eq!((db.request.scheme.as_deref(), db.request.port), (Some("postgres"), PortRequest::Exactly(5432)));
        assert!(migrate.one_shot && migrate.request.policy.restart == RestartWhen::Never);
        assert_eq!(migrate.request.port, PortRequest::NoPort);
        assert_eq!(
            (&api.request.cmd, &api.depends_on),
            (&vec!["npm".into(), "run".into(), "api".into()], &vec!["migrate".to_owned()])
        );
        assert!(debug.is_port_only() && !web.is_port_only());
        assert_eq!((debug.port_variable(), debug.url_variable()), ("API_DEBUG_PORT".into(), "API_DEBUG_URL".into()));
        assert_eq!((debug.request.port, web.request.port), (PortRequest::Any, PortRequest::Any));
        assert!(
            read("services:\n").unwrap().services.is_empty() && read("services: {}\n").unwrap().services.is_empty()
        );
        assert_eq!(services("  a: npm run dev\n  b:\n").unwrap().services[0].request.cmd, ["npm", "run", "dev"]);
    }

    #[test]
    fn paths_ports_and_names_are_expanded_when_the_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("feat_1")).unwrap();
        std::fs::write(directory.path().join("5433.env"), "").unwrap();
        let text = "services:\n  a:\n    exec: x\n    cwd: ${checkout.slug}\n    env: \"${DB_PORT}.env\"\n    port: ${DB_PORT:-1}\n    tailnet-name: web-${checkout.name}\n  b: {exec: y, port: \"${UNSET:-5432}\"}\n";
        let stack = read_in(directory.path(), text).unwrap();
        let a = &stack.services[0].request;
        assert_eq!((&a.cwd, a.port), (&PathBuf::from("feat_1"), PortRequest::Exactly(5433)));
        assert_eq!(a.env, [EnvSource::File("5433.env".into())]);
        assert_eq!(a.tailnet_name.as_ref().unwrap().as_str(), "web-feat-1");
        assert_eq!(stack.services[1].request.port, PortRequest::Exactly(5432));
    }

    /// A text below `services:`, the line of its only mistake, and a part of the message.
    pub(in crate::config) type Row = (&'static str, usize, &'static str);

    /// Asserts that each text has its mistake, and that no message shows a value.
    pub(in crate::config) fn assert_mistakes(rows: &[Row]) {
        for (text, line, part) in rows {
            let error = services(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("d.yaml:{line}: ")), "{text:?}: {error}");
            assert!(error.contains(*part) && !error.contains('\n') && !error.contains("hunter"), "{text:?}: {error}");
        }
    }

    /// Fields and values of one service.
    const MISTAKES: &[Row] = &[
        ("  a: {exec: x, depends_on: [b]}\n", 2, "did you mean `depends-on`?"),
        ("  a: {exec: x, oneshot: true}\n", 2, "did you mean `one-shot`?"),
        ("  a:\n    exec: x\n    environment: {A: hunter2}\n", 4, "did you mean `env`?"),
        ("  a: {command: x}\n", 2, "did you mean `exec`?"),
        ("  a: {exec: x, ports: ['80:80']}\n", 2, "did you mean `port`?"),
        ("  a: {exec: x, build: .}\n", 2, "devport runs commands, not containers"),
        ("  a: {exec: x, image: postgres}\n", 2, "devport runs commands, not containers"),
        ("  a: {exec: x, key: b}\n", 2, "text before its colon"),
        ("  a: {exec: x, shraed: true}\n", 2, "did you mean `shared`?"),
        ("  a: {exec: x, frobnicate: true}\n", 2, "(there are exec, "),
        ("  a: x\n  b: {exec: y, depends-on: a}\n", 3, "expected a list of services such as [db, api], found a text"),
        ("  a: x\n  b: {exec: y, depends-on: {a: {condition: service_healthy}}}\n", 3, "found a map"),
        ("  a: x\n  b: {exec: y, depends-on: [a, a]}\n", 3, "is twice in"),
        ("  a: {exec: x, one-shot: true, restart: always}\n", 2, "a one-shot runs once"),
        ("  a: {exec: x, cwd: './${services.b.port}'}\n  b: y\n", 2, "before the services have ports"),
        ("  a: {exec: x, port: '${HOME}'}\n", 2, "does not expand to a number"),
        ("  a:\n    exec: x\n    port-env: DEVPORT_X\n", 4, "devport sets itself"),
        ("  a: {exec: x, port: '5432'}\n", 2, "expected a port in 1024-65535, found a text"),
        ("  a: x\n  b: y\n  a: z\n", 4, "`a` is already on line 2"),
        ("  a: 5\n", 2, "expected a command, or a map with `exec`, found a number"),
        ("  a: {exec: x, one-shot: 1}\n", 2, "expected a boolean"),
        ("  a: {exec: x, shared: [y]}\n", 2, "expected a boolean"),
    ];

    #[test]
    fn mistakes_have_their_line_and_a_suggestion() {
        assert_mistakes(MISTAKES);
    }

    #[test]
    fn mistakes_of_the_top_level_have_their_line() {
        for (text, line, part) in [
            ("services: {}\nversion: '3'\n", 2, "devport needs none"),
            ("services: {}\nnmae: x\n", 2, "did you mean `name`?"),
            ("processes: {}\nservices: {}\n", 1, "did you mean `services`?"),
            ("name: Shop App\nservices: {}\n", 1, "such as `shop-app`"),
            ("name: 5\nservices: {}\n", 1, "put quotes around a number"),
            ("services: {}\ntmux-session: a:b\n", 2, "`a:b` cannot be the name of a tmux session"),
            ("services: {}\ntmux-session: my.app\n", 2, "use letters, digits, - and _"),
            ("services: {}\ntmux-session: ''\n", 2, "cannot be the name of a tmux session"),
            ("services: {}\ntmux-session: [a]\n", 2, "the name of a tmux session"),
            ("services:\n  - key: web\n", 2, "write `web:`"),
            ("services: x\n", 1, "expected a map of services"),
            ("name: shop\n", 1, "a map with `services:`"),
            ("services: {}\nservices: {}\n", 2, "duplicate field"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("d.yaml:{line}: ")), "{text:?}: {error}");
            assert!(error.contains(part) && !error.contains('\n'), "{text:?}: {error}");
        }
        assert!(read(&format!("name: {}\nservices: {{}}\n", "x".repeat(41))).is_err());
    }

    #[test]
    fn the_example_in_the_docs_is_valid_and_shows_every_field() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/devport-stack.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let stack = read_in(path.parent().unwrap(), &text).unwrap();
        let order = stack.order(&[], false).unwrap();
        let names: Vec<&str> = order.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["db", "api-debug", "migrate", "api", "web"]);
        assert_eq!(order.needs, [vec![], vec![], vec![0], vec![2], vec![3]]);
        for field in STACK_FIELDS.iter().chain(&TOP_FIELDS).chain(&["exec", "env", "port", "scheme"]) {
            assert!(text.lines().any(|line| line.trim_start().starts_with(&format!("{field}:"))), "{field}");
        }
        for word in ["${services.", "${checkout.slug}", ":-"] {
            assert!(text.contains(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn no_services_panic(text in "(  [ab-]: |exec|env|port|cwd|: |\\{|\\}|\n|    |depends-on|\\[a, b\\]|x|5|\\$\\{|services\\.|checkout\\.|port\\}|one-shot|shared|true|, |é){0,40}") {
            let _ = services(&text);
        }
    }
}
