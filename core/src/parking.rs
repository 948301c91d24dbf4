//! Which boxes nobody is at hold an instance, and which parked box gives its instance back first.
//!
//! A parked box comes up without a cloud call, and its instance costs as much as one in use. A [`ParkingPolicy`] weighs the two:
//! it is asked who goes when somebody waits, who goes although nobody does, and for which boxes that are on no
//! instance one is taken ahead of their owner.

use crate::clock::Timestamp;
use crate::id::BoxRef;
use crate::record::{BoxRecord, Placement, Visits};
use std::time::Duration;

/// A box that nobody is at, as a policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwayBox {
    /// Which box.
    pub owner: BoxRef,
    /// Since when, by the clock of the node that wrote it.
    pub since: Timestamp,
    /// The visits to it so far.
    pub visits: Visits,
}

impl AwayBox {
    /// A box that nobody has visited yet.
    #[must_use]
    pub fn new(owner: BoxRef, since: Timestamp) -> Self {
        Self { owner, since, visits: Visits::default() }
    }

    /// With these visits.
    #[must_use]
    pub fn with_visits(self, visits: Visits) -> Self {
        Self { visits, ..self }
    }

    /// What a record says; `since` for a box that was never visited, or whose visit has not ended yet.
    pub(crate) fn of(record: &BoxRecord, since: Timestamp) -> Self {
        let left = record.visits.past().next_back().map(|visit| visit.left);
        let since = match record.placement {
            Placement::Detached | Placement::Parked { .. } => left.unwrap_or(since),
            _ => since,
        };
        Self { owner: record.owner.clone(), since, visits: record.visits.clone() }
    }
}

/// Decides which boxes that nobody is at are worth an instance. Pure: the same box at the same time, the same answer. It is
/// asked while somebody waits, and about every box with each census.
pub trait ParkingPolicy: Send + Sync + 'static {
    /// How much an instance is worth to the box now. Only compared: when somebody waits, or too many instances are held, the
    /// box with the least goes first. Not a number counts as the least.
    fn worth(&self, away: &AwayBox, now: Timestamp) -> f64;

    /// Whether a parked box keeps its instance although nobody waits for one. Asked of each every few seconds. It gives it back in any case after
    /// [`park_limit`](crate::PoolConfig::park_limit).
    fn keeps(&self, away: &AwayBox, now: Timestamp) -> bool {
        let _ = (away, now);
        true
    }

    /// Whether a box that is on no instance is given one now, ahead of its owner. Asked with each census.
    fn expects(&self, away: &AwayBox, now: Timestamp) -> bool {
        let _ = (away, now);
        false
    }
}

/// How much an instance is worth to the box, as a number that can be compared with every other.
pub(crate) fn worth(policy: &dyn ParkingPolicy, away: &AwayBox, now: Timestamp) -> f64 {
    let worth = policy.worth(away, now);
    if worth.is_nan() { f64::NEG_INFINITY } else { worth }
}

/// The `boxes` in the order in which they give their instances back: who is worth least first; among equals who is away for longest.
pub(crate) fn in_order_of_going<'a>(
    policy: &dyn ParkingPolicy,
    boxes: impl IntoIterator<Item = &'a AwayBox>,
    now: Timestamp,
) -> Vec<&'a AwayBox> {
    let mut ranked: Vec<(f64, &AwayBox)> = boxes.into_iter().map(|away| (worth(policy, away, now), away)).collect();
    ranked.sort_by(|(a_worth, a), (b_worth, b)| {
        a_worth.total_cmp(b_worth).then_with(|| (a.since, &a.owner).cmp(&(b.since, &b.owner)))
    });
    ranked.into_iter().map(|(_, away)| away).collect()
}

/// The box away for longest goes first, and none before somebody waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeastRecentlyUsed;

impl ParkingPolicy for LeastRecentlyUsed {
    fn worth(&self, away: &AwayBox, now: Timestamp) -> f64 {
        -now.since(away.since).as_secs_f64()
    }
}

/// A parked box keeps its instance for so long; the one away for longest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepFor(pub Duration);

impl ParkingPolicy for KeepFor {
    fn worth(&self, away: &AwayBox, now: Timestamp) -> f64 {
        LeastRecentlyUsed.worth(away, now)
    }

    fn keeps(&self, away: &AwayBox, now: Timestamp) -> bool {
        now.since(away.since) < self.0
    }
}

/// A box keeps its instance, or is given one ahead of its owner, while they are likely to return soon, going by its own visits.
///
/// The likelihood is the share of past cases in which they did. Each absence that lasted as long as the present one
/// has is a case, and speaks for a return when it ended within the horizon from here; so is each day since the first visit
/// that is kept, and speaks for a return when a visit began within the horizon from this time of the day. To those comes half a case for what
/// is known of no box in particular: a return within the horizon after an absence of `t` is as likely as horizon / (`t` + horizon) (a heavy tail:
/// the longer somebody is away, the longer they will be). Keeping what is likely to return, and fetching it ahead, by the histogram of
/// idle times is what Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, found to halve cold starts at no more cost.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ReturnTime {
    /// What counts as soon. Longer than a census and the time an attach takes.
    pub horizon: Duration,
    /// At this likelihood and above a parked box keeps its instance.
    pub keep_from: f64,
    /// At this likelihood and above a box is given an instance ahead. Above `keep_from`, or it is given back at once.
    pub fetch_from: f64,
}

impl Default for ReturnTime {
    /// Within 15 minutes; kept from 5 % on, fetched from 30 % on.
    fn default() -> Self {
        Self { horizon: Duration::from_secs(15 * 60), keep_from: 0.05, fetch_from: 0.3 }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl ReturnTime {
    /// Another horizon.
    #[must_use]
    pub fn within(self, horizon: Duration) -> Self {
        Self { horizon, ..self }
    }

    /// Other likelihoods from which a box is kept and fetched.
    #[must_use]
    pub fn from_likelihoods(self, keep_from: f64, fetch_from: f64) -> Self {
        Self { keep_from, fetch_from, ..self }
    }

    /// How likely the owner is to return within the horizon: 0 to 1.
    #[must_use]
    pub fn likelihood(&self, away: &AwayBox, now: Timestamp) -> f64 {
        const CASES_OF_NOBODY: f64 = 0.5;
        let absent = now.since(away.since);
        let horizon = self.horizon.as_secs_f64().max(f64::MIN_POSITIVE);
        let by_nobody = horizon / (absent.as_secs_f64() + horizon);
        let as_long = || away.visits.absences().filter(|absence| *absence > absent);
        let ended_soon = as_long().filter(|absence| *absence <= absent + self.horizon).count();
        let (days, days_with) = self.days(away, now);
        let speaking_for = CASES_OF_NOBODY * by_nobody + ended_soon as f64 + days_with as f64;
        speaking_for / (CASES_OF_NOBODY + as_long().count() as f64 + days as f64)
    }

    /// On how many days this time of the day has come since the first visit that is kept, and in how many of them a visit began within the
    /// horizon from this time of the day.
    fn days(&self, away: &AwayBox, now: Timestamp) -> (u64, u64) {
        let days_ago = |came: Timestamp| {
            let ago = now.since(came);
            // The visit fell into the window of that day which begins a whole number of days ago.
            let whole = ago.as_secs().div_ceil(DAY.as_secs());
            let into_window = DAY.as_secs() * whole - ago.as_secs();
            (whole > 0 && into_window <= self.horizon.as_secs()).then_some(whole)
        };
        let Some(first) = away.visits.past().next() else { return (0, 0) };
        let days = (now.since(first.came) + self.horizon).as_secs() / DAY.as_secs();
        let mut seen: Vec<u64> = away.visits.past().filter_map(|visit| days_ago(visit.came)).collect();
        seen.sort_unstable();
        seen.dedup();
        // Clocks jump: no more than all of them.
        (days, days.min(seen.len() as u64))
    }
}

impl ParkingPolicy for ReturnTime {
    fn worth(&self, away: &AwayBox, now: Timestamp) -> f64 {
        self.likelihood(away, now)
    }

    fn keeps(&self, away: &AwayBox, now: Timestamp) -> bool {
        self.likelihood(away, now) >= self.keep_from
    }

    fn expects(&self, away: &AwayBox, now: Timestamp) -> bool {
        !away.visits.is_empty() && self.likelihood(away, now) >= self.fetch_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BoxId, BoxName, UserId};
    use crate::record::Visit;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;
    const MINUTE: u64 = 60_000;

    fn away(name: &str, since: u64) -> AwayBox {
        let (owner, id) = (UserId::new("u").unwrap(), BoxId::new("b").unwrap());
        AwayBox::new(BoxRef { owner, name: BoxName::new(name).unwrap(), id }, Timestamp(since))
    }

    fn first<'a>(policy: &dyn ParkingPolicy, boxes: &'a [AwayBox], now: u64) -> &'a str {
        in_order_of_going(policy, boxes, Timestamp(now))[0].owner.name.as_str()
    }

    #[test]
    fn who_is_away_longest_goes_first_wherever_they_stand() {
        let boxes = [away("b", 30), away("a", 20), away("c", 10)];
        assert_eq!(first(&LeastRecentlyUsed, &boxes, 40), "c");
        assert_eq!(first(&LeastRecentlyUsed, &boxes[..2], 40), "a");
        assert_eq!(first(&LeastRecentlyUsed, &[away("b", 1), away("a", 1)], 40), "a", "by name");
        assert!(in_order_of_going(&LeastRecentlyUsed, [], Timestamp(40)).is_empty());
        assert!(LeastRecentlyUsed.keeps(&boxes[0], Timestamp(9 * HOUR)));
    }

    #[test]
    fn a_worth_that_is_no_number_is_the_least() {
        struct Broken;
        impl ParkingPolicy for Broken {
            fn worth(&self, away: &AwayBox, _now: Timestamp) -> f64 {
                if away.since.0 == 5 { f64::NAN } else { 0.0 }
            }
        }
        assert_eq!(first(&Broken, &[away("a", 1), away("b", 5)], 40), "b");
    }

    #[test]
    fn a_box_is_kept_for_so_long() {
        let policy = KeepFor(Duration::from_secs(60));
        assert!(policy.keeps(&away("a", 1_000), Timestamp(60_999)));
        assert!(!policy.keeps(&away("a", 1_000), Timestamp(61_000)));
        assert!(!policy.expects(&away("a", 1_000), Timestamp(1_000)));
    }

    /// Visits of eight hours from nine o'clock on, on so many days; the last one has just ended.
    fn office(days: u64) -> AwayBox {
        let mut visits = Visits::default();
        for day in 0..days {
            // Not to the minute.
            let came = (day * 24 + 9) * HOUR + day % 3 * 2 * MINUTE;
            visits.push(Visit { came: Timestamp(came), left: Timestamp((day * 24 + 17) * HOUR) });
        }
        away("a", ((days - 1) * 24 + 17) * HOUR).with_visits(visits)
    }

    #[test]
    fn who_comes_at_nine_is_fetched_before_nine_and_not_kept_overnight() {
        let (policy, away) = (ReturnTime::default(), office(10));
        let at = |hour: u64, minute: u64| Timestamp((9 * 24 + hour) * HOUR + minute * MINUTE);
        assert!(!policy.keeps(&away, at(17, 1)), "they never came back in the evening");
        assert!(
            policy.keeps(&office(1), Timestamp(17 * HOUR + MINUTE)),
            "of whom little is known, who has just left is soon back"
        );
        assert!(!policy.keeps(&office(1), Timestamp(40 * HOUR)));
        assert!(!policy.expects(&away, at(24 + 8, 0)));
        assert!(policy.expects(&away, at(24 + 8, 50)), "{}", policy.likelihood(&away, at(24 + 8, 50)));
        assert!(!policy.keeps(&away, at(24 + 11, 0)), "they did not come today");
    }

    #[test]
    fn who_is_never_away_for_long_stays_and_who_never_returned_goes_first() {
        let mut visits = Visits::default();
        for n in 0..10 {
            visits.push(Visit { came: Timestamp(n * HOUR), left: Timestamp(n * HOUR + 50 * MINUTE) });
        }
        let left = 9 * HOUR + 50 * MINUTE;
        let (regular, stranger) = (away("regular", left).with_visits(visits), away("stranger", left + MINUTE));
        let policy = ReturnTime::default();
        let now = left + 5 * MINUTE;
        assert!(policy.likelihood(&regular, Timestamp(now)) > 0.8);
        assert_eq!(first(&policy, &[regular.clone(), stranger], now), "stranger");
        assert!(policy.expects(&regular, Timestamp(now)));
    }

    #[test]
    fn a_box_that_nobody_ever_visited_is_not_fetched() {
        let policy = ReturnTime::default();
        assert!(policy.likelihood(&away("a", 0), Timestamp(0)) > policy.fetch_from);
        assert!(!policy.expects(&away("a", 0), Timestamp(0)));
    }

    proptest! {
        #[test]
        fn a_likelihood_is_one_whatever_the_clocks_say(
            times in proptest::collection::vec((0..u64::MAX, 0..u64::MAX), 0..20), since in 0..u64::MAX, now in 0..u64::MAX,
            horizon in 0..u64::MAX,
        ) {
            let mut visits = Visits::default();
            for (came, left) in times {
                visits.push(Visit { came: Timestamp(came), left: Timestamp(left) });
            }
            let policy = ReturnTime::default().within(Duration::from_millis(horizon));
            let likelihood = policy.likelihood(&away("a", since).with_visits(visits), Timestamp(now));
            prop_assert!((0.0..=1.0).contains(&likelihood), "{likelihood}");
        }
    }
}
