//! A simulated cloud for boxpool: machines, volumes, guests and a state store in virtual time, from one seed, with the faults
//! that real clouds have, and judges that look after every effect whether anything is true that must never be.
//!
//! The *real* pool runs in it, not a model of one. There are four ways to use it:
//!
//! - **Test your own system**: [`SimCloud`] hands out the five trait objects; the [`guide`] shows how.
//! - **Test a backend of your own**: the [`conformance`] suites (below).
//! - **Explore**: the binary `boxpool-sim` runs histories by the hundred thousand, replays a seed, makes a failing history
//!   small and draws it.
//! - **Test one call at a time**: the plain backends in [`backend`], without an engine, with faults by the number of the call.
//!
//! # Conformance suites
//!
//! Each promise of core's traits is one named function, and a macro makes one named test of each. The memory store, SQLite,
//! the QEMU backend and everything simulated run the very same lists. To test a store of your own, say how a fresh one is made,
//! and let the macro do the rest:
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
//!
//! # How it works
//!
//! *The world owns effects*: a call hands its effect to the world and keeps only the receiving end of the answer, so whatever
//! becomes of the caller, the effect happens, or does not, as its [`Fate`] says. *Luck is keyed*: latencies and fates are drawn
//! from the seed and from which call it is ([`CallId`]), never from one stream, so that leaving a part of a history out
//! changes nothing else. Time is tokio's paused clock; a run of minutes takes milliseconds.

#[cfg(feature = "arm")]
pub mod arm;
pub mod backend;
mod case;
mod cloud;
#[allow(clippy::unwrap_used, clippy::expect_used)] // a suite of tests: what fails in here is a promise that was broken
pub mod conformance;
pub mod corpus;
pub mod costs;
pub mod crashpoints;
mod engine;
pub mod guide;
mod oracle;
#[cfg(feature = "planner")]
pub mod planner;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
pub mod regions;
mod run;
mod shrink;
mod steer;
#[cfg(feature = "proptest")]
pub mod strategy;
mod timeline;

pub use case::{Case, Event, Happening, Op, Parking, PoolShape, Profile, What};
pub use cloud::{Gateway, Misuse, SimCloud, SimCloudBuilder, Violations, golden};
/// A number that follows from a seed and a name alone: for choices of your own that must be the same in every run.
///
/// ```
/// assert_eq!(boxpool_sim::draw(7, "when the user leaves"), boxpool_sim::draw(7, "when the user leaves"));
/// ```
#[must_use]
pub fn draw(seed: u64, name: &str) -> u64 {
    engine::Hash::new(seed).text(name).draw().next()
}

#[doc(hidden)]
pub use engine::HeldCall;
pub use engine::{CallId, Entry, Fate, Faults, Kind, Pace, Refusal, Strike};
pub use run::{Outcome, run, run_traced};
pub use shrink::{kind_of, shrink, shrink_violation};
#[doc(hidden)]
pub use steer::Snapshot;
pub use timeline::Timeline;
