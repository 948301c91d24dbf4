//! What happens to a box in one region while it is [moved](crate::Regions::move_box) to another: in the region that it leaves it
//! is shut down, taken off its instance and held, so that nobody brings it up; in the one that it comes to it is made held. Which
//! of the two becomes the box is not decided here but by the record of its home. Every step can run twice.
//!
//! Until a hold is written nothing stops a connect; from then on there is no box in that region for anybody, whoever dies.

use super::change::is_overtaken;
use crate::actor::{Actor, WATCH_OTHER_EVERY};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BoxId, SnapshotId};
use crate::poll::{Poll, passes};
use crate::record::{BoxRecord, Hold, HoldPart, Placement, PlacementEvent, SnapshotRecord, VolumeBinding};
use crate::shared::{Shared, limited};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;

const WHAT: &str = "move box";

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What must still be so after a record was read and before it is written. Whoever takes over first says so where the check looks,
/// and then writes the record: so either the check fails, or the write does.
#[derive(Clone)]
pub(crate) struct Guard(Option<Check>);

impl Guard {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(check: impl Fn() -> BoxFuture<'static, Result<()>> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(check)))
    }

    pub(crate) async fn check(&self) -> Result<()> {
        match &self.0 {
            Some(check) => check().await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.0.is_some()).finish()
    }
}

/// A step of a box's way from one region to another, as one of the two sees it.
#[derive(Debug)]
pub(crate) enum Travel {
    /// Shut it down, take it off its instance and hold it. Answers with the box as it then is.
    Leave { id: BoxId, attempt: String, unless: Guard },
    /// It stays: the hold of that attempt goes. The record is written in any case, so that what was asked before comes too late.
    Stay { id: BoxId, attempt: String },
    /// It is here now: the hold of that attempt goes.
    Settle { attempt: String },
    /// What was held here by that attempt goes, its volume included.
    Discard { attempt: String },
}

impl Actor {
    /// Answers with the box, or `None` when there is none of that name, or another.
    pub(crate) async fn travel(&mut self, step: Travel, deadline: Instant) -> Result<Option<BoxRecord>> {
        let answer = match &step {
            Travel::Leave { id, attempt, unless } => self.leave_region(id, attempt, unless, deadline).await.map(Some),
            Travel::Stay { id, attempt } => self.stay_in_region(id, attempt, deadline).await,
            Travel::Settle { attempt } => self.settle_in_region(attempt, deadline).await,
            Travel::Discard { attempt } => self.discard_held(attempt, deadline).await.map(|()| None),
        };
        match answer {
            Err(error) if error.kind() == ErrorKind::NotFound && !matches!(step, Travel::Leave { .. }) => Ok(None),
            answer => answer,
        }
    }

    async fn leave_region(
        &mut self,
        id: &BoxId,
        attempt: &str,
        unless: &Guard,
        deadline: Instant,
    ) -> Result<BoxRecord> {
        loop {
            match self.try_leave_region(id, attempt, unless, deadline).await {
                Err(error) if is_overtaken(&error) && Instant::now() < deadline => {
                    self.held = None;
                }
                answer => return answer,
            }
        }
    }

    async fn try_leave_region(
        &mut self,
        id: &BoxId,
        attempt: &str,
        unless: &Guard,
        deadline: Instant,
    ) -> Result<BoxRecord> {
        let mut found = self.at_rest_or_deleted(WHAT, deadline).await?;
        if found.record.owner.id != *id {
            let detail = "there is another box of that name now";
            return Err(Error::new(ErrorKind::NotFound, WHAT, &self.key.1).with_detail(detail));
        }
        let hold = Hold { attempt: attempt.to_owned(), part: HoldPart::Leaving };
        // By us, before another node took us for dead and took it off its instance in our place.
        if found.record.hold.as_ref() == Some(&hold) {
            return Ok(found.record.clone());
        }
        self.shared.check_there(&found.record, WHAT)?;
        if matches!(found.record.volume, VolumeBinding::Wanted(_)) {
            found = self.bind(found, None).await?;
        }
        let node = self.shared.node.clone();
        let mut record = match found.record.placement {
            Placement::Detached => found.record.clone(),
            _ => self.after(&found, &PlacementEvent::Stop { node })?,
        };
        record.forget_memory = true;
        record.hold = Some(hold);
        record.holders.clear();
        unless.check().await?;
        let held = self.write(&found, record).await?;
        self.end_sessions();
        self.shared.state().parked.remove(&held.record.owner);
        if matches!(found.record.placement, Placement::Running { .. }) {
            self.log_stay(&held);
        }
        self.vacate(held, false, false).await?;
        self.load().await.map(|held| held.record.clone())
    }

    async fn stay_in_region(&mut self, id: &BoxId, attempt: &str, deadline: Instant) -> Result<Option<BoxRecord>> {
        let (held, _) = self
            .change(WHAT, deadline, |found| {
                let mut record = found.clone();
                record.hold.take_if(|hold| hold.attempt == attempt && hold.part == HoldPart::Leaving);
                Ok(Some(record))
            })
            .await?;
        Ok(Some(held.record.clone()).filter(|record| record.owner.id == *id))
    }

    async fn settle_in_region(&mut self, attempt: &str, deadline: Instant) -> Result<Option<BoxRecord>> {
        let (held, _) = self
            .change(WHAT, deadline, |found| {
                let comes = Hold { attempt: attempt.to_owned(), part: HoldPart::Coming };
                Ok((found.hold.as_ref() == Some(&comes)).then(|| BoxRecord { hold: None, ..found.clone() }))
            })
            .await?;
        Ok(Some(held.record.clone()))
    }

    /// Nobody takes a hold off a record that is to be discarded: what is decided of an attempt stays decided.
    async fn discard_held(&mut self, attempt: &str, deadline: Instant) -> Result<()> {
        loop {
            self.held = None;
            let held = self.load().await?;
            if held.record.hold.as_ref().is_none_or(|hold| hold.attempt != attempt) {
                return Ok(());
            }
            // A node that lives may still be making its volume.
            match self.delete(deadline).await {
                Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                    tokio::time::sleep(WATCH_OTHER_EVERY).await;
                }
                answer => return answer,
            }
        }
    }
}

impl Shared {
    /// Has the volume of a held box copied into the snapshot of that record, and waits until it is whole. Nothing runs on it
    /// meanwhile, and nobody can bring it up.
    pub(crate) async fn copy_held(&self, of: &BoxRecord, record: &SnapshotRecord) -> Result<()> {
        let volume = of.volume.volume();
        self.snapshot_ready(self.config.limits.volume_ready, &record.id, || async {
            self.check_in_touch("snapshot volume")?;
            Ok(self.volumes.snapshot(volume, &record.id).await?.ready)
        })
        .await
    }

    /// Asks again until a snapshot is whole.
    pub(crate) async fn snapshot_ready<F: Future<Output = Result<bool>>>(
        &self,
        limit: std::time::Duration,
        id: &SnapshotId,
        mut look: impl FnMut() -> F,
    ) -> Result<()> {
        let mut poll = Poll::new(limit);
        loop {
            let call = self.config.limits.provider_call.min(poll.left());
            let asked = match limited(call, "copy snapshot", id, look()).await {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                // A detach that the provider has not ended for itself.
                Err(error) if error.kind() == ErrorKind::Busy || passes(&error) => {
                    // What passes by itself passes soon; a node that is out of touch does not act.
                    self.check_in_touch("copy snapshot")?;
                    error.retry_after()
                }
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("not ready within {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "copy snapshot", id).with_detail(detail));
            }
        }
    }
}
