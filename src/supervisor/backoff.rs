//! `Backoff`: when a crashed child is restarted, and when devport gives up. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Policy;
use crate::registry::UP_AFTER;

/// This many crashes within [`LOOP_WINDOW`] of children that were never up are a crash loop. Fewer can come from a
/// dependency that restarts.
const LOOP_CRASHES: usize = 5;
const LOOP_WINDOW: Duration = Duration::from_secs(60);
/// The jitter, in percent of a wait: services that crashed together must not restart together.
const JITTER: u64 = 10;

/// What to do after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterCrash {
    /// Restart after this time.
    Wait(Duration),
    /// Restart after this time, and call it a crash loop. The wait is the same as without that name.
    Loop(Duration),
    /// Do not restart: the limit is reached.
    GiveUp,
}

/// The waits of a policy, by default 1, 2, 4, 8, 16, 30, 30 … seconds, each up to 10 % shorter.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    initial: Duration,
    longest: Duration,
    /// The number of restarts allowed within `window`; `None` if unlimited.
    max_restarts: Option<u32>,
    window: Duration,
    /// Crashes since the child was last up.
    crashes: u32,
    /// Recent crashes, oldest first: when, and whether the child had been up.
    recent: VecDeque<(Instant, bool)>,
    /// The state of the random generator; never 0, from which xorshift cannot leave.
    random: u64,
}

impl Backoff {
    /// Starts with the initial wait. Different seeds give different jitter.
    pub(super) fn new(policy: &Policy, seed: u64) -> Self {
        Self {
            initial: policy.backoff_initial.0,
            longest: policy.backoff_max.0,
            max_restarts: policy.max_restarts,
            window: policy.window.0,
            crashes: 0,
            recent: VecDeque::new(),
            random: seed | 1,
        }
    }

    /// Decides what to do after the crash of a child that ran for `ran`.
    pub(super) fn after_crash(&mut self, ran: Duration, now: Instant) -> AfterCrash {
        let was_up = ran > UP_AFTER;
        if was_up {
            self.crashes = 0;
        }
        let is_within = |at: Instant, window: Duration| now.saturating_duration_since(at) <= window;
        let longest_window = self.window.max(LOOP_WINDOW);
        self.recent.retain(|(at, _)| is_within(*at, longest_window));
        // The remembered crashes are also the number of restarts so far: each was followed by one.
        let restarts = self.recent.iter().filter(|(at, _)| is_within(*at, self.window)).count();
        let give_up = self.max_restarts.is_some_and(|most| restarts >= most as usize);
        self.recent.push_back((now, was_up));
        if give_up {
            return AfterCrash::GiveUp;
        }
        let startup_failures = self.recent.iter().filter(|(at, up)| !up && is_within(*at, LOOP_WINDOW)).count();
        let factor = 1_u32.checked_shl(self.crashes).unwrap_or(u32::MAX);
        let wait = self.initial.saturating_mul(factor).min(self.longest);
        self.crashes = (self.crashes + 1).min(31);
        let wait = self.jittered(wait);
        if !was_up && startup_failures >= LOOP_CRASHES { AfterCrash::Loop(wait) } else { AfterCrash::Wait(wait) }
    }

    /// Shortens a wait by up to 10 %, at random (Marsaglia, "Xorshift RNGs", 2003).
    fn jittered(&mut self, wait: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let hundredths = u32::try_from(self.random % (JITTER + 1)).unwrap_or(0);
        wait * (100 - hundredths) / 100
    }

    /// Forgets the crashes, because the user has restarted the service.
    pub(super) fn reset(&mut self) {
        self.crashes = 0;
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;

    /// Returns whether a wait is the nominal one in seconds, less the jitter.
    fn is_nominal(seconds: f64, wait: Duration) -> bool {
        (seconds * 0.9..=seconds).contains(&wait.as_secs_f64())
    }

    #[test]
    fn waits_double_to_thirty_seconds_and_a_crash_loop_is_only_a_name() {
        // How long each child ran, in seconds; then the wait, and whether that is called a crash loop.
        let cases: [&[(f64, f64, bool)]; 4] = [
            &[(0.0, 1.0, false), (0.0, 2.0, false), (0.0, 4.0, false), (0.0, 8.0, false), (0.0, 16.0, true)],
            // A child that was up begins anew, however often.
            &[(5.5, 1.0, false); 12],
            // Exactly 5 seconds are not over 5 seconds.
            &[(5.0, 1.0, false), (5.0, 2.0, false), (6.0, 1.0, false), (0.0, 2.0, false)],
            // Its crash is none of the five, and it does not make a loop of earlier ones.
            &[
                (0.0, 1.0, false),
                (0.0, 2.0, false),
                (0.0, 4.0, false),
                (0.0, 8.0, false),
                (5.1, 1.0, false),
                (0.0, 2.0, true),
            ],
        ];
        for case in cases {
            let mut backoff = Backoff::new(&Policy::default(), 7);
            let mut now = clock::now();
            for (index, (ran_s, wait_s, is_loop)) in case.iter().enumerate() {
                let ran = Duration::from_secs_f64(*ran_s);
                now += ran;
                let after = backoff.after_crash(ran, now);
                let (AfterCrash::Wait(wait) | AfterCrash::Loop(wait)) = after else { panic!("{after:?}") };
                assert!(is_nominal(*wait_s, wait), "crash {index} of {case:?}: {after:?}");
                assert_eq!(matches!(after, AfterCrash::Loop(_)), *is_loop, "crash {index} of {case:?}: {after:?}");
                now += wait;
            }
        }
    }

    #[test]
    fn the_longest_wait_stays_and_a_reset_begins_anew() {
        let mut backoff = Backoff::new(&Policy::default(), 7);
        let now = clock::now();
        for _ in 0..5 {
            backoff.after_crash(Duration::ZERO, now);
        }
        for _ in 0..40 {
            let after = backoff.after_crash(Duration::ZERO, now);
            assert!(matches!(after, AfterCrash::Loop(wait) if is_nominal(30.0, wait)), "{after:?}");
        }
        // A minute later, the old crashes are no loop any more, but the wait stays.
        let after = backoff.after_crash(Duration::ZERO, now + Duration::from_secs(61));
        assert!(matches!(after, AfterCrash::Wait(wait) if is_nominal(30.0, wait)), "{after:?}");
        backoff.reset();
        let after = backoff.after_crash(Duration::ZERO, now);
        assert!(matches!(after, AfterCrash::Wait(wait) if is_nominal(1.0, wait)), "{after:?}");
    }

    #[test]
    fn too_many_restarts_within_the_window_are_given_up() {
        let policy = Policy { max_restarts: Some(2), ..Policy::default() };
        let mut backoff = Backoff::new(&policy, 7);
        let now = clock::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(matches!(backoff.after_crash(Duration::ZERO, at(0)), AfterCrash::Wait(_)));
        assert!(matches!(backoff.after_crash(Duration::ZERO, at(50)), AfterCrash::Wait(_)));
        assert!(matches!(backoff.after_crash(Duration::ZERO, at(70)), AfterCrash::Wait(_)), "the first is forgotten");
        assert_eq!(backoff.after_crash(Duration::ZERO, at(75)), AfterCrash::GiveUp);
        let none = Policy { max_restarts: Some(0), ..Policy::default() };
        assert_eq!(Backoff::new(&none, 7).after_crash(Duration::ZERO, now), AfterCrash::GiveUp);
    }

    #[test]
    fn different_seeds_give_different_waits() {
        let waits = |seed| {
            let mut backoff = Backoff::new(&Policy::default(), seed);
            (0..4).map(|_| backoff.after_crash(Duration::ZERO, clock::now())).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(12_345));
    }
}
