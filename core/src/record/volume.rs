//! A volume: `Creating → Free → Bound → Deleting`. **There is no edge from `Bound` to `Free`**: what once held a user's
//! data is that user's until the owner deletes it.

use super::{Envelope, IllegalTransition, VOLUMES, record};
use crate::clock::Timestamp;
use crate::id::{BoxRef, NodeId, SnapshotId, VolumeId};
use serde::{Deserialize, Serialize};

/// What a volume is used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum VolumeStatus {
    /// Being made by that node.
    Creating {
        /// Who does it.
        node: NodeId,
        /// The box that waits for it, when it is made for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wanted_by: Option<BoxRef>,
    },
    /// Ready and nobody's.
    Free,
    /// A box's, for good.
    Bound {
        /// Whose.
        owner: BoxRef,
    },
    /// Being deleted: never used, or on its owner's word.
    Deleting {
        /// Who does it.
        node: NodeId,
    },
    /// Set aside for a person: it may hold a user's data and no box names it.
    Quarantined {
        /// Why, in a sentence.
        why: String,
    },
}

/// What happens to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeEvent {
    /// It was made; nobody waits for it.
    Ready,
    /// A box takes it: a free one, or the one made for it. Its own, once more: nothing changes but the record's version, so that
    /// whoever meant to delete it while no box named it comes too late.
    Bind {
        /// Which box.
        owner: BoxRef,
    },
    /// The box it is bound to is called something else from now on. This is the moment at which a box changes its name.
    Rename {
        /// The box as it was called.
        from: BoxRef,
        /// The same box, as it is called now.
        to: BoxRef,
    },
    /// It was never bound and is not wanted.
    Discard {
        /// Who does it.
        node: NodeId,
    },
    /// The owner deletes the box it is bound to.
    DeletedByOwner {
        /// Which box; another's volume stays.
        owner: BoxRef,
        /// Who does it.
        node: NodeId,
    },
    /// Another node continues.
    TakeOver {
        /// Who does it.
        node: NodeId,
    },
    /// A person says whose it is.
    Release {
        /// Which box's.
        owner: BoxRef,
    },
    /// A person says that nobody needs what is on it.
    Erase {
        /// Who does it.
        node: NodeId,
    },
}

impl VolumeStatus {
    /// Every legal move.
    ///
    /// # Errors
    /// [`IllegalTransition`] for everything else.
    pub fn after(&self, event: &VolumeEvent) -> Result<VolumeStatus, IllegalTransition> {
        use {VolumeEvent as E, VolumeStatus as S};
        match (self.clone(), event.clone()) {
            (S::Creating { wanted_by: None, .. }, E::Ready) => Ok(S::Free),
            (S::Free, E::Bind { owner }) => Ok(S::Bound { owner }),
            (S::Bound { owner: has }, E::Bind { owner }) if has == owner => Ok(S::Bound { owner }),
            (S::Creating { wanted_by: Some(wanted), .. }, E::Bind { owner }) if wanted == owner => {
                Ok(S::Bound { owner })
            }
            (S::Bound { owner: has }, E::Rename { from, to })
                if has == from && (&from.owner, &from.id) == (&to.owner, &to.id) =>
            {
                Ok(S::Bound { owner: to })
            }
            (S::Creating { .. } | S::Free, E::Discard { node }) => Ok(S::Deleting { node }),
            (S::Bound { owner: held }, E::DeletedByOwner { owner, node }) if held == owner => Ok(S::Deleting { node }),
            (S::Creating { wanted_by, .. }, E::TakeOver { node }) => Ok(S::Creating { node, wanted_by }),
            (S::Deleting { .. }, E::TakeOver { node }) => Ok(S::Deleting { node }),
            (S::Quarantined { .. }, E::Release { owner }) => Ok(S::Bound { owner }),
            (S::Quarantined { .. }, E::Erase { node }) => Ok(S::Deleting { node }),
            (state, event) => Err(IllegalTransition::new(&state, &event)),
        }
    }

    /// The node that is at work on it, if any.
    #[must_use]
    pub fn worker(&self) -> Option<&NodeId> {
        match self {
            Self::Free | Self::Bound { .. } | Self::Quarantined { .. } => None,
            Self::Creating { node, .. } | Self::Deleting { node } => Some(node),
        }
    }

    /// The status as one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Creating { .. } => "creating",
            Self::Free => "free",
            Self::Bound { .. } => "bound",
            Self::Deleting { .. } => "deleting",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// A volume of the pool or of a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its id.
    pub id: VolumeId,
    /// What it is used for.
    pub status: VolumeStatus,
    /// The golden generation it was copied from.
    pub generation: String,
    /// The snapshot of a box that it is copied from, where it is not the golden one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SnapshotId>,
    /// When the record was made.
    pub created_at: Timestamp,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

impl VolumeRecord {
    /// The record after an event; every other field is kept.
    ///
    /// # Errors
    /// [`IllegalTransition`], as [`VolumeStatus::after`].
    pub fn after(&self, event: &VolumeEvent) -> Result<Self, IllegalTransition> {
        Ok(Self { status: self.status.after(event)?, ..self.clone() })
    }
}

record!(VolumeRecord, VOLUMES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BoxId, BoxName, UserId};
    use proptest::prelude::*;

    fn owner(n: u8) -> BoxRef {
        BoxRef {
            owner: UserId::new("u").unwrap(),
            name: BoxName::new(format!("b{n}")).unwrap(),
            id: BoxId::new(format!("id{n}")).unwrap(),
        }
    }

    fn histories() -> impl Strategy<Value = Vec<VolumeEvent>> {
        let node = NodeId::new("n1").unwrap();
        let event = (0u8..9, 0u8..3, 0u8..3).prop_map(move |(kind, b, other)| match kind {
            0 => VolumeEvent::Ready,
            1 => VolumeEvent::Bind { owner: owner(b) },
            2 => VolumeEvent::Discard { node: node.clone() },
            3 => VolumeEvent::DeletedByOwner { owner: owner(b), node: node.clone() },
            4 => VolumeEvent::Release { owner: owner(b) },
            5 => VolumeEvent::Erase { node: node.clone() },
            6 => VolumeEvent::Rename { from: owner(b), to: BoxRef { id: owner(other).id, ..owner(b) } },
            7 => VolumeEvent::Rename { from: owner(b), to: BoxRef { name: owner(other).name, ..owner(b) } },
            _ => VolumeEvent::TakeOver { node: node.clone() },
        });
        proptest::collection::vec(event, 0..12)
    }

    proptest! {
        #[test]
        fn a_bound_volume_stays_its_owners_until_the_owner_deletes_it(
            wanted in proptest::option::of(0u8..3), set_aside in any::<bool>(), history in histories(),
        ) {
            let node = NodeId::new("n0").unwrap();
            let mut status = VolumeStatus::Creating { node, wanted_by: wanted.map(owner) };
            if set_aside {
                status = VolumeStatus::Quarantined { why: "a reason".into() };
            }
            let mut owned_by: Option<BoxRef> = None;
            for event in history {
                let Ok(after) = status.after(&event) else { continue };
                if let Some(owned_by) = &owned_by {
                    match &after {
                        VolumeStatus::Bound { owner } => prop_assert_eq!((&owner.owner, &owner.id), (&owned_by.owner, &owned_by.id)),
                        VolumeStatus::Deleting { .. } => {
                            let by_owner = matches!(&event, VolumeEvent::DeletedByOwner { owner, .. } if owner == owned_by);
                            let goes_on = matches!(status, VolumeStatus::Deleting { .. });
                            prop_assert!(by_owner || goes_on);
                        }
                        other => prop_assert!(false, "a bound volume became {other:?}"),
                    }
                }
                if let VolumeStatus::Bound { owner } = &after {
                    owned_by = Some(owner.clone());
                }
                status = after;
            }
        }
    }
}
