//! The arguments, as clap reads them. Nothing here does anything.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::output::Format;
use crate::cli::policy::PolicyArguments;
use crate::config::Span;

/// A port that never moves, and a supervisor, for every dev service on this machine.
#[derive(Debug, Parser)]
#[command(name = "devport", version, about, max_term_width = 100)]
#[command(after_help = "\
Examples:
  devport start --key api -- npm run dev    start a service with a port of its own
  devport ls                                what runs where
  devport logs -f api                       what it says
  devport attach api                        its terminal
  devport stop api                          end it; the port stays reserved

A TARGET is a key, the beginning of a hash (3 characters or more) or a port.
Exit codes: 0 done, 1 failed, 2 usage, 3 invalid configuration, 4 no such service or ambiguous,
5 not ready in time, 6 the key belongs to another checkout, 130 cancelled. `run` exits with its command's code.")]
pub(super) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
    /// How results are printed: auto is a table on a terminal and JSON otherwise.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "FORMAT")]
    format: FormatArgument,
    /// Short for --format json.
    #[arg(long, global = true, conflicts_with = "format")]
    json: bool,
    /// Run as if devport was started in this directory.
    #[arg(short = 'C', value_name = "DIR")]
    pub(super) directories: Vec<PathBuf>,
}

impl Arguments {
    /// How results are printed.
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
    /// JSON.
    Json,
    /// A table.
    Table,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start services in the background.
    Start(Start),
    /// Run a service in the foreground: standard output is its own.
    Run(Run),
    /// List services.
    Ls(Ls),
    /// Show one service, or what listens on a port.
    Which(Which),
    /// End services; their ports stay reserved.
    Stop(Stop),
    /// End services and start them again as they were registered.
    Restart(Restart),
    /// Send a signal to a service; SIGHUP restarts it in place.
    Signal(Signal),
    /// Start the services of a stack, in the order in which they need each other.
    Up(Up),
    /// Stop the services of a stack.
    Down(Down),
    /// End services, forget them and free their ports.
    Rm(Rm),
    /// Show the terminal of a service.
    Attach(Attach),
    /// Show what services have written.
    Logs(Logs),
    /// Wait until services are ready, or have ended.
    Wait(Wait),
    /// Print the port of a service, alone.
    Port(Target),
    /// Print the address of a service, alone.
    Url(Target),
    /// Show a service in the browser.
    Open(Target),
    /// Print the environment that a service gets: names, and values only if asked for.
    Env(Env),
    /// Reserve a port for something that devport does not run.
    Reserve(Reserve),
    /// Publish a service on the tailnet.
    Tailup(Tailup),
    /// Take a service off the tailnet.
    Taildown(Target),
}

/// What a new service is like.
#[derive(Debug, Args)]
pub(super) struct NewService {
    /// Name of the service; without it, directory and command name it.
    #[arg(long, short, value_name = "KEY")]
    pub(super) key: Option<String>,
    /// Variable that tells the service its port, instead of PORT.
    #[arg(long, value_name = "NAME", conflicts_with = "no_port")]
    pub(super) port_env: Option<String>,
    /// Port that it shall have, inside the range or not (1024-65535).
    #[arg(long, value_name = "PORT", conflicts_with = "no_port", value_parser = clap::value_parser!(u16).range(1024..))]
    pub(super) port: Option<u16>,
    /// It needs no port.
    #[arg(long)]
    pub(super) no_port: bool,
    /// Publish it on the tailnet.
    #[arg(long)]
    pub(super) tailnet: bool,
    /// Name that it shall have there, instead of its id.
    #[arg(long, value_name = "NAME", requires = "tailnet")]
    pub(super) tailnet_name: Option<String>,
    /// Dotenv file over the environment; may be given several times, later ones override earlier ones.
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// Variable with its value, over environment and dotenv files; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// The command. $VAR and ${VAR} in its words are replaced, $$ becomes $; no shell is involved.
    #[arg(last = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
    /// How it is watched over; last, because what follows would stand under its heading.
    #[command(flatten)]
    pub(super) policy: PolicyArguments,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "devport start [OPTIONS] -- CMD…\n       devport start [--detach] TARGET\n       devport start -f devport.yaml [KEY…]"
)]
#[command(after_help = "\
Examples:
  devport start --key api -- npm run dev
  devport start --key docs -- python3 -m http.server '$PORT'
  devport start --key web -- npm run dev -- --port '$PORT' --strictPort    Vite does not read PORT
  devport start --key api --port-env FLASK_RUN_PORT --env-file .env -- flask run
  devport start --wait --ready http:/healthz --key api -- npm run dev    back when it answers
  devport start api                      again, as it was registered
  devport start -f devport.yaml          every service of the file
  devport start -f devport.yaml api web  these two

Starting a service that is already running just prints it. --replace restarts it with the new command, directory,
environment and options; with -f it restarts only the services whose entries or env files have changed. A service
that waits to be tried again after a crash is tried at once, with the environment of this command.")]
pub(super) struct Start {
    /// Start the services of this file.
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with_all = ["key", "port_env", "port", "no_port", "tailnet", "tailnet_name", "env_file", "env", "command"])]
    pub(super) file: Option<PathBuf>,
    /// Run without a tmux window; the log is the only output.
    #[arg(long)]
    pub(super) detach: bool,
    /// Restart a running service with the new options; with -f only if they differ.
    #[arg(long)]
    pub(super) replace: bool,
    /// Come back when it is ready; exit code 5 if it is not within this time (30s).
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30s")]
    pub(super) wait: Option<Span>,
    /// A registered service to start again, or with -f the keys to start.
    #[arg(value_name = "TARGET")]
    pub(super) targets: Vec<String>,
    /// What the service is like.
    #[command(flatten)]
    pub(super) service: NewService,
}

#[derive(Debug, Args)]
#[command(override_usage = "devport run [OPTIONS] -- CMD…\n       devport run TARGET")]
#[command(after_help = "\
Examples:
  devport run --key api -- npm run dev
  devport run api                        again, as it was registered, and watch it
  devport run --key api -- ./server >out.log 2>err.log

ctrl-c ends the service, ctrl-z restarts it. devport's messages go to standard error.

Exit code: that of the command when it has ended and is not restarted (128 plus the signal's number if a signal ended
it); 0 after ctrl-c, SIGTERM or `devport stop`; 1 if devport could not run the command.")]
pub(super) struct Run {
    /// A registered service to run again.
    #[arg(value_name = "TARGET", conflicts_with_all = ["key", "port_env", "port", "no_port", "tailnet", "tailnet_name", "env_file", "env", "command"])]
    pub(super) target: Option<String>,
    /// Restart it here with the new options if it already runs.
    #[arg(long)]
    pub(super) replace: bool,
    /// Accepted for symmetry with `start`; a service in the foreground has no window to do without.
    #[arg(long, hide = true)]
    pub(super) detach: bool,
    /// What the service is like.
    #[command(flatten)]
    pub(super) service: NewService,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport ls
  devport ls --active
  devport ls --here
  devport ls --json | jq -r '.[] | select(.state == \"running\") | .port'")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option")]
pub(super) struct Ls {
    /// Only services that run.
    #[arg(long)]
    pub(super) active: bool,
    /// Only services of this checkout.
    #[arg(long)]
    pub(super) here: bool,
    /// Also memory and processor use of the whole process tree, port and directory.
    #[arg(long, short)]
    pub(super) wide: bool,
    /// Go on, and show what changes; ctrl-c ends it.
    #[arg(long, short = 'W')]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport which api
  devport which 19000
  devport which 3000        any port: the processes that listen there
  curl localhost:$(devport which api --json | jq .port)

Exit code 4 if there is no such service and nothing listens on such a port.")]
pub(super) struct Which {
    /// A key, the beginning of a hash, or any port of this machine.
    pub(super) target: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport stop api
  devport stop api web b7d
  devport stop --all
  devport stop --kill api

The whole process tree is gone when this returns: SIGTERM first, SIGKILL after the grace period. A stop that is under
way keeps its grace period, however often it is repeated; --kill ends it at once.")]
pub(super) struct Stop {
    /// Keys, beginnings of hashes, or ports.
    #[arg(value_name = "TARGET", required_unless_present = "all", conflicts_with = "all")]
    pub(super) targets: Vec<String>,
    /// Every service that runs.
    #[arg(long)]
    pub(super) all: bool,
    /// Send SIGKILL at once, without a grace period.
    #[arg(long)]
    pub(super) kill: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport restart api
  devport restart api web

Command, directory, environment and port are those that were registered, whatever shell this is.")]
pub(super) struct Restart {
    /// Keys, beginnings of hashes, or ports.
    #[arg(value_name = "TARGET", required = true)]
    pub(super) targets: Vec<String>,
    /// Run without a tmux window; the log is the only output.
    #[arg(long)]
    pub(super) detach: bool,
    /// Come back when they are ready; exit code 5 if one is not within this time (30s).
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30s")]
    pub(super) wait: Option<Span>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport signal api              SIGHUP: restart in place
  devport signal -s USR1 api      to the service's process group
  devport signal -s 10 api")]
pub(super) struct Signal {
    /// Name or number. HUP and TSTP restart the service, INT and TERM end it, others go to its processes.
    #[arg(long, short, value_name = "SIGNAL", default_value = "HUP")]
    pub(super) signal: String,
    /// A key, the beginning of a hash, or a port.
    pub(super) target: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport up -d                 the whole stack of devport.yaml, here or in a directory above
  devport up -d web             web, and what it needs

A service starts when those in its `depends-on` are ready. Services that run are left alone unless their entry or their
env files have changed. In a linked worktree every service has a key and a port of its own.")]
pub(super) struct Up {
    /// Only these services of the file, and what they need.
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// The file of the stack.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Come back when all services are ready.
    #[arg(long, short = 'd', required = true)]
    pub(super) detach: bool,
    /// Do not start what the named services need.
    #[arg(long, requires = "names")]
    pub(super) no_deps: bool,
    /// How long to wait for all services.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(super) timeout: Span,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport down                  the whole stack of this checkout; ports stay reserved
  devport down web              only web
  devport down --rm             forget the services, too

A shared service stays while another checkout runs a service that needs it.")]
pub(super) struct Down {
    /// Only these services of the file.
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// The file of the stack.
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Remove the services and free their ports.
    #[arg(long)]
    pub(super) rm: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport rm api
  devport rm api web

Every file of the service is deleted, its logs included, and its port is free for others.")]
pub(super) struct Rm {
    /// Keys, beginnings of hashes, or ports.
    #[arg(value_name = "TARGET", required = true)]
    pub(super) targets: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport attach api
  devport attach            choose from the services that run

ctrl-b d goes back. In the window ctrl-c ends the service and ctrl-z restarts it.")]
pub(super) struct Attach {
    /// A key, the beginning of a hash, or a port.
    pub(super) target: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport logs api
  devport logs -n 50 api
  devport logs -f api web           several are interleaved by time
  devport logs --since 10m          of all services
  devport logs --previous api       of the run before this one: why it crashed
  devport logs --grep 'ERROR|WARN' --timestamps api
  devport logs --json api           a line each: time, service, run, line")]
pub(super) struct Logs {
    /// Only the last N lines; 10 with -f unless given.
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<usize>,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only what was written in this time, such as 10m.
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<Span>,
    /// Only the run with this number; `logs --json` shows the numbers.
    #[arg(long, value_name = "N", conflicts_with = "previous")]
    pub(super) run: Option<u64>,
    /// Only the run before the last one.
    #[arg(long)]
    pub(super) previous: bool,
    /// The time of each line in front of it.
    #[arg(long, short = 't')]
    pub(super) timestamps: bool,
    /// Only lines that match a regular expression.
    #[arg(long, value_name = "REGEX")]
    pub(super) grep: Option<String>,
    /// Keys, beginnings of hashes, or ports; all services without one.
    #[arg(value_name = "TARGET")]
    pub(super) targets: Vec<String>,
}

/// What services are waited for to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Goal {
    /// Ready, as its check says.
    Ready,
    /// Ended.
    Stopped,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport wait api
  devport wait api web --timeout 2m
  devport wait api --for stopped

A tcp, http or exec check of a ready service is run again.
Exit code 5 if it does not come to be; standard error says why, with the end of the service's output.")]
pub(super) struct Wait {
    /// How long to wait at the most.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(super) timeout: Span,
    /// What to wait for.
    #[arg(long = "for", value_enum, value_name = "STATE", default_value = "ready")]
    pub(super) goal: Goal,
    /// Keys, beginnings of hashes, or ports.
    #[arg(value_name = "TARGET", required = true)]
    pub(super) targets: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport tailup api                      https://<id>.<your tailnet>.ts.net
  devport tailup --tailnet-name shop api  https://shop.<your tailnet>.ts.net
  devport tailup --tcp db                 tcp://<id>.<your tailnet>.ts.net:<its port>

It needs the tailscale program on a tagged machine, and TAILSCALE_API_KEY (or an OAuth client) unless an admin
defines and approves the service. Everybody whom the tailnet's policy lets in can reach it then.")]
pub(super) struct Tailup {
    /// By HTTPS on port 443; the usual way.
    #[arg(long, conflicts_with_all = ["http", "tcp"])]
    pub(super) https: bool,
    /// By HTTP on port 80: no certificate is needed.
    #[arg(long, conflicts_with = "tcp")]
    pub(super) http: bool,
    /// By TCP on the service's own port.
    #[arg(long)]
    pub(super) tcp: bool,
    /// Name on the tailnet, instead of the id.
    #[arg(long, value_name = "NAME")]
    pub(super) tailnet_name: Option<String>,
    /// A key, the beginning of a hash, or a port.
    pub(super) target: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport env api
  devport env --show-secrets api | grep DATABASE")]
pub(super) struct Env {
    /// Print the values too.
    #[arg(long)]
    pub(super) show_secrets: bool,
    /// A key, the beginning of a hash, or a port.
    pub(super) target: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport reserve --key postgres             prints its port, the same each time
  docker run -p $(devport reserve --key db):5432 postgres
  devport reserve --key legacy --port 8080")]
pub(super) struct Reserve {
    /// Name that the port is reserved for.
    #[arg(long, short, value_name = "KEY")]
    pub(super) key: String,
    /// Port that it shall be, inside the range or not (1024-65535).
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..))]
    pub(super) port: Option<u16>,
}

/// Arguments of commands about one service.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport taildown api
  curl $(devport url api)/healthz
  psql -p $(devport port db)")]
pub(super) struct Target {
    /// A key, the beginning of a hash, or a port.
    pub(super) target: String,
}
