//! How a pool may be run: a name that says it, and the settings that follow.

use super::span::parse_span;
use crate::case::Parking;
use boxpool::{Goal, ParkingPolicy, PoolConfig};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Why a policy is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {name:?}: {why}; write settings such as free=4,reserve=2,park=1h; known are {}", known())]
pub struct PolicyError {
    name: String,
    why: String,
}

/// What is compared unless somebody says otherwise: machines kept free, with and without a stopped reserve, and boxes that keep their
/// machines for a while.
pub const USUAL: [&str; 18] = [
    "free=0,park=0s",
    "free=1,park=0s",
    "free=2,park=0s",
    "free=4,park=0s",
    "free=8,park=0s",
    "free=16,park=0s",
    "free=1,reserve=4,park=0s",
    "free=2,reserve=8,park=0s",
    "free=1,park=10m",
    "free=1,park=1h",
    "free=1,park=4h",
    "free=2,park=1h",
    "free=2,reserve=4,park=1h",
    "free=4,park=1h",
    "goal=90%,park=0s",
    "goal=99%,park=0s",
    "goal=99%,keep=1h",
    "goal=99%,return=15m",
];

/// What a policy sets.
#[derive(Debug, Clone)]
struct Settings {
    pool: PoolConfig,
    parking: Parking,
}

/// A setting of a policy.
struct Setting {
    name: &'static str,
    about: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Every setting there is. What the pool learns to do later is added here.
const SETTINGS: [Setting; 12] = [
    Setting {
        name: "free",
        about: "machines kept running and free",
        set: |Settings { pool: config, .. }, value| {
            let free = number(value)?;
            (config.instances.min_free, config.instances.max_free) = (free, free);
            Ok(())
        },
    },
    Setting {
        name: "reserve",
        about: "machines kept stopped, and woken before any is made",
        set: |Settings { pool: config, .. }, value| {
            let reserve = number(value)?;
            (config.instances.min_reserve, config.instances.max_reserve) = (reserve, reserve);
            Ok(())
        },
    },
    Setting {
        name: "park",
        about: "for how long a box that nobody uses keeps its machine, unless somebody needs it",
        set: |Settings { pool: config, .. }, value| parse_span(value).map(|time| config.park_limit = time),
    },
    Setting {
        name: "goal",
        about: "as many machines are kept free as let this share of users find one in time, going by who came before; above those of free, if \
                that is said first",
        set: |Settings { pool: config, .. }, value| {
            let goal = Goal { share: share(value)?, ..config.instances.goal.unwrap_or(Goal::new(0.5, WITHIN)) };
            config.instances.goal = Some(goal);
            config.instances.max_free = config.instances.max_free.max(GOAL_AT_MOST);
            Ok(())
        },
    },
    Setting {
        name: "within",
        about: "what in time means for the goal before it: 2s unless said",
        set: |Settings { pool: config, .. }, value| {
            let goal = config.instances.goal.as_mut().ok_or("it needs a goal before it")?;
            goal.within = parse_span(value)?;
            Ok(())
        },
    },
    Setting {
        name: "most",
        about: "the goal before it keeps no more machines free than this",
        set: |Settings { pool: config, .. }, value| {
            config.instances.goal.ok_or("it needs a goal before it")?;
            config.instances.max_free = number(value)?.max(config.instances.min_free);
            Ok(())
        },
    },
    Setting {
        name: "keep",
        about: "for how long a box that nobody uses keeps its machine, by the parking policy KeepFor",
        set: |Settings { parking, .. }, value| {
            *parking = Parking::KeepFor(millis(parse_span(value)?));
            Ok(())
        },
    },
    Setting {
        name: "return",
        about: "a box whose user is likely to return within so long keeps its machine, or is given one ahead",
        set: |Settings { parking, .. }, value| {
            *parking = Parking::ReturnTime(millis(parse_span(value)?));
            Ok(())
        },
    },
    Setting {
        name: "held",
        about: "boxes that nobody uses hold at most this share of all machines",
        set: |Settings { pool: config, .. }, value| share(value).map(|share| config.held_share = share),
    },
    Setting {
        name: "cool",
        about: "for how long there must have been some to spare before one is given up",
        set: |Settings { pool: config, .. }, value| parse_span(value).map(|time| config.instances.cool_down = time),
    },
    Setting {
        name: "linger",
        about: "for how long a box goes on running after its last user has left",
        set: |Settings { pool: config, .. }, value| parse_span(value).map(|time| config.linger = time),
    },
    Setting {
        name: "makes",
        about: "so many machines are made at the same time",
        set: |Settings { pool: config, .. }, value| match number(value)? {
            0 => Err("at least 1".into()),
            makes => {
                config.instances.max_concurrent_creates = makes;
                Ok(())
            }
        },
    },
];

/// What in time means unless it is said.
const WITHIN: Duration = Duration::from_secs(2);
/// No more are kept free for a goal unless it is said.
const GOAL_AT_MOST: u32 = 1_000;

/// `99%` or `0.99`: above 0, below 1.
fn share(value: &str) -> Result<f64, String> {
    let number = match value.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => value.parse(),
    };
    let share = number.ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or(format!("{value:?} is not a share such as 99% or 0.99"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// More machines than this are not planned for.
const MOST: u32 = 10_000;

fn number(value: &str) -> Result<u32, String> {
    let number = value.parse().ok().filter(|number| *number <= MOST);
    number.ok_or(format!("{value:?} is not a number from 0 to {MOST}"))
}

fn known() -> String {
    let each = SETTINGS.map(|Setting { name, about, .. }| format!("{name} ({about})"));
    each.join(", ")
}

/// One way to run a pool: settings, over those of [`pool`](super::pool).
///
/// ```
/// use boxpool_sim::planner::Policy;
/// let policy: Policy = "free=4,reserve=2,park=1h".parse()?;
/// let instances = policy.config().instances;
/// assert_eq!((instances.min_free, instances.min_reserve), (4, 2));
/// # Ok::<(), boxpool_sim::planner::PolicyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Policy {
    name: String,
    settings: Settings,
}

impl Policy {
    /// The settings, as they were written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool's settings under this policy.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.settings.pool
    }

    /// Which boxes hold a machine while nobody uses them.
    #[must_use]
    pub fn parking(&self) -> Arc<dyn ParkingPolicy> {
        self.settings.parking.policy()
    }

    /// Whether how many machines are kept free follows from a goal.
    pub(super) fn has_goal(&self) -> bool {
        self.settings.pool.instances.goal.is_some()
    }

    /// The settings as they were written, but for those that say how many machines are kept free.
    pub(super) fn beside_free(&self) -> impl Iterator<Item = &str> {
        let of_free = |setting: &&str| {
            let name = setting.split('=').next().unwrap_or_default();
            ["free", "goal", "within", "most"].contains(&name.trim())
        };
        self.name.split(',').map(str::trim).filter(move |setting| !of_free(setting))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(name: &str) -> Result<Self, PolicyError> {
        let settings = settings(name).map_err(|why| PolicyError { name: name.to_owned(), why })?;
        Ok(Self { name: name.to_owned(), settings })
    }
}

fn settings(name: &str) -> Result<Settings, String> {
    let mut settings = Settings { pool: super::pool(), parking: Parking::default() };
    for part in name.split(',') {
        let (key, value) = part.split_once('=').ok_or(format!("{part:?} is not a setting"))?;
        let setting = SETTINGS.iter().find(|setting| setting.name == key.trim());
        let setting = setting.ok_or(format!("{key:?} is not known"))?;
        (setting.set)(&mut settings, value.trim()).map_err(|why| format!("{key}: {why}"))?;
    }
    Ok(settings)
}

/// The policies of that list.
///
/// # Errors
/// [`PolicyError`] for the first that is not understood.
pub fn policies<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Policy>, PolicyError> {
    names.into_iter().map(str::parse).collect()
}
