//! Move a box to another region.
//!
//! ```text
//!              home           old region           new region
//!              Settled old    the box              —
//!  intent      Moving         the box              —
//!  hold        Moving         held, shut down      —
//!  copy        Moving         held, a snapshot     a snapshot, copied
//!  build       Moving         held                 held
//!  decide      Moved          held                 held            from here on the box is in the new region
//!  settle      Moved          held                 the box
//!  clear       Moved          —                    the box
//!  done        Settled new    —                    the box
//! ```
//! What is held is brought up by nobody, so there is never more than one copy that could run. If the process dies before the
//! decision another front gives the move up: it writes the home's record first, so that the decision comes too late, removes what
//! is held in the new region, and takes the hold off in the old one. After the decision it goes on. The two snapshots are on
//! record in their regions as being taken by this front's nodes: when those are dead, each region removes its own.
//!
//! What was asked for before the move was given up and comes about later is a held box in the new region, by an attempt that no
//! home knows: it is nothing, and whoever comes across it removes it. The hold in the old region cannot come so late: who
//! gives up writes the box's record too.

use super::{Front, Home, Site};
use crate::actor::{Message, Wanted};
use crate::busy::BusyGuard;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::{BoxName, BoxRef, Region, UserId};
use crate::planted::{self, Bug};
use crate::pool::ConnectRequest;
use crate::provider::SnapshotCopier;
use crate::record::{
    BoxRecord, EventKind, EventRecord, HoldPart, HomeEvent, HomeRecord, HomeStatus, Placement, SnapshotRecord,
};
use crate::records::{Held, box_key, home_key};
use crate::saga::{Guard, Travel};
use std::fmt;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

const WHAT: &str = "move box";

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveProgress {
    /// It has just begun, or waits for something else that is under way with the box.
    Looking,
    /// The box is being shut down.
    ShuttingDown,
    /// Its disk is being put into a snapshot.
    Snapshot,
    /// The snapshot is being copied into the other region.
    Copying {
        /// How far that is, in hundredths; `None` where the provider does not tell.
        percent: Option<u8>,
    },
    /// A disk is being made of it there.
    Building,
    /// The box lives there; what it left is being removed.
    Clearing,
}

impl fmt::Display for MoveProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("looking for the box"),
            Self::ShuttingDown => f.write_str("shutting the box down"),
            Self::Snapshot => f.write_str("taking a snapshot of its disk"),
            Self::Copying { percent: Some(percent) } => write!(f, "copying its disk: {percent} %"),
            Self::Copying { percent: None } => f.write_str("copying its disk"),
            Self::Building => f.write_str("making its disk there"),
            Self::Clearing => f.write_str("removing what it left"),
        }
    }
}

/// A channel for [`MoveProgress`]. The receiver always sees the latest; a slow reader delays nobody.
#[must_use]
// One receiver and whoever clones it: the front itself waits on none.
#[allow(clippy::disallowed_methods)]
pub fn move_progress() -> (watch::Sender<MoveProgress>, watch::Receiver<MoveProgress>) {
    watch::channel(MoveProgress::Looking)
}

type Telling = watch::Sender<MoveProgress>;

impl Site {
    /// Has the box's own task do a step of its way. `None`: there is no such box.
    pub(super) async fn travel(&self, owner: &BoxRef, step: Travel) -> Result<Option<BoxRecord>> {
        let (done, answer) = oneshot::channel();
        let key = (owner.owner.clone(), owner.name.clone());
        self.pool.shared.tell(&key, Message::Travel { step, deadline: self.deadline(), done });
        self.pool.answered(WHAT, &owner.name, answer).await
    }

    fn copier(&self, region: &Region) -> Result<&Arc<dyn SnapshotCopier>> {
        self.copier.as_ref().ok_or_else(|| {
            let detail = "it can give no snapshots to other regions and take none from them";
            Error::new(ErrorKind::Invalid, WHAT, region).with_detail(detail)
        })
    }
}

impl Front {
    pub(super) async fn move_box(
        self: &Arc<Self>,
        user: &UserId,
        name: &BoxName,
        to: &Region,
        progress: &Telling,
    ) -> Result<Home> {
        let (held, _place) = self.settled(WHAT, user, name).await?;
        if held.record.region == *to {
            return Ok(Home::of(held.record));
        }
        let (source, target) = (self.site(&held.record.region)?, self.site(to)?);
        source.copier(&held.record.region)?;
        target.copier(to)?;
        target.pool.shared.check_in_touch(WHAT)?;
        let attempt = self.random(source).suffix();
        let intent = HomeEvent::Move { to: to.clone(), attempt, node: source.pool.shared.node.clone() };
        let held = self.step(&held, &intent).await?;
        let moved = match self.carry(&held, source, target, progress).await {
            Ok(moved) => moved,
            Err(error) => return self.after_failure(held, error).await,
        };
        progress.send_replace(MoveProgress::Clearing);
        // It has moved, whatever becomes of the rest: who comes across it goes on.
        match self.clear_old_home(&moved).await {
            Ok(held) => Ok(Home::of(held.record)),
            Err(error) => {
                tracing::warn!(owner = %moved.record.owner, error = %crate::Report(&error), "a box has moved, and what it left is not removed yet");
                Ok(Home::of(moved.record))
            }
        }
    }

    /// The move is given up, unless its decision has come about after all.
    async fn after_failure(&self, held: Held<HomeRecord>, error: Error) -> Result<Home> {
        let (owner, attempt) = (held.record.owner.clone(), held.record.status.attempt().map(str::to_owned));
        match self.give_up_as_it_is(&owner).await {
            Ok(Some(there)) if there.record.status.attempt() == attempt.as_deref() => Ok(Home::of(there.record)),
            Ok(_) => Err(error.with_effect(Effect::None)),
            Err(left) => {
                tracing::warn!(%owner, error = %crate::Report(&left), "a move that failed is not given up yet; who comes across it goes on");
                Err(error.with_effect(Effect::Unknown))
            }
        }
    }

    /// Gives the move up from whatever its home's record says now. Answers with the record when it was decided.
    async fn give_up_as_it_is(&self, owner: &BoxRef) -> Result<Option<Held<HomeRecord>>> {
        let Some(held) = self.home_of(&owner.owner, &owner.name).await? else { return Ok(None) };
        let node = self.site(&held.record.region)?.pool.shared.node.clone();
        match &held.record.status {
            HomeStatus::Moving { node: by, .. } if *by == node => {
                let held = self.step(&held, &HomeEvent::TakeOver { node }).await?;
                self.give_move_up(held).await.map(|()| None)
            }
            HomeStatus::Moved { .. } => Ok(Some(held)),
            _ => Ok(None),
        }
    }

    /// Up to the decision.
    async fn carry(
        self: &Arc<Self>,
        held: &Held<HomeRecord>,
        source: &Site,
        target: &Site,
        progress: &Telling,
    ) -> Result<Held<HomeRecord>> {
        let owner = &held.record.owner;
        progress.send_replace(MoveProgress::ShuttingDown);
        self.let_guest_write(source, owner).await?;
        let HomeStatus::Moving { attempt, .. } = held.record.status.clone() else {
            return Err(Error::new(ErrorKind::Conflict, WHAT, owner));
        };
        let id = owner.id.clone();
        let leave = Travel::Leave { id, attempt: attempt.clone(), unless: self.still_ours(&held.record) };
        let gone = || Error::new(ErrorKind::NotFound, WHAT, &owner.name).with_detail("there is no such box");
        let leaving = source.travel(owner, leave).await?.ok_or_else(gone)?;
        if leaving.placement != Placement::Detached {
            let detail = format!("it is {} and did not come to rest", leaving.placement.word());
            return Err(Error::new(ErrorKind::Busy, WHAT, &owner.name).with_detail(detail));
        }
        progress.send_replace(MoveProgress::Snapshot);
        let (taken, _at_work) = source.pool.shared.intend_snapshot(&leaving, None).await?;
        let decided = match source.pool.shared.copy_held(&leaving, &taken.record).await {
            Ok(()) => self.carry_copy(held, (source, target), &leaving, &taken.record, progress).await,
            Err(error) => Err(error),
        };
        source.pool.shared.undo_snapshot(taken).await;
        decided
    }

    /// From the snapshot in the old region to the decision.
    async fn carry_copy(
        &self,
        held: &Held<HomeRecord>,
        (source, target): (&Site, &Site),
        leaving: &BoxRecord,
        taken: &SnapshotRecord,
        progress: &Telling,
    ) -> Result<Held<HomeRecord>> {
        let (copied, _at_work): (Held<SnapshotRecord>, BusyGuard) =
            target.pool.shared.intend_snapshot(leaving, None).await?;
        progress.send_replace(MoveProgress::Copying { percent: None });
        let copied_over = self.copy_over(held, (source, target), taken, &copied.record, progress).await;
        progress.send_replace(MoveProgress::Building);
        let decided = match copied_over {
            Ok(()) => self.build_and_decide(held, source, target, leaving, &copied.record).await,
            Err(error) => Err(error),
        };
        target.pool.shared.undo_snapshot(copied).await;
        decided
    }

    async fn copy_over(
        &self,
        held: &Held<HomeRecord>,
        (source, target): (&Site, &Site),
        taken: &SnapshotRecord,
        copied: &SnapshotRecord,
        progress: &Telling,
    ) -> Result<()> {
        let HomeStatus::Moving { to, .. } = &held.record.status else { return Ok(()) };
        let from = source.copier(&held.record.region)?.locate_snapshot(&taken.id).await?;
        let copier = target.copier(to)?;
        let look = || async {
            source.pool.shared.check_in_touch(WHAT)?;
            target.pool.shared.check_in_touch(WHAT)?;
            let copy = copier.copy_snapshot(&from, &copied.id).await?;
            progress.send_replace(MoveProgress::Copying { percent: copy.percent });
            Ok(copy.ready)
        };
        target.pool.shared.snapshot_ready(self.copy_limit, &copied.id, look).await
    }

    async fn build_and_decide(
        &self,
        held: &Held<HomeRecord>,
        source: &Site,
        target: &Site,
        leaving: &BoxRecord,
        copied: &SnapshotRecord,
    ) -> Result<Held<HomeRecord>> {
        let HomeStatus::Moving { attempt, node, .. } = held.record.status.clone() else {
            return Err(Error::new(ErrorKind::Conflict, WHAT, &held.record.owner));
        };
        match self.build(target, leaving, copied, &attempt).await {
            // What another attempt has left there is nothing; the home's record knows of this one alone.
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists && self.remove_void(target, leaving, &attempt).await? =>
            {
                self.build(target, leaving, copied, &attempt).await?;
            }
            answer => drop(answer?),
        }
        source.pool.shared.check_in_touch(WHAT)?;
        target.pool.shared.check_in_touch(WHAT)?;
        if planted::is(Bug::OldHomeGoesFirst) {
            source.travel(&leaving.owner, Travel::Discard { attempt: attempt.clone() }).await?;
        }
        let next = target.pool.shared.node.clone();
        let decided = self.step(held, &HomeEvent::Arrive { attempt, node, next }).await?;
        self.seen().remove(&(held.record.owner.owner.clone(), held.record.owner.name.clone()));
        metrics::counter!("boxpool_boxes_moved_total").increment(1);
        Ok(decided)
    }

    async fn build(
        &self,
        target: &Site,
        leaving: &BoxRecord,
        copied: &SnapshotRecord,
        attempt: &str,
    ) -> Result<BoxRecord> {
        let (done, answer) = oneshot::channel();
        let BoxRef { owner, name, id } = leaving.owner.clone();
        let brought = Some((Box::new(leaving.clone()), attempt.to_owned()));
        let wanted = Wanted { id: Some(id), copy_of: Some(copied.clone()), brought };
        target.pool.shared.tell(&(owner, name.clone()), Message::Create { wanted, done });
        target.pool.answered(WHAT, &name, answer).await
    }

    /// Removes what an earlier attempt to move the box to that region has left there. Tells whether there was such a thing.
    async fn remove_void(&self, target: &Site, leaving: &BoxRecord, attempt: &str) -> Result<bool> {
        let key = box_key(&leaving.owner.owner, &leaving.owner.name);
        let found = target.pool.shared.records.get::<BoxRecord>(&key).await?;
        let hold = found.and_then(|found| found.record.hold);
        let Some(hold) = hold.filter(|hold| hold.part != HoldPart::Leaving && hold.attempt != attempt) else {
            return Ok(false);
        };
        target.travel(&leaving.owner, Travel::Discard { attempt: hold.attempt }).await?;
        Ok(true)
    }

    /// Brings a box up whose memory is saved, so that its guest, when it is shut down, writes to its disk what it has not yet.
    async fn let_guest_write(&self, source: &Site, owner: &BoxRef) -> Result<()> {
        let Some(record) = source.has(owner).await? else { return Ok(()) };
        let rests = matches!(record.placement, Placement::Detached | Placement::Parked { .. });
        let has_memory = record.brought_up.is_some() && !record.forget_memory;
        if !rests || !has_memory || record.hold.is_some() || record.deleted_until.is_some() {
            return Ok(());
        }
        let limit = source.pool.shared.config.connect_deadline;
        let request = ConnectRequest::new(owner.owner.clone(), owner.name.clone());
        source.pool.connect(request.for_only(&owner.id, limit)).await.map(drop)
    }

    /// That the home's record still says that this front is at it.
    pub(super) fn still_ours(self: &Arc<Self>, record: &HomeRecord) -> Guard {
        let (front, record) = (Arc::clone(self), record.clone());
        Guard::new(move || {
            let (front, record) = (Arc::clone(&front), record.clone());
            Box::pin(async move {
                let BoxRef { owner, name, .. } = &record.owner;
                let now = front.records.get::<HomeRecord>(&home_key(owner, name)).await?;
                if now.is_some_and(|now| now.record.owner == record.owner && now.record.status == record.status) {
                    return Ok(());
                }
                let detail = "this front was taken for dead meanwhile, and another goes on; try again";
                Err(Error::new(ErrorKind::Unavailable, WHAT, name).with_detail(detail))
            })
        })
    }

    /// `Moving`, by us since that record: the box stays where it is.
    pub(super) async fn give_move_up(&self, held: Held<HomeRecord>) -> Result<()> {
        let HomeStatus::Moving { to, attempt, node } = held.record.status.clone() else { return Ok(()) };
        let (source, target) = (self.site(&held.record.region)?, self.site(&to)?);
        let owner = &held.record.owner;
        target.travel(owner, Travel::Discard { attempt: attempt.clone() }).await?;
        source.travel(owner, Travel::Stay { id: owner.id.clone(), attempt }).await?;
        self.step(&held, &HomeEvent::GivenUp { node }).await.map(drop)
    }

    /// The box lives where its home says; nothing holds it there any more.
    pub(super) async fn settle_there(&self, record: &HomeRecord, attempt: &str) -> Result<Option<BoxRecord>> {
        let step = Travel::Settle { attempt: attempt.to_owned() };
        self.site(&record.region)?.travel(&record.owner, step).await
    }

    /// `Moved`: what is left in the old region goes.
    pub(super) async fn clear_old_home(&self, held: &Held<HomeRecord>) -> Result<Held<HomeRecord>> {
        let HomeStatus::Moved { from, attempt, .. } = &held.record.status else { return Ok(held.clone()) };
        if let Some(there) = self.settle_there(&held.record, attempt).await? {
            let shared = &self.site(&held.record.region)?.pool.shared;
            shared.log(EventRecord {
                owner: Some(there.owner.clone()),
                volume: Some(there.volume.volume().clone()),
                epoch: Some(there.epoch),
                detail: format!("from {from}"),
                ..shared.event(EventKind::BoxMoved)
            });
        }
        if !planted::is(Bug::OldHomeStays) {
            let step = Travel::Discard { attempt: attempt.clone() };
            self.site(from)?.travel(&held.record.owner, step).await?;
        }
        self.step(held, &HomeEvent::Cleared { attempt: attempt.clone() }).await
    }
}
