//! How many there are of each kind: what the maintainer decides by.

use crate::plan::Step;
use crate::record::{InstanceRecord, InstanceStatus, VolumeRecord, VolumeStatus};
use std::time::Duration;

/// Counted reality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Free and of the present generation.
    pub free: u32,
    /// Being made, woken or cleaned: will be free.
    pub coming: u32,
    /// Being made or woken, for the ceiling of concurrent creates.
    pub creating: u32,
    /// Stopped, and of the present generation.
    pub reserve: u32,
    /// Being stopped: will be in the reserve.
    pub stopping: u32,
    /// Free or stopped, but of an older generation.
    pub stale: u32,
    /// All there are, in whatever state.
    pub total: u32,
    /// Callers that wait for one.
    pub waiting: u32,
    /// As many more are wanted for boxes that are expected; none are taken for them from those kept free.
    pub expected: u32,
    /// For how long more than `min_free` were free, beside those for expected boxes, and nobody waited.
    pub quiet_for: Duration,
    /// As many may be begun now, by `creates_per_minute`; `None` for any number.
    pub allowance: Option<u32>,
}

impl Census {
    /// The instances, counted; who waits, quiet and allowance are nobody's and nothing yet.
    #[must_use]
    pub fn of_instances<'a>(all: impl IntoIterator<Item = &'a InstanceRecord>, generation: &str) -> Self {
        let mut census = Self::default();
        all.into_iter().for_each(|record| census.add_instance(record, generation));
        census
    }

    /// Counts one more instance.
    pub(crate) fn add_instance(&mut self, record: &InstanceRecord, generation: &str) {
        use InstanceStatus as S;
        self.total += 1;
        let current = record.generation == generation;
        match &record.status {
            // It stands aside, or is about to.
            _ if record.cordon.is_some() => {}
            S::Free if current => self.free += 1,
            S::Stopped if current => self.reserve += 1,
            S::Free | S::Stopped => self.stale += 1,
            S::Stopping { .. } => self.stopping += 1,
            S::Provisioning { .. } | S::Starting { .. } => {
                self.coming += 1;
                self.creating += 1;
            }
            S::Recycling { .. } => self.coming += 1,
            S::Claimed { .. } | S::Deleting { .. } | S::Quarantined { .. } => {}
        }
    }

    /// The volumes, counted. Those that are made for one box are nobody else's.
    #[must_use]
    pub fn of_volumes<'a>(all: impl IntoIterator<Item = &'a VolumeRecord>, generation: &str) -> Self {
        let mut census = Self::default();
        all.into_iter().for_each(|record| census.add_volume(record, generation));
        census
    }

    /// Counts one more volume.
    pub(crate) fn add_volume(&mut self, record: &VolumeRecord, generation: &str) {
        use VolumeStatus as S;
        self.total += 1;
        match &record.status {
            S::Free if record.generation == generation => self.free += 1,
            S::Free => self.stale += 1,
            S::Creating { wanted_by: None, .. } if record.generation == generation => {
                self.coming += 1;
                self.creating += 1;
            }
            S::Creating { .. } | S::Bound { .. } | S::Deleting { .. } | S::Quarantined { .. } => {}
        }
    }

    /// What is there once a step was begun. With it all steps of one moment follow from one count.
    #[must_use]
    pub fn after(self, step: Step) -> Self {
        let mut next = self;
        match step {
            Step::Wake(n) => {
                next.reserve -= n.get();
                next.coming += n.get();
                next.creating += n.get();
            }
            Step::Provision(n) => {
                next.coming += n.get();
                next.creating += n.get();
                next.total += n.get();
                next.allowance = self.allowance.map(|allowance| allowance - n.get());
            }
            Step::RetireStale(n) => next.stale -= n.get(),
            Step::Stop(n) => {
                next.free -= n.get();
                next.stopping += n.get();
            }
            Step::Retire(n) => next.free -= n.get(),
            Step::RetireReserve(n) => next.reserve -= n.get(),
            Step::Rest => {}
        }
        next
    }
}
