//! `Readiness`: when to check whether a service is ready or healthy, and what the results mean. Pure.

use std::time::{Duration, Instant};

use crate::config::{CHECK_TIMEOUT, Check, Policy};
use crate::os::clock::later;
use crate::registry::Problem;
use crate::supervisor::event::Event;

/// The time between the first checks of a new child. A check of a local port takes less than a millisecond, so 10 ms
/// costs little and reports a fast service promptly.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);
/// The longest time between checks of a service that missed its deadline: it may never become ready, and frequent
/// checks would keep its supervisor awake.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// How long a service without a port must run to count as ready: most that fail at startup do so within a second.
const ALIVE: Duration = Duration::from_secs(1);
/// How long a mistake must persist until it is reported: a service may open other ports before its own.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// What is being checked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// No child runs, or it is ready and has no health check.
    Idle,
    Ready(PendingCheck),
    Health(PendingCheck),
}

/// A check that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PendingCheck {
    /// When this stage began.
    since: Instant,
    /// When the check is run next; `None` while it runs, and for a check of the output.
    next: Option<Instant>,
    /// When the service misses its deadline; `None` if it has none, or has missed it.
    late_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// Why the last check failed, and since when it has failed for that reason.
    failure: Option<(Problem, Instant)>,
    /// What was reported last.
    reported: Option<Problem>,
}

/// Schedules the checks of a service: until it is ready, and of its health from then on.
#[derive(Debug, Clone)]
pub(super) struct Readiness {
    policy: Policy,
    /// The check that makes the service ready.
    ready: Check,
    stage: Stage,
}

impl Readiness {
    /// Creates the schedule of a service whose child is not started yet.
    pub(super) fn new(policy: &Policy, has_port: bool) -> Self {
        Self { policy: policy.clone(), ready: policy.ready_check(has_port), stage: Stage::Idle }
    }

    /// Begins to check a child that was started now.
    pub(super) fn begin(&mut self, now: Instant) {
        let next = match self.ready {
            Check::Log(_) => None,
            Check::Alive => Some(now + ALIVE),
            _ => Some(now),
        };
        let late_at = Some(later(now, self.policy.ready_timeout.0));
        self.stage = Stage::Ready(PendingCheck { late_at, ..PendingCheck::new(now, next) });
    }

    /// Stops checking: the child has exited or is being ended.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Idle;
    }

    /// Returns when [`Self::due`] or [`Self::tick`] is due; `None` if never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (Stage::Ready(pending) | Stage::Health(pending)) = &self.stage else { return None };
        [pending.next, pending.late_at].into_iter().flatten().min()
    }

    /// Returns the check that is due. The caller runs it and passes the result to [`Self::handle_result`].
    pub(super) fn due(&mut self, now: Instant) -> Option<Check> {
        let (pending, check) = match &mut self.stage {
            Stage::Idle => return None,
            Stage::Ready(pending) => (pending, Some(&self.ready)),
            Stage::Health(pending) => (pending, self.policy.health.as_ref()),
        };
        pending.next.filter(|next| *next <= now)?;
        pending.next = None;
        check.cloned()
    }

    /// Returns how long one run of the current check may take.
    pub(super) fn check_timeout(&self) -> Duration {
        match self.stage {
            Stage::Health(_) => self.policy.health_timeout.0,
            Stage::Idle | Stage::Ready(_) => CHECK_TIMEOUT,
        }
    }

    /// Returns whether the service becomes ready by a line of its output.
    pub(super) fn needs_output(&self) -> bool {
        matches!((&self.stage, &self.ready), (Stage::Ready(_), Check::Log(_)))
    }

    /// Handles the result of a check, and schedules the next one.
    pub(super) fn handle_result(&mut self, result: Result<(), Problem>, now: Instant) -> Option<Event> {
        match (&mut self.stage, result) {
            (Stage::Idle, _) => None,
            (Stage::Ready(_), Ok(())) => {
                let next = later(now, self.policy.health_interval.0);
                let has_health = self.policy.health.is_some();
                self.stage = if has_health { Stage::Health(PendingCheck::new(now, Some(next))) } else { Stage::Idle };
                Some(Event::Ready)
            }
            (Stage::Ready(pending), Err(reason)) => {
                let interval = self.policy.ready_interval.0;
                // A fifth of the time so far: a service that starts in 50 ms is noticed within about 10 ms.
                let pause = now.saturating_duration_since(pending.since) / 5;
                let longest = if pending.late_at.is_some() { interval } else { interval.max(LONGEST_INTERVAL) };
                pending.next = Some(later(now, pause.max(FIRST_INTERVAL).min(longest)));
                pending.remember(reason, now);
                pending.new_mistake(now).map(Event::NotReady)
            }
            (Stage::Health(pending), Ok(())) => {
                let was_unhealthy = pending.failures >= self.policy.health_failures;
                pending.failures = 0;
                pending.next = Some(later(now, self.policy.health_interval.0));
                was_unhealthy.then_some(Event::Healthy)
            }
            (Stage::Health(pending), Err(reason)) => {
                pending.failures = pending.failures.saturating_add(1);
                pending.next = Some(later(now, self.policy.health_interval.0));
                (pending.failures == self.policy.health_failures).then_some(Event::Unhealthy(reason))
            }
        }
    }

    /// Reports a missed readiness deadline, once.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Event> {
        let Stage::Ready(pending) = &mut self.stage else { return None };
        pending.late_at.filter(|late| *late <= now)?;
        pending.late_at = None;
        if pending.reported.as_ref().is_some_and(Problem::is_about_port) {
            // That says more than that the deadline has passed.
            return None;
        }
        let why = match (&pending.failure, &self.ready) {
            (Some((reason, _)), _) => reason.to_string(),
            (None, Check::Log(pattern)) => format!("no line of its output matches {pattern:?}"),
            (None, _) => "its check has no result yet".into(),
        };
        let problem = Problem::Late { limit: self.policy.ready_timeout.to_string(), why };
        pending.reported = Some(problem.clone());
        Some(Event::NotReady(problem))
    }
}

impl PendingCheck {
    fn new(since: Instant, next: Option<Instant>) -> Self {
        Self { since, next, late_at: None, failures: 0, failure: None, reported: None }
    }

    /// Keeps a reason with the time when it was first seen, if it is not the last one again.
    fn remember(&mut self, reason: Problem, now: Instant) {
        if self.failure.as_ref().is_none_or(|(last, _)| *last != reason) {
            self.failure = Some((reason, now));
        }
    }

    /// Returns a mistake that has persisted for long enough and was not reported yet.
    fn new_mistake(&mut self, now: Instant) -> Option<Problem> {
        let (reason, since) = self.failure.as_ref()?;
        let has_persisted = now.saturating_duration_since(*since) >= REPORT_AFTER;
        let is_new = self.reported.as_ref() != Some(reason);
        (reason.is_about_port() && has_persisted && is_new).then(|| {
            self.reported = Some(reason.clone());
            reason.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn failing() -> Result<(), Problem> {
        Err("nothing listens".into())
    }

    fn late_because(why: &str) -> Problem {
        Problem::Late { limit: "30s".into(), why: why.into() }
    }

    fn begun(policy: &Policy) -> (Readiness, Instant) {
        let now = clock::now();
        let mut readiness = Readiness::new(policy, true);
        assert_eq!(readiness.deadline(), None);
        readiness.begin(now);
        (readiness, now)
    }

    #[test]
    fn a_ready_service_without_a_health_check_is_not_checked_again() {
        let (mut readiness, now) = begun(&Policy::default());
        assert_eq!(readiness.due(now).unwrap(), Check::Listen);
        assert_eq!(readiness.due(now), None, "one at a time");
        assert_eq!(readiness.handle_result(failing(), now), None);
        assert_eq!(readiness.deadline(), Some(now + FIRST_INTERVAL));
        assert_eq!(readiness.due(now + FIRST_INTERVAL).unwrap(), Check::Listen);
        assert_eq!(readiness.handle_result(Ok(()), now + ms(20)), Some(Event::Ready));
        assert_eq!((readiness.deadline(), readiness.due(now + ms(9999))), (None, None));
    }

    #[test]
    fn a_missed_deadline_is_reported_once_and_checks_go_on() {
        let (mut readiness, now) = begun(&Policy::default());
        readiness.due(now);
        readiness.handle_result(failing(), now);
        assert_eq!(readiness.tick(now + ms(29_999)), None);
        let late = now + ms(30_000);
        assert_eq!(readiness.tick(late), Some(Event::NotReady(late_because("nothing listens"))));
        assert_eq!(readiness.tick(late), None);
        readiness.due(late);
        readiness.handle_result(failing(), late);
        assert_eq!(readiness.deadline(), Some(late + ms(6000)), "less and less often");
        readiness.due(late + ms(6000));
        assert_eq!(readiness.handle_result(Ok(()), late + ms(6000)), Some(Event::Ready));
    }

    #[test]
    fn a_mistake_is_reported_once_when_it_persists() {
        let (mut readiness, now) = begun(&Policy::default());
        let wrong_port = || Problem::WrongPort { port: 19000, listens: vec![5173], advice: None };
        let mistake = || Err(wrong_port());
        assert_eq!(readiness.handle_result(mistake(), now), None);
        assert_eq!(readiness.handle_result(failing(), now + ms(900)), None);
        assert_eq!(readiness.handle_result(mistake(), now + ms(1500)), None);
        assert_eq!(readiness.handle_result(mistake(), now + ms(2500)), Some(Event::NotReady(wrong_port())));
        assert_eq!(readiness.handle_result(mistake(), now + ms(9000)), None, "once");
    }

    #[test]
    fn a_service_without_a_port_must_run_for_a_second_and_a_log_check_is_never_due() {
        let now = clock::now();
        let mut alive = Readiness::new(&Policy::default(), false);
        alive.begin(now);
        assert_eq!((alive.due(now + ms(999)), alive.due(now + ms(1000)).unwrap()), (None, Check::Alive));
        let policy = Policy { ready: Some(Check::Log("up".into())), ..Policy::default() };
        let (mut log, now) = begun(&policy);
        assert!(log.needs_output() && log.due(now + ms(9999)).is_none());
        assert_eq!(
            log.tick(now + ms(30_000)),
            Some(Event::NotReady(late_because("no line of its output matches \"up\"")))
        );
        assert_eq!(log.handle_result(Ok(()), now), Some(Event::Ready));
        assert!(!log.needs_output());
    }

    #[test]
    fn a_service_is_unhealthy_after_three_failures_in_a_row_and_healthy_after_one_success() {
        let policy = Policy { health: Some(Check::Tcp), ..Policy::default() };
        let (mut readiness, now) = begun(&policy);
        readiness.handle_result(Ok(()), now);
        assert_eq!(readiness.due(now + ms(4999)), None);
        let mut at = now;
        let mut check = |result: Result<(), Problem>| {
            at += ms(5000);
            assert_eq!(readiness.due(at).unwrap(), Check::Tcp);
            readiness.handle_result(result, at)
        };
        let unhealthy = Some(Event::Unhealthy("nothing listens".into()));
        assert_eq!([failing(), failing(), Ok(()), failing(), failing()].map(&mut check), [const { None }; 5]);
        assert_eq!(
            [failing(), failing(), Ok(()), Ok(())].map(&mut check),
            [unhealthy, None, Some(Event::Healthy), None]
        );
    }

    proptest! {
        #[test]
        fn one_check_runs_at_a_time_and_checks_go_on_until_the_service_is_ready(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..40_000), 1..80)
        ) {
            let policy = Policy { health: Some(Check::Tcp), ..Policy::default() };
            let (mut readiness, mut now) = begun(&policy);
            let mut ready = false;
            for (passes, wait) in steps {
                let waits = readiness.deadline().map(|deadline| deadline.saturating_duration_since(now));
                prop_assert!(waits.is_some_and(|wait| wait <= ms(30_000)));
                now += ms(wait);
                let event = readiness.tick(now);
                prop_assert!(!ready || event.is_none(), "what was ready is not late");
                if readiness.due(now).is_some() {
                    prop_assert!(readiness.due(now).is_none());
                    let event = readiness.handle_result(if passes { Ok(()) } else { failing() }, now);
                    prop_assert!(!ready || event != Some(Event::Ready));
                    ready |= event == Some(Event::Ready);
                }
            }
        }
    }
}
