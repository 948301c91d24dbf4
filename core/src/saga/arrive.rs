//! Connect: bring the box to where it runs, whatever state it is in, and give a session.

use super::change::is_overtaken;
use super::preattach::blames_instance;
use crate::actor::{Actor, Arrival, Connect, HeldBox, Timings, Via, WATCH_OTHER_EVERY};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::InstanceId;
use crate::planted::{self, Bug};
use crate::progress::Progress;
use crate::record::{
    BoxRecord, BroughtUp, BroughtUpFrom, EventKind, EventRecord, Placement, PlacementEvent, VolumeBinding,
};
use crate::records::Held;
use crate::runtime::GuestStatus;
use crate::shared::limited;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How often one connect starts over because others changed the record or an instance failed it.
const MAX_ROUNDS: u32 = 50;
/// On how many instances a box is tried before its error is the caller's.
const MAX_FAILED_PLACEMENTS: u32 = 3;

/// What one connect has learnt on its way.
pub(crate) struct Journey {
    pub(crate) begun: Instant,
    pub(crate) via: Option<Via>,
    pub(crate) timings: Timings,
    pub(crate) failed_placements: u32,
}

impl Journey {
    /// What the box's record keeps of it.
    pub(crate) fn told(&self, at: Timestamp) -> BroughtUp {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let from = match self.via {
            Some(Via::Parked) => BroughtUpFrom::Parked,
            Some(Via::Running) => BroughtUpFrom::Running,
            Some(Via::Detached) | None => BroughtUpFrom::Detached,
        };
        let Timings { waited, attached, started, .. } = self.timings;
        BroughtUp {
            at,
            from,
            waited_ms: ms(waited),
            attached_ms: ms(attached),
            started_ms: ms(started),
            total_ms: ms(self.begun.elapsed()),
        }
    }
}

/// Whether a round of the journey reached the goal.
pub(crate) enum Round {
    Arrived,
    /// The record is not what it was: look again.
    Again,
}

impl Actor {
    pub(crate) async fn arrive(&mut self, connect: &mut Connect) -> Result<Arrival> {
        let mut journey =
            Journey { begun: Instant::now(), via: None, timings: Timings::default(), failed_placements: 0 };
        self.tell(Progress::Looking);
        for _ in 0..MAX_ROUNDS {
            if Instant::now() >= connect.deadline {
                return Err(self.too_late());
            }
            match self.round(connect, &mut journey).await {
                Ok(Round::Arrived) => return self.arrival(journey).await,
                Ok(Round::Again) => {}
                // Somebody else moved the box; the next round sees how.
                Err(error) if is_overtaken(&error) => self.held = None,
                Err(error) => return Err(error),
            }
        }
        let detail = "the box was moved again and again by others; try again";
        Err(Error::new(ErrorKind::Busy, "connect to box", &self.key.1).with_detail(detail))
    }

    /// Whether the box is there for whoever connects.
    fn admit(&self, record: &BoxRecord, connect: &Connect) -> Result<()> {
        if connect.only.as_ref().is_some_and(|only| *only != record.owner.id) {
            let detail = "there is another box of that name now";
            return Err(Error::new(ErrorKind::NotFound, "connect to box", &self.key.1).with_detail(detail));
        }
        self.shared.check_there(record, "connect to box")?;
        if let Some(guest) = connect.guest.as_ref().filter(|guest| !record.shares.contains_key(*guest))
            && !planted::is(Bug::SharedWithAll)
        {
            tracing::info!(owner = %record.owner, %guest, "somebody with whom the box is not shared was refused");
            let detail = "there is no such box";
            return Err(Error::new(ErrorKind::NotFound, "connect to box", &self.key.1).with_detail(detail));
        }
        Ok(())
    }

    /// One look at the record, and what follows from it; whatever is more than joining a box that is up is boxed, as in `handle`.
    async fn round(&mut self, connect: &mut Connect, journey: &mut Journey) -> Result<Round> {
        self.shared.check_in_touch("connect to box")?;
        // What this node knows may be old: its owner may have had the box stopped, and started again, elsewhere.
        self.held = None;
        let mut held = self.load().await?;
        self.admit(&held.record, connect)?;
        connect.admitted.store(true, Ordering::Relaxed);
        if matches!(held.record.volume, VolumeBinding::Wanted(_)) {
            self.tell(Progress::PreparingVolume);
            held = Box::pin(self.bind(held, None)).await?;
            // Its owner may have deleted it, or taken it from this guest, while its volume was made.
            if !planted::is(Bug::AdmittedOnce) {
                self.admit(&held.record, connect)?;
            }
        }
        match held.record.placement.clone() {
            Placement::Running { .. } => {
                journey.via.get_or_insert(Via::Running);
                self.join(held, connect, journey).await
            }
            Placement::Parked { instance, .. } => {
                journey.via.get_or_insert(Via::Parked);
                Box::pin(self.resume_parked(held, instance, journey)).await
            }
            Placement::Detached => {
                journey.via = Some(Via::Detached);
                Box::pin(self.place(held, connect, journey)).await
            }
            Placement::Deleting { .. } => {
                let detail = "the box is being deleted";
                Err(Error::new(ErrorKind::NotFound, "connect to box", &self.key.1).with_detail(detail))
            }
            Placement::Arriving { .. } => Box::pin(self.wait_for_other(&held, connect, journey)).await,
            step @ (Placement::Placing { .. }
            | Placement::Suspending { .. }
            | Placement::Detaching { .. }
            | Placement::Renaming { .. }) => {
                if self.is_up_to_us(&step) {
                    Box::pin(self.finish_for_connect(held, journey)).await
                } else {
                    Box::pin(self.wait_for_other(&held, connect, journey)).await
                }
            }
        }
    }

    /// A running box: seen to run before the first session of this node is given.
    async fn join(&mut self, held: HeldBox, connect: &mut Connect, journey: &mut Journey) -> Result<Round> {
        let Placement::Running { instance, endpoint } = held.record.placement.clone() else {
            return Ok(Round::Again);
        };
        let node = self.shared.node.clone();
        let doubted = connect.distrust == Some(held.record.epoch);
        let known = held.record.holders.contains(&node) && !self.sessions.is_empty();
        if (!known || doubted) && !planted::is(Bug::JoinsUnseen) {
            match self.ask_guest(&held.record, &instance).await {
                Ok(GuestStatus::Running(seen)) if seen == endpoint => {}
                Ok(GuestStatus::Running(_) | GuestStatus::NotRunning) => {
                    return Box::pin(self.restart_lost(held, false, journey)).await;
                }
                Ok(GuestStatus::Unresponsive(why)) => {
                    tracing::warn!(owner = %held.record.owner, %instance, %why, "the guest does not answer; it is restarted");
                    return Box::pin(self.restart_lost(held, true, journey)).await;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Box::pin(self.restart_lost(held, false, journey)).await;
                }
                Err(error) => return Err(error),
            }
        }
        connect.distrust = None;
        if !held.record.holders.contains(&node) && !planted::is(Bug::JoinsWithoutHolding) {
            let mut record = held.record.clone();
            record.holders.insert(node);
            record.used_at = self.shared.now();
            self.write(&held, record).await?;
        }
        Ok(Round::Arrived)
    }

    /// What the guest is doing; one that does not answer is asked again for a while.
    pub(crate) async fn ask_guest(&self, record: &BoxRecord, instance: &InstanceId) -> Result<GuestStatus> {
        let guest = Self::guest(record, instance);
        let limits = &self.shared.config.limits;
        let deadline = Instant::now() + limits.unresponsive;
        loop {
            let status = self.shared.runtime.status(&guest);
            let answer = limited(limits.guest_call, "ask guest", &record.owner, status).await?;
            if !matches!(answer, GuestStatus::Unresponsive(_)) || Instant::now() >= deadline {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The guest of a running box is gone: start it where it was.
    async fn restart_lost(&mut self, held: HeldBox, unresponsive: bool, journey: &mut Journey) -> Result<Round> {
        let node = self.shared.node.clone();
        let event = PlacementEvent::GuestLost { epoch: held.record.epoch, node: node.clone() };
        let mut record = self.after(&held, &event)?;
        record.holders.insert(node.clone());
        let lost = held.record.epoch;
        let mut held = self.write(&held, record).await?;
        self.ended.set(Some(lost));
        metrics::counter!("boxpool_guests_lost_total").increment(1);
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            epoch: Some(lost),
            ..self.shared.event(EventKind::GuestLost)
        });
        if unresponsive && let Some(instance) = held.record.placement.instance() {
            let guest = Self::guest(&held.record, instance);
            let limit = self.shared.config.limits.guest_call;
            if let Err(error) = limited(limit, "stop guest", &held.record.owner, self.shared.runtime.stop(&guest)).await
            {
                return self.give_up_placement(held, error, journey).await;
            }
            // The guest starts in an epoch of its own: a stop that is delivered once more, late, must not strike it.
            held = self.step(&held, &PlacementEvent::TakeOver { node }).await?;
        }
        self.finish_placing(held, true, journey).await
    }

    /// Another node is at work on the box: wait until the record changes or that node turns out to be dead.
    pub(crate) async fn wait_for_other(
        &mut self,
        held: &Held<BoxRecord>,
        connect: &mut Connect,
        journey: &mut Journey,
    ) -> Result<Round> {
        let begun = Instant::now();
        self.tell(Progress::WaitingForOther { state: held.record.placement.word() });
        loop {
            tokio::select! {
                biased;
                () = connect.reply.closed() => return Err(self.abandoned()),
                () = tokio::time::sleep(WATCH_OTHER_EVERY.min(connect.deadline.duration_since(Instant::now()))) => {}
            }
            if self.shared.is_draining() {
                return Err(self.draining());
            }
            self.held = None;
            let seen = self.load().await?;
            let changed = seen.version != held.version;
            let arriving = matches!(seen.record.placement, Placement::Arriving { .. });
            if arriving && !changed {
                self.recover().await;
            } else if changed || self.is_up_to_us(&seen.record.placement) {
                journey.timings.waited += begun.elapsed();
                return Ok(Round::Again);
            }
            if Instant::now() >= connect.deadline {
                return Err(self.too_late());
            }
        }
    }

    /// A step whose node is out of it: go on with it, forward where that brings the box up.
    async fn finish_for_connect(&mut self, held: HeldBox, journey: &mut Journey) -> Result<Round> {
        let node = self.shared.node.clone();
        self.log_take_over(&held);
        match &held.record.placement {
            Placement::Placing { .. } => {
                let mut record = self.after(&held, &PlacementEvent::TakeOver { node: node.clone() })?;
                record.holders.insert(node);
                let held = self.write(&held, record).await?;
                journey.via.get_or_insert(Via::Detached);
                match self.claim_again(&held).await? {
                    true => self.finish_placing(held, true, journey).await,
                    false => {
                        self.withdraw(held, false).await?;
                        Ok(Round::Again)
                    }
                }
            }
            _ => {
                self.recover().await;
                // When it could not be finished the error is in the log and the record says so; do not spin on it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.held = None;
                Ok(Round::Again)
            }
        }
    }

    async fn arrival(&mut self, mut journey: Journey) -> Result<Arrival> {
        let held = self.load().await?;
        let Placement::Running { instance, endpoint } = held.record.placement.clone() else {
            let detail = "the box left again at once; try again";
            return Err(Error::new(ErrorKind::Busy, "connect to box", &self.key.1).with_detail(detail));
        };
        self.linger_until = None;
        self.ran_since.get_or_insert_with(Instant::now);
        journey.timings.total = journey.begun.elapsed();
        let via = journey.via.unwrap_or(Via::Running);
        let path = match via {
            Via::Running => "running",
            Via::Parked => "parked",
            Via::Detached => "detached",
        };
        metrics::counter!("boxpool_connects_total", "via" => path).increment(1);
        metrics::histogram!("boxpool_connect_seconds", "via" => path).record(journey.timings.total.as_secs_f64());
        tracing::info!(owner = %held.record.owner, %instance, epoch = %held.record.epoch, via = path, took = ?journey.timings.total, "connected");
        Ok(Arrival {
            owner: held.record.owner.clone(),
            endpoint,
            epoch: held.record.epoch,
            instance,
            session: self.shared.session_number(),
            via,
            timings: journey.timings,
            ended: self.ended.clone(),
        })
    }

    /// What to do after a placement failed: the volume goes off the instance, and another one is tried when that can help.
    pub(crate) async fn give_up_placement(
        &mut self,
        held: HeldBox,
        error: Error,
        journey: &mut Journey,
    ) -> Result<Round> {
        if error.kind() == ErrorKind::Fenced {
            return Err(error);
        }
        let blames_instance = blames_instance(&error);
        tracing::warn!(owner = %held.record.owner, placement = %held.record.placement, error = %crate::Report(&error), "placement failed");
        metrics::counter!("boxpool_placements_failed_total").increment(1);
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            epoch: Some(held.record.epoch),
            detail: crate::Report(&error).to_string(),
            ..self.shared.event(EventKind::PlacementFailed)
        });
        if planted::is(Bug::FailureLeavesStep) {
            return Err(error);
        }
        if planted::is(Bug::RollbackFreesVolume) {
            self.shared.free_volume_of(&held.record).await?;
        }
        self.withdraw(held, blames_instance).await?;
        journey.failed_placements += 1;
        if blames_instance && journey.failed_placements < MAX_FAILED_PLACEMENTS { Ok(Round::Again) } else { Err(error) }
    }

    pub(crate) fn log_take_over(&self, held: &Held<BoxRecord>) {
        let from = held.record.placement.worker();
        if from == Some(&self.shared.node) {
            return;
        }
        metrics::counter!("boxpool_takeovers_total", "of" => "box").increment(1);
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            epoch: Some(held.record.epoch),
            detail: from.map(|node| format!("{} of {node}", held.record.placement.word())).unwrap_or_default(),
            ..self.shared.event(EventKind::TakenOver)
        });
    }

    pub(crate) fn too_late(&self) -> Error {
        Error::new(ErrorKind::TimedOut, "connect to box", &self.key.1)
            .with_effect(crate::Effect::None)
            .with_detail("it did not come up before the deadline; try again later")
    }

    pub(crate) fn draining(&self) -> Error {
        let detail = "this node is shutting down; connect again in a moment";
        Error::new(ErrorKind::Unavailable, "connect to box", &self.key.1).with_detail(detail)
    }

    pub(crate) fn abandoned(&self) -> Error {
        Error::new(ErrorKind::TimedOut, "connect to box", &self.key.1).with_detail("the caller went away")
    }
}
