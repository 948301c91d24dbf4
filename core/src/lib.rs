//! Persistent boxes on disposable machines: the allocation, attachment and recovery core.
//!
//! A **box** is a user's machine whose disk and memory live on a **volume**. An **instance** is a machine that can host one
//! box. The two come from pools of their own and meet only while somebody is connected: on connect the volume is attached to a
//! free instance and the box resumes; on leave it is suspended, and the instance goes back.
//!
//! All authority is in a [`StateStore`], through compare-and-swap of single records, so that any number of processes run at
//! once and each may die at any moment with nothing lost, leaked or handed to the wrong person. What the pool needs of the
//! outside it says in five traits: [`StateStore`], [`InstanceProvider`], [`VolumeProvider`], [`GuestRuntime`] and [`Clock`].
//!
//! ```
//! use boxpool::{BoxName, ConnectRequest, GuestRuntime, InstanceProvider, Pool, PoolConfig, StateStore, UserId, VolumeProvider};
//! use std::sync::Arc;
//!
//! async fn visit(
//!     store: Arc<dyn StateStore>,
//!     instances: Arc<dyn InstanceProvider>,
//!     volumes: Arc<dyn VolumeProvider>,
//!     runtime: Arc<dyn GuestRuntime>,
//!     config: PoolConfig,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let (pool, worker) = Pool::builder(store, instances, volumes, runtime, config).build().await?;
//!     // Nothing runs behind your back: the background work is a future, and you run it.
//!     tokio::spawn(worker.run());
//!
//!     let (user, name) = (UserId::new("ada")?, BoxName::new("dev1")?);
//!     if pool.get_box(&user, &name).await?.is_none() {
//!         pool.create_box(&user, &name).await?;
//!     }
//!     let session = pool.connect(ConnectRequest::new(user, name)).await?;
//!     println!("its SSH server is at {:?}", session.endpoint().address);
//!     // The box runs while anybody holds a session on it, here or in another process.
//!     session.release().await;
//!     Ok(())
//! }
//! ```
//!
//! Backends are crates of their own (`boxpool-sqlite`, `boxpool-qemu`); `boxpool-sim` has a simulated cloud to test your own
//! system against, and the conformance suites for backends.

mod actor;
mod adopt;
mod bound;
mod busy;
mod census;
mod clock;
mod config;
mod cordon;
mod error;
mod free;
mod goal;
mod golden;
mod heartbeat;
mod id;
mod index;
mod known;
mod limited;
mod liveness;
mod memory;
mod names;
mod parking;
mod pause;
mod plan;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod poll;
mod pool;
mod progress;
mod provider;
mod random;
mod reach;
mod reads;
mod reconcile;
pub mod record;
mod records;
mod regions;
mod runtime;
mod saga;
mod session;
mod shared;
mod signal;
mod snapshots;
mod stock;
mod store;
mod stray;
mod waiters;
mod worker;

pub use actor::{Timings, Via};
pub use adopt::Adoption;
pub use census::Census;
pub use clock::{Clock, SystemClock, Timestamp};
pub use config::{Limits, PoolConfig, Recycle};
pub use error::{BoxError, Effect, Error, ErrorKind, Report, Result};
pub use goal::{Demand, Goal, Wanted};
pub use golden::{GoldenBuilder, Permit};
pub use id::{
    BoxId, BoxName, BoxRef, Epoch, InstanceId, InvalidId, NodeId, Region, SnapshotId, SnapshotName, UserId, VolumeId,
};
pub use memory::MemoryStore;
pub use parking::{AwayBox, KeepFor, LeastRecentlyUsed, ParkingPolicy, ReturnTime};
pub use plan::{Step, WarmTarget, plan};
pub use pool::{BoxView, Breakers, ConnectRequest, DrainReport, Pool, PoolBuilder, PoolStatus};
pub use progress::{Progress, progress};
pub use provider::{
    Attach, Attached, Detached, Device, InstanceProvider, InstanceSpec, InstanceState, InstanceView, SnapshotCopier,
    SnapshotCopy, SnapshotLocation, SnapshotView, VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
pub use regions::{Home, MoveProgress, Regions, RegionsBuilder, RegionsWorker, move_progress};
pub use runtime::{
    Cleared, Endpoint, EndpointAddress, Guest, GuestRuntime, GuestStatus, Started, StartedBy, Suspended,
};
pub use session::Session;
pub use snapshots::BoxSnapshot;
pub use stock::Breaker;
pub use store::{
    Cursor, Entry, Key, MAX_KEY_PART_BYTES, MAX_VALUE_BYTES, Page, StateStore, Stored, Table, Version, check_record,
};
pub use worker::Worker;
