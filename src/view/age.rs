//! Times for people: how long something lasts, and when it was.

use jiff::Timestamp;

use crate::view::service::ServiceView;

/// Formats the time between two moments in its two largest units, such as `3d 4h`.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Returns the time until the next start of a service, such as `26s`; `None` if none is scheduled.
pub(crate) fn next_start(view: &ServiceView, now: Timestamp) -> Option<String> {
    view.next_start_at.map(|next| span(now, next))
}

/// Returns for how long a service has been running, or when it last ran.
pub(super) fn up(view: &ServiceView, now: Timestamp) -> String {
    match view.started_at {
        Some(started) => span(started, now),
        None if view.last_up == Timestamp::UNIX_EPOCH => "never".into(),
        // The largest unit says enough, and keeps the column narrow.
        None => format!("{} ago", span(view.last_up, now).split(' ').next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Liveness, State};
    use crate::view::service::tests::view;

    #[test]
    fn spans_have_two_units() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| span(start, Timestamp::from_second(seconds).unwrap());
        assert_eq!([5, 65, 3_700, 90_000].map(after), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
    }

    #[test]
    fn a_service_is_up_since_its_start_or_was_up_some_time_ago() {
        let running = view(Liveness::Held(None), State::Ready, None);
        let stopped = ServiceView { started_at: None, ..running.clone() };
        let reserved = ServiceView { last_up: Timestamp::UNIX_EPOCH, ..stopped.clone() };
        let now = "2026-11-22T00:05:00Z".parse().unwrap();
        let started = ServiceView { started_at: Some("2026-11-22T00:04:58Z".parse().unwrap()), ..running };
        assert_eq!([started, stopped, reserved].map(|view| up(&view, now)), ["2s", "5m ago", "never"]);
    }
}
