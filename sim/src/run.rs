//! Runs a case: the real pool on every gateway, users, faults, and then a time without faults in which everything must come
//! right.

mod contract;

use crate::backend::SimGolden;
use crate::case::{Case, Event, GENERATION, Happening, Op, Parking, What};
use crate::cloud::{Gateway, SimCloud};
use crate::engine::{Entry, Fate, Hash, Kind, LoggedCall, Pace, Strike};
use crate::oracle::repairs::Counts;
use crate::oracle::status;
use crate::oracle::stock::Habits;
use boxpool::record::{BoxRecord, InstanceStatus, Mode, Placement};
use boxpool::{
    Adoption, BoxId, BoxName, BoxRef, ConnectRequest, Effect, Error, ErrorKind, InstanceId, NodeId, Pool, PoolConfig,
    PoolStatus, SnapshotId, SnapshotName, UserId, Via, VolumeId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long users' calls may take beyond their own deadline before it counts as a call that never ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// A worker that was told to stop takes its node's record along, in a few calls to the store, and ends.
const WORKER_ENDS: Duration = Duration::from_secs(60);
/// Once faults have stopped, every box is connectable and everything is at rest within so long: a detach that hangs for its
/// whole limit, a machine that takes its whole limit to go, two lease times and a few passes.
const LIVENESS_BOUND: Duration = Duration::from_secs(30 * 60);
/// Boxes that are parked for no longer than this are waited for until they have left their instances.
const WORTH_WAITING: Duration = Duration::from_secs(30);
/// How often it is looked whether everything is at rest.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What came of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// What was true and must never be; empty in a sound run.
    pub violations: Vec<String>,
    /// Two runs with the same fingerprint went the same way.
    pub fingerprint: u64,
    /// How many calls the gateways made.
    pub calls: u64,
    /// How many things happened in all: calls, effects, and what users and the world did.
    pub events: u64,
    /// How often somebody was connected, worked, and left.
    pub lives: u64,
    /// How often somebody was refused.
    pub refusals: u64,
    /// How much virtual time passed.
    pub elapsed: Duration,
    /// The calls that were struck, and by what.
    pub struck: Vec<Strike>,
    /// What had to be put right, by name.
    pub repairs: BTreeMap<String, u64>,
    /// Situations that were reached, and how often.
    pub marks: BTreeMap<String, u64>,
    /// What happened, if it was to be kept.
    pub trace: Vec<Entry>,
}

/// What a crash-point survey wants beside the case itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe {
    /// What becomes of calls, by gateway and number of the call in its life.
    pub(crate) strikes: Vec<(usize, u64, Fate)>,
    /// Whether every gateway's calls are written down.
    pub(crate) log: bool,
    /// Before the dead come back, those who live must have put everything right within this time.
    pub(crate) settle_within: Option<Duration>,
}

/// What the survey is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// Every gateway's calls.
    pub(crate) calls: Vec<Vec<LoggedCall>>,
    /// How long after the users had left everything was right again.
    pub(crate) settled_after: Duration,
}

/// Runs a case in a runtime of its own.
#[must_use]
pub fn run(case: &Case) -> Outcome {
    run_keeping(case, false)
}

pub(crate) fn run_probed(case: &Case, probe: Probe, keep: bool) -> (Outcome, Findings) {
    let runtime = paused_runtime();
    let counts = Counts::default();
    metrics::with_local_recorder(&counts, || runtime.block_on(play(case.clone(), keep, counts.clone(), probe)))
}

/// As [`run`], and keeps the trace.
#[must_use]
pub fn run_traced(case: &Case) -> Outcome {
    run_keeping(case, true)
}

fn run_keeping(case: &Case, keep: bool) -> Outcome {
    run_probed(case, Probe::default(), keep).0
}

fn paused_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime with nothing but a timer needs nothing from the system")
}

async fn play(case: Case, keep: bool, counts: Counts, probe: Probe) -> (Outcome, Findings) {
    let cloud = SimCloud::builder()
        .seed(case.seed)
        .pace(case.pace)
        .faults(case.faults.clone())
        .script(case.script.clone())
        .jitter(case.jitter)
        .zones(case.zones)
        .forgets_epochs(case.pool.forgets_epochs)
        .keep_trace(keep)
        .page_size(*Hash::new(case.seed).text("pages").draw().pick(&[3, 20, 20]))
        .build()
        .expect("the runtime was made for it");
    let stage = Arc::new(Stage::new(cloud, case, &probe));
    stage.begin(&probe);
    stage.act().await;
    let mut findings = Findings::default();
    if let Some(limit) = probe.settle_within {
        findings.settled_after = stage.settle_among_the_living(limit).await;
    }
    if let Some(engine) = stage.cloud.world().engine() {
        findings.calls = (0..stage.case.gateways).map(|gateway| engine.logged_calls(gateway)).collect();
    }
    stage.calm_down().await;
    (stage.outcome(&counts), findings)
}

/// A running history.
struct Stage {
    cloud: SimCloud,
    case: Case,
    config: PoolConfig,
    /// Nothing is meant to go wrong.
    calm: bool,
    /// A probe strikes calls so that they are late or die or that their answers are lost.
    probed: bool,
    /// A probe counts calls: nobody makes any that users do not make.
    counted: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The present start of each gateway, once its pool is built.
    pools: BTreeMap<usize, (Gateway, Pool)>,
    /// Their workers.
    workers: BTreeMap<usize, JoinHandle<()>>,
    lives: u64,
    refusals: u64,
    /// No gateway is started again on its own any more.
    over: bool,
}

impl Stage {
    fn new(cloud: SimCloud, case: Case, probe: &Probe) -> Self {
        let config = case.pool.config();
        let calm = case.is_calm() && probe.strikes.is_empty();
        let probed = probe.strikes.iter().any(|(_, _, fate)| !matches!(fate, Fate::Refuse(_)));
        if case.pool.builds_golden {
            cloud.leave_golden("g0");
        }
        let mut state = cloud.world().state();
        state.oracle.books.max_instances = Some(config.instances.max_total as usize);
        state.oracle.stock.habits = Habits {
            calm: calm && no_drain(&case),
            brisk: is_brisk(&case),
            gateways: case.gateways,
            min_free: config.instances.min_free as usize,
            most_free: config.instances.goal.map(|_| config.instances.max_free as usize),
            min_reserve: config.instances.min_reserve as usize,
            per_minute: config.instances.creates_per_minute,
            expects: matches!(case.pool.parking, Parking::ReturnTime(_)),
            cool_down: config.instances.cool_down,
        };
        drop(state);
        Self { cloud, config, case, calm, probed, counted: probe.log, state: Mutex::default() }
    }

    fn undisturbed(&self) -> bool {
        self.calm && no_drain(&self.case)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, probe: &Probe) {
        for _ in 0..self.case.gateways {
            if let Ok(gateway) = self.cloud.gateway() {
                if let Some(engine) = self.cloud.world().engine().filter(|_| probe.log) {
                    engine.log_calls(gateway.number());
                }
                self.start(gateway);
            }
        }
        for (gateway, call, fate) in &probe.strikes {
            self.cloud.strike(*gateway, *call, *fate);
        }
        let stage = Arc::clone(self);
        tokio::spawn(async move { stage.supervise().await });
    }

    /// Starts the pool of a gateway. A process that cannot start exits, and is started again.
    fn start(self: &Arc<Self>, gateway: Gateway) {
        let (stage, here) = (Arc::clone(self), gateway.clone());
        gateway.spawn(async move {
            let parking = stage.case.pool.parking.policy();
            let mut builder = here.pool(stage.case.seed, stage.config.clone()).parking_policy(parking);
            if stage.case.pool.builds_golden {
                builder = builder.golden(Arc::new(SimGolden::new(here.volumes(), GENERATION)));
            }
            match builder.build().await {
                Ok((pool, worker)) => {
                    let running = here.spawn(worker.run());
                    let mut state = stage.state();
                    state.workers.insert(here.number(), running);
                    state.pools.insert(here.number(), (here.clone(), pool));
                }
                Err(_) => stage.cloud.crash_gateway(here.number()),
            }
        });
    }

    /// Starts gateways again that have died.
    async fn supervise(self: Arc<Self>) {
        loop {
            let number = self.cloud.crashed().await;
            self.state().pools.remove(&number);
            let stage = Arc::clone(&self);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(stage.case.restart_after)).await;
                stage.revive(number);
            });
        }
    }

    fn revive(self: &Arc<Self>, number: usize) {
        if self.state().pools.contains_key(&number) {
            return;
        }
        if let Ok(gateway) = self.cloud.restart_gateway(number) {
            self.start(gateway);
        }
    }

    fn pool(&self, number: usize) -> Option<(Gateway, Pool)> {
        let found = self.state().pools.get(&number).cloned();
        found.filter(|(gateway, _)| gateway.is_alive())
    }

    /// Users and misfortunes, until the last user has had their answer.
    async fn act(self: &Arc<Self>) {
        let mut running = Vec::new();
        for event in self.case.events.clone() {
            let stage = Arc::clone(self);
            running.push(tokio::spawn(async move { stage.happen(event).await }));
        }
        for op in self.case.ops.clone() {
            let stage = Arc::clone(self);
            running.push(tokio::spawn(async move { stage.perform(op).await }));
        }
        for task in running {
            // A task is never aborted here; one that panicked has found something worse than a violation.
            if let Err(error) = task.await {
                self.cloud.violate(format!("panic: {error}"));
            }
        }
    }

    async fn happen(self: &Arc<Self>, event: Event) {
        let cloud = &self.cloud;
        tokio::time::sleep(Duration::from_millis(event.at)).await;
        cloud.world().state().oracle.mark(event.what.word());
        let nth = |nth: usize| {
            let all = cloud.instances();
            (!all.is_empty()).then(|| all[nth % all.len()].clone())
        };
        match event.what {
            Happening::Crash { gateway } => cloud.crash_gateway(gateway),
            Happening::Pause { gateway, time } => {
                cloud.pause_gateway(gateway, true);
                tokio::time::sleep(Duration::from_millis(time)).await;
                cloud.pause_gateway(gateway, false);
            }
            Happening::Partition { gateway, store, cloud: of_cloud, time } => {
                cloud.partition_gateway(gateway, Some(store), Some(of_cloud));
                tokio::time::sleep(Duration::from_millis(time)).await;
                cloud.partition_gateway(gateway, Some(false), Some(false));
            }
            Happening::StoreOutage { time } => {
                cloud.store_outage(true);
                tokio::time::sleep(Duration::from_millis(time)).await;
                cloud.store_outage(false);
            }
            Happening::KillInstance { nth: n } => nth(n).iter().for_each(|id| cloud.kill_instance(id)),
            Happening::Preempt { nth: n } => nth(n).iter().for_each(|id| cloud.preempt_instance(id)),
            Happening::Reboot { nth: n } => nth(n).iter().for_each(|id| cloud.reboot_instance(id)),
            Happening::KillGuest { user, name } => self.owner(user, name).iter().for_each(|o| cloud.kill_guest(o)),
            Happening::HangGuest { user, name, time } => {
                let Some(owner) = self.owner(user, name) else { return };
                cloud.hang_guest(&owner, true);
                tokio::time::sleep(Duration::from_millis(time)).await;
                cloud.hang_guest(&owner, false);
            }
            Happening::Quota { instances, time } => {
                cloud.set_quota(Some(instances));
                tokio::time::sleep(Duration::from_millis(time)).await;
                cloud.set_quota(None);
            }
            Happening::Clock { gateway, ahead } => cloud.set_clock(gateway, ahead),
            Happening::Drift { gateway, parts_per_million } => cloud.drift_clock(gateway, parts_per_million),
            Happening::ZoneOutage { zone, time } => {
                cloud.zone_outage(zone, true);
                tokio::time::sleep(Duration::from_millis(time)).await;
                cloud.zone_outage(zone, false);
            }
        }
    }

    /// The box of that user and name as it is recorded now.
    fn owner(&self, user: u8, name: u8) -> Option<BoxRef> {
        let (user, name) = names(user, name);
        let world = self.cloud.world().state();
        let found =
            world.oracle.books.boxes.values().find(|record| record.owner.owner == user && record.owner.name == name);
        found.map(|record| record.owner.clone())
    }

    async fn perform(self: &Arc<Self>, op: Op) {
        tokio::time::sleep(Duration::from_millis(op.at)).await;
        let Some((gateway, pool)) = self.pool(op.gateway) else {
            self.state().refusals += 1;
            return;
        };
        let stage = Arc::clone(self);
        let here = gateway.clone();
        // An error means that the gateway died: its users are cut off and that is no answer to judge.
        let _ = gateway.spawn(async move { stage.serve(&here, &pool, op).await }).await;
    }

    async fn serve(&self, gateway: &Gateway, pool: &Pool, op: Op) {
        let (user, name) = names(op.user, op.name);
        let number = gateway.number();
        match op.what {
            What::Create => {
                let answer = self.timed(number, "create", LIMIT, pool.create_box(&user, &name)).await;
                self.judge_create(answer.map(|view| view.volume));
            }
            What::Visit { stay, patience, rude } => {
                let created = self.timed(number, "create", LIMIT, pool.create_box(&user, &name)).await;
                let exists = created.as_ref().is_ok() || created.as_ref().is_err_and(is_there);
                self.judge_create(created.map(|view| view.volume));
                if exists {
                    self.visit(number, pool, (user, name), stay, Duration::from_millis(patience), rude).await;
                }
            }
            What::GiveUp { after } => {
                let connect = pool.connect(ConnectRequest::new(user, name));
                let _ = tokio::time::timeout(Duration::from_millis(after), connect).await;
            }
            What::Delete => {
                let before = self.owner(op.user, op.name);
                let answer = self.timed(number, "delete", LIMIT, pool.delete_box(&user, &name)).await;
                if let (Ok(()), Some(owner)) = (&answer, before) {
                    self.judge_delete(&owner);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::List => {
                let before = self.boxes_of(&user);
                let answer = self.timed(number, "list", LIMIT, pool.list_boxes(&user)).await;
                self.count_refusal(answer.as_ref().err());
                if let Ok(list) = answer {
                    self.judge_list(&user, &before, &list.iter().map(|view| view.id.clone()).collect::<Vec<_>>());
                }
            }
            What::Adopt => {
                let disk = VolumeId::new(format!("disk-{user}-{name}")).expect("plain words are a valid id");
                let adopting = self.adopt(gateway, &disk, &user, &name, op.at);
                let answer = self.timed(number, "adopt", LIMIT, adopting).await;
                if answer.is_ok() {
                    self.judge_adoption(&disk, &user, &name);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::Start { patience } => {
                let patience = Duration::from_millis(patience);
                let starting = pool.start_box(&user, &name, patience);
                let answer = self.timed(number, "start", patience + LOOKS_AGAIN, starting).await;
                self.count_refusal(answer.as_ref().err());
            }
            What::Stop => {
                let answer = self.timed(number, "stop", LIMIT, pool.stop_box(&user, &name)).await;
                if answer.is_ok()
                    && let Some(owner) = self.owner(op.user, op.name)
                {
                    self.judge_stop(&owner);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::Cordon { nth, drain } => {
                let Some(id) = self.machine(nth) else { return };
                let answer = self.timed(number, "cordon", LIMIT, pool.cordon_instance(&id, drain, "a test")).await;
                self.count_refusal(answer.as_ref().err());
            }
            What::Uncordon { nth } => {
                let Some(id) = self.machine(nth) else { return };
                let answer = self.timed(number, "uncordon", LIMIT, pool.uncordon_instance(&id)).await;
                self.count_refusal(answer.as_ref().err());
            }
            What::Resize { gib } => {
                let bytes = gib << 30;
                let answer = self.timed(number, "resize", LIMIT, pool.resize_box(&user, &name, bytes)).await;
                if answer.is_ok()
                    && let Some(owner) = self.owner(op.user, op.name)
                {
                    self.judge_stop(&owner);
                    self.judge_resize(&owner, bytes);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::Snapshot { called } => {
                let called = snapshot(called);
                let answer = self.timed(number, "snapshot", TWICE, pool.take_snapshot(&user, &name, &called)).await;
                if let Ok(taken) = &answer {
                    self.judge_snapshot(taken);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::DropSnapshot { called } => {
                let called = snapshot(called);
                let before = self.snapshot_called(&user, &called);
                let dropping = pool.delete_snapshot(&user, &called);
                let answer = self.timed(number, "delete snapshot", LIMIT, dropping).await;
                if let (Ok(()), Some(before)) = (&answer, before) {
                    self.judge_dropped(&before);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::Restore { called } => {
                let called = snapshot(called);
                let restoring = pool.restore_box(&user, &called, &name);
                let answer = self.timed(number, "restore", LIMIT, restoring).await;
                if let Ok(view) = &answer {
                    self.judge_copy(&user, view);
                }
                self.judge_create(answer.map(|view| view.volume));
            }
            What::Duplicate { to } => {
                let to = names(op.user, to).1;
                let copying = pool.duplicate_box(&user, &name, &to);
                let answer = self.timed(number, "duplicate", 2 * TWICE, copying).await;
                if let Ok(view) = &answer {
                    self.judge_copy(&user, view);
                }
                self.judge_create(answer.map(|view| view.volume));
            }
            What::Rename { to } => {
                let to = names(op.user, to).1;
                let before = self.is_named(&user, &to);
                let answer = self.timed(number, "rename", LIMIT, pool.rename_box(&user, &name, &to)).await;
                match &answer {
                    Ok(view) => self.judge_rename(view, &to),
                    Err(error) => self.judge_name_in_use(error, &user, &to, before),
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::Purge => {
                let before = self.owner(op.user, op.name);
                let answer = self.timed(number, "purge", LIMIT, pool.purge_box(&user, &name)).await;
                if let (Ok(()), Some(owner)) = (&answer, before) {
                    self.judge_delete(&owner);
                }
                self.count_refusal(answer.as_ref().err());
            }
            What::Undelete => {
                let answer = self.timed(number, "undelete", LIMIT, pool.undelete_box(&user, &name)).await;
                self.count_refusal(answer.as_ref().err());
            }
            What::Share { on } => {
                let answer = self.timed(number, "share", LIMIT, pool.share_box(&user, &name, &guest(), on)).await;
                self.count_refusal(answer.as_ref().err());
            }
            What::Guest => {
                let request = ConnectRequest::new(user, name).by(guest());
                let limit = self.config.connect_deadline;
                match self.timed(number, "connect of a guest", limit, pool.connect(request)).await {
                    Ok(session) => {
                        self.judge_session(&session, "when a guest was let in");
                        self.judge_guest(session.owner());
                        session.release().await;
                    }
                    Err(error) => self.count_refusal(Some(&error)),
                }
            }
            What::Keep { on } => {
                let mode = if on { Mode::KeepRunning } else { Mode::SuspendOnLeave };
                let answer = self.timed(number, "keep", LIMIT, pool.set_mode(&user, &name, mode)).await;
                self.count_refusal(answer.as_ref().err());
            }
            What::Drain => {
                self.cloud.world().engine().into_iter().for_each(|engine| engine.trouble(number));
                let report = pool.drain(Duration::from_secs(60)).await;
                self.note(number, "drained", "");
                // With faults a leave may fail; that is logged, and left to the others.
                if report.unfinished.is_empty() && self.calm {
                    self.judge_drain(pool.node());
                    let worker = self.state().workers.remove(&number);
                    // Whoever drains a second time, meanwhile, does not see its end.
                    if let Some(worker) = worker {
                        let ended = tokio::time::timeout(WORKER_ENDS, worker).await.is_ok();
                        self.judge_leave(pool.node(), ended);
                    }
                }
                // The process ends now; whatever it left, others finish.
                self.cloud.crash_gateway(number);
            }
        }
    }

    async fn visit(
        &self,
        gateway: usize,
        pool: &Pool,
        (user, name): (UserId, BoxName),
        stay: u64,
        patience: Duration,
        rude: bool,
    ) -> bool {
        let (teller, told) = boxpool::progress();
        let request = ConnectRequest::new(user.clone(), name.clone()).deadline(patience).progress(teller);
        let begun = Instant::now();
        let session = match self.timed(gateway, "connect", patience, pool.connect(request)).await {
            Ok(session) => session,
            Err(error) => {
                self.count_refusal(Some(&error));
                self.judge_refusal(&error, begun.elapsed());
                return false;
            }
        };
        let owner = session.owner().clone();
        self.note(gateway, "connected", name.as_str());
        self.judge_session(&session, "when connect said so");
        self.judge_haste(&session);
        // The sender may be gone with the connect; what it had said before then is there.
        if session.via() != Via::Running && !told.has_changed().unwrap_or(true) {
            self.cloud.violate(format!("contract: {owner} came up, and nobody was told how"));
        }
        if self.undisturbed() && !self.counted {
            self.judge_place(pool, &session).await;
        }
        // What a user does in their box: see what is in memory, leave something on the disk.
        let worked = self.cloud.count(&owner).is_ok();
        let text = format!("{gateway}.{}", self.cloud.elapsed().as_millis());
        let _ = self.cloud.write(&owner, &text);
        if stay > 0 {
            tokio::time::sleep(Duration::from_millis(stay)).await;
            self.judge_open(gateway, &session, "while a session was open");
            self.judge_end(&session).await;
            let _ = self.cloud.count(&owner);
        }
        self.note(gateway, "left", name.as_str());
        if rude {
            drop(session);
        } else {
            session.release().await;
        }
        self.state().lives += u64::from(worked);
        worked
    }

    /// That user's snapshot of that name, as it is recorded now.
    fn snapshot_called(&self, user: &UserId, name: &SnapshotName) -> Option<SnapshotId> {
        let world = self.cloud.world().state();
        let its =
            |record: &&boxpool::record::SnapshotRecord| record.of.owner == *user && record.name.as_ref() == Some(name);
        world.oracle.books.snapshots.values().find(its).map(|record| record.id.clone())
    }

    /// Whether there is any record under that name.
    fn is_named(&self, user: &UserId, name: &BoxName) -> bool {
        let state = self.cloud.world().state();
        state.oracle.books.boxes.values().any(|record| record.owner.owner == *user && record.owner.name == *name)
    }

    /// The n-th machine on record, in order of names.
    fn machine(&self, nth: usize) -> Option<InstanceId> {
        let world = self.cloud.world().state();
        let all: Vec<_> = world.oracle.books.instances.values().map(|record| record.id.clone()).collect();
        (!all.is_empty()).then(|| all[nth % all.len()].clone())
    }

    /// The administrator takes back into use what is out of it and not to be emptied.
    async fn uncordon_all(&self) {
        let begun = Instant::now();
        while begun.elapsed() < LIVENESS_BOUND {
            let out: Vec<InstanceId> = {
                let world = self.cloud.world().state();
                let records = world.oracle.books.instances.values();
                let out = records.filter(|record| record.cordon.is_some() && !record.is_draining());
                let out = out.filter(|record| !matches!(record.status, InstanceStatus::Deleting { .. }));
                out.map(|record| record.id.clone()).collect()
            };
            if out.is_empty() {
                return;
            }
            let pool = self.state().pools.values().next().map(|(_, pool)| pool.clone());
            if let Some(pool) = pool {
                for id in out {
                    // What was deleted meanwhile is not out of use any more.
                    let _ = pool.uncordon_instance(&id).await;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// That user's boxes, as they are recorded now.
    fn boxes_of(&self, user: &UserId) -> BTreeSet<BoxId> {
        let state = self.cloud.world().state();
        state
            .oracle
            .books
            .boxes
            .values()
            .filter(|record| record.owner.owner == *user && record.deleted_until.is_none())
            .filter(|record| state.oracle.books.is_box(record))
            .map(|record| record.owner.id.clone())
            .collect()
    }

    async fn adopt(
        &self,
        gateway: &Gateway,
        disk: &VolumeId,
        user: &UserId,
        name: &BoxName,
        at: u64,
    ) -> Result<(), Error> {
        let seed = Hash::new(self.case.seed).text("adopt").number(gateway.number() as u64).number(at).draw().next();
        let adoption = Adoption::new(gateway.store(), gateway.clock(), seed)?;
        if adoption.begin_volume(disk, user, name).await? {
            self.cloud.leave_volume(disk);
            adoption.end_volume(disk, user, name).await?;
        }
        Ok(())
    }

    /// I6: every call ends by its deadline, on a gateway that nothing held up.
    async fn timed<T>(
        &self,
        gateway: usize,
        what: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let answer = call.await;
        let word =
            answer.as_ref().err().map_or_else(|| format!("{what}: ok"), |error| format!("{what}: {}", error.kind()));
        self.note(gateway, &word, "");
        let troubled = self.cloud.world().engine().is_none_or(|engine| engine.is_troubled(gateway));
        if begun.elapsed() > limit + PATIENCE && !troubled {
            self.cloud.violate(format!("I6: {what} took {:?}, and its limit was {limit:?}", begun.elapsed()));
        }
        answer
    }

    fn note(&self, gateway: usize, what: &str, resource: &str) {
        if let Some(engine) = self.cloud.world().engine() {
            engine.note(Some(gateway), Kind::User, what, resource);
        }
    }

    fn count_refusal(&self, error: Option<&Error>) {
        if let Some(error) = error {
            self.state().refusals += 1;
            // A calm world refuses only what is really not there.
            let fair = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NoCapacity | ErrorKind::TimedOut);
            if self.calm && !fair && error.effect() == Effect::Unknown {
                self.cloud.violate(format!("contract: without any fault somebody was told {error}"));
            }
        }
    }

    /// Faults stop. Then every gateway comes back, every box must be connectable, and everything must come to rest.
    async fn calm_down(self: &Arc<Self>) {
        self.cloud.heal();
        self.state().over = true;
        let begun = Instant::now();
        for number in 0..self.case.gateways {
            self.cloud.set_clock(number, 0);
            self.revive(number);
        }
        self.uncordon_all().await;
        let boxes: Vec<BoxRef> =
            self.cloud.world().state().oracle.books.boxes.values().map(|record| record.owner.clone()).collect();
        let visits: Vec<_> = boxes
            .iter()
            .enumerate()
            .map(|(index, owner)| {
                let (stage, owner) = (Arc::clone(self), owner.clone());
                tokio::spawn(async move { stage.must_come_up(index, owner, begun).await })
            })
            .collect();
        for visit in visits {
            if let Err(error) = visit.await {
                self.cloud.violate(format!("panic: {error}"));
            }
        }
        loop {
            let complaints = self.complaints();
            if complaints.is_empty() {
                break;
            }
            if begun.elapsed() >= LIVENESS_BOUND {
                for complaint in complaints {
                    self.cloud.violate(format!("at rest: {complaint}"));
                }
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            // A fault that was already on its way may have struck another one down.
            (0..self.case.gateways).for_each(|number| self.revive(number));
        }
        // The last event is written beside everything else.
        tokio::time::sleep(2 * LOOK_EVERY).await;
    }

    /// Waits until those who live have put everything right; tells how long that took.
    async fn settle_among_the_living(&self, limit: Duration) -> Duration {
        let begun = Instant::now();
        loop {
            let live: Vec<NodeId> = {
                let state = self.state();
                let alive = state.pools.values().filter(|(gateway, _)| gateway.is_alive());
                alive.map(|(_, pool)| pool.node().clone()).collect()
            };
            let complaints = self.cloud.check_settled(&self.config, &live);
            match complaints {
                Ok(()) => return begun.elapsed(),
                Err(violations) if begun.elapsed() >= limit => {
                    for complaint in violations.what {
                        self.cloud.violate(format!("recovery: after {limit:?} there was still {complaint}"));
                    }
                    return limit;
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    fn complaints(&self) -> Vec<String> {
        let live: Vec<NodeId> = self.state().pools.values().map(|(_, pool)| pool.node().clone()).collect();
        if live.len() < self.case.gateways {
            return vec![format!("I7: {} of {} gateways are up", live.len(), self.case.gateways)];
        }
        let mut found =
            self.cloud.check_settled(&self.config, &live).map_or_else(|violations| violations.what, |()| Vec::new());
        let says: Vec<PoolStatus> = self.state().pools.values().map(|(_, pool)| pool.status()).collect();
        let maintainers = says.iter().filter(|says| says.maintainer).count();
        if maintainers != 1 {
            found.push(format!("I7: {maintainers} nodes say that they are the maintainer"));
        }
        // Clocks are right again by now; a stamp that was set by a wrong one may lie far ahead.
        let now = self.state().pools.values().next().map(|(gateway, _)| gateway.clock().now());
        let world = self.cloud.world().state();
        let books = &world.oracle.books;
        found.extend(says.iter().flat_map(|says| status::complaints(books, says, self.case.gateways)));
        let kept = books.boxes.values().filter(|record| record.mode == Mode::KeepRunning).count();
        let room = kept <= self.config.instances.max_total as usize;
        for record in books.boxes.values() {
            if record.deleted_until.is_some_and(|until| Some(until) <= now) {
                found.push(format!("I7: {} was deleted, and its time is over", record.owner));
            }
            match record.placement {
                Placement::Running { .. } if record.mode == Mode::KeepRunning => {}
                _ if record.mode == Mode::KeepRunning && room => {
                    found.push(format!("I7: {} is to run and is {}", record.owner, record.placement));
                }
                Placement::Running { .. } => found.push(format!("I7: {} runs and nobody is there", record.owner)),
                Placement::Parked { .. }
                    if self.case.pool.parking.limit().min(self.config.park_limit) <= WORTH_WAITING =>
                {
                    found.push(format!("I7: {} is parked beyond its limit", record.owner));
                }
                _ => {}
            }
        }
        found
    }

    async fn must_come_up(self: Arc<Self>, index: usize, mut owner: BoxRef, begun: Instant) {
        let mut number = index;
        let mut last = String::new();
        while begun.elapsed() < LIVENESS_BOUND {
            number += 1;
            let gone = {
                let state = self.cloud.world().state();
                let record = state.oracle.books.current(&owner.id);
                // It may have been renamed by now.
                if let Some(record) = record {
                    owner = record.owner.clone();
                }
                let deleting = |record: &BoxRecord| matches!(record.placement, Placement::Deleting { .. });
                record.is_none_or(|record| record.deleted_until.is_some() || deleting(record))
            };
            if gone {
                return;
            }
            let Some((_, pool)) = self.pool(number % self.case.gateways) else {
                last = "its gateway is not up".into();
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let request = ConnectRequest::new(owner.owner.clone(), owner.name.clone());
            match pool.connect(request).await {
                Ok(session) => {
                    let works = self.cloud.count(&owner).is_ok() || *session.owner() != owner;
                    self.judge_session(&session, "after faults had stopped");
                    session.release().await;
                    if works {
                        return;
                    }
                    last = "connected, and no guest answers".into();
                }
                Err(error) => last = boxpool::Report(&error).to_string(),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let state = self.cloud.world().state();
        let kept = state.oracle.books.boxes.values().filter(|record| record.mode == Mode::KeepRunning).count();
        drop(state);
        // Boxes that are kept running make no room.
        if kept < self.config.instances.max_total as usize {
            self.cloud.violate(format!("I7: {owner} could not be connected to any more: {last}"));
        }
    }

    fn outcome(&self, counts: &Counts) -> Outcome {
        let engine = self.cloud.world().engine();
        let repairs = counts.repairs();
        if self.calm && !repairs.is_empty() && self.case.ops.iter().all(|op| op.what != What::Drain) {
            self.cloud.violate(format!("repairs: without any fault there was something to put right: {repairs:?}"));
        }
        if self.undisturbed() {
            self.judge_log(counts);
        }
        self.judge_repairs(&repairs);
        let state = self.cloud.world().state();
        let mut marks: BTreeMap<String, u64> =
            state.oracle.marks.iter().map(|(mark, count)| ((*mark).to_owned(), *count)).collect();
        for ((from, to), count) in &state.oracle.books.moves {
            marks.insert(format!("{from} → {to}"), *count);
        }
        drop(state);
        let struck = self.cloud.struck();
        for strike in &struck {
            *marks.entry(format!("{}: {}", strike.call.operation.as_str(), strike.fate.word())).or_default() += 1;
        }
        for (name, count) in &repairs {
            marks.insert(name.clone(), *count);
        }
        let run = self.state();
        Outcome {
            violations: self.cloud.world().violations(),
            fingerprint: self.cloud.fingerprint(),
            calls: engine.map_or(0, |engine| engine.calls()),
            events: engine.map_or(0, |engine| engine.fingerprint().1),
            lives: run.lives,
            refusals: run.refusals,
            elapsed: self.cloud.elapsed(),
            struck,
            repairs,
            marks,
            trace: self.cloud.trace(),
        }
    }
}

/// The longest that creating or deleting a box may take: its volume's limit, and the wait for another's step.
const LIMIT: Duration = Duration::from_secs(700);

/// The same for what waits for a box to come to rest, and then does as much again.
const TWICE: Duration = Duration::from_secs(1_400);

/// With whom boxes are shared.
fn guest() -> UserId {
    names(99, 1).0
}

/// A start ends with one more look at the record.
const LOOKS_AGAIN: Duration = Duration::from_secs(15);

/// Nothing is meant to go wrong, and nobody is shut down.
fn no_drain(case: &Case) -> bool {
    case.ops.iter().all(|op| op.what != What::Drain)
}

/// Every call takes some milliseconds.
fn is_brisk(case: &Case) -> bool {
    case.pace == Pace::Host && case.jitter == 0
}

fn is_there(error: &Error) -> bool {
    error.kind() == ErrorKind::AlreadyExists
}

fn snapshot(called: u8) -> SnapshotName {
    SnapshotName::new(format!("s{called}")).expect("a letter and a number make a valid name")
}

fn names(user: u8, name: u8) -> (UserId, BoxName) {
    let user = UserId::new(format!("u{user}")).expect("a letter and a number make a valid id");
    let name = BoxName::new(format!("b{name}")).expect("a letter and a number make a valid name");
    (user, name)
}
