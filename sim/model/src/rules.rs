//! The state machines of the records, taken from boxpool itself.
//!
//! The records of the model are small numbers; those of boxpool are full of text. So every move of boxpool's own pure
//! transition functions is tried once when the model is made, and the model looks the answers up. It cannot drift away.

use crate::state::{BoxRecord, InstanceStatus, Place, VolumeStatus};
use boxpool::record::{
    InstanceEvent, InstanceStatus as CoreInstance, Placement, PlacementEvent, VolumeEvent, VolumeStatus as CoreVolume,
};
use boxpool::{BoxId, BoxName, BoxRef, Endpoint, EndpointAddress, Epoch, InstanceId, NodeId, Timestamp, UserId};
use std::path::PathBuf;

/// Ids of each kind are below this, in the tables.
const IDS: u8 = 4;

/// What happens to a placement, without its epochs: whether a result carries the present one is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoxEvent {
    Place { instance: u8, node: u8 },
    Move { instance: u8, node: u8 },
    Started { epoch: u8 },
    GuestLost { epoch: u8, node: u8 },
    Leave { node: u8 },
    Suspended { epoch: u8 },
    SuspendFailed { epoch: u8 },
    Withdraw { node: u8 },
    Detached { epoch: u8 },
    TakeOver { node: u8 },
    Delete { node: u8 },
}

/// What happens to an instance's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimEvent {
    Claim { boxed: u8, epoch: u8 },
    Release { boxed: u8, epoch: u8, node: u8 },
    Condemn { boxed: u8, epoch: u8, node: u8 },
    Cleared,
    Retire { node: u8 },
    TakeOver { node: u8 },
}

/// The tables.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    boxes: Vec<Option<(Place, bool)>>,
    instances: Vec<Option<InstanceStatus>>,
    volume_delete: Option<VolumeStatus>,
    volume_take_over: Option<VolumeStatus>,
}

impl Rules {
    /// Asks boxpool for every move.
    pub(crate) fn new() -> Self {
        let mut boxes = vec![None; PLACES * BOX_EVENTS * 2];
        for place in all_places() {
            for event in all_box_events() {
                for current in [false, true] {
                    boxes[box_slot(place, event, current)] = ask_box(place, event, current);
                }
            }
        }
        let mut instances = vec![None; STATUSES * CLAIM_EVENTS * 2];
        for status in all_statuses() {
            for event in all_claim_events() {
                for newer in [false, true] {
                    instances[claim_slot(status, event, newer)] = ask_instance(status, event, newer);
                }
            }
        }
        let bound = CoreVolume::Bound { owner: owner(0) };
        let deleting = CoreVolume::Deleting { node: node(0) };
        let volume = |from: &CoreVolume, event: &VolumeEvent| match from.after(event) {
            Ok(CoreVolume::Deleting { .. }) => Some(VolumeStatus::Deleting),
            Ok(CoreVolume::Bound { .. }) => Some(VolumeStatus::Bound),
            _ => None,
        };
        let volume_delete = volume(&bound, &VolumeEvent::DeletedByOwner { owner: owner(0), node: node(1) });
        let volume_take_over = volume(&deleting, &VolumeEvent::TakeOver { node: node(1) });
        Self { boxes, instances, volume_delete, volume_take_over }
    }

    /// `BoxRecord::after`.
    pub(crate) fn boxed(&self, record: BoxRecord, event: BoxEvent) -> Option<BoxRecord> {
        let current = match event {
            BoxEvent::Started { epoch }
            | BoxEvent::GuestLost { epoch, .. }
            | BoxEvent::Suspended { epoch }
            | BoxEvent::SuspendFailed { epoch }
            | BoxEvent::Detached { epoch } => epoch == record.epoch,
            _ => true,
        };
        let (place, rises) = self.boxes[box_slot(record.place, event, current)]?;
        Some(BoxRecord { place, epoch: record.epoch + u8::from(rises), ..record })
    }

    /// `InstanceStatus::after`.
    pub(crate) fn instance(&self, status: InstanceStatus, event: ClaimEvent) -> Option<InstanceStatus> {
        let newer = match (status, event) {
            (
                InstanceStatus::Claimed { epoch: old, .. },
                ClaimEvent::Claim { epoch, .. } | ClaimEvent::Release { epoch, .. } | ClaimEvent::Condemn { epoch, .. },
            ) => epoch >= old,
            _ => true,
        };
        let after = self.instances[claim_slot(status, event, newer)]?;
        match (after, event) {
            (InstanceStatus::Claimed { boxed, .. }, ClaimEvent::Claim { epoch, .. }) => {
                Some(InstanceStatus::Claimed { boxed, epoch })
            }
            _ => Some(after),
        }
    }

    /// `VolumeStatus::after`, on its owner's word, from either state.
    pub(crate) fn volume(&self, status: VolumeStatus) -> Option<VolumeStatus> {
        match status {
            VolumeStatus::Bound => self.volume_delete,
            VolumeStatus::Deleting => self.volume_take_over,
        }
    }
}

const PLACES: usize = 7 * 5 * 4;
const BOX_EVENTS: usize = 11 * 4 * 4;
const STATUSES: usize = 4 * 4;
const CLAIM_EVENTS: usize = 6 * 4 * 4;

fn place_number(place: Place) -> usize {
    let (kind, instance, node) = match place {
        Place::Detached => (0, 0, 0),
        Place::Placing { instance, node } => (1, instance, node),
        Place::Running { instance } => (2, instance, 0),
        Place::Suspending { instance, node } => (3, instance, node),
        Place::Parked { instance } => (4, instance, 0),
        Place::Detaching { instance, node } => (5, instance, node),
        Place::Deleting { instance, node } => (6, instance.unwrap_or(IDS), node),
    };
    (kind * 5 + usize::from(instance)) * 4 + usize::from(node)
}

fn box_event_number(event: BoxEvent) -> usize {
    let (kind, instance, node) = match event {
        BoxEvent::Place { instance, node } => (0, instance, node),
        BoxEvent::Move { instance, node } => (1, instance, node),
        BoxEvent::Started { .. } => (2, 0, 0),
        BoxEvent::GuestLost { node, .. } => (3, 0, node),
        BoxEvent::Leave { node } => (4, 0, node),
        BoxEvent::Suspended { .. } => (5, 0, 0),
        BoxEvent::SuspendFailed { .. } => (6, 0, 0),
        BoxEvent::Withdraw { node } => (7, 0, node),
        BoxEvent::Detached { .. } => (8, 0, 0),
        BoxEvent::TakeOver { node } => (9, 0, node),
        BoxEvent::Delete { node } => (10, 0, node),
    };
    (kind * 4 + usize::from(instance)) * 4 + usize::from(node)
}

fn box_slot(place: Place, event: BoxEvent, current: bool) -> usize {
    (place_number(place) * BOX_EVENTS + box_event_number(event)) * 2 + usize::from(current)
}

fn claim_slot(status: InstanceStatus, event: ClaimEvent, newer: bool) -> usize {
    let (kind, id) = match status {
        InstanceStatus::Free => (0, 0),
        InstanceStatus::Claimed { boxed, .. } => (1, boxed),
        InstanceStatus::Recycling { node } => (2, node),
        InstanceStatus::Deleting { node } => (3, node),
    };
    let status = kind * 4 + usize::from(id);
    let (kind, boxed, node) = match event {
        ClaimEvent::Claim { boxed, .. } => (0, boxed, 0),
        ClaimEvent::Release { boxed, node, .. } => (1, boxed, node),
        ClaimEvent::Cleared => (2, 0, 0),
        ClaimEvent::Retire { node } => (3, 0, node),
        ClaimEvent::TakeOver { node } => (4, 0, node),
        ClaimEvent::Condemn { boxed, node, .. } => (5, boxed, node),
    };
    let event = (kind * 4 + usize::from(boxed)) * 4 + usize::from(node);
    (status * CLAIM_EVENTS + event) * 2 + usize::from(newer)
}

fn pairs() -> impl Iterator<Item = (u8, u8)> {
    (0..IDS).flat_map(|one| (0..IDS).map(move |other| (one, other)))
}

fn all_places() -> Vec<Place> {
    let mut all = vec![Place::Detached];
    for (instance, node) in pairs() {
        all.push(Place::Placing { instance, node });
        all.push(Place::Running { instance });
        all.push(Place::Suspending { instance, node });
        all.push(Place::Parked { instance });
        all.push(Place::Detaching { instance, node });
        all.push(Place::Deleting { instance: Some(instance), node });
        all.push(Place::Deleting { instance: None, node });
    }
    all
}

fn all_box_events() -> Vec<BoxEvent> {
    let epoch = 0; // told apart by `current`
    let mut all = vec![
        BoxEvent::Started { epoch },
        BoxEvent::Suspended { epoch },
        BoxEvent::SuspendFailed { epoch },
        BoxEvent::Detached { epoch },
    ];
    for (instance, node) in pairs() {
        all.push(BoxEvent::Place { instance, node });
        all.push(BoxEvent::Move { instance, node });
        all.push(BoxEvent::GuestLost { epoch, node });
        all.push(BoxEvent::Leave { node });
        all.push(BoxEvent::Withdraw { node });
        all.push(BoxEvent::TakeOver { node });
        all.push(BoxEvent::Delete { node });
    }
    all
}

fn all_statuses() -> Vec<InstanceStatus> {
    let mut all = vec![InstanceStatus::Free];
    for id in 0..IDS {
        all.push(InstanceStatus::Claimed { boxed: id, epoch: 0 });
        all.push(InstanceStatus::Recycling { node: id });
        all.push(InstanceStatus::Deleting { node: id });
    }
    all
}

fn all_claim_events() -> Vec<ClaimEvent> {
    let mut all = vec![ClaimEvent::Cleared];
    for (boxed, node) in pairs() {
        all.push(ClaimEvent::Claim { boxed, epoch: 0 });
        all.push(ClaimEvent::Release { boxed, epoch: 0, node });
        all.push(ClaimEvent::Condemn { boxed, epoch: 0, node });
        all.push(ClaimEvent::Retire { node });
        all.push(ClaimEvent::TakeOver { node });
    }
    all
}

/// The epoch of a record in the tables. A result carries it, or the one before.
const NOW: u64 = 5;

fn ask_box(place: Place, event: BoxEvent, current: bool) -> Option<(Place, bool)> {
    let from = match place {
        Place::Detached => Placement::Detached,
        Place::Placing { instance: i, node: n } => Placement::Placing { instance: instance(i), node: node(n) },
        Place::Running { instance: i } => Placement::Running { instance: instance(i), endpoint: endpoint() },
        Place::Suspending { instance: i, node: n } => {
            Placement::Suspending { instance: instance(i), node: node(n), endpoint: Some(endpoint()) }
        }
        Place::Parked { instance: i } => Placement::Parked { instance: instance(i), since: Timestamp(0) },
        Place::Detaching { instance: i, node: n } => Placement::Detaching { instance: instance(i), node: node(n) },
        Place::Deleting { instance: i, node: n } => Placement::Deleting { instance: i.map(instance), node: node(n) },
    };
    let epoch = Epoch(if current { NOW } else { NOW - 1 });
    let event = match event {
        BoxEvent::Place { instance: i, node: n } => PlacementEvent::Place { instance: instance(i), node: node(n) },
        BoxEvent::Move { instance: i, node: n } => PlacementEvent::Move { instance: instance(i), node: node(n) },
        BoxEvent::Started { .. } => PlacementEvent::Started { epoch, endpoint: endpoint() },
        BoxEvent::GuestLost { node: n, .. } => PlacementEvent::GuestLost { epoch, node: node(n) },
        BoxEvent::Leave { node: n } => PlacementEvent::Leave { node: node(n) },
        BoxEvent::Suspended { .. } => PlacementEvent::Suspended { epoch, at: Timestamp(0) },
        BoxEvent::SuspendFailed { .. } => PlacementEvent::SuspendFailed { epoch },
        BoxEvent::Withdraw { node: n } => PlacementEvent::Withdraw { node: node(n) },
        BoxEvent::Detached { .. } => PlacementEvent::Detached { epoch },
        BoxEvent::TakeOver { node: n } => PlacementEvent::TakeOver { node: node(n) },
        BoxEvent::Delete { node: n } => PlacementEvent::Delete { node: node(n) },
    };
    let (after, epoch) = from.after(Epoch(NOW), &event).ok()?;
    let number = |id: &InstanceId| number(id.as_str());
    let node = |id: &NodeId| crate::rules::number(id.as_str());
    let after = match after {
        Placement::Detached => Place::Detached,
        Placement::Placing { instance, node: n } => Place::Placing { instance: number(&instance), node: node(&n) },
        Placement::Running { instance, .. } => Place::Running { instance: number(&instance) },
        Placement::Suspending { instance, node: n, .. } => {
            Place::Suspending { instance: number(&instance), node: node(&n) }
        }
        Placement::Parked { instance, .. } => Place::Parked { instance: number(&instance) },
        Placement::Detaching { instance, node: n } => Place::Detaching { instance: number(&instance), node: node(&n) },
        Placement::Deleting { instance, node: n } => {
            Place::Deleting { instance: instance.as_ref().map(number), node: node(&n) }
        }
        // Nothing in the model is renamed.
        Placement::Renaming { .. } | Placement::Arriving { .. } => return None,
    };
    Some((after, epoch != Epoch(NOW)))
}

fn ask_instance(status: InstanceStatus, event: ClaimEvent, newer: bool) -> Option<InstanceStatus> {
    let from = match status {
        InstanceStatus::Free => CoreInstance::Free,
        InstanceStatus::Claimed { boxed, .. } => CoreInstance::Claimed { owner: owner(boxed), epoch: Epoch(NOW) },
        InstanceStatus::Recycling { node: n } => CoreInstance::Recycling { node: node(n) },
        InstanceStatus::Deleting { node: n } => CoreInstance::Deleting { node: node(n) },
    };
    let epoch = Epoch(if newer { NOW } else { NOW - 1 });
    let event = match event {
        ClaimEvent::Claim { boxed, .. } => InstanceEvent::Claim { owner: owner(boxed), epoch },
        ClaimEvent::Release { boxed, node: n, .. } => {
            InstanceEvent::Release { owner: owner(boxed), epoch, node: node(n) }
        }
        ClaimEvent::Condemn { boxed, node: n, .. } => {
            InstanceEvent::Condemn { owner: owner(boxed), epoch, node: node(n) }
        }
        ClaimEvent::Cleared => InstanceEvent::Cleared,
        ClaimEvent::Retire { node: n } => InstanceEvent::Retire { node: node(n) },
        ClaimEvent::TakeOver { node: n } => InstanceEvent::TakeOver { node: node(n) },
    };
    match from.after(&event).ok()? {
        CoreInstance::Free => Some(InstanceStatus::Free),
        CoreInstance::Claimed { owner, .. } => {
            Some(InstanceStatus::Claimed { boxed: number(owner.name.as_str()), epoch: 0 })
        }
        CoreInstance::Recycling { node } => Some(InstanceStatus::Recycling { node: number(node.as_str()) }),
        CoreInstance::Deleting { node } => Some(InstanceStatus::Deleting { node: number(node.as_str()) }),
        _ => None, // states that the model has no use for
    }
}

const WELL_FORMED: &str = "a letter and a digit are a valid id";

fn instance(n: u8) -> InstanceId {
    InstanceId::new(format!("i{n}")).expect(WELL_FORMED)
}

fn node(n: u8) -> NodeId {
    NodeId::new(format!("n{n}")).expect(WELL_FORMED)
}

fn owner(n: u8) -> BoxRef {
    BoxRef {
        owner: UserId::new("u").expect(WELL_FORMED),
        name: BoxName::new(format!("b{n}")).expect(WELL_FORMED),
        id: BoxId::new(format!("id{n}")).expect(WELL_FORMED),
    }
}

fn number(id: &str) -> u8 {
    id[1..].parse().expect("an id of these tables is a letter and a number")
}

fn endpoint() -> Endpoint {
    Endpoint { address: EndpointAddress::Unix(PathBuf::from("/e")), login: "box".into(), host_key: String::new() }
}
