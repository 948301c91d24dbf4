//! All policies on all seeds, several at once.

use super::arrivals::{Arrivals, ArrivalsError, Habits, Trace, check_days};
use super::equal::Saving;
use super::policy::Policy;
use super::prices::PriceList;
use super::run::{Bounds, Run, RunError, run_policy};
use super::table::{Percentile, Row, Table};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There are no visits.
    #[error(transparent)]
    Arrivals(#[from] ArrivalsError),
    /// A run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The plan itself makes no sense.
    #[error("{0}")]
    Plan(String),
}

/// What is compared, on what, at which prices.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who comes when.
    pub arrivals: Arrivals,
    /// What the arrivals leave open.
    pub habits: Habits,
    /// What things cost.
    pub prices: PriceList,
    /// The policies to compare.
    pub policies: Vec<Policy>,
    /// The wait by which they are compared.
    pub percentile: Percentile,
    /// Each policy is run with so many seeds, which are luck for the cloud and, for visits that are made, for the users: the same for
    /// each policy. All of them count.
    pub seeds: u64,
    /// The first of them; the others follow it.
    pub first_seed: u64,
    /// So many days and not as many as the arrivals say.
    pub days: Option<f64>,
    /// The first so many days are run, and not counted.
    pub skip_days: f64,
    /// At most so many instances; `None` for as many as are needed.
    pub instances: Option<u32>,
    /// How long users wait before they are refused.
    pub patience: Duration,
    /// So many runs at once, each in a thread.
    pub jobs: NonZeroUsize,
}

/// How far a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// So many runs are done,
    pub done: usize,
    /// of so many.
    pub of: usize,
    /// The one that was done last: its policy,
    pub policy: &'a str,
    /// its seed,
    pub seed: u64,
    /// and how many connects there were in it.
    pub connects: usize,
}

impl Plan {
    /// A plan with Azure's list prices, by the 99th percentile, with one seed, on one thread, for users who wait for five minutes.
    #[must_use]
    pub fn new(arrivals: Arrivals, policies: Vec<Policy>) -> Self {
        Self {
            arrivals,
            habits: Habits::default(),
            prices: PriceList::example(),
            policies,
            percentile: Percentile::P99,
            seeds: 1,
            first_seed: 0,
            days: None,
            skip_days: 0.0,
            instances: None,
            patience: super::pool().connect_deadline,
            jobs: NonZeroUsize::MIN,
        }
    }

    /// The visits for each seed.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn traces(&self) -> Result<Vec<Trace>, PlanError> {
        if let Some(days) = self.days {
            check_days(days).map_err(PlanError::Plan)?;
        }
        if self.seeds == 0 || self.seeds > 1_000 {
            return Err(PlanError::Plan(format!("{} seeds: from 1 to 1000", self.seeds)));
        }
        let too_many = || PlanError::Plan(format!("{} days to skip: from 0 to less than there are", self.skip_days));
        if self.skip_days != 0.0 {
            check_days(self.skip_days).map_err(|_| too_many())?;
        }
        let traces: Vec<_> = (0..self.seeds)
            .map(|number| self.arrivals.trace(self.seed(number), self.days, &self.habits))
            .collect::<Result<_, _>>()?;
        if traces.iter().map(|trace| self.bounds(trace)).any(|bounds| bounds.skips >= bounds.lasts) {
            return Err(too_many());
        }
        Ok(traces)
    }

    /// Runs all of it and tells of each run that is done. The same plan gives the same table, whatever the number of jobs.
    ///
    /// # Errors
    /// [`PlanError`]: the first that happened; runs that have not begun by then do not.
    pub fn run(&self, told: impl Fn(Progress<'_>) + Sync) -> Result<Table, PlanError> {
        let traces = self.traces()?;
        if self.policies.is_empty() {
            return Err(PlanError::Plan("there is no policy to compare".into()));
        }
        let runs = self.all(&traces, &told)?;
        let rows = self.policies.iter().zip(runs.chunks(traces.len()));
        let rows: Vec<_> = rows.map(|(policy, runs)| Row::new(policy.name(), runs, &self.prices)).collect();
        let savings = Saving::all(&self.policies, &rows);
        Ok(Table::new(rows, self.percentile, &self.prices).with(savings))
    }

    /// Every run: all seeds of the first policy, of the second, and so on.
    fn all(&self, traces: &[Trace], told: &(impl Fn(Progress<'_>) + Sync)) -> Result<Vec<Run>, PlanError> {
        let of = self.policies.len() * traces.len();
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new(Vec::with_capacity(of));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.get().min(of) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= of {
                            return;
                        }
                        let (policy, trace) = (&self.policies[number / traces.len()], &traces[number % traces.len()]);
                        let seed = self.seed((number % traces.len()) as u64);
                        let run = run_policy(policy, trace, &self.bounds(trace), seed);
                        let connects = run.as_ref().map_or(0, |run| run.connects.len());
                        if run.is_err() {
                            next.store(of, Ordering::Relaxed);
                        }
                        results.lock().unwrap_or_else(PoisonError::into_inner).push((number, run));
                        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                        told(Progress { done, of, policy: policy.name(), seed, connects });
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, run)| run.map_err(PlanError::from)).collect()
    }

    fn seed(&self, number: u64) -> u64 {
        self.first_seed.wrapping_add(number)
    }

    fn bounds(&self, trace: &Trace) -> Bounds {
        let days = self.days.or(self.arrivals.days()).unwrap_or_else(|| trace.days());
        let lasts = Duration::from_secs_f64(days * 86_400.0);
        let skips = Duration::from_secs_f64(self.skip_days * 86_400.0);
        Bounds { lasts, skips, instances: self.instances, patience: self.patience }
    }
}
