//! Sixty-four gateways on one emulator of Azure Tables take machines at the same time: how many of their compare-and-swaps
//! are lost to each other.

#![allow(clippy::unwrap_used)]

mod azurite;
mod until;
#[path = "../../../core/tests/world/mod.rs"]
mod world;

use async_trait::async_trait;
use boxpool::record::INSTANCES;
use boxpool::{
    BoxName, ConnectRequest, Cursor, Entry, ErrorKind, Key, Page, Pool, Result, StateStore, Stored, Table, UserId,
    Version, WarmTarget,
};
use boxpool_azure::TableStore;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use until::until_true;
use world::{World, config};

const GATEWAYS: u64 = 64;
const CONNECTS_EACH: u64 = 3;
const MACHINES: u32 = 320;
/// What the design allows in 100 claims.
const MOST_LOST: f64 = 5.0;

#[derive(Default)]
struct Claims {
    won: AtomicU64,
    lost: AtomicU64,
}

/// One gateway's way to the tables.
struct Watched {
    store: TableStore,
    claims: Arc<Claims>,
}

#[async_trait]
impl StateStore for Watched {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.store.get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.store.insert(key, value).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        let answer = self.store.update(key, version, value).await;
        if key.table == INSTANCES && value.contains(r#""is":"claimed""#) {
            match &answer {
                Ok(_) => self.claims.won.fetch_add(1, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::Conflict => self.claims.lost.fetch_add(1, Ordering::Relaxed),
                Err(error) => panic!("{error}"),
            };
        }
        answer
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

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_gateways_seldom_reach_for_the_same_machine() {
    let (options, world, claims) = (azurite::fresh_options(), Arc::new(World::default()), Arc::new(Claims::default()));
    let mut config = config(MACHINES);
    config.instances = WarmTarget::new(MACHINES, MACHINES, MACHINES);
    config.instances.max_concurrent_creates = 64;
    // What is measured is the claims, not how the stock is looked after: that is seldom.
    config.dead_after = Duration::from_secs(300);
    (config.maintain_every, config.reconcile_every) = (Duration::from_millis(500), Duration::from_secs(300));
    // One emulator, one thread, for all of them: it is kept free of other work, and may be slow without being away.
    config.heartbeat_every = Duration::from_secs(10);
    config.limits.store_call = Duration::from_secs(120);
    config.limits.store_silence = config.limits.store_call;
    let mut nodes: Vec<Pool> = Vec::new();
    let mut workers = Vec::new();
    for seed in 0..GATEWAYS {
        let store = Arc::new(Watched { store: TableStore::open(&options).unwrap(), claims: claims.clone() });
        let builder = Pool::builder(store, world.clone(), world.clone(), world.clone(), config.clone());
        let (pool, worker) = builder.seed(seed).build().await.unwrap();
        workers.push(tokio::spawn(worker.run()));
        if seed == 0 {
            until_true("all machines are free", || pool.status().free_instances == MACHINES as usize).await;
        }
        nodes.push(pool);
    }
    let all_know_all = || nodes.iter().all(|node| node.status().live_nodes == nodes.len());
    until_true("all gateways know of each other", all_know_all).await;

    let boxes: Vec<(Pool, UserId, BoxName)> = (0..GATEWAYS * CONNECTS_EACH)
        .map(|n| {
            let pool = nodes[usize::try_from(n % GATEWAYS).unwrap()].clone();
            (pool, UserId::new(format!("u{n}")).unwrap(), BoxName::new("dev").unwrap())
        })
        .collect();
    for of_each in boxes.chunks(nodes.len()) {
        join_all(of_each.iter().map(|(pool, user, name)| async { pool.create_box(user, name).await.unwrap() })).await;
    }
    let mut sessions = Vec::new();
    for of_each in boxes.chunks(nodes.len()) {
        let connect = |(pool, user, name): &(Pool, UserId, BoxName)| {
            let (pool, request) = (pool.clone(), ConnectRequest::new(user.clone(), name.clone()));
            async move { pool.connect(request).await.unwrap() }
        };
        sessions.extend(join_all(of_each.iter().map(connect)).await);
    }

    let machines: BTreeSet<_> = sessions.iter().map(|session| session.instance().clone()).collect();
    assert_eq!(machines.len(), sessions.len(), "each box has a machine of its own");
    let (won, lost) = (claims.won.load(Ordering::Relaxed), claims.lost.load(Ordering::Relaxed));
    assert_eq!(won, GATEWAYS * CONNECTS_EACH);
    let per_hundred = lost as f64 * 100.0 / won as f64;
    println!(
        "{GATEWAYS} gateways, {MACHINES} machines, {won} claims, {GATEWAYS} at once: {lost} lost, {per_hundred:.1} in 100"
    );
    assert!(per_hundred <= MOST_LOST, "{lost} lost of {won}");
    world.assert_no_promise_broken();
    workers.iter().for_each(tokio::task::JoinHandle::abort);
}
