//! What a maintainer remembers of a pool's recent past, and hands on to the next one.

use super::allowance::Allowance;
use super::breaker::Attempts;
use crate::census::Census;
use crate::plan::WarmTarget;
use crate::planted;
use crate::record::PoolPast;
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
        self.taken_elsewhere = taken_elsewhere;
        news
    }

    /// How many all nodes have taken since their starts, as far as this one has heard. Falls when one of them ends.
    pub(crate) fn taken_by_all(&self) -> u64 {
        self.taken.saturating_add(self.taken_elsewhere)
    }

    /// So many were counted, in that time.
    pub(crate) fn counted(&mut self, total: u32, took: Duration) {
        self.reading = if total > LARGE { took } else { Duration::ZERO };
    }

    /// How long a pool is not counted again, whoever takes from it meanwhile. Each claim asks for a count; of a large pool that
    /// would be one count after the other, and the more often the larger it is. So at most half of the time is spent on it.
    pub(crate) fn rest_after_count(&self) -> Duration {
        self.reading
    }

    /// Completes a count by what it takes more than one look to know.
    pub(crate) fn tell(&mut self, census: &mut Census, target: &WarmTarget) {
        if census.waiting > 0 || census.free <= target.min_free.saturating_add(census.expected) {
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
