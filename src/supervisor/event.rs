//! What the lifecycle of a service takes and returns: events, actions and the outcome.

use std::time::{Duration, Instant};

use crate::registry::{ExitHow, PortInUse, Problem, State};

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The supervisor is set up.
    Begin {
        /// Whether processes of an earlier run may be left.
        orphans: bool,
    },
    /// Result of [`Action::Spawn`]: the child runs.
    Spawned { since: Instant },
    /// Result of [`Action::Spawn`]: the child could not be executed.
    SpawnFailed {
        why: Problem,
        /// Whether a later attempt would fail in the same way, as for a missing program.
        is_permanent: bool,
    },
    /// Result of [`Action::Spawn`]: the port is taken or blocked, as this message says.
    PortTaken(Problem),
    Exited {
        how: ExitHow,
        /// How long it ran.
        ran: Duration,
        /// The other port that it could not use; `None` if it printed no such error.
        port_in_use: Option<Box<PortInUse>>,
    },
    /// The service is ready.
    Ready,
    /// The service has missed its readiness deadline or made a mistake that waiting will not fix, as this text says.
    NotReady(Problem),
    /// The health check failed too often, for this reason.
    Unhealthy(Problem),
    /// The health check passed again.
    Healthy,
    /// No process of the tree is left.
    TreeGone,
    /// The service must stop.
    Stop(StopCause),
    /// The user requests to replace the child by a new one.
    Restart,
    /// Time has passed, see [`super::lifecycle::Lifecycle::deadline`].
    Tick,
}

/// Why a service must stop. Only a second signal cuts the grace period short, as when the user presses ctrl-c twice.
/// Any number of requests and hang-ups does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    /// SIGINT or SIGTERM from a person or the system.
    Signal,
    /// A devport command.
    Request,
    /// The terminal was closed.
    HangUp,
    /// The checkout of the service was deleted or replaced.
    CheckoutGone,
}

/// Something that the supervisor must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Check the port and start the child. The result is the next event.
    Spawn,
    /// Send the stop signal to the whole process tree.
    Terminate,
    /// Kill the rest of the tree.
    Kill,
    /// Record the state, and what is wrong.
    Record(State, Option<Problem>),
    /// End the supervisor.
    Quit(Outcome),
}

/// The result of supervising a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service was stopped, or has finished as its policy allows.
    Stopped,
    /// The service was stopped, because its checkout was deleted or replaced.
    CheckoutGone,
    /// The service does not run, and is not restarted, for this reason.
    Failed(Problem),
}
