//! `Readiness`: when to ask whether a service is ready or well, and what the answers mean. Pure.

use std::time::{Duration, Instant};

use crate::config::{Check, Policy};
use crate::os::clock::later;
use crate::supervisor::lifecycle::Event;

/// How soon the first questions follow each other.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);
/// How often is asked at the least: a service that never becomes ready shall not keep its supervisor awake.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// How long a service without a port must live.
const ALIVE: Duration = Duration::from_secs(1);
/// How long a reason that says what to do must hold until it is told.
const TELLING_AFTER: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Why a service is not ready, or not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// A sentence fragment for people.
    pub(super) text: String,
    /// Whether it names a mistake, which waiting will not mend.
    pub(super) is_mistake: bool,
}

impl Reason {
    /// A reason that may pass.
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_mistake: false }
    }
}

/// What is being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Nothing: nothing runs, or all has been answered.
    Idle,
    /// Whether it is ready.
    Ready(PendingCheck),
    /// Whether it is well.
    Health(PendingCheck),
}

/// A question that is asked again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PendingCheck {
    /// When the child was started.
    since: Instant,
    /// When it is asked next; `None` while an answer is awaited, or comes by itself.
    next: Option<Instant>,
    /// When the service is late; `None` when that was told.
    late_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// The last reason, and since when it holds.
    reason: Option<(Reason, Instant)>,
    /// What was told; `None`: nothing.
    told: Option<String>,
}

/// Asks whether a service is ready, and then whether it is well.
#[derive(Debug, Clone)]
pub(super) struct Readiness {
    /// What was asked for.
    policy: Policy,
    /// What makes it ready.
    ready: Check,
    /// What is being asked.
    stage: Stage,
}

impl Readiness {
    /// For a service of which nothing runs yet.
    pub(super) fn new(policy: &Policy, has_port: bool) -> Self {
        Self { policy: policy.clone(), ready: policy.ready_check(has_port), stage: Stage::Idle }
    }

    /// The child was started.
    pub(super) fn begin(&mut self, now: Instant) {
        let next = match self.ready {
            Check::Log(_) => None,
            Check::Alive => Some(now + ALIVE),
            _ => Some(now),
        };
        let late_at = Some(later(now, self.policy.ready_timeout.0));
        self.stage = Stage::Ready(PendingCheck { since: now, next, late_at, failures: 0, reason: None, told: None });
    }

    /// The child ended, or shall.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Idle;
    }

    /// When [`Self::due`] or [`Self::tick`] has something to say; `None` if never.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (Stage::Ready(asking) | Stage::Health(asking)) = &self.stage else { return None };
        [asking.next, asking.late_at].into_iter().flatten().min()
    }

    /// The question that is due, with how long an answer may take; it is asked by the caller.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Check, Duration)> {
        let (asking, check) = match &mut self.stage {
            Stage::Idle => return None,
            Stage::Ready(asking) => (asking, Some(&self.ready)),
            Stage::Health(asking) => (asking, self.policy.health.as_ref()),
        };
        asking.next.filter(|next| *next <= now)?;
        asking.next = None;
        Some((check?.clone(), ANSWER_LIMIT))
    }

    /// Whether the output is being waited for.
    pub(super) fn wants_output(&self) -> bool {
        matches!((&self.stage, &self.ready), (Stage::Ready(_), Check::Log(_)))
    }

    /// An answer came: `Err` with the reason why it is not so.
    pub(super) fn answer(&mut self, answer: Result<(), Reason>, now: Instant) -> Option<Event> {
        match (&mut self.stage, answer) {
            (Stage::Idle, _) => None,
            (Stage::Ready(_), Ok(())) => {
                self.stage = self.policy.health.as_ref().map_or(Stage::Idle, |_| {
                    let next = Some(later(now, self.policy.health_interval.0));
                    Stage::Health(PendingCheck {
                        since: now,
                        next,
                        late_at: None,
                        failures: 0,
                        reason: None,
                        told: None,
                    })
                });
                Some(Event::Ready)
            }
            (Stage::Ready(asking), Err(reason)) => {
                let interval = self.policy.ready_interval.0;
                // Quickly at first: a service that starts in 50 ms shall not be waited for 250.
                let pause = now.saturating_duration_since(asking.since) / 5;
                let longest = if asking.late_at.is_some() { interval } else { interval.max(LONGEST_INTERVAL) };
                asking.next = Some(later(now, pause.max(FIRST_INTERVAL).min(longest)));
                asking.remember(reason, now);
                asking.mistake(now).map(Event::NotReady)
            }
            (Stage::Health(asking), Ok(())) => {
                let was_unhealthy = asking.failures >= self.policy.health_failures;
                asking.failures = 0;
                asking.next = Some(later(now, self.policy.health_interval.0));
                was_unhealthy.then_some(Event::Healthy)
            }
            (Stage::Health(asking), Err(reason)) => {
                asking.failures = asking.failures.saturating_add(1);
                asking.next = Some(later(now, self.policy.health_interval.0));
                (asking.failures == self.policy.health_failures).then_some(Event::Unhealthy(reason.text))
            }
        }
    }

    /// Time has passed: tells if the service is late.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Event> {
        let Stage::Ready(asking) = &mut self.stage else { return None };
        asking.late_at.filter(|late| *late <= now)?;
        asking.late_at = None;
        let reason = match (&asking.reason, &self.ready) {
            (Some((reason, _)), _) => reason.text.clone(),
            (None, Check::Log(pattern)) => format!("no line of its output matches {pattern:?}"),
            (None, _) => "its check gives no answer".into(),
        };
        let text = format!("not ready after {}: {reason}", self.policy.ready_timeout);
        asking.told = Some(text.clone());
        Some(Event::NotReady(text))
    }
}

impl PendingCheck {
    /// Keeps a reason, and since when it holds.
    fn remember(&mut self, reason: Reason, now: Instant) {
        match &self.reason {
            Some((old, _)) if *old == reason => {}
            _ => self.reason = Some((reason, now)),
        }
    }

    /// A mistake that holds for long enough and was not told yet.
    fn mistake(&mut self, now: Instant) -> Option<String> {
        let (reason, since) = self.reason.as_ref()?;
        let lasts = now.saturating_duration_since(*since) >= TELLING_AFTER;
        let is_new = self.told.as_ref() != Some(&reason.text);
        (reason.is_mistake && lasts && is_new).then(|| {
            self.told = Some(reason.text.clone());
            reason.text.clone()
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

    fn failing() -> Result<(), Reason> {
        Err(Reason::passing("nothing listens"))
    }

    fn begun(policy: &Policy) -> (Readiness, Instant) {
        let now = clock::now();
        let mut readiness = Readiness::new(policy, true);
        assert_eq!(readiness.deadline(), None);
        readiness.begin(now);
        (readiness, now)
    }

    #[test]
    fn a_silent_ready_service_is_not_asked_again() {
        let (mut readiness, now) = begun(&Policy::default());
        assert_eq!(readiness.due(now).unwrap().0, Check::Listen);
        assert_eq!(readiness.due(now), None, "one at a time");
        assert_eq!(readiness.answer(failing(), now), None);
        assert_eq!(readiness.deadline(), Some(now + FIRST_INTERVAL));
        assert_eq!(readiness.due(now + FIRST_INTERVAL).unwrap().0, Check::Listen);
        assert_eq!(readiness.answer(Ok(()), now + ms(20)), Some(Event::Ready));
        assert_eq!((readiness.deadline(), readiness.due(now + ms(9999))), (None, None));
    }

    #[test]
    fn being_late_is_told_once_and_it_is_asked_on() {
        let (mut readiness, now) = begun(&Policy::default());
        readiness.due(now);
        readiness.answer(failing(), now);
        assert_eq!(readiness.tick(now + ms(29_999)), None);
        let late = now + ms(30_000);
        assert_eq!(readiness.tick(late), Some(Event::NotReady("not ready after 30s: nothing listens".into())));
        assert_eq!(readiness.tick(late), None);
        readiness.due(late);
        readiness.answer(failing(), late);
        assert_eq!(readiness.deadline(), Some(late + ms(6000)), "less and less often");
        readiness.due(late + ms(6000));
        assert_eq!(readiness.answer(Ok(()), late + ms(6000)), Some(Event::Ready));
    }

    #[test]
    fn a_mistake_is_told_when_it_lasts() {
        let (mut readiness, now) = begun(&Policy::default());
        let wrong = || Err(Reason { text: "listens on 5173".into(), is_mistake: true });
        assert_eq!(readiness.answer(wrong(), now), None);
        assert_eq!(readiness.answer(failing(), now + ms(900)), None);
        assert_eq!(readiness.answer(wrong(), now + ms(1500)), None);
        assert_eq!(readiness.answer(wrong(), now + ms(2500)), Some(Event::NotReady("listens on 5173".into())));
        assert_eq!(readiness.answer(wrong(), now + ms(9000)), None, "once");
    }

    #[test]
    fn without_a_port_it_must_live_for_a_second_and_output_comes_by_itself() {
        let now = clock::now();
        let mut alive = Readiness::new(&Policy::default(), false);
        alive.begin(now);
        assert_eq!((alive.due(now + ms(999)), alive.due(now + ms(1000)).unwrap().0), (None, Check::Alive));
        let policy = Policy { ready: Some(Check::Log("up".into())), ..Policy::default() };
        let (mut log, now) = begun(&policy);
        assert!(log.wants_output() && log.due(now + ms(9999)).is_none());
        assert_eq!(
            log.tick(now + ms(30_000)),
            Some(Event::NotReady("not ready after 30s: no line of its output matches \"up\"".into()))
        );
        assert_eq!(log.answer(Ok(()), now), Some(Event::Ready));
        assert!(!log.wants_output());
    }

    #[test]
    fn health_is_lost_after_three_failures_in_a_row_and_comes_back_with_one_success() {
        let policy = Policy { health: Some(Check::Tcp), ..Policy::default() };
        let (mut readiness, now) = begun(&policy);
        readiness.answer(Ok(()), now);
        assert_eq!(readiness.due(now + ms(4999)), None);
        let mut at = now;
        let mut ask = |answer: Result<(), Reason>| {
            at += ms(5000);
            assert_eq!(readiness.due(at).unwrap().0, Check::Tcp);
            readiness.answer(answer, at)
        };
        let unhealthy = Some(Event::Unhealthy("nothing listens".into()));
        assert_eq!([failing(), failing(), Ok(()), failing(), failing()].map(&mut ask), [const { None }; 5]);
        assert_eq!([failing(), failing(), Ok(()), Ok(())].map(&mut ask), [unhealthy, None, Some(Event::Healthy), None]);
    }

    proptest! {
        #[test]
        fn it_never_asks_twice_at_once_nor_stops_asking_before_it_is_ready(
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
                    let event = readiness.answer(if passes { Ok(()) } else { failing() }, now);
                    prop_assert!(!ready || event != Some(Event::Ready));
                    ready |= event == Some(Event::Ready);
                }
            }
        }
    }
}
