//! Leave: the last session of the last node has ended and the linger is over. Running → Suspending → Parked.

use super::change::is_overtaken;
use crate::actor::{Actor, HeldBox};
use crate::error::{ErrorKind, Result};
use crate::planted::{self, Bug};
use crate::record::{BoxRecord, EventKind, EventRecord, Mode, Placement, PlacementEvent};
use crate::records::Held;
use crate::runtime::Suspended;
use crate::shared::limited;
use std::time::Duration;
use tokio::time::Instant;

/// When a box could not be suspended because its volume is full, the next attempt is made after so long.
const RETRY_SUSPEND_AFTER: Duration = Duration::from_secs(30);

impl Actor {
    /// Gives up this node's hold on the box and suspends it if nobody else holds it. Errors are logged: what could not
    /// be finished stands in the record and is taken up by the next reconcile.
    pub(crate) async fn leave(&mut self) {
        for _ in 0..10 {
            match self.try_leave().await {
                Err(error) if is_overtaken(&error) => self.held = None,
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => {
                    tracing::warn!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "could not leave; will be tried again");
                    self.held = None;
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    async fn try_leave(&mut self) -> Result<()> {
        self.shared.check_in_touch("suspend box")?;
        if planted::is(Bug::NeverLeaves) {
            return Ok(());
        }
        let held = self.load().await?;
        let node = self.shared.node.clone();
        if !matches!(held.record.placement, Placement::Running { .. }) {
            return Ok(());
        }
        let others: Vec<_> = held
            .record
            .holders
            .iter()
            .filter(|other| **other != node && !self.shared.is_dead(other))
            .filter(|_| !planted::is(Bug::LeavesWithoutLookingAtOthers))
            .cloned()
            .collect();
        let kept = held.record.mode == Mode::KeepRunning && !planted::is(Bug::KeptIsSuspended);
        if !others.is_empty() || kept {
            let mut record = held.record.clone();
            record.holders = others.into_iter().collect();
            if record.holders != held.record.holders {
                self.write(&held, record).await?;
            }
            self.ran_since = None;
            return Ok(());
        }
        let mut record = self.after(&held, &PlacementEvent::Leave { node })?;
        record.holders.clear();
        let held = self.write(&held, record).await?;
        self.suspend(held).await
    }

    /// `Suspending`, by us: save the memory, then park.
    pub(crate) async fn suspend(&mut self, held: HeldBox) -> Result<()> {
        let Some(instance) = held.record.placement.instance().cloned() else { return Ok(()) };
        let epoch = held.record.epoch;
        let guest = Self::guest(&held.record, &instance);
        let limits = self.shared.config.limits.clone();
        let begun = Instant::now();
        if planted::is(Bug::StopsInsteadOfSuspending) {
            limited(limits.guest_call, "stop box", &held.record.owner, self.shared.runtime.stop(&guest)).await?;
        }
        let outcome =
            limited(limits.suspend, "suspend box", &held.record.owner, self.shared.runtime.suspend(&guest)).await;
        match outcome {
            Ok(Suspended::Saved) => {
                metrics::histogram!("boxpool_suspend_seconds").record(begun.elapsed().as_secs_f64())
            }
            Ok(Suspended::NotRunning) => {}
            Err(_) if planted::is(Bug::SuspendErrorIsSuccess) => {}
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) if error.kind() == ErrorKind::NoCapacity && self.can_run_on(&held) => {
                // Nothing is lost: it runs on, and we try again. The person who looks at the log can make room.
                self.log_suspend_failed(&held, format!("it runs on: {}", crate::Report(&error)));
                let mut record = self.after(&held, &PlacementEvent::SuspendFailed { epoch })?;
                record.holders.insert(self.shared.node.clone());
                self.write(&held, record).await?;
                self.linger_until = Some(Instant::now() + RETRY_SUSPEND_AFTER);
                return Ok(());
            }
            Err(error) if self.shared.instance_is_gone(&instance).await => {
                self.log_suspend_failed(&held, format!("the instance is gone: {}", crate::Report(&error)));
                return self.withdraw(held, true).await;
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::TimedOut | ErrorKind::Permanent | ErrorKind::Corrupt | ErrorKind::NoCapacity
                ) =>
            {
                self.log_suspend_failed(
                    &held,
                    format!("its memory is lost, its disk is kept: {}", crate::Report(&error)),
                );
                limited(limits.guest_call, "stop box", &held.record.owner, self.shared.runtime.stop(&guest)).await?;
            }
            Err(error) => return Err(error),
        }
        let at = self.shared.now();
        let held = self.step(&held, &PlacementEvent::Suspended { epoch, at }).await?;
        self.log_stay(&held);
        let away = self.shared.away(&held.record, at);
        self.shared.state().parked.insert(away.owner.clone(), away);
        self.shared.waiters.ring();
        self.shared.offer_room();
        Ok(())
    }

    fn can_run_on(&self, held: &Held<BoxRecord>) -> bool {
        !self.shared.is_draining() && matches!(&held.record.placement, Placement::Suspending { endpoint: Some(_), .. })
    }

    pub(crate) fn log_stay(&mut self, held: &Held<BoxRecord>) {
        let ran = self.ran_since.take().map(|since| since.elapsed());
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            volume: Some(held.record.volume.volume().clone()),
            epoch: Some(held.record.epoch),
            took_ms: ran.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX)),
            ..self.shared.event(EventKind::StayEnded)
        });
    }

    fn log_suspend_failed(&self, held: &Held<BoxRecord>, detail: String) {
        tracing::error!(owner = %held.record.owner, %detail, "suspend failed");
        metrics::counter!("boxpool_suspends_failed_total").increment(1);
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            epoch: Some(held.record.epoch),
            detail,
            ..self.shared.event(EventKind::SuspendFailed)
        });
    }
}
