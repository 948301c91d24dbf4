//! Boxes that are woken on schedule, in virtual time: whole days pass at once.

use crate::harness::web::value;
use async_trait::async_trait;
use boxpool::{
    BoxName, Clock, Endpoint, EndpointAddress, Epoch, Error, ErrorKind, MemoryStore, Result, Timestamp, UserId,
};
use boxpool_gateway::account::Accounts;
use boxpool_gateway::audit::AuditLog;
use boxpool_gateway::boxes::{BoxSession, BoxSummary, Boxes, PoolNumbers, Wish};
use boxpool_gateway::config::Config;
use boxpool_gateway::hostkey::ensure_key;
use boxpool_gateway::meter::Exposition;
use boxpool_gateway::operator::Operator;
use boxpool_gateway::server::Gateway;
use boxpool_gateway::wake::Wakes;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Friday, 2026-11-27, 06:00 UTC.
const FRIDAY_SIX: u64 = 1_795_759_200_000;

const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that goes as tokio's does, and may be set.
struct VirtualClock {
    began: Instant,
    set_forward: Mutex<Duration>,
}

impl VirtualClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), set_forward: Mutex::default() })
    }

    /// Since six on Friday.
    fn shows(&self) -> Duration {
        self.began.elapsed() + *self.set_forward.lock().unwrap()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp(FRIDAY_SIX + u64::try_from(self.shows().as_millis()).unwrap())
    }
}

/// A pool in which `dev1` comes up at once, unless it is to refuse.
struct Stub {
    clock: Arc<VirtualClock>,
    held: Arc<AtomicUsize>,
    refuses: Mutex<bool>,
    /// When somebody asked for it.
    asked: Mutex<Vec<Duration>>,
}

struct Held(Endpoint, Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl BoxSession for Held {
    fn endpoint(&self) -> &Endpoint {
        &self.0
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    async fn ended(&self) {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {} // counted by `drop`
}

struct Shared(Arc<Stub>);

#[async_trait]
impl Boxes for Shared {
    async fn create(&self, _: &UserId, name: &BoxName) -> Result<BoxSummary> {
        Err(Error::new(ErrorKind::Permanent, "create box", name))
    }

    async fn list(&self, _: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(Vec::new())
    }

    async fn get(&self, _: &UserId, _: &BoxName) -> Result<Option<BoxSummary>> {
        Ok(None)
    }

    async fn delete(&self, _: &UserId, name: &BoxName) -> Result<()> {
        Err(Error::new(ErrorKind::Permanent, "delete box", name))
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        assert_eq!((wish.owner.as_str(), wish.name.as_str()), ("aa", "dev1"));
        self.0.asked.lock().unwrap().push(self.0.clock.shows());
        if *self.0.refuses.lock().unwrap() {
            return Err(Error::new(ErrorKind::NoCapacity, "connect to box", wish.name));
        }
        self.0.held.fetch_add(1, Ordering::SeqCst);
        let address = EndpointAddress::Unix("/nowhere".into());
        let endpoint = Endpoint { address, login: "root".into(), host_key: String::new() };
        Ok(Box::new(Held(endpoint, Arc::clone(&self.0.held))))
    }

    async fn status(&self) -> Result<PoolNumbers> {
        Ok(PoolNumbers::default())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<VirtualClock>,
    stub: Arc<Stub>,
    audit: AuditLog,
    gateway: Arc<Gateway>,
    wakes: Wakes,
}

fn audit_path(dir: &Path) -> PathBuf {
    dir.join("audit.jsonl")
}

impl Bench {
    fn new(schedule: &str) -> Self {
        let config = Config::parse(&format!("[[schedule]]\nbox = \"aa/dev1\"\n{schedule}\n"), "test.toml").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let key = Arc::new(ensure_key(&dir.path().join("key"), "gateway").unwrap());
        let clock = VirtualClock::new();
        let stub = Arc::new(Stub {
            clock: clock.clone(),
            held: Arc::default(),
            refuses: Mutex::default(),
            asked: Mutex::default(),
        });
        let audit = AuditLog::open(&audit_path(dir.path()), false).unwrap();
        let gateway = Gateway::reaching(
            None,
            Arc::new(Shared(stub.clone())),
            Accounts::new(Arc::new(MemoryStore::new())),
            config.settings().unwrap(),
            key,
            Operator::new(audit.clone()),
        );
        let wakes = Wakes::begin(&gateway, Vec::new(), &config.schedule, clock.clone());
        Self { dir, clock, stub, audit, gateway, wakes }
    }

    /// Lets time pass until the clock shows so much past six.
    async fn until(&self, shows: Duration) {
        tokio::time::sleep(shows.saturating_sub(self.clock.shows())).await;
    }

    fn held(&self) -> usize {
        self.stub.held.load(Ordering::SeqCst)
    }

    /// Stops, and answers how the wakes ended.
    async fn outcomes(self) -> Vec<String> {
        self.gateway.operator.begin_stop();
        self.wakes.ended(HOUR).await;
        assert!(self.gateway.activity.ended(HOUR).await, "it is still held");
        self.audit.close().await;
        let text = std::fs::read_to_string(audit_path(self.dir.path())).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .inspect(|line| assert_eq!((&line["who"], &line["account"]), (&"schedule".into(), &"aa".into()), "{line}"))
            .map(|line| line["outcome"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_is_woken_at_its_time_and_let_go_after_its_hold() {
    let bench = Bench::new("cron = \"0 7 * * 1-5\"\nhold = \"10m\"");
    bench.until(HOUR - Duration::from_secs(1)).await;
    assert_eq!(bench.held(), 0);
    bench.until(HOUR + Duration::from_secs(1)).await;
    assert_eq!(bench.held(), 1);
    bench.until(HOUR + Duration::from_secs(599)).await;
    assert_eq!(bench.held(), 1);
    bench.until(HOUR + Duration::from_secs(602)).await;
    assert_eq!(bench.held(), 0);
    bench.until(HOUR * 73 + Duration::from_secs(5)).await; // Monday
    assert_eq!(bench.held(), 1);
    let asked: Vec<u64> = bench.stub.asked.lock().unwrap().iter().map(Duration::as_secs).collect();
    assert_eq!(asked, [3600, 73 * 3600], "not at the weekend");
    assert_eq!(bench.outcomes().await, ["held", "stopping"]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_fails_is_told_and_the_next_time_tries_again() {
    let metrics = Exposition::install(&[]).unwrap();
    let bench = Bench::new("cron = \"0 * * * *\"\nhold = \"1m\"");
    *bench.stub.refuses.lock().unwrap() = true;
    bench.until(HOUR + Duration::from_secs(1)).await;
    *bench.stub.refuses.lock().unwrap() = false;
    bench.until(HOUR * 2 - Duration::from_secs(1)).await;
    assert_eq!((bench.held(), bench.stub.asked.lock().unwrap().len()), (0, 1), "nothing is made up for");
    bench.until(HOUR * 2 + Duration::from_secs(1)).await;
    assert_eq!(bench.held(), 1);
    bench.until(HOUR * 2 + Duration::from_secs(90)).await;
    assert_eq!(bench.outcomes().await, ["not_up", "held"]);
    for outcome in ["not_up", "held"] {
        let series = format!("boxpool_gateway_wakes_total{{who=\"schedule\",outcome=\"{outcome}\"}}");
        assert!(value(&metrics.text(), &series) >= 1.0, "{outcome}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_slept_through_is_missed_and_the_zone_is_the_one_that_is_stated() {
    // Nine in Tokyo is midnight here.
    let bench = Bench::new("cron = \"0 9 * * *\"\ntime_zone = \"Asia/Tokyo\"\nhold = \"1m\"");
    bench.until(HOUR).await;
    *bench.clock.set_forward.lock().unwrap() = HOUR * 20; // to Saturday, 03:00
    bench.until(HOUR * 30).await;
    assert!(bench.stub.asked.lock().unwrap().is_empty());
    bench.until(HOUR * 42 + Duration::from_secs(30)).await; // Sunday, midnight
    assert_eq!(bench.held(), 1);
    assert_eq!(bench.outcomes().await, ["stopping"]);
}
