//! `RetryReport`: decides which failures of operations that are retried are worth a note. Pure.

use std::time::{Duration, Instant};

/// A failure that has not occurred for this long has been overcome in between, and is news when it comes back. Failed
/// operations are retried after 1 s or less, or after the delay of a restart, by default at most 30 s.
const OVERCOME_AFTER: Duration = Duration::from_secs(60);

/// The failures that have not been overcome, each with the time when it last occurred.
#[derive(Debug, Default)]
pub(super) struct RetryReport {
    current: Vec<(String, Instant)>,
}

impl RetryReport {
    /// Takes a failure; returns whether it is new, or comes back after it was overcome.
    pub(super) fn is_due(&mut self, failure: &str, now: Instant) -> bool {
        self.current.retain(|(_, at)| now.saturating_duration_since(*at) < OVERCOME_AFTER);
        match self.current.iter_mut().find(|(known, _)| known == failure) {
            Some((_, at)) => {
                *at = now;
                false
            }
            None => {
                self.current.push((failure.to_owned(), now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;

    #[test]
    fn a_failure_is_reported_once_and_again_when_it_comes_back() {
        let now = clock::now();
        let mut report = RetryReport::default();
        let mut is_due = |failure, seconds| report.is_due(failure, now + Duration::from_secs(seconds));
        assert!(is_due("disk full", 0));
        for seconds in [1, 2, 50, 100, 150] {
            assert!(!is_due("disk full", seconds), "it persists");
        }
        assert!(is_due("permission denied", 151));
        assert!(!is_due("disk full", 152), "two operations fail at the same time");
        assert!(is_due("disk full", 24 * 3600), "it was overcome");
        assert!(!is_due("disk full", 24 * 3600 + 1));
    }
}
