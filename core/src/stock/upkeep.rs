//! How a maintainer goes about a pool, whichever of the two: count it, begin what follows, and rest until something is asked for.

use crate::census::Census;
use crate::error::Result;
use crate::plan::WarmTarget;
use crate::shared::{Shared, State};
use crate::stock::Pace;
use std::sync::Arc;
use tokio::sync::Notify;

/// What there is once all was begun that follows from a count, and what is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtRest {
    pub(crate) census: Census,
    pub(crate) target: WarmTarget,
}

/// Which pool it is.
pub(crate) struct Upkeep {
    pub(crate) name: &'static str,
    /// What asks for a count.
    pub(crate) refill: fn(&Shared) -> &Notify,
    pub(crate) pace: fn(&mut State) -> &mut Pace,
    /// How many wait for one.
    pub(crate) waiting: fn(&Shared, &State) -> u32,
}

impl Shared {
    /// Makes a pass whenever one is asked for, and now and then, while this node is the maintainer. A pass tells what it leaves; `None`
    /// if it could not begin all that follows from its count.
    pub(crate) async fn keep_up<F>(self: Arc<Self>, pool: &Upkeep, pass: impl Fn(Arc<Self>) -> F)
    where
        F: Future<Output = Result<Option<AtRest>>>,
    {
        loop {
            let taken_before = (pool.pace)(&mut self.state()).taken_by_all();
            let mut rest = None;
            if self.is_maintainer() && !self.is_paused() {
                rest = pass(Arc::clone(&self)).await.unwrap_or_else(|error| {
                    tracing::warn!(error = %crate::Report(&error), "{} pool: this pass failed; the next one tries again", pool.name);
                    None
                });
            }
            let (pause, counted) = {
                let mut state = self.state();
                let waiting = (pool.waiting)(&self, &state);
                let pace = (pool.pace)(&mut state);
                if pace.settled(rest, taken_before, waiting) {
                    (pool.refill)(&self).notify_one();
                }
                (pace.rest_after_count(), pace.counted_at_rest())
            };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            tokio::select! {
                biased;
                () = (pool.refill)(&self).notified() => {}
                () = tokio::time::sleep(self.config.maintain_every.max(self.rest_after(counted))) => {}
            }
        }
    }

    /// One was taken for somebody who came.
    pub(crate) fn took_one(&self, pool: &Upkeep) {
        let mut state = self.state();
        (pool.pace)(&mut state).took();
        self.count_if_lacking(pool, &mut state);
    }

    /// Asks for a count if something may follow from it.
    pub(crate) fn count_if_lacking(&self, pool: &Upkeep, state: &mut State) {
        let waiting = (pool.waiting)(self, state);
        if (pool.pace)(state).may_lack(waiting) {
            (pool.refill)(self).notify_one();
        }
    }
}
