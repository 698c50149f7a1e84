//! What devport prints: results on standard output, notes and failures on standard error.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use serde_json::{Value, json};

use crate::cli::screen;
use crate::error::{Error, Result};
use crate::os::clock;
use crate::os::terminal::WindowSize;
use crate::text::printable;
use crate::view::{self, Group, Layout, PortView, ServiceView, TableStyle};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A table on a terminal, JSON otherwise.
    Auto,
    Json,
    Table,
}

/// Prints results in the format that the user chose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) format: Format,
    /// The environment has the variable `NO_COLOR` (see no-color.org).
    pub(super) forbids_color: bool,
}

impl Output {
    /// Returns whether results are printed as tables.
    pub(super) fn wants_table(self) -> bool {
        match self.format {
            Format::Auto => io::stdout().is_terminal(),
            Format::Json => false,
            Format::Table => true,
        }
    }

    /// Returns whether the user requested JSON explicitly. Commands that print one bare value on a pipe, such as `port`,
    /// print JSON only then.
    pub(super) fn wants_only_json(self) -> bool {
        self.format == Format::Json
    }

    /// Returns the style of tables on standard output.
    pub(super) fn table_style(self) -> TableStyle {
        self.style_on(&io::stdout())
    }

    /// Returns the style of tables and progress on standard error.
    pub(super) fn error_style(self) -> TableStyle {
        self.style_on(&io::stderr())
    }

    fn style_on(self, stream: &(impl IsTerminal + AsFd)) -> TableStyle {
        TableStyle {
            color: stream.is_terminal() && !self.forbids_color,
            width: WindowSize::of(stream).map(WindowSize::columns),
            now: clock::wall(),
        }
    }

    /// Prints services: as a table, or as JSON. `several` makes the JSON an array, even of one service. Without services
    /// there is no table.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(super) fn print_views(self, views: &[ServiceView], several: bool) -> Result<()> {
        let views: Vec<&ServiceView> = views.iter().collect();
        let text = match (self.wants_table(), views.as_slice(), several) {
            (true, [], _) => String::new(),
            (true, _, _) => view::list(&[Group { title: None, views }], self.table_style(), false),
            (false, [view], false) => view::service(view, json_layout())?,
            (false, views, _) => view::services(views, json_layout())?,
        };
        write_output(text.as_bytes())
    }

    /// Prints one service with all its details.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(super) fn print_details(self, view: &ServiceView) -> Result<()> {
        let text = if self.wants_table() {
            view::details(view, self.table_style())
        } else {
            view::service(view, json_layout())?
        };
        write_output(text.as_bytes())
    }

    /// Prints a port and the processes that listen on it.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(super) fn print_port(self, view: &PortView) -> Result<()> {
        let text = if self.wants_table() {
            view::port_details(view, self.table_style())
        } else {
            view::object(view, json_layout())?
        };
        write_output(text.as_bytes())
    }

    /// Prints a single fact for scripts: bare, or as an object with this field if JSON is requested.
    ///
    /// # Errors
    /// If standard output cannot be written to.
    pub(super) fn print_fact(self, field: &str, fact: &Value) -> Result<()> {
        let text = match fact {
            _ if self.wants_only_json() => view::object(&json!({ field: fact }), json_layout())?,
            Value::String(text) => format!("{text}\n"),
            other => format!("{other}\n"),
        };
        write_output(text.as_bytes())
    }
}

/// Returns how JSON on standard output is laid out.
pub(super) fn json_layout() -> Layout {
    if io::stdout().is_terminal() { Layout::Indented } else { Layout::Lines }
}

/// Writes to standard output.
///
/// # Errors
/// [`Error::ClosedOutput`] if the reader has closed the pipe, [`Error::System`] otherwise.
pub(super) fn write_output(bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut output = io::stdout().lock();
        output.write_all(bytes).and_then(|()| output.flush())
    };
    // A pipe may block for long, and must not keep notes from the terminal.
    let written = if io::stdout().is_terminal() { screen::above(write) } else { write() };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::ClosedOutput),
        written => written.map_err(Error::system("write to standard output")),
    }
}

/// Writes to standard error. There is no place to report a failure to, so it is ignored.
pub(super) fn write_error(bytes: &[u8]) {
    screen::above(|| {
        let _ = io::stderr().write_all(bytes);
    });
}

/// Prints a note on standard error.
pub(super) fn note(text: &str) {
    write_error(format!("devport: {}\n", printable(text)).as_bytes());
}

/// Prints a note as [`note`] does, and what the user can do about it.
pub(super) fn note_with_hint(text: &str, hint: Option<&str>) {
    note(text);
    if let Some(hint) = hint {
        write_error(format!("hint: {}\n", printable(hint)).as_bytes());
    }
}

/// Prints a failure that does not end the command, such as that of one service among several.
pub(super) fn report(name: &str, error: &Error) {
    report_with_retry(name, error, None);
}

/// Prints a failure as [`report`] does, with the command that tries again.
pub(super) fn report_with_retry(what: &str, error: &Error, retry: Option<&str>) {
    note_with_hint(&format!("{what}: {error}"), error.hint().as_deref());
    if let Some(retry) = retry {
        let _ = writeln!(io::stderr(), "retry: {}", printable(retry));
    }
}
