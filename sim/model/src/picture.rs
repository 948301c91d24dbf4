//! A state as others can compare it with: what records and world say, without what only the model knows.

use crate::scope::Scope;
use crate::state::{InstanceStatus, Place, State, bit};
use serde::Serialize;

/// What is true of records and world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// The boxes' records; absent ones are deleted.
    pub boxes: Vec<Option<BoxPicture>>,
    /// The instances' records; absent ones are deleted.
    pub instances: Vec<Option<InstancePicture>>,
    /// Each box's volume is attached to these instances.
    pub links: Vec<Vec<u8>>,
    /// Each box's guest runs on these.
    pub guests: Vec<Vec<u8>>,
}

/// A box's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoxPicture {
    /// The placement, in boxpool's word for it.
    pub place: &'static str,
    /// Where.
    pub instance: Option<u8>,
    /// Who is at work.
    pub node: Option<u8>,
    /// The epoch.
    pub epoch: u8,
    /// Who holds it.
    pub holders: Vec<u8>,
}

/// An instance's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstancePicture {
    /// In boxpool's word for it.
    pub status: &'static str,
    /// Who claims it.
    #[serde(rename = "box")]
    pub boxed: Option<u8>,
    /// Who is at work.
    pub node: Option<u8>,
}

fn numbers(bits: u8) -> Vec<u8> {
    (0..8).filter(|n| bits & bit(*n) != 0).collect()
}

impl Picture {
    pub(crate) fn of(state: &State, scope: &Scope) -> Self {
        let boxes = state.boxes[..usize::from(scope.boxes)].iter().map(|record| {
            let record = record.as_ref()?;
            let place = match record.place {
                Place::Detached => "detached",
                Place::Placing { .. } => "placing",
                Place::Running { .. } => "running",
                Place::Suspending { .. } => "suspending",
                Place::Parked { .. } => "parked",
                Place::Detaching { .. } => "detaching",
                Place::Deleting { .. } => "deleting",
            };
            let (instance, node) = (record.place.instance(), record.place.worker());
            Some(BoxPicture { place, instance, node, epoch: record.epoch, holders: numbers(record.holders) })
        });
        let instances = state.instances[..usize::from(state.made)].iter().map(|status| {
            let (status, boxed, node) = match (*status)? {
                InstanceStatus::Free => ("free", None, None),
                InstanceStatus::Claimed { boxed, .. } => ("claimed", Some(boxed), None),
                InstanceStatus::Recycling { node } => ("recycling", None, Some(node)),
                InstanceStatus::Deleting { node } => ("deleting", None, Some(node)),
            };
            Some(InstancePicture { status, boxed, node })
        });
        let places = |of: &[u8]| of[..usize::from(scope.boxes)].iter().map(|bits| numbers(*bits)).collect();
        Self {
            boxes: boxes.collect(),
            instances: instances.collect(),
            links: places(&state.links),
            guests: places(&state.guests),
        }
    }
}
