//! `Lifecycle`: what a supervisor does next. Pure: it has no clock, no process and no file in reach.

use std::time::{Duration, Instant};

use crate::registry::{ExitHow, State};
use crate::supervisor::backoff::Backoff;

/// The time between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often what survives SIGKILL, or hides from it, is looked for again.
const SWEEP: Duration = Duration::from_millis(50);
/// How often a port that somebody else has is looked at.
const PORT_RETRY: Duration = Duration::from_secs(5);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The supervisor is set up. Processes of an earlier run may be left.
    Begin {
        /// Whether some are.
        leftovers: bool,
    },
    /// The child executes: the answer to [`Action::Spawn`].
    Spawned,
    /// The child could not be executed, for this reason: another answer.
    SpawnFailed(String),
    /// The port is taken, as this message says: the third answer.
    PortTaken(String),
    /// The child ended.
    Exited(ExitHow),
    /// No process of the tree is left.
    TreeGone,
    /// The service shall end.
    Stop,
    /// The child shall be replaced by a new one.
    Restart,
    /// A deadline has come.
    Tick,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Check the port and start the child; tell the lifecycle what came of it.
    Spawn,
    /// Ask the whole tree to end.
    Terminate,
    /// Kill what is left of the tree.
    Kill,
    /// Write down the state, and what is wrong.
    Record(State, Option<String>),
    /// End the supervisor.
    Quit(Outcome),
}

/// How a supervisor ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was asked to.
    Stopped,
    /// The child cannot be started, for this reason.
    Failed(String),
}

/// Where the service is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Nothing has happened.
    New,
    /// The child is being started.
    Starting,
    /// The child runs.
    Running {
        /// Since when.
        since: Instant,
    },
    /// The tree is being ended.
    Clearing {
        /// What follows.
        then: Then,
        /// When what is left is killed (again).
        kill_at: Instant,
    },
    /// The next start is being waited for.
    Backoff {
        /// When it is.
        until: Instant,
    },
    /// The port is being waited for.
    PortConflict {
        /// When it is looked at again.
        until: Instant,
    },
    /// The supervisor ends.
    Done,
}

/// What follows when the tree is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// A start, now or later.
    StartAt(Instant),
    /// The end.
    Quit,
}

/// The state machine of one supervisor.
#[derive(Debug, Clone)]
pub(super) struct Lifecycle {
    /// Where the service is.
    phase: Phase,
    /// How long to wait after the next crash.
    backoff: Backoff,
    /// Whether a child ever executed.
    ever_ran: bool,
    /// How often a child was started after a crash.
    restarts: u32,
    /// Whether the next start counts as a restart.
    crashed: bool,
}

impl Lifecycle {
    /// A service of which nothing runs yet.
    pub(super) fn new() -> Self {
        Self { phase: Phase::New, backoff: Backoff::default(), ever_ran: false, restarts: 0, crashed: false }
    }

    /// When [`Event::Tick`] is due; `None` if only an event can change anything.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Clearing { kill_at, .. } => Some(kill_at),
            Phase::Backoff { until } | Phase::PortConflict { until } => Some(until),
            Phase::New | Phase::Starting | Phase::Running { .. } | Phase::Done => None,
        }
    }

    /// When the child will be started; `None` unless that is being waited for.
    pub(super) fn next_start(&self) -> Option<Instant> {
        match self.phase {
            Phase::Backoff { until } | Phase::PortConflict { until } => Some(until),
            _ => None,
        }
    }

    /// How often a child was started after a crash.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Whether the tree is being ended, so that its end must be looked for.
    pub(super) fn is_clearing(&self) -> bool {
        matches!(self.phase, Phase::Clearing { .. })
    }

    /// Takes in an event; returns what is to be done, in order.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Begin { .. } if self.phase != Phase::New => Vec::new(),
            Event::Begin { leftovers: true } => self.clear(Then::StartAt(now), now, State::Starting),
            Event::Begin { leftovers: false } => self.start(),
            Event::Spawned => self.spawned(now),
            Event::SpawnFailed(why) => self.spawn_failed(why, now),
            Event::PortTaken(why) => {
                self.phase = Phase::PortConflict { until: now + PORT_RETRY };
                vec![Action::Record(State::PortConflict, Some(why))]
            }
            Event::Exited(_) => self.exited(now),
            Event::TreeGone => self.tree_gone(now),
            Event::Stop => self.stop(now),
            Event::Restart => self.restart(now),
            Event::Tick => self.tick(now),
        }
    }

    /// Begins to start the child.
    fn start(&mut self) -> Vec<Action> {
        self.phase = Phase::Starting;
        if self.crashed {
            self.restarts += 1;
            self.crashed = false;
        }
        vec![Action::Spawn]
    }

    /// Begins to end the tree.
    fn clear(&mut self, then: Then, now: Instant, shown: State) -> Vec<Action> {
        self.phase = Phase::Clearing { then, kill_at: now + GRACE };
        vec![Action::Record(shown, None), Action::Terminate]
    }

    /// The child executes.
    fn spawned(&mut self, now: Instant) -> Vec<Action> {
        self.phase = Phase::Running { since: now };
        self.ever_ran = true;
        vec![Action::Record(State::Running, None)]
    }

    /// The child could not be executed. Before it ever was, nobody will mend that while we wait; later, as
    /// when a compiler is replacing the program, it counts as a crash.
    fn spawn_failed(&mut self, why: String, now: Instant) -> Vec<Action> {
        if !self.ever_ran {
            self.phase = Phase::Done;
            return vec![Action::Record(State::Failed, Some(why.clone())), Action::Quit(Outcome::Failed(why))];
        }
        let wait = self.backoff.after_crash(Duration::ZERO);
        self.crashed = true;
        self.phase = Phase::Backoff { until: now + wait };
        vec![Action::Record(State::Backoff, Some(why))]
    }

    /// The child ended. What it has left behind is ended too, before anything else is started.
    fn exited(&mut self, now: Instant) -> Vec<Action> {
        let Phase::Running { since } = self.phase else { return Vec::new() };
        let wait = self.backoff.after_crash(now.saturating_duration_since(since));
        self.crashed = true;
        self.clear(Then::StartAt(now + wait), now, State::Backoff)
    }

    /// No process is left.
    fn tree_gone(&mut self, now: Instant) -> Vec<Action> {
        let Phase::Clearing { then, .. } = self.phase else { return Vec::new() };
        match then {
            Then::Quit => self.quit(),
            Then::StartAt(at) if at <= now => self.start(),
            Then::StartAt(until) => {
                self.phase = Phase::Backoff { until };
                vec![Action::Record(State::Backoff, None)]
            }
        }
    }

    /// The service shall end. Asked for a second time, it ends at once.
    fn stop(&mut self, now: Instant) -> Vec<Action> {
        match &mut self.phase {
            Phase::Clearing { then: Then::Quit, .. } => vec![Action::Kill],
            Phase::Clearing { then, .. } => {
                *then = Then::Quit;
                vec![Action::Record(State::Stopping, None)]
            }
            Phase::Running { .. } => self.clear(Then::Quit, now, State::Stopping),
            Phase::New | Phase::Starting | Phase::Backoff { .. } | Phase::PortConflict { .. } => self.quit(),
            Phase::Done => Vec::new(),
        }
    }

    /// Ends the supervisor.
    fn quit(&mut self) -> Vec<Action> {
        self.phase = Phase::Done;
        vec![Action::Record(State::Stopped, None), Action::Quit(Outcome::Stopped)]
    }

    /// The child shall be replaced. A service that is ending goes on ending.
    fn restart(&mut self, now: Instant) -> Vec<Action> {
        self.backoff.reset();
        match &mut self.phase {
            Phase::Running { .. } => self.clear(Then::StartAt(now), now, State::Starting),
            Phase::Clearing { then: then @ Then::StartAt(_), .. } => {
                *then = Then::StartAt(now);
                self.crashed = false;
                vec![Action::Record(State::Starting, None)]
            }
            Phase::Backoff { .. } | Phase::PortConflict { .. } => {
                self.crashed = false;
                self.start()
            }
            Phase::New | Phase::Starting | Phase::Clearing { .. } | Phase::Done => Vec::new(),
        }
    }

    /// A deadline may have come.
    fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match &mut self.phase {
            Phase::Clearing { kill_at, .. } => {
                *kill_at = now + SWEEP;
                vec![Action::Kill]
            }
            Phase::Backoff { .. } | Phase::PortConflict { .. } => self.start(),
            Phase::New | Phase::Starting | Phase::Running { .. } | Phase::Done => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;
    use proptest::prelude::*;

    fn running(now: Instant) -> Lifecycle {
        let mut life = Lifecycle::new();
        assert_eq!(life.step(Event::Begin { leftovers: false }, now), [Action::Spawn]);
        assert_eq!(life.step(Event::Spawned, now), [Action::Record(State::Running, None)]);
        life
    }

    fn crash(life: &mut Lifecycle, now: Instant) {
        life.step(Event::Exited(ExitHow::Code(1)), now);
        life.step(Event::TreeGone, now);
    }

    #[test]
    fn a_crash_is_followed_by_a_start_after_the_backoff() {
        let now = clock::now();
        let mut life = running(now);
        crash(&mut life, now);
        assert_eq!(life.deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!(life.step(Event::Tick, now + Duration::from_millis(999)), []);
        assert_eq!(life.step(Event::Tick, now + Duration::from_secs(1)), [Action::Spawn]);
        assert_eq!(life.restarts(), 1);
    }

    #[test]
    fn d04_a_stop_is_acted_on_in_backoff() {
        let now = clock::now();
        let mut life = running(now);
        crash(&mut life, now);
        assert_eq!(life.step(Event::Stop, now).last(), Some(&Action::Quit(Outcome::Stopped)));
    }

    #[test]
    fn a_stop_asks_then_kills_then_ends() {
        let now = clock::now();
        let mut life = running(now);
        assert_eq!(life.step(Event::Stop, now).last(), Some(&Action::Terminate));
        assert_eq!(life.step(Event::Exited(ExitHow::Code(0)), now), [], "members of the tree may be left");
        assert_eq!(life.step(Event::Tick, now + GRACE), [Action::Kill]);
        assert_eq!(life.step(Event::TreeGone, now + GRACE).last(), Some(&Action::Quit(Outcome::Stopped)));
    }

    #[test]
    fn a_second_stop_kills_at_once() {
        let now = clock::now();
        let mut life = running(now);
        life.step(Event::Stop, now);
        assert_eq!(life.step(Event::Stop, now), [Action::Kill]);
    }

    #[test]
    fn a_restart_waits_for_the_old_tree_and_not_for_the_backoff() {
        let now = clock::now();
        let mut life = running(now);
        assert_eq!(life.step(Event::Restart, now).last(), Some(&Action::Terminate));
        life.step(Event::Exited(ExitHow::Signal(15)), now);
        assert_eq!(life.step(Event::TreeGone, now), [Action::Spawn]);
        assert_eq!(life.restarts(), 0, "it was asked for");
        life.step(Event::Spawned, now);
        crash(&mut life, now);
        assert_eq!(life.step(Event::Restart, now), [Action::Spawn]);
    }

    #[test]
    fn the_first_spawn_failure_is_the_end_and_a_later_one_a_crash() {
        let now = clock::now();
        let mut life = Lifecycle::new();
        life.step(Event::Begin { leftovers: false }, now);
        let end = life.step(Event::SpawnFailed("no".into()), now);
        assert_eq!(end.last(), Some(&Action::Quit(Outcome::Failed("no".into()))));
        let mut life = running(now);
        life.step(Event::Restart, now);
        life.step(Event::TreeGone, now);
        assert_eq!(
            life.step(Event::SpawnFailed("no".into()), now),
            [Action::Record(State::Backoff, Some("no".into()))]
        );
    }

    #[test]
    fn leftovers_go_before_the_first_start() {
        let now = clock::now();
        let mut life = Lifecycle::new();
        assert_eq!(life.step(Event::Begin { leftovers: true }, now).last(), Some(&Action::Terminate));
        assert_eq!(life.step(Event::TreeGone, now), [Action::Spawn]);
    }

    #[test]
    fn a_taken_port_is_looked_at_again_and_is_no_crash() {
        let now = clock::now();
        let mut life = Lifecycle::new();
        life.step(Event::Begin { leftovers: false }, now);
        life.step(Event::PortTaken("by x".into()), now);
        assert_eq!(life.step(Event::Tick, now + PORT_RETRY), [Action::Spawn]);
        assert_eq!(life.restarts(), 0);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Exited(ExitHow::Code(1))),
            Just(Event::TreeGone),
            Just(Event::Stop),
            Just(Event::Restart),
            Just(Event::Tick),
        ]
    }

    proptest! {
        #[test]
        fn never_two_children_never_one_after_a_stop_and_always_a_way_on(
            events in proptest::collection::vec((any_event(), 0_u64..20_000, 0..3), 1..60)
        ) {
            let mut now = clock::now();
            let mut life = Lifecycle::new();
            let (mut child, mut stopped) = (true, false);
            prop_assert_eq!(life.step(Event::Begin { leftovers: false }, now), vec![Action::Spawn]);
            let mut queue = vec![Event::Spawned];
            for (event, ms, answer) in events {
                now += Duration::from_millis(ms);
                // Only what can happen: a child that exits, a tree that is gone when there is none.
                match event {
                    Event::Exited(_) if !child => continue,
                    Event::Exited(_) => child = false,
                    Event::TreeGone if child || !life.is_clearing() => continue,
                    Event::Stop => stopped = true,
                    _ => {}
                }
                queue.insert(0, event);
                while let Some(event) = queue.pop() {
                    for action in life.step(event, now) {
                        if action == Action::Spawn {
                            prop_assert!(!child && !stopped);
                            queue.push(match answer {
                                0 => Event::SpawnFailed("no".into()),
                                1 => Event::PortTaken("by x".into()),
                                _ => { child = true; Event::Spawned }
                            });
                        }
                    }
                }
                let waiting = !child && life.phase != Phase::Done && life.phase != Phase::New;
                prop_assert!(!waiting || life.deadline().is_some_and(|deadline| deadline <= now + Duration::from_secs(30)));
                let ending = matches!(life.phase, Phase::Done | Phase::Clearing { then: Then::Quit, .. });
                prop_assert!(!stopped || ending);
            }
        }
    }
}
