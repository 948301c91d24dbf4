//! The two pools: what is free, what is being made, what goes.

mod golden;
mod instances;
mod volumes;

use crate::planted::{self, Bug};
use std::time::Duration;
use tokio::time::Instant;

/// A pause that doubles while things fail, so that a cloud without stock is not asked again and again.
#[derive(Debug)]
pub(crate) struct BackOff {
    pause: Duration,
    until: Option<Instant>,
}

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

impl BackOff {
    pub(crate) fn new() -> Self {
        Self { pause: FIRST_BACK_OFF, until: None }
    }

    pub(crate) fn failed(&mut self, asked_for: Option<Duration>) {
        self.until = Some(Instant::now() + asked_for.unwrap_or(Duration::ZERO).max(self.pause));
        self.pause = (self.pause * 2).min(MAX_BACK_OFF);
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn is_resting(&self) -> bool {
        !planted::is(Bug::NoBackOff) && self.until.is_some_and(|until| Instant::now() < until)
    }
}
