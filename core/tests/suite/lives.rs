//! Whole lives of boxes on one node and on several, in virtual time.

use crate::world;
use async_trait::async_trait;
use boxpool::{
    Cursor, Entry, ErrorKind, Key, MemoryStore, Page, Pool, Progress, Result, StateStore, Stored, Table, Version, Via,
    progress, record,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use world::{Fault, World, config, eventually, node};

#[tokio::test(start_paused = true)]
async fn a_box_is_as_it_was_left() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;

    let session = node.connect("dev1").await.unwrap();
    assert_eq!(session.via(), Via::Detached);
    world.guest_writes(&volume, "hello");
    session.release().await;
    node.until("dev1", "parked").await;

    let session = node.connect("dev1").await.unwrap();
    assert_eq!(session.via(), Via::Parked);
    assert_eq!(world.guest_memory(&volume), ["hello"]);
    session.release().await;
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_return_within_the_linger_costs_nothing() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    node.connect("dev1").await.unwrap().release().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (writes, starts) = (box_writes(&world), world.calls("start"));

    let session = node.connect("dev1").await.unwrap();

    assert_eq!(session.via(), Via::Running);
    assert_eq!((box_writes(&world), world.calls("start"), world.calls("suspend")), (writes, starts, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.state_of("dev1").await, "running", "a held box is never suspended");
}

fn box_writes(world: &World) -> usize {
    world.state().writes.iter().filter(|(_, table)| table == "boxes" || table == "instances").count()
}

fn writes(world: &World) -> Vec<(&'static str, String)> {
    world.state().writes.iter().filter(|(_, table)| table != "nodes" && table != "leases").cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn writes_before_the_guest_is_reachable_are_one_parked_and_two_detached() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    node.until_free(2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    for (expected_before, expected_cycle) in [(2, 6), (1, 5)] {
        world.state().writes.clear();
        // Nothing on the path scans: it works while no scan does.
        world.always("scan", Some(Fault::Fails(ErrorKind::Unavailable)));
        world.fault("start", 1, Fault::Takes(Duration::from_millis(50)));
        let starts = world.calls("start");
        let connect = node.connect("dev1");
        let watch = async {
            eventually("the runtime is called", || world.calls("start") > starts).await;
            assert_eq!(writes(&world).len(), expected_before, "{:?}", writes(&world));
        };
        let (session, ()) = tokio::join!(connect, watch);
        let session = session.unwrap();
        world.always("scan", None);
        let own: Vec<_> = writes(&world).into_iter().filter(|(_, table)| table != "volumes").collect();
        assert_eq!(own.len(), expected_before + 1, "one more beside the dial: {own:?}");
        session.release().await;
        node.until("dev1", "parked").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(writes(&world).len() <= expected_cycle, "{:?}", writes(&world));
    }
}

#[tokio::test(start_paused = true)]
async fn two_connects_at_once_on_two_nodes_share_one_guest() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(3), 1).await, node(&world, &store, config(3), 2).await);
    one.create("dev1").await;
    world.always("start", Some(Fault::Takes(Duration::from_secs(3))));

    let (a, b) = tokio::join!(one.connect("dev1"), two.connect("dev1"));
    let (a, b) = (a.unwrap(), b.unwrap());

    assert_eq!(a.endpoint(), b.endpoint());
    assert_eq!(world.calls("start"), 1, "one guest, started once");
    a.release().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(one.state_of("dev1").await, "running", "the other session goes on");
    b.release().await;
    one.until("dev1", "parked").await;
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_has_just_started_keeps_its_box_when_another_leaves() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut patient = config(3);
    patient.heartbeat_every = Duration::from_secs(100);
    patient.dead_after = Duration::from_secs(400);
    patient.linger = Duration::from_millis(10);
    let one = node(&world, &store, patient.clone(), 1).await;
    one.create("dev1").await;
    let a = one.connect("dev1").await.unwrap();
    // The first has read who is alive long before the second came.
    let two = node(&world, &store, patient, 2).await;
    let b = two.connect("dev1").await.unwrap();
    a.release().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(two.state_of("dev1").await, "running");
    assert_eq!(world.calls("suspend"), 0);
    b.release().await;
    two.until("dev1", "parked").await;
}

#[tokio::test(start_paused = true)]
async fn fifty_connects_to_one_box_are_one_resume() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(3), 1).await;
    node.create("dev1").await;
    let sessions = futures::future::join_all((0..50).map(|_| node.connect("dev1"))).await;
    assert!(sessions.iter().all(Result::is_ok));
    assert_eq!(world.calls("start"), 1);
}

#[tokio::test(start_paused = true)]
async fn twenty_boxes_on_three_instances_all_get_their_own() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = std::sync::Arc::new(node(&world, &store, config(3), 1).await);
    let mut lives = Vec::new();
    for n in 0..20 {
        let (node, world) = (node.clone(), world.clone());
        lives.push(tokio::spawn(async move {
            let name = format!("box{n}");
            let volume = node.create(&name).await;
            for round in 0..3 {
                let session = node.connect(&name).await.unwrap();
                let memory = world.guest_memory(&volume);
                assert_eq!(memory, (0..round).map(|r| format!("{name} {r}")).collect::<Vec<_>>());
                world.guest_writes(&volume, &format!("{name} {round}"));
                session.release().await;
            }
        }));
    }
    for life in lives {
        life.await.unwrap();
    }
    world.assert_no_promise_broken();
    assert!(world.state().instances.len() <= 3);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_told_their_place_and_refused_at_the_deadline() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    for name in ["a", "b", "c"] {
        node.create(name).await;
    }
    let held = node.connect("a").await.unwrap();
    let request = |name: &str| boxpool::ConnectRequest::new(world::user(), boxpool::BoxName::new(name).unwrap());
    let ((tell_b, mut see_b), (tell_c, mut see_c)) = (progress(), progress());
    let b = node.pool.connect(request("b").deadline(Duration::from_secs(30)).progress(tell_b));
    let c = node.pool.connect(request("c").deadline(Duration::from_secs(300)).progress(tell_c));
    let watch = async {
        see_b.wait_for(|p| matches!(p, Progress::WaitingForInstance { position: 1, .. })).await.unwrap();
        see_c.wait_for(|p| matches!(p, Progress::WaitingForInstance { position: 2, .. })).await.unwrap();
        see_c.wait_for(|p| matches!(p, Progress::WaitingForInstance { position: 1, .. })).await.unwrap();
        held.release().await;
    };
    let (b, c, ()) = tokio::join!(b, c, watch);
    assert_eq!(b.unwrap_err().kind(), ErrorKind::NoCapacity);
    c.unwrap();
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_killed_guest_is_started_again_and_its_disk_is_whole() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "kept on disk");
    world.kill_guest(&volume);

    // The other session of this node still stands; the caller says that the endpoint is dead.
    let request = boxpool::ConnectRequest::new(world::user(), boxpool::BoxName::new("dev1").unwrap());
    let again = node.pool.connect(request.distrust(session.epoch())).await.unwrap();

    assert!(again.epoch() > session.epoch());
    session.ended().await;
    assert_eq!(world.guest_memory(&volume), Vec::<String>::new());
    assert_eq!(world.state().volumes[&volume].disk, ["kept on disk"]);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_dead_instance_is_replaced() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    let first = session.instance().clone();
    session.release().await;
    node.until("dev1", "parked").await;
    world.kill_instance(&first);
    let session = node.connect("dev1").await.unwrap();
    assert_ne!(*session.instance(), first);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_box_leaves_nothing() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    node.pool.delete_box(&world::user(), &boxpool::BoxName::new("dev1").unwrap()).await.unwrap();
    session.ended().await;
    assert_eq!(node.state_of("dev1").await, "absent");
    assert!(!world.state().volumes.contains_key(&volume));
    assert_eq!(node.connect("dev1").await.unwrap_err().kind(), ErrorKind::NotFound);
    node.until_free(2).await;
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_any_write_of_a_life_changes_nothing() {
    for n in 1..=12 {
        for operation in ["insert", "update"] {
            let (world, store) = (World::default(), MemoryStore::new());
            let node = node(&world, &store, config(2), 1).await;
            node.until_free(2).await;
            world.fault(operation, n, Fault::LosesAnswer);
            let volume = node.create("dev1").await;
            let session = node.connect("dev1").await.unwrap();
            world.guest_writes(&volume, "x");
            session.release().await;
            node.until("dev1", "parked").await;
            let _session = node.connect("dev1").await.unwrap();
            assert_eq!(world.guest_memory(&volume), ["x"]);
            world.assert_no_promise_broken();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_any_provider_call_is_survived() {
    for operation in ["attach", "detach", "start", "suspend", "volume.ensure", "instance.ensure", "clear"] {
        let (world, store) = (World::default(), MemoryStore::new());
        world.fault(operation, 1, Fault::LosesAnswer);
        let node = node(&world, &store, config(2), 1).await;
        let volume = node.create("dev1").await;
        let session = node.connect("dev1").await.unwrap_or_else(|error| panic!("{operation}: {error}"));
        world.guest_writes(&volume, "x");
        session.release().await;
        node.until("dev1", "parked").await;
        let _session = node.connect("dev1").await.unwrap();
        assert_eq!(world.state().volumes[&volume].disk, ["x"], "{operation}");
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_volume_keeps_the_guest_running() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "x");
    world.fault("suspend", 1, Fault::Fails(ErrorKind::NoCapacity));
    session.release().await;
    eventually("the suspend is tried", || world.calls("suspend") == 1).await;
    node.until("dev1", "running").await;
    assert_eq!(world.guest_memory(&volume), ["x"]);
    node.until("dev1", "parked").await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_suspends_everything_and_ends_the_worker() {
    let (world, store) = (World::default(), MemoryStore::new());
    let one = node(&world, &store, config(4), 1).await;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c"] {
        one.create(name).await;
        sessions.push(one.connect(name).await.unwrap());
    }
    let begun = tokio::time::Instant::now();
    let report = one.pool.drain(Duration::from_secs(30)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it ends when all is done");
    assert_eq!((report.left, report.unfinished.len()), (3, 0));
    for name in ["a", "b", "c"] {
        assert_eq!(one.state_of(name).await, "parked");
    }
    let refused = one.connect("a").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(boxpool::Report(&refused).to_string().contains("shutting down"), "{}", boxpool::Report(&refused));
    // The next node finds them and need not wait for anybody's death.
    let two = node(&world, &store, config(4), 2).await;
    assert_eq!(two.connect("a").await.unwrap().via(), Via::Parked);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_guest_or_with_the_worker_and_not_before() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    let soon = Duration::from_secs(60);
    assert!(tokio::time::timeout(soon, session.ended()).await.is_err(), "its guest runs");
    node.crash().await;
    tokio::time::timeout(soon, session.ended()).await.expect("nobody here knows more of its guest");
}

#[tokio::test(start_paused = true)]
async fn a_session_learns_what_another_node_did_to_its_box() {
    for deleted in [false, true] {
        let (world, store) = (World::default(), MemoryStore::new());
        let (here, there) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
        here.create("dev1").await;
        let session = here.connect("dev1").await.unwrap();
        let (user, name) = (world::user(), boxpool::BoxName::new("dev1").unwrap());
        if deleted {
            there.pool.delete_box(&user, &name).await.unwrap();
        } else {
            there.pool.stop_box(&user, &name).await.unwrap();
        }
        tokio::time::timeout(Duration::from_secs(60), session.ended()).await.expect("its guest is gone");
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_box_is_not_the_end_of_the_next_one_of_its_name() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    let old = node.connect("dev1").await.unwrap();
    let (user, name) = (world::user(), boxpool::BoxName::new("dev1").unwrap());
    let (deleted, created, new) =
        tokio::join!(node.pool.delete_box(&user, &name), node.pool.create_box(&user, &name), node.connect("dev1"));
    deleted.unwrap();
    created.unwrap();
    let (new, soon) = (new.unwrap(), Duration::from_secs(60));
    tokio::time::timeout(soon, old.ended()).await.expect("its box is gone");
    assert!(tokio::time::timeout(soon, new.ended()).await.is_err(), "it runs");
}

#[tokio::test(start_paused = true)]
async fn one_of_two_sessions_ends_and_the_box_stays_up() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    node.create("dev1").await;
    let (one, two) = (node.connect("dev1").await.unwrap(), node.connect("dev1").await.unwrap());
    one.release().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(node.state_of("dev1").await, "running");
    two.release().await;
    // It lingers for its time, and no less.
    tokio::time::sleep(config(1).linger - Duration::from_millis(100)).await;
    assert_eq!(node.state_of("dev1").await, "running");
    node.until("dev1", "parked").await;
}

#[tokio::test(start_paused = true)]
async fn a_users_events_are_told_in_order_and_the_newest_when_there_are_many() {
    use boxpool::record::EventKind;
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    node.create("dev1").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.connect("dev1").await.unwrap().release().await;
    node.until("dev1", "parked").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kinds = async |limit| {
        let events = node.pool.events(&world::user(), limit).await.unwrap();
        events.into_iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(10).await, [EventKind::BoxCreated, EventKind::StayEnded]);
    assert_eq!(kinds(1).await, [EventKind::StayEnded]);
    let stranger = boxpool::UserId::new("stranger").unwrap();
    assert_eq!(node.pool.events(&stranger, 10).await.unwrap(), []);
}

/// A store on which the node's last heartbeat lands just before its record is deleted.
struct LateBeat {
    store: MemoryStore,
    landed: AtomicBool,
}

#[async_trait]
impl StateStore for LateBeat {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.store.get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.store.insert(key, value).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.store.update(key, version, value).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        if key.table == record::NODES && !self.landed.swap(true, Ordering::Relaxed) {
            let stored = self.store.get(key).await?.expect("a live node has a record");
            self.store.update(key, &stored.version, &stored.value).await?;
        }
        self.store.delete(key, version).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.store.scan(table, partition, cursor, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_its_record_along_although_a_heartbeat_lands_late() {
    let store = Arc::new(LateBeat { store: MemoryStore::new(), landed: AtomicBool::new(false) });
    let w = Arc::new(World::default());
    let builder = Pool::builder(store.clone(), w.clone(), w.clone(), w, config(1)).seed(1);
    let (pool, worker) = builder.build().await.unwrap();
    let worker = tokio::spawn(worker.run());
    pool.drain(Duration::from_secs(30)).await;
    worker.await.unwrap();
    assert!(store.landed.load(Ordering::Relaxed), "this test has delayed nothing");
    let nodes = store.scan(record::NODES, None, None, 10).await.unwrap();
    assert_eq!(nodes.items.len(), 0, "{:?}", nodes.items);
}

#[tokio::test(start_paused = true)]
async fn the_worker_ends_with_the_last_handle_and_not_before() {
    let (world, store) = (World::default(), MemoryStore::new());
    let w = Arc::new(world.clone());
    let builder = Pool::builder(Arc::new(store), w.clone(), w.clone(), w, config(1)).seed(1);
    let (pool, worker) = builder.build().await.unwrap();
    let mut worker = tokio::spawn(worker.run());
    let soon = Duration::from_secs(60);
    let other = pool.clone();
    drop(pool);
    assert!(tokio::time::timeout(soon, &mut worker).await.is_err(), "somebody may still connect");
    drop(other);
    tokio::time::timeout(soon, worker).await.expect("nobody can reach this node any more").unwrap();
}
