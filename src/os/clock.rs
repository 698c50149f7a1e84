//! The clock: the only file that reads the time or waits for it to pass.

#![expect(clippy::disallowed_methods, reason = "this file owns the clock")]

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Monotonic time, for deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The calendar's time, for records and marks.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// The end of time: what a moment that cannot be represented becomes.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Returns the moment `duration` after `now`, or one in 100 years if that cannot be represented: `+` would panic.
pub(crate) fn later(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}

/// When something must be done at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// How long there was in all.
    pub(crate) limit: Duration,
}

impl Deadline {
    /// A deadline so far from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self { at: later(now(), limit), limit }
    }

    /// How long there is left; zero when it has passed.
    pub(crate) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(now())
    }
}

/// Lets time pass.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// How often [`poll`] asks eagerly.
const EAGER_QUESTIONS: u32 = 40;
/// How long it waits between questions then, at the least: many who ask all the time would keep the processor
/// from whoever shall answer.
const PATIENT_INTERVAL: Duration = Duration::from_millis(5);

/// Asks `question` every `interval`, later every 5 ms if that is longer, until it answers or `limit` has
/// passed; `None` on time-out. The first question is asked at once.
pub(crate) fn poll<T>(interval: Duration, limit: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = later(now(), limit);
    let mut asked = 0_u32;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if now() >= deadline {
            return None;
        }
        asked = asked.saturating_add(1);
        std::thread::sleep(if asked < EAGER_QUESTIONS { interval } else { interval.max(PATIENT_INTERVAL) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_too_long() {
        let start = now();
        assert_eq!(later(start, Duration::from_secs(1)).saturating_duration_since(start), Duration::from_secs(1));
        assert_eq!(later(start, Duration::MAX).saturating_duration_since(start), FAR);
        assert!(Deadline::after(Duration::MAX).remaining() > FAR / 2);
        assert_eq!(poll(Duration::ZERO, Duration::MAX, || Some(1)), Some(1));
    }
}
