//! Take a box off its instance: Detaching → Detached.
//!
//! The ladder: suspend (when its memory may be worth it; shut down, when its owner wants it gone) → stop the guest → detach →
//! delete the instance and only then detach by force. A volume is never pulled from under a running guest. Then the instance is given back, and last of
//! all the record says `Detached`: an instance is never claimed by a box that is nowhere.

use crate::actor::{Actor, HeldBox};
use crate::error::{Error, ErrorKind, Result};
use crate::id::InstanceId;
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::provider::{Attach, Detached};
use crate::record::{BoxRecord, InstanceEvent, InstanceRecord, Placement, PlacementEvent};
use crate::records::{Held, instance_key};
use crate::runtime::Guest;
use crate::shared::limited;
use std::time::Duration;

impl Actor {
    /// Somebody waits for an instance: leave if nobody is here, and give the instance back.
    pub(crate) async fn make_room(&mut self) {
        if self.sessions.is_empty() || planted::is(Bug::YieldThrowsOut) {
            if self.linger_until.take().is_some() || planted::is(Bug::YieldThrowsOut) {
                self.leave().await;
            }
            self.held = None;
            let outcome = match self.load().await {
                Ok(held) if matches!(held.record.placement, Placement::Parked { .. }) => {
                    self.withdraw(held, false).await
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::info!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "could not make room");
                self.held = None;
            }
        }
        let mut state = self.shared.state();
        state.yielding.retain(|owner| (&owner.owner, &owner.name) != (&self.key.0, &self.key.1));
    }

    /// From `Placing`, `Suspending` or `Parked`: off the instance. `doubted`: the instance is not to be used again.
    pub(crate) async fn withdraw(&mut self, held: HeldBox, doubted: bool) -> Result<()> {
        let save_memory = !matches!(held.record.placement, Placement::Parked { .. });
        let node = self.shared.node.clone();
        let mut record = self.after(&held, &PlacementEvent::Withdraw { node })?;
        record.holders.clear();
        let held = self.write(&held, record).await?;
        self.shared.state().parked.remove(&held.record.owner);
        self.vacate(held, save_memory, doubted).await
    }

    /// `Detaching`, by us.
    pub(crate) async fn vacate(&mut self, held: HeldBox, save_memory: bool, doubted: bool) -> Result<()> {
        let Some(instance) = held.record.placement.instance().cloned() else { return Ok(()) };
        if planted::is(Bug::FreedBeforeDetach) {
            self.release_instance(&held.record, &instance, doubted).await?;
        }
        let forgotten = self.empty(&held.record, &instance, save_memory).await?;
        if !planted::is(Bug::LeavesClaim) {
            self.release_instance(&held.record, &instance, doubted).await?;
        }
        let mut record = self.after(&held, &PlacementEvent::Detached { epoch: held.record.epoch })?;
        record.device = None;
        record.forget_memory &= !forgotten;
        self.write(&held, record).await?;
        self.ended.set(Some(held.record.epoch));
        Ok(())
    }

    /// No guest and no volume of this box on that instance any more. Tells whether memory that was to be forgotten is gone.
    pub(crate) async fn empty(&self, record: &BoxRecord, instance: &InstanceId, save_memory: bool) -> Result<bool> {
        let limits = &self.shared.config.limits;
        let guest = Self::guest(record, instance);
        let mut forgotten = false;
        if !planted::is(Bug::DetachBeforeStop) && !self.shared.instance_is_gone(instance).await {
            let forget = record.forget_memory && !planted::is(Bug::StopKeepsMemory);
            if forget && !matches!(record.placement, Placement::Deleting { .. }) {
                forgotten = self.shut_down(record, &guest).await?;
            } else if save_memory {
                match self.insist(limits.suspend, "suspend box", || self.shared.runtime.suspend(&guest)).await? {
                    Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
                    Err(error) => {
                        tracing::warn!(owner = %record.owner, error = %crate::Report(&error), "memory could not be saved")
                    }
                    Ok(_) => {}
                }
            }
            match self.insist(limits.guest_call, "stop box", || self.shared.runtime.stop(&guest)).await? {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
                // It cannot be shown that the guest is gone, so its machine goes.
                Err(error) => {
                    tracing::warn!(owner = %record.owner, %instance, error = %crate::Report(&error), "guest could not be stopped; its instance is deleted");
                    self.pull_out(record, instance).await?;
                    return Ok(forgotten);
                }
            }
        }
        if planted::is(Bug::LeavesVolumeAttached) {
            return Ok(forgotten);
        }
        match self.detach(record, instance).await {
            Err(error) if planted::is(Bug::StuckDetachNeverEscalates) => return Err(error),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Permanent) => {
                tracing::warn!(owner = %record.owner, %instance, error = %crate::Report(&error), "detach is stuck; the instance is deleted");
                self.pull_out(record, instance).await?;
            }
            answer => answer?,
        }
        Ok(forgotten)
    }

    /// Has the guest shut itself down and its saved memory dropped. Tells whether that is sure.
    ///
    /// # Errors
    /// `Fenced`, and when this node is out of touch; anything else leaves the rest to the ladder.
    async fn shut_down(&self, record: &BoxRecord, guest: &Guest) -> Result<bool> {
        let limits = &self.shared.config.limits;
        let call = || self.shared.runtime.shut_down(guest, limits.shut_down);
        match self.insist(limits.shut_down + limits.guest_call, "shut box down", call).await? {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) => {
                tracing::warn!(owner = %record.owner, error = %crate::Report(&error), "the guest was not shut down in good order; its memory is dropped before the next start");
                Ok(false)
            }
        }
    }

    /// Repeats a call to the runtime while it fails in a way that may pass, up to the limit: what comes after it is worse.
    ///
    /// # Errors
    /// When this node is out of touch: then nothing was tried, and nothing worse may follow.
    async fn insist<T, F: Future<Output = Result<T>>>(
        &self,
        limit: Duration,
        operation: &'static str,
        call: impl Fn() -> F,
    ) -> Result<Result<T>> {
        let mut poll = Poll::new(limit);
        loop {
            self.shared.check_in_touch(operation)?;
            let error = match limited(poll.left(), operation, &self.key.1, call()).await {
                Ok(answer) => return Ok(Ok(answer)),
                Err(error) => error,
            };
            // A guest that has hung does not come back: what takes too long is not asked again.
            let worth_a_try = error.kind() == ErrorKind::Busy || passes(&error) && error.kind() != ErrorKind::TimedOut;
            if !worth_a_try || !poll.again(error.retry_after()).await {
                return Ok(Err(error));
            }
        }
    }

    /// The end of the ladder: the machine goes, then the volume is detached by force.
    async fn pull_out(&self, record: &BoxRecord, instance: &InstanceId) -> Result<()> {
        // A limit that ran out while this node stood still says nothing about the guest.
        self.shared.check_in_touch("detach volume")?;
        // Only a machine that is reserved for this very box, in this epoch or before, may be taken down. Ending the claim by
        // compare-and-swap gives the right to do so to one node alone.
        let _guard = self.shared.busy.enter(instance.as_str());
        let event = self.condemn(record);
        let Some(held) = self.end_claim(record, instance, &event).await? else {
            let detail = format!(
                "it cannot be detached from {instance}, which is not this box's to delete; will be tried again"
            );
            return Err(Error::new(ErrorKind::Busy, "detach volume", record.volume.volume()).with_detail(detail));
        };
        self.shared.finish_retire(held).await?;
        let attach = Attach::new(record.volume.volume().clone(), instance.clone(), record.epoch);
        self.poll_detach(&attach, true).await
    }

    async fn detach(&self, record: &BoxRecord, instance: &InstanceId) -> Result<()> {
        let attach = Attach::new(record.volume.volume().clone(), instance.clone(), record.epoch);
        self.poll_detach(&attach, false).await
    }

    async fn poll_detach(&self, attach: &Attach, force: bool) -> Result<()> {
        let limit = self.shared.config.limits.detach;
        let mut poll = Poll::new(limit);
        loop {
            self.shared.check_in_touch("detach volume")?;
            let call =
                if force { self.shared.volumes.force_detach(attach) } else { self.shared.volumes.detach(attach) };
            let asked = match limited(poll.left(), "detach volume", &attach.volume, call).await {
                Ok(Detached::Yes) => return Ok(()),
                Ok(Detached::Pending) => None,
                Err(error) if passes(&error) || error.kind() == ErrorKind::Busy => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("not detached from {} within {limit:?}", attach.instance);
                return Err(Error::new(ErrorKind::TimedOut, "detach volume", &attach.volume).with_detail(detail));
            }
        }
    }

    /// Ends the box's claim; the instance is looked at before it serves again, or deleted if it is in doubt.
    pub(crate) async fn release_instance(
        &self,
        record: &BoxRecord,
        instance: &InstanceId,
        doubted: bool,
    ) -> Result<()> {
        let guard = self.shared.busy.enter(instance.as_str());
        let (owner, epoch, node) = (record.owner.clone(), record.epoch, self.shared.node.clone());
        let event = if doubted { self.condemn(record) } else { InstanceEvent::Release { owner, epoch, node } };
        if let (Some(held), Some(guard)) = (self.end_claim(record, instance, &event).await?, guard) {
            self.shared.recycle(held, guard);
        }
        // Without a guard a task of this node is at it already, and the next pass sees to what that one leaves.
        Ok(())
    }

    fn condemn(&self, record: &BoxRecord) -> InstanceEvent {
        InstanceEvent::Condemn { owner: record.owner.clone(), epoch: record.epoch, node: self.shared.node.clone() }
    }

    /// `Claimed` by this box, in its present epoch or before, → `Recycling` or `Deleting`. `None` when there is no such claim:
    /// an earlier try has ended it, or it was never made, or it is a later one.
    async fn end_claim(
        &self,
        record: &BoxRecord,
        instance: &InstanceId,
        event: &InstanceEvent,
    ) -> Result<Option<Held<InstanceRecord>>> {
        let key = instance_key(instance);
        loop {
            let found = self.shared.records.get::<InstanceRecord>(&key).await?;
            let Some(found) = found.filter(|found| found.record.id == *instance) else { return Ok(None) };
            let Ok(after) = found.record.after(event) else { return Ok(None) };
            match self.shared.records.update(&key, &found.version, after).await {
                Ok(held) => {
                    if let InstanceEvent::Condemn { .. } = event {
                        self.shared.doubt(instance, Some(record), "a box could not be brought up or taken off there");
                    }
                    return Ok(Some(held));
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }
}
