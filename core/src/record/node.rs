//! Nodes, leases and events.

use super::{EVENTS, Envelope, LEASES, NODES, record};
use crate::clock::Timestamp;
use crate::id::{BoxRef, Epoch, InstanceId, NodeId, VolumeId};
use crate::stock::Breaker;
use serde::{Deserialize, Serialize};

/// One process that embeds the pool. Its liveness is judged by observers: a record whose version has not changed for a
/// while, as measured by the observer's own clock, belongs to a dead node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id, new at each start.
    pub id: NodeId,
    /// When it started, by its own clock: for people.
    pub started_at: Timestamp,
    /// Rises with every heartbeat.
    pub beat: u64,
    /// How many of its connects waited for an instance at that heartbeat: the maintainer provides for them too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u32,
    /// How many instances it has taken out of the pool since its start: for the maintainer, who estimates how many will be.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub instances_taken: u64,
    /// The same of volumes.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub volumes_taken: u64,
    /// The generation of the golden snapshot that its volumes are copied from, if it provides one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<String>,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

record!(NodeRecord, NODES);

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_none_yet(number: &u64) -> bool {
    *number == 0
}

/// A role that one node holds until it stops renewing it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Who holds it.
    pub holder: NodeId,
    /// Rises with every renewal.
    pub beat: u64,
    /// That whoever holds the role is to rest, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Whether the holder has given it up: the next node need not wait until it stands still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// What the next maintainer is to know of the pool of instances.
    #[serde(default)]
    pub instances: PoolPast,
    /// The same of volumes.
    #[serde(default)]
    pub volumes: PoolPast,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

record!(LeaseRecord, LEASES);

impl LeaseRecord {
    /// A lease that was never held before.
    #[must_use]
    pub fn new(holder: NodeId) -> Self {
        let (instances, volumes) = (PoolPast::default(), PoolPast::default());
        Self { holder, beat: 0, pause: None, given_up: false, instances, volumes, envelope: Envelope::new() }
    }
}

/// What a maintainer knows of a pool's recent past. Durations, so that nobody's clock counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolPast {
    /// For how long more were free than are kept, in milliseconds.
    #[serde(default)]
    pub quiet_ms: u64,
    /// By how much what was begun to be made is ahead of an even pace, in milliseconds.
    #[serde(default)]
    pub ahead_ms: u64,
    /// That making one has failed; `None` when the last attempt succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub making: Option<Breaker>,
    /// The same of waking one of the reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waking: Option<Breaker>,
}

/// A rest that a person ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it ends by itself.
    pub until: Timestamp,
    /// Why, in a sentence; empty when none was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A box was created.
    BoxCreated,
    /// A box was deleted by its owner.
    BoxDeleted,
    /// A stay ended: the box ran and was suspended; `took_ms` is how long it ran.
    StayEnded,
    /// A box was deleted by its owner, who may have it back for a while.
    BoxRetained,
    /// Its owner has it back.
    BoxUndeleted,
    /// Its owner said who else may connect; the detail says `add` or `remove`, and whom.
    ShareSet,
    /// Somebody with whom it is shared connected; the detail says who.
    GuestConnected,
    /// A box was brought up for nobody in particular.
    BoxStarted,
    /// A box was shut down by its owner, and its memory dropped.
    BoxStopped,
    /// Its owner calls a box something else from now on. Told of under both names: the detail says `to` or `from`, and which.
    BoxRenamed,
    /// A box's volume was grown; the detail says to how many bytes.
    BoxResized,
    /// A snapshot was taken of a box; the detail says what it is called.
    SnapshotTaken,
    /// A snapshot of a box was deleted; the detail says what it was called.
    SnapshotDeleted,
    /// A box was made of a snapshot or of another box; the detail says of which.
    BoxCopied,
    /// A box was brought here from another region; the detail says from which.
    BoxMoved,
    /// Its owner said whether a box goes on running without a session; the detail says `on` or `off`.
    KeepaliveSet,
    /// A guest was found gone and was started again.
    GuestLost,
    /// A suspend failed; the guest runs on or lost its memory, as the detail says.
    SuspendFailed,
    /// A placement failed.
    PlacementFailed,
    /// A step of a dead node was taken over.
    TakenOver,
    /// A resource was set aside for a person.
    Quarantined,
    /// Somebody ordered the maintainer to rest; the detail says why.
    MaintenancePaused,
    /// Somebody ended that rest before its time.
    MaintenanceResumed,
    /// Somebody said that nobody new is to come onto an instance, or that it is in use again; the detail says which, and why.
    InstanceCordoned,
    /// An instance was deleted because its cleanliness could not be shown.
    InstanceDoubted,
    /// A kind that a newer version wrote.
    #[serde(other)]
    Other,
}

/// One line of the append-only log that audit and billing read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// When, by the writing node's clock.
    pub at: Timestamp,
    /// Which node wrote it.
    pub node: NodeId,
    /// What happened.
    pub kind: EventKind,
    /// To which box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<BoxRef>,
    /// On which instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// With which volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// In which epoch of the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

record!(EventRecord, EVENTS);
