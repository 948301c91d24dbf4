//! Rename a box: a record under the new name takes the place of the old one. The store changes one record at a time, so two
//! records stand for one box meanwhile, and the record of its volume, which is bound to one name, says which of them is the box.
//!
//! ```text
//!               old name            volume is bound to    new name
//!               Detached            old                   —
//!  intent       Renaming            old                   —
//!  insert       Renaming            old                   Arriving
//!  bind         Renaming            new                   Arriving      from here on the box has its new name
//!  delete       —                   new                   Arriving
//!  arrived      —                   new                   Detached
//! ```
//! If the process dies before the insert the rename is given up; after it, it is brought to its end: at the old name by the
//! recovery of a box in a step, and once the old record is gone by whoever comes across the new one ([`Shared::settle`]).
//!
//! An insert is sent once. If it arrives after the rename was given up, the record belongs to an attempt of which the old
//! record knows nothing any more, and the volume is not bound to its name: it is deleted, and the volume is left alone. A node that
//! stood still and wakes cannot bind the volume: it has read the volume's record before its intent, and who gives a rename
//! up writes that record once more before it says so.

use super::change::is_overtaken;
use super::travel::Guard;
use crate::actor::{Actor, HeldBox};
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::{BoxName, BoxRef};
use crate::planted::{self, Bug};
use crate::record::{BoxRecord, Placement, PlacementEvent, VolumeBinding, VolumeEvent, VolumeRecord, VolumeStatus};
use crate::records::{Held, box_key, volume_key};
use tokio::time::Instant;

const WHAT: &str = "rename box";

impl Actor {
    pub(crate) async fn rename(&mut self, to: &BoxName, unless: &Guard, deadline: Instant) -> Result<BoxRecord> {
        // The box under its new name, once it is on its way.
        let mut begun = None;
        loop {
            let error = match self.try_rename(to, unless, deadline, &mut begun).await {
                Err(error) if is_overtaken(&error) && Instant::now() < deadline => {
                    self.held = None;
                    continue;
                }
                Err(error) => error,
                Ok(record) => return Ok(record),
            };
            // Another node took this one for dead, and has gone on with it.
            if error.kind() == ErrorKind::NotFound
                && let Some(renamed) = &begun
                && let Some(record) = self.shared.box_called(&renamed.owner, &renamed.name).await?
                && record.owner == *renamed
            {
                return Ok(record);
            }
            return Err(error);
        }
    }

    async fn try_rename(
        &mut self,
        to: &BoxName,
        unless: &Guard,
        deadline: Instant,
        begun: &mut Option<BoxRef>,
    ) -> Result<BoxRecord> {
        let held = loop {
            let held = self.at_rest(WHAT, deadline).await?;
            self.check_unused(to).await?;
            match (&held.record.placement, &held.record.volume) {
                (Placement::Detached, VolumeBinding::Bound(_)) => break held,
                (Placement::Detached, VolumeBinding::Wanted(_)) => drop(self.bind(held, None).await?),
                (Placement::Parked { .. }, _) => self.withdraw(held, false).await?,
                _ => {
                    let detail = "the box runs; leave it and wait until it is suspended, or stop it first";
                    return Err(Error::new(ErrorKind::Busy, WHAT, &self.key.1).with_detail(detail));
                }
            }
        };
        let volume = self.volume_of(&held.record).await?;
        if !is_bound_to(&volume, &held.record.owner) {
            let detail = "its disk is not bound to it; try again later";
            return Err(Error::new(ErrorKind::Busy, WHAT, &self.key.1).with_detail(detail));
        }
        unless.check().await?;
        let node = self.shared.node.clone();
        let held = self.step(&held, &PlacementEvent::Rename { to: to.clone(), node }).await?;
        let record = under_new_name(&held)?;
        let new = record.owner.clone();
        *begun = Some(new.clone());
        match self.shared.records.insert_once(&box_key(&new.owner, &new.name), record).await {
            Ok(arriving) => self.bind_to_new_name(held, volume, arriving).await,
            Err(error) => {
                let given_up = self.give_up_rename(held, &volume).await;
                given_up.map_err(|left| left.with_effect(Effect::Unknown))?;
                Err(match error.kind() {
                    ErrorKind::AlreadyExists => self.is_used(to),
                    _ => error.with_effect(Effect::None).with_detail("the box has its old name; try again"),
                })
            }
        }
    }

    /// `Renaming`, of a node that is out of it.
    pub(crate) async fn recover_rename(&mut self, held: HeldBox) -> Result<()> {
        let volume = self.volume_of(&held.record).await?;
        let node = self.shared.node.clone();
        let held = self.step(&held, &PlacementEvent::TakeOver { node }).await?;
        let new = under_new_name(&held)?;
        let found = self.shared.records.get::<BoxRecord>(&box_key(&new.owner.owner, &new.owner.name)).await?;
        match found.filter(|found| is_same_attempt(&found.record, &new)) {
            Some(arriving) if is_bound_to(&volume, &new.owner) => self.conclude_rename(held, arriving).await.map(drop),
            Some(arriving) => self.bind_to_new_name(held, volume, arriving).await.map(drop),
            None => self.give_up_rename(held, &volume).await,
        }
    }

    /// From here on the box has its new name.
    async fn bind_to_new_name(
        &mut self,
        held: HeldBox,
        volume: Held<VolumeRecord>,
        arriving: Held<BoxRecord>,
    ) -> Result<BoxRecord> {
        let event = VolumeEvent::Rename { from: held.record.owner.clone(), to: arriving.record.owner.clone() };
        if !planted::is(Bug::RenameLeavesVolume) {
            self.shared.volume_step(&volume, &event).await?;
        }
        self.conclude_rename(held, arriving).await
    }

    async fn conclude_rename(&mut self, held: HeldBox, arriving: Held<BoxRecord>) -> Result<BoxRecord> {
        self.held = None;
        self.shared.records.delete(&box_key(&self.key.0, &self.key.1), &held.version).await?;
        match self.shared.arrived(&arriving).await {
            // Somebody else came across it.
            Err(error) if is_overtaken(&error) || error.kind() == ErrorKind::NotFound => Ok(arriving.record),
            answer => answer,
        }
    }

    /// The box keeps its name.
    async fn give_up_rename(&mut self, held: HeldBox, volume: &Held<VolumeRecord>) -> Result<()> {
        if !planted::is(Bug::RenameGivenUpUnsaid) {
            let event = VolumeEvent::Bind { owner: held.record.owner.clone() };
            self.shared.volume_step(volume, &event).await?;
        }
        let event = PlacementEvent::RenameFailed { epoch: held.record.epoch };
        self.step(&held, &event).await.map(drop)
    }

    /// Refuses a name that is in use. What is left under it of a rename that was given up is not.
    async fn check_unused(&self, name: &BoxName) -> Result<()> {
        let key = box_key(&self.key.0, name);
        let Some(found) = self.shared.records.get::<BoxRecord>(&key).await? else { return Ok(()) };
        if matches!(found.record.placement, Placement::Arriving { .. }) {
            self.shared.settle(&found).await?;
            if self.shared.records.get::<BoxRecord>(&key).await?.is_none() {
                return Ok(());
            }
        }
        Err(self.is_used(name))
    }

    fn is_used(&self, name: &BoxName) -> Error {
        let detail =
            format!("a box named {name} exists already, or was deleted and can still be had back; choose another name");
        Error::new(ErrorKind::AlreadyExists, WHAT, &self.key.1).with_detail(detail)
    }

    async fn volume_of(&self, record: &BoxRecord) -> Result<Held<VolumeRecord>> {
        let volume = record.volume.volume();
        let found = self.shared.records.get::<VolumeRecord>(&volume_key(volume)).await?;
        found.ok_or_else(|| Error::new(ErrorKind::Corrupt, WHAT, volume).with_detail("the box's disk is not on record"))
    }
}

fn is_bound_to(volume: &Held<VolumeRecord>, owner: &BoxRef) -> bool {
    matches!(&volume.record.status, VolumeStatus::Bound { owner: has } if has == owner)
}

fn under_new_name(held: &Held<BoxRecord>) -> Result<BoxRecord> {
    let not = || Error::new(ErrorKind::Conflict, WHAT, &held.record.owner).with_detail("it is not being renamed");
    held.record.under_new_name().ok_or_else(not)
}

/// Whether `found` is the record of the attempt that `new` would be the record of.
fn is_same_attempt(found: &BoxRecord, new: &BoxRecord) -> bool {
    let attempt = |record: &BoxRecord| match &record.placement {
        Placement::Arriving { from, attempt, .. } => Some((from.clone(), *attempt)),
        _ => None,
    };
    found.owner == new.owner && attempt(found) == attempt(new)
}
