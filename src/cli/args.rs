//! The arguments, as clap parses them. Nothing here has an effect.

mod inspect;
mod service;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub(super) use inspect::{Attach, Env, Goal, Logs, Ls, Target, Wait, Which};
pub(super) use service::{Down, Reserve, Restart, Rm, Signal, Stop, Tailup, Up};
pub(super) use start::{NewService, Run, Start};

use crate::cli::output::Format;
use crate::config::Span;

/// The page of `devport --help`: one screen of 80 columns and 24 rows, which clap's own page with a line for each
/// command and option would not fit.
pub(super) const HELP: &str = "\
devport: runs dev services on fixed ports, and restarts them after a crash
Usage: devport [-C DIR] COMMAND [OPTIONS]

Services   start, run        Start services in the background; run one here
           stop, restart     Stop services; restart them as registered
           up, down          Start and stop the services of a devport.yaml
           signal            Send a signal to a service
           reserve, rm       Reserve a port; remove services and free ports
Inspect    ls, which         List services; show one, or who listens on a port
           logs, attach      Print the output of services; show a terminal
           wait              Wait until services are ready, or have stopped
           port, url, open   Print a port or an address; open it in the browser
           env               Print the environment of a service
Tailscale  tailup, taildown  Publish a service on Tailscale; unpublish it

Examples   devport start --key api -- npm run dev   start it, with PORT set
           devport up -d                            start the services of a file
           devport ls                               see what runs on which port
           devport logs -f api                      follow its output
           devport stop api                         stop it; it keeps its port

-C DIR runs in DIR. Everywhere: --json, --format auto|json|table (auto: JSON in
a pipe). TARGET: a key, an id or a port. More: devport COMMAND --help, README.md
";

#[derive(Debug, Parser)]
#[command(name = "devport", version, max_term_width = 100, override_help = HELP)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    // Hidden, because the page of every command would describe them again.
    #[arg(long, global = true, hide = true, value_enum, default_value = "auto", value_name = "FORMAT")]
    format: FormatArgument,
    #[arg(long, global = true, hide = true, conflicts_with = "format")]
    json: bool,
    #[arg(short = 'C', value_name = "DIR")]
    pub(super) directories: Vec<PathBuf>,
}

impl Arguments {
    /// Returns how results are printed.
    pub(super) fn format(&self) -> Format {
        match self.format {
            _ if self.json => Format::Json,
            FormatArgument::Auto => Format::Auto,
            FormatArgument::Json => Format::Json,
            FormatArgument::Table => Format::Table,
        }
    }
}

/// The values of `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArgument {
    /// A table on a terminal, JSON otherwise.
    Auto,
    Json,
    Table,
}

// Deferred, so that clap builds only the options of the command that is used: every start of the program pays for it.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(super) enum Command {
    Start(Start),
    Run(Run),
    Ls(Ls),
    Which(Which),
    Stop(Stop),
    Restart(Restart),
    Signal(Signal),
    Up(Up),
    Down(Down),
    Rm(Rm),
    Attach(Attach),
    Logs(Logs),
    Wait(Wait),
    /// Print the port of a service.
    #[command(after_help = "\
Examples:
  devport port api
  psql -p $(devport port db)")]
    Port(Target),
    /// Print the address of a service: on Tailscale if it is published there, else on this machine.
    #[command(after_help = "\
Examples:
  devport url api
  curl $(devport url api)/healthz")]
    Url(Target),
    /// Open the address of a service in the browser.
    #[command(after_help = "\
Examples:
  devport open web
  BROWSER=firefox devport open web")]
    Open(Target),
    Env(Env),
    Reserve(Reserve),
    Tailup(Tailup),
    /// Take a service off the tailnet. The service keeps running.
    #[command(after_help = "\
Examples:
  devport taildown api")]
    Taildown(Target),
}

/// Joins `--wait 5s` to `--wait=5s`. Clap would take any word after `--wait` as its value, also the key of a service, so
/// it only takes one after `=`. Words behind `--` belong to the service's command.
pub(super) fn join_wait(arguments: &[OsString]) -> Vec<OsString> {
    let own = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for (index, word) in arguments.iter().enumerate() {
        let is_time = || word.to_str().is_some_and(|word| word.parse::<Span>().is_ok());
        match joined.last_mut() {
            Some(last) if index < own && last == "--wait" && is_time() => {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::{ArgAction, CommandFactory};

    #[test]
    fn the_help_fits_one_screen_and_names_every_command() {
        assert!(HELP.lines().count() < 24, "{} lines", HELP.lines().count());
        for line in HELP.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            let words = HELP.split(|c: char| !c.is_ascii_alphabetic());
            assert!(words.into_iter().any(|word| word == name), "{name}");
        }
    }

    #[test]
    fn every_page_says_what_its_command_does_and_shows_it() {
        let mut root = Arguments::command();
        for command in root.get_subcommands_mut() {
            command.build();
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{name}");
            let page = command.render_help().to_string();
            assert!(page.contains("Examples:") && page.contains(&format!("devport {name} ")), "{page}");
            let described = |arg: &clap::Arg| arg.is_hide_set() || arg.get_help().is_some();
            assert!(command.get_arguments().all(described), "{page}");
        }
    }

    #[test]
    fn a_time_after_wait_is_its_value_and_any_other_word_is_not() {
        let joined = |words: &str| {
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            join_wait(&words).iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(joined("start --wait 5s --key q -- sleep 3"), "start --wait=5s --key q -- sleep 3");
        assert_eq!(joined("restart --wait 2m api"), "restart --wait=2m api");
        for same in
            ["start --wait -- 5s", "start --wait api", "start --wait 19000", "start --wait=5s 6s", "start -- --wait 5s"]
        {
            assert_eq!(joined(same), same);
        }
    }

    /// Returns the ways to type an option or argument, with values of every kind.
    fn spellings(arg: &clap::Arg) -> Vec<Vec<String>> {
        const VALUES: [&str; 8] = ["A=1", "3000", "tcp", "5s", "restart", "always", "TERM", "json"];
        let option =
            arg.get_long().map(|long| format!("--{long}")).or(arg.get_short().map(|short| format!("-{short}")));
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        match option {
            Some(option) if takes_value => VALUES.iter().map(|value| vec![format!("{option}={value}")]).collect(),
            Some(option) => vec![vec![option]],
            None if arg.is_last_set() => vec![vec!["--".into(), "true".into()]],
            None => vec![vec!["web".into()]],
        }
    }

    /// Returns the options and arguments of a command that it accepts in addition to these words.
    fn accepted(words: &[&str]) -> Vec<String> {
        let mut root = Arguments::command();
        root.build();
        let command = root.find_subcommand(words[0]).unwrap();
        let is_version_or_help = |arg: &&clap::Arg| matches!(arg.get_id().as_str(), "help" | "version");
        let mut accepted = Vec::new();
        for arg in command.get_arguments().filter(|arg| !is_version_or_help(arg)) {
            let words = words.iter().map(|word| (*word).to_owned());
            let parse = |own: Vec<String>| {
                Arguments::try_parse_from(std::iter::once("devport".to_owned()).chain(words.clone()).chain(own))
            };
            let is_of_another_kind =
                |error: &clap::Error| matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation);
            let mut parsed = spellings(arg).into_iter().map(parse);
            match parsed.find(|parsed| !parsed.as_ref().is_err_and(is_of_another_kind)) {
                Some(Ok(_)) => accepted.push(arg.get_id().to_string()),
                Some(Err(error)) => assert!(
                    // The others are `--tailnet-name` without `--tailnet`, and a second TARGET of `run`.
                    matches!(
                        error.kind(),
                        ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument
                    ),
                    "{error}"
                ),
                None => panic!("no value for {arg}"),
            }
        }
        accepted.sort();
        accepted
    }

    /// M5: an option that has no effect on a file or a registered service must be refused, also one that is added later.
    #[test]
    fn no_option_is_accepted_and_ignored() {
        assert_eq!(accepted(&["start", "-f", "x.yaml"]), ["format", "json", "no_tmux", "replace", "targets", "wait"]);
        assert_eq!(accepted(&["start", "api"]), ["file", "format", "json", "no_tmux", "replace", "targets", "wait"]);
        // A service in the foreground has no window: --no-tmux changes nothing by definition.
        assert_eq!(accepted(&["run", "api"]), ["format", "json", "no_tmux", "replace"]);
    }
}
