//! What a policy with a goal saves against the fixed number of free machines under which as many users wait.

use super::interval::Interval;
use super::policy::Policy;
use super::table::{OfSeed, Row};
use std::fmt;

/// One policy with a goal beside the fixed ones that are otherwise like it.
#[derive(Debug, Clone, PartialEq)]
pub struct Saving {
    /// The policy with the goal.
    pub policy: String,
    /// For each seed that it could be said for: the idle hours a day that a fixed number would need, and those of the policy.
    pub pairs: Vec<(f64, f64)>,
    /// Of so many seeds.
    pub seeds: usize,
}

impl Saving {
    /// What each of the policies with a goal saves, when there are fixed ones to compare with and at least two seeds. `rows` are those of
    /// `policies`, in order.
    ///
    /// A seed's fixed number lies between the two policies with `free=N` of neighbouring N, run on the same visits, of which one has
    /// more users wait and one fewer: linearly in the logarithm of the share that waits, which falls about as evenly from one N to the
    /// next. Where nobody waits, half a user is taken to.
    #[must_use]
    pub fn all(policies: &[Policy], rows: &[Row]) -> Vec<Self> {
        let with = || policies.iter().zip(rows);
        let with_goal = with().filter(|(policy, row)| policy.has_goal() && row.seeds.len() > 1);
        let savings = with_goal.filter_map(|(policy, row)| {
            let fixed = with().filter(|(fixed, _)| !fixed.has_goal() && fixed.beside_free().eq(policy.beside_free()));
            let fixed: Vec<_> = fixed.map(|(_, row)| row).collect();
            let pairs = row.seeds.iter().enumerate().filter_map(|(seed, with_goal)| {
                let of_seed = fixed.iter().filter_map(|row| row.seeds.get(seed)).copied().collect();
                Some((idle_at(with_goal.waiting(), of_seed)?, with_goal.idle_hours_a_day))
            });
            (fixed.len() > 1).then(|| Self {
                policy: row.policy.clone(),
                pairs: pairs.collect(),
                seeds: row.seeds.len(),
            })
        });
        savings.collect()
    }

    /// How many percent fewer idle hours than the fixed number, over the seeds' own percentages: `None` unless that could be said for
    /// every seed, since those that are left over would be a choice.
    #[must_use]
    pub fn percent(&self) -> Option<Interval> {
        let each: Vec<_> = self.pairs.iter().map(|(fixed, goal)| 100.0 * (1.0 - goal / fixed)).collect();
        Interval::of(&each).filter(|_| each.len() == self.seeds)
    }

    /// The idle hours a day of that fixed number.
    #[must_use]
    pub fn fixed(&self) -> Option<Interval> {
        Interval::of(&self.pairs.iter().map(|(fixed, _)| *fixed).collect::<Vec<_>>())
    }
}

impl fmt::Display for Saving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fixed(), self.percent()) {
            (Some(fixed), Some(percent)) => {
                write!(
                    f,
                    "{}: {percent:.1} % fewer idle hours than the {fixed:.1} a day of a fixed number",
                    self.policy
                )
            }
            _ => write!(
                f,
                "{}: in {} of {} seeds no two fixed numbers have as many wait between them; add a free=N",
                self.policy,
                self.seeds - self.pairs.len(),
                self.seeds
            ),
        }
    }
}

/// How many idle hours a day let that share of users wait, between neighbours of `fixed`.
fn idle_at(waiting: f64, mut fixed: Vec<OfSeed>) -> Option<f64> {
    fixed.sort_by(|one, other| one.idle_hours_a_day.total_cmp(&other.idle_hours_a_day));
    fixed.windows(2).find_map(|pair| {
        let (more, fewer) = (pair[0].waiting(), pair[1].waiting());
        let between = (fewer..=more).contains(&waiting) && fewer < more;
        let part = (more.ln() - waiting.ln()) / (more.ln() - fewer.ln());
        let (least, most) = (pair[0].idle_hours_a_day, pair[1].idle_hours_a_day);
        between.then_some(least + (most - least) * part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::{PriceList, policies};

    fn seed(idle_hours_a_day: f64, waited: usize) -> OfSeed {
        OfSeed { idle_hours_a_day, waited, connects: 1_000, month: 0.0 }
    }

    #[test]
    fn a_fixed_number_is_found_between_neighbours_by_the_logarithm() {
        let fixed = || vec![seed(48.0, 100), seed(24.0, 400), seed(72.0, 1)];
        // 10 of 1000 is halfway from 100 to 1 by the logarithm, and 200 halfway from 400 to 100.
        assert!((idle_at(0.01, fixed()).unwrap() - 60.0).abs() < 1e-9);
        assert!((idle_at(0.2, fixed()).unwrap() - 36.0).abs() < 1e-9);
        assert_eq!((idle_at(0.4, fixed()), idle_at(0.1, fixed())), (Some(24.0), Some(48.0)));
        assert_eq!((idle_at(0.5, fixed()), idle_at(0.0005, fixed())), (None, None), "beyond them nothing is made up");
        // Nobody waits: as if half a user did. 5 of 1000 is halfway from 50 to 0.5.
        assert!((idle_at(0.005, vec![seed(10.0, 50), seed(20.0, 0)]).unwrap() - 15.0).abs() < 1e-9);
    }

    #[test]
    fn each_seed_is_compared_with_its_own_visits() {
        let names = ["free=1,park=0s", "goal=90%,park=0s", "park=0s,free=2", "free=9"];
        let seeds = [
            [seed(20.0, 100), seed(30.0, 400)],
            [seed(21.0, 10), seed(24.5, 40)],
            [seed(40.0, 1), seed(40.0, 4)],
            [seed(1.0, 10), seed(1.0, 40)],
        ];
        let rows: Vec<_> = names
            .iter()
            .zip(seeds)
            .map(|(name, seeds)| {
                let mut row = Row::new(name, &[], &PriceList::example());
                row.seeds = seeds.into();
                row
            })
            .collect();
        let savings = Saving::all(&policies(names).unwrap(), &rows);
        let [saving] = &savings[..] else { panic!("{savings:?}") };
        // Halfway by the logarithm in both: 30 of 20 and 40, and 35 of 30 and 40; 30 % fewer in each.
        assert_eq!(saving.policy, "goal=90%,park=0s");
        let percent = saving.percent().unwrap();
        assert!((percent.mean - 30.0).abs() < 1e-9 && percent.half_width < 1e-9, "{saving:?}");
        assert_eq!(
            saving.to_string(),
            "goal=90%,park=0s: 30.0 ± 0.0 % fewer idle hours than the 32.5 ± 31.8 a day of a fixed number"
        );
        let beyond = Saving { pairs: vec![(1.0, 1.0)], ..saving.clone() };
        assert!(beyond.to_string().contains("in 1 of 2 seeds no two fixed numbers"), "{beyond}");
    }
}
