//! How a pool may be run: a name that says it, and the settings that follow.

use super::span::parse_span;
use boxpool::PoolConfig;
use std::fmt;
use std::str::FromStr;

/// Why a policy is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {name:?}: {why}; write settings such as free=4,reserve=2,park=1h; known are {}", known())]
pub struct PolicyError {
    name: String,
    why: String,
}

/// What is compared unless somebody says otherwise: machines kept free, with and without a stopped reserve, and boxes that keep their
/// machines for a while.
pub const USUAL: [&str; 14] = [
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
];

/// A setting of a policy.
struct Setting {
    name: &'static str,
    about: &'static str,
    set: fn(&mut PoolConfig, &str) -> Result<(), String>,
}

/// Every setting there is. What the pool learns to do later is added here.
const SETTINGS: [Setting; 6] = [
    Setting {
        name: "free",
        about: "machines kept running and free",
        set: |config, value| {
            let free = number(value)?;
            (config.instances.min_free, config.instances.max_free) = (free, free);
            Ok(())
        },
    },
    Setting {
        name: "reserve",
        about: "machines kept stopped, and woken before any is made",
        set: |config, value| {
            let reserve = number(value)?;
            (config.instances.min_reserve, config.instances.max_reserve) = (reserve, reserve);
            Ok(())
        },
    },
    Setting {
        name: "park",
        about: "for how long a box that nobody uses keeps its machine, unless somebody needs it",
        set: |config, value| parse_span(value).map(|time| config.park_limit = time),
    },
    Setting {
        name: "cool",
        about: "for how long none is given up after one was taken",
        set: |config, value| parse_span(value).map(|time| config.instances.cool_down = time),
    },
    Setting {
        name: "linger",
        about: "for how long a box goes on running after its last user has left",
        set: |config, value| parse_span(value).map(|time| config.linger = time),
    },
    Setting {
        name: "makes",
        about: "so many machines are made at the same time",
        set: |config, value| match number(value)? {
            0 => Err("at least 1".into()),
            makes => {
                config.instances.max_concurrent_creates = makes;
                Ok(())
            }
        },
    },
];

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

/// One way to run a pool: settings, over those of the pool that it is for.
///
/// ```
/// use boxpool_sim::planner::{Policy, pool};
/// let policy: Policy = "free=4,reserve=2,park=1h".parse()?;
/// let config = policy.config(&pool());
/// assert_eq!((config.instances.min_free, config.instances.min_reserve), (4, 2));
/// # Ok::<(), boxpool_sim::planner::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    name: String,
}

impl Policy {
    /// The settings, as they were written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool's settings under this policy.
    #[must_use]
    pub fn config(&self, base: &PoolConfig) -> PoolConfig {
        // What cannot be applied was refused when the name was parsed.
        apply(&self.name, base).unwrap_or_else(|_| base.clone())
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
        match apply(name, &super::pool()) {
            Ok(_) => Ok(Self { name: name.to_owned() }),
            Err(why) => Err(PolicyError { name: name.to_owned(), why }),
        }
    }
}

fn apply(name: &str, base: &PoolConfig) -> Result<PoolConfig, String> {
    let mut config = base.clone();
    for part in name.split(',') {
        let (key, value) = part.split_once('=').ok_or(format!("{part:?} is not a setting"))?;
        let setting = SETTINGS.iter().find(|setting| setting.name == key.trim());
        let setting = setting.ok_or(format!("{key:?} is not known"))?;
        (setting.set)(&mut config, value.trim()).map_err(|why| format!("{key}: {why}"))?;
    }
    Ok(config)
}

/// The policies of that list.
///
/// # Errors
/// [`PolicyError`] for the first that is not understood.
pub fn policies<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Policy>, PolicyError> {
    names.into_iter().map(str::parse).collect()
}
