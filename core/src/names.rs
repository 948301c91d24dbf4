//! Which records are boxes. While a box is [renamed](crate::saga) two records stand for it, under two names; here is said which
//! of them is shown, and what becomes of the one under the new name when it is come across.

use crate::actor::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BoxName, UserId};
use crate::planted::{self, Bug};
use crate::record::{BoxRecord, EventKind, EventRecord, Placement, PlacementEvent, VolumeRecord, VolumeStatus};
use crate::records::{Held, box_key, volume_key};
use crate::shared::Shared;
use std::sync::Arc;

impl Shared {
    /// The user's box of that name.
    pub(crate) async fn box_called(&self, user: &UserId, name: &BoxName) -> Result<Option<BoxRecord>> {
        let Some(found) = self.records.get::<BoxRecord>(&box_key(user, name)).await? else { return Ok(None) };
        let there = !is_arriving(&found.record) || self.has_its_volume(&found.record).await?;
        Ok(there.then_some(found.record))
    }

    /// Each box of the user once, by name.
    pub(crate) async fn boxes_of(&self, user: &UserId) -> Result<Vec<BoxRecord>> {
        let all = self.records.scan_all::<BoxRecord>(Some(user.as_str())).await?;
        let mut there: Vec<BoxRecord> = Vec::new();
        let mut arriving = Vec::new();
        for (_, Held { record, .. }) in all {
            let known = there.iter_mut().find(|known| known.owner.id == record.owner.id);
            match known {
                _ if is_arriving(&record) => arriving.push(record),
                // Looked at in pages between which it was renamed.
                Some(known) if !planted::is(Bug::RenamedListedTwice) => {
                    if is_newer(&record, known) {
                        *known = record;
                    }
                }
                _ => there.push(record),
            }
        }
        for record in arriving {
            let known = there.iter().any(|known| known.owner.id == record.owner.id);
            if planted::is(Bug::RenamedListedTwice) || !known && self.has_its_volume(&record).await? {
                there.push(record);
            }
        }
        there.sort_by(|a, b| a.owner.name.cmp(&b.owner.name));
        Ok(there)
    }

    /// What has arrived under a new name, and whose rename is not under way any more: it is the box, or it is nothing and goes.
    /// Whoever comes across it may call this, at any time.
    pub(crate) async fn settle(self: &Arc<Self>, held: &Held<BoxRecord>) -> Result<()> {
        let Placement::Arriving { from, attempt, .. } = &held.record.placement else { return Ok(()) };
        let owner = &held.record.owner;
        // In this order: the old record goes when the volume is bound to the new name, or says that it stays before another
        // attempt can bind the volume. Whatever is read here is older than the write, which is of this very record.
        let old = self.records.get::<BoxRecord>(&box_key(&owner.owner, from)).await?;
        let under_way = old.is_some_and(|old| {
            old.record.owner.id == owner.id
                && matches!(&old.record.placement,
                    Placement::Renaming { to, attempt: present, .. } if *to == owner.name && present == attempt)
        });
        if under_way {
            self.tell(&(owner.owner.clone(), from.clone()), Message::Recover);
            return Ok(());
        }
        if self.has_its_volume(&held.record).await? || planted::is(Bug::GhostComesAlive) {
            return self.arrived(held).await.map(drop);
        }
        tracing::warn!(%owner, %from, "what is left of a rename that was given up is removed");
        metrics::counter!("boxpool_orphans_total", "of" => "box").increment(1);
        self.records.delete(&box_key(&owner.owner, &owner.name), &held.version).await
    }

    /// `Arriving` → `Detached`: the box is where it was to go.
    pub(crate) async fn arrived(self: &Arc<Self>, held: &Held<BoxRecord>) -> Result<BoxRecord> {
        let Placement::Arriving { from, .. } = &held.record.placement else { return Ok(held.record.clone()) };
        let owner = &held.record.owner;
        let event = PlacementEvent::Arrived { epoch: held.record.epoch };
        let record = held
            .record
            .after(&event)
            .map_err(|illegal| Error::new(ErrorKind::Conflict, "rename box", owner).with_source(illegal))?;
        let held = self.records.update(&box_key(&owner.owner, &owner.name), &held.version, record).await?;
        let told = |name: &BoxName, detail: String| EventRecord {
            owner: Some(crate::BoxRef { name: name.clone(), ..owner.clone() }),
            volume: Some(held.record.volume.volume().clone()),
            epoch: Some(held.record.epoch),
            detail,
            ..self.event(EventKind::BoxRenamed)
        };
        self.log(told(from, format!("to {}", owner.name)));
        self.log(told(&owner.name, format!("from {from}")));
        Ok(held.record)
    }

    /// Whether the record's volume is bound to it, under its very name.
    async fn has_its_volume(&self, record: &BoxRecord) -> Result<bool> {
        let found = self.records.get::<VolumeRecord>(&volume_key(record.volume.volume())).await?;
        Ok(found.is_some_and(
            |found| matches!(&found.record.status, VolumeStatus::Bound { owner } if *owner == record.owner),
        ))
    }
}

fn is_arriving(record: &BoxRecord) -> bool {
    matches!(record.placement, Placement::Arriving { .. })
}

/// Of two records of one box, whether the first is what it has become.
fn is_newer(one: &BoxRecord, other: &BoxRecord) -> bool {
    let on_its_way = |record: &BoxRecord| matches!(record.placement, Placement::Renaming { .. });
    (!on_its_way(one), one.epoch) > (!on_its_way(other), other.epoch)
}
