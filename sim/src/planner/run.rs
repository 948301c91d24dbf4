//! One policy on one trace, in a world of its own.

use super::arrivals::{Trace, Visit};
use super::policy::Policy;
use crate::backend::Usage;
use crate::cloud::{Misuse, SimCloud, Violations, golden};
use crate::engine::Pace;
use boxpool::{BoxName, ConnectRequest, Pool, PoolConfig, PoolStatus, UserId, Via, VolumeSource, WarmTarget};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Why a plan could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The pool refused its settings, or failed to make a box.
    #[error("policy {policy}: the pool refused")]
    Pool {
        /// Under which policy.
        policy: String,
        /// What it said.
        source: Box<boxpool::Error>,
    },
    /// The pool did not fill before the first visit.
    #[error("policy {policy}: the pool was not full after {limit:?}; keep fewer free, or allow more instances")]
    NotFull {
        /// Under which policy.
        policy: String,
        /// After which time in the simulated world.
        limit: Duration,
    },
    /// There is no runtime.
    #[error("no runtime for a simulated world")]
    Runtime(#[from] std::io::Error),
    /// The simulator was used in a way that cannot work.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The pool or its world ended by itself: a bug.
    #[error("policy {policy}: the simulated pool has ended by itself, please report it")]
    Ended {
        /// Under which policy.
        policy: String,
    },
    /// Something was true that must never be: a bug of the pool.
    #[error("policy {policy}: the pool broke a promise, please report it")]
    Violated {
        /// Under which policy.
        policy: String,
        /// Which.
        source: Violations,
    },
}

/// The pool that policies change: what an embedder gets, but that sixteen machines and not four are made at the same time, and that
/// volumes are made with their boxes. [`run_policy`] says how many instances there may be.
#[must_use]
pub fn pool() -> PoolConfig {
    let mut config = PoolConfig::new(VolumeSource::Snapshot(golden()), "1");
    config.instances = WarmTarget { max_concurrent_creates: 16, ..WarmTarget::new(1, 1, 1) };
    // Boxes are made before the first visit, each with a volume made for it.
    config.volumes = WarmTarget::new(0, 0, u32::MAX);
    config
}

/// The same pool, which says more rarely that it lives, looks more rarely at stock that has not changed, and searches more rarely for what
/// nobody has left behind in a world without faults: else a week would take minutes. Whoever comes is seen to at once all the same; spare
/// machines and parked boxes go up to half a minute later than they would.
fn at_ease(mut config: PoolConfig) -> PoolConfig {
    let seconds = Duration::from_secs;
    (config.heartbeat_every, config.dead_after) = (seconds(60), seconds(300));
    (config.maintain_every, config.reconcile_every, config.census_every) = (seconds(20), seconds(30), seconds(300));
    config
}

/// What came of one connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// From the request until the box was there, or the user was refused.
    pub took: Duration,
    /// What of that was spent waiting for an instance.
    pub waited: Duration,
    /// From which state the box was brought up; `None` for who was refused.
    pub via: Option<Via>,
}

/// What came of one policy on one trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was used from where counting began to the run's end.
    pub usage: Usage,
    /// How long that is.
    pub lasted: Duration,
    /// Every connect that was asked for in that time, in the order in which they ended.
    pub connects: Vec<Connect>,
}

/// What bounds a run, beside the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long the run lasts.
    pub lasts: Duration,
    /// What happens in its first part, of so long, is not counted.
    pub skips: Duration,
    /// At most so many instances; `None` for as many as are needed.
    pub instances: Option<u32>,
    /// How long users wait before they are refused.
    pub patience: Duration,
}

/// A page of a listing, as Azure's are.
const PAGE: usize = 1_000;
/// How long a pool may take to fill before the first visit.
const FILLS_WITHIN: Duration = Duration::from_secs(12 * 3_600);
/// After that much rest machines that are spare have been stopped or given up.
const RESTS: Duration = Duration::from_secs(600);
/// For so long a pool at rest is watched, to see what calls it makes whoever comes.
const WATCHED: Duration = Duration::from_secs(600);

/// Runs one policy on one trace, in virtual time and in this thread, which may not be inside a tokio runtime. The same arguments give
/// the same result.
///
/// # Errors
/// [`RunError`].
pub fn run_policy(policy: &Policy, trace: &Trace, bounds: &Bounds, seed: u64) -> Result<Run, RunError> {
    let load = Load { policy, trace, bounds, seed };
    let mut run = in_virtual_time(load.run())??;
    let config = load.config();
    let often = in_virtual_time(load.calls_at_rest(config.clone()))??;
    let rarely = in_virtual_time(load.calls_at_rest(at_ease(config)))??;
    let left_out = often.saturating_sub(rarely) as f64 / WATCHED.as_secs_f64();
    run.usage.store_calls += (left_out * run.lasted.as_secs_f64()) as u64;
    Ok(run)
}

fn in_virtual_time<T>(world: impl Future<Output = T>) -> Result<T, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(world))
}

fn whose(n: usize) -> (UserId, BoxName) {
    let user = UserId::new(format!("u{n}")).expect("a letter and a number are a valid id");
    (user, BoxName::new("box").expect("a plain word is a valid name"))
}

struct Load<'a> {
    policy: &'a Policy,
    trace: &'a Trace,
    bounds: &'a Bounds,
    seed: u64,
}

impl Load<'_> {
    async fn begin(&self, config: PoolConfig) -> Result<(SimCloud, Pool, JoinHandle<()>), RunError> {
        let cloud = SimCloud::builder().seed(self.seed).pace(Pace::Cloud).metered(true).page_size(PAGE).build()?;
        let gateway = cloud.gateway()?;
        let (pool, worker) = gateway
            .pool(self.seed, config)
            .parking_policy(self.policy.parking())
            .build()
            .await
            .map_err(|error| self.refused(error))?;
        let worker = gateway.spawn(worker.run());
        Ok((cloud, pool, worker))
    }

    /// How many calls to the store a pool makes within [`WATCHED`] to which nobody comes.
    async fn calls_at_rest(&self, config: PoolConfig) -> Result<u64, RunError> {
        let (cloud, _pool, _worker) = self.begin(config).await?;
        cloud.advance(RESTS).await?;
        let before = cloud.usage().store_calls;
        cloud.advance(WATCHED).await?;
        Ok(cloud.usage().store_calls - before)
    }

    async fn run(&self) -> Result<Run, RunError> {
        let config = at_ease(self.config());
        let (cloud, pool, worker) = self.begin(config.clone()).await?;
        let boxes = self.make_boxes(&pool).await?;
        self.fill(&cloud, &pool, &config).await?;

        let begun = Instant::now();
        let Bounds { lasts, skips, .. } = *self.bounds;
        let skipped = async {
            tokio::time::sleep_until(begun + skips).await;
            cloud.usage()
        };
        let (before, mut ended) = tokio::join!(skipped, self.visits(&pool, &boxes, begun));
        tokio::time::sleep_until(begun + lasts).await;
        let usage = cloud.usage().since(&before);
        cloud.check_invariants().map_err(|source| RunError::Violated { policy: self.policy.to_string(), source })?;
        if worker.is_finished() || cloud.has_ended() {
            return Err(RunError::Ended { policy: self.policy.to_string() });
        }
        cloud.finish();
        let mut connects = Vec::with_capacity(self.trace.visits().len());
        while let Ok(connect) = ended.try_recv() {
            connects.push(connect);
        }
        Ok(Run { usage, lasted: lasts.saturating_sub(skips), connects })
    }

    fn refused(&self, source: boxpool::Error) -> RunError {
        RunError::Pool { policy: self.policy.to_string(), source: Box::new(source) }
    }

    fn config(&self) -> PoolConfig {
        let mut config = self.policy.config().clone();
        let kept = config.instances.max_free + config.instances.max_reserve;
        // Each box has a machine, and the pool is full beside.
        let enough = self.trace.boxes().len() as u32 + kept;
        config.instances.max_total = self.bounds.instances.unwrap_or(enough);
        config.connect_deadline = self.bounds.patience;
        config.max_waiting = self.trace.visits().len().max(1);
        config
    }

    async fn make_boxes(&self, pool: &Pool) -> Result<Vec<(UserId, BoxName)>, RunError> {
        let boxes: Vec<_> = (0..self.trace.boxes().len()).map(whose).collect();
        let creates = boxes.iter().map(|(user, name)| pool.create_box(user, name));
        for made in futures::future::join_all(creates).await {
            made.map_err(|error| self.refused(error))?;
        }
        Ok(boxes)
    }

    /// Waits until as many machines are free, and stopped, as are to be.
    async fn fill(&self, cloud: &SimCloud, pool: &Pool, config: &PoolConfig) -> Result<(), RunError> {
        let target = config.instances;
        let full = |status: PoolStatus| {
            status.free_instances >= target.min_free as usize
                && cloud.instances().len() >= (target.min_free + target.min_reserve) as usize
        };
        let begun = Instant::now();
        while !full(pool.status()) {
            if begun.elapsed() > FILLS_WITHIN {
                return Err(RunError::NotFull { policy: self.policy.to_string(), limit: FILLS_WITHIN });
            }
            cloud.advance(Duration::from_secs(10)).await?;
        }
        Ok(cloud.advance(RESTS + target.cool_down).await?)
    }

    /// Has everybody come when they are to; those who are served or refused are told of, but for those who came in the part that is
    /// skipped.
    async fn visits(
        &self,
        pool: &Pool,
        boxes: &[(UserId, BoxName)],
        begun: Instant,
    ) -> mpsc::UnboundedReceiver<Connect> {
        let (tell, ended) = mpsc::unbounded_channel();
        for Visit { at, which, stay } in self.trace.visits().iter().copied() {
            if at >= self.bounds.lasts {
                break;
            }
            tokio::time::sleep_until(begun + at).await;
            let (user, name) = boxes[which].clone();
            let (pool, tell) = (pool.clone(), (at >= self.bounds.skips).then(|| tell.clone()));
            tokio::spawn(async move {
                let asked = Instant::now();
                let session = pool.connect(ConnectRequest::new(user, name)).await;
                let connect = session.as_ref().map_or_else(
                    |_| Connect { took: asked.elapsed(), waited: asked.elapsed(), via: None },
                    |session| Connect {
                        took: asked.elapsed(),
                        waited: session.timings().waited,
                        via: Some(session.via()),
                    },
                );
                if let Some(tell) = tell {
                    // Who ends after the run has ended is not counted.
                    let _ = tell.send(connect);
                }
                if let Ok(session) = session {
                    tokio::time::sleep(stay).await;
                    session.release().await;
                }
            });
        }
        ended
    }
}
