//! Several regions behind one front: a pool in each, and a record for each box that says in which of them it lives.
//!
//! A region's pool knows nothing of the others. A box's name is unique among all of them, because its home's record is inserted
//! before anything else is made; and only where that record says it lives is a box ever brought up. Who moves, renames or deletes
//! it says so in that record first, so that two fronts never do so at once, and names itself, so that another front goes on
//! when it is dead. It is known there by its node in the box's region, whose heartbeat all other fronts see anyway: a front
//! needs no heartbeat of its own.
//!
//! The verbs that are not here ([stop](crate::Pool::stop_box), [share](crate::Pool::share_box) and the like) are those of
//! [the pool where the box lives](Regions::pool_of). What *makes, removes or renames* a box goes through the front; a box that was
//! made behind its back gets a home when it is next looked for.

mod homes;
mod moving;
mod naming;
mod survey;

pub use moving::{MoveProgress, move_progress};

use crate::busy::Busy;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BoxId, BoxName, BoxRef, Region, SnapshotName, UserId};
use crate::pool::{BoxView, ConnectRequest, Pool};
use crate::provider::SnapshotCopier;
use crate::random::Random;
use crate::record::{HomeRecord, HomeStatus};
use crate::records::Records;
use crate::session::Session;
use crate::shared::BoxKey;
use crate::store::StateStore;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Where so many boxes live is kept in mind. It is a hint: a box that is not there is looked for again.
const REMEMBERED: usize = 10_000;

/// Several pools, each in a region of its own, as one. Cheap to clone; every clone is the same front.
///
/// ```
/// use boxpool::{BoxName, ConnectRequest, Pool, Region, Regions, StateStore, UserId};
/// use std::sync::Arc;
///
/// async fn open(homes: Arc<dyn StateStore>, north: Pool, south: Pool) -> Result<(), Box<dyn std::error::Error>> {
///     // Each pool's own worker runs already.
///     let (north, south) = ((Region::new("north")?, north), (Region::new("south")?, south));
///     let (regions, worker) = Regions::builder(homes).region(north.0.clone(), north.1).region(south.0, south.1).build()?;
///     tokio::spawn(worker.run());
///
///     let (user, name) = (UserId::new("ada")?, BoxName::new("dev1")?);
///     regions.create_box(&user, &name, &north.0).await?;
///     let session = regions.connect(ConnectRequest::new(user, name)).await?;
///     session.release().await;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Regions {
    front: Arc<Front>,
}

/// Sets up [`Regions`].
pub struct RegionsBuilder {
    store: Arc<dyn StateStore>,
    sites: BTreeMap<Region, Site>,
    copy_limit: Duration,
    patience: Duration,
}

/// One region.
struct Site {
    pool: Pool,
    copier: Option<Arc<dyn SnapshotCopier>>,
}

struct Front {
    records: Records,
    sites: BTreeMap<Region, Site>,
    /// The homes that this front is at work on.
    busy: Arc<Busy>,
    seen: Mutex<BTreeMap<BoxKey, (Region, BoxId)>>,
    copy_limit: Duration,
    patience: Duration,
}

/// Where a box lives, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Home {
    /// The box.
    pub owner: BoxRef,
    /// Where it lives.
    pub region: Region,
    /// What is under way.
    pub status: HomeStatus,
    /// Since when it has a home.
    pub created_at: Timestamp,
}

impl Home {
    fn of(record: HomeRecord) -> Self {
        let HomeRecord { owner, region, status, created_at, .. } = record;
        Self { owner, region, status, created_at }
    }
}

impl BoxView {
    /// As its home says, too: that knows of a move before and after the box's own record does.
    fn at_home(self, home: &HomeRecord) -> Self {
        Self { moving: self.moving || home.status.attempt().is_some(), ..self }
    }
}

impl RegionsBuilder {
    /// A region and its pool. The last one of a name counts. The pool's gauges can be told from those of the others when
    /// [its builder](crate::PoolBuilder::region) was told the name too.
    #[must_use]
    pub fn region(mut self, name: Region, pool: Pool) -> Self {
        self.sites.insert(name, Site { pool, copier: None });
        self
    }

    /// A region whose provider can give snapshots to others and take theirs: between two such, boxes can be moved.
    #[must_use]
    pub fn region_with_copies(mut self, name: Region, pool: Pool, copier: Arc<dyn SnapshotCopier>) -> Self {
        self.sites.insert(name, Site { pool, copier: Some(copier) });
        self
    }

    /// How long the copy of a snapshot into another region may take. Default: 6 hours; a cloud copies in the background.
    #[must_use]
    pub fn copy_limit(mut self, limit: Duration) -> Self {
        self.copy_limit = limit;
        self
    }

    /// How long a connect waits for a box that is on its way, before it says so. Default: 10 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The front, and the background work, which the caller runs.
    ///
    /// # Errors
    /// `Invalid` without a region.
    pub fn build(self) -> Result<(Regions, RegionsWorker)> {
        let Some(first) = self.sites.values().next() else {
            let detail = "at least one region is needed";
            return Err(Error::new(ErrorKind::Invalid, "build regions", "configuration").with_detail(detail));
        };
        let shared = &first.pool.shared;
        let limits = &shared.config.limits;
        let records = Records::new(self.store, shared.node.clone(), limits.store_call, limits.store_silence);
        let front = Arc::new(Front {
            records,
            sites: self.sites,
            busy: Arc::default(),
            seen: Mutex::default(),
            copy_limit: self.copy_limit,
            patience: self.patience,
        });
        let worker = RegionsWorker { front: Arc::downgrade(&front) };
        Ok((Regions { front }, worker))
    }
}

/// Goes on with what dead fronts left half done, and puts right what belongs to no home.
#[must_use = "without the worker what dead fronts left is only seen by who comes across it"]
pub struct RegionsWorker {
    front: Weak<Front>,
}

impl RegionsWorker {
    /// Runs until the last handle of the front is dropped.
    pub async fn run(self) {
        loop {
            let Some(every) = self.pass().await else { return };
            tokio::time::sleep(every).await;
        }
    }

    async fn pass(&self) -> Option<Duration> {
        let front = self.front.upgrade()?;
        if let Err(error) = front.survey().await {
            tracing::warn!(error = %crate::Report(&error), "the boxes' homes were not looked through; the next pass tries again");
        }
        let every = front.sites.values().map(|site| site.pool.shared.config.census_every).min();
        Some(every.unwrap_or(front.patience))
    }
}

impl Regions {
    /// Begins to set up a front. `store` has the homes; it may be the store of one of the regions.
    #[must_use]
    pub fn builder(store: Arc<dyn StateStore>) -> RegionsBuilder {
        let (copy_limit, patience) = (Duration::from_secs(6 * 3_600), Duration::from_secs(10));
        RegionsBuilder { store, sites: BTreeMap::new(), copy_limit, patience }
    }

    /// The regions, by name, and their pools.
    pub fn regions(&self) -> impl Iterator<Item = (&Region, &Pool)> {
        self.front.sites.iter().map(|(name, site)| (name, &site.pool))
    }

    /// The pool of a region.
    #[must_use]
    pub fn pool(&self, region: &Region) -> Option<&Pool> {
        self.front.sites.get(region).map(|site| &site.pool)
    }

    /// Makes a box in a region, as [`Pool::create_box`] does there.
    ///
    /// # Errors
    /// `AlreadyExists` when the user has a box of that name in any region; `Invalid` when there is no such region; otherwise as
    /// [`Pool::create_box`].
    #[tracing::instrument(name = "boxpool.create_in_region", skip_all, fields(%user, %name, %region))]
    pub async fn create_box(&self, user: &UserId, name: &BoxName, region: &Region) -> Result<BoxView> {
        let pool = &self.front.site(region)?.pool;
        pool.check_open("create box", name)?;
        let (front, user, called, region) = (Arc::clone(&self.front), user.clone(), name.clone(), region.clone());
        let work = |_| async move { front.create_new(&user, &called, &region).await };
        pool.in_background("create box", name, work).await
    }

    /// Makes a box of a snapshot that a region has, in that region, as [`Pool::restore_box`] does there.
    ///
    /// # Errors
    /// `AlreadyExists` when the user has a box of that name in any region; `Invalid` when there is no such region; otherwise as
    /// [`Pool::restore_box`].
    #[tracing::instrument(name = "boxpool.restore_in_region", skip_all, fields(%user, %region, %snapshot, %name))]
    pub async fn restore_box(
        &self,
        user: &UserId,
        region: &Region,
        snapshot: &SnapshotName,
        name: &BoxName,
    ) -> Result<BoxView> {
        const WHAT: &str = "restore snapshot";
        let pool = &self.front.site(region)?.pool;
        pool.check_open(WHAT, name)?;
        let (front, user, region) = (Arc::clone(&self.front), user.clone(), region.clone());
        let (snapshot, called) = (snapshot.clone(), name.clone());
        let work = |_| async move { front.restore(&user, &region, &snapshot, &called).await };
        pool.in_background(WHAT, name, work).await
    }

    /// Makes a box that is a copy of another, in the region where that lives, as [`Pool::duplicate_box`] does there.
    ///
    /// # Errors
    /// `AlreadyExists` when the user has a box named `to` in any region; otherwise as [`Pool::duplicate_box`].
    #[tracing::instrument(name = "boxpool.duplicate_home", skip_all, fields(%user, %name, %to))]
    pub async fn duplicate_box(&self, user: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxView> {
        const WHAT: &str = "duplicate box";
        let pool = self.pool_of(user, name).await?;
        pool.check_open(WHAT, name)?;
        let (front, user, of, to) = (Arc::clone(&self.front), user.clone(), name.clone(), to.clone());
        let work = |_| async move { front.duplicate(&user, &of, &to).await };
        pool.in_background(WHAT, name, work).await
    }

    /// Where a box lives; `None` when the user has none of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn home(&self, user: &UserId, name: &BoxName) -> Result<Option<Home>> {
        Ok(self.front.found(user, name).await?.map(|held| Home::of(held.record)))
    }

    /// The pool where a box lives, for all that is done with a box where it is.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when this front does not know the region; the store's.
    pub async fn pool_of(&self, user: &UserId, name: &BoxName) -> Result<&Pool> {
        let held = self.front.found(user, name).await?;
        let held = held.ok_or_else(|| homes::absent("find box", name))?;
        Ok(&self.front.site(&held.record.region)?.pool)
    }

    /// The box and the region where it lives, or `None` when the user has none of that name.
    ///
    /// # Errors
    /// `Invalid` when this front does not know the region; the store's.
    pub async fn get_box(&self, user: &UserId, name: &BoxName) -> Result<Option<(Region, BoxView)>> {
        let Some(held) = self.front.found(user, name).await? else { return Ok(None) };
        let view = self.front.site(&held.record.region)?.pool.get_box(user, name).await?;
        Ok(view.map(|view| (held.record.region.clone(), view.at_home(&held.record))))
    }

    /// All boxes of a user, by name, each with the region where it lives; not those that are deleted and could be had back.
    ///
    /// # Errors
    /// The store's, of any region.
    pub async fn list_boxes(&self, user: &UserId) -> Result<Vec<(Region, BoxView)>> {
        self.front.list(user).await
    }

    /// Brings the box up where it lives, as [`Pool::connect`] does.
    ///
    /// # Errors
    /// `Busy`, with a time after which to try again, when the box is [being moved](Regions::move_box), renamed or created and that
    /// does not end within the [patience](RegionsBuilder::patience); otherwise as [`Pool::connect`].
    pub async fn connect(&self, request: ConnectRequest) -> Result<Session> {
        self.front.connect(&request).await
    }

    /// Takes a box to another region: it is shut down, its disk is copied there, and it is deleted where it was. It stays the same
    /// box, with its name, id and shares; host key and machine id are new, as in every copy. Sessions on it end, and until it is there nobody can connect. One whose
    /// memory is saved is brought up first, so that its guest can write everything to its disk: **memory does not travel**, and it
    /// boots in its new region. Snapshots of it stay where they were taken. A box that is there already is left as it is.
    ///
    /// It takes as long as a copy of the disk does, and goes on when the caller goes away. If this process dies, another front
    /// takes the box back to where it was, or, once it is decided, on to where it was to go.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when there is no such region or one of the two cannot copy snapshots; `NoCapacity` when there
    /// is no room for its volume there; `Busy` when another front is at work on it; `Unavailable` while draining. After an error the box
    /// is where it was, unless the effect is `Unknown`: then it is in one of the two, and [`Regions::home`] tells in a while.
    pub async fn move_box(&self, user: &UserId, name: &BoxName, to: &Region) -> Result<Home> {
        self.move_box_telling(user, name, to, move_progress().0).await
    }

    /// [`Regions::move_box`] that tells how far it is. Whether anybody listens is all the same to it.
    ///
    /// # Errors
    /// As [`Regions::move_box`].
    #[tracing::instrument(name = "boxpool.move", skip_all, fields(%user, %name, %to))]
    pub async fn move_box_telling(
        &self,
        user: &UserId,
        name: &BoxName,
        to: &Region,
        progress: watch::Sender<MoveProgress>,
    ) -> Result<Home> {
        let pool = &self.front.site(to)?.pool;
        pool.check_open("move box", name)?;
        let (front, user, called, to) = (Arc::clone(&self.front), user.clone(), name.clone(), to.clone());
        let work = |_| async move { front.move_box(&user, &called, &to, &progress).await };
        pool.in_background("move box", name, work).await
    }

    /// Calls a box something else, as [`Pool::rename_box`] does.
    ///
    /// # Errors
    /// `AlreadyExists` when the user has a box of that name in any region; otherwise as [`Pool::rename_box`].
    #[tracing::instrument(name = "boxpool.rename_home", skip_all, fields(%user, %name, %to))]
    pub async fn rename_box(&self, user: &UserId, name: &BoxName, to: &BoxName) -> Result<Home> {
        let pool = self.pool_of(user, name).await?;
        pool.check_open("rename box", name)?;
        let (front, user, called, to) = (Arc::clone(&self.front), user.clone(), name.clone(), to.clone());
        let work = |_| async move { front.rename(&user, &called, &to).await };
        pool.in_background("rename box", name, work).await
    }

    /// Deletes a box, as [`Pool::delete_box`] does where it lives: with a retention there its owner can
    /// [have it back](Regions::undelete_box), and its name stays taken so long.
    ///
    /// # Errors
    /// As [`Pool::delete_box`]; `Busy` while it is being moved.
    #[tracing::instrument(name = "boxpool.delete_home", skip_all, fields(%user, %name))]
    pub async fn delete_box(&self, user: &UserId, name: &BoxName) -> Result<()> {
        self.delete(user, name, false).await
    }

    /// Deletes a box for good, as [`Pool::purge_box`] does.
    ///
    /// # Errors
    /// As [`Regions::delete_box`].
    #[tracing::instrument(name = "boxpool.purge_home", skip_all, fields(%user, %name))]
    pub async fn purge_box(&self, user: &UserId, name: &BoxName) -> Result<()> {
        self.delete(user, name, true).await
    }

    async fn delete(&self, user: &UserId, name: &BoxName, for_good: bool) -> Result<()> {
        let pool = self.pool_of(user, name).await?;
        pool.check_open("delete box", name)?;
        let (front, user, called) = (Arc::clone(&self.front), user.clone(), name.clone());
        let work = |_| async move { front.delete(&user, &called, for_good).await };
        pool.in_background("delete box", name, work).await
    }

    /// Has a box back that was deleted, as [`Pool::undelete_box`] does.
    ///
    /// # Errors
    /// As [`Pool::undelete_box`].
    pub async fn undelete_box(&self, user: &UserId, name: &BoxName) -> Result<BoxView> {
        self.pool_of(user, name).await?.undelete_box(user, name).await
    }
}

impl Front {
    fn site(&self, region: &Region) -> Result<&Site> {
        self.sites.get(region).ok_or_else(|| {
            let known: Vec<_> = self.sites.keys().map(Region::as_str).collect();
            let detail = format!("there is no such region; there are {}", known.join(", "));
            Error::new(ErrorKind::Invalid, "find region", region).with_detail(detail)
        })
    }

    async fn list(&self, user: &UserId) -> Result<Vec<(Region, BoxView)>> {
        // The homes before the boxes: one that moves meanwhile is missing rather than there twice.
        let homes = self.records.scan_all::<HomeRecord>(Some(user.as_str())).await?;
        let homes: BTreeMap<BoxId, HomeRecord> =
            homes.into_iter().map(|(_, held)| (held.record.owner.id.clone(), held.record)).collect();
        let mut all = Vec::new();
        for (region, site) in &self.sites {
            for view in site.pool.list_boxes(user).await? {
                match homes.get(&view.id) {
                    Some(home) if home.region != *region => {}
                    Some(home) => all.push((region.clone(), view.at_home(home))),
                    None => all.push((region.clone(), view)),
                }
            }
        }
        all.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        Ok(all)
    }

    async fn connect(&self, request: &ConnectRequest) -> Result<Session> {
        const WHAT: &str = "connect to box";
        let begun = Instant::now();
        let key: BoxKey = (request.user.clone(), request.name.clone());
        let limit = |site: &Site| request.deadline.unwrap_or(site.pool.shared.config.connect_deadline);
        let connect = async |region: &Region, id: &BoxId| {
            let site = self.site(region)?;
            let left = limit(site).saturating_sub(begun.elapsed());
            site.pool.connect(request.for_only(id, left)).await
        };
        let remembered = self.seen().get(&key).cloned();
        if let Some((region, id)) = remembered {
            match connect(&region, &id).await {
                Err(error) if is_elsewhere(&error) => drop(self.seen().remove(&key)),
                answer => return answer,
            }
        }
        loop {
            let held = self.found(&key.0, &key.1).await?.ok_or_else(|| homes::absent(WHAT, &key.1))?;
            let record = &held.record;
            match &record.status {
                HomeStatus::Settled => {}
                HomeStatus::Moved { attempt, .. } => drop(self.settle_there(record, attempt).await?),
                HomeStatus::Deleting { .. } => {
                    let detail = "the box is being deleted";
                    return Err(Error::new(ErrorKind::NotFound, WHAT, &key.1).with_detail(detail));
                }
                status => {
                    self.wait_or_recover(
                        WHAT,
                        &held,
                        status,
                        begun + self.patience.min(limit(self.site(&record.region)?)),
                    )
                    .await?;
                    continue;
                }
            }
            let answer = connect(&record.region, &record.owner.id).await;
            match answer {
                Ok(session) => {
                    self.remember(key, record);
                    return Ok(session);
                }
                Err(error) if is_elsewhere(&error) => {
                    let now = self.home_of(&key.0, &key.1).await?;
                    if now.is_some_and(|now| now.version == held.version) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn remember(&self, key: BoxKey, record: &HomeRecord) {
        let mut seen = self.seen();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(key, (record.region.clone(), record.owner.id.clone()));
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<BoxKey, (Region, BoxId)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random<'a>(&self, site: &'a Site) -> &'a Random {
        &site.pool.shared.random
    }
}

/// Whether a region's refusal may mean that the box lives elsewhere now, or is on its way.
fn is_elsewhere(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Busy)
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regions").field("regions", &self.front.sites.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RegionsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionsBuilder").field("regions", &self.sites.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RegionsWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionsWorker").finish_non_exhaustive()
    }
}
