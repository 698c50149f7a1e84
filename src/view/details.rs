//! Formats one service, or one port, with all its details for people.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use crate::config::{PORT_VARIABLE, Policy};
use crate::registry::Exit;
use crate::text::printable;
use crate::view::age::{next_start, span, up};
use crate::view::grid::TableStyle;
use crate::view::list::paint;
use crate::view::port::PortView;
use crate::view::service::{ChangeView, Details, ServiceView};

/// How many exits and changes of the state are shown: the JSON has all that are recorded.
const LATEST: usize = 8;
/// Lines with a name and a value each. A long value is not broken into lines: what the terminal wraps can be pasted.
#[derive(Default)]
struct Facts(String);

impl Facts {
    fn row(&mut self, name: &str, value: &(impl ToString + ?Sized)) {
        let _ = writeln!(self.0, "{name:<12}  {}", printable(&value.to_string()));
    }

    /// Adds a row if there is a value.
    fn row_if_some(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.row(name, &value);
        }
    }

    /// Adds lines below a title; nothing if there are none.
    fn section(&mut self, title: &str, lines: impl IntoIterator<Item = String>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_some() {
            let _ = writeln!(self.0, "\n{title}:");
        }
        for line in lines {
            let _ = writeln!(self.0, "  {}", printable(&line));
        }
    }
}

/// Formats one service with all its details: one on each line, and what happened before below them.
pub(crate) fn details(view: &ServiceView, style: TableStyle) -> String {
    let mut facts = Facts::default();
    facts.row("name", view.key.as_ref().map_or("-", |key| key.as_str()));
    facts.row("id", &format!("{} ({})", view.hashid, view.hash));
    let state = view.state.as_str();
    if style.color {
        let _ = writeln!(facts.0, "{:<12}  \u{1b}[{}m{state}\u{1b}[0m", "state", paint(view.state));
    } else {
        facts.row("state", state);
    }
    facts.row_if_some("error", view.error.as_ref());
    facts.row_if_some("next start", next_start(view, style.now).map(|next| format!("in {next}")));
    facts.row_if_some("address", view.local_address());
    facts.row_if_some("tailnet", view.tailnet_url.as_ref());
    push_process(&mut facts, view, style.now);
    if view.cmd.is_empty() {
        facts.row("command", "(reserved)");
    } else {
        facts.row("command", &shell_words::join(&view.cmd));
    }
    let directory = view.cwd.display().to_string();
    facts.row("directory", &directory);
    let [(_, root), (_, checkout), others @ ..] = view.origin();
    match (root, checkout) {
        (Some(root), Some(name)) => facts.row("checkout", &format!("{root} ({name})")),
        (root, _) => facts.row_if_some("root", root.filter(|root| *root != directory)),
    }
    for (name, value) in others {
        facts.row_if_some(name, value);
    }
    if let Some(details) = &view.details {
        push_setup(&mut facts, view, details);
        push_history(&mut facts, view, details, style.now);
    }
    facts.0
}

/// Adds what runs, and who listens.
fn push_process(facts: &mut Facts, view: &ServiceView, now: Timestamp) {
    facts.row_if_some("pid", view.pid);
    let handed_over = |pid| format!("the command ended with exit code 0, handed over to pid {pid}");
    facts.row_if_some("background", view.handed_over_to.map(handed_over));
    if !view.listens.is_empty() {
        let exposed = if view.exposed { " (exposed to the network)" } else { "" };
        facts.row("listens on", &(addresses(&view.listens) + exposed));
    }
    for listener in &view.other_listeners {
        facts.row("also listens", &listener.summary());
    }
    facts.row(if view.started_at.is_some() { "up" } else { "last up" }, &up(view, now));
    facts.row("restarts", &view.restarts);
}

/// Adds how a service is set up.
fn push_setup(facts: &mut Facts, view: &ServiceView, details: &Details) {
    let variable = details.port_env.as_deref().filter(|name| *name != PORT_VARIABLE);
    facts.row_if_some("port in", variable.map(|name| format!("${name}")));
    facts.row_if_some("file", details.file.as_deref().map(Path::display));
    if !details.env_files.is_empty() {
        let files: Vec<String> = details.env_files.iter().map(|file| file.display().to_string()).collect();
        facts.row("env files", &files.join(", "));
    }
    if !view.cmd.is_empty() {
        facts.row_if_some("ready check", details.policy.ready.as_ref());
        facts.row_if_some("health check", details.policy.health.as_ref());
    }
    let non_default = non_default_fields(&details.policy);
    facts.row_if_some("policy", (!non_default.is_empty()).then_some(non_default));
    facts.row_if_some(
        "supervisor",
        details.supervisor.as_ref().map(|supervisor| match &supervisor.version {
            Some(version) => format!("pid {}, devport {version}", supervisor.pid),
            None => format!("pid {}", supervisor.pid),
        }),
    );
}

/// Returns the fields of a policy that differ from the default, such as `restart never, grace 10s`. The checks are not
/// among them.
fn non_default_fields(policy: &Policy) -> String {
    let fields = |policy: &Policy| match serde_json::to_value(policy) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let default = fields(&Policy::default());
    let mut shown = Vec::new();
    for (name, value) in fields(policy) {
        if default.get(&name) != Some(&value) && name != "ready" && name != "health" {
            shown.push(match value {
                Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            });
        }
    }
    shown.join(", ")
}

/// Adds how a service ran before, the latest first, and what it printed before its last exit.
fn push_history(facts: &mut Facts, view: &ServiceView, details: &Details, now: Timestamp) {
    let changes = details.changes.iter().map(|change| (change.at, change_text(change)));
    // After a crash, the change of the state says how the run ended.
    let is_in_changes =
        |exit: &&Exit| details.changes.iter().any(|change| change.error.as_ref() == Some(&exit.to_string()));
    let exits = details.exits.iter().filter(|exit| !is_in_changes(exit)).map(|exit| (exit.at, exit_text(exit)));
    let mut events: Vec<(Timestamp, String)> = exits.chain(changes).collect();
    events.sort_by_key(|(at, _)| *at);
    let line = |(at, what): (Timestamp, String)| format!("{:>9} ago  {what}", span(at, now));
    facts.section("latest events", events.into_iter().rev().take(LATEST).map(line));
    let ended = details.exits.last().map(|exit| format!(" of the run that ended {} ago", span(exit.at, now)));
    facts.section(&format!("last output{}", ended.unwrap_or_default()), view.last_output.iter().flatten().cloned());
}

/// Formats a state, and what was wrong.
fn change_text(change: &ChangeView) -> String {
    match &change.error {
        Some(error) => format!("{}: {error}", change.state.as_str()),
        None => change.state.as_str().to_owned(),
    }
}

/// Formats an exit, and whether devport ended the run.
fn exit_text(exit: &Exit) -> String {
    if exit.was_requested { format!("{exit}, stopped by devport") } else { exit.to_string() }
}

/// Formats a port and the processes that listen on it, one fact on each line.
pub(crate) fn port_details(view: &PortView, style: TableStyle) -> String {
    let mut facts = Facts::default();
    facts.row("port", &view.port);
    for listener in &view.listeners {
        facts.row("listens on", &addresses(&listener.addresses));
        let hidden = || "not visible (of another user, or of a container)".into();
        facts.row("pid", &listener.pid.map_or_else(hidden, |pid| pid.to_string()));
        facts.row("user", &listener.user);
        facts.row_if_some("command", listener.command.as_ref());
        facts.row_if_some("directory", listener.directory());
        facts.row_if_some("checkout", listener.checkout.as_deref().map(Path::display));
        facts.row_if_some("started", listener.started_at.map(|at| format!("{at:.0} ({} ago)", span(at, style.now))));
        if listener.pid.is_some() {
            facts.row("service", listener.service.as_deref().unwrap_or("none: not started by devport"));
        }
    }
    facts.0
}

/// Formats addresses for people.
fn addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{ExitHow, Liveness, State};
    use crate::view::SupervisorView;
    use crate::view::grid::tests::{style, without_colors};
    use crate::view::service::tests::view;

    fn details_of(policy: Policy) -> Details {
        let exit = |seconds, code| {
            let at = Timestamp::from_second(seconds).unwrap();
            Exit::new(at, ExitHow::Code(code), Duration::from_millis(300))
        };
        Details {
            file: Some("/w/devport.yaml".into()),
            port_env: Some("VITE_PORT".into()),
            env_files: vec!["/w/.env".into(), "/w/.env.local".into()],
            policy,
            supervisor: Some(SupervisorView { pid: 7, version: Some("1.2.3".into()) }),
            changes: vec![ChangeView {
                at: Timestamp::from_second(1).unwrap(),
                state: State::Backoff,
                error: Some("exit code 1 after 0.3 s".into()),
            }],
            exits: (1..=7).map(|number| exit(i64::from(number), number)).collect(),
        }
    }

    #[test]
    fn the_details_say_how_a_service_is_set_up_and_how_it_ran() {
        let policy = Policy { grace: "10s".parse().unwrap(), health: "http:/up".parse().ok(), ..Policy::default() };
        let view = ServiceView {
            details: Some(Box::new(details_of(policy))),
            last_output: Some(vec!["Error: \u{1b}[31mno".into()]),
            ..view(Liveness::Held(None), State::Ready, None)
        };
        let style = TableStyle { now: Timestamp::from_second(60).unwrap(), ..style(false, Some(20)) };
        let text = details(&view, style);
        for line in [
            "address       http://localhost:19000",
            "port in       $VITE_PORT",
            "file          /w/devport.yaml",
            "env files     /w/.env, /w/.env.local",
            "health check  http:/up",
            "policy        grace 10s",
            "supervisor    pid 7, devport 1.2.3",
            "      59s ago  backoff: exit code 1 after 0.3 s",
            "        53s ago  exit code 7 after 0.3 s",
            "last output of the run that ended 53s ago:",
            "  Error: \\u{1b}[31mno",
        ] {
            assert!(text.lines().any(|shown| shown.trim_start() == line.trim_start()), "{line}\n{text}");
        }
        assert_eq!(text.matches("exit code").count(), 7, "{text}");
        assert_eq!(text.matches("exit code 1 after").count(), 1, "{text}");
        let colored = details(&view, TableStyle { color: true, ..style });
        assert!(
            colored.contains("\u{1b}[32mready\u{1b}[0m") && without_colors(&colored).contains("state         ready\n")
        );
    }

    #[test]
    fn the_checkout_has_its_root_and_name() {
        let style = style(false, None);
        let at = |checkout: Option<&str>| ServiceView {
            root: Some("/w".into()),
            checkout: checkout.map(str::to_owned),
            ..view(Liveness::Held(None), State::Ready, None)
        };
        assert!(details(&at(Some("main")), style).contains("\ncheckout      /w (main)\n"));
        let unversioned = details(&at(None), style);
        assert!(!unversioned.contains("checkout") && !unversioned.contains("root"), "{unversioned}");
    }

    #[test]
    fn a_policy_is_shown_where_it_differs_from_the_default() {
        assert_eq!(non_default_fields(&Policy { ready: Some(crate::config::Check::Tcp), ..Policy::default() }), "");
        let policy = Policy { max_restarts: Some(3), restart_unhealthy: true, ..Policy::default() };
        assert_eq!(non_default_fields(&policy), "max-restarts 3, restart-unhealthy true");
    }

    #[test]
    fn the_details_name_the_process_that_a_command_has_handed_over_to() {
        let running = view(Liveness::Held(None), State::Ready, None);
        assert!(!details(&running, style(false, None)).contains("handed over"));
        let handed_over = ServiceView { handed_over_to: Some(9), ..running };
        assert!(details(&handed_over, style(false, None)).contains("handed over to pid 9"));
    }

    #[test]
    fn an_exit_says_whether_devport_ended_the_run() {
        let exit = Exit::new(Timestamp::UNIX_EPOCH, ExitHow::Signal(15), Duration::from_millis(2_540));
        assert_eq!(exit_text(&exit), "killed by SIGTERM after 2.5 s");
        assert_eq!(
            exit_text(&Exit { was_requested: true, ..exit }),
            "killed by SIGTERM after 2.5 s, stopped by devport"
        );
    }
}
