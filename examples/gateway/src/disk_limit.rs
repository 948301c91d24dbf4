//! How large the disks of one user may be, taken together.
//!
//! Boxes that are deleted and can be had back do not count until they are. Within one gateway the limit is exact: what is
//! being made, grown or had back counts from the moment it is asked for. Gateways tell each other only by the boxes' own
//! records, so two of them that are asked at the same moment may let one too many grow.

use crate::boxes::{BoxEvent, BoxSession, BoxSummary, Boxes, PoolNumbers, SnapshotSummary, Wish};
use crate::lock::lock;
use crate::size::Size;
use async_trait::async_trait;
use boxpool::{BoxName, Error, ErrorKind, Result, SnapshotName, UserId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Boxes whose disks take only so much of each user.
pub struct DiskLimit {
    inner: Arc<dyn Boxes>,
    /// Of a disk that was never grown.
    fresh: Size,
    most: Size,
    asked: Asked,
}

/// What is being made, grown or had back here.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<u64, Growth>>>);

/// Which box is to have how many bytes.
struct Growth {
    owner: UserId,
    name: BoxName,
    bytes: u64,
}

/// Its entry there, for as long as it is being done.
struct Claim {
    asked: Asked,
    number: u64,
}

impl DiskLimit {
    /// At most `most` for each user, where a fresh disk has `fresh`.
    #[must_use]
    pub fn new(inner: Arc<dyn Boxes>, fresh: Size, most: Size) -> Self {
        Self { inner, fresh, most, asked: Asked::default() }
    }

    fn sized(&self, mut each: BoxSummary) -> BoxSummary {
        each.disk_bytes.get_or_insert(self.fresh.0);
        each
    }

    fn sized_snapshot(&self, mut kept: SnapshotSummary) -> SnapshotSummary {
        kept.disk_bytes.get_or_insert(self.fresh.0);
        kept
    }

    /// Counts what the box is to have, beside what is there.
    async fn claim(&self, operation: &'static str, owner: &UserId, name: &BoxName, bytes: u64) -> Result<Claim> {
        let there = self
            .inner
            .list(owner)
            .await?
            .into_iter()
            .map(|each| (each.name, each.disk_bytes.unwrap_or(self.fresh.0)))
            .collect();
        self.asked.claim(owner, name, bytes, there, self.most).map_err(|others| {
            let detail = format!(
                "that would make {} of disks, where you may have {}; delete a box first",
                Size(others.saturating_add(bytes)),
                self.most
            );
            Error::new(ErrorKind::Unauthorized, operation, name).with_detail(detail)
        })
    }
}

impl Asked {
    /// Counts what the box is to have, unless it is too much with what is `there` and asked for.
    ///
    /// # Errors
    /// What the others have.
    fn claim(
        &self,
        owner: &UserId,
        name: &BoxName,
        bytes: u64,
        mut there: BTreeMap<String, u64>,
        most: Size,
    ) -> std::result::Result<Claim, u64> {
        let mut all = lock(&self.0);
        for each in all.values().filter(|each| each.owner == *owner) {
            let known = there.entry(each.name.to_string()).or_default();
            *known = (*known).max(each.bytes);
        }
        there.remove(name.as_str());
        let others = there.values().fold(0, |sum: u64, each| sum.saturating_add(*each));
        if others.saturating_add(bytes) > most.0 {
            return Err(others);
        }
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, Growth { owner: owner.clone(), name: name.clone(), bytes });
        Ok(Claim { asked: self.clone(), number })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.asked.0).remove(&self.number);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Boxes for DiskLimit {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let _claim = self.claim("create box", owner, name, self.fresh.0).await?;
        self.inner.create(owner, name).await.map(|each| self.sized(each))
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(self.inner.list(owner).await?.into_iter().map(|each| self.sized(each)).collect())
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        Ok(self.inner.get(owner, name).await?.map(|each| self.sized(each)))
    }

    async fn start(&self, owner: &UserId, name: &BoxName, limit: Duration) -> Result<BoxSummary> {
        self.inner.start(owner, name, limit).await.map(|each| self.sized(each))
    }

    async fn stop(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.inner.stop(owner, name).await.map(|each| self.sized(each))
    }

    async fn resize(&self, owner: &UserId, name: &BoxName, size: Size) -> Result<BoxSummary> {
        let _claim = self.claim("resize box", owner, name, size.0).await?;
        self.inner.resize(owner, name, size).await.map(|each| self.sized(each))
    }

    async fn rename(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.inner.rename(owner, name, to).await.map(|each| self.sized(each))
    }

    async fn keep(&self, owner: &UserId, name: &BoxName, on: bool) -> Result<BoxSummary> {
        self.inner.keep(owner, name, on).await.map(|each| self.sized(each))
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
        self.inner.undelete(owner, name).await.map(|each| self.sized(each))
    }

    async fn list_deleted(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(self.inner.list_deleted(owner).await?.into_iter().map(|each| self.sized(each)).collect())
    }

    async fn take_snapshot(&self, owner: &UserId, name: &BoxName, called: &SnapshotName) -> Result<SnapshotSummary> {
        self.inner.take_snapshot(owner, name, called).await.map(|kept| self.sized_snapshot(kept))
    }

    async fn list_snapshots(&self, owner: &UserId) -> Result<Vec<SnapshotSummary>> {
        Ok(self.inner.list_snapshots(owner).await?.into_iter().map(|kept| self.sized_snapshot(kept)).collect())
    }

    async fn delete_snapshot(&self, owner: &UserId, called: &SnapshotName) -> Result<()> {
        self.inner.delete_snapshot(owner, called).await
    }

    async fn restore(&self, owner: &UserId, from: &SnapshotName, to: &BoxName) -> Result<BoxSummary> {
        let kept = self.list_snapshots(owner).await?.into_iter().find(|kept| kept.name == from.as_str());
        let bytes = kept.and_then(|kept| kept.disk_bytes).unwrap_or(self.fresh.0);
        let _claim = self.claim("restore snapshot", owner, to, bytes).await?;
        self.inner.restore(owner, from, to).await.map(|each| self.sized(each))
    }

    async fn duplicate(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        let bytes = self.get(owner, name).await?.and_then(|each| each.disk_bytes).unwrap_or(self.fresh.0);
        let _claim = self.claim("duplicate box", owner, to, bytes).await?;
        self.inner.duplicate(owner, name, to).await.map(|each| self.sized(each))
    }

    async fn share(&self, owner: &UserId, name: &BoxName, with: &UserId, allowed: bool) -> Result<BoxSummary> {
        self.inner.share(owner, name, with, allowed).await.map(|each| self.sized(each))
    }

    async fn events(&self, owner: &UserId, name: &BoxName, limit: usize) -> Result<Vec<BoxEvent>> {
        self.inner.events(owner, name, limit).await
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        self.inner.connect(wish).await
    }

    async fn status(&self) -> Result<PoolNumbers> {
        self.inner.status().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_what_is_asked_for_count_together_and_each_box_once() {
        let (asked, ada) = (Asked::default(), UserId::new("ada").unwrap());
        let claim = |owner: &UserId, name: &str, bytes, there: &[(&str, u64)]| {
            let there = there.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
            asked.claim(owner, &BoxName::new(name).unwrap(), bytes, there, Size(10))
        };
        let first = claim(&ada, "one", 6, &[]).ok().unwrap();
        assert_eq!(claim(&ada, "two", 5, &[]).err(), Some(6), "asked for, and not there yet");
        assert!(claim(&ada, "two", 4, &[("one", 6)]).is_ok(), "it counts once");
        assert!(claim(&ada, "one", 10, &[("one", 6)]).is_ok(), "it is the box that grows");
        assert!(claim(&UserId::new("bob").unwrap(), "two", 10, &[]).is_ok());
        drop(first);
        assert!(claim(&ada, "two", 10, &[]).is_ok());
        assert_eq!(claim(&ada, "two", 2, &[("one", 9)]).err(), Some(9));
        assert!(claim(&ada, "two", u64::MAX, &[("one", u64::MAX)]).is_err());
        assert!(asked.0.lock().unwrap().is_empty());
    }
}
