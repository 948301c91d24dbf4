//! What there is in the pool: read from its records, for the operator. Nothing here changes anything.

use boxpool::record::{
    BoxRecord, DemandRecord, EventRecord, InstanceRecord, InstanceStatus, NODES, NodeRecord, Record, VolumeRecord,
    VolumeStatus,
};
use boxpool::{
    BoxName, Error, ErrorKind, Key, Pool, PoolConfig, PoolStatus, Region, Report, Result, StateStore, Timestamp, UserId,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Most records of one table that are looked at. Beyond that a view says that it is not complete.
pub const RECORDS_MAX: usize = 20_000;

/// Events that are shown to everybody who looks.
const RECENT: usize = 30;

/// Records asked for at once.
const PAGE: usize = 500;

/// How long the store may take for one answer.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// How long a view is shown again instead of being made anew: a page that many look at does not burden the store.
const FRESH: Duration = Duration::from_secs(2);

/// A view of a pool.
pub struct Overview {
    region: Option<Region>,
    pool: Pool,
    store: Arc<dyn StateStore>,
    config: PoolConfig,
    // These are held while the store is asked, so that many who look at once cost one look; each answer has its limit.
    latest: Mutex<Option<(Instant, Arc<View>)>>,
    recent: Mutex<Option<(Instant, Scanned<EventRecord>)>>,
}

/// What was seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct View {
    /// Boxes, by placement.
    pub boxes: BTreeMap<&'static str, usize>,
    /// Machines, by status.
    pub instances: BTreeMap<&'static str, usize>,
    /// Disks, by status.
    pub volumes: BTreeMap<&'static str, usize>,
    /// Gateways on record.
    pub gateways: Vec<Node>,
    /// Set aside for a person.
    pub quarantined: Vec<Quarantined>,
    /// Whether everything was looked at.
    pub complete: bool,
}

/// A gateway on record.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// When it started.
    pub started: Timestamp,
    /// Connects that waited there at its last heartbeat.
    pub waiting: u32,
}

/// Something that was set aside.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantined {
    /// `instance` or `volume`.
    pub what: &'static str,
    /// Which.
    pub id: String,
    /// Why.
    pub why: String,
    /// When its record was made.
    pub created: Timestamp,
}

/// Records of one table, and whether these are all.
type Scanned<T> = (Vec<T>, bool);

impl Overview {
    /// A view of `pool`, whose records are in `store` and whose settings are `config`.
    #[must_use]
    pub fn new(pool: Pool, store: Arc<dyn StateStore>, config: PoolConfig) -> Self {
        Self { region: None, pool, store, config, latest: Mutex::default(), recent: Mutex::default() }
    }

    /// The same, of the pool of a region.
    #[must_use]
    pub fn of_region(mut self, region: Option<Region>) -> Self {
        self.region = region;
        self
    }

    /// Whose pool it is, where there are several regions.
    #[must_use]
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// What this gateway knows of the pool, without asking anybody.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.pool.status()
    }

    /// Everything there is, at most a moment old.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn view(&self) -> Result<Arc<View>> {
        let mut latest = self.latest.lock().await;
        if let Some((at, view)) = &*latest
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.look().await?);
        *latest = Some((Instant::now(), Arc::clone(&view)));
        Ok(view)
    }

    async fn look(&self) -> Result<View> {
        let (boxes, all_boxes) = self.scan::<BoxRecord>(None).await?;
        let (instances, all_instances) = self.scan::<InstanceRecord>(None).await?;
        let (volumes, all_volumes) = self.scan::<VolumeRecord>(None).await?;
        let (nodes, all_nodes) = self.scan::<NodeRecord>(None).await?;
        let mut view = View { complete: all_boxes && all_instances && all_volumes && all_nodes, ..View::default() };
        for each in boxes {
            *view.boxes.entry(each.placement.word()).or_default() += 1;
        }
        let mut set_aside = |what, id, why, created| view.quarantined.push(Quarantined { what, id, why, created });
        for each in instances {
            *view.instances.entry(each.status.word()).or_default() += 1;
            if let InstanceStatus::Quarantined { why } = each.status {
                set_aside("instance", each.id.to_string(), why, each.created_at);
            }
        }
        for each in volumes {
            *view.volumes.entry(each.status.word()).or_default() += 1;
            if let VolumeStatus::Quarantined { why } = each.status {
                set_aside("volume", each.id.to_string(), why, each.created_at);
            }
        }
        for each in nodes {
            view.gateways.push(Node { id: each.id.to_string(), started: each.started_at, waiting: each.waiting });
        }
        Ok(view)
    }

    /// The newest events of all, oldest first, at most a moment old, and whether these are surely the newest.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn recent(&self) -> Result<Scanned<EventRecord>> {
        let mut recent = self.recent.lock().await;
        if let Some((at, events)) = &*recent
            && at.elapsed() < FRESH
        {
            return Ok(events.clone());
        }
        let events = self.events(None, RECENT).await?;
        *recent = Some((Instant::now(), events.clone()));
        Ok(events)
    }

    /// The newest events, oldest first: of one account, or of all.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn events(&self, owner: Option<&UserId>, limit: usize) -> Result<Scanned<EventRecord>> {
        let (mut events, complete) = self.scan::<EventRecord>(owner.map(UserId::as_str)).await?;
        events.sort_by_key(|event| event.at);
        let newest = events.split_off(events.len().saturating_sub(limit));
        Ok((newest, complete))
    }

    /// The pool that is looked at.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Where its records are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// The pool's settings.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Machines, disks, and how many connects wait for a machine on all gateways, as their last heartbeats say.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn stock(&self) -> Result<(Vec<InstanceRecord>, Vec<VolumeRecord>, usize)> {
        let (instances, _) = self.scan(None).await?;
        let (volumes, _) = self.scan(None).await?;
        let (nodes, _) = self.scan::<NodeRecord>(None).await?;
        let status = self.status();
        let elsewhere = nodes.iter().filter(|node| node.id != status.node).map(|node| node.waiting as usize);
        Ok((instances, volumes, elsewhere.sum::<usize>() + status.waiting))
    }

    /// What the maintainer knows of demand, and wants for the goal.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn demand(&self) -> Result<Option<DemandRecord>> {
        self.limited("demand".to_owned(), self.pool.demand()).await
    }

    /// Everybody who has a box.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn owners(&self) -> Result<BTreeSet<UserId>> {
        let (boxes, _) = self.scan::<BoxRecord>(None).await?;
        Ok(boxes.into_iter().map(|each| each.owner.owner).collect())
    }

    /// A box, with all that is on record of it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn find_box(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxRecord>> {
        self.get(&Key::new(BoxRecord::TABLE, owner.as_str(), name.as_str())).await
    }

    /// A machine.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn find_instance(&self, id: &str) -> Result<Option<InstanceRecord>> {
        // Its seat is what stands before the first hyphen of its id.
        let seat = id.split('-').next().unwrap_or(id);
        let found: Option<InstanceRecord> = self.get(&Key::new(InstanceRecord::TABLE, seat, seat)).await?;
        Ok(found.filter(|found| found.id.as_str() == id))
    }

    /// A disk.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn find_volume(&self, id: &str) -> Result<Option<VolumeRecord>> {
        self.get(&Key::new(VolumeRecord::TABLE, id, id)).await
    }

    /// Whether a gateway is on record.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn is_on_record(&self, node: &str) -> Result<bool> {
        let key = Key::new(NODES, node, node);
        self.limited(key.to_string(), self.store.get(&key)).await.map(|found| found.is_some())
    }

    async fn get<T: Record>(&self, key: &Key) -> Result<Option<T>> {
        let Some(stored) = self.limited(key.to_string(), self.store.get(key)).await? else { return Ok(None) };
        serde_json::from_str(&stored.value)
            .map(Some)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "read record", key).with_source(error))
    }

    async fn scan<T: Record>(&self, partition: Option<&str>) -> Result<Scanned<T>> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let call = self.store.scan(T::TABLE, partition, cursor.as_ref(), PAGE);
            let page = self.limited(T::TABLE.as_str().to_owned(), call).await?;
            for entry in page.items {
                match serde_json::from_str(&entry.stored.value) {
                    Ok(record) => all.push(record),
                    Err(error) => tracing::warn!(key = %entry.key, %error, "a record cannot be understood"),
                }
            }
            match page.next {
                Some(next) if all.len() < RECORDS_MAX => cursor = Some(next),
                rest => return Ok((all, rest.is_none())),
            }
        }
    }

    async fn limited<T>(&self, resource: String, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(STORE_LIMIT, call).await.unwrap_or_else(|_| {
            let detail = format!("the state store did not answer within {STORE_LIMIT:?}");
            Err(Error::new(ErrorKind::TimedOut, "read records", resource).with_detail(detail))
        })
    }
}

/// Why a gateway should not be sent anybody; empty when it may.
#[must_use]
pub fn obstacles(stopping: bool, in_touch: bool, on_record: &Result<bool>) -> Vec<&'static str> {
    let mut obstacles = Vec::new();
    if stopping {
        obstacles.push("stopping");
    }
    if !in_touch {
        obstacles.push("no heartbeat has reached the store lately");
    }
    match on_record {
        Ok(true) => {}
        Ok(false) => obstacles.push("the gateway's record is not in the store"),
        Err(error) => {
            tracing::warn!(error = %Report(error), "not ready");
            obstacles.push("the store does not answer");
        }
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_the_way_is_named() {
        let lost = || Err(Error::new(ErrorKind::Unavailable, "read", "store"));
        assert!(obstacles(false, true, &Ok(true)).is_empty());
        assert_eq!(obstacles(true, true, &Ok(true)), ["stopping"]);
        assert_eq!(obstacles(false, false, &lost()).len(), 2);
        assert_eq!(obstacles(false, true, &Ok(false)), ["the gateway's record is not in the store"]);
    }
}
