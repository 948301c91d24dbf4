//! The state store is away for minutes: who is connected stays, who comes is told so at once, and when it is back nothing is
//! reclaimed that somebody still has, whoever reaches it first.

use boxpool::{BoxName, BoxView, ConnectRequest, ErrorKind, Pool, PoolConfig, Session, StateStore, UserId, WarmTarget};
use boxpool_sim::backend::FaultStore;
use boxpool_sim::{Pace, PoolShape, SimCloud};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const GATEWAYS: usize = 3;
const MINUTES: Duration = Duration::from_secs(60);
/// In this time it is noticed that nothing answers, and a heartbeat is sent that will show it.
const NOTICED: Duration = Duration::from_secs(10);

const SILENCE: Duration = Duration::from_secs(2);

/// How the store is away.
#[derive(Clone, Copy, PartialEq)]
enum Away {
    /// Requests are not answered.
    Silent,
    /// Every request is refused with an error.
    Refusing,
}

struct World {
    cloud: SimCloud,
    config: PoolConfig,
    stores: Vec<Arc<FaultStore<dyn StateStore>>>,
    pools: Vec<Pool>,
    sessions: Vec<Session>,
    before: Vec<BoxView>,
}

fn user() -> UserId {
    UserId::new("ada").unwrap()
}

fn name(n: usize) -> BoxName {
    BoxName::new(format!("b{n}")).unwrap()
}

impl World {
    /// Box 0 runs at gateways 0 and 1, box 1 at gateway 1, box 2 at gateway 2; 3 and 4 are parked, 5 is detached.
    async fn new(seed: u64) -> Self {
        let cloud = SimCloud::builder().seed(seed).pace(Pace::Host).build().unwrap();
        let mut config = PoolShape::default().config();
        // Enough for all of them, so that nobody gives one back for another.
        config.instances = WarmTarget::new(6, 8, 16);
        config.park_limit = Duration::from_secs(24 * 3_600);
        config.linger = Duration::from_secs(2);
        config.limits.store_silence = SILENCE;
        let (mut stores, mut pools) = (Vec::new(), Vec::new());
        for _ in 0..GATEWAYS {
            let gateway = cloud.gateway().unwrap();
            let store = Arc::new(FaultStore::new(gateway.store()));
            let builder = gateway.pool_over(store.clone(), seed, config.clone());
            let (pool, worker) = builder.build().await.unwrap();
            gateway.spawn(worker.run());
            pools.push(pool);
            stores.push(store);
        }
        let mut world = Self { cloud, config, stores, pools, sessions: Vec::new(), before: Vec::new() };
        world.cloud.advance(MINUTES).await.unwrap();
        for n in 0..6 {
            world.pools[0].create_box(&user(), &name(n)).await.unwrap();
        }
        for (n, gateway) in [(0, 0), (0, 1), (1, 1), (2, 2)] {
            let session = world.connect(gateway, n).await.unwrap();
            world.sessions.push(session);
        }
        for n in [3, 4] {
            world.connect(n % GATEWAYS, n).await.unwrap().release().await;
        }
        world.cloud.advance(MINUTES).await.unwrap();
        world.before = world.pools[0].list_boxes(&user()).await.unwrap();
        let states: Vec<_> = world.before.iter().map(BoxView::state).collect();
        assert_eq!(states, ["running", "running", "running", "parked", "parked", "detached"]);
        world
    }

    async fn connect(&self, gateway: usize, n: usize) -> boxpool::Result<Session> {
        self.pools[gateway].connect(ConnectRequest::new(user(), name(n))).await
    }

    fn away(&self, gateways: std::ops::Range<usize>, how: Away, away: bool) {
        for gateway in gateways {
            match how {
                Away::Silent => self.cloud.partition_gateway(gateway, Some(away), None),
                Away::Refusing => self.stores[gateway].outage(away),
            }
        }
    }

    /// Whoever comes is refused so quickly, and told that it is the store and that it may be tried again.
    async fn refuses_all_within(&self, gateway: usize, limit: Duration) {
        for n in 0..7 {
            let begun = Instant::now();
            let error = self.connect(gateway, n).await.unwrap_err();
            assert!(begun.elapsed() <= limit, "box {n} at gateway {gateway}: {:?}", begun.elapsed());
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
            assert!(error.to_string().contains("store"), "{error}");
        }
    }

    /// Who was connected is, to the same guest, and that goes on where it was.
    fn check_sessions(&self) {
        for session in &self.sessions {
            let ended = futures::FutureExt::now_or_never(session.ended());
            assert!(ended.is_none(), "the session on {} has ended", session.owner());
            assert_eq!(self.cloud.places_of(session.owner()), std::slice::from_ref(session.instance()));
        }
    }

    /// For so long nobody is taken for dead by a gateway that is back.
    async fn nobody_dies(&self, back: std::ops::Range<usize>, time: Duration) {
        let until = self.cloud.elapsed() + time;
        while self.cloud.elapsed() < until {
            self.cloud.advance(Duration::from_secs(1)).await.unwrap();
            for pool in &self.pools[back.clone()] {
                assert_eq!(pool.status().live_nodes, GATEWAYS, "after {:?}", self.cloud.elapsed());
            }
        }
    }

    /// Every box is where it was, and no step was begun on any meanwhile.
    async fn check_untouched(&self) {
        let places = |views: &[BoxView]| -> Vec<_> {
            views.iter().map(|view| (view.name.clone(), view.placement.clone(), view.epoch, view.holders)).collect()
        };
        let now = self.pools[0].list_boxes(&user()).await.unwrap();
        assert_eq!(places(&now), places(&self.before));
        self.check_sessions();
    }

    /// Everything works again, without a restart.
    async fn check_works(mut self) {
        for n in 0..6 {
            self.connect(n % GATEWAYS, n).await.unwrap().release().await;
        }
        for session in self.sessions.drain(..) {
            session.release().await;
        }
        self.cloud.advance(3 * MINUTES).await.unwrap();
        self.cloud.check_invariants().unwrap();
        let live: Vec<_> = self.pools.iter().map(|pool| pool.node().clone()).collect();
        self.cloud.check_settled(&self.config, &live).unwrap();
    }
}

async fn outage_for_all(how: Away, at_first: Duration) {
    for seed in 0..4 {
        let world = World::new(seed).await;
        world.away(0..GATEWAYS, how, true);
        // Before anybody has noticed.
        world.refuses_all_within(0, at_first).await;
        world.cloud.advance(NOTICED).await.unwrap();
        for _ in 0..5 {
            for gateway in 0..GATEWAYS {
                assert!(!world.pools[gateway].status().in_touch);
                world.refuses_all_within(gateway, Duration::ZERO).await;
            }
            world.cloud.advance(MINUTES).await.unwrap();
            world.check_sessions();
        }
        world.away(0..GATEWAYS, how, false);
        world.nobody_dies(0..GATEWAYS, 3 * MINUTES).await;
        world.check_untouched().await;
        world.check_works().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_for_minutes_costs_nobody_a_box() {
    outage_for_all(Away::Silent, SILENCE).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_everything_for_minutes_costs_nobody_a_box() {
    outage_for_all(Away::Refusing, Duration::ZERO).await;
}

/// One gateway has the store again minutes before the others: it cannot tell whether they are dead or still cut off, and lets
/// them be for as long as it was cut off itself.
#[tokio::test(start_paused = true)]
async fn who_reaches_the_store_first_after_an_outage_takes_nothing_from_the_others() {
    for how in [Away::Silent, Away::Refusing] {
        let world = World::new(1).await;
        world.away(0..GATEWAYS, how, true);
        world.cloud.advance(5 * MINUTES).await.unwrap();
        world.away(0..1, how, false);
        world.cloud.advance(NOTICED).await.unwrap();
        world.nobody_dies(0..1, 4 * MINUTES).await;
        world.check_untouched().await;
        world.away(1..GATEWAYS, how, false);
        world.cloud.advance(NOTICED).await.unwrap();
        world.nobody_dies(0..GATEWAYS, 8 * MINUTES).await;
        world.check_untouched().await;
        world.check_works().await;
    }
}

/// The grace after an outage is no amnesty: who died in it is found dead, and what they held is given back.
#[tokio::test(start_paused = true)]
async fn who_dies_in_an_outage_is_found_dead_after_it() {
    let world = World::new(2).await;
    world.away(0..GATEWAYS, Away::Silent, true);
    world.cloud.advance(MINUTES).await.unwrap();
    world.cloud.crash_gateway(2);
    world.cloud.advance(MINUTES).await.unwrap();
    world.away(0..GATEWAYS, Away::Silent, false);
    world.cloud.advance(5 * MINUTES).await.unwrap();
    assert_eq!(world.pools[0].status().live_nodes, GATEWAYS - 1);
    let left = world.pools[0].get_box(&user(), &name(2)).await.unwrap().unwrap();
    assert_eq!(left.state(), "parked", "its sessions went with its gateway");
    world.cloud.check_invariants().unwrap();
}
