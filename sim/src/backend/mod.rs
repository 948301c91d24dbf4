//! Small backends in memory that keep the traits' contracts to the letter, with faults on demand.
//!
//! [`SimInstances`], [`SimVolumes`] and [`SimRuntime`] share one [`SimWorld`]; [`CountingStore`] and [`FaultStore`] wrap
//! any state store.

mod clock;
mod fault;
mod golden;
mod instances;
mod listing;
mod meter;
mod records;
mod runtime;
mod store;
mod volumes;
mod world;

pub use clock::SimClock;
pub use fault::{Fault, Operation};
pub use golden::SimGolden;
pub use instances::SimInstances;
pub use meter::{Bill, Prices, Usage};
pub use records::SimStore;
pub use runtime::SimRuntime;
pub use store::{CountingStore, Counts, FaultStore, StoreAccess, StoreCall, WriteFault};
pub use volumes::SimVolumes;
pub use world::{Call, DeletedVolume, Limits, SimWorld};

pub(crate) use world::{GuestProcess, Look, Phase, Scene, State};
