//! The engine of a simulated world: one queue of things that will happen, in virtual time.
//!
//! *The world owns effects.* A call puts its effect into the queue and holds only the receiving end of the answer. What
//! becomes of the caller afterwards (dropped, timed out, crashed) does not touch the effect; lost answers, late effects and
//! crashes at any point all follow from this one rule.
//!
//! Things due in the same millisecond happen in an order drawn from the seed, not in the order in which they were asked for.

mod fate;
mod gate;
mod key;
mod latency;
mod steer;
mod trace;

pub use fate::{Fate, Faults, Refusal};
pub use latency::Pace;
pub use steer::HeldCall;
pub use trace::{Entry, Kind};

pub(crate) use gate::{Gate, Gated};
pub(crate) use key::{Draw, Hash};
pub(crate) use trace::Trace;

use crate::backend::{Look, Operation, Scene, SimWorld};
use boxpool::record::{LEASES, NODES};
use boxpool::{Error, ErrorKind, Result};
use latency::Latency;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// One start of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Caller {
    pub(crate) gateway: usize,
    pub(crate) incarnation: u32,
}

/// Names one call of a run: the n-th call of that operation for that purpose by that gateway, counted from 1. The purpose
/// is a record's place, an instance's seat, or the box a volume was made for, so that it stays the same when other parts of a
/// history are left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId {
    /// Which gateway calls.
    pub gateway: usize,
    /// What it calls.
    pub operation: Operation,
    /// What for.
    pub role: String,
    /// The how-manieth such call.
    pub nth: u32,
}

impl CallId {
    fn hash(&self) -> u64 {
        self.site().number(u64::from(self.nth)).value()
    }

    fn site(&self) -> Hash {
        site(self.gateway, self.operation, &self.role)
    }
}

fn site(gateway: usize, operation: Operation, role: &str) -> Hash {
    Hash::new(gateway as u64).number(operation as u64).text(role)
}

/// A call and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// Which call.
    pub call: CallId,
    /// What became of it.
    pub fate: Fate,
}

type Job = Box<dyn FnOnce(&SimWorld) + Send>;

/// How a world runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) pace: Pace,
    pub(crate) faults: Faults,
    pub(crate) script: Vec<Strike>,
    pub(crate) keep_trace: bool,
    /// Between 0 and so many milliseconds are added to each call's latency, so that nothing runs in lockstep.
    pub(crate) jitter: u64,
}

pub(crate) struct Engine {
    seed: u64,
    began: Instant,
    inner: Mutex<Inner>,
    wake: Arc<Notify>,
}

struct Inner {
    queue: BTreeMap<(u64, u64, u64), Job>,
    sequence: u64,
    nth: BTreeMap<u64, u32>,
    pace: Pace,
    jitter: u64,
    faults: Faults,
    script: BTreeMap<u64, Fate>,
    gateways: Vec<Member>,
    /// Which box a volume was made for.
    roles: BTreeMap<String, String>,
    trace: Trace,
    struck: Vec<Strike>,
    calls: u64,
    store_calls: u64,
    store_down: bool,
    crashes: mpsc::UnboundedSender<Caller>,
    /// Calls that wait to be let go, in a world that is led by hand.
    steering: Option<steer::Steering>,
    finished: bool,
}

/// What the engine knows of a gateway.
struct Member {
    alive: bool,
    incarnation: u32,
    tasks: Vec<AbortHandle>,
    gate: Arc<Gate>,
    cut_from_store: bool,
    cut_from_cloud: bool,
    clock_ms: i64,
    /// Millionths by which the clock gains, and since when.
    drift: (i32, u64),
    calls: u64,
    /// Fates for its calls, by their number in its whole life.
    strikes: BTreeMap<u64, Fate>,
    /// Every call, when they are to be counted.
    log: Option<Vec<LoggedCall>>,
    troubled: bool,
}

/// A call, by its number in its gateway's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedCall {
    pub(crate) number: u64,
    pub(crate) at: u64,
    pub(crate) operation: Operation,
    pub(crate) resource: String,
}

/// What one call asks of the world.
pub(crate) type Effect<T> = Arc<dyn Fn(&mut Scene<'_>) -> Result<T> + Send + Sync>;

impl Engine {
    pub(crate) fn new(settings: Settings) -> (Self, mpsc::UnboundedReceiver<Caller>) {
        let (crashes, crashed) = mpsc::unbounded_channel();
        let Settings { seed, pace, faults, script, keep_trace, jitter } = settings;
        let inner = Inner {
            queue: BTreeMap::new(),
            sequence: 0,
            nth: BTreeMap::new(),
            pace,
            jitter,
            faults,
            script: script.into_iter().map(|strike| (strike.call.hash(), strike.fate)).collect(),
            gateways: Vec::new(),
            roles: BTreeMap::new(),
            trace: Trace::new(keep_trace),
            struck: Vec::new(),
            calls: 0,
            store_calls: 0,
            store_down: false,
            crashes,
            steering: None,
            finished: false,
        };
        (Self { seed, began: Instant::now(), inner: Mutex::new(inner), wake: Arc::new(Notify::new()) }, crashed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the world began.
    /// How many calls to the state store were made.
    pub(crate) fn store_calls(&self) -> u64 {
        self.inner().store_calls
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does what is due, until the world is dropped.
    pub(crate) async fn drive(world: Weak<SimWorld>) {
        loop {
            // The world is let go of while waiting, so that dropping it ends this.
            let (next, wake) = {
                let Some(world) = world.upgrade() else { return };
                let Some(engine) = world.engine() else { return };
                let next = engine.run_due(&world).map(|at| engine.began + Duration::from_millis(at));
                (next, Arc::clone(&engine.wake))
            };
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// Does everything that is due and tells when the next thing is.
    fn run_due(&self, world: &SimWorld) -> Option<u64> {
        loop {
            let now = self.now();
            let job = {
                let mut inner = self.inner();
                if inner.finished {
                    inner.queue.clear();
                }
                let entry = inner.queue.first_entry()?;
                let (at, _, _) = *entry.key();
                if at > now {
                    return Some(at);
                }
                entry.remove()
            };
            job(world);
        }
    }

    /// Has `job` happen so many milliseconds from now.
    pub(crate) fn later(&self, by: u64, tie: u64, job: impl FnOnce(&SimWorld) + Send + 'static) {
        let at = self.now().saturating_add(by);
        let mut inner = self.inner();
        inner.sequence += 1;
        let place = (at, tie, inner.sequence);
        let first = inner.queue.first_key_value().is_none_or(|(next, _)| place < *next);
        inner.queue.insert(place, Box::new(job));
        drop(inner);
        if first {
            self.wake.notify_one();
        }
    }

    /// One call of a gateway, from request to answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        region: usize,
        caller: Caller,
        operation: Operation,
        resource: String,
        role: Option<String>,
        effect: Effect<T>,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.submit(region, caller, operation, resource, role, effect, reply);
        match answer.await {
            Ok(answer) => answer,
            // Never answered. The caller's own limit, or its death, ends the wait.
            Err(_) => std::future::pending().await,
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one call, each taken by value
    fn submit<T: Send + 'static>(
        &self,
        region: usize,
        caller: Caller,
        operation: Operation,
        resource: String,
        role: Option<String>,
        effect: Effect<T>,
        reply: oneshot::Sender<Result<T>>,
    ) {
        let now = self.now();
        let mut inner = self.inner();
        let Some(plan) = inner.plan(self.seed, now, caller, operation, &resource, role) else { return };
        drop(inner);
        let Some(reply) = self.hold(region, caller, operation, &resource, &effect, reply) else { return };
        let Plan { fate, latency: Latency { call, work }, tie } = plan;
        let perform = move |look: Look, work: u64| {
            let (effect, resource) = (Arc::clone(&effect), resource.clone());
            move |world: &SimWorld| world.perform_in(region, caller, operation, &resource, work, look, &*effect)
        };
        let refuse = |error: Error| move |_: &SimWorld| Err(error);
        let unknown = || {
            Error::new(ErrorKind::UnknownOutcome, operation.as_str(), "call")
                .with_detail("the answer was lost (simulated)")
        };
        let here = Look::Now;
        match fate {
            Fate::Deliver => self.schedule(caller, operation, call, tie, perform(here, work), Some(reply)),
            Fate::Stall { by } => self.schedule(caller, operation, call + by, tie, perform(here, work), Some(reply)),
            Fate::Stuck { by } => self.schedule(caller, operation, call, tie, perform(here, work + by), Some(reply)),
            Fate::Stale => self.schedule(caller, operation, call, tie, perform(Look::Stale, work), Some(reply)),
            Fate::Incomplete => {
                self.schedule(caller, operation, call, tie, perform(Look::Incomplete(tie), work), Some(reply));
            }
            Fate::Refuse(refusal) => {
                let error = Error::new(refusal.kind(), operation.as_str(), "call")
                    .with_detail(format!("{} (simulated)", refusal.kind()));
                self.schedule(caller, operation, call, tie, refuse(error), Some(reply));
            }
            Fate::Throttle { retry_after } => {
                let error = Error::new(ErrorKind::Throttled, operation.as_str(), "call")
                    .with_detail("too many requests (simulated)")
                    .with_retry_after(Duration::from_millis(retry_after));
                self.schedule(caller, operation, call, tie, refuse(error), Some(reply));
            }
            Fate::LoseAnswer => {
                self.schedule(caller, operation, call, tie, perform(here, work), None);
                self.schedule(caller, operation, call + 1, tie, refuse(unknown()), Some(reply));
            }
            Fate::SwallowAnswer => self.schedule(caller, operation, call, tie, perform(here, work), None),
            Fate::LoseCall => self.schedule(caller, operation, call, tie, refuse(unknown()), Some(reply)),
            Fate::SwallowCall => {}
            Fate::Late { by } => {
                self.schedule(caller, operation, call + by, tie, perform(here, work), None);
                self.schedule(caller, operation, call, tie, refuse(unknown()), Some(reply));
            }
            Fate::LateSilent { by } => self.schedule(caller, operation, call + by, tie, perform(here, work), None),
            Fate::Twice { by } => {
                self.schedule(caller, operation, call, tie, perform(here, work), Some(reply));
                if !operation.is_sent_once() {
                    self.schedule(caller, operation, call + by, tie, perform(here, work), None);
                }
            }
            Fate::SlowAnswer { by } => {
                let act = perform(here, work);
                self.later(call, tie, move |world| {
                    let outcome = act(world);
                    if let Some(engine) = world.engine() {
                        engine.later(by, tie, move |world| world.answer(caller, operation, outcome, reply));
                    }
                });
            }
            Fate::StandStill { by } => {
                let act = perform(here, work);
                self.later(call, tie, move |world| {
                    let outcome = act(world);
                    if let Some(engine) = world.engine() {
                        engine.stand_still(caller.gateway, by, tie);
                    }
                    world.answer(caller, operation, outcome, reply);
                });
            }
            Fate::CrashBefore => self.crash(caller),
            Fate::CrashAfter => {
                let act = perform(here, work);
                self.later(call, tie, move |world| {
                    let _ = act(world);
                    if let Some(engine) = world.engine() {
                        engine.crash(caller);
                    }
                });
            }
            Fate::CrashLater { by } => {
                self.crash(caller);
                self.schedule(caller, operation, call + by, tie, perform(here, work), None);
            }
        }
    }

    fn schedule<T: Send + 'static>(
        &self,
        caller: Caller,
        operation: Operation,
        by: u64,
        tie: u64,
        act: impl FnOnce(&SimWorld) -> Result<T> + Send + 'static,
        reply: Option<oneshot::Sender<Result<T>>>,
    ) {
        self.later(by, tie, move |world| {
            let outcome = act(world);
            if let Some(reply) = reply {
                world.answer(caller, operation, outcome, reply);
            }
        });
    }

    /// Whether that start of a gateway can be told something now.
    pub(crate) fn hears(&self, caller: Caller, operation: Operation) -> bool {
        let inner = self.inner();
        inner.reaches(caller, operation)
    }

    pub(crate) fn note(&self, gateway: Option<usize>, kind: Kind, what: &str, resource: &str) {
        let now = self.now();
        self.inner().trace.note(now, gateway, kind, what, resource);
    }

    pub(crate) fn remark(&self, gateway: Option<usize>, what: impl FnOnce() -> String) {
        let now = self.now();
        self.inner().trace.remark(now, gateway, what);
    }

    pub(crate) fn fingerprint(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.trace.fingerprint(), inner.trace.length())
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.inner().trace.entries().to_vec()
    }

    pub(crate) fn struck(&self) -> Vec<Strike> {
        self.inner().struck.clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// Says which box a volume was made for.
    pub(crate) fn set_role(&self, volume: &str, role: &str) {
        self.inner().roles.entry(volume.to_owned()).or_insert_with(|| role.to_owned());
    }

    /// From now on nothing goes wrong any more. What is under way takes its course.
    pub(crate) fn heal(&self) {
        let mut inner = self.inner();
        inner.faults = Faults::none();
        inner.script.clear();
        inner.store_down = false;
        for member in &mut inner.gateways {
            member.cut_from_store = false;
            member.cut_from_cloud = false;
            member.strikes.clear();
            member.gate.open();
        }
    }

    /// Ends the world: nothing that was under way happens any more.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner();
        inner.finished = true;
        inner.queue.clear();
        for member in &mut inner.gateways {
            member.alive = false;
            member.tasks.drain(..).for_each(|task| task.abort());
        }
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.inner().finished
    }

    pub(crate) fn store_outage(&self, down: bool) {
        let mut inner = self.inner();
        inner.store_down = down;
        inner.gateways.iter_mut().for_each(|member| member.troubled |= down);
    }

    /// Takes in a new gateway, or the next start of one that died.
    pub(crate) fn join(&self, gateway: Option<usize>) -> Caller {
        let mut inner = self.inner();
        let index = match gateway {
            Some(index) if index < inner.gateways.len() => {
                let member = &mut inner.gateways[index];
                member.alive = true;
                member.incarnation += 1;
                member.gate = Arc::new(Gate::default());
                member.tasks.clear();
                index
            }
            _ => {
                inner.gateways.push(Member {
                    alive: true,
                    incarnation: 0,
                    tasks: Vec::new(),
                    gate: Arc::new(Gate::default()),
                    cut_from_store: false,
                    cut_from_cloud: false,
                    clock_ms: 0,
                    drift: (0, 0),
                    calls: 0,
                    strikes: BTreeMap::new(),
                    log: None,
                    troubled: false,
                });
                inner.gateways.len() - 1
            }
        };
        Caller { gateway: index, incarnation: inner.gateways[index].incarnation }
    }

    /// Like `kill -9`: nothing of that start runs any more, and nothing was tidied up.
    pub(crate) fn crash(&self, caller: Caller) {
        let now = self.now();
        let mut inner = self.inner();
        let Some(member) = inner.gateways.get_mut(caller.gateway) else { return };
        if !member.alive || member.incarnation != caller.incarnation {
            return;
        }
        member.alive = false;
        member.troubled = true;
        let tasks = std::mem::take(&mut member.tasks);
        inner.trace.note(now, Some(caller.gateway), Kind::Fault, "crashed", "");
        let _ = inner.crashes.send(caller);
        drop(inner);
        tasks.into_iter().for_each(|task| task.abort());
    }

    /// The present start of a gateway, if it lives.
    pub(crate) fn living(&self, gateway: usize) -> Option<Caller> {
        let inner = self.inner();
        let member = inner.gateways.get(gateway)?;
        member.alive.then_some(Caller { gateway, incarnation: member.incarnation })
    }

    pub(crate) fn gateways(&self) -> usize {
        self.inner().gateways.len()
    }

    /// Remembers a task of a gateway, to end it when the gateway dies.
    pub(crate) fn adopt(&self, caller: Caller, task: AbortHandle) {
        let mut inner = self.inner();
        match inner.gateways.get_mut(caller.gateway) {
            Some(member) if member.alive && member.incarnation == caller.incarnation => {
                if member.tasks.len() >= 64 {
                    member.tasks.retain(|task| !task.is_finished());
                }
                member.tasks.push(task);
            }
            _ => task.abort(),
        }
    }

    pub(crate) fn gate(&self, gateway: usize) -> Option<Arc<Gate>> {
        self.inner().gateways.get(gateway).map(|member| Arc::clone(&member.gate))
    }

    /// Stops a gateway's every step, or lets it go on.
    pub(crate) fn pause(&self, gateway: usize, paused: bool) {
        let mut inner = self.inner();
        let Some(member) = inner.gateways.get_mut(gateway) else { return };
        member.troubled |= paused;
        let gate = Arc::clone(&member.gate);
        drop(inner);
        if paused { gate.close() } else { gate.open() }
    }

    fn stand_still(&self, gateway: usize, by: u64, tie: u64) {
        self.pause(gateway, true);
        self.later(by, tie, move |world| {
            if let Some(engine) = world.engine() {
                engine.pause(gateway, false);
            }
        });
    }

    /// Cuts a gateway from the store, the cloud or both, or mends it.
    pub(crate) fn cut(&self, gateway: usize, store: Option<bool>, cloud: Option<bool>) {
        let mut inner = self.inner();
        let Some(member) = inner.gateways.get_mut(gateway) else { return };
        member.troubled |= store == Some(true) || cloud == Some(true);
        member.cut_from_store = store.unwrap_or(member.cut_from_store);
        member.cut_from_cloud = cloud.unwrap_or(member.cut_from_cloud);
    }

    pub(crate) fn set_clock(&self, gateway: usize, by_ms: i64) {
        let now = self.now();
        if let Some(member) = self.inner().gateways.get_mut(gateway) {
            member.clock_ms = by_ms;
            member.drift.1 = now;
        }
    }

    /// What it is off by already stays.
    pub(crate) fn drift_clock(&self, gateway: usize, parts_per_million: i32) {
        let now = self.now();
        if let Some(member) = self.inner().gateways.get_mut(gateway) {
            member.clock_ms += drifted(member.drift, now);
            member.drift = (parts_per_million, now);
        }
    }

    pub(crate) fn clock_offset(&self, gateway: usize) -> i64 {
        let now = self.now();
        self.inner().gateways.get(gateway).map_or(0, |member| member.clock_ms + drifted(member.drift, now))
    }

    /// Whether anything ever happened to that gateway by which others may take it for dead.
    pub(crate) fn is_troubled(&self, gateway: usize) -> bool {
        self.inner().gateways.get(gateway).is_none_or(|member| member.troubled)
    }

    pub(crate) fn trouble(&self, gateway: usize) {
        if let Some(member) = self.inner().gateways.get_mut(gateway) {
            member.troubled = true;
        }
    }

    /// Decides the fate of a gateway's n-th call, counted from 1 over its whole life.
    pub(crate) fn strike(&self, gateway: usize, call: u64, fate: Fate) {
        if let Some(member) = self.inner().gateways.get_mut(gateway) {
            member.strikes.insert(call, fate);
        }
    }

    /// Begins to write down a gateway's calls.
    pub(crate) fn log_calls(&self, gateway: usize) {
        if let Some(member) = self.inner().gateways.get_mut(gateway) {
            member.log = Some(Vec::new());
        }
    }

    pub(crate) fn logged_calls(&self, gateway: usize) -> Vec<LoggedCall> {
        self.inner().gateways.get(gateway).and_then(|member| member.log.clone()).unwrap_or_default()
    }
}

struct Plan {
    fate: Fate,
    latency: Latency,
    tie: u64,
}

impl Inner {
    /// Counts a call and decides what becomes of it. `None`: it never leaves its gateway.
    fn plan(
        &mut self,
        seed: u64,
        now: u64,
        caller: Caller,
        operation: Operation,
        resource: &str,
        role: Option<String>,
    ) -> Option<Plan> {
        if self.finished {
            return None;
        }
        let gateway = caller.gateway;
        let member = self.gateways.get_mut(gateway)?;
        if !member.alive || member.incarnation != caller.incarnation {
            return None;
        }
        self.calls += 1;
        self.store_calls += u64::from(operation.is_store());
        member.calls += 1;
        let by_number = member.strikes.remove(&member.calls);
        if let Some(log) = &mut member.log {
            let number = member.calls;
            log.push(LoggedCall { number, at: now, operation, resource: resource.to_owned() });
        }
        let role = role.unwrap_or_else(|| self.role_of(operation, resource));
        let site = site(gateway, operation, &role);
        let nth = self.nth.entry(site.value()).or_default();
        *nth += 1;
        let nth = *nth;
        let key = Hash::new(seed).number(site.number(u64::from(nth)).value());
        let scripted =
            if self.script.is_empty() { None } else { self.script.get(&site.number(u64::from(nth)).value()).copied() };
        let fate = match by_number.or(scripted) {
            Some(fate) => fate,
            None => self.faults.draw(operation, key.number(1).draw()),
        };
        // The rank of a gateway's work for one thing, which changes now and then.
        let rank = Hash::new(seed).number(gateway as u64).text(&role).number(u64::from(nth / 8)).draw();
        let vital = operation.is_store() && (role == NODES.as_str() || role == LEASES.as_str());
        let mut latency = self.pace.latency(operation, vital, key.number(2).draw(), rank);
        if self.jitter > 0 && !vital {
            latency.call += key.number(3).draw().between(0, self.jitter);
        }
        self.trace.note(now, Some(gateway), Kind::Call, operation.as_str(), resource);
        if fate != Fate::Deliver {
            self.trace.note(now, Some(gateway), Kind::Fault, fate.word(), resource);
            let slow =
                matches!(fate, Fate::Stall { .. } | Fate::SlowAnswer { .. } | Fate::SwallowAnswer | Fate::SwallowCall);
            // Heartbeats that fail or come late may get the gateway taken for dead.
            if operation.is_store() || slow {
                self.gateways[gateway].troubled = true;
            }
            self.struck.push(Strike { call: CallId { gateway, operation, role, nth }, fate });
        }
        if !self.reaches(caller, operation) {
            // The request is lost on its way, unless the gateway dies of it first.
            if !matches!(fate, Fate::CrashBefore | Fate::CrashAfter | Fate::CrashLater { .. }) {
                return None;
            }
        }
        Some(Plan { fate, latency, tie: key.number(4).draw().next() })
    }

    fn reaches(&self, caller: Caller, operation: Operation) -> bool {
        let Some(member) = self.gateways.get(caller.gateway) else { return false };
        let cut = if operation.is_store() { member.cut_from_store || self.store_down } else { member.cut_from_cloud };
        member.alive && member.incarnation == caller.incarnation && !cut
    }

    fn role_of(&self, operation: Operation, resource: &str) -> String {
        match operation {
            Operation::InstanceEnsure
            | Operation::InstanceGet
            | Operation::InstanceStart
            | Operation::InstanceStop
            | Operation::InstanceDelete
            | Operation::Clear => resource.split('-').next().unwrap_or(resource).to_owned(),
            _ => {
                let volume = resource.strip_prefix("volumes/").unwrap_or(resource);
                self.roles.get(volume).cloned().unwrap_or_else(|| "pool".to_owned())
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How far a clock has gone wrong that gains so many millionths since then.
fn drifted((parts_per_million, since): (i32, u64), now: u64) -> i64 {
    let passed = i64::try_from(now.saturating_sub(since)).unwrap_or(i64::MAX);
    passed.saturating_mul(i64::from(parts_per_million)) / 1_000_000
}
