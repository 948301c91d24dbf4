//! Delete a box so that its owner can have it back, have it back, and the end of that time.
//!
//! One write says that the box is deleted, and until when it can be had back; of a box that is on an instance it is the
//! write that begins to take it off, with its memory saved. From then on it is there for nobody, whoever dies. Having it back is
//! one write too. What deletes it for good is the usual [delete](super::delete), begun by the maintainer: its first write
//! and the one that has it back are of the same record, so only one of them comes about.

use super::change::is_overtaken;
use crate::actor::Actor;
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{self, Bug};
use crate::record::{BoxRecord, EventKind, Mode, Placement, PlacementEvent, VolumeBinding};
use crate::shared::Shared;
use tokio::time::Instant;

impl Actor {
    pub(crate) async fn retain(&mut self, deadline: Instant) -> Result<()> {
        loop {
            match self.try_retain(deadline).await {
                Err(error) if is_overtaken(&error) && Instant::now() < deadline => {
                    self.held = None;
                }
                answer => return answer,
            }
        }
    }

    async fn try_retain(&mut self, deadline: Instant) -> Result<()> {
        let found = self.at_rest("delete box", deadline).await?;
        if matches!(found.record.volume, VolumeBinding::Wanted(_)) {
            // There is nothing in it.
            return self.delete(deadline).await;
        }
        let node = self.shared.node.clone();
        let mut record = match found.record.placement {
            Placement::Detached => found.record.clone(),
            _ => self.after(&found, &PlacementEvent::Stop { node })?,
        };
        record.deleted_until = Some(self.shared.now().plus(self.shared.config.retention));
        record.mode = Mode::SuspendOnLeave;
        record.holders.clear();
        let held = self.write(&found, record).await?;
        self.end_sessions();
        self.shared.state().parked.remove(&held.record.owner);
        self.log_of(&held, EventKind::BoxRetained);
        let ran = matches!(found.record.placement, Placement::Running { .. });
        if ran {
            self.log_stay(&held);
        }
        match self.vacate(held, ran, false).await {
            // Another node took this one for dead, and goes on with it. The box is deleted for its owner all the same.
            Err(error) if is_overtaken(&error) => Ok(()),
            answer => answer,
        }
    }

    pub(crate) async fn undelete(&mut self, deadline: Instant) -> Result<BoxRecord> {
        let refuse = |kind, detail: &str, record: &BoxRecord| {
            Err(Error::new(kind, "undelete box", &record.owner.name).with_detail(detail))
        };
        let (held, _) = self
            .change("undelete box", deadline, |found| {
                if found.deleted_until.is_none() {
                    return refuse(ErrorKind::AlreadyExists, "the box is not deleted", found);
                }
                Ok(Some(BoxRecord { deleted_until: None, ..found.clone() }))
            })
            .await?;
        self.log_of(&held, EventKind::BoxUndeleted);
        Ok(held.record.clone())
    }

    /// Deletes the box for good if its owner cannot have it back any more.
    pub(crate) async fn purge(&mut self) {
        let deadline = Instant::now() + self.shared.config.limits.volume_ready;
        let outcome = async {
            let held = self.at_rest_or_deleted("purge box", deadline).await?;
            // Begun from this very record: one that its owner has back in the meantime stays.
            if self.shared.is_over(&held.record) { self.delete_held(held).await } else { Ok(()) }
        };
        if let Err(error) = outcome.await {
            self.held = None;
            tracing::info!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "a deleted box was not removed; the next census tries again");
        }
    }
}

impl Shared {
    /// Whether the time is over in which the owner of a deleted box can have it back.
    pub(crate) fn is_over(&self, record: &BoxRecord) -> bool {
        record.deleted_until.is_some_and(|until| until <= self.now() || planted::is(Bug::PurgedTooSoon))
    }
}
