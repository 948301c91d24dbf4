//! A state store in this process's memory: for tests, examples and the simulator. Nothing survives the process.

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Cursor, Entry, Key, Page, StateStore, Stored, Table, Version, check_record};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A [`StateStore`] that keeps its records in memory.
///
/// It keeps every promise of the trait but durability beyond the process. Share it as `Arc<MemoryStore>`: several pools
/// on one such store behave like several nodes on one database.
#[derive(Debug, Default)]
pub struct MemoryStore {
    // Never held across an await: every operation is one short critical section, which is what makes it atomic.
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_key: BTreeMap<Key, Stored>,
    // One counter for all records, never set back: a version is not seen twice, deleted records included.
    last_version: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Every change is one map operation, so a panic elsewhere cannot have left the map half changed.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn put(&mut self, key: &Key, value: &str) -> Version {
        self.last_version += 1;
        let version = Version(self.last_version.to_string());
        self.by_key.insert(key.clone(), Stored { version: version.clone(), value: value.to_owned() });
        version
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        Ok(self.records().by_key.get(key).cloned())
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        check_record("insert", key, value)?;
        let mut records = self.records();
        if records.by_key.contains_key(key) {
            return Err(Error::new(ErrorKind::AlreadyExists, "insert", key));
        }
        Ok(records.put(key, value))
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        check_record("update", key, value)?;
        let mut records = self.records();
        match records.by_key.get(key) {
            None => Err(Error::new(ErrorKind::NotFound, "update", key)),
            Some(stored) if stored.version != *version => Err(Error::new(ErrorKind::Conflict, "update", key)),
            Some(_) => Ok(records.put(key, value)),
        }
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        let mut records = self.records();
        match records.by_key.get(key) {
            None => Ok(()),
            Some(stored) if stored.version != *version => Err(Error::new(ErrorKind::Conflict, "delete", key)),
            Some(_) => {
                records.by_key.remove(key);
                Ok(())
            }
        }
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        let after = match cursor {
            // No key has empty parts, so this lies before every record of the table or partition.
            None => Key::new(table, partition.unwrap_or_default(), ""),
            Some(Cursor(text)) => {
                let (partition, row) = serde_json::from_str::<(String, String)>(text).map_err(|error| {
                    Error::new(ErrorKind::Invalid, "scan", table.as_str())
                        .with_detail("the cursor does not come from a scan of this store")
                        .with_source(error)
                })?;
                Key::new(table, partition, row)
            }
        };
        let limit = limit.max(1);
        let records = self.records();
        let mut items: Vec<Entry> = records
            .by_key
            .range((Bound::Excluded(after), Bound::Unbounded))
            .take_while(|(key, _)| key.table == table && partition.is_none_or(|wanted| key.partition == wanted))
            // One more than asked for tells whether there is a next page.
            .take(limit.saturating_add(1))
            .map(|(key, stored)| Entry { key: key.clone(), stored: stored.clone() })
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| cursor_after(&last.key));
        Ok(Page { items, next })
    }
}

/// The place right after `key`: a record inserted or deleted elsewhere meanwhile moves nothing.
fn cursor_after(key: &Key) -> Cursor {
    Cursor(serde_json::json!([key.partition, key.row]).to_string())
}
