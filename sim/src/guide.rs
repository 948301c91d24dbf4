//! # Testing your own system against the simulator
//!
//! You embed [`boxpool::Pool`]; around it stands code of yours: who may have which box, how many at once, what happens when a
//! connection breaks. This page tests such code against a cloud that fails, in virtual time, from one seed.
//!
//! ## A world, a gateway, a pool
//!
//! A world needs a runtime with one thread and a paused clock. A [`Gateway`](crate::Gateway) is one process of yours: it hands
//! out the five trait objects (or a pool built on them), and whatever you [`spawn`](crate::Gateway::spawn) on it dies with it.
//!
//! ```
//! use boxpool::{BoxName, ConnectRequest, UserId};
//! use boxpool_sim::{Pace, PoolShape, SimCloud};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
//! runtime.block_on(async {
//!     let cloud = SimCloud::builder().seed(7).pace(Pace::Cloud).keep_trace(true).build()?;
//!     let gateway = cloud.gateway()?;
//!     let (pool, worker) = gateway.pool(7, PoolShape::default().config()).build().await?;
//!     gateway.spawn(worker.run());
//!
//!     let (user, name) = (UserId::new("ada")?, BoxName::new("dev1")?);
//!     pool.create_box(&user, &name).await?;
//!     let session = pool.connect(ConnectRequest::new(user.clone(), name.clone())).await?;
//!     cloud.write(session.owner(), "a line that must never be lost")?;
//!
//!     // The process dies. Nobody tidies up.
//!     cloud.crash_gateway(gateway.number());
//!     let second = cloud.gateway()?;
//!     let (pool, worker) = second.pool(7, PoolShape::default().config()).build().await?;
//!     second.spawn(worker.run());
//!     let again = pool.connect(ConnectRequest::new(user, name)).await?;
//!     assert_eq!(again.owner(), session.owner());
//!
//!     cloud.advance(Duration::from_secs(60)).await?;
//!     // Two places at once, another's data, a lost line: whatever was ever true and must never be.
//!     cloud.check_invariants()?;
//!     assert!(cloud.elapsed() > Duration::from_secs(60), "all of it in a few milliseconds of real time");
//!     # Ok(())
//! })
//! # }
//! ```
//!
//! ## Faults
//!
//! [`Faults`](crate::Faults) gives rates; which calls are struck follows from the seed and from which call it is.
//! A [`Strike`](crate::Strike) decides the fate of one particular call. Things that happen to the world are methods of
//! [`SimCloud`](crate::SimCloud): `crash_gateway`, `pause_gateway`, `partition_gateway`, `kill_instance`, `store_outage`, …
//! [`heal`](crate::SimCloud::heal) ends all of it; then everything must come right.
//!
//! ```
//! use boxpool_sim::{Faults, SimCloud};
//! let faults = Faults { lost: 0.02, late: 0.01, crash: 0.005, ..Faults::none() };
//! let builder = SimCloud::builder().seed(1).faults(faults);
//! # let _ = builder;
//! ```
//!
//! ## Your own invariants
//!
//! Look at your own state after each step and report what must never be with [`violate`](crate::SimCloud::violate); it
//! then stands in the trace, the timeline and in what `check_invariants` returns. `sim/tests/embedder.rs` does that for a small
//! quota, finds the race in it within a few seeds, and shows the same seeds sound after the fix.
//!
//! ## Many seeds
//!
//! Run your scenario for seeds 0, 1, 2, … each in a runtime of its own, and print the seed of the first that fails: the same
//! seed fails again, step by step, with [`trace`](crate::SimCloud::trace) telling what happened. Nothing of yours may draw
//! from outside: no real clock, no threads, no hash maps that are iterated, no system randomness. Where you use
//! `tokio::select!`, write `biased;`, and let no two tasks wait on one `tokio::sync::watch`: it wakes them in random order.
//! [`fingerprint`](crate::SimCloud::fingerprint) tells whether two runs were the same.
//!
//! ## The pool itself
//!
//! Whole histories against the pool alone are data: a [`Case`](crate::Case), drawn by [`Case::random`](crate::Case::random) and run by
//! [`run`](crate::run()).
//!
//! ```
//! use boxpool_sim::{Case, Profile, run};
//! let outcome = run(&Case::random(42, Profile::Swarm));
//! assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
//! ```
