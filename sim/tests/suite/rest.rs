//! What a pool asks of its store while nobody comes or goes: it writes for each gateway, and nothing for a box.

use boxpool::{BoxName, ConnectRequest, Pool, PoolConfig, UserId, WarmTarget};
use boxpool_sim::backend::{CountingStore, Counts};
use boxpool_sim::{Pace, PoolShape, SimCloud};
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

/// A third of the boxes runs, a third is parked, and a third is on no machine.
async fn at_rest(gateways: usize, boxes: u32) -> Counts {
    let cloud = SimCloud::builder().seed(1).pace(Pace::Host).build().unwrap();
    let (mut stores, mut pools) = (Vec::new(), Vec::<Pool>::new());
    for n in 0..gateways {
        let gateway = cloud.gateway().unwrap();
        let store = Arc::new(CountingStore::new(gateway.store()));
        let (instances, volumes, runtime) = (gateway.instances(), gateway.volumes(), gateway.runtime());
        let builder = Pool::builder(store.clone(), instances, volumes, runtime, config(boxes)).clock(gateway.clock());
        let (pool, worker) = builder.seed(n as u64).build().await.unwrap();
        gateway.spawn(worker.run());
        stores.push(store);
        pools.push(pool);
    }
    let (mut sessions, name) = (Vec::new(), BoxName::new("dev1").unwrap());
    for n in 0..boxes {
        let (pool, user) = (&pools[n as usize % gateways], UserId::new(format!("u{n}")).unwrap());
        pool.create_box(&user, &name).await.unwrap();
        match n % 3 {
            0 => sessions.push(pool.connect(ConnectRequest::new(user, name.clone())).await.unwrap()),
            1 => pool.connect(ConnectRequest::new(user, name.clone())).await.unwrap().release().await,
            _ => {}
        }
    }
    // What is made and looked through after that comes to its end.
    cloud.advance(QUIET).await.unwrap();
    assert_eq!(cloud.guests(), sessions.len());
    let marks: Vec<_> = stores.iter().map(|store| store.mark()).collect();
    cloud.advance(QUIET).await.unwrap();
    cloud.check_invariants().unwrap();
    assert_eq!(cloud.guests(), sessions.len(), "nobody came or went");
    let each = stores.iter().zip(marks).map(|(store, mark)| store.counts_since(mark));
    each.fold(Counts::default(), |sum, counts| Counts {
        get: sum.get + counts.get,
        insert: sum.insert + counts.insert,
        update: sum.update + counts.update,
        delete: sum.delete + counts.delete,
        scan: sum.scan + counts.scan,
    })
}

/// With `--nocapture` it prints what docs/performance.md shows.
#[tokio::test(start_paused = true)]
async fn a_pool_at_rest_writes_for_each_gateway_and_nothing_for_a_box() {
    println!("{:>8} {:>6} {:>7} {:>6} {:>6}", "gateways", "boxes", "writes", "reads", "scans");
    for (gateways, boxes) in [(1, 3), (1, 30), (1, 300), (4, 30), (16, 30)] {
        let counts = at_rest(gateways, boxes).await;
        println!("{gateways:>8} {boxes:>6} {:>7} {:>6} {:>6}", counts.writes(), counts.get, counts.scan);
        // A heartbeat of each, and one of them keeps the maintainer's lease.
        let expected = BEATS * (gateways as u64 + 1);
        assert!(counts.writes().abs_diff(expected) <= gateways as u64 + 1, "{gateways} {boxes}: {counts:?}");
    }
}
