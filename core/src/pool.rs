//! The pool, as an embedder uses it.

use crate::actor::{Connect, Message, Wanted};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::PoolConfig;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::golden::GoldenBuilder;
use crate::id::{BoxId, BoxName, BoxRef, Epoch, InstanceId, NodeId, Region, SnapshotId, UserId, VolumeId};
use crate::parking::{LeastRecentlyUsed, ParkingPolicy};
use crate::planted::{self, Bug};
use crate::progress::Progress;
use crate::provider::{InstanceProvider, VolumeProvider};
use crate::random::Random;
use crate::record::{
    BoxRecord, BroughtUp, DemandRecord, EventKind, EventRecord, LeaseRecord, Mode, Pause, Placement, PoolPast, Share,
    Usage,
};
use crate::records::{Records, demand_key};
use crate::runtime::GuestRuntime;
use crate::saga::Guard;
use crate::session::Session;
use crate::shared::{BoxKey, Parts, Shared};
use crate::signal::Signal;
use crate::stock::Breaker;
use crate::store::StateStore;
use crate::worker::Worker;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Persistent boxes on disposable machines. Cheap to clone; every clone is the same node.
#[derive(Clone)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
    _last: Arc<LastHandle>,
}

/// Ends the worker when the last pool handle goes.
struct LastHandle(Signal<bool>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// How long after the deadline a connect waits for the exact reason.
const REASON_GRACE: Duration = Duration::from_millis(500);

/// A connect that is under way when the store goes out of reach looks so often whether its node may still act.
const LOOK_FOR_STORE_EVERY: Duration = Duration::from_millis(250);

/// Sets up a [`Pool`].
pub struct PoolBuilder {
    store: Arc<dyn StateStore>,
    instances: Arc<dyn InstanceProvider>,
    volumes: Arc<dyn VolumeProvider>,
    runtime: Arc<dyn GuestRuntime>,
    config: PoolConfig,
    clock: Arc<dyn Clock>,
    policy: Arc<dyn ParkingPolicy>,
    golden: Option<Arc<dyn GoldenBuilder>>,
    region: Option<Region>,
    seed: Option<u64>,
}

impl PoolBuilder {
    /// Another clock than the machine's own.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Another parking policy than [`LeastRecentlyUsed`].
    #[must_use]
    pub fn parking_policy(mut self, policy: Arc<dyn ParkingPolicy>) -> Self {
        self.policy = policy;
        self
    }

    /// Has the pool see to the golden snapshot itself: built once however many nodes want it, taken up when its builder dies,
    /// verified before it is used, deleted when no live node wants its generation any more. New volumes are copied from it, in
    /// place of the configuration's `volume_source` and `volume_generation`; until it is ready none are made.
    #[must_use]
    pub fn golden(mut self, builder: Arc<dyn GoldenBuilder>) -> Self {
        self.golden = Some(builder);
        self
    }

    /// Which region it is in, where the process has a pool in each of several: its gauges have that as their label `region`, so that
    /// none of the pools overwrites another's.
    #[must_use]
    pub fn region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// Makes picks and names repeatable. Two nodes must not have the same seed. Without it the seed comes from the operating system.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the configuration, registers the node in the store, and returns the pool and its worker, which the caller runs.
    ///
    /// # Errors
    /// `Invalid` names the setting that is wrong; the store's own error when it cannot be reached.
    pub async fn build(mut self) -> Result<(Pool, Worker)> {
        if let Some(golden) = &self.golden {
            self.config.volume_generation = golden.generation().to_owned();
        }
        let invalid =
            |detail: String| Error::new(ErrorKind::Invalid, "build pool", "configuration").with_detail(detail);
        self.config.check().map_err(invalid)?;
        let seed = match self.seed {
            Some(seed) => seed,
            #[allow(clippy::disallowed_methods)] // the one place where the system is asked: no seed was given
            None => getrandom::u64().map_err(|error| {
                Error::new(ErrorKind::Unavailable, "build pool", "random source").with_detail(error.to_string())
            })?,
        };
        let random = Random::seeded(seed);
        let node = NodeId::new(format!("n-{}", random.suffix())).map_err(|error| invalid(error.to_string()))?;
        let records =
            Records::new(self.store, node.clone(), self.config.limits.store_call, self.config.limits.store_silence);
        let (tasks, incoming) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(Parts {
            node,
            config: self.config,
            records,
            instances: self.instances,
            volumes: self.volumes,
            runtime: self.runtime,
            clock: self.clock,
            policy: self.policy,
            golden: self.golden,
            region: self.region,
            random,
            tasks,
        }));
        shared.register().await?;
        let worker = Worker::new(Arc::clone(&shared), incoming);
        let last = Arc::new(LastHandle(shared.stop.clone()));
        Ok((Pool { shared, _last: last }, worker))
    }
}

/// A wish to be connected to a box.
#[derive(Debug)]
pub struct ConnectRequest {
    pub(crate) user: UserId,
    pub(crate) name: BoxName,
    only: Option<BoxId>,
    guest: Option<UserId>,
    pub(crate) deadline: Option<Duration>,
    progress: Option<watch::Sender<Progress>>,
    distrust: Option<Epoch>,
}

impl ConnectRequest {
    /// That user's box of that name.
    #[must_use]
    pub fn new(user: UserId, name: BoxName) -> Self {
        Self { user, name, only: None, guest: None, deadline: None, progress: None, distrust: None }
    }

    /// It is not the owner who connects, but somebody with whom the box [is shared](Pool::share_box).
    #[must_use]
    pub fn by(mut self, guest: UserId) -> Self {
        self.guest = Some(guest);
        self
    }

    /// How long it may take, waiting for capacity included. Default: [`PoolConfig::connect_deadline`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Where to tell what is being waited for; see [`progress`](crate::progress()).
    #[must_use]
    pub fn progress(mut self, progress: watch::Sender<Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The endpoint of that epoch did not answer: look whether the guest still runs before handing it out again.
    #[must_use]
    pub fn distrust(mut self, epoch: Epoch) -> Self {
        self.distrust = Some(epoch);
        self
    }
}

impl ConnectRequest {
    /// The same wish for that incarnation alone, and for what is left of its time.
    pub(crate) fn for_only(&self, id: &BoxId, left: Duration) -> Self {
        Self {
            user: self.user.clone(),
            name: self.name.clone(),
            only: Some(id.clone()),
            guest: self.guest.clone(),
            deadline: Some(left),
            progress: self.progress.clone(),
            distrust: self.distrust,
        }
    }
}

/// A box, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoxView {
    /// What it is called.
    pub name: BoxName,
    /// Which incarnation of the name.
    pub id: BoxId,
    /// Where it is.
    pub placement: Placement,
    /// How often it has been placed and displaced.
    pub epoch: Epoch,
    /// Its volume.
    pub volume: VolumeId,
    /// How large its owner has had its volume grown, or wants it, in bytes; `None` when it is as it was made.
    pub grown_to: Option<u64>,
    /// The snapshot that it was made of, if it was.
    pub copied_from: Option<SnapshotId>,
    /// What happens when the last session ends.
    pub mode: Mode,
    /// How many nodes hold sessions on it.
    pub holders: usize,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a session last began.
    pub used_at: Timestamp,
    /// Until when its owner can have it back, if it is deleted.
    pub deleted_until: Option<Timestamp>,
    /// Who else may connect, and has.
    pub shares: BTreeMap<UserId, Share>,
    /// What it has used.
    pub usage: Usage,
    /// How it was last brought up; `None` before the first time.
    pub brought_up: Option<BroughtUp>,
    /// Whether it is on its way to [another region](crate::Regions::move_box): until it is there nobody can connect.
    pub moving: bool,
}

impl BoxView {
    pub(crate) fn of(record: BoxRecord) -> Self {
        Self {
            name: record.owner.name,
            id: record.owner.id,
            placement: record.placement,
            epoch: record.epoch,
            volume: record.volume.volume().clone(),
            grown_to: record.grown_to.max(record.grow_to),
            copied_from: record.copied_from,
            mode: record.mode,
            holders: record.holders.len(),
            created_at: record.created_at,
            used_at: record.used_at,
            deleted_until: record.deleted_until,
            shares: record.shares,
            usage: record.usage,
            brought_up: record.brought_up,
            moving: record.hold.is_some(),
        }
    }

    /// The state in one word: `detached`, `placing`, `running`, `suspending`, `parked`, `detaching`, `deleting`, `renaming`, for a
    /// moment `arriving` under its new name, or `moving` to another region, wherever it is.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.moving { "moving" } else { self.placement.word() }
    }
}

/// What this node knows of the pool, without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// This node.
    pub node: NodeId,
    /// Whether it holds the maintainer's lease.
    pub maintainer: bool,
    /// That the pool's maintenance rests, until when and why.
    pub paused: Option<Pause>,
    /// Whether it is draining.
    pub draining: bool,
    /// Whether it is in touch with the store. While it is not, whoever comes is refused at once, as `Unavailable`; it sees by itself
    /// when the store answers again.
    pub in_touch: bool,
    /// Nodes not known to be dead, this one included.
    pub live_nodes: usize,
    /// Free instances, as last seen.
    pub free_instances: usize,
    /// Free volumes, as last seen.
    pub free_volumes: usize,
    /// Parked boxes, as last seen.
    pub parked: usize,
    /// Connects of this node that wait for an instance.
    pub waiting: usize,
    /// Boxes that this node is at work on or holds sessions on.
    pub active: usize,
    /// What the maintainer fails at.
    pub breakers: Breakers,
}

/// What the maintainer fails at, and why; by the maintainer itself as it is now, by other nodes as its lease says, which it
/// renews with each heartbeat. `None` when the last attempt succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Breakers {
    /// Making instances.
    pub making_instances: Option<Breaker>,
    /// Waking instances of the reserve.
    pub waking_instances: Option<Breaker>,
    /// Making volumes.
    pub making_volumes: Option<Breaker>,
}

impl Breakers {
    pub(crate) fn told(lease: &LeaseRecord) -> Self {
        Self::of(&lease.instances, &lease.volumes)
    }

    pub(crate) fn of(instances: &PoolPast, volumes: &PoolPast) -> Self {
        Self {
            making_instances: instances.making.clone(),
            waking_instances: instances.waking.clone(),
            making_volumes: volumes.making.clone(),
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// How many boxes this node gave up in good order.
    pub left: usize,
    /// Boxes that were not done when the limit was reached; another node, or this one's next start, finishes them.
    pub unfinished: Vec<(UserId, BoxName)>,
}

impl Pool {
    /// Begins to set up a pool from its backends and settings.
    #[must_use]
    pub fn builder(
        store: Arc<dyn StateStore>,
        instances: Arc<dyn InstanceProvider>,
        volumes: Arc<dyn VolumeProvider>,
        runtime: Arc<dyn GuestRuntime>,
        config: PoolConfig,
    ) -> PoolBuilder {
        let (clock, policy) = (Arc::new(SystemClock), Arc::new(LeastRecentlyUsed));
        PoolBuilder {
            store,
            instances,
            volumes,
            runtime,
            config,
            clock,
            policy,
            golden: None,
            region: None,
            seed: None,
        }
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.node
    }

    /// Makes a box, detached, with a fresh volume.
    ///
    /// # Errors
    /// `AlreadyExists`; `NoCapacity` when no volume can be had. After an error there is no such box, except that after
    /// `Effect::Unknown` there may be.
    #[tracing::instrument(name = "boxpool.create", skip_all, fields(%user, %name))]
    pub async fn create_box(&self, user: &UserId, name: &BoxName) -> Result<BoxView> {
        self.check_open("create box", name)?;
        let (done, answer) = oneshot::channel();
        self.shared.tell(&(user.clone(), name.clone()), Message::Create { wanted: Wanted::default(), done });
        self.answered("create box", name, answer).await.map(BoxView::of)
    }

    /// The box, or `None` when the user has none of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn get_box(&self, user: &UserId, name: &BoxName) -> Result<Option<BoxView>> {
        self.shared.records.reach.check("find box", name)?;
        let found = self.shared.box_called(user, name).await?;
        Ok(found.filter(|record| record.deleted_until.is_none()).map(BoxView::of))
    }

    /// All boxes of a user, by name; not those that are deleted and could be had back.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_boxes(&self, user: &UserId) -> Result<Vec<BoxView>> {
        Ok(self.all_boxes(user).await?.into_iter().filter(|view| view.deleted_until.is_none()).collect())
    }

    /// The boxes of a user that are deleted and can be [had back](Pool::undelete_box), by name.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_deleted(&self, user: &UserId) -> Result<Vec<BoxView>> {
        Ok(self.all_boxes(user).await?.into_iter().filter(|view| view.deleted_until.is_some()).collect())
    }

    async fn all_boxes(&self, user: &UserId) -> Result<Vec<BoxView>> {
        self.shared.records.reach.check("list boxes", user)?;
        Ok(self.shared.boxes_of(user).await?.into_iter().map(BoxView::of).collect())
    }

    /// Deletes a box, whatever it is doing. Sessions on it end. Waits until it is done.
    ///
    /// With a [retention](PoolConfig::retention) it is suspended and taken off its instance, and nothing can be done with it but
    /// [have it back](Pool::undelete_box) or [delete it for good](Pool::purge_box) until the time is over and the maintainer does
    /// the latter. Its name stays taken so long. Without one it is deleted for good at once.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when a step of another node does not end; `Unavailable` while draining. When it fails half-way the
    /// box is `deleting` or, with a retention, `detaching`, and is brought to the end by the next call or by the reconcile.
    #[tracing::instrument(name = "boxpool.delete", skip_all, fields(%user, %name))]
    pub async fn delete_box(&self, user: &UserId, name: &BoxName) -> Result<()> {
        self.delete(user, name, None, false).await
    }

    /// Deletes a box and its volume for good, whatever the retention, also one that was deleted before. Otherwise as
    /// [`Pool::delete_box`].
    ///
    /// # Errors
    /// As [`Pool::delete_box`].
    #[tracing::instrument(name = "boxpool.purge", skip_all, fields(%user, %name))]
    pub async fn purge_box(&self, user: &UserId, name: &BoxName) -> Result<()> {
        self.delete(user, name, None, true).await
    }

    /// That box, and none that is made under its name after it.
    pub(crate) async fn delete_this(&self, owner: &BoxRef, for_good: bool) -> Result<()> {
        self.delete(&owner.owner, &owner.name, Some(owner.id.clone()), for_good).await
    }

    async fn delete(&self, user: &UserId, name: &BoxName, only: Option<BoxId>, for_good: bool) -> Result<()> {
        self.ask("delete box", user, name, |deadline, done| Message::Delete { only, for_good, deadline, done }).await
    }

    /// Has a box back that was deleted, as it was then, its memory included.
    ///
    /// # Errors
    /// `NotFound` when there is none of that name; `AlreadyExists` when it is not deleted; `Busy` when a step of another node does not end.
    #[tracing::instrument(name = "boxpool.undelete", skip_all, fields(%user, %name))]
    pub async fn undelete_box(&self, user: &UserId, name: &BoxName) -> Result<BoxView> {
        self.ask("undelete box", user, name, |deadline, done| Message::Undelete { deadline, done })
            .await
            .map(BoxView::of)
    }

    /// Lets another user [connect](ConnectRequest::by) to a box, or no more. Who has connected, and when last, is in
    /// [`BoxView::shares`]. Sessions that are open stay.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the owner; `Busy` when a step of another node does not end.
    #[tracing::instrument(name = "boxpool.share", skip_all, fields(%user, %name, %with, allowed))]
    pub async fn share_box(&self, user: &UserId, name: &BoxName, with: &UserId, allowed: bool) -> Result<BoxView> {
        self.ask("share box", user, name, |deadline, done| Message::Share {
            with: with.clone(),
            allowed,
            deadline,
            done,
        })
        .await
        .map(BoxView::of)
    }

    /// Brings the box up, or joins it where it runs, and holds it until the session is given back.
    ///
    /// Many sessions share one box, on one node or several. Dropping the future is safe: the box comes up, lingers and is
    /// suspended again.
    ///
    /// # Errors
    /// `NotFound`: no such box. `NoCapacity`: nothing became free before the deadline, or the host has no room.
    /// `TimedOut`: it did not come up in time. `Unavailable`: draining, or out of touch with the store, which is known after
    /// [`Limits::store_silence`](crate::Limits::store_silence) at the latest; who comes then is refused at once.
    #[tracing::instrument(name = "boxpool.connect", skip_all, fields(user = %request.user, name = %request.name))]
    pub async fn connect(&self, mut request: ConnectRequest) -> Result<Session> {
        self.check_open("connect to box", &request.name)?;
        let limit = request.deadline.unwrap_or(self.shared.config.connect_deadline);
        let deadline = Instant::now() + limit;
        loop {
            let begun = Instant::now();
            let session = self.ask_for_session(&mut request, limit, deadline).await?;
            // Whoever stood still for long enough may have been taken for dead: the box may run elsewhere or nowhere by now.
            if self.shared.state().touch.is_kept_since(begun) || planted::is(Bug::AnswersAfterStandstill) {
                return Ok(session);
            }
            tracing::info!(owner = %session.owner(), "this node was out of touch with the store; it looks again where the box is");
        }
    }

    async fn ask_for_session(
        &self,
        request: &mut ConnectRequest,
        limit: Duration,
        deadline: Instant,
    ) -> Result<Session> {
        let guest = request.guest.clone().filter(|guest| *guest != request.user);
        let key: BoxKey = (request.user.clone(), request.name.clone());
        let (reply, answer) = oneshot::channel();
        let admitted = Arc::<AtomicBool>::default();
        let message = Message::Connect(Connect {
            only: request.only.clone(),
            guest,
            distrust: request.distrust,
            deadline,
            reply,
            admitted: Arc::clone(&admitted),
        });
        self.shared.with_actor(&key, |actor| {
            request.progress.take().into_iter().for_each(|progress| actor.watch(progress));
            actor.send(message);
        });
        // Who waits for capacity or for another node is refused by the box's own task at the deadline, with the reason. A
        // step that is under way then goes on for whoever comes next, and this caller is told soon after.
        let answer = tokio::time::timeout_at(deadline + REASON_GRACE, async {
            tokio::select! {
                biased;
                answer = self.answered("connect to box", &key.1, answer) => answer,
                refusal = self.lost_store(&key.1, &admitted) => Err(refusal),
            }
        });
        let arrival = answer.await.unwrap_or_else(|_| {
            let detail = format!("it did not come up within {limit:?}; try again");
            Err(Error::new(ErrorKind::TimedOut, "connect to box", &key.1).with_detail(detail))
        })?;
        Ok(Session::new(Arc::clone(&self.shared), arrival))
    }

    /// Takes no new connects, creates and deletes, ends this node's hold on every box (suspending those that nobody else holds),
    /// and ends the worker. A second call does the same again.
    pub async fn drain(&self, limit: Duration) -> DrainReport {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.waiters.ring();
        let deadline = Instant::now() + limit;
        let active = self.shared.actors();
        for key in &active {
            self.shared.tell(key, Message::Drain);
        }
        loop {
            let unfinished = self.shared.actors();
            let at_work = !unfinished.is_empty() || Arc::strong_count(&self.shared.errands) > 1;
            if !at_work || Instant::now() >= deadline {
                self.shared.stop.set(true);
                let left = active.len().saturating_sub(unfinished.len());
                return DrainReport { left, unfinished };
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Brings a box up for nobody in particular: it lingers as after a last session, and is then suspended unless somebody
    /// has connected or it is [kept running](Pool::set_mode). One that runs already is left to run.
    ///
    /// # Errors
    /// As [`Pool::connect`].
    pub async fn start_box(&self, user: &UserId, name: &BoxName, limit: Duration) -> Result<BoxView> {
        let session = self.connect(ConnectRequest::new(user.clone(), name.clone()).deadline(limit)).await?;
        self.shared.log(EventRecord {
            owner: Some(session.owner().clone()),
            instance: Some(session.instance().clone()),
            epoch: Some(session.epoch()),
            ..self.shared.event(EventKind::BoxStarted)
        });
        // Given back without a wait: what the box is asked for by others may take its time.
        drop(session);
        let gone = || Error::new(ErrorKind::NotFound, "start box", name).with_detail("it was deleted meanwhile");
        self.get_box(user, name).await?.ok_or_else(gone)
    }

    /// Shuts a box down, whatever it is doing: the guest ends in good order, its memory is dropped, its instance is given
    /// back, and the next start boots it from its disk. Sessions on it end, and it is not kept running any more. Waits until
    /// it is done. Of a box that is detached already only the memory is dropped.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when a step of another node does not end; `Unavailable` while draining. When it fails half-way the
    /// box is `detaching`, and is brought to the end by the next call or by the reconcile; memory that was to be dropped is never resumed.
    #[tracing::instrument(name = "boxpool.stop", skip_all, fields(%user, %name))]
    pub async fn stop_box(&self, user: &UserId, name: &BoxName) -> Result<BoxView> {
        self.ask("stop box", user, name, |deadline, done| Message::Stop { grow_to: None, deadline, done })
            .await
            .map(BoxView::of)
    }

    /// Grows a box's volume to `bytes`; already that large or larger is success. The box is [stopped](Pool::stop_box) for it: a
    /// guest that was suspended with a smaller disk cannot go on with a larger one. One that is to
    /// [keep running](Mode::KeepRunning) is brought up again by the maintainer. That the guest's file system grows with its
    /// disk is its image's business.
    ///
    /// # Errors
    /// As [`Pool::stop_box`]. `NoCapacity`, `Invalid` and whatever else does not pass: the provider refuses, and the volume stays as it
    /// is. After any other error the wish stands, and is fulfilled by the next call or before the next start.
    #[tracing::instrument(name = "boxpool.resize", skip_all, fields(%user, %name))]
    pub async fn resize_box(&self, user: &UserId, name: &BoxName, bytes: u64) -> Result<BoxView> {
        self.ask("resize box", user, name, |deadline, done| Message::Stop { grow_to: Some(bytes), deadline, done })
            .await
            .map(BoxView::of)
    }

    /// Calls a box something else. It stays the same box: its id, volume, memory, shares and all that is known of it go along.
    /// One that is parked is taken off its instance for it. Under the old name there is no box then.
    ///
    /// # Errors
    /// `Invalid` when that is its name; `NotFound`; `AlreadyExists` when the user has a box of that name, or a deleted one that can
    /// still be had back; `Busy` when the box runs, or when a step of another node does not end; `Unavailable` while draining.
    /// When it fails half-way the box is `renaming`, and has the one name or the other after the next call or the reconcile.
    #[tracing::instrument(name = "boxpool.rename", skip_all, fields(%user, %name, %to))]
    pub async fn rename_box(&self, user: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxView> {
        const WHAT: &str = "rename box";
        if name == to {
            return Err(Error::new(ErrorKind::Invalid, WHAT, name).with_detail("that is its name"));
        }
        self.ask(WHAT, user, name, |deadline, done| Message::Rename {
            to: to.clone(),
            unless: Guard::none(),
            deadline,
            done,
        })
        .await
        .map(BoxView::of)
    }

    /// Says what happens when the last session of a box ends. One that is to [keep running](Mode::KeepRunning) is never suspended
    /// and never makes room, whichever gateway dies; when it does not run (its machine has died, say) the maintainer brings
    /// it up again with its next census. A [stop](Pool::stop_box) ends this too.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when a step of another node does not end.
    #[tracing::instrument(name = "boxpool.set_mode", skip_all, fields(%user, %name))]
    pub async fn set_mode(&self, user: &UserId, name: &BoxName, mode: Mode) -> Result<BoxView> {
        self.ask("set box's mode", user, name, |deadline, done| Message::SetMode { mode, deadline, done })
            .await
            .map(BoxView::of)
    }

    /// What the maintainer knows of demand, and how many instances it wants free for the [goal](crate::WarmTarget::goal), as it wrote it down last: minutes
    /// ago at most. `None` while there is none, and without a goal.
    ///
    /// # Errors
    /// The store's own.
    pub async fn demand(&self) -> Result<Option<DemandRecord>> {
        Ok(self.shared.records.get::<DemandRecord>(&demand_key()).await?.map(|held| held.record))
    }

    /// What this node knows of the pool.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let active = self.shared.actors().len();
        let state = self.shared.state();
        let live_nodes = state.liveness.live().len().max(1);
        let (free_instances, free_volumes) = (state.free_instances.len(), state.free_volumes.len());
        let parked = state.parked.len();
        drop(state);
        PoolStatus {
            node: self.shared.node.clone(),
            maintainer: self.shared.is_maintainer(),
            paused: self.shared.pause(),
            draining: self.shared.is_draining(),
            in_touch: self.check_reach("status", &self.shared.node).is_ok(),
            live_nodes,
            free_instances,
            free_volumes,
            parked,
            waiting: self.shared.waiters.len(),
            active,
            breakers: self.shared.breakers(),
        }
    }

    /// The golden snapshot that new volumes are copied from, waiting until it is built.
    ///
    /// # Errors
    /// `TimedOut` when it is not there within `limit`: the building goes on. `Invalid` for a pool without a
    /// [builder](PoolBuilder::golden).
    pub async fn golden(&self, limit: Duration) -> Result<SnapshotId> {
        let error = |kind| Error::new(kind, "provide golden snapshot", &self.shared.config.volume_generation);
        if self.shared.golden.is_none() {
            return Err(error(ErrorKind::Invalid).with_detail("this pool was built without a golden builder"));
        }
        let ready = async {
            loop {
                let heard = self.shared.golden_bell.get();
                let snapshot = self.shared.state().golden.clone();
                match snapshot {
                    Some(snapshot) => return snapshot,
                    None => self.shared.golden_bell.wait_for(|count| count != heard).await,
                };
            }
        };
        tokio::time::timeout(limit, ready).await.map_err(|_| {
            error(ErrorKind::TimedOut).with_detail(format!("it was not ready within {limit:?}; the building goes on"))
        })
    }

    /// The newest events of a user's boxes, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The store's.
    pub async fn events(&self, user: &UserId, limit: usize) -> Result<Vec<EventRecord>> {
        let mut all = self.all_events(user).await?;
        Ok(all.split_off(all.len().saturating_sub(limit)))
    }

    /// The newest events of one box, oldest first, at most `limit`; those of earlier boxes of that name are among them, and what
    /// happened to it before it was renamed. It need not be there any more. Reads all events of the user.
    ///
    /// # Errors
    /// The store's.
    pub async fn box_events(&self, user: &UserId, name: &BoxName, limit: usize) -> Result<Vec<EventRecord>> {
        let mut all = self.all_events(user).await?;
        let mut renamed: BTreeMap<BoxId, usize> = BTreeMap::new();
        for (at, event) in all.iter().enumerate().filter(|(_, event)| event.kind == EventKind::BoxRenamed) {
            if let Some(owner) = event.owner.as_ref().filter(|owner| owner.name == *name) {
                renamed.insert(owner.id.clone(), at);
            }
        }
        let mut at = 0..;
        all.retain(|event| {
            let (owner, at) = (event.owner.as_ref(), at.next());
            owner.is_some_and(|owner| owner.name == *name || renamed.get(&owner.id).copied() > at)
        });
        Ok(all.split_off(all.len().saturating_sub(limit)))
    }

    async fn all_events(&self, user: &UserId) -> Result<Vec<EventRecord>> {
        let all = self.shared.records.scan_all::<EventRecord>(Some(user.as_str())).await?;
        let mut all: Vec<_> = all.into_iter().map(|(_, held)| held.record).collect();
        // An older version kept the pool's own events under a name that a user may have.
        all.retain(|event| event.owner.as_ref().is_some_and(|owner| owner.owner == *user));
        Ok(all)
    }

    /// Where a user's box is now, without changing anything.
    ///
    /// # Errors
    /// The store's.
    pub async fn instance_of(&self, user: &UserId, name: &BoxName) -> Result<Option<InstanceId>> {
        Ok(self.get_box(user, name).await?.and_then(|view| view.placement.instance().cloned()))
    }

    /// Waits until a connect must be refused for want of the store: its own calls would take much longer to say so. One whose
    /// box is being brought up is let be while this node may act.
    async fn lost_store(&self, name: &BoxName, admitted: &AtomicBool) -> Error {
        const WHAT: &str = "connect to box";
        loop {
            self.shared.records.reach.lost().await;
            let lost = if admitted.load(Ordering::Relaxed) {
                self.shared.check_in_touch(WHAT)
            } else {
                self.shared.records.reach.check(WHAT, name)
            };
            match lost {
                Err(error) => return error,
                Ok(()) => tokio::time::sleep(LOOK_FOR_STORE_EVERY).await,
            }
        }
    }

    /// Whether anything new can begin: not while draining, and not while the store is out of reach.
    pub(crate) fn check_open(&self, operation: &'static str, name: &impl fmt::Display) -> Result<()> {
        if self.shared.is_draining() {
            let detail = "this node is shutting down; try again in a moment, at another";
            return Err(Error::new(ErrorKind::Unavailable, operation, name).with_detail(detail));
        }
        self.check_reach(operation, name)
    }

    fn check_reach(&self, operation: &'static str, name: &impl fmt::Display) -> Result<()> {
        self.shared.records.reach.check(operation, name)?;
        self.shared.check_in_touch(operation)
    }

    /// Asks the box's actor for what may take as long as a volume does, and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        operation: &'static str,
        user: &UserId,
        name: &BoxName,
        message: impl FnOnce(Instant, oneshot::Sender<Result<T>>) -> Message,
    ) -> Result<T> {
        self.check_open(operation, name)?;
        let deadline = Instant::now() + self.shared.config.limits.volume_ready;
        let (done, answer) = oneshot::channel();
        self.shared.tell(&(user.clone(), name.clone()), message(deadline, done));
        self.answered(operation, name, answer).await
    }

    pub(crate) async fn answered<T>(
        &self,
        operation: &'static str,
        name: &impl fmt::Display,
        answer: oneshot::Receiver<Result<T>>,
    ) -> Result<T> {
        answer.await.unwrap_or_else(|_| {
            let detail = "the pool's worker has ended; nothing moves until it is run again";
            let error = Error::new(ErrorKind::Unavailable, operation, name).with_detail(detail);
            Err(error.with_effect(Effect::Unknown))
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
