//! What a maintainer remembers of a pool's recent past, and hands on to the next one.

use super::allowance::Allowance;
use crate::plan::WarmTarget;
use crate::record::PoolPast;
use std::time::Duration;
use tokio::time::Instant;

/// When a pool was last touched, and what may be made.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// When one was last taken, by whatever node, or made.
    touched: Instant,
    allowance: Allowance,
    /// How many this node has taken since its start.
    taken: u64,
    /// How many the others said they had taken, together.
    taken_elsewhere: u64,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { touched: now, allowance: Allowance::new(now), taken: 0, taken_elsewhere: 0 }
    }

    /// This node has taken one.
    pub(crate) fn took(&mut self) {
        self.touched = Instant::now();
        self.taken += 1;
    }

    /// One was made.
    pub(crate) fn made(&mut self) {
        self.touched = Instant::now();
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// As many were taken by all others since their starts. Whether that is news.
    pub(crate) fn heard(&mut self, taken_elsewhere: u64) -> bool {
        let news = taken_elsewhere != self.taken_elsewhere;
        if news {
            self.taken_elsewhere = taken_elsewhere;
            self.touched = Instant::now();
        }
        news
    }

    pub(crate) fn quiet_for(&self) -> Duration {
        self.touched.elapsed()
    }

    pub(crate) fn allowance(&self, target: &WarmTarget) -> Option<u32> {
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
        PoolPast { quiet_ms: millis(self.quiet_for()), ahead_ms: millis(self.allowance.ahead(Instant::now())) }
    }

    /// Goes on where another maintainer stopped. The time in which there was none does not count as quiet.
    pub(crate) fn take_up(&mut self, past: PoolPast) {
        let now = Instant::now();
        self.touched = now.checked_sub(Duration::from_millis(past.quiet_ms)).unwrap_or(now);
        self.allowance = Allowance::ahead_by(now, Duration::from_millis(past.ahead_ms));
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
        first.took();
        first.begun(2, &target);
        tokio::time::advance(Duration::from_secs(20)).await;
        let past = first.past();
        assert_eq!(past, PoolPast { quiet_ms: 20_000, ahead_ms: 40_000 });
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut second = Pace::new(Instant::now());
        second.take_up(past);
        assert_eq!((second.quiet_for(), second.allowance(&target)), (Duration::from_secs(20), Some(0)));
        assert_eq!(second.taken(), 0, "what it has taken itself is its own");
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_take_is_no_quiet_time() {
        let mut pace = Pace::new(Instant::now());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(!pace.heard(0), "nobody took any");
        assert_eq!(pace.quiet_for(), Duration::from_secs(20));
        assert!(pace.heard(1));
        assert_eq!(pace.quiet_for(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!pace.heard(1), "it is no news twice");
        assert_eq!(pace.quiet_for(), Duration::from_secs(5));
    }
}
