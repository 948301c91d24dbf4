//! A golden snapshot: what new volumes are copied from. `Building → Ready → Retired`, built by one node at a time.

use super::{Envelope, GOLDENS, IllegalTransition, record};
use crate::clock::Timestamp;
use crate::id::{NodeId, SnapshotId};
use serde::{Deserialize, Serialize};

/// How far a golden snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum GoldenState {
    /// That node builds it.
    Building {
        /// Who.
        node: NodeId,
    },
    /// Volumes can be copied from it.
    Ready {
        /// What from.
        snapshot: SnapshotId,
    },
    /// Not used any more.
    Retired,
}

/// What happens to a golden snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoldenEvent {
    /// It was built.
    Built {
        /// By whom: a builder that was taken over is too late.
        node: NodeId,
        /// What came out.
        snapshot: SnapshotId,
    },
    /// Another node builds it, the first one being dead.
    TakeOver {
        /// Who.
        node: NodeId,
    },
    /// It is not used any more.
    Retire,
}

impl GoldenState {
    /// Every legal move.
    ///
    /// # Errors
    /// [`IllegalTransition`] for everything else.
    pub fn after(&self, event: &GoldenEvent) -> Result<GoldenState, IllegalTransition> {
        use {GoldenEvent as E, GoldenState as S};
        match (self.clone(), event.clone()) {
            (S::Building { node: builder }, E::Built { node, snapshot }) if builder == node => {
                Ok(S::Ready { snapshot })
            }
            (S::Building { .. }, E::TakeOver { node }) => Ok(S::Building { node }),
            (S::Ready { .. }, E::Retire) => Ok(S::Retired),
            (state, event) => Err(IllegalTransition::new(&state, &event)),
        }
    }
}

/// A golden snapshot of one region and generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenRecord {
    /// Edition, content-addressed by its recipe.
    pub generation: String,
    /// How far it is.
    pub state: GoldenState,
    /// When the record was made.
    pub created_at: Timestamp,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

record!(GoldenRecord, GOLDENS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_that_was_taken_over_cannot_publish() {
        let (slow, next) = (NodeId::new("slow").unwrap(), NodeId::new("next").unwrap());
        let snapshot = SnapshotId::new("s1").unwrap();
        let taken =
            GoldenState::Building { node: slow.clone() }.after(&GoldenEvent::TakeOver { node: next.clone() }).unwrap();
        assert!(taken.after(&GoldenEvent::Built { node: slow, snapshot: snapshot.clone() }).is_err());
        let ready = taken.after(&GoldenEvent::Built { node: next, snapshot: snapshot.clone() }).unwrap();
        assert_eq!(ready, GoldenState::Ready { snapshot });
    }
}
