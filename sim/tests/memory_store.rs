//! The memory store keeps every promise of the store suite.
#![allow(clippy::unwrap_used)]

use boxpool::{MemoryStore, StateStore};
use boxpool_sim::conformance::store::StoreBench;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Bench {
    store: Arc<MemoryStore>,
    fresh: AtomicUsize,
}

impl StoreBench for Bench {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn other_handle(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn fresh(&self) -> String {
        format!("p{}", self.fresh.fetch_add(1, Ordering::Relaxed))
    }
}

boxpool_sim::store_conformance!(Bench::default());
