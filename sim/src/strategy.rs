//! Whole worlds as [proptest](https://docs.rs/proptest) strategies: for properties over histories, with proptest's own
//! shrinking.
//!
//! [`Case::random`](crate::Case::random) draws from one seed and is faster; strategies are for those who want to say what a
//! history must hold (only deletes, say, or a fault on every attach) or who have proptest in place. Faults are data: which call
//! of which gateway, and what becomes of it. So they shrink like everything else, and because luck is keyed, what is left out
//! takes no one else's luck with it. The seed itself never shrinks: another seed is another world.
//!
//! ```
//! use boxpool_sim::{Profile, run, strategy};
//! use proptest::prelude::*;
//!
//! let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 20, ..ProptestConfig::default() });
//! runner
//!     .run(&strategy::cases(Profile::Calm), |case| {
//!         let outcome = run(&case);
//!         prop_assert!(outcome.violations.is_empty(), "{}", strategy::failure(&case, &outcome.violations));
//!         Ok(())
//!     })
//!     .unwrap();
//! ```

use crate::backend::Operation;
use crate::case::{Case, Event, Happening, Op, Parking, PoolShape, Profile, What};
use crate::engine::{CallId, Fate, Faults, Pace, Refusal, Strike};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

/// How much there is in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Size {
    /// At most so many gateways.
    pub gateways: usize,
    /// At most so many users.
    pub users: u8,
    /// At most so many operations.
    pub ops: usize,
    /// At most so many struck calls.
    pub strikes: usize,
    /// At most so many events.
    pub events: usize,
    /// Users come within so many milliseconds.
    pub span: u64,
}

impl Size {
    /// Histories that run in milliseconds: three gateways, four users, a dozen operations.
    pub const SMALL: Size = Size { gateways: 3, users: 4, ops: 12, strikes: 6, events: 3, span: 120_000 };
    /// Histories as a busy day: eight gateways, forty users, three hundred operations.
    pub const LARGE: Size = Size { gateways: 8, users: 40, ops: 300, strikes: 30, events: 8, span: 600_000 };
}

/// Small histories of that profile.
pub fn cases(profile: Profile) -> impl Strategy<Value = Case> {
    cases_of(profile, Size::SMALL)
}

/// In how many zones the machines of [`Profile::Zones`] are.
const ZONES: u8 = 3;

/// Histories of that profile, as large as you say.
pub fn cases_of(profile: Profile, size: Size) -> impl Strategy<Value = Case> {
    let (struck, of_gateways, of_machines) = match profile {
        profile if profile.is_everything() => (0.7, 0.5, 0.5),
        Profile::Calm => (0.0, 0.0, 0.0),
        Profile::Crashes => (0.0, 1.0, 0.0),
        Profile::Calls => (1.0, 0.0, 0.0),
        _ => (0.0, 0.0, 1.0),
    };
    let crashes = profile != Profile::Calls;
    let parking = if profile == Profile::Parking { parkings().boxed() } else { Just(None).boxed() };
    let goals = if profile == Profile::Goal { vec![50, 90, 99] } else { vec![0] };
    let reserve = if profile == Profile::Reserve { 2_u32 } else { 0 };
    let world = (
        any::<u64>().no_shrink(),
        1..=size.gateways,
        (pools(u32::from(size.users) + 2), 0..=reserve, 0..=reserve, select(vec![0, 2, 20]), parking, select(goals)),
        select(vec![Pace::Host, Pace::Ranked, Pace::Wild, Pace::Cloud]),
        select(vec![0, 20, 2_000]),
        select(vec![100, 3_000, 40_000]),
    );
    let history = (
        vec(if profile == Profile::Verbs { verbs(size).boxed() } else { ops(size).boxed() }, 1..=size.ops),
        sometimes(struck, vec(strikes(size.gateways, crashes), 1..=size.strikes)),
        sometimes(of_gateways, vec(happenings_to_gateways(size), 1..=size.events)),
        sometimes(of_machines, vec(happenings_to_machines(size), 1..=size.events)),
        sometimes(f64::from(u8::from(profile == Profile::Zones)), vec(zone_outages(size), 1..=2)),
    );
    (world, history).prop_map(move |(world, (ops, script, to_gateways, to_machines, to_zones))| {
        let (seed, gateways, (mut pool, min_reserve, more, per_minute, parking, goal), pace, jitter, restart_after) =
            world;
        if profile == Profile::Reserve {
            (pool.min_reserve, pool.max_reserve, pool.per_minute) = (min_reserve, min_reserve + more, per_minute);
            pool.max_total += min_reserve;
        }
        pool.goal_percent = goal;
        if let Some((parking, held_percent)) = parking {
            (pool.parking, pool.held_percent) = (parking, held_percent);
        }
        let mut events: Vec<Event> = [to_gateways, to_machines, to_zones].into_iter().flatten().flatten().collect();
        events.sort_by_key(|event| event.at);
        let script = script.unwrap_or_default();
        let zones = if profile == Profile::Zones { ZONES } else { 0 };
        let mut case = Case {
            seed,
            gateways,
            pool,
            pace,
            jitter,
            faults: Faults::none(),
            script,
            zones,
            ops,
            events,
            restart_after,
        };
        case.pool.builds_golden |= profile == Profile::Golden;
        // Numbers are drawn for the largest world: with fewer gateways, those that are there take over.
        case.ops.iter_mut().for_each(|op| op.gateway %= gateways);
        case.script.iter_mut().for_each(|strike| strike.call.gateway %= gateways);
        case.events.iter_mut().filter_map(|event| event.what.gateway_mut()).for_each(|number| *number %= gateways);
        case
    })
}

/// That with this probability, 0 and 1 among them.
fn sometimes<S>(probability: f64, what: S) -> BoxedStrategy<Option<S::Value>>
where
    S: Strategy + 'static,
{
    match probability {
        p if p <= 0.0 => Just(()).prop_map(|()| None).boxed(),
        p if p >= 1.0 => what.prop_map(Some).boxed(),
        p => weighted(p, what).boxed(),
    }
}

/// What a failing test says: what was broken, how to see it again, and the history as data.
#[must_use]
pub fn failure(case: &Case, violations: &[String]) -> String {
    let data = serde_json::to_string(case).unwrap_or_else(|error| error.to_string());
    format!(
        "{}\nreplay with: echo '{data}' | cargo run -p boxpool-sim --release -- replay -",
        violations.first().map_or("no violation", String::as_str)
    )
}

/// Pools of every habit, with room for `most` instances or less.
pub fn pools(most: u32) -> impl Strategy<Value = PoolShape> {
    let numbers = (0..=2_u32, 0..=2_u32, 1..=most.max(1), 0..=2_u32);
    let habits = (
        select(vec![0, 1_000, 10_000, 30_000]),
        select(vec![3_600_000, 120_000, 20_000]),
        any::<bool>(),
        any::<bool>(),
    );
    (numbers, habits).prop_map(
        |((min_free, spare, max_total, volumes_free), (linger, park_limit, destroy, forgets_epochs))| {
            let min_free = min_free.min(max_total);
            let max_free = min_free + spare;
            PoolShape {
                min_free,
                max_free,
                max_total,
                volumes_free,
                linger,
                park_limit,
                destroy,
                forgets_epochs,
                ..PoolShape::default()
            }
        },
    )
}

/// A parking policy, and how many hundredths of the machines may be held.
fn parkings() -> impl Strategy<Value = Option<(Parking, u8)>> {
    let policies = select(vec![
        Parking::LeastRecentlyUsed,
        Parking::KeepFor(1_000),
        Parking::KeepFor(60_000),
        Parking::ReturnTime(40_000),
        Parking::ReturnTime(600_000),
    ]);
    (policies, select(vec![100, 67, 34, 0])).prop_map(Some)
}

/// One operation of one user.
pub fn ops(size: Size) -> impl Strategy<Value = Op> {
    let visit = (select(vec![0, 1_000, 10_000, 60_000]), select(vec![300_000, 20_000]), any::<bool>())
        .prop_map(|(stay, patience, rude)| What::Visit { stay, patience, rude });
    let what = prop_oneof![
        15 => visit,
        1 => Just(What::Create),
        1 => Just(What::List),
        1 => Just(What::Delete),
        1 => select(vec![1, 500, 5_000, 20_000]).prop_map(|after| What::GiveUp { after }),
        1 => Just(What::Drain),
    ];
    (0..=size.span, 0..size.gateways, 1..=size.users.max(1), 1..=2_u8, what)
        .prop_map(|(at, gateway, user, name, what)| Op { at, gateway, user, name, what })
}

/// As [`ops`], and everything else that can be done with a box.
pub fn verbs(size: Size) -> impl Strategy<Value = Op> {
    let what = prop_oneof![
        2 => Just(What::Stop),
        1 => (1_u64..9).prop_map(|gib| What::Resize { gib }),
        1 => select(vec![300_000, 20_000]).prop_map(|patience| What::Start { patience }),
        1 => (1_u8..4).prop_map(|to| What::Rename { to }),
        2 => any::<bool>().prop_map(|on| What::Keep { on }),
        2 => select(vec![What::Delete, What::Undelete, What::Purge]),
        1 => any::<bool>().prop_map(|on| What::Share { on }),
        2 => (1..=2_u8).prop_map(|called| What::Snapshot { called }),
        1 => (1..=2_u8).prop_map(|called| What::Restore { called }),
        1 => (1..=2_u8).prop_map(|called| What::DropSnapshot { called }),
        1 => (1..=3_u8).prop_map(|to| What::Duplicate { to }),
        1 => Just(What::Guest),
    ];
    prop_oneof![
        3 => ops(size),
        2 => (ops(size), what).prop_map(|(op, what)| Op { what, ..op }),
    ]
}

/// Calls that every history makes, and what each is for.
fn sites() -> impl Strategy<Value = (Operation, String)> {
    use Operation as O;
    let of_boxes = (
        select(vec![
            O::GuestStart,
            O::GuestSuspend,
            O::GuestStop,
            O::Attach,
            O::Detach,
            O::StoreUpdate,
            O::StoreInsert,
            O::StoreGet,
            O::VolumeEnsure,
            O::VolumeDelete,
            O::StoreDelete,
        ]),
        1..=4_u8,
        1..=2_u8,
    )
        .prop_map(|(operation, user, name)| (operation, format!("u{user}/b{name}")));
    let of_instances = (
        select(vec![
            O::InstanceEnsure,
            O::InstanceGet,
            O::InstanceDelete,
            O::Clear,
            O::StoreUpdate,
            O::StoreInsert,
            O::StoreGet,
        ]),
        0..=3_u8,
    )
        .prop_map(|(operation, seat)| (operation, format!("i{seat:05}")));
    let of_pools = select(vec![
        (O::StoreUpdate, "nodes"),
        (O::StoreGet, "nodes"),
        (O::StoreUpdate, "leases"),
        (O::StoreScan, "instances"),
        (O::StoreScan, "volumes"),
        (O::StoreScan, "boxes"),
        (O::InstanceList, "pool"),
        (O::VolumeList, "pool"),
        (O::VolumeEnsure, "pool"),
        (O::StoreInsert, "pool"),
        (O::StoreUpdate, "pool"),
    ])
    .prop_map(|(operation, role)| (operation, role.to_owned()));
    prop_oneof![3 => of_boxes, 1 => of_instances, 1 => of_pools]
}

/// One struck call, of one that histories make.
pub fn strikes(gateways: usize, crashes: bool) -> impl Strategy<Value = Strike> {
    let site = (0..gateways.max(1), sites(), prop_oneof![3 => 1..=2_u32, 1 => 3..=12_u32]);
    (site, fates(crashes)).prop_map(|((gateway, (operation, role), nth), fate)| {
        let fate = if fate.fits(operation) { fate } else { Fate::LoseAnswer };
        Strike { call: CallId { gateway, operation, role, nth }, fate }
    })
}

/// What may become of a call, the simplest first.
pub fn fates(crashes: bool) -> impl Strategy<Value = Fate> {
    let by = || 1_000..=90_000_u64;
    let of_calls = prop_oneof![
        2 => Just(Fate::LoseAnswer),
        1 => Just(Fate::LoseCall),
        1 => Just(Fate::SwallowAnswer),
        1 => Just(Fate::SwallowCall),
        2 => select(vec![Refusal::Unavailable, Refusal::Busy, Refusal::NoCapacity, Refusal::Permanent])
            .prop_map(Fate::Refuse),
        1 => by().prop_map(|retry_after| Fate::Throttle { retry_after }),
        2 => by().prop_map(|by| Fate::Stall { by }),
        1 => by().prop_map(|by| Fate::Late { by }),
        1 => by().prop_map(|by| Fate::LateSilent { by }),
        1 => by().prop_map(|by| Fate::Twice { by }),
        1 => by().prop_map(|by| Fate::SlowAnswer { by }),
        1 => (60_000..=600_000_u64).prop_map(|by| Fate::Stuck { by }),
    ];
    let deaths = prop_oneof![
        Just(Fate::CrashBefore),
        Just(Fate::CrashAfter),
        by().prop_map(|by| Fate::CrashLater { by }),
        by().prop_map(|by| Fate::StandStill { by }),
    ];
    if crashes { prop_oneof![4 => of_calls, 1 => deaths].boxed() } else { of_calls.boxed() }
}

fn times() -> impl Strategy<Value = u64> {
    select(vec![3_000, 15_000, 30_000, 90_000])
}

/// What befalls gateways and the store.
pub fn happenings_to_gateways(size: Size) -> impl Strategy<Value = Event> {
    let gateway = || 0..size.gateways;
    let what = prop_oneof![
        3 => gateway().prop_map(|gateway| Happening::Crash { gateway }),
        2 => (gateway(), times()).prop_map(|(gateway, time)| Happening::Pause { gateway, time }),
        1 => (gateway(), any::<bool>(), any::<bool>(), times())
            .prop_map(|(gateway, store, cloud, time)| Happening::Partition { gateway, store, cloud, time }),
        1 => times().prop_map(|time| Happening::StoreOutage { time }),
        1 => (gateway(), select(vec![7_000, -5_000, 3_600_000, -86_400_000]))
            .prop_map(|(gateway, ahead)| Happening::Clock { gateway, ahead }),
    ];
    (0..=size.span, what).prop_map(|(at, what)| Event { at, what })
}

/// A zone that is out for a while.
pub fn zone_outages(size: Size) -> impl Strategy<Value = Event> {
    let what = (1..=ZONES, times()).prop_map(|(zone, time)| Happening::ZoneOutage { zone, time });
    (0..=size.span, what).prop_map(|(at, what)| Event { at, what })
}

/// What befalls machines and guests.
pub fn happenings_to_machines(size: Size) -> impl Strategy<Value = Event> {
    let nth = || 0..6_usize;
    let (user, name) = (move || 1..=size.users.max(1), || 1..=2_u8);
    let what = prop_oneof![
        2 => nth().prop_map(|nth| Happening::KillInstance { nth }),
        1 => nth().prop_map(|nth| Happening::Reboot { nth }),
        1 => nth().prop_map(|nth| Happening::Preempt { nth }),
        1 => (user(), name()).prop_map(|(user, name)| Happening::KillGuest { user, name }),
        1 => (user(), name(), times()).prop_map(|(user, name, time)| Happening::HangGuest { user, name, time }),
        1 => (0..=2_usize, times()).prop_map(|(instances, time)| Happening::Quota { instances, time }),
    ];
    (0..=size.span, what).prop_map(|(at, what)| Event { at, what })
}
