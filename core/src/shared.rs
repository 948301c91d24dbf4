//! What all parts of one node's pool share.

use crate::actor::{Handle, Message};
use crate::busy::Busy;
use crate::clock::{Clock, Timestamp};
use crate::config::PoolConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::free::Free;
use crate::golden::GoldenBuilder;
use crate::heartbeat::Touch;
use crate::id::{BoxName, BoxRef, Epoch, InstanceId, NodeId, Region, SnapshotId, UserId, VolumeId};
use crate::index::FreeIndex;
use crate::limited::Limited;
use crate::liveness::Liveness;
use crate::parking::{AwayBox, ParkingPolicy};
use crate::planted::{self, Bug};
use crate::pool::Breakers;
use crate::provider::{InstanceProvider, VolumeProvider};
use crate::random::Random;
use crate::reads::LastReading;
use crate::record::{EVENTS, Envelope, EventKind, EventRecord, POOL_EVENTS, Pause};
use crate::records::Records;
use crate::runtime::GuestRuntime;
use crate::signal::Signal;
use crate::stock::{Forecast, Pace};
use crate::store::Key;
use crate::waiters::Waiters;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Which box, before it is known whether it exists.
pub(crate) type BoxKey = (UserId, BoxName);

pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) config: PoolConfig,
    pub(crate) records: Records,
    pub(crate) instances: Arc<dyn InstanceProvider>,
    pub(crate) volumes: Arc<dyn VolumeProvider>,
    pub(crate) runtime: Arc<dyn GuestRuntime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: Arc<dyn ParkingPolicy>,
    pub(crate) golden: Option<Arc<dyn GoldenBuilder>>,
    region: Option<Region>,
    /// Rings when this node begins or ceases to use a golden snapshot.
    pub(crate) golden_bell: Signal<u64>,
    pub(crate) random: Random,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) busy: Arc<Busy>,
    /// Wakes the maintainers: something was taken, or somebody waits.
    pub(crate) refill_instances: Notify,
    pub(crate) refill_volumes: Notify,
    /// Rings when the next pass is wanted at once: a node is seen to be gone, or an instance is to be emptied.
    pub(crate) look_now: Notify,
    pub(crate) draining: AtomicBool,
    /// What is done for callers beside the boxes' own tasks; a drain waits for it.
    pub(crate) errands: Arc<()>,
    pub(crate) stop: Signal<bool>,
    tasks: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    desk: Mutex<BTreeMap<BoxKey, Handle>>,
    state: Mutex<State>,
    sessions: AtomicU64,
    events: AtomicU64,
}

/// What changes often and is looked at briefly. The lock is never held across an await.
pub(crate) struct State {
    pub(crate) free_instances: FreeIndex<InstanceId, Free>,
    /// Free instances by whose box was on them last: a hint that the index confirms.
    pub(crate) familiar: BTreeMap<UserId, InstanceId>,
    pub(crate) free_volumes: FreeIndex<VolumeId, Free>,
    pub(crate) parked: BTreeMap<BoxRef, AwayBox>,
    /// Stamps of parked boxes that lay ahead of this node's clock, and when it saw them first.
    pub(crate) stamps_ahead: BTreeMap<(BoxRef, Timestamp), Instant>,
    /// Boxes whose last session here has ended and which still run.
    pub(crate) lingering: BTreeMap<BoxRef, AwayBox>,
    /// Boxes that are on no instance and expected, the likeliest first, as the last census saw them: the maintainer attaches them.
    pub(crate) expected: Vec<BoxRef>,
    /// Boxes that this node has attached ahead, or tried to, and when it did so last: what is given back, or has failed, is not at once
    /// tried again.
    pub(crate) attached_ahead: BTreeMap<BoxRef, Instant>,
    /// Boxes that were asked to make room and have not done so yet.
    pub(crate) yielding: BTreeSet<BoxRef>,
    pub(crate) liveness: Liveness,
    pub(crate) touch: Touch,
    pub(crate) lease_confirmed: Option<Instant>,
    /// What stood in the maintainer's lease when it was read last.
    pub(crate) pause: Option<Pause>,
    /// What the maintainer fails at, as the lease says.
    pub(crate) breakers: Breakers,
    /// When the instance table was read last for what is free there, and when the boxes on them with it.
    pub(crate) instances_read: LastReading,
    pub(crate) boxes_read: LastReading,
    /// What new volumes are copied from, once this node has seen that it is whole.
    pub(crate) golden: Option<SnapshotId>,
    /// How many connects of the other live nodes waited for an instance when they said so last.
    pub(crate) waiting_elsewhere: u32,
    pub(crate) instance_pace: Pace,
    pub(crate) volume_pace: Pace,
    pub(crate) forecast: Forecast,
}

pub(crate) struct Parts {
    pub(crate) node: NodeId,
    pub(crate) config: PoolConfig,
    pub(crate) records: Records,
    pub(crate) instances: Arc<dyn InstanceProvider>,
    pub(crate) volumes: Arc<dyn VolumeProvider>,
    pub(crate) runtime: Arc<dyn GuestRuntime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: Arc<dyn ParkingPolicy>,
    pub(crate) golden: Option<Arc<dyn GoldenBuilder>>,
    pub(crate) region: Option<Region>,
    pub(crate) random: Random,
    pub(crate) tasks: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { node, config, records, instances, volumes, runtime, clock, policy, golden, region, random, tasks } =
            parts;
        let now = Instant::now();
        let provider_call = config.limits.provider_call;
        let state = State {
            free_instances: FreeIndex::new(node.clone()),
            familiar: BTreeMap::new(),
            free_volumes: FreeIndex::new(node.clone()),
            parked: BTreeMap::new(),
            stamps_ahead: BTreeMap::new(),
            lingering: BTreeMap::new(),
            expected: Vec::new(),
            attached_ahead: BTreeMap::new(),
            yielding: BTreeSet::new(),
            liveness: Liveness::new(config.dead_after),
            touch: Touch::new(config.fence_after()),
            lease_confirmed: None,
            pause: None,
            breakers: Breakers::default(),
            instances_read: LastReading::default(),
            boxes_read: LastReading::default(),
            golden: None,
            waiting_elsewhere: 0,
            instance_pace: Pace::new(now),
            volume_pace: Pace::new(now),
            forecast: Forecast::default(),
        };
        Self {
            waiters: Arc::new(Waiters::new(config.max_waiting)),
            busy: Arc::default(),
            refill_instances: Notify::new(),
            refill_volumes: Notify::new(),
            look_now: Notify::new(),
            draining: AtomicBool::new(false),
            errands: Arc::default(),
            stop: Signal::new(false),
            desk: Mutex::new(BTreeMap::new()),
            state: Mutex::new(state),
            sessions: AtomicU64::new(1),
            events: AtomicU64::new(1),
            node,
            config,
            records,
            instances: Arc::new(Limited::new(instances, provider_call)),
            volumes: Arc::new(Limited::new(volumes, provider_call)),
            runtime,
            clock,
            policy,
            golden,
            region,
            golden_bell: Signal::new(0),
            random,
            tasks,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how much there is of something in this pool.
    pub(crate) fn gauge(&self, name: &'static str, value: impl Into<f64>) {
        let gauge = match &self.region {
            Some(region) => metrics::gauge!(name, "region" => region.as_str().to_owned()),
            None => metrics::gauge!(name),
        };
        gauge.set(value.into());
    }

    /// Hands a task to the worker. After the worker has ended the task is dropped: nothing runs behind the embedder's back.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let _ = self.tasks.send(Box::pin(task));
    }

    pub(crate) fn session_number(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message to the box's actor, which is started when there is none.
    pub(crate) fn tell(self: &Arc<Self>, key: &BoxKey, message: Message) {
        self.with_actor(key, |handle| handle.send(message));
    }

    /// The box's actor, which is started when there is none. The desk is locked meanwhile, so the actor cannot end in between.
    pub(crate) fn with_actor<R>(self: &Arc<Self>, key: &BoxKey, visit: impl FnOnce(&Handle) -> R) -> R {
        let mut desk = self.desk();
        let handle = desk.entry(key.clone()).or_insert_with(|| {
            let (handle, task) = crate::actor::start(Arc::clone(self), key.clone());
            self.spawn(task);
            handle
        });
        visit(handle)
    }

    /// Ends the actor's place at the desk if `idle` still says so.
    pub(crate) fn close_actor(&self, key: &BoxKey, idle: impl FnOnce() -> bool) -> bool {
        let mut desk = self.desk();
        let end = idle();
        if end {
            desk.remove(key);
        }
        end
    }

    pub(crate) fn has_actor(&self, key: &BoxKey) -> bool {
        self.desk().contains_key(key)
    }

    pub(crate) fn actors(&self) -> Vec<BoxKey> {
        self.desk().keys().cloned().collect()
    }

    /// The boxes with sessions here, and in which epoch these take them to run.
    pub(crate) fn served(&self) -> BTreeMap<BoxKey, Epoch> {
        self.desk().iter().filter_map(|(key, handle)| Some((key.clone(), handle.served()?))).collect()
    }

    fn desk(&self) -> MutexGuard<'_, BTreeMap<BoxKey, Handle>> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses to act when this node has lost touch with the store for so long that others may take it for dead.
    pub(crate) fn check_in_touch(&self, operation: &'static str) -> Result<()> {
        if self.state().touch.is_kept() || planted::is(Bug::NoSelfFence) {
            return Ok(());
        }
        let detail = "this node has lost touch with the state store and waits until it has it again";
        Err(Error::new(ErrorKind::Unavailable, operation, &self.node).with_detail(detail))
    }

    pub(crate) fn is_dead(&self, node: &NodeId) -> bool {
        #[cfg(feature = "planted")]
        if planted::is(Bug::HeartbeatByRemoteClock) {
            return *node != self.node && planted::clock_says_dead(node, self.now(), self.config.dead_after);
        }
        *node != self.node && self.state().liveness.is_dead(Instant::now(), node)
    }

    /// Whether that resource belongs to the building of a golden snapshot.
    pub(crate) fn is_scratch(&self, name: &str) -> bool {
        self.golden.as_ref().is_some_and(|builder| builder.is_scratch(name))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn is_maintainer(&self) -> bool {
        let confirmed = self.state().lease_confirmed;
        confirmed.is_some_and(|at| at.elapsed() < self.config.fence_after()) || planted::is(Bug::EveryNodeMaintains)
    }

    /// Appends to the event log, beside the caller's way: the log never delays anybody.
    pub(crate) fn log(self: &Arc<Self>, event: EventRecord) {
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        let partition = event.owner.as_ref().map_or(POOL_EVENTS, |owner| owner.owner.as_str());
        let mut key = Key::new(EVENTS, partition, format!("{:015}.{}.{number:06}", event.at.0, self.node));
        if planted::is(Bug::EventsKeyedBySecond) {
            key.row = format!("{:015}", event.at.0 / 1_000);
        }
        let shared = Arc::clone(self);
        self.spawn(async move {
            if let Err(error) = shared.records.insert(&key, event).await {
                tracing::warn!(%key, %error, "an event could not be logged");
            }
        });
    }

    pub(crate) fn event(&self, kind: EventKind) -> EventRecord {
        EventRecord {
            at: self.now(),
            node: self.node.clone(),
            kind,
            owner: None,
            instance: None,
            volume: None,
            epoch: None,
            took_ms: None,
            detail: String::new(),
            envelope: Envelope::new(),
        }
    }
}

/// Puts a limit on a provider's or runtime's call; the error names the wait that ran out.
pub(crate) async fn limited<T>(
    limit: Duration,
    operation: &'static str,
    resource: &impl std::fmt::Display,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = if planted::is(Bug::NoLimitOnCalls) { planted::NEVER } else { limit };
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {limit:?}");
        Err(Error::new(ErrorKind::TimedOut, operation, resource).with_detail(detail))
    })
}
