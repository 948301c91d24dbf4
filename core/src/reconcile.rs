//! Compare store and cloud, and drive every half-done thing forward or back.
//!
//! A pass takes no hints: it reads again, is safe to repeat and to run on every node at once, and does not retry inside;
//! the next pass is the retry. Whoever sweeps up after another acts with the epoch of the claim it sweeps.

use crate::actor::Message;
use crate::error::{ErrorKind, Result};
use crate::id::{BoxRef, Epoch, InstanceId, NodeId, VolumeId};
use crate::provider::{InstanceState, VolumeState};
use crate::record::{
    BoxRecord, Envelope, EventKind, EventRecord, InstanceEvent, InstanceRecord, InstanceStatus, Placement,
    VolumeRecord, VolumeStatus,
};
use crate::records::{Held, box_key, instance_key, volume_key};
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// What one node remembers between passes: only when it first saw something, never what to do.
#[derive(Default)]
struct Memory {
    /// Boxes in a step of another node, found by the census; looked at in every pass until they are at rest.
    suspects: BTreeSet<(crate::UserId, crate::BoxName)>,
    /// Resources without a record, and since when.
    orphans: BTreeMap<String, Instant>,
}

/// Instances and volumes that a task of this node is finishing.
#[derive(Default)]
struct Busy(Mutex<BTreeSet<String>>);

impl Busy {
    fn enter(self: &Arc<Self>, id: &str) -> Option<BusyGuard> {
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        fresh.then(|| BusyGuard { busy: Arc::clone(self), id: id.to_owned() })
    }
}

struct BusyGuard {
    busy: Arc<Busy>,
    id: String,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.busy.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Shared {
    pub(crate) async fn reconcile(self: Arc<Self>) {
        let mut memory = Memory::default();
        let busy = Arc::new(Busy::default());
        let mut last_census: Option<Instant> = None;
        loop {
            let census_due = last_census.is_none_or(|last| last.elapsed() >= self.config.census_every);
            let outcome = self.pass(&mut memory, &busy, census_due).await;
            match outcome {
                Ok(()) if census_due => last_census = Some(Instant::now()),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(error = %crate::Report(&error), "reconcile did not finish; the next pass tries again");
                }
            }
            tokio::time::sleep(self.config.reconcile_every).await;
        }
    }

    async fn pass(self: &Arc<Self>, memory: &mut Memory, busy: &Arc<Busy>, census: bool) -> Result<()> {
        self.check_in_touch("reconcile")?;
        let seen = self.read_instances().await?;
        for (held, owner) in &seen {
            self.look_at_instance(held, owner.as_ref(), busy).await?;
        }
        if census {
            memory.suspects = self.census_boxes().await?;
            let volumes = self.read_volumes().await?;
            for held in &volumes {
                self.look_at_volume(held, busy).await?;
            }
            self.look_for_orphans(memory).await?;
        }
        let mut suspects = std::mem::take(&mut memory.suspects);
        let mut at_rest = Vec::new();
        for (user, name) in &suspects {
            match self.records.get::<BoxRecord>(&box_key(user, name)).await? {
                Some(found) if found.record.placement.worker().is_some() => self.look_at_box(&found.record),
                _ => at_rest.push((user.clone(), name.clone())),
            }
        }
        suspects.retain(|key| !at_rest.contains(key));
        memory.suspects = suspects;
        Ok(())
    }

    /// A box whose step or sessions may be nobody's any more.
    fn look_at_box(self: &Arc<Self>, record: &BoxRecord) {
        let key = (record.owner.owner.clone(), record.owner.name.clone());
        let left_by_us = |node: &NodeId| *node == self.node && !self.has_actor(&key);
        let forgotten = match &record.placement {
            Placement::Detached => false,
            Placement::Parked { since, .. } => self.now().since(*since) >= self.config.park_limit,
            Placement::Running { .. } => {
                record.holders.is_empty() && record.mode == crate::record::Mode::SuspendOnLeave
                    || record.holders.iter().any(|holder| self.is_dead(holder) || left_by_us(holder))
            }
            Placement::Placing { node, .. }
            | Placement::Suspending { node, .. }
            | Placement::Detaching { node, .. }
            | Placement::Deleting { node, .. } => self.is_dead(node) || left_by_us(node),
        };
        if forgotten {
            self.tell(&key, Message::Recover);
        }
    }

    async fn look_at_instance(
        self: &Arc<Self>,
        held: &Held<InstanceRecord>,
        owner: Option<&Held<BoxRecord>>,
        busy: &Arc<Busy>,
    ) -> Result<()> {
        let id = held.record.id.clone();
        match &held.record.status {
            InstanceStatus::Free | InstanceStatus::Stopped | InstanceStatus::Quarantined { .. } => Ok(()),
            InstanceStatus::Claimed { owner: claimed_by, epoch } => {
                // The instance was read before the box, and a box names its instance before it claims it. So when the
                // box names another one, or none, this claim is over.
                let serves = owner.is_some_and(|found| {
                    found.record.owner == *claimed_by && found.record.placement.instance() == Some(&id)
                });
                match owner {
                    Some(found) if serves => self.look_at_box(&found.record),
                    _ => self.sweep_claim(held, claimed_by, *epoch, busy).await?,
                }
                Ok(())
            }
            InstanceStatus::Provisioning { node }
            | InstanceStatus::Recycling { node }
            | InstanceStatus::Starting { node }
            | InstanceStatus::Deleting { node } => {
                if *node != self.node && !self.is_dead(node) {
                    return Ok(());
                }
                // Our own may just be under way; the version tells: a task that is still at it makes ours conflict.
                if *node == self.node && self.records_age(held) < self.config.limits.instance_ready {
                    return Ok(());
                }
                let Some(guard) = busy.enter(id.as_str()) else { return Ok(()) };
                let shared = Arc::clone(self);
                let held = held.clone();
                self.spawn(async move {
                    let _guard = guard;
                    if let Err(error) = shared.finish_instance(held).await {
                        tracing::info!(instance = %id, error = %crate::Report(&error), "an instance's step was not finished; the next pass tries again");
                    }
                });
                Ok(())
            }
        }
    }

    fn records_age(&self, held: &Held<InstanceRecord>) -> std::time::Duration {
        self.now().since(held.record.created_at)
    }

    /// Goes on with what a dead node began.
    async fn finish_instance(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        if matches!(held.record.status, InstanceStatus::Deleting { .. }) {
            return self.retire(held).await;
        }
        let event = InstanceEvent::TakeOver { node: self.node.clone() };
        let Ok(record) = held.record.after(&event) else { return Ok(()) };
        let held = self.records.update(&instance_key(&held.record.id), &held.version, record).await?;
        metrics::counter!("boxpool_takeovers_total").increment(1);
        match held.record.status {
            InstanceStatus::Recycling { .. } => self.try_recycle(held, false).await,
            _ => self.finish_provision(held).await,
        }
    }

    /// A claim whose box is elsewhere, nowhere or gone.
    async fn sweep_claim(
        self: &Arc<Self>,
        held: &Held<InstanceRecord>,
        claimed_by: &BoxRef,
        epoch: Epoch,
        busy: &Arc<Busy>,
    ) -> Result<()> {
        let Some(_guard) = busy.enter(held.record.id.as_str()) else { return Ok(()) };
        let event = InstanceEvent::Release { owner: claimed_by.clone(), node: self.node.clone() };
        let Ok(record) = held.record.after(&event) else { return Ok(()) };
        match self.records.update(&instance_key(&held.record.id), &held.version, record).await {
            Ok(held) => {
                tracing::warn!(instance = %held.record.id, box_ = %claimed_by, %epoch, "a claim that no box stands for was released");
                metrics::counter!("boxpool_claims_swept_total").increment(1);
                // What may still be there is looked at; on doubt the machine goes. A volume is never touched.
                self.recycle(held, false);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn census_boxes(self: &Arc<Self>) -> Result<BTreeSet<(crate::UserId, crate::BoxName)>> {
        let mut suspects = BTreeSet::new();
        let mut cursor = None;
        loop {
            let page = self.records.scan::<BoxRecord>(None, cursor.as_ref()).await?;
            for (_, held) in page.items {
                self.look_at_box(&held.record);
                if held.record.placement.worker().is_some() {
                    suspects.insert((held.record.owner.owner.clone(), held.record.owner.name.clone()));
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(suspects),
            }
        }
    }

    async fn look_at_volume(self: &Arc<Self>, held: &Held<VolumeRecord>, busy: &Arc<Busy>) -> Result<()> {
        let Some(node) = held.record.status.worker() else { return Ok(()) };
        let young = self.now().since(held.record.created_at) < self.config.limits.volume_ready;
        let ours = *node == self.node;
        if ours && young || !ours && !self.is_dead(node) {
            return Ok(());
        }
        if let VolumeStatus::Creating { wanted_by: Some(owner), .. } = &held.record.status {
            // Its box, when it still wants it, finishes it at the next connect; else nobody ever will.
            let key = box_key(&owner.owner, &owner.name);
            let found = self.records.get::<BoxRecord>(&key).await?;
            if found
                .is_some_and(|found| found.record.owner == *owner && *found.record.volume.volume() == held.record.id)
            {
                return Ok(());
            }
        }
        let Some(guard) = busy.enter(held.record.id.as_str()) else { return Ok(()) };
        let (shared, held) = (Arc::clone(self), held.clone());
        self.spawn(async move {
            let _guard = guard;
            if let Err(error) = shared.finish_volume_step(held).await {
                tracing::info!(error = %crate::Report(&error), "a volume's step was not finished; the next pass tries again");
            }
        });
        Ok(())
    }

    async fn finish_volume_step(self: &Arc<Self>, held: Held<VolumeRecord>) -> Result<()> {
        use crate::record::VolumeEvent;
        match &held.record.status {
            VolumeStatus::Creating { wanted_by: Some(_), .. } => self.discard(held).await,
            VolumeStatus::Creating { wanted_by: None, .. } => {
                let held = self.volume_step(&held, &VolumeEvent::TakeOver { node: self.node.clone() }).await?;
                self.finish_volume(held).await
            }
            VolumeStatus::Deleting { .. } => {
                let held = self.volume_step(&held, &VolumeEvent::TakeOver { node: self.node.clone() }).await?;
                self.finish_volume_delete(held).await
            }
            VolumeStatus::Free | VolumeStatus::Bound { .. } | VolumeStatus::Quarantined { .. } => Ok(()),
        }
    }

    /// Cloud resources without a record. A record is written before its resource is made and deleted after it is gone, so
    /// one that stays without a record for the grace time is nobody's.
    async fn look_for_orphans(self: &Arc<Self>, memory: &mut Memory) -> Result<()> {
        let mut seen = BTreeMap::new();
        let mut cursor = None;
        loop {
            let page = self.instances.list(cursor.as_ref()).await?;
            for view in page.items {
                if !matches!(view.state, InstanceState::Deleting) && !self.has_instance_record(&view.id).await? {
                    let since = memory.orphans.get(view.id.as_str()).copied().unwrap_or_else(Instant::now);
                    seen.insert(view.id.as_str().to_owned(), since);
                    if since.elapsed() >= self.config.orphan_grace {
                        self.sweep_orphan_instance(&view.id).await;
                    }
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let mut cursor = None;
        loop {
            let page = self.volumes.list(cursor.as_ref()).await?;
            for view in page.items {
                if !matches!(view.state, VolumeState::Deleting) && !self.has_volume_record(&view.id).await? {
                    let since = memory.orphans.get(view.id.as_str()).copied().unwrap_or_else(Instant::now);
                    seen.insert(view.id.as_str().to_owned(), since);
                    if since.elapsed() >= self.config.orphan_grace {
                        self.sweep_orphan_volume(&view.id, view.used).await;
                    }
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        memory.orphans = seen;
        Ok(())
    }

    async fn has_instance_record(&self, id: &InstanceId) -> Result<bool> {
        let found = self.records.get::<InstanceRecord>(&instance_key(id)).await?;
        Ok(found.is_some_and(|found| found.record.id == *id))
    }

    async fn has_volume_record(&self, id: &VolumeId) -> Result<bool> {
        Ok(self.records.get::<VolumeRecord>(&volume_key(id)).await?.is_some())
    }

    async fn sweep_orphan_instance(&self, id: &InstanceId) {
        tracing::warn!(instance = %id, "an instance without a record is deleted");
        metrics::counter!("boxpool_orphans_total", "of" => "instance").increment(1);
        if let Err(error) = self.instances.delete(id).await {
            tracing::warn!(instance = %id, error = %crate::Report(&error), "it could not be deleted; the next census tries again");
        }
    }

    /// One that never held a user's data is deleted; one that may have is set aside and reported, never deleted.
    async fn sweep_orphan_volume(self: &Arc<Self>, id: &VolumeId, used: bool) {
        metrics::counter!("boxpool_orphans_total", "of" => "volume").increment(1);
        let why = "it has no record and may hold a user's data";
        let status = if used {
            VolumeStatus::Quarantined { why: why.into() }
        } else {
            VolumeStatus::Deleting { node: self.node.clone() }
        };
        let record = VolumeRecord {
            id: id.clone(),
            status,
            generation: String::new(),
            created_at: self.now(),
            envelope: Envelope::new(),
        };
        let held = match self.records.insert(&volume_key(id), record).await {
            Ok(held) => held,
            Err(error) => {
                tracing::info!(volume = %id, error = %crate::Report(&error), "an orphan volume was left for the next census");
                return;
            }
        };
        if used {
            tracing::error!(volume = %id, "a volume was set aside: {why}");
            let detail = why.to_owned();
            self.log(EventRecord { volume: Some(id.clone()), detail, ..self.event(EventKind::Quarantined) });
        } else if let Err(error) = self.finish_volume_delete(held).await {
            tracing::warn!(volume = %id, error = %crate::Report(&error), "an orphan volume could not be deleted yet");
        }
    }
}
