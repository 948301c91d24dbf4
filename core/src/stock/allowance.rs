//! How many may be begun to be made now: a limit per minute that lets a minute's worth go at once.
//!
//! It is the generic cell rate algorithm (ITU-T I.371): all that is remembered is the time at which everything that was begun would
//! have been begun at an even pace.

use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// What is left of a limit per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    even: Instant,
}

impl Allowance {
    /// A full one.
    pub(crate) fn new(now: Instant) -> Self {
        Self { even: now }
    }

    /// As many may be begun now.
    pub(crate) fn left(&self, now: Instant, per_minute: NonZeroU32) -> u32 {
        let free = MINUTE.saturating_sub(self.ahead(now));
        let n = free.as_nanos() / (MINUTE / per_minute.get()).as_nanos().max(1);
        u32::try_from(n).unwrap_or(u32::MAX).min(per_minute.get())
    }

    /// So many were begun.
    pub(crate) fn begun(&mut self, now: Instant, n: u32, per_minute: NonZeroU32) {
        self.even = self.even.max(now) + MINUTE / per_minute.get() * n;
    }

    /// By how much what was begun is ahead of an even pace.
    pub(crate) fn ahead(&self, now: Instant) -> Duration {
        self.even.saturating_duration_since(now)
    }

    /// One that is ahead by so much, at most a minute.
    pub(crate) fn ahead_by(now: Instant, ahead: Duration) -> Self {
        Self { even: now + ahead.min(MINUTE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minutes_worth_goes_at_once_and_then_an_even_pace() {
        let six = NonZeroU32::new(6).unwrap();
        let mut allowance = Allowance::new(Instant::now());
        assert_eq!(allowance.left(Instant::now(), six), 6);
        allowance.begun(Instant::now(), 6, six);
        assert_eq!(allowance.left(Instant::now(), six), 0);
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(allowance.left(Instant::now(), six), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(allowance.left(Instant::now(), six), 1, "one every ten seconds");
        let heir = Allowance::ahead_by(Instant::now(), allowance.ahead(Instant::now()));
        assert_eq!(heir, allowance, "what is handed on is all there is to know");
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(allowance.left(Instant::now(), six), 6, "and never more than a minute's worth");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_beyond_counting_is_none() {
        let now = Instant::now();
        let most = NonZeroU32::MAX;
        assert!(Allowance::new(now).left(now, most) > 1_000_000);
    }
}
