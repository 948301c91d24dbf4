//! How many boxes of one user may run at once.
//!
//! A box counts from the moment somebody wants it up until it is suspended. Within one gateway the limit is exact: who
//! wants a box is counted before it is brought up. Gateways tell each other only by the boxes' own records, so two of them
//! that are asked at the same moment may let one too many run.

use crate::boxes::{BoxEvent, BoxSession, BoxSummary, Boxes, PoolNumbers, SnapshotSummary, Wish};
use crate::lock::lock;
use crate::size::Size;
use async_trait::async_trait;
use boxpool::{BoxName, Endpoint, Epoch, Error, ErrorKind, Result, SnapshotName, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Boxes of which only so many run at once for each user.
pub struct RunningLimit {
    inner: Arc<dyn Boxes>,
    most: usize,
    wanted: Wanted,
}

/// How many of this gateway's connections want which box up.
#[derive(Clone, Default)]
struct Wanted(Arc<Mutex<BTreeMap<UserId, BTreeMap<BoxName, usize>>>>);

/// One of them.
struct Count {
    wanted: Wanted,
    owner: UserId,
    name: BoxName,
}

impl RunningLimit {
    /// At most `most` for each user.
    #[must_use]
    pub fn new(inner: Arc<dyn Boxes>, most: usize) -> Self {
        Self { inner, most, wanted: Wanted::default() }
    }

    /// Counts one more who wants the box up.
    async fn counted(&self, owner: &UserId, name: &BoxName) -> Result<Count> {
        let boxes = self.inner.list(owner).await?;
        let up = boxes.into_iter().filter(is_up).map(|each| each.name).collect();
        self.wanted.count(owner, name, up, self.most).map_err(|others| too_many(name, &others))
    }
}

/// Whether the box takes a machine's memory and processors, or is about to: one that is kept running is brought up again.
fn is_up(each: &BoxSummary) -> bool {
    each.keepalive || matches!(each.state.as_str(), "placing" | "running" | "suspending")
}

impl Wanted {
    /// Counts one more who wants the box, unless too many others are `up` or wanted.
    ///
    /// # Errors
    /// The names of the others.
    fn count(
        &self,
        owner: &UserId,
        name: &BoxName,
        up: BTreeSet<String>,
        most: usize,
    ) -> std::result::Result<Count, BTreeSet<String>> {
        let mut all = lock(&self.0);
        let own = all.get(owner);
        let mut others: BTreeSet<String> = own.into_iter().flat_map(BTreeMap::keys).map(ToString::to_string).collect();
        others.extend(up);
        let joins = others.remove(name.as_str());
        if !joins && others.len() >= most {
            return Err(others);
        }
        *all.entry(owner.clone()).or_default().entry(name.clone()).or_default() += 1;
        Ok(Count { wanted: self.clone(), owner: owner.clone(), name: name.clone() })
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let mut all = lock(&self.wanted.0);
        let Some(own) = all.get_mut(&self.owner) else { return };
        if let Some(count) = own.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                own.remove(&self.name);
            }
        }
        if own.is_empty() {
            all.remove(&self.owner);
        }
    }
}

fn too_many(name: &BoxName, others: &BTreeSet<String>) -> Error {
    let names: Vec<&str> = others.iter().map(String::as_str).collect();
    let (count, names) = (names.len(), names.join(", "));
    let noun = if count == 1 { "box of yours runs" } else { "boxes of yours run" };
    Error::new(ErrorKind::NoCapacity, "connect to box", name).with_detail(format!(
        "{count} {noun} ({names}), which is the most; leave or stop one, and try again in a moment, when it is suspended"
    ))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Boxes for RunningLimit {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.inner.create(owner, name).await
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        self.inner.list(owner).await
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        self.inner.get(owner, name).await
    }

    async fn start(&self, owner: &UserId, name: &BoxName, limit: Duration) -> Result<BoxSummary> {
        let _count = self.counted(owner, name).await?;
        self.inner.start(owner, name, limit).await
    }

    async fn stop(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.inner.stop(owner, name).await
    }

    async fn resize(&self, owner: &UserId, name: &BoxName, size: Size) -> Result<BoxSummary> {
        self.inner.resize(owner, name, size).await
    }

    async fn rename(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.inner.rename(owner, name, to).await
    }

    async fn keep(&self, owner: &UserId, name: &BoxName, on: bool) -> Result<BoxSummary> {
        // One that does not run is brought up for it.
        let _count = if on { Some(self.counted(owner, name).await?) } else { None };
        self.inner.keep(owner, name, on).await
    }

    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.inner.delete(owner, name).await
    }

    async fn purge(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.inner.purge(owner, name).await
    }

    async fn undelete(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.inner.undelete(owner, name).await
    }

    async fn list_deleted(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        self.inner.list_deleted(owner).await
    }

    async fn take_snapshot(&self, owner: &UserId, name: &BoxName, called: &SnapshotName) -> Result<SnapshotSummary> {
        self.inner.take_snapshot(owner, name, called).await
    }

    async fn list_snapshots(&self, owner: &UserId) -> Result<Vec<SnapshotSummary>> {
        self.inner.list_snapshots(owner).await
    }

    async fn delete_snapshot(&self, owner: &UserId, called: &SnapshotName) -> Result<()> {
        self.inner.delete_snapshot(owner, called).await
    }

    async fn restore(&self, owner: &UserId, from: &SnapshotName, to: &BoxName) -> Result<BoxSummary> {
        self.inner.restore(owner, from, to).await
    }

    async fn duplicate(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.inner.duplicate(owner, name, to).await
    }

    async fn share(&self, owner: &UserId, name: &BoxName, with: &UserId, allowed: bool) -> Result<BoxSummary> {
        self.inner.share(owner, name, with, allowed).await
    }

    async fn events(&self, owner: &UserId, name: &BoxName, limit: usize) -> Result<Vec<BoxEvent>> {
        self.inner.events(owner, name, limit).await
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        let count = self.counted(&wish.owner, &wish.name).await?;
        let session = self.inner.connect(wish).await?;
        Ok(Box::new(Counted { _count: count, session }))
    }

    async fn status(&self) -> Result<PoolNumbers> {
        self.inner.status().await
    }
}

struct Counted {
    _count: Count,
    session: Box<dyn BoxSession>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BoxSession for Counted {
    fn endpoint(&self) -> &Endpoint {
        self.session.endpoint()
    }

    fn epoch(&self) -> Epoch {
        self.session.epoch()
    }

    async fn ended(&self) {
        self.session.ended().await;
    }

    async fn release(self: Box<Self>) {
        let Self { _count: count, session } = *self;
        drop(count); // from here on the box's own record says that it runs
        session.release().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_counts_as_soon_as_it_is_wanted_and_until_nobody_wants_it() {
        let (wanted, ada) = (Wanted::default(), UserId::new("ada").unwrap());
        let count = |owner: &UserId, name: &str, up: &[&str]| {
            let up = up.iter().map(|name| (*name).to_owned()).collect();
            wanted.count(owner, &BoxName::new(name).unwrap(), up, 1)
        };
        let first = count(&ada, "one", &[]).ok().unwrap();
        let joined = count(&ada, "one", &["one"]).ok().unwrap();
        assert!(count(&ada, "two", &[]).is_err(), "not on record yet, and counted all the same");
        assert!(count(&UserId::new("bob").unwrap(), "two", &[]).is_ok());
        drop(first);
        assert!(count(&ada, "two", &[]).is_err());
        drop(joined);
        assert!(count(&ada, "two", &["one"]).is_err(), "it is still being suspended");
        assert!(count(&ada, "two", &[]).is_ok());
        assert!(wanted.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_refusal_names_what_runs() {
        let others = ["a", "b"].map(str::to_owned).into();
        let error = too_many(&BoxName::new("c").unwrap(), &others);
        assert!(error.detail().contains("2 boxes of yours run (a, b), which is the most"), "{error}");
        let is_up = |state: &str, keepalive| {
            let found = BoxSummary::new(&BoxName::new("a").unwrap(), state, boxpool::Timestamp(0));
            is_up(&BoxSummary { keepalive, ..found })
        };
        assert!(is_up("placing", false) && is_up("suspending", false) && is_up("parked", true));
        assert!(!is_up("parked", false) && !is_up("detaching", false));
    }
}
