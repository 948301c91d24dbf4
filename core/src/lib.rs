//! Persistent boxes on disposable machines.

mod clock;
mod error;
mod id;
mod memory;
mod provider;
pub mod record;
mod runtime;
mod store;

pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{BoxError, Effect, Error, ErrorKind, Report, Result};
pub use id::{BoxId, BoxName, BoxRef, Epoch, InstanceId, InvalidId, NodeId, SnapshotId, UserId, VolumeId};
pub use memory::MemoryStore;
pub use provider::{
    Attach, Attached, Detached, Device, InstanceProvider, InstanceSpec, InstanceState, InstanceView, SnapshotView,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
pub use runtime::{
    Cleared, Endpoint, EndpointAddress, Guest, GuestRuntime, GuestStatus, Started, StartedBy, Suspended,
};
pub use store::{
    Cursor, Entry, Key, MAX_KEY_PART_BYTES, MAX_VALUE_BYTES, Page, StateStore, Stored, Table, Version, check_record,
};
