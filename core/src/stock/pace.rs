//! What a maintainer remembers of a pool's recent past, and hands on to the next one.

use super::allowance::Allowance;
use super::breaker::Attempts;
use crate::census::Census;
use crate::plan::{Step, WarmTarget, plan};
use crate::planted;
use crate::reads::Reads;
use crate::record::PoolPast;
use crate::stock::upkeep::AtRest;
use std::time::Duration;
use tokio::time::Instant;

/// What is read in one page is read at once, for all that matters here.
const LARGE: u32 = 1_000;

/// Since when a pool has had more than it needs, what may be made, and what was taken.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// When it was last seen to have no more free than are kept.
    pressed: Instant,
    allowance: Allowance,
    /// How many this node has taken since its start.
    taken: u64,
    /// How many the others said they had taken, together.
    taken_elsewhere: u64,
    /// How long the pool was read when it was counted last, if it is a large one.
    reading: Duration,
    counted: Reads,
    /// What the last count left, and how many had been taken before it.
    at_rest: Option<(AtRest, u64)>,
    pub(crate) making: Attempts,
    /// Fails for reasons of its own: a cloud without room for a stopped machine may have it for a new one.
    pub(crate) waking: Attempts,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        let (making, waking) = (Attempts::default(), Attempts::default());
        Self {
            pressed: now,
            allowance: Allowance::new(now),
            taken: 0,
            taken_elsewhere: 0,
            reading: Duration::ZERO,
            counted: Reads::default(),
            at_rest: None,
            making,
            waking,
        }
    }

    /// This node has taken one.
    pub(crate) fn took(&mut self) {
        self.taken += 1;
    }

    /// It is seen to have no more free than are kept, or somebody waits.
    fn pressed(&mut self) {
        self.pressed = Instant::now();
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// As many were taken by all others since their starts. Whether that is news.
    pub(crate) fn heard(&mut self, taken_elsewhere: u64) -> bool {
        let news = taken_elsewhere != self.taken_elsewhere;
        if taken_elsewhere < self.taken_elsewhere {
            // One of them has ended, and what it took since the last count cannot be told from that.
            self.at_rest = None;
        }
        self.taken_elsewhere = taken_elsewhere;
        news
    }

    /// How many all nodes have taken since their starts, as far as this one has heard. Falls when one of them ends.
    pub(crate) fn taken_by_all(&self) -> u64 {
        self.taken.saturating_add(self.taken_elsewhere)
    }

    /// A count is over. So many had been taken before it: what was taken meanwhile may or may not be in it. Whether something may follow
    /// from another one already.
    pub(crate) fn settled(&mut self, rest: Option<AtRest>, taken_before: u64, waiting: u32) -> bool {
        self.at_rest = rest.map(|rest| (rest, taken_before));
        self.at_rest.is_some() && self.taken_by_all() != taken_before && self.may_lack(waiting)
    }

    /// Whether so many were taken since the last count that something may follow from another one. With some to spare, nobody needs to
    /// read a whole pool because one of it was taken. Where none is to spare any more, the cool-down begins anew, as after a count.
    pub(crate) fn may_lack(&mut self, waiting: u32) -> bool {
        let Some((AtRest { census, target }, taken_before)) = self.at_rest else { return true };
        let taken = u32::try_from(self.taken_by_all().saturating_sub(taken_before)).unwrap_or(u32::MAX);
        let free = census.free.saturating_sub(taken);
        // Hands that were full may be free again, and so may the allowance. Room is made by what asks for a count itself.
        let hands = Census { creating: 0, allowance: None, quiet_for: Duration::ZERO, ..census };
        let now = Census { free, waiting, ..hands };
        let pressed = is_pressed(&now, &target);
        if pressed {
            self.pressed();
        }
        plan(now, target) != Step::Rest || pressed && !is_pressed(&census, &target)
    }

    /// So many were counted, in that time.
    pub(crate) fn counted(&mut self, total: u32, took: Duration) {
        self.reading = if total > LARGE { took } else { Duration::ZERO };
        self.counted = Reads::on_page(total as usize);
    }

    /// How long a pool is not counted again, whoever takes from it meanwhile. Where none is to spare, each claim asks for a count; of a
    /// large pool that would be one count after the other, and the more often the larger it is. So at most half of the time is spent on
    /// it.
    pub(crate) fn rest_after_count(&self) -> Duration {
        self.reading
    }

    /// What the last count has read, if nothing was under way after it: what comes of something is to be seen soon, and who waits waits for that.
    pub(crate) fn counted_at_rest(&self) -> Reads {
        let idle = self.at_rest.is_some_and(|(AtRest { census, .. }, _)| {
            census.coming == 0 && census.stopping == 0 && census.waiting == 0
        });
        if idle { self.counted } else { Reads::default() }
    }

    /// Completes a count by what it takes more than one look to know.
    pub(crate) fn tell(&mut self, census: &mut Census, target: &WarmTarget) {
        if is_pressed(census, target) {
            self.pressed();
        }
        census.quiet_for = planted::quiet(self.quiet_for());
        census.allowance = self.allowance(target);
    }

    fn quiet_for(&self) -> Duration {
        self.pressed.elapsed()
    }

    fn allowance(&self, target: &WarmTarget) -> Option<u32> {
        target.creates_per_minute.map(|most| self.allowance.left(Instant::now(), most))
    }

    pub(crate) fn begun(&mut self, n: u32, target: &WarmTarget) {
        if let Some(most) = target.creates_per_minute {
            self.allowance.begun(Instant::now(), n, most);
        }
    }

    /// What the next maintainer is to know.
    pub(crate) fn past(&self) -> PoolPast {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        PoolPast {
            quiet_ms: millis(self.quiet_for()),
            ahead_ms: millis(self.allowance.ahead(Instant::now())),
            making: self.making.told(),
            waking: self.waking.told(),
        }
    }

    /// Goes on where another maintainer stopped. The time in which there was none does not count as quiet.
    pub(crate) fn take_up(&mut self, past: PoolPast) {
        let now = Instant::now();
        self.pressed = now.checked_sub(Duration::from_millis(past.quiet_ms)).unwrap_or(now);
        self.allowance = Allowance::ahead_by(now, Duration::from_millis(past.ahead_ms));
        (self.making, self.waking) = (Attempts::take_up(past.making), Attempts::take_up(past.waking));
    }
}

/// Whether no more are free than are kept, or somebody waits.
fn is_pressed(census: &Census, target: &WarmTarget) -> bool {
    census.waiting > 0 || census.free <= target.min_free.saturating_add(census.expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[tokio::test(start_paused = true)]
    async fn the_next_maintainer_goes_on_where_the_last_one_stopped() {
        let target = WarmTarget { creates_per_minute: NonZeroU32::new(2), ..WarmTarget::new(1, 1, 1) };
        tokio::time::advance(Duration::from_secs(100)).await;
        let mut first = Pace::new(Instant::now());
        first.pressed();
        first.begun(2, &target);
        tokio::time::advance(Duration::from_secs(20)).await;
        let past = first.past();
        assert_eq!(past, PoolPast { quiet_ms: 20_000, ahead_ms: 40_000, ..PoolPast::default() });
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut second = Pace::new(Instant::now());
        second.take_up(past);
        assert_eq!((second.quiet_for(), second.allowance(&target)), (Duration::from_secs(20), Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_pool_is_not_counted_again_before_as_much_time_has_passed() {
        let mut pace = Pace::new(Instant::now());
        let second = Duration::from_secs(1);
        for (total, rest) in [(1_000, Duration::ZERO), (1_001, second), (3, Duration::ZERO)] {
            pace.counted(total, second);
            assert_eq!(pace.rest_after_count(), rest, "{total}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_asks_for_a_count_once_none_is_to_spare() {
        let mut pace = Pace::new(Instant::now());
        let target = WarmTarget { min_reserve: 1, max_reserve: 1, ..WarmTarget::new(1, 9, 9) };
        let census = Census { free: 4, reserve: 1, creating: 4, coming: 4, total: 9, ..Census::default() };
        assert!(pace.may_lack(0), "nothing was counted yet");
        pace.took();
        assert!(!pace.settled(Some(AtRest { census, target }), 0, 0), "three are left, of which two are to spare");
        assert!(pace.may_lack(1), "somebody waits");
        pace.heard(1);
        assert!(!pace.may_lack(0));
        pace.heard(2);
        assert!(pace.may_lack(0), "only the one that is kept is left");
        assert!(pace.settled(Some(AtRest { census, target }), 0, 0), "and it was not seen when that happened");
        let (full, none) = (WarmTarget::new(9, 9, 9), Census { reserve: 0, ..census });
        pace.settled(Some(AtRest { census: none, target: full }), 3, 0);
        assert!(!pace.may_lack(0), "there is no room for what is lacking");
        let room = Census { total: 8, ..none };
        assert!(
            !pace.settled(Some(AtRest { census: room, target: full }), 3, 0),
            "hands are full, and nobody took any"
        );
        assert!(pace.may_lack(0), "hands may be free again");
        pace.settled(Some(AtRest { census, target }), 3, 0);
        assert!(!pace.may_lack(0));
        pace.heard(0);
        assert!(pace.may_lack(0), "nobody knows what the node that ended took last");
        pace.settled(Some(AtRest { census, target }), 1, 0);
        assert!(!pace.settled(None, 1, 0) && pace.may_lack(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_take_is_heard_once() {
        let mut pace = Pace::new(Instant::now());
        assert!(!pace.heard(0), "nobody took any");
        pace.took();
        assert!(pace.heard(2));
        assert!(!pace.heard(2));
        assert_eq!((pace.taken(), pace.taken_by_all()), (1, 3));
        assert!(pace.heard(0), "a node that had taken two has ended");
        assert_eq!(pace.taken_by_all(), 1);
    }
}
