//! A snapshot of a box's disk, kept for its owner: `Taking → Ready → Deleting`.
//!
//! Nobody goes on with one whose taker has died: its owner was never told of it, so it is deleted. Each has an id of its own, made
//! up once; so what was once asked of an earlier one of the same name (a late delete, say) does not befall it.

use super::{Envelope, IllegalTransition, SNAPSHOTS, record};
use crate::clock::Timestamp;
use crate::id::{BoxRef, Epoch, NodeId, SnapshotId, SnapshotName};
use serde::{Deserialize, Serialize};

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// Being copied from its box's disk. One that is only there for a duplicate stays so until it goes.
    Taking {
        /// Who does it.
        node: NodeId,
    },
    /// Boxes can be restored from it.
    Ready,
    /// Being deleted.
    Deleting {
        /// Who does it.
        node: NodeId,
    },
}

/// What happens to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// It is whole, and was taken of a disk at rest.
    Taken {
        /// By whom: a taker that was given up is too late.
        node: NodeId,
    },
    /// It is not wanted any more, or could not be taken.
    Delete {
        /// Who does it.
        node: NodeId,
    },
    /// Another node goes on deleting it.
    TakeOver {
        /// Who does it.
        node: NodeId,
    },
}

impl SnapshotStatus {
    /// Every legal move.
    ///
    /// # Errors
    /// [`IllegalTransition`] for everything else.
    pub fn after(&self, event: &SnapshotEvent) -> Result<SnapshotStatus, IllegalTransition> {
        use {SnapshotEvent as E, SnapshotStatus as S};
        match (self.clone(), event.clone()) {
            (S::Taking { node: taker }, E::Taken { node }) if taker == node => Ok(S::Ready),
            (S::Taking { .. } | S::Ready, E::Delete { node }) => Ok(S::Deleting { node }),
            (S::Deleting { .. }, E::TakeOver { node }) => Ok(S::Deleting { node }),
            (state, event) => Err(IllegalTransition::new(&state, &event)),
        }
    }

    /// The node that is at work on it, if any.
    #[must_use]
    pub fn worker(&self) -> Option<&NodeId> {
        match self {
            Self::Ready => None,
            Self::Taking { node } | Self::Deleting { node } => Some(node),
        }
    }

    /// The status as one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Taking { .. } => "taking",
            Self::Ready => "ready",
            Self::Deleting { .. } => "deleting",
        }
    }
}

/// A snapshot of a box's disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// What its owner calls it; `None` for one that is only there for a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SnapshotName>,
    /// What the provider calls it.
    pub id: SnapshotId,
    /// Of which box, and so whose. It need not be there any more.
    pub of: BoxRef,
    /// How far it is.
    pub status: SnapshotStatus,
    /// The box's epoch when it was taken. A box that is made of it begins there: a volume may remember it.
    pub epoch: Epoch,
    /// How large the box's volume had been grown, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown_to: Option<u64>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

impl SnapshotRecord {
    /// The record after an event; every other field is kept.
    ///
    /// # Errors
    /// [`IllegalTransition`], as [`SnapshotStatus::after`].
    pub fn after(&self, event: &SnapshotEvent) -> Result<Self, IllegalTransition> {
        Ok(Self { status: self.status.after(event)?, ..self.clone() })
    }
}

record!(SnapshotRecord, SNAPSHOTS);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn who_was_given_up_does_not_finish_a_snapshot() {
        let taking = SnapshotStatus::Taking { node: node("slow") };
        let deleting = taking.after(&SnapshotEvent::Delete { node: node("other") }).unwrap();
        assert!(deleting.after(&SnapshotEvent::Taken { node: node("slow") }).is_err());
        assert!(taking.after(&SnapshotEvent::Taken { node: node("other") }).is_err());
    }

    #[test]
    fn nothing_comes_back_from_being_deleted() {
        let deleting = SnapshotStatus::Deleting { node: node("n1") };
        assert!(deleting.after(&SnapshotEvent::Delete { node: node("n2") }).is_err());
        let over = deleting.after(&SnapshotEvent::TakeOver { node: node("n2") }).unwrap();
        assert_eq!(over, SnapshotStatus::Deleting { node: node("n2") });
    }
}
