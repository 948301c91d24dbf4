//! Create a box: a record under (owner, name), which makes the name unique, then a volume bound to it for good.

use crate::actor::{Actor, HeldBox, Wanted};
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::{BoxId, BoxRef, SnapshotId, VolumeId};
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::provider::{VolumeSource, VolumeSpec, VolumeState};
use crate::record::{
    BoxRecord, Envelope, EventKind, EventRecord, Placement, VolumeBinding, VolumeEvent, VolumeRecord, VolumeStatus,
};
use crate::records::{Held, box_key, volume_key};
use crate::shared::{Shared, limited};
use std::sync::Arc;
use tokio::time::Instant;

impl Actor {
    /// A new box, with a volume of the pool's, or with a copy of a snapshot.
    pub(crate) async fn create(&mut self, wanted: Wanted) -> Result<BoxRecord> {
        self.shared.check_in_touch("create box")?;
        let (user, name) = self.key.clone();
        let Wanted { id, copy_of, brought } = wanted;
        let id = match id {
            Some(id) => id,
            None => self.shared.new_box_id()?,
        };
        let owner = BoxRef { owner: user, name, id };
        let candidate = if copy_of.is_some() { None } else { self.shared.take_volume() };
        let (volume, fresh) = match &candidate {
            Some(held) => (held.record.id.clone(), None),
            None => {
                let fresh = self.shared.new_volume_id()?;
                (fresh.clone(), Some(fresh))
            }
        };
        let mut record = match &brought {
            Some((was, attempt)) => was.brought(attempt, volume),
            None => BoxRecord::new(owner, volume, self.shared.now()),
        };
        if let Some(snapshot) = &copy_of {
            record.copied_from = Some(snapshot.id.clone());
            record.grown_to = snapshot.grown_to;
            // A volume may remember the epochs of the box that was copied, and its memory: that is never woken twice.
            record.epoch = snapshot.epoch;
            record.forget_memory = !planted::is(Bug::CopyWakesAsTwin);
        }
        let key = box_key(&self.key.0, &self.key.1);
        let held = match self.shared.records.insert_once(&key, record).await {
            Ok(held) => held,
            Err(error) => {
                candidate.into_iter().for_each(|volume| self.shared.put_volume_back(volume));
                return Err(match error.kind() {
                    ErrorKind::AlreadyExists => Error::new(ErrorKind::AlreadyExists, "create box", &self.key.1)
                        .with_detail("a box of that name exists already, or was deleted and can still be had back"),
                    ErrorKind::UnknownOutcome => {
                        let why = format!("{}; the box may come to be; list the boxes, then try again", error.detail());
                        error.with_detail(why)
                    }
                    _ => error,
                });
            }
        };
        let held = Arc::new(held);
        self.held = Some(Arc::clone(&held));
        match self.bind(held, fresh).await {
            Ok(bound) => {
                metrics::counter!("boxpool_boxes_created_total").increment(1);
                self.shared.log(EventRecord {
                    owner: Some(bound.record.owner.clone()),
                    volume: Some(bound.record.volume.volume().clone()),
                    ..self.shared.event(EventKind::BoxCreated)
                });
                Ok(bound.record.clone())
            }
            Err(error) => {
                self.undo_create().await;
                Err(error)
            }
        }
    }

    /// A box whose volume could not be had is not there at all. What cannot be undone now stays as an unbound box, which
    /// the next connect binds or the owner deletes.
    async fn undo_create(&mut self) {
        self.held = None;
        let undone = match self.load().await {
            Ok(held) if matches!(held.record.volume, VolumeBinding::Wanted(_)) => {
                let deadline = Instant::now() + self.shared.config.limits.volume_ready;
                self.delete(deadline).await
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            tracing::warn!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "a half-created box was left; it can be connected to or deleted");
        }
    }

    /// Makes sure that the box has its volume. `fresh` is a volume's name that was made up for this very box just now: only
    /// under such a name is a volume made. A name without a record may be that of a deleted volume, and what was once asked of
    /// that one (a late delete, say) would befall the new one.
    pub(crate) async fn bind(&mut self, mut held: HeldBox, mut fresh: Option<VolumeId>) -> Result<HeldBox> {
        let deadline = Instant::now() + self.shared.config.limits.volume_ready;
        // Whoever made the name up needs one call to the store to write the volume's record.
        let mut give_up_on_name = Instant::now() + self.shared.config.limits.store_call;
        while let VolumeBinding::Wanted(volume) = held.record.volume.clone() {
            if matches!(held.record.placement, Placement::Deleting { .. }) {
                self.let_go_of_volume(&held.record).await?;
                let detail = "the box is being deleted";
                return Err(Error::new(ErrorKind::NotFound, "create box", &self.key.1).with_detail(detail));
            }
            if Instant::now() >= deadline {
                let detail = "its disk was not ready in time; try again";
                return Err(Error::new(ErrorKind::TimedOut, "create box", &self.key.1).with_detail(detail));
            }
            let (next, wants_another) = match self.try_bind(&held, &volume, fresh.as_ref()).await {
                Ok(Bound::Written(next)) => (next, false),
                Ok(Bound::Look) => (self.look_again(&held).await?, false),
                Ok(Bound::Wait) => {
                    tokio::time::sleep(crate::actor::WATCH_OTHER_EVERY).await;
                    let next = self.look_again(&held).await?;
                    let lost = fresh.as_ref() != Some(&volume) && Instant::now() >= give_up_on_name;
                    let same = next.version == held.version;
                    (next, lost && same)
                }
                Ok(Bound::Refused) => (held, true),
                Ok(Bound::SourceGone) => {
                    Box::pin(self.undo_create()).await;
                    let detail = "the snapshot that it was to be a copy of was deleted meanwhile";
                    return Err(Error::new(ErrorKind::NotFound, "create box", &self.key.1).with_detail(detail));
                }
                Err(error) if error.kind() == ErrorKind::Conflict => (self.look_again(&held).await?, false),
                Err(error) => return Err(error),
            };
            held = next;
            if wants_another {
                held = match self.want_another(&held, &mut fresh).await {
                    Err(error) if error.kind() == ErrorKind::Conflict => self.look_again(&held).await?,
                    answer => answer?,
                };
                give_up_on_name = Instant::now() + self.shared.config.limits.store_call;
            }
        }
        Ok(held)
    }

    /// The record as the store has it now; `NotFound` when it is another incarnation's.
    async fn look_again(&mut self, held: &Held<BoxRecord>) -> Result<HeldBox> {
        self.held = None;
        let next = self.load().await?;
        if next.record.owner == held.record.owner {
            return Ok(next);
        }
        let detail = "it was deleted meanwhile";
        Err(Error::new(ErrorKind::NotFound, "create box", &self.key.1).with_detail(detail))
    }

    /// One step towards the volume that the box wants.
    async fn try_bind(&mut self, held: &Held<BoxRecord>, volume: &VolumeId, fresh: Option<&VolumeId>) -> Result<Bound> {
        let Some(found) = self.shared.records.get::<VolumeRecord>(&volume_key(volume)).await? else {
            if fresh != Some(volume) && !planted::is(Bug::VolumeNameUsedAgain) {
                return Ok(Bound::Wait);
            }
            let source = held.record.copied_from.clone();
            if source.is_none() {
                self.shared.volume_source()?;
            }
            return match self.shared.intend_volume(volume, Some(held.record.owner.clone()), source).await {
                Ok(_) => Ok(Bound::Look),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Bound::Look),
                // It may come to be later on; then it is discarded, since no box wants it.
                Err(error) if error.effect() == Effect::Unknown => Ok(Bound::Refused),
                Err(error) => Err(error),
            };
        };
        let ours = |owner: &BoxRef| *owner == held.record.owner;
        match &found.record.status {
            // Bound to us by an earlier attempt. The record is written again: while no box named this volume, somebody may have
            // set out to delete it.
            VolumeStatus::Bound { owner } if ours(owner) => self.take(held, &found).await,
            VolumeStatus::Free if held.record.copied_from.is_none() => self.take(held, &found).await,
            VolumeStatus::Creating { node, wanted_by: Some(owner) } if ours(owner) => {
                if *node != self.shared.node && !self.shared.is_dead(node) {
                    return Ok(Bound::Wait);
                }
                let Some(_guard) = self.shared.busy.enter(volume.as_str()) else { return Ok(Bound::Wait) };
                match self.shared.await_volume(&found.record).await {
                    Err(error) if error.kind() == ErrorKind::NotFound && found.record.source.is_some() => {
                        return Ok(Bound::SourceGone);
                    }
                    answer => answer?,
                }
                self.take(held, &found).await
            }
            // Somebody else's.
            _ => Ok(Bound::Refused),
        }
    }

    /// Binds the volume to the box, first in the volume's record, then in the box's.
    async fn take(&mut self, held: &Held<BoxRecord>, found: &Held<VolumeRecord>) -> Result<Bound> {
        let again = matches!(found.record.status, VolumeStatus::Bound { .. });
        if !(again && planted::is(Bug::TakesBoundUnwritten)) {
            self.shared.bind_volume(found, &held.record.owner).await?;
        }
        let mut record = held.record.clone();
        record.volume = VolumeBinding::Bound(found.record.id.clone());
        record.refused.clear();
        Ok(Bound::Written(self.write(held, record).await?))
    }

    async fn want_another(&mut self, held: &Held<BoxRecord>, fresh: &mut Option<VolumeId>) -> Result<HeldBox> {
        let mut record = held.record.clone();
        record.refused.push(record.volume.volume().clone());
        let candidate = match record.copied_from {
            None => self.shared.take_volume().map(|candidate| candidate.record.id),
            Some(_) => None,
        };
        let next = match candidate.filter(|candidate| !record.refused.contains(candidate)) {
            Some(candidate) => candidate,
            None => fresh.insert(self.shared.new_volume_id()?).clone(),
        };
        record.volume = VolumeBinding::Wanted(next);
        self.write(held, record).await
    }
}

/// What one step towards a volume came to.
enum Bound {
    /// The box's record says `Bound` now.
    Written(HeldBox),
    /// Something moved: look at the records again.
    Look,
    /// Another node is at it.
    Wait,
    /// It will never be this box's.
    Refused,
    /// What it was to be a copy of is not there any more. Nothing of the box is.
    SourceGone,
}

impl Shared {
    pub(crate) fn new_box_id(&self) -> Result<BoxId> {
        named("create box", BoxId::new(format!("b-{}", self.random.suffix())))
    }

    pub(crate) fn new_volume_id(&self) -> Result<VolumeId> {
        named("create volume", VolumeId::new(format!("v-{}", self.random.suffix())))
    }

    /// The intent to make a volume.
    pub(crate) async fn intend_volume(
        &self,
        id: &VolumeId,
        wanted_by: Option<BoxRef>,
        source: Option<SnapshotId>,
    ) -> Result<Held<VolumeRecord>> {
        let record = VolumeRecord {
            id: id.clone(),
            status: VolumeStatus::Creating { node: self.node.clone(), wanted_by },
            generation: self.config.volume_generation.clone(),
            source,
            created_at: self.now(),
            envelope: Envelope::new(),
        };
        self.records.insert_once(&volume_key(id), record).await
    }

    /// Makes the volume, or finds it, and waits until it is ready.
    pub(crate) async fn await_volume(&self, record: &VolumeRecord) -> Result<()> {
        let limit = self.config.limits.volume_ready;
        let mut poll = Poll::new(limit);
        let source = match &record.source {
            Some(snapshot) => VolumeSource::Snapshot(snapshot.clone()),
            None => self.volume_source()?,
        };
        let spec = VolumeSpec::new(record.id.clone(), source);
        let mut seen = false;
        loop {
            self.check_in_touch("create volume")?;
            // Asked for until it was seen, and only looked at from then on: what another node deletes is not made again.
            let look = async {
                if seen && !planted::is(Bug::MadeAgain) {
                    self.volumes.get(&record.id).await
                } else {
                    self.volumes.ensure(&spec).await.map(Some)
                }
            };
            let asked = match limited(poll.left(), "create volume", &record.id, look).await {
                Ok(view) => match view.map_or(VolumeState::Deleting, |view| view.state) {
                    VolumeState::Ready => return Ok(()),
                    VolumeState::Failed(why) => {
                        return Err(Error::new(ErrorKind::Permanent, "create volume", &record.id).with_detail(why));
                    }
                    VolumeState::Deleting => {
                        return Err(Error::new(ErrorKind::Conflict, "create volume", &record.id)
                            .with_detail("it was deleted while it was being made"));
                    }
                    VolumeState::Creating | VolumeState::Other(_) => {
                        seen = true;
                        None
                    }
                },
                Err(error) if passes(&error) => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("not ready within {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "create volume", &record.id).with_detail(detail));
            }
        }
    }

    /// `Free`, or `Creating` for this box, → `Bound`.
    pub(crate) async fn bind_volume(self: &Arc<Self>, found: &Held<VolumeRecord>, owner: &BoxRef) -> Result<()> {
        let record = found
            .record
            .after(&VolumeEvent::Bind { owner: owner.clone() })
            .map_err(|illegal| Error::new(ErrorKind::Conflict, "bind volume", &found.record.id).with_source(illegal))?;
        self.records.update(&volume_key(&found.record.id), &found.version, record).await?;
        self.took_volume();
        Ok(())
    }
}

/// Ids that we make ourselves fit the rules; an error here is our own mistake, told as one.
pub(crate) fn named<T>(operation: &'static str, id: Result<T, crate::InvalidId>) -> Result<T> {
    id.map_err(|error| Error::new(ErrorKind::Invalid, operation, "new id").with_source(error))
}
