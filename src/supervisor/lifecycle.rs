//! `Lifecycle`: decides what a supervisor does next. Pure: it uses no clock, no process and no file.

use std::time::{Duration, Instant};

use crate::config::{Policy, RestartWhen};
use crate::os::clock::later;
use crate::registry::{ExitHow, PortInUse, Problem, State, UP_AFTER};
use crate::supervisor::backoff::{AfterCrash, Backoff};
use crate::supervisor::event::{Action, Event, Outcome, StopCause};

/// The time between kills of a tree: a process that forks while it is scanned can escape one. A scan reads `/proc` for
/// milliseconds, so 50 ms keep the processor mostly free.
const SWEEP: Duration = Duration::from_millis(50);

/// Returns the time between checks of a port that cannot be used. A user who has ended the program on the port waits for
/// at most 5 s. A port that closed connections block becomes free without help, and is checked each second: a check takes
/// less than a millisecond.
pub(super) fn port_retry(problem: &Problem) -> Duration {
    Duration::from_secs(if matches!(problem, Problem::PortClosing { .. }) { 1 } else { 5 })
}

/// The phase of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Before [`Event::Begin`].
    New,
    /// [`Action::Spawn`] has no result yet.
    Starting,
    Running {
        since: Instant,
        /// The recorded state: [`State::Running`], [`State::Ready`] or [`State::Unhealthy`].
        shown: State,
    },
    /// The process tree is being ended.
    Clearing {
        next: NextStep,
        /// When the rest of the tree is killed, for the first time or again.
        kill_at: Instant,
    },
    /// The child crashed and will be restarted.
    Backoff {
        until: Instant,
        /// The recorded state: [`State::Backoff`] or [`State::CrashLoop`].
        shown: State,
    },
    /// The port is taken or blocked.
    PortConflict {
        /// When the port is checked again.
        until: Instant,
    },
    /// [`Action::Quit`] was returned.
    Done,
}

/// What follows once no process of the tree is left.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NextStep {
    /// A start at this time; until then, this state is recorded.
    StartAt {
        at: Instant,
        shown: State,
        /// Why the child was ended; `None` if it ended by itself.
        why: Option<Problem>,
    },
    End(Outcome),
}

impl NextStep {
    /// Returns a start without a wait.
    fn start_now(now: Instant) -> Self {
        Self::StartAt { at: now, shown: State::Starting, why: None }
    }
}

/// The state machine of one supervisor.
#[derive(Debug, Clone)]
pub(super) struct Lifecycle {
    phase: Phase,
    policy: Policy,
    backoff: Backoff,
    /// How many times the child was started after a crash.
    restarts: u32,
    /// Whether the next start counts as a restart.
    crashed: bool,
    /// How many [`StopCause::Signal`]s there were.
    stop_signals: u32,
}

impl Lifecycle {
    /// Creates the state machine of a service whose child is not started yet. `seed` is for the backoff's jitter.
    pub(super) fn new(policy: Policy, seed: u64) -> Self {
        let backoff = Backoff::new(&policy, seed);
        Self { phase: Phase::New, policy, backoff, restarts: 0, crashed: false, stop_signals: 0 }
    }

    /// Returns when [`Event::Tick`] is due; `None` if only another event can change anything.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Clearing { kill_at, .. } => Some(kill_at),
            Phase::Backoff { until, .. } | Phase::PortConflict { until } => Some(until),
            Phase::New | Phase::Starting | Phase::Running { .. } | Phase::Done => None,
        }
    }

    /// Returns when the child will be started; `None` unless a start is scheduled.
    pub(super) fn next_start(&self) -> Option<Instant> {
        match self.phase {
            Phase::Backoff { until, .. } | Phase::PortConflict { until } => Some(until),
            _ => None,
        }
    }

    /// Returns how many times the child was started after a crash.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Returns whether the child runs, and nothing is ending it. A command that exits now may have handed over to another
    /// process of its tree, which is no exit.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Returns whether the tree is being ended, so that the caller must scan for its end.
    pub(super) fn is_clearing(&self) -> bool {
        matches!(self.phase, Phase::Clearing { .. })
    }

    /// Handles an event; returns the actions to run, in order.
    pub(super) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Begin { .. } if self.phase != Phase::New => Vec::new(),
            Event::Begin { orphans: true } => self.clear(NextStep::start_now(now), now, State::Starting, None),
            Event::Begin { orphans: false } => self.start(),
            Event::Spawned { since } => self.spawned(since),
            Event::SpawnFailed { why, is_permanent } => self.spawn_failed(why, is_permanent, now),
            Event::PortTaken(why) => {
                self.phase = Phase::PortConflict { until: now + port_retry(&why) };
                vec![Action::Record(State::PortConflict, Some(why))]
            }
            Event::Exited { how, ran, port_in_use } => self.exited(how, ran, port_in_use, now),
            Event::Ready | Event::Healthy => self.show_as(State::Ready, None),
            Event::NotReady(why) => self.show_as(State::Running, Some(why)),
            Event::Unhealthy(why) => self.unhealthy(why, now),
            Event::TreeGone => self.tree_gone(now),
            Event::Stop(cause) => self.stop(cause, now),
            Event::Restart => self.restart(now),
            Event::Tick => self.tick(now),
        }
    }

    fn start(&mut self) -> Vec<Action> {
        self.phase = Phase::Starting;
        if self.crashed {
            self.restarts += 1;
            self.crashed = false;
        }
        vec![Action::Spawn]
    }

    /// Begins to end the tree, with a grace period.
    fn clear(&mut self, next: NextStep, now: Instant, shown: State, why: Option<Problem>) -> Vec<Action> {
        self.phase = Phase::Clearing { next, kill_at: later(now, self.policy.grace.0) };
        vec![Action::Record(shown, why), Action::Terminate]
    }

    fn spawned(&mut self, since: Instant) -> Vec<Action> {
        self.phase = Phase::Running { since, shown: State::Running };
        vec![Action::Record(State::Running, None)]
    }

    /// Records another state of a running child, or another reason for its state.
    fn show_as(&mut self, state: State, why: Option<Problem>) -> Vec<Action> {
        let Phase::Running { shown, .. } = &mut self.phase else { return Vec::new() };
        *shown = state;
        vec![Action::Record(state, why)]
    }

    /// Records a failed health check. If the policy restarts unhealthy services, it counts as a crash.
    fn unhealthy(&mut self, why: Problem, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Running { since, .. } if self.policy.restart_unhealthy => {
                self.crash(now.saturating_duration_since(since), now, Some(why), None)
            }
            _ => self.show_as(State::Unhealthy, Some(why)),
        }
    }

    /// Gives up after a permanent failure, such as a missing program. Other failures, such as too many open files, pass
    /// with time and count as crashes.
    fn spawn_failed(&mut self, why: Problem, is_permanent: bool, now: Instant) -> Vec<Action> {
        if is_permanent {
            return self.end(Outcome::Failed(why));
        }
        match self.backoff.after_crash(Duration::ZERO, now) {
            AfterCrash::GiveUp => self.end(Outcome::Failed(self.limit_text(Some(&why)).into())),
            AfterCrash::Wait(wait) => self.wait_for_start(later(now, wait), State::Backoff, Some(why)),
            AfterCrash::Loop(wait) => self.wait_for_start(later(now, wait), State::CrashLoop, Some(why)),
        }
    }

    fn wait_for_start(&mut self, until: Instant, shown: State, why: Option<Problem>) -> Vec<Action> {
        self.crashed = true;
        self.phase = Phase::Backoff { until, shown };
        vec![Action::Record(shown, why)]
    }

    /// Decides what follows an exit. The rest of the tree is always ended first.
    fn exited(
        &mut self,
        how: ExitHow,
        ran: Duration,
        port_in_use: Option<Box<PortInUse>>,
        now: Instant,
    ) -> Vec<Action> {
        if !matches!(self.phase, Phase::Running { .. }) {
            return Vec::new();
        }
        let outcome = match (how, self.policy.restart) {
            // Shells exit with 126 if a command cannot be executed, and with 127 if it does not exist (POSIX, `sh`). A
            // command that was up has another reason, which a restart may remove.
            (ExitHow::Code(126), _) if ran <= UP_AFTER => {
                Outcome::Failed("exit code 126: the command cannot be executed".into())
            }
            (ExitHow::Code(127), _) if ran <= UP_AFTER => Outcome::Failed("exit code 127: command not found".into()),
            (ExitHow::Code(0), RestartWhen::OnFailure | RestartWhen::Never) => Outcome::Stopped,
            (how, RestartWhen::Never) => {
                Outcome::Failed(Problem::gave_up(format!("{how}, and `restart` is never"), port_in_use))
            }
            _ => return self.crash(ran, now, None, port_in_use),
        };
        self.clear_for_end(outcome, now)
    }

    /// Ends the rest of the tree after a crash, and schedules a restart unless the limit is reached.
    fn crash(
        &mut self,
        ran: Duration,
        now: Instant,
        why: Option<Problem>,
        port_in_use: Option<Box<PortInUse>>,
    ) -> Vec<Action> {
        let (wait, shown) = match self.backoff.after_crash(ran, now) {
            AfterCrash::Wait(wait) => (wait, State::Backoff),
            AfterCrash::Loop(wait) => (wait, State::CrashLoop),
            AfterCrash::GiveUp => {
                let why = Problem::gave_up(self.limit_text(why.as_ref()), port_in_use);
                return self.clear_for_end(Outcome::Failed(why), now);
            }
        };
        self.crashed = true;
        self.clear(NextStep::StartAt { at: later(now, wait), shown, why: why.clone() }, now, shown, why)
    }

    /// Returns why the service is not restarted any more. `why` is `None` if the child ended by itself.
    fn limit_text(&self, why: Option<&Problem>) -> String {
        let most = self.policy.max_restarts.unwrap_or(0);
        let times = if most == 1 { "1 restart".into() } else { format!("{most} restarts") };
        let limit = format!("after {times} within {}", self.policy.window);
        match why {
            Some(why) => format!("{why}; gave up {limit}"),
            None => format!("it ended again {limit}"),
        }
    }

    fn clear_for_end(&mut self, outcome: Outcome, now: Instant) -> Vec<Action> {
        self.clear(NextStep::End(outcome), now, State::Stopping, None)
    }

    fn tree_gone(&mut self, now: Instant) -> Vec<Action> {
        let Phase::Clearing { next, .. } = &self.phase else { return Vec::new() };
        match next.clone() {
            NextStep::End(outcome) => self.end(outcome),
            NextStep::StartAt { at, .. } if at <= now => self.start(),
            NextStep::StartAt { at: until, shown, why } => {
                self.phase = Phase::Backoff { until, shown };
                vec![Action::Record(shown, why)]
            }
        }
    }

    /// Stops the service. Only a second signal kills it before the grace period is over.
    fn stop(&mut self, cause: StopCause, now: Instant) -> Vec<Action> {
        if cause == StopCause::Signal {
            self.stop_signals = self.stop_signals.saturating_add(1);
        }
        let is_second = cause == StopCause::Signal && self.stop_signals > 1;
        let outcome = if cause == StopCause::CheckoutGone { Outcome::CheckoutGone } else { Outcome::Stopped };
        match &mut self.phase {
            Phase::Clearing { next, kill_at } => {
                let mut actions = Vec::new();
                if !matches!(next, NextStep::End(_)) {
                    *next = NextStep::End(outcome);
                    actions.push(Action::Record(State::Stopping, None));
                }
                if is_second {
                    *kill_at = now + SWEEP;
                    actions.push(Action::Kill);
                }
                actions
            }
            Phase::Running { .. } => self.clear_for_end(outcome, now),
            Phase::New | Phase::Starting | Phase::Backoff { .. } | Phase::PortConflict { .. } => self.end(outcome),
            Phase::Done => Vec::new(),
        }
    }

    fn end(&mut self, outcome: Outcome) -> Vec<Action> {
        self.phase = Phase::Done;
        let record = match &outcome {
            Outcome::Stopped => Action::Record(State::Stopped, None),
            Outcome::CheckoutGone => Action::Record(State::Stopped, Some(Problem::CheckoutGone)),
            Outcome::Failed(why) => Action::Record(State::Failed, Some(why.clone())),
        };
        vec![record, Action::Quit(outcome)]
    }

    /// Replaces the child without a backoff. A service that is being stopped is not restarted.
    fn restart(&mut self, now: Instant) -> Vec<Action> {
        self.backoff.reset();
        match &mut self.phase {
            Phase::Running { .. } => self.clear(NextStep::start_now(now), now, State::Starting, None),
            Phase::Clearing { next: next @ NextStep::StartAt { .. }, .. } => {
                *next = NextStep::start_now(now);
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

    /// Acts on the deadline, if it has come.
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
        running_with(Policy::default(), now)
    }

    fn running_with(policy: Policy, now: Instant) -> Lifecycle {
        let mut life = Lifecycle::new(policy, 7);
        assert_eq!(life.step(Event::Begin { orphans: false }, now), [Action::Spawn]);
        assert_eq!(life.step(Event::Spawned { since: now }, now), [Action::Record(State::Running, None)]);
        life
    }

    fn exited(how: ExitHow) -> Event {
        Event::Exited { how, ran: Duration::ZERO, port_in_use: None }
    }

    fn crash(life: &mut Lifecycle, now: Instant) {
        life.step(exited(ExitHow::Code(1)), now);
        life.step(Event::TreeGone, now);
    }

    #[test]
    fn a_crashed_child_is_restarted_after_the_backoff() {
        let now = clock::now();
        let mut life = running(now);
        crash(&mut life, now);
        let due = life.deadline().unwrap();
        assert!((900..=1000).contains(&(due - now).as_millis()));
        assert_eq!(life.step(Event::Tick, now + Duration::from_millis(899)), []);
        assert_eq!(life.step(Event::Tick, due), [Action::Spawn]);
        assert_eq!(life.restarts(), 1);
    }

    #[test]
    fn a_command_that_does_not_exist_fails_unless_it_was_up() {
        let now = clock::now();
        for code in [126, 127] {
            let exited = |ran| Event::Exited { how: ExitHow::Code(code), ran, port_in_use: None };
            let states = |actions: Vec<Action>| match actions.first() {
                Some(Action::Record(state, _)) => *state,
                other => panic!("{other:?}"),
            };
            assert_eq!(states(running(now).step(exited(UP_AFTER), now)), State::Stopping);
            let later = UP_AFTER + Duration::from_millis(1);
            assert_eq!(states(running(now).step(exited(later), now)), State::Backoff);
        }
    }

    #[test]
    fn a_stop_during_the_backoff_quits() {
        let now = clock::now();
        let mut life = running(now);
        crash(&mut life, now);
        assert_eq!(life.step(Event::Stop(StopCause::Request), now).last(), Some(&Action::Quit(Outcome::Stopped)));
    }

    #[test]
    fn a_stop_right_after_the_start_has_a_deadline() {
        let now = clock::now();
        let mut life = running(now);
        life.step(Event::Stop(StopCause::Request), now);
        assert!(matches!(life.phase, Phase::Clearing { next: NextStep::End(_), .. }));
        assert_eq!(life.deadline(), Some(now + Policy::default().grace.0));
    }

    #[test]
    fn a_stop_terminates_then_kills_then_quits() {
        let now = clock::now();
        let mut life = running(now);
        assert_eq!(life.step(Event::Stop(StopCause::Request), now).last(), Some(&Action::Terminate));
        assert_eq!(life.step(exited(ExitHow::Code(0)), now), [], "members of the tree may be left");
        assert_eq!(life.step(Event::Tick, now + Duration::from_secs(5)), [Action::Kill]);
        assert_eq!(
            life.step(Event::TreeGone, now + Duration::from_secs(5)).last(),
            Some(&Action::Quit(Outcome::Stopped))
        );
    }

    #[test]
    fn a_service_whose_checkout_is_gone_stops_with_that_reason_in_every_phase() {
        let now = clock::now();
        let gone = || Event::Stop(StopCause::CheckoutGone);
        let end = [Action::Record(State::Stopped, Some(Problem::CheckoutGone)), Action::Quit(Outcome::CheckoutGone)];
        let mut life = running(now);
        assert_eq!(life.step(gone(), now).last(), Some(&Action::Terminate));
        life.step(exited(ExitHow::Code(0)), now);
        assert_eq!(life.step(Event::TreeGone, now), end);
        let mut life = running(now);
        crash(&mut life, now);
        assert_eq!(life.step(gone(), now), end, "during the backoff");
        let mut life = running(now);
        life.step(exited(ExitHow::Code(1)), now);
        life.step(gone(), now);
        assert_eq!(life.step(Event::TreeGone, now), end, "while the rest of a crashed tree is ended");
    }

    #[test]
    fn only_a_second_signal_cuts_the_grace_period_short() {
        use StopCause::{HangUp, Request, Signal};
        let now = clock::now();
        for (causes, kills) in [
            (&[Signal, Signal][..], true),
            (&[Request, Signal, Signal], true),
            (&[Request, Request, HangUp, Request], false),
            (&[Request, Signal], false),
            (&[HangUp, Signal, HangUp], false),
            (&[Signal, HangUp, Request], false),
        ] {
            let mut life = running(now);
            let actions: Vec<Action> = causes.iter().flat_map(|cause| life.step(Event::Stop(*cause), now)).collect();
            assert_eq!(actions.contains(&Action::Kill), kills, "{causes:?}");
        }
        // Nor does the first signal while descendants of a finished command clean up.
        let mut life = running_with(Policy { restart: RestartWhen::Never, ..Policy::default() }, now);
        life.step(exited(ExitHow::Code(0)), now);
        assert_eq!(life.step(Event::Stop(Signal), now), []);
    }

    #[test]
    fn a_restart_waits_for_the_old_tree_and_not_for_the_backoff() {
        let now = clock::now();
        let mut life = running(now);
        assert_eq!(life.step(Event::Restart, now).last(), Some(&Action::Terminate));
        life.step(exited(ExitHow::Signal(15)), now);
        assert_eq!(life.step(Event::TreeGone, now), [Action::Spawn]);
        assert_eq!(life.restarts(), 0, "a restart by the user is not counted");
        life.step(Event::Spawned { since: now }, now);
        crash(&mut life, now);
        assert_eq!(life.step(Event::Restart, now), [Action::Spawn]);
    }

    fn spawn_failed(is_permanent: bool) -> Event {
        Event::SpawnFailed { why: "no".into(), is_permanent }
    }

    #[test]
    fn only_a_permanent_spawn_failure_is_given_up() {
        let now = clock::now();
        let mut first = Lifecycle::new(Policy::default(), 7);
        first.step(Event::Begin { orphans: false }, now);
        let failed = Action::Quit(Outcome::Failed("no".into()));
        let waits = Action::Record(State::Backoff, Some("no".into()));
        assert_eq!(first.step(spawn_failed(false), now).last(), Some(&waits), "the first time too");
        for is_permanent in [false, true] {
            let mut life = running(now);
            life.step(Event::Restart, now);
            life.step(Event::TreeGone, now);
            let last = life.step(spawn_failed(is_permanent), now).pop().unwrap();
            assert_eq!(&last, if is_permanent { &failed } else { &waits });
        }
    }

    /// Returns the last action after a child has exited under a policy.
    fn after_exit(policy: Policy, how: ExitHow) -> Action {
        let now = clock::now();
        let mut life = running_with(policy, now);
        life.step(exited(how), now);
        life.step(Event::TreeGone, now).pop().unwrap()
    }

    #[test]
    fn the_policy_decides_what_follows_an_exit() {
        use ExitHow::{Code, Signal, Unknown};
        let with = |restart| Policy { restart, ..Policy::default() };
        let backoff = Action::Record(State::Backoff, None);
        let stopped = Action::Quit(Outcome::Stopped);
        for (restart, how, expected) in [
            (RestartWhen::Always, Code(0), Some(&backoff)),
            (RestartWhen::Always, Code(1), Some(&backoff)),
            (RestartWhen::OnFailure, Code(0), Some(&stopped)),
            (RestartWhen::OnFailure, Code(1), Some(&backoff)),
            (RestartWhen::OnFailure, Signal(9), Some(&backoff)),
            (RestartWhen::Never, Code(0), Some(&stopped)),
            (RestartWhen::Never, Code(1), None),
            (RestartWhen::Never, Signal(9), None),
            (RestartWhen::Always, Unknown, Some(&backoff)),
            (RestartWhen::OnFailure, Unknown, Some(&backoff)),
            (RestartWhen::Never, Unknown, None),
            (RestartWhen::Always, Code(126), None),
            (RestartWhen::OnFailure, Code(127), None),
        ] {
            let action = after_exit(with(restart), how);
            match expected {
                Some(expected) => assert_eq!(&action, expected, "{restart:?} {how:?}"),
                None => assert!(matches!(action, Action::Quit(Outcome::Failed(_))), "{restart:?} {how:?}"),
            }
        }
        let few = Policy { max_restarts: Some(0), ..Policy::default() };
        assert!(matches!(after_exit(few, Code(1)), Action::Quit(Outcome::Failed(_))));
    }

    #[test]
    fn five_failed_starts_in_a_row_are_recorded_as_a_crash_loop_with_the_usual_wait() {
        let mut now = clock::now();
        let mut life = running(now);
        for (wait_s, state) in [1, 2, 4, 8, 16, 30, 30]
            .into_iter()
            .zip(std::iter::repeat_n(State::Backoff, 4).chain(std::iter::repeat(State::CrashLoop)))
        {
            assert_eq!(life.step(exited(ExitHow::Code(1)), now)[0], Action::Record(state, None));
            assert_eq!(life.step(Event::TreeGone, now), [Action::Record(state, None)]);
            let due = life.deadline().unwrap();
            assert!((wait_s * 900..=wait_s * 1000).contains(&(due - now).as_millis()), "{wait_s}: {:?}", due - now);
            now = due;
            assert_eq!(life.step(Event::Tick, now), [Action::Spawn]);
            life.step(Event::Spawned { since: now }, now);
        }
    }

    #[test]
    fn a_child_that_ran_over_five_seconds_is_restarted_after_one_second_each_time() {
        let mut now = clock::now();
        let mut life = running(now);
        for restarts in 1..=12 {
            let ran = Duration::from_millis(5500);
            now += ran;
            let crashed = life.step(Event::Exited { how: ExitHow::Code(1), ran, port_in_use: None }, now);
            assert_eq!(crashed[0], Action::Record(State::Backoff, None), "never a crash loop");
            life.step(Event::TreeGone, now);
            let due = life.deadline().unwrap();
            assert!((900..=1000).contains(&(due - now).as_millis()), "{:?}", due - now);
            now = due;
            life.step(Event::Tick, now);
            life.step(Event::Spawned { since: now }, now);
            assert_eq!(life.restarts(), restarts);
        }
    }

    #[test]
    fn readiness_and_health_are_recorded_and_the_policy_decides_whether_an_unhealthy_service_restarts() {
        let now = clock::now();
        let mut life = running(now);
        let why = || Some("it says 500".into());
        assert_eq!(life.step(Event::NotReady("x".into()), now), [Action::Record(State::Running, Some("x".into()))]);
        assert_eq!(life.step(Event::Ready, now), [Action::Record(State::Ready, None)]);
        assert_eq!(life.step(Event::Unhealthy("it says 500".into()), now), [Action::Record(State::Unhealthy, why())]);
        assert_eq!(life.step(Event::Healthy, now), [Action::Record(State::Ready, None)]);
        let policy = Policy { restart_unhealthy: true, ..Policy::default() };
        let mut life = running_with(policy, now);
        life.step(Event::Ready, now);
        let actions = life.step(Event::Unhealthy("it says 500".into()), now);
        assert_eq!(actions, [Action::Record(State::Backoff, why()), Action::Terminate]);
        assert_eq!(life.step(exited(ExitHow::Signal(15)), now), []);
        assert_eq!(life.step(Event::TreeGone, now), [Action::Record(State::Backoff, why())], "the reason stays");
        life.step(Event::Tick, life.deadline().unwrap());
        assert_eq!(life.restarts(), 1, "it counts as a crash");
        assert_eq!(life.step(Event::Ready, now), [], "nothing runs");
    }

    #[test]
    fn orphans_end_before_the_first_start() {
        let now = clock::now();
        let mut life = Lifecycle::new(Policy::default(), 7);
        assert_eq!(life.step(Event::Begin { orphans: true }, now).last(), Some(&Action::Terminate));
        assert_eq!(life.step(Event::TreeGone, now), [Action::Spawn]);
    }

    #[test]
    fn a_used_port_is_checked_again_and_does_not_count_as_a_crash() {
        let taken = Problem::PortTaken { port: 3000, owner: "pid 7 (nginx)".into() };
        for (problem, seconds) in [(taken, 5), (Problem::PortClosing { port: 3000 }, 1)] {
            let now = clock::now();
            let mut life = Lifecycle::new(Policy::default(), 7);
            life.step(Event::Begin { orphans: false }, now);
            life.step(Event::PortTaken(problem), now);
            assert_eq!(life.deadline(), Some(now + Duration::from_secs(seconds)));
            assert_eq!(life.step(Event::Tick, now + Duration::from_secs(seconds)), [Action::Spawn]);
            assert_eq!(life.restarts(), 0);
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(exited(ExitHow::Code(1))),
            Just(Event::TreeGone),
            Just(Event::Stop(StopCause::Signal)),
            Just(Event::Stop(StopCause::Request)),
            Just(Event::Stop(StopCause::HangUp)),
            Just(Event::Stop(StopCause::CheckoutGone)),
            Just(Event::Restart),
            Just(Event::Tick),
            Just(exited(ExitHow::Code(0))),
            Just(exited(ExitHow::Code(127))),
            Just(Event::Ready),
            Just(Event::NotReady("no".into())),
            Just(Event::Unhealthy("no".into())),
            Just(Event::Healthy),
        ]
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let restart = prop_oneof![Just(RestartWhen::Always), Just(RestartWhen::OnFailure), Just(RestartWhen::Never)];
        (restart, proptest::option::of(0_u32..3), any::<bool>()).prop_map(
            |(restart, max_restarts, restart_unhealthy)| Policy {
                restart,
                max_restarts,
                restart_unhealthy,
                ..Policy::default()
            },
        )
    }

    proptest! {
        #[test]
        fn one_child_at_a_time_none_after_a_stop_and_always_a_deadline_to_go_on(
            policy in any_policy(),
            events in proptest::collection::vec((any_event(), 0_u64..20_000, 0..4), 1..60)
        ) {
            let mut now = clock::now();
            let mut life = Lifecycle::new(policy, 7);
            let (mut child, mut stopped) = (true, false);
            // A kill needs one of two reasons: the grace period is over, or a second signal came.
            let (mut grace_ends, mut signals) = (None, 0);
            prop_assert_eq!(life.step(Event::Begin { orphans: false }, now), vec![Action::Spawn]);
            let mut queue = vec![Event::Spawned { since: now }];
            for (event, ms, result) in events {
                now += Duration::from_millis(ms);
                // Skip impossible events: an exit without a child, the tree's end while there is one.
                match event {
                    Event::Exited { .. } if !child => continue,
                    Event::Exited { .. } => child = false,
                    Event::TreeGone if child || !life.is_clearing() => continue,
                    Event::Stop(cause) => {
                        stopped = true;
                        signals += u32::from(cause == StopCause::Signal);
                    }
                    _ => {}
                }
                queue.insert(0, event);
                while let Some(event) = queue.pop() {
                    let is_second_signal = event == Event::Stop(StopCause::Signal) && signals > 1;
                    for action in life.step(event, now) {
                        if action == Action::Terminate {
                            grace_ends = Some(now + Policy::default().grace.0);
                        }
                        if action == Action::Kill {
                            prop_assert!(is_second_signal || grace_ends.is_some_and(|end| now >= end) || signals > 1);
                        }
                        if action == Action::Spawn {
                            prop_assert!(!child && !stopped);
                            queue.push(match result {
                                0 => spawn_failed(false),
                                3 => spawn_failed(true),
                                1 => Event::PortTaken("by x".into()),
                                _ => { child = true; Event::Spawned { since: now } }
                            });
                        }
                    }
                }
                let waiting = !child && life.phase != Phase::Done && life.phase != Phase::New;
                prop_assert!(!waiting || life.deadline().is_some_and(|deadline| deadline <= now + Duration::from_secs(30)));
                let ending = matches!(life.phase, Phase::Done | Phase::Clearing { next: NextStep::End(_), .. });
                prop_assert!(!stopped || ending);
            }
        }
    }
}
