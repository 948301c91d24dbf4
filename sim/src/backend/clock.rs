use boxpool::{Clock, Timestamp};
use tokio::time::Instant;

/// Wall-clock stamps drawn from tokio's timer, so that they follow virtual time in tests that pause it.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    began: Instant,
}

/// 2026-01-01 00:00:00 UTC: every simulated world begins then.
const BEGINNING_MS: u64 = 1_767_225_600_000;

impl SimClock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(BEGINNING_MS.saturating_add(passed))
    }
}
