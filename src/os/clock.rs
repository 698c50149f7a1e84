//! The clock: the only file that reads the time or waits for it to pass.

#![expect(clippy::disallowed_methods, reason = "this file owns the clock")]

use std::time::{Duration, Instant};

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

/// Returns the monotonic time, for deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the wall-clock time in whole milliseconds, for records and log marks: the rest would only be noise in JSON.
pub(crate) fn wall() -> Timestamp {
    let now = Timestamp::now();
    now.round(TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Trunc)).unwrap_or(now)
}

/// How far ahead a moment is at most: 100 years, which `Instant` can represent on every system.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Returns the moment `duration` after `now`, or one in 100 years if that cannot be represented: `+` would panic.
pub(crate) fn later(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}

/// The moment by which an operation must finish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The whole time that was allowed.
    pub(crate) limit: Duration,
}

impl Deadline {
    /// Creates a deadline `limit` from now.
    pub(crate) fn after(limit: Duration) -> Self {
        Self { at: later(now(), limit), limit }
    }

    /// Returns the time left; zero once the deadline has passed.
    pub(crate) fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(now())
    }
}

pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// How many times [`poll`] runs its check at the caller's interval. Most waits end within these.
const EAGER_CHECKS: u32 = 40;
/// The shortest interval after that. Many processes that poll without pause take the processor from the one they wait
/// for.
const PATIENT_INTERVAL: Duration = Duration::from_millis(5);

/// Returns whether a condition comes true within 5 s, for tests. A child that another test starts has the files and
/// sockets of this process until it executes its program.
#[cfg(test)]
pub(crate) fn comes_true(condition: impl Fn() -> bool) -> bool {
    poll(Duration::from_millis(5), Duration::from_secs(5), || condition().then_some(())).is_some()
}

/// Runs `check` at once and then every `interval`, after 40 times every 5 ms if that is longer, until it returns a
/// value. Returns `None` once `limit` has passed.
pub(crate) fn poll<T>(interval: Duration, limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = later(now(), limit);
    let mut checks = 0_u32;
    loop {
        if let Some(value) = check() {
            return Some(value);
        }
        if now() >= deadline {
            return None;
        }
        checks = checks.saturating_add(1);
        std::thread::sleep(if checks < EAGER_CHECKS { interval } else { interval.max(PATIENT_INTERVAL) });
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
