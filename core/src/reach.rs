//! Whether the state store answers.
//!
//! Every call tells when it was sent and what became of it. A store is out of reach when for so long nothing but errors of
//! the way there has come back, or nothing at all while somebody waits. One slow call beside others that are answered says
//! nothing; where there are no others one is sent that asks for next to nothing. That goes on, and so do heartbeats, whatever
//! is said here, so the first answer of a store that is back ends it.

use crate::error::{Error, ErrorKind, Result};
use crate::poll::passes;
use crate::record::NodeRecord;
use crate::records::node_key;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What has become of the calls to the store.
#[derive(Debug)]
pub(crate) struct Reach {
    /// For so long no answer is no sign.
    patience: Duration,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    /// When those were sent that wait for their answer; by number, so in the order in which they were sent.
    waiting: BTreeMap<u64, Instant>,
    next: u64,
    answered: Option<Instant>,
    /// Since the last answer: when the first call that failed was sent, and when the last one failed.
    failing: Option<(Instant, Instant)>,
    told: bool,
}

impl Reach {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, calls: Mutex::default() }
    }

    /// A call is sent. Dropping what is returned says that its caller went away, and nothing of the store.
    pub(crate) fn begin(&self) -> Call<'_> {
        let mut calls = self.calls();
        let number = calls.next;
        calls.next += 1;
        calls.waiting.insert(number, Instant::now());
        Call { reach: self, number }
    }

    /// For how long the store has been out of reach; `None` while it is not known to be.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let calls = self.calls();
        let since = calls.silent_since(Instant::now(), self.patience)?;
        Some(since.elapsed())
    }

    /// # Errors
    /// `Unavailable` while the store is out of reach.
    pub(crate) fn check(&self, operation: &'static str, resource: impl std::fmt::Display) -> Result<()> {
        let Some(silent) = self.silent_for() else { return Ok(()) };
        let detail =
            format!("the state store has not answered for {} s; try again when it does", silent.as_secs().max(1));
        Err(Error::new(ErrorKind::Unavailable, operation, resource).with_detail(detail))
    }

    /// Waits until the store is out of reach.
    pub(crate) async fn lost(&self) {
        while self.silent_for().is_none() {
            self.wait_for(self.patience).await;
        }
    }

    /// Waits until somebody has waited for half of what is taken for silence, and nothing was answered.
    async fn slow(&self) {
        let half = self.patience / 2;
        loop {
            self.wait_for(half).await;
            if self.calls().longest_wait().is_some_and(|since| since.elapsed() >= half) {
                return;
            }
        }
    }

    /// Waits until somebody can have waited for so long.
    async fn wait_for(&self, long: Duration) {
        // A call that is not sent yet cannot be missing its answer before that.
        let since = self.calls().longest_wait().unwrap_or_else(Instant::now);
        tokio::time::sleep_until(since + long).await;
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Each change is one call: it stays consistent when a holder panics.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Asks the store for something while somebody waits for it and nothing else shows whether it answers.
    pub(crate) async fn probe_store(self: Arc<Self>) {
        loop {
            self.records.reach.slow().await;
            if let Err(error) = self.records.get::<NodeRecord>(&node_key(&self.node)).await {
                tracing::debug!(error = %crate::Report(&error), "the state store was asked whether it answers");
                tokio::time::sleep(self.records.reach.patience).await;
            }
        }
    }
}

impl Calls {
    /// Since when somebody has waited without anything being answered.
    fn longest_wait(&self) -> Option<Instant> {
        let (_, oldest) = self.waiting.first_key_value()?;
        Some(self.answered.map_or(*oldest, |answered| answered.max(*oldest)))
    }

    fn silent_since(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let waited = self.longest_wait().filter(|since| now.duration_since(*since) >= patience);
        let failed = self.failing.filter(|(first, last)| last.duration_since(*first) >= patience);
        match (waited, failed) {
            (Some(waited), Some((failed, _))) => Some(waited.min(failed)),
            (waited, failed) => waited.or(failed.map(|(first, _)| first)),
        }
    }
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    reach: &'a Reach,
    number: u64,
}

impl Call<'_> {
    /// What has become of it. A refusal is an answer, too, unless it says that the store was not there.
    pub(crate) fn ended<T>(self, answer: &Result<T>) {
        let now = Instant::now();
        let mut calls = self.reach.calls();
        let sent = calls.waiting.remove(&self.number).unwrap_or(now);
        let unreached = answer.as_ref().err().filter(|error| is_of_the_way(error));
        let silent = calls.silent_since(now, self.reach.patience);
        match unreached {
            Some(error) => {
                let (first, _) = calls.failing.unwrap_or((sent, now));
                calls.failing = Some((first.min(sent), now));
                if !calls.told && calls.silent_since(now, self.reach.patience).is_some() {
                    calls.told = true;
                    tracing::error!(error = %crate::Report(error), "the state store is out of reach; who comes is refused until it answers");
                }
            }
            None => {
                (calls.answered, calls.failing) = (Some(now), None);
                if std::mem::take(&mut calls.told) {
                    let away = silent.map_or(Duration::ZERO, |since| now.duration_since(since));
                    tracing::warn!(seconds = away.as_secs(), "the state store answers again");
                }
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.reach.calls().waiting.remove(&self.number);
    }
}

/// Whether nothing says that the store was reached. To be asked to slow down is an answer.
fn is_of_the_way(error: &Error) -> bool {
    passes(error) && error.kind() != ErrorKind::Throttled
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);
    const SECOND: Duration = Duration::from_secs(1);

    fn failure() -> Result<()> {
        Err(Error::new(ErrorKind::Unavailable, "read record", "r"))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_without_any_answer_shows_that_the_store_is_out_of_reach_and_an_answer_ends_it() {
        let reach = Reach::new(PATIENCE);
        let call = reach.begin();
        tokio::time::advance(SECOND).await;
        assert_eq!(reach.silent_for(), None);
        tokio::time::advance(SECOND).await;
        assert_eq!(reach.silent_for(), Some(PATIENCE));
        let error = reach.check("connect to box", "b").unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true));
        // Its caller has waited long enough.
        call.ended(&Err::<(), _>(Error::new(ErrorKind::TimedOut, "read record", "r")));
        tokio::time::advance(SECOND).await;
        assert_eq!(reach.silent_for(), Some(3 * SECOND), "nothing has answered since");
        reach.begin().ended(&Err::<(), _>(Error::new(ErrorKind::Conflict, "update record", "r")));
        assert_eq!(reach.silent_for(), None, "a refusal is an answer");
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_call_beside_others_that_are_answered_says_nothing() {
        let reach = Reach::new(PATIENCE);
        let slow = reach.begin();
        for _ in 0..10 {
            tokio::time::advance(SECOND).await;
            reach.begin().ended(&Ok(()));
        }
        assert_eq!(reach.silent_for(), None);
        tokio::time::advance(PATIENCE).await;
        assert_eq!(reach.silent_for(), Some(PATIENCE), "since the last answer");
        drop(slow);
        assert_eq!(reach.silent_for(), None, "nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_slow_is_noticed_at_half_the_time_and_again_after_each_answer() {
        let (reach, begun) = (Reach::new(PATIENCE), Instant::now());
        let _slow = reach.begin();
        for second in 1..=5 {
            reach.slow().await;
            assert_eq!(begun.elapsed(), SECOND * second);
            assert_eq!(reach.silent_for(), None);
            reach.begin().ended(&Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_is_none_and_failures_for_so_long_are() {
        let reach = Reach::new(PATIENCE);
        reach.begin().ended(&failure());
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(reach.silent_for(), None, "nobody has asked since");
        reach.begin().ended(&failure());
        assert_eq!(reach.silent_for(), Some(10 * SECOND));
        reach.begin().ended(&Ok(()));
        reach.begin().ended(&failure());
        assert_eq!(reach.silent_for(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_loss_is_told_when_it_is_known() {
        let reach = Reach::new(PATIENCE);
        let begun = Instant::now();
        let later = async {
            tokio::time::sleep(3 * SECOND).await;
            let _call = reach.begin();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = reach.lost() => {}
            () = later => {}
        }
        assert!((5 * SECOND..=6 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
