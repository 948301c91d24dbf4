//! How these tests wait: they ask until it is so, and never without a limit.
#![allow(dead_code, unreachable_pub)] // each program uses its own part

use boxpool::Result;
use std::time::{Duration, Instant};

/// What anything here may take on a machine that is busy with other tests as well.
const LIMIT: Duration = Duration::from_secs(120);

/// Looks until there is something to see.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    until_granted(what, async || Ok(look().await)).await
}

/// Looks until it is so.
pub async fn until_true(what: &str, mut reached: impl FnMut() -> bool) {
    until(what, async || reached().then_some(())).await;
}

/// Repeats a call until it gets there. Of its errors only those that may pass are passed over.
pub async fn until_granted<T>(what: &str, mut call: impl AsyncFnMut() -> Result<Option<T>>) -> T {
    let begun = Instant::now();
    let mut last = None;
    loop {
        match call().await {
            Ok(Some(granted)) => return granted,
            Ok(None) => {}
            Err(error) if error.is_retryable() => last = Some(error),
            Err(error) => panic!("{what}: {error}"),
        }
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}; the last error was {last:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
