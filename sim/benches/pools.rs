//! What several gateways on one pool do to each other, and what a pool of the right size is worth: in a simulated cloud in virtual
//! time, so that every machine prints the same numbers.
//!
//! `cargo bench -p boxpool-sim --bench pools`, in a few minutes. With words behind `--`, only the parts whose name contains one of them.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use boxpool::{
    BoxName, ConnectRequest, Cursor, Entry, ErrorKind, Key, Page, Pool, PoolConfig, Result, StateStore, Stored, Table,
    Timings, UserId, Version, WarmTarget,
};
use boxpool_sim::{Gateway, Pace, PoolShape, SimCloud, draw};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let parts: [(&str, fn()); 2] = [("conflicts", conflicts), ("warm", warm)];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())) {
            part();
        }
    }
}

/// Claims of instances, as they reach the store.
#[derive(Debug, Default)]
struct Claims {
    won: AtomicU64,
    lost: AtomicU64,
}

/// A store that counts the claims that are asked of it.
struct Watched {
    inner: Arc<dyn StateStore>,
    claims: Arc<Claims>,
}

#[async_trait]
impl StateStore for Watched {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.inner.get(key).await
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.inner.insert(key, value).await
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        let claims = key.table.as_str() == "instances" && value.contains(r#""is":"claimed""#);
        let answer = self.inner.update(key, version, value).await;
        match &answer {
            Ok(_) if claims => drop(self.claims.won.fetch_add(1, Relaxed)),
            Err(error) if claims && error.kind() == ErrorKind::Conflict => drop(self.claims.lost.fetch_add(1, Relaxed)),
            _ => {}
        }
        answer
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.inner.delete(key, version).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.inner.scan(table, partition, cursor, limit).await
    }
}

/// A world without faults in which some gateways share a pool that is full.
struct World {
    cloud: SimCloud,
    pools: Vec<Pool>,
    claims: Arc<Claims>,
}

impl World {
    async fn new(seed: u64, gateways: usize, free: u32, max_total: u32, boxes: usize) -> Self {
        let cloud = SimCloud::builder().seed(seed).pace(Pace::Cloud).build().unwrap();
        let claims = Arc::<Claims>::default();
        let config = config(free, max_total, boxes);
        let mut pools = Vec::new();
        for _ in 0..gateways {
            pools.push(start(&cloud.gateway().unwrap(), seed, &config, &claims).await);
        }
        let world = Self { cloud, pools, claims };
        world.until(|status| status.free_instances >= free as usize).await;
        for n in 0..boxes {
            let (user, name) = whose(n);
            world.pool(n).create_box(&user, &name).await.unwrap();
        }
        // Every gateway has looked at the pool since, and knows who else is there.
        world.cloud.advance(Duration::from_secs(180)).await.unwrap();
        world.until(|status| status.free_instances >= free as usize).await;
        world
    }

    fn pool(&self, n: usize) -> &Pool {
        &self.pools[n % self.pools.len()]
    }

    async fn until(&self, enough: impl Fn(&boxpool::PoolStatus) -> bool) {
        let mut left = 600;
        while !self.pools.iter().all(|pool| enough(&pool.status())) {
            left -= 1;
            assert!(left > 0, "the pool did not fill: {:?}", self.pools[0].status());
            self.cloud.advance(Duration::from_secs(5)).await.unwrap();
        }
    }
}

fn config(free: u32, max_total: u32, boxes: usize) -> PoolConfig {
    let seconds = Duration::from_secs;
    let mut config = PoolShape::default().config();
    config.instances = WarmTarget::new(free, max_total, max_total);
    config.instances.max_concurrent_creates = max_total;
    let boxes = u32::try_from(boxes).unwrap();
    config.volumes = WarmTarget::new(boxes, 2 * boxes, 4 * boxes);
    config.volumes.max_concurrent_creates = boxes;
    config.linger = Duration::ZERO;
    config.park_limit = seconds(3_600);
    (config.reconcile_every, config.census_every, config.maintain_every) = (seconds(60), seconds(3_600), seconds(2));
    // An attach may take minutes, as in the real cloud.
    config.connect_deadline = seconds(600);
    config
}

async fn start(gateway: &Gateway, seed: u64, config: &PoolConfig, claims: &Arc<Claims>) -> Pool {
    let store = Watched { inner: gateway.store(), claims: Arc::clone(claims) };
    let (pool, worker) = gateway.pool_over(Arc::new(store), seed, config.clone()).build().await.unwrap();
    gateway.spawn(worker.run());
    pool
}

fn whose(n: usize) -> (UserId, BoxName) {
    (UserId::new(format!("u{n}")).unwrap(), BoxName::new("dev1").unwrap())
}

fn in_virtual_time<T>(world: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(world)
}

/// So many gateways reach for so many free instances at the same moment, each for one.
fn conflicts() {
    println!("claims lost to another gateway, of 100 that were won; all gateways at the same moment");
    println!(
        "{:>9} {:>9} {:>8} {:>12} {:>12} {:>18}",
        "gateways", "free", "worlds", "lost in 100", "goal", "lost in the worst"
    );
    let rows = [(8, 1_000, 20, "0.5"), (64, 1_000, 20, "2"), (64, 64, 10, "10"), (64, 1, 3, "64 writes")];
    for (gateways, free, worlds, goal) in rows {
        let (mut won, mut lost, mut worst) = (0, 0, 0);
        for seed in 0..worlds {
            let (of_world_won, of_world_lost) = in_virtual_time(one_reach(seed, gateways, free));
            won += of_world_won;
            lost += of_world_lost;
            worst = worst.max(of_world_lost);
        }
        let share = 100.0 * lost as f64 / won as f64;
        println!("{gateways:>9} {free:>9} {worlds:>8} {share:>12.2} {goal:>12} {worst:>18}");
    }
}

async fn one_reach(seed: u64, gateways: usize, free: u32) -> (u64, u64) {
    let world = World::new(seed, gateways, free, free, gateways).await;
    let visits: Vec<_> = (0..gateways)
        .map(|n| {
            let ((user, name), pool) = (whose(n), world.pool(n).clone());
            // Who finds nothing gives up after a while. Each stays: what was taken does not come back.
            let request = ConnectRequest::new(user, name).deadline(Duration::from_secs(20));
            tokio::spawn(async move { pool.connect(request).await })
        })
        .collect();
    let mut sessions = Vec::new();
    for visit in visits {
        sessions.extend(visit.await.unwrap());
    }
    world.cloud.check_invariants().unwrap();
    let (won, lost) = (world.claims.won.load(Relaxed), world.claims.lost.load(Relaxed));
    assert_eq!(won, gateways.min(free as usize) as u64, "each that can be served is");
    (won, lost)
}

/// Two loads, on a pool of the size that follows from the load: what is asked for while one instance is made, and three standard
/// deviations more.
fn warm() {
    println!(
        "connects to boxes whose volume lies apart, by a pool that is sized for the load; 4 gateways, seconds in virtual time"
    );
    println!(
        "{:<28} {:>7} {:>9} {:>8} {:>9} {:>9} {:>11} {:>11}",
        "load", "pool", "connects", "warm %", "wait p99", "wait max", "beside p50", "beside p99"
    );
    let burst = |_: u64| (0..300).map(|_| Duration::ZERO).collect::<Vec<_>>();
    load("300 at once", 300, burst);
    // A machine is made in 43 s, and 99 of 100 in less than 90.
    let most: f64 = 45.0 * 90.0;
    let size = (most + 3.0 * most.sqrt()).ceil() as u32;
    load("45 a second for 60 s", size, |seed| poisson(seed, 45.0, 60.0));
}

/// When they come: gaps between arrivals are exponential.
fn poisson(seed: u64, rate: f64, seconds: f64) -> Vec<Duration> {
    let mut at = 0.0;
    let mut all = Vec::new();
    for n in 0_u64.. {
        let even = (draw(seed, &format!("gap {n}")) >> 11) as f64 / (1_u64 << 53) as f64;
        at += -(1.0 - even).ln() / rate;
        if at >= seconds {
            break;
        }
        all.push(Duration::from_secs_f64(at));
    }
    all
}

fn load(what: &str, size: u32, arrivals: impl Fn(u64) -> Vec<Duration>) {
    let arrivals = arrivals(1);
    let count = arrivals.len();
    let mut timings = in_virtual_time(async {
        let world = World::new(1, 4, size, 2 * size, count).await;
        let visits: Vec<_> = arrivals
            .into_iter()
            .enumerate()
            .map(|(n, at)| {
                let ((user, name), pool) = (whose(n), world.pool(n).clone());
                tokio::spawn(async move {
                    tokio::time::sleep(at).await;
                    pool.connect(ConnectRequest::new(user, name)).await.unwrap().timings()
                })
            })
            .collect();
        let mut timings = Vec::new();
        for visit in visits {
            timings.push(visit.await.unwrap());
        }
        world.cloud.check_invariants().unwrap();
        timings
    });
    let at_once = timings.iter().filter(|took| took.waited.is_zero()).count();
    let mut by = |key: fn(&Timings) -> Duration| {
        timings.sort_by_key(key);
        let at = |part: usize| key(&timings[((timings.len() - 1) * part).div_ceil(100)]).as_secs_f64();
        (at(50), at(99), at(100))
    };
    let (_, wait_p99, wait_max) = by(|took| took.waited);
    let (beside, beside_p99, _) = by(|took| took.total - took.waited - took.attached - took.started);
    println!(
        "{what:<28} {size:>7} {count:>9} {:>8.2} {wait_p99:>9.3} {wait_max:>9.3} {beside:>11.3} {beside_p99:>11.3}",
        100.0 * at_once as f64 / count as f64
    );
}
