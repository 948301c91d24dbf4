//! The records, and one pure transition function for each state machine. The simulator uses the same functions.
//!
//! A record is JSON text in the store. Each carries `schema`, the mark of its last writer, and whatever fields a newer
//! version put there: an older one keeps them when it rewrites the record.

mod brought_up;
mod demand;
mod golden;
mod home;
mod instance;
mod node;
mod placement;
mod snapshot;
mod visits;
mod volume;

pub use brought_up::{BroughtUp, BroughtUpFrom};
pub use demand::DemandRecord;
pub use golden::{GoldenEvent, GoldenRecord, GoldenState};
pub use home::{HomeEvent, HomeRecord, HomeStatus};
pub use instance::{Cordon, InstanceEvent, InstanceRecord, InstanceStatus};
pub use node::{EventKind, EventRecord, LeaseRecord, NodeRecord, Pause, PoolPast};
pub use placement::{BoxRecord, Hold, HoldPart, Mode, Placement, PlacementEvent, Share, Usage, VolumeBinding};
pub use snapshot::{SnapshotEvent, SnapshotRecord, SnapshotStatus};
pub use visits::{Visit, Visits};
pub use volume::{VolumeEvent, VolumeRecord, VolumeStatus};

use crate::store::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The schema that this version writes.
pub const SCHEMA: u32 = 1;

/// Boxes: partition = owner, row = name.
pub const BOXES: Table = Table::new("boxes");
/// Volumes: partition and row = id.
pub const VOLUMES: Table = Table::new("volumes");
/// Instances: partition and row = the seat, which is what stands before the first hyphen of the id.
pub const INSTANCES: Table = Table::new("instances");
/// Golden snapshots: partition = `golden`, row = generation.
pub const GOLDENS: Table = Table::new("goldens");
/// Snapshots of boxes: partition = owner, row = name, or `_` and the id where it has none.
pub const SNAPSHOTS: Table = Table::new("snapshots");
/// Nodes: partition and row = id.
pub const NODES: Table = Table::new("nodes");
/// Leases: partition and row = role.
pub const LEASES: Table = Table::new("leases");
/// Homes, of a front of several regions: partition = owner, row = the box's name.
pub const HOMES: Table = Table::new("homes");
/// What the maintainer knows of demand: partition = `demand`, row = the pool.
pub const DEMAND: Table = Table::new("demand");
/// Events: partition = owner (or [`POOL_EVENTS`]), row = time, node, number.
pub const EVENTS: Table = Table::new("events");
/// The partition of events that are no user's: a name that no [`UserId`](crate::UserId) can have.
pub const POOL_EVENTS: &str = "_pool";

/// What every record carries beside its own fields.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Envelope {
    /// The schema it was written with.
    pub schema: u32,
    /// Unique for each write: tells a writer whose answer was lost that the write was its own.
    #[serde(default)]
    pub mark: String,
    /// Fields of a newer version, kept as they are.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl Envelope {
    /// For a new record.
    #[must_use]
    pub fn new() -> Self {
        Self { schema: SCHEMA, ..Self::default() }
    }
}

/// A record type: knows its table and carries an [`Envelope`].
pub trait Record: Serialize + for<'a> Deserialize<'a> + Clone + Send + Sync {
    /// Where records of this type live.
    const TABLE: Table;
    /// The common part.
    fn envelope(&self) -> &Envelope;
    /// The common part, to be changed by the store layer alone.
    fn envelope_mut(&mut self) -> &mut Envelope;
}

macro_rules! record {
    ($type:ty, $table:expr) => {
        impl crate::record::Record for $type {
            const TABLE: crate::store::Table = $table;
            fn envelope(&self) -> &crate::record::Envelope {
                &self.envelope
            }
            fn envelope_mut(&mut self) -> &mut crate::record::Envelope {
                &mut self.envelope
            }
        }
    };
}
use record;

/// A move that a state machine does not have: the state it was in, and what was to happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} does not apply to {state}")]
pub struct IllegalTransition {
    state: String,
    event: String,
}

impl IllegalTransition {
    fn new(state: &impl fmt::Debug, event: &impl fmt::Debug) -> Self {
        Self { state: format!("{state:?}"), event: format!("{event:?}") }
    }
}
