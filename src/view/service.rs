//! `ServiceView`: what devport shows of a service.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::config::{Policy, local_url};
use crate::identity::{HashId, Key, ServiceHash};
use crate::launch::Previous;
use crate::observe::Observation;
use crate::registry::{Exit, Liveness, Problem, Reservation, State, StateChange};
use crate::view::port::ListenerView;

/// Whether a supervisor holds a service's identity lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Running,
    Stopped,
    /// The lock could not be checked.
    Unknown,
}

/// What devport shows of a service. Its fields are the JSON of `ls` and `which`: scripts depend on them, so none is ever
/// renamed or removed. The environment is not among them, because it contains secrets.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the JSON")]
pub(crate) struct ServiceView {
    /// The name of the service's files in the state directory.
    pub(crate) hash: ServiceHash,
    /// The shortest unique prefix of the hash when the service was registered.
    pub(crate) hashid: HashId,
    /// The name that the user chose; `None` if directory and command identify the service.
    pub(crate) key: Option<Key>,
    pub(crate) status: Status,
    pub(crate) state: State,
    /// The service's port; `None` if it needs none.
    pub(crate) port: Option<u16>,
    pub(crate) no_port: bool,
    /// The scheme of its address on this machine; `None` for `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scheme: Option<String>,
    /// The service is published on the tailnet.
    pub(crate) tailnet: bool,
    /// The address: on the tailnet if the service is published there, else on this machine; `None` if it has no port.
    pub(crate) url: Option<String>,
    /// The address on the tailnet; `None` if the service is not published.
    pub(crate) tailnet_url: Option<String>,
    pub(crate) cwd: PathBuf,
    /// The command as registered, before `$VAR` is expanded.
    pub(crate) cmd: Vec<String>,
    /// The `devport.yaml` that registered it; `None` if the command line did. Only the JSON of `which` has it.
    #[serde(skip)]
    pub(crate) file: Option<PathBuf>,
    /// The root of the checkout of `cwd` at registration; `None` in records of earlier versions.
    pub(crate) root: Option<PathBuf>,
    /// The name of that checkout; `None` without version control.
    pub(crate) checkout: Option<String>,
    /// The name of the stack that it belongs to; `None` if it belongs to none.
    pub(crate) stack: Option<String>,
    /// The branch of that checkout when the service was started; `None` if it is not known.
    pub(crate) branch: Option<String>,
    /// The coding agent whose command started the service; `None` if it is not known.
    pub(crate) started_by: Option<String>,
    /// Whether that checkout was deleted, or another directory is at its path.
    pub(crate) gone: bool,
    /// When the service was last known to run.
    pub(crate) last_up: Timestamp,
    /// The child's pid; `None` if no child runs.
    pub(crate) pid: Option<i32>,
    /// The process to which the command has handed over; `None` if the command itself runs, or nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handed_over_to: Option<i32>,
    /// When the child was started; `None` if no child runs.
    pub(crate) started_at: Option<Timestamp>,
    /// The number of restarts after crashes since the supervisor started; once it has ended, its last count.
    pub(crate) restarts: u32,
    /// `None` if the child never exited.
    pub(crate) last_exit: Option<Exit>,
    /// Why the service is not well; `None` if it is.
    pub(crate) error: Option<String>,
    /// What the supervisor recorded as `error`, without the advice; `None` if `error` is something else.
    #[serde(skip)]
    pub(crate) short_error: Option<String>,
    /// The addresses that the service listens on. One that it added after it became ready may be missing.
    pub(crate) listens: Vec<SocketAddr>,
    /// Other machines can reach one of these addresses.
    pub(crate) exposed: bool,
    /// When the next restart is due; `None` if none is scheduled.
    pub(crate) next_start_at: Option<Timestamp>,
    /// `None` if usage was not requested, or no process runs.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// What only `which` shows; `None` for other commands.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Box<Details>>,
    /// The last lines of output: for `which` those before the last exit, for a service that did not come up those of this
    /// run; `None` if they do not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_output: Option<Vec<String>>,
    /// Processes that are not part of the service, and listen on the port that the target of `which` names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) other_listeners: Vec<ListenerView>,
    /// What a command did with the service; `None` for commands that change nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
}

/// What a command did with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// The service did not run, and was started.
    Started,
    /// The service was running; nothing was changed.
    AlreadyRunning,
    /// The service was running, and was started again with new options.
    Replaced,
    /// The service was running, and was started again with the same options.
    Restarted,
    /// The service was running, and was stopped.
    Stopped,
    /// The service was not running; nothing was changed.
    NotRunning,
    /// The service was removed.
    Removed,
    /// The service ran to its end, as it should.
    Completed,
    /// The service was not started, because one that it needs did not come up.
    Skipped,
    /// The service did not come up.
    Failed,
}

impl From<Previous> for Outcome {
    fn from(previous: Previous) -> Self {
        match previous {
            Previous::NotRunning => Self::Started,
            Previous::Stopped => Self::Replaced,
            Previous::Down => Self::Restarted,
            Previous::StillRunning => Self::AlreadyRunning,
        }
    }
}

/// The resources that the processes of a service use.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    /// Memory in bytes. Of pages that processes share, each counts its proportional part.
    pub(crate) memory: u64,
    /// CPU time in percent of one processor.
    pub(crate) cpu_percent: f64,
}

/// How a service is set up, and how it ran before.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Details {
    /// The `devport.yaml` that registered it; `None` if the command line did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The variable that holds the port; `None` if it has no port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port_env: Option<String>,
    pub(crate) env_files: Vec<PathBuf>,
    /// Readiness, health, restarts, stopping and logs, with their defaults.
    pub(crate) policy: Policy,
    /// `None` if the service has no supervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) supervisor: Option<SupervisorView>,
    /// The last changes of the state, oldest first.
    pub(crate) changes: Vec<ChangeView>,
    /// The last exits of the child, oldest first.
    pub(crate) exits: Vec<Exit>,
}

/// The process that supervises a service.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SupervisorView {
    pub(crate) pid: i32,
    /// The version of devport that it runs; `None` if it is an earlier one, which did not record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// A change of a service's state.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChangeView {
    pub(crate) at: Timestamp,
    pub(crate) state: State,
    /// What was wrong; `None` if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl From<StateChange> for ChangeView {
    fn from(change: StateChange) -> Self {
        Self { at: change.at, state: change.state, error: change.error.map(|problem| problem.to_string()) }
    }
}

impl ServiceView {
    /// Combines a record, an observation and the address on the tailnet.
    pub(crate) fn new(reservation: Reservation, observation: Observation, tailnet_url: Option<String>) -> Self {
        let Observation { liveness, last_up, run, observed, is_gone } = observation;
        let is_alive = observed.state.is_up() || observed.state == State::Orphaned;
        // A run state describes the present only if the supervisor that wrote it holds the lock, or left an orphan.
        let is_supervised = liveness.is_held() && observed.state != State::Unknown;
        let current_run = run.as_ref().filter(|_| is_supervised || observed.state == State::Orphaned);
        let listens = current_run.map(|run| run.listens.clone()).unwrap_or_default();
        let local = reservation.service_port().map(|port| local_url(reservation.scheme.as_deref(), port));
        Self {
            status: match liveness {
                Liveness::Free => Status::Stopped,
                Liveness::Held(_) => Status::Running,
                Liveness::Unknown(_) => Status::Unknown,
            },
            state: observed.state,
            port: reservation.service_port(),
            no_port: reservation.no_port,
            scheme: reservation.scheme,
            tailnet: reservation.tailnet,
            url: tailnet_url.clone().or(local),
            tailnet_url,
            last_up: last_up.unwrap_or_default(),
            pid: observed.orphan.or_else(|| current_run?.child.as_ref().map(|child| child.pid)),
            handed_over_to: current_run.and_then(|run| run.handed_over.as_ref()).map(|process| process.pid),
            started_at: current_run.filter(|_| is_alive).and_then(|run| run.started_at),
            restarts: run.as_ref().map_or(0, |run| run.restarts),
            last_exit: run.as_ref().and_then(|run| run.exits.last().cloned()),
            short_error: run
                .as_ref()
                .and_then(|run| run.error.as_ref())
                .filter(|problem| observed.error.as_ref() == Some(&problem.to_string()))
                .map(Problem::short),
            error: observed.error,
            exposed: listens.iter().any(|address| !address.ip().is_loopback()),
            listens,
            next_start_at: current_run.and_then(|run| run.next_start_at),
            usage: None,
            details: None,
            last_output: None,
            other_listeners: Vec::new(),
            outcome: None,
            hash: reservation.hash,
            hashid: reservation.hashid,
            key: reservation.key,
            cwd: reservation.cwd,
            cmd: reservation.cmd,
            file: reservation.file,
            root: reservation.root,
            checkout: reservation.checkout,
            stack: reservation.stack,
            branch: reservation.branch,
            started_by: reservation.started_by,
            gone: is_gone,
        }
    }

    /// Returns the brief JSON of a service that a command acted on: an agent pays for every character. `None` if no
    /// command did.
    ///
    /// # Errors
    /// If a path is not valid UTF-8.
    pub(crate) fn brief_json(&self) -> serde_json::Result<Option<Value>> {
        let Some(outcome) = self.outcome else { return Ok(None) };
        let mut json = serde_json::to_value(self)?;
        if let Some(fields) = json.as_object_mut() {
            let is_nothing =
                |value: &Value| value.is_null() || *value == false || value.as_array().is_some_and(Vec::is_empty);
            let is_well = self.error.is_none();
            fields.retain(|name, value| match name.as_str() {
                "last_exit" => outcome == Outcome::Failed && !value.is_null(),
                "started_at" | "root" | "stack" | "branch" | "started_by" => false,
                "last_up" => outcome != Outcome::Removed,
                "restarts" => !is_well,
                "url" => outcome != Outcome::Removed && !value.is_null(),
                "tailnet" => true,
                _ => !is_nothing(value),
            });
        }
        Ok(Some(json))
    }

    /// Returns where the service came from: the name and the value of each fact, which is `None` if it is not known.
    pub(super) fn origin(&self) -> [(&'static str, Option<String>); 5] {
        [
            ("root", self.root.as_ref().map(|root| root.display().to_string())),
            ("checkout", self.checkout.clone()),
            ("stack", self.stack.clone()),
            ("branch", self.branch.clone()),
            ("started by", self.started_by.clone()),
        ]
    }

    /// Returns the address of the service on this machine; `None` if it has no port.
    pub(super) fn local_address(&self) -> Option<String> {
        self.port.map(|port| local_url(self.scheme.as_deref(), port))
    }

    /// Adds what a command did with the service.
    pub(crate) fn with(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::observe::ObservedState;
    use crate::os::process::ProcessIdentity;
    use crate::registry::RunState;

    fn process(pid: i32) -> ProcessIdentity {
        ProcessIdentity { pid, start_time: Some(1), boot_id: Some("b".into()) }
    }

    fn reservation() -> Reservation {
        let record = serde_json::json!({
            "hash": "0123456789", "hashid": "012", "key": "api", "port": 19000,
            "cwd": "/w", "cmd": ["true"], "env": [], "last_up": "2026-11-21T00:00:00Z",
        });
        serde_json::from_value(record).unwrap()
    }

    /// Returns the view of a service on port 19000 whose supervisor 7 recorded the child 9, listening on all addresses.
    pub(crate) fn view(liveness: Liveness, state: State, orphan: Option<i32>) -> ServiceView {
        let mut run = RunState::begin(process(7), None, None);
        run.child = Some(process(9));
        run.started_at = Some(Timestamp::UNIX_EPOCH);
        run.listens = vec!["0.0.0.0:19000".parse().unwrap()];
        run.restarts = 3;
        let observed = ObservedState { state, error: None, orphan };
        let last_up = Some("2026-11-22T00:00:00Z".parse().unwrap());
        ServiceView::new(
            reservation(),
            Observation { liveness, last_up, run: Some(run), observed, is_gone: false },
            None,
        )
    }

    #[test]
    fn only_the_run_state_of_a_current_supervisor_is_shown() {
        let held = || Liveness::Held(Some(process(7)));
        let broken = || Liveness::Unknown(std::io::Error::from_raw_os_error(libc::EMFILE));
        for (liveness, state, orphan, status, pid, is_started) in [
            (held(), State::Ready, None, Status::Running, Some(9), true),
            (held(), State::Backoff, None, Status::Running, Some(9), false),
            (held(), State::Unknown, None, Status::Running, None, false),
            (Liveness::Free, State::Stopped, None, Status::Stopped, None, false),
            (Liveness::Free, State::Failed, None, Status::Stopped, None, false),
            (Liveness::Free, State::Orphaned, Some(11), Status::Stopped, Some(11), true),
            (broken(), State::Unknown, None, Status::Unknown, None, false),
        ] {
            let view = view(liveness, state, orphan);
            assert_eq!((view.status, view.pid, view.started_at.is_some()), (status, pid, is_started), "{state:?}");
            let is_current = pid.is_some();
            assert_eq!((view.restarts, view.exposed), (3, is_current), "{state:?}");
            assert_eq!(view.last_up.to_string(), "2026-11-22T00:00:00Z");
        }
    }

    #[test]
    fn the_process_that_has_taken_over_is_shown_while_it_runs() {
        let mut run = RunState::begin(process(7), None, None);
        (run.child, run.handed_over) = (Some(process(9)), Some(process(9)));
        for (liveness, state, expected) in
            [(Liveness::Held(Some(process(7))), State::Ready, Some(9)), (Liveness::Free, State::Stopped, None)]
        {
            let observed = ObservedState { state, error: None, orphan: None };
            let observation = Observation { liveness, last_up: None, run: Some(run.clone()), observed, is_gone: false };
            assert_eq!(ServiceView::new(reservation(), observation, None).handed_over_to, expected);
        }
    }

    #[test]
    fn the_address_is_on_the_tailnet_if_the_service_is_published() {
        let with = |tailnet_url: Option<&str>| {
            let observed = ObservedState { state: State::Stopped, error: None, orphan: None };
            let observation =
                Observation { liveness: Liveness::Free, last_up: None, run: None, observed, is_gone: false };
            ServiceView::new(reservation(), observation, tailnet_url.map(str::to_owned))
        };
        assert_eq!(with(None).url.as_deref(), Some("http://localhost:19000"));
        let published = with(Some("https://api.example.ts.net"));
        assert_eq!(
            (&published.url, published.url.as_deref()),
            (&published.tailnet_url, Some("https://api.example.ts.net"))
        );
    }
}
