//! Keep a copy of a box's disk, and make boxes of it.
//!
//! *Take*: record `Taking` (intent), copy, record `Ready`. The disk is copied while the box is at rest, and nothing holds a connect
//! up meanwhile: when the copy is there the box is looked at once more, and a copy of a box that was moved in between is
//! not kept. If the process dies here nobody was told of the snapshot, so it is not gone on with: it is deleted.
//! *Delete*: record `Deleting`, provider, then the record goes; whoever finds it half done goes on.
//! *Restore*: a box is [created](super::create) with a volume copied from the snapshot. It begins at the epoch of the box that was
//! copied, with memory that is to be forgotten, and so boots. A snapshot that is deleted meanwhile ends the restore, and
//! of that box nothing stays. *Duplicate*: all three, with a snapshot that has no name.

use crate::actor::{Actor, HeldBox, Message, Wanted};
use crate::busy::BusyGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BoxId, BoxName, BoxRef, SnapshotId, SnapshotName, UserId};
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::record::{
    BoxRecord, Envelope, EventKind, EventRecord, Placement, SnapshotEvent, SnapshotRecord, SnapshotStatus,
    VolumeBinding,
};
use crate::records::{Held, box_key, key_of_snapshot, snapshot_key};
use crate::saga::named;
use crate::shared::{Shared, limited};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What the names begin with that snapshots of boxes have at their provider. What has such a name and no record is swept.
pub(crate) const MARK: &str = "of-box-";

impl Actor {
    /// Has the disk of this box, and of no later one of its name, copied into `to`. Returns the box as it was all the time.
    ///
    /// # Errors
    /// `Busy` when the box runs and is in use, or was moved meanwhile; `NotFound`; the provider's.
    pub(crate) async fn copy_disk(&mut self, of: &BoxRef, to: &SnapshotId, deadline: Instant) -> Result<BoxRecord> {
        let mut held = self.resting("snapshot box", of, deadline).await?;
        if matches!(held.record.volume, VolumeBinding::Wanted(_)) {
            self.bind(held, None).await?;
            // Somebody may have brought it up as soon as its volume was there.
            held = self.resting("snapshot box", of, deadline).await?;
        }
        if matches!(held.record.placement, Placement::Running { .. }) && self.sessions.is_empty() {
            // Nobody is there: it is suspended now and not after its linger.
            self.linger_until = None;
            self.leave().await;
            held = self.resting("snapshot box", of, deadline).await?;
        }
        if matches!(held.record.placement, Placement::Running { .. }) {
            return Err(self.in_use("it runs; leave it, or stop it, and try again"));
        }
        let volume = held.record.volume.volume().clone();
        let limit = self.shared.config.limits.volume_ready;
        let mut poll = Poll::new(limit);
        loop {
            self.shared.check_in_touch("snapshot volume")?;
            let call = self.shared.volumes.snapshot(&volume, to);
            let asked = match limited(poll.left(), "snapshot volume", &volume, call).await {
                Ok(view) if view.ready => break,
                Ok(_) => None,
                // A guest that somebody has started meanwhile, or a detach that the provider has not ended for itself.
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.check_unmoved(&held).await?;
                    error.retry_after()
                }
                Err(error) if passes(&error) => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("not ready within {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "snapshot volume", &volume).with_detail(detail));
            }
        }
        if !planted::is(Bug::SnapshotUnchecked) {
            self.check_unmoved(&held).await?;
        }
        Ok(held.record.clone())
    }

    async fn resting(&mut self, operation: &'static str, of: &BoxRef, deadline: Instant) -> Result<HeldBox> {
        let held = self.at_rest(operation, deadline).await?;
        if held.record.owner == *of {
            return Ok(held);
        }
        Err(Error::new(ErrorKind::NotFound, operation, &self.key.1).with_detail("it was deleted meanwhile"))
    }

    /// Every step begins with a new epoch: with the one that it had, it was at rest from the first look to this one.
    async fn check_unmoved(&mut self, held: &Held<BoxRecord>) -> Result<()> {
        self.held = None;
        let now = self.load().await?;
        if now.record.owner == held.record.owner && now.record.epoch == held.record.epoch {
            return Ok(());
        }
        Err(self.in_use("somebody connected to it, or moved it, while it was being copied; try again"))
    }

    fn in_use(&self, detail: &str) -> Error {
        Error::new(ErrorKind::Busy, "snapshot box", &self.key.1).with_detail(detail)
    }
}

impl Shared {
    /// Takes a snapshot and keeps it under a name.
    pub(crate) async fn keep_snapshot(
        self: &Arc<Self>,
        user: &UserId,
        name: &BoxName,
        called: SnapshotName,
    ) -> Result<SnapshotRecord> {
        let (held, _guard) = self.take_snapshot(user, name, Some(called)).await?;
        let kept = self.snapshot_step(&held, &SnapshotEvent::Taken { node: self.node.clone() }).await;
        match kept {
            Ok(held) => {
                metrics::counter!("boxpool_snapshots_taken_total").increment(1);
                self.log_snapshot(EventKind::SnapshotTaken, &held.record);
                Ok(held.record)
            }
            // Others took this node for dead, and have removed what there was by then.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                self.drop_at_provider(&held.record.id).await;
                let detail = "this node was taken for dead meanwhile; try again";
                Err(Error::new(ErrorKind::Unavailable, "snapshot box", name).with_detail(detail))
            }
            // Kept or not: nobody has told its owner, and as long as it says `Taking` it is removed.
            Err(error) => Err(error.with_detail("the snapshot may have been taken; list the snapshots")),
        }
    }

    /// A copy of the box's disk, which is there and whole, and in the record still being taken: so it goes when this node dies.
    async fn take_snapshot(
        self: &Arc<Self>,
        user: &UserId,
        name: &BoxName,
        called: Option<SnapshotName>,
    ) -> Result<(Held<SnapshotRecord>, BusyGuard)> {
        self.check_in_touch("snapshot box")?;
        let found = self.records.get::<BoxRecord>(&box_key(user, name)).await?;
        let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "snapshot box", name))?.record;
        self.check_there(&found, "snapshot box")?;
        let (held, guard) = self.intend_snapshot(&found, called).await?;
        match self.copied(&held.record).await {
            Ok(of) => {
                let record = SnapshotRecord { epoch: of.epoch, grown_to: of.grown_to, ..held.record };
                Ok((Held { record, ..held }, guard))
            }
            Err(error) => {
                self.undo_snapshot(held).await;
                Err(error)
            }
        }
    }

    /// The intent to have a snapshot of that box here, which goes when this node dies.
    pub(crate) async fn intend_snapshot(
        &self,
        of: &BoxRecord,
        called: Option<SnapshotName>,
    ) -> Result<(Held<SnapshotRecord>, BusyGuard)> {
        let name = &of.owner.name;
        let id = named("snapshot box", SnapshotId::new(format!("{MARK}{}", self.random.suffix())))?;
        let guard = self.busy.enter(id.as_str());
        let guard = guard.ok_or_else(|| Error::new(ErrorKind::Conflict, "snapshot box", name))?;
        let record = SnapshotRecord {
            name: called,
            id,
            of: of.owner.clone(),
            status: SnapshotStatus::Taking { node: self.node.clone() },
            epoch: of.epoch,
            grown_to: of.grown_to,
            created_at: self.now(),
            envelope: Envelope::new(),
        };
        let held = self.records.insert_once(&key_of_snapshot(&record), record).await.map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                let detail = "there is a snapshot of that name already";
                return Error::new(ErrorKind::AlreadyExists, "snapshot box", name).with_detail(detail);
            }
            error
        })?;
        Ok((held, guard))
    }

    /// Has the box's task copy its disk.
    async fn copied(self: &Arc<Self>, record: &SnapshotRecord) -> Result<BoxRecord> {
        let deadline = Instant::now() + self.config.limits.volume_ready;
        let (done, answer) = oneshot::channel();
        let (of, to) = (record.of.clone(), record.id.clone());
        let key = (of.owner.clone(), of.name.clone());
        self.tell(&key, Message::CopyDisk { of, to, deadline, done });
        self.heard("snapshot box", answer).await
    }

    pub(crate) async fn heard<T>(&self, operation: &'static str, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        answer.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, operation, &self.node)))
    }

    /// A new box that is a copy of a snapshot.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        user: &UserId,
        snapshot: &SnapshotName,
        to: &BoxName,
        id: Option<BoxId>,
    ) -> Result<BoxRecord> {
        let held = self.snapshot_called(user, snapshot, "restore snapshot").await?;
        if held.record.status != SnapshotStatus::Ready {
            let detail = format!("it is {}", held.record.status.word());
            return Err(Error::new(ErrorKind::Busy, "restore snapshot", snapshot).with_detail(detail));
        }
        let detail = format!("snapshot {snapshot} of {}", held.record.of.name);
        self.create_copy(to, id, held.record, detail).await
    }

    /// A new box that is a copy of another one.
    pub(crate) async fn duplicate(
        self: &Arc<Self>,
        user: &UserId,
        of: &BoxName,
        to: &BoxName,
        id: Option<BoxId>,
    ) -> Result<BoxRecord> {
        if self.records.get::<BoxRecord>(&box_key(user, to)).await?.is_some() {
            let detail = "a box of that name exists already, or was deleted and can still be had back";
            return Err(Error::new(ErrorKind::AlreadyExists, "duplicate box", to).with_detail(detail));
        }
        let (held, _guard) = self.take_snapshot(user, of, None).await?;
        let answer = self.create_copy(to, id, held.record.clone(), format!("box {of}")).await;
        self.undo_snapshot(held).await;
        answer
    }

    async fn create_copy(
        self: &Arc<Self>,
        to: &BoxName,
        id: Option<BoxId>,
        of: SnapshotRecord,
        detail: String,
    ) -> Result<BoxRecord> {
        let (done, answer) = oneshot::channel();
        let key = (of.of.owner.clone(), to.clone());
        self.tell(&key, Message::Create { wanted: Wanted { id, copy_of: Some(of), brought: None }, done });
        let created = self.heard("create box", answer).await?;
        self.log(EventRecord {
            owner: Some(created.owner.clone()),
            volume: Some(created.volume.volume().clone()),
            detail,
            ..self.event(EventKind::BoxCopied)
        });
        Ok(created)
    }

    /// Deletes a snapshot on its owner's word. Boxes that were made of it stay as they are.
    pub(crate) async fn delete_snapshot(self: &Arc<Self>, user: &UserId, name: &SnapshotName) -> Result<()> {
        const ACT: &str = "delete snapshot";
        loop {
            self.check_in_touch(ACT)?;
            let held = self.snapshot_called(user, name, ACT).await?;
            let up_to_us = held.record.status.worker().is_none_or(|node| *node == self.node || self.is_dead(node));
            let guard = self.busy.enter(held.record.id.as_str()).filter(|_| up_to_us);
            let Some(_guard) = guard else {
                let detail = format!("it is {}; try again in a while", held.record.status.word());
                return Err(Error::new(ErrorKind::Busy, ACT, name).with_detail(detail));
            };
            match self.remove_snapshot(&held).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                // Somebody else was quicker.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                answer => return answer,
            }
        }
    }

    async fn snapshot_called(
        &self,
        user: &UserId,
        name: &SnapshotName,
        operation: &'static str,
    ) -> Result<Held<SnapshotRecord>> {
        let found = self.records.get::<SnapshotRecord>(&snapshot_key(user, name)).await?;
        let absent = || Error::new(ErrorKind::NotFound, operation, name).with_detail("there is no such snapshot");
        found.ok_or_else(absent)
    }

    /// What could not be finished is found by the maintainer.
    pub(crate) async fn undo_snapshot(self: &Arc<Self>, held: Held<SnapshotRecord>) {
        match self.remove_snapshot(&held).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                // Others took this node for dead, and have removed what there was by then.
                self.drop_at_provider(&held.record.id).await;
            }
            Err(error) => {
                tracing::info!(snapshot = %held.record.id, error = %crate::Report(&error), "a snapshot was not removed; the next census tries again");
            }
        }
    }

    async fn drop_at_provider(&self, id: &SnapshotId) {
        if let Err(error) = self.volumes.delete_snapshot(id).await {
            tracing::info!(snapshot = %id, error = %crate::Report(&error), "a snapshot that nobody wants was left; the census finds it");
        }
    }

    /// From whatever it is to gone: the provider's first, then the record.
    pub(crate) async fn remove_snapshot(self: &Arc<Self>, held: &Held<SnapshotRecord>) -> Result<()> {
        let node = self.node.clone();
        let event = match &held.record.status {
            SnapshotStatus::Taking { .. } | SnapshotStatus::Ready => SnapshotEvent::Delete { node },
            SnapshotStatus::Deleting { .. } => SnapshotEvent::TakeOver { node },
        };
        let was_kept = held.record.status == SnapshotStatus::Ready;
        let held = self.snapshot_step(held, &event).await?;
        let (id, limit) = (&held.record.id, self.config.limits.volume_ready);
        let mut poll = Poll::new(limit);
        while !planted::is(Bug::SnapshotOnlyForgotten) {
            self.check_in_touch("delete snapshot")?;
            let call = self.volumes.delete_snapshot(id);
            let asked = match limited(poll.left(), "delete snapshot", id, call).await {
                Ok(()) => break,
                Err(error) if passes(&error) || error.kind() == ErrorKind::Busy => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("it is still there after {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "delete snapshot", id).with_detail(detail));
            }
        }
        self.records.delete(&key_of_snapshot(&held.record), &held.version).await?;
        if was_kept {
            self.log_snapshot(EventKind::SnapshotDeleted, &held.record);
        }
        Ok(())
    }

    async fn snapshot_step(&self, held: &Held<SnapshotRecord>, event: &SnapshotEvent) -> Result<Held<SnapshotRecord>> {
        let record = held.record.after(event).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, "change snapshot", &held.record.id).with_source(illegal)
        })?;
        self.records.update(&key_of_snapshot(&held.record), &held.version, record).await
    }

    fn log_snapshot(self: &Arc<Self>, kind: EventKind, record: &SnapshotRecord) {
        self.log(EventRecord {
            owner: Some(record.of.clone()),
            epoch: Some(record.epoch),
            detail: record.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..self.event(kind)
        });
    }
}
