//! A person orders the maintainer to rest.

use crate::world;
use boxpool::record::{BOXES, EVENTS, POOL_EVENTS};
use boxpool::{Clock, ErrorKind, MemoryStore, Pool, PoolConfig, StateStore, Timestamp, VolumeId, WarmTarget};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use world::{Node, Volume, World, config, node_with, user};

const HOUR: Duration = Duration::from_secs(3_600);

/// The wall clock of virtual time.
struct Wall(Instant);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000).plus(self.0.elapsed())
    }
}

async fn node(world: &World, store: &MemoryStore, config: PoolConfig, seed: u64, wall: &Arc<Wall>) -> Node {
    let wall = Arc::clone(wall);
    node_with(world, store, config, seed, |builder| builder.clock(wall)).await
}

/// Waits, in virtual time, until this node has read the order.
async fn until_paused(pool: &Pool, paused: bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while pool.status().paused.is_some() != paused {
        assert!(Instant::now() < limit, "{:?}", pool.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits, in virtual time, until the log of the pool tells it, once.
async fn until_told(store: &MemoryStore, word: &str) {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let told = store.scan(EVENTS, Some(POOL_EVENTS), None, 100).await.unwrap();
        match told.items.iter().filter(|entry| entry.stored.value.contains(word)).count() {
            1 => return,
            n => assert!(n == 0 && Instant::now() < limit, "{n} times {word}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two instances are kept, and one is taken away behind the pool's back: what a census would find and mend.
async fn lose_one(world: &World) {
    let lost = world.state().instances.first().unwrap().clone();
    world.kill_instance(&lost);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_rests_makes_and_sweeps_nothing_and_serves_with_what_is_there() {
    let (world, store, wall) = (World::default(), MemoryStore::new(), Arc::new(Wall(Instant::now())));
    let mut config = config(2);
    config.instances = WarmTarget::new(2, 3, 5);
    config.orphan_grace = Duration::from_secs(60);
    let node = node(&world, &store, config, 1, &wall).await;
    node.until_free(2).await;
    node.create("dev1").await;

    let pause = node.pool.pause_maintenance(HOUR, "the region is being moved").await.unwrap();

    assert_eq!(node.pool.status().paused.as_ref(), Some(&pause));
    let stray = VolumeId::new("v-nobodys").unwrap();
    world.state().volumes.insert(stray.clone(), Volume::default());
    let made = (world.calls("instance.ensure"), world.calls("instance.delete"));
    let session = node.connect("dev1").await.unwrap();
    tokio::time::sleep(HOUR - Duration::from_secs(60)).await;
    assert_eq!((world.calls("instance.ensure"), world.calls("instance.delete")), made, "one is free, two are wanted");
    assert!(world.state().volumes.contains_key(&stray));
    session.release().await;
    node.until("dev1", "parked").await;

    // It ends by itself, and what had waited is done.
    let _session = node.connect("dev1").await.unwrap();
    node.until_free(2).await;
    world::eventually("the stray volume is swept", || !world.state().volumes.contains_key(&stray)).await;
    assert_eq!(node.pool.status().paused, None);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn the_order_outlives_the_maintainer_however_it_goes() {
    for drained in [true, false] {
        let (world, store, wall) = (World::default(), MemoryStore::new(), Arc::new(Wall(Instant::now())));
        let first = node(&world, &store, config(2), 1, &wall).await;
        first.until_free(2).await;
        let pause = first.pool.pause_maintenance(HOUR, "").await.unwrap();
        until_told(&store, "maintenance_paused").await;
        if drained {
            first.pool.drain(Duration::from_secs(60)).await;
        } else {
            first.crash().await;
        }
        lose_one(&world).await;
        let second = node(&world, &store, config(2), 2, &wall).await;
        until_paused(&second.pool, true).await;
        let made = world.calls("instance.ensure");
        tokio::time::sleep(HOUR / 2).await;
        assert!(second.pool.status().maintainer, "drained: {drained}");
        assert_eq!((second.pool.status().paused, world.calls("instance.ensure")), (Some(pause), made));

        second.pool.resume_maintenance().await.unwrap();
        second.pool.resume_maintenance().await.unwrap();
        assert_eq!(second.pool.status().paused, None);
        world::eventually("the lost one is replaced", || world.calls("instance.ensure") > made).await;
        until_told(&store, "maintenance_resumed").await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_node_knows_it_and_a_second_order_counts() {
    let (world, store, wall) = (World::default(), MemoryStore::new(), Arc::new(Wall(Instant::now())));
    let maintainer = node(&world, &store, config(1), 1, &wall).await;
    maintainer.until_free(1).await;
    let other = node(&world, &store, config(1), 2, &wall).await;
    other.pool.pause_maintenance(HOUR, "first").await.unwrap();
    until_paused(&maintainer.pool, true).await;
    let second = maintainer.pool.pause_maintenance(HOUR * 2, "second").await.unwrap();
    tokio::time::sleep(HOUR + Duration::from_secs(10)).await;
    assert_eq!(other.pool.status().paused, Some(second));
    other.pool.resume_maintenance().await.unwrap();
    until_paused(&maintainer.pool, false).await;
    let refused = other.pool.pause_maintenance(HOUR * 25, "").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("24 hours"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn deleted_boxes_are_not_removed_while_it_rests() {
    let (world, store, wall) = (World::default(), MemoryStore::new(), Arc::new(Wall(Instant::now())));
    let mut config = config(1);
    config.retention = HOUR / 2;
    let node = node(&world, &store, config, 1, &wall).await;
    let volume = node.create("dev1").await;
    let name = boxpool::BoxName::new("dev1").unwrap();
    node.pool.delete_box(&user(), &name).await.unwrap();
    node.pool.pause_maintenance(HOUR, "").await.unwrap();
    tokio::time::sleep(HOUR - Duration::from_secs(60)).await;
    assert!(world.state().volumes.contains_key(&volume));
    node.pool.resume_maintenance().await.unwrap();
    world::eventually("its time was over", || !world.state().volumes.contains_key(&volume)).await;
    assert!(store.scan(BOXES, None, None, 10).await.unwrap().items.is_empty());
}
