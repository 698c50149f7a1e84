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

/// Asks `question` every `interval` until it answers or `limit` has passed; `None` on time-out. The
/// first question is asked at once.
pub(crate) fn poll<T>(interval: Duration, limit: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if now() >= deadline {
            return None;
        }
        std::thread::sleep(interval);
    }
}
