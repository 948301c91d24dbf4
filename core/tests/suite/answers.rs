//! What the pool makes of each kind of answer: conflicts, refusals, machines that are not found, guests that have moved.

use crate::world;
use boxpool::record::{BroughtUpFrom, EventKind};
use boxpool::{AwayBox, BoxName, ConnectRequest, ErrorKind, MemoryStore, ParkingPolicy, Timestamp, WarmTarget};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use world::{Fault, World, config, endpoint, eventually, node, node_with, user};

#[tokio::test(start_paused = true)]
async fn a_conflict_at_any_write_of_a_life_is_looked_into_and_passes() {
    for n in 1..=16 {
        for (operation, volumes) in [("update", 2), ("update", 0), ("delete", 2)] {
            let (world, store) = (World::default(), MemoryStore::new());
            let mut config = config(2);
            config.volumes = WarmTarget::new(volumes, volumes, 1_000);
            let node = node(&world, &store, config, 1).await;
            node.until_free(2).await;
            world.fault(operation, n, Fault::Fails(ErrorKind::Conflict));
            let volume = node.create("dev1").await;
            let session = node.connect("dev1").await.unwrap_or_else(|error| panic!("{operation} {n}: {error}"));
            world.guest_writes(&volume, "x");
            session.release().await;
            node.until("dev1", "parked").await;
            let _session = node.connect("dev1").await.unwrap();
            assert_eq!(world.guest_memory(&volume), ["x"]);
            let name = BoxName::new("dev1").unwrap();
            node.pool.delete_box(&user(), &name).await.unwrap_or_else(|error| panic!("{operation} {n}: {error}"));
            assert!(!world.state().volumes.contains_key(&volume));
            node.until_free(2).await;
            world.assert_no_promise_broken();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_reached_elsewhere_now_is_reached_there() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    let volume = one.create("dev1").await;
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "x");
    world.state().guests.get_mut(&volume).unwrap().port = 999;
    assert_eq!(*two.connect("dev1").await.unwrap().endpoint(), endpoint(999));
    assert_eq!(world.guest_memory(&volume), ["x"], "it is the same guest");
    drop(session);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_machine_the_runtime_does_not_find_is_brought_up_on_another() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    let volume = one.create("dev1").await;
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "x");
    world.kill_instance(session.instance());
    world.state().volumes.get_mut(&volume).unwrap().on = None;
    world.fault("status", 1, Fault::Fails(ErrorKind::NotFound));
    let again = two.connect("dev1").await.unwrap();
    assert_ne!(again.instance(), session.instance());
    assert_eq!(world.state().volumes[&volume].disk, ["x"]);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_box_that_comes_up_nowhere_is_tried_on_three_machines_and_refused() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(6), 1).await;
    node.create("dev1").await;
    node.until_free(6).await;
    world.always("start", Some(Fault::Fails(ErrorKind::Permanent)));
    assert_eq!(node.connect("dev1").await.unwrap_err().kind(), ErrorKind::Permanent);
    assert_eq!(world.calls("start"), 3);
    world.always("start", None);
    node.connect("dev1").await.unwrap();
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_a_box_is_told_why_and_what_to_do() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    let create = async |name: &str| node.pool.create_box(&user(), &BoxName::new(name).unwrap()).await;
    create("dev1").await.unwrap();
    let error = create("dev1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("a box of that name exists already"), "{error}");
    world.always("insert", Some(Fault::LosesAnswer));
    world.always("get", Some(Fault::Fails(ErrorKind::Unavailable)));
    let error = create("dev2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome);
    assert!(error.to_string().contains("list the boxes, then try again"), "{error}");
}

/// Two nodes; the first is making a disk for its box when the second is told to delete that box.
async fn delete_while_the_disk_is_made(world: &World, store: &MemoryStore, the_maker_dies: bool) -> Duration {
    let mut config = config(1);
    config.volumes = WarmTarget::new(0, 0, 1_000);
    let (one, two) = (node(world, store, config.clone(), 1).await, node(world, store, config, 2).await);
    let made_in = Duration::from_secs(if the_maker_dies { 100_000 } else { 20 });
    world.fault("volume.ensure", 1, Fault::Takes(made_in));
    let (name, pool) = (BoxName::new("dev1").unwrap(), one.pool.clone());
    let making = tokio::spawn({
        let name = name.clone();
        async move { pool.create_box(&user(), &name).await.map(drop) }
    });
    eventually("the disk is being made", || world.calls("volume.ensure") == 1).await;
    if the_maker_dies {
        making.abort();
        let _ = making.await;
        one.crash().await;
        let begun = Instant::now();
        two.pool.delete_box(&user(), &name).await.unwrap();
        return begun.elapsed();
    }
    let begun = Instant::now();
    two.pool.delete_box(&user(), &name).await.unwrap();
    let took = begun.elapsed();
    assert_eq!(making.await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    took
}

#[tokio::test(start_paused = true)]
async fn a_delete_waits_for_a_disk_that_is_being_made_and_leaves_none() {
    let (world, store) = (World::default(), MemoryStore::new());
    let took = delete_while_the_disk_is_made(&world, &store, false).await;
    assert!(took >= Duration::from_secs(15), "{took:?}: what was asked of the cloud had not happened yet");
    assert!(world.state().volumes.is_empty(), "nobody knows of it");
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_delete_does_not_wait_for_the_dead() {
    let (world, store) = (World::default(), MemoryStore::new());
    let took = delete_while_the_disk_is_made(&world, &store, true).await;
    assert!(took < config(1).dead_after + Duration::from_secs(30), "{took:?}");
    assert!(world.state().volumes.is_empty());
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_though_a_guest_cannot_be_saved() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    let volume = one.create("dev1").await;
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "x");
    world.always("suspend", Some(Fault::Fails(ErrorKind::NoCapacity)));
    session.release().await;
    one.pool.drain(Duration::from_secs(60)).await;
    assert!(["parked", "detached"].contains(&two.state_of("dev1").await), "{}", two.state_of("dev1").await);
    assert!(world.state().guests.is_empty());
    assert_eq!(world.state().volumes[&volume].disk, ["x"]);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_box_comes_off_its_machine_though_its_memory_cannot_be_saved() {
    let (world, store) = (World::default(), MemoryStore::new());
    let one = node(&world, &store, config(2), 1).await;
    let volume = one.create("dev1").await;
    one.until_free(2).await;
    world.fault("attach", 1, Fault::Takes(Duration::from_secs(100_000)));
    let pool = one.pool.clone();
    let connect = tokio::spawn(async move {
        pool.connect(ConnectRequest::new(user(), BoxName::new("dev1").unwrap())).await.map(drop)
    });
    eventually("it is attached", || world.calls("attach") == 1).await;
    connect.abort();
    let _ = connect.await;
    one.crash().await;
    world.always("suspend", Some(Fault::Fails(ErrorKind::Permanent)));
    let machines = world.state().instances.clone();
    let two = node(&world, &store, config(2), 2).await;
    two.until("dev1", "detached").await;
    assert!(world.calls("suspend") > 0, "who knows what runs there");
    assert_eq!(world.state().instances, machines, "no machine had to go for it");
    assert!(world.state().volumes[&volume].on.is_none());
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_stay_and_a_connect_are_timed() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    node.create("dev1").await;
    node.until_free(1).await;
    world.fault("attach", 1, Fault::Takes(Duration::from_secs(3)));
    world.fault("start", 1, Fault::Takes(Duration::from_secs(2)));
    let session = node.connect("dev1").await.unwrap();
    let timings = session.timings();
    assert_eq!(timings.attached.as_secs(), 3, "{timings:?}");
    assert_eq!(timings.started.as_secs(), 2, "{timings:?}");
    assert_eq!(timings.total.as_secs(), 5, "{timings:?}");
    let told = async || node.pool.get_box(&user(), &BoxName::new("dev1").unwrap()).await.unwrap().unwrap().brought_up;
    let up = told().await.unwrap();
    assert_eq!((up.from, up.waited_ms), (BroughtUpFrom::Detached, 0));
    assert_eq!([up.attached_ms, up.started_ms, up.total_ms].map(|ms| ms / 1_000), [3, 2, 5], "{up:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    session.release().await;
    node.until("dev1", "parked").await;
    assert_eq!(told().await, Some(up), "a leave changes nothing of it");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = node.pool.events(&user(), 10).await.unwrap();
    let stay = events.iter().find(|event| event.kind == EventKind::StayEnded).unwrap();
    let whole = Duration::from_secs(60) + config(1).linger;
    assert_eq!(stay.took_ms.map(|ms| ms / 1_000), Some(whole.as_secs()), "{stay:?}");
}

/// Knows nothing.
struct Nonsense;

impl ParkingPolicy for Nonsense {
    fn worth(&self, _: &AwayBox, _: Timestamp) -> f64 {
        f64::NAN
    }
}

#[tokio::test(start_paused = true)]
async fn room_is_made_whatever_a_policy_says() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node_with(&world, &store, config(1), 1, |builder| builder.parking_policy(Arc::new(Nonsense))).await;
    for name in ["dev1", "dev2"] {
        node.create(name).await;
        node.connect(name).await.unwrap().release().await;
        node.until(name, "parked").await;
    }
    assert_eq!(node.state_of("dev1").await, "detached");
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn no_machine_is_made_for_who_has_given_up() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut config = config(1);
    config.instances = WarmTarget::new(1, 4, 4);
    let node = node(&world, &store, config, 1).await;
    for n in 0..4 {
        node.create(&format!("dev{n}")).await;
    }
    node.until_free(1).await;
    let before = world.calls("instance.ensure");
    world.always("instance.ensure", Some(Fault::Takes(Duration::from_secs(60))));
    // Each write of the maintainer takes two seconds, and who waits has gone after three.
    world.always("insert", Some(Fault::Takes(Duration::from_secs(2))));
    let connects = (0..4).map(|n| {
        let request = ConnectRequest::new(user(), BoxName::new(format!("dev{n}")).unwrap());
        let (pool, request) = (node.pool.clone(), request.deadline(Duration::from_secs(3)));
        tokio::spawn(async move { pool.connect(request).await })
    });
    let mut sessions = Vec::new();
    for connect in connects.collect::<Vec<_>>() {
        match connect.await.unwrap() {
            Ok(session) => sessions.push(session),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoCapacity),
        }
    }
    assert_eq!(sessions.len(), 1, "there was one machine");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let made = world.calls("instance.ensure") - before;
    assert_eq!(made, 2, "one for the stock, and one that was begun when its waiter was still there");
}
