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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BoxId, BoxName, UserId};

    fn parked(name: &str, since: u64) -> ParkedBox {
        let (owner, id) = (UserId::new("u").unwrap(), BoxId::new("b").unwrap());
        let owner = BoxRef { owner, name: BoxName::new(name).unwrap(), id };
        ParkedBox { owner, instance: InstanceId::new("i").unwrap(), since: Timestamp(since) }
    }

    #[test]
    fn who_is_parked_longest_goes_first_wherever_they_stand() {
        let boxes = [parked("b", 30), parked("a", 20), parked("c", 10)];
        assert_eq!(LeastRecentlyUsed.first_to_go(&boxes, Timestamp(40)), 2);
        assert_eq!(LeastRecentlyUsed.first_to_go(&boxes[..2], Timestamp(40)), 1);
        assert_eq!(LeastRecentlyUsed.first_to_go(&[parked("b", 1), parked("a", 1)], Timestamp(40)), 1, "by name");
        assert_eq!(LeastRecentlyUsed.first_to_go(&[parked("a", 1), parked("b", 1)], Timestamp(40)), 0);
    }
}
