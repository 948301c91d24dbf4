//! A box that is called something else is the same box, whatever comes in between.

use crate::world;
use boxpool::record::{BOXES, BoxRecord, EventKind, Mode, PlacementEvent};
use boxpool::{BoxName, BoxView, ConnectRequest, Error, ErrorKind, Key, MemoryStore, NodeId, StateStore, UserId, Via};
use std::time::Duration;
use world::{Fault, Node, World, config, eventually, node, user};

fn name(text: &str) -> BoxName {
    BoxName::new(text).unwrap()
}

impl Node {
    async fn rename(&self, from: &str, to: &str) -> Result<BoxView, Error> {
        self.pool.rename_box(&user(), &name(from), &name(to)).await
    }

    async fn view(&self, of: &str) -> BoxView {
        self.pool.get_box(&user(), &name(of)).await.unwrap().unwrap()
    }

    async fn names(&self) -> Vec<String> {
        self.pool.list_boxes(&user()).await.unwrap().iter().map(|view| view.name.to_string()).collect()
    }

    async fn told(&self, of: &str) -> Vec<EventKind> {
        self.pool.box_events(&user(), &name(of), 100).await.unwrap().iter().map(|event| event.kind).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_renamed_box_is_the_same_box_with_all_that_it_has() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    let friend = UserId::new("friend").unwrap();
    let volume = one.create("dev1").await;
    one.pool.share_box(&user(), &name("dev1"), &friend, true).await.unwrap();
    let session = one.connect("dev1").await.unwrap();
    world.guest_writes(&volume, "held");
    session.release().await;
    one.until("dev1", "parked").await;
    let before = one.view("dev1").await;

    let renamed = one.rename("dev1", "dev2").await.unwrap();

    assert_eq!((renamed.name.as_str(), renamed.state()), ("dev2", "detached"));
    let after = two.view("dev2").await;
    assert_eq!((&after.id, &after.volume, &after.shares), (&before.id, &volume, &before.shares));
    assert_eq!((after.created_at, after.used_at, after.usage), (before.created_at, before.used_at, before.usage));
    for node in [&one, &two] {
        assert_eq!(node.names().await, ["dev2"]);
        assert_eq!(node.state_of("dev1").await, "absent");
        assert_eq!(node.connect("dev1").await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let theirs = ConnectRequest::new(user(), name("dev2")).by(friend);
    let session = two.pool.connect(theirs).await.unwrap();
    assert_eq!((session.via(), world.guest_memory(&volume)), (Via::Detached, vec!["held".to_owned()]));
    let told = two.told("dev2").await;
    assert_eq!(told[0], EventKind::BoxCreated, "what happened before goes along: {told:?}");
    assert_eq!(told.iter().filter(|kind| **kind == EventKind::BoxRenamed).count(), 2);
    assert_eq!(one.told("dev1").await.last(), Some(&EventKind::BoxRenamed));
    world.assert_no_promise_broken();

    // The old name is free, for another box, and the new one takes its volume along when it goes.
    session.release().await;
    assert_ne!(one.create("dev1").await, volume);
    assert!(
        !one.told("dev1")
            .await
            .iter()
            .skip_while(|kind| **kind != EventKind::BoxRenamed)
            .any(|kind| *kind == EventKind::GuestConnected)
    );
    two.pool.delete_box(&user(), &name("dev2")).await.unwrap();
    assert!(!world.state().volumes.contains_key(&volume));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renamed_says_why_and_keeps_its_name() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut config = config(2);
    config.retention = Duration::from_secs(3_600);
    let node = node(&world, &store, config, 1).await;
    for each in ["dev1", "dev2", "dev3"] {
        node.create(each).await;
    }
    node.pool.delete_box(&user(), &name("dev3")).await.unwrap();
    let refused = async |from: &str, to: &str| node.rename(from, to).await.unwrap_err();
    assert_eq!(refused("dev1", "dev1").await.kind(), ErrorKind::Invalid);
    assert_eq!(refused("dev9", "dev8").await.kind(), ErrorKind::NotFound);
    assert_eq!(refused("dev3", "dev8").await.kind(), ErrorKind::NotFound);
    for taken in ["dev2", "dev3"] {
        assert_eq!(refused("dev1", taken).await.kind(), ErrorKind::AlreadyExists);
    }
    let session = node.connect("dev1").await.unwrap();
    let busy = refused("dev1", "dev4").await;
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(busy.detail().contains("stop it first"), "{busy}");
    drop(session);
    node.pool.stop_box(&user(), &name("dev1")).await.unwrap();
    node.pool.set_mode(&user(), &name("dev2"), Mode::KeepRunning).await.unwrap();
    node.rename("dev1", "dev4").await.unwrap();
    assert_eq!(node.names().await, ["dev2", "dev4"]);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn of_two_that_rename_at_once_one_does() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    one.create("dev1").await;
    one.create("other").await;
    let id = one.view("dev1").await.id;
    let (a, b) = tokio::join!(one.rename("dev1", "dev2"), two.rename("dev1", "dev3"));
    let (done, refused) = match (a, b) {
        (Ok(done), Err(refused)) | (Err(refused), Ok(done)) => (done, refused),
        both => panic!("{both:?}"),
    };
    assert_eq!((done.id, refused.kind()), (id, ErrorKind::NotFound));
    // Two boxes, and one name for both.
    let now = done.name.as_str();
    let (a, b) = tokio::join!(one.rename(now, "dev7"), two.rename("other", "dev7"));
    assert!(a.is_ok() != b.is_ok());
    let refused = a.err().or(b.err()).unwrap();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(one.names().await.len(), 2);
    world.assert_no_promise_broken();
}

/// The record of an attempt that was given up, as its insert would arrive long after.
async fn leave_ghost(store: &MemoryStore, from: &str, to: &str) -> Key {
    let old = store.get(&Key::new(BOXES, user().as_str(), from)).await.unwrap().unwrap();
    let record: BoxRecord = serde_json::from_str(&old.value).unwrap();
    let node = NodeId::new("n-dead").unwrap();
    let ghost = record.after(&PlacementEvent::Rename { to: name(to), node }).unwrap().under_new_name().unwrap();
    let key = Key::new(BOXES, user().as_str(), to);
    store.insert(&key, &serde_json::to_string(&ghost).unwrap()).await.unwrap();
    key
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_attempt_is_no_box_and_goes() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let volume = node.create("dev1").await;
    for round in 0..3 {
        let key = leave_ghost(&store, "dev1", "dev2").await;
        assert_eq!((node.names().await, node.state_of("dev2").await), (vec!["dev1".to_owned()], "absent"));
        match round {
            // Found by whoever connects, by the reconcile, and by the next attempt.
            0 => assert_eq!(node.connect("dev2").await.unwrap_err().kind(), ErrorKind::NotFound),
            1 => tokio::time::sleep(Duration::from_secs(900)).await,
            _ => drop(node.rename("dev1", "dev2").await.unwrap()),
        }
        let there = store.get(&key).await.unwrap().is_some();
        assert_eq!(there, round == 2, "round {round}");
    }
    // The volume was left alone.
    let _session = node.connect("dev2").await.unwrap();
    assert!(world.state().volumes.contains_key(&volume));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_rename_whose_node_dies_is_brought_to_one_end_or_the_other() {
    // Before there is a record under the new name, and when the old one was to go: the simulator dies everywhere else as well.
    for (hangs, ends) in [("insert", "dev1"), ("delete", "dev2")] {
        let (world, store) = (World::default(), MemoryStore::new());
        let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
        let volume = one.create("dev1").await;
        let id = one.view("dev1").await.id;
        world.always(hangs, Some(Fault::Takes(Duration::from_secs(3_600))));
        let (pool, calls) = (one.pool.clone(), world.calls(hangs));
        tokio::spawn(async move { pool.rename_box(&user(), &name("dev1"), &name("dev2")).await });
        eventually("it is under way", || world.calls(hangs) > calls).await;
        assert_eq!((two.names().await, two.view("dev1").await.state()), (vec!["dev1".to_owned()], "renaming"));
        one.crash().await;
        world.always(hangs, None);

        // Who asks meanwhile waits for it.
        let asked = two.pool.stop_box(&user(), &name("dev1")).await;
        assert_eq!(asked.is_ok(), ends == "dev1");
        two.until(ends, "detached").await;
        assert_eq!(two.names().await, [ends]);
        assert_eq!((two.view(ends).await.id, two.view(ends).await.volume), (id, volume));
        let _session = two.connect(ends).await.unwrap();
        world.assert_no_promise_broken();
    }
}
