//! The maintainer's decision: from what is there to what should be done. Pure: the same census, the same step.

use crate::census::Census;
use crate::goal::Goal;
use std::num::NonZeroU32;
use std::time::Duration;

/// How large a pool should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmTarget {
    /// As many are kept free and ready.
    pub min_free: u32,
    /// More free ones than this go, after the cool-down: into the reserve while that has room, else they are retired.
    pub max_free: u32,
    /// There are never more than this, in whatever state.
    pub max_total: u32,
    /// As many are kept stopped beside the free ones, and are woken before anything is made: instances only. Worth it where that is
    /// quicker, or surer, than making them anew.
    pub min_reserve: u32,
    /// More stopped ones than this are retired.
    pub max_reserve: u32,
    /// At most as many are made or woken at the same time.
    pub max_concurrent_creates: u32,
    /// At most as many are begun to be made within a minute, a minute's worth at once included; `None` for no such limit. Waking is free.
    pub creates_per_minute: Option<NonZeroU32>,
    /// Free ones go only once more than `min_free` have been free for so long, without a moment in which there were not: what is needed again and
    /// again is kept. What has passed of it outlives the maintainer.
    pub cool_down: Duration,
    /// How many are kept free follows from this promise, between `min_free` and `max_free`, which are its budget: instances only.
    pub goal: Option<Goal>,
}

impl WarmTarget {
    /// A target without a reserve, with four concurrent creates, as many a minute as can be made, and a cool-down of a minute.
    #[must_use]
    pub fn new(min_free: u32, max_free: u32, max_total: u32) -> Self {
        Self {
            min_free,
            max_free,
            max_total,
            min_reserve: 0,
            max_reserve: 0,
            max_concurrent_creates: 4,
            creates_per_minute: None,
            cool_down: Duration::from_secs(60),
            goal: None,
        }
    }

    pub(crate) fn check(&self, pool: &'static str) -> Result<(), String> {
        if self.min_free > self.max_free {
            return Err(format!("{pool}: min_free {} is above max_free {}", self.min_free, self.max_free));
        }
        if self.min_reserve > self.max_reserve {
            return Err(format!("{pool}: min_reserve {} is above max_reserve {}", self.min_reserve, self.max_reserve));
        }
        let least = self.min_free.saturating_add(self.min_reserve);
        if least > self.max_total {
            let what = if self.min_reserve == 0 { "min_free" } else { "min_free and min_reserve together" };
            return Err(format!("{pool}: {what} {least} is above max_total {}", self.max_total));
        }
        if self.max_total == 0 || self.max_concurrent_creates == 0 {
            return Err(format!("{pool}: max_total and max_concurrent_creates must be at least 1"));
        }
        self.goal.map_or(Ok(()), |goal| goal.check().map_err(|why| format!("{pool}: {why}")))
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Begin to start so many of the reserve.
    Wake(NonZeroU32),
    /// Begin to make so many.
    Provision(NonZeroU32),
    /// Retire so many of an older generation.
    RetireStale(NonZeroU32),
    /// Stop so many free ones: they go into the reserve.
    Stop(NonZeroU32),
    /// Retire so many free ones.
    Retire(NonZeroU32),
    /// Retire so many of the reserve.
    RetireReserve(NonZeroU32),
    /// Nothing.
    Rest,
}

/// Decides the next step of one pool. Who waits comes before the free ones that are kept, those before the reserve; what is
/// stopped is woken before anything is made.
#[must_use]
pub fn plan(census: Census, target: WarmTarget) -> Step {
    // Who waits takes what comes first, and those that are kept are there again no later than if nobody had waited: what is on the way makes
    // up for all that was taken, as under a base-stock policy (Zipkin, *Foundations of Inventory Management*, 2000, ch. 6).
    let wanted = target.min_free.saturating_add(census.waiting).saturating_add(census.expected);
    let room = target.max_total.saturating_sub(census.total);
    let hands = target.max_concurrent_creates.saturating_sub(census.creating);
    let there = census.free.saturating_add(census.coming);
    let reserved = census.reserve.saturating_add(census.stopping);
    let wake = wanted.saturating_sub(there).min(census.reserve).min(hands);
    // What the reserve lacks is made like any other, and stopped when nobody has wanted it for a while.
    let unreserved = target.min_reserve.saturating_sub(reserved);
    let short = wanted.saturating_add(unreserved).saturating_sub(there);
    let short = short.min(room).min(hands).min(census.allowance.unwrap_or(u32::MAX));
    // Stale ones make room for fresh ones when the pool is at its limit; else they go once fresh ones are there.
    let stale = if there >= wanted || room == 0 { census.stale } else { 0 };
    let rested = census.quiet_for >= target.cool_down && census.waiting == 0;
    let pressed = census.waiting > 0 || there < wanted;
    let when_rested = |n: u32| if rested { n } else { 0 };
    let free = census.free.saturating_sub(census.expected);
    let spare = free.saturating_sub(target.max_free);
    let surplus = free.saturating_sub(target.min_free).min(unreserved).max(spare);
    let stop = when_rested(surplus.min(target.max_reserve.saturating_sub(reserved)));
    let reserve_spare = census.reserve.min(reserved.saturating_sub(target.max_reserve));
    let begin = |n: u32, step: fn(NonZeroU32) -> Step| NonZeroU32::new(n).map(step);
    let first = begin(wake, Step::Wake)
        .or_else(|| begin(short, Step::Provision))
        .or_else(|| begin(stale, Step::RetireStale))
        .or_else(|| begin(stop, Step::Stop))
        .or_else(|| begin(when_rested(spare), Step::Retire))
        .or_else(|| begin(if pressed { 0 } else { reserve_spare }, Step::RetireReserve));
    first.unwrap_or(Step::Rest)
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
    fn a_reserve_that_can_never_be_met_is_refused() {
        let target = |min_free, total, min_reserve, max_reserve| WarmTarget {
            min_reserve,
            max_reserve,
            ..WarmTarget::new(min_free, min_free, total)
        };
        target(2, 5, 3, 3).check("instances").unwrap();
        for (bad, word) in [(target(2, 9, 3, 2), "max_reserve"), (target(2, 4, 3, 3), "together")] {
            let why = bad.check("instances").unwrap_err();
            assert!(why.starts_with("instances: ") && why.contains(word), "{why}");
        }
    }

    fn some(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn what_is_stopped_is_woken_before_anything_is_made() {
        let target = WarmTarget { min_reserve: 2, max_reserve: 3, ..WarmTarget::new(1, 4, 10) };
        let census = Census { reserve: 2, waiting: 3, total: 4, ..Census::default() };
        let first = plan(census, target);
        assert_eq!(first, Step::Wake(some(2)));
        let then = census.after(first);
        // One for who still waits, and what the reserve lacks now as far as hands go.
        assert_eq!(plan(then, target), Step::Provision(some(2)));
        assert_eq!(plan(then.after(plan(then, target)), target), Step::Rest, "all hands are busy");
    }

    #[test]
    fn the_reserve_is_filled_by_what_nobody_has_wanted_for_a_while() {
        let target = WarmTarget { min_reserve: 1, max_reserve: 2, ..WarmTarget::new(1, 2, 10) };
        let census = Census { free: 4, total: 4, ..Census::default() };
        assert_eq!(plan(census, target), Step::Rest, "one was just taken");
        let quiet = Census { quiet_for: target.cool_down, ..census };
        assert_eq!(plan(quiet, target), Step::Stop(some(2)));
        let few = Census { free: 2, total: 2, ..quiet };
        assert_eq!(plan(few, target), Step::Stop(some(1)), "the reserve lacks one, and one free is enough");
        let full = Census { free: 4, stopping: 1, reserve: 1, total: 6, ..quiet };
        assert_eq!(plan(full, target), Step::Retire(some(2)), "the reserve is full");
        let over = Census { free: 1, reserve: 3, total: 4, ..quiet };
        assert_eq!(plan(over, target), Step::RetireReserve(some(1)));
    }

    #[test]
    fn no_more_are_begun_than_the_allowance() {
        let census = Census { waiting: 4, allowance: Some(1), ..Census::default() };
        let target = WarmTarget::new(0, 4, 10);
        assert_eq!(plan(census, target), Step::Provision(some(1)));
        assert_eq!(plan(census.after(Step::Provision(some(1))), target), Step::Rest);
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
        let busy = Census { creating: 4, stale: 3, total: 7, ..Census::default() };
        assert_eq!(plan(busy, target), Step::Rest);
    }

    fn targets() -> impl Strategy<Value = WarmTarget> {
        ((0u32..20, 0u32..20, 1u32..40, 1u32..6), (0u32..4, 0u32..4)).prop_map(
            |((min, more, max_total, hands), (reserve, more_reserve))| {
                let min_free = min.min(max_total);
                let min_reserve = reserve.min(max_total - min_free);
                WarmTarget {
                    max_free: min_free + more,
                    max_concurrent_creates: hands,
                    min_reserve,
                    max_reserve: min_reserve + more_reserve,
                    ..WarmTarget::new(min_free, min_free + more, max_total)
                }
            },
        )
    }

    fn censuses() -> impl Strategy<Value = Census> {
        ((0u32..30, 0u32..6, 0u32..30, 0u32..5, 0u32..10, 0u64..120), (0u32..6, 0u32..3, proptest::option::of(0u32..6)))
            .prop_map(|((free, creating, used, stale, waiting, quiet), (reserve, stopping, allowance))| {
                let coming = creating;
                let total = free + coming + used + stale + reserve + stopping;
                let quiet_for = Duration::from_secs(quiet);
                let expected = allowance.unwrap_or_default();
                Census {
                    free,
                    coming,
                    creating,
                    reserve,
                    stopping,
                    stale,
                    total,
                    waiting,
                    expected,
                    quiet_for,
                    allowance,
                }
            })
    }

    proptest! {
        #[test]
        fn a_pool_never_grows_above_its_total_nor_makes_too_many_at_once(census in censuses(), target in targets()) {
            match plan(census, target) {
                Step::Provision(n) => {
                    prop_assert!(census.total + n.get() <= target.max_total);
                    prop_assert!(census.creating + n.get() <= target.max_concurrent_creates);
                    prop_assert!(census.allowance.is_none_or(|allowance| n.get() <= allowance));
                }
                Step::Wake(n) => prop_assert!(census.creating + n.get() <= target.max_concurrent_creates),
                _ => {}
            }
        }

        #[test]
        fn nothing_in_use_goes_and_what_is_kept_is_enough(census in censuses(), target in targets()) {
            let step = plan(census, target);
            if let Step::Retire(n) | Step::Stop(n) | Step::RetireReserve(n) = step {
                let left = census.after(step);
                prop_assert!(left.free >= target.min_free.min(census.free), "{n}");
                prop_assert!(left.reserve + left.stopping >= target.min_reserve.min(census.reserve + census.stopping));
                prop_assert!(census.quiet_for >= target.cool_down || matches!(step, Step::RetireReserve(_)));
                prop_assert_eq!(census.waiting, 0);
            }
        }

        #[test]
        fn a_pool_settles(target in targets(), start in censuses()) {
            // Creates and stops complete at once, nobody takes, waits or is expected: it must come to rest within bounds.
            let mut census = Census { waiting: 0, expected: 0, quiet_for: target.cool_down, allowance: None, ..start };
            for _ in 0..200 {
                census.free += census.creating;
                census.coming = 0;
                census.creating = 0;
                census.reserve += census.stopping;
                census.stopping = 0;
                let step = plan(census, target);
                census = census.after(step);
                match step {
                    Step::RetireStale(n) | Step::Retire(n) | Step::RetireReserve(n) => census.total -= n.get(),
                    Step::Rest => {
                        prop_assert!(census.free <= target.max_free);
                        prop_assert!(census.reserve <= target.max_reserve);
                        let full = census.total >= target.max_total;
                        prop_assert!(census.free >= target.min_free || full);
                        prop_assert!(census.reserve >= target.min_reserve || full);
                        return Ok(());
                    }
                    Step::Wake(_) | Step::Provision(_) | Step::Stop(_) => {}
                }
            }
            prop_assert!(false, "did not settle: {census:?} {target:?}");
        }
    }
}
