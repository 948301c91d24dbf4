//! Machines and disks that were there before the pool are taken in, beside a node that runs.

use crate::world;
use boxpool::record::VOLUMES;
use boxpool::{
    Adoption, BoxName, Epoch, ErrorKind, InstanceId, Key, MemoryStore, StateStore, SystemClock, UserId, VolumeId,
    WarmTarget,
};
use std::sync::Arc;
use std::time::Duration;
use world::{Volume, World, config, node, user};

/// Longer than every grace time.
const LONG: Duration = Duration::from_secs(7_200);

fn adoption(store: &MemoryStore, seed: u64) -> Adoption {
    Adoption::new(Arc::new(store.clone()), Arc::new(SystemClock), seed).unwrap()
}

fn dev1() -> (UserId, BoxName) {
    (user(), BoxName::new("dev1").unwrap())
}

/// A disk that another box was left on, with its memory, long ago.
fn left_disk() -> Volume {
    Volume {
        epoch: Epoch(57),
        used: true,
        disk: vec!["kept".into()],
        memory: Some(vec!["kept".into()]),
        on: None,
        ..Volume::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_adopted_machine_serves_boxes() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut config = config(0);
    config.instances = WarmTarget::new(0, 1, 1);
    let node = node(&world, &store, config, 1).await;
    let id = InstanceId::new("vm:theirs").unwrap();

    assert!(adoption(&store, 1).begin_instance(&id, 1).await.unwrap());
    world.state().instances.insert(id.clone());
    // Who adopts dies here, and nobody touches the machine for however long.
    tokio::time::sleep(LONG).await;
    assert!(world.state().instances.contains(&id));
    assert_eq!(node.pool.status().free_instances, 0);
    let second = adoption(&store, 2);
    assert!(second.begin_instance(&id, 1).await.unwrap(), "it goes on");
    second.end_instance(&id, "1").await.unwrap();
    node.until_free(1).await;
    assert!(!second.begin_instance(&id, 1).await.unwrap(), "it is the pool's");
    second.end_instance(&id, "1").await.unwrap();

    node.create("dev1").await;
    assert_eq!(*node.connect("dev1").await.unwrap().instance(), id);
    assert_eq!(world.calls("instance.delete"), 0);
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_takes_no_machine() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(2), 1).await;
    node.until_free(2).await;
    let id = InstanceId::new("vm:theirs").unwrap();
    let refused = adoption(&store, 1).begin_instance(&id, 2).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    assert_eq!(adoption(&store, 1).end_instance(&id, "1").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn what_turns_out_not_to_be_there_is_abandoned_and_what_is_the_pools_is_not() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    node.until_free(1).await;
    let adoption = adoption(&store, 1);
    let (user, name) = dev1();
    let (machine, disk) = (InstanceId::new("vm:theirs").unwrap(), VolumeId::new("disk:theirs").unwrap());
    for _ in 0..2 {
        assert!(adoption.begin_instance(&machine, 9).await.unwrap());
        assert!(adoption.begin_volume(&disk, &user, &name).await.unwrap());
        adoption.abandon_instance(&machine).await.unwrap();
        adoption.abandon_volume(&disk).await.unwrap();
    }
    assert_eq!(node.state_of("dev1").await, "absent");

    let own = world.state().instances.first().unwrap().clone();
    let volume = node.create("dev1").await;
    adoption.abandon_instance(&own).await.unwrap();
    adoption.abandon_volume(&volume).await.unwrap();
    tokio::time::sleep(LONG).await;
    node.connect("dev1").await.unwrap();
    assert!(world.state().instances.contains(&own));
}

#[tokio::test(start_paused = true)]
async fn an_adopted_disk_is_the_users_box_with_all_that_is_on_it() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    let (user, name) = dev1();
    let id = VolumeId::new("disk:theirs").unwrap();

    assert!(adoption(&store, 1).begin_volume(&id, &user, &name).await.unwrap());
    world.state().volumes.insert(id.clone(), left_disk());
    tokio::time::sleep(LONG).await;
    let second = adoption(&store, 2);
    for _ in 0..2 {
        second.end_volume(&id, &user, &name).await.unwrap();
    }
    assert!(!second.begin_volume(&id, &user, &name).await.unwrap(), "it is that box's");

    let session = node.connect("dev1").await.unwrap();
    assert_eq!(world.guest_memory(&id), ["kept"]);
    session.release().await;
    node.until("dev1", "parked").await;
    tokio::time::sleep(LONG).await;
    assert!(world.state().volumes.contains_key(&id), "it is nobody else's to delete");

    let other = BoxName::new("dev2").unwrap();
    assert_eq!(second.begin_volume(&id, &user, &other).await.unwrap_err().kind(), ErrorKind::Conflict);
    let disk = VolumeId::new("disk:other").unwrap();
    assert_eq!(second.begin_volume(&disk, &user, &name).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    node.pool.delete_box(&user, &name).await.unwrap();
    assert!(!world.state().volumes.contains_key(&id), "its owner's delete deletes it");
    world.assert_no_promise_broken();
}

/// The store fails each write in turn, with and without effect; whoever tries again ends it.
#[tokio::test(start_paused = true)]
async fn an_adoption_that_was_cut_off_at_any_write_is_ended_by_the_next() {
    use world::{Fault, WatchedStore};
    for fault in [Fault::Fails(ErrorKind::Unavailable), Fault::LosesAnswer] {
        for (operation, n) in [("insert", 1), ("insert", 2), ("update", 1)] {
            let (world, store) = (World::default(), MemoryStore::new());
            let watched = Arc::new(WatchedStore { store: store.clone(), world: world.clone() });
            let cut = Adoption::new(watched, Arc::new(SystemClock), 1).unwrap();
            let (user, name) = dev1();
            let id = VolumeId::new("disk:theirs").unwrap();
            world.state().volumes.insert(id.clone(), left_disk());
            world.fault(operation, n, fault.clone());
            let begun = cut.begin_volume(&id, &user, &name).await;
            if begun.is_ok() {
                let _ = cut.end_volume(&id, &user, &name).await;
            }
            let again = adoption(&store, 2);
            again.begin_volume(&id, &user, &name).await.unwrap();
            again.end_volume(&id, &user, &name).await.unwrap();
            let node = node(&world, &store, config(1), 1).await;
            node.connect("dev1").await.unwrap();
            assert_eq!(world.guest_memory(&id), ["kept"], "{fault:?} {operation} {n}");
            node.crash().await;
        }
    }
}

/// Sets the disk aside as a census does that finds it without a record and used.
async fn until_set_aside(world: &World, store: &MemoryStore, node: &world::Node) -> VolumeId {
    let id = VolumeId::new("v-found").unwrap();
    world.state().volumes.insert(id.clone(), left_disk());
    let limit = tokio::time::Instant::now() + LONG;
    while store.get(&Key::new(VOLUMES, id.as_str(), id.as_str())).await.unwrap().is_none() {
        assert!(tokio::time::Instant::now() < limit, "{:?}", node.pool.status());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    id
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_set_aside_becomes_the_box_of_whom_a_person_names() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    let id = until_set_aside(&world, &store, &node).await;
    let (user, name) = dev1();
    let adoption = adoption(&store, 1);

    for _ in 0..2 {
        adoption.release_volume(&id, &user, &name).await.unwrap();
    }

    let session = node.connect("dev1").await.unwrap();
    assert_eq!(world.guest_memory(&id), ["kept"]);
    session.release().await;
    let other = BoxName::new("dev2").unwrap();
    assert_eq!(adoption.release_volume(&id, &user, &other).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(node.state_of("dev2").await, "absent");
    let none = VolumeId::new("v-none").unwrap();
    assert_eq!(adoption.release_volume(&none, &user, &other).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(adoption.release_volume(&none, &user, &name).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(adoption.erase_volume(&id).await.unwrap_err().kind(), ErrorKind::Conflict, "it is a user's");
    tokio::time::sleep(LONG).await;
    assert!(world.state().volumes.contains_key(&id));
    world.assert_no_promise_broken();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_set_aside_goes_when_a_person_says_so() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store, config(1), 1).await;
    let id = until_set_aside(&world, &store, &node).await;
    tokio::time::sleep(LONG).await;
    assert!(world.state().volumes.contains_key(&id), "and not before");
    let adoption = adoption(&store, 1);
    for _ in 0..2 {
        adoption.erase_volume(&id).await.unwrap();
    }
    world::eventually("it is deleted", || !world.state().volumes.contains_key(&id)).await;
    tokio::time::sleep(LONG).await;
    assert_eq!(adoption.erase_volume(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Two people name two boxes at the same time: one gets the disk, and the other finds no box with it.
#[tokio::test(start_paused = true)]
async fn one_of_two_who_want_a_disk_gets_it() {
    for first in 0..12 {
        let (world, store) = (World::default(), MemoryStore::new());
        let node = node(&world, &store, config(1), 1).await;
        let id = until_set_aside(&world, &store, &node).await;
        let watched = Arc::new(world::WatchedStore { store: store.clone(), world: world.clone() });
        let ((user, name), other) = (dev1(), BoxName::new("dev2").unwrap());
        let one = Adoption::new(watched.clone(), Arc::new(SystemClock), 1).unwrap();
        let two = Adoption::new(watched, Arc::new(SystemClock), 2).unwrap();
        // The second begins after so many turns of the first.
        let late = async {
            for _ in 0..first {
                tokio::task::yield_now().await;
            }
            two.release_volume(&id, &user, &other).await
        };
        let (one, two) = tokio::join!(one.release_volume(&id, &user, &name), late);
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let (winner, loser) = if one.is_ok() { ("dev1", "dev2") } else { ("dev2", "dev1") };
        assert_eq!(node.state_of(loser).await, "absent", "{first}");
        node.connect(winner).await.unwrap();
        assert_eq!(world.guest_memory(&id), ["kept"]);
        world.assert_no_promise_broken();
    }
}
