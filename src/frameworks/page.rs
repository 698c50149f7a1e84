//! The tables of `docs/frameworks.md`, made from the table of frameworks. The test of the page writes what it should be
//! to `target/frameworks.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::frameworks::command::join_for_shell;
use crate::frameworks::framework::{Binds, Framework, Language, Reads, WhenTaken};
use crate::frameworks::table::FRAMEWORKS;

/// The lines of the page that a table stands between, by the language of its frameworks.
const TABLES: [(&str, Language); 3] =
    [("JavaScript", Language::JavaScript), ("Python", Language::Python), ("Other", Language::Other)];

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/frameworks.md")
}

/// Returns the line to type, with `$PORT` as a shell reads it.
fn line(row: &Framework) -> String {
    let reads_port = row.reads == Reads::Variable("PORT");
    let mut arguments = row.port_arguments(&[], "PORT");
    if reads_port {
        arguments.drain(..row.arguments.len());
    }
    let (command, separator) = match row.language {
        Language::JavaScript => ("npm run dev", " -- "),
        Language::Python | Language::Other => (row.command, " "),
    };
    if arguments.is_empty() {
        command.to_owned()
    } else {
        format!("{command}{separator}{}", join_for_shell(&arguments))
    }
}

fn when_taken(row: &Framework) -> String {
    let text = match (row.reads, row.when_taken) {
        (Reads::AppCode, WhenTaken::Exits) => "the app's code decides",
        (_, WhenTaken::Exits) => "exits",
        (_, WhenTaken::Moves) => "**takes another port**",
        (_, WhenTaken::Prompts) => "asks a question",
        (_, WhenTaken::Hangs) => "prints an error, runs on",
        (_, WhenTaken::Unknown) => "not known",
    };
    match row.strict {
        strict if row.when_taken != WhenTaken::Exits && is_about_ports(strict) => {
            format!("{text}; with this line, exits")
        }
        _ => text.to_owned(),
    }
}

/// Returns whether arguments are about ports, and not about a browser only.
fn is_about_ports(arguments: &[&str]) -> bool {
    arguments.iter().any(|argument| argument.to_ascii_lowercase().contains("port"))
}

fn table(language: Language) -> String {
    let rows = || FRAMEWORKS.iter().filter(move |row| row.language == language);
    let mut text = String::from(
        "| framework | plain command | reads PORT | to type | if the port is taken | listens on | tried |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows() {
        let reads = match row.reads {
            Reads::Variable("PORT") => format!("**yes**; else {}", row.default_port),
            Reads::Variable(other) => format!("no, `{other}`; else {}", row.default_port),
            Reads::Nothing => format!("no; {}", row.default_port),
            Reads::AppCode => "its code decides".into(),
        };
        let listens = match row.binds {
            _ if row.reads == Reads::AppCode => "its code decides".into(),
            Binds::ThisMachine => "this machine".into(),
            Binds::All([]) => "**all addresses**; no option".into(),
            Binds::All(arguments) => format!("**all addresses**; `{}`", arguments.join(" ")),
        };
        let tried = row.tried.unwrap_or("no");
        let (name, command, line, taken) = (row.name, row.command, line(row), when_taken(row));
        let _ = writeln!(text, "| {name} | `{command}` | {reads} | `{line}` | {taken} | {listens} | {tried} |");
    }
    text.push('\n');
    for row in rows().filter(|row| !row.note.is_empty()) {
        let _ = writeln!(text, "- **{}**: {}", row.name, row.note);
    }
    text
}

/// Returns the page with new tables.
///
/// # Panics
/// If the page does not have the lines around a table.
fn with_tables(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, language) in TABLES {
        let (begin, end) = (format!("<!-- table {name} -->\n"), format!("<!-- end {name} -->\n"));
        let (before, rest) = page.split_once(&begin).expect("the table's first line");
        let (_, after) = rest.split_once(&end).expect("the table's last line");
        page = format!("{before}{begin}\n{}\n{end}{after}", table(language));
    }
    page
}

#[test]
fn the_page_has_the_tables_of_the_source() {
    let text = fs::read_to_string(page()).unwrap();
    let expected = with_tables(&text);
    if text != expected {
        let new = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/frameworks.md");
        fs::write(&new, expected).unwrap();
        panic!("docs/frameworks.md does not have the tables of the source; {} has", new.display());
    }
}

#[test]
fn the_script_that_tries_the_page_knows_every_row() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/frameworks");
    let script = fs::read_to_string(script).unwrap();
    for row in FRAMEWORKS {
        assert!(script.contains(&format!("\"{}\":", row.name)), "{}", row.name);
    }
}
