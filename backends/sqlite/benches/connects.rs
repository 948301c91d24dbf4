//! What the library itself takes of a connect: clouds and guests here answer at once, so all that is left is the core and the
//! store. Two loads on a pool that has an instance for everybody: all at the same moment, and so many a second for a while.
//!
//! `cargo bench -p boxpool-sqlite --bench connects`, in about five minutes.
#![allow(clippy::unwrap_used)]

#[path = "../../../core/tests/world/mod.rs"]
mod world;

use boxpool::{BoxName, ConnectRequest, MemoryStore, Pool, StateStore, UserId, WarmTarget};
use boxpool_sim::draw;
use boxpool_sqlite::SqliteOptions;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use world::World;

const PATIENCE: Duration = Duration::from_secs(300);

/// Who comes when, and in how many pools, one after the other.
struct Load {
    name: &'static str,
    arrivals: Vec<Duration>,
    rounds: usize,
}

fn at_once(users: usize, rounds: usize) -> Load {
    Load { name: "300 at once", arrivals: vec![Duration::ZERO; users], rounds }
}

/// A Poisson process: the times between two arrivals are exponential.
fn poisson(per_second: f64, time: Duration) -> Load {
    let (mut arrivals, mut at) = (Vec::new(), 0.0);
    while at < time.as_secs_f64() {
        arrivals.push(Duration::from_secs_f64(at));
        // 53 bits: a fraction above 0 and at most 1.
        let fraction = ((draw(1, &format!("arrival {}", arrivals.len())) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        at -= fraction.ln() / per_second;
    }
    Load { name: "45 a second for a minute", arrivals, rounds: 1 }
}

fn name() -> BoxName {
    BoxName::new("dev1").unwrap()
}

fn user(n: usize) -> UserId {
    UserId::new(format!("u{n}")).unwrap()
}

async fn filled(store: Arc<dyn StateStore>, boxes: usize) -> (Pool, tokio::task::JoinHandle<()>) {
    let (world, all) = (Arc::new(World::default()), u32::try_from(boxes).unwrap());
    let mut config = world::config(all);
    config.instances.max_concurrent_creates = all;
    config.volumes = WarmTarget::new(0, all, 2 * all);
    let builder = Pool::builder(store, world.clone(), world.clone(), world, config);
    let (pool, worker) = builder.seed(1).build().await.unwrap();
    let worker = tokio::spawn(worker.run());
    let begun = Instant::now();
    let create = |n| {
        let pool = pool.clone();
        async move { pool.create_box(&user(n), &name()).await.map(drop) }
    };
    futures::stream::iter(0..boxes).map(create).buffer_unordered(64).try_collect::<()>().await.unwrap();
    while pool.status().free_instances < boxes {
        assert!(begun.elapsed() < PATIENCE, "the pool does not fill: {:?}", pool.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (pool, worker)
}

/// How long each connect took, and how many waited for an instance.
async fn measure(store: Arc<dyn StateStore>, load: &Load) -> (Vec<Duration>, usize) {
    let (pool, worker) = filled(store, load.arrivals.len()).await;
    let begun = Instant::now();
    let visits = load.arrivals.iter().enumerate().map(|(n, after)| {
        let (pool, request, at) = (pool.clone(), ConnectRequest::new(user(n), name()), begun + *after);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let asked = Instant::now();
            let session = pool.connect(request).await.unwrap();
            (asked.elapsed(), session)
        })
    });
    // One after the other, so that those who are done do not wake this thread while others are at work.
    let begun: Vec<_> = visits.collect();
    let mut visits = Vec::with_capacity(begun.len());
    for visit in begun {
        visits.push(visit.await.unwrap());
    }
    // A millisecond is below what anybody calls waiting, and above what the clock itself adds.
    let waited = visits.iter().filter(|(_, session)| session.timings().waited > Duration::from_millis(1)).count();
    worker.abort();
    (visits.iter().map(|(time, _)| *time).collect(), waited)
}

fn millis(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test` runs benches too, only to see that they run.
    let whole = std::env::args().any(|argument| argument == "--bench");
    let loads = if whole {
        vec![at_once(300, 20), poisson(45.0, Duration::from_secs(60))]
    } else {
        vec![at_once(3, 2), poisson(45.0, Duration::from_millis(100))]
    };
    let place = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    println!(
        "connects where cloud and guest answer at once, in milliseconds; ratio of the p99 to that of the memory store"
    );
    println!(
        "{:<26} {:<22} {:>8} {:>9} {:>8} {:>8} {:>8} {:>7}",
        "load", "store", "connects", "at once", "median", "p99", "longest", "ratio"
    );
    for load in &loads {
        let mut reference = None;
        for store_name in ["memory", "SQLite without fsync", "SQLite"] {
            let (mut times, mut waited) = (Vec::new(), 0);
            for round in 0..load.rounds {
                let file = place.path().join(format!("{}-{round}-{store_name}.db", load.arrivals.len()));
                let store: Arc<dyn StateStore> = match store_name {
                    "memory" => Arc::new(MemoryStore::new()),
                    _ => Arc::new(SqliteOptions::new().fsync(store_name == "SQLite").open(file).unwrap()),
                };
                let (of_round, waited_in_it) = measure(store, load).await;
                times.extend(of_round);
                waited += waited_in_it;
            }
            times.sort_unstable();
            let (median, p99) = (millis(&times, 0.5), millis(&times, 0.99));
            let ratio = p99 / *reference.get_or_insert(p99);
            println!(
                "{:<26} {store_name:<22} {:>8} {:>7.1} % {median:>8.2} {:>8.2} {:>8.2} {ratio:>7.1}",
                load.name,
                times.len(),
                100.0 * (times.len() - waited) as f64 / times.len() as f64,
                p99,
                millis(&times, 1.0),
            );
        }
    }
}
