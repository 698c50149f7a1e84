//! Reads a `devport.yaml` in object form.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::config::entry::{Entry, directory_problem};
use crate::config::environment::CallerEnvironment;
use crate::config::expand::expand;
use crate::config::fields::{
    COMMON_FIELDS, STACK_FIELDS, TOP_FIELDS, boolean, foreign_service_field, foreign_top_field, known_fields, text,
    wrong_type,
};
use crate::config::mistakes::Mistakes;
use crate::config::policy::RestartWhen;
use crate::config::reference::{CheckoutNames, Reference, references, substitute};
use crate::config::request::expand_home;
use crate::config::stack::{DEFAULT_SESSION, Stack, StackService};
use crate::config::stack_check::{Draft, check_services};
use crate::config::yaml::{Kind, Name, Node, Value};
use crate::text::shorten;

/// The most characters in the name of a stack or a service. A key has both and the name of a checkout, in 128 bytes.
pub(super) const LONGEST_NAME: usize = 40;

/// Where a file is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileContext<'a> {
    pub(crate) path: &'a Path,
    /// Expands `$NAME` in paths and ports.
    pub(crate) caller: &'a CallerEnvironment,
    /// The names of its checkout; `None` if they are not known yet: `${checkout.root}` in a path stays as it is then.
    pub(crate) checkout: Option<&'a CheckoutNames>,
    /// Whether directories and dotenv files must exist: not for a command that only stops services.
    pub(crate) checks_paths: bool,
}

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

/// Adds a mistake if the directory of a service does not exist, and one for each missing dotenv file.
fn check_paths(entry: &Entry, is_shared: bool, context: &FileContext<'_>, mistakes: &mut Mistakes) {
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

/// Checks the name of a stack.
fn stack_name(name: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() <= LONGEST_NAME && !name.is_empty() && !name.starts_with('-') && name.chars().all(is_allowed) {
        return Ok(name.to_owned());
    }
    let suggestion = suggestion(name, |c| Some(c.to_ascii_lowercase()).filter(|c| is_allowed(*c)));
    Err(format!(
        "`{}` cannot be the name of a stack: use a-z, 0-9 and -, at most {LONGEST_NAME} characters{suggestion}",
        shorten(name)
    ))
}

/// Checks the name of a service.
pub(super) fn service_name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name == "devport" {
        return Err("a service cannot be called devport: DEVPORT_URL has another meaning".into());
    }
    let is_valid = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_allowed);
    if is_valid && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let suggestion = suggestion(name, |c| Some(c).filter(|c| is_allowed(*c)));
    Err(format!(
        "`{}` cannot be the name of a service: use letters, digits, - and _, at most {LONGEST_NAME} characters{suggestion}",
        shorten(name)
    ))
}

/// Checks the name of a tmux session: tmux gives `:` and `.` a meaning.
fn session_name(name: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('-') && name.chars().all(is_allowed) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "`{}` cannot be the name of a tmux session: use letters, digits, - and _, at most {LONGEST_NAME} characters",
        shorten(name)
    ))
}

/// Returns `, such as …` with the nearest valid name; empty if there is none. `convert` returns `None` for a character
/// that becomes `-`.
fn suggestion(name: &str, convert: impl Fn(char) -> Option<char>) -> String {
    let valid: String = name.chars().take(LONGEST_NAME).map(|c| convert(c).unwrap_or('-')).collect();
    match valid.trim_matches(['-', '_']) {
        "" | "devport" => String::new(),
        valid => format!(", such as `{valid}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{ConfigFile, parse};
    use crate::config::request::{EnvSource, PortRequest};
    use crate::error::Result;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn checkout(name: &str) -> CheckoutNames {
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

    fn read(text: &str) -> Result<Stack> {
        read_in(Path::new(""), text)
    }

    /// Returns the stack with this text below `services:`.
    fn services(text: &str) -> Result<Stack> {
        read(&format!("services:\n{text}"))
    }

    const SHOP: &str = "name: shop\ntmux-session: dev\nservices:\n  db:        {exec: ./pg.sh, port: 5432, shared: true, scheme: postgres, ready: tcp}\n  migrate:   {exec: ./migrate.sh, one-shot: true, depends-on: [db], env: {DB: \"shop_${checkout.slug}\"}}\n  api:       {exec: [npm, run, api], depends-on: [migrate], env: [{DATABASE_URL: \"postgres://localhost:${services.db.port}/shop_${checkout.slug}\"}], ready: \"exec:check ${services.db.url}\"}\n  api-debug: {}\n  web:       {exec: npm run dev -- --port $PORT --strictPort, depends-on: [api]}\n";

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
    fn references_are_replaced_when_the_ports_are_known() {
        let stack = read(SHOP).unwrap();
        let checkout = checkout("feat-1");
        let api = stack.services[2].resolved(|reference| match reference {
            Reference::Port("db") => Some("19005".into()),
            Reference::Url("db") => Some("postgres://localhost:19005".into()),
            other => checkout.value_of(other),
        });
        let url = ("DATABASE_URL".to_owned(), "postgres://localhost:19005/shop_feat_1".to_owned());
        assert_eq!(api.env, [EnvSource::Values(vec![url])]);
        assert_eq!(api.policy.ready.unwrap().to_string(), "exec:check postgres://localhost:19005");
        assert_eq!(stack.services[4].resolved(|_| None).cmd[5], "$PORT");
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
    type Row = (&'static str, usize, &'static str);

    /// Unknown fields and names, and what several services have to do with each other.
    const NAMES: &[Row] = &[
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
        ("  api: x\n  web:\n    exec: y\n    depends-on:\n      - aip\n", 6, "no service `aip`, did you mean `api`?"),
        ("  api: x\n  web: {exec: y, depends-on: [database]}\n", 3, "no service `database` in this file"),
        ("  a: {exec: x, depends-on: [a]}\n", 2, "`a` depends on itself"),
        (
            "  a:\n    exec: x\n    depends-on: [b]\n  b: {exec: x, depends-on: [c]}\n  c: {exec: x, depends-on: [a]}\n",
            4,
            "circle: a -> b -> c -> a",
        ),
        ("  a: x\n  b: {exec: y, depends-on: a}\n", 3, "expected a list of services such as [db, api], found a text"),
        ("  a: x\n  b: {exec: y, depends-on: {a: {condition: service_healthy}}}\n", 3, "found a map"),
        ("  a: x\n  b: {exec: y, depends-on: [a, a]}\n", 3, "is twice in"),
        ("  a: {}\n  b: {exec: y, depends-on: [a]}\n", 3, "only reserves a port"),
        (
            "  a: {exec: x, port: 5432}\n  b:\n    exec: y\n    port: 5432\n",
            5,
            "port 5432 is already that of the service on line 2",
        ),
        ("  {a: {exec: x, port: 5432}, b: {exec: y, port: 5432}}\n", 2, "on line 2; leave one out"),
        ("  api-debug: x\n  api_debug: y\n", 3, "on line 2: API_DEBUG_PORT"),
        ("  api: x\n  API: y\n", 3, "on line 2: API_PORT"),
    ];

    /// Values.
    const VALUES: &[Row] = &[
        ("  a: {exec: x, no-port: true, tailnet: true}\n", 2, "`tailnet: true` needs a port"),
        ("  a: {exec: x, one-shot: true, tailnet: true}\n", 2, "`tailnet: true` needs a port"),
        ("  a: {no-port: true}\n", 2, "neither `exec` nor a port"),
        ("  a: {one-shot: true, port: 5432}\n", 2, "this one-shot has no `exec`"),
        ("  a: {exec: x, one-shot: true, restart: always}\n", 2, "a one-shot runs once"),
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
        ("  a: {exec: x, cwd: './${services.b.port}'}\n  b: y\n", 2, "before the services have ports"),
        ("  a: {exec: x, port: '${HOME}'}\n", 2, "does not expand to a number"),
        ("  a:\n    exec: x\n    port-env: DEVPORT_X\n", 4, "devport sets itself"),
        ("  a: {exec: x, port: '5432'}\n", 2, "expected a port in 1024-65535, found a text"),
        ("  a:\n    exec: x --db ${services.bd.port}\n  db: y\n", 3, "no service `bd`, did you mean `db`?"),
        ("  a: {exec: 'x ${services.db.prot}'}\n  db: y\n", 2, "${services.db.port}"),
        ("  a: {exec: 'x ${services.m.url}'}\n  m: {exec: y, one-shot: true}\n", 2, "`m` has no port to refer to"),
        (
            "  a: {exec: x}\n  b:\n    exec: y\n    env:\n      A: hunter2 ${checkout.foo}\n",
            6,
            "a checkout has `name`, `slug` and `root`",
        ),
        ("  my app: x\n", 2, "such as `my-app`"),
        ("  -a: x\n", 2, "such as `a`"),
        ("  devport: x\n", 2, "cannot be called devport"),
        ("  a: x\n  b: y\n  a: z\n", 4, "`a` is already on line 2"),
        ("  a: 5\n", 2, "expected a command, or a map with `exec`, found a number"),
        ("  a: {exec: x, one-shot: 1}\n", 2, "expected a boolean"),
        ("  a: {exec: x, shared: [y]}\n", 2, "expected a boolean"),
    ];

    #[test]
    fn mistakes_have_their_line_and_a_suggestion() {
        for (text, line, part) in NAMES.iter().chain(VALUES) {
            let error = services(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("d.yaml:{line}: ")), "{text:?}: {error}");
            assert!(error.contains(*part) && !error.contains('\n') && !error.contains("hunter"), "{text:?}: {error}");
        }
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

    #[test]
    fn the_order_is_that_of_the_named_services() {
        let stack = read(SHOP).unwrap();
        let names = |names: &[&str], alone| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let order = stack.order(&names, alone)?;
            let names: Vec<&str> = order.services.iter().map(|service| service.name.as_str()).collect();
            crate::error::Result::Ok(names.join(" "))
        };
        assert_eq!(names(&["api"], false).unwrap(), "db migrate api");
        assert_eq!(names(&["web", "db"], true).unwrap(), "db web");
        let error = names(&["wbe"], false).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean web?"));
    }

    proptest! {
        #[test]
        fn no_services_panic(text in "(  [ab-]: |exec|env|port|cwd|: |\\{|\\}|\n|    |depends-on|\\[a, b\\]|x|5|\\$\\{|services\\.|checkout\\.|port\\}|one-shot|shared|true|, |é){0,40}") {
            let _ = services(&text);
        }
    }
}
