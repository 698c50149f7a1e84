//! `Service`: what a supervisor is responsible for, and what it can do with it.

use crate::os::process::ProcessIdentity;
use crate::os::tree;
use crate::registry::{Registry, Reservation};
use crate::spec::Variables;
use crate::supervisor::child::{self, SpawnError, Tree};
use crate::supervisor::stream::{Stream, StreamKind};
use crate::supervisor::watch::Watched;

/// A service, and what runs of it.
#[derive(Debug)]
pub(super) struct Service<'a> {
    /// Where everything is recorded.
    pub(super) registry: &'a Registry,
    /// Our own pid.
    pub(super) supervisor: i32,
    /// The record.
    pub(super) reservation: Reservation,
    /// What the child's environment is made of.
    pub(super) environment: Variables,
    /// The child, from its start until its tree is gone.
    pub(super) child: Option<ProcessIdentity>,
    /// What an earlier supervisor has left.
    pub(super) leftovers: Vec<ProcessIdentity>,
}

impl Service<'_> {
    /// The processes that we are responsible for.
    pub(super) fn tree(&self) -> Tree<'_> {
        Tree {
            supervisor: self.supervisor,
            child: self.child.as_ref(),
            leftovers: &self.leftovers,
            marker: tree::Marker { hash: self.reservation.hash.as_str(), home: self.registry.paths().base() },
        }
    }

    /// Starts the child. `term` is the kind of terminal that we sit in.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub(super) fn spawn(
        &self,
        term: Option<&str>,
        kind: StreamKind,
    ) -> Result<(ProcessIdentity, Vec<Stream>), SpawnError> {
        child::spawn(&self.reservation, &self.environment, self.registry, term, kind)
    }
}

impl Watched for Service<'_> {
    fn members(&self) -> Vec<ProcessIdentity> {
        self.tree().members()
    }

    fn start_check(&self, words: &[String]) -> Result<ProcessIdentity, String> {
        child::spawn_check(words, &self.reservation, &self.environment, self.registry).map_err(|error| error.why)
    }
}
