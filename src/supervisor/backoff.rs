//! `Backoff`: when a crashed child is restarted, and when devport gives up. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Policy;

/// A child that ran for longer than this was up, so the next wait is the initial one. Startup failures are faster.
pub(super) const UP_AFTER: Duration = Duration::from_secs(5);
/// This many crashes within [`LOOP_WINDOW`] are a crash loop. Fewer can come from a dependency that restarts.
const LOOP_CRASHES: usize = 5;
const LOOP_WINDOW: Duration = Duration::from_secs(60);
/// The jitter, in percent of a wait: services that crashed together must not restart together.
const JITTER: u64 = 10;

/// What to do after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterCrash {
    /// Restart after this time.
    Wait(Duration),
    /// Restart after this time, the longest wait, because the child is in a crash loop.
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
    /// The times of recent crashes, oldest first.
    crashed_at: VecDeque<Instant>,
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
            crashed_at: VecDeque::new(),
            random: seed | 1,
        }
    }

    /// Decides what to do after the crash of a child that ran for `ran`.
    pub(super) fn after_crash(&mut self, ran: Duration, now: Instant) -> AfterCrash {
        if ran > UP_AFTER {
            self.crashes = 0;
        }
        let oldest = self.window.max(LOOP_WINDOW);
        self.crashed_at.retain(|at| now.saturating_duration_since(*at) <= oldest);
        let within = |window: Duration| {
            self.crashed_at.iter().filter(|at| now.saturating_duration_since(**at) <= window).count()
        };
        // The remembered crashes are also the number of restarts so far: each was followed by one.
        let give_up = self.max_restarts.is_some_and(|most| within(self.window) >= most as usize);
        let in_loop = within(LOOP_WINDOW) + 1 >= LOOP_CRASHES;
        self.crashed_at.push_back(now);
        if give_up {
            return AfterCrash::GiveUp;
        }
        let factor = 1_u32.checked_shl(self.crashes).unwrap_or(u32::MAX);
        let wait = self.initial.saturating_mul(factor).min(self.longest);
        self.crashes = (self.crashes + 1).min(31);
        if in_loop { AfterCrash::Loop(self.jittered(self.longest)) } else { AfterCrash::Wait(self.jittered(wait)) }
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
        self.crashed_at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;

    fn nominal(seconds: f64, after: AfterCrash) -> bool {
        let (AfterCrash::Wait(wait) | AfterCrash::Loop(wait)) = after else { return false };
        (seconds * 0.9..=seconds).contains(&wait.as_secs_f64())
    }

    #[test]
    fn waits_double_to_thirty_seconds_and_start_over_after_a_child_was_up() {
        let mut backoff = Backoff::new(&Policy::default(), 7);
        let mut now = clock::now();
        for (ran_s, expected) in [(0, 1.0), (0, 2.0), (0, 4.0), (5, 8.0), (6, 1.0), (0, 2.0)] {
            // Far enough apart not to be a crash loop.
            now += Duration::from_secs(20);
            let after = backoff.after_crash(Duration::from_secs(ran_s), now);
            assert!(nominal(expected, after), "{expected}: {after:?}");
        }
        for _ in 0..40 {
            now += Duration::from_secs(20);
            backoff.after_crash(Duration::ZERO, now);
        }
        assert!(nominal(30.0, backoff.after_crash(Duration::ZERO, now + Duration::from_secs(20))));
    }

    #[test]
    fn five_crashes_in_a_minute_are_a_loop_at_the_longest_wait() {
        let mut backoff = Backoff::new(&Policy::default(), 7);
        let now = clock::now();
        for _ in 0..4 {
            assert!(matches!(backoff.after_crash(Duration::ZERO, now), AfterCrash::Wait(_)));
        }
        let fifth = backoff.after_crash(Duration::ZERO, now);
        assert!(matches!(fifth, AfterCrash::Loop(_)) && nominal(30.0, fifth), "{fifth:?}");
        let later = backoff.after_crash(Duration::from_secs(60), now + Duration::from_secs(61));
        assert!(nominal(1.0, later), "{later:?}");
        backoff.reset();
        assert!(nominal(1.0, backoff.after_crash(Duration::ZERO, now)));
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
