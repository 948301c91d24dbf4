//! What a pool asks of its store while nobody comes or goes: it writes for each gateway, and nothing for a box, and what it reads has a
//! limit. Who does come, and whoever dies, does not notice that limit.

use boxpool::{BoxName, ConnectRequest, Pool, PoolConfig, Session, StateStore, UserId, WarmTarget};
use boxpool_sim::backend::{CountingStore, Counts};
use boxpool_sim::{Pace, PoolShape, SimCloud};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(600);
const BEATS: u64 = 300;

fn config(boxes: u32) -> PoolConfig {
    let mut config = PoolShape::default().config();
    config.heartbeat_every = QUIET / BEATS as u32;
    config.dead_after = 10 * config.heartbeat_every;
    config.instances = WarmTarget::new(2, 2, boxes + 2);
    config.volumes = WarmTarget::new(2, 2, boxes + 2);
    config.linger = Duration::ZERO;
    config.park_limit = 10 * QUIET;
    config
}

/// Gateways and their users, of whom a third is in a box.
struct Bench {
    cloud: SimCloud,
    stores: Vec<Arc<CountingStore<dyn StateStore>>>,
    pools: Vec<Pool>,
    /// Those of each gateway.
    sessions: Vec<Vec<Session>>,
}

fn user(n: u32) -> UserId {
    UserId::new(format!("u{n}")).unwrap()
}

fn request(user: UserId) -> ConnectRequest {
    ConnectRequest::new(user, BoxName::new("dev1").unwrap())
}

impl Bench {
    /// A third of the boxes runs, a third is parked, and a third is on no machine.
    async fn new(gateways: usize, boxes: u32, config: &PoolConfig) -> Self {
        let cloud = SimCloud::builder().seed(1).pace(Pace::Host).build().unwrap();
        let (mut stores, mut pools) = (Vec::new(), Vec::<Pool>::new());
        for _ in 0..gateways {
            let gateway = cloud.gateway().unwrap();
            let store = Arc::new(CountingStore::new(gateway.store()));
            let builder = gateway.pool_over(store.clone(), cloud.seed(), config.clone());
            let (pool, worker) = builder.build().await.unwrap();
            gateway.spawn(worker.run());
            stores.push(store);
            pools.push(pool);
        }
        let mut sessions: Vec<Vec<Session>> = pools.iter().map(|_| Vec::new()).collect();
        for n in 0..boxes {
            let at = n as usize % gateways;
            let (pool, user) = (&pools[at], user(n));
            pool.create_box(&user, &BoxName::new("dev1").unwrap()).await.unwrap();
            match n % 3 {
                0 => sessions[at].push(pool.connect(request(user)).await.unwrap()),
                1 => pool.connect(request(user)).await.unwrap().release().await,
                _ => {}
            }
        }
        Self { cloud, stores, pools, sessions }
    }

    async fn counts_at_rest(&self) -> Counts {
        let running = self.sessions.iter().map(Vec::len).sum::<usize>();
        // What is made and looked through after all have come comes to its end.
        self.cloud.advance(QUIET).await.unwrap();
        assert_eq!(self.cloud.guests(), running);
        let marks: Vec<_> = self.stores.iter().map(|store| store.mark()).collect();
        self.cloud.advance(QUIET).await.unwrap();
        self.cloud.check_invariants().unwrap();
        assert_eq!(self.cloud.guests(), running, "nobody came or went");
        self.stores.iter().zip(marks).map(|(store, mark)| store.counts_since(mark)).sum()
    }
}

/// With `--nocapture` it prints what docs/performance.md shows.
#[tokio::test(start_paused = true)]
async fn a_pool_at_rest_writes_for_each_gateway_and_nothing_for_a_box() {
    println!("{:>8} {:>6} {:>7} {:>6} {:>6}", "gateways", "boxes", "writes", "reads", "scans");
    for (gateways, boxes) in [(1, 3), (1, 30), (1, 300), (4, 30), (16, 30)] {
        let counts = Bench::new(gateways, boxes, &config(boxes)).await.counts_at_rest().await;
        println!("{gateways:>8} {boxes:>6} {:>7} {:>6} {:>6}", counts.writes(), counts.get, counts.scan);
        // A heartbeat of each, and one of them keeps the maintainer's lease.
        let expected = BEATS * (gateways as u64 + 1);
        assert!(counts.writes().abs_diff(expected) <= gateways as u64 + 1, "{gateways} {boxes}: {counts:?}");
    }
}

/// All gateways together read no more than is said, whether there is one or eight, but for what their heartbeats read.
#[tokio::test(start_paused = true)]
async fn what_is_looked_through_at_rest_has_a_limit() {
    const PER_SECOND: u64 = 2;
    for gateways in [1, 2, 8] {
        let mut config = config(150);
        config.reads_per_second = NonZeroU32::new(PER_SECOND as u32).unwrap();
        let counts = Bench::new(gateways, 150, &config).await.counts_at_rest().await;
        println!("{gateways:>8} {:>6} {:>6} {:>6}", counts.writes(), counts.get, counts.scan);
        // Of its node and of the maintainer's lease.
        let looked_at = counts.get - 2 * BEATS * gateways as u64;
        // A pass reads what it reads: one of each gateway may lie half outside.
        let most = PER_SECOND * QUIET.as_secs() + 100 * gateways as u64;
        assert!(looked_at > 0 && looked_at <= most, "{gateways}: {looked_at} of at most {most}");
    }
}

/// Passes are many minutes apart; what a dead gateway leaves is found as soon as it is seen to be dead.
#[tokio::test(start_paused = true)]
async fn who_dies_is_not_left_for_a_pass_that_is_far_off() {
    let mut config = config(60);
    config.reads_per_second = NonZeroU32::MIN;
    config.dead_after = Duration::from_secs(10);
    let bench = Bench::new(2, 60, &config).await;
    bench.cloud.advance(QUIET).await.unwrap();
    let [dying, living] = [0, 1].map(|n| bench.sessions[n].len());
    assert!(dying > 0 && living > 0);
    assert_eq!(bench.cloud.guests(), dying + living);
    bench.cloud.crash_gateway(0);
    bench.cloud.advance(Duration::from_secs(30)).await.unwrap();
    assert_eq!(bench.cloud.guests(), living, "nobody is at the others any more");
    bench.cloud.check_invariants().unwrap();
}

/// Nothing is free, and to look at all boxes that are on machines would take many minutes: who waits sees all the same what
/// another gateway frees.
#[tokio::test(start_paused = true)]
async fn who_waits_is_served_however_much_there_is_to_look_through() {
    let mut config = config(60);
    config.instances = WarmTarget::new(0, 40, 40);
    config.reads_per_second = NonZeroU32::MIN;
    let mut bench = Bench::new(2, 60, &config).await;
    // Those who are parked come back, and all machines are in use.
    for n in (1..60).step_by(3) {
        bench.sessions[0].push(bench.pools[0].connect(request(user(n))).await.unwrap());
    }
    bench.cloud.advance(QUIET).await.unwrap();
    let (pool, session) = (bench.pools[1].clone(), bench.sessions[0].pop().unwrap());
    let waits = tokio::spawn(async move { pool.connect(request(user(2))).await.map(drop) });
    bench.cloud.advance(Duration::from_secs(60)).await.unwrap();
    assert!(!waits.is_finished());
    session.release().await;
    bench.cloud.advance(Duration::from_secs(20)).await.unwrap();
    assert!(waits.is_finished());
    waits.await.unwrap().unwrap();
}

/// Passes are many minutes apart; a machine that a person has emptied goes at once all the same.
#[tokio::test(start_paused = true)]
async fn what_is_ordered_is_not_left_for_a_pass_that_is_far_off() {
    let mut config = config(60);
    config.reads_per_second = NonZeroU32::MIN;
    let bench = Bench::new(1, 60, &config).await;
    bench.cloud.advance(QUIET).await.unwrap();
    let before = bench.cloud.instances();
    for id in &before {
        assert!(bench.pools[0].cordon_instance(id, true, "it is to go").await.unwrap());
    }
    bench.cloud.advance(Duration::from_secs(30)).await.unwrap();
    let there = bench.cloud.instances();
    let left = before.iter().filter(|id| there.contains(id)).count();
    assert_eq!(left, bench.sessions[0].len(), "the parked boxes and the free machines are gone");
}
