//! The arguments of the commands that show services.

use clap::{Args, ValueEnum};

use crate::config::Span;

/// List services.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport ls
  devport ls --active
  devport ls --here
  devport ls --json | jq -r '.[] | select(.state == \"ready\") | .port'")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct Ls {
    /// List only services that run
    #[arg(long)]
    pub(crate) active: bool,
    /// List only services of this checkout
    #[arg(long)]
    pub(crate) here: bool,
    /// Add the port, the directory, and the memory and processor use of all processes
    #[arg(long, short)]
    pub(crate) wide: bool,
    /// Refresh the list in place until Ctrl-C
    #[arg(long, short = 'W')]
    pub(crate) watch: bool,
}

/// Show one service, or the processes that listen on a port.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport which api
  devport which 19000
  devport which 3000        any port: the processes that listen on it
  devport which api --json | jq .error

The exit code is 4 if there is no such service and nothing listens on such a port.")]
pub(crate) struct Which {
    /// Key or id of a service, or any port of this machine
    pub(crate) target: String,
}

/// Show the terminal of a service.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport attach api
  devport attach            choose from the running services

Ctrl-B D goes back; inside tmux, Ctrl-B L does. In the window, Ctrl-C stops the service and Ctrl-Z restarts it. When the \
service ends, attach ends too: it never shows another service.")]
pub(crate) struct Attach {
    /// Key, id or port of the service; without one, choose from a list
    pub(crate) target: Option<String>,
}

/// Print the output of services.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
#[command(after_help = "\
Examples:
  devport logs api
  devport logs -n 50 api
  devport logs -f api web           follow two services, merged by time
  devport logs --since 10m          print the output of all services of this checkout
  devport logs --previous api       print the last run that has ended: why it crashed
  devport logs -i --grep 'error|warn' --timestamps api
  devport logs --json api           one object per line: time, service, run, line

The log has standard output and standard error in one stream.

If no line matches --grep, devport says so on standard error, and exits with code 0.")]
pub(crate) struct Logs {
    /// Print only the last N lines of each service [default: all, or 10 with -f]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// Follow the output, also after a restart
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print only output of the last TIME, such as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Span>,
    /// Print only run N; the line of each start has the number of its run
    #[arg(long, value_name = "N", conflicts_with = "previous")]
    pub(crate) run: Option<u64>,
    /// Print only the last run that has ended
    #[arg(long)]
    pub(crate) previous: bool,
    /// Print the time before each line
    #[arg(long, short = 't')]
    pub(crate) timestamps: bool,
    /// Print only lines that match a regular expression
    #[arg(long, value_name = "REGEX")]
    pub(crate) grep: Option<String>,
    /// Ignore case in --grep
    #[arg(long, short, requires = "grep")]
    pub(crate) ignore_case: bool,
    /// Print the output of all services of this machine
    #[arg(long)]
    pub(crate) all: bool,
    /// Keys, ids or ports [default: all services of this checkout]
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    pub(crate) targets: Vec<String>,
}

/// The state to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// The readiness check passes
    Ready,
    /// No process is left
    Stopped,
}

impl Goal {
    /// Returns the name of the state.
    pub(crate) fn state(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Stopped => "stopped",
        }
    }
}

/// Wait until services are ready, or have stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport wait api
  devport wait api web --timeout 2m
  devport wait              every service of this checkout that runs or has failed
  devport wait api --for stopped

devport runs the tcp, http or exec check of a ready service again. If the wait fails, devport exits with code 5 and \
prints the reason and the last output of the service.")]
pub(crate) struct Wait {
    /// Longest time to wait
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: Span,
    /// State to wait for
    #[arg(long = "for", value_enum, value_name = "STATE", default_value = "ready")]
    pub(crate) goal: Goal,
    /// Wait for the services of this machine that run or have failed
    #[arg(long)]
    pub(crate) all: bool,
    /// Keys, ids or ports [default: the services of this checkout that run or have failed]
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    pub(crate) targets: Vec<String>,
}

/// Print the names of a service's environment variables, and the values with --show-secrets.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport env api
  devport env --show-secrets api DATABASE_URL")]
pub(crate) struct Env {
    /// Print the values too
    #[arg(long)]
    pub(crate) show_secrets: bool,
    /// Key, id or port of the service
    pub(crate) target: String,
    /// Print only this variable: its name, or its bare value with --show-secrets
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Key, id or port of the service
    pub(crate) target: String,
}
