//! What the pool needs of a cloud: machines and volumes.
//!
//! Every mutating call is idempotent by the id the caller chose, so repeating it after a lost answer is safe
//! ([`InstanceProvider::stop`] is the exception, and says why). Calls *begin* work and return what is seen; the pool
//! waits by calling again, in one place and with a limit. A dropped future leaves the effect either done, under way or
//! not begun, never half recorded.

use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{Epoch, InstanceId, SnapshotId, VolumeId};
use crate::store::{Cursor, Page};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a new instance is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceSpec {
    /// The id the caller chose; also the resource's name or tag.
    pub id: InstanceId,
    /// Edition of the machine template; reported again in [`InstanceView::generation`].
    pub generation: String,
}

impl InstanceSpec {
    /// A spec with its required parts.
    #[must_use]
    pub fn new(id: InstanceId, generation: impl Into<String>) -> Self {
        Self { id, generation: generation.into() }
    }
}

/// What a machine is doing, as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceState {
    /// Being made; not usable yet.
    Creating,
    /// Ready to host a box.
    Running,
    /// Between running and stopped.
    Stopping,
    /// Keeps its disk and costs no compute.
    Stopped,
    /// Being deleted.
    Deleting,
    /// Broken for good, with the provider's words.
    Failed(String),
    /// A state this version does not know: neither usable nor gone.
    Other(String),
}

/// A machine as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// What it is doing.
    pub state: InstanceState,
    /// The template edition it was made from; empty when not known.
    pub generation: String,
    /// When it was made, by the provider's clock; `None` when not known.
    pub created_at: Option<Timestamp>,
}

impl InstanceView {
    /// A view with its required parts.
    #[must_use]
    pub fn new(id: InstanceId, state: InstanceState) -> Self {
        Self { id, state, generation: String::new(), created_at: None }
    }
}

/// Machines that can each host one box.
#[async_trait]
pub trait InstanceProvider: Send + Sync + 'static {
    /// Makes the instance, or finds it when it exists. Returns at once with what is seen, often `Creating`.
    ///
    /// # Errors
    /// `NoCapacity` (quota, stock), `Throttled`, `Invalid`. Nothing is left behind by a refusal.
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView>;

    /// The instance, or `None` when it surely does not exist. An error never means absence.
    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>>;

    /// A page of the instances that are ours (by tag or place), with or without a record. May lag behind.
    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<InstanceView>>;

    /// Starts a stopped instance. One that runs stays as it is.
    ///
    /// # Errors
    /// `NotFound`; `NoCapacity` when the cloud has no room for it now.
    async fn start(&self, id: &InstanceId) -> Result<InstanceView>;

    /// Stops the machine, keeps its disk, and ends what it costs. A stopped one stays as it is.
    ///
    /// Sent at most once: nothing under this call may send it again on its own. A stopped machine may have been woken for a box
    /// when the second one arrives, and would be stopped under it. The pool does not repeat it either: a machine whose stop was
    /// not answered is deleted.
    ///
    /// # Errors
    /// `NotFound`.
    async fn stop(&self, id: &InstanceId) -> Result<InstanceView>;

    /// Begins to delete the machine and all that was made with it, but never a volume. Absent is success; done when
    /// [`InstanceProvider::get`] says `None`.
    async fn delete(&self, id: &InstanceId) -> Result<()>;
}

/// What a new volume is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeSource {
    /// Nothing: `bytes` of zeros.
    Empty {
        /// Size in bytes.
        bytes: u64,
    },
    /// A copy of a snapshot.
    Snapshot(SnapshotId),
}

/// What a new volume is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeSpec {
    /// The id the caller chose.
    pub id: VolumeId,
    /// What it is filled with.
    pub source: VolumeSource,
}

impl VolumeSpec {
    /// A spec with its required parts.
    #[must_use]
    pub fn new(id: VolumeId, source: VolumeSource) -> Self {
        Self { id, source }
    }
}

/// What a volume is doing, as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeState {
    /// Being made.
    Creating,
    /// Usable.
    Ready,
    /// Being deleted.
    Deleting,
    /// Broken for good, with the provider's words.
    Failed(String),
    /// A state this version does not know: neither usable nor gone.
    Other(String),
}

/// A volume as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeView {
    /// Its id.
    pub id: VolumeId,
    /// What it is doing.
    pub state: VolumeState,
    /// The instance it is attached to, or being attached to or detached from.
    pub attached_to: Option<InstanceId>,
    /// Whether it was ever attached, so that it may hold a user's data. `true` when the provider cannot tell.
    pub used: bool,
    /// When it was made, by the provider's clock; `None` when not known.
    pub created_at: Option<Timestamp>,
}

impl VolumeView {
    /// A view with its required parts; `used` until said otherwise.
    #[must_use]
    pub fn new(id: VolumeId, state: VolumeState) -> Self {
        Self { id, state, attached_to: None, used: true, created_at: None }
    }
}

/// What a runtime needs to find a volume on its instance: a path, a LUN, a serial. Only the backend that made it reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Device(pub String);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which volume is to meet, or leave, which instance, and in which epoch of its box.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attach {
    /// The volume.
    pub volume: VolumeId,
    /// The instance.
    pub instance: InstanceId,
    /// The box's epoch. A provider that can remember it refuses older ones with `Fenced`; others ignore it.
    pub epoch: Epoch,
}

impl Attach {
    /// All parts are required.
    #[must_use]
    pub fn new(volume: VolumeId, instance: InstanceId, epoch: Epoch) -> Self {
        Self { volume, instance, epoch }
    }
}

/// How far an attach has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// The volume is on the instance as `Device`.
    Yes(Device),
    /// Under way: call again.
    Pending,
}

/// How far a detach has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// The volume is surely not on that instance.
    Yes,
    /// Under way: call again.
    Pending,
}

/// A snapshot as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotView {
    /// Its id.
    pub id: SnapshotId,
    /// Whether volumes can be copied from it.
    pub ready: bool,
    /// When it was made, by the provider's clock; `None` when not known.
    pub created_at: Option<Timestamp>,
}

impl SnapshotView {
    /// A view with its required parts.
    #[must_use]
    pub fn new(id: SnapshotId, ready: bool) -> Self {
        Self { id, ready, created_at: None }
    }
}

/// Volumes that each hold one box.
#[async_trait]
pub trait VolumeProvider: Send + Sync + 'static {
    /// Makes the volume, or finds it when it exists: an existing volume is never filled anew.
    ///
    /// # Errors
    /// `NotFound` when the snapshot does not exist; `NoCapacity`, `Throttled`, `Invalid`. Nothing is left behind by a refusal.
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView>;

    /// The volume, or `None` when it surely does not exist. An error never means absence.
    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>>;

    /// A page of the volumes that are ours, with or without a record. May lag behind.
    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<VolumeView>>;

    /// Begins to attach, or says that it is attached. Call again while `Pending`.
    ///
    /// # Errors
    /// `Busy` when the volume is attached elsewhere or the instance holds another volume: everything stays as it was.
    /// `NotFound` when either is absent. `Fenced` when a newer epoch was seen.
    async fn attach(&self, attach: &Attach) -> Result<Attached>;

    /// Begins to detach, or says that the volume is not on that instance. Call again while `Pending`. An absent volume or
    /// instance counts as detached.
    ///
    /// # Errors
    /// `Busy` when a guest still runs on it. `Fenced` when a newer epoch was seen.
    async fn detach(&self, attach: &Attach) -> Result<Detached>;

    /// Takes the volume from an instance that is stopped or gone, without its help. Only for the end of the ladder: the
    /// pool calls it when the guest surely does not run any more.
    ///
    /// # Errors
    /// As [`VolumeProvider::detach`].
    async fn force_detach(&self, attach: &Attach) -> Result<Detached>;

    /// Begins to copy the volume's present content into a snapshot with that id, or finds it.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when a guest runs on it and the backend cannot copy then.
    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView>;

    /// A page of the snapshots that are ours.
    async fn list_snapshots(&self, cursor: Option<&Cursor>) -> Result<Page<SnapshotView>>;

    /// Begins to delete a snapshot. Absent is success. Volumes copied from it stay whole.
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()>;

    /// Begins to delete the volume. Absent is success; done when [`VolumeProvider::get`] says `None`.
    ///
    /// # Errors
    /// `Busy` when it is attached: it stays.
    async fn delete(&self, id: &VolumeId) -> Result<()>;

    /// Grows the volume to `bytes`. Already that large or larger is success.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when it must be detached first; `NoCapacity`.
    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()>;
}

/// Where providers of other regions find a snapshot. Only a backend of the same kind reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLocation(pub String);

/// How far a copy of a snapshot of another region is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotCopy {
    /// Whether volumes can be copied from it.
    pub ready: bool,
    /// How much of it is there, in hundredths; `None` when not known.
    pub percent: Option<u8>,
}

impl SnapshotCopy {
    /// A copy with its required parts.
    #[must_use]
    pub fn new(ready: bool) -> Self {
        Self { ready, percent: None }
    }
}

/// Snapshots that go from region to region. A capability of its own beside [`VolumeProvider`]: not every provider has it, and a
/// front of several [`Regions`](crate::Regions) without it moves no boxes.
#[async_trait]
pub trait SnapshotCopier: Send + Sync + 'static {
    /// Where others find that snapshot. Changes nothing, and asks nobody when it follows from the id.
    ///
    /// # Errors
    /// `NotFound`, at the latest by the copy.
    async fn locate_snapshot(&self, id: &SnapshotId) -> Result<SnapshotLocation>;

    /// Begins to copy another region's snapshot, which is whole, into this region under that id, or says how far that is. Call
    /// again while it is not ready. From then on it is a snapshot as any other: listed, deleted and copied from as those that were
    /// taken here, and what becomes of the one that was copied does not touch it. When the future is dropped the copy is under
    /// way, done or not begun; one that is deleted while it is under way is gone.
    ///
    /// # Errors
    /// `NotFound` when there is nothing at that location; `Invalid` when the location is not one of this backend's; `NoCapacity`,
    /// `Throttled`. Nothing is left behind by a refusal. `Permanent` when the copy has failed for good: delete it.
    async fn copy_snapshot(&self, from: &SnapshotLocation, id: &SnapshotId) -> Result<SnapshotCopy>;
}
