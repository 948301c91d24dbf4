//! Typed records over a [`StateStore`], with one answer to the question every remote store poses: *was that my write?*
//!
//! Each write carries a mark that no other write has. When an answer is lost the record is read again: our mark means
//! that the write happened; an unchanged version means that it may be sent again, because only one of the two can win.

use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::{BoxName, InstanceId, NodeId, SnapshotName, UserId, VolumeId};
use crate::planted::{self, Bug};
use crate::reach::Reach;
use crate::record::{
    BOXES, DEMAND, GOLDENS, HOMES, INSTANCES, LEASES, NODES, Record, SCHEMA, SNAPSHOTS, SnapshotRecord, VOLUMES,
};
use crate::store::{Cursor, Entry, Key, Page, StateStore, Stored, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a write with a lost answer is looked into before the caller is told that the outcome is unknown.
const LOST_ANSWER_TRIES: u32 = 5;

/// What hardly any record is longer than: its text is not moved while it grows.
const USUAL_BYTES: usize = 1_024;

/// A record and the version it was read or written with.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) record: T,
    pub(crate) version: Version,
}

/// The store, as the pool sees it.
pub(crate) struct Records {
    store: Arc<dyn StateStore>,
    writer: NodeId,
    writes: AtomicU64,
    call_limit: Duration,
    /// Whether the store answers.
    pub(crate) reach: Reach,
}

impl Records {
    /// `silence` without an answer is taken for a store that is out of reach.
    pub(crate) fn new(store: Arc<dyn StateStore>, writer: NodeId, call_limit: Duration, silence: Duration) -> Self {
        Self { store, writer, writes: AtomicU64::new(0), call_limit, reach: Reach::new(silence) }
    }

    pub(crate) async fn get<T: Record>(&self, key: &Key) -> Result<Option<Held<T>>> {
        let stored = self.limited("read record", key, self.store.get(key)).await?;
        stored.map(|stored| decode(key, stored)).transpose()
    }

    /// Inserts a record. `AlreadyExists` when there is one that is not this very write.
    ///
    /// Sent again after a lost answer, so only for a key that a late first request may bring back unharmed.
    pub(crate) async fn insert<T: Record>(&self, key: &Key, record: T) -> Result<Held<T>> {
        self.insert_in_doubt(key, record, true).await
    }

    /// Inserts a record under a name that was made up for it. Sent once: what is under the name may be used and deleted
    /// before a request that was held up arrives, and a second one would then bring the used name back. When the record is
    /// not seen after a lost answer the caller is told so, and makes up another name.
    pub(crate) async fn insert_once<T: Record>(&self, key: &Key, record: T) -> Result<Held<T>> {
        self.insert_in_doubt(key, record, planted::is(Bug::NameInsertedAgain)).await
    }

    /// Inserts, and looks after a lost answer whether the record is there; sent `again` when it is not.
    async fn insert_in_doubt<T: Record>(&self, key: &Key, record: T, again: bool) -> Result<Held<T>> {
        let (record, text) = self.sealed(key, record)?;
        let send = || self.limited("insert record", key, self.store.insert(key, &text));
        let mut tries = 0;
        let mut answer = send().await;
        loop {
            let error = match answer {
                Ok(version) => return Ok(Held { record, version }),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::AlreadyExists
                && key.table == BOXES
                && planted::is(Bug::NameWithoutUniqueness)
                && let Some(found) = self.store.get(key).await?
            {
                let version = self.store.update(key, &found.version, &text).await?;
                return Ok(Held { record, version });
            }
            // After a lost answer "already exists" may be our own earlier attempt.
            let in_doubt = error.effect() == Effect::Unknown || (tries > 0 && error.kind() == ErrorKind::AlreadyExists);
            if !in_doubt || tries >= LOST_ANSWER_TRIES {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(pause(tries)).await;
            match self.get::<T>(key).await {
                Ok(Some(found)) if found.record.envelope().mark == record.envelope().mark => return Ok(found),
                Ok(Some(_)) => return Err(Error::new(ErrorKind::AlreadyExists, "insert record", key)),
                Ok(None) | Err(_) => {}
            }
            answer = if again { send().await } else { Err(error) };
        }
    }

    /// Replaces a record that still has the version it is held with. `Conflict` when it has not.
    pub(crate) async fn update<T: Record>(&self, key: &Key, version: &Version, record: T) -> Result<Held<T>> {
        let (record, text) = self.sealed(key, record)?;
        #[cfg(feature = "planted")]
        let version = &planted::version_for(&*self.store, key, version, &text).await;
        let mut tries = 0;
        loop {
            let error = match self.limited("update record", key, self.store.update(key, version, &text)).await {
                Ok(version) => return Ok(Held { record, version }),
                Err(error) => error,
            };
            let in_doubt = error.effect() == Effect::Unknown || (tries > 0 && error.kind() == ErrorKind::Conflict);
            if in_doubt && planted::is(Bug::LostAnswerIsSuccess) {
                return Ok(Held { record, version: version.clone() });
            }
            if in_doubt && planted::is(Bug::LostAnswerIsConflict) {
                return Err(Error::new(ErrorKind::Conflict, "update record", key));
            }
            if !in_doubt || tries >= LOST_ANSWER_TRIES {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(pause(tries)).await;
            match self.get::<T>(key).await {
                Ok(Some(found)) if found.record.envelope().mark == record.envelope().mark => return Ok(found),
                Ok(Some(found)) if found.version != *version => {
                    return Err(Error::new(ErrorKind::Conflict, "update record", key));
                }
                Ok(None) => return Err(Error::new(ErrorKind::NotFound, "update record", key)),
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }

    /// Deletes a record that still has that version. Absent is success, so a lost answer is simply tried again.
    pub(crate) async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.limited("delete record", key, self.store.delete(key, version)).await {
                Err(error) if error.effect() == Effect::Unknown && tries < LOST_ANSWER_TRIES => {
                    tries += 1;
                    tokio::time::sleep(pause(tries)).await;
                }
                answer => return answer,
            }
        }
    }

    /// One page of a table, decoded. A record that cannot be understood is reported and passed over: one damaged record
    /// must not stop recovery of the others.
    pub(crate) async fn scan<T: Record>(
        &self,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
    ) -> Result<Page<(Key, Held<T>)>> {
        const PAGE: usize = 500;
        let call = self.store.scan(T::TABLE, partition, cursor, PAGE);
        let page = self.limited("scan table", &T::TABLE.as_str(), call).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for Entry { key, stored } in page.items {
            match decode(&key, stored) {
                Ok(held) => items.push((key, held)),
                Err(error) => tracing::error!(%key, %error, "passed over a record that cannot be understood"),
            }
        }
        Ok(Page { items, next: page.next })
    }

    /// All pages of [`Records::scan`], collected: only for what one user has, and for tables that do not grow with the boxes.
    pub(crate) async fn scan_all<T: Record>(&self, partition: Option<&str>) -> Result<Vec<(Key, Held<T>)>> {
        let mut all = Vec::new();
        self.scan_each(partition, |key, held| all.push((key, held))).await?;
        Ok(all)
    }

    /// Shows every record of a table, page by page: never more than one page is held.
    pub(crate) async fn scan_each<T: Record>(
        &self,
        partition: Option<&str>,
        mut see: impl FnMut(Key, Held<T>),
    ) -> Result<()> {
        let mut cursor = None;
        loop {
            let page = self.scan(partition, cursor.as_ref()).await?;
            page.items.into_iter().for_each(|(key, held)| see(key, held));
            match Self::following(page.next) {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Where the next page begins, if there is one.
    pub(crate) fn following(next: Option<Cursor>) -> Option<Cursor> {
        next.filter(|_| !planted::is(Bug::ReadsOnePage))
    }

    fn sealed<T: Record>(&self, key: &Key, mut record: T) -> Result<(T, String)> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let envelope = record.envelope_mut();
        envelope.schema = SCHEMA.max(envelope.schema);
        envelope.mark = format!("{}.{number}", self.writer);
        let invalid = |error| Error::new(ErrorKind::Invalid, "encode record", key).with_source(error);
        let mut text = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut text, &record).map_err(invalid)?;
        // JSON is UTF-8, so this does not fail.
        let text = String::from_utf8(text).map_err(|error| invalid(serde::ser::Error::custom(error)))?;
        Ok((record, text))
    }

    async fn limited<R>(
        &self,
        operation: &'static str,
        resource: &impl std::fmt::Display,
        call: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let limit = if planted::is(Bug::NoLimitOnCalls) { planted::NEVER } else { self.call_limit };
        let begun = self.reach.begin();
        let answer = tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let detail = format!("the state store did not answer within {:?}", self.call_limit);
            Err(Error::new(ErrorKind::TimedOut, operation, resource).with_detail(detail))
        });
        begun.ended(&answer);
        answer
    }
}

fn pause(tries: u32) -> Duration {
    Duration::from_millis(20 << tries.min(6))
}

fn decode<T: Record>(key: &Key, stored: Stored) -> Result<Held<T>> {
    let corrupt = |detail: String| Error::new(ErrorKind::Corrupt, "read record", key).with_detail(detail);
    let record: T = serde_json::from_str(&stored.value).map_err(|error| {
        corrupt(format!("it is not a record this version understands ({error}); it was left as it is"))
    })?;
    let schema = record.envelope().schema;
    if schema > SCHEMA {
        let detail = format!("it has schema {schema}, this version knows {SCHEMA}; upgrade this node");
        return Err(corrupt(detail));
    }
    Ok(Held { record, version: stored.version })
}

/// Where a box's record lives.
pub(crate) fn box_key(owner: &UserId, name: &BoxName) -> Key {
    Key::new(BOXES, owner.as_str(), name.as_str())
}

/// Where the record of a box's home lives.
pub(crate) fn home_key(owner: &UserId, name: &BoxName) -> Key {
    Key::new(HOMES, owner.as_str(), name.as_str())
}

/// Where a volume's record lives.
pub(crate) fn volume_key(id: &VolumeId) -> Key {
    Key::new(VOLUMES, id.as_str(), id.as_str())
}

/// Where an instance's record lives: under its *seat*, the part of the id before the first hyphen. There are `max_total` seats and
/// a seat holds one record, so no number of maintainers can make more instances than that.
pub(crate) fn instance_key(id: &InstanceId) -> Key {
    let seat = seat_of(id);
    Key::new(INSTANCES, seat, seat)
}

/// The seat an instance sits on.
pub(crate) fn seat_of(id: &InstanceId) -> &str {
    id.as_str().split('-').next().unwrap_or(id.as_str())
}

/// Where the record of a generation's golden snapshot lives.
pub(crate) fn golden_key(generation: &str) -> Key {
    Key::new(GOLDENS, "golden", generation)
}

/// Where the record of a snapshot that has a name lives.
pub(crate) fn snapshot_key(owner: &UserId, name: &SnapshotName) -> Key {
    Key::new(SNAPSHOTS, owner.as_str(), name.as_str())
}

/// Where a snapshot's record lives. No name begins with the mark of those that have none.
pub(crate) fn key_of_snapshot(record: &SnapshotRecord) -> Key {
    match &record.name {
        Some(name) => snapshot_key(&record.of.owner, name),
        None => Key::new(SNAPSHOTS, record.of.owner.as_str(), format!("_{}", record.id)),
    }
}

/// Where a node's record lives.
pub(crate) fn node_key(id: &NodeId) -> Key {
    Key::new(NODES, id.as_str(), id.as_str())
}

/// Where what is known of demand lives.
pub(crate) fn demand_key() -> Key {
    Key::new(DEMAND, "demand", "instances")
}

/// Where a role's lease lives.
pub(crate) fn lease_key(role: &str) -> Key {
    Key::new(LEASES, role, role)
}
