//! Conformance suites for boxpool backends: each promise of core's traits is one named function, and a macro makes one named test
//! of each. The memory store, SQLite, the QEMU backend and the simulated ones in [`backend`] all run the very same lists.
//!
//! To test a store of your own, say how a fresh one is made, and let the macro do the rest:
//!
//! ```
//! # mod my_store_tests {
//! use boxpool::MemoryStore;
//!
//! async fn fresh() -> MemoryStore {
//!     MemoryStore::new()
//! }
//!
//! boxpool_sim::store_conformance!(fresh().await);
//! # }
//! ```
//!
//! For providers and runtimes implement [`conformance::InstanceBench`], [`conformance::VolumeBench`] or
//! [`conformance::RuntimeBench`]; the promises that only some backends make are listed under their capability.

pub mod backend;
mod case;
mod cloud;
#[allow(clippy::unwrap_used, clippy::expect_used)] // a suite of tests: what fails in here is a promise that was broken
pub mod conformance;
mod engine;
mod oracle;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod run;
mod timeline;

pub use case::{Case, Event, Happening, Op, PoolShape, Profile, What};
pub use cloud::{Gateway, Misuse, SimCloud, SimCloudBuilder, Violations, golden};
pub use engine::{CallId, Entry, Fate, Faults, Kind, Pace, Refusal, Strike};
pub use run::{Outcome, run, run_traced};
pub use timeline::Timeline;
