//! A circuit breaker: what fails again and again is left alone for a while, then tried once before it is tried by the dozen.
//!
//! Each failure begins a rest, twice as long as the one before, up to a minute, or as long as the cloud asks for. After
//! [`OPENS_AFTER`] failures in a row the breaker is open: when the rest is over it is half-open and lets one attempt through,
//! whose success closes it. What was begun before a rest and fails in it is the same failure: a dozen attempts at once that all
//! fail are no reason to wait for a minute. (Nygard, *Release It!*, 2nd ed., chapter 5, "Circuit Breaker".)

use crate::error::Error;
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// One failure may be an accident of one machine; of so many in a row the next would be one, too.
const OPENS_AFTER: u32 = 3;
/// Of what went wrong, so many characters are kept: it stands in a record that is read with every heartbeat.
const LONGEST_REASON: usize = 200;

/// Why and for how long what fails is left alone, as the maintainer has written it down last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Breaker {
    /// How many attempts have failed since one succeeded.
    pub failures: u32,
    /// How long nothing is tried, in milliseconds from when this was written; 0 when the next attempt may begin.
    #[serde(default)]
    pub rest_ms: u64,
    /// What went wrong last.
    #[serde(default)]
    pub why: String,
}

impl Breaker {
    /// `closed`: attempts are made as they are wanted. `open`: none is. `half-open`: one is, and decides.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.failures >= OPENS_AFTER, self.rest_ms > 0) {
            (_, true) => "open",
            (true, false) => "half-open",
            (false, false) => "closed",
        }
    }
}

/// The breaker of one thing that may fail, at the node that does it.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    failures: u32,
    /// The next rest.
    pause: Duration,
    /// When the last rest began and when it ends.
    rest: Option<(Instant, Instant)>,
    /// Whether the one attempt of a breaker that is half-open is under way.
    on_trial: bool,
    why: String,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { failures: 0, pause: FIRST_REST, rest: None, on_trial: false, why: String::new() }
    }
}

impl Attempts {
    /// How many may be begun now.
    pub(crate) fn allowed(&self) -> u32 {
        if planted::is(Bug::NoBackOff) {
            u32::MAX
        } else if !self.rests_for().is_zero() {
            0
        } else if self.failures < OPENS_AFTER {
            u32::MAX
        } else {
            u32::from(!self.on_trial)
        }
    }

    /// One is begun; its outcome must be told.
    pub(crate) fn begun(&mut self) {
        self.on_trial = self.failures >= OPENS_AFTER;
    }

    pub(crate) fn succeeded(&mut self) {
        if self.failures >= OPENS_AFTER {
            tracing::info!(failures = self.failures, "what had failed again and again works again");
        }
        *self = Self::default();
    }

    /// It came to nothing, and says nothing of the next one.
    pub(crate) fn left(&mut self) {
        self.on_trial = false;
    }

    /// One that was begun then has failed.
    pub(crate) fn failed(&mut self, begun: Instant, error: &Error) {
        self.on_trial = false;
        self.failures = self.failures.saturating_add(1);
        self.why = error.to_string().chars().take(LONGEST_REASON).collect();
        let now = Instant::now();
        let asked_for = now + error.retry_after().unwrap_or(Duration::ZERO);
        match &mut self.rest {
            Some((since, until)) if begun <= *since => *until = asked_for.max(*until),
            rest => {
                *rest = Some((now, asked_for.max(now + self.pause)));
                self.pause = (self.pause * 2).min(LONGEST_REST);
            }
        }
        if self.failures == OPENS_AFTER {
            tracing::warn!(
                why = self.why,
                "it has failed {OPENS_AFTER} times in a row; from now on one is tried at a time"
            );
        }
    }

    /// What others are to know; `None` when nothing is wrong.
    pub(crate) fn told(&self) -> Option<Breaker> {
        let rest_ms = u64::try_from(self.rests_for().as_millis()).unwrap_or(u64::MAX);
        (self.failures > 0).then(|| Breaker { failures: self.failures, rest_ms, why: self.why.clone() })
    }

    /// Goes on where another maintainer stopped: rests as long as it would have, and then as long as it would have rested next.
    pub(crate) fn take_up(told: Option<Breaker>) -> Self {
        let Some(Breaker { failures, rest_ms, why }) = told else { return Self::default() };
        let now = Instant::now();
        let doubled = FIRST_REST * 2_u32.saturating_pow(failures.min(6));
        let rest = (rest_ms > 0).then(|| (now, now + Duration::from_millis(rest_ms).min(10 * LONGEST_REST)));
        Self { failures, pause: doubled.min(LONGEST_REST), rest, on_trial: false, why }
    }

    fn rests_for(&self) -> Duration {
        self.rest.map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refusal() -> Error {
        Error::new(ErrorKind::NoCapacity, "create instance", "i1").with_detail("none of that size")
    }

    async fn fails(attempts: &mut Attempts) {
        attempts.begun();
        let begun = Instant::now();
        tokio::time::advance(Duration::from_millis(10)).await;
        attempts.failed(begun, &refusal());
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_doubles_up_to_a_minute_and_a_success_ends_it() {
        let mut attempts = Attempts::default();
        assert_eq!((attempts.allowed(), attempts.told()), (u32::MAX, None));
        for (failures, rest) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            fails(&mut attempts).await;
            let told = attempts.told().unwrap();
            assert_eq!((told.failures, told.rest_ms, told.state()), (failures, rest * 1_000, "open"));
            assert!(told.why.contains("none of that size"));
            tokio::time::advance(Duration::from_secs(rest) - Duration::from_millis(1)).await;
            assert_eq!(attempts.allowed(), 0, "before {rest} s");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(attempts.allowed(), if failures < 3 { u32::MAX } else { 1 }, "after {rest} s");
            let state = attempts.told().unwrap().state();
            assert_eq!(state, if failures < 3 { "closed" } else { "half-open" });
        }
        attempts.begun();
        assert_eq!(attempts.allowed(), 0, "one is on trial");
        attempts.left();
        assert_eq!(attempts.allowed(), 1, "it came to nothing");
        attempts.begun();
        attempts.succeeded();
        assert_eq!((attempts.allowed(), attempts.told()), (u32::MAX, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dozen_that_fail_together_are_one_failure_to_the_rest_and_what_the_cloud_asks_for_is_kept() {
        let mut attempts = Attempts::default();
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        for _ in 0..12 {
            attempts.failed(begun, &refusal());
        }
        assert_eq!(attempts.told().map(|told| (told.failures, told.rest_ms)), Some((12, 1_000)));
        attempts.failed(begun, &refusal().with_retry_after(Duration::from_secs(90)));
        assert_eq!(attempts.told().unwrap().rest_ms, 90_000);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(attempts.allowed(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_maintainer_rests_as_long_as_the_last_one_would_have() {
        let mut first = Attempts::default();
        for _ in 0..4 {
            fails(&mut first).await;
            tokio::time::advance(Duration::from_secs(if first.failures < 4 { 60 } else { 3 })).await;
        }
        let mut second = Attempts::take_up(first.told());
        assert_eq!(second.told(), first.told());
        assert_eq!(second.told().unwrap().rest_ms, 5_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(second.allowed(), 1);
        fails(&mut second).await;
        assert_eq!(second.told().unwrap().rest_ms, 16_000);
        assert_eq!(Attempts::take_up(None).allowed(), u32::MAX);
    }
}
