//! What each flow of the [crash points](crate::crashpoints), and some more, costs where nothing goes wrong: calls, and virtual time.
//!
//! Nobody notices by the outcome that a change of the core makes one read more, or waits once too often; this table does. A
//! second one tells what a single failed call costs, and whether the user is told of it, and a third what all that random
//! histories do comes to.

use crate::backend::Operation;
use crate::case::{Case, Event, Happening, Op, PoolShape, Profile, What};
use crate::crashpoints::{SHORT, begins_at, flow, flows, op, probe, second, telling, visit};
use crate::engine::{Fate, LoggedCall, Pace, Refusal};
use crate::run::{Findings, Outcome, Probe, run_probed};
use std::fmt;
use std::time::Duration;

/// What one flow costs, from its first user on, until everything is at rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Cost {
    /// Which flow.
    pub flow: &'static str,
    /// Records of boxes, volumes, instances and golden snapshots that were read one by one.
    pub reads: u64,
    /// Of the same: inserts, updates and deletes.
    pub writes: u64,
    /// Lines of the event log.
    pub events: u64,
    /// Calls to the cloud.
    pub cloud: u64,
    /// Calls to a guest's runtime.
    pub guest: u64,
    /// What every gateway does all the time, whoever comes: heartbeats, the maintainer's lease, tables read as a whole.
    pub beside: u64,
    /// From the first to the last write to a box's record.
    pub took: Duration,
}

/// The costs of every flow. The same on every machine: time is virtual, and every latency comes from the flow's seed.
#[must_use]
pub fn costs() -> Vec<Cost> {
    flows().into_iter().chain(encounters()).chain(patience()).map(|(flow, case)| cost(flow, &case)).collect()
}

/// A pool with one volume in stock, and one with none.
fn shapes() -> (PoolShape, PoolShape) {
    let shape = PoolShape { volumes_free: 1, linger: 3_000, ..PoolShape::default() };
    (shape.clone(), PoolShape { volumes_free: 0, ..shape })
}

/// Flows in which several want the same, or a machine dies. Not among the crash points: who is
/// struck in them may be served by the other, and what then has to be right within which time cannot be said of all alike.
fn encounters() -> Vec<(&'static str, Case)> {
    let (shape, fresh) = shapes();
    let one = PoolShape { min_free: 0, max_free: 1, max_total: 1, ..shape.clone() };
    let at = |second: u64, gateway: usize, what: What| op(second, gateway, 1, what);
    let calm = |shape: &PoolShape, ops: Vec<Op>| flow(shape.clone(), ops, vec![]);
    let kill = |second: u64| vec![Event { at: second * 1_000, what: Happening::KillInstance { nth: 0 } }];
    vec![
        ("two create the same box", calm(&shape, vec![at(40, 0, What::Create), at(40, 1, What::Create)])),
        ("the same with a fresh volume", calm(&fresh, vec![at(40, 0, What::Create), at(40, 1, What::Create)])),
        (
            "two delete the same box",
            calm(&shape, vec![at(40, 2, visit(1)), at(60, 0, What::Delete), at(60, 1, What::Delete)]),
        ),
        ("deleted while it is made", calm(&fresh, vec![at(40, 0, What::Create), at(40, 1, What::Delete)])),
        ("deleted while it comes up", calm(&shape, vec![at(40, 0, visit(1)), at(40, 1, What::Delete)])),
        (
            "two rename the same box",
            calm(
                &shape,
                vec![at(40, 2, What::Create), at(60, 0, What::Rename { to: 2 }), at(60, 1, What::Rename { to: 3 })],
            ),
        ),
        (
            "two boxes get one name",
            calm(
                &shape,
                vec![
                    at(40, 2, What::Create),
                    second(at(41, 2, What::Create)),
                    at(60, 0, What::Rename { to: 3 }),
                    second(at(60, 1, What::Rename { to: 3 })),
                ],
            ),
        ),
        (
            "connected to while it is renamed",
            calm(
                &shape,
                vec![
                    at(40, 2, What::Create),
                    at(60, 0, What::Rename { to: 2 }),
                    at(60, 1, What::Start { patience: 300_000 }),
                ],
            ),
        ),
        (
            "made under the name that another gets",
            calm(&shape, vec![at(40, 2, What::Create), at(60, 0, What::Rename { to: 2 }), second(at(60, 1, visit(1)))]),
        ),
        (
            "deleted while it is renamed",
            calm(&shape, vec![at(40, 2, What::Create), at(60, 0, What::Rename { to: 2 }), at(60, 1, What::Delete)]),
        ),
        (
            "connected to while it leaves",
            calm(&shape, vec![at(40, 0, visit(1)), Op { at: 44_005, ..at(44, 1, visit(1)) }]),
        ),
        (
            "three come, and there is one machine",
            calm(&one, vec![op(40, 0, 1, visit(5)), op(41, 1, 2, visit(5)), op(42, 0, 3, visit(5))]),
        ),
        (
            "its machine dies, and it returns",
            flow(shape.clone(), vec![at(40, 0, visit(1)), at(90, 1, visit(1))], kill(60)),
        ),
        (
            "its machine dies, and it is kept running",
            flow(
                shape.clone(),
                vec![at(40, 0, visit(1)), at(42, 1, What::Keep { on: true }), at(190, 2, What::List)],
                kill(60),
            ),
        ),
        ("its machine dies under it", flow(shape.clone(), vec![at(40, 0, visit(60)), at(130, 1, visit(1))], kill(60))),
    ]
}

/// Flows in which the cloud takes its time.
fn patience() -> Vec<(&'static str, Case)> {
    let (shape, fresh) = shapes();
    let at = |second: u64, gateway: usize, what: What| op(second, gateway, 1, what);
    let slow = |shape: &PoolShape, ops: Vec<Op>| Case { pace: Pace::Cloud, ..flow(shape.clone(), ops, vec![]) };
    vec![
        ("create in a slow cloud", slow(&fresh, vec![at(140, 0, What::Create)])),
        ("connect and leave in a slow cloud", slow(&shape, vec![at(140, 0, visit(5))])),
        ("delete a parked box in a slow cloud", slow(&shape, vec![at(140, 0, visit(1)), at(300, 1, What::Delete)])),
    ]
}

fn cost(flow: &'static str, case: &Case) -> Cost {
    let (_, findings) = probe(case, Vec::new(), false);
    let mut cost = Cost { flow, ..Cost::default() };
    let mut boxes: Option<(u64, u64)> = None;
    for call in findings.calls.iter().flatten().filter(|call| call.at >= begins_at(case)) {
        cost.count(call);
        if call.resource.starts_with("boxes/") && is_write(call.operation) {
            let (first, last) = boxes.unwrap_or((call.at, call.at));
            boxes = Some((first.min(call.at), last.max(call.at)));
        }
    }
    cost.took = boxes.map_or(Duration::ZERO, |(first, last)| Duration::from_millis(last - first));
    cost
}

fn is_write(operation: Operation) -> bool {
    operation.is_store() && !operation.is_read()
}

impl Cost {
    fn count(&mut self, call: &LoggedCall) {
        let table = call.resource.split('/').next().unwrap_or_default();
        let column = if matches!(
            call.operation,
            Operation::GuestStart
                | Operation::GuestSuspend
                | Operation::GuestStop
                | Operation::GuestShutDown
                | Operation::GuestStatus
                | Operation::Clear
        ) {
            &mut self.guest
        } else if !call.operation.is_store() {
            &mut self.cloud
        } else if call.operation == Operation::StoreScan || matches!(table, "nodes" | "leases") {
            &mut self.beside
        } else if table == "events" {
            &mut self.events
        } else if call.operation.is_read() {
            &mut self.reads
        } else {
            &mut self.writes
        };
        *column += 1;
    }
}

/// One line of the table in `COSTS.md`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { flow, reads, writes, events, cloud, guest, beside, took } = self;
        write!(f, "| {flow} | {reads} | {writes} | {events} | {cloud} | {guest} | {beside} | {} |", took.as_millis())
    }
}

/// What one failed call, whichever it is, costs in one of the short flows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Strain {
    /// Which flow.
    pub flow: &'static str,
    /// What befalls the call.
    pub fate: Fate,
    /// How many calls were struck, each in a run of its own.
    pub points: u64,
    /// How many users were told of it; all others were served as if nothing had been.
    pub refused: u64,
    /// How many runs needed the recovery to put something right.
    pub repaired: u64,
    /// How many calls all these runs made more than without the fault.
    pub calls: i64,
    /// How much longer all these runs took until everything was at rest.
    pub took: Duration,
}

/// What befalls a call: it is refused at once, refused for some seconds, its answer is lost, it is lost itself, everything takes
/// longer, or its gateway dies after it.
const FATES: &[Fate] = &[
    Fate::Refuse(Refusal::Unavailable),
    Fate::Throttle { retry_after: 2_000 },
    Fate::LoseAnswer,
    Fate::LoseCall,
    Fate::Stall { by: 3_000 },
    Fate::CrashAfter,
];

/// Every fate at every call that is not part of a heartbeat, in every short flow and every encounter.
#[must_use]
pub fn strains() -> Vec<Strain> {
    let short = flows().into_iter().filter(|(flow, _)| SHORT.contains(flow)).chain(encounters()).collect();
    on_every_processor(short, |(flow, case)| strains_of(flow, case)).into_iter().flatten().collect()
}

/// In the order of the list.
fn on_every_processor<T: Sync, R: Send>(list: Vec<T>, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = |first: usize| list.iter().enumerate().skip(first).step_by(threads).map(|(n, item)| (n, work(item)));
    let mut found: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first).collect::<Vec<_>>())).collect();
        // A thread that panicked has printed why; what it would have found is missing from the table.
        running.into_iter().filter_map(|part| part.join().ok()).flatten().collect()
    });
    found.sort_by_key(|(n, _)| *n);
    found.into_iter().map(|(_, result)| result).collect()
}

fn strains_of(flow: &'static str, case: &Case) -> Vec<Strain> {
    let calm = probe(case, Vec::new(), false);
    FATES.iter().map(|fate| strain(flow, case, *fate, &calm)).collect()
}

/// `calm` is the flow as it goes without the fate.
fn strain(flow: &'static str, case: &Case, fate: Fate, (calm, findings): &(Outcome, Findings)) -> Strain {
    let (calls, settled) = (signed(calm.calls), findings.settled_after);
    let mut strain = Strain { flow, fate, points: 0, refused: 0, repaired: 0, calls: 0, took: Duration::ZERO };
    for (gateway, logged) in findings.calls.iter().enumerate() {
        let struck = logged.iter().filter(|call| call.at >= begins_at(case) && is_about_a_user(call));
        for call in struck {
            let (outcome, after) = probe(case, vec![(gateway, call.number, fate)], false);
            strain.points += 1;
            strain.refused += outcome.refusals;
            strain.repaired += u64::from(!outcome.repairs.is_empty());
            strain.calls += signed(outcome.calls) - calls;
            strain.took += after.settled_after.saturating_sub(settled);
        }
    }
    strain
}

/// Scans, heartbeats and lines of the log are made again a little later, whatever becomes of one.
fn is_about_a_user(call: &LoggedCall) -> bool {
    (telling(call) || call.operation == Operation::StoreGet && call.resource.starts_with("boxes/"))
        && !call.resource.starts_with("events/")
}

fn signed(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}

/// One line of the second table in `COSTS.md`.
impl fmt::Display for Strain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Strain { flow, fate, points, refused, repaired, calls, took } = self;
        write!(
            f,
            "| {flow} | {} | {points} | {refused} | {repaired} | {calls} | {:.1} |",
            fate.word(),
            took.as_secs_f64()
        )
    }
}

/// What the first [random histories](Case::random) of one profile come to, all together, faults and all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sum {
    /// Which profile.
    pub profile: Profile,
    /// How often somebody was connected, worked, and left.
    pub lives: u64,
    /// How many users were refused something.
    pub refused: u64,
    /// How much had to be put right.
    pub repaired: u64,
    /// Calls until the faults stop, and the virtual time that all histories took from beginning to end.
    pub cost: Cost,
}

/// Histories of each profile.
const HISTORIES: u64 = 100;

/// Every profile's [`Sum`], of a hundred histories from seed 0 on.
#[must_use]
pub fn sums() -> Vec<Sum> {
    let seeds: Vec<(Profile, u64)> =
        Profile::ALL.into_iter().flat_map(|profile| (0..HISTORIES).map(move |seed| (profile, seed))).collect();
    let parts = on_every_processor(seeds, |(profile, seed)| sum(*profile, *seed));
    parts.chunk_by(|a, b| a.profile == b.profile).filter_map(|parts| parts.iter().cloned().reduce(Sum::and)).collect()
}

fn sum(profile: Profile, seed: u64) -> Sum {
    let probe = Probe { log: true, ..Probe::default() };
    let (outcome, findings) = run_probed(&Case::random(seed, profile), probe, false);
    let mut cost = Cost { took: outcome.elapsed, ..Cost::default() };
    findings.calls.iter().flatten().for_each(|call| cost.count(call));
    let repaired = outcome.repairs.values().sum();
    Sum { profile, lives: outcome.lives, refused: outcome.refusals, repaired, cost }
}

impl Sum {
    fn and(self, other: Self) -> Self {
        let (a, b) = (self.cost, other.cost);
        Self {
            profile: self.profile,
            lives: self.lives + other.lives,
            refused: self.refused + other.refused,
            repaired: self.repaired + other.repaired,
            cost: Cost {
                flow: a.flow,
                reads: a.reads + b.reads,
                writes: a.writes + b.writes,
                events: a.events + b.events,
                cloud: a.cloud + b.cloud,
                guest: a.guest + b.guest,
                beside: a.beside + b.beside,
                took: a.took + b.took,
            },
        }
    }
}

/// One line of the third table in `COSTS.md`.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { profile, lives, refused, repaired, cost } = self;
        let Cost { reads, writes, events, cloud, guest, beside, took, .. } = cost;
        write!(
            f,
            "| {profile} | {lives} | {refused} | {repaired} | {reads} | {writes} | {events} | {cloud} | {guest} | {beside} | {} |",
            took.as_millis()
        )
    }
}
