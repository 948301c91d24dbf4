//! A node dies at the worst moment; another one, or the next start, goes on.

use crate::world;
use boxpool::record::{EventKind, EventRecord};
use boxpool::{BoxName, ErrorKind, MemoryStore, StateStore, UserId, Via};
use std::time::Duration;
use world::{Fault, World, config, eventually, node};

/// Runs a node into a call that never returns, and crashes it there.
async fn crash_in(operation: &'static str, world: &World, store: &MemoryStore) -> boxpool::VolumeId {
    let node = std::sync::Arc::new(node(world, store, config(2), 1).await);
    let volume = node.create("dev1").await;
    node.until_free(2).await;
    let before = world.calls(operation);
    world.fault(operation, 1, Fault::Takes(Duration::from_secs(100_000)));
    let life = {
        let (node, world, volume) = (node.clone(), world.clone(), volume.clone());
        tokio::spawn(async move {
            let session = node.connect("dev1").await.unwrap();
            world.guest_writes(&volume, "x");
            session.release().await;
            std::future::pending::<()>().await;
        })
    };
    eventually("the call is made", || world.calls(operation) > before).await;
    life.abort();
    let _ = life.await;
    std::sync::Arc::into_inner(node).expect("the life is over").crash().await;
    volume
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_while_placing_or_suspending_is_taken_over_by_a_connect() {
    for operation in ["attach", "start", "suspend"] {
        let (world, store) = (World::default(), MemoryStore::new());
        let volume = crash_in(operation, &world, &store).await;
        let next = node(&world, &store, config(2), 2).await;
        let session = next.connect("dev1").await.unwrap_or_else(|error| panic!("{operation}: {error}"));
        let expected: &[&str] = if operation == "suspend" { &["x"] } else { &[] };
        assert_eq!(world.guest_memory(&volume), expected, "{operation}");
        drop(session);
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_is_cleaned_up_after_without_anybody_asking() {
    for operation in ["attach", "start", "suspend"] {
        let (world, store) = (World::default(), MemoryStore::new());
        crash_in(operation, &world, &store).await;
        let next = node(&world, &store, config(2), 2).await;
        let at_rest = if operation == "suspend" { "parked" } else { "detached" };
        next.until("dev1", at_rest).await;
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_box_survives_its_gateway_and_is_joined_at_once() {
    let (world, store) = (World::default(), MemoryStore::new());
    let one = node(&world, &store, config(2), 1).await;
    let volume = one.create("dev1").await;
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "x");
    std::mem::forget(session);
    one.crash().await;

    let two = node(&world, &store, config(2), 2).await;
    let begun = tokio::time::Instant::now();
    let session = two.connect("dev1").await.unwrap();

    assert_eq!(session.via(), Via::Running);
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for a heartbeat to stand still");
    assert_eq!(world.guest_memory(&volume), ["x"]);
    session.release().await;
    two.until("dev1", "parked").await;
}

#[tokio::test(start_paused = true)]
async fn a_running_box_whose_gateway_died_is_suspended_though_nobody_returns() {
    let (world, store) = (World::default(), MemoryStore::new());
    let one = node(&world, &store, config(2), 1).await;
    one.create("dev1").await;
    std::mem::forget(one.connect("dev1").await.unwrap());
    one.crash().await;
    let two = node(&world, &store, config(2), 2).await;
    two.until("dev1", "parked").await;
    assert_eq!(world.calls("suspend"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_the_store_stops_acting_and_comes_back() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    for operation in ["get", "insert", "update", "delete", "scan"] {
        world.always(operation, Some(Fault::Fails(ErrorKind::Unavailable)));
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(node.connect("dev1").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(1), "refused fast");
    for operation in ["get", "insert", "update", "delete", "scan"] {
        world.always(operation, None);
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(node.connect("dev1").await.unwrap().epoch(), session.epoch(), "running sessions were left alone");
    assert_eq!(world.calls("suspend"), 0);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn half_made_instances_of_a_dead_node_are_finished_and_the_total_holds() {
    let (world, store) = (World::default(), MemoryStore::new());
    world.always("instance.ensure", Some(Fault::Takes(Duration::from_secs(100_000))));
    let one = node(&world, &store, config(3), 1).await;
    eventually("instances are being made", || world.calls("instance.ensure") == 3).await;
    one.crash().await;
    world.always("instance.ensure", None);
    let two = node(&world, &store, config(3), 2).await;
    two.until_free(3).await;
    assert_eq!(world.state().instances.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn cloud_resources_without_a_record_go_unless_they_may_hold_data() {
    let (world, store) = (World::default(), MemoryStore::new());
    let id = |text: &str| boxpool::VolumeId::new(text).unwrap();
    world.state().instances.insert(boxpool::InstanceId::new("i09999-old").unwrap());
    world.state().volumes.insert(id("v-empty"), world::Volume::default());
    world.state().volumes.insert(id("v-used"), world::Volume { used: true, ..Default::default() });
    let _node = node(&world, &store, config(1), 1).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(world.state().volumes.contains_key(&id("v-empty")), "within the grace time everything stays");
    tokio::time::sleep(Duration::from_secs(900)).await;
    let events =
        store.scan(boxpool::record::EVENTS, Some(boxpool::record::POOL_EVENTS), None, 100).await.unwrap().items;
    let events = events.iter().map(|entry| serde_json::from_str::<EventRecord>(&entry.stored.value).unwrap());
    let aside: Vec<_> = events.filter(|event| event.kind == EventKind::Quarantined).collect();
    assert_eq!(aside.iter().map(|event| event.volume.clone()).collect::<Vec<_>>(), [Some(id("v-used"))]);
    assert!(!aside[0].detail.is_empty(), "{:?}", aside[0]);
    let state = world.state();
    assert!(!state.volumes.contains_key(&id("v-empty")));
    assert!(state.volumes.contains_key(&id("v-used")), "set aside, never deleted");
    assert_eq!(state.instances.len(), 1);
}

/// A user may be called as the pool's own part of the log once was: they read their own events and no others.
#[tokio::test(start_paused = true)]
async fn the_pools_own_events_are_no_users_whatever_the_user_is_called() {
    let (world, store) = (World::default(), MemoryStore::new());
    let used = boxpool::VolumeId::new("v-used").unwrap();
    world.state().volumes.insert(used, world::Volume { used: true, ..Default::default() });
    let node = node(&world, &store, config(1), 1).await;
    let (user, name) = (UserId::new("pool").unwrap(), BoxName::new("dev1").unwrap());
    node.pool.create_box(&user, &name).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    let pools = store.scan(boxpool::record::EVENTS, Some(boxpool::record::POOL_EVENTS), None, 100).await.unwrap();
    assert!(!pools.items.is_empty(), "the volume was set aside");
    let users = store.scan(boxpool::record::EVENTS, Some("pool"), None, 100).await.unwrap();
    assert_eq!(users.items.len(), 1);
    let kinds = |events: Vec<EventRecord>| events.iter().map(|event| event.kind).collect::<Vec<_>>();
    assert_eq!(kinds(node.pool.events(&user, 100).await.unwrap()), [EventKind::BoxCreated]);
    assert_eq!(kinds(node.pool.box_events(&user, &name, 100).await.unwrap()), [EventKind::BoxCreated]);
    let other = BoxName::new("dev2").unwrap();
    assert!(node.pool.box_events(&user, &other, 100).await.unwrap().is_empty());
    assert!(UserId::new(boxpool::record::POOL_EVENTS).is_err());
}

#[tokio::test(start_paused = true)]
async fn who_takes_over_says_so_in_the_log() {
    let (world, store) = (World::default(), MemoryStore::new());
    crash_in("attach", &world, &store).await;
    let next = node(&world, &store, config(2), 2).await;
    next.until("dev1", "detached").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = next.pool.events(&world::user(), 10).await.unwrap();
    let taken: Vec<_> = events.iter().filter(|event| event.kind == EventKind::TakenOver).collect();
    assert_eq!(taken.len(), 1, "{events:?}");
    assert!(taken[0].detail.starts_with("placing of "), "{:?}", taken[0]);
}

#[tokio::test(start_paused = true)]
async fn the_records_of_the_long_dead_go_and_those_of_the_living_stay() {
    let (world, store) = (World::default(), MemoryStore::new());
    for seed in 1..=3 {
        node(&world, &store, config(2), seed).await.crash().await;
    }
    let (one, two) = (node(&world, &store, config(2), 4).await, node(&world, &store, config(2), 5).await);
    tokio::time::sleep(config(2).dead_after * 80).await;
    let left = store.scan(boxpool::record::NODES, None, None, 10).await.unwrap();
    let mut left: Vec<&str> = left.items.iter().map(|entry| entry.key.row.as_str()).collect();
    left.sort_unstable();
    let mut living = [one.pool.node().as_str(), two.pool.node().as_str()];
    living.sort_unstable();
    assert_eq!(left, living);
    assert_eq!((one.pool.status().live_nodes, two.pool.status().live_nodes), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_pool_at_rest_looks_at_what_is_there_now_and_then() {
    let (world, store) = (World::default(), MemoryStore::new());
    let one = node(&world, &store, config(2), 1).await;
    for n in 0..20 {
        one.create(&format!("dev{n}")).await;
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let (gets, lists) = (world.calls("get"), world.calls("volume.list"));
    let hour = Duration::from_secs(3_600);
    tokio::time::sleep(hour).await;
    let censuses = hour.as_secs() / config(2).census_every.as_secs();
    let lists = u64::from(world.calls("volume.list") - lists);
    assert!((1..=censuses + 1).contains(&lists), "{lists} listings in an hour, and {censuses} censuses");
    // Own heartbeat and lease, and the records of what is there: none is read once for each box.
    let beats = hour.as_secs() / config(2).heartbeat_every.as_secs();
    let gets = u64::from(world.calls("get") - gets);
    assert!(gets <= 4 * beats, "{gets} reads of single records in an hour, and {beats} heartbeats");
}

#[tokio::test(start_paused = true)]
async fn a_box_that_is_made_during_a_census_keeps_its_disk() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    // What a census reads of boxes and of volumes is seconds apart.
    world.always("scan", Some(Fault::Takes(Duration::from_secs(2))));
    let mut disks = Vec::new();
    for n in 0..u32::try_from(config(1).census_every.as_secs() * 3).unwrap() {
        disks.push(node.create(&format!("dev{n}")).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let state = world.state();
    let lost: Vec<_> = disks.iter().filter(|disk| !state.volumes.contains_key(disk)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
