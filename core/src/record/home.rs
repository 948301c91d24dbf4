//! Where a box lives, in a front of several regions: the one record that says in which of them it is.
//!
//! ```text
//!            Created             Move                 Arrive               Cleared
//!  Creating ─────────▶ Settled ───────▶ Moving ─────────────────▶ Moved ───────────▶ Settled (there)
//!                       │ ▲ │  ▲          │ GivenUp
//!                       │ │ │  └──────────┘
//!                Rename │ │ └─ Delete ─▶ Deleting ── Kept ──▶ Settled
//!                       ▼ │ GivenUp
//!                    Renaming    and under the new name    Arriving ── Renamed ──▶ Settled
//! ```
//! `Arrive` is the one write that decides a move: before it the box is where it was, after it where it was to go. A record in any
//! state but `Settled` names the front that is at work, by its node in `region`; when that is dead, anyone may take over.

use super::{Envelope, HOMES, IllegalTransition, record};
use crate::clock::Timestamp;
use crate::id::{BoxName, BoxRef, NodeId, Region};
use serde::{Deserialize, Serialize};

/// What is under way with a box's home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum HomeStatus {
    /// The box is being made there.
    Creating {
        /// Who does it.
        node: NodeId,
    },
    /// The box lives there.
    Settled,
    /// The box lives there, and is being taken to another region.
    Moving {
        /// Which.
        to: Region,
        /// Which attempt: no two have the same.
        attempt: String,
        /// Who does it.
        node: NodeId,
    },
    /// The box lives there, and what it left in the region where it was is being removed.
    Moved {
        /// Where it was.
        from: Region,
        /// Which attempt.
        attempt: String,
        /// Who does it.
        node: NodeId,
    },
    /// The box lives there, and is being called something else.
    Renaming {
        /// What.
        to: BoxName,
        /// Who does it.
        node: NodeId,
    },
    /// The name is being taken for a box that has another one.
    Arriving {
        /// Which.
        from: BoxName,
        /// Who does it.
        node: NodeId,
    },
    /// The box is being deleted.
    Deleting {
        /// Whether its owner cannot have it back.
        for_good: bool,
        /// Who does it.
        node: NodeId,
    },
}

/// What happens to a box's home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeEvent {
    /// Result: the box is made.
    Created,
    /// Intent: take the box to another region.
    Move {
        /// Which.
        to: Region,
        /// Which attempt.
        attempt: String,
        /// Who does it.
        node: NodeId,
    },
    /// The decision: the box lives where it was to go.
    Arrive {
        /// By which attempt,
        attempt: String,
        /// of whom: one that was taken over is too late.
        node: NodeId,
        /// The same front, by its node in the new region.
        next: NodeId,
    },
    /// Result: nothing of it is left where it was.
    Cleared {
        /// By which attempt it has moved.
        attempt: String,
    },
    /// Result: it stays where it is, or keeps its name.
    GivenUp {
        /// Who has seen to it.
        node: NodeId,
    },
    /// Intent: call it something else.
    Rename {
        /// What.
        to: BoxName,
        /// Who does it.
        node: NodeId,
    },
    /// Result: the box has this name now.
    Renamed,
    /// Intent, by the owner: remove the box.
    Delete {
        /// Whether its owner cannot have it back.
        for_good: bool,
        /// Who does it.
        node: NodeId,
    },
    /// Result: its owner may have it back for a while.
    Kept,
    /// Another front goes on, or the same one after a failure.
    TakeOver {
        /// Who.
        node: NodeId,
    },
}

impl HomeStatus {
    /// The front that is at work, by its node in the home's region; `None` when nothing is under way.
    #[must_use]
    pub fn worker(&self) -> Option<&NodeId> {
        match self {
            Self::Settled => None,
            Self::Creating { node }
            | Self::Moving { node, .. }
            | Self::Moved { node, .. }
            | Self::Renaming { node, .. }
            | Self::Arriving { node, .. }
            | Self::Deleting { node, .. } => Some(node),
        }
    }

    /// The attempt to move the box that is under way, decided or not.
    #[must_use]
    pub fn attempt(&self) -> Option<&str> {
        match self {
            Self::Moving { attempt, .. } | Self::Moved { attempt, .. } => Some(attempt),
            Self::Creating { .. }
            | Self::Settled
            | Self::Renaming { .. }
            | Self::Arriving { .. }
            | Self::Deleting { .. } => None,
        }
    }

    /// The status as words that fit "the box is …".
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Creating { .. } => "being created",
            Self::Settled => "settled",
            Self::Moving { .. } => "being moved to another region",
            Self::Moved { .. } => "being removed from the region where it was",
            Self::Renaming { .. } | Self::Arriving { .. } => "being renamed",
            Self::Deleting { .. } => "being deleted",
        }
    }

    fn taken_over(self, node: NodeId) -> Option<Self> {
        Some(match self {
            Self::Settled => return None,
            Self::Creating { .. } => Self::Creating { node },
            Self::Moving { to, attempt, .. } => Self::Moving { to, attempt, node },
            Self::Moved { from, attempt, .. } => Self::Moved { from, attempt, node },
            Self::Renaming { to, .. } => Self::Renaming { to, node },
            Self::Arriving { from, .. } => Self::Arriving { from, node },
            Self::Deleting { for_good, .. } => Self::Deleting { for_good, node },
        })
    }
}

/// Where a user's box lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HomeRecord {
    /// Whose it is, what it is called, which incarnation: the same in every region.
    pub owner: BoxRef,
    /// Where it lives.
    pub region: Region,
    /// What is under way.
    pub status: HomeStatus,
    /// When the record was made.
    pub created_at: Timestamp,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

impl HomeRecord {
    /// The record after an event; every other field is kept.
    ///
    /// # Errors
    /// [`IllegalTransition`] for every move that is not drawn at the top of the file.
    pub fn after(&self, event: &HomeEvent) -> Result<Self, IllegalTransition> {
        use {HomeEvent as E, HomeStatus as S};
        let here = |status| (self.region.clone(), status);
        let (region, status) = match (self.status.clone(), event.clone()) {
            (S::Creating { .. }, E::Created) => here(S::Settled),
            (S::Settled, E::Move { to, attempt, node }) if to != self.region => here(S::Moving { to, attempt, node }),
            (S::Moving { to, attempt, node }, E::Arrive { attempt: decided, node: by, next })
                if attempt == decided && node == by =>
            {
                (to, S::Moved { from: self.region.clone(), attempt, node: next })
            }
            (S::Moved { attempt, .. }, E::Cleared { attempt: cleared }) if attempt == cleared => here(S::Settled),
            (S::Moving { node, .. } | S::Renaming { node, .. }, E::GivenUp { node: by }) if node == by => {
                here(S::Settled)
            }
            (S::Settled, E::Rename { to, node }) => here(S::Renaming { to, node }),
            (S::Arriving { .. }, E::Renamed) => here(S::Settled),
            (S::Settled, E::Delete { for_good, node }) => here(S::Deleting { for_good, node }),
            (S::Deleting { .. }, E::Kept) => here(S::Settled),
            (status, E::TakeOver { node }) => match status.taken_over(node) {
                Some(status) => here(status),
                None => return Err(IllegalTransition::new(&self.status, event)),
            },
            (status, event) => return Err(IllegalTransition::new(&status, &event)),
        };
        Ok(Self { region, status, ..self.clone() })
    }
}

record!(HomeRecord, HOMES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BoxId, UserId};

    fn node(id: &str) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn region(name: &str) -> Region {
        Region::new(name).unwrap()
    }

    fn settled() -> HomeRecord {
        HomeRecord {
            owner: BoxRef {
                owner: UserId::new("ada").unwrap(),
                name: BoxName::new("dev1").unwrap(),
                id: BoxId::new("b-1").unwrap(),
            },
            region: region("north"),
            status: HomeStatus::Settled,
            created_at: Timestamp(1),
            envelope: Envelope::new(),
        }
    }

    fn moving() -> HomeRecord {
        let event = HomeEvent::Move { to: region("south"), attempt: "x".into(), node: node("n1") };
        settled().after(&event).unwrap()
    }

    fn arrive(attempt: &str, by: &str) -> HomeEvent {
        HomeEvent::Arrive { attempt: attempt.into(), node: node(by), next: node("s1") }
    }

    #[test]
    fn a_box_lives_where_it_was_until_one_write_says_otherwise() {
        assert_eq!(moving().region, region("north"));
        let moved = moving().after(&arrive("x", "n1")).unwrap();
        assert_eq!(moved.region, region("south"));
        let from = region("north");
        assert_eq!(moved.status, HomeStatus::Moved { from, attempt: "x".into(), node: node("s1") });
        assert!(moved.after(&HomeEvent::GivenUp { node: node("s1") }).is_err(), "a decided move is not given up");
    }

    #[test]
    fn who_was_taken_over_decides_nothing() {
        let taken = moving().after(&HomeEvent::TakeOver { node: node("n2") }).unwrap();
        assert!(taken.after(&arrive("x", "n1")).is_err());
        assert!(taken.after(&HomeEvent::GivenUp { node: node("n1") }).is_err());
        let stays = taken.after(&HomeEvent::GivenUp { node: node("n2") }).unwrap();
        assert_eq!(stays, settled());
        assert!(stays.after(&arrive("x", "n1")).is_err());
    }

    #[test]
    fn one_thing_at_a_time_is_done_with_a_home() {
        let delete = HomeEvent::Delete { for_good: true, node: node("n1") };
        let rename = HomeEvent::Rename { to: BoxName::new("dev2").unwrap(), node: node("n1") };
        for event in [&delete, &rename] {
            assert!(settled().after(event).is_ok());
            assert!(moving().after(event).is_err());
        }
        let again = HomeEvent::Move { to: region("north"), attempt: "y".into(), node: node("n1") };
        assert!(settled().after(&again).is_err(), "it is there already");
        assert!(settled().after(&HomeEvent::TakeOver { node: node("n2") }).is_err(), "nothing is under way");
    }
}
