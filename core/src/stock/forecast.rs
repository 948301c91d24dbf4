//! How many instances are wanted free for the goal: counted by the maintainer, told when it changes, kept in the store.

use crate::error::{ErrorKind, Result};
use crate::goal::{Demand, Goal, Wanted};
use crate::plan::WarmTarget;
use crate::planted::{self, Bug};
use crate::record::{DemandRecord, Envelope};
use crate::records::{Held, demand_key};
use crate::shared::Shared;
use crate::store::Version;
use std::time::Duration;
use tokio::time::Instant;

/// As much of what was counted is lost with a maintainer that dies.
const KEEP_EVERY: Duration = Duration::from_secs(300);
/// A change is told in the store no more often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What one more must be worth follows from a whole week, which changes slowly.
const RECKON_EVERY: Duration = Duration::from_secs(300);

/// What this node, as the maintainer, has counted.
#[derive(Debug, Default)]
pub(crate) struct Forecast {
    demand: Demand,
    /// How many all nodes had taken when it counted last.
    taken: Option<u64>,
    wanted: Option<Wanted>,
    /// What one more must be worth, and since when.
    worth: Option<(Instant, f64)>,
    /// The version of the record and what a newer version of this program wrote into it, once that was read; `Some(None)` when there
    /// was none.
    stored: Option<Option<(Version, Envelope)>>,
    kept: Option<(Instant, u32)>,
}

impl Forecast {
    pub(crate) fn made_in(&mut self, lead: Duration) {
        self.demand.made_in(lead);
    }

    /// Another one counts from now on, or has counted so far.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What one more must be worth.
    fn worth(&mut self, goal: &Goal) -> f64 {
        match self.worth {
            Some((at, worth)) if at.elapsed() < RECKON_EVERY => worth,
            _ => {
                let worth = self.demand.worth(goal);
                self.worth = Some((Instant::now(), worth));
                worth
            }
        }
    }

    /// Whether the store is to be told.
    fn is_due(&self, free: u32) -> bool {
        self.kept.is_none_or(|(at, told)| {
            let passed = at.elapsed();
            passed >= KEEP_EVERY || told != free && passed >= TELL_EVERY
        })
    }
}

impl Shared {
    /// How many instances are to be kept, which with a goal changes all the time. Without what was counted so far, the bounds of the configuration.
    pub(crate) async fn instance_target(&self) -> WarmTarget {
        let target = self.config.instances;
        let Some(goal) = target.goal else { return target };
        if let Err(error) = self.take_up_demand().await {
            tracing::warn!(error = %crate::Report(&error), "what is known of demand could not be read; it is begun anew if that goes on");
            return target;
        }
        let wanted = self.count_demand(&goal, &target);
        let free = wanted.free;
        if let Err(error) = self.keep_demand(wanted).await {
            tracing::warn!(error = %crate::Report(&error), "what is known of demand could not be kept; the next pass tries again");
        }
        WarmTarget { min_free: free, max_free: free, ..target }
    }

    /// Goes on where the last maintainer stopped.
    async fn take_up_demand(&self) -> Result<()> {
        if self.state().forecast.stored.is_some() {
            return Ok(());
        }
        let found = self.records.get::<DemandRecord>(&demand_key()).await?;
        let mut state = self.state();
        let stored = found.as_ref().map(|held| (held.version.clone(), held.record.envelope.clone()));
        if let Some(Held { record, .. }) = found {
            state.forecast.demand = record.demand;
        }
        state.forecast.stored = Some(stored);
        Ok(())
    }

    fn count_demand(&self, goal: &Goal, target: &WarmTarget) -> Wanted {
        let now = self.now();
        let mut state = self.state();
        let taken = state.instance_pace.taken_by_all();
        let forecast = &mut state.forecast;
        let came = taken.saturating_sub(forecast.taken.unwrap_or(taken));
        forecast.taken = Some(taken);
        forecast.demand.came(u32::try_from(came).unwrap_or(u32::MAX), now);
        let worth = forecast.worth(goal);
        let budget =
            if planted::is(Bug::GoalWithoutBudget) { (0, u32::MAX) } else { (target.min_free, target.max_free) };
        let wanted = forecast.demand.wanted_if_worth(worth, goal, now, budget);
        if forecast.wanted.as_ref().is_none_or(|before| before.free != wanted.free) {
            metrics::counter!("boxpool_goal_changes_total").increment(1);
            tracing::info!(before = forecast.wanted.as_ref().map(|before| before.free), why = %wanted, "another number of instances is kept free");
        }
        forecast.wanted = Some(wanted.clone());
        wanted
    }

    /// Writes down what was counted, now and then.
    async fn keep_demand(&self, wanted: Wanted) -> Result<()> {
        let (record, version) = {
            let state = self.state();
            let Some(stored) = state.forecast.stored.clone() else { return Ok(()) };
            if !state.forecast.is_due(wanted.free) {
                return Ok(());
            }
            let (at, demand, why) = (self.now(), state.forecast.demand.clone(), wanted.to_string());
            let (version, envelope) =
                stored.map_or((None, Envelope::new()), |(version, envelope)| (Some(version), envelope));
            (DemandRecord { at, demand, wanted: wanted.free, why, envelope }, version)
        };
        let written = match version {
            Some(version) => self.records.update(&demand_key(), &version, record).await,
            None => self.records.insert(&demand_key(), record).await,
        };
        let mut state = self.state();
        match written {
            Ok(held) => {
                state.forecast.stored = Some(Some((held.version, held.record.envelope)));
                state.forecast.kept = Some((Instant::now(), wanted.free));
                Ok(())
            }
            Err(error) => {
                // Another maintainer has written, or it was taken away: it is read again.
                if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::NotFound) {
                    state.forecast.forget();
                    return Ok(());
                }
                Err(error)
            }
        }
    }
}
