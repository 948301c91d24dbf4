//! The store on Azure Tables keeps every promise of a state store: alone, and when each call goes to another of two
//! stores on the same tables.

use async_trait::async_trait;
use boxpool::{Cursor, Entry, Key, Page, Result, StateStore, Stored, Table, Version};
use boxpool_azure::TableStore;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stores on the same tables, asked in turn.
struct Fresh {
    stores: Vec<TableStore>,
    calls: AtomicUsize,
}

fn fresh(stores: usize) -> Fresh {
    let options = crate::azurite::fresh_options();
    let open = |_| TableStore::open(&options).unwrap();
    Fresh { stores: (0..stores).map(open).collect(), calls: AtomicUsize::new(0) }
}

impl Fresh {
    fn next(&self) -> &TableStore {
        &self.stores[self.calls.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

#[async_trait]
impl StateStore for Fresh {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.next().get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.next().insert(key, value).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.next().update(key, version, value).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.next().delete(key, version).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.next().scan(table, partition, cursor, limit).await
    }
}

mod alone {
    use super::fresh;
    boxpool_sim::store_conformance!(fresh(1));
}

mod two_on_the_same_tables {
    use super::fresh;
    boxpool_sim::store_conformance!(fresh(2));
}
