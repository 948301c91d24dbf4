//! Which parked box gives its instance back first.

use crate::clock::Timestamp;
use crate::id::{BoxRef, InstanceId};

/// A parked box, as a policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedBox {
    /// Which box.
    pub owner: BoxRef,
    /// Where it is parked.
    pub instance: InstanceId,
    /// Since when, by the clock of the node that parked it.
    pub since: Timestamp,
}

/// Decides who makes room. Pure: it is asked while somebody waits.
pub trait ParkingPolicy: Send + Sync + 'static {
    /// The index in `parked` (never empty) of the box that is least likely to return soon. An index beyond the end means the last.
    fn first_to_go(&self, parked: &[ParkedBox], now: Timestamp) -> usize;
}

/// The box parked longest goes first.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastRecentlyUsed;

impl ParkingPolicy for LeastRecentlyUsed {
    fn first_to_go(&self, parked: &[ParkedBox], _now: Timestamp) -> usize {
        let oldest = parked.iter().enumerate().min_by_key(|(_, parked)| (parked.since, &parked.owner));
        oldest.map_or(0, |(index, _)| index)
    }
}
