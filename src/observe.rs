//! `Observer`: derives the state of services from run states, locks and processes.
//!
//! Run state and lock cannot be read at the same moment. If they contradict each other, the service started or ended in
//! between, and both are read again. So the observer never reports a state that the service was not in.

mod port;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::reason;
use crate::os::process::{self, ProcessIdentity};
use crate::os::{clock, socket, tree};
use crate::project::Presence;
use crate::registry::{ExitHow, Liveness, Problem, Registry, Reservation, RunState, State, owner_text};

pub(crate) use port::{PortListener, port_listeners};

/// How many times run state and lock are read until they belong to one moment. Each further read means that the service
/// started or ended in between; ten in a row mean that it does so faster than it can be read.
const ATTEMPTS: usize = 10;
/// How long a supervisor may take to record that its child has ended. It takes a few milliseconds, unless it waits for a
/// slow disk.
const RECORDING: Duration = Duration::from_millis(200);
/// How many times a tree is scanned while processes of it are ending: a scan can miss their children.
const SCANS: usize = 3;

/// Observes services. Lists the processes and the listening sockets of the system at most once.
#[derive(Debug)]
pub(crate) struct Observer<'a> {
    registry: &'a Registry,
    /// The processes that carry the marker of a service, with its hash, or why they could not be listed. Filled by the
    /// first service that needs it.
    marked: OnceLock<Result<Vec<(String, ProcessIdentity)>, String>>,
    /// The ids of the listening sockets of the system; `None` if they could not be listed. Filled by the first service
    /// that needs it.
    open_sockets: OnceLock<Option<HashSet<u64>>>,
}

/// What is known of a service at one moment.
#[derive(Debug)]
pub(crate) struct Observation {
    /// Whether a supervisor holds the identity lock.
    pub(crate) liveness: Liveness,
    /// When the service was last known to run; `None` if it never ran.
    pub(crate) last_up: Option<Timestamp>,
    /// The run state that the last supervisor recorded, with the addresses on which the service listens now; `None` if
    /// there is none, or it cannot be read.
    pub(crate) run: Option<RunState>,
    /// The state that follows from lock and run state.
    pub(crate) observed: ObservedState,
    /// Whether the checkout of the service was deleted or replaced.
    pub(crate) is_gone: bool,
}

/// The state of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedState {
    /// The state that users see.
    pub(crate) state: State,
    /// Why the service is not well; `None` if it is.
    pub(crate) error: Option<String>,
    /// The pid of a process of the service that has no supervisor; `None` if there is none.
    pub(crate) orphan: Option<i32>,
}

/// The content of the run state file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Recorded {
    Run(Box<RunState>),
    /// There is no file.
    Nothing,
    /// The file cannot be read or parsed, for this reason.
    Unreadable(String),
}

/// A run state and a lock that belong to one moment.
struct Reading {
    liveness: Liveness,
    recorded: Recorded,
    /// The child has ended, and the supervisor has not recorded that.
    is_unrecorded: bool,
    survivor: Survivor,
}

/// Whether processes of a service run without a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Survivor {
    /// The state does not depend on it.
    Unchecked,
    None,
    /// The process with this pid runs.
    Process(i32),
    /// The processes could not be checked, for this reason.
    Unknown(String),
}

impl<'a> Observer<'a> {
    /// Creates an observer of the services in a registry. Reads nothing yet.
    pub(crate) fn new(registry: &'a Registry) -> Self {
        Self { registry, marked: OnceLock::new(), open_sockets: OnceLock::new() }
    }

    /// Returns what is known of a service now. If its lock, its run state or the processes of a killed supervisor cannot
    /// be checked, the state is [`State::Unknown`] with the reason.
    pub(crate) fn observe(&self, reservation: &Reservation) -> Observation {
        let (Reading { liveness, mut recorded, is_unrecorded, survivor }, listens) =
            self.read_with_listens(reservation);
        let mut problem = None;
        if let (Recorded::Run(run), Some(listens)) = (&mut recorded, listens) {
            let port = reservation.service_port().filter(|port| listens_on(&run.listens, *port));
            problem = port.filter(|port| !listens_on(&listens, *port)).map(lost_port);
            run.listens = listens;
        }
        let is_gone = is_checkout_gone(reservation, &recorded);
        if is_gone {
            problem = Some(Problem::CheckoutGone);
        }
        let last_up = self.last_up(reservation, &liveness, &recorded);
        let observed = derive(reservation.name(), &liveness, &recorded, is_unrecorded, problem.as_ref(), &survivor);
        let run = if let Recorded::Run(run) = recorded { Some(*run) } else { None };
        let observed = match &run {
            Some(run) if reservation.one_shot => of_one_shot(observed, run),
            _ => observed,
        };
        Observation { liveness, last_up, run, observed, is_gone }
    }

    /// Reads run state and lock, and where the service listens now if that differs, as [`Self::changed_listens`] does.
    fn read_with_listens(&self, reservation: &Reservation) -> (Reading, Option<Vec<SocketAddr>>) {
        let mut reading = self.read_until_consistent(reservation);
        let mut listens = self.changed_listens(reservation, &reading);
        for _ in 0..ATTEMPTS {
            // A service that ends stops listening before its supervisor records the end.
            let is_current = || !has_lost_child(&reading.recorded) && self.recorded(reservation) == reading.recorded;
            if listens.is_none() || is_current() {
                break;
            }
            reading = self.read_until_consistent(reservation);
            listens = self.changed_listens(reservation, &reading);
        }
        (reading, listens)
    }

    /// Reads run state and lock until they agree, at most [`ATTEMPTS`] times. If the supervisor was killed, searches for
    /// a surviving process.
    fn read_until_consistent(&self, reservation: &Reservation) -> Reading {
        let mut recorded = self.recorded(reservation);
        let mut liveness = if matches!(&recorded, Recorded::Run(run) if run.says_ended()) {
            self.registry.announced_liveness(&reservation.hash)
        } else {
            self.registry.liveness(&reservation.hash)
        };
        let began = clock::now();
        let mut survivor = Survivor::Unchecked;
        let mut is_unrecorded = false;
        for _ in 0..ATTEMPTS {
            // Check the child once for each reading: one that ends later is no contradiction.
            let lost_child = has_lost_child(&recorded);
            if agree(&liveness, &recorded, lost_child) {
                break;
            }
            let again = self.recorded(reservation);
            if again != recorded {
                (recorded, liveness) = (again, self.registry.liveness(&reservation.hash));
                continue;
            }
            // The run state did not change: the service is not just starting or ending.
            if matches!(liveness, Liveness::Free) {
                liveness = self.registry.unannounced_liveness(&reservation.hash);
                if !matches!(liveness, Liveness::Free) {
                    break;
                }
                survivor = self.survivor(reservation, &recorded);
                // A supervisor may have started meanwhile, and the process may be its child.
                let now = self.registry.liveness(&reservation.hash);
                if !now.is_held() {
                    break;
                }
                (recorded, liveness, survivor) = (self.recorded(reservation), now, Survivor::Unchecked);
            } else if lost_child && clock::now().saturating_duration_since(began) < RECORDING {
                self.await_record(reservation, &recorded);
                (recorded, liveness) = (self.recorded(reservation), self.registry.liveness(&reservation.hash));
            } else {
                is_unrecorded = lost_child;
                break;
            }
        }
        Reading { liveness, recorded, is_unrecorded, survivor }
    }

    /// Returns where a service listens now, if that may differ from what its supervisor recorded; `None` if it does not
    /// differ, or cannot be found out. Its tree is scanned only if a recorded socket is not open any more.
    fn changed_listens(&self, reservation: &Reservation, reading: &Reading) -> Option<Vec<SocketAddr>> {
        let Recorded::Run(run) = &reading.recorded else { return None };
        let is_current = run.state.is_up() && !reading.is_unrecorded && is_held_by(&reading.liveness, run);
        if run.listens.is_empty() || !is_current {
            return None;
        }
        let all_ids = || socket::all().ok().map(|sockets| sockets.into_iter().map(|socket| socket.id).collect());
        let open = self.open_sockets.get_or_init(all_ids).as_ref()?;
        // Supervisors of earlier versions record no sockets.
        if !run.sockets.is_empty() && run.sockets.iter().all(|id| open.contains(id)) {
            return None;
        }
        if !socket::sees_network_of(run.supervisor.pid).ok()? {
            return None;
        }
        let mut listens = Vec::new();
        for _ in 0..SCANS {
            let members = self.registry.members(&reservation.hash, run).ok()?;
            let pids: Vec<i32> = members.living.iter().map(|member| member.pid).collect();
            listens = socket::addresses(&socket::listens(&pids).ok()?);
            if !members.is_unsettled || listens == run.listens {
                break;
            }
        }
        Some(listens)
    }

    /// Returns when a service was last known to run: the end of the last run if no child runs now. `None` if it never ran.
    fn last_up(&self, reservation: &Reservation, liveness: &Liveness, recorded: &Recorded) -> Option<Timestamp> {
        // A registration sets the time in the record, and a supervisor without a child has heartbeats too.
        let beat = || {
            let beat = self.registry.last_beat(&reservation.hash).max(Some(reservation.last_up));
            beat.filter(|at| *at != Timestamp::UNIX_EPOCH)
        };
        match recorded {
            Recorded::Nothing if matches!(liveness, Liveness::Free) && !reservation.is_of_first_devport() => None,
            Recorded::Run(run) if run.child.is_none() && !matches!(liveness, Liveness::Unknown(_)) => {
                run.last_run_ended_at().or_else(|| if run.has_never_run() { None } else { beat() })
            }
            Recorded::Run(run) => beat().max(run.started_at),
            Recorded::Nothing | Recorded::Unreadable(_) => beat(),
        }
    }

    /// Reads the run state file.
    fn recorded(&self, reservation: &Reservation) -> Recorded {
        match self.registry.run_state(&reservation.hash) {
            Ok(Some(run)) => Recorded::Run(Box::new(run)),
            Ok(None) => Recorded::Nothing,
            Err(error) => Recorded::Unreadable(error.to_string()),
        }
    }

    /// Waits until the supervisor records that its child has ended, for at most [`RECORDING`].
    fn await_record(&self, reservation: &Reservation, recorded: &Recorded) {
        clock::poll(Duration::from_millis(1), RECORDING, || (self.recorded(reservation) != *recorded).then_some(()));
    }

    /// Searches for a process of a service without a supervisor: first the recorded child, then the processes that carry the
    /// service's marker.
    fn survivor(&self, reservation: &Reservation, recorded: &Recorded) -> Survivor {
        let find = || -> Result<Option<i32>, String> {
            let text = |error: std::io::Error| reason(&error);
            let child = if let Recorded::Run(run) = recorded { run.child.as_ref() } else { None };
            if let Some(child) = child
                && child.is_alive().map_err(text)?
            {
                return Ok(Some(child.pid));
            }
            let home = self.registry.paths().base();
            let marked = self.marked.get_or_init(|| tree::all_marked(home).map_err(text));
            for (hash, process) in marked.as_ref().map_err(Clone::clone)? {
                // The process may have ended since the scan.
                if hash == reservation.hash.as_str() && process.is_alive().map_err(text)? {
                    return Ok(Some(process.pid));
                }
            }
            Ok(None)
        };
        match find() {
            Ok(Some(pid)) => Survivor::Process(pid),
            Ok(None) => Survivor::None,
            Err(why) => Survivor::Unknown(why),
        }
    }
}

/// Returns whether the checkout of a service was deleted, or replaced since the service was started. A root that cannot
/// be read may exist.
fn is_checkout_gone(reservation: &Reservation, recorded: &Recorded) -> bool {
    let Some(root) = reservation.root.as_deref() else { return false };
    let at_start = match recorded {
        Recorded::Run(run) if run.state.is_up() => run.root_id.as_ref(),
        _ => None,
    };
    let id = at_start.or(reservation.root_id.as_ref());
    Presence::of(root, id, reservation.git_dir.as_deref()).is_ok_and(Presence::is_gone)
}

/// Returns whether the child of a service that is recorded as running has ended.
fn has_lost_child(recorded: &Recorded) -> bool {
    let Recorded::Run(run) = recorded else { return false };
    run.state.is_up() && run.child.as_ref().is_some_and(|child| !process::exists(child.pid))
}

/// Returns whether lock and run state can be of one moment. `lost_child`: the recorded child has ended.
fn agree(liveness: &Liveness, recorded: &Recorded, lost_child: bool) -> bool {
    match (liveness, recorded) {
        (Liveness::Unknown(_), _) | (_, Recorded::Unreadable(_)) | (Liveness::Free, Recorded::Nothing) => true,
        (Liveness::Free, Recorded::Run(run)) => run.says_ended(),
        (Liveness::Held(_), Recorded::Run(run)) => is_held_by(liveness, run) && !lost_child,
        (Liveness::Held(_), Recorded::Nothing) => false,
    }
}

/// Returns whether the supervisor that recorded a run state holds the lock, as far as the lock names its holder.
fn is_held_by(liveness: &Liveness, run: &RunState) -> bool {
    matches!(liveness, Liveness::Held(holder) if holder.as_ref().is_none_or(|holder| *holder == run.supervisor))
}

/// Returns whether one of the addresses has this port.
fn listens_on(addresses: &[SocketAddr], port: u16) -> bool {
    addresses.iter().any(|address| address.port() == port)
}

/// Returns the problem of a service that no longer listens on its port: another process has it, or none.
fn lost_port(port: u16) -> Problem {
    if socket::holders(port).is_ok_and(|holders| !holders.is_empty()) {
        Problem::PortTaken { port, owner: owner_text(port) }
    } else {
        format!("nothing listens on port {port} any more").into()
    }
}

/// Derives the state of a service. `is_unrecorded`: the child has ended, and the supervisor has not recorded that.
/// `problem`: what the supervisor does not know: the checkout is gone, or the service does not listen on its port any
/// more.
fn derive(
    name: &str,
    liveness: &Liveness,
    recorded: &Recorded,
    is_unrecorded: bool,
    problem: Option<&Problem>,
    survivor: &Survivor,
) -> ObservedState {
    let plain = |state| ObservedState { state, error: None, orphan: None };
    let with_error = |state, error: String| ObservedState { error: Some(error), ..plain(state) };
    match (liveness, recorded) {
        (Liveness::Unknown(error), _) => {
            with_error(State::Unknown, format!("could not check its lock: {}", reason(error)))
        }
        (_, Recorded::Unreadable(why)) => with_error(State::Unknown, why.clone()),
        (Liveness::Held(_), Recorded::Run(run)) if is_held_by(liveness, run) => {
            if is_unrecorded {
                return with_error(
                    State::Unknown,
                    "its supervisor has not recorded the end of its process (is the disk full, or the machine busy?)"
                        .into(),
                );
            }
            match (run.state, problem) {
                (State::Ready, Some(why)) | (State::Running | State::Unhealthy, Some(why @ Problem::CheckoutGone)) => {
                    return with_error(State::Running, why.to_string());
                }
                _ => {}
            }
            // A supervisor records the end before it releases the lock and exits.
            let state = if run.state == State::Stopped { State::Stopping } else { run.state };
            ObservedState { error: run.error.as_ref().map(Problem::to_string), ..plain(state) }
        }
        // The supervisor has locked, but not recorded a state yet.
        (Liveness::Held(_), _) => plain(State::Starting),
        (Liveness::Free, Recorded::Nothing) => plain(State::Stopped),
        (Liveness::Free, Recorded::Run(run)) if run.says_ended() => {
            ObservedState { error: run.error.as_ref().map(Problem::to_string), ..plain(run.state) }
        }
        (Liveness::Free, Recorded::Run(_)) => match survivor {
            Survivor::Process(pid) => ObservedState {
                orphan: Some(*pid),
                ..with_error(
                    State::Orphaned,
                    format!(
                        "its supervisor was killed, and pid {pid} survived; `devport stop {}` stops it",
                        shell_words::quote(name)
                    ),
                )
            },
            Survivor::Unknown(why) => with_error(
                State::Unknown,
                format!("its supervisor was killed; could not search for its processes: {why}"),
            ),
            Survivor::None | Survivor::Unchecked => with_error(State::Stopped, "its supervisor was killed".into()),
        },
    }
}

/// Returns the state of a one-shot: one that has ended without a request has completed or failed.
fn of_one_shot(observed: ObservedState, run: &RunState) -> ObservedState {
    let ended = run.exit_of_this_start().filter(|_| observed.state == State::Stopped);
    match ended.filter(|exit| !exit.was_requested) {
        Some(exit) if exit.how == ExitHow::Code(0) => ObservedState { state: State::Completed, ..observed },
        Some(exit) => ObservedState { state: State::Failed, error: Some(exit.to_string()), ..observed },
        None => observed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(pid: i32) -> ProcessIdentity {
        ProcessIdentity { pid, start_time: Some(1), boot_id: Some("b".into()) }
    }

    fn run(state: State) -> Recorded {
        let mut run = RunState::begin(supervisor(7), None, None);
        (run.state, run.error) = (state, Some("e".into()));
        Recorded::Run(Box::new(run))
    }

    #[test]
    fn the_state_follows_from_lock_run_state_and_survivors() {
        let held = |pid| Liveness::Held(Some(supervisor(pid)));
        let broken = || Liveness::Unknown(std::io::Error::from_raw_os_error(libc::EMFILE));
        let unreadable = || Recorded::Unreadable("no".into());
        let rows = [
            (held(7), run(State::Ready), false, Survivor::Unchecked, State::Ready),
            (held(7), run(State::Backoff), false, Survivor::Unchecked, State::Backoff),
            (held(7), run(State::Failed), false, Survivor::Unchecked, State::Failed),
            // The supervisor has recorded the end, and still holds the lock.
            (held(7), run(State::Stopped), false, Survivor::Unchecked, State::Stopping),
            // An earlier supervisor recorded the run state.
            (held(8), run(State::Ready), false, Survivor::Unchecked, State::Starting),
            (held(7), Recorded::Nothing, false, Survivor::Unchecked, State::Starting),
            (Liveness::Held(None), run(State::Ready), false, Survivor::Unchecked, State::Ready),
            (held(7), run(State::Ready), true, Survivor::Unchecked, State::Unknown),
            (held(7), unreadable(), false, Survivor::Unchecked, State::Unknown),
            (Liveness::Free, Recorded::Nothing, false, Survivor::Unchecked, State::Stopped),
            (Liveness::Free, run(State::Stopped), false, Survivor::Unchecked, State::Stopped),
            (Liveness::Free, run(State::Failed), false, Survivor::Unchecked, State::Failed),
            (Liveness::Free, run(State::Ready), false, Survivor::None, State::Stopped),
            (Liveness::Free, run(State::Ready), false, Survivor::Process(9), State::Orphaned),
            (Liveness::Free, run(State::Ready), false, Survivor::Unknown("no".into()), State::Unknown),
            (Liveness::Free, unreadable(), false, Survivor::Unchecked, State::Unknown),
            (broken(), run(State::Ready), false, Survivor::Unchecked, State::Unknown),
        ];
        for (liveness, recorded, is_unrecorded, survivor, expected) in rows {
            let observed = derive("a", &liveness, &recorded, is_unrecorded, None, &survivor);
            assert_eq!(observed.state, expected, "{liveness:?} {recorded:?} {survivor:?}");
            assert_eq!(observed.orphan, if survivor == Survivor::Process(9) { Some(9) } else { None });
            assert!(expected != State::Unknown || observed.error.is_some());
        }
    }

    #[test]
    fn a_service_that_is_recorded_as_ready_and_lost_its_port_is_running_with_that_error() {
        let held = |pid| Liveness::Held(Some(supervisor(pid)));
        let lost = "nothing listens on port 7 any more";
        let problem = Problem::from(lost);
        for (liveness, recorded, is_unrecorded, state, error) in [
            (held(7), State::Ready, false, State::Running, Some(lost)),
            (Liveness::Held(None), State::Ready, false, State::Running, Some(lost)),
            // What the supervisor recorded says more.
            (held(7), State::Unhealthy, false, State::Unhealthy, Some("e")),
            (held(7), State::Stopping, false, State::Stopping, Some("e")),
            (held(7), State::Running, false, State::Running, Some("e")),
            (held(8), State::Ready, false, State::Starting, None),
            (Liveness::Free, State::Stopped, false, State::Stopped, Some("e")),
        ] {
            let observed = derive("a", &liveness, &run(recorded), is_unrecorded, Some(&problem), &Survivor::Unchecked);
            assert_eq!((observed.state, observed.error.as_deref()), (state, error), "{liveness:?} {recorded:?}");
        }
        let unrecorded = derive("a", &held(7), &run(State::Ready), true, Some(&problem), &Survivor::Unchecked);
        assert_eq!(unrecorded.state, State::Unknown);
    }

    #[test]
    fn a_lock_and_a_run_state_of_two_moments_disagree() {
        let held = |pid| Liveness::Held(Some(supervisor(pid)));
        for (liveness, recorded, lost_child, expected) in [
            (held(7), run(State::Ready), false, true),
            (held(7), run(State::Ready), true, false),
            (held(8), run(State::Ready), false, false),
            (held(7), Recorded::Nothing, false, false),
            (Liveness::Free, run(State::Ready), false, false),
            (Liveness::Free, run(State::Stopped), false, true),
            (Liveness::Free, Recorded::Nothing, false, true),
        ] {
            assert_eq!(agree(&liveness, &recorded, lost_child), expected, "{liveness:?} {recorded:?}");
        }
    }
}
