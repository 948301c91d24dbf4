//! The world that simulated instances, volumes and guests share.
//!
//! All of it lies under one mutex which is never held across an await: each effect is one step, and after each step the
//! world looks whether anything is true that must never be. What it finds is kept in [`SimWorld::violations`].

use super::clock::SimClock;
use super::fault::{Fault, Operation, Prospect, Script};
use super::meter::Meter;
use crate::engine::{Caller, Effect, Engine, Kind};
use crate::oracle::{Oracle, line_of};
use boxpool::{
    BoxRef, Clock, Epoch, Error, ErrorKind, InstanceId, InstanceView, MemoryStore, Result, SnapshotId, Timestamp,
    VolumeId, VolumeView,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Instances, volumes with contents, and guests with memory.
///
/// Hand an `Arc` of it to [`SimInstances`](super::SimInstances), [`SimVolumes`](super::SimVolumes) and
/// [`SimRuntime`](super::SimRuntime); they then see one another's effects.
pub struct SimWorld {
    state: Mutex<State>,
    clock: Box<dyn Clock>,
    /// Absent in worlds for tests of single calls: there each call has its effect as soon as it is made.
    engine: Option<Arc<Engine>>,
    /// Which region of a simulated cloud this is, from 0.
    region: usize,
    /// The regions of the same cloud, this one included; empty where there is but one.
    regions: Mutex<Vec<Weak<SimWorld>>>,
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWorld").field("state", &self.state).finish_non_exhaustive()
    }
}

/// One call that reached the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// On what.
    pub resource: String,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) instances: BTreeMap<InstanceId, Machine>,
    pub(crate) volumes: BTreeMap<VolumeId, Volume>,
    pub(crate) snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// Keyed by both, so that a guest that runs in two places could be seen.
    pub(crate) guests: BTreeMap<(VolumeId, InstanceId), GuestProcess>,
    pub(crate) limits: Limits,
    /// Milliseconds of virtual time, as of the last effect. 0 for ever in worlds without an engine.
    pub(crate) now: u64,
    /// Whether what is there is counted, and the count.
    pub(crate) metered: bool,
    pub(super) meter: Meter,
    /// The state store's content.
    pub(crate) store: MemoryStore,
    pub(crate) oracle: Oracle,
    /// The last complete listings, for answers that lag behind.
    pub(super) listed_instances: Vec<InstanceView>,
    pub(super) listed_volumes: Vec<VolumeView>,
    script: Script,
    calls: Vec<Call>,
    violations: Vec<String>,
    deleted_volumes: Vec<DeletedVolume>,
}

/// Bounds and habits of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// At most so many instances exist; `ensure` and `start` answer `NoCapacity` beyond it. Stopped ones do not count.
    pub instances_max: Option<usize>,
    /// At most so many volumes exist.
    pub volumes_max: Option<usize>,
    /// So many items in each page of a listing.
    pub page_size: usize,
    /// In how many zones machines are.
    pub zones: u8,
    /// Whether a volume lies in one zone and can be attached to machines of that zone alone.
    pub zonal_volumes: bool,
    /// Zones that are out: nothing is made or started there.
    pub zones_out: BTreeSet<u8>,
    /// Whether the volume provider remembers the newest epoch of a volume and refuses older ones. The runtime always does.
    pub attach_remembers_epochs: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances_max: None,
            volumes_max: None,
            page_size: 100,
            attach_remembers_epochs: true,
            zones: 1,
            zonal_volumes: false,
            zones_out: BTreeSet::new(),
        }
    }
}

/// A volume that is no more, and what was on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedVolume {
    /// Which.
    pub id: VolumeId,
    /// Whose box ran on it, if any did.
    pub owner: Option<BoxRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Coming,
    Running,
    Stopping,
    Stopped,
    Deleting,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) phase: Phase,
    /// So many more looks find it in transition,
    pub(super) looks_left: u32,
    /// and none before this time finds it done.
    pub(super) due: u64,
    pub(crate) failed: Option<String>,
    pub(super) generation: String,
    /// From 1.
    pub(crate) zone: u8,
    pub(super) created_at: Timestamp,
    /// The last box that ran here and was not cleared away since.
    pub(super) residue: Option<BoxRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkPhase {
    Attaching,
    Attached,
    Detaching,
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) instance: InstanceId,
    pub(crate) phase: LinkPhase,
    pub(super) looks_left: u32,
    pub(super) due: u64,
}

/// What lies on a volume: the disk, and memory that was saved with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(super) lines: Vec<String>,
    /// Lines that begin with whose they are, for the oracle.
    pub(crate) owned: Vec<String>,
    /// Counts the writes: saved memory fits only the disk it was saved with.
    pub(crate) writes: u64,
    pub(crate) saved: Option<SavedMemory>,
}

#[derive(Debug, Clone)]
pub(crate) struct SavedMemory {
    pub(crate) memory: Memory,
    pub(crate) fits_writes: u64,
}

/// What a guest holds in memory: gone at a power cut, kept over suspend and resume.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) count: u64,
}

#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) phase: Phase,
    pub(super) looks_left: u32,
    pub(super) due: u64,
    pub(crate) bytes: u64,
    /// From 1; `None` when it lies in all of them.
    pub(crate) zone: Option<u8>,
    pub(crate) content: Content,
    pub(crate) link: Option<Link>,
    pub(super) used: bool,
    pub(crate) epoch: Epoch,
    pub(crate) owner: Option<BoxRef>,
    pub(super) created_at: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) content: Content,
    /// The newest epoch that the volume remembered: it is part of what was copied.
    pub(super) epoch: Epoch,
    pub(super) bytes: u64,
    pub(super) looks_left: u32,
    pub(super) due: u64,
    pub(super) created_at: Timestamp,
}

#[derive(Debug)]
pub(crate) struct GuestProcess {
    pub(crate) memory: Memory,
    pub(crate) owner: BoxRef,
    pub(crate) hung: bool,
    /// Whether it ever hung: whoever was told so may end it a moment later.
    pub(crate) hung_once: bool,
    /// With which epoch it was started or last adopted.
    pub(crate) epoch: Epoch,
    /// Since when it runs, in milliseconds of virtual time: it counts and writes while it runs.
    pub(super) since: u64,
}

/// How a listing is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As things are.
    Now,
    /// As they were at the last listing.
    Stale,
    /// With things missing: which ones is drawn from this.
    Incomplete(u64),
}

/// What an effect gets to see.
pub(crate) struct Scene<'a> {
    pub(crate) state: &'a mut State,
    pub(super) now: Timestamp,
    /// What this call begins takes so many further looks,
    pub(super) pending: u32,
    /// and is not done before this time.
    pub(super) due: u64,
    pub(super) look: Look,
}

impl Scene<'_> {
    /// Whether what this call begins is done at once.
    pub(super) fn at_once(&self) -> bool {
        self.pending == 0 && self.due <= self.state.now
    }
}

impl SimWorld {
    /// An empty world whose clock follows tokio's timer.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_clock(SimClock::new())
    }

    /// An empty world that stamps what it makes with `clock`.
    #[must_use]
    pub fn with_clock(clock: impl Clock) -> Arc<Self> {
        Self::assemble(clock, None, 0)
    }

    /// A world that runs in virtual time.
    pub(crate) fn with_engine(clock: impl Clock, engine: Arc<Engine>, region: usize) -> Arc<Self> {
        Self::assemble(clock, Some(engine), region)
    }

    fn assemble(clock: impl Clock, engine: Option<Arc<Engine>>, region: usize) -> Arc<Self> {
        let state = State {
            now: 0,
            metered: false,
            meter: Meter::default(),
            store: MemoryStore::new(),
            oracle: Oracle::default(),
            listed_instances: Vec::new(),
            listed_volumes: Vec::new(),
            instances: BTreeMap::new(),
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            guests: BTreeMap::new(),
            limits: Limits::default(),
            script: Script::default(),
            calls: Vec::new(),
            violations: Vec::new(),
            deleted_volumes: Vec::new(),
        };
        let regions = Mutex::default();
        Arc::new(Self { state: Mutex::new(state), clock: Box::new(clock), engine, region, regions })
    }

    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_deref()
    }

    /// From now on these worlds are the regions of one cloud: snapshots can be copied from one to another.
    pub fn join(regions: &[Arc<SimWorld>]) {
        for world in regions {
            *world.peers() = regions.iter().map(Arc::downgrade).collect();
        }
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Weak<SimWorld>>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn region(&self) -> usize {
        self.region
    }

    /// The other regions of the same cloud.
    pub(crate) fn others(&self) -> Vec<Arc<SimWorld>> {
        let other = |world: &Weak<SimWorld>| world.upgrade().filter(|world| !std::ptr::eq(&**world, self));
        self.peers().iter().filter_map(other).collect()
    }

    /// Changes the world's bounds.
    pub fn limit(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.state().limits);
    }

    /// Has `fault` happen to the n-th call of `operation`, counted from 1 over the whole life of the world.
    pub fn fault_at(&self, operation: Operation, call: u64, fault: Fault) {
        self.state().script.set(operation, call, fault);
    }

    /// Has `fault` happen to the next call of `operation`.
    pub fn fault_next(&self, operation: Operation, fault: Fault) {
        let mut state = self.state();
        let next = state.script.calls(operation) + 1;
        state.script.set(operation, next, fault);
    }

    /// Has `fault` happen to every call of `operation` that has none of its own; `None` ends it.
    pub fn fault_always(&self, operation: Operation, fault: impl Into<Option<Fault>>) {
        self.state().script.set_always(operation, fault.into());
    }

    /// Makes every call of `operation` take so many milliseconds before its effect.
    pub fn latency_ms(&self, operation: Operation, ms: u64) {
        self.state().script.set_latency(operation, Duration::from_millis(ms));
    }

    /// Takes back all faults. Latencies stay.
    pub fn heal(&self) {
        self.state().script.heal();
    }

    /// How often `operation` was called.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().script.calls(operation)
    }

    /// A place in the list of calls, for [`SimWorld::calls_since`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.state().calls.len()
    }

    /// The calls since `mark`, in the order in which they began.
    #[must_use]
    pub fn calls_since(&self, mark: usize) -> Vec<Call> {
        self.state().calls.get(mark..).unwrap_or_default().to_vec()
    }

    /// What was true at some time and must never be; empty in a sound run.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The volumes that were deleted, oldest first.
    #[must_use]
    pub fn deleted_volumes(&self) -> Vec<DeletedVolume> {
        self.state().deleted_volumes.clone()
    }

    /// How many guests run.
    #[must_use]
    pub fn guests_running(&self) -> usize {
        self.state().guests.len()
    }

    /// Where the volume is attached, or is coming to or leaving.
    #[must_use]
    pub fn attached_to(&self, volume: &VolumeId) -> Option<InstanceId> {
        self.state().volumes.get(volume)?.link.as_ref().map(|link| link.instance.clone())
    }

    /// The newest epoch that the volume has seen.
    #[must_use]
    pub fn epoch_of(&self, volume: &VolumeId) -> Option<Epoch> {
        self.state().volumes.get(volume).map(|volume| volume.epoch)
    }

    /// The guest on `volume` writes a line to its disk, durable when this returns.
    ///
    /// # Errors
    /// `Unavailable` when no guest runs there or it hangs.
    pub fn write(&self, volume: &VolumeId, line: &str) -> Result<()> {
        let mut state = self.state();
        state.guest_on(volume, "write in guest")?;
        let disk = state.volumes.get_mut(volume).ok_or_else(|| no_guest("write in guest", volume))?;
        disk.content.lines.push(line.to_owned());
        disk.content.writes += 1;
        Ok(())
    }

    /// The lines that the guest on `volume` reads from its disk.
    ///
    /// # Errors
    /// `Unavailable` when no guest runs there or it hangs.
    pub fn read(&self, volume: &VolumeId) -> Result<Vec<String>> {
        let mut state = self.state();
        state.guest_on(volume, "read in guest")?;
        Ok(state.volumes.get(volume).map(|disk| disk.content.lines.clone()).unwrap_or_default())
    }

    /// A process in the guest's memory counts one further and tells the number: 1 after a boot, going on after a resume.
    ///
    /// # Errors
    /// `Unavailable` when no guest runs there or it hangs.
    pub fn count(&self, volume: &VolumeId) -> Result<u64> {
        let mut state = self.state();
        let guest = state.guest_on(volume, "count in guest")?;
        guest.memory.count += 1;
        Ok(guest.memory.count)
    }

    /// Puts an empty snapshot there, ready to be copied from.
    pub(crate) fn make_snapshot(&self, id: &SnapshotId) {
        let created_at = self.clock.now();
        let snapshot = Snapshot {
            content: Content::default(),
            epoch: Epoch::default(),
            bytes: 1 << 30,
            looks_left: 0,
            due: 0,
            created_at,
        };
        self.state().snapshots.insert(id.clone(), snapshot);
    }

    /// A disk that somebody has used, and that the pool's mark makes visible now.
    pub(crate) fn leave_volume(&self, id: &VolumeId) {
        let created_at = self.clock.now();
        self.state().volumes.entry(id.clone()).or_insert_with(|| Volume {
            phase: Phase::Running,
            looks_left: 0,
            due: 0,
            bytes: 1 << 30,
            zone: None,
            content: Content::default(),
            link: None,
            used: true,
            epoch: Epoch::default(),
            owner: None,
            created_at,
        });
    }

    /// The guest of that box writes a line to its disk, which is durable when this returns.
    pub(crate) fn write_as(&self, owner: &BoxRef, text: &str) -> Result<()> {
        let mut state = self.state();
        let volume = state.volume_of_guest(owner, "write in guest")?;
        let line = line_of(owner, text);
        if let Some(disk) = state.volumes.get_mut(&volume) {
            disk.content.owned.push(line.clone());
            disk.content.writes += 1;
        }
        state.oracle.wrote_line(owner, line);
        Ok(())
    }

    /// A process in the guest's memory counts one further.
    pub(crate) fn count_as(&self, owner: &BoxRef) -> Result<u64> {
        let mut state = self.state();
        let now = state.now;
        let volume = state.volume_of_guest(owner, "count in guest")?;
        state.oracle.saw_memory(owner);
        let guest = state.guest_on(&volume, "count in guest")?;
        guest.memory.count += 1;
        Ok(guest.memory.count + now.saturating_sub(guest.since) / 1_000)
    }

    pub(crate) fn kill_guest_of(&self, owner: &BoxRef) {
        let volume = self.state().volume_of_guest(owner, "kill guest");
        if let Ok(volume) = volume {
            self.kill_guest(&volume);
        }
    }

    /// Kills the guest on `volume` as a power cut would.
    pub fn kill_guest(&self, volume: &VolumeId) {
        let mut state = self.state();
        let there: Vec<_> = state.guests.keys().filter(|(on, _)| on == volume).cloned().collect();
        for place in there {
            if let Some(guest) = state.end_guest(&place) {
                state.oracle.guest_lost(&place.0, &guest);
            }
        }
    }

    /// The guest on `volume` answers nothing any more, or does again.
    pub fn hang_guest(&self, volume: &VolumeId, hung: bool) {
        for ((on, _), guest) in &mut self.state().guests {
            if on == volume {
                guest.hung = hung;
                guest.hung_once |= hung;
            }
        }
    }

    /// The machine is taken away: its guest dies, its volume is left without it.
    pub fn kill_instance(&self, instance: &InstanceId) {
        self.state().remove_instance(instance);
    }

    /// The machine stops by itself, as a preempted one does: its guest dies, its volume stays attached.
    pub fn preempt_instance(&self, instance: &InstanceId) {
        let mut state = self.state();
        state.power_off(instance);
        if let Some(machine) = state.instances.get_mut(instance) {
            (machine.phase, machine.looks_left) = (Phase::Stopped, 0);
        }
    }

    /// The machine breaks: its guest dies, and it is reported as failed with these words.
    pub fn break_instance(&self, instance: &InstanceId, why: &str) {
        let mut state = self.state();
        state.power_off(instance);
        if let Some(machine) = state.instances.get_mut(instance) {
            machine.failed = Some(why.to_owned());
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked under the lock has failed already; what others see is only its report.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one call: in a world with an engine through its queue, else at once with the script's latency and fault.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        caller: Option<Caller>,
        operation: Operation,
        resource: &(impl fmt::Display + Sync),
        effect: impl Fn(&mut Scene<'_>) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        self.call_as(caller, operation, resource.to_string(), None, effect).await
    }

    /// As [`SimWorld::call`]; `role` says what the call is for when the resource's name does not.
    pub(crate) async fn call_as<T: Send + 'static>(
        &self,
        caller: Option<Caller>,
        operation: Operation,
        resource: String,
        role: Option<String>,
        effect: impl Fn(&mut Scene<'_>) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        if let (Some(engine), Some(caller)) = (&self.engine, caller) {
            let effect: Effect<T> = Arc::new(effect);
            return engine.call(self.region, caller, operation, resource, role, effect).await;
        }
        let resource = &resource;
        let Prospect { latency, fault } = {
            let mut state = self.state();
            state.calls.push(Call { operation, resource: resource.clone() });
            state.script.next(operation)
        };
        pause(latency).await;
        let pending = match fault {
            Some(Fault::Refuse(kind)) => {
                return Err(Error::new(kind, operation.as_str(), resource).with_detail(format!("{kind} (simulated)")));
            }
            Some(Fault::HangBefore(time)) => {
                pause(time).await;
                0
            }
            Some(Fault::Pending(looks)) => looks,
            Some(Fault::LoseAnswer | Fault::HangAfter(_)) | None => 0,
        };
        let answer = self.act(operation, resource, 0, pending, Look::Now, &effect);
        match fault {
            Some(Fault::LoseAnswer) => Err(Error::new(ErrorKind::UnknownOutcome, operation.as_str(), resource)
                .with_detail("the answer was lost (simulated)")),
            Some(Fault::HangAfter(time)) => {
                pause(time).await;
                answer
            }
            _ => answer,
        }
    }

    /// One effect, in one step, and the look for violations after it.
    fn act<T>(
        &self,
        operation: Operation,
        resource: &str,
        work: u64,
        pending: u32,
        look: Look,
        effect: &(impl Fn(&mut Scene<'_>) -> Result<T> + ?Sized),
    ) -> Result<T> {
        let now = self.clock.now();
        let mut state = self.state();
        let time = self.engine().map_or(0, Engine::now);
        state.move_to(time);
        let due = state.now + work;
        let answer = effect(&mut Scene { state: &mut state, now, pending, due, look });
        if !operation.is_read() {
            state.look_for_violations(operation, resource);
        }
        answer
    }

    /// The effect, in one of the cloud's regions, of a call that came through the engine's queue.
    #[allow(clippy::too_many_arguments)] // one place, and a struct of them would be taken apart at once
    pub(crate) fn perform_in<T>(
        &self,
        region: usize,
        caller: Caller,
        operation: Operation,
        resource: &str,
        work: u64,
        look: Look,
        effect: &(dyn Fn(&mut Scene<'_>) -> Result<T> + Send + Sync),
    ) -> Result<T> {
        if region == self.region {
            return self.perform(caller, operation, resource, work, look, effect);
        }
        let there = self.peers().get(region).and_then(Weak::upgrade);
        match there {
            Some(there) => there.perform(caller, operation, resource, work, look, effect),
            None => Err(Error::new(ErrorKind::Unavailable, operation.as_str(), resource)),
        }
    }

    fn perform<T>(
        &self,
        caller: Caller,
        operation: Operation,
        resource: &str,
        work: u64,
        look: Look,
        effect: &(dyn Fn(&mut Scene<'_>) -> Result<T> + Send + Sync),
    ) -> Result<T> {
        let before = self.state().violations.len();
        let answer = self.act(operation, resource, work, 0, look, effect);
        if let Some(engine) = &self.engine {
            let word = answer.as_ref().map_or_else(|error| error.kind().to_string(), |_| "ok".to_owned());
            engine.note(Some(caller.gateway), Kind::Effect, &word, resource);
            let state = self.state();
            for violation in &state.violations[before..] {
                engine.note(Some(caller.gateway), Kind::Violation, violation, "");
            }
        }
        answer
    }

    /// Tells a caller what came of its call, if it can still hear it.
    pub(crate) fn answer<T>(
        &self,
        caller: Caller,
        operation: Operation,
        answer: Result<T>,
        reply: tokio::sync::oneshot::Sender<Result<T>>,
    ) {
        let Some(engine) = &self.engine else { return };
        if engine.hears(caller, operation) {
            let _ = reply.send(answer);
        } else {
            engine.note(Some(caller.gateway), Kind::Fault, "answer not heard", operation.as_str());
        }
    }
}

/// No sleep at all for zero: a world without latencies then never yields by itself.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn no_guest(operation: &'static str, volume: &VolumeId) -> Error {
    Error::new(ErrorKind::Unavailable, operation, volume).with_detail("no guest of this volume answers")
}

impl State {
    /// Remembers that something was true which must never be.
    pub(crate) fn violate(&mut self, what: String) {
        if !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    pub(super) fn guest_on(&mut self, volume: &VolumeId, operation: &'static str) -> Result<&mut GuestProcess> {
        self.guests
            .iter_mut()
            .find(|((on, _), guest)| on == volume && !guest.hung)
            .map(|(_, guest)| guest)
            .ok_or_else(|| no_guest(operation, volume))
    }

    fn volume_of_guest(&self, owner: &BoxRef, operation: &'static str) -> Result<VolumeId> {
        let found = self.guests.iter().find(|(_, guest)| guest.owner.id == owner.id && !guest.hung);
        found.map(|((volume, _), _)| volume.clone()).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, operation, owner).with_detail("no guest of this box answers")
        })
    }

    /// The volume on which a guest of that box runs.
    pub(crate) fn guest_of(&self, id: &boxpool::BoxId) -> Option<&VolumeId> {
        self.guests.iter().find(|(_, guest)| guest.owner.id == *id).map(|((volume, _), _)| volume)
    }

    /// The box as this region has it, when nothing holds it back there.
    pub(crate) fn box_of(&self, id: &boxpool::BoxId) -> Option<&boxpool::record::BoxRecord> {
        use boxpool::record::Placement;
        let is_there = |record: &&boxpool::record::BoxRecord| {
            let goes = matches!(record.placement, Placement::Deleting { .. });
            record.owner.id == *id && record.hold.is_none() && !goes
        };
        self.oracle.books.boxes.values().find(is_there)
    }

    /// All that was ever written to the disk of that volume.
    pub(crate) fn lines_on(&self, volume: &VolumeId) -> Vec<String> {
        self.volumes.get(volume).map(|volume| volume.content.owned.clone()).unwrap_or_default()
    }

    pub(super) fn guest_runs_on(&self, volume: &VolumeId) -> bool {
        self.guests.keys().any(|(on, _)| on == volume)
    }

    /// Ends a guest and tells what it held in memory at that moment. Until then it counted on, and wrote to its disk, once a
    /// second.
    pub(super) fn end_guest(&mut self, place: &(VolumeId, InstanceId)) -> Option<GuestProcess> {
        let mut guest = self.guests.remove(place)?;
        let beats = self.now.saturating_sub(guest.since) / 1_000;
        guest.memory.count += beats;
        if let Some(volume) = self.volumes.get_mut(&place.0) {
            volume.content.writes += beats;
        }
        Some(guest)
    }

    /// Ends whatever guest runs on the instance, because the pool has the machine stopped or deleted.
    pub(super) fn take_down(&mut self, instance: &InstanceId) {
        let there: Vec<_> = self.guests.keys().filter(|(_, on)| on == instance).cloned().collect();
        for place in there {
            if let Some(guest) = self.end_guest(&place)
                && let Some(wrong) = self.oracle.guest_pulled_down(&guest)
            {
                self.violate(wrong);
            }
        }
    }

    /// Ends whatever guest runs on the instance, as a power cut would.
    pub(crate) fn power_off(&mut self, instance: &InstanceId) {
        let there: Vec<_> = self.guests.keys().filter(|(_, on)| on == instance).cloned().collect();
        for place in there {
            if let Some(guest) = self.end_guest(&place) {
                self.oracle.guest_lost(&place.0, &guest);
            }
        }
    }

    pub(crate) fn remove_instance(&mut self, instance: &InstanceId) {
        self.power_off(instance);
        self.instances.remove(instance);
        for volume in self.volumes.values_mut() {
            volume.link.take_if(|link| link.instance == *instance);
        }
    }

    pub(super) fn remove_volume(&mut self, id: &VolumeId) {
        if let Some(volume) = self.volumes.remove(id) {
            self.deleted_volumes.push(DeletedVolume { id: id.clone(), owner: volume.owner });
        }
    }

    /// The volume that is on the instance, or is coming or leaving.
    pub(super) fn volume_on(&self, instance: &InstanceId) -> Option<&VolumeId> {
        self.volumes
            .iter()
            .find(|(_, volume)| volume.link.as_ref().is_some_and(|link| link.instance == *instance))
            .map(|(id, _)| id)
    }

    fn look_for_violations(&mut self, operation: Operation, resource: &str) {
        let mut found = Vec::new();
        let mut served: BTreeMap<&InstanceId, &VolumeId> = BTreeMap::new();
        for (id, volume) in &self.volumes {
            if let Some(link) = &volume.link
                && let Some(other) = served.insert(&link.instance, id)
            {
                found.push(format!("I2: instance {} holds volumes {other} and {id}", link.instance));
            }
        }
        let mut runs: BTreeMap<&VolumeId, &InstanceId> = BTreeMap::new();
        for (volume, instance) in self.guests.keys() {
            if let Some(other) = runs.insert(volume, instance) {
                found.push(format!("I1: the guest of {volume} runs on {other} and on {instance}"));
            }
            let link = self.volumes.get(volume).and_then(|volume| volume.link.as_ref());
            if link.is_none_or(|link| link.instance != *instance || link.phase != LinkPhase::Attached) {
                found.push(format!("I1: volume {volume} was taken from under its guest on {instance}"));
            }
        }
        for what in found {
            self.violate(format!("{what}, after {} {resource}", operation.as_str()));
        }
    }
}
