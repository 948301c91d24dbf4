//! The volume pool: ready-made copies of the golden snapshot. Bound volumes are counted and otherwise left alone.

use crate::census::Census;
use crate::error::{Error, ErrorKind, Result};
use crate::free::CanBeFree;
use crate::id::Epoch;
use crate::plan::{Step, plan};
use crate::poll::Poll;
use crate::record::{BoxRecord, VolumeEvent, VolumeRecord, VolumeStatus};
use crate::records::{Held, volume_key};
use crate::shared::{Shared, limited};
use crate::stock::keep_some;
use crate::stock::upkeep::{AtRest, Upkeep};
use std::sync::Arc;
use tokio::time::Instant;

pub(crate) const VOLUMES: Upkeep = Upkeep {
    name: "volume",
    refill: |shared| &shared.refill_volumes,
    pace: |state| &mut state.volume_pace,
    // Who waits for a volume has one made.
    waiting: |_, _| 0,
};

impl Shared {
    /// A free volume, out of the index. A hint: the bind's compare-and-swap decides.
    pub(crate) fn take_volume(&self) -> Option<Held<VolumeRecord>> {
        let (id, free) = self.state().free_volumes.take()?;
        Some(VolumeRecord::whole(id, free, &self.config.volume_generation))
    }

    pub(crate) fn put_volume_back(&self, candidate: Held<VolumeRecord>) {
        if let Some((id, free)) = VolumeRecord::kept(candidate, &self.config.volume_generation) {
            self.state().free_volumes.insert(id, free, &self.random);
        }
    }

    /// Reads the volume table, and shows every record once: the free index follows.
    pub(crate) async fn read_volumes(&self, mut see: impl FnMut(&Held<VolumeRecord>)) -> Result<()> {
        let generation = &self.config.volume_generation;
        let mut free = Vec::new();
        let note = |_, held: Held<VolumeRecord>| {
            see(&held);
            if held.record.generation == *generation {
                free.extend(VolumeRecord::kept(held, generation));
            }
        };
        self.records.scan_each(None, note).await?;
        self.state().free_volumes.replace(free, &self.random);
        Ok(())
    }

    /// Keeps the volume pool at its target while this node is the maintainer.
    pub(crate) async fn maintain_volumes(self: Arc<Self>) {
        self.keep_up(&VOLUMES, |shared| async move { shared.maintain_volumes_once().await }).await;
    }

    /// One was bound for somebody who came.
    pub(crate) fn took_volume(&self) {
        self.took_one(&VOLUMES);
    }

    /// Takes all steps that follow from one count.
    async fn maintain_volumes_once(self: &Arc<Self>) -> Result<Option<AtRest>> {
        let generation = &self.config.volume_generation;
        let (mut counted, mut current, mut stale) = (Census::default(), Vec::new(), Vec::new());
        let begun = Instant::now();
        let count = |held: &Held<VolumeRecord>| {
            counted.add_volume(&held.record, generation);
            if held.record.status == VolumeStatus::Free {
                keep_some(if held.record.generation == *generation { &mut current } else { &mut stale }, held);
            }
        };
        self.read_volumes(count).await?;
        self.state().volume_pace.counted(counted.total, begun.elapsed());
        let target = self.config.volumes;
        let mut census = counted;
        self.state().volume_pace.tell(&mut census, &target);
        self.gauge("boxpool_volumes_free", census.free);
        self.gauge("boxpool_volumes_total", census.total);
        loop {
            let step = plan(census, target);
            match step {
                Step::Rest => return Ok(Some(AtRest { census, target })),
                // Of no use stopped: volumes cost the same whether or not anything runs.
                Step::Wake(_) | Step::Stop(_) | Step::RetireReserve(_) => return Ok(None),
                // Nothing to copy from yet.
                Step::Provision(_) if self.volume_source().is_err() => return Ok(None),
                Step::Provision(n) => {
                    for _ in 0..n.get() {
                        if self.state().volume_pace.making.allowed() == 0 {
                            return Ok(None);
                        }
                        self.make_volume().await?;
                        self.state().volume_pace.begun(1, &target);
                    }
                }
                Step::RetireStale(n) => self.discard_some(stale.iter(), n.get()),
                Step::Retire(n) => self.discard_some(current.iter(), n.get()),
            }
            census = census.after(step);
        }
    }

    fn discard_some<'a>(self: &Arc<Self>, from: impl Iterator<Item = &'a Held<VolumeRecord>>, n: u32) {
        for held in from.take(n as usize).cloned() {
            let Some(guard) = self.busy.enter(held.record.id.as_str()) else { continue };
            let shared = Arc::clone(self);
            self.spawn(async move {
                let _guard = guard;
                // Bound in the meantime: the compare-and-swap says so and it stays.
                if let Err(error) = shared.discard(held).await {
                    tracing::info!(error = %crate::Report(&error), "a volume was not retired");
                }
            });
        }
    }

    async fn make_volume(self: &Arc<Self>) -> Result<()> {
        self.check_in_touch("create volume")?;
        let id = self.new_volume_id()?;
        let Some(guard) = self.busy.enter(id.as_str()) else { return Ok(()) };
        let held = self.intend_volume(&id, None, None).await?;
        self.state().volume_pace.making.begun();
        let (shared, begun) = (Arc::clone(self), Instant::now());
        self.spawn(async move {
            let _guard = guard;
            let outcome = shared.finish_volume(held).await;
            let mut state = shared.state();
            match outcome {
                Ok(()) => state.volume_pace.making.succeeded(),
                Err(error) => {
                    tracing::warn!(error = %crate::Report(&error), "a volume could not be made");
                    metrics::counter!("boxpool_volumes_failed_total").increment(1);
                    state.volume_pace.making.failed(begun, &error);
                }
            }
        });
        Ok(())
    }

    /// `Creating` for the pool, by us: make it and show it. What fails is deleted: it never held a user's data.
    pub(crate) async fn finish_volume(self: &Arc<Self>, held: Held<VolumeRecord>) -> Result<()> {
        if let Err(error) = self.await_volume(&held.record).await {
            if let Err(left) = self.discard(held).await {
                tracing::warn!(error = %crate::Report(&left), "a failed volume could not be deleted yet");
            }
            return Err(error);
        }
        let held = self.volume_step(&held, &VolumeEvent::Ready).await?;
        self.put_volume_back(held);
        self.refill_volumes.notify_one();
        Ok(())
    }

    /// What no right line does: a user's volume becomes anybody's.
    pub(crate) async fn free_volume_of(&self, record: &BoxRecord) -> Result<()> {
        let key = volume_key(record.volume.volume());
        let Some(found) = self.records.get::<VolumeRecord>(&key).await? else { return Ok(()) };
        let freed = VolumeRecord { status: VolumeStatus::Free, ..found.record };
        self.records.update(&key, &found.version, freed).await?;
        Ok(())
    }

    /// Deletes a volume that was never bound.
    pub(crate) async fn discard(self: &Arc<Self>, held: Held<VolumeRecord>) -> Result<()> {
        let held = self.volume_step(&held, &VolumeEvent::Discard { node: self.node.clone() }).await?;
        self.state().free_volumes.remove(&held.record.id);
        self.finish_volume_delete(held).await
    }

    pub(crate) async fn volume_step(
        &self,
        held: &Held<VolumeRecord>,
        event: &VolumeEvent,
    ) -> Result<Held<VolumeRecord>> {
        let record = held.record.after(event).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, "change volume", &held.record.id).with_source(illegal)
        })?;
        self.records.update(&volume_key(&held.record.id), &held.version, record).await
    }

    /// `Deleting`, by us: the volume goes, then its record.
    pub(crate) async fn finish_volume_delete(&self, held: Held<VolumeRecord>) -> Result<()> {
        let id = &held.record.id;
        let limit = self.config.limits.volume_ready;
        let mut poll = Poll::new(limit);
        loop {
            self.check_in_touch("delete volume")?;
            let gone = match limited(poll.left(), "delete volume", id, self.volumes.delete(id)).await {
                Ok(()) => {
                    let found = limited(poll.left(), "find volume", id, self.volumes.get(id)).await;
                    found.map(|view| view.is_none())
                }
                Err(error) if error.kind() == ErrorKind::Busy => {
                    self.take_off_elsewhere(id, None, Epoch::LAST, poll.left()).await.map(|_| false)
                }
                Err(error) => Err(error),
            };
            let asked = match gone {
                Ok(true) => break,
                Ok(false) => None,
                Err(error) if error.is_retryable() => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("it is still there after {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "delete volume", id).with_detail(detail));
            }
        }
        self.records.delete(&volume_key(id), &held.version).await?;
        self.refill_volumes.notify_one();
        Ok(())
    }
}
