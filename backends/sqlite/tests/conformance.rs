//! The SQLite store keeps every promise of a state store.

#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use boxpool::{Cursor, Entry, Key, Page, Result, StateStore, Stored, Table, Version};
use boxpool_sqlite::SqliteStore;

/// A store with its folder.
struct Fresh {
    store: SqliteStore,
    _dir: tempfile::TempDir,
}

async fn fresh() -> Fresh {
    let dir = tempfile::tempdir().unwrap();
    Fresh { store: SqliteStore::open(dir.path().join("state.sqlite")).unwrap(), _dir: dir }
}

#[async_trait]
impl StateStore for Fresh {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.store.get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.store.insert(key, value).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.store.update(key, version, value).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.store.delete(key, version).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.store.scan(table, partition, cursor, limit).await
    }
}

boxpool_sim::store_conformance!(fresh().await);
