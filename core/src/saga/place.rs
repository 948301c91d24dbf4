//! Bring a box up on an instance: intent (box), claim (instance), attach, start, result (box).
//!
//! Writes before the runtime is called: two for a detached box, one for a parked one. One more, the result, is written
//! while the caller may already dial. A box that was stopped while its volume was nowhere has its old memory dropped first,
//! and one more write says so.

use super::arrive::{Journey, Round};
use crate::actor::{Actor, Connect, HeldBox};
use crate::error::{Error, ErrorKind, Result};
use crate::id::InstanceId;
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::progress::Progress;
use crate::provider::{Attach, Attached, Device};
use crate::record::{BoxRecord, InstanceEvent, InstanceRecord, Placement, PlacementEvent};
use crate::records::{Held, instance_key};
use crate::shared::limited;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Actor {
    /// A detached box.
    pub(crate) async fn place(&mut self, held: HeldBox, connect: &mut Connect, journey: &mut Journey) -> Result<Round> {
        let node = self.shared.node.clone();
        let held = self.grown(held).await?;
        let waiting = Instant::now();
        let mut candidate = self.acquire(connect).await?;
        journey.timings.waited += waiting.elapsed();

        if planted::is(Bug::ClaimBeforeIntent) {
            candidate = self.claim_early(&held, candidate).await?;
        }
        let event = PlacementEvent::Place { instance: candidate.record.id.clone(), node: node.clone() };
        let mut record = self.after(&held, &event)?;
        record.holders.insert(node.clone());
        record.used_at = self.shared.now();
        let mut held = match self.write(&held, record).await {
            Ok(held) => held,
            Err(error) => {
                self.shared.put_back(candidate);
                return Err(error);
            }
        };
        loop {
            match self.claim(&held, &candidate).await {
                Ok(()) => {
                    self.shared.took_instance();
                    return self.finish_placing(held, true, journey).await;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                    metrics::counter!("boxpool_claim_conflicts_total").increment(1);
                }
                Err(error) => return Err(error),
            }
            // Another box was faster. Take the next one, or go back and stand in line.
            let Some(next) = self.take_instance() else {
                Box::pin(self.withdraw(held, false)).await?;
                return Ok(Round::Again);
            };
            candidate = next;
            let event = PlacementEvent::Move { instance: candidate.record.id.clone(), node: node.clone() };
            held = match self.step(&held, &event).await {
                Ok(held) => held,
                Err(error) => {
                    self.shared.put_back(candidate);
                    return Err(error);
                }
            };
        }
    }

    /// A parked box: everything is where it must be but the guest.
    pub(crate) async fn resume_parked(
        &mut self,
        held: HeldBox,
        instance: InstanceId,
        journey: &mut Journey,
    ) -> Result<Round> {
        let node = self.shared.node.clone();
        let mut record = self.after(&held, &PlacementEvent::Place { instance, node: node.clone() })?;
        record.holders.insert(node);
        record.used_at = self.shared.now();
        let held = self.write(&held, record).await?;
        self.shared.state().parked.remove(&held.record.owner);
        self.finish_placing(held, false, journey).await
    }

    /// `Placing`, with the instance claimed: attach (unless that is known to be done), start, record.
    pub(crate) async fn finish_placing(
        &mut self,
        mut held: HeldBox,
        mut attach: bool,
        journey: &mut Journey,
    ) -> Result<Round> {
        let Placement::Placing { instance, .. } = held.record.placement.clone() else {
            return Ok(Round::Again);
        };
        let limits = self.shared.config.limits.clone();
        let started = loop {
            if attach {
                let begun = Instant::now();
                self.tell(Progress::Attaching { instance: instance.clone() });
                match self.attach(&held.record, &instance).await {
                    Ok(device) => Arc::make_mut(&mut held).record.device = Some(device),
                    Err(error) => return Box::pin(self.give_up_placement(held, error, journey)).await,
                }
                journey.timings.attached += begun.elapsed();
            }
            let begun = Instant::now();
            self.tell(Progress::Starting { instance: instance.clone() });
            if held.record.forget_memory && !planted::is(Bug::StopKeepsMemory) {
                if let Err(error) = self.drop_memory(&held.record, &instance).await {
                    return Box::pin(self.give_up_placement(held, error, journey)).await;
                }
                held = self.memory_dropped(&held).await?;
            }
            let guest = Self::guest(&held.record, &instance);
            let start = self.shared.runtime.start(&guest);
            let started = limited(limits.start, "start box", &held.record.owner, start).await;
            journey.timings.started += begun.elapsed();
            match started {
                Ok(started) => break started,
                // Not attached after all (the instance was restarted, say): attach and try once more.
                Err(error) if error.kind() == ErrorKind::NotFound && !attach => attach = true,
                Err(error) => return Box::pin(self.give_up_placement(held, error, journey)).await,
            }
        };
        self.tell(Progress::Reachable(started.endpoint.clone()));
        let event = PlacementEvent::Started { epoch: held.record.epoch, endpoint: started.endpoint };
        let mut record = self.after(&held, &event)?;
        record.brought_up = Some(journey.told(self.shared.now()));
        self.write(&held, record).await?;
        self.ran_since = Some(Instant::now());
        Ok(Round::Arrived)
    }

    /// Drops what was saved before its owner stopped the box. No guest runs yet.
    async fn drop_memory(&self, record: &BoxRecord, instance: &InstanceId) -> Result<()> {
        let limits = &self.shared.config.limits;
        let guest = Self::guest(record, instance);
        let call = self.shared.runtime.shut_down(&guest, limits.shut_down);
        limited(limits.shut_down + limits.guest_call, "drop memory", &record.owner, call).await
    }

    /// Says so before a guest is started: what is saved from then on is new. The guest starts in an epoch of its own, so that
    /// a call to drop which is delivered once more, late, does not strike it.
    async fn memory_dropped(&mut self, held: &Held<BoxRecord>) -> Result<HeldBox> {
        let node = self.shared.node.clone();
        let mut record = self.after(held, &PlacementEvent::TakeOver { node })?;
        record.forget_memory = false;
        self.write(held, record).await
    }

    /// Attaches, and polls until it is done, within the limit.
    pub(crate) async fn attach(&self, record: &BoxRecord, instance: &InstanceId) -> Result<Device> {
        let limit = self.shared.config.limits.attach;
        let attach = Attach::new(record.volume.volume().clone(), instance.clone(), record.epoch);
        let (mut poll, mut taken_off) = (Poll::new(limit), false);
        if planted::is(Bug::WaitsBeforeFirstTry) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        loop {
            self.shared.check_in_touch("attach volume")?;
            let call = self.shared.volumes.attach(&attach);
            let asked = match limited(poll.left(), "attach volume", &attach.volume, call).await {
                Ok(Attached::Yes(device)) => return Ok(device),
                Ok(Attached::Pending) => None,
                Err(error) if error.kind() == ErrorKind::Busy && planted::is(Bug::BusyAttachIsOk) => {
                    return Ok(Device(format!("sim:{}", attach.volume)));
                }
                Err(error) if error.kind() == ErrorKind::Busy => {
                    let elsewhere =
                        self.shared.take_off_elsewhere(&attach.volume, Some(instance), attach.epoch, poll.left());
                    match elsewhere.await {
                        Ok(true) => {
                            taken_off = true;
                            None
                        }
                        // It came off after the attach was refused.
                        Ok(false) if std::mem::take(&mut taken_off) => None,
                        Err(failed) if passes(&failed) => failed.retry_after(),
                        Ok(false) | Err(_) => return Err(error),
                    }
                }
                Err(error) if passes(&error) => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("not attached to {instance} within {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "attach volume", &attach.volume).with_detail(detail));
            }
        }
    }

    /// `Free → Claimed` by compare-and-swap.
    pub(crate) async fn claim(&self, held: &Held<BoxRecord>, candidate: &Held<InstanceRecord>) -> Result<()> {
        let event = InstanceEvent::Claim { owner: held.record.owner.clone(), epoch: held.record.epoch };
        let record = candidate.record.after(&event).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, "claim instance", &candidate.record.id).with_source(illegal)
        })?;
        let key = instance_key(&candidate.record.id);
        self.shared.records.update(&key, &candidate.version, record).await?;
        Ok(())
    }

    /// A claim of which no box's record knows.
    async fn claim_early(
        &self,
        held: &Held<BoxRecord>,
        candidate: Held<InstanceRecord>,
    ) -> Result<Held<InstanceRecord>> {
        let event = InstanceEvent::Claim { owner: held.record.owner.clone(), epoch: held.record.epoch.next() };
        let Ok(record) = candidate.record.after(&event) else { return Ok(candidate) };
        self.shared.records.update(&instance_key(&candidate.record.id), &candidate.version, record).await
    }

    /// Whether the instance of a half-placed box is ours, or can still be had.
    pub(crate) async fn claim_again(&self, held: &Held<BoxRecord>) -> Result<bool> {
        let Some(instance) = held.record.placement.instance() else { return Ok(false) };
        let Some(found) = self.shared.records.get::<InstanceRecord>(&instance_key(instance)).await? else {
            return Ok(false);
        };
        if found.record.id != *instance {
            return Ok(false);
        }
        match self.claim(held, &found).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A free instance, rather one that this user's box was on last.
    pub(crate) fn take_instance(&self) -> Option<Held<InstanceRecord>> {
        self.shared.take_instance(&self.key.0)
    }

    /// A free instance, from the index or, in line, as soon as there is one.
    async fn acquire(&mut self, connect: &mut Connect) -> Result<Held<InstanceRecord>> {
        if self.shared.waiters.len() == 0
            && let Some(candidate) = self.take_instance()
        {
            return Ok(candidate);
        }
        let refuse =
            |detail: String| Err(Error::new(ErrorKind::NoCapacity, "connect to box", &self.key.1).with_detail(detail));
        let Some(mut ticket) = self.shared.waiters.stand() else {
            return refuse("all machines are taken and too many wait already; try again later".into());
        };
        metrics::counter!("boxpool_waits_total").increment(1);
        self.shared.refill_instances.notify_one();
        loop {
            if self.shared.is_draining() {
                return Err(self.draining());
            }
            let position = ticket.position();
            if position == 1 {
                if let Some(candidate) = self.take_instance() {
                    return Ok(candidate);
                }
                self.shared.look_for_instances().await;
                if let Some(candidate) = self.take_instance() {
                    return Ok(candidate);
                }
                self.shared.ask_for_room();
            }
            let now = Instant::now();
            if now >= connect.deadline {
                let fails = self.shared.breakers().making_instances;
                let why =
                    fails.map(|breaker| format!("; making more of them fails: {}", breaker.why)).unwrap_or_default();
                return refuse(format!(
                    "all machines are taken and none became free before the deadline; try again later{why}"
                ));
            }
            let remaining = connect.deadline.duration_since(now);
            self.tell(Progress::WaitingForInstance { position, remaining });
            // The bell rings for what this node frees; what others free is found by looking again.
            let mut look_again = Duration::from_millis(if position == 1 { 250 } else { 5_000 });
            if planted::is(Bug::WaitsForOwnBellOnly) {
                look_again = remaining;
            }
            tokio::select! {
                biased;
                () = connect.reply.closed() => return Err(self.abandoned()),
                () = ticket.rung() => {}
                () = tokio::time::sleep(look_again.min(remaining)) => {}
            }
        }
    }
}
