//! The golden snapshot that this node's volumes are copied from: built once by one node, checked by each, retired when no
//! live node wants it.
//!
//! `Building`, by a node that dies: the next pass of any other node that wants the same generation takes over and goes on.
//! `Ready`, damaged: retired, deleted and built anew under another name. `Retired`, and whoever retired it dies: the
//! maintainer of the day deletes it.

use crate::error::{Error, ErrorKind, Result};
use crate::golden::{GoldenBuilder, Permit};
use crate::id::SnapshotId;
use crate::planted::{self, Bug};
use crate::provider::VolumeSource;
use crate::record::{Envelope, GoldenEvent, GoldenRecord, GoldenState, NodeRecord, VolumeRecord, VolumeStatus};
use crate::records::{Held, golden_key};
use crate::shared::{Shared, limited};
use crate::stock::Attempts;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

impl Shared {
    /// What a new volume is filled with.
    pub(crate) fn volume_source(&self) -> Result<VolumeSource> {
        if self.golden.is_none() {
            return Ok(self.config.volume_source.clone());
        }
        if let Some(snapshot) = self.state().golden.clone() {
            return Ok(VolumeSource::Snapshot(snapshot));
        }
        let detail = "the golden snapshot is still being built; try again in a while";
        Err(Error::new(ErrorKind::Unavailable, "create volume", &self.config.volume_generation).with_detail(detail))
    }

    /// Sees to it that the golden snapshot is there, and that those of other generations go when nobody wants them.
    pub(crate) async fn keep_golden(self: Arc<Self>) {
        let Some(builder) = self.golden.clone() else { return std::future::pending().await };
        let mut attempts = Attempts::default();
        let mut swept: Option<Instant> = None;
        loop {
            let paused = self.is_paused();
            if attempts.allowed() > 0 && !paused {
                let begun = Instant::now();
                match self.provide_golden(&*builder).await {
                    Ok(()) => attempts.succeeded(),
                    Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Fenced) => {}
                    Err(error) => {
                        tracing::warn!(error = %crate::Report(&error), "the golden snapshot is not there yet; trying again");
                        attempts.failed(begun, &error);
                    }
                }
            }
            if self.is_maintainer() && !paused && swept.is_none_or(|last| last.elapsed() >= self.config.census_every) {
                swept = Some(Instant::now());
                if let Err(error) = self.retire_goldens(&*builder).await {
                    tracing::warn!(error = %crate::Report(&error), "old golden snapshots: this pass failed; the next one tries again");
                }
            }
            tokio::time::sleep(self.config.reconcile_every).await;
        }
    }

    /// One step towards a golden snapshot that this node may use.
    async fn provide_golden(self: &Arc<Self>, builder: &dyn GoldenBuilder) -> Result<()> {
        self.check_in_touch("provide golden snapshot")?;
        let key = golden_key(builder.generation());
        let Some(held) = self.records.get::<GoldenRecord>(&key).await? else {
            let record = GoldenRecord {
                generation: builder.generation().to_owned(),
                state: GoldenState::Building { node: self.node.clone(), snapshot: snapshot_id(builder, 1)? },
                build: 1,
                created_at: self.now(),
                envelope: Envelope::new(),
            };
            let held = self.records.insert(&key, record).await.map_err(lost_race)?;
            return self.build_golden(builder, held).await;
        };
        match held.record.state.clone() {
            GoldenState::Building { node, .. } if node == self.node => self.build_golden(builder, held).await,
            GoldenState::Building { node, .. } if self.is_dead(&node) || planted::is(Bug::BuildsGoldenTwice) => {
                metrics::counter!("boxpool_takeovers_total", "of" => "golden").increment(1);
                let taken = self.golden_step(&held, &GoldenEvent::TakeOver { node: self.node.clone() }).await?;
                self.build_golden(builder, taken).await
            }
            GoldenState::Building { .. } => Ok(()),
            GoldenState::Ready { snapshot } => {
                if self.state().golden.as_ref() == Some(&snapshot) {
                    return Ok(());
                }
                let limit = self.config.limits.golden;
                if limited(limit, "verify golden snapshot", &snapshot, builder.verify(&snapshot)).await? {
                    self.use_golden(Some(snapshot));
                    return Ok(());
                }
                tracing::error!(%snapshot, "the golden snapshot is damaged; it is built anew");
                self.golden_step(&held, &GoldenEvent::Retire).await.map(drop)
            }
            GoldenState::Retired { snapshot } => {
                self.use_golden(None);
                self.delete_golden(builder, &held, &snapshot).await
            }
            GoldenState::Gone => {
                self.use_golden(None);
                let snapshot = snapshot_id(builder, held.record.build + 1)?;
                let event = GoldenEvent::Rebuild { node: self.node.clone(), snapshot };
                let again = self.golden_step(&held, &event).await?;
                self.build_golden(builder, again).await
            }
        }
    }

    /// `Building`, by us.
    async fn build_golden(self: &Arc<Self>, builder: &dyn GoldenBuilder, held: Held<GoldenRecord>) -> Result<()> {
        let GoldenState::Building { snapshot, .. } = &held.record.state else { return Ok(()) };
        let begun = Instant::now();
        tracing::info!(%snapshot, "building the golden snapshot");
        let permit =
            Permit { shared: Arc::clone(self), generation: held.record.generation.clone(), build: held.record.build };
        let limit = self.config.limits.golden;
        if !planted::is(Bug::GoldenReadyUnbuilt) {
            limited(limit, "build golden snapshot", snapshot, builder.build(snapshot, &permit)).await?;
        }
        self.golden_step(&held, &GoldenEvent::Built { node: self.node.clone() }).await?;
        metrics::counter!("boxpool_goldens_built_total").increment(1);
        tracing::info!(%snapshot, seconds = begun.elapsed().as_secs(), "the golden snapshot is ready");
        Ok(())
    }

    /// Retires what no live node wants, and finishes what was retired.
    async fn retire_goldens(&self, builder: &dyn GoldenBuilder) -> Result<()> {
        let goldens = self.records.scan_all::<GoldenRecord>(None).await?;
        let others: Vec<_> = goldens
            .into_iter()
            .map(|(_, held)| held)
            .filter(|held| held.record.generation != builder.generation() && held.record.state != GoldenState::Gone)
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        // A node says what it wants before it makes a volume, so what is read after the goldens is enough to judge them.
        let nodes = self.records.scan_all::<NodeRecord>(None).await?;
        let mut being_copied = BTreeSet::new();
        let see = |_, volume: Held<VolumeRecord>| {
            if matches!(volume.record.status, VolumeStatus::Creating { .. }) {
                being_copied.insert(volume.record.generation);
            }
        };
        self.records.scan_each(None, see).await?;
        for held in others {
            let generation = &held.record.generation;
            let wanted = nodes
                .iter()
                .any(|(_, node)| node.record.golden.as_deref() == Some(generation) && !self.is_dead(&node.record.id));
            if wanted || being_copied.contains(generation) {
                continue;
            }
            match held.record.state.clone() {
                GoldenState::Ready { .. } => {
                    tracing::info!(%generation, "no node wants this golden snapshot any more: it is retired");
                    self.golden_step(&held, &GoldenEvent::Retire).await?;
                }
                // Seen as retired by one pass and deleted by the next: who had begun to use it has noticed meanwhile.
                GoldenState::Retired { snapshot } => self.delete_golden(builder, &held, &snapshot).await?,
                // Nobody builds it any more: what was built goes.
                GoldenState::Building { node, .. } if self.is_dead(&node) => {
                    let taken = self.golden_step(&held, &GoldenEvent::TakeOver { node: self.node.clone() }).await?;
                    let built = self.golden_step(&taken, &GoldenEvent::Built { node: self.node.clone() }).await?;
                    self.golden_step(&built, &GoldenEvent::Retire).await?;
                }
                GoldenState::Building { .. } | GoldenState::Gone => {}
            }
        }
        Ok(())
    }

    async fn delete_golden(
        &self,
        builder: &dyn GoldenBuilder,
        held: &Held<GoldenRecord>,
        snapshot: &SnapshotId,
    ) -> Result<()> {
        self.check_in_touch("delete golden snapshot")?;
        let limit = self.config.limits.golden;
        limited(limit, "delete golden snapshot", snapshot, builder.discard(snapshot)).await?;
        self.golden_step(held, &GoldenEvent::Deleted).await.map(drop)
    }

    /// Whether somebody builds one now: then what has a builder's names and no record is no orphan.
    pub(crate) async fn golden_is_being_built(&self) -> Result<bool> {
        if self.golden.is_none() {
            return Ok(false);
        }
        let all = self.records.scan_all::<GoldenRecord>(None).await?;
        Ok(all.iter().any(|(_, held)| matches!(held.record.state, GoldenState::Building { .. })))
    }

    fn use_golden(&self, snapshot: Option<SnapshotId>) {
        self.state().golden = snapshot;
        self.golden_bell.update(|count| *count = count.wrapping_add(1));
        self.refill_volumes.notify_one();
    }

    async fn golden_step(&self, held: &Held<GoldenRecord>, event: &GoldenEvent) -> Result<Held<GoldenRecord>> {
        let generation = &held.record.generation;
        let record = held.record.after(event).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, "change golden snapshot", generation).with_source(illegal)
        })?;
        self.records.update(&golden_key(generation), &held.version, record).await
    }
}

fn snapshot_id(builder: &dyn GoldenBuilder, build: u32) -> Result<SnapshotId> {
    SnapshotId::new(format!("golden-{}-{build}", builder.generation())).map_err(|error| {
        Error::new(ErrorKind::Invalid, "name golden snapshot", builder.generation()).with_source(error)
    })
}

/// Somebody else began first: that is no failure.
fn lost_race(error: Error) -> Error {
    if error.kind() == ErrorKind::AlreadyExists {
        return Error::new(ErrorKind::Conflict, "build golden snapshot", "record");
    }
    error
}
