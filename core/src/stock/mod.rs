//! The two pools: what is free, what is being made, what goes.

mod allowance;
mod forecast;
mod golden;
mod instances;
mod pace;
mod parked;
mod reserve;
mod snapshots;
mod volumes;

pub(crate) use forecast::Forecast;
pub(crate) use pace::Pace;

use crate::planted::{self, Bug};
use std::time::Duration;
use tokio::time::Instant;

/// A pass retires, stops or wakes so many of a kind at most; what is left is the next pass's. So a pass holds so many records, however
/// many there are.
const MOST_IN_A_PASS: usize = 1_000;

/// Keeps a record that something may be done with, unless there are enough.
fn keep_some<T: Clone>(kept: &mut Vec<T>, one: &T) {
    if kept.len() < MOST_IN_A_PASS {
        kept.push(one.clone());
    }
}

/// A pause that doubles while things fail, so that a cloud without stock is not asked again and again.
#[derive(Debug)]
pub(crate) struct BackOff {
    pause: Duration,
    until: Option<Instant>,
}

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

impl Default for BackOff {
    fn default() -> Self {
        Self { pause: FIRST_BACK_OFF, until: None }
    }
}

impl BackOff {
    pub(crate) fn failed(&mut self, asked_for: Option<Duration>) {
        self.until = Some(Instant::now() + asked_for.unwrap_or(Duration::ZERO).max(self.pause));
        self.pause = (self.pause * 2).min(MAX_BACK_OFF);
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_resting(&self) -> bool {
        !planted::is(Bug::NoBackOff) && self.until.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_doubles_up_to_a_minute_and_a_success_ends_it() {
        let mut rest = BackOff::default();
        assert!(!rest.is_resting());
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            rest.failed(None);
            tokio::time::advance(Duration::from_secs(expected) - Duration::from_millis(1)).await;
            assert!(rest.is_resting(), "before {expected} s");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!rest.is_resting(), "after {expected} s");
        }
        rest.failed(None);
        rest.succeeded();
        assert!(!rest.is_resting(), "it has worked since");
        rest.failed(Some(Duration::from_secs(90)));
        tokio::time::advance(Duration::from_secs(89)).await;
        assert!(rest.is_resting(), "the cloud asked for more than our own pause, which began anew");
    }
}
