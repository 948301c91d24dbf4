//! When the owner of a box was there: what a parking policy learns from, written with writes that are made anyway.

use super::Placement;
use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// One stay: from when the box was up until it was off its feet again, linger included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Visit {
    /// When the box was up. To the second.
    pub came: Timestamp,
    /// When it was suspended or stopped. To the second.
    pub left: Timestamp,
}

// As two numbers of seconds: a million boxes have many.
impl From<(u64, u64)> for Visit {
    fn from((came, left): (u64, u64)) -> Self {
        let at = |seconds: u64| Timestamp(seconds.saturating_mul(1_000));
        Self { came: at(came), left: at(left) }
    }
}

impl From<Visit> for (u64, u64) {
    fn from(visit: Visit) -> Self {
        (visit.came.0 / 1_000, visit.left.0 / 1_000)
    }
}

/// The last visits to a box, the oldest first. Times are those of whatever node wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Visits {
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    past: VecDeque<Visit>,
    /// Since when the present one lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    present: Option<Timestamp>,
}

impl Visits {
    /// As many are kept: three weeks of working days, in some 400 bytes.
    pub const KEPT: usize = 16;

    /// Those that have ended, the oldest first; at most [`KEPT`](Self::KEPT).
    pub fn past(&self) -> impl DoubleEndedIterator<Item = &Visit> + ExactSizeIterator {
        self.past.iter()
    }

    /// How long nobody was there, before each visit but the first.
    pub fn absences(&self) -> impl Iterator<Item = Duration> {
        let between = self.past.iter().zip(self.past.iter().skip(1));
        between.map(|(earlier, later)| later.came.since(earlier.left))
    }

    /// Whether there was none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.past.is_empty() && self.present.is_none()
    }

    /// Counts one that has ended. Only the last ones are kept.
    pub fn push(&mut self, visit: Visit) {
        if self.past.len() == Self::KEPT {
            self.past.pop_front();
        }
        self.past.push_back(visit);
    }

    /// The box goes from one placement to another, which may be the same; `held`: by a node that has sessions on it. What a
    /// node brings up for nobody is no visit.
    pub(super) fn moves(&mut self, to: &Placement, held: bool, now: Timestamp) {
        match to {
            Placement::Running { .. } if held => drop(self.present.get_or_insert(now)),
            Placement::Parked { .. } | Placement::Detached => {
                if let Some(came) = self.present.take() {
                    self.push(Visit { came, left: now.max(came) });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{InstanceId, NodeId};
    use crate::runtime::{Endpoint, EndpointAddress};

    fn running() -> Placement {
        let address = EndpointAddress::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 22)));
        let endpoint = Endpoint { address, login: "box".into(), host_key: "ssh-ed25519 AAAA".into() };
        Placement::Running { instance: InstanceId::new("i1").unwrap(), endpoint }
    }

    fn placing() -> Placement {
        Placement::Placing { instance: InstanceId::new("i1").unwrap(), node: NodeId::new("n1").unwrap() }
    }

    fn parked(at: u64) -> Placement {
        Placement::Parked { instance: InstanceId::new("i1").unwrap(), since: Timestamp(at) }
    }

    #[test]
    fn a_visit_lasts_from_when_the_box_is_up_until_it_rests() {
        let mut visits = Visits::default();
        visits.moves(&placing(), true, Timestamp(1_000));
        visits.moves(&running(), true, Timestamp(2_000));
        visits.moves(&placing(), true, Timestamp(3_000)); // its guest was lost
        visits.moves(&running(), true, Timestamp(4_000));
        assert_eq!(visits.past().len(), 0);
        visits.moves(&parked(9_000), false, Timestamp(9_000));
        visits.moves(&Placement::Detached, false, Timestamp(20_000));
        visits.moves(&running(), true, Timestamp(30_000));
        visits.moves(&Placement::Detached, false, Timestamp(29_000)); // by a clock that is behind
        let past: Vec<Visit> = visits.past().copied().collect();
        let visit = |came, left| Visit { came: Timestamp(came), left: Timestamp(left) };
        assert_eq!(past, [visit(2_000, 9_000), visit(30_000, 30_000)]);
        assert_eq!(visits.absences().collect::<Vec<_>>(), [Duration::from_secs(21)]);
    }

    #[test]
    fn what_is_brought_up_for_nobody_is_no_visit() {
        let mut visits = Visits::default();
        visits.moves(&running(), false, Timestamp(2_000));
        visits.moves(&parked(9_000), false, Timestamp(9_000));
        assert!(visits.is_empty());
        visits.moves(&running(), false, Timestamp(10_000));
        visits.moves(&running(), true, Timestamp(11_000));
        visits.moves(&parked(12_000), false, Timestamp(12_000));
        assert_eq!(visits.past().next().unwrap().came, Timestamp(11_000), "from when somebody joined");
    }

    #[test]
    fn only_the_last_ones_are_kept_and_they_survive_the_store() {
        let mut visits = Visits::default();
        for n in 0..20 {
            visits.push(Visit { came: Timestamp(n * 10_000), left: Timestamp(n * 10_000 + 4_000) });
        }
        assert_eq!(visits.past().len(), Visits::KEPT);
        assert_eq!(visits.past().next().unwrap().came, Timestamp(40_000));
        let json = serde_json::to_string(&visits).unwrap();
        assert!(json.starts_with(r#"{"past":[[40,44],[50,54],"#), "{json}");
        assert_eq!(serde_json::from_str::<Visits>(&json).unwrap(), visits);
    }
}
