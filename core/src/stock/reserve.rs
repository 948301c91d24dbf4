//! The reserve: machines that are stopped, cost no compute, and are woken before new ones are made.
//!
//! No provider can tell an old request to stop from a new one. So one request is sent ([`InstanceProvider::stop`] promises that it is not
//! repeated underneath), and a machine comes into the reserve only when it was answered to the node that recorded the intent: when that
//! node dies, or an answer is missing, the request may still arrive when the machine has been woken and serves somebody, and the machine
//! is deleted instead, under a name that is never used again.
//!
//! [`InstanceProvider::stop`]: crate::InstanceProvider::stop

use crate::busy::BusyGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::id::InstanceId;
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::provider::{InstanceState, InstanceView};
use crate::record::{InstanceEvent, InstanceRecord};
use crate::records::{Held, instance_key};
use crate::runtime::Cleared;
use crate::shared::{Shared, limited};
use std::sync::Arc;
use tokio::time::Instant;

impl Shared {
    /// Stops free instances for the reserve, beside the caller.
    pub(crate) fn stop_some<'a>(self: &Arc<Self>, from: impl Iterator<Item = &'a Held<InstanceRecord>>, n: u32) {
        for (held, guard) in self.enter_some(from, n) {
            let shared = Arc::clone(self);
            self.spawn(async move {
                let _guard = guard;
                // Claimed in the meantime: the compare-and-swap says so and it stays.
                if let Err(error) = shared.stop_instance(held).await {
                    tracing::info!(error = %crate::Report(&error), "an instance did not come into the reserve");
                }
            });
        }
    }

    /// Wakes instances of the reserve, beside the caller.
    pub(crate) fn wake_some<'a>(self: &Arc<Self>, from: impl Iterator<Item = &'a Held<InstanceRecord>>, n: u32) {
        for (held, guard) in self.enter_some(from, n) {
            self.state().instance_pace.waking.begun();
            let shared = Arc::clone(self);
            self.spawn(async move {
                let _guard = guard;
                let begun = Instant::now();
                let outcome = shared.wake_instance(held).await;
                let mut state = shared.state();
                match outcome {
                    Ok(()) => {
                        state.instance_pace.waking.succeeded();
                        state.forecast.made_in(begun.elapsed());
                    }
                    Err(error) if error.kind() == ErrorKind::Conflict => state.instance_pace.waking.left(),
                    Err(error) => {
                        tracing::warn!(error = %crate::Report(&error), "an instance of the reserve could not be woken");
                        metrics::counter!("boxpool_instances_failed_total").increment(1);
                        state.instance_pace.waking.failed(begun, &error);
                    }
                }
            });
        }
    }

    /// The first so many on which this node is not at work.
    pub(crate) fn enter_some<'a>(
        &self,
        from: impl Iterator<Item = &'a Held<InstanceRecord>>,
        n: u32,
    ) -> Vec<(Held<InstanceRecord>, BusyGuard)> {
        let mut entered = Vec::new();
        for held in from {
            if entered.len() >= n as usize {
                break;
            }
            if let Some(guard) = self.busy.enter(held.record.id.as_str()) {
                entered.push((held.clone(), guard));
            }
        }
        entered
    }

    /// `Free → Stopping → Stopped`.
    async fn stop_instance(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        let held = self.instance_step(&held, &InstanceEvent::Stop { node: self.node.clone() }).await?;
        self.state().free_instances.remove(&held.record.id);
        match self.await_stopped(&held.record.id).await {
            Ok(()) => {
                self.instance_step(&held, &InstanceEvent::Stopped).await?;
                self.refill_instances.notify_one();
                Ok(())
            }
            Err(error) => {
                self.retire(held).await?;
                Err(error)
            }
        }
    }

    /// Begins to stop it, once, and looks until it has stopped.
    async fn await_stopped(&self, id: &InstanceId) -> Result<()> {
        if planted::is(Bug::StopOnlyNoted) {
            return Ok(());
        }
        self.check_in_touch("stop instance")?;
        let mut poll = Poll::new(self.config.limits.instance_ready);
        let mut view = Some(limited(poll.left(), "stop instance", id, self.instances.stop(id)).await?);
        loop {
            match view.map(|view| view.state) {
                Some(InstanceState::Stopped) => return Ok(()),
                Some(InstanceState::Stopping | InstanceState::Running | InstanceState::Other(_)) => {}
                other => {
                    let detail = format!("it was to stop, and is {other:?}");
                    return Err(Error::new(ErrorKind::Permanent, "stop instance", id).with_detail(detail));
                }
            }
            view = self.look_again(&mut poll, "stop instance", id).await?;
        }
    }

    /// `Stopped → Starting → Free`.
    async fn wake_instance(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        let held = self.instance_step(&held, &InstanceEvent::Wake { node: self.node.clone() }).await?;
        self.finish_wake(held).await
    }

    /// `Starting`, by us: start it, wait until it is ready and clean, show it. What fails is deleted.
    pub(crate) async fn finish_wake(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        match self.await_woken(&held.record.id).await {
            Ok(()) => self.set_free(held, InstanceEvent::Ready).await,
            Err(error) => {
                if let Err(left) = self.retire(held).await {
                    tracing::warn!(error = %crate::Report(&left), "an instance that did not wake could not be deleted yet");
                }
                Err(error)
            }
        }
    }

    async fn await_woken(&self, id: &InstanceId) -> Result<()> {
        let mut poll = Poll::new(self.config.limits.instance_ready);
        loop {
            self.check_in_touch("wake instance")?;
            let asked = match limited(poll.left(), "wake instance", id, self.instances.start(id)).await {
                Ok(InstanceView { state: InstanceState::Running, .. }) => break,
                Ok(InstanceView {
                    state:
                        InstanceState::Creating | InstanceState::Stopping | InstanceState::Stopped | InstanceState::Other(_),
                    ..
                }) => None,
                Ok(view) => {
                    let detail = format!("it was to start, and is {:?}", view.state);
                    return Err(Error::new(ErrorKind::Permanent, "wake instance", id).with_detail(detail));
                }
                Err(error) if passes(&error) || error.kind() == ErrorKind::Busy => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                return Err(self.not_in_time("wake instance", id));
            }
        }
        self.clear_before_use(id).await
    }

    /// Shows that nothing is left on a machine that served nobody since it was made or woken.
    pub(crate) async fn clear_before_use(&self, id: &InstanceId) -> Result<()> {
        let limit = self.config.limits.guest_call;
        match limited(limit, "clear instance", id, self.runtime.clear(id)).await? {
            Cleared::Clean => Ok(()),
            Cleared::Doubtful(why) => Err(Error::new(ErrorKind::Permanent, "clear instance", id).with_detail(why)),
        }
    }

    /// What becomes of a machine whose stopping another node began: the request may still be on its way.
    pub(crate) async fn abandon_stop(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        if planted::is(Bug::LateStopIsForgotten) {
            self.await_stopped(&held.record.id).await?;
            return self.instance_step(&held, &InstanceEvent::Stopped).await.map(drop);
        }
        self.retire(held).await
    }

    async fn look_again(
        &self,
        poll: &mut Poll,
        operation: &'static str,
        id: &InstanceId,
    ) -> Result<Option<InstanceView>> {
        let mut asked = None;
        loop {
            if !poll.again(asked).await {
                return Err(self.not_in_time(operation, id));
            }
            self.check_in_touch(operation)?;
            match limited(poll.left(), operation, id, self.instances.get(id)).await {
                Ok(view) => return Ok(view),
                Err(error) if passes(&error) => asked = error.retry_after(),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn not_in_time(&self, operation: &'static str, id: &InstanceId) -> Error {
        let detail = format!("not done within {:?}", self.config.limits.instance_ready);
        Error::new(ErrorKind::TimedOut, operation, id).with_detail(detail)
    }

    /// A step of an instance's status, out of the one that was read.
    ///
    /// That an instance is clean is said only of the very record that was there when it was looked at: whoever came too late may find it
    /// being cleaned by this node again, after another box. Every other status with this node at work is entered only by a task that has
    /// the instance to itself here ([`Shared::busy`]), so that it is found again only when nothing but an order came between.
    pub(crate) async fn instance_step(
        &self,
        held: &Held<InstanceRecord>,
        event: &InstanceEvent,
    ) -> Result<Held<InstanceRecord>> {
        let (id, key) = (&held.record.id, instance_key(&held.record.id));
        let illegal = |illegal| Error::new(ErrorKind::Conflict, "change instance", id).with_source(illegal);
        let anew = *event != InstanceEvent::Cleared || planted::is(Bug::ClearedBeforeItServed);
        let again = anew && held.record.status.worker() == Some(&self.node);
        let mut now = held.clone();
        loop {
            let record = now.record.after(event).map_err(illegal)?;
            match self.records.update(&key, &now.version, record).await {
                // Somebody gave an order about it, and this node is still the one at work on it.
                Err(error) if error.kind() == ErrorKind::Conflict && again => {
                    let found = self.records.get::<InstanceRecord>(&key).await?;
                    let same = |found: &Held<InstanceRecord>| {
                        found.record.id == *id
                            && found.record.status == held.record.status
                            && found.version != now.version
                    };
                    now = found.filter(same).ok_or(error)?;
                }
                answer => return answer,
            }
        }
    }
}
