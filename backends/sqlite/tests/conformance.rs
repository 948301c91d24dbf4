//! The SQLite store keeps every promise of the store suite, with two stores of this process on one file.
#![allow(clippy::unwrap_used)]

use boxpool::StateStore;
use boxpool_sim::conformance::store::StoreBench;
use boxpool_sqlite::SqliteStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Bench {
    store: Arc<SqliteStore>,
    other: Arc<SqliteStore>,
    fresh: AtomicUsize,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store.db");
        let store = Arc::new(SqliteStore::open(&file).unwrap());
        let other = Arc::new(SqliteStore::open(&file).unwrap());
        Self { store, other, fresh: AtomicUsize::new(0), _directory: directory }
    }
}

impl StoreBench for Bench {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn other_handle(&self) -> Arc<dyn StateStore> {
        self.other.clone()
    }

    fn fresh(&self) -> String {
        format!("p{}", self.fresh.fetch_add(1, Ordering::Relaxed))
    }
}

boxpool_sim::store_conformance!(Bench::new());
