//! Which boxes hold an instance while nobody is there.

use crate::world;
use boxpool::record::EventKind;
use boxpool::{AwayBox, BoxName, ConnectRequest, KeepFor, MemoryStore, ParkingPolicy, Timestamp, UserId, Via};
use std::sync::Arc;
use std::time::Duration;
use world::{Fault, Node, World, config, eventually, node, node_with, user};

/// Expects a box, and keeps it, when its name begins with `e`.
struct ExpectsE;

impl ParkingPolicy for ExpectsE {
    fn worth(&self, away: &AwayBox, _now: Timestamp) -> f64 {
        f64::from(u8::from(self.expects(away, Timestamp(0))))
    }

    fn keeps(&self, away: &AwayBox, now: Timestamp) -> bool {
        self.expects(away, now)
    }

    fn expects(&self, away: &AwayBox, _now: Timestamp) -> bool {
        away.owner.name.as_str().starts_with('e')
    }
}

async fn expecting(world: &World, store: &MemoryStore, free: u32, total: u32, held_share: f64) -> Node {
    let mut config = config(total);
    (config.instances.min_free, config.instances.max_free) = (free, free);
    config.held_share = held_share;
    config.census_every = Duration::from_secs(5);
    node_with(world, store, config, 1, |builder| builder.parking_policy(Arc::new(ExpectsE))).await
}

#[tokio::test(start_paused = true)]
async fn who_is_expected_comes_to_a_box_that_is_attached_already() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = expecting(&world, &store, 1, 3, 1.0).await;
    let volume = node.create("early").await;
    node.create("late").await;

    node.until("early", "parked").await;

    assert_eq!((world.calls("attach"), world.calls("start")), (1, 0), "no guest runs yet");
    // What is kept free for whoever comes is there beside it.
    node.until_free(1).await;
    let session = node.connect("early").await.unwrap();
    assert_eq!((session.via(), world.calls("attach"), world.calls("start")), (Via::Parked, 1, 1));
    world.guest_writes(&volume, "held");
    session.release().await;
    node.until("early", "parked").await;
    assert_eq!(world.guest_memory_saved(&volume), ["held"]);
    assert_eq!(node.state_of("late").await, "detached");
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn only_a_share_of_the_instances_is_held() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = expecting(&world, &store, 0, 4, 0.5).await;
    for name in ["e1", "e2", "e3", "f1"] {
        node.create(name).await;
        node.connect(name).await.unwrap().release().await;
    }
    node.until("f1", "detached").await;
    let held = async || {
        let boxes = ["e1", "e2", "e3"].map(async |name| node.state_of(name).await == "parked");
        futures::future::join_all(boxes).await.into_iter().filter(|parked| *parked).count()
    };
    for _ in 0..100 {
        if held().await == 2 && node.pool.status().active == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // And it stays so.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(held().await, 2);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_box_that_cannot_be_attached_ahead_is_not_tried_on_one_instance_after_the_other() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = expecting(&world, &store, 1, 3, 1.0).await;
    world.always("attach", Some(Fault::Fails(boxpool::ErrorKind::Permanent)));
    node.create("early").await;
    eventually("an attach was tried", || world.calls("attach") == 1).await;
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(world.calls("attach"), 1);
    assert_eq!(node.state_of("early").await, "detached");
    world.always("attach", None);
    assert_eq!(node.connect("early").await.unwrap().via(), Via::Detached);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_box_keeps_its_instance_for_as_long_as_the_policy_says() {
    for (kept, then) in [(Duration::from_secs(3_600), "parked"), (Duration::ZERO, "detached")] {
        let (world, store) = (World::default(), MemoryStore::new());
        let policy = Arc::new(KeepFor(kept));
        let node = node_with(&world, &store, config(2), 1, |builder| builder.parking_policy(policy)).await;
        node.create("dev1").await;
        node.connect("dev1").await.unwrap().release().await;
        eventually("its memory is saved", || world.calls("suspend") == 1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(node.state_of("dev1").await, then);
        let events = node.pool.events(&user(), 100).await.unwrap();
        assert_eq!(events.iter().filter(|event| event.kind == EventKind::StayEnded).count(), 1);
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_comes_onto_the_machine_they_were_on() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut config = config(8);
    config.park_limit = Duration::ZERO;
    let node = node(&world, &store, config, 1).await;
    node.until_free(8).await;
    let connect = async |user: &str| {
        let (user, name) = (UserId::new(user).unwrap(), BoxName::new("dev1").unwrap());
        let _ = node.pool.create_box(&user, &name).await;
        let session = node.pool.connect(ConnectRequest::new(user, name)).await.unwrap();
        let instance = session.instance().clone();
        session.release().await;
        instance
    };
    let mut first = Vec::new();
    for user in ["a", "b", "c"] {
        first.push(connect(user).await);
    }
    node.until_free(8).await;
    for (user, machine) in ["c", "a", "b"].into_iter().zip([2, 0, 1]) {
        assert_eq!(connect(user).await, first[machine], "{user}");
        node.until_free(8).await;
    }
    world.assert_no_promise_broken();
}
