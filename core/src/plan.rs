//! The maintainer's decision: from what is there to what should be done. Pure: the same census, the same step.

use std::num::NonZeroU32;
use std::time::Duration;

/// How large a pool should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmTarget {
    /// As many are kept free and ready.
    pub min_free: u32,
    /// More free ones than this are retired, after the cool-down.
    pub max_free: u32,
    /// There are never more than this, in whatever state.
    pub max_total: u32,
    /// At most as many are made at the same time.
    pub max_concurrent_creates: u32,
    /// Nothing is retired for so long after the last time one was taken or made.
    pub cool_down: Duration,
}

impl WarmTarget {
    /// A target with four concurrent creates and a cool-down of a minute.
    #[must_use]
    pub fn new(min_free: u32, max_free: u32, max_total: u32) -> Self {
        Self { min_free, max_free, max_total, max_concurrent_creates: 4, cool_down: Duration::from_secs(60) }
    }

    pub(crate) fn check(&self, pool: &'static str) -> Result<(), String> {
        if self.min_free > self.max_free {
            return Err(format!("{pool}: min_free {} is above max_free {}", self.min_free, self.max_free));
        }
        if self.min_free > self.max_total {
            return Err(format!("{pool}: min_free {} is above max_total {}", self.min_free, self.max_total));
        }
        if self.max_total == 0 || self.max_concurrent_creates == 0 {
            return Err(format!("{pool}: max_total and max_concurrent_creates must be at least 1"));
        }
        Ok(())
    }
}

/// Counted reality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Free and of the present generation.
    pub free: u32,
    /// Being made or cleaned: will be free.
    pub coming: u32,
    /// Being made, for the ceiling of concurrent creates.
    pub creating: u32,
    /// Free but of an older generation.
    pub stale: u32,
    /// All there are, in whatever state.
    pub total: u32,
    /// Callers that wait for one.
    pub waiting: u32,
    /// Since one was last taken or made.
    pub quiet_for: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Begin to make so many.
    Provision(NonZeroU32),
    /// Retire so many of an older generation.
    RetireStale(NonZeroU32),
    /// Retire so many free ones.
    Retire(NonZeroU32),
    /// Nothing.
    Rest,
}

/// Decides the next step of one pool.
#[must_use]
pub fn plan(census: Census, target: WarmTarget) -> Step {
    let wanted = target.min_free.max(census.waiting);
    let room = target.max_total.saturating_sub(census.total);
    let hands = target.max_concurrent_creates.saturating_sub(census.creating);
    let short = wanted.saturating_sub(census.free + census.coming).min(room).min(hands);
    // Stale ones make room for fresh ones when the pool is at its limit; else they go once fresh ones are there.
    let fresh_suffice = census.free + census.coming >= wanted;
    let stale = if fresh_suffice || room == 0 { census.stale } else { 0 };
    let rested = census.quiet_for >= target.cool_down && census.waiting == 0;
    let spare = if rested { census.free.saturating_sub(target.max_free) } else { 0 };
    match (NonZeroU32::new(short), NonZeroU32::new(stale), NonZeroU32::new(spare)) {
        (Some(n), _, _) => Step::Provision(n),
        (None, Some(n), _) => Step::RetireStale(n),
        (None, None, Some(n)) => Step::Retire(n),
        (None, None, None) => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_target_that_can_never_be_met_is_refused() {
        let good = WarmTarget::new(2, 3, 3);
        good.check("instances").unwrap();
        WarmTarget::new(2, 2, 2).check("instances").unwrap();
        WarmTarget { max_concurrent_creates: 1, ..WarmTarget::new(0, 0, 1) }.check("instances").unwrap();
        for (bad, word) in [
            (WarmTarget::new(3, 2, 9), "max_free"),
            (WarmTarget::new(3, 9, 2), "max_total"),
            (WarmTarget::new(0, 0, 0), "at least 1"),
            (WarmTarget { max_concurrent_creates: 0, ..good }, "at least 1"),
        ] {
            let why = bad.check("instances").unwrap_err();
            assert!(why.starts_with("instances: ") && why.contains(word), "{why}");
        }
    }

    #[test]
    fn stale_ones_go_when_fresh_ones_suffice_or_there_is_no_room() {
        let target = WarmTarget::new(2, 4, 10);
        let stale = |free, coming, total| plan(Census { free, coming, stale: 3, total, ..Census::default() }, target);
        let three = Step::RetireStale(NonZeroU32::new(3).unwrap());
        assert_eq!(stale(2, 0, 5), three, "enough are free");
        assert_eq!(stale(1, 1, 5), three, "or will be");
        assert_eq!(stale(0, 1, 10), three, "there is no room for a fresh one");
        assert_eq!(stale(0, 1, 9), Step::Provision(NonZeroU32::new(1).unwrap()), "first a fresh one");
        // All hands are busy making the fresh ones: until they are there the stale ones stay.
        let busy = Census { free: 0, coming: 0, creating: 4, stale: 3, total: 7, ..Census::default() };
        assert_eq!(plan(busy, target), Step::Rest);
    }

    fn targets() -> impl Strategy<Value = WarmTarget> {
        (0u32..20, 0u32..20, 1u32..40, 1u32..6).prop_map(|(min, more, max_total, hands)| WarmTarget {
            min_free: min.min(max_total),
            max_free: min + more,
            max_total,
            max_concurrent_creates: hands,
            cool_down: Duration::from_secs(60),
        })
    }

    fn censuses() -> impl Strategy<Value = Census> {
        (0u32..30, 0u32..6, 0u32..30, 0u32..5, 0u32..10, 0u64..120).prop_map(
            |(free, creating, used, stale, waiting, quiet)| {
                let coming = creating;
                let total = free + coming + used + stale;
                Census { free, coming, creating, stale, total, waiting, quiet_for: Duration::from_secs(quiet) }
            },
        )
    }

    proptest! {
        #[test]
        fn a_pool_never_grows_above_its_total_nor_makes_too_many_at_once(census in censuses(), target in targets()) {
            if let Step::Provision(n) = plan(census, target) {
                prop_assert!(census.total + n.get() <= target.max_total);
                prop_assert!(census.creating + n.get() <= target.max_concurrent_creates);
            }
        }

        #[test]
        fn nothing_in_use_is_retired_and_what_is_kept_is_enough(census in censuses(), target in targets()) {
            if let Step::Retire(n) = plan(census, target) {
                prop_assert!(census.free - n.get() >= target.min_free);
                prop_assert!(census.quiet_for >= target.cool_down);
                prop_assert_eq!(census.waiting, 0);
            }
        }

        #[test]
        fn a_pool_settles(target in targets(), start in censuses()) {
            // Creates complete at once, nobody takes or waits: it must come to rest within bounds.
            let mut census = Census { waiting: 0, quiet_for: target.cool_down, ..start };
            for _ in 0..200 {
                census.free += census.creating;
                census.coming = 0;
                census.creating = 0;
                match plan(census, target) {
                    Step::Provision(n) => { census.creating = n.get(); census.coming = n.get(); census.total += n.get(); }
                    Step::RetireStale(n) => { census.stale -= n.get(); census.total -= n.get(); }
                    Step::Retire(n) => { census.free -= n.get(); census.total -= n.get(); }
                    Step::Rest => {
                        prop_assert!(census.free <= target.max_free);
                        prop_assert!(census.free >= target.min_free || census.total >= target.max_total);
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "did not settle: {census:?} {target:?}");
        }
    }
}
