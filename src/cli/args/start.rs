//! The arguments of `start` and `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::policy::PolicyArguments;
use crate::config::Span;

/// The options that describe a new service. Nothing may be flattened into this: clap would leave the options out of the
/// group, and would accept them together with a file or a registered service.
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Service")]
pub(crate) struct NewService {
    /// Name of the service; without one, the directory and the command identify it
    #[arg(long, short, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Directory to run the command in [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set an environment variable; repeatable, overrides dotenv files
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a dotenv file; repeatable, later files override earlier ones
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Request this port (1024-65535) instead of one from the pool
    #[arg(long, value_name = "PORT", conflicts_with = "no_port", value_parser = clap::value_parser!(u16).range(1024..))]
    #[arg(help_heading = "Port")]
    pub(crate) port: Option<u16>,
    /// Pass the port in this variable instead of PORT
    #[arg(long, value_name = "NAME", conflicts_with = "no_port", help_heading = "Port")]
    pub(crate) port_env: Option<String>,
    /// Assign no port
    #[arg(long, help_heading = "Port")]
    pub(crate) no_port: bool,
    /// Publish the service on the tailnet, the private network of Tailscale
    #[arg(long, help_heading = "Tailnet")]
    pub(crate) tailnet: bool,
    /// Name of the service on the tailnet [default: its id]
    #[arg(long, value_name = "NAME", requires = "tailnet", help_heading = "Tailnet")]
    pub(crate) tailnet_name: Option<String>,
    /// The command; $VAR and ${VAR} in its words are replaced, $$ becomes $, and no shell is run
    #[arg(last = true, value_name = "CMD", help_heading = None)]
    pub(crate) command: Vec<OsString>,
}

/// Start services in the background.
#[derive(Debug, Args)]
#[command(
    override_usage = "devport start [OPTIONS] -- CMD…\n       devport start [--replace] [--wait] [--no-tmux] [TARGET…]\n       devport start [--replace] [--wait] [--no-tmux] -f FILE [KEY…]"
)]
#[command(after_help = "\
Examples:
  devport start --key api -- npm run dev
  devport start --key docs -- python3 -m http.server --bind 127.0.0.1 '$PORT'
  devport start --key web -- npm run dev -- --port '$PORT' --strictPort    Vite does not read PORT
  devport start --key api --port-env FLASK_RUN_PORT --env-file .env -- flask run
  devport start --key web --wait --ready http:/healthz -- npm run dev
  devport start --key job --no-port --env N=3 -- sh -c 'cd jobs && ./run $$N'
  devport start api                      start it again as it was registered
  devport start api web                  start these two again
  devport start                          start what is stopped in this checkout, but no stack
  devport start -f devport.yaml          start every service of the file
  devport start -f devport.yaml api web  start these two

Starting a service that is already running only prints it. With --replace, devport restarts it: with the new command, \
directory, environment and options if a command is given; as it was registered if a TARGET is given; with -f, only if \
its entry or its dotenv files have changed.

A CHECK is tcp, http:/PATH, exec:COMMAND, log:REGEX (the service prints a matching line), listen (one of its processes \
listens on its port), alive (its command has run for a second) or none (its command runs).")]
pub(crate) struct Start {
    /// Start the services of this file
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with_all = ["NewService", "PolicyArguments"])]
    pub(crate) file: Option<PathBuf>,
    /// Restart the service if it runs
    #[arg(long)]
    pub(crate) replace: bool,
    /// Wait until the service is ready, for at most TIME (30s if omitted); exit with code 5 on timeout
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30s")]
    pub(crate) wait: Option<Span>,
    /// Run without a tmux window; the log is the only output
    #[arg(long, alias = "detach")]
    pub(crate) no_tmux: bool,
    /// Registered services to start again; with -f, the keys to start [default: those of this checkout that belong to no
    /// stack; with -f, all]
    #[arg(value_name = "TARGET", conflicts_with_all = ["NewService", "PolicyArguments"])]
    pub(crate) targets: Vec<String>,
    #[command(flatten)]
    pub(crate) service: NewService,
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

/// Run a service in this terminal.
#[derive(Debug, Args)]
#[command(override_usage = "devport run [OPTIONS] -- CMD…\n       devport run [--replace] TARGET")]
#[command(after_help = "\
Examples:
  devport run --key api -- npm run dev
  devport run api                        run it again as it was registered
  devport run --key api -- ./server >out.log 2>err.log

Ctrl-C stops the service, Ctrl-Z restarts it. devport prints its own messages on standard error.

Exit code: that of the command if it ended and is not restarted, or 128 plus the number of the signal that ended it; 0 \
after Ctrl-C, SIGTERM or `devport stop`; 1 if devport could not run the command.

`devport start --help` describes CHECK.")]
pub(crate) struct Run {
    /// Restart a running service here
    #[arg(long)]
    pub(crate) replace: bool,
    // For symmetry with `start`: a service in this terminal has no window.
    #[arg(long, hide = true, alias = "detach")]
    pub(crate) no_tmux: bool,
    /// A registered service to run again
    #[arg(value_name = "TARGET", conflicts_with_all = ["NewService", "PolicyArguments"])]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) service: NewService,
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}
