//! Several regions behind one front, struck at every point, as [`crashpoints`](crate::crashpoints) does with one pool.
//!
//! For each flow a run without faults tells which calls the gateways make; then the flow is run once more for each call that
//! changes something and each [fate](Fate), and with a second strike after a first one. The worlds' own judges look after every effect; beside them it is looked at that no
//! box is there, or runs, in two regions. When those who live have had their time, each region is at rest, every home is settled, each
//! box has one home and each home its box, and every box is connectable with all that its guest was told is on its disk.

use crate::case::PoolShape;
use crate::cloud::{Gateway, SimCloud};
use crate::crashpoints::{STANDS_STILL, bound, telling};
use crate::engine::{Entry, Fate, LoggedCall, Pace};
use crate::oracle::settled;
use boxpool::record::{HOMES, HomeRecord, HomeStatus};
use boxpool::{
    BoxId, BoxName, BoxRef, ConnectRequest, Error, ErrorKind, NodeId, Pool, PoolConfig, Region, Regions, StateStore,
    UserId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// From when on a flow's calls are struck: before, the worlds are only being set up.
const BEGINS_AT: u64 = 39_000;
/// How long after the last deed a flow's calls are struck.
const STRUCK_FOR: u64 = 30_000;
/// In how many regions a flow is.
const REGIONS: usize = 2;
/// What those who live may take beyond the time in which one pool recovers: fronts wait for their pools, and a call that is never
/// answered for its own limit.
const FRONT_MARGIN: Duration = Duration::from_secs(900);

/// What is done in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Make the box in that region.
    Create(usize),
    /// Connect to it, have its guest write a line, and leave.
    Visit,
    /// The same, so many milliseconds later.
    VisitAfter(u64),
    /// Take it to that region.
    Move(usize),
    /// Call it by that number, from whatever it is called.
    Rename(u8),
    /// Make another of it, called by that number.
    Duplicate(u8),
    /// Make the box in that region's pool, behind the front's back.
    CreateBehind(usize),
    Delete,
}

/// When, at which gateway, what, and with the box of which name.
type Step = (u64, usize, u8, Deed);

/// Where a flow is struck: which gateway, which of its calls, by its number in the gateway's life, and what becomes of it.
pub type Strike = (usize, u64, Fate);

/// What a survey of one flow found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Which flow.
    pub flow: &'static str,
    /// How many points were tried.
    pub points: usize,
    /// The longest time in which those who live put everything right.
    pub longest: Duration,
    /// How many of them with a second strike.
    pub second: usize,
    /// What went wrong, and where.
    pub failures: Vec<(Vec<Strike>, String)>,
}

/// The flows, by name.
#[must_use]
pub fn flows() -> Vec<&'static str> {
    all_flows().into_iter().map(|(name, _)| name).collect()
}

fn all_flows() -> Vec<(&'static str, Vec<Step>)> {
    use Deed::{Create, CreateBehind, Delete, Duplicate, Move, Rename, Visit, VisitAfter};
    vec![
        ("create", vec![(40, 0, 1, Create(1)), (60, 1, 1, Visit)]),
        ("create and delete", vec![(40, 0, 1, Create(1)), (45, 0, 1, Delete), (70, 1, 1, Create(0))]),
        ("move a box that never ran", vec![(40, 1, 1, Create(0)), (45, 0, 1, Move(1)), (200, 1, 1, Visit)]),
        (
            "move a parked box while others connect",
            vec![
                (40, 1, 1, Create(0)),
                (42, 1, 1, Visit),
                (60, 0, 1, Move(1)),
                (60, 1, 1, VisitAfter(100)),
                (60, 1, 1, VisitAfter(250)),
                (60, 1, 1, VisitAfter(350)),
                (60, 1, 1, VisitAfter(450)),
                (60, 1, 1, VisitAfter(600)),
                (90, 1, 1, Visit),
            ],
        ),
        (
            "move a box away and back",
            vec![(40, 1, 1, Create(1)), (42, 0, 1, Visit), (60, 0, 1, Move(0)), (75, 1, 1, Move(1)), (90, 0, 1, Visit)],
        ),
        (
            "move a box and delete it",
            vec![(40, 1, 1, Create(0)), (45, 0, 1, Move(1)), (46, 1, 1, Delete), (90, 1, 1, Create(0))],
        ),
        (
            "two fronts at once",
            vec![
                (40, 0, 1, Create(0)),
                (40, 1, 1, Create(1)),
                (46, 0, 1, Move(1)),
                (46, 1, 1, Move(0)),
                (70, 0, 1, Rename(2)),
                (70, 1, 1, Move(0)),
                (90, 1, 2, Visit),
            ],
        ),
        ("rename a box", vec![(40, 1, 1, Create(1)), (45, 0, 1, Rename(2)), (80, 1, 2, Visit)]),
        (
            "a name that another region has",
            vec![
                (40, 1, 1, Create(1)),
                (44, 1, 2, Create(0)),
                (48, 0, 1, Rename(2)),
                (50, 0, 2, Create(1)),
                (60, 1, 2, Visit),
            ],
        ),
        (
            "duplicate a box while its name to be is given away",
            vec![
                (40, 1, 1, Create(1)),
                (42, 0, 1, Visit),
                (60, 0, 1, Duplicate(2)),
                (60, 1, 2, Create(0)),
                (75, 1, 2, Move(0)),
                (90, 0, 2, Visit),
            ],
        ),
        (
            "a box that was made behind the front's back",
            vec![(40, 1, 1, CreateBehind(1)), (42, 0, 1, Visit), (60, 0, 1, Move(0)), (80, 1, 1, Visit)],
        ),
    ]
}

/// Tries every point of every flow whose name contains `only`, and each `second_every`-th second strike after a first (0: none), on
/// all cores.
#[must_use]
pub fn survey(only: &str, second_every: usize) -> Vec<Report> {
    let wanted = all_flows().into_iter().filter(|(name, _)| name.contains(only));
    wanted.map(|(name, steps)| survey_flow(name, &steps, second_every)).collect()
}

/// The first thing that goes wrong in that flow, undisturbed or at each `every`-th point, in this thread alone.
#[must_use]
pub fn first_failure(flow: &str, every: usize) -> Option<String> {
    let (_, steps) = all_flows().into_iter().find(|(name, _)| *name == flow)?;
    let undisturbed = play_alone(&steps, &[], false);
    let points = points(&steps, &undisturbed, BEGINS_AT).into_iter().step_by(every.max(1));
    let mut wrong = undisturbed.wrong.into_iter();
    wrong
        .next()
        .or_else(|| points.into_iter().find_map(|strike| play_alone(&steps, &[strike], false).wrong.into_iter().next()))
}

/// Runs a flow with its calls struck there, or undisturbed, and tells what happened and what was wrong.
#[must_use]
pub fn replay(flow: &str, strikes: &[Strike]) -> (Vec<Entry>, Vec<String>) {
    let found = all_flows().into_iter().find(|(name, _)| *name == flow);
    let played = found.map(|(_, steps)| play_alone(&steps, strikes, true));
    played.map(|played| (played.trace, played.wrong)).unwrap_or_default()
}

fn struck_until(steps: &[Step]) -> u64 {
    steps.iter().map(|step| step.0 * 1_000).max().unwrap_or_default() + STRUCK_FOR
}

/// Where a flow is struck: at each call that changes something, from then until all deeds have been done for a while.
fn points(steps: &[Step], played: &Played, from: u64) -> Vec<Strike> {
    const FATES: [Fate; 6] = [
        Fate::CrashBefore,
        Fate::CrashAfter,
        Fate::CrashLater { by: 15_000 },
        Fate::LoseAnswer,
        Fate::Late { by: 15_000 },
        STANDS_STILL,
    ];
    let mut points = Vec::new();
    for (gateway, calls) in played.calls.iter().enumerate() {
        for call in calls.iter().filter(|call| (from..struck_until(steps)).contains(&call.at) && telling(call)) {
            points.extend(FATES.map(|fate| (gateway, call.number, fate)));
        }
    }
    points
}

/// What may follow a first strike: another, at any later call of whoever lives.
fn second_strikes(steps: &[Step], first: Strike, played: &Played) -> Vec<[Strike; 2]> {
    let calls = played.calls.get(first.0);
    let struck = calls.and_then(|calls| calls.iter().find(|call| call.number == first.1));
    let Some(at) = struck.map(|call| call.at) else { return Vec::new() };
    let later = points(steps, played, at).into_iter();
    later.filter(|second| (second.0, second.1) != (first.0, first.1)).map(|second| [first, second]).collect()
}

fn survey_flow(name: &'static str, steps: &[Step], second_every: usize) -> Report {
    let undisturbed = play_alone(steps, &[], false);
    let firsts = points(steps, &undisturbed, BEGINS_AT);
    let mut report = Report { flow: name, points: firsts.len(), ..Report::default() };
    report.failures.extend(undisturbed.wrong.into_iter().map(|wrong| (Vec::new(), wrong)));
    let seconds =
        try_all(steps, firsts.into_iter().map(|first| vec![first]).collect(), &mut report, &|first, played| {
            if second_every == 0 { Vec::new() } else { second_strikes(steps, first, played) }
        });
    let seconds: Vec<_> = seconds.into_iter().step_by(second_every.max(1)).map(Vec::from).collect();
    report.second = seconds.len();
    try_all(steps, seconds, &mut report, &|_, _| Vec::new());
    report
}

/// Tries points side by side. Returns the points that `follow` makes of them.
fn try_all(
    steps: &[Step],
    points: Vec<Vec<Strike>>,
    report: &mut Report,
    follow: &(impl Fn(Strike, &Played) -> Vec<[Strike; 2]> + Sync),
) -> Vec<[Strike; 2]> {
    let next = AtomicUsize::new(0);
    let shared = Mutex::new((&mut *report, Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(strikes) = points.get(index) else { return };
                    let played = play_alone(steps, strikes, false);
                    let after = follow(strikes[0], &played);
                    let (report, seconds) = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
                    seconds.push((index, after));
                    report.longest = report.longest.max(played.settled_after);
                    report.failures.extend(played.wrong.into_iter().take(1).map(|wrong| (strikes.clone(), wrong)));
                }
            });
        }
    });
    let (_, mut seconds) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    // In the order of the points, whichever thread was faster.
    report.failures.sort_by_key(|(strikes, _)| format!("{strikes:?}"));
    seconds.sort_by_key(|(index, _)| *index);
    seconds.into_iter().flat_map(|(_, after)| after).collect()
}

/// What a run came to.
#[derive(Default)]
struct Played {
    calls: Vec<Vec<LoggedCall>>,
    settled_after: Duration,
    wrong: Vec<String>,
    trace: Vec<Entry>,
}

fn play_alone(steps: &[Step], strikes: &[Strike], keep: bool) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime with nothing but a timer needs nothing from the system");
    runtime.block_on(play(steps, strikes, keep))
}

async fn play(steps: &[Step], strikes: &[Strike], keep: bool) -> Played {
    let cloud = SimCloud::builder().seed(1).pace(Pace::Host).regions(REGIONS).keep_trace(keep).build();
    let stage = Arc::new(Stage::new(cloud.expect("the runtime was made for it")));
    for _ in 0..3 {
        stage.begin();
    }
    for (gateway, call, fate) in strikes.iter().copied() {
        stage.cloud.strike(gateway, call, fate);
    }
    let mut running = Vec::new();
    for (at, gateway, name, deed) in steps.iter().copied() {
        let stage = Arc::clone(&stage);
        running.push(tokio::spawn(async move {
            tokio::time::sleep_until(stage.begun + Duration::from_secs(at)).await;
            stage.act(gateway, &boxed(name), deed).await;
        }));
    }
    for task in running {
        if let Err(error) = task.await {
            stage.cloud.violate(format!("panic: {error}"));
        }
    }
    tokio::time::sleep_until(stage.begun + Duration::from_millis(struck_until(steps))).await;
    let calls = (0..3).map(|gateway| stage.cloud.engine().logged_calls(gateway)).collect();
    stage.cloud.heal();
    // Whoever stood still until now is in touch again.
    tokio::time::sleep(stage.config.dead_after).await;
    let (settled_after, mut wrong) = stage.settle().await;
    if wrong.is_empty() {
        wrong.extend(stage.visit_all().await);
    }
    if let Err(violations) = stage.cloud.check_invariants() {
        wrong.splice(0..0, violations.what);
    }
    Played { calls, settled_after, wrong, trace: stage.cloud.trace() }
}

/// A running flow.
struct Stage {
    cloud: SimCloud,
    config: PoolConfig,
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fronts: BTreeMap<usize, (Gateway, Regions)>,
    /// What the users were told.
    made: BTreeSet<BoxId>,
    /// Boxes that are deleted, or may be.
    deleted: BTreeSet<BoxId>,
    /// Lines that the box's guest was told are on its disk.
    lines: BTreeMap<BoxId, Vec<String>>,
    count: u32,
}

fn user() -> UserId {
    UserId::new("u1").expect("a letter and a number make a valid id")
}

fn boxed(number: u8) -> BoxName {
    BoxName::new(format!("b{number}")).expect("a letter and a number make a valid name")
}

/// What [`open`] calls that region, counted from 0.
#[must_use]
pub fn region(number: usize) -> Region {
    Region::new(format!("r{number}")).expect("a letter and a number make a valid name")
}

/// A front on a gateway, with a pool in each region of its cloud. The workers run on the gateway.
///
/// # Errors
/// As [`PoolBuilder::build`](boxpool::PoolBuilder::build).
pub async fn open(gateway: &Gateway, seed: u64, config: &PoolConfig) -> boxpool::Result<Regions> {
    let mut front = Regions::builder(gateway.store());
    for (number, there) in (0..).map_while(|number| gateway.in_region(number)).enumerate() {
        let (pool, worker) = there.pool(seed, config.clone()).build().await?;
        gateway.spawn(worker.run());
        front = front.region_with_copies(region(number), pool, there.copier());
    }
    let (regions, worker) = front.build()?;
    gateway.spawn(worker.run());
    Ok(regions)
}

impl Stage {
    fn new(cloud: SimCloud) -> Self {
        let shape = PoolShape { volumes_free: 1, linger: 3_000, ..PoolShape::default() };
        for world in cloud.worlds() {
            let mut state = world.state();
            state.oracle.books.max_instances = Some(shape.config().instances.max_total as usize);
        }
        Self { cloud, config: shape.config(), begun: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gateway with a pool in each region. The dead stay dead.
    fn begin(self: &Arc<Self>) {
        let Ok(gateway) = self.cloud.gateway() else { return };
        self.cloud.engine().log_calls(gateway.number());
        let (stage, here) = (Arc::clone(self), gateway.clone());
        gateway.spawn(async move {
            match open(&here, stage.cloud.seed(), &stage.config).await {
                Ok(regions) => drop(stage.state().fronts.insert(here.number(), (here, regions))),
                Err(error) => stage.cloud.violate(format!("a front could not be built: {error}")),
            }
        });
    }

    /// The front of that gateway, or of another that lives.
    fn front(&self, gateway: usize) -> Option<(Gateway, Regions)> {
        let state = self.state();
        let wanted = state.fronts.get(&gateway).filter(|(gateway, _)| gateway.is_alive());
        wanted.or_else(|| state.fronts.values().find(|(gateway, _)| gateway.is_alive())).cloned()
    }

    /// Runs on the gateway: what it was told when that died, nobody knows.
    async fn on<T: Send + 'static>(
        &self,
        gateway: &Gateway,
        work: impl Future<Output = boxpool::Result<T>> + Send + 'static,
    ) -> boxpool::Result<T> {
        let died = || Error::new(ErrorKind::UnknownOutcome, "call gateway", gateway.number());
        gateway.spawn(work).await.unwrap_or_else(|_| Err(died()))
    }

    async fn act(self: &Arc<Self>, gateway: usize, name: &BoxName, deed: Deed) {
        let Some((gateway, front)) = self.front(gateway) else { return };
        let (user, name) = (user(), name.clone());
        match deed {
            Deed::Create(number) => {
                let made =
                    self.on(&gateway, async move { front.create_box(&user, &name, &region(number)).await }).await;
                self.state().made.extend(made.ok().map(|view| view.id));
            }
            Deed::CreateBehind(number) => {
                let Some(pool) = front.pool(&region(number)).cloned() else { return };
                let made = self.on(&gateway, async move { pool.create_box(&user, &name).await }).await;
                self.state().made.extend(made.ok().map(|view| view.id));
            }
            Deed::Duplicate(to) => {
                let made = self.on(&gateway, async move { front.duplicate_box(&user, &name, &boxed(to)).await }).await;
                self.state().made.extend(made.ok().map(|view| view.id));
            }
            Deed::Visit => drop(self.visit(&gateway, front, name).await),
            Deed::VisitAfter(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                drop(self.visit(&gateway, front, name).await);
            }
            Deed::Move(number) => {
                let moved = self.on(&gateway, async move { front.move_box(&user, &name, &region(number)).await }).await;
                if let Ok(home) = moved
                    && home.region != region(number)
                {
                    self.cloud.violate(format!("contract: {} was moved and lives in {}", home.owner, home.region));
                }
            }
            Deed::Rename(to) => {
                drop(self.on(&gateway, async move { front.rename_box(&user, &name, &boxed(to)).await }).await);
            }
            Deed::Delete => {
                let known: Vec<_> = self.homes().into_iter().map(|home| home.owner).collect();
                self.state().deleted.extend(known.into_iter().filter(|owner| owner.name == name).map(|owner| owner.id));
                drop(self.on(&gateway, async move { front.delete_box(&user, &name).await }).await);
            }
        }
    }

    /// Connects, and has the guest write a line. Answers with what is on its disk.
    async fn visit(self: &Arc<Self>, gateway: &Gateway, front: Regions, name: BoxName) -> boxpool::Result<Vec<String>> {
        let stage = Arc::clone(self);
        let request = ConnectRequest::new(user(), name).deadline(Duration::from_secs(300));
        self.on(gateway, async move {
            let session = front.connect(request).await?;
            let found = stage.write(session.owner());
            session.release().await;
            Ok(found)
        })
        .await
    }

    fn write(&self, owner: &BoxRef) -> Vec<String> {
        let text = {
            let mut state = self.state();
            state.count += 1;
            format!("line {}", state.count)
        };
        for world in self.cloud.worlds() {
            world.state().move_to(self.cloud.engine().now());
            let volume = world.state().guest_of(&owner.id).cloned();
            let Some(volume) = volume else { continue };
            let before = world.state().lines_on(&volume);
            if world.write_as(owner, &text).is_ok() {
                let line = crate::oracle::line_of(owner, &text);
                self.state().lines.entry(owner.id.clone()).or_default().push(line);
            }
            return before;
        }
        self.cloud.violate(format!("contract: {owner} was connected to and runs nowhere"));
        Vec::new()
    }

    fn homes(&self) -> Vec<HomeRecord> {
        let store = self.cloud.world().state().store.clone();
        let scan = futures::FutureExt::now_or_never(store_scan(store));
        scan.unwrap_or_default()
    }

    /// The nodes that live, in a region.
    fn nodes(&self, number: usize) -> Vec<NodeId> {
        let state = self.state();
        let living = state.fronts.values().filter(|(gateway, _)| gateway.is_alive());
        living.filter_map(|(_, front)| front.pool(&region(number))).map(Pool::node).cloned().collect()
    }

    /// Waits until everything is at rest. What is not in time is told.
    async fn settle(&self) -> (Duration, Vec<String>) {
        let begun = Instant::now();
        let limit = bound(&self.config) * 2 + FRONT_MARGIN;
        loop {
            let wrong = self.complaints();
            if wrong.is_empty() || begun.elapsed() >= limit {
                return (begun.elapsed(), wrong);
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    fn complaints(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, world) in self.cloud.worlds().enumerate() {
            let found = settled::complaints(&world.state(), &self.config, &self.nodes(number));
            wrong.extend(found.into_iter().map(|what| format!("{what} (in {})", region(number))));
        }
        let homes = self.homes();
        for home in homes.iter().filter(|home| home.status != HomeStatus::Settled) {
            wrong.push(format!("I7: the home of {} is still {}", home.owner, home.status.words()));
        }
        let mut there: BTreeMap<BoxId, Region> = BTreeMap::new();
        for (number, world) in self.cloud.worlds().enumerate() {
            for record in world.state().oracle.books.boxes.values() {
                let owner = &record.owner;
                if record.hold.is_some() {
                    wrong.push(format!("I7: {owner} is still held in {}", region(number)));
                }
                let home = homes.iter().find(|home| home.owner == *owner);
                if home.is_none_or(|home| home.region != region(number)) {
                    wrong.push(format!("I5: {owner} is in {} and its home is {home:?}", region(number)));
                }
                there.insert(owner.id.clone(), region(number));
            }
        }
        for home in homes.iter().filter(|home| !there.contains_key(&home.owner.id)) {
            wrong.push(format!("I5: {} has a home in {} and is not there", home.owner, home.region));
        }
        let state = self.state();
        for lost in state.made.iter().filter(|id| !there.contains_key(id) && !state.deleted.contains(id)) {
            wrong.push(format!("I3: {lost} was made and is nowhere"));
        }
        wrong
    }

    /// Every box can be connected to, at a front that lives, with all that was on its disk.
    async fn visit_all(self: &Arc<Self>) -> Vec<String> {
        let mut wrong = Vec::new();
        for home in self.homes() {
            let Some((gateway, front)) = self.front(0) else { return vec!["nobody lives".into()] };
            match self.visit(&gateway, front, home.owner.name.clone()).await {
                Ok(found) => {
                    let wanted = self.state().lines.get(&home.owner.id).cloned().unwrap_or_default();
                    // The last one was written by this very visit.
                    let before = wanted.len().saturating_sub(1);
                    let lost = wanted.iter().take(before).find(|line| !found.contains(line));
                    wrong.extend(lost.map(|line| format!("I4: {} came up without {line:?}", home.owner)));
                }
                Err(error) => wrong.push(format!("I7: {} cannot be connected to: {error}", home.owner)),
            }
        }
        wrong
    }
}

async fn store_scan(store: boxpool::MemoryStore) -> Vec<HomeRecord> {
    let page = store.scan(HOMES, None, None, usize::MAX).await;
    let items = page.map(|page| page.items).unwrap_or_default();
    items.iter().filter_map(|entry| serde_json::from_str(&entry.stored.value).ok()).collect()
}
