//! `Framework`: one row of the table of frameworks.

/// How a dev server takes its port.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "some fields are for the page only, which the tests write"))]
pub(crate) struct Framework {
    /// The name for people.
    pub(super) name: &'static str,
    pub(super) language: Language,
    /// The programs that start it, each with the subcommand that must follow somewhere. Those of a Node.js package are
    /// without their extension.
    pub(super) programs: &'static [&'static str],
    /// The npm packages that contain it, or that an app of it depends on.
    pub(super) packages: &'static [&'static str],
    /// The plain command: typed, or the script in `package.json`.
    pub(super) command: &'static str,
    pub(super) reads: Reads,
    /// The port that it uses if nothing sets one.
    pub(super) default_port: u16,
    /// The arguments that set its port to `$PORT`; none if it has no such option.
    pub(super) arguments: &'static [&'static str],
    /// The arguments that stop it from using another port or from asking a question, if it needs any.
    pub(super) strict: &'static [&'static str],
    /// The options that set its port, to find those of a command.
    pub(super) port_options: &'static [&'static str],
    /// What it does if its port is taken and `strict` is not given.
    pub(super) when_taken: WhenTaken,
    pub(super) binds: Binds,
    /// The version that was tried; `None` if the row is from its source or documentation.
    pub(super) tried: Option<&'static str>,
    /// What else to know, as a sentence; may be empty.
    pub(super) note: &'static str,
}

/// The language of a framework's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    JavaScript,
    Python,
    Other,
}

/// Which variable sets the port of a framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    Nothing,
    /// This variable, such as `PORT`.
    Variable(&'static str),
    /// What the app's own code reads.
    AppCode,
}

/// What a dev server does if its port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenTaken {
    /// Ends with an error.
    Exits,
    /// Uses another port.
    Moves,
    /// Prompts for another port on its terminal.
    Prompts,
    /// Prints an error, and goes on without a port.
    Hangs,
    /// Not tried.
    Unknown,
}

/// Which addresses a dev server binds by default.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "for the page only, which the tests write"))]
pub(super) enum Binds {
    /// Addresses that only this machine reaches.
    ThisMachine,
    /// All addresses, unless it gets these arguments; none if it has no such option.
    All(&'static [&'static str]),
}
