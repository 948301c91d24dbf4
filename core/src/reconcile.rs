//! Compare store and cloud, and drive every half-done thing forward or back.
//!
//! A pass takes no hints: it reads again, is safe to repeat and to run on every node at once, and does not retry inside;
//! the next pass is the retry. Whoever sweeps up after another acts with the epoch of the claim it sweeps.

use crate::actor::Message;
use crate::bound::{Bound, OrderedBound};
use crate::error::{ErrorKind, Result};
use crate::id::{BoxName, BoxRef, Epoch, InstanceId, NodeId, SnapshotId, UserId, VolumeId};
use crate::known::{Known, OrderedKnown};
use crate::planted::{self, Bug};
use crate::provider::{InstanceState, VolumeState};
use crate::reads::{LastReading, Reads};
use crate::record::{
    BoxRecord, Envelope, EventKind, EventRecord, InstanceEvent, InstanceRecord, InstanceStatus, Mode, Placement,
    VolumeEvent, VolumeRecord, VolumeStatus,
};
use crate::records::{Held, box_key, instance_key, volume_key};
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

/// What one node remembers between passes: only when it first saw something, never what to do.
#[derive(Default)]
struct Memory {
    /// Boxes in a step of another node, found by the census; looked at in every pass until they are at rest.
    suspects: BTreeSet<(crate::UserId, crate::BoxName)>,
    /// Resources without a record, and since when.
    orphans: BTreeMap<String, Instant>,
    /// The same of snapshots of boxes.
    stray_snapshots: BTreeMap<SnapshotId, Instant>,
    pass: LastReading,
    census: LastReading,
}

/// What a look at the instance table shows beside what is half-done there.
#[derive(Default)]
struct Machines {
    reads: Reads,
    /// Which there are.
    known: Known,
    stock: Stock,
}

/// What is expected of the machines that no box is on: whether it is stopped, in the reserve, or runs. No more than the stock is here,
/// however many machines serve boxes.
type Stock = BTreeMap<InstanceId, InstanceStatus>;

impl Shared {
    pub(crate) async fn reconcile(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut last_census: Option<Instant> = None;
        loop {
            let census_due = last_census.is_none_or(|last| last.elapsed() >= self.config.census_every)
                && memory.census.is_over(self.rest_after(memory.census.reads));
            let outcome = self.pass(&mut memory, census_due).await;
            match outcome {
                Ok(()) if census_due => last_census = Some(Instant::now()),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(error = %crate::Report(&error), "reconcile did not finish; the next pass tries again");
                }
            }
            tokio::time::sleep(self.config.reconcile_every).await;
            self.rest_after_pass(&memory.pass).await;
        }
    }

    /// Waits until as much may be read again, or something has happened that is not to wait for so long.
    async fn rest_after_pass(&self, pass: &LastReading) {
        let rest = self.rest_after(pass.reads);
        self.gauge("boxpool_pass_interval_seconds", rest.max(self.config.reconcile_every).as_secs_f64());
        let next = pass.next(rest);
        let Some(next) = next.filter(|next| *next > Instant::now()) else { return };
        tokio::select! {
            biased;
            () = self.look_now.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }

    async fn pass(self: &Arc<Self>, memory: &mut Memory, census: bool) -> Result<()> {
        self.check_in_touch("reconcile")?;
        memory.pass.begin();
        let machines = self.look_at_instances(census).await?;
        memory.pass.reads = machines.reads;
        if census {
            memory.census.begin();
            self.take_census(memory, machines).await?;
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

    /// Looks at every instance, page by page; tells which there are and which are stock, if that is wanted. The index follows also when a
    /// look fails.
    async fn look_at_instances(self: &Arc<Self>, tell: bool) -> Result<Machines> {
        let (mut machines, mut looked) = (Machines::default(), Ok(()));
        let mut unseen = self.served();
        let mut reading = self.begin_reading(true);
        while let Some(page) = self.read_instances(&mut reading).await? {
            for (held, owner) in page {
                if let Some(found) = owner.as_ref().filter(|found| self.holds_running(&found.record)) {
                    let key = (found.record.owner.owner.clone(), found.record.owner.name.clone());
                    if unseen.get(&key) == Some(&found.record.epoch) {
                        unseen.remove(&key);
                    }
                }
                if looked.is_ok() {
                    looked = self.look_at_instance(&held, owner.as_ref()).await;
                }
                let of_stock = matches!(held.record.status, InstanceStatus::Free | InstanceStatus::Stopped);
                if tell {
                    machines.known.add(held.record.id.as_str());
                    if of_stock {
                        machines.stock.insert(held.record.id, held.record.status);
                    }
                }
            }
        }
        machines.reads = reading.reads();
        self.look_at_parked();
        for key in unseen.keys().filter(|key| self.has_actor(key) && !planted::is(Bug::HoldTakenForGranted)) {
            self.tell(key, Message::Verify);
        }
        looked.map(|()| machines)
    }

    /// Looks at every volume and box, at the cloud's own lists, and at snapshots.
    async fn take_census(self: &Arc<Self>, memory: &mut Memory, machines: Machines) -> Result<()> {
        // Volumes before boxes: a box names its volume before the volume is bound to it, and never names it again once it
        // has named another. So a bound volume that its box does not name then is not, and will not be, its box's.
        let (mut bound, mut in_a_step) = (Bound::default(), Vec::new());
        let (mut known, mut reads) = (Known::default(), Reads::default());
        let see = |held: &Held<VolumeRecord>| {
            reads.add_on_page(1);
            known.add(held.record.id.as_str());
            match &held.record.status {
                VolumeStatus::Bound { owner } => bound.add(&held.record.id, owner),
                status if status.worker().is_some() => in_a_step.push(held.clone()),
                _ => {}
            }
        };
        self.read_volumes(see).await?;
        let mut bound = bound.ordered();
        memory.suspects = self.census_boxes(&mut bound, &mut reads).await?;
        memory.census.reads = reads;
        for held in &in_a_step {
            self.look_at_volume(held).await?;
        }
        for id in bound.unnamed() {
            if !self.is_paused() {
                self.look_at_widowed(&id).await?;
            }
        }
        if !self.is_paused() {
            self.look_for_orphans(memory, machines, &known.ordered()).await?;
        }
        if let Err(error) = self.look_at_snapshots(&mut memory.stray_snapshots).await {
            tracing::warn!(error = %crate::Report(&error), "snapshots were not looked at; the next census tries again");
        }
        Ok(())
    }

    fn holds_running(&self, record: &BoxRecord) -> bool {
        matches!(record.placement, Placement::Running { .. }) && record.holders.contains(&self.node)
    }

    /// A box whose step or sessions may be nobody's any more.
    fn look_at_box(self: &Arc<Self>, record: &BoxRecord) {
        let key = (record.owner.owner.clone(), record.owner.name.clone());
        let left_by_us = |node: &NodeId| *node == self.node && !self.has_actor(&key);
        let forgotten = match &record.placement {
            Placement::Detached => false,
            Placement::Parked { since, .. } => self.parked_for(&record.owner, *since) >= self.config.park_limit,
            Placement::Running { .. } => {
                record.holders.is_empty() && record.mode == Mode::SuspendOnLeave
                    || record.holders.iter().any(|holder| self.is_dead(holder) || left_by_us(holder))
            }
            Placement::Placing { node, .. }
            | Placement::Suspending { node, .. }
            | Placement::Detaching { node, .. }
            | Placement::Deleting { node, .. }
            | Placement::Renaming { node, .. } => self.is_dead(node) || left_by_us(node),
            Placement::Arriving { .. } => true,
        };
        let failed = planted::is(Bug::FailureLeavesStep) && matches!(record.placement, Placement::Placing { .. });
        let nobody = planted::is(Bug::NoRecoveryOfBoxes) || failed;
        if forgotten && !nobody {
            self.tell(&key, Message::Recover);
        }
    }

    /// A box that is to run without a session. The maintainer alone looks, with each census: one look is enough.
    fn look_at_kept(self: &Arc<Self>, record: &BoxRecord) {
        let kept = record.mode == Mode::KeepRunning && record.holders.is_empty() && record.placement.worker().is_none();
        let kept = kept && record.hold.is_none();
        if kept && self.is_maintainer() && !self.is_draining() && !planted::is(Bug::KeptStaysDown) {
            self.tell(&(record.owner.owner.clone(), record.owner.name.clone()), Message::KeepUp);
        }
    }

    /// A box whose owner cannot have it back any more.
    fn look_at_deleted(self: &Arc<Self>, record: &BoxRecord) {
        let at_rest = record.placement.worker().is_none();
        if self.is_over(record) && at_rest && self.is_maintainer() && !self.is_paused() {
            self.tell(&(record.owner.owner.clone(), record.owner.name.clone()), Message::Purge);
        }
    }

    async fn look_at_instance(
        self: &Arc<Self>,
        held: &Held<InstanceRecord>,
        owner: Option<&Held<BoxRecord>>,
    ) -> Result<()> {
        let id = held.record.id.clone();
        match &held.record.status {
            InstanceStatus::Free | InstanceStatus::Stopped if held.record.is_draining() => {
                // It was to be emptied, and is.
                self.retire_some(std::iter::once(held), 1);
                Ok(())
            }
            InstanceStatus::Free | InstanceStatus::Stopped | InstanceStatus::Quarantined { .. } => Ok(()),
            InstanceStatus::Claimed { owner: claimed_by, epoch } => {
                // The instance was read before the box, and a box names its instance before it claims it. So when the
                // box names another one, or none, this claim is over.
                let serves = owner.is_some_and(|found| {
                    found.record.owner == *claimed_by && found.record.placement.instance() == Some(&id)
                });
                match owner {
                    Some(found) if serves => {
                        self.look_at_box(&found.record);
                        if held.record.is_draining() && !planted::is(Bug::DrainAsksNobody) {
                            let BoxRef { owner, name, .. } = claimed_by.clone();
                            self.tell(&(owner, name), Message::Yield);
                        }
                    }
                    _ => self.sweep_claim(held, claimed_by, *epoch).await?,
                }
                Ok(())
            }
            InstanceStatus::Provisioning { node }
            | InstanceStatus::Recycling { node }
            | InstanceStatus::Stopping { node }
            | InstanceStatus::Starting { node }
            | InstanceStatus::Deleting { node } => {
                if planted::is(Bug::NoRecoveryOfInstances) {
                    return Ok(());
                }
                if *node != self.node && !self.is_dead(node) {
                    return Ok(());
                }
                // Our own may be under way.
                let Some(guard) = self.busy.enter(id.as_str()) else { return Ok(()) };
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

    /// Goes on with what a dead node began.
    async fn finish_instance(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        if matches!(held.record.status, InstanceStatus::Deleting { .. }) {
            return self.retire(held).await;
        }
        if matches!(held.record.status, InstanceStatus::Stopping { .. }) {
            return self.abandon_stop(held).await;
        }
        let from_another = held.record.status.worker() != Some(&self.node);
        let event = InstanceEvent::TakeOver { node: self.node.clone() };
        let Ok(record) = held.record.after(&event) else { return Ok(()) };
        let held = self.records.update(&instance_key(&held.record.id), &held.version, record).await?;
        if from_another {
            metrics::counter!("boxpool_takeovers_total", "of" => "instance").increment(1);
        }
        match held.record.status {
            InstanceStatus::Recycling { .. } => self.try_recycle(held).await,
            InstanceStatus::Starting { .. } => self.finish_wake(held).await,
            _ => self.finish_provision(held).await,
        }
    }

    /// A claim whose box is elsewhere, nowhere or gone.
    async fn sweep_claim(
        self: &Arc<Self>,
        held: &Held<InstanceRecord>,
        claimed_by: &BoxRef,
        epoch: Epoch,
    ) -> Result<()> {
        if planted::is(Bug::NoSweep) {
            return Ok(());
        }
        let Some(guard) = self.busy.enter(held.record.id.as_str()) else { return Ok(()) };
        let event = InstanceEvent::Release { owner: claimed_by.clone(), epoch, node: self.node.clone() };
        let Ok(record) = held.record.after(&event) else { return Ok(()) };
        match self.records.update(&instance_key(&held.record.id), &held.version, record).await {
            Ok(held) => {
                tracing::warn!(instance = %held.record.id, box_ = %claimed_by, %epoch, "a claim that no box stands for was released");
                metrics::counter!("boxpool_claims_swept_total").increment(1);
                // What may still be there is looked at; on doubt the machine goes. A volume is never touched.
                self.recycle(held, guard);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Looks at every box, says of each that it names its volume, and tells which are in a step.
    async fn census_boxes(
        self: &Arc<Self>,
        bound: &mut OrderedBound,
        reads: &mut Reads,
    ) -> Result<BTreeSet<(UserId, BoxName)>> {
        let mut in_a_step = BTreeSet::new();
        let (mut expected, now) = (self.expect(), self.now());
        let see = |_, held: Held<BoxRecord>| {
            let record = held.record;
            reads.add_on_page(1);
            self.look_at_box(&record);
            self.look_at_kept(&record);
            self.look_at_deleted(&record);
            expected.look_at(&record, &*self.policy, now);
            bound.named(record.volume.volume(), &record.owner);
            if record.placement.worker().is_some() {
                in_a_step.insert((record.owner.owner, record.owner.name));
            }
        };
        self.records.scan_each(None, see).await?;
        self.note_expected(expected);
        Ok(in_a_step)
    }

    /// A volume that is bound to a box which is not there or has another: the box was deleted, or two nodes were making it at
    /// once. Such a volume was never attached; one that was is never touched.
    async fn look_at_widowed(self: &Arc<Self>, id: &VolumeId) -> Result<()> {
        if planted::is(Bug::UndoForgetsVolume) {
            return Ok(());
        }
        let Some(held) = self.records.get::<VolumeRecord>(&volume_key(id)).await? else { return Ok(()) };
        let VolumeStatus::Bound { owner } = &held.record.status else { return Ok(()) };
        let found = self.records.get::<BoxRecord>(&box_key(&owner.owner, &owner.name)).await?;
        if found.is_some_and(|found| found.record.owner == *owner && found.record.volume.volume() == id) {
            return Ok(());
        }
        // Its box may have changed its name since the volume was read.
        let now = self.records.get::<VolumeRecord>(&volume_key(id)).await?;
        if now.is_none_or(|now| now.version != held.version) {
            return Ok(());
        }
        let used = self.volumes.get(id).await?.is_some_and(|view| view.used && !planted::is(Bug::WidowedUsedIsDeleted));
        if used {
            tracing::error!(volume = %id, %owner, "a volume may hold data of a box that does not name it; it is kept for a person to look at");
            return Ok(());
        }
        let Some(guard) = self.busy.enter(id.as_str()) else { return Ok(()) };
        let event = VolumeEvent::DeletedByOwner { owner: owner.clone(), node: self.node.clone() };
        let shared = Arc::clone(self);
        self.spawn(async move {
            let _guard = guard;
            let outcome = match shared.volume_step(&held, &event).await {
                Ok(held) => shared.finish_volume_delete(held).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::info!(error = %crate::Report(&error), "a volume that no box names was not deleted; the next census tries again");
            }
        });
        Ok(())
    }

    async fn look_at_volume(self: &Arc<Self>, held: &Held<VolumeRecord>) -> Result<()> {
        let Some(node) = held.record.status.worker() else { return Ok(()) };
        if planted::is(Bug::NoRecoveryOfVolumes) || planted::is(Bug::UndoForgetsVolume) {
            return Ok(());
        }
        if *node != self.node && !self.is_dead(node) {
            return Ok(());
        }
        if let VolumeStatus::Creating { wanted_by: Some(owner), .. } = &held.record.status {
            let key = box_key(&owner.owner, &owner.name);
            let found = self.records.get::<BoxRecord>(&key).await?;
            let wanted = found.is_some_and(|found| {
                found.record.owner == *owner
                    && *found.record.volume.volume() == held.record.id
                    && !matches!(found.record.placement, Placement::Deleting { .. })
            });
            if wanted {
                // Its box goes on with it; that is where the volume's name is.
                self.tell(&(owner.owner.clone(), owner.name.clone()), Message::Recover);
                return Ok(());
            }
        }
        let Some(guard) = self.busy.enter(held.record.id.as_str()) else { return Ok(()) };
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
    /// one that stays without a record for the grace time is nobody's. What this census has seen a record of is not asked about again.
    async fn look_for_orphans(
        self: &Arc<Self>,
        memory: &mut Memory,
        machines: Machines,
        volumes: &OrderedKnown,
    ) -> Result<()> {
        let (mut stock, machines) = (machines.stock, machines.known.ordered());
        let grace = planted::grace(self.config.orphan_grace);
        let building = self.golden_is_being_built().await?;
        let scratch = |name: &str| self.is_scratch(name);
        let in_use = |name: &str| building && scratch(name);
        let mut seen = BTreeMap::new();
        let mut cursor = None;
        loop {
            let page = self.instances.list(cursor.as_ref()).await?;
            memory.census.reads.add_on_page(page.items.len());
            for view in page.items {
                if !matches!(view.state, InstanceState::Deleting)
                    && !in_use(view.id.as_str())
                    && !machines.has(view.id.as_str())
                    && !self.has_instance_record(&view.id).await?
                {
                    let since = memory.orphans.get(view.id.as_str()).copied().unwrap_or_else(Instant::now);
                    seen.insert(view.id.as_str().to_owned(), since);
                    if since.elapsed() >= grace {
                        self.sweep_orphan_instance(&view.id).await;
                    }
                }
                if stock.get(&view.id).is_some_and(|status| is_as_expected(status, &view.state)) {
                    stock.remove(&view.id);
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        self.look_for_dead_machines(&stock).await?;
        let mut cursor = None;
        loop {
            let page = self.volumes.list(cursor.as_ref()).await?;
            memory.census.reads.add_on_page(page.items.len());
            for view in page.items {
                if !matches!(view.state, VolumeState::Deleting)
                    && !in_use(view.id.as_str())
                    && !volumes.has(view.id.as_str())
                    && !self.has_volume_record(&view.id).await?
                {
                    let since = memory.orphans.get(view.id.as_str()).copied().unwrap_or_else(Instant::now);
                    seen.insert(view.id.as_str().to_owned(), since);
                    if since.elapsed() >= grace {
                        let used = view.used && !scratch(view.id.as_str()) && !planted::is(Bug::OrphanSweepTakesUsed);
                        self.sweep_orphan_volume(&view.id, used).await;
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

    /// Free instances whose machine is gone, stopped or broken: nobody would notice until a box came to them. And machines of the
    /// reserve that are gone, or run: a late request started them, and nobody would notice until the bill came. Given are those that the listing does
    /// not show as they should be. That is a hint; only what `get` says counts.
    async fn look_for_dead_machines(self: &Arc<Self>, doubtful: &Stock) -> Result<()> {
        if planted::is(Bug::FreeIsNeverLookedAt) {
            return Ok(());
        }
        for (id, status) in doubtful {
            let reserve = *status == InstanceStatus::Stopped;
            let wrong = match self.instances.get(id).await?.map(|view| view.state) {
                None | Some(InstanceState::Deleting | InstanceState::Failed(_)) => true,
                Some(InstanceState::Running) => reserve,
                Some(InstanceState::Stopped) => !reserve,
                Some(InstanceState::Creating | InstanceState::Stopping | InstanceState::Other(_)) => false,
            };
            if !wrong {
                continue;
            }
            // Claimed in the meantime: it stays, and its box finds out.
            let found = self.records.get::<InstanceRecord>(&instance_key(id)).await?;
            let found = found.filter(|held| held.record.id == *id && held.record.status == *status);
            if self.retire_some(found.iter(), 1) > 0 {
                tracing::warn!(instance = %id, is = status.word(), "an instance is not what its record says and is retired");
                metrics::counter!("boxpool_instances_lost_total").increment(1);
            }
        }
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
            source: None,
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

/// Whether a machine of the stock is what the listing says.
fn is_as_expected(status: &InstanceStatus, listed: &InstanceState) -> bool {
    let expected = if *status == InstanceStatus::Stopped { InstanceState::Stopped } else { InstanceState::Running };
    *listed == expected
}
