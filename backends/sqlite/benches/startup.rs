//! How long a node takes to know a pool that has ten thousand boxes, a hundred thousand, a million, and what memory it takes meanwhile: on the memory store and on
//! SQLite. One machine for every ten boxes; of ten machines nine hold a parked box, and there is a free volume for every hundred boxes.
//!
//! `cargo bench -p boxpool-sqlite --bench startup`, in some minutes. With a number behind `--`, only up to so many boxes.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use boxpool::record::{BOXES, BoxRecord, Envelope, INSTANCES, InstanceRecord, InstanceStatus, Placement, VOLUMES};
use boxpool::record::{VolumeBinding, VolumeRecord, VolumeStatus};
use boxpool::{
    Attach, Attached, BoxId, BoxName, BoxRef, Cleared, Cursor, Detached, Epoch, Error, ErrorKind, Guest, GuestRuntime,
    GuestStatus, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Key, MemoryStore, Page, Pool,
    PoolConfig, Result, SnapshotId, SnapshotView, Started, StateStore, Suspended, Timestamp, UserId, VolumeId,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView, WarmTarget,
};
use boxpool_sim::backend::{CountingStore, StoreAccess};
use boxpool_sqlite::SqliteOptions;
use futures::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const GENERATION: &str = "g1";
const WAIT: Duration = Duration::from_secs(600);

/// A cloud in which everything is as the records say, and which is asked for nothing else.
struct Still;

fn never<T>(operation: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::Unavailable, operation, "anything").with_detail("nothing is to be changed here"))
}

#[async_trait]
impl InstanceProvider for Still {
    async fn ensure(&self, _: &InstanceSpec) -> Result<InstanceView> {
        never("create instance")
    }
    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        Ok(Some(InstanceView::new(id.clone(), InstanceState::Running)))
    }
    async fn list(&self, _: Option<&Cursor>) -> Result<Page<InstanceView>> {
        Ok(Page { items: Vec::new(), next: None })
    }
    async fn start(&self, _: &InstanceId) -> Result<InstanceView> {
        never("start instance")
    }
    async fn stop(&self, _: &InstanceId) -> Result<InstanceView> {
        never("stop instance")
    }
    async fn delete(&self, _: &InstanceId) -> Result<()> {
        never("delete instance")
    }
}

#[async_trait]
impl VolumeProvider for Still {
    async fn ensure(&self, _: &VolumeSpec) -> Result<VolumeView> {
        never("create volume")
    }
    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        Ok(Some(VolumeView::new(id.clone(), VolumeState::Ready)))
    }
    async fn list(&self, _: Option<&Cursor>) -> Result<Page<VolumeView>> {
        Ok(Page { items: Vec::new(), next: None })
    }
    async fn attach(&self, _: &Attach) -> Result<Attached> {
        never("attach volume")
    }
    async fn detach(&self, _: &Attach) -> Result<Detached> {
        never("detach volume")
    }
    async fn force_detach(&self, _: &Attach) -> Result<Detached> {
        never("detach volume")
    }
    async fn snapshot(&self, _: &VolumeId, _: &SnapshotId) -> Result<SnapshotView> {
        never("take snapshot")
    }
    async fn list_snapshots(&self, _: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        Ok(Page { items: Vec::new(), next: None })
    }
    async fn delete_snapshot(&self, _: &SnapshotId) -> Result<()> {
        never("delete snapshot")
    }
    async fn delete(&self, _: &VolumeId) -> Result<()> {
        never("delete volume")
    }
    async fn resize(&self, _: &VolumeId, _: u64) -> Result<()> {
        never("resize volume")
    }
}

#[async_trait]
impl GuestRuntime for Still {
    async fn start(&self, _: &Guest) -> Result<Started> {
        never("start guest")
    }
    async fn suspend(&self, _: &Guest) -> Result<Suspended> {
        never("suspend guest")
    }
    async fn stop(&self, _: &Guest) -> Result<()> {
        never("stop guest")
    }
    async fn shut_down(&self, _: &Guest, _: Duration) -> Result<()> {
        never("shut down guest")
    }
    async fn status(&self, _: &Guest) -> Result<GuestStatus> {
        never("ask guest")
    }
    async fn clear(&self, _: &InstanceId) -> Result<Cleared> {
        never("clear instance")
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

fn machine(n: u64) -> InstanceId {
    InstanceId::new(format!("i{n:05}-{n:016x}")).unwrap()
}

/// Every tenth machine is free.
fn machine_of(n: u64) -> Option<InstanceId> {
    (n.is_multiple_of(10) && !n.is_multiple_of(100)).then(|| machine(n / 10))
}

/// What the store holds for the n-th box: the box, its volume, perhaps a machine, perhaps a free volume.
fn records_of(n: u64) -> Vec<(Key, String)> {
    let owner = BoxRef {
        owner: UserId::new(format!("user{}", n / 4)).unwrap(),
        name: BoxName::new(format!("dev{}", n % 4)).unwrap(),
        id: BoxId::new(format!("b-{n:016x}")).unwrap(),
    };
    let volume = |n: u64| VolumeId::new(format!("v-{n:016x}")).unwrap();
    let envelope = || Envelope { mark: format!("n-0123456789abcdef.{n}"), ..Envelope::new() };
    let of_volume = |id: VolumeId, status: VolumeStatus| {
        let key = Key::new(VOLUMES, id.as_str(), id.as_str());
        let (generation, created_at) = (GENERATION.to_owned(), now());
        let record = VolumeRecord { id, status, generation, source: None, created_at, envelope: envelope() };
        (key, serde_json::to_string(&record).unwrap())
    };
    let mut record = BoxRecord::new(owner.clone(), volume(n), now());
    record.volume = VolumeBinding::Bound(volume(n));
    record.epoch = Epoch(2);
    record.envelope = envelope();
    if let Some(instance) = machine_of(n) {
        record.placement = Placement::Parked { instance, since: now() };
    }
    let key = Key::new(BOXES, owner.owner.as_str(), owner.name.as_str());
    let mut all = vec![(key, serde_json::to_string(&record).unwrap())];
    all.push(of_volume(volume(n), VolumeStatus::Bound { owner: owner.clone() }));
    if n.is_multiple_of(100) {
        all.push(of_volume(volume(n | 1 << 63), VolumeStatus::Free));
    }
    if n.is_multiple_of(10) {
        let id = machine(n / 10);
        let seat = id.as_str().split('-').next().unwrap().to_owned();
        let status = match machine_of(n) {
            Some(_) => InstanceStatus::Claimed { owner, epoch: Epoch(2) },
            None => InstanceStatus::Free,
        };
        let last_user = Some(UserId::new(format!("user{}", n / 4)).unwrap());
        let record = InstanceRecord { last_user, envelope: envelope(), ..InstanceRecord::new(id, status, "1", now()) };
        all.push((Key::new(INSTANCES, seat.clone(), seat), serde_json::to_string(&record).unwrap()));
    }
    all
}

async fn fill(store: &dyn StateStore, boxes: u64) {
    let all = futures::stream::iter((0..boxes).flat_map(records_of));
    all.for_each_concurrent(256, |(key, value)| async move {
        store.insert(&key, &value).await.unwrap();
    })
    .await;
}

/// MiB of this process in memory: now, and at most since `forget_peak`.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or_default() / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn forget_peak() {
    // Linux: the peak counts anew. Elsewhere it is shown as it is.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn config(boxes: u64) -> PoolConfig {
    let (hour, boxes) = (Duration::from_secs(3_600), u32::try_from(boxes).unwrap());
    let mut config = PoolConfig::new(VolumeSource::Empty { bytes: 1 << 30 }, GENERATION);
    config.instances = WarmTarget::new(0, boxes, boxes);
    config.volumes = WarmTarget::new(0, boxes, 2 * boxes);
    // One pass of each is what is measured.
    (config.maintain_every, config.reconcile_every, config.census_every) = (hour, hour, hour);
    config
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < WAIT, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Start {
    free_known: Duration,
    census: Duration,
    grown: u64,
    peak: u64,
}

async fn start(store: Arc<dyn StateStore>, boxes: u64) -> Start {
    let store = Arc::new(CountingStore::new(store));
    forget_peak();
    let (before, _) = memory();
    let begun = Instant::now();
    let still = Arc::new(Still);
    let builder = Pool::builder(store.clone(), still.clone(), still.clone(), still, config(boxes));
    let (pool, worker) = builder.build().await.unwrap();
    let worker = tokio::spawn(worker.run());
    let (machines, volumes) = (usize::try_from(boxes / 100).unwrap(), usize::try_from(boxes / 100).unwrap());
    until("the free machines are known", || pool.status().free_instances == machines).await;
    let free_known = begun.elapsed();
    // After the boxes nothing is left but the cloud's own lists, which are empty here, and snapshots.
    let scans = |store: &CountingStore<dyn StateStore>| {
        let calls = store.calls_since(0);
        calls.iter().any(|call| call.access == StoreAccess::Scan && call.table.as_str() == "snapshots")
    };
    until("all boxes were looked at", || pool.status().free_volumes == volumes && scans(&store)).await;
    let census = begun.elapsed();
    let (after, peak) = memory();
    drop(pool);
    worker.await.unwrap();
    Start { free_known, census, grown: after.saturating_sub(before), peak: peak.saturating_sub(before) }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test` runs benches too, only to see that they run.
    let whole = std::env::args().any(|argument| argument == "--bench");
    let most = std::env::args().find_map(|argument| argument.parse::<u64>().ok());
    let most = most.unwrap_or(if whole { 1_000_000 } else { 1_000 });
    let place = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    println!(
        "from build() until the free machines are known, and until every record was looked at once; memory of the node in MiB"
    );
    println!(
        "{:<8} {:>9} {:>12} {:>7} {:>12} {:>7} {:>9} {:>9}",
        "store", "boxes", "free known", "ratio", "all seen", "ratio", "grown by", "at most"
    );
    for kind in ["sqlite", "memory"] {
        let mut smaller: Option<Start> = None;
        for boxes in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|boxes| *boxes <= most) {
            let store: Arc<dyn StateStore> = match kind {
                "sqlite" => {
                    let file = place.path().join(format!("{boxes}.db"));
                    let filled = SqliteOptions::new().fsync(false).open(&file).unwrap();
                    fill(&filled, boxes).await;
                    drop(filled);
                    Arc::new(SqliteOptions::new().open(file).unwrap())
                }
                _ => {
                    let store = MemoryStore::new();
                    fill(&store, boxes).await;
                    Arc::new(store)
                }
            };
            let took = start(store, boxes).await;
            let ratio = |now: Duration, before: fn(&Start) -> Duration| match &smaller {
                Some(smaller) => format!("{:.1}", now.as_secs_f64() / before(smaller).as_secs_f64()),
                None => String::new(),
            };
            println!(
                "{kind:<8} {boxes:>9} {:>10.0} ms {:>7} {:>10.0} ms {:>7} {:>9} {:>9}",
                took.free_known.as_secs_f64() * 1e3,
                ratio(took.free_known, |start| start.free_known),
                took.census.as_secs_f64() * 1e3,
                ratio(took.census, |start| start.census),
                took.grown,
                took.peak
            );
            smaller = Some(took);
        }
    }
}
