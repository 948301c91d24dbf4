//! Taking into the pool what was there before it: a machine, or a disk that holds somebody's box.
//!
//! ```text
//!  begin: record set aside ──▶ the provider marks the resource as the pool's ──▶ end: record as it is to be
//! ```
//! No node acts on what is set aside, so a death in between leaves a record that keeps everybody off; adopting again goes on
//! from there. A resource with the pool's mark and without a record would be swept as nobody's: hence the record first.

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BoxId, BoxName, BoxRef, Epoch, InstanceId, NodeId, UserId, VolumeId};
use crate::random::Random;
use crate::record::{
    BoxRecord, Envelope, InstanceRecord, InstanceStatus, VolumeBinding, VolumeEvent, VolumeRecord, VolumeStatus,
};
use crate::records::{Held, Records, box_key, instance_key, volume_key};
use crate::store::StateStore;
use std::sync::Arc;
use std::time::Duration;

/// Why a record is set aside while its resource is being adopted.
const ADOPTING: &str = "it is being adopted; adopt it again if that was interrupted";
/// One call to the store.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The records' part of adopting, beside nodes that run or while none does.
///
/// Between `begin_…` and `end_…` the caller has the provider mark the resource as the pool's. Both may be called again after
/// whatever went wrong; `abandon_…` takes back a `begin_…` of something that turned out not to be there.
pub struct Adoption {
    records: Records,
    clock: Arc<dyn Clock>,
    node: NodeId,
    random: Random,
}

impl std::fmt::Debug for Adoption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoption").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Adoption {
    /// For the pool in `store`. Each process gives a `seed` of its own: it tells its writes from those of others.
    ///
    /// # Errors
    /// None in practice: the name that is made up always fits.
    pub fn new(store: Arc<dyn StateStore>, clock: Arc<dyn Clock>, seed: u64) -> Result<Self> {
        let random = Random::seeded(seed);
        let node = NodeId::new(format!("adopt-{}", random.suffix())).map_err(|error| named("adopter", error))?;
        let records = Records::new(store, node.clone(), CALL_LIMIT, CALL_LIMIT);
        Ok(Self { records, clock, node, random })
    }

    /// Sets a place in the pool aside for a machine. `false`: it is the pool's already, and nothing is left to do.
    ///
    /// # Errors
    /// `NoCapacity` when the pool has `max_total` instances; `Conflict` when the machine was set aside for another reason.
    pub async fn begin_instance(&self, id: &InstanceId, max_total: u32) -> Result<bool> {
        const ACT: &str = "adopt instance";
        if let Some(found) = self.instance(id).await? {
            return match found.record.status {
                InstanceStatus::Quarantined { why } if why == ADOPTING => Ok(true),
                InstanceStatus::Quarantined { why } => {
                    Err(Error::new(ErrorKind::Conflict, ACT, id).with_detail(format!("it was set aside: {why}")))
                }
                _ => Ok(false),
            };
        }
        let mut total = 0;
        self.records.scan_each::<InstanceRecord>(None, |_, _| total += 1).await?;
        if total >= max_total as usize {
            let detail = format!("the pool has {total} instances of at most {max_total}; raise the limit first");
            return Err(Error::new(ErrorKind::NoCapacity, ACT, id).with_detail(detail));
        }
        let record = self.instance_record(id, InstanceStatus::Quarantined { why: ADOPTING.into() }, "");
        self.records.insert(&instance_key(id), record).await.map(|_| true)
    }

    /// Hands a machine that is marked as the pool's to the nodes: one of them looks whether it is ready and clean, and makes it free.
    /// **As every instance it is deleted on doubt**, when it is surplus, and when `generation` is not the pool's.
    ///
    /// # Errors
    /// `NotFound` without [`begin_instance`](Self::begin_instance); `Conflict` when another process ended it at the same time.
    pub async fn end_instance(&self, id: &InstanceId, generation: &str) -> Result<()> {
        let held = self.instance(id).await?.ok_or_else(|| not_begun("adopt instance", id))?;
        if !is_set_aside(&held) {
            return Ok(());
        }
        // By a node that is not there: whichever is takes it over.
        let status = InstanceStatus::Provisioning { node: self.node.clone() };
        let record = self.instance_record(id, status, generation);
        self.records.update(&instance_key(id), &held.version, record).await.map(drop)
    }

    /// Takes [`begin_instance`](Self::begin_instance) back. What is the pool's already stays so.
    ///
    /// # Errors
    /// The store's own.
    pub async fn abandon_instance(&self, id: &InstanceId) -> Result<()> {
        match self.instance(id).await? {
            Some(held) if is_set_aside(&held) => self.records.delete(&instance_key(id), &held.version).await,
            _ => Ok(()),
        }
    }

    /// Sets a disk aside for the box `name` of `user`. `false`: it is that box's already, and nothing is left to do.
    ///
    /// # Errors
    /// `AlreadyExists` when the user has a box of that name with another disk; `Conflict` when the disk is the pool's for another purpose.
    pub async fn begin_volume(&self, id: &VolumeId, user: &UserId, name: &BoxName) -> Result<bool> {
        const ACT: &str = "adopt volume";
        self.refuse_another_box(ACT, id, user, name).await?;
        let Some(found) = self.records.get::<VolumeRecord>(&volume_key(id)).await? else {
            let record = self.volume_record(id, VolumeStatus::Quarantined { why: ADOPTING.into() });
            return self.records.insert(&volume_key(id), record).await.map(|_| true);
        };
        match found.record.status {
            VolumeStatus::Quarantined { why } if why == ADOPTING => Ok(true),
            VolumeStatus::Bound { owner } if owner.owner == *user && owner.name == *name => Ok(false),
            other => {
                let detail = format!("it is in the pool already, and {}", other.word());
                Err(Error::new(ErrorKind::Conflict, ACT, id).with_detail(detail))
            }
        }
    }

    /// Makes the box, detached and with this disk; its next connect attaches it. The disk is the user's for good.
    ///
    /// # Errors
    /// As [`begin_volume`](Self::begin_volume); `NotFound` without it.
    pub async fn end_volume(&self, id: &VolumeId, user: &UserId, name: &BoxName) -> Result<()> {
        if !self.begin_volume(id, user, name).await? {
            return Ok(());
        }
        let held = self.records.get::<VolumeRecord>(&volume_key(id)).await?;
        self.give(held.ok_or_else(|| not_begun("adopt volume", id))?, user, name).await
    }

    /// Makes the box `name` of `user`, detached and with a disk that was set aside; its next connect attaches it. The disk is the
    /// user's for good. A second call for the same box is success.
    ///
    /// # Errors
    /// `NotFound`: the pool has no such disk. `AlreadyExists` when the user has a box of that name with another disk. `Conflict` when
    /// the disk is not set aside, or another box got it at the same time; there is no box of that name then.
    pub async fn release_volume(&self, id: &VolumeId, user: &UserId, name: &BoxName) -> Result<()> {
        const ACT: &str = "release volume";
        self.refuse_another_box(ACT, id, user, name).await?;
        let held = self.set_aside(ACT, id).await?;
        match &held.record.status {
            VolumeStatus::Bound { owner } if owner.owner == *user && owner.name == *name => Ok(()),
            VolumeStatus::Quarantined { .. } => self.give(held, user, name).await,
            other => Err(not_set_aside(ACT, id, other)),
        }
    }

    /// Deletes a disk that was set aside, for good. It is only written down here: one of the nodes does it, with its next census.
    ///
    /// # Errors
    /// `NotFound`: the pool has no such disk, or it is gone by now. `Conflict` when it is not set aside.
    pub async fn erase_volume(&self, id: &VolumeId) -> Result<()> {
        const ACT: &str = "erase volume";
        let held = self.set_aside(ACT, id).await?;
        // By a node that is not there: whichever is takes it over.
        let event = VolumeEvent::Erase { node: self.node.clone() };
        match (held.record.after(&event), &held.record.status) {
            (Ok(record), _) => self.records.update(&volume_key(id), &held.version, record).await.map(drop),
            (Err(_), VolumeStatus::Deleting { .. }) => Ok(()),
            (Err(_), other) => Err(not_set_aside(ACT, id, other)),
        }
    }

    /// Takes [`begin_volume`](Self::begin_volume) back. What is a box's already stays so.
    ///
    /// # Errors
    /// The store's own.
    pub async fn abandon_volume(&self, id: &VolumeId) -> Result<()> {
        let key = volume_key(id);
        match self.records.get::<VolumeRecord>(&key).await? {
            Some(held) if matches!(&held.record.status, VolumeStatus::Quarantined { why } if why == ADOPTING) => {
                self.records.delete(&key, &held.version).await
            }
            _ => Ok(()),
        }
    }

    async fn set_aside(&self, operation: &'static str, id: &VolumeId) -> Result<Held<VolumeRecord>> {
        let held = self.records.get::<VolumeRecord>(&volume_key(id)).await?;
        held.ok_or_else(|| Error::new(ErrorKind::NotFound, operation, id).with_detail("the pool has no such volume"))
    }

    async fn refuse_another_box(
        &self,
        operation: &'static str,
        id: &VolumeId,
        user: &UserId,
        name: &BoxName,
    ) -> Result<()> {
        match self.records.get::<BoxRecord>(&box_key(user, name)).await? {
            Some(found) if found.record.volume.volume() != id => {
                let detail = "the user has a box of that name; choose another one";
                Err(Error::new(ErrorKind::AlreadyExists, operation, name).with_detail(detail))
            }
            _ => Ok(()),
        }
    }

    /// The disk becomes that box's. The box first: a disk that is bound to a box which does not name it is taken for left over.
    async fn give(&self, held: Held<VolumeRecord>, user: &UserId, name: &BoxName) -> Result<()> {
        let id = &held.record.id;
        let owner = self.box_with(id, user, name).await?;
        let record = held
            .record
            .after(&VolumeEvent::Release { owner: owner.clone() })
            .map_err(|illegal| Error::new(ErrorKind::Conflict, "release volume", id).with_source(illegal))?;
        match self.records.update(&volume_key(id), &held.version, record).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                match self.set_aside("release volume", id).await?.record.status {
                    VolumeStatus::Bound { owner: got } if got == owner => Ok(()),
                    // Another box was quicker. Ours has never had a disk.
                    VolumeStatus::Bound { .. } | VolumeStatus::Deleting { .. } => {
                        self.take_back(&owner, id).await?;
                        Err(error)
                    }
                    _ => Err(error),
                }
            }
            outcome => outcome.map(drop),
        }
    }

    async fn take_back(&self, owner: &BoxRef, id: &VolumeId) -> Result<()> {
        let key = box_key(&owner.owner, &owner.name);
        match self.records.get::<BoxRecord>(&key).await? {
            Some(found) if found.record.owner == *owner && found.record.volume.volume() == id => {
                self.records.delete(&key, &found.version).await
            }
            _ => Ok(()),
        }
    }

    /// The box that has this disk, made if it is not there.
    async fn box_with(&self, id: &VolumeId, user: &UserId, name: &BoxName) -> Result<BoxRef> {
        let key = box_key(user, name);
        let box_id = BoxId::new(format!("b-{}", self.random.suffix())).map_err(|error| named("box", error))?;
        let owner = BoxRef { owner: user.clone(), name: name.clone(), id: box_id };
        let mut record = BoxRecord::new(owner, id.clone(), self.clock.now());
        record.volume = VolumeBinding::Bound(id.clone());
        // The disk remembers the epochs of the box that it held before. No box that counts from zero comes near this one.
        record.epoch = Epoch(record.created_at.0);
        match self.records.insert(&key, record).await {
            Ok(held) => Ok(held.record.owner),
            // An earlier attempt got so far, or another box has come in between.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                match self.records.get::<BoxRecord>(&key).await? {
                    Some(found) if found.record.volume.volume() == id => Ok(found.record.owner),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The record under the instance's own name: a seat may have another's.
    async fn instance(&self, id: &InstanceId) -> Result<Option<Held<InstanceRecord>>> {
        match self.records.get::<InstanceRecord>(&instance_key(id)).await? {
            Some(found) if found.record.id != *id => {
                let detail = format!("{} has its place in the pool", found.record.id);
                Err(Error::new(ErrorKind::AlreadyExists, "adopt instance", id).with_detail(detail))
            }
            found => Ok(found),
        }
    }

    fn instance_record(&self, id: &InstanceId, status: InstanceStatus, generation: &str) -> InstanceRecord {
        let (generation, created_at) = (generation.to_owned(), self.clock.now());
        InstanceRecord::new(id.clone(), status, generation, created_at)
    }

    fn volume_record(&self, id: &VolumeId, status: VolumeStatus) -> VolumeRecord {
        let (generation, created_at) = (String::new(), self.clock.now());
        VolumeRecord { id: id.clone(), status, generation, source: None, created_at, envelope: Envelope::new() }
    }
}

fn is_set_aside(held: &Held<InstanceRecord>) -> bool {
    matches!(&held.record.status, InstanceStatus::Quarantined { why } if why == ADOPTING)
}

fn not_set_aside(operation: &'static str, id: &VolumeId, status: &VolumeStatus) -> Error {
    Error::new(ErrorKind::Conflict, operation, id).with_detail(format!("it is not set aside, but {}", status.word()))
}

fn not_begun(operation: &'static str, id: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, operation, id).with_detail("it was not begun, or taken back meanwhile")
}

fn named(what: &str, error: crate::id::InvalidId) -> Error {
    Error::new(ErrorKind::Invalid, "adopt", what).with_source(error)
}
