//! What owners do with their boxes beside connecting: stop, start, keep running.

use crate::world;
use boxpool::record::{self, EventKind, Mode};
use boxpool::{BoxName, BoxView, ConnectRequest, ErrorKind, MemoryStore, StateStore, UserId, Via};
use std::time::Duration;
use world::{Fault, Node, World, config, eventually, node, user};

fn dev1() -> BoxName {
    BoxName::new("dev1").unwrap()
}

impl Node {
    async fn stop(&self) -> boxpool::Result<BoxView> {
        self.pool.stop_box(&user(), &dev1()).await
    }

    async fn keep(&self, on: bool) {
        let mode = if on { Mode::KeepRunning } else { Mode::SuspendOnLeave };
        assert_eq!(self.pool.set_mode(&user(), &dev1(), mode).await.unwrap().mode, mode);
    }

    async fn start(&self) -> BoxView {
        self.pool.start_box(&user(), &dev1(), Duration::from_secs(60)).await.unwrap()
    }

    async fn logged(&self, kind: EventKind) -> usize {
        let events = self.pool.events(&user(), 1_000).await.unwrap();
        events.iter().filter(|event| event.kind == kind).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_box_has_its_disk_and_no_memory() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "kept on disk");

    let stopped = node.stop().await.unwrap();

    assert_eq!(stopped.state(), "detached");
    session.ended().await;
    assert_eq!((world.calls("shut_down"), world.calls("suspend")), (1, 0));
    node.until_free(2).await;
    let again = node.connect("dev1").await.unwrap();
    assert_eq!((again.via(), world.guest_memory(&volume)), (Via::Detached, Vec::new()));
    assert_eq!(world.state().volumes[&volume].disk, ["kept on disk"]);
    assert_eq!(world.calls("shut_down"), 1, "its memory was gone, so nothing had to be dropped before the start");
    assert_eq!((node.logged(EventKind::BoxStopped).await, node.logged(EventKind::StayEnded).await), (1, 1));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_parked_or_detached_box_that_is_stopped_does_not_wake() {
    for park_limit in [3_600, 0] {
        let (world, store) = (World::default(), MemoryStore::new());
        let mut config = config(2);
        config.park_limit = Duration::from_secs(park_limit);
        let node = node(&world, &store, config, 1).await;
        let volume = node.create("dev1").await;
        let session = node.connect("dev1").await.unwrap();
        world.guest_writes(&volume, "held");
        session.release().await;
        eventually("its memory is saved", || world.state().volumes[&volume].memory.is_some()).await;
        node.until("dev1", if park_limit == 0 { "detached" } else { "parked" }).await;

        assert_eq!(node.stop().await.unwrap().state(), "detached");
        assert_eq!(node.stop().await.unwrap().state(), "detached", "once more is the same");

        let session = node.connect("dev1").await.unwrap();
        assert_eq!(world.guest_memory(&volume), Vec::<String>::new());
        // What is saved from now on is new, and is kept.
        world.guest_writes(&volume, "new");
        session.release().await;
        node.until("dev1", "parked").await;
        let _session = node.connect("dev1").await.unwrap();
        assert_eq!(world.guest_memory(&volume), ["new"]);
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_whose_node_dies_is_brought_to_its_end() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    let volume = one.create("dev1").await;
    let _session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "held");
    world.always("shut_down", Some(Fault::Takes(Duration::from_secs(20))));
    let pool = one.pool.clone();
    tokio::spawn(async move { pool.stop_box(&user(), &dev1()).await });
    eventually("it is being shut down", || world.calls("shut_down") == 1).await;
    one.crash().await;
    world.always("shut_down", None);

    two.until("dev1", "detached").await;
    let _again = two.connect("dev1").await.unwrap();
    assert_eq!((world.guest_memory(&volume), world.calls("suspend")), (Vec::new(), 0));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn memory_that_could_not_be_dropped_is_dropped_before_the_next_start() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "held");
    session.release().await;
    node.until("dev1", "parked").await;
    world.always("shut_down", Some(Fault::Fails(ErrorKind::Permanent)));
    assert_eq!(node.stop().await.unwrap().state(), "detached");
    assert!(world.state().volumes[&volume].memory.is_some());

    assert!(node.connect("dev1").await.is_err(), "it is not started with the old memory");
    world.always("shut_down", None);
    let _session = node.connect("dev1").await.unwrap();
    assert_eq!(world.guest_memory(&volume), Vec::<String>::new());
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_box_that_was_started_lingers_and_is_suspended() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    assert_eq!(node.start().await.state(), "running");
    node.until("dev1", "parked").await;
    assert_eq!((world.calls("start"), node.logged(EventKind::BoxStarted).await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_kept_box_runs_on_whichever_node_dies_and_until_it_is_kept_no_longer() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(1), 1).await, node(&world, &store, config(1), 2).await);
    let volume = one.create("dev1").await;
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "held");
    two.keep(true).await;
    session.release().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((one.state_of("dev1").await, world.calls("suspend")), ("running", 0));

    let session = one.connect("dev1").await.unwrap();
    std::mem::forget(session);
    one.crash().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let view = two.pool.get_box(&user(), &dev1()).await.unwrap().unwrap();
    assert_eq!((view.state(), view.holders, world.calls("suspend")), ("running", 0, 0));

    // It makes no room for others.
    two.create("other").await;
    let request = ConnectRequest::new(user(), BoxName::new("other").unwrap());
    assert!(two.pool.connect(request.deadline(Duration::from_secs(60))).await.is_err());

    two.keep(false).await;
    two.until("dev1", "parked").await;
    assert_eq!(world.guest_memory_saved(&volume), ["held"]);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_kept_box_whose_machine_died_is_brought_up_again_and_a_stopped_one_is_not() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    node.keep(true).await;
    node.until("dev1", "running").await;
    let first = node.pool.instance_of(&user(), &dev1()).await.unwrap().unwrap();
    world.kill_instance(&first);
    eventually("it runs elsewhere", || world.state().guests.contains_key(&volume)).await;
    world.kill_guest(&volume);
    eventually("it runs again", || world.state().guests.contains_key(&volume)).await;

    let stopped = node.stop().await.unwrap();
    assert_eq!((stopped.state(), stopped.mode), ("detached", Mode::SuspendOnLeave));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(node.state_of("dev1").await, "detached");
    world.assert_no_promise_broken();
}

fn keeps_deleted(time: Duration) -> boxpool::PoolConfig {
    let mut config = config(2);
    config.retention = time;
    config
}

#[tokio::test(start_paused = true)]
async fn a_deleted_box_is_had_back_as_it_was() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, keeps_deleted(Duration::from_secs(3_600)), 1).await;
    let volume = node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "held");

    node.pool.delete_box(&user(), &dev1()).await.unwrap();

    session.ended().await;
    drop(session);
    assert!(node.pool.list_boxes(&user()).await.unwrap().is_empty());
    assert_eq!(node.state_of("dev1").await, "absent");
    for refused in [node.connect("dev1").await.map(drop), node.stop().await.map(drop)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(node.pool.create_box(&user(), &dev1()).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(node.pool.list_deleted(&user()).await.unwrap().len(), 1);
    node.until_free(2).await;

    node.pool.undelete_box(&user(), &dev1()).await.unwrap();
    assert_eq!(node.pool.undelete_box(&user(), &dev1()).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let _session = node.connect("dev1").await.unwrap();
    assert_eq!(world.guest_memory(&volume), ["held"]);
    assert_eq!((node.logged(EventKind::BoxRetained).await, node.logged(EventKind::BoxUndeleted).await), (1, 1));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_box_goes_for_good_when_its_time_is_over_or_its_owner_says_so() {
    for purged in [true, false] {
        let (world, store) = (World::default(), MemoryStore::new());
        // Records are stamped by the real clock, which goes on while virtual time flies.
        let time = if purged { Duration::from_secs(3_600) } else { Duration::from_millis(1) };
        let node = node(&world, &store, keeps_deleted(time), 1).await;
        let volume = node.create("dev1").await;
        node.connect("dev1").await.unwrap().release().await;
        node.until("dev1", "parked").await;
        node.pool.delete_box(&user(), &dev1()).await.unwrap();
        if purged {
            assert!(world.state().volumes.contains_key(&volume));
            node.pool.purge_box(&user(), &dev1()).await.unwrap();
        }
        eventually("its volume is gone", || !world.state().volumes.contains_key(&volume)).await;
        let limit = tokio::time::Instant::now() + Duration::from_secs(60);
        while !store.scan(record::BOXES, None, None, 10).await.unwrap().items.is_empty() {
            assert!(tokio::time::Instant::now() < limit, "its record is there for ever");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(node.pool.undelete_box(&user(), &dev1()).await.unwrap_err().kind(), ErrorKind::NotFound);
        world.assert_no_promise_broken();
    }
}

#[tokio::test(start_paused = true)]
async fn only_with_whom_a_box_is_shared_can_connect_and_it_says_who_did() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    let (friend, stranger) = (UserId::new("friend").unwrap(), UserId::new("stranger").unwrap());
    let connect = |who: &UserId| node.pool.connect(ConnectRequest::new(user(), dev1()).by(who.clone()));
    let share = |who: &UserId, on: bool| {
        let (pool, who) = (node.pool.clone(), who.clone());
        async move { pool.share_box(&user(), &dev1(), &who, on).await }
    };
    assert_eq!(connect(&friend).await.unwrap_err().kind(), ErrorKind::NotFound);
    share(&friend, true).await.unwrap();
    assert_eq!(share(&user(), true).await.unwrap_err().kind(), ErrorKind::Invalid);

    connect(&friend).await.unwrap().release().await;
    connect(&user()).await.unwrap().release().await;
    assert_eq!(connect(&stranger).await.unwrap_err().kind(), ErrorKind::NotFound);

    let view = node.pool.get_box(&user(), &dev1()).await.unwrap().unwrap();
    let seen = view.shares[&friend];
    assert_eq!((view.shares.len(), seen.connects, seen.used_at.is_some()), (1, 1, true));
    assert_eq!(node.logged(EventKind::GuestConnected).await, 1);
    assert!(share(&friend, false).await.unwrap().shares.is_empty());
    assert_eq!(connect(&friend).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_box_says_how_often_it_was_connected_to() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    for _ in 0..3 {
        let (a, b) = (node.connect("dev1").await.unwrap(), node.connect("dev1").await.unwrap());
        let running = node.pool.get_box(&user(), &dev1()).await.unwrap().unwrap().usage;
        assert!(running.running_since.is_some());
        a.release().await;
        b.release().await;
        node.until("dev1", "parked").await;
    }
    let usage = node.pool.get_box(&user(), &dev1()).await.unwrap().unwrap().usage;
    assert_eq!((usage.connects, usage.running_since), (6, None));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_grown_while_its_box_is_down_and_a_wish_outlives_its_node() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    let volume = one.create("dev1").await;
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "kept on disk");
    let grown = one.pool.resize_box(&user(), &dev1(), 5).await.unwrap();
    assert_eq!((grown.state(), grown.grown_to), ("detached", Some(5)));
    session.ended().await;
    assert_eq!(world.state().volumes[&volume].bytes, 5);

    // The node that is told dies while it asks for it; whoever places the box next asks again.
    world.fault("resize", 1, Fault::Takes(Duration::from_secs(100_000)));
    let pool = one.pool.clone();
    let resize = tokio::spawn(async move { pool.resize_box(&user(), &dev1(), 9).await.map(drop) });
    eventually("it is asked for", || world.calls("resize") == 2).await;
    resize.abort();
    let _ = resize.await;
    one.crash().await;
    two.connect("dev1").await.unwrap();
    assert_eq!(two.pool.get_box(&user(), &dev1()).await.unwrap().unwrap().grown_to, Some(9));
    let state = world.state();
    assert_eq!((state.volumes[&volume].bytes, &state.volumes[&volume].disk[..]), (9, &["kept on disk".to_owned()][..]));
}

#[tokio::test(start_paused = true)]
async fn a_growth_that_is_refused_for_good_leaves_the_box_as_it_was() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    world.fault("resize", 1, Fault::Fails(ErrorKind::NoCapacity));
    let refused = node.pool.resize_box(&user(), &dev1(), 5).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    node.connect("dev1").await.unwrap();
    assert_eq!(world.calls("resize"), 1, "it is wanted no more");
    assert_eq!(node.pool.get_box(&user(), &dev1()).await.unwrap().unwrap().grown_to, None);
}

#[tokio::test(start_paused = true)]
async fn who_has_a_box_and_connects_again_sees_that_it_was_restarted_elsewhere() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    one.create("dev1").await;
    let old = one.connect("dev1").await.unwrap();
    two.stop().await.unwrap();
    let new = two.connect("dev1").await.unwrap();
    assert_ne!(new.endpoint(), old.endpoint());
    assert_eq!(one.connect("dev1").await.unwrap().endpoint(), new.endpoint());
    old.ended().await;
}
