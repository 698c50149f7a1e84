//! `devport.yaml` and `Procfile`: reads and checks a whole file before anything is started from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::config::dotenv::text_of;
use crate::config::entry::{Entry, check_ports};
use crate::config::fields::{COMMON_FIELDS, LIST_FIELDS, foreign_service_field, known_fields, text, wrong_type};
use crate::config::file_context::FileContext;
use crate::config::mistakes::Mistakes;
use crate::config::procfile;
use crate::config::request::Request;
use crate::config::stack::Stack;
use crate::config::stack_file;
use crate::config::yaml::{self, Kind, Node, Value};
use crate::error::{Error, Result};
use crate::identity::Key;
use crate::os::file::{read_any, read_regular};
use crate::project::Place;

/// The hint for mistakes in a `devport.yaml`.
const EXAMPLES: &str = "`devport up --help` lists every field";

/// The names of the files that are searched for, in the order of their preference.
const FILE_NAMES: [&str; 4] = ["devport.yaml", "devport.yml", "Procfile.dev", "Procfile"];
/// The largest file that is searched for `services`, in bytes. A larger one may have a stack.
const LARGEST: u64 = 1024 * 1024;
/// The largest file that is parsed for the name of its stack, in bytes. A larger one takes longer than reading a thousand
/// records.
const LARGEST_PARSED: u64 = 64 * 1024;

/// What a file declares.
#[derive(Debug)]
pub(crate) enum ConfigFile {
    /// A list of services that are independent of each other.
    List(Vec<Request>),
    /// The object form, or a Procfile.
    Stack(Stack),
}

/// Reads and checks a file: a Procfile by its name, else a `devport.yaml`.
///
/// # Errors
/// [`Error::InvalidFile`] or [`Error::InvalidLines`] with all mistakes and their lines.
pub(crate) fn load(context: &FileContext<'_>) -> Result<ConfigFile> {
    let text = text_of(context.path, "configuration", read_any)?;
    parse(&text, context)
}

/// Returns the nearest `devport.yaml` from the directory of a place up to the root of its checkout, or else the nearest
/// Procfile; `None` if there is neither.
pub(crate) fn nearest_file(place: &Place) -> Option<PathBuf> {
    let directories = || place.directory().ancestors().take_while(|directory| directory.starts_with(place.root()));
    let find = |names: &[&str]| {
        directories().flat_map(|directory| names.iter().map(|name| directory.join(name))).find(|path| path.is_file())
    };
    let (of_devport, of_others) = FILE_NAMES.split_at(2);
    find(of_devport).or_else(|| find(of_others))
}

/// Returns whether the nearest file of a place may be a stack. The file is not parsed: every object form contains
/// `services`, and a list that contains it too is taken for one.
pub(crate) fn may_have_stack(place: &Place) -> bool {
    nearest_file(place).is_some_and(|file| {
        let text = read_regular(&file, LARGEST).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        is_procfile(&file) || text.is_none_or(|text| text.contains("services"))
    })
}

/// Returns the name of the stack in a file: `default` if the file does not give it one. `None` if the file is no stack, or
/// is too large to be parsed for a name. Checks nothing else in it.
pub(crate) fn stack_name_in(file: &Path, default: impl FnOnce() -> String) -> Option<String> {
    if is_procfile(file) {
        return Some(default());
    }
    let text = String::from_utf8(read_regular(file, LARGEST_PARSED).ok()?).ok()?;
    let Value::Map(fields) = yaml::parse(&text).ok()??.value else { return None };
    let value = fields.into_iter().find(|(field, _)| field.text == "name").map(|(_, node)| node.value);
    match value {
        Some(Value::Scalar(Kind::Text, name)) => Some(name),
        Some(_) => None,
        None => Some(default()),
    }
}

/// Returns whether a file is a Procfile, by its name.
fn is_procfile(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("Procfile"))
}

/// Parses and checks the text of a file.
pub(super) fn parse(text: &str, context: &FileContext<'_>) -> Result<ConfigFile> {
    let mut mistakes = Mistakes::default();
    if is_procfile(context.path) {
        let stack = procfile::read(text, &mut mistakes);
        return mistakes.or(
            context.path,
            "a line is `name: command`, an empty line or a # comment",
            ConfigFile::Stack(stack),
        );
    }
    let root = yaml::parse(text).map_err(|(line, why)| Error::InvalidFile {
        path: context.path.to_owned(),
        line: Some(line),
        why,
        hint: Some(EXAMPLES.into()),
    })?;
    let file = match &root {
        None => ConfigFile::List(Vec::new()),
        Some(root) if root.is_null() => ConfigFile::List(Vec::new()),
        Some(Node { value: Value::List(items), .. }) => ConfigFile::List(read_list(items, &mut mistakes)),
        Some(Node { value: Value::Map(fields), .. }) => {
            ConfigFile::Stack(stack_file::read(fields, context, &mut mistakes))
        }
        Some(root) => {
            wrong_type(
                root,
                "a list of services (lines that begin with \"- \"), or a map with `services:`",
                &mut mistakes,
            );
            ConfigFile::List(Vec::new())
        }
    };
    mistakes.or(context.path, EXAMPLES, file)
}

/// Reads the list form.
fn read_list(items: &[Node], mistakes: &mut Mistakes) -> Vec<Request> {
    let mut keys = HashMap::new();
    let entries: Vec<Entry> = items.iter().map(|node| read_entry(node, &mut keys, mistakes)).collect();
    check_ports(&entries, mistakes);
    entries.into_iter().map(|entry| entry.request).collect()
}

/// Reads one entry: a command, or a map with `exec`. `keys` has the keys of earlier entries and their lines.
fn read_entry(node: &Node, keys: &mut HashMap<String, usize>, mistakes: &mut Mistakes) -> Entry {
    let fields = match &node.value {
        Value::Map(fields) => fields,
        Value::Scalar(Kind::Text, _) => return Entry::command(node, mistakes),
        _ => {
            wrong_type(node, "a command or an object with `exec`", mistakes);
            return Entry::default();
        }
    };
    let explain = |field: &str| foreign_service_field(field, false);
    let fields = known_fields(fields, &[&LIST_FIELDS, &COMMON_FIELDS], explain, mistakes);
    let mut entry = Entry::read(&fields, None, mistakes);
    if let Some((_, _, node)) = fields.iter().find(|(field, ..)| *field == "key") {
        let check = |name: &str| unused_key(keys, name, node.line);
        entry.request.key = text(node, "a key (put quotes around a number)", mistakes, check);
    }
    if entry.exec_line.is_none() {
        mistakes.add(node.line, "this service has no `exec`");
    }
    entry.finish(node.line, false, mistakes);
    entry
}

/// Checks that no earlier entry has the key.
fn unused_key(keys: &mut HashMap<String, usize>, name: &str, line: usize) -> std::result::Result<Key, String> {
    if let Some(first) = keys.get(name) {
        return Err(format!("key {name:?} belongs to an earlier service of this file, on line {first}"));
    }
    keys.insert(name.to_owned(), line);
    Key::new(name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::environment::CallerEnvironment;
    use crate::config::request::{EnvSource, PortRequest};
    use crate::identity::TailnetName;
    use proptest::prelude::*;
    use std::path::Path;

    fn read(text: &str) -> Result<ConfigFile> {
        let caller = CallerEnvironment::default();
        parse(text, &FileContext { path: Path::new("d.yaml"), caller: &caller, checkout: None, checks_paths: true })
    }

    fn parsed(text: &str) -> Result<Vec<Request>> {
        match read(text)? {
            ConfigFile::List(entries) => Ok(entries),
            ConfigFile::Stack(stack) => panic!("{stack:?}"),
        }
    }

    fn files(paths: &[&str]) -> Vec<EnvSource> {
        paths.iter().map(|path| EnvSource::File(path.into())).collect()
    }

    #[test]
    fn every_field_is_read() {
        let text = "- sleep '1 2'\n- key: web\n  exec: \"npm run 'a b'\"\n  cwd: ~/x\n  port: 20000\n  port-env: VITE_PORT\n  tailnet: true\n  tailnet-name: my-web\n  env: [a.env, ~/b.env]\n  scheme: https\n- {exec: x, no-port: true, env: /c.env}\n";
        let entries = parsed(text).unwrap();
        assert_eq!(entries[0].cmd, ["sleep", "1 2"]);
        assert_eq!(entries[0].name(), "sleep '1 2'");
        let requests: Vec<_> = entries
            .into_iter()
            .map(|entry| entry.written_in(Path::new("/p/devport.yaml"), Some(Path::new("/h"))))
            .collect();
        assert_eq!(requests[0].cwd, Path::new("/p"));
        assert_eq!(requests[1].cmd, ["npm", "run", "a b"]);
        assert_eq!(requests[1].cwd, Path::new("/h/x"));
        assert_eq!(requests[1].port, PortRequest::Exactly(20000));
        assert_eq!(requests[1].port_env.as_deref(), Some("VITE_PORT"));
        assert!(requests[1].tailnet);
        assert_eq!(requests[1].tailnet_name.as_ref().map(TailnetName::as_str), Some("my-web"));
        assert_eq!(requests[1].scheme.as_deref(), Some("https"));
        assert_eq!(requests[1].env, files(&["/p/a.env", "/h/b.env"]));
        assert_eq!(requests[2].port, PortRequest::NoPort);
        assert_eq!(requests[2].env, files(&["/c.env"]));
    }

    #[test]
    fn words_and_variables_are_taken_as_written() {
        let text = "- exec: [sh, -c, 'echo $1 \"a\"', 1.10, true]\n  env: [a.env, {A: x, B: 1.10, C: yes, D: true, E: ''}, b.env]\n";
        let entry = parsed(text).unwrap().remove(0);
        assert_eq!(entry.cmd, ["sh", "-c", "echo $1 \"a\"", "1.10", "true"]);
        let values = [("A", "x"), ("B", "1.10"), ("C", "yes"), ("D", "true"), ("E", "")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let [first, last] = [files(&["a.env"]).remove(0), files(&["b.env"]).remove(0)];
        assert_eq!(entry.env, [first, EnvSource::Values(values), last]);
    }

    #[test]
    fn a_check_has_its_own_times() {
        let text = "- exec: x\n  ready: {tcp: true, timeout: 9s}\n  health:\n    http: http://localhost:$PORT/up\n    status: 204\n    interval: 1s\n    timeout: 2s\n    failures: 4\n";
        let policy = parsed(text).unwrap().remove(0).policy;
        let times = [policy.ready_timeout, policy.health_interval, policy.health_timeout];
        assert_eq!((times.map(|span| span.0.as_secs()), policy.health_failures), ([9, 1, 2], 4));
        assert_eq!(policy.health.unwrap().to_string(), "http:204:/up");
    }

    #[test]
    fn an_empty_file_is_an_empty_list() {
        for text in ["", "# nothing\n", "[]\n", "null\n", "---\n"] {
            assert_eq!(parsed(text).unwrap().len(), 0, "{text:?}");
        }
    }

    /// A text, the line of its first mistake, and a part of the message.
    type Row = (&'static str, usize, &'static str);

    /// Fields and what they have to do with each other.
    const FIELDS: &[Row] = &[
        ("- key: a\n  exec: x\n  prot: 1\n", 3, "unknown field `prot`, did you mean `port`?"),
        ("- exec: x\n  port_env: A\n", 2, "did you mean `port-env`?"),
        ("- command: x\n  exec: y\n", 1, "did you mean `exec`?"),
        ("- exec: x\n  environment: {A: b}\n", 2, "did you mean `env`?"),
        ("- exec: x\n  depends_on: [y]\n", 2, "only a file in object form"),
        ("- exec: x\n  exec: y\n", 2, "duplicate field `exec`"),
        (
            "- key: a\n  exec: x\n- key: a\n  exec: y\n",
            3,
            "\"a\" belongs to an earlier service of this file, on line 1",
        ),
        ("- key: a\n", 1, "no `exec`"),
        ("- exec: x\n  no-port: maybe\n", 2, "expected a boolean"),
        ("- exec: x\n  no-port: yes\n", 2, "write `true` instead of `yes`"),
        ("- exec: x\n  port: 80\n", 2, "not in 1024-65535"),
        ("- exec: x\n  port: many\n", 2, "expected a port in 1024-65535, found a text"),
        ("- exec: x\n  port: -5\n", 2, "expected a port"),
        (
            "- exec: x\n  port: 2000\n- exec: y\n- exec: z\n  port: 2000\n",
            5,
            "port 2000 is already that of the service on line 2",
        ),
        ("- exec: x\n  port: 2000\n  no-port: true\n", 2, "exclude each other"),
        ("- exec: x\n  no-port: true\n  ready: tcp\n", 1, "it has none"),
        ("- exec: x\n  scheme: postgres://\n", 2, "is no scheme"),
        ("- exec: x\n  ready: {http: /, stauts: 5}\n", 2, "unknown field `stauts`, did you mean `status`?"),
        ("- exec: x\n  ready:\n    tcp: true\n    log: x\n", 3, "one check is enough"),
        ("- exec: x\n  backoff: {initial: 5}\n", 2, "expected a duration"),
        ("- exec: x\n  log: {keep: -1}\n", 2, "expected a whole number"),
        ("- exec: x\n  restart: unless-stopped\n", 2, "always, on-failure or never"),
    ];

    /// Commands, variables and syntax.
    const VALUES: &[Row] = &[
        ("- exec: \"a 'b\"\n", 1, "does not split"),
        ("- exec: []\n", 1, "command is empty"),
        ("- exec: [x, [y]]\n", 1, "expected a word"),
        ("- \"  \"\n", 1, "command is empty"),
        ("- x\n- null\n", 2, "expected a command"),
        ("- 12345\n", 1, "expected a command"),
        ("- exec: x\n  cwd: 5\n", 2, "the path of a directory, found a number"),
        ("- exec: x\n  env: 5\n", 2, "expected the path"),
        ("- exec: x\n  env: {A: hunter2, A: hunter3}\n", 2, "duplicate variable A"),
        ("- exec: x\n  env:\n    A: [hunter2]\n", 3, "for the variable A, found a list"),
        ("- exec: x\n  env:\n    A:\n", 3, "A has no value"),
        ("- exec: x\n  env:\n    DEVPORT_KEY: hunter2\n", 3, "devport sets itself"),
        ("- exec: x\n  env:\n    a-b: hunter2\n", 3, "cannot be the name of a variable"),
        ("- exec: x\n  env: [A=hunter2]\n", 2, "`A: value`"),
        ("- exec: x\n  env: a-b=hunter2\n", 2, "`a-b: value`"),
        ("- key: -x\n  exec: x\n", 1, "starts with a dash"),
        ("\na: b\n  ", 1, "expected a list of services"),
        ("text\n", 1, "expected a list of services"),
        ("- a\n\t- b\n", 2, "begins with a tab"),
        ("- [\n", 1, ""),
        ("- x\n---\n- y\n", 2, "more than one YAML document"),
        ("- exec: !include x\n", 1, "YAML tag"),
        ("- exec: x\n  ready:\n    tcp: true\n    failures: 3\n", 4, "`failures` belongs to `health`"),
        ("- exec: x\n  ready: {log: up, interval: 1s}\n", 2, "`interval` has no effect with `log:up`"),
        ("- exec: x\n  ready: {none: true, timeout: 1s}\n", 2, "`timeout` has no effect with `none`"),
        ("- exec: x\n  ready:\n    tcp: false\n", 3, "`tcp: false` has no effect"),
        ("- exec: x\n  health:\n    interval: 1s\n", 3, "`health` needs a check"),
        ("- exec: x\n  window: 9s\n", 1, "no effect without max-restarts"),
        ("- exec: x\n  ready: http://example.com/\n", 2, "a check queries this machine"),
    ];

    #[test]
    fn errors_name_the_line_and_what_was_meant() {
        for (text, line, part) in FIELDS.iter().chain(VALUES) {
            let error = read(text).unwrap_err();
            let message = error.lines().remove(0);
            assert!(message.starts_with(&format!("d.yaml:{line}: ")), "{text:?}: {message}");
            assert!(message.contains(*part), "{text:?}: {message}");
            assert!(!error.to_string().contains("hunter"), "{text:?}: {error}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_in_the_order_of_their_lines() {
        let text = "- exec: x\n  port: 80\n- exce: y\n- exec: z\n  restart: no\n  env: {A: []}\n";
        let error = read(text).unwrap_err();
        let lines: Vec<String> = error.lines().iter().map(|line| line[..9].to_owned()).collect();
        assert_eq!(lines, ["d.yaml:2:", "d.yaml:3:", "d.yaml:3:", "d.yaml:5:", "d.yaml:6:"]);
        assert_eq!(error.to_string(), error.lines().join("\n"));
        let many = read(&"- 5\n".repeat(1000)).unwrap_err();
        assert_eq!((many.lines().len(), many.lines()[20].as_str()), (21, "d.yaml: 980 more mistakes"));
    }

    #[test]
    fn alias_bombs_and_deep_nesting_end_quickly() {
        let mut bomb = String::from("- &a [x, x]\n");
        for level in 'b'..='z' {
            let before = char::from_u32(u32::from(level) - 1).unwrap();
            bomb += &["- &", &level.to_string(), " [", &format!("*{before}, ").repeat(8), "x]\n"].concat();
        }
        assert!(parsed(&bomb).unwrap_err().to_string().contains("aliases expand"));
        for text in [
            "[".repeat(100_000),
            format!("- exec: x\n  env: {}", "[".repeat(100_000)),
            "- ".repeat(100_000),
            (0..2000).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n"),
            "? ".repeat(100_000),
            format!("- {}", "{a: ".repeat(100_000)),
        ] {
            assert!(parsed(&text).unwrap_err().to_string().contains("nest deeper"), "{:?}", &text[..20]);
        }
    }

    #[test]
    fn aliases_are_read() {
        let entries = parsed("- &web\n  exec: x\n  port-env: A\n- *web\n").unwrap();
        assert_eq!((&entries[1].cmd, &entries[1].port_env), (&entries[0].cmd, &entries[0].port_env));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z:&*\\[\\]{}'\"\n |>#!%0-9]{0,60}") {
            let _ = read(&text);
        }

        #[test]
        fn no_fields_panic(text in "(- |exec|env|port|ready|services|depends-on|: |\n|  |\\[|\\]|\\{|\\}|, |x|5|~|\\$\\{services\\.x\\.port\\}|&a |\\*a ){0,40}") {
            let _ = read(&text);
        }
    }
}
