//! How long to wait before a crashed child is started again.

use std::time::Duration;

/// The first wait.
const INITIAL: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A child that ran longer than this was up: the next wait is the first again.
const UP_AFTER: Duration = Duration::from_secs(5);

/// The waits 1, 2, 4, 8, 16, 30, 30 … seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    /// Crashes since the child was last up.
    crashes: u32,
}

impl Backoff {
    /// The wait after a crash of a child that ran for `ran`.
    pub(super) fn after_crash(&mut self, ran: Duration) -> Duration {
        if ran > UP_AFTER {
            self.reset();
        }
        let wait = INITIAL.saturating_mul(1_u32.checked_shl(self.crashes).unwrap_or(u32::MAX)).min(LONGEST);
        self.crashes = (self.crashes + 1).min(31);
        wait
    }

    /// Forgets the crashes.
    pub(super) fn reset(&mut self) {
        self.crashes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_thirty_seconds_and_begin_anew_after_a_child_was_up() {
        let mut backoff = Backoff::default();
        let mut wait = |ran_s| backoff.after_crash(Duration::from_secs(ran_s)).as_secs();
        assert_eq!([0; 8].map(&mut wait), [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!((0..100).map(|_| wait(0)).max(), Some(30));
        assert_eq!([6, 0, 5].map(&mut wait), [1, 2, 4]);
    }
}
