//! New editions of the golden snapshot and of the machines' image take the place of old ones.

use crate::world;
use async_trait::async_trait;
use boxpool::{GoldenBuilder, MemoryStore, Permit, Result, SnapshotId, WarmTarget};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{Node, World, config, eventually, node, node_with};

/// What all builders of a test have built, discarded and found damaged.
#[derive(Default)]
struct Shelf {
    built: Vec<String>,
    discarded: Vec<String>,
    damaged: BTreeSet<String>,
}

struct Builder {
    edition: &'static str,
    takes: Duration,
    shelf: Arc<Mutex<Shelf>>,
}

#[async_trait]
impl GoldenBuilder for Builder {
    fn generation(&self) -> &str {
        self.edition
    }
    async fn build(&self, id: &SnapshotId, permit: &Permit) -> Result<()> {
        tokio::time::sleep(self.takes).await;
        permit.check().await?;
        self.shelf.lock().unwrap().built.push(id.to_string());
        Ok(())
    }
    async fn verify(&self, id: &SnapshotId) -> Result<bool> {
        Ok(!self.shelf.lock().unwrap().damaged.contains(id.as_str()))
    }
    async fn discard(&self, id: &SnapshotId) -> Result<()> {
        self.shelf.lock().unwrap().discarded.push(id.to_string());
        Ok(())
    }
    fn is_scratch(&self, _: &str) -> bool {
        false
    }
}

#[derive(Default)]
struct Bench {
    world: World,
    store: MemoryStore,
    shelf: Arc<Mutex<Shelf>>,
}

impl Bench {
    async fn node(&self, edition: &'static str, takes: Duration, seed: u64) -> Node {
        let golden = Arc::new(Builder { edition, takes, shelf: self.shelf.clone() });
        node_with(&self.world, &self.store, config(1), seed, |builder| builder.golden(golden)).await
    }

    fn built(&self) -> Vec<String> {
        self.shelf.lock().unwrap().built.clone()
    }

    fn discarded(&self) -> Vec<String> {
        self.shelf.lock().unwrap().discarded.clone()
    }
}

const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_snapshot_has_it_as_soon_as_it_is_built() {
    let bench = Bench::default();
    let node = bench.node("a", Duration::from_secs(30), 1).await;
    let early = node.pool.golden(SOON).await.unwrap_err();
    assert_eq!(early.kind(), boxpool::ErrorKind::TimedOut);
    let begun = tokio::time::Instant::now();
    assert_eq!(node.pool.golden(LONG).await.unwrap().as_str(), "golden-a-1");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    assert_eq!(bench.built(), ["golden-a-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_built_anew_under_another_name() {
    let bench = Bench::default();
    bench.shelf.lock().unwrap().damaged.insert("golden-a-1".into());
    let node = bench.node("a", SOON, 1).await;
    assert_eq!(node.pool.golden(LONG).await.unwrap().as_str(), "golden-a-2");
    assert_eq!(
        (bench.built(), bench.discarded()),
        (vec!["golden-a-1".into(), "golden-a-2".into()], vec!["golden-a-1".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn an_edition_goes_when_the_last_node_that_wants_it_is_dead_and_not_before() {
    let bench = Bench::default();
    // The first node to come is the maintainer.
    let new = bench.node("b", SOON, 1).await;
    new.pool.golden(LONG).await.unwrap();
    let old = bench.node("a", SOON, 2).await;
    old.pool.golden(LONG).await.unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!(bench.discarded(), Vec::<String>::new(), "both are in use");
    old.crash().await;
    let soon = config(1).dead_after + config(1).census_every * 3;
    tokio::time::sleep(soon).await;
    assert_eq!(bench.discarded(), ["golden-a-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_node_was_building_goes_when_nobody_else_wants_it() {
    let bench = Bench::default();
    let new = bench.node("b", SOON, 1).await;
    new.pool.golden(LONG).await.unwrap();
    let old = bench.node("a", Duration::from_secs(100_000), 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    old.crash().await;
    tokio::time::sleep(config(1).dead_after + config(1).census_every * 4).await;
    assert_eq!((bench.built(), bench.discarded()), (vec!["golden-b-1".into()], vec!["golden-a-1".into()]));
}

#[tokio::test(start_paused = true)]
async fn free_machines_and_volumes_of_an_old_edition_are_replaced_by_new_ones() {
    let (world, store) = (World::default(), MemoryStore::new());
    let one = node(&world, &store, config(2), 1).await;
    one.until_free(2).await;
    eventually("volumes are there", || world.state().volumes.len() == 2).await;
    one.pool.drain(Duration::from_secs(30)).await;
    let machines = world.state().instances.clone();
    let volumes: BTreeSet<_> = world.state().volumes.keys().cloned().collect();
    let mut newer = config(2);
    newer.instance_generation = "newer".into();
    newer.volume_generation = "newer".into();
    let two = node(&world, &store, newer, 2).await;
    eventually("the old ones are replaced", || {
        let state = world.state();
        state.instances.is_disjoint(&machines) && volumes.iter().all(|id| !state.volumes.contains_key(id))
    })
    .await;
    two.until_free(2).await;
    eventually("there are as many as before", || world.state().volumes.len() == 2).await;
    let (machines, volumes) = (world.calls("instance.ensure"), world.calls("volume.ensure"));
    tokio::time::sleep(LONG).await;
    assert_eq!(
        (world.calls("instance.ensure"), world.calls("volume.ensure")),
        (machines, volumes),
        "and there it rests"
    );
}

/// How many machines and volumes there are.
fn stock(world: &World) -> (usize, usize) {
    let state = world.state();
    (state.instances.len(), state.volumes.len())
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_wanted_goes_after_the_cool_down_and_not_before() {
    let (world, store) = (World::default(), MemoryStore::new());
    let mut much = config(4);
    much.volumes = WarmTarget::new(4, 4, 1_000);
    let one = node(&world, &store, much, 1).await;
    one.until_free(4).await;
    eventually("volumes are there", || world.state().volumes.len() == 4).await;
    one.pool.drain(Duration::from_secs(30)).await;
    let mut little = config(1);
    little.volumes = WarmTarget::new(1, 1, 1_000);
    let cool_down = little.volumes.cool_down;
    let _two = node(&world, &store, little, 2).await;
    tokio::time::sleep(cool_down - Duration::from_secs(1)).await;
    assert_eq!(stock(&world), (4, 4));
    tokio::time::sleep(LONG).await;
    assert_eq!(stock(&world), (1, 1));
}
