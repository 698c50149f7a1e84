//! The arguments of the commands that change registered services.

use std::path::PathBuf;

use clap::Args;

use crate::config::Span;

/// Stop services. Their ports stay reserved.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport stop api
  devport stop api web b7d
  devport stop              every service of this checkout
  devport stop --all
  devport stop --kill api

devport sends the stop signal to all processes of the service, and SIGKILL after its grace period. No process is left \
when the command returns. A second `devport stop` does not shorten the grace period; --kill does.")]
pub(crate) struct Stop {
    /// Keys, ids or ports [default: the running services of this checkout]
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    pub(crate) targets: Vec<String>,
    /// Stop every running service of this machine
    #[arg(long)]
    pub(crate) all: bool,
    /// Send SIGKILL at once
    #[arg(long)]
    pub(crate) kill: bool,
}

/// Restart services as they were registered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport restart api
  devport restart --wait api web
  devport restart           every service of this checkout that runs or has failed
  devport restart --all

devport uses the registered command, directory, environment and port, not those of the current shell.")]
pub(crate) struct Restart {
    /// Keys, ids or ports [default: the services of this checkout that run or have failed]
    #[arg(value_name = "TARGET", conflicts_with = "all")]
    pub(crate) targets: Vec<String>,
    /// Restart every service of this machine that runs or has failed
    #[arg(long)]
    pub(crate) all: bool,
    /// Wait until the services are ready, for at most TIME (30s if omitted); exit with code 5 on timeout
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30s")]
    pub(crate) wait: Option<Span>,
    /// Run without a tmux window; the log is the only output
    #[arg(long, alias = "detach")]
    pub(crate) no_tmux: bool,
}

/// Send a signal to a service.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport signal api              restart it in place
  devport signal -s USR1 api      send SIGUSR1 to its process group
  devport signal -s 10 api

HUP and TSTP restart the service, INT and TERM stop it. Other signals go to its processes.")]
pub(crate) struct Signal {
    /// Name or number of the signal
    #[arg(long, short, value_name = "SIGNAL", default_value = "HUP")]
    pub(crate) signal: String,
    /// Key, id or port of the service
    pub(crate) target: String,
}

/// Remove services: stop them, delete their records and logs, and free their ports.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport rm api
  devport rm api web
  devport rm --gone         after worktrees were removed

--gone leaves the services of locked worktrees and of volumes that are not mounted alone.")]
pub(crate) struct Rm {
    /// Keys, ids or ports
    #[arg(value_name = "TARGET", required_unless_present = "gone", conflicts_with = "gone")]
    pub(crate) targets: Vec<String>,
    /// Remove every service of this machine whose checkout was deleted
    #[arg(long)]
    pub(crate) gone: bool,
}

/// Reserve a port for a program that devport does not run, and print it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport reserve --key postgres             print its port, the same each time
  docker run -p $(devport reserve --key db):5432 postgres
  devport reserve --key legacy --port 8080")]
pub(crate) struct Reserve {
    /// Name of the reservation
    #[arg(long, short, value_name = "KEY")]
    pub(crate) key: String,
    /// Request this port (1024-65535) instead of one from the pool
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..))]
    pub(crate) port: Option<u16>,
}

/// Publish a service on the tailnet, the private network of Tailscale.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport tailup api                      https://<id>.<your tailnet>.ts.net
  devport tailup --tailnet-name shop api  https://shop.<your tailnet>.ts.net
  devport tailup --tcp db                 tcp://<id>.<your tailnet>.ts.net:<its port>

This needs the tailscale program on a tagged machine, and TAILSCALE_API_KEY or an OAuth client, unless an admin defines \
and approves the service. Everyone whom the tailnet's policy admits can then connect to the service.")]
pub(crate) struct Tailup {
    /// Publish HTTPS on port 443 (the default)
    #[arg(long, conflicts_with_all = ["http", "tcp"])]
    pub(crate) https: bool,
    /// Publish HTTP on port 80, which needs no certificate
    #[arg(long, conflicts_with = "tcp")]
    pub(crate) http: bool,
    /// Publish TCP on the service's own port
    #[arg(long)]
    pub(crate) tcp: bool,
    /// Name of the service on the tailnet [default: its id]
    #[arg(long, value_name = "NAME")]
    pub(crate) tailnet_name: Option<String>,
    /// Key, id or port of the service
    pub(crate) target: String,
}

/// Start the services of a devport.yaml, each after the services that it depends on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport up                    start all services, print their logs, stop them with Ctrl-C
  devport up -d                 start all services, and return when they are ready
  devport up -d web             start web and the services that it needs
  devport up --dry-run          print what up would start or restart

devport searches for devport.yaml in this directory and its parent directories, and then for a Procfile. A service \
starts when those in its `depends-on` are ready. A running service is restarted only if its entry, a dotenv file or an address of \
another service has changed. In a linked worktree, every service has its own key and port.

A devport.yaml has the fields services, name and tmux-session:
  services:
    db:  {exec: ./db.sh, ready: tcp}
    web: {exec: npm run dev -- --port $PORT, env: .env, depends-on: [db]}

A service has exec, cwd, env, depends-on, one-shot, shared, port, port-env, no-port, scheme, ready, health, \
on-unhealthy, restart, backoff, max-restarts, window, stop-signal, grace, log, tailnet and tailnet-name. Without \
exec, it is a reserved port. A check of ready and health can have status, interval, timeout and failures. Instead of \
services, the file can be a list of services, which can have a key. docs/devport-yaml.md describes every field.")]
pub(crate) struct Up {
    /// Start only these services of the file, and the services that they need
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// File with the services
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Return when all services are ready, and let them run
    #[arg(long, short = 'd', alias = "daemon")]
    pub(crate) detach: bool,
    /// Do not start the services that the named ones need
    #[arg(long, requires = "names")]
    pub(crate) no_deps: bool,
    /// Longest time to wait for all services
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) timeout: Span,
    /// Print what up would do, and do nothing; exit with code 1 if there is anything to do
    #[arg(long, conflicts_with_all = ["detach", "timeout"])]
    pub(crate) dry_run: bool,
}

/// Stop the services of a devport.yaml. Their ports stay reserved.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  devport down                  stop the services of this checkout's devport.yaml
  devport down web              stop only web
  devport down --rm             also remove the services

A shared service keeps running while another checkout runs a service that needs it.")]
pub(crate) struct Down {
    /// Stop only these services of the file
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// File with the services
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Remove the services and free their ports; in a linked worktree, only stop the shared ones
    #[arg(long)]
    pub(crate) rm: bool,
}
