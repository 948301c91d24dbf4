//! Reads are repeated while that may help; writes never are, behind anybody's back.

use crate::errors::Failure;
use std::time::Duration;

/// How often a read is tried before its failure is told.
const READ_TRIES: u32 = 5;
/// A service that asks for more is not waited for here; the caller is told.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Repeats a read while it fails in a way that may pass.
pub(crate) async fn reading<T, F: Future<Output = Result<T, Failure>>>(read: impl Fn() -> F) -> Result<T, Failure> {
    let mut tries = 1;
    loop {
        let failure = match read().await {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        let wait = failure.retry_after().unwrap_or_else(|| pause(tries));
        if !failure.may_pass() || tries >= READ_TRIES || wait > MAX_PAUSE {
            return Err(failure);
        }
        tries += 1;
        tokio::time::sleep(wait).await;
    }
}

/// Twice as long each time.
pub(crate) fn pause(tries: u32) -> Duration {
    Duration::from_millis(50 << tries.min(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::Refusal;
    use crate::transport::Answer;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn tries_of(status: u16, retry_after: Option<&str>) -> u32 {
        let headers = retry_after.map(|wait| ("Retry-After".to_owned(), wait.to_owned())).into_iter().collect();
        let answer = Answer { status, headers, body: Vec::new() };
        let tries = AtomicU32::new(0);
        let read = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Failure::Refused(Refusal::of(&answer)))
        };
        assert!(reading(read).await.is_err());
        tries.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_repeated_and_not_for_ever() {
        assert_eq!(tries_of(503, None).await, READ_TRIES);
        assert_eq!(tries_of(429, Some("2")).await, READ_TRIES);
        assert_eq!(tries_of(429, Some("600")).await, 1, "so long is for the caller to wait");
        assert_eq!(tries_of(404, None).await, 1);
        assert_eq!(tries_of(501, None).await, 1);
    }
}
