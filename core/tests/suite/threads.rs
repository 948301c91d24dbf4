//! On a runtime of several threads, where each box has a task of its own.

use crate::world;
use async_trait::async_trait;
use boxpool::{
    BoxName, ConnectRequest, Cursor, Entry, Key, MemoryStore, Page, Pool, Result, Session, StateStore, Stored, Table,
    Version, record,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use world::{World, config, user};

const LIMIT: Duration = Duration::from_secs(30);

/// A store in which changes of boxes' records meet, or panic, once the test says so.
#[derive(Default)]
struct Meeting {
    store: MemoryStore,
    meets: AtomicBool,
    panics: AtomicBool,
    here: Mutex<usize>,
    came: Condvar,
}

impl Meeting {
    /// Keeps its thread until another one is in here too.
    fn meet(&self) {
        let mut here = self.here.lock().unwrap();
        *here += 1;
        self.came.notify_all();
        drop(self.came.wait_timeout_while(here, LIMIT, |here| *here < 2).unwrap());
    }
}

#[async_trait]
impl StateStore for Meeting {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.store.get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.store.insert(key, value).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        if key.table == record::BOXES {
            assert!(!self.panics.load(Ordering::Relaxed), "a store that panics");
            if self.meets.load(Ordering::Relaxed) {
                self.meet();
            }
        }
        self.store.update(key, version, value).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
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

struct Node {
    store: Arc<Meeting>,
    pool: Pool,
    worker: JoinHandle<()>,
}

/// A node with two boxes and an instance for each.
async fn node() -> Node {
    let (store, w) = (Arc::new(Meeting::default()), Arc::new(World::default()));
    let builder = Pool::builder(store.clone(), w.clone(), w.clone(), w, config(2)).seed(1);
    let (pool, worker) = builder.build().await.unwrap();
    let node = Node { store, pool, worker: tokio::spawn(worker.run()) };
    for name in ["dev1", "dev2"] {
        node.pool.create_box(&user(), &BoxName::new(name).unwrap()).await.unwrap();
    }
    node
}

impl Node {
    async fn connect(&self, name: &str) -> Result<Session> {
        self.pool.connect(ConnectRequest::new(user(), BoxName::new(name).unwrap())).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_boxes_come_up_on_two_threads_at_the_same_time() {
    let node = node().await;
    node.store.meets.store(true, Ordering::Relaxed);
    let begun = std::time::Instant::now();
    let (a, b) = tokio::join!(node.connect("dev1"), node.connect("dev2"));
    assert!(begun.elapsed() < LIMIT, "one waited for the other to end");
    assert_ne!(a.unwrap().instance(), b.unwrap().instance());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_end_when_the_worker_is_dropped() {
    let node = node().await;
    let session = node.connect("dev1").await.unwrap();
    node.worker.abort();
    tokio::time::timeout(LIMIT, session.ended()).await.expect("nobody looks after its box any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drained_node_leaves_no_record_behind() {
    let node = node().await;
    let _session = node.connect("dev1").await.unwrap();
    node.pool.drain(LIMIT).await;
    tokio::time::timeout(LIMIT, node.worker).await.expect("the worker ends").unwrap();
    let nodes = node.store.scan(record::NODES, None, None, 10).await.unwrap();
    assert_eq!(nodes.items.len(), 0, "{:?}", nodes.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_panic_of_a_store_ends_the_worker() {
    let node = node().await;
    node.store.panics.store(true, Ordering::Relaxed);
    assert!(node.connect("dev1").await.is_err());
    let ended = tokio::time::timeout(LIMIT, node.worker).await.expect("the worker ends");
    assert!(ended.unwrap_err().is_panic());
}
