//! `Job`: starts one service in a thread and waits until it is ready, or has completed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cli::args::Goal;
use crate::cli::context::Context;
use crate::cli::stack::Located;
use crate::cli::{tailnet, wait};
use crate::config::ServiceSpec;
use crate::error::{Error, Result};
use crate::launch::{Ensured, IfRunning, LaunchMode, Previous};
use crate::os::clock::{self, Deadline};
use crate::registry::{FileLock, Reservation};

/// The time between attempts to take the lock of the shared services.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// What a thread needs to start a service.
pub(super) struct Job<'a> {
    pub(super) context: &'a Context,
    pub(super) located: &'a Located,
    pub(super) spec: ServiceSpec,
    pub(super) mode: LaunchMode,
    /// The shared services that it needs.
    pub(super) shared: Vec<ServiceSpec>,
    /// Whether the service runs to completion.
    pub(super) one_shot: bool,
    /// Whether the service ran before.
    pub(super) was_up: bool,
    pub(super) deadline: Deadline,
    /// Whether waits are to end.
    pub(super) is_cancelled: &'a AtomicBool,
}

/// The result of a job.
pub(super) struct Report {
    /// The position of the task.
    pub(super) position: usize,
    /// The service that was started, or ran already; `None` if it could not be started.
    pub(super) ensured: Option<Ensured>,
    /// Why it did not come up.
    pub(super) result: Result<()>,
}

impl Job<'_> {
    /// Starts the service and waits until it is ready, or has completed. Returns the service if it was started or ran
    /// already, and why it did not come up.
    pub(super) fn bring_up(&self) -> (Option<Ensured>, Result<()>) {
        if self.spec.request.tailnet {
            // The command gets its host name, which is published later.
            self.context.addresses().learn_suffix();
        }
        let ensured = match self.start() {
            Ok(ensured) => ensured,
            Err(error) => return self.after_failed_start(error),
        };
        let result = self.wait_for(&ensured.reservation, ensured.previous == Previous::StillRunning);
        if result.is_ok() {
            tailnet::publish_started(self.context, &self.spec, &ensured);
        }
        (Some(ensured), result)
    }

    /// Starts the service. If it needs shared services, `down` of another checkout cannot stop those meanwhile; one that
    /// was stopped since it came up is started again.
    fn start(&self) -> Result<Ensured> {
        let launcher = self.context.launcher();
        if self.shared.is_empty() {
            return launcher.start(&self.spec, self.mode);
        }
        let lock = self.lock_shared()?;
        for shared in &self.shared {
            if !launcher.compare(shared)?.is_up {
                let mode = LaunchMode { if_running: IfRunning::Keep, ..self.mode };
                let ensured = launcher.start(shared, mode)?;
                self.wait_until(Goal::Ready, &ensured.reservation, false)?;
            }
        }
        let started = launcher.start(&self.spec, self.mode);
        drop(lock);
        started
    }

    /// Waits for the lock of the shared services, which `down` of another checkout holds while services end.
    fn lock_shared(&self) -> Result<FileLock> {
        let lock = clock::poll(LOCK_INTERVAL, self.deadline.remaining(), || {
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Some(Err(Error::Cancelled));
            }
            self.located.try_lock_shared(self.context).transpose()
        });
        lock.unwrap_or_else(|| {
            Err(Error::LockBusy {
                what: "the lock of the shared services".into(),
                holder: "a command in another checkout".into(),
                waited_s: self.deadline.limit.as_secs(),
            })
        })
    }

    /// Returns what is left of a start that failed.
    fn after_failed_start(&self, error: Error) -> (Option<Ensured>, Result<()>) {
        // Its supervisor may try again.
        let previous = if self.was_up { Previous::StillRunning } else { Previous::NotRunning };
        let registered = self.context.registry.find(&self.spec.hash).ok().flatten();
        let ensured = registered.map(|reservation| Ensured::new(reservation, previous));
        let result = match (&error, &ensured) {
            // A one-shot that ends before its state is read may still have run.
            (Error::StartFailed { .. }, Some(ensured)) if self.one_shot => self.wait_for(&ensured.reservation, false),
            _ => Err(error),
        };
        (ensured, result)
    }

    /// Waits until the service is ready, or has completed. `rechecks`: see [`wait::quietly`].
    fn wait_for(&self, reservation: &Reservation, rechecks: bool) -> Result<()> {
        if !self.one_shot {
            return self.wait_until(Goal::Ready, reservation, rechecks);
        }
        self.wait_until(Goal::Stopped, reservation, false)?;
        wait::check_completed(self.context, reservation)
    }

    fn wait_until(&self, goal: Goal, reservation: &Reservation, rechecks: bool) -> Result<()> {
        // A service that is ready already is found ready, even if the time is up.
        let limit = self.deadline.remaining().max(Duration::from_millis(1));
        let is_cancelled = || self.is_cancelled.load(Ordering::Relaxed);
        wait::quietly(self.context, reservation, goal, limit, rechecks, &is_cancelled)
    }
}
