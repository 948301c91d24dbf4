//! Persistent boxes on disposable machines.

mod actor;
mod busy;
mod clock;
mod config;
mod error;
mod heartbeat;
mod id;
mod index;
mod limited;
mod liveness;
mod memory;
mod parking;
mod plan;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod pool;
mod progress;
mod provider;
mod random;
mod reconcile;
pub mod record;
mod records;
mod runtime;
mod saga;
mod session;
mod shared;
mod stock;
mod store;
mod waiters;
mod worker;

pub use actor::{Timings, Via};
pub use clock::{Clock, SystemClock, Timestamp};
pub use config::{Limits, PoolConfig, Recycle};
pub use error::{BoxError, Effect, Error, ErrorKind, Report, Result};
pub use id::{BoxId, BoxName, BoxRef, Epoch, InstanceId, InvalidId, NodeId, SnapshotId, UserId, VolumeId};
pub use memory::MemoryStore;
pub use parking::{LeastRecentlyUsed, ParkedBox, ParkingPolicy};
pub use plan::{Census, Step, WarmTarget, plan};
pub use pool::{BoxView, ConnectRequest, DrainReport, Pool, PoolBuilder, PoolStatus};
pub use progress::{Progress, progress};
pub use provider::{
    Attach, Attached, Detached, Device, InstanceProvider, InstanceSpec, InstanceState, InstanceView, SnapshotView,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
pub use runtime::{
    Cleared, Endpoint, EndpointAddress, Guest, GuestRuntime, GuestStatus, Started, StartedBy, Suspended,
};
pub use session::Session;
pub use store::{
    Cursor, Entry, Key, MAX_KEY_PART_BYTES, MAX_VALUE_BYTES, Page, StateStore, Stored, Table, Version, check_record,
};
pub use worker::Worker;
