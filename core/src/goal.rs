//! How many instances are kept free so that a promise about waiting is kept: from measured arrivals and measured times of making.
//!
//! Whoever comes waits for longer than `within` when all that were kept free are gone, which is when at least as many came in the time
//! that it takes to make one, less `within` (base stock with Poisson demand: Hadley & Whitin, *Analysis of Inventory Systems*, 1963; that only
//! the mean of the making times counts is Palm's theorem, 1938). How many will come is not known but
//! estimated, so their number follows no Poisson but a negative binomial distribution: the rate itself has a
//! gamma distribution, whose mean is the rate usual at this hour of the week times how far the last hour and a half was above or
//! below what was usual (Gelman et al., *Bayesian Data Analysis*, 3rd ed., §2.6). Of a pool without a past little is known, and more is kept.
//!
//! What is usual is smoothed over weeks and so lags behind a pool that grows: at a fifth more each week it is two fifths too low. How far the
//! last week was above it, all hours together, is the trend, and raises it. Only growth is carried on: what falls may be a
//! holiday, and is followed more slowly, by the smoothing alone.
//!
//! The promise is to all who come in a week, not to those of each hour alike: the same share at each would keep a second one through
//! whole nights for the few who come then, which at noon would spare ten times as many a wait. So one more is kept whenever it spares
//! at least so many a wait as is its *worth*, the same all week, and the worth follows from the promise (Everett's multipliers,
//! *Operations Research* 11, 1963). At least one is always kept, and as many as are likeliest to come.

use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// What is promised to those who come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// For this share of all who need an instance, over a usual week: above 0, below 1. In the busiest of those hours in which only
    /// one is kept it is a smaller one.
    pub share: f64,
    /// One is there within so long. Attaching and starting come on top: they take what they take, however many are kept free.
    pub within: Duration,
}

impl Goal {
    /// A goal.
    ///
    /// ```
    /// use std::time::Duration;
    /// let mut instances = boxpool::WarmTarget::new(0, 40, 100);
    /// // 99 of 100 find an instance within two seconds, if no more than 40 have to be kept free for it.
    /// instances.goal = Some(boxpool::Goal::new(0.99, Duration::from_secs(2)));
    /// ```
    #[must_use]
    pub fn new(share: f64, within: Duration) -> Self {
        Self { share, within }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.share > 0.0 && self.share < 1.0 {
            return Ok(());
        }
        Err(format!("the share {} of a goal must be above 0 and below 1; 0.99 for 99 %", self.share))
    }
}

const HOURS_A_WEEK: usize = 168;
const HOURS_A_DAY: usize = 24;
const HOUR_MS: u64 = 3_600_000;
/// The recent past is kept in pieces of so long.
const PIECE_MS: u64 = 5 * 60_000;
/// As many of them.
const PIECES: usize = 18;
/// What was so long ago counts for a third of what is now.
const FADES_IN: f64 = 45.0 * 60_000.0;
/// The recent past, so faded, is worth as many hours: `FADES_IN` times `1 - exp(-PIECES * PIECE_MS / FADES_IN)`.
const RECENT_HOURS: f64 = 0.648;
/// What spares so large a part of what another one does is taken for worth the same.
const ALIKE: f64 = 0.8;
/// Of the last week's rate at an hour so much goes into what is usual then.
const NEWEST_WEEK: f32 = 0.3;
/// As many times of making are remembered.
const LEADS: usize = 32;
/// Until one was made it is taken to last so long: about what an Azure machine takes.
const ASSUMED_LEAD: Duration = Duration::from_secs(60);

/// What is usual at one hour of the week.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Usual {
    /// How many come.
    rate: f32,
    /// In how many weeks that was seen.
    weeks: u8,
}

/// How the last week was beside what was usual before it. Each week counts for a third of the next.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Trend {
    came: f32,
    usual: f32,
}

impl Trend {
    /// An hour is over.
    fn saw(&mut self, came: f32, usual: f32) {
        let fades = (-1.0 / HOURS_A_WEEK as f32).exp();
        self.came = self.came * fades + came;
        self.usual = self.usual * fades + usual;
    }

    /// What is usual is to be multiplied by.
    fn growth(self) -> f64 {
        let came = f64::from(self.came) + NO_TREND;
        let usual = f64::from(self.usual) + NO_TREND;
        (came / usual).max(1.0)
    }
}

/// Who has come so far, and how long making takes. Counted by the maintainer, and handed on in the store.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Demand {
    /// By hour of the week, from Thursday 0:00 UTC on, when 1970 began; empty until the first hour is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    usual: Vec<Usual>,
    #[serde(default)]
    trend: Trend,
    /// The last pieces of time in which was counted, the oldest first: which one since 1970, and how many came.
    #[serde(default)]
    recent: VecDeque<(u64, u32)>,
    /// Milliseconds in which the last instances were made or woken.
    #[serde(default)]
    leads: VecDeque<u32>,
}

/// How many are to be free, and why.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Wanted {
    /// So many.
    pub free: u32,
    /// As many are expected to come within an hour.
    pub an_hour: f64,
    /// By how much more than usual the last week saw, or 1: what is usual now has been raised by it.
    pub growth: f64,
    /// How far the recent past was above or below what is usual now: 1 when it was usual, or nothing is known.
    pub level: f64,
    /// How long making one takes, in the mean.
    pub lead: Duration,
    /// How many would be free if none of the bounds forbade it.
    pub unbounded: u32,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { free, an_hour, growth, level, lead, unbounded } = self;
        write!(
            f,
            "{free} wanted free: {an_hour:.1} an hour are expected, {:.0} % of what is usual now",
            level * 100.0
        )?;
        if *growth >= 1.005 {
            write!(f, " after a week with {:.0} % more than before", (growth - 1.0) * 100.0)?;
        }
        write!(f, ", and making one takes {:.1} s", lead.as_secs_f64())?;
        if unbounded != free {
            write!(f, "; the goal asks for {unbounded}, which min_free and max_free do not allow")?;
        }
        Ok(())
    }
}

impl Demand {
    /// As many came since this was called last.
    pub fn came(&mut self, n: u32, now: Timestamp) {
        let piece = now.0 / PIECE_MS;
        // A clock that was put back a little goes on with the piece it was in; one that had been far ahead has taught nothing.
        if self.recent.back().is_some_and(|(last, _)| *last > piece + 1) {
            self.recent.clear();
        }
        while self.recent.back().is_none_or(|(last, _)| *last < piece) {
            let next =
                self.recent.back().map_or(piece, |(last, _)| (last + 1).max(piece.saturating_sub(PIECES as u64)));
            self.close(next);
            self.recent.push_back((next, 0));
        }
        if let Some((_, count)) = self.recent.back_mut() {
            *count = count.saturating_add(n);
        }
        while self.recent.len() > PIECES {
            self.recent.pop_front();
        }
    }

    /// The piece before `next` is over; with the last one of an hour that hour is.
    fn close(&mut self, next: u64) {
        let an_hour = HOUR_MS / PIECE_MS;
        let hour = next / an_hour;
        let of_hour = || self.recent.iter().filter(|(piece, _)| piece / an_hour + 1 == hour);
        let seen = of_hour().count() as u64;
        if !next.is_multiple_of(an_hour) || seen * 2 < an_hour {
            return;
        }
        let came: f32 = of_hour().map(|(_, count)| *count as f32).sum();
        let rate = came * an_hour as f32 / seen as f32;
        self.usual.resize(HOURS_A_WEEK, Usual::default());
        let usual = &mut self.usual[(hour as usize - 1) % HOURS_A_WEEK];
        if usual.weeks > 0 {
            self.trend.saw(rate, usual.rate);
        }
        let part = NEWEST_WEEK.max(1.0 / (f32::from(usual.weeks) + 1.0));
        usual.rate += (rate - usual.rate) * part;
        usual.weeks = usual.weeks.saturating_add(1);
    }

    /// One was made, or woken, in so long.
    pub fn made_in(&mut self, lead: Duration) {
        if self.leads.len() == LEADS {
            self.leads.pop_front();
        }
        self.leads.push_back(u32::try_from(lead.as_millis()).unwrap_or(u32::MAX));
    }

    /// How many are to be free now, between the bounds.
    #[must_use]
    pub fn wanted(&self, goal: &Goal, now: Timestamp, bounds: (u32, u32)) -> Wanted {
        self.wanted_if_worth(self.worth(goal), goal, now, bounds)
    }

    /// How many users' waits one more has to spare in each hour in which it is kept, so that over a usual week the goal is met by as few
    /// as can be. Looks at every hour of the week: too much for every pass.
    pub(crate) fn worth(&self, goal: &Goal) -> f64 {
        let (uncovered, _) = self.uncovered(goal.within);
        let (mut come, mut wait, mut spared) = (0.0, 0.0, Vec::new());
        for hour in 0..HOURS_A_WEEK as u64 {
            let (usual, known) = self.usual_in(hour);
            // As much as is known of an hour in which as many come as usual.
            let evidence = known + usual * RECENT_HOURS;
            let coming = Coming::new(usual, (evidence, evidence), uncovered);
            let (least, waits) = coming.least();
            come += usual;
            wait += waits;
            let negligible = usual * (1.0 - goal.share) / 1_000.0;
            spared.extend(coming.spared_after(least).take_while(|spared| *spared > negligible));
        }
        // Those that spare most come first, at whatever hour.
        spared.sort_unstable_by(|one, other| other.total_cmp(one));
        let allowed = (1.0 - goal.share) * come;
        let needed = spared.iter().take_while(|spared| {
            let needed = wait > allowed;
            wait -= **spared;
            needed
        });
        let worth = needed.last().copied().unwrap_or(f64::INFINITY);
        // Hours that are nearly alike are not to be on an edge, on which a user more or less decides.
        let beyond = spared.iter().copied().find(|spared| *spared < worth * ALIKE);
        (worth * beyond.unwrap_or(worth * ALIKE)).sqrt()
    }

    pub(crate) fn wanted_if_worth(&self, worth: f64, goal: &Goal, now: Timestamp, (least, most): (u32, u32)) -> Wanted {
        let (uncovered, lead) = self.uncovered(goal.within);
        let recent = || self.recent.iter().map(|(piece, count)| (piece * PIECE_MS + PIECE_MS / 2, f64::from(*count)));
        let weight = |at: u64| (-(now.0.saturating_sub(at) as f64) / FADES_IN).exp();
        let came: f64 = recent().map(|(at, count)| count * weight(at)).sum();
        let (usual_next, known) = self.usual_at(now.0.saturating_add(uncovered.as_millis() as u64 / 2));
        // The last piece is not over yet.
        let hours = |at: u64| now.0.saturating_sub(at - PIECE_MS / 2).min(PIECE_MS) as f64 / HOUR_MS as f64;
        let usual_recent: f64 = recent().map(|(at, _)| self.usual_at(at).0 * hours(at) * weight(at)).sum();
        // The level's gamma distribution: as if `known` had come, where as many were usual, before the recent past.
        let (shape, usual) = (known + came, known + usual_recent);
        let coming = Coming::new(usual_next, (shape, usual), uncovered);
        let unbounded = if uncovered.is_zero() { 0 } else { coming.kept(worth) };
        let level = shape / usual;
        Wanted {
            free: unbounded.clamp(least, most.max(least)),
            an_hour: coming.an_hour,
            growth: self.trend.growth(),
            level: if known < OF_AN_HOUR_OF_THE_DAY { 1.0 } else { level },
            lead,
            unbounded,
        }
    }

    /// For how long, in the mean, one that is begun to be made when somebody comes would be too late; and the mean time of making.
    fn uncovered(&self, within: Duration) -> (Duration, Duration) {
        if self.leads.is_empty() {
            return (ASSUMED_LEAD.saturating_sub(within), ASSUMED_LEAD);
        }
        let leads = || self.leads.iter().map(|lead| Duration::from_millis(u64::from(*lead)));
        let n = self.leads.len() as u32;
        let uncovered: Duration = leads().map(|lead| lead.saturating_sub(within)).sum();
        (uncovered / n, leads().sum::<Duration>() / n)
    }

    /// How many an hour are usual at a time, and how many arrivals that knowledge is worth.
    fn usual_at(&self, at: u64) -> (f64, f64) {
        // Between the middles of two hours it goes over from one to the other.
        let from_middle = at.saturating_add(HOUR_MS / 2);
        let (later, into) = (from_middle / HOUR_MS, (from_middle % HOUR_MS) as f64 / HOUR_MS as f64);
        let (before, known_before) = self.usual_in(later.saturating_sub(1));
        let (after, known_after) = self.usual_in(later);
        (before * (1.0 - into) + after * into, known_before.min(known_after))
    }

    /// How many are usual in an hour as things go now, and how many arrivals that knowledge is worth.
    fn usual_in(&self, hour: u64) -> (f64, f64) {
        let (rate, known) = self.smoothed(hour);
        (rate * self.trend.growth(), known)
    }

    fn smoothed(&self, hour: u64) -> (f64, f64) {
        let nobody = f64::from(LEAST_USUAL);
        let place = hour as usize % HOURS_A_WEEK;
        let mean = |of: &mut dyn Iterator<Item = &Usual>| {
            let (sum, n) =
                of.filter(|usual| usual.weeks > 0).fold((0.0, 0_u32), |(sum, n), usual| (sum + usual.rate, n + 1));
            (n > 0).then(|| f64::from(sum / n as f32).max(nobody))
        };
        match self.usual.get(place) {
            Some(usual) if usual.weeks > 0 => (f64::from(usual.rate).max(nobody), OF_AN_HOUR_OF_THE_WEEK),
            _ => {
                let same_hour = &mut self.usual.iter().skip(place % HOURS_A_DAY).step_by(HOURS_A_DAY);
                mean(same_hour)
                    .map(|rate| (rate, OF_AN_HOUR_OF_THE_DAY))
                    .or_else(|| mean(&mut self.usual.iter()).map(|rate| (rate, OF_NOTHING)))
                    .unwrap_or((1.0, OF_NOTHING))
            }
        }
    }
}

/// To know what is usual is worth as many arrivals as evidence: of this hour of the week, of this hour on other days, and when all
/// that is known is the mean of all hours, or nothing.
const OF_AN_HOUR_OF_THE_WEEK: f64 = 8.0;
const OF_AN_HOUR_OF_THE_DAY: f64 = 4.0;
const OF_NOTHING: f64 = 0.5;
/// A week that was as usual is expected as if so many had come in one.
const NO_TREND: f64 = 20.0;
/// An hour in which nobody came yet is no hour in which nobody can come.
const LEAST_USUAL: f32 = 0.1;

/// How many come while one is made: a negative binomial variable, Poisson with a mean that is gamma distributed.
#[derive(Debug, Clone, Copy)]
struct Coming {
    /// As many in an hour, in the mean.
    an_hour: f64,
    /// The gamma distribution's.
    shape: f64,
    /// The part of the time while one is made in all that is looked at: what was seen, and it.
    part: f64,
}

impl Coming {
    /// No pool keeps more.
    const MOST: u32 = 1_000_000;

    /// As many came as `shape` where `usual` were usual, and `usual_an_hour` are in each hour to come.
    fn new(usual_an_hour: f64, (shape, usual): (f64, f64), uncovered: Duration) -> Self {
        let coming = usual_an_hour * uncovered.as_secs_f64() / 3_600.0;
        Self { an_hour: usual_an_hour * shape / usual, shape, part: coming / (usual + coming) }
    }

    /// How likely it is that exactly 0, 1, 2 and so on come, each with whether one more is likelier.
    fn chances(self) -> impl Iterator<Item = (f64, bool)> {
        // In logarithms: the first terms of a large mean are too small for a number.
        let mut ln_chance = self.shape * (-self.part).ln_1p();
        (0..Self::MOST).map(move |n| {
            let chance = ln_chance.exp();
            let rises = ((self.shape + f64::from(n)) / f64::from(n + 1)).ln() + self.part.ln();
            ln_chance += rises;
            (chance, rises > 0.0)
        })
    }

    /// One, and as many as are likeliest to come; and how many users an hour wait when so many are kept.
    fn least(self) -> (u32, f64) {
        let (mut least, mut at_once) = (0, 0.0);
        for (chance, rises) in self.chances() {
            least += 1;
            at_once += chance;
            if !rises {
                break;
            }
        }
        (least, self.an_hour * (1.0 - at_once).max(0.0))
    }

    /// How many users' waits the one after `kept` spares in an hour, the one after that, and so on: from [`Coming::least`] on ever fewer.
    /// Who comes finds all gone, and would have found that one, when exactly so many came before.
    fn spared_after(self, kept: u32) -> impl Iterator<Item = f64> {
        self.chances().skip(kept as usize).map(move |(chance, _)| self.an_hour * chance)
    }

    /// How many are kept when each is to be worth it.
    fn kept(self, worth: f64) -> u32 {
        let (least, _) = self.least();
        let more = self.spared_after(least).take_while(|spared| *spared >= worth).count();
        least.saturating_add(u32::try_from(more).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = HOUR_MS;

    fn goal(share: f64) -> Goal {
        Goal::new(share, Duration::ZERO)
    }

    /// So many an hour come, evenly, in each hour as `rate` says.
    fn weeks(hours: std::ops::Range<u64>, rate: impl Fn(u64) -> u32) -> Demand {
        let mut demand = Demand::default();
        for hour in hours {
            for piece in 0..12 {
                let n = rate(hour) / 12 + u32::from(piece < u64::from(rate(hour) % 12));
                demand.came(n, Timestamp(hour * HOUR + piece * PIECE_MS));
            }
        }
        demand
    }

    #[test]
    fn a_goal_that_says_nothing_is_refused() {
        goal(0.99).check().unwrap();
        for share in [0.0, 1.0, 99.0, -1.0, f64::NAN] {
            assert!(goal(share).check().unwrap_err().contains("0.99 for 99 %"), "{share}");
        }
    }

    /// A rate an hour known for certain, and an hour's lead.
    fn known(rate: f64) -> Coming {
        Coming::new(rate, (1e9, 1e9), Duration::from_secs(3_600))
    }

    #[test]
    fn with_a_known_rate_as_many_come_as_poisson_says() {
        // From tables: P(N = 0), P(N = 1) and P(N = 2) with a mean of 1, and P(N <= 79) with a mean of 60 as the first above 99 %.
        let chances: Vec<_> = known(1.0).chances().map(|(chance, _)| chance).take(3).collect();
        for (chance, table) in chances.iter().zip([0.367_879, 0.367_879, 0.183_940]) {
            assert!((chance - table).abs() < 1e-6, "{chance} {table}");
        }
        let up_to = |n: usize| known(60.0).chances().map(|(chance, _)| chance).take(n + 1).sum::<f64>();
        assert!(up_to(78) < 0.99 && up_to(79) >= 0.99, "{} {}", up_to(78), up_to(79));
        let unsure = Coming::new(60.0, (10.0, 10.0), Duration::from_secs(3_600));
        let unsure: f64 = unsure.chances().map(|(chance, _)| chance).take(101).sum();
        assert!(unsure < 0.99, "more may come where the rate is not well known: {unsure}");
        assert!(known(1e6).least().0.abs_diff(1_000_000) < 3, "of what no first term could be written down");
    }

    #[test]
    fn the_last_one_that_is_kept_is_worth_it_and_the_next_would_not_be() {
        // P(N = 1) = 0.3679, P(N = 2) = 0.1839, P(N = 3) = 0.0613 with a mean of 1.
        let coming = known(1.0);
        assert_eq!((coming.kept(f64::INFINITY), coming.kept(0.19), coming.kept(0.18)), (1, 2, 3));
        assert_eq!((coming.kept(0.062), coming.kept(0.061)), (3, 4));
    }

    /// The share of all who come in a week that find one, when what is wanted at the middle of each hour is kept for all of it and they
    /// come as usual; and how many are kept in the mean.
    fn over_a_week(demand: &Demand, wanted: impl Fn(u64) -> u32) -> (f64, f64) {
        let (mut come, mut at_once, mut kept) = (0.0, 0.0, 0);
        for hour in 0..HOURS_A_WEEK as u64 {
            let (usual, known) = demand.usual_in(hour);
            let evidence = known + usual * RECENT_HOURS;
            let coming = Coming::new(usual, (evidence, evidence), ASSUMED_LEAD);
            kept += wanted(hour);
            come += usual;
            at_once += usual * coming.chances().map(|(chance, _)| chance).take(wanted(hour) as usize).sum::<f64>();
        }
        (at_once / come, f64::from(kept) / HOURS_A_WEEK as f64)
    }

    #[test]
    fn a_week_keeps_the_promise_with_fewer_than_the_same_share_at_each_hour() {
        let day =
            |hour: u64| if (8..20).contains(&(hour % 24)) { 10 * (6 - (hour % 24).abs_diff(14) as u32) + 2 } else { 2 };
        let demand = weeks(0..4 * 168, day);
        for share in [0.95, 0.98, 0.99, 0.999] {
            let worth = demand.worth(&goal(share));
            let coming = |hour: u64| {
                let (usual, known) = demand.usual_in(hour);
                let evidence = known + usual * RECENT_HOURS;
                Coming::new(usual, (evidence, evidence), ASSUMED_LEAD)
            };
            let (found, kept) = over_a_week(&demand, |hour| coming(hour).kept(worth));
            let (_, each_hour) = over_a_week(&demand, |hour| {
                let mut found = 0.0;
                let enough = coming(hour).chances().position(|(chance, _)| {
                    found += chance;
                    found >= share
                });
                enough.unwrap() as u32 + 1
            });
            assert!(found >= share - 1e-3 && found < share + (1.0 - share) / 2.0, "{share}: {found}");
            assert!(kept < each_hour, "{share}: {kept} of {each_hour}");
        }
    }

    #[test]
    fn where_all_hours_are_alike_each_keeps_the_promise() {
        // 60 an hour, and a minute: about Poisson(1), whose 99 % quantile is 4.
        let demand = weeks(0..4 * 168, |_| 60);
        for minute in 0..60 {
            let now = Timestamp(4 * 168 * HOUR + minute * 60_000);
            assert_eq!(demand.wanted(&goal(0.99), now, (0, 100)).free, 5, "{minute}");
        }
    }

    #[test]
    fn more_are_wanted_before_the_hour_in_which_many_come() {
        let office = |hour: u64| if (9..17).contains(&(hour % 24)) { 120 } else { 2 };
        let demand = weeks(0..21 * 24, office);
        let at = |hour: u64, minute: u64| {
            demand.wanted(&goal(0.99), Timestamp((20 * 24 + 24 + hour) * HOUR + minute * 60_000), (0, 100)).free
        };
        let (night, before, noon) = (at(3, 0), at(9, 0), at(12, 0));
        assert!(night <= 2 && before > night && noon > before, "{night} {before} {noon}");
    }

    #[test]
    fn a_day_that_is_busier_than_usual_raises_what_is_wanted_within_the_hour() {
        let mut demand = weeks(0..3 * 168, |_| 60);
        let now = Timestamp(3 * 168 * HOUR + HOUR);
        let usual = demand.wanted(&goal(0.99), now, (0, 100));
        assert!((usual.level - 1.0).abs() < 0.1 && (usual.an_hour - 60.0).abs() < 6.0, "{usual}");
        for piece in 0..12 {
            demand.came(20, Timestamp(3 * 168 * HOUR + piece * PIECE_MS));
        }
        let busy = demand.wanted(&goal(0.99), now, (0, 100));
        assert!(busy.level > 2.0 && busy.free > usual.free, "{busy}");
        let told = busy.to_string();
        assert!(told.contains("wanted free") && told.contains("% of what is usual now"), "{told}");
    }

    /// From nine to five, in week `n` as many as `rate` says.
    fn office(weeks_long: u64, rate: impl Fn(u64) -> f64) -> Demand {
        weeks(0..weeks_long * 168, |hour| if (9..17).contains(&(hour % 24)) { rate(hour / 168) as u32 } else { 0 })
    }

    #[test]
    fn a_pool_that_grows_every_week_is_provided_for_as_much_as_it_will_have_grown() {
        let rate = |week: u64| 60.0 * 1.2_f64.powi(week as i32);
        let demand = office(8, rate);
        // Nobody has come all night: what is known is of other days.
        let wanted = demand.wanted(&goal(0.99), Timestamp(8 * 168 * HOUR + 10 * HOUR), (0, 10_000));
        assert!((0.85..1.15).contains(&(wanted.an_hour / rate(8))), "{wanted}");
        assert!(wanted.growth > 1.4 && wanted.to_string().contains("% more than before"), "{wanted}");
        let (smoothed, _) = demand.smoothed(10);
        assert!(smoothed < 0.65 * rate(8), "{smoothed}");
    }

    #[test]
    fn the_fewer_come_the_less_is_twice_as_many_a_trend() {
        let growth = |usual: f32| Trend { came: 2.0 * usual, usual }.growth();
        assert!(growth(1.0) < 1.05 && growth(2_000.0) > 1.95);
        assert_eq!(growth(NO_TREND as f32), 1.5);
    }

    #[test]
    fn a_clock_that_is_put_back_into_the_piece_before_takes_nothing_away() {
        let mut demand = Demand::default();
        demand.came(5, Timestamp(100 * PIECE_MS));
        demand.came(2, Timestamp(100 * PIECE_MS - 1));
        assert_eq!(demand.recent, [(100, 7)]);
        demand.came(1, Timestamp(99 * PIECE_MS - 1));
        assert_eq!(demand.recent, [(98, 1)]);
    }

    #[test]
    fn an_hour_of_which_half_was_seen_is_one_and_of_which_less_was_seen_is_none() {
        let usual = |first: u64| {
            let mut demand = Demand::default();
            (first..=12).for_each(|piece| demand.came(1, Timestamp(piece * PIECE_MS)));
            demand.usual.first().map(|usual| usual.rate)
        };
        assert_eq!((usual(6), usual(7)), (Some(12.0), None));
    }

    #[test]
    fn no_more_than_the_recent_past_is_remembered() {
        let mut demand = Demand::default();
        (0..100).for_each(|piece| demand.came(1, Timestamp(piece * PIECE_MS)));
        let pieces = demand.recent.iter().map(|(piece, _)| *piece);
        assert!(pieces.eq(100 - PIECES as u64..100), "{:?}", demand.recent);
    }

    #[test]
    fn after_a_holiday_as_many_are_expected_as_is_usual() {
        let demand = office(6, |week| if week == 5 { 6.0 } else { 60.0 });
        let wanted = demand.wanted(&goal(0.99), Timestamp(6 * 168 * HOUR + 10 * HOUR), (0, 10_000));
        assert_eq!(wanted.growth, 1.0);
        assert!(wanted.an_hour > 35.0, "{wanted}");
    }

    #[test]
    fn what_can_be_made_in_time_is_not_kept() {
        let mut demand = weeks(0..168, |_| 60);
        let now = Timestamp(168 * HOUR);
        for _ in 0..40 {
            demand.made_in(Duration::from_secs(30));
        }
        let wanted = |within: u64| demand.wanted(&Goal::new(0.99, Duration::from_secs(within)), now, (0, 100)).free;
        assert_eq!(wanted(30), 0);
        assert!(wanted(20) >= 1 && wanted(0) > wanted(20));
        assert_eq!(demand.leads.len(), LEADS);
    }

    #[test]
    fn the_bounds_are_the_budget() {
        let demand = weeks(0..168, |_| 600);
        let now = Timestamp(168 * HOUR);
        let wanted = demand.wanted(&goal(0.999), now, (1, 5));
        assert_eq!(wanted.free, 5);
        assert!(wanted.unbounded > 10 && wanted.to_string().contains("do not allow"), "{wanted}");
        assert_eq!(demand.wanted(&Goal::new(0.9, Duration::from_secs(600)), now, (3, 5)).free, 3);
    }

    #[test]
    fn hours_that_were_not_watched_teach_nothing() {
        let mut demand = Demand::default();
        demand.came(50, Timestamp(10 * HOUR + 40 * 60_000));
        demand.came(0, Timestamp(11 * HOUR));
        assert!(demand.usual.is_empty(), "twenty minutes are no hour");
        for piece in 0..6 {
            demand.came(5, Timestamp(11 * HOUR + (6 + piece) * PIECE_MS));
        }
        demand.came(0, Timestamp(12 * HOUR));
        assert!((demand.usual[11].rate - 30.0).abs() < 6.0, "{}", demand.usual[11].rate);
    }

    #[test]
    fn it_survives_the_store() {
        let demand = weeks(0..200, |hour| (hour % 24) as u32);
        let json = serde_json::to_string(&demand).unwrap();
        assert!(json.len() < 16_000, "{}", json.len());
        assert_eq!(serde_json::from_str::<Demand>(&json).unwrap(), demand);
    }

    proptest! {
        #[test]
        fn a_higher_share_never_wants_less(
            times in proptest::collection::vec((0_u64..400 * HOUR, 0_u32..50), 0..60), lead in 0_u64..600,
            share in 0.01_f64..0.98, now in 0_u64..u64::MAX / 2,
        ) {
            let mut demand = Demand::default();
            demand.made_in(Duration::from_secs(lead));
            for (at, n) in times {
                demand.came(n, Timestamp(at));
            }
            let (less, more) = (goal(share), goal(share + 0.01));
            let wanted = |goal: &Goal| demand.wanted(goal, Timestamp(now), (0, 10_000)).free;
            prop_assert!(wanted(&less) <= wanted(&more));
        }
    }
}
