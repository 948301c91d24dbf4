//! What every backend promises, one named test for each promise.
//!
//! A backend implements the small bench trait of its kind ([`store::StoreBench`], [`instances::InstanceBench`],
//! [`volumes::VolumeBench`], [`runtime::RuntimeBench`]) in its tests and names it once:
//!
//! ```
//! mod conformance {
//!     # use boxpool_sim::conformance::store::StoreBench;
//!     # struct Bench(std::sync::Arc<boxpool::MemoryStore>);
//!     # impl Bench { fn new() -> Self { Self(std::sync::Arc::new(boxpool::MemoryStore::new())) } }
//!     # impl StoreBench for Bench {
//!     #     fn store(&self) -> std::sync::Arc<dyn boxpool::StateStore> { self.0.clone() }
//!     #     fn other_handle(&self) -> std::sync::Arc<dyn boxpool::StateStore> { self.0.clone() }
//!     #     fn fresh(&self) -> String { "p".into() }
//!     # }
//!     boxpool_sim::store_conformance!(Bench::new());
//! }
//! ```
//!
//! The expression is evaluated anew in each test, inside an async function, so it may `.await`. Attributes before it go to
//! every test: `runtime_conformance!(#[ignore = "needs QEMU"] Bench::new().await)`. What only some backends promise is
//! asked for by name after it: `volume_conformance!(Bench::new(), snapshots, remembers_epochs)`. The crate that uses
//! the macros needs `tokio` with `macros` and `rt-multi-thread`.
//!
//! A broken promise is a panic, which fails the test that bears its name.
#![allow(clippy::unwrap_used)] // this is test code that lives in a library

pub mod instances;
pub mod runtime;
pub mod store;
pub mod volumes;

use std::time::Duration;
use tokio::time::Instant;

/// Looks again and again until `look` finds something, but not longer than `limit`.
async fn until<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One test for each promise; used by the macros of the suites.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($attributes:tt $suite:ident $bench:expr; $($promise:ident),+ $(,)?) => {
        $( $crate::conformance_test!($attributes $suite $bench; $promise); )+
    };
}

/// One test; used by the macros of the suites.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_test {
    ([$($attribute:tt)*] $suite:ident $bench:expr; $promise:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $promise() {
            let bench = $bench;
            $crate::conformance::$suite::$promise(&bench).await;
        }
    };
}
