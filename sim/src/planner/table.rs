//! What policies cost and how long users wait under them, side by side.

use super::equal::Saving;
use super::interval::Interval;
use super::prices::PriceList;
use super::run::{Connect, Run};
use boxpool::Via;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// As clouds count: 365 days of 24 hours, a twelfth.
const HOURS_A_MONTH: f64 = 730.0;
const HOUR_S: f64 = 3_600.0;

/// A percentile, more than 0 and at most 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percentile(f64);

impl Percentile {
    /// Half wait no longer.
    pub const P50: Self = Self(50.0);
    /// Nine of ten wait no longer.
    pub const P90: Self = Self(90.0);
    /// 19 of 20 wait no longer.
    pub const P95: Self = Self(95.0);
    /// 99 of 100 wait no longer.
    pub const P99: Self = Self(99.0);
    /// 999 of 1000 wait no longer.
    pub const P999: Self = Self(99.9);
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl FromStr for Percentile {
    type Err = String;

    /// `99`, `p99` and `99.9` are understood.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_start_matches('p').parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
        number.map(Self).ok_or(format!("{text:?} is not a percentile: a number above 0, up to 100, such as 99.9"))
    }
}

/// One policy on one seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OfSeed {
    /// What a month of 730 hours like the trace costs.
    pub month: f64,
    /// For how many hours in a day machines ran without a guest.
    pub idle_hours_a_day: f64,
    /// How many connects there were.
    pub connects: usize,
    /// How many of them waited for an instance.
    pub waited: usize,
}

impl OfSeed {
    fn new(run: &Run, prices: &PriceList) -> Self {
        let hours = (run.lasted.as_secs_f64() / HOUR_S).max(f64::MIN_POSITIVE);
        Self {
            month: prices.bill(&run.usage).total() / hours * HOURS_A_MONTH,
            idle_hours_a_day: run.usage.idle_machines.as_secs_f64() / HOUR_S / hours * 24.0,
            connects: run.connects.len(),
            waited: run.connects.iter().filter(|connect| !connect.waited.is_zero()).count(),
        }
    }

    /// The share of users that waited for an instance: above 0, since where nobody did half a user is taken to have.
    #[must_use]
    pub fn waiting(&self) -> f64 {
        (self.waited as f64).max(0.5) / self.connects.max(1) as f64
    }
}

/// One policy, on all seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its settings.
    pub policy: String,
    /// What a month of 730 hours like the trace costs.
    pub month: f64,
    /// Of that, what does not depend on the policy: volumes and snapshots.
    pub month_of_volumes: f64,
    /// For how many hours in a day machines ran without a guest: kept free, held by parked boxes, or on their way.
    pub idle_hours_a_day: f64,
    /// How many connects there were.
    pub connects: usize,
    /// The share of them that did not wait for an instance.
    pub at_once: f64,
    /// The share that came back to a box that was parked, or ran.
    pub came_back: f64,
    /// How many were refused because they waited for too long.
    pub refused: usize,
    /// Whether no other policy is cheaper without being slower, or quicker without being dearer.
    pub best: bool,
    /// The same for each seed, in order.
    pub seeds: Vec<OfSeed>,
    /// How long each connect took, refused ones included, the shortest first.
    took: Vec<Duration>,
}

impl Row {
    /// The runs of one policy, one for each seed.
    #[must_use]
    pub fn new(policy: &str, runs: &[Run], prices: &PriceList) -> Self {
        let hours: f64 = runs.iter().map(|run| run.lasted.as_secs_f64() / HOUR_S).sum();
        let a_month = |of: f64| of / hours.max(f64::MIN_POSITIVE) * HOURS_A_MONTH;
        let bills: Vec<_> = runs.iter().map(|run| prices.bill(&run.usage)).collect();
        let idle: f64 = runs.iter().map(|run| run.usage.idle_machines.as_secs_f64() / HOUR_S).sum();
        let all: Vec<&Connect> = runs.iter().flat_map(|run| &run.connects).collect();
        let share = |of: fn(&Connect) -> bool| {
            all.iter().filter(|connect| of(connect)).count() as f64 / all.len().max(1) as f64
        };
        let mut took: Vec<_> = all.iter().map(|connect| connect.took).collect();
        took.sort_unstable();
        Self {
            policy: policy.to_owned(),
            month: a_month(bills.iter().map(crate::backend::Bill::total).sum()),
            month_of_volumes: a_month(bills.iter().map(|bill| bill.volumes + bill.snapshots).sum()),
            idle_hours_a_day: idle / hours.max(f64::MIN_POSITIVE) * 24.0,
            connects: all.len(),
            at_once: share(|connect| connect.waited.is_zero()),
            came_back: share(|connect| matches!(connect.via, Some(Via::Parked | Via::Running))),
            refused: all.iter().filter(|connect| connect.via.is_none()).count(),
            best: false,
            seeds: runs.iter().map(|run| OfSeed::new(run, prices)).collect(),
            took,
        }
    }

    /// How long a connect takes, from the request until the box is there, or the user is refused: that percentile of all.
    #[must_use]
    pub fn wait(&self, Percentile(percent): Percentile) -> Duration {
        // The nearest rank: the shortest wait that so many do not exceed.
        let rank = (percent / 100.0 * self.took.len() as f64).ceil() as usize;
        self.took.get(rank.clamp(1, self.took.len().max(1)) - 1).copied().unwrap_or_default()
    }
}

/// Policies, the cheapest first; those that no other one beats are marked.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    rows: Vec<Row>,
    percentile: Percentile,
    currency: String,
    savings: Vec<Saving>,
}

impl Table {
    /// Sorts and marks. `percentile` is the wait by which policies are compared.
    #[must_use]
    pub fn new(mut rows: Vec<Row>, percentile: Percentile, prices: &PriceList) -> Self {
        let quicker = |one: &Row, other: &Row| one.wait(percentile).cmp(&other.wait(percentile));
        rows.sort_by(|one, other| one.month.total_cmp(&other.month).then(quicker(one, other)));
        let mut quickest = None;
        for row in &mut rows {
            let wait = row.wait(percentile);
            row.best = quickest.is_none_or(|quickest| wait < quickest);
            if row.best {
                quickest = Some(wait);
            }
        }
        Self { rows, percentile, currency: prices.currency().to_owned(), savings: Vec::new() }
    }

    /// The same, which also tells of these.
    #[must_use]
    pub fn with(self, savings: Vec<Saving>) -> Self {
        Self { savings, ..self }
    }

    /// What goals save, where that can be said.
    #[must_use]
    pub fn savings(&self) -> &[Saving] {
        &self.savings
    }

    /// The policies.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The wait by which they are compared.
    #[must_use]
    pub fn percentile(&self) -> Percentile {
        self.percentile
    }

    /// What costs are in.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = [Percentile::P50, Percentile::P90, Percentile::P95, Percentile::P99, Percentile::P999];
        let name = self.rows.iter().map(|row| row.policy.len()).max().unwrap_or_default().max("policy".len());
        let cost = format!("{}/month", self.currency);
        write!(f, "  {:<name$} {cost:>10} {:>10}", "policy", "idle h/day")?;
        for percentile in shown {
            write!(f, " {:>7}", percentile.to_string())?;
        }
        writeln!(f, " {:>9} {:>11} {:>8}", "at once %", "came back %", "refused")?;
        for row in &self.rows {
            let mark = if row.best { '*' } else { ' ' };
            write!(f, "{mark} {:<name$} {:>10.2} {:>10.1}", row.policy, row.month, row.idle_hours_a_day)?;
            for percentile in shown {
                write!(f, " {:>7.1}", row.wait(percentile).as_secs_f64())?;
            }
            let (at_once, came_back) = (100.0 * row.at_once, 100.0 * row.came_back);
            writeln!(f, " {at_once:>9.1} {came_back:>11.1} {:>8}", row.refused)?;
        }
        writeln!(
            f,
            "\n* nothing here is cheaper without a longer {0}, nor has a shorter {0} without costing more",
            self.percentile
        )?;
        let volumes = self.rows.first().map_or(0.0, |row| row.month_of_volumes);
        write!(
            f,
            "waits are in seconds, from the request until the box is there; volumes alone are {volumes:.2} of each cost"
        )?;
        self.by_seed(f, name)
    }
}

impl Table {
    /// How sure the means are, when there are several seeds.
    fn by_seed(&self, f: &mut fmt::Formatter<'_>, name: usize) -> fmt::Result {
        let seeds = self.rows.first().map_or(0, |row| row.seeds.len());
        if seeds < 2 {
            return Ok(());
        }
        let cost = format!("{}/month", self.currency);
        writeln!(f, "\n\nmeans of {seeds} seeds, with confidence intervals of 95 % (Student's t):")?;
        write!(f, "  {:<name$} {cost:>18} {:>16} {:>16}", "policy", "idle h/day", "not at once %")?;
        for row in &self.rows {
            let mean = |of: fn(&OfSeed) -> f64, places: usize| {
                let interval = Interval::of(&row.seeds.iter().map(of).collect::<Vec<_>>());
                interval.map(|interval| format!("{interval:.places$}")).unwrap_or_default()
            };
            let cost = mean(|seed| seed.month, 2);
            let idle = mean(|seed| seed.idle_hours_a_day, 1);
            let waiting = mean(|seed| 100.0 * seed.waited as f64 / seed.connects.max(1) as f64, 2);
            write!(f, "\n  {:<name$} {cost:>18} {idle:>16} {waiting:>16}", row.policy)?;
        }
        if !self.savings.is_empty() {
            write!(f, "\n\nwhere as many wait, seed by seed:")?;
        }
        self.savings.iter().try_for_each(|saving| write!(f, "\n  {saving}"))
    }
}
