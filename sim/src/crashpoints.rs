//! Every point at which a gateway can die, tried one by one.
//!
//! For each flow a run without faults tells which calls the gateways make. Then the flow is run once more for each of those calls (of
//! heartbeats, every fifth) and each [fate](Fate): the gateway dies before it, after it, or at once with the effect coming later; the answer is lost, told
//! or not; or the gateway stands still until others take it for dead, and then goes on. Those who live must put everything right
//! within one lease time and one pass ([`bound`]), every invariant
//! must hold after every effect, and afterwards every box must be connectable with its content. A second crash strikes the
//! recovery itself ([`Options::second_every`]). And in the short flows a second fault follows a first one that killed nobody
//! ([`Options::pairs_every`]): a call refused, late, or with its answer lost, and then another, or a death.
//!
//! Crashes between calls cannot be told apart from outside, so these are all crash points of that schedule. A crash before a
//! call that only looks is the same as one after the call before it; of such calls only the answer is lost.

use crate::case::{Case, Event, Happening, Op, Parking, PoolShape, What};
use crate::engine::{Entry, Fate, Faults, LoggedCall, Pace, Refusal};
use crate::run::{Findings, Probe, run_probed};
use boxpool::PoolConfig;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What is surveyed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Only flows whose name contains this.
    pub only: String,
    /// Of the crashes of a second gateway during the recovery from the first, every n-th is tried; 0 tries none, 1 all.
    pub second_every: usize,
    /// Of the pairs of faults in the short flows, every n-th is tried; 0 tries none, 1 all.
    pub pairs_every: usize,
    /// So many at once.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: String::new(),
            second_every: 0,
            pairs_every: 0,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Where one or two gateways are struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// In which flow.
    pub flow: &'static str,
    /// Which calls: gateway, number of the call in its life, and what becomes of it.
    pub strikes: Vec<(usize, u64, Fate)>,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.flow)?;
        for (gateway, call, fate) in &self.strikes {
            write!(f, " g{gateway}:{call}:{}", fate.word())?;
        }
        Ok(())
    }
}

/// What a survey of one flow found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FlowReport {
    /// Which flow.
    pub flow: &'static str,
    /// How many points were tried, first and second ones.
    pub points: usize,
    /// How many of them with a second crash.
    pub second: usize,
    /// How many of them with a pair of faults of which the first killed nobody.
    pub pairs: usize,
    /// The longest recovery, from when the users had left.
    pub longest: Duration,
    /// The most repairs that a single point took.
    pub most_repairs: u64,
    /// What went wrong, and where.
    pub failures: Vec<(Point, String)>,
}

/// How long those who live may take to put right what a dead gateway left: the time to take it for dead (two heartbeats may lie
/// between its last and the reading that shows it), one pass of each kind, the grace for resources without a record, and a
/// census that finds them.
#[must_use]
pub fn bound(config: &PoolConfig) -> Duration {
    config.dead_after
        + 2 * config.heartbeat_every
        + config.reconcile_every
        + 2 * config.census_every
        + config.orphan_grace
        + config.instances.cool_down
}

pub(crate) fn flow(shape: PoolShape, ops: Vec<Op>, events: Vec<Event>) -> Case {
    Case {
        seed: 1,
        gateways: 3,
        pool: shape,
        pace: Pace::Host,
        jitter: 0,
        faults: Faults::none(),
        script: Vec::new(),
        zones: 0,
        ops,
        events,
        // The dead stay dead until everything was put right without them.
        restart_after: 100_000_000,
    }
}

/// One gateway dies in the flow itself: with two more crashes somebody must be left.
fn four(flow: Case) -> Case {
    Case { gateways: 4, ..flow }
}

pub(crate) fn op(at: u64, gateway: usize, user: u8, what: What) -> Op {
    Op { at: at * 1_000, gateway, user, name: 1, what }
}

/// The user's second box.
pub(crate) fn second(op: Op) -> Op {
    Op { name: 2, ..op }
}

pub(crate) fn visit(stay: u64) -> What {
    What::Visit { stay: stay * 1_000, patience: 300_000, rude: false }
}

const START: What = What::Start { patience: 300_000 };

/// The flows, by name.
#[must_use]
pub fn flows() -> Vec<(&'static str, Case)> {
    let shape = PoolShape { volumes_free: 1, linger: 3_000, ..PoolShape::default() };
    let fresh = PoolShape { volumes_free: 0, ..shape.clone() };
    let one = PoolShape { min_free: 0, max_free: 1, max_total: 1, ..shape.clone() };
    let forgetful = PoolShape { forgets_epochs: true, ..shape.clone() };
    let crash = |at: u64, gateway| Event { at: at * 1_000, what: Happening::Crash { gateway } };
    vec![
        ("create with a volume of the pool", flow(shape.clone(), vec![op(40, 0, 1, What::Create)], vec![])),
        ("create with a fresh volume", flow(fresh, vec![op(40, 0, 1, What::Create)], vec![])),
        ("connect, leave, park", flow(shape.clone(), vec![op(40, 0, 1, visit(2))], vec![])),
        ("the same where epochs are forgotten", flow(forgetful, vec![op(40, 0, 1, visit(2))], vec![])),
        ("connect to a parked box", flow(shape.clone(), vec![op(40, 1, 1, visit(1)), op(60, 0, 1, visit(1))], vec![])),
        ("join a running box", flow(shape.clone(), vec![op(40, 1, 1, visit(20)), op(50, 0, 1, visit(5))], vec![])),
        ("two connects at once", flow(shape.clone(), vec![op(40, 0, 1, visit(3)), op(40, 1, 1, visit(3))], vec![])),
        ("return while it lingers", flow(shape.clone(), vec![op(40, 0, 1, visit(1)), op(43, 0, 1, visit(1))], vec![])),
        ("a parked box makes room", flow(one.clone(), vec![op(40, 1, 1, visit(1)), op(60, 0, 2, visit(1))], vec![])),
        (
            "a parked box makes room, its machine goes",
            flow(
                PoolShape { destroy: true, ..one.clone() },
                vec![op(40, 1, 1, visit(1)), op(60, 0, 2, visit(1))],
                vec![],
            ),
        ),
        (
            "a box is parked for too long",
            flow(
                PoolShape { park_limit: 10_000, ..shape.clone() },
                vec![op(40, 0, 1, visit(1)), op(130, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "the pools grow and shrink",
            flow(
                PoolShape { min_free: 0, max_free: 0, volumes_free: 2, park_limit: 1_000, ..shape.clone() },
                vec![op(40, 0, 1, visit(1)), op(41, 1, 2, visit(1)), op(140, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "a machine is emptied",
            flow(
                PoolShape { min_free: 0, max_free: 1, ..shape.clone() },
                vec![
                    op(40, 0, 1, visit(1)),
                    op(60, 1, 1, What::Cordon { nth: 0, drain: true }),
                    op(120, 0, 1, visit(1)),
                ],
                vec![],
            ),
        ),
        (
            "a machine is out of use for a while",
            flow(
                one.clone(),
                vec![
                    op(40, 0, 1, visit(1)),
                    op(60, 1, 1, What::Cordon { nth: 0, drain: false }),
                    op(70, 0, 1, visit(1)),
                    op(90, 0, 1, What::Uncordon { nth: 0 }),
                ],
                vec![],
            ),
        ),
        (
            "a machine goes into the reserve",
            flow(
                PoolShape { min_free: 0, max_free: 0, max_reserve: 1, park_limit: 1_000, ..shape.clone() },
                vec![op(40, 0, 1, visit(1)), op(140, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "a machine of the reserve is woken",
            flow(
                PoolShape { min_free: 0, max_free: 0, min_reserve: 1, max_reserve: 1, ..shape.clone() },
                vec![op(120, 0, 1, visit(1)), op(200, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "a box is attached ahead of its owner, and given up after",
            flow(
                PoolShape { linger: 0, parking: Parking::ReturnTime(20_000), held_percent: 50, ..shape.clone() },
                vec![op(40, 0, 1, visit(1)), op(110, 0, 1, visit(1)), op(220, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "a box does not keep its machine",
            flow(
                PoolShape { parking: Parking::KeepFor(5_000), ..shape.clone() },
                vec![op(40, 0, 1, visit(1)), op(120, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "delete a detached box",
            flow(shape.clone(), vec![op(40, 1, 1, What::Create), op(45, 0, 1, What::Delete)], vec![]),
        ),
        ("delete a parked box", flow(shape.clone(), vec![op(40, 1, 1, visit(1)), op(60, 0, 1, What::Delete)], vec![])),
        (
            "delete a running box",
            flow(shape.clone(), vec![op(40, 1, 1, visit(30)), op(50, 0, 1, What::Delete)], vec![]),
        ),
        (
            "another adopts a running box",
            four(flow(shape.clone(), vec![op(40, 2, 1, visit(60)), op(80, 0, 1, visit(2))], vec![crash(50, 2)])),
        ),
        (
            "another finishes a placement",
            four(flow(
                shape.clone(),
                vec![op(40, 2, 1, visit(60)), op(80, 0, 1, visit(2))],
                vec![Event { at: 40_100, what: Happening::Crash { gateway: 2 } }],
            )),
        ),
        (
            "build the golden snapshot, retire an older one",
            flow(
                PoolShape { builds_golden: true, ..shape.clone() },
                vec![op(60, 0, 1, What::Create), op(200, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "adopt a disk, use it",
            flow(
                shape.clone(),
                vec![op(40, 0, 1, What::Adopt), op(80, 1, 1, What::Adopt), op(120, 1, 1, visit(1))],
                vec![],
            ),
        ),
        (
            "adopt a disk, delete its box",
            flow(
                shape.clone(),
                vec![op(40, 0, 1, What::Adopt), op(80, 1, 1, What::Adopt), op(120, 1, 1, What::Delete)],
                vec![],
            ),
        ),
        ("drain", flow(shape.clone(), vec![op(40, 0, 1, visit(60)), op(50, 0, 1, What::Drain)], vec![])),
        (
            "stop a running box",
            flow(
                shape.clone(),
                vec![op(40, 1, 1, visit(30)), op(50, 0, 1, What::Stop), op(80, 1, 1, visit(1))],
                vec![],
            ),
        ),
        (
            "stop a parked box, start it",
            flow(shape.clone(), vec![op(40, 1, 1, visit(1)), op(60, 0, 1, What::Stop), op(80, 1, 1, START)], vec![]),
        ),
        (
            "grow the disk of a parked box, return to it",
            flow(
                shape.clone(),
                vec![op(40, 1, 1, visit(1)), op(60, 0, 1, What::Resize { gib: 9 }), op(80, 1, 1, visit(1))],
                vec![],
            ),
        ),
        (
            "keep a snapshot of a parked box, restore it",
            flow(
                shape.clone(),
                vec![
                    op(40, 1, 1, visit(1)),
                    op(60, 0, 1, What::Snapshot { called: 1 }),
                    second(op(70, 1, 1, What::Restore { called: 1 })),
                    second(op(80, 0, 1, visit(1))),
                ],
                vec![],
            ),
        ),
        (
            "keep a snapshot, delete it and its box",
            flow(
                shape.clone(),
                vec![
                    op(40, 1, 1, visit(1)),
                    op(60, 0, 1, What::Snapshot { called: 1 }),
                    op(70, 1, 1, What::Delete),
                    op(80, 0, 1, What::DropSnapshot { called: 1 }),
                ],
                vec![],
            ),
        ),
        (
            "duplicate a box that lingers, use the copy",
            flow(
                shape.clone(),
                vec![op(40, 1, 1, visit(1)), op(42, 1, 1, What::Duplicate { to: 2 }), second(op(60, 0, 1, visit(1)))],
                vec![],
            ),
        ),
        (
            "stop a detached box, return to it",
            flow(
                PoolShape { park_limit: 5_000, ..shape.clone() },
                vec![op(40, 1, 1, visit(1)), op(75, 0, 1, What::Stop), op(90, 1, 1, visit(1))],
                vec![],
            ),
        ),
        (
            "delete a running box, have it back",
            flow(
                PoolShape { retention: 3_600_000, ..shape.clone() },
                vec![
                    op(40, 1, 1, visit(30)),
                    op(50, 0, 1, What::Delete),
                    op(75, 1, 1, What::Undelete),
                    op(85, 1, 1, visit(1)),
                ],
                vec![],
            ),
        ),
        (
            "delete a parked box, its time is over",
            flow(
                PoolShape { retention: 10_000, ..shape.clone() },
                vec![op(40, 1, 1, visit(1)), op(60, 0, 1, What::Delete), op(160, 0, 9, What::List)],
                vec![],
            ),
        ),
        (
            "share a box, another connects",
            flow(
                shape.clone(),
                vec![op(40, 1, 1, visit(1)), op(60, 0, 1, What::Share { on: true }), op(70, 1, 1, What::Guest)],
                vec![],
            ),
        ),
        (
            "rename a detached box, return to it",
            flow(
                shape.clone(),
                vec![op(40, 1, 1, What::Create), op(60, 0, 1, What::Rename { to: 2 }), second(op(80, 1, 1, START))],
                vec![],
            ),
        ),
        (
            "rename a parked box, return to it",
            flow(
                shape.clone(),
                vec![op(40, 1, 1, visit(1)), op(60, 0, 1, What::Rename { to: 2 }), second(op(80, 1, 1, START))],
                vec![],
            ),
        ),
        (
            "rename a box, and back",
            flow(
                shape.clone(),
                vec![
                    op(40, 1, 1, What::Create),
                    op(60, 0, 1, What::Rename { to: 2 }),
                    second(op(62, 1, 1, What::Rename { to: 1 })),
                    op(90, 1, 1, START),
                ],
                vec![],
            ),
        ),
        (
            "keep a box running, its gateway dies",
            four(flow(
                shape,
                vec![
                    op(40, 2, 1, visit(5)),
                    op(42, 0, 1, What::Keep { on: true }),
                    op(90, 1, 1, visit(1)),
                    op(110, 0, 1, What::Keep { on: false }),
                ],
                vec![crash(44, 2)],
            )),
        ),
    ]
}

/// From when on a flow's calls are points: before, the world is only being set up. The golden snapshot is built then.
pub(crate) fn begins_at(case: &Case) -> u64 {
    if case.pool.builds_golden { 0 } else { 39_000 }
}

fn fates(call: &LoggedCall) -> &'static [Fate] {
    const OF_WRITES: &[Fate] = &[
        Fate::CrashBefore,
        Fate::CrashAfter,
        Fate::CrashLater { by: 15_000 },
        Fate::LoseAnswer,
        Fate::SwallowAnswer,
        STANDS_STILL,
    ];
    match call.operation.is_read() {
        true => &[Fate::LoseAnswer],
        false if telling(call) => OF_WRITES,
        false => &OF_WRITES[..OF_WRITES.len() - 1],
    }
}

/// For three times as long as it takes to be taken for dead.
pub(crate) const STANDS_STILL: Fate = Fate::StandStill { by: 60_000 };

pub(crate) fn probe(case: &Case, strikes: Vec<(usize, u64, Fate)>, keep: bool) -> (crate::Outcome, Findings) {
    let dies = |fate: &Fate| matches!(fate, Fate::CrashBefore | Fate::CrashAfter | Fate::CrashLater { .. });
    // A gateway that lives on with an answer missing waits for its own limits first.
    let config = case.pool.config();
    let golden = if case.pool.builds_golden { 2 * config.limits.golden } else { Duration::ZERO };
    let waits = if strikes.iter().all(|(_, _, fate)| dies(fate)) {
        Duration::ZERO
    } else {
        config.limits.detach + config.limits.suspend + config.limits.provider_call + golden
    };
    let crashes = u32::try_from(strikes.len().max(1)).unwrap_or(u32::MAX);
    let settle_within = Some(bound(&config) * crashes + waits);
    run_probed(case, Probe { strikes, log: true, settle_within }, keep)
}

/// Runs one point again and tells what happened.
#[must_use]
pub fn replay(point: &Point) -> Vec<Entry> {
    let found = flows().into_iter().find(|(name, _)| *name == point.flow);
    found.map(|(_, case)| probe(&case, point.strikes.clone(), true).0.trace).unwrap_or_default()
}

/// Tries every point of every flow. `tell` is called when a flow is done.
pub fn survey(options: &Options, mut tell: impl FnMut(&FlowReport)) -> Vec<FlowReport> {
    let wanted = flows().into_iter().filter(|(name, _)| name.contains(&options.only));
    wanted
        .map(|(name, case)| {
            let report = survey_flow(name, &case, options);
            tell(&report);
            report
        })
        .collect()
}

fn survey_flow(name: &'static str, case: &Case, options: &Options) -> FlowReport {
    let mut report = FlowReport { flow: name, ..FlowReport::default() };
    let (outcome, findings) = probe(case, Vec::new(), false);
    let undisturbed = Point { flow: name, strikes: Vec::new() };
    for violation in outcome.violations {
        report.failures.push((undisturbed.clone(), violation));
    }
    if case.events.is_empty() && !outcome.repairs.is_empty() && !name.contains("drain") {
        report.failures.push((undisturbed, format!("repairs without any fault: {:?}", outcome.repairs)));
    }
    let mut points = Vec::new();
    let mut firsts = Vec::new();
    for (gateway, calls) in findings.calls.iter().enumerate() {
        let mut beats = 0;
        for call in calls.iter().filter(|call| call.at >= begins_at(case)) {
            beats += usize::from(is_beat(call));
            if is_beat(call) && beats % BEATS_EVERY != 1 {
                continue;
            }
            points.extend(fates(call).iter().map(|fate| vec![(gateway, call.number, *fate)]));
            if telling(call) {
                let fates = FIRST_OF_PAIR.iter().filter(|fate| fate.fits(call.operation));
                firsts.extend(fates.map(|fate| vec![(gateway, call.number, *fate)]));
            }
        }
    }
    let crashes = |strikes: &Strikes, findings: &Findings| match strikes.as_slice() {
        [(dead, call, Fate::CrashAfter)] if options.second_every > 0 => second_crashes(*dead, *call, findings),
        _ => Vec::new(),
    };
    let seconds = thinned(try_all(name, case, points, options, &mut report, &crashes), options.second_every);
    report.second = seconds.len();
    try_all(name, case, seconds, options, &mut report, &|_, _| Vec::new());
    if options.pairs_every > 0 && SHORT.contains(&name) {
        let pairs = thinned(try_all(name, case, firsts, options, &mut report, &second_faults), options.pairs_every);
        report.pairs = pairs.len();
        try_all(name, case, pairs, options, &mut report, &|_, _| Vec::new());
    }
    report
}

fn thinned(points: Vec<Strikes>, every: usize) -> Vec<Strikes> {
    if every == 0 { Vec::new() } else { points.into_iter().step_by(every).collect() }
}

type Strikes = Vec<(usize, u64, Fate)>;

/// Tries points side by side. Returns the points that `follow` makes of them: each with a second strike.
fn try_all(
    name: &'static str,
    case: &Case,
    points: Vec<Strikes>,
    options: &Options,
    report: &mut FlowReport,
    follow: &(impl Fn(&Strikes, &Findings) -> Strikes + Sync),
) -> Vec<Strikes> {
    let next = AtomicUsize::new(0);
    let seconds = Mutex::new(Vec::new());
    let shared = Mutex::new(&mut *report);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(strikes) = points.get(index) else { return };
                    let (outcome, findings) = probe(case, strikes.clone(), false);
                    let after = follow(strikes, &findings);
                    let all = after.into_iter().map(|second| (index, vec![strikes[0], second]));
                    seconds.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
                    let mut report = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    report.points += 1;
                    report.longest = report.longest.max(findings.settled_after);
                    report.most_repairs = report.most_repairs.max(outcome.repairs.values().sum());
                    if let Some(violation) = outcome.violations.into_iter().next() {
                        report.failures.push((Point { flow: name, strikes: strikes.clone() }, violation));
                    }
                }
            });
        }
    });
    // In the order of the points, whichever thread was faster.
    report.failures.sort_by_key(|(point, _)| point.to_string());
    let mut seconds = seconds.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Stable: of one call, the fates stay in their order.
    seconds.sort_by_key(|(index, strikes)| (*index, strikes[1].0, strikes[1].1));
    seconds.into_iter().map(|(_, strikes)| strikes).collect()
}

/// Flows of few calls, over which faults are tried in pairs.
pub(crate) const SHORT: &[&str] = &[
    "create with a volume of the pool",
    "create with a fresh volume",
    "connect, leave, park",
    "connect to a parked box",
    "return while it lingers",
    "a parked box makes room",
    "delete a detached box",
    "delete a parked box",
    "rename a detached box, return to it",
];

/// What befalls the first call of a pair: nobody dies.
const FIRST_OF_PAIR: &[Fate] =
    &[Fate::Refuse(Refusal::Unavailable), Fate::LoseAnswer, Fate::SwallowAnswer, Fate::Late { by: 15_000 }];

/// What befalls the second.
const SECOND_OF_PAIR: &[Fate] = &[
    Fate::Refuse(Refusal::Unavailable),
    Fate::LoseAnswer,
    Fate::Late { by: 15_000 },
    Fate::CrashBefore,
    Fate::CrashAfter,
];

/// Whether a strike there tells something: heartbeats and leases are renewed all the time, so that a crash at one is a crash
/// between other calls.
pub(crate) fn telling(call: &LoggedCall) -> bool {
    !call.operation.is_read() && !is_beat(call)
}

fn is_beat(call: &LoggedCall) -> bool {
    call.resource.starts_with("nodes/") || call.resource.starts_with("leases/")
}

/// Heartbeats come again and again, and one is as the other: of their calls, each gateway's every so many-th is struck.
const BEATS_EVERY: usize = 5;

/// What may follow a fault that killed nobody: another at any later call that tells something, of whichever gateway.
fn second_faults(strikes: &Strikes, findings: &Findings) -> Strikes {
    let [(struck, number, _)] = strikes.as_slice() else { return Vec::new() };
    let first = findings.calls.get(*struck).and_then(|calls| calls.iter().find(|call| call.number == *number));
    let Some(first_at) = first.map(|call| call.at) else { return Vec::new() };
    let mut after = Vec::new();
    for (gateway, calls) in findings.calls.iter().enumerate() {
        let later = calls
            .iter()
            .filter(|call| telling(call) && call.at >= first_at && (gateway, call.number) != (*struck, *number));
        for call in later {
            let fates = SECOND_OF_PAIR.iter().filter(|fate| fate.fits(call.operation));
            after.extend(fates.map(|fate| (gateway, call.number, *fate)));
        }
    }
    after
}

/// The calls of the others after a gateway's death: at each of them the one who calls may die too.
fn second_crashes(dead: usize, call: u64, findings: &Findings) -> Strikes {
    let died_at = findings.calls.get(dead).and_then(|calls| calls.iter().find(|logged| logged.number == call));
    let Some(died_at) = died_at.map(|logged| logged.at) else { return Vec::new() };
    let mut after = Vec::new();
    for (gateway, calls) in findings.calls.iter().enumerate().filter(|(gateway, _)| *gateway != dead) {
        let telling = calls.iter().filter(|logged| logged.at > died_at && telling(logged));
        after.extend(telling.map(|logged| (gateway, logged.number, Fate::CrashAfter)));
    }
    after
}
