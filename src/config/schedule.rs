//! `Schedule`: which services can be handled next, when each must wait for others. Pure: services are positions, and
//! `needs[a]` has those that `a` waits for.

/// How far a service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Begun,
    Done,
    Failed,
    /// One that it needs has failed or was skipped.
    Skipped,
}

/// The services of a plan, each of which waits until those that it needs are done.
#[derive(Debug)]
pub(crate) struct Schedule {
    needs: Vec<Vec<usize>>,
    progress: Vec<Progress>,
}

impl Schedule {
    /// Creates a schedule in which all services wait.
    pub(crate) fn new(needs: Vec<Vec<usize>>) -> Self {
        Self { progress: vec![Progress::Waiting; needs.len()], needs }
    }

    /// Creates a schedule in which each service waits for those that need it, so that it ends after them.
    pub(crate) fn reversed(needs: &[Vec<usize>]) -> Self {
        let mut users = vec![Vec::new(); needs.len()];
        for (service, needed) in needs.iter().enumerate() {
            for needed in needed {
                users[*needed].push(service);
            }
        }
        Self::new(users)
    }

    /// Returns the waiting services whose needs are met, and marks them as begun.
    pub(crate) fn begin(&mut self) -> Vec<usize> {
        let is_met = |needed: &usize| self.progress[*needed] == Progress::Done;
        let next: Vec<usize> = (0..self.needs.len())
            .filter(|service| self.progress[*service] == Progress::Waiting && self.needs[*service].iter().all(is_met))
            .collect();
        for service in &next {
            self.progress[*service] = Progress::Begun;
        }
        next
    }

    /// Marks a service as done: those that wait for it may begin.
    pub(crate) fn complete(&mut self, service: usize) {
        self.progress[service] = Progress::Done;
    }

    /// Marks a service as failed. Returns the services that are skipped because of it.
    pub(crate) fn fail(&mut self, service: usize) -> Vec<usize> {
        self.progress[service] = Progress::Failed;
        self.skip()
    }

    /// Marks a service that had failed as done. Skipped services that now need no failed one wait again.
    pub(crate) fn recover(&mut self, service: usize) {
        self.complete(service);
        for progress in self.progress.iter_mut().filter(|progress| **progress == Progress::Skipped) {
            *progress = Progress::Waiting;
        }
        self.skip();
    }

    /// Marks waiting services as skipped that need a failed or skipped one. Returns them.
    fn skip(&mut self) -> Vec<usize> {
        let mut skipped = Vec::new();
        loop {
            let is_lost = |needed: &usize| matches!(self.progress[*needed], Progress::Failed | Progress::Skipped);
            let lost = (0..self.needs.len()).filter(|service| {
                self.progress[*service] == Progress::Waiting && self.needs[*service].iter().any(is_lost)
            });
            let lost: Vec<usize> = lost.collect();
            if lost.is_empty() {
                return skipped;
            }
            for service in lost {
                self.progress[service] = Progress::Skipped;
                skipped.push(service);
            }
        }
    }

    /// Returns whether a service waits for others.
    pub(crate) fn is_waiting(&self, service: usize) -> bool {
        self.progress[service] == Progress::Waiting
    }

    /// Returns whether a service has failed.
    pub(crate) fn has_failed(&self, service: usize) -> bool {
        self.progress[service] == Progress::Failed
    }

    /// Returns whether nothing waits and nothing has begun without an end.
    pub(crate) fn is_over(&self) -> bool {
        !self.progress.iter().any(|progress| matches!(progress, Progress::Waiting | Progress::Begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `2` and `3` need `1`, which needs `0`; `4` needs `2` and `3`; `5` needs nothing.
    fn shop() -> Vec<Vec<usize>> {
        vec![vec![], vec![0], vec![1], vec![1], vec![2, 3], vec![]]
    }

    #[test]
    fn a_service_begins_once_what_it_needs_is_done() {
        let mut schedule = Schedule::new(shop());
        assert_eq!((schedule.begin(), schedule.begin()), (vec![0, 5], vec![]));
        schedule.complete(0);
        assert_eq!(schedule.begin(), [1], "5 is not waited for");
        schedule.complete(1);
        assert_eq!(schedule.begin(), [2, 3]);
        schedule.complete(3);
        assert_eq!((schedule.begin(), schedule.is_over()), (vec![], false));
        schedule.complete(2);
        assert_eq!(schedule.begin(), [4]);
        schedule.complete(4);
        schedule.complete(5);
        assert!(schedule.is_over());
    }

    #[test]
    fn what_needs_a_failed_service_is_skipped_until_it_recovers() {
        let mut schedule = Schedule::new(shop());
        schedule.begin();
        assert_eq!(schedule.fail(0), [1, 2, 3, 4]);
        assert!(schedule.has_failed(0) && !schedule.has_failed(1));
        schedule.complete(5);
        assert!(schedule.is_over());
        schedule.recover(0);
        assert_eq!(schedule.begin(), [1]);
        schedule.complete(1);
        assert_eq!(schedule.begin(), [2, 3]);
        assert_eq!((schedule.fail(2), schedule.fail(3)), (vec![4], vec![]));
        schedule.recover(2);
        assert!(schedule.begin().is_empty() && schedule.is_over(), "3 has failed too");
    }

    #[test]
    fn services_end_before_those_that_they_need() {
        let mut schedule = Schedule::reversed(&shop());
        assert_eq!(schedule.begin(), [4, 5]);
        schedule.complete(4);
        assert_eq!(schedule.begin(), [2, 3]);
        schedule.complete(2);
        assert!(schedule.begin().is_empty(), "3 needs 1 too");
    }

    proptest! {
        #[test]
        fn every_service_ends_whatever_fails(
            needs in proptest::collection::vec(proptest::collection::vec(0..8_usize, 0..3), 8),
            failures in proptest::collection::vec(any::<bool>(), 8),
        ) {
            // A service needs only earlier ones, so there are no cycles.
            let needs: Vec<Vec<usize>> = needs.into_iter().enumerate()
                .map(|(service, needed)| needed.into_iter().filter(|needed| *needed < service).collect())
                .collect();
            let mut schedule = Schedule::new(needs.clone());
            let (mut done, mut handled) = (vec![false; 8], 0);
            loop {
                let next = schedule.begin();
                if next.is_empty() {
                    break;
                }
                for service in next {
                    prop_assert!(needs[service].iter().all(|needed| done[*needed]));
                    handled += 1;
                    if failures[service] {
                        handled += schedule.fail(service).len();
                    } else {
                        schedule.complete(service);
                        done[service] = true;
                    }
                }
            }
            prop_assert!(schedule.is_over());
            prop_assert_eq!(handled, 8);
        }
    }
}
