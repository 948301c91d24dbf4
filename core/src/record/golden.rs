//! A golden snapshot: what new volumes are copied from. `Building → Ready → Retired → Gone`, built by one node at a time.
//!
//! Each build after the first has a new number, and with it the snapshot a new name: what was once asked of an older build (a
//! late delete, say) does not befall the newer one.

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
        /// What comes out.
        snapshot: SnapshotId,
    },
    /// Volumes can be copied from it.
    Ready {
        /// What from.
        snapshot: SnapshotId,
    },
    /// Not used any more, and to be deleted.
    Retired {
        /// What is to be deleted.
        snapshot: SnapshotId,
    },
    /// Deleted.
    Gone,
}

/// What happens to a golden snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoldenEvent {
    /// It was built.
    Built {
        /// By whom: a builder that was taken over is too late.
        node: NodeId,
    },
    /// Another node goes on building it, the first one being dead.
    TakeOver {
        /// Who.
        node: NodeId,
    },
    /// It is not used any more, or was found damaged.
    Retire,
    /// The snapshot is surely deleted.
    Deleted,
    /// It is wanted again.
    Rebuild {
        /// Who builds it.
        node: NodeId,
        /// What comes out: never a name that was used before.
        snapshot: SnapshotId,
    },
}

impl GoldenState {
    /// Every legal move.
    ///
    /// # Errors
    /// [`IllegalTransition`] for everything else.
    pub fn after(&self, event: &GoldenEvent) -> Result<GoldenState, IllegalTransition> {
        use {GoldenEvent as E, GoldenState as S};
        match (self.clone(), event.clone()) {
            (S::Building { node: builder, snapshot }, E::Built { node }) if builder == node => {
                Ok(S::Ready { snapshot })
            }
            (S::Building { snapshot, .. }, E::TakeOver { node }) => Ok(S::Building { node, snapshot }),
            (S::Ready { snapshot }, E::Retire) => Ok(S::Retired { snapshot }),
            (S::Retired { .. }, E::Deleted) => Ok(S::Gone),
            (S::Gone, E::Rebuild { node, snapshot }) => Ok(S::Building { node, snapshot }),
            (state, event) => Err(IllegalTransition::new(&state, &event)),
        }
    }
}

/// A golden snapshot of one generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenRecord {
    /// Edition, content-addressed by its recipe.
    pub generation: String,
    /// How far it is.
    pub state: GoldenState,
    /// The number of this build, from 1.
    pub build: u32,
    /// When this build began, by the clock of the node that began it.
    pub created_at: Timestamp,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

record!(GoldenRecord, GOLDENS);

impl GoldenRecord {
    /// The record after that event.
    ///
    /// # Errors
    /// As [`GoldenState::after`].
    pub fn after(&self, event: &GoldenEvent) -> Result<GoldenRecord, IllegalTransition> {
        let mut next = self.clone();
        next.state = self.state.after(event)?;
        next.build += u32::from(matches!(event, GoldenEvent::Rebuild { .. }));
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn snapshot(id: &str) -> SnapshotId {
        SnapshotId::new(id).unwrap()
    }

    #[test]
    fn a_builder_that_was_taken_over_cannot_publish() {
        let building = GoldenState::Building { node: node("slow"), snapshot: snapshot("s1") };
        let taken = building.after(&GoldenEvent::TakeOver { node: node("next") }).unwrap();
        assert!(taken.after(&GoldenEvent::Built { node: node("slow") }).is_err());
        let ready = taken.after(&GoldenEvent::Built { node: node("next") }).unwrap();
        assert_eq!(ready, GoldenState::Ready { snapshot: snapshot("s1") });
    }

    #[test]
    fn only_these_moves_are_legal() {
        let states = [
            GoldenState::Building { node: node("a"), snapshot: snapshot("s1") },
            GoldenState::Ready { snapshot: snapshot("s1") },
            GoldenState::Retired { snapshot: snapshot("s1") },
            GoldenState::Gone,
        ];
        let events = [
            GoldenEvent::Built { node: node("a") },
            GoldenEvent::TakeOver { node: node("b") },
            GoldenEvent::Retire,
            GoldenEvent::Deleted,
            GoldenEvent::Rebuild { node: node("a"), snapshot: snapshot("s2") },
        ];
        let legal = |state: &GoldenState| events.iter().map(|event| state.after(event).is_ok()).collect::<Vec<_>>();
        assert_eq!(legal(&states[0]), [true, true, false, false, false]);
        assert_eq!(legal(&states[1]), [false, false, true, false, false]);
        assert_eq!(legal(&states[2]), [false, false, false, true, false]);
        assert_eq!(legal(&states[3]), [false, false, false, false, true]);
    }

    #[test]
    fn what_is_built_again_has_another_number() {
        let gone = GoldenRecord {
            generation: "g".into(),
            state: GoldenState::Gone,
            build: 1,
            created_at: Timestamp(0),
            envelope: Envelope::new(),
        };
        let again = gone.after(&GoldenEvent::Rebuild { node: node("a"), snapshot: snapshot("s2") }).unwrap();
        assert_eq!(again.build, 2);
        assert_eq!(again.after(&GoldenEvent::TakeOver { node: node("b") }).unwrap().build, 2);
    }
}
