//! Waiting for what takes its time in a cloud: asked again after pauses that double, and not for ever.

use crate::error::{Error, ErrorKind};
use std::time::Duration;
use tokio::time::Instant;

/// The pause before something is asked for the second time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One wait.
#[derive(Debug)]
pub(crate) struct Poll {
    deadline: Instant,
    pause: Duration,
}

impl Poll {
    /// A wait that begins now and ends within `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, pause: FIRST_PAUSE }
    }

    /// The time that is left for a call; nothing at the end.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Sleeps until it is time to ask again: for as long as the cloud asked, or else for a pause that doubles. `false`, and at
    /// once, when the wait would be over by then.
    pub(crate) async fn again(&mut self, asked: Option<Duration>) -> bool {
        let wait = asked.unwrap_or(self.pause);
        if wait >= self.left() {
            return false;
        }
        tokio::time::sleep(wait).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Whether a call may be repeated as it is: it was asked to slow down, or its answer is missing. What is wrong with the call
/// or its object does not pass.
pub(crate) fn passes(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Throttled | ErrorKind::UnknownOutcome | ErrorKind::Unavailable | ErrorKind::TimedOut => true,
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Conflict
        | ErrorKind::Busy
        | ErrorKind::NoCapacity
        | ErrorKind::Fenced
        | ErrorKind::Unauthorized
        | ErrorKind::Invalid
        | ErrorKind::Corrupt
        | ErrorKind::Permanent => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_end_before_the_limit() {
        let begun = Instant::now();
        let mut poll = Poll::new(Duration::from_secs(10));
        let mut asked = Vec::new();
        while poll.again(None).await {
            asked.push(begun.elapsed().as_millis());
        }
        assert_eq!(asked, [20, 60, 140, 300, 620, 1_260, 2_540, 4_540, 6_540, 8_540]);
        assert_eq!(poll.left(), Duration::from_millis(1_460));
    }

    #[tokio::test(start_paused = true)]
    async fn the_cloud_is_asked_when_it_wants_to_be_asked() {
        let (begun, mut poll) = (Instant::now(), Poll::new(Duration::from_secs(10)));
        assert!(poll.again(Some(Duration::from_secs(9))).await);
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        assert!(!poll.again(Some(Duration::from_secs(1))).await, "then the wait is over");
        assert_eq!(begun.elapsed(), Duration::from_secs(9), "nobody waits for that");
        assert!(poll.again(None).await);
        assert_eq!(begun.elapsed(), Duration::from_millis(9_040));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_after_the_end() {
        let mut poll = Poll::new(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(poll.left(), Duration::ZERO);
        assert!(!poll.again(None).await);
        assert!(!poll.again(Some(Duration::ZERO)).await);
    }

    #[test]
    fn what_is_wrong_with_the_call_does_not_pass() {
        use ErrorKind::{
            Busy, Conflict, Fenced, NotFound, Permanent, Throttled, TimedOut, Unavailable, UnknownOutcome,
        };
        for kind in [Throttled, UnknownOutcome, Unavailable, TimedOut] {
            assert!(passes(&Error::new(kind, "attach", "v")), "{kind:?}");
        }
        for kind in [NotFound, Conflict, Busy, Fenced, Permanent] {
            assert!(!passes(&Error::new(kind, "attach", "v")), "{kind:?}");
        }
    }
}
