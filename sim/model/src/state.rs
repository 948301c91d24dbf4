//! One state of store, nodes and world. Small, because millions of them are kept.

use crate::scope::{MAX_BOXES, MAX_INSTANCES, MAX_NODES};
use serde::Serialize;

/// Where a box is. `boxpool::record::Placement` without endpoint and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// On no instance.
    Detached,
    /// Coming.
    Placing { instance: u8, node: u8 },
    /// Its guest runs.
    Running { instance: u8 },
    /// Memory is being saved.
    Suspending { instance: u8, node: u8 },
    /// Suspended where it was.
    Parked { instance: u8 },
    /// Leaving the instance.
    Detaching { instance: u8, node: u8 },
    /// On its owner's word.
    Deleting { instance: Option<u8>, node: u8 },
}

impl Place {
    /// `Placement::instance`.
    pub(crate) fn instance(self) -> Option<u8> {
        match self {
            Self::Detached => None,
            Self::Placing { instance, .. }
            | Self::Running { instance }
            | Self::Suspending { instance, .. }
            | Self::Parked { instance }
            | Self::Detaching { instance, .. } => Some(instance),
            Self::Deleting { instance, .. } => instance,
        }
    }

    /// `Placement::worker`.
    pub(crate) fn worker(self) -> Option<u8> {
        match self {
            Self::Detached | Self::Running { .. } | Self::Parked { .. } => None,
            Self::Placing { node, .. }
            | Self::Suspending { node, .. }
            | Self::Detaching { node, .. }
            | Self::Deleting { node, .. } => Some(node),
        }
    }
}

/// A box's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct BoxRecord {
    /// Where it is.
    pub(crate) place: Place,
    /// The fencing token.
    pub(crate) epoch: u8,
    /// The nodes that hold sessions, as bits.
    pub(crate) holders: u8,
}

/// An instance's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InstanceStatus {
    /// Nobody's.
    Free,
    /// Reserved.
    Claimed { boxed: u8, epoch: u8 },
    /// Being looked at.
    Recycling { node: u8 },
    /// Being deleted.
    Deleting { node: u8 },
}

/// The record of a box's volume, which has the box's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VolumeStatus {
    /// The box's, for good.
    Bound,
    /// Being deleted.
    Deleting,
}

/// Where the memory of a box is. A guest that runs changes its memory all the time, so "what it had at the last suspend"
/// and "what it has now" need not be told apart: once there was memory, it must be saved or live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Memory {
    /// Never was, or lost in a way that was said aloud.
    None,
    /// On the volume.
    Saved,
    /// In a running guest only.
    Live,
}

/// The call that a task of a box is about to make. What comes after it depends on the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    ClaimInstance,
    ClaimAgain,
    /// Another instance, or away from this one.
    ChooseAgain,
    Attach,
    Start,
    StartParked,
    Run,
    Suspend,
    StopUnsaved,
    Park,
    RunOn,
    Withdraw,
    SaveMemory,
    Stop,
    Detach,
    LookAtClaim,
    EndClaim,
    Retire,
    DeleteMachine,
    ForgetMachine,
    ForceDetach,
    Release,
    Detached,
    DeletingVolume,
    DeleteVolume,
    ForgetVolume,
    ForgetBox,
}

/// What a node does for a box: at most one thing at a time, because a box has one actor on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Task {
    /// The next call.
    pub(crate) step: Step,
    /// The instance that it is about.
    pub(crate) instance: u8,
    /// The epoch that it works with.
    pub(crate) epoch: u8,
    /// The instance is not to be used again.
    pub(crate) doubted: bool,
    /// The memory could not be saved, and this task has seen it: it may end the guest.
    pub(crate) unsaved: bool,
    /// The box is being deleted.
    pub(crate) deleting: bool,
    /// The instance's record has not changed since this task read or wrote it.
    pub(crate) fresh: bool,
}

/// What the owner of a `Recycling` or `Deleting` instance does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecycleStep {
    Clear,
    SetFree,
    Retire,
    DeleteMachine,
    ForgetInstance,
}

/// The one task that can still change an instance's record: any other has lost its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Recycler {
    /// Whose.
    pub(crate) node: u8,
    /// Its next call.
    pub(crate) step: RecycleStep,
}

/// A call. It is also what stays behind when its answer is lost or its caller dies: such a call may take effect at any
/// later time, any number of times, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    /// Compare-and-swap of a record that stands for a later one; dropped as soon as the record changes.
    WriteBox {
        boxed: u8,
        record: BoxRecord,
    },
    /// `condemns`: whatever still runs there goes with the machine.
    WriteInstance {
        instance: u8,
        status: InstanceStatus,
        condemns: bool,
    },
    WriteVolume {
        boxed: u8,
    },
    ForgetBox {
        boxed: u8,
    },
    ForgetInstance {
        instance: u8,
    },
    ForgetVolume {
        boxed: u8,
    },
    Attach {
        boxed: u8,
        instance: u8,
        epoch: u8,
    },
    Detach {
        boxed: u8,
        instance: u8,
        epoch: u8,
        force: bool,
    },
    Start {
        boxed: u8,
        instance: u8,
        epoch: u8,
    },
    Suspend {
        boxed: u8,
        instance: u8,
        epoch: u8,
    },
    Stop {
        boxed: u8,
        instance: u8,
        epoch: u8,
        knowing: bool,
    },
    /// `for_box`: whose guest may go with the machine.
    DeleteMachine {
        instance: u8,
        for_box: Option<u8>,
    },
    DeleteVolume {
        boxed: u8,
    },
    /// Only in a planted mistake.
    SweepStop {
        boxed: u8,
        instance: u8,
    },
}

/// What was seen that must never be.
pub(crate) mod bad {
    /// A guest with unsaved memory was ended by somebody who had no reason to.
    pub(crate) const KILLED: u8 = 1;
    /// A volume was taken from under a running guest.
    pub(crate) const PULLED: u8 = 2;
    /// A guest was started where another box's guest had run and nobody had cleared.
    pub(crate) const RESIDUE: u8 = 4;
    /// A runtime call changed something with an older epoch than the newest that was seen.
    pub(crate) const OLD_EPOCH: u8 = 8;
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct State {
    pub(crate) boxes: [Option<BoxRecord>; MAX_BOXES],
    pub(crate) instances: [Option<InstanceStatus>; MAX_INSTANCES],
    pub(crate) volumes: [Option<VolumeStatus>; MAX_BOXES],
    pub(crate) tasks: [[Option<Task>; MAX_BOXES]; MAX_NODES],
    pub(crate) recyclers: [Option<Recycler>; MAX_INSTANCES],
    /// Nodes that saw that the claim is over, since the instance's record last changed.
    pub(crate) over: [u8; MAX_INSTANCES],
    /// Nodes that live.
    pub(crate) alive: u8,
    /// Calls whose answers nobody waits for.
    pub(crate) late: Vec<Call>,
    /// Machines that exist.
    pub(crate) machines: u8,
    /// Instance numbers used so far: a number is never used again.
    pub(crate) made: u8,
    /// Instances that each volume is attached to.
    pub(crate) links: [u8; MAX_BOXES],
    /// Instances that each box's guest runs on.
    pub(crate) guests: [u8; MAX_BOXES],
    /// The newest epoch that each volume has seen.
    pub(crate) fences: [u8; MAX_BOXES],
    /// The newest epoch that each instance's runtime has seen of each volume, where it keeps that itself.
    pub(crate) host_fences: [[u8; MAX_BOXES]; MAX_INSTANCES],
    pub(crate) memory: [Memory; MAX_BOXES],
    /// Volumes that exist.
    pub(crate) disks: u8,
    /// The last box whose guest ran there and was not cleared away.
    pub(crate) residue: [Option<u8>; MAX_INSTANCES],
    /// Instances that go, whatever still runs there, because their guest could not be stopped.
    pub(crate) condemned: u8,
    /// Boxes whose owner asked for their end.
    pub(crate) asked: u8,
    pub(crate) crashes: u8,
    pub(crate) losses: u8,
    pub(crate) doubts: u8,
    pub(crate) breakdowns: u8,
    pub(crate) bad: u8,
}

/// The bit of a number.
#[must_use]
pub(crate) fn bit(n: u8) -> u8 {
    1 << n
}
