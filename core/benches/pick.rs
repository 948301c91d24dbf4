//! What a decision costs, without I/O: pick a free entry and give it back, from a hundred entries to a million; and plan a pool.
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

#[path = "../src/index.rs"]
mod index;
#[path = "../src/random.rs"]
mod random;

mod id {
    pub use boxpool::NodeId;
}

use boxpool::{Census, NodeId, WarmTarget, plan};
use index::FreeIndex;
use random::Random;
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20_000;

fn percentile(sorted: &[Duration], of: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
}

fn main() {
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
