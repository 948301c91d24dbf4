//! A cloud that has no room is asked again and again, but one at a time and less and less often; everybody can see why, and the
//! next maintainer goes on where the last one stopped.

use boxpool::{Breaker, Pool, PoolConfig, WarmTarget};
use boxpool_sim::{Gateway, Pace, PoolShape, SimCloud};
use std::time::Duration;

const KEPT_FREE: u32 = 6;
const MINUTE: Duration = Duration::from_secs(60);

async fn start(gateway: &Gateway, config: &PoolConfig) -> Pool {
    let (pool, worker) = gateway.pool(0, config.clone()).build().await.unwrap();
    gateway.spawn(worker.run());
    pool
}

fn fails(pool: &Pool) -> Breaker {
    pool.status().breakers.making_instances.expect("making instances fails")
}

#[tokio::test(start_paused = true)]
async fn a_cloud_without_room_is_tried_by_one_at_a_time_and_everybody_knows_why() {
    for seed in 0..4 {
        let cloud = SimCloud::builder().seed(seed).pace(Pace::Host).quota(0).build().unwrap();
        let mut config = PoolShape::default().config();
        config.instances = WarmTarget::new(KEPT_FREE, KEPT_FREE, 16);
        let gateways = [cloud.gateway().unwrap(), cloud.gateway().unwrap()];
        let pools = [start(&gateways[0], &config).await, start(&gateways[1], &config).await];
        cloud.advance(5 * MINUTE).await.unwrap();
        let told = pools.each_ref().map(fails);
        // The burst at first, and then one after rests of 1, 2, 4 … 60 s.
        for breaker in &told {
            assert!((KEPT_FREE..KEPT_FREE + 12).contains(&breaker.failures), "{breaker:?}");
            assert!(["open", "half-open"].contains(&breaker.state()), "{breaker:?}");
            assert!(breaker.why.contains("instances are in use"), "{breaker:?}");
        }

        // The maintainer dies, and the cloud has room for half of what is wanted: that is found out by one attempt.
        let maintainer = usize::from(pools[1].status().maintainer);
        let failures = fails(&pools[maintainer]).failures;
        cloud.crash_gateway(maintainer);
        let other = &pools[1 - maintainer];
        while !other.status().maintainer {
            cloud.advance(Duration::from_secs(1)).await.unwrap();
        }
        assert!(fails(other).failures >= failures, "the next maintainer knows of them");
        cloud.set_quota(Some(KEPT_FREE as usize / 2));
        cloud.advance(3 * MINUTE).await.unwrap();
        assert_eq!(other.status().free_instances, KEPT_FREE as usize / 2);
        assert!(fails(other).failures < failures, "one that succeeds closes the breaker");

        cloud.set_quota(None);
        cloud.advance(3 * MINUTE).await.unwrap();
        assert_eq!((other.status().free_instances, other.status().breakers), (KEPT_FREE as usize, Default::default()));
        cloud.check_invariants().unwrap();
    }
}
