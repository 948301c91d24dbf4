//! A store in memory, for tests and examples. Everything is lost with the process.

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Cursor, Entry, Key, Page, StateStore, Stored, Table, Version, check_record};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A [`StateStore`] in memory. Clones share their content, so that several nodes of one test can share a store.
///
/// ```
/// # async fn example() -> boxpool::Result<()> {
/// use boxpool::{Key, MemoryStore, StateStore, Table};
/// const NOTES: Table = Table::new("notes");
/// let store = MemoryStore::new();
/// let key = Key::new(NOTES, "a", "b");
/// let version = store.insert(&key, "1").await?;
/// store.update(&key, &version, "2").await?;
/// assert!(store.update(&key, &version, "3").await.is_err(), "it changed meanwhile");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Key, Stored>,
    /// Never goes back, so that no version is ever used twice.
    versions: u64,
}

impl Inner {
    fn next_version(&mut self) -> Version {
        self.versions += 1;
        Version(self.versions.to_string())
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        Ok(self.inner().records.get(key).cloned())
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        check_record("insert record", key, value)?;
        let (key, value) = (key.clone(), value.to_owned());
        let mut inner = self.inner();
        if inner.records.contains_key(&key) {
            return Err(Error::new(ErrorKind::AlreadyExists, "insert record", &key));
        }
        let version = inner.next_version();
        inner.records.insert(key, Stored { version: version.clone(), value });
        Ok(version)
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        check_record("update record", key, value)?;
        // What takes or gives back memory is done before the lock is taken and after: others wait for it.
        let mut value = value.to_owned();
        let mut inner = self.inner();
        let next = inner.next_version();
        match inner.records.get_mut(key) {
            None => Err(Error::new(ErrorKind::NotFound, "update record", key)),
            Some(stored) if stored.version != *version => Err(Error::new(ErrorKind::Conflict, "update record", key)),
            Some(stored) => {
                stored.version.clone_from(&next);
                std::mem::swap(&mut stored.value, &mut value);
                drop(inner);
                Ok(next)
            }
        }
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        let mut inner = self.inner();
        match inner.records.get(key) {
            None => Ok(()),
            Some(stored) if stored.version != *version => Err(Error::new(ErrorKind::Conflict, "delete record", key)),
            Some(_) => {
                inner.records.remove(key);
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
        let inner = self.inner();
        // The cursor is the last key seen, its parts joined by a character that keys cannot hold.
        let after = match cursor.map(|cursor| cursor.0.split_once('\0')) {
            None => Bound::Included(Key::new(table, partition.unwrap_or_default(), "")),
            Some(Some((partition, row))) => Bound::Excluded(Key::new(table, partition, row)),
            Some(None) => {
                let detail = "the cursor is not one of this store's";
                return Err(Error::new(ErrorKind::Invalid, "scan table", table.as_str()).with_detail(detail));
            }
        };
        let mut rest = inner
            .records
            .range((after, Bound::Unbounded))
            .take_while(|(key, _)| key.table == table && partition.is_none_or(|wanted| key.partition == wanted));
        let items: Vec<Entry> = rest
            .by_ref()
            .take(limit.max(1))
            .map(|(key, stored)| Entry { key: key.clone(), stored: stored.clone() })
            .collect();
        let more = rest.next().is_some();
        let last = items.last().filter(|_| more);
        let next = last.map(|entry| Cursor(format!("{}\0{}", entry.key.partition, entry.key.row)));
        Ok(Page { items, next })
    }
}
