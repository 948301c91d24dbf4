//! A machine of the pool.
//!
//! ```text
//!  Provisioning ─Ready▶ Free ─Claim▶ Claimed ─Release▶ Recycling ─Cleared▶ Free
//!       │                │ │            │                  │
//!       │                │ └─Stop▶ Stopping ─Stopped▶ Stopped ─Wake▶ Starting ─Ready▶ Free
//!       └────Retire──────┴─Condemn──────┬──────Retire──────┘
//!                                       ▼
//!                                   Deleting          any ─Quarantine▶ Quarantined ─Retire▶ Deleting
//! ```
//! There is no edge from `Claimed` to `Free`: a machine that served a box is looked at first, and deleted on doubt.

use super::{Envelope, INSTANCES, IllegalTransition, record};
use crate::clock::Timestamp;
use crate::id::{BoxRef, Epoch, InstanceId, NodeId, UserId};
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};

/// What an instance is used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum InstanceStatus {
    /// Being made by that node.
    Provisioning {
        /// Who does it.
        node: NodeId,
    },
    /// Ready and empty.
    Free,
    /// Reserved for one box.
    Claimed {
        /// Which.
        owner: BoxRef,
        /// At which epoch of that box.
        epoch: Epoch,
    },
    /// Served a box; nothing may be left of it before the next.
    Recycling {
        /// Who looks.
        node: NodeId,
    },
    /// Going into the reserve.
    Stopping {
        /// Who does it.
        node: NodeId,
    },
    /// Kept in reserve at no cost for compute.
    Stopped,
    /// Coming out of the reserve.
    Starting {
        /// Who does it.
        node: NodeId,
    },
    /// Being deleted.
    Deleting {
        /// Who does it.
        node: NodeId,
    },
    /// Set aside for a person.
    Quarantined {
        /// Why, in a sentence.
        why: String,
    },
}

/// What happens to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceEvent {
    /// It was made, or has started, and was found ready.
    Ready,
    /// A box takes it.
    Claim {
        /// Which.
        owner: BoxRef,
        /// At which epoch.
        epoch: Epoch,
    },
    /// The box that claimed it has left.
    Release {
        /// The box whose claim ends; another's claim stays.
        owner: BoxRef,
        /// The epoch in which it leaves; a claim of a later epoch stays.
        epoch: Epoch,
        /// Who looks after it now.
        node: NodeId,
    },
    /// As `Release`, and the machine goes: its cleanliness is in doubt, and the doubt must not be forgotten if the node dies
    /// before it has acted on it.
    Condemn {
        /// The box whose claim ends.
        owner: BoxRef,
        /// The epoch in which it leaves.
        epoch: Epoch,
        /// Who deletes the machine.
        node: NodeId,
    },
    /// Looked, and nothing is left.
    Cleared,
    /// It goes into the reserve.
    Stop {
        /// Who does it.
        node: NodeId,
    },
    /// It was seen to have stopped.
    Stopped,
    /// It comes out of the reserve.
    Wake {
        /// Who does it.
        node: NodeId,
    },
    /// It is to be deleted.
    Retire {
        /// Who does it.
        node: NodeId,
    },
    /// Another node continues.
    TakeOver {
        /// Who does it.
        node: NodeId,
    },
    /// It is set aside.
    Quarantine {
        /// Why.
        why: String,
    },
}

impl InstanceStatus {
    /// Every legal move.
    ///
    /// # Errors
    /// [`IllegalTransition`] for everything else.
    pub fn after(&self, event: &InstanceEvent) -> Result<InstanceStatus, IllegalTransition> {
        use {InstanceEvent as E, InstanceStatus as S};
        match (self.clone(), event.clone()) {
            (S::Provisioning { .. } | S::Starting { .. }, E::Ready) => Ok(S::Free),
            (S::Free, E::Claim { owner, epoch }) => Ok(S::Claimed { owner, epoch }),
            // The same box, coming again after a crash, refreshes its claim.
            (S::Claimed { owner: held, epoch: old }, E::Claim { owner, epoch }) if held == owner && epoch >= old => {
                Ok(S::Claimed { owner, epoch })
            }
            // Of its own epoch or an older one: a node that wakes up late must not end a later claim of the same box.
            (S::Claimed { owner: held, epoch: claimed }, E::Release { owner, epoch, node })
                if held == owner && (claimed <= epoch || planted::is(Bug::ReleaseWithoutEpoch)) =>
            {
                Ok(if planted::is(Bug::ReleaseWithoutLook) { S::Free } else { S::Recycling { node } })
            }
            (S::Claimed { owner: held, epoch: claimed }, E::Condemn { owner, epoch, node })
                if held == owner && (claimed <= epoch || planted::is(Bug::ReleaseWithoutEpoch)) =>
            {
                Ok(S::Deleting { node })
            }
            (S::Recycling { .. }, E::Cleared) => Ok(S::Free),
            (S::Free, E::Stop { node }) => Ok(S::Stopping { node }),
            (S::Stopping { .. }, E::Stopped) => Ok(S::Stopped),
            (S::Stopped, E::Wake { node }) => Ok(S::Starting { node }),
            (
                S::Provisioning { .. }
                | S::Free
                | S::Recycling { .. }
                | S::Stopping { .. }
                | S::Stopped
                | S::Starting { .. }
                | S::Quarantined { .. },
                E::Retire { node },
            ) => Ok(S::Deleting { node }),
            (S::Provisioning { .. }, E::TakeOver { node }) => Ok(S::Provisioning { node }),
            (S::Recycling { .. }, E::TakeOver { node }) => Ok(S::Recycling { node }),
            (S::Starting { .. }, E::TakeOver { node }) => Ok(S::Starting { node }),
            (S::Deleting { .. }, E::TakeOver { node }) => Ok(S::Deleting { node }),
            (state, E::Quarantine { why }) if !matches!(state, S::Quarantined { .. } | S::Claimed { .. }) => {
                Ok(S::Quarantined { why })
            }
            (state, event) => Err(IllegalTransition::new(&state, &event)),
        }
    }

    /// The node that is at work on it, if any.
    #[must_use]
    pub fn worker(&self) -> Option<&NodeId> {
        match self {
            Self::Free | Self::Claimed { .. } | Self::Stopped | Self::Quarantined { .. } => None,
            Self::Provisioning { node }
            | Self::Recycling { node }
            | Self::Stopping { node }
            | Self::Starting { node }
            | Self::Deleting { node } => Some(node),
        }
    }

    /// The status as one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Provisioning { .. } => "provisioning",
            Self::Free => "free",
            Self::Claimed { .. } => "claimed",
            Self::Recycling { .. } => "recycling",
            Self::Stopping { .. } => "stopping",
            Self::Stopped => "stopped",
            Self::Starting { .. } => "starting",
            Self::Deleting { .. } => "deleting",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// An instance of the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Its id.
    pub id: InstanceId,
    /// What it is used for.
    pub status: InstanceStatus,
    /// The template edition it was made from.
    pub generation: String,
    /// When the record was made.
    pub created_at: Timestamp,
    /// That nobody new is to come onto it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<Cordon>,
    /// Whose box was on it last: the same user's next one comes onto it rather than onto another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_user: Option<UserId>,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

impl InstanceRecord {
    /// A new instance, of which nothing else is known yet.
    #[must_use]
    pub fn new(id: InstanceId, status: InstanceStatus, generation: impl Into<String>, created_at: Timestamp) -> Self {
        let (generation, envelope) = (generation.into(), Envelope::new());
        Self { id, status, generation, created_at, cordon: None, last_user: None, envelope }
    }

    /// Whether a box may take it now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == InstanceStatus::Free && self.cordon.is_none()
    }

    /// Whether it is to be emptied and deleted.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.cordon.as_ref().is_some_and(|cordon| cordon.drain)
    }

    /// The record after an event; every other field is kept.
    ///
    /// # Errors
    /// [`IllegalTransition`], as [`InstanceStatus::after`], and for a claim of one that is free and cordoned.
    pub fn after(&self, event: &InstanceEvent) -> Result<Self, IllegalTransition> {
        let newcomer = self.status == InstanceStatus::Free && matches!(event, InstanceEvent::Claim { .. });
        if newcomer && self.cordon.is_some() && !planted::is(Bug::CordonedIsClaimed) {
            return Err(IllegalTransition::new(&"free and cordoned", event));
        }
        let last_user = match event {
            InstanceEvent::Claim { owner, .. } => Some(owner.owner.clone()),
            _ => self.last_user.clone(),
        };
        Ok(Self { status: self.status.after(event)?, last_user, ..self.clone() })
    }
}

record!(InstanceRecord, INSTANCES);

/// An order that nobody new is to come onto an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordon {
    /// Whether those who are there are to leave, and the instance to be deleted then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Why, in a sentence; empty when none was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

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

    fn node() -> NodeId {
        NodeId::new("n1").unwrap()
    }

    fn statuses() -> impl Strategy<Value = InstanceStatus> {
        use InstanceStatus as S;
        (0u8..9, 0u8..2, 0u64..3).prop_map(|(kind, b, e)| match kind {
            0 => S::Provisioning { node: node() },
            1 => S::Free,
            2 => S::Claimed { owner: owner(b), epoch: Epoch(e) },
            3 => S::Recycling { node: node() },
            4 => S::Stopped,
            5 => S::Starting { node: node() },
            6 => S::Deleting { node: node() },
            7 => S::Stopping { node: node() },
            _ => S::Quarantined { why: "a reason".into() },
        })
    }

    fn events() -> impl Strategy<Value = InstanceEvent> {
        use InstanceEvent as E;
        (0u8..11, 0u8..2, 0u64..3).prop_map(|(kind, b, e)| match kind {
            10 => E::Stopped,
            9 => E::Condemn { owner: owner(b), epoch: Epoch(e), node: node() },
            0 => E::Ready,
            1 => E::Claim { owner: owner(b), epoch: Epoch(e) },
            2 => E::Release { owner: owner(b), epoch: Epoch(e), node: node() },
            3 => E::Cleared,
            4 => E::Stop { node: node() },
            5 => E::Wake { node: node() },
            6 => E::Retire { node: node() },
            7 => E::TakeOver { node: node() },
            _ => E::Quarantine { why: "a reason".into() },
        })
    }

    proptest! {
        #[test]
        fn a_claimed_instance_leaves_only_by_its_own_boxs_release(status in statuses(), event in events()) {
            if let (InstanceStatus::Claimed { owner: held, epoch: old }, Ok(after)) = (&status, status.after(&event)) {
                match (&event, after) {
                    (InstanceEvent::Release { owner, epoch, .. }, InstanceStatus::Recycling { .. })
                    | (InstanceEvent::Condemn { owner, epoch, .. }, InstanceStatus::Deleting { .. }) => {
                        prop_assert_eq!(owner, held);
                        prop_assert!(epoch >= old);
                    }
                    (InstanceEvent::Claim { owner, epoch }, InstanceStatus::Claimed { .. }) => {
                        prop_assert_eq!(owner, held);
                        prop_assert!(epoch >= old);
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }

        #[test]
        fn nothing_becomes_free_without_having_been_found_ready_or_clear(status in statuses(), event in events()) {
            if let Ok(InstanceStatus::Free) = status.after(&event) {
                let was_looked_at = matches!(event, InstanceEvent::Ready | InstanceEvent::Cleared);
                prop_assert!(was_looked_at);
            }
        }

        #[test]
        fn a_status_survives_the_store(status in statuses()) {
            let json = serde_json::to_string(&status).unwrap();
            prop_assert_eq!(serde_json::from_str::<InstanceStatus>(&json).unwrap(), status);
        }
    }
}
