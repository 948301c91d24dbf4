//! What a decision costs, without I/O: pick a free entry and give it back, from a hundred entries to a million; and plan a pool. And what
//! memory the index takes for each free entry, beside the same entries as whole records.
//!
//! The index is private to the crate, so its source is taken in here as it is.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

#[path = "../src/free.rs"]
mod free;
#[path = "../src/index.rs"]
mod index;
#[path = "../src/random.rs"]
mod random;

mod clock {
    pub use boxpool::Timestamp;
}
mod id {
    pub use boxpool::{InstanceId, NodeId, SnapshotId, UserId, VolumeId};
}
mod record {
    pub use boxpool::record::*;
}
mod records {
    #[derive(Debug, Clone)]
    pub struct Held<T> {
        pub record: T,
        pub version: boxpool::Version,
    }
}
mod store {
    pub use boxpool::Version;
}

use boxpool::record::{Envelope, VolumeRecord, VolumeStatus};
use boxpool::{Census, NodeId, Timestamp, Version, VolumeId, WarmTarget, plan};
use free::{CanBeFree, Free};
use index::FreeIndex;
use random::Random;
use records::Held;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20_000;

fn percentile(sorted: &[Duration], of: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
}

fn main() {
    decisions();
    memory();
}

fn decisions() {
    println!(
        "pick one of N free entries, decide the pool's next step, put the entry back; {ROUNDS} rounds, 8 live nodes"
    );
    println!("{:>10} {:>12} {:>12} {:>10}", "N", "median", "p99", "vs 100");
    let nodes: Vec<NodeId> = (0..8).map(|n| NodeId::new(format!("n-{n}")).unwrap()).collect();
    let target = WarmTarget::new(10, 100, 1_000_000);
    let mut first = None;
    for exponent in 2..=6 {
        let n = 10_usize.pow(exponent);
        let mut index: FreeIndex<String, u64> = FreeIndex::new(nodes[0].clone());
        let random = Random::seeded(7);
        index.set_live(nodes.clone(), &random);
        index.replace((0..n).map(|k| (format!("v-{k:016x}"), k as u64)), &random);
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                let (key, value) = index.take().unwrap();
                let census = Census { free: index.len() as u32, total: n as u32, ..Census::default() };
                black_box(plan(census, target));
                let took = begun.elapsed();
                index.insert(key, value, &random);
                took
            })
            .collect();
        times.sort();
        let median = percentile(&times, 0.5);
        let base = *first.get_or_insert(median);
        let ratio = median.as_secs_f64() / base.as_secs_f64();
        println!("{n:>10} {median:>12.0?} {:>12.0?} {ratio:>9.2}x", percentile(&times, 0.99));
    }
}

/// As a store has it that names its versions as Azure Tables does.
fn volume(n: u64) -> Held<VolumeRecord> {
    let record = VolumeRecord {
        id: VolumeId::new(format!("v-{n:016x}")).unwrap(),
        status: VolumeStatus::Free,
        generation: "g1".into(),
        source: None,
        created_at: Timestamp(n),
        envelope: Envelope { mark: format!("n-0123456789abcdef.{n}"), ..Envelope::new() },
    };
    Held { record, version: Version(format!("W/\"datetime'2026-11-27T17%3A10%3A46.{n:07}Z'\"")) }
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

fn filled<V>(n: u64, entry: impl Fn(u64) -> (VolumeId, V)) -> (FreeIndex<VolumeId, V>, u64) {
    let before = resident();
    let mut index = FreeIndex::new(NodeId::new("n-0").unwrap());
    let random = Random::seeded(7);
    index.set_live((0..8).map(|n| NodeId::new(format!("n-{n}")).unwrap()).collect(), &random);
    index.replace((0..n).map(entry), &random);
    let taken = resident().saturating_sub(before);
    (index, taken)
}

fn memory() {
    println!("resident memory of the index, in bytes for each free volume; versions of 44 bytes, 8 live nodes");
    println!("{:>10} {:>12} {:>16}", "N", "the index", "whole records");
    // Of fewer a part would hide in memory that was freed before and not given back to the system.
    let n = 1_000_000;
    // The smaller first, for the same reason.
    let (kept, as_kept) = filled::<Free>(n, |n| VolumeRecord::kept(volume(n), "g1").unwrap());
    let (whole, as_whole) = filled(n, |n| {
        let held = volume(n);
        (held.record.id.clone(), held)
    });
    println!("{n:>10} {:>12} {:>16}", as_kept / n, as_whole / n);
    black_box((kept.len(), whole.len()));
}
