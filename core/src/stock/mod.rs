//! The two pools: what is free, what is being made, what goes.

mod allowance;
mod breaker;
mod forecast;
mod golden;
mod instances;
mod pace;
mod parked;
mod reserve;
mod snapshots;
mod upkeep;
mod volumes;

pub(crate) use breaker::Attempts;
pub use breaker::Breaker;
pub(crate) use forecast::Forecast;
pub(crate) use instances::INSTANCES;
pub(crate) use pace::Pace;
pub(crate) use volumes::VOLUMES;

/// A pass retires, stops or wakes so many of a kind at most; what is left is the next pass's. So a pass holds so many records, however
/// many there are.
const MOST_IN_A_PASS: usize = 1_000;

/// Keeps a record that something may be done with, unless there are enough.
fn keep_some<T: Clone>(kept: &mut Vec<T>, one: &T) {
    if kept.len() < MOST_IN_A_PASS {
        kept.push(one.clone());
    }
}
