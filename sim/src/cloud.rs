//! A whole simulated cloud: machines, volumes, guests and a state store, in virtual time, from one seed.

use crate::backend::{SimClock, SimInstances, SimRuntime, SimStore, SimVolumes, SimWorld, Usage};
use crate::engine::{Caller, Engine, Entry, Fate, Faults, Gated, Kind, Pace, Settings, Strike};
use crate::oracle::settled;
use crate::timeline::Timeline;
use boxpool::{
    BoxRef, Clock, GuestRuntime, InstanceId, InstanceProvider, NodeId, Pool, PoolBuilder, PoolConfig, SnapshotCopier,
    SnapshotId, StateStore, Timestamp, VolumeId, VolumeProvider,
};
use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

/// How a simulator was used that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// There is no tokio runtime.
    #[error("a simulated cloud is built inside a tokio runtime: use #[tokio::test(start_paused = true)]")]
    NoRuntime,
    /// The runtime has more than one thread, so the order of things would differ from run to run.
    #[error("a simulated cloud needs a current_thread runtime: with several threads no seed gives the same run twice")]
    ManyThreads,
    /// The runtime's clock is the real one.
    #[error(
        "real time leaks into the simulated cloud: build the runtime with start_paused(true), and do not call tokio::time::resume()"
    )]
    RealTime,
    /// Another world lives in this thread.
    #[error("another simulated cloud lives in this runtime: drop it first, or run each in a runtime of its own")]
    TwoWorlds,
    /// The world was finished.
    #[error("this simulated cloud is finished: nothing happens in it any more; build a new one")]
    Finished,
    /// The gateway is dead, or belongs to another world.
    #[error("gateway {0} is not alive: restart it first")]
    DeadGateway(usize),
}

/// What was true and must never be, with what is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} (seed {seed})", .what.join("; "))]
pub struct Violations {
    /// Each broken invariant, in the order of their discovery.
    pub what: Vec<String>,
    /// The world's seed.
    pub seed: u64,
}

thread_local! {
    static WORLD_LIVES: Cell<bool> = const { Cell::new(false) };
}

/// Sets up a [`SimCloud`].
#[derive(Debug, Clone)]
pub struct SimCloudBuilder {
    settings: Settings,
    forgets_epochs: bool,
    quota: Option<usize>,
    page_size: usize,
    zones: u8,
    zonal_volumes: bool,
    metered: bool,
    regions: usize,
}

impl SimCloudBuilder {
    /// Where all luck comes from. The same seed gives the same run. Default: 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// How long calls take. Default: [`Pace::Cloud`].
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.settings.pace = pace;
        self
    }

    /// How often calls fail, and how. Default: never.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.settings.faults = faults;
        self
    }

    /// What becomes of particular calls, whatever the rates say.
    #[must_use]
    pub fn script(mut self, script: impl IntoIterator<Item = Strike>) -> Self {
        self.settings.script = script.into_iter().collect();
        self
    }

    /// Has the volume provider forget epochs, as Azure does: a late attach is not refused.
    #[must_use]
    pub fn forgets_epochs(mut self, forgets: bool) -> Self {
        self.forgets_epochs = forgets;
        self
    }

    /// At most so many machines exist; a request for more is refused with `NoCapacity`.
    #[must_use]
    pub fn quota(mut self, instances: usize) -> Self {
        self.quota = Some(instances);
        self
    }

    /// So many items in a page of a listing or scan, at most. Default: 20.
    #[must_use]
    pub fn page_size(mut self, items: usize) -> Self {
        self.page_size = items.max(1);
        self
    }

    /// Machines are spread over so many zones, each new one to the zone with the fewest. Default: 1.
    #[must_use]
    pub fn zones(mut self, zones: u8) -> Self {
        self.zones = zones.max(1);
        self
    }

    /// Each volume lies in one zone and is attached to machines of that zone alone: another attach is refused as
    /// `Invalid`. Without it, volumes lie in all zones.
    #[must_use]
    pub fn zonal_volumes(mut self, zonal: bool) -> Self {
        self.zonal_volumes = zonal;
        self
    }

    /// Counts what is there, for [`SimCloud::usage`].
    #[must_use]
    pub fn metered(mut self, metered: bool) -> Self {
        self.metered = metered;
        self
    }

    /// So many regions, each with machines, volumes and a state store of its own; all gateways reach all of them
    /// ([`Gateway::in_region`]). Default: 1.
    #[must_use]
    pub fn regions(mut self, regions: usize) -> Self {
        self.regions = regions.max(1);
        self
    }

    /// Adds up to so many milliseconds to every call, so that nothing runs in lockstep. Default: 0.
    #[must_use]
    pub fn jitter(mut self, ms: u64) -> Self {
        self.settings.jitter = ms;
        self
    }

    /// Keeps every entry of the trace and not only its fingerprint. Needed for [`SimCloud::trace`] and
    /// [`SimCloud::timeline`]; costs memory.
    #[must_use]
    pub fn keep_trace(mut self, keep: bool) -> Self {
        self.settings.keep_trace = keep;
        self
    }

    /// Begins the world, inside a tokio runtime with one thread and a paused clock.
    ///
    /// # Errors
    /// [`Misuse`] says what about the runtime is wrong.
    pub fn build(self) -> Result<SimCloud, Misuse> {
        let handle = Handle::try_current().map_err(|_| Misuse::NoRuntime)?;
        if handle.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return Err(Misuse::ManyThreads);
        }
        if real_time_leaks() {
            return Err(Misuse::RealTime);
        }
        if WORLD_LIVES.replace(true) {
            return Err(Misuse::TwoWorlds);
        }
        let seed = self.settings.seed;
        let (engine, crashes) = Engine::new(self.settings);
        let engine = Arc::new(engine);
        let begun = |region| {
            let world = SimWorld::with_engine(SimClock::new(), Arc::clone(&engine), region);
            world.limit(|limits| {
                limits.attach_remembers_epochs = !self.forgets_epochs;
                limits.instances_max = self.quota;
                limits.page_size = self.page_size;
                (limits.zones, limits.zonal_volumes) = (self.zones, self.zonal_volumes);
            });
            world.state().metered = self.metered;
            world.make_snapshot(&golden());
            world
        };
        let world = begun(0);
        let others: Vec<_> = (1..self.regions).map(begun).collect();
        SimWorld::join(&[std::slice::from_ref(&world), &others].concat());
        let driver = handle.spawn(Engine::drive(Arc::downgrade(&world))).abort_handle();
        Ok(SimCloud { world, others, seed, driver, crashes: Mutex::new(crashes) })
    }
}

/// The snapshot that every simulated cloud has from its beginning, to copy volumes from.
#[must_use]
pub fn golden() -> SnapshotId {
    SnapshotId::new("golden").expect("a plain word is a valid id")
}

/// A paused clock stands still while real time passes.
fn real_time_leaks() -> bool {
    #[allow(clippy::disallowed_methods)] // to tell real time from virtual, real time must be read
    let (real, shown) = (std::time::Instant::now(), Instant::now());
    while real.elapsed() < Duration::from_micros(2) {
        std::hint::spin_loop();
    }
    Instant::now() != shown
}

/// A simulated cloud. See the [guide](crate::guide).
///
/// Dropping it ends the world, and everything that ran in it.
pub struct SimCloud {
    world: Arc<SimWorld>,
    /// The regions beside the first.
    others: Vec<Arc<SimWorld>>,
    seed: u64,
    driver: AbortHandle,
    crashes: Mutex<mpsc::UnboundedReceiver<Caller>>,
}

impl fmt::Debug for SimCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCloud").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Drop for SimCloud {
    fn drop(&mut self) {
        self.engine().finish();
        self.driver.abort();
        WORLD_LIVES.set(false);
    }
}

impl SimCloud {
    /// Begins to set up a cloud.
    #[must_use]
    pub fn builder() -> SimCloudBuilder {
        SimCloudBuilder {
            settings: Settings::default(),
            forgets_epochs: false,
            quota: None,
            page_size: 20,
            zones: 1,
            zonal_volumes: false,
            metered: false,
            regions: 1,
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.world.engine().expect("a cloud's world is always made with an engine")
    }

    pub(crate) fn world(&self) -> &Arc<SimWorld> {
        &self.world
    }

    pub(crate) fn worlds(&self) -> impl Iterator<Item = &Arc<SimWorld>> {
        std::iter::once(&self.world).chain(&self.others)
    }

    /// The seed it was built with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A new gateway: one process that embeds a pool, with its own way to the store and the cloud and its own clock.
    ///
    /// # Errors
    /// [`Misuse::Finished`].
    pub fn gateway(&self) -> Result<Gateway, Misuse> {
        self.not_finished()?;
        let caller = self.engine().join(None);
        self.engine().note(Some(caller.gateway), Kind::Event, "started", "");
        Ok(self.gateway_of(caller))
    }

    /// Starts a gateway again that has died: the same machine, a new process.
    ///
    /// # Errors
    /// [`Misuse::Finished`]; [`Misuse::DeadGateway`] when there never was such a gateway.
    pub fn restart_gateway(&self, number: usize) -> Result<Gateway, Misuse> {
        self.not_finished()?;
        if number >= self.engine().gateways() {
            return Err(Misuse::DeadGateway(number));
        }
        if let Some(running) = self.engine().living(number) {
            self.engine().crash(running);
        }
        let caller = self.engine().join(Some(number));
        self.engine().note(Some(number), Kind::Event, "started again", "");
        Ok(self.gateway_of(caller))
    }

    fn gateway_of(&self, caller: Caller) -> Gateway {
        let regions = self.worlds().cloned().collect();
        Gateway { world: Arc::clone(&self.world), regions, caller }
    }

    /// Like `kill -9`: nothing of the gateway runs any more, and nothing was tidied up. What it had asked for still happens.
    pub fn crash_gateway(&self, number: usize) {
        if let Some(running) = self.engine().living(number) {
            self.engine().crash(running);
        }
    }

    /// Freezes a gateway, as a stopped machine would be: nothing of it moves until it goes on, and then it does not know that
    /// time has passed.
    pub fn pause_gateway(&self, number: usize, paused: bool) {
        self.engine().note(Some(number), Kind::Fault, if paused { "paused" } else { "goes on" }, "");
        self.engine().pause(number, paused);
    }

    /// Cuts a gateway off from the store, the cloud, or both; `None` leaves a way as it is. Requests and answers are lost.
    pub fn partition_gateway(&self, number: usize, store: Option<bool>, cloud: Option<bool>) {
        self.engine().note(Some(number), Kind::Fault, "partition changed", "");
        self.engine().cut(number, store, cloud);
    }

    /// Sets a gateway's wall clock ahead (or, negative, behind).
    pub fn set_clock(&self, number: usize, ahead_ms: i64) {
        self.engine().note(Some(number), Kind::Fault, "clock was set", "");
        self.engine().set_clock(number, ahead_ms);
    }

    /// From now on a gateway's wall clock gains so many millionths on the true time (or, negative, loses). What it is off by
    /// already stays. Timers do not drift: all gateways share tokio's.
    pub fn drift_clock(&self, number: usize, parts_per_million: i32) {
        self.engine().note(None, Kind::Fault, "clock drifts", "");
        self.engine().drift_clock(number, parts_per_million);
    }

    /// A zone is out, or comes back. When it goes out all its machines die, and none is made, started or given a volume
    /// there. Volumes that lie in all zones stay usable elsewhere.
    pub fn zone_outage(&self, zone: u8, out: bool) {
        let name = format!("zone {zone}");
        self.engine().note(None, Kind::Fault, if out { "zone is out" } else { "zone is back" }, &name);
        self.world.limit(|limits| {
            if out {
                limits.zones_out.insert(zone)
            } else {
                limits.zones_out.remove(&zone)
            };
        });
        if out {
            let doomed = self.instances().into_iter().filter(|id| self.zone_of(id) == Some(zone)).collect::<Vec<_>>();
            doomed.iter().for_each(|id| self.kill_instance(id));
        }
    }

    /// The zone that a machine is in, from 1.
    #[must_use]
    pub fn zone_of(&self, instance: &InstanceId) -> Option<u8> {
        self.world.state().instances.get(instance).map(|machine| machine.zone)
    }

    /// The zone that a volume lies in; `None` when it lies in all of them or is not there.
    #[must_use]
    pub fn zone_of_volume(&self, volume: &VolumeId) -> Option<u8> {
        self.world.state().volumes.get(volume).and_then(|volume| volume.zone)
    }

    /// What the world has used until now. All zeros unless it is [metered](SimCloudBuilder::metered).
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut state = self.world.state();
        if !state.metered {
            return Usage::default();
        }
        state.used(self.engine().now(), self.engine().store_calls())
    }

    /// Nobody reaches the state store while `down`.
    pub fn store_outage(&self, down: bool) {
        self.engine().note(None, Kind::Fault, if down { "store is down" } else { "store is up" }, "");
        self.engine().store_outage(down);
    }

    /// The machine is gone, with the guest on it.
    pub fn kill_instance(&self, instance: &InstanceId) {
        self.engine().note(None, Kind::Fault, "machine died", instance.as_str());
        self.touch(|world| world.kill_instance(instance));
    }

    /// The machine is stopped by the cloud, as a preempted one is.
    pub fn preempt_instance(&self, instance: &InstanceId) {
        self.engine().note(None, Kind::Fault, "machine preempted", instance.as_str());
        self.touch(|world| world.preempt_instance(instance));
    }

    /// The machine restarts: its guest dies, its volume stays attached.
    pub fn reboot_instance(&self, instance: &InstanceId) {
        self.engine().note(None, Kind::Fault, "machine rebooted", instance.as_str());
        self.touch(|world| world.state().power_off(instance));
    }

    /// Every instance there is, whatever it does.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceId> {
        self.world.state().instances.keys().cloned().collect()
    }

    /// At most so many machines from now on; `None` is without limit.
    pub fn set_quota(&self, instances: Option<usize>) {
        self.engine().note(None, Kind::Fault, "quota changed", "");
        self.world.limit(|limits| limits.instances_max = instances);
    }

    /// Decides what becomes of a gateway's n-th call, counted from 1 over its whole life.
    pub fn strike(&self, number: usize, call: u64, fate: Fate) {
        self.engine().strike(number, call, fate);
    }

    /// From now on nothing goes wrong any more. What is under way takes its course; dead gateways stay dead.
    pub fn heal(&self) {
        self.engine().note(None, Kind::Event, "faults stop", "");
        self.engine().heal();
        for world in self.worlds() {
            world.limit(|limits| {
                limits.instances_max = None;
                limits.zones_out.clear();
            });
            world.state().guests.values_mut().for_each(|guest| guest.hung = false);
        }
    }

    /// Lets so much virtual time pass.
    ///
    /// # Errors
    /// [`Misuse::Finished`]; [`Misuse::RealTime`] when somebody resumed the real clock.
    pub async fn advance(&self, time: Duration) -> Result<(), Misuse> {
        self.not_finished()?;
        if real_time_leaks() {
            return Err(Misuse::RealTime);
        }
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// How much virtual time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.engine().now())
    }

    /// Ends the world. Nothing happens in it any more; what it remembers can still be read.
    pub fn finish(&self) {
        self.engine().finish();
    }

    /// Whether nothing happens in it any more: it was finished, or one of its own effects panicked.
    #[cfg(feature = "planner")]
    pub(crate) fn has_ended(&self) -> bool {
        self.engine().is_finished() || self.driver.is_finished()
    }

    fn not_finished(&self) -> Result<(), Misuse> {
        if self.engine().is_finished() { Err(Misuse::Finished) } else { Ok(()) }
    }

    /// What was true at any time since the beginning and must never be.
    ///
    /// # Errors
    /// [`Violations`] names each, with the seed.
    pub fn check_invariants(&self) -> Result<(), Violations> {
        let what: Vec<_> = self.worlds().flat_map(|world| world.violations()).collect();
        if what.is_empty() { Ok(()) } else { Err(Violations { what, seed: self.seed }) }
    }

    /// What must be true once faults have stopped and everything had its time: nothing leaked, nothing half done, and the
    /// pools within their bounds.
    ///
    /// # Errors
    /// [`Violations`] names each thing that is not at rest.
    pub fn check_settled(&self, config: &PoolConfig, live: &[NodeId]) -> Result<(), Violations> {
        let what = settled::complaints(&self.world.state(), config, live);
        if what.is_empty() { Ok(()) } else { Err(Violations { what, seed: self.seed }) }
    }

    /// There is a golden snapshot of that edition, as another version of the program left it.
    pub(crate) fn leave_golden(&self, generation: &str) {
        let snapshot = SnapshotId::new(format!("golden-{generation}-1")).expect("plain words are a valid id");
        self.world.make_snapshot(&snapshot);
        self.world.state().leave_golden(generation, &snapshot);
    }

    pub(crate) fn leave_volume(&self, id: &VolumeId) {
        self.world.leave_volume(id);
    }

    /// Remembers a violation that an embedder's own check has found, so that traces and timelines show it.
    pub fn violate(&self, what: impl Into<String>) {
        let what = what.into();
        self.engine().note(None, Kind::Violation, &what, "");
        self.world.state().violate(what);
    }

    /// The guest of that box writes a line to its disk. `Ok` promises that it is there for ever.
    ///
    /// # Errors
    /// `Unavailable` when no guest of that box answers.
    pub fn write(&self, owner: &BoxRef, text: &str) -> boxpool::Result<()> {
        self.touch(|world| world.write_as(owner, text))
    }

    /// A process in the memory of that box's guest counts one further and tells the number.
    ///
    /// # Errors
    /// `Unavailable` when no guest of that box answers.
    pub fn count(&self, owner: &BoxRef) -> boxpool::Result<u64> {
        self.touch(|world| world.count_as(owner))
    }

    /// Whose guest runs on that volume, if one runs.
    #[must_use]
    pub fn guest_on(&self, volume: &VolumeId) -> Option<BoxRef> {
        let state = self.world.state();
        state.guests.iter().find(|((on, _), _)| on == volume).map(|(_, guest)| guest.owner.clone())
    }

    /// Where the guests of that box run: one place at most, in a sound world.
    #[must_use]
    pub fn places_of(&self, owner: &BoxRef) -> Vec<InstanceId> {
        let state = self.world.state();
        state.guests.iter().filter(|(_, guest)| guest.owner.id == owner.id).map(|((_, on), _)| on.clone()).collect()
    }

    /// How many guests run.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.world.state().guests.len()
    }

    /// Kills the guest of that box as a power cut would. Nothing happens when none runs.
    pub fn kill_guest(&self, owner: &BoxRef) {
        self.engine().note(None, Kind::Fault, "guest died", owner.name.as_str());
        self.touch(|world| world.kill_guest_of(owner));
    }

    /// The guest of that box answers nothing any more, or does again.
    pub fn hang_guest(&self, owner: &BoxRef, hung: bool) {
        self.engine().note(None, Kind::Fault, if hung { "guest hangs" } else { "guest answers" }, owner.name.as_str());
        let mut state = self.world.state();
        for guest in state.guests.values_mut().filter(|guest| guest.owner.id == owner.id) {
            guest.hung = hung;
            guest.hung_once |= hung;
        }
    }

    fn touch<T>(&self, act: impl FnOnce(&SimWorld) -> T) -> T {
        self.world.state().move_to(self.engine().now());
        act(&self.world)
    }

    /// The next gateway that has crashed since the last call, as soon as there is one.
    pub async fn crashed(&self) -> usize {
        std::future::poll_fn(|context| {
            let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
            match crashes.poll_recv(context) {
                std::task::Poll::Ready(Some(caller)) => std::task::Poll::Ready(caller.gateway),
                // The engine holds the other end as long as the world lives.
                _ => std::task::Poll::Pending,
            }
        })
        .await
    }

    /// Two runs with the same fingerprint went the same way.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.engine().fingerprint().0
    }

    /// Everything that happened, if the world was told to keep it.
    #[must_use]
    pub fn trace(&self) -> Vec<Entry> {
        self.engine().entries()
    }

    /// A picture of everything that happened, if the world was told to keep it.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        Timeline::new(self.seed, self.engine().entries())
    }

    /// The faults that struck so far, so that a run can be repeated with them as a script.
    #[must_use]
    pub fn struck(&self) -> Vec<Strike> {
        self.engine().struck()
    }
}

/// One start of one gateway, as an embedder's process sees the world: five trait objects.
#[derive(Clone)]
pub struct Gateway {
    world: Arc<SimWorld>,
    regions: Arc<[Arc<SimWorld>]>,
    caller: Caller,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gateway").field(&self.caller).finish()
    }
}

impl Gateway {
    /// Its number in the world, from 0. A restarted gateway keeps it.
    #[must_use]
    pub fn number(&self) -> usize {
        self.caller.gateway
    }

    /// The same process, as it sees another region; `None` when there is no such region, counted from 0.
    #[must_use]
    pub fn in_region(&self, region: usize) -> Option<Self> {
        self.regions.get(region).map(|world| Self { world: Arc::clone(world), ..self.clone() })
    }

    /// Its way to copy snapshots of other regions into the one that it sees.
    #[must_use]
    pub fn copier(&self) -> Arc<dyn SnapshotCopier> {
        Arc::new(SimVolumes::of(Arc::clone(&self.world), self.caller))
    }

    /// Its way to the state store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn StateStore> {
        Arc::new(SimStore::of(Arc::clone(&self.world), self.caller))
    }

    /// Its way to the machines.
    #[must_use]
    pub fn instances(&self) -> Arc<dyn InstanceProvider> {
        Arc::new(SimInstances::of(Arc::clone(&self.world), self.caller))
    }

    /// Its way to the volumes.
    #[must_use]
    pub fn volumes(&self) -> Arc<dyn VolumeProvider> {
        Arc::new(SimVolumes::of(Arc::clone(&self.world), self.caller))
    }

    /// Its way to the guests.
    #[must_use]
    pub fn runtime(&self) -> Arc<dyn GuestRuntime> {
        Arc::new(SimRuntime::of(Arc::clone(&self.world), self.caller))
    }

    /// Its wall clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        let clock = SimClock::new();
        let began = self.world.engine().map_or(0, Engine::now);
        Arc::new(GatewayClock { world: Arc::clone(&self.world), gateway: self.caller.gateway, clock, began })
    }

    /// A pool on this gateway. Its seed follows from the world's seed and this gateway's number and start.
    #[must_use]
    pub fn pool(&self, seed: u64, config: PoolConfig) -> PoolBuilder {
        self.pool_over(self.store(), seed, config)
    }

    /// The same over another way to the store: one that counts what is asked of it
    /// ([`CountingStore`](crate::backend::CountingStore)), or fails at will ([`FaultStore`](crate::backend::FaultStore)).
    #[must_use]
    pub fn pool_over(&self, store: Arc<dyn StateStore>, seed: u64, config: PoolConfig) -> PoolBuilder {
        let mut hash = crate::engine::Hash::new(seed)
            .number(self.caller.gateway as u64)
            .number(u64::from(self.caller.incarnation));
        // One process has a pool in each region, and none of them is named as another.
        if self.world.region() > 0 {
            hash = hash.number(self.world.region() as u64);
        }
        let seed = hash.draw().next();
        Pool::builder(store, self.instances(), self.volumes(), self.runtime(), config).clock(self.clock()).seed(seed)
    }

    /// Runs a task on this gateway: it ends when the gateway dies and stands still while it is paused.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let engine = self.world.engine();
        let gate = engine.and_then(|engine| engine.gate(self.caller.gateway)).unwrap_or_default();
        let running = tokio::spawn(Gated::new(gate, task));
        if let Some(engine) = engine {
            engine.adopt(self.caller, running.abort_handle());
        }
        running
    }

    /// Whether this start of the gateway lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.world.engine().and_then(|engine| engine.living(self.caller.gateway)) == Some(self.caller)
    }
}

/// A gateway's own wall clock, which may be wrong.
struct GatewayClock {
    world: Arc<SimWorld>,
    gateway: usize,
    clock: SimClock,
    /// When this clock was made, in the world's time: all begin at the world's beginning.
    began: u64,
}

impl Clock for GatewayClock {
    fn now(&self) -> Timestamp {
        let true_time = self.clock.now().0.saturating_add(self.began);
        let offset = self.world.engine().map_or(0, |engine| engine.clock_offset(self.gateway));
        Timestamp(true_time.saturating_add_signed(offset))
    }
}
