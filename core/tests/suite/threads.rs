//! On a runtime of several threads, where each box has a task of its own.

use crate::world;
use boxpool::{MemoryStore, StateStore, record};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use world::{Fault, Node, World, config};

const LIMIT: Duration = Duration::from_secs(30);

/// A node with two boxes and an instance for each.
async fn node(world: &World, store: &MemoryStore) -> Node {
    let node = world::node(world, store, config(2), 1).await;
    for name in ["dev1", "dev2"] {
        node.create(name).await;
    }
    node
}

/// Keeps its thread until another one is in here too.
fn meet() {
    static HERE: Mutex<usize> = Mutex::new(0);
    static CAME: Condvar = Condvar::new();
    let mut here = HERE.lock().unwrap();
    *here += 1;
    CAME.notify_all();
    drop(CAME.wait_timeout_while(here, LIMIT, |here| *here < 2).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_boxes_come_up_on_two_threads_at_the_same_time() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store).await;
    world.always("start", Some(Fault::After(meet)));
    let begun = Instant::now();
    let (a, b) = tokio::join!(node.connect("dev1"), node.connect("dev2"));
    assert!(begun.elapsed() < LIMIT, "one waited for the other to end");
    assert_ne!(a.unwrap().instance(), b.unwrap().instance());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_end_when_the_worker_is_dropped() {
    let (world, store) = (World::default(), MemoryStore::new());
    let node = node(&world, &store).await;
    let session = node.connect("dev1").await.unwrap();
    node.crash().await;
    timeout(LIMIT, session.ended()).await.expect("nobody looks after its box any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drained_node_leaves_no_record_behind() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut node = node(&world, &store).await;
    let _session = node.connect("dev1").await.unwrap();
    node.pool.drain(LIMIT).await;
    timeout(LIMIT, node.ended()).await.expect("the worker ends").unwrap();
    let nodes = store.scan(record::NODES, None, None, 10).await.unwrap();
    assert_eq!(nodes.items.len(), 0, "{:?}", nodes.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_panic_of_a_runtime_ends_the_worker() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut node = node(&world, &store).await;
    world.always("start", Some(Fault::After(|| panic!("a runtime that panics"))));
    assert!(node.connect("dev1").await.is_err());
    let ended = timeout(LIMIT, node.ended()).await.expect("the worker ends");
    assert!(ended.unwrap_err().is_panic());
}
