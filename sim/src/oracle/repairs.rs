//! How much had to be put right. A run without faults must need no repair at all, and one with faults a bounded number for
//! each: a pool that heals itself hides its own mistakes otherwise.
//!
//! The counts are the pool's own metrics, read through a recorder that is local to the run's thread.

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The counters that tell of something put right.
const REPAIRS: [&str; 9] = [
    "boxpool_takeovers_total",
    "boxpool_claims_swept_total",
    "boxpool_orphans_total",
    "boxpool_instances_doubted_total",
    "boxpool_strays_total",
    "boxpool_placements_failed_total",
    "boxpool_guests_lost_total",
    "boxpool_suspends_failed_total",
    "boxpool_instances_failed_total",
];

/// Counts what the pool counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    counters: Arc<Mutex<BTreeMap<String, Arc<Count>>>>,
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

impl Counts {
    fn counter(&self, name: &str) -> Arc<Count> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = counters.get(name) {
            return Arc::clone(found);
        }
        Arc::clone(counters.entry(name.to_owned()).or_default())
    }

    /// Every counter by name.
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(name, count)| (name.clone(), count.0.load(Ordering::Relaxed))).collect()
    }

    /// What was put right, by name.
    pub(crate) fn repairs(&self) -> BTreeMap<String, u64> {
        let all = self.all();
        all.into_iter().filter(|(name, count)| *count > 0 && REPAIRS.contains(&name.as_str())).collect()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.counter(key.name()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
