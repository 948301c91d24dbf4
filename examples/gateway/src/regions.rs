//! Boxes that live in one of several regions, behind the seam that the gateway has to boxes.
//!
//! What makes, removes, renames or moves a box goes through [`boxpool::Regions`]; everything else is asked of the pool where the box
//! lives. Snapshots stay in the region where they were taken, and a user's snapshots have names that are unique among all regions
//! unless two of one name are taken in two regions at the same moment; then the one in the region that comes first by name is meant.

use crate::boxes::{BoxEvent, BoxSession, BoxSummary, Boxes, PoolNumbers, SnapshotSummary, Wish};
use crate::size::Size;
use async_trait::async_trait;
use boxpool::{BoxName, Error, ErrorKind, MoveProgress, Pool, Region, Regions, Result, SnapshotName, UserId};
use std::time::Duration;
use tokio::sync::watch;

/// The boxes of all regions.
pub struct RegionalBoxes {
    regions: Regions,
    first: Region,
}

impl RegionalBoxes {
    /// Boxes for which no region is said are made in `first`.
    #[must_use]
    pub fn new(regions: Regions, first: Region) -> Self {
        Self { regions, first }
    }

    fn pool(&self, region: &Region) -> Result<&Pool> {
        self.regions.pool(region).ok_or_else(|| {
            let known: Vec<_> = self.regions.regions().map(|(name, _)| name.as_str()).collect();
            let detail = format!("there is no region \"{region}\" here; there are {}", known.join(", "));
            Error::new(ErrorKind::Invalid, "find region", region).with_detail(detail)
        })
    }

    /// Where the box lives.
    async fn there(&self, owner: &UserId, name: &BoxName) -> Result<(Region, &Pool)> {
        let home = self.regions.home(owner, name).await?.ok_or_else(|| absent("find box", name))?;
        let pool = self.pool(&home.region)?;
        Ok((home.region, pool))
    }

    async fn found(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.get(owner, name).await?.ok_or_else(|| absent("find box", name))
    }

    /// The region that has the user's snapshot of that name.
    async fn snapshot(&self, owner: &UserId, called: &SnapshotName) -> Result<Option<Region>> {
        let all = self.list_snapshots(owner).await?;
        Ok(all.into_iter().find(|each| each.name == called.as_str()).and_then(|each| each.region))
    }

    async fn snapshot_there(&self, owner: &UserId, called: &SnapshotName) -> Result<Region> {
        self.snapshot(owner, called).await?.ok_or_else(|| absent("find snapshot", called))
    }
}

fn absent(operation: &'static str, name: &impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, operation, name).with_detail("there is none of that name")
}

fn lives_in(region: Region) -> impl FnOnce(BoxSummary) -> BoxSummary {
    |each| BoxSummary { region: Some(region), ..each }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Boxes for RegionalBoxes {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.create_in(owner, name, &self.first).await
    }

    fn regions(&self) -> Vec<Region> {
        self.regions.regions().map(|(name, _)| name.clone()).collect()
    }

    async fn create_in(&self, owner: &UserId, name: &BoxName, region: &Region) -> Result<BoxSummary> {
        self.pool(region)?;
        let view = self.regions.create_box(owner, name, region).await?;
        Ok(lives_in(region.clone())(crate::pool::summary(&view)))
    }

    async fn move_to(
        &self,
        owner: &UserId,
        name: &BoxName,
        to: &Region,
        progress: watch::Sender<MoveProgress>,
    ) -> Result<BoxSummary> {
        self.pool(to)?;
        self.regions.move_box_telling(owner, name, to, progress).await?;
        self.found(owner, name).await
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        let all = self.regions.list_boxes(owner).await?;
        Ok(all.into_iter().map(|(region, view)| lives_in(region)(crate::pool::summary(&view))).collect())
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        let found = self.regions.get_box(owner, name).await?;
        Ok(found.map(|(region, view)| lives_in(region)(crate::pool::summary(&view))))
    }

    async fn start(&self, owner: &UserId, name: &BoxName, limit: Duration) -> Result<BoxSummary> {
        let (region, pool) = self.there(owner, name).await?;
        Boxes::start(pool, owner, name, limit).await.map(lives_in(region))
    }

    async fn stop(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let (region, pool) = self.there(owner, name).await?;
        Boxes::stop(pool, owner, name).await.map(lives_in(region))
    }

    async fn resize(&self, owner: &UserId, name: &BoxName, size: Size) -> Result<BoxSummary> {
        let (region, pool) = self.there(owner, name).await?;
        Boxes::resize(pool, owner, name, size).await.map(lives_in(region))
    }

    async fn rename(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.regions.rename_box(owner, name, to).await?;
        self.found(owner, to).await
    }

    async fn keep(&self, owner: &UserId, name: &BoxName, on: bool) -> Result<BoxSummary> {
        let (region, pool) = self.there(owner, name).await?;
        Boxes::keep(pool, owner, name, on).await.map(lives_in(region))
    }

    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.regions.delete_box(owner, name).await
    }

    async fn purge(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.regions.purge_box(owner, name).await
    }

    async fn undelete(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let view = self.regions.undelete_box(owner, name).await?;
        let (region, _) = self.there(owner, name).await?;
        Ok(lives_in(region)(crate::pool::summary(&view)))
    }

    async fn list_deleted(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        let mut all = Vec::new();
        for (region, pool) in self.regions.regions() {
            all.extend(Boxes::list_deleted(pool, owner).await?.into_iter().map(|each| lives_in(region.clone())(each)));
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    async fn take_snapshot(&self, owner: &UserId, name: &BoxName, called: &SnapshotName) -> Result<SnapshotSummary> {
        if let Some(there) = self.snapshot(owner, called).await? {
            let detail = format!("there is a snapshot of that name already, in {there}");
            return Err(Error::new(ErrorKind::AlreadyExists, "snapshot box", name).with_detail(detail));
        }
        let (region, pool) = self.there(owner, name).await?;
        let kept = Boxes::take_snapshot(pool, owner, name, called).await?;
        Ok(SnapshotSummary { region: Some(region), ..kept })
    }

    async fn list_snapshots(&self, owner: &UserId) -> Result<Vec<SnapshotSummary>> {
        let mut all = Vec::new();
        for (region, pool) in self.regions.regions() {
            let here = Boxes::list_snapshots(pool, owner).await?;
            all.extend(here.into_iter().map(|kept| SnapshotSummary { region: Some(region.clone()), ..kept }));
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    async fn delete_snapshot(&self, owner: &UserId, called: &SnapshotName) -> Result<()> {
        let region = self.snapshot_there(owner, called).await?;
        Boxes::delete_snapshot(self.pool(&region)?, owner, called).await
    }

    async fn restore(&self, owner: &UserId, from: &SnapshotName, to: &BoxName) -> Result<BoxSummary> {
        let region = self.snapshot_there(owner, from).await?;
        let view = self.regions.restore_box(owner, &region, from, to).await?;
        Ok(lives_in(region)(crate::pool::summary(&view)))
    }

    async fn duplicate(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        let view = self.regions.duplicate_box(owner, name, to).await?;
        let (region, _) = self.there(owner, to).await?;
        Ok(lives_in(region)(crate::pool::summary(&view)))
    }

    async fn share(&self, owner: &UserId, name: &BoxName, with: &UserId, allowed: bool) -> Result<BoxSummary> {
        let (region, pool) = self.there(owner, name).await?;
        Boxes::share(pool, owner, name, with, allowed).await.map(lives_in(region))
    }

    async fn events(&self, owner: &UserId, name: &BoxName, limit: usize) -> Result<Vec<BoxEvent>> {
        let mut all = Vec::new();
        for (_, pool) in self.regions.regions() {
            all.extend(Boxes::events(pool, owner, name, limit).await?);
        }
        all.sort_by_key(|event| event.at);
        Ok(all.split_off(all.len().saturating_sub(limit)))
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        Ok(Box::new(self.regions.connect(crate::pool::request(wish)).await?))
    }

    async fn status(&self) -> Result<PoolNumbers> {
        let mut sum = PoolNumbers::default();
        for (_, pool) in self.regions.regions() {
            let PoolNumbers { instances_free, volumes_free, parked, waiting, gateways, draining } =
                Boxes::status(pool).await?;
            sum.instances_free += instances_free;
            sum.volumes_free += volumes_free;
            sum.parked += parked;
            sum.waiting += waiting;
            sum.gateways = sum.gateways.max(gateways);
            sum.draining |= draining;
        }
        Ok(sum)
    }
}
