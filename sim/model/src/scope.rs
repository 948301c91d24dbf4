//! What is explored: how many of everything, how many faults, which backend, and which mistake is planted.

use serde::Serialize;

/// No arrays of a state are longer than this: boxes.
pub const MAX_BOXES: usize = 2;
/// Instances, with those that are made later.
pub const MAX_INSTANCES: usize = 3;
/// Nodes.
pub const MAX_NODES: usize = 3;

/// What the backend does and does not promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// As the QEMU backend of this repository: attach and detach remember the newest epoch, and the epoch can be
    /// written on a volume that is not attached.
    Local,
    /// Attach and detach ignore epochs, a volume is pulled by force whatever runs on it, and a runtime writes the epoch on
    /// a volume only where it is attached; it also keeps it on the instance, for volumes that are not there yet.
    Cloud,
    /// The same, and nothing is kept on the instance.
    CloudForgetful,
}

/// A mistake that the real protocol does not make. Each must be found: that is how the model shows that it can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Planted {
    /// The claim of an instance is written without looking at its version.
    ClaimWithoutCas,
    /// The runtime forgets epochs.
    NoFence,
    /// A takeover does not raise the epoch.
    TakeOverKeepsEpoch,
    /// Whoever sweeps a claim stops the guest, with the epoch that the box has when the call is sent.
    SweepWithCurrentEpoch,
    /// Whoever sweeps a claim reads the box before the instance.
    SweepReadsBoxFirst,
    /// Whoever sweeps a claim deletes the volume that it finds.
    SweepDeletesVolume,
    /// The instance is released before guest and volume are off it, and is free at once.
    FreedBeforeDetach,
    /// A released instance is free at once; nobody clears it.
    FreedWithoutClear,
    /// A lost answer to suspend, stop or detach is taken as success.
    UnknownIsSuccess,
    /// The result of a start is written without looking at the version.
    RunWithoutCas,
    /// The volume is pulled off by force without stopping the guest first.
    ForceFirst,
    /// The backend attaches a volume a second time.
    AttachNotExclusive,
    /// A box that leaves is stopped, not suspended.
    LeaveStops,
    /// A release ends any claim of its box, a newer one, too. Once a flaw of the core.
    ReleaseIgnoresEpoch,
    /// The end of the ladder ends the claim in one write and says that the machine goes in another. Once a flaw of the core.
    PullOutInTwoWrites,
    /// The end of the ladder looks whose the claim is and then deletes the machine; no record says that it goes. Once a flaw
    /// of the core.
    PullOutUnrecorded,
}

/// The bounds of one exploration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// Boxes, each with its volume.
    pub boxes: u8,
    /// Instances at the start, all free.
    pub instances: u8,
    /// Instances that may be made in place of deleted ones.
    pub makes: u8,
    /// Nodes. A node that starts again has a new name, so it counts as another one.
    pub nodes: u8,
    /// No box gets beyond this epoch.
    pub epochs: u8,
    /// Nodes that may die.
    pub crashes: u8,
    /// Answers that may be lost, calls that may be refused for the moment.
    pub losses: u8,
    /// Times that a living node is taken for dead.
    pub doubts: u8,
    /// Guests or machines that may break.
    pub breakdowns: u8,
    /// Whether the free index may name an instance that is not free any more.
    pub stale_index: bool,
    /// Whether owners delete boxes.
    pub deletes: bool,
    /// What the backend promises.
    pub backend: Backend,
    /// The mistake, if any.
    pub planted: Option<Planted>,
}

impl Scope {
    /// One box, two instances, two nodes, one fault of each kind but breakdowns.
    #[must_use]
    pub fn one_box() -> Self {
        Self {
            boxes: 1,
            instances: 2,
            makes: 0,
            nodes: 2,
            epochs: 5,
            crashes: 1,
            losses: 1,
            doubts: 1,
            breakdowns: 0,
            stale_index: false,
            deletes: true,
            backend: Backend::Local,
            planted: None,
        }
    }

    /// Two boxes that want the same instances.
    #[must_use]
    pub fn two_boxes() -> Self {
        Self { boxes: 2, instances: 1, epochs: 3, deletes: false, ..Self::one_box() }
    }

    /// The same with a mistake in it.
    #[must_use]
    pub fn with(self, planted: Planted) -> Self {
        Self { planted: Some(planted), ..self }
    }

    pub(crate) fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }
}
