//! `ServiceView`: reservation, run state and liveness of a service, put together.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::identity::{HashId, Key, ServiceHash};
use crate::logs;
use crate::observe::{Observation, Observer};
use crate::os::process::{self, ProcessIdentity};
use crate::os::{clock, parallel};
use crate::registry::{Exit, Liveness, Registry, Reservation, State};
use crate::tailnet::Addresses;

/// Whether a service runs, as its lock alone says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// A supervisor holds the lock.
    Running,
    /// Nobody does.
    Stopped,
    /// The lock cannot be asked.
    Unknown,
}

/// What is printed of a service. Fields are never renamed or removed; there is no environment among them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ServiceView {
    /// What it is filed under.
    pub(crate) hash: ServiceHash,
    /// The short name.
    pub(crate) hashid: HashId,
    /// The user's name; `None` if it is named by directory and command.
    pub(crate) key: Option<Key>,
    /// From the lock alone.
    pub(crate) status: Status,
    /// The finer state.
    pub(crate) state: State,
    /// The port that it is told; `None` if it wants none.
    pub(crate) port: Option<u16>,
    /// Whether it wants none.
    pub(crate) no_port: bool,
    /// Whether it is published on the tailnet.
    pub(crate) tailnet: bool,
    /// Its address on the tailnet; `None` if it is not published there.
    pub(crate) url: Option<String>,
    /// Where the command runs.
    pub(crate) cwd: std::path::PathBuf,
    /// The command, unexpanded.
    pub(crate) cmd: Vec<String>,
    /// When it was last known to run.
    pub(crate) last_up: Timestamp,
    /// The child's pid; `None` while there is none.
    pub(crate) pid: Option<i32>,
    /// When the child was started; `None` while there is none.
    pub(crate) started_at: Option<Timestamp>,
    /// How often it was started again after a crash, since it was last started by hand.
    pub(crate) restarts: u32,
    /// How it last ended; `None` if it never did.
    pub(crate) last_exit: Option<Exit>,
    /// What is wrong; `None` if nothing is.
    pub(crate) error: Option<String>,
    /// Where it listens, as seen when it became ready.
    pub(crate) listens: Vec<SocketAddr>,
    /// Whether others than this machine can reach one of those.
    pub(crate) exposed: bool,
    /// When it will be started again; `None` unless that is being waited for.
    pub(crate) next_start_at: Option<Timestamp>,
    /// What its processes use; `None` if that was not looked at, or nothing runs.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// How it fared; `None` if that was not looked at.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) story: Option<History>,
    /// What a command did with it; `None` for commands that change nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
}

/// What a command did with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It did not run, and was started.
    Started,
    /// It runs already; nothing was changed.
    AlreadyRunning,
    /// It ran, and was restarted with what was asked for.
    Replaced,
    /// It ran, and was restarted as it was.
    Restarted,
    /// It ran, and was stopped.
    Stopped,
    /// It did not run; nothing was changed.
    NotRunning,
    /// It was removed.
    Removed,
}

impl ServiceView {
    /// The same, with what a command did.
    pub(crate) fn with(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }
}

/// What the processes of a service use.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    /// Memory, in bytes; what several share counts for each in part.
    pub(crate) memory: u64,
    /// Processors, in hundredths of one.
    pub(crate) cpu_percent: f64,
}

/// How a service fared.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct History {
    /// The last ends of its child, oldest first.
    pub(crate) exits: Vec<Exit>,
    /// The end of its output before the last of them.
    pub(crate) last_output: Vec<String>,
}

/// How many lines of output tell of a crash.
const LAST_LINES: usize = 20;
/// How long the use of processors is looked at.
const SAMPLE: Duration = Duration::from_millis(200);

/// Looks at services; what is costly to find out is found out once for all of them.
#[derive(Debug)]
pub(crate) struct Overview<'a> {
    /// Where they are registered.
    registry: &'a Registry,
    /// Where they are on the tailnet.
    addresses: Addresses<'a>,
    /// Looks at locks, run states and processes.
    observer: Observer<'a>,
}

impl<'a> Overview<'a> {
    /// Looks at the services of a registry.
    pub(crate) fn new(registry: &'a Registry, addresses: Addresses<'a>) -> Self {
        Self { registry, addresses, observer: Observer::new(registry) }
    }

    /// Every service, and one error for each record that cannot be used.
    ///
    /// # Errors
    /// If the state directory cannot be read.
    pub(crate) fn all(&self) -> Result<(Vec<ServiceView>, Vec<Error>)> {
        let (hashes, mut unusable) = self.registry.hashes()?;
        let mut views = Vec::with_capacity(hashes.len());
        for found in
            parallel::map(&hashes, |hash| Ok(self.registry.find(hash)?.map(|reservation| self.view(reservation))))
        {
            match found {
                Ok(view) => views.extend(view),
                Err(error) => unusable.push(error),
            }
        }
        Ok((views, unusable))
    }

    /// Puts together what is known of a service.
    pub(crate) fn view(&self, reservation: Reservation) -> ServiceView {
        let Observation { liveness, beat, run, observed: now } = self.observer.observe(&reservation);
        let alive = matches!(now.state, State::Running | State::Ready | State::Unhealthy | State::Orphaned);
        let is_known = liveness.is_held() && now.state != State::Unknown;
        let run_of_now = run.as_ref().filter(|_| is_known || now.state == State::Orphaned);
        let listens = run_of_now.map(|run| run.listens.clone()).unwrap_or_default();
        ServiceView {
            status: match liveness {
                Liveness::Free => Status::Stopped,
                Liveness::Held(_) => Status::Running,
                Liveness::Unknown(_) => Status::Unknown,
            },
            state: now.state,
            port: reservation.service_port(),
            no_port: reservation.no_port,
            tailnet: reservation.tailnet,
            url: self.addresses.of(&reservation),
            last_up: beat.map_or(reservation.last_up, |beat| beat.max(reservation.last_up)),
            pid: now.orphan.or_else(|| run_of_now?.child.as_ref().map(|child| child.pid)),
            started_at: run_of_now.filter(|_| alive).and_then(|run| run.started_at),
            restarts: run_of_now.map_or(0, |run| run.restarts),
            last_exit: run.as_ref().and_then(|run| run.exits.last().cloned()),
            error: now.error,
            exposed: listens.iter().any(|address| !address.ip().is_loopback()),
            listens,
            next_start_at: run_of_now.and_then(|run| run.next_start_at),
            usage: None,
            story: None,
            outcome: None,
            hash: reservation.hash,
            hashid: reservation.hashid,
            key: reservation.key,
            cwd: reservation.cwd,
            cmd: reservation.cmd,
        }
    }

    /// Adds how a service fared: its exits, and what it wrote before the last of them.
    pub(crate) fn add_story(&self, view: &mut ServiceView) {
        let exits = self.registry.run_state(&view.hash).ok().flatten().map(|run| run.exits).unwrap_or_default();
        let last_output = if exits.is_empty() {
            Vec::new()
        } else {
            let lines = logs::before_last_end(&self.registry.paths().log(&view.hash), LAST_LINES);
            lines.iter().map(|line| String::from_utf8_lossy(&logs::strip(line)).into_owned()).collect()
        };
        view.story = Some(History { exits, last_output });
    }

    /// Adds what the processes of services use. It takes a moment: the use of processors shows over time.
    pub(crate) fn add_usage(&self, views: &mut [ServiceView]) {
        // What cannot be looked at now is left out.
        let members = |view: &ServiceView| -> Vec<ProcessIdentity> {
            let run = self.registry.run_state(&view.hash).ok().flatten().filter(|_| view.pid.is_some());
            let found = run.and_then(|run| self.registry.descendants(&view.hash, run.supervisor.pid).ok());
            found.map(|found| found.living).unwrap_or_default()
        };
        let trees: Vec<Vec<ProcessIdentity>> = views.iter().map(members).collect();
        let began = clock::now();
        let times =
            |tree: &Vec<ProcessIdentity>| tree.iter().map(|process| process::cpu_time(process.pid)).sum::<Duration>();
        let before: Vec<Duration> = trees.iter().map(times).collect();
        clock::pause(SAMPLE);
        let sampled = clock::now().saturating_duration_since(began);
        for ((view, tree), before) in views.iter_mut().zip(&trees).zip(before) {
            if tree.is_empty() {
                continue;
            }
            let used = times(tree).saturating_sub(before).as_secs_f64();
            let cpu_percent = (used / sampled.as_secs_f64() * 1000.0).round() / 10.0;
            view.usage =
                Some(Usage { memory: tree.iter().map(|process| process::memory(process.pid)).sum(), cpu_percent });
        }
    }
}
