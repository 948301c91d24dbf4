//! Boxes of which each user may have only so many that run at once, and disks of only so many bytes.

use crate::boxes::{BoxEvent, BoxSession, BoxSummary, Boxes, PoolNumbers, SnapshotSummary, Wish};
use crate::disk_limit::{Claim, DiskLimit};
use crate::running_limit::{Count, Counted, RunningLimit};
use crate::size::Size;
use async_trait::async_trait;
use boxpool::{BoxName, MoveProgress, Region, Result, SnapshotName, UserId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Boxes within the limits of their owners.
pub struct LimitedBoxes {
    inner: Arc<dyn Boxes>,
    disks: DiskLimit,
    /// `None` where all that there are may run.
    running: Option<RunningLimit>,
}

impl LimitedBoxes {
    /// Those of `inner` within these limits.
    #[must_use]
    pub fn new(inner: Arc<dyn Boxes>, disks: DiskLimit, running: Option<RunningLimit>) -> Self {
        Self { inner, disks, running }
    }

    /// Counts one more who wants the box up.
    async fn count(&self, owner: &UserId, name: &BoxName) -> Result<Option<Count>> {
        let Some(limit) = &self.running else { return Ok(None) };
        limit.count(owner, name, self.inner.list(owner).await?).map(Some)
    }

    /// Counts what the box is to have on the disk.
    async fn claim(&self, operation: &'static str, owner: &UserId, name: &BoxName, bytes: u64) -> Result<Claim> {
        self.disks.claim(operation, owner, name, bytes, self.inner.list(owner).await?)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Boxes for LimitedBoxes {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let _claim = self.claim("create box", owner, name, self.disks.fresh().0).await?;
        self.inner.create(owner, name).await.map(|each| self.disks.sized(each))
    }

    fn regions(&self) -> Vec<Region> {
        self.inner.regions()
    }

    async fn create_in(&self, owner: &UserId, name: &BoxName, region: &Region) -> Result<BoxSummary> {
        let _claim = self.claim("create box", owner, name, self.disks.fresh().0).await?;
        self.inner.create_in(owner, name, region).await.map(|each| self.disks.sized(each))
    }

    async fn move_to(
        &self,
        owner: &UserId,
        name: &BoxName,
        to: &Region,
        progress: watch::Sender<MoveProgress>,
    ) -> Result<BoxSummary> {
        // One whose memory is saved is brought up for it.
        let _count = self.count(owner, name).await?;
        self.inner.move_to(owner, name, to, progress).await.map(|each| self.disks.sized(each))
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(self.inner.list(owner).await?.into_iter().map(|each| self.disks.sized(each)).collect())
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        Ok(self.inner.get(owner, name).await?.map(|each| self.disks.sized(each)))
    }

    async fn start(&self, owner: &UserId, name: &BoxName, limit: Duration) -> Result<BoxSummary> {
        let _count = self.count(owner, name).await?;
        self.inner.start(owner, name, limit).await.map(|each| self.disks.sized(each))
    }

    async fn stop(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.inner.stop(owner, name).await.map(|each| self.disks.sized(each))
    }

    async fn resize(&self, owner: &UserId, name: &BoxName, size: Size) -> Result<BoxSummary> {
        let _claim = self.claim("resize box", owner, name, size.0).await?;
        self.inner.resize(owner, name, size).await.map(|each| self.disks.sized(each))
    }

    async fn rename(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.inner.rename(owner, name, to).await.map(|each| self.disks.sized(each))
    }

    async fn keep(&self, owner: &UserId, name: &BoxName, on: bool) -> Result<BoxSummary> {
        // One that does not run is brought up for it.
        let _count = if on { self.count(owner, name).await? } else { None };
        self.inner.keep(owner, name, on).await.map(|each| self.disks.sized(each))
    }

    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.inner.delete(owner, name).await
    }

    async fn purge(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.inner.purge(owner, name).await
    }

    async fn undelete(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let deleted = self.list_deleted(owner).await?.into_iter().find(|each| each.name == name.as_str());
        let bytes = deleted.and_then(|each| each.disk_bytes);
        let _claim = match bytes {
            Some(bytes) => Some(self.claim("undelete box", owner, name, bytes).await?),
            None => None, // there is none
        };
        self.inner.undelete(owner, name).await.map(|each| self.disks.sized(each))
    }

    async fn list_deleted(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(self.inner.list_deleted(owner).await?.into_iter().map(|each| self.disks.sized(each)).collect())
    }

    async fn take_snapshot(&self, owner: &UserId, name: &BoxName, called: &SnapshotName) -> Result<SnapshotSummary> {
        self.inner.take_snapshot(owner, name, called).await.map(|kept| self.disks.sized_snapshot(kept))
    }

    async fn list_snapshots(&self, owner: &UserId) -> Result<Vec<SnapshotSummary>> {
        Ok(self.inner.list_snapshots(owner).await?.into_iter().map(|kept| self.disks.sized_snapshot(kept)).collect())
    }

    async fn delete_snapshot(&self, owner: &UserId, called: &SnapshotName) -> Result<()> {
        self.inner.delete_snapshot(owner, called).await
    }

    async fn restore(&self, owner: &UserId, from: &SnapshotName, to: &BoxName) -> Result<BoxSummary> {
        let kept = self.list_snapshots(owner).await?.into_iter().find(|kept| kept.name == from.as_str());
        let bytes = kept.and_then(|kept| kept.disk_bytes).unwrap_or(self.disks.fresh().0);
        let _claim = self.claim("restore snapshot", owner, to, bytes).await?;
        self.inner.restore(owner, from, to).await.map(|each| self.disks.sized(each))
    }

    async fn duplicate(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        let bytes = self.get(owner, name).await?.and_then(|each| each.disk_bytes).unwrap_or(self.disks.fresh().0);
        let _claim = self.claim("duplicate box", owner, to, bytes).await?;
        self.inner.duplicate(owner, name, to).await.map(|each| self.disks.sized(each))
    }

    async fn share(&self, owner: &UserId, name: &BoxName, with: &UserId, allowed: bool) -> Result<BoxSummary> {
        self.inner.share(owner, name, with, allowed).await.map(|each| self.disks.sized(each))
    }

    async fn events(&self, owner: &UserId, name: &BoxName, limit: usize) -> Result<Vec<BoxEvent>> {
        self.inner.events(owner, name, limit).await
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        let count = self.count(&wish.owner, &wish.name).await?;
        let session = self.inner.connect(wish).await?;
        Ok(match count {
            Some(count) => Box::new(Counted::new(count, session)),
            None => session,
        })
    }

    async fn status(&self) -> Result<PoolNumbers> {
        self.inner.status().await
    }
}
