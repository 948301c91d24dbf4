//! The handles of a steered world (see the engine's `steer`). Hidden: it is for this repository's own tests.

use crate::cloud::SimCloud;
use crate::engine::HeldCall;
use boxpool::record::{BoxRecord, InstanceRecord};
use boxpool::{ErrorKind, InstanceId, Result, VolumeId};

/// What is true of records and world at one moment.
#[doc(hidden)]
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub boxes: Vec<BoxRecord>,
    pub instances: Vec<InstanceRecord>,
    /// Which volume is attached where.
    pub links: Vec<(VolumeId, InstanceId)>,
    /// Which volume's guest runs where.
    pub guests: Vec<(VolumeId, InstanceId)>,
}

#[doc(hidden)]
#[allow(missing_docs, clippy::missing_errors_doc)]
impl SimCloud {
    /// From now on every call that changes something waits in [`SimCloud::held`].
    pub fn steer(&self) {
        self.engine().steer();
    }

    /// Ends that: what waits takes effect, and nothing waits from now on.
    pub fn run_on(&self) {
        self.engine().run_on(self.world());
    }

    /// What waits, in the order in which it was asked for, and what has lost its caller.
    #[must_use]
    pub fn held(&self) -> Vec<HeldCall> {
        self.engine().held()
    }

    /// Lets a call take effect.
    pub fn let_act(&self, id: u64) -> Result<()> {
        self.engine().let_act(self.world(), id)
    }

    /// Tells the caller that it failed; the call may still take effect later.
    pub fn let_fail(&self, id: u64, kind: ErrorKind) {
        self.engine().let_fail(self.world(), id, kind);
    }

    /// What is true now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.world().state();
        let links = state.volumes.iter().filter_map(|(id, volume)| Some((id.clone(), volume.link.as_ref()?)));
        Snapshot {
            boxes: state.oracle.books.boxes.values().cloned().collect(),
            instances: state.oracle.books.instances.values().cloned().collect(),
            links: links.map(|(id, link)| (id, link.instance.clone())).collect(),
            guests: state.guests.keys().cloned().collect(),
        }
    }
}
