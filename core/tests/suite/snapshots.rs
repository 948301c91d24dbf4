//! Snapshots of boxes, and boxes that are copies of others.

use crate::world;
use boxpool::record::EventKind;
use boxpool::{BoxName, BoxSnapshot, BoxView, ErrorKind, MemoryStore, Result, SnapshotId, SnapshotName, Via, VolumeId};
use std::time::Duration;
use world::{Fault, Node, World, config, eventually, node, user};

fn name(name: &str) -> BoxName {
    BoxName::new(name).unwrap()
}

fn called(name: &str) -> SnapshotName {
    SnapshotName::new(name).unwrap()
}

impl Node {
    async fn snapshot(&self, of: &str, to: &str) -> Result<BoxSnapshot> {
        self.pool.take_snapshot(&user(), &name(of), &called(to)).await
    }

    async fn restore(&self, from: &str, to: &str) -> Result<BoxView> {
        self.pool.restore_box(&user(), &called(from), &name(to)).await
    }

    async fn duplicate(&self, of: &str, to: &str) -> Result<BoxView> {
        self.pool.duplicate_box(&user(), &name(of), &name(to)).await
    }

    async fn snapshots(&self) -> Vec<(String, &'static str)> {
        let all = self.pool.list_snapshots(&user()).await.unwrap();
        all.iter().map(|snapshot| (snapshot.name.to_string(), snapshot.state())).collect()
    }

    /// A parked box with a line on its disk and one in its memory.
    async fn lived_in(&self, world: &World, of: &str) -> VolumeId {
        let volume = self.create(of).await;
        let session = self.connect(of).await.unwrap();
        world.guest_writes(&volume, "old");
        session.release().await;
        self.until(of, "parked").await;
        volume
    }
}

fn disk(world: &World, volume: &VolumeId) -> Vec<String> {
    world.state().volumes[volume].disk.clone()
}

#[tokio::test(start_paused = true)]
async fn a_restored_box_has_what_the_disk_held_then_and_boots() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let original = node.lived_in(&world, "dev1").await;

    assert_eq!(node.snapshot("dev1", "monday").await.unwrap().state(), "ready");
    let session = node.connect("dev1").await.unwrap();
    assert_eq!((session.via(), world.guest_memory(&original)), (Via::Parked, vec!["old".to_owned()]));
    world.guest_writes(&original, "new");
    let copy = node.restore("monday", "dev2").await.unwrap().volume;

    assert_eq!((disk(&world, &copy), disk(&world, &original)), (vec!["old".into()], vec!["old".into(), "new".into()]));
    let mine = node.connect("dev2").await.unwrap();
    assert_eq!(world.guest_memory(&copy), Vec::<String>::new(), "it is no twin: it booted");
    world.guest_writes(&copy, "mine");
    assert_eq!((disk(&world, &copy).len(), disk(&world, &original).len()), (2, 2));
    assert_eq!(mine.owner().name, name("dev2"));
    let again = node.restore("monday", "dev3").await.unwrap().volume;
    assert_eq!(disk(&world, &again), ["old"], "the snapshot is as it was");
    let kinds = node.pool.events(&user(), 100).await.unwrap();
    let told =
        |kind| kinds.iter().filter(|event| event.kind == kind).map(|event| event.detail.clone()).collect::<Vec<_>>();
    assert_eq!(told(EventKind::SnapshotTaken), ["monday"]);
    assert_eq!(told(EventKind::BoxCopied), ["snapshot monday of dev1", "snapshot monday of dev1"]);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_runtime_is_told_of_a_copy_until_it_was_up_once() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    let original = node.lived_in(&world, "dev1").await;
    let copy = node.duplicate("dev1", "dev2").await.unwrap().volume;
    // What was begun and is not known to have come to its end is begun again.
    world.fault("start", 1, Fault::LosesAnswer);
    drop(node.connect("dev2").await);
    for _ in 0..2 {
        node.connect("dev2").await.unwrap().release().await;
        node.until("dev2", "parked").await;
    }
    let told = |volume: &VolumeId| {
        let all = world.state().told_copied.clone();
        all.into_iter().filter(|(of, _)| of == volume).map(|(_, copied)| copied).collect::<Vec<_>>()
    };
    assert_eq!((told(&copy), told(&original)), (vec![true, true, false], vec![false]));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_restored_box_is_as_large_as_the_one_that_was_copied() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    node.pool.resize_box(&user(), &name("dev1"), 9).await.unwrap();
    assert_eq!(node.snapshot("dev1", "large").await.unwrap().grown_to, Some(9));
    let copy = node.restore("large", "dev2").await.unwrap();
    assert_eq!((copy.grown_to, world.state().volumes[&copy.volume].bytes), (Some(9), 9));
}

#[tokio::test(start_paused = true)]
async fn a_box_that_is_in_use_is_not_copied_and_one_that_lingers_is_suspended_first() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (node, other) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    node.create("dev1").await;
    let session = node.connect("dev1").await.unwrap();
    for asked in [&node, &other] {
        assert_eq!(asked.snapshot("dev1", "s").await.unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(asked.duplicate("dev1", "dev2").await.unwrap_err().kind(), ErrorKind::Busy);
    }
    session.release().await;
    assert_eq!(node.state_of("dev1").await, "running", "it lingers");
    node.snapshot("dev1", "s").await.unwrap();
    assert_eq!((node.state_of("dev1").await, node.snapshots().await), ("parked", vec![("s".into(), "ready")]));
    assert_eq!(world.state().snapshots.len(), 1, "of those that were refused nothing is left");
}

#[tokio::test(start_paused = true)]
async fn who_connects_elsewhere_meanwhile_is_served_and_the_copy_is_not_kept() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    one.lived_in(&world, "dev1").await;
    // The copy is made after a guest was started and suspended again: the disk has moved.
    world.always("snapshot", Some(Fault::Takes(Duration::from_secs(30))));
    let pool = one.pool.clone();
    let taking = tokio::spawn(async move { pool.take_snapshot(&user(), &name("dev1"), &called("s")).await });
    eventually("it is being copied", || world.calls("snapshot") == 1).await;
    let session = two.connect("dev1").await.unwrap();
    session.release().await;
    two.until("dev1", "parked").await;

    assert_eq!(taking.await.unwrap().unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!((one.snapshots().await.len(), world.state().snapshots.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn snapshots_and_copies_outlive_their_box_and_a_copy_outlives_its_snapshot() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.lived_in(&world, "dev1").await;
    node.snapshot("dev1", "s").await.unwrap();
    node.pool.delete_box(&user(), &name("dev1")).await.unwrap();
    assert_eq!(node.snapshots().await, [("s".into(), "ready")]);

    let copy = node.restore("s", "dev1").await.unwrap().volume;
    node.pool.delete_snapshot(&user(), &called("s")).await.unwrap();

    assert_eq!((node.snapshots().await.len(), world.state().snapshots.len()), (0, 0));
    assert_eq!(disk(&world, &copy), ["old"]);
    let gone = node.pool.delete_snapshot(&user(), &called("s")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(node.restore("s", "dev2").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn names_are_taken_once() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    for of in ["dev1", "dev2"] {
        node.create(of).await;
    }
    node.snapshot("dev1", "s").await.unwrap();
    for refused in [
        node.snapshot("dev2", "s").await.map(drop),
        node.restore("s", "dev2").await.map(drop),
        node.duplicate("dev1", "dev2").await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(node.snapshot("dev9", "other").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.calls("snapshot"), 1);
    assert_eq!(world.state().snapshots.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restore_whose_snapshot_goes_meanwhile_leaves_nothing() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.create("dev1").await;
    node.snapshot("dev1", "s").await.unwrap();
    let made = world.state().volumes.len();
    world.state().snapshots.clear();

    assert_eq!(node.restore("s", "dev2").await.unwrap_err().kind(), ErrorKind::NotFound);

    assert_eq!((node.state_of("dev2").await, world.state().volumes.len()), ("absent", made));
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_leaves_no_snapshot_behind() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.lived_in(&world, "dev1").await;
    let copy = node.duplicate("dev1", "dev2").await.unwrap().volume;
    assert_eq!(disk(&world, &copy), ["old"]);
    assert_eq!((node.snapshots().await.len(), world.state().snapshots.len()), (0, 0));
    node.connect("dev2").await.unwrap();
    assert_eq!(world.guest_memory(&copy), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_was_taking_is_removed_by_another() {
    let (world, store) = (World::default(), MemoryStore::new());
    let (one, two) = (node(&world, &store, config(2), 1).await, node(&world, &store, config(2), 2).await);
    one.lived_in(&world, "dev1").await;
    world.always("snapshot.delete", Some(Fault::Takes(Duration::from_secs(30))));
    one.snapshot("dev1", "s").await.unwrap();
    let pool = one.pool.clone();
    tokio::spawn(async move { pool.delete_snapshot(&user(), &called("s")).await });
    eventually("it is being deleted", || world.calls("snapshot.delete") == 1).await;
    world.always("snapshot.delete", None);
    world.always("snapshot", Some(Fault::Takes(Duration::from_secs(30))));
    let pool = one.pool.clone();
    tokio::spawn(async move { pool.take_snapshot(&user(), &name("dev1"), &called("t")).await });
    eventually("another is being taken", || world.calls("snapshot") == 2).await;
    assert_eq!(two.snapshots().await, [("s".into(), "deleting"), ("t".into(), "taking")]);
    one.crash().await;

    eventually("both are gone", || world.calls("snapshot.delete") >= 3).await;
    while !two.snapshots().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(world.state().snapshots.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_without_a_record_goes_after_a_while_and_others_stay() {
    let (world, store) = (World::default(), MemoryStore::new());
    let ids = ["of-box-0123", "golden", "somebody-elses"].map(|id| SnapshotId::new(id).unwrap());
    for id in &ids {
        world.state().snapshots.insert(id.clone(), world::Volume::default());
    }
    let node = node(&world, &store, config(1), 1).await;
    node.create("dev1").await;
    node.snapshot("dev1", "kept").await.unwrap();
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert!(world.state().snapshots.contains_key(&ids[0]), "it may be somebody's who is slow");
    eventually("it is gone", || !world.state().snapshots.contains_key(&ids[0])).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(ids[1..].iter().all(|id| world.state().snapshots.contains_key(id)));
    assert_eq!(node.snapshots().await, [("kept".into(), "ready")]);
    assert_eq!(world.state().snapshots.len(), 3);
}
