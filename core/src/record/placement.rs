//! A box and where it is.
//!
//! ```text
//!              Place                Started               Leave                Suspended
//!  Detached ─────────▶ Placing ───────────────▶ Running ─────────▶ Suspending ───────────▶ Parked
//!     ▲                │  ▲ ▲ └ Move, TakeOver     │ ▲                │ │                    │ │
//!     │                │  │ └────── GuestLost ──────┘ └─ SuspendFailed ┘ │                    │ │
//!     │                │  └───────────────────────── Place (same instance) ───────────────────┘ │
//!     │ Detached       ▼ Withdraw                                         ▼ Withdraw   Withdraw │
//!     └──────────── Detaching ◀───────────────────────────────────────────┴─────────────────────┘
//!
//!  Placing ── Attached ──▶ Parked                           TakeOver: another node continues a step
//!  Running, Parked ── Stop ──▶ Detaching
//!  Detached, Running, Parked ── Delete ──▶ Deleting
//!  Detached ── Rename ──▶ Renaming ── RenameFailed ──▶ Detached
//!                            │ the record goes, and under the new name
//!                            └─ ─ ─ ─ ─ Arriving ── Arrived ──▶ Detached
//! ```
//! An event that *begins* a step (an intent) raises the epoch; one that reports a result must carry the present epoch,
//! so a late answer fits nowhere. A record in `Placing`, `Suspending`, `Detaching`, `Renaming` or `Deleting` names the node
//! that is at work; when that node is dead, anyone may take over. An `Arriving` record is settled by whoever comes across it.

use super::{BOXES, BroughtUp, Envelope, IllegalTransition, Visits, record};
use crate::clock::Timestamp;
use crate::id::{BoxName, BoxRef, Epoch, InstanceId, NodeId, SnapshotId, UserId, VolumeId};
use crate::planted::{self, Bug};
use crate::provider::Device;
use crate::runtime::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Where a box is, and in which step of coming or going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Placement {
    /// On no instance.
    Detached,
    /// Coming: volume, instance and guest are being brought together.
    Placing {
        /// Where to.
        instance: InstanceId,
        /// Who does it.
        node: NodeId,
    },
    /// The guest runs.
    Running {
        /// Where.
        instance: InstanceId,
        /// How it is reached.
        endpoint: Endpoint,
    },
    /// Going: memory is being saved.
    Suspending {
        /// Where.
        instance: InstanceId,
        /// Who does it.
        node: NodeId,
        /// How it was reached, for when the suspend fails and it runs on. Unknown when a half-placed box is taken over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<Endpoint>,
    },
    /// No guest runs, but the volume is attached and the instance reserved: suspended there, or attached ahead of its owner.
    Parked {
        /// Where.
        instance: InstanceId,
        /// Since when.
        since: Timestamp,
    },
    /// The volume is leaving the instance.
    Detaching {
        /// Where from.
        instance: InstanceId,
        /// Who does it.
        node: NodeId,
    },
    /// On its owner's word: guest, attachment and volume are being removed.
    Deleting {
        /// Where it still may be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<InstanceId>,
        /// Who does it.
        node: NodeId,
    },
    /// On no instance, and on its way to another name.
    Renaming {
        /// To which.
        to: BoxName,
        /// Which attempt: the epoch of its intent. No two attempts of a box have the same.
        attempt: Epoch,
        /// Who does it.
        node: NodeId,
    },
    /// On no instance: the record under the new name. It is the box once the volume is bound to that name, and if that never
    /// happens it is nothing: the attempt was given up, or the record came late.
    Arriving {
        /// From which name.
        from: BoxName,
        /// Which attempt.
        attempt: Epoch,
        /// Who does it.
        node: NodeId,
    },
}

/// What happens to a placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementEvent {
    /// Intent: bring the box up on `instance`. From `Parked` only on the instance it is parked on.
    Place {
        /// Where to.
        instance: InstanceId,
        /// Who does it.
        node: NodeId,
    },
    /// Intent: the instance could not be had; go to another.
    Move {
        /// Where to.
        instance: InstanceId,
        /// Who does it.
        node: NodeId,
    },
    /// Result: the guest of that epoch runs.
    Started {
        /// The epoch it was started with.
        epoch: Epoch,
        /// How it is reached.
        endpoint: Endpoint,
    },
    /// Result: the volume is attached, and no guest runs yet: its owner is expected.
    Attached {
        /// The epoch it was attached with.
        epoch: Epoch,
        /// When.
        at: Timestamp,
    },
    /// Intent: the guest of that epoch was found gone; start it again where it was.
    GuestLost {
        /// The epoch in which it ran.
        epoch: Epoch,
        /// Who does it.
        node: NodeId,
    },
    /// Intent: save memory and end the guest.
    Leave {
        /// Who does it.
        node: NodeId,
    },
    /// Result: the guest is suspended.
    Suspended {
        /// The epoch it was suspended with.
        epoch: Epoch,
        /// When.
        at: Timestamp,
    },
    /// Result: it could not be suspended and runs on.
    SuspendFailed {
        /// The epoch of the attempt.
        epoch: Epoch,
    },
    /// Intent: take the box off its instance.
    Withdraw {
        /// Who does it.
        node: NodeId,
    },
    /// Intent, by the owner: end the guest in good order and take the box off its instance.
    Stop {
        /// Who does it.
        node: NodeId,
    },
    /// Result: the volume is surely off the instance.
    Detached {
        /// The epoch it was detached with.
        epoch: Epoch,
    },
    /// Intent: the step goes on in a new epoch, after another node's death or because what was asked so far must not be
    /// obeyed any more.
    TakeOver {
        /// Who does it.
        node: NodeId,
    },
    /// Intent, by the owner: remove the box.
    Delete {
        /// Who does it.
        node: NodeId,
    },
    /// Intent, by the owner: call the box something else.
    Rename {
        /// What.
        to: BoxName,
        /// Who does it.
        node: NodeId,
    },
    /// Result: it keeps its name.
    RenameFailed {
        /// The epoch of the attempt.
        epoch: Epoch,
    },
    /// Result: this is the box's record now.
    Arrived {
        /// The record's epoch.
        epoch: Epoch,
    },
}

impl Placement {
    /// Every legal move. Returns the new placement and epoch.
    ///
    /// # Errors
    /// [`IllegalTransition`] for everything else; nothing changes then.
    pub fn after(&self, epoch: Epoch, event: &PlacementEvent) -> Result<(Placement, Epoch), IllegalTransition> {
        use {Placement as P, PlacementEvent as E};
        let keeps = planted::is(Bug::TakeOverKeepsEpoch) && matches!(event, E::TakeOver { .. });
        let intent = |placement| Ok((placement, if keeps { epoch } else { epoch.next() }));
        let result = |placement| Ok((placement, epoch));
        match (self.clone(), event.clone()) {
            (P::Detached, E::Place { instance, node }) => intent(P::Placing { instance, node }),
            (P::Parked { instance: parked, .. }, E::Place { instance, node }) if parked == instance => {
                intent(P::Placing { instance, node })
            }
            (P::Placing { .. }, E::Move { instance, node }) => intent(P::Placing { instance, node }),
            (P::Placing { instance, .. }, E::Started { epoch: done, endpoint }) if done == epoch => {
                result(P::Running { instance, endpoint })
            }
            (P::Placing { instance, .. }, E::Attached { epoch: done, at }) if done == epoch => {
                result(P::Parked { instance, since: at })
            }
            (P::Running { instance, .. }, E::GuestLost { epoch: ran, node }) if ran == epoch => {
                intent(P::Placing { instance, node })
            }
            (P::Running { instance, endpoint }, E::Leave { node }) => {
                intent(P::Suspending { instance, node, endpoint: Some(endpoint) })
            }
            (P::Suspending { instance, .. }, E::Suspended { epoch: done, at }) if done == epoch => {
                result(P::Parked { instance, since: at })
            }
            (P::Suspending { instance, endpoint: Some(endpoint), .. }, E::SuspendFailed { epoch: done })
                if done == epoch =>
            {
                result(P::Running { instance, endpoint })
            }
            (
                P::Placing { instance, .. } | P::Suspending { instance, .. } | P::Parked { instance, .. },
                E::Withdraw { node },
            ) => intent(P::Detaching { instance, node }),
            (P::Running { instance, .. } | P::Parked { instance, .. }, E::Stop { node }) => {
                intent(P::Detaching { instance, node })
            }
            (P::Detaching { .. }, E::Detached { epoch: done }) if done == epoch => result(P::Detached),
            (P::Placing { instance, .. }, E::TakeOver { node }) => intent(P::Placing { instance, node }),
            (P::Suspending { instance, endpoint, .. }, E::TakeOver { node }) => {
                intent(P::Suspending { instance, node, endpoint })
            }
            (P::Detaching { instance, .. }, E::TakeOver { node }) => intent(P::Detaching { instance, node }),
            (P::Deleting { instance, .. }, E::TakeOver { node }) => intent(P::Deleting { instance, node }),
            (P::Detached, E::Delete { node }) => intent(P::Deleting { instance: None, node }),
            (P::Running { instance, .. } | P::Parked { instance, .. }, E::Delete { node }) => {
                intent(P::Deleting { instance: Some(instance), node })
            }
            (P::Detached, E::Rename { to, node }) => intent(P::Renaming { to, attempt: epoch.next(), node }),
            (P::Renaming { to, attempt, .. }, E::TakeOver { node }) => intent(P::Renaming { to, attempt, node }),
            (P::Renaming { .. }, E::RenameFailed { epoch: done }) if done == epoch => result(P::Detached),
            (P::Arriving { .. }, E::Arrived { epoch: done }) if done == epoch => result(P::Detached),
            (state, event) => Err(IllegalTransition::new(&state, &event)),
        }
    }

    /// The instance that the box is on, comes to or leaves.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Detached | Self::Renaming { .. } | Self::Arriving { .. } => None,
            Self::Placing { instance, .. }
            | Self::Running { instance, .. }
            | Self::Suspending { instance, .. }
            | Self::Parked { instance, .. }
            | Self::Detaching { instance, .. } => Some(instance),
            Self::Deleting { instance, .. } => instance.as_ref(),
        }
    }

    /// The node that is at work on a step; `None` when no step is under way.
    #[must_use]
    pub fn worker(&self) -> Option<&NodeId> {
        match self {
            Self::Detached | Self::Running { .. } | Self::Parked { .. } => None,
            Self::Placing { node, .. }
            | Self::Suspending { node, .. }
            | Self::Detaching { node, .. }
            | Self::Deleting { node, .. }
            | Self::Renaming { node, .. }
            | Self::Arriving { node, .. } => Some(node),
        }
    }

    /// The state as one word, as users see it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Placing { .. } => "placing",
            Self::Running { .. } => "running",
            Self::Suspending { .. } => "suspending",
            Self::Parked { .. } => "parked",
            Self::Detaching { .. } => "detaching",
            Self::Deleting { .. } => "deleting",
            Self::Renaming { .. } => "renaming",
            Self::Arriving { .. } => "arriving",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        self.instance().map_or(Ok(()), |instance| write!(f, " on {instance}"))
    }
}

/// What happens to a box when its last session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is suspended after the linger.
    #[default]
    SuspendOnLeave,
    /// It goes on running.
    KeepRunning,
}

/// What a box has used, from its own record: it needs no log, and goes with the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// How long its guest has run in all, in milliseconds, up to `running_since`.
    #[serde(default)]
    pub ran_ms: u64,
    /// Since when it runs, by the clock of the node that brought it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Timestamp>,
    /// How many sessions it has had. A session is counted with the next change of the record, at the latest when its node
    /// leaves; those of a node that dies before, or finds the box gone from
    /// where it was, are not.
    #[serde(default)]
    pub connects: u64,
}

impl Usage {
    /// How long the guest has run until `now`.
    #[must_use]
    pub fn ran(&self, now: Timestamp) -> Duration {
        let present = self.running_since.map_or(Duration::ZERO, |since| now.since(since));
        Duration::from_millis(self.ran_ms).saturating_add(present)
    }

    /// The box goes from one placement to another, which may be the same.
    fn moves(&mut self, from: &Placement, to: &Placement, now: Timestamp) {
        let runs = |placement: &Placement| matches!(placement, Placement::Running { .. });
        if runs(from) && !runs(to) {
            self.ran_ms = u64::try_from(self.ran(now).as_millis()).unwrap_or(u64::MAX);
            self.running_since = None;
        } else if runs(to) && !runs(from) {
            self.running_since = Some(now);
        }
    }
}

/// Somebody else who may connect to a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Since when.
    pub added_at: Timestamp,
    /// When they connected last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
    /// How often they have connected.
    #[serde(default)]
    pub connects: u64,
}

/// How far a box has got hold of its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "binding", content = "volume", rename_all = "snake_case")]
pub enum VolumeBinding {
    /// Intent: this one is to be bound, or made and bound.
    Wanted(VolumeId),
    /// The volume's record says `Bound` to this box, for good.
    Bound(VolumeId),
}

impl VolumeBinding {
    /// The volume, bound or wanted.
    #[must_use]
    pub fn volume(&self) -> &VolumeId {
        match self {
            Self::Wanted(volume) | Self::Bound(volume) => volume,
        }
    }
}

/// Of a box that is taken from one region to another: it is not to come up in this one, until the move is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Which attempt to move it: no two have the same.
    pub attempt: String,
    /// Whether it is to go from here, or has come here.
    pub part: HoldPart,
}

/// Which part of a move a [`Hold`] stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum HoldPart {
    /// This is the box, and it is to leave the region.
    Leaving,
    /// This is to become the box.
    Coming,
}

/// A user's box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxRecord {
    /// Whose it is, what it is called, which incarnation.
    pub owner: BoxRef,
    /// Its volume.
    pub volume: VolumeBinding,
    /// Volumes that it wanted and did not get. It never wants them again, so that one which is found bound to it after all
    /// is known to have never been used. Empty once it has a volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<VolumeId>,
    /// Where it is.
    pub placement: Placement,
    /// The fencing token: rises with every intent.
    pub epoch: Epoch,
    /// How the volume is found on the instance, as the last attach said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The nodes that hold sessions on it.
    #[serde(default)]
    pub holders: BTreeSet<NodeId>,
    /// What happens when the last session ends.
    #[serde(default)]
    pub mode: Mode,
    /// On its owner's word: memory that was saved is not to be used any more. Set by a stop, and taken back by the write that
    /// says that the memory is surely gone; before that no guest is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forget_memory: bool,
    /// How large its owner wants its volume, in bytes, while it is not known to be so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow_to: Option<u64>,
    /// How large its volume was grown, in bytes; `None` when it is as it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grown_to: Option<u64>,
    /// The snapshot of a box that its volume is a copy of. Its guest must not take itself for the one that was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<SnapshotId>,
    /// Its owner has deleted it, and may have it back until then. It is not there for anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_until: Option<Timestamp>,
    /// It is being taken to another region, or has been brought from one. It is not there for anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Who else may connect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<UserId, Share>,
    /// What it has used.
    #[serde(default, skip_serializing_if = "is_unused")]
    pub usage: Usage,
    /// When somebody was there.
    #[serde(default, skip_serializing_if = "Visits::is_empty")]
    pub visits: Visits,
    /// How it was last brought up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought_up: Option<BroughtUp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a session last began.
    pub used_at: Timestamp,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

impl BoxRecord {
    /// A new box that wants `volume`.
    #[must_use]
    pub fn new(owner: BoxRef, volume: VolumeId, now: Timestamp) -> Self {
        Self {
            owner,
            volume: VolumeBinding::Wanted(volume),
            refused: Vec::new(),
            placement: Placement::Detached,
            epoch: Epoch(0),
            device: None,
            holders: BTreeSet::new(),
            mode: Mode::default(),
            forget_memory: false,
            grow_to: None,
            grown_to: None,
            copied_from: None,
            deleted_until: None,
            hold: None,
            shares: BTreeMap::new(),
            usage: Usage::default(),
            visits: Visits::default(),
            brought_up: None,
            created_at: now,
            used_at: now,
            envelope: Envelope::new(),
        }
    }

    /// The record after a placement event; every other field is kept.
    ///
    /// # Errors
    /// [`IllegalTransition`], as [`Placement::after`].
    pub fn after(&self, event: &PlacementEvent) -> Result<Self, IllegalTransition> {
        let (placement, epoch) = self.placement.after(self.epoch, event)?;
        Ok(Self { placement, epoch, ..self.clone() })
    }

    /// How the record of a box that is being renamed stands under the new name: the same box, with all that it has. `None` when
    /// it is not being renamed.
    #[must_use]
    pub fn under_new_name(&self) -> Option<Self> {
        let Placement::Renaming { to, attempt, node } = &self.placement else { return None };
        let owner = BoxRef { name: to.clone(), ..self.owner.clone() };
        let from = self.owner.name.clone();
        let placement = Placement::Arriving { from, attempt: *attempt, node: node.clone() };
        Some(Self { owner, placement, ..self.clone() })
    }

    /// How a box of another region, on its way there by that attempt, begins in this one: the same box, with all that it has, and
    /// with a volume that is made here of what was copied. What its memory held did not come along, and neither do host key and
    /// machine id.
    #[must_use]
    pub(crate) fn brought(&self, attempt: &str, volume: VolumeId) -> Self {
        Self {
            volume: VolumeBinding::Wanted(volume),
            refused: Vec::new(),
            placement: Placement::Detached,
            device: None,
            holders: BTreeSet::new(),
            forget_memory: true,
            // Its volume is a copy, and is made its own by its first start here.
            brought_up: None,
            hold: (!planted::is(Bug::ArrivesUndecided))
                .then(|| Hold { attempt: attempt.to_owned(), part: HoldPart::Coming }),
            envelope: Envelope { mark: String::new(), ..self.envelope.clone() },
            ..self.clone()
        }
    }

    /// Counts what lies between `before` and this record, and `connects` sessions.
    pub(crate) fn count(&mut self, before: &BoxRecord, connects: u64, now: Timestamp) {
        self.usage.moves(&before.placement, &self.placement, now);
        self.visits.moves(&self.placement, !self.holders.is_empty(), now);
        self.usage.connects = self.usage.connects.saturating_add(connects);
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_unused(usage: &Usage) -> bool {
    *usage == Usage::default()
}

record!(BoxRecord, BOXES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn endpoint() -> Endpoint {
        let address = crate::runtime::EndpointAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 22)));
        Endpoint { address, login: "box".into(), host_key: "ssh-ed25519 AAAA".into() }
    }

    fn instance(n: u8) -> InstanceId {
        InstanceId::new(format!("i{n}")).unwrap()
    }

    fn name(n: u8) -> BoxName {
        BoxName::new(format!("b{n}")).unwrap()
    }

    fn node(n: u8) -> NodeId {
        NodeId::new(format!("n{n}")).unwrap()
    }

    fn placements() -> impl Strategy<Value = Placement> {
        (0u8..9, 0u8..3, 0u8..3, any::<bool>()).prop_map(|(kind, i, n, known)| match kind {
            0 => Placement::Detached,
            1 => Placement::Placing { instance: instance(i), node: node(n) },
            2 => Placement::Running { instance: instance(i), endpoint: endpoint() },
            3 => Placement::Suspending { instance: instance(i), node: node(n), endpoint: known.then(endpoint) },
            4 => Placement::Parked { instance: instance(i), since: Timestamp(1) },
            5 => Placement::Detaching { instance: instance(i), node: node(n) },
            6 => Placement::Renaming { to: name(i), attempt: Epoch(1), node: node(n) },
            7 => Placement::Arriving { from: name(i), attempt: Epoch(1), node: node(n) },
            _ => Placement::Deleting { instance: known.then(|| instance(i)), node: node(n) },
        })
    }

    fn events() -> impl Strategy<Value = PlacementEvent> {
        use PlacementEvent as E;
        (0u8..16, 0u8..3, 0u8..3, 0u64..4).prop_map(|(kind, i, n, e)| {
            let (instance, node, epoch) = (instance(i), node(n), Epoch(e));
            match kind {
                0 => E::Place { instance, node },
                1 => E::Move { instance, node },
                2 => E::Started { epoch, endpoint: endpoint() },
                3 => E::GuestLost { epoch, node },
                4 => E::Leave { node },
                5 => E::Suspended { epoch, at: Timestamp(2) },
                6 => E::SuspendFailed { epoch },
                7 => E::Withdraw { node },
                8 => E::Detached { epoch },
                9 => E::TakeOver { node },
                10 => E::Stop { node },
                11 => E::Rename { to: name(i), node },
                12 => E::RenameFailed { epoch },
                13 => E::Arrived { epoch },
                14 => E::Attached { epoch, at: Timestamp(2) },
                _ => E::Delete { node },
            }
        })
    }

    proptest! {
        #[test]
        fn the_epoch_never_falls_and_rises_exactly_with_an_intent(
            placement in placements(), event in events(), epoch in 0u64..4,
        ) {
            use PlacementEvent as E;
            let epoch = Epoch(epoch);
            if let Ok((_, after)) = placement.after(epoch, &event) {
                let is_result = matches!(
                    event,
                    E::Started { .. } | E::Attached { .. } | E::Suspended { .. } | E::SuspendFailed { .. } | E::Detached { .. }
                        | E::RenameFailed { .. } | E::Arrived { .. }
                );
                prop_assert_eq!(after, if is_result { epoch } else { epoch.next() });
            }
        }

        #[test]
        fn a_late_answer_changes_nothing(placement in placements(), event in events(), epoch in 0u64..4) {
            use PlacementEvent as E;
            let reported = match &event {
                E::Started { epoch, .. } | E::Attached { epoch, .. } | E::Suspended { epoch, .. } | E::SuspendFailed { epoch }
                | E::Detached { epoch } | E::GuestLost { epoch, .. } | E::RenameFailed { epoch }
                | E::Arrived { epoch } => Some(*epoch),
                _ => None,
            };
            if let Some(reported) = reported && reported != Epoch(epoch) {
                prop_assert!(placement.after(Epoch(epoch), &event).is_err());
            }
        }

        #[test]
        fn the_instance_changes_only_by_place_move_or_detach(
            placement in placements(), event in events(), epoch in 0u64..4,
        ) {
            use PlacementEvent as E;
            if let Ok((after, _)) = placement.after(Epoch(epoch), &event)
                && after.instance() != placement.instance()
            {
                let may_change = matches!(event, E::Place { .. } | E::Move { .. } | E::Detached { .. });
                prop_assert!(may_change);
            }
        }

        #[test]
        fn nothing_but_a_take_over_leaves_deleting(
            placement in placements(), event in events(), epoch in 0u64..4,
        ) {
            if let (Placement::Deleting { .. }, Ok((after, _))) = (&placement, placement.after(Epoch(epoch), &event)) {
                let still_deleting = matches!(after, Placement::Deleting { .. });
                prop_assert!(still_deleting);
            }
        }

        #[test]
        fn a_placement_survives_the_store(placement in placements()) {
            let json = serde_json::to_string(&placement).unwrap();
            prop_assert_eq!(serde_json::from_str::<Placement>(&json).unwrap(), placement);
        }
    }

    #[test]
    fn a_box_that_is_being_renamed_takes_everything_along() {
        let owner =
            BoxRef { owner: crate::UserId::new("u").unwrap(), name: name(1), id: crate::BoxId::new("b1").unwrap() };
        let mut record = BoxRecord::new(owner.clone(), VolumeId::new("v1").unwrap(), Timestamp(5));
        record.epoch = Epoch(7);
        assert_eq!(record.under_new_name(), None);
        let renaming = record.after(&PlacementEvent::Rename { to: name(2), node: node(1) }).unwrap();
        let taken_over = renaming.after(&PlacementEvent::TakeOver { node: node(2) }).unwrap();
        assert_eq!(taken_over.placement, Placement::Renaming { to: name(2), attempt: Epoch(8), node: node(2) });
        let arriving = renaming.under_new_name().unwrap();
        assert_eq!(arriving.placement, Placement::Arriving { from: name(1), attempt: Epoch(8), node: node(1) });
        let arrived = arriving.after(&PlacementEvent::Arrived { epoch: Epoch(8) }).unwrap();
        let expected = BoxRecord { owner: BoxRef { name: name(2), ..owner }, epoch: Epoch(8), ..record };
        assert_eq!(arrived, expected);
    }

    #[test]
    fn a_parked_box_resumes_only_where_it_is_parked() {
        let parked = Placement::Parked { instance: instance(1), since: Timestamp(0) };
        let elsewhere = PlacementEvent::Place { instance: instance(2), node: node(0) };
        assert!(parked.after(Epoch(3), &elsewhere).is_err());
    }

    #[test]
    fn a_record_of_the_first_version_is_read_and_written_as_it_was() {
        let first = r#"{"owner":{"owner":"u","name":"dev1","id":"b1"},"volume":{"binding":"bound","volume":"v1"},"placement":{"state":"parked","instance":"i1","since":7},"epoch":4,"holders":[],"mode":"suspend_on_leave","created_at":5,"used_at":6,"schema":1,"mark":"n-1.9"}"#;
        let read: BoxRecord = serde_json::from_str(first).unwrap();
        assert!(!read.forget_memory && read.deleted_until.is_none() && read.shares.is_empty());
        assert_eq!(serde_json::to_string(&read).unwrap(), first);
    }

    #[test]
    fn running_time_is_counted_once_whatever_the_clocks_say() {
        let running = || Placement::Running { instance: instance(1), endpoint: endpoint() };
        let placing = || Placement::Placing { instance: instance(1), node: node(1) };
        let mut usage = Usage::default();
        usage.moves(&placing(), &running(), Timestamp(1_000));
        usage.moves(&running(), &running(), Timestamp(2_000));
        assert_eq!(usage.ran(Timestamp(4_000)), Duration::from_secs(3));
        usage.moves(&running(), &placing(), Timestamp(5_000));
        assert_eq!((usage.ran_ms, usage.running_since), (4_000, None));
        // The next node's clock is behind.
        usage.moves(&placing(), &running(), Timestamp(900));
        usage.moves(&running(), &Placement::Detached, Timestamp(800));
        assert_eq!(usage.ran(Timestamp(9_000)), Duration::from_secs(4));
    }

    #[test]
    fn fields_of_a_newer_version_survive_a_rewrite() {
        let owner = BoxRef {
            owner: crate::UserId::new("u").unwrap(),
            name: crate::BoxName::new("dev1").unwrap(),
            id: crate::BoxId::new("b1").unwrap(),
        };
        let record = BoxRecord::new(owner, VolumeId::new("v1").unwrap(), Timestamp(5));
        let mut json = serde_json::to_value(&record).unwrap();
        json["colour"] = "blue".into();
        let read: BoxRecord = serde_json::from_value(json).unwrap();
        let event = PlacementEvent::Place { instance: instance(1), node: node(1) };
        let written = serde_json::to_value(read.after(&event).unwrap()).unwrap();
        assert_eq!(written["colour"], "blue");
    }
}
