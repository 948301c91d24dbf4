//! Delete a box, on its owner's word: guest, attachment, volume, record, in this order. The only way in which a bound
//! volume is ever deleted.

use super::change::is_overtaken;
use crate::actor::{Actor, HeldBox, WATCH_OTHER_EVERY};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{self, Bug};
use crate::record::{
    BoxRecord, EventKind, EventRecord, HoldPart, Placement, PlacementEvent, VolumeBinding, VolumeEvent, VolumeRecord,
    VolumeStatus,
};
use crate::records::{box_key, volume_key};
use tokio::time::Instant;

impl Actor {
    pub(crate) async fn delete(&mut self, deadline: Instant) -> Result<()> {
        let mut overtaken = false;
        loop {
            match self.try_delete(deadline).await {
                Err(error) if is_overtaken(&error) && Instant::now() < deadline => {
                    self.held = None;
                    overtaken = true;
                }
                // Somebody else has brought it to its end.
                Err(error) if overtaken && error.kind() == ErrorKind::NotFound => return Ok(()),
                answer => return answer,
            }
        }
    }

    async fn try_delete(&mut self, deadline: Instant) -> Result<()> {
        self.held = None;
        loop {
            self.shared.check_in_touch("delete box")?;
            let held = self.load().await?;
            let node = self.shared.node.clone();
            let step = held.record.placement.clone();
            let event = match &step {
                Placement::Detached | Placement::Running { .. } | Placement::Parked { .. } => {
                    PlacementEvent::Delete { node }
                }
                Placement::Deleting { .. } if self.is_up_to_us(&step) => PlacementEvent::TakeOver { node },
                _ => {
                    if self.is_up_to_us(&step) {
                        self.recover().await;
                    }
                    if Instant::now() >= deadline {
                        let detail = format!("the box is {} and did not come to rest in time; try again", step.word());
                        return Err(Error::new(ErrorKind::Busy, "delete box", &self.key.1).with_detail(detail));
                    }
                    if matches!(step, Placement::Deleting { .. }) {
                        self.let_go_of_volume(&held.record).await?;
                    }
                    tokio::time::sleep(WATCH_OTHER_EVERY).await;
                    self.held = None;
                    continue;
                }
            };
            return self.delete_from(held, &event).await;
        }
    }

    /// Of a box at rest, exactly as it is held.
    pub(crate) async fn delete_held(&mut self, held: HeldBox) -> Result<()> {
        let node = self.shared.node.clone();
        self.delete_from(held, &PlacementEvent::Delete { node }).await
    }

    async fn delete_from(&mut self, held: HeldBox, event: &PlacementEvent) -> Result<()> {
        let mut record = self.after(&held, event)?;
        record.holders.clear();
        let held = self.write(&held, record).await?;
        self.end_sessions();
        self.finish_delete(held).await
    }

    /// `Deleting`, by us. Every part may have been done before.
    pub(crate) async fn finish_delete(&mut self, held: HeldBox) -> Result<()> {
        let record = &held.record;
        self.shared.state().parked.remove(&record.owner);
        if let Some(instance) = record.placement.instance() {
            self.empty(record, instance, false).await?;
            self.release_instance(record, instance, false).await?;
        }
        let unbound = matches!(record.volume, VolumeBinding::Wanted(_));
        if !(planted::is(Bug::DeleteLeavesVolume) || planted::is(Bug::UndoForgetsVolume) && unbound) {
            self.delete_volume_of(record).await?;
        }
        self.held = None;
        self.shared.records.delete(&box_key(&self.key.0, &self.key.1), &held.version).await?;
        metrics::counter!("boxpool_boxes_deleted_total").increment(1);
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            volume: Some(held.record.volume.volume().clone()),
            epoch: Some(held.record.epoch),
            detail: held.record.hold.as_ref().map(|hold| why(&hold.part).to_owned()).unwrap_or_default(),
            ..self.shared.event(EventKind::BoxDeleted)
        });
        Ok(())
    }

    async fn delete_volume_of(&self, record: &BoxRecord) -> Result<()> {
        let key = volume_key(record.volume.volume());
        let node = self.shared.node.clone();
        let deadline = Instant::now() + self.shared.config.limits.volume_ready;
        loop {
            // Another task of this node may be at it: then wait until it is done, or has given up.
            let Some(guard) = self.shared.busy.enter(record.volume.volume().as_str()) else {
                tokio::time::sleep(WATCH_OTHER_EVERY).await;
                self.shared.check_in_touch("delete volume")?;
                continue;
            };
            let Some(found) = self.shared.records.get::<VolumeRecord>(&key).await? else { return Ok(()) };
            let event = match &found.record.status {
                // A node that lives is making it: what it has asked of the cloud may not have happened yet, and would leave a
                // volume without a record. It will see that the box goes.
                VolumeStatus::Creating { node, wanted_by: Some(owner) }
                    if *owner == record.owner
                        && *node != self.shared.node
                        && !self.shared.is_dead(node)
                        && !planted::is(Bug::MadeAgain) =>
                {
                    if Instant::now() >= deadline {
                        let detail = format!("{node} is still making its disk; try again");
                        return Err(Error::new(ErrorKind::Busy, "delete box", &self.key.1).with_detail(detail));
                    }
                    drop(guard);
                    tokio::time::sleep(WATCH_OTHER_EVERY).await;
                    self.shared.check_in_touch("delete volume")?;
                    continue;
                }
                VolumeStatus::Bound { owner } if *owner == record.owner || planted::is(Bug::DeletesWantedVolume) => {
                    VolumeEvent::DeletedByOwner { owner: owner.clone(), node: node.clone() }
                }
                VolumeStatus::Creating { wanted_by: Some(owner), .. } if *owner == record.owner => {
                    VolumeEvent::Discard { node: node.clone() }
                }
                VolumeStatus::Deleting { .. } => VolumeEvent::TakeOver { node: node.clone() },
                // Wanted once, and never this box's: it stays as it is.
                _ => return Ok(()),
            };
            let after = found.record.after(&event).map_err(|illegal| {
                Error::new(ErrorKind::Conflict, "delete volume", &found.record.id).with_source(illegal)
            })?;
            match self.shared.records.update(&key, &found.version, after).await {
                Ok(held) => return self.shared.finish_volume_delete(held).await,
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                // Whoever was at it too was quicker, and has taken the record away.
                Err(error) if error.kind() == ErrorKind::NotFound && !planted::is(Bug::GoneVolumeFailsDelete) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Of a box that another node deletes: that node waits until nobody who lives makes the box's disk, so what we made of
    /// it goes now, and we do not wait for that node before.
    pub(crate) async fn let_go_of_volume(&self, record: &BoxRecord) -> Result<()> {
        let VolumeBinding::Wanted(volume) = &record.volume else { return Ok(()) };
        if planted::is(Bug::MakerWaitsForDeleter) {
            return Ok(());
        }
        // Another task of this node that is at it lets go itself.
        let Some(_guard) = self.shared.busy.enter(volume.as_str()) else { return Ok(()) };
        let Some(found) = self.shared.records.get::<VolumeRecord>(&volume_key(volume)).await? else { return Ok(()) };
        match &found.record.status {
            VolumeStatus::Creating { node, wanted_by: Some(owner) }
                if *owner == record.owner && *node == self.shared.node => {}
            _ => return Ok(()),
        }
        match self.shared.discard(found).await {
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            answer => answer,
        }
    }
}

/// Why what is held goes: its owner, who reads the events of all regions together, has not lost a box.
fn why(part: &HoldPart) -> &'static str {
    match part {
        HoldPart::Leaving => "it lives in another region now",
        HoldPart::Coming => "left of a move that was given up",
    }
}
