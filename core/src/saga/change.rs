//! Changes of a box that is at rest, and the wait until it is. Each is one compare-and-swap: it has happened, or it has not.

use crate::actor::{Actor, HeldBox, WATCH_OTHER_EVERY};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{self, Bug};
use crate::record::{BoxRecord, EventKind, EventRecord, Placement};
use crate::records::Held;
use crate::shared::Shared;
use tokio::time::Instant;

impl Actor {
    /// The box as the store has it, once no step is under way. A step that is nobody's any more is finished first; one of
    /// another node is waited for.
    ///
    /// # Errors
    /// `NotFound`, also of a box that is deleted or being deleted; `Busy` when the step has not ended by then.
    pub(crate) async fn at_rest(&mut self, operation: &'static str, deadline: Instant) -> Result<HeldBox> {
        let held = self.at_rest_or_deleted(operation, deadline).await?;
        self.shared.check_there(&held.record, operation)?;
        Ok(held)
    }

    /// As [`Actor::at_rest`], whether or not its owner has deleted it.
    pub(crate) async fn at_rest_or_deleted(&mut self, operation: &'static str, deadline: Instant) -> Result<HeldBox> {
        loop {
            self.shared.check_in_touch(operation)?;
            self.held = None;
            let held = self.load().await?;
            let placement = &held.record.placement;
            if matches!(placement, Placement::Deleting { .. }) {
                let detail = "the box is being deleted";
                return Err(Error::new(ErrorKind::NotFound, operation, &self.key.1).with_detail(detail));
            }
            if placement.worker().is_none() {
                return Ok(held);
            }
            if Instant::now() >= deadline {
                let detail = format!("the box is {} and did not come to rest in time; try again", placement.word());
                return Err(Error::new(ErrorKind::Busy, operation, &self.key.1).with_detail(detail));
            }
            if self.is_up_to_us(placement) {
                self.recover().await;
            }
            tokio::time::sleep(WATCH_OTHER_EVERY).await;
        }
    }

    /// Changes the box at rest, again and again while others are quicker. `change` says what is to become of the record, or
    /// `None` when it is as it should be. Tells whether anything was written.
    ///
    /// # Errors
    /// As [`Actor::at_rest_or_deleted`], and what `change` refuses with.
    pub(crate) async fn change(
        &mut self,
        operation: &'static str,
        deadline: Instant,
        mut change: impl FnMut(&BoxRecord) -> Result<Option<BoxRecord>>,
    ) -> Result<(HeldBox, bool)> {
        loop {
            let held = self.at_rest_or_deleted(operation, deadline).await?;
            let Some(record) = change(&held.record)? else { return Ok((held, false)) };
            match self.write(&held, record).await {
                Ok(held) => return Ok((held, true)),
                Err(error) if error.kind() == ErrorKind::Conflict && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn log_of(&self, held: &Held<BoxRecord>, kind: EventKind) {
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            volume: Some(held.record.volume.volume().clone()),
            epoch: Some(held.record.epoch),
            ..self.shared.event(kind)
        });
    }
}

/// Whether somebody else was quicker, or goes on with the box: its record is to be looked at again.
pub(crate) fn is_overtaken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Fenced)
}

impl Shared {
    /// Refuses a box that its owner has deleted and may still have back, and one that is on its way to another region.
    pub(crate) fn check_there(&self, record: &BoxRecord, operation: &'static str) -> Result<()> {
        if record.hold.is_some() && !planted::is(Bug::HeldComesUp) {
            let detail = "the box is being moved to another region; try again in a while";
            return Err(Error::new(ErrorKind::Busy, operation, &record.owner.name).with_detail(detail));
        }
        if record.deleted_until.is_none() || planted::is(Bug::DeletedComesUp) {
            return Ok(());
        }
        let detail = "the box was deleted; its owner can still have it back";
        Err(Error::new(ErrorKind::NotFound, operation, &record.owner.name).with_detail(detail))
    }
}
