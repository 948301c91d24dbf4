//! Attach the volume of a box that is expected: Detached → Placing → Parked. No guest is started, and its owner then comes to
//! a parked box.
//!
//! Nobody waits for it, so it gives way: without a free instance nothing happens, and what fails is undone.

use crate::actor::{Actor, HeldBox};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{BoxRecord, Placement, PlacementEvent, VolumeBinding};
use tokio::time::Instant;

impl Actor {
    pub(crate) async fn preattach(&mut self) {
        self.held = None;
        let outcome = self.try_preattach().await;
        if let Err(error) = outcome {
            self.held = None;
            tracing::info!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "could not attach ahead");
        }
    }

    async fn try_preattach(&mut self) -> Result<()> {
        self.shared.check_in_touch("attach ahead")?;
        let held = self.load().await?;
        if !is_ready(&held.record) || self.shared.waiters.len() > 0 || self.shared.is_draining() {
            return Ok(());
        }
        let Some(candidate) = self.take_instance() else { return Ok(()) };
        self.shared.state().attached_ahead.insert(held.record.owner.clone(), Instant::now());
        let instance = candidate.record.id.clone();
        let event = PlacementEvent::Place { instance: instance.clone(), node: self.shared.node.clone() };
        let held = match self.step(&held, &event).await {
            Ok(held) => held,
            Err(error) => {
                self.shared.put_back(candidate);
                return Err(error);
            }
        };
        match self.claim(&held, &candidate).await {
            Ok(()) => self.attach_and_park(held).await,
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                self.withdraw(held, false).await
            }
            Err(error) => Err(error),
        }
    }

    /// `Placing`, by us, with the instance claimed.
    async fn attach_and_park(&mut self, held: HeldBox) -> Result<()> {
        let Some(instance) = held.record.placement.instance().cloned() else { return Ok(()) };
        let device = match self.attach(&held.record, &instance).await {
            Ok(device) => device,
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => {
                self.withdraw(held, blames_instance(&error)).await?;
                return Err(error);
            }
        };
        let at = self.shared.now();
        let epoch = held.record.epoch;
        let mut record = self.after(&held, &PlacementEvent::Attached { epoch, at })?;
        record.device = Some(device);
        let held = self.write(&held, record).await?;
        metrics::counter!("boxpool_preattached_total").increment(1);
        let away = self.shared.away(&held.record, at);
        self.shared.state().parked.insert(away.owner.clone(), away);
        self.shared.waiters.ring();
        Ok(())
    }
}

/// Whether nothing but an attach lies between the box and its owner.
pub(crate) fn is_ready(record: &BoxRecord) -> bool {
    let rests = matches!((&record.placement, &record.volume), (Placement::Detached, VolumeBinding::Bound(_)));
    // A box that is to grow does so when it is placed; one that is deleted, or moves to another region, is not there.
    let whole = record.grow_to.is_none() && record.deleted_until.is_none() && record.hold.is_none();
    rests && whole
}

/// Whether another instance could do better after such an error.
pub(crate) fn blames_instance(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::Busy
        | ErrorKind::TimedOut
        | ErrorKind::Unavailable
        | ErrorKind::UnknownOutcome
        | ErrorKind::Permanent => true,
        ErrorKind::AlreadyExists
        | ErrorKind::Conflict
        | ErrorKind::Throttled
        | ErrorKind::NoCapacity
        | ErrorKind::Fenced
        | ErrorKind::Unauthorized
        | ErrorKind::Invalid
        | ErrorKind::Corrupt => false,
    }
}
