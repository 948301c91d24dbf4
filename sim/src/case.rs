//! A history as data: what users do, what goes wrong, and how large the world is. A case says everything about a run.

use crate::engine::{Draw, Faults, Hash, Pace, Strike};
use boxpool::{
    Goal, KeepFor, LeastRecentlyUsed, Limits, ParkingPolicy, PoolConfig, Recycle, ReturnTime, VolumeSource, WarmTarget,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// One history. All times are milliseconds of virtual time since the world's beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Where the luck of latencies, fates and names comes from.
    pub seed: u64,
    /// How many gateways there are.
    pub gateways: usize,
    /// The pools and their habits.
    pub pool: PoolShape,
    /// How long calls take.
    pub pace: Pace,
    /// Up to so many milliseconds are added to each call.
    pub jitter: u64,
    /// How often calls fail.
    #[serde(default, skip_serializing_if = "is_default")]
    pub faults: Faults,
    /// What becomes of particular calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<Strike>,
    /// In how many zones machines are; 0 says the same as 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zones: u8,
    /// What users do.
    pub ops: Vec<Op>,
    /// What happens to the world.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// How long a dead gateway stays away.
    pub restart_after: u64,
}

fn is_default(faults: &Faults) -> bool {
    *faults == Faults::default()
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(zones: &u8) -> bool {
    *zones == 0
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_nothing(time: &u64) -> bool {
    *time == 0
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(number: &u32) -> bool {
    *number == 0
}

/// The edition of the golden snapshot that pools want.
pub(crate) const GENERATION: &str = "g1";

/// How large the pools are and how they behave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolShape {
    /// As many instances are kept free.
    pub min_free: u32,
    /// More are retired.
    pub max_free: u32,
    /// Never more in all.
    pub max_total: u32,
    /// As many volumes are kept free; twice as many are too many.
    pub volumes_free: u32,
    /// How long a box lingers.
    pub linger: u64,
    /// How long it stays parked.
    pub park_limit: u64,
    /// Whether an instance is deleted after each box.
    pub destroy: bool,
    /// Whether the volume provider forgets epochs.
    pub forgets_epochs: bool,
    /// Whether the pool builds its golden snapshot, and an older one is to be retired.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub builds_golden: bool,
    /// For how long a deleted box can be had back.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub retention: u64,
    /// As many instances are kept stopped.
    #[serde(default, skip_serializing_if = "is_none")]
    pub min_reserve: u32,
    /// More are retired.
    #[serde(default, skip_serializing_if = "is_none")]
    pub max_reserve: u32,
    /// At most as many instances are begun within a minute; 0 for no limit.
    #[serde(default, skip_serializing_if = "is_none")]
    pub per_minute: u32,
    /// Which boxes hold an instance although nobody is at them.
    #[serde(default, skip_serializing_if = "Parking::is_default")]
    pub parking: Parking,
    /// At most so many hundredths of the machines are held by boxes that nobody is at.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub held_percent: u8,
    /// So many hundredths of all who come are promised an instance within two seconds; 0 for no promise. As many are kept free as
    /// that takes, and no fewer than `min_free` nor more than `max_free`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub goal_percent: u32,
}

fn all() -> u8 {
    100
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_all(percent: &u8) -> bool {
    *percent == all()
}

/// A parking policy, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parking {
    /// [`LeastRecentlyUsed`].
    #[default]
    LeastRecentlyUsed,
    /// [`KeepFor`] so many milliseconds.
    KeepFor(u64),
    /// [`ReturnTime`], with a return within so many milliseconds counting as soon, kept from a likelihood of 0.2 and
    /// attached ahead from 0.4.
    ReturnTime(u64),
}

impl Parking {
    /// The policy.
    #[must_use]
    pub fn policy(self) -> Arc<dyn ParkingPolicy> {
        match self {
            Self::LeastRecentlyUsed => Arc::new(LeastRecentlyUsed),
            Self::KeepFor(time) => Arc::new(KeepFor(Duration::from_millis(time))),
            Self::ReturnTime(horizon) => {
                Arc::new(ReturnTime::default().within(Duration::from_millis(horizon)).from_likelihoods(0.2, 0.4))
            }
        }
    }

    /// After how long a box gives its instance back in any case.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::KeepFor(time) => Duration::from_millis(time),
            Self::LeastRecentlyUsed | Self::ReturnTime(_) => Duration::MAX,
        }
    }

    // By reference, as serde calls it.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Something a user does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Op {
    /// When.
    pub at: u64,
    /// Through which gateway; one that is dead then refuses.
    pub gateway: usize,
    /// Who, by number.
    pub user: u8,
    /// Which of the user's boxes, by number.
    pub name: u8,
    /// What.
    pub what: What,
}

/// What a user does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Makes the box.
    Create,
    /// Makes the box if it is not there, connects, works in it, and leaves.
    Visit {
        /// How long they stay.
        stay: u64,
        /// How long they wait to be connected.
        patience: u64,
        /// Whether the session is dropped and not released.
        #[serde(default)]
        rude: bool,
    },
    /// Asks to be connected and goes away after so long, whether or not it has come up.
    GiveUp {
        /// How long they wait.
        after: u64,
    },
    /// Deletes the box.
    Delete,
    /// Lists their boxes.
    List,
    /// An operator takes in a disk that holds the box.
    Adopt,
    /// The gateway is shut down in good order, and started again later.
    Drain,
    /// Has the box come up without connecting to it.
    Start {
        /// How long they wait.
        patience: u64,
    },
    /// Shuts the box down.
    Stop,
    /// Grows the box's volume.
    Resize {
        /// To so many GiB.
        gib: u64,
    },
    /// Calls the box something else.
    Rename {
        /// As the user's box of that number.
        to: u8,
    },
    /// Has the box run without a session, or no more.
    Keep {
        /// Which of the two.
        on: bool,
    },
    /// Has a deleted box back.
    Undelete,
    /// Deletes the box for good, whatever the retention.
    Purge,
    /// Keeps a snapshot of the box.
    Snapshot {
        /// Which of the user's, by number.
        called: u8,
    },
    /// Deletes a snapshot.
    DropSnapshot {
        /// Which of the user's, by number.
        called: u8,
    },
    /// Makes the box from a snapshot.
    Restore {
        /// Which of the user's, by number.
        called: u8,
    },
    /// Makes another box that is a copy of this one.
    Duplicate {
        /// Which of the user's boxes, by number.
        to: u8,
    },
    /// Lets somebody else connect, or no more.
    Share {
        /// Which of the two.
        on: bool,
    },
    /// That somebody else connects, and leaves again.
    Guest,
    /// An administrator takes the n-th machine, in order of names, out of use.
    Cordon {
        /// Which.
        nth: usize,
        /// Whether it is to be emptied and deleted.
        drain: bool,
    },
    /// An administrator takes the n-th machine back into use.
    Uncordon {
        /// Which.
        nth: usize,
    },
}

/// Something that happens to the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub at: u64,
    /// What.
    pub what: Happening,
}

/// What happens to the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A gateway dies.
    Crash {
        /// Which.
        gateway: usize,
    },
    /// A gateway stands still.
    Pause {
        /// Which.
        gateway: usize,
        /// For how long.
        time: u64,
    },
    /// A gateway is cut off.
    Partition {
        /// Which.
        gateway: usize,
        /// From the store.
        store: bool,
        /// From the cloud.
        cloud: bool,
        /// For how long.
        time: u64,
    },
    /// The store is away.
    StoreOutage {
        /// For how long.
        time: u64,
    },
    /// The n-th machine, in order of names, dies.
    KillInstance {
        /// Which.
        nth: usize,
    },
    /// The n-th machine is preempted.
    Preempt {
        /// Which.
        nth: usize,
    },
    /// The n-th machine restarts.
    Reboot {
        /// Which.
        nth: usize,
    },
    /// A box's guest dies.
    KillGuest {
        /// Whose.
        user: u8,
        /// Which box.
        name: u8,
    },
    /// A box's guest hangs.
    HangGuest {
        /// Whose.
        user: u8,
        /// Which box.
        name: u8,
        /// For how long.
        time: u64,
    },
    /// The cloud gives no more than so many machines.
    Quota {
        /// How many.
        instances: usize,
        /// For how long.
        time: u64,
    },
    /// A gateway's wall clock is set.
    Clock {
        /// Which.
        gateway: usize,
        /// So far ahead of the truth.
        ahead: i64,
    },
    /// A gateway's wall clock goes too fast from now on.
    Drift {
        /// Which.
        gateway: usize,
        /// By so many millionths; too slow when negative.
        parts_per_million: i32,
    },
    /// A zone is out: its machines die, and none is made there.
    ZoneOutage {
        /// Which, from 1.
        zone: u8,
        /// For how long.
        time: u64,
    },
}

impl Happening {
    /// The gateway that it befalls, if it is one.
    pub(crate) fn gateway_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Crash { gateway }
            | Self::Pause { gateway, .. }
            | Self::Partition { gateway, .. }
            | Self::Clock { gateway, .. }
            | Self::Drift { gateway, .. } => Some(gateway),
            Self::StoreOutage { .. }
            | Self::KillInstance { .. }
            | Self::Preempt { .. }
            | Self::Reboot { .. }
            | Self::KillGuest { .. }
            | Self::HangGuest { .. }
            | Self::Quota { .. }
            | Self::ZoneOutage { .. } => None,
        }
    }

    /// One word, for summaries.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "gateway crashed",
            Self::Pause { .. } => "gateway paused",
            Self::Partition { .. } => "gateway cut off",
            Self::StoreOutage { .. } => "store away",
            Self::KillInstance { .. } => "machine died",
            Self::Preempt { .. } => "machine preempted",
            Self::Reboot { .. } => "machine rebooted",
            Self::KillGuest { .. } => "guest died",
            Self::HangGuest { .. } => "guest hung",
            Self::Quota { .. } => "quota cut",
            Self::Clock { .. } => "clock set",
            Self::Drift { .. } => "clock drifts",
            Self::ZoneOutage { .. } => "zone out",
        }
    }
}

impl Default for PoolShape {
    /// Two machines kept free, six at most; a linger of ten seconds.
    fn default() -> Self {
        Self {
            min_free: 1,
            max_free: 2,
            max_total: 6,
            volumes_free: 2,
            linger: 10_000,
            park_limit: 3_600_000,
            destroy: false,
            forgets_epochs: false,
            builds_golden: false,
            retention: 0,
            min_reserve: 0,
            max_reserve: 0,
            per_minute: 0,
            parking: Parking::default(),
            held_percent: all(),
            goal_percent: 0,
        }
    }
}

impl PoolShape {
    /// The pool's settings.
    #[must_use]
    pub fn config(&self) -> PoolConfig {
        let seconds = Duration::from_secs;
        let mut config = PoolConfig::new(VolumeSource::Snapshot(crate::golden()), GENERATION);
        config.instances = WarmTarget::new(self.min_free, self.max_free, self.max_total);
        config.volumes = WarmTarget::new(self.volumes_free, self.volumes_free * 2, 1_000);
        config.instances.cool_down = seconds(30);
        config.instances.min_reserve = self.min_reserve;
        config.instances.max_reserve = self.max_reserve;
        config.instances.creates_per_minute = NonZeroU32::new(self.per_minute);
        if self.goal_percent > 0 {
            config.instances.goal = Some(Goal { share: f64::from(self.goal_percent) / 100.0, within: seconds(2) });
        }
        config.volumes.cool_down = seconds(30);
        config.linger = Duration::from_millis(self.linger);
        config.park_limit = Duration::from_millis(self.park_limit);
        config.held_share = f64::from(self.held_percent) / 100.0;
        config.connect_deadline = seconds(300);
        config.heartbeat_every = seconds(5);
        config.dead_after = seconds(20);
        config.reconcile_every = seconds(10);
        config.maintain_every = seconds(5);
        config.census_every = seconds(30);
        config.orphan_grace = seconds(120);
        config.retention = Duration::from_millis(self.retention);
        config.recycle = if self.destroy { Recycle::Destroy } else { Recycle::ReuseWhenClean };
        // Slow answers are the rule in histories: only what is away for longer than a call may take is an outage.
        let (store_call, store_silence) = (seconds(5), seconds(12));
        config.limits = Limits { store_call, store_silence, golden: seconds(120), ..Limits::default() };
        config
    }
}

/// What kind of histories are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Everything, each kind of fault present in about half of the histories.
    #[default]
    Swarm,
    /// No faults at all.
    Calm,
    /// Gateways die, stand still and are cut off; calls themselves do not fail.
    Crashes,
    /// Calls fail, are lost, late or doubled; gateways live.
    Calls,
    /// Machines and guests die and hang; gateways and calls are sound.
    Machines,
    /// As [`Profile::Swarm`], and the pool builds its own golden snapshot.
    Golden,
    /// As [`Profile::Swarm`], in two or three zones which go out, and with clocks that drift.
    Zones,
    /// As [`Profile::Swarm`], and users do everything that can be done with a box.
    Verbs,
    /// As [`Profile::Swarm`], and some machines are kept stopped; often only some may be made within a minute.
    Reserve,
    /// As [`Profile::Swarm`], with every parking policy, and users who return.
    Parking,
    /// As [`Profile::Swarm`], and how many machines are kept free follows from who comes.
    Goal,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 11] = [
        Self::Swarm,
        Self::Calm,
        Self::Crashes,
        Self::Calls,
        Self::Machines,
        Self::Golden,
        Self::Zones,
        Self::Verbs,
        Self::Reserve,
        Self::Parking,
        Self::Goal,
    ];

    /// Whether anything may go wrong in its histories.
    pub(crate) fn is_everything(self) -> bool {
        !matches!(self, Self::Calm | Self::Crashes | Self::Calls | Self::Machines)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Swarm => "swarm",
            Self::Calm => "calm",
            Self::Crashes => "crashes",
            Self::Calls => "calls",
            Self::Machines => "machines",
            Self::Golden => "golden",
            Self::Zones => "zones",
            Self::Verbs => "verbs",
            Self::Reserve => "reserve",
            Self::Parking => "parking",
            Self::Goal => "goal",
        })
    }
}

impl std::str::FromStr for Profile {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|profile| profile.to_string() == text).ok_or_else(|| {
            let all = Self::ALL.map(|profile| profile.to_string());
            format!("{text:?} is not a profile; there are {}", all.join(", "))
        })
    }
}

/// Who comes once comes again: there is something to learn, and a census in between.
fn come_again(draw: &mut Draw, ops: &mut Vec<Op>, span: u64, gateways: usize) {
    let visits: Vec<Op> = ops.iter().filter(|op| matches!(op.what, What::Visit { .. })).cloned().collect();
    for op in visits {
        let mut at = op.at;
        for _ in 0..draw.between(0, 3) {
            at += draw.between(span / 4, span / 2);
            ops.push(Op { at, gateway: draw.between(0, gateways as u64 - 1) as usize, ..op.clone() });
        }
    }
}

impl Case {
    /// The case that a seed stands for in a profile. The same for ever in one version.
    #[must_use]
    pub fn random(seed: u64, profile: Profile) -> Self {
        let mut draw = Hash::new(seed).text("case").draw();
        let gateways = *draw.pick(&[1, 2, 2, 2, 3, 3, 4]);
        let users = draw.between(1, 4) as u8;
        let names = if draw.chance(0.7) { 1 } else { 2 };
        let tight = draw.chance(0.5);
        let max_total = if tight { draw.between(1, 2) as u32 } else { draw.between(2, 6) as u32 };
        let min_free = (draw.between(0, 2) as u32).min(max_total);
        let mut pool = PoolShape {
            min_free,
            max_free: min_free + draw.between(0, 2) as u32,
            max_total,
            volumes_free: draw.between(0, 2) as u32,
            linger: *draw.pick(&[0, 1_000, 10_000, 30_000]),
            park_limit: *draw.pick(&[20_000, 120_000, 3_600_000]),
            destroy: draw.chance(0.2),
            forgets_epochs: draw.chance(0.4),
            builds_golden: profile == Profile::Golden,
            ..PoolShape::default()
        };
        let pace = *draw.pick(&[Pace::Cloud, Pace::Host, Pace::Host, Pace::Wild, Pace::Ranked]);
        let span = if pace == Pace::Host { 60_000 } else { 240_000 };
        let mut ops: Vec<_> =
            (0..draw.between(2, 14)).map(|_| Op::random(&mut draw, span, gateways, users, names)).collect();
        let everything = profile.is_everything();
        let calls = everything || profile == Profile::Calls;
        let faults = if calls { swarm(&mut draw) } else { Faults::none() };
        let mut faults = if everything && draw.chance(0.2) { Faults::none() } else { faults };
        if profile == Profile::Calls {
            faults.crash = 0.0;
        }
        let mut events = happenings(&mut draw, profile, span, gateways, users, names);
        let mut zones = 0;
        if profile == Profile::Zones {
            zones = draw.between(2, 3) as u8;
            events.extend(of_zones(&mut draw, span, gateways, zones));
            events.sort_by_key(|event| event.at);
        }
        if profile == Profile::Verbs {
            ops.extend((0..draw.between(2, 10)).map(|_| Op::of_verbs(&mut draw, span, gateways, users, names)));
            // Boxes that are kept running make no room for others.
            pool.max_total = pool.max_total.max(u32::from(users * names) + 1);
            pool.retention = *draw.pick(&[0, 10_000, 60_000, 3_600_000]);
            // With a luck of their own: what else happens is as it was before there were snapshots.
            let mut of_snapshots = Hash::new(seed).text("snapshots").draw();
            let copies = of_snapshots.between(0, 6);
            ops.extend((0..copies).map(|_| Op::of_snapshots(&mut of_snapshots, span, gateways, users, names)));
            pool.max_total += u32::from(users) * u32::from(names) * u32::from(copies > 0);
            let mut of_renames = Hash::new(seed).text("renames").draw();
            let renames = of_renames.between(0, 5);
            ops.extend((0..renames).map(|_| Op::of_renames(&mut of_renames, span, gateways, users, names + 1)));
            pool.max_total += u32::from(users) * u32::from(renames > 0);
        }
        if profile == Profile::Parking {
            pool.parking = match draw.between(0, 3) {
                0 => Parking::LeastRecentlyUsed,
                1 => Parking::KeepFor(*draw.pick(&[1_000, 20_000, 120_000])),
                _ => Parking::ReturnTime(*draw.pick(&[40_000, 120_000, 600_000])),
            };
            pool.held_percent = *draw.pick(&[0, 34, 67, 100, 100]);
            come_again(&mut draw, &mut ops, span, gateways);
            if draw.chance(0.3) {
                let gib = draw.between(2, 8);
                let at = draw.between(0, span);
                ops.push(Op { at, gateway: 0, user: 1, name: 1, what: What::Resize { gib } });
            }
        }
        if profile == Profile::Goal {
            pool.goal_percent = *draw.pick(&[50, 90, 99]);
            pool.max_free = pool.min_free + draw.between(1, 4) as u32;
            come_again(&mut draw, &mut ops, span, gateways);
        }
        if profile == Profile::Reserve {
            pool.min_reserve = draw.between(0, 2) as u32;
            pool.max_reserve = pool.min_reserve + draw.between(0, 2) as u32;
            pool.per_minute = *draw.pick(&[0, 0, 2, 6, 20]);
            pool.max_total += pool.min_reserve;
            for _ in 0..draw.between(0, 4) {
                let nth = draw.between(0, 5) as usize;
                let what = match draw.between(0, 2) {
                    0 => What::Uncordon { nth },
                    n => What::Cordon { nth, drain: n == 1 },
                };
                let gateway = draw.between(0, gateways as u64 - 1) as usize;
                ops.push(Op { at: draw.between(0, span), gateway, user: 1, name: 1, what });
            }
            // So that the reserve is filled and emptied within the history.
            ops.iter_mut().for_each(|op| op.at *= draw.between(1, 3));
        }
        Case {
            zones,
            seed,
            gateways,
            pool,
            pace,
            jitter: *draw.pick(&[0, 0, 20, 2_000]),
            faults,
            script: Vec::new(),
            ops,
            events,
            restart_after: *draw.pick(&[100, 3_000, 40_000]),
        }
    }

    /// Whether anything is meant to go wrong.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.faults == Faults::none() && self.script.is_empty() && self.events.is_empty()
    }
}

/// Each kind of fault in half of the histories: too many at once and nothing ever comes about.
fn swarm(draw: &mut Draw) -> Faults {
    let scale = *draw.pick(&[0.003, 0.01, 0.03]);
    let mut rate = |weight: f64| if draw.chance(0.5) { scale * weight } else { 0.0 };
    Faults {
        transient: rate(1.0),
        permanent: rate(0.2),
        throttled: rate(0.5),
        capacity: rate(0.3),
        lost: rate(1.0),
        late: rate(1.0),
        stall: rate(1.0),
        stuck: rate(0.5),
        stale: rate(3.0),
        crash: rate(0.3),
    }
}

fn happenings(draw: &mut Draw, profile: Profile, span: u64, gateways: usize, users: u8, names: u8) -> Vec<Event> {
    let (of_gateways, of_machines) = match profile {
        profile if profile.is_everything() => (draw.chance(0.5), draw.chance(0.5)),
        Profile::Calm | Profile::Calls => (false, false),
        Profile::Crashes => (true, false),
        _ => (false, true),
    };
    let mut events = Vec::new();
    let long = |draw: &mut Draw| *draw.pick(&[3_000, 15_000, 30_000, 90_000]);
    if of_gateways {
        for _ in 0..draw.between(1, 3) {
            let gateway = draw.between(0, gateways as u64 - 1) as usize;
            let time = long(draw);
            let what = match draw.between(0, 7) {
                0..=2 => Happening::Crash { gateway },
                3 | 4 => Happening::Pause { gateway, time },
                5 => Happening::Partition { gateway, store: draw.chance(0.7), cloud: draw.chance(0.5), time },
                6 => Happening::StoreOutage { time },
                _ => Happening::Clock { gateway, ahead: *draw.pick(&[-86_400_000, -5_000, 7_000, 3_600_000]) },
            };
            events.push(Event { at: draw.between(0, span), what });
        }
    }
    if of_machines {
        for _ in 0..draw.between(1, 3) {
            let nth = draw.between(0, 5) as usize;
            let (user, name) = (draw.between(1, u64::from(users)) as u8, draw.between(1, u64::from(names)) as u8);
            let time = long(draw);
            let what = match draw.between(0, 6) {
                0 | 1 => Happening::KillInstance { nth },
                2 => Happening::Preempt { nth },
                3 => Happening::Reboot { nth },
                4 => Happening::KillGuest { user, name },
                5 => Happening::HangGuest { user, name, time },
                _ => Happening::Quota { instances: draw.between(0, 2) as usize, time },
            };
            events.push(Event { at: draw.between(0, span), what });
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

/// One outage or two, never of all zones at once for long; and clocks that are too fast or slow by up to a fiftieth.
fn of_zones(draw: &mut Draw, span: u64, gateways: usize, zones: u8) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..draw.between(1, 2) {
        let zone = draw.between(1, u64::from(zones)) as u8;
        let time = *draw.pick(&[5_000, 30_000, 120_000]);
        events.push(Event { at: draw.between(0, span), what: Happening::ZoneOutage { zone, time } });
    }
    for gateway in 0..gateways {
        if draw.chance(0.5) {
            let parts_per_million = *draw.pick(&[-20_000, -200, 200, 20_000]);
            events.push(Event { at: draw.between(0, span), what: Happening::Drift { gateway, parts_per_million } });
        }
    }
    events
}

impl Op {
    /// What is done with a box beside visiting it.
    fn of_verbs(draw: &mut Draw, span: u64, gateways: usize, users: u8, names: u8) -> Self {
        let what = match draw.between(0, 15) {
            0 | 1 => What::Stop,
            14 | 15 => What::Resize { gib: draw.between(1, 9) },
            2 => What::Start { patience: *draw.pick(&[20_000, 300_000]) },
            3 => What::Keep { on: false },
            4 | 5 => What::Keep { on: true },
            6 | 7 => What::Delete,
            8 | 9 => What::Undelete,
            10 => What::Purge,
            11 => What::Share { on: draw.chance(0.7) },
            _ => What::Guest,
        };
        Self::somewhere(draw, span, gateways, users, names, what)
    }

    /// Boxes are called something else, and used as what they are called.
    fn of_renames(draw: &mut Draw, span: u64, gateways: usize, users: u8, names: u8) -> Self {
        let what = match draw.between(0, 6) {
            0..=4 => What::Rename { to: draw.between(1, u64::from(names)) as u8 },
            5 => What::Start { patience: 300_000 },
            _ => What::Visit { stay: 1_000, patience: 300_000, rude: false },
        };
        Self::somewhere(draw, span, gateways, users, names, what)
    }

    /// What is done with copies of a box's disk.
    fn of_snapshots(draw: &mut Draw, span: u64, gateways: usize, users: u8, names: u8) -> Self {
        let what = match draw.between(0, 9) {
            0..=3 => What::Snapshot { called: draw.between(1, 2) as u8 },
            4..=6 => What::Restore { called: draw.between(1, 2) as u8 },
            7 => What::DropSnapshot { called: draw.between(1, 2) as u8 },
            _ => What::Duplicate { to: draw.between(1, u64::from(names) + 1) as u8 },
        };
        let names = if matches!(what, What::Restore { .. }) { names + 1 } else { names };
        Self::somewhere(draw, span, gateways, users, names, what)
    }

    fn random(draw: &mut Draw, span: u64, gateways: usize, users: u8, names: u8) -> Self {
        let what = match draw.between(0, 19) {
            0 => What::Create,
            1 => What::Delete,
            2 => What::List,
            3 => What::GiveUp { after: *draw.pick(&[1, 500, 5_000, 20_000]) },
            4 => What::Drain,
            _ => What::Visit {
                stay: *draw.pick(&[0, 1_000, 10_000, 60_000]),
                patience: *draw.pick(&[20_000, 300_000, 300_000]),
                rude: draw.chance(0.3),
            },
        };
        Self::somewhere(draw, span, gateways, users, names, what)
    }

    fn somewhere(draw: &mut Draw, span: u64, gateways: usize, users: u8, names: u8, what: What) -> Self {
        Op {
            at: draw.between(0, span),
            gateway: draw.between(0, gateways as u64 - 1) as usize,
            user: draw.between(1, u64::from(users)) as u8,
            name: draw.between(1, u64::from(names)) as u8,
            what,
        }
    }
}
