//! A small world for the pool's own tests: instances, volumes and guests in memory, with latencies, faults and a list of
//! broken promises that must stay empty.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its own part

use async_trait::async_trait;
use boxpool::{
    Attach, Attached, BoxName, Cleared, ConnectRequest, Cursor, Detached, Device, Effect, Endpoint, EndpointAddress,
    Entry, Epoch, Error, ErrorKind, Guest, GuestRuntime, GuestStatus, InstanceId, InstanceProvider, InstanceSpec,
    InstanceState, InstanceView, Key, MemoryStore, Page, Pool, PoolBuilder, PoolConfig, Result, Session, SnapshotId,
    SnapshotView, Started, StartedBy, StateStore, Stored, Suspended, Table, UserId, Version, VolumeId, VolumeProvider,
    VolumeSource, VolumeSpec, VolumeState, VolumeView, WarmTarget,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What is to happen to a call instead of the usual.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It fails and nothing changes.
    Fails(ErrorKind),
    /// It happens and the answer is lost.
    LosesAnswer,
    /// It takes so long.
    Takes(Duration),
    /// Something else is done first, on the caller's thread.
    After(fn()),
}

#[derive(Default, Clone)]
pub struct Volume {
    pub on: Option<InstanceId>,
    pub epoch: Epoch,
    pub used: bool,
    pub bytes: u64,
    /// What the guest wrote: durable.
    pub disk: Vec<String>,
    /// What it holds in memory, while suspended.
    pub memory: Option<Vec<String>>,
}

pub struct RunningGuest {
    pub instance: InstanceId,
    pub memory: Vec<String>,
    pub port: u16,
}

#[derive(Default)]
pub struct State {
    pub instances: BTreeSet<InstanceId>,
    pub volumes: BTreeMap<VolumeId, Volume>,
    pub snapshots: BTreeMap<SnapshotId, Volume>,
    pub guests: BTreeMap<VolumeId, RunningGuest>,
    /// The volume that was attached to an instance last, and the one whose guest was started on it last: no other can be on it. Looked
    /// up, not searched for, since benches measure among thousands.
    pub attached_last: BTreeMap<InstanceId, VolumeId>,
    pub started_last: BTreeMap<InstanceId, VolumeId>,
    /// Of each start, whether the runtime was told that it is of a copy.
    pub told_copied: Vec<(VolumeId, bool)>,
    pub broken: Vec<String>,
    pub calls: BTreeMap<&'static str, u32>,
    pub faults: BTreeMap<(&'static str, u32), Fault>,
    pub always: BTreeMap<&'static str, Fault>,
    pub writes: Vec<(&'static str, String)>,
    pub next_port: u16,
    pub instance_limit: Option<usize>,
}

/// The cloud and the guests. Clones are the same world.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

impl World {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The `n`-th call (from 1) of `operation` from now on meets `fault`.
    pub fn fault(&self, operation: &'static str, n: u32, fault: Fault) {
        let mut state = self.state();
        let so_far = state.calls.get(operation).copied().unwrap_or(0);
        state.faults.insert((operation, so_far + n), fault);
    }

    pub fn always(&self, operation: &'static str, fault: Option<Fault>) {
        let mut state = self.state();
        match fault {
            Some(fault) => state.always.insert(operation, fault),
            None => state.always.remove(operation),
        };
    }

    pub fn calls(&self, operation: &'static str) -> u32 {
        self.state().calls.get(operation).copied().unwrap_or(0)
    }

    /// What the guest of that volume does: writes to its memory and its disk.
    pub fn guest_writes(&self, volume: &VolumeId, text: &str) {
        let mut state = self.state();
        state.guests.get_mut(volume).expect("the guest runs").memory.push(text.into());
        state.volumes.get_mut(volume).expect("it has a volume").disk.push(text.into());
    }

    pub fn guest_memory(&self, volume: &VolumeId) -> Vec<String> {
        self.state().guests.get(volume).expect("the guest runs").memory.clone()
    }

    /// What was saved of the guest's memory.
    pub fn guest_memory_saved(&self, volume: &VolumeId) -> Vec<String> {
        self.state().volumes[volume].memory.clone().expect("it was saved")
    }

    pub fn kill_guest(&self, volume: &VolumeId) {
        self.state().guests.remove(volume).expect("the guest runs");
    }

    pub fn kill_instance(&self, instance: &InstanceId) {
        let mut state = self.state();
        state.instances.remove(instance);
        state.guests.retain(|_, guest| guest.instance != *instance);
    }

    pub fn assert_no_promise_broken(&self) {
        assert_eq!(self.state().broken, Vec::<String>::new());
    }

    /// Runs `effect` as the faults say. A dropped caller does not undo it: it runs in one go.
    async fn call<T>(
        &self,
        operation: &'static str,
        resource: &str,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let fault = {
            let mut state = self.state();
            let count = state.calls.entry(operation).or_default();
            *count += 1;
            let n = *count;
            match state.faults.remove(&(operation, n)).or_else(|| state.always.get(operation).cloned()) {
                None => return effect(&mut state),
                Some(fault) => fault,
            }
        };
        match fault {
            Fault::Fails(kind) => Err(Error::new(kind, operation, resource).with_effect(Effect::None)),
            Fault::LosesAnswer => {
                let _ = effect(&mut self.state());
                Err(Error::new(ErrorKind::UnknownOutcome, operation, resource))
            }
            Fault::Takes(time) => {
                tokio::time::sleep(time).await;
                effect(&mut self.state())
            }
            Fault::After(other) => {
                other();
                effect(&mut self.state())
            }
        }
    }
}

fn fence(volume: &mut Volume, epoch: Epoch) -> Result<()> {
    if epoch < volume.epoch {
        return Err(Error::new(ErrorKind::Fenced, "act", "volume"));
    }
    volume.epoch = epoch;
    Ok(())
}

fn absent(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "find", what)
}

#[async_trait]
impl InstanceProvider for World {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        self.call("instance.ensure", spec.id.as_str(), |state| {
            if !state.instances.contains(&spec.id) && state.instance_limit.is_some_and(|n| state.instances.len() >= n) {
                return Err(Error::new(ErrorKind::NoCapacity, "create instance", &spec.id));
            }
            state.instances.insert(spec.id.clone());
            Ok(InstanceView::new(spec.id.clone(), InstanceState::Running))
        })
        .await
    }
    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        self.call("instance.get", id.as_str(), |state| {
            Ok(state.instances.contains(id).then(|| InstanceView::new(id.clone(), InstanceState::Running)))
        })
        .await
    }
    async fn list(&self, _: Option<&Cursor>) -> Result<Page<InstanceView>> {
        self.call("instance.list", "all", |state| {
            let views = state.instances.iter().map(|id| InstanceView::new(id.clone(), InstanceState::Running));
            Ok(Page { items: views.collect(), next: None })
        })
        .await
    }
    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        Ok(InstanceView::new(id.clone(), InstanceState::Running))
    }
    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        Ok(InstanceView::new(id.clone(), InstanceState::Stopped))
    }
    async fn delete(&self, id: &InstanceId) -> Result<()> {
        self.call("instance.delete", id.as_str(), |state| {
            state.instances.remove(id);
            state.guests.retain(|_, guest| guest.instance != *id);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl VolumeProvider for World {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        self.call("volume.ensure", spec.id.as_str(), |state| {
            let copied = match &spec.source {
                // Any other is there from the beginning.
                VolumeSource::Snapshot(id) if id.as_str().starts_with("of-box-") => {
                    state.snapshots.get(id).cloned().ok_or_else(|| absent(id))?
                }
                _ => Volume::default(),
            };
            state.volumes.entry(spec.id.clone()).or_insert(copied);
            Ok(VolumeView::new(spec.id.clone(), VolumeState::Ready))
        })
        .await
    }
    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        self.call("volume.get", id.as_str(), |state| {
            Ok(state.volumes.contains_key(id).then(|| VolumeView::new(id.clone(), VolumeState::Ready)))
        })
        .await
    }
    async fn list(&self, _: Option<&Cursor>) -> Result<Page<VolumeView>> {
        self.call("volume.list", "all", |state| {
            let view = |(id, volume): (&VolumeId, &Volume)| {
                let mut view = VolumeView::new(id.clone(), VolumeState::Ready);
                view.used = volume.used;
                view
            };
            Ok(Page { items: state.volumes.iter().map(view).collect(), next: None })
        })
        .await
    }
    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        self.call("attach", attach.volume.as_str(), |state| {
            if !state.instances.contains(&attach.instance) {
                return Err(absent(&attach.instance));
            }
            let last = state.attached_last.get(&attach.instance).filter(|last| **last != attach.volume);
            let last = last.and_then(|last| state.volumes.get(last));
            let occupied = last.is_some_and(|last| last.on.as_ref() == Some(&attach.instance));
            let volume = state.volumes.get_mut(&attach.volume).ok_or_else(|| absent(&attach.volume))?;
            fence(volume, attach.epoch)?;
            let elsewhere = volume.on.as_ref().is_some_and(|on| *on != attach.instance);
            if elsewhere || occupied {
                return Err(Error::new(ErrorKind::Busy, "attach volume", &attach.volume));
            }
            volume.on = Some(attach.instance.clone());
            volume.used = true;
            state.attached_last.insert(attach.instance.clone(), attach.volume.clone());
            Ok(Attached::Yes(Device("lun0".into())))
        })
        .await
    }
    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        self.call("detach", attach.volume.as_str(), |state| {
            let running = state.guests.contains_key(&attach.volume);
            let Some(volume) = state.volumes.get_mut(&attach.volume) else { return Ok(Detached::Yes) };
            fence(volume, attach.epoch)?;
            if volume.on.as_ref() == Some(&attach.instance) {
                if running {
                    state.broken.push(format!("{} was pulled from under its guest", attach.volume));
                }
                volume.on = None;
            }
            Ok(Detached::Yes)
        })
        .await
    }
    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        self.detach(attach).await
    }
    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        self.call("snapshot", volume.as_str(), |state| {
            if state.guests.contains_key(volume) && !state.snapshots.contains_key(id) {
                return Err(Error::new(ErrorKind::Busy, "snapshot volume", volume));
            }
            let mut copied = state.volumes.get(volume).cloned().ok_or_else(|| absent(volume))?;
            (copied.on, copied.used) = (None, false);
            state.snapshots.entry(id.clone()).or_insert(copied);
            Ok(SnapshotView::new(id.clone(), true))
        })
        .await
    }
    async fn list_snapshots(&self, _: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        let items = self.state().snapshots.keys().map(|id| SnapshotView::new(id.clone(), true)).collect();
        Ok(Page { items, next: None })
    }
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.call("snapshot.delete", id.as_str(), |state| {
            state.snapshots.remove(id);
            Ok(())
        })
        .await
    }
    async fn delete(&self, id: &VolumeId) -> Result<()> {
        self.call("volume.delete", id.as_str(), |state| {
            if state.guests.contains_key(id) {
                state.broken.push(format!("{id} was deleted under its guest"));
            }
            state.volumes.remove(id);
            Ok(())
        })
        .await
    }
    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        self.call("resize", id.as_str(), |state| {
            if state.guests.contains_key(id) {
                return Err(Error::new(ErrorKind::Busy, "resize volume", id));
            }
            let volume = state.volumes.get_mut(id).ok_or_else(|| absent(id))?;
            volume.bytes = volume.bytes.max(bytes);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl GuestRuntime for World {
    async fn start(&self, guest: &Guest) -> Result<Started> {
        self.call("start", guest.volume.as_str(), |state| {
            if !state.instances.contains(&guest.instance) {
                return Err(absent(&guest.instance));
            }
            state.told_copied.push((guest.volume.clone(), guest.copied));
            let volume = state.volumes.get_mut(&guest.volume).ok_or_else(|| absent(&guest.volume))?;
            fence(volume, guest.epoch)?;
            if volume.on.as_ref() != Some(&guest.instance) {
                return Err(absent("attached volume"));
            }
            let by = match state.guests.get(&guest.volume) {
                Some(running) if running.instance != guest.instance => {
                    state.broken.push(format!("{} would run twice", guest.volume));
                    StartedBy::Adoption
                }
                Some(_) => StartedBy::Adoption,
                None => {
                    let saved = volume.memory.take();
                    let by = if saved.is_some() { StartedBy::Resume } else { StartedBy::Boot };
                    state.next_port += 1;
                    let memory = saved.unwrap_or_default();
                    let guest_now = RunningGuest { instance: guest.instance.clone(), memory, port: state.next_port };
                    state.guests.insert(guest.volume.clone(), guest_now);
                    by
                }
            };
            let before = state.started_last.insert(guest.instance.clone(), guest.volume.clone());
            let before = before.filter(|before| *before != guest.volume).and_then(|before| state.guests.get(&before));
            if before.is_some_and(|before| before.instance == guest.instance) {
                state.broken.push(format!("{} serves two guests", guest.instance));
            }
            Ok(Started { endpoint: endpoint(state.guests[&guest.volume].port), by })
        })
        .await
    }
    async fn suspend(&self, guest: &Guest) -> Result<Suspended> {
        self.call("suspend", guest.volume.as_str(), |state| {
            let Some(volume) = state.volumes.get_mut(&guest.volume) else { return Ok(Suspended::NotRunning) };
            fence(volume, guest.epoch)?;
            let running = state.guests.get(&guest.volume).is_some_and(|g| g.instance == guest.instance);
            if !running {
                return Ok(Suspended::NotRunning);
            }
            volume.memory = state.guests.remove(&guest.volume).map(|guest| guest.memory);
            Ok(Suspended::Saved)
        })
        .await
    }
    async fn stop(&self, guest: &Guest) -> Result<()> {
        self.call("stop", guest.volume.as_str(), |state| {
            let Some(volume) = state.volumes.get_mut(&guest.volume) else { return Ok(()) };
            fence(volume, guest.epoch)?;
            if state.guests.get(&guest.volume).is_some_and(|g| g.instance == guest.instance) {
                state.guests.remove(&guest.volume);
            }
            Ok(())
        })
        .await
    }
    async fn shut_down(&self, guest: &Guest, _: Duration) -> Result<()> {
        self.call("shut_down", guest.volume.as_str(), |state| {
            let Some(volume) = state.volumes.get_mut(&guest.volume) else { return Ok(()) };
            fence(volume, guest.epoch)?;
            if state.guests.get(&guest.volume).is_some_and(|g| g.instance == guest.instance) {
                state.guests.remove(&guest.volume);
            }
            volume.memory = None;
            Ok(())
        })
        .await
    }
    async fn status(&self, guest: &Guest) -> Result<GuestStatus> {
        self.call("status", guest.volume.as_str(), |state| {
            if let Some(volume) = state.volumes.get_mut(&guest.volume) {
                fence(volume, guest.epoch)?;
            }
            Ok(match state.guests.get(&guest.volume) {
                Some(running) if running.instance == guest.instance => GuestStatus::Running(endpoint(running.port)),
                _ => GuestStatus::NotRunning,
            })
        })
        .await
    }
    async fn clear(&self, instance: &InstanceId) -> Result<Cleared> {
        self.call("clear", instance.as_str(), |state| {
            let guest = state.guests.values().any(|guest| guest.instance == *instance);
            let volume = state.volumes.values().any(|volume| volume.on.as_ref() == Some(instance));
            Ok(if guest || volume { Cleared::Doubtful("something is left".into()) } else { Cleared::Clean })
        })
        .await
    }
}

pub fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Tcp(([127, 0, 0, 1], port).into()),
        login: "box".into(),
        host_key: format!("ssh-ed25519 {port}"),
    }
}

/// A store that counts, and fails on demand: operations `insert`, `update`, `delete`, `get`.
#[derive(Clone)]
pub struct WatchedStore {
    pub store: MemoryStore,
    pub world: World,
}

#[async_trait]
impl StateStore for WatchedStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.world.call("get", key.table.as_str(), |_| Ok(())).await?;
        self.store.get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.write("insert", key, self.store.insert(key, value)).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.write("update", key, self.store.update(key, version, value)).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.write("delete", key, self.store.delete(key, version)).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.world.call("scan", table.as_str(), |_| Ok(())).await?;
        self.store.scan(table, partition, cursor, limit).await
    }
}

impl WatchedStore {
    async fn write<T>(&self, operation: &'static str, key: &Key, write: impl Future<Output = Result<T>>) -> Result<T> {
        let counted = self.world.call(operation, key.table.as_str(), |_| Ok(())).await;
        let lost = counted.as_ref().is_err_and(|error| error.effect() == Effect::Unknown);
        if !lost {
            counted.as_ref().map_err(|error| Error::new(error.kind(), operation, key))?;
        }
        let outcome = write.await;
        if outcome.is_ok() {
            self.world.state().writes.push((operation, key.table.as_str().into()));
        }
        if lost { Err(Error::new(ErrorKind::UnknownOutcome, operation, key)) } else { outcome }
    }
}

pub fn config(instances: u32) -> PoolConfig {
    let mut config = PoolConfig::new(VolumeSource::Snapshot(SnapshotId::new("golden").unwrap()), "g1");
    config.instances = WarmTarget::new(instances, instances, instances);
    config.volumes = WarmTarget::new(2, 4, 1_000);
    config.linger = Duration::from_secs(5);
    config
}

/// One node on that world and store, with its worker running.
pub async fn node(world: &World, store: &MemoryStore, config: PoolConfig, seed: u64) -> Node {
    node_with(world, store, config, seed, |builder| builder).await
}

/// As [`node`], built with something else besides.
pub async fn node_with(
    world: &World,
    store: &MemoryStore,
    config: PoolConfig,
    seed: u64,
    with: impl FnOnce(PoolBuilder) -> PoolBuilder,
) -> Node {
    let watched = Arc::new(WatchedStore { store: store.clone(), world: world.clone() });
    let w = Arc::new(world.clone());
    let builder = Pool::builder(watched, w.clone(), w.clone(), w, config).seed(seed);
    let (pool, worker) = with(builder).build().await.unwrap();
    let worker = tokio::spawn(worker.run());
    Node { pool, worker }
}

pub struct Node {
    pub pool: Pool,
    worker: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Like `kill -9`: nothing of the node runs any more, and nothing was tidied up.
    pub async fn crash(self) {
        self.worker.abort();
        let _ = self.worker.await;
        std::mem::forget(self.pool);
    }

    /// How the worker ended.
    pub async fn ended(&mut self) -> std::result::Result<(), tokio::task::JoinError> {
        (&mut self.worker).await
    }

    pub async fn connect(&self, name: &str) -> Result<Session> {
        self.pool.connect(ConnectRequest::new(user(), BoxName::new(name).unwrap())).await
    }

    pub async fn create(&self, name: &str) -> VolumeId {
        self.pool.create_box(&user(), &BoxName::new(name).unwrap()).await.unwrap().volume
    }

    pub async fn state_of(&self, name: &str) -> &'static str {
        self.pool.get_box(&user(), &BoxName::new(name).unwrap()).await.unwrap().map_or("absent", |view| view.state())
    }

    /// Waits, in virtual time and with a limit, until the box is in that state.
    pub async fn until(&self, name: &str, state: &str) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(600);
        while self.state_of(name).await != state {
            assert!(tokio::time::Instant::now() < limit, "{name} is {} and not {state}", self.state_of(name).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the pool has so many free instances.
    pub async fn until_free(&self, n: usize) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(600);
        while self.pool.status().free_instances != n {
            assert!(tokio::time::Instant::now() < limit, "{:?}", self.pool.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn user() -> UserId {
    UserId::new("dev").unwrap()
}

/// Waits, in virtual time, until `test` holds.
pub async fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(600);
    while !test() {
        assert!(tokio::time::Instant::now() < limit, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
