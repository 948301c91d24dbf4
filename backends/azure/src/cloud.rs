//! One pool's machines and disks in a subscription: what the providers share.
//!
//! Changes to one machine are made one at a time in this process; between processes the service itself refuses or
//! supersedes, and the loser looks again. What goes on is remembered with the address of its operation, for as long as
//! this process lives. Nothing is lost with it: an operation that nobody remembers is seen in the resource itself — a
//! machine that is being made, a disk that says which machine manages it — and that is where another process, or this one
//! after a restart, goes on. That is why the addresses need not be stored: the provider traits have no place for them, and
//! a record of them would be one more durable write on the way to a box.

use crate::arm::{Arm, Begun, Common};
use crate::bodies::{ID_TAG, POOL_TAG};
use crate::capacity::Capacity;
use crate::cloud_options::CloudOptions;
use crate::errors::{Failure, Refusal};
use crate::names::{PoolName, SCRATCH};
use crate::poll::{Operation, Progress};
use crate::sdk::compute::Compute;
use crate::spread::Spread;
use crate::transport::Transport;
use boxpool::{Error, ErrorKind, InstanceId, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// A failed machine is brought to reason at most so often.
const REPAIR_EVERY: Duration = Duration::from_secs(60);

/// Machines and volumes of one pool in Azure: an [`InstanceProvider`](boxpool::InstanceProvider) and a
/// [`VolumeProvider`](boxpool::VolumeProvider). Clones share budgets and what is under way.
///
/// It belongs to one runtime: its connections do.
#[derive(Clone)]
pub struct AzureCloud {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) arm: Arc<dyn Arm>,
    pub(crate) options: CloudOptions,
    pub(crate) pool: PoolName,
    pub(crate) capacity: Capacity,
    pub(crate) spread: Spread,
    locks: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
    under_way: Mutex<BTreeMap<String, UnderWay>>,
    repaired: Mutex<BTreeMap<String, Instant>>,
    /// The full id of the image that new machines boot, once there is one.
    golden_image: Mutex<Option<String>>,
}

impl fmt::Debug for AzureCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureCloud").field("pool", &self.inner.pool.as_str()).finish_non_exhaustive()
    }
}

/// What was begun on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Create,
    Start,
    Stop,
    Delete,
    Attach {
        disk: String,
    },
    Detach {
        disk: String,
        force: bool,
    },
    /// An update that changes nothing, to bring a failed machine back to reason.
    Repair,
}

struct UnderWay {
    work: Work,
    operation: Operation,
    ask_at: Instant,
}

impl AzureCloud {
    /// Checks the options and makes the credential. Asks the network for nothing yet.
    ///
    /// # Errors
    /// `Invalid` says which option breaks which rule; `Unauthorized` that no credential can be made.
    pub fn open(options: CloudOptions) -> Result<Self> {
        let (pool, endpoint) = options.check()?;
        let transport = Transport::new(options.proxy)?;
        let arm = Arc::new(Compute::open(&options, endpoint, &transport)?);
        Ok(Self::over(arm, options, pool))
    }

    pub(crate) fn over(arm: Arc<dyn Arm>, options: CloudOptions, pool: PoolName) -> Self {
        let inner = Inner {
            arm,
            options,
            pool,
            capacity: Capacity::default(),
            spread: Spread::default(),
            locks: Mutex::default(),
            under_way: Mutex::default(),
            repaired: Mutex::default(),
            golden_image: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    /// Alone with a machine or disk, in this process.
    pub(crate) async fn alone(&self, what: String) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            match locks.get(&what).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    locks.retain(|_, lock| lock.strong_count() > 0);
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(what, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }

    pub(crate) async fn alone_with_machine(&self, name: &str) -> OwnedMutexGuard<()> {
        self.alone(format!("machine/{name}")).await
    }

    pub(crate) async fn alone_with_disk(&self, name: &str) -> OwnedMutexGuard<()> {
        self.alone(format!("disk/{name}")).await
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<String, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was begun on a machine.
    pub(crate) fn began(&self, machine: &str, work: Work, begun: Begun) {
        if let Some(operation) = begun.operation {
            let ask_at = Instant::now() + operation.wait();
            self.under_way().insert(machine.to_owned(), UnderWay { work, operation, ask_at });
        }
    }

    pub(crate) fn forget(&self, machine: &str) {
        self.under_way().remove(machine);
    }

    /// How far the last thing begun on a machine is; `None` when this process knows of none. Asks no sooner than the service
    /// wants to be asked. The end is told once. Only for those who are alone with the machine.
    pub(crate) async fn progress(&self, machine: &str) -> Option<(Work, Progress)> {
        let (work, mut operation) = {
            let under_way = self.under_way();
            let found = under_way.get(machine)?;
            let wait = found.ask_at.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some((found.work.clone(), Progress::Running(wait)));
            }
            (found.work.clone(), found.operation.clone())
        };
        let progress = self.arm.poll(Some(machine), &mut operation).await;
        match progress {
            Progress::Running(wait) => {
                let ask_at = Instant::now() + wait;
                self.under_way().insert(machine.to_owned(), UnderWay { work: work.clone(), operation, ask_at });
            }
            Progress::Done | Progress::Failed(_) | Progress::Forgotten => {
                self.under_way().remove(machine);
            }
        }
        Some((work, progress))
    }

    /// Whether a failed machine is to be updated without a change, which brings most back: not again and again.
    pub(crate) fn may_repair(&self, machine: &str) -> bool {
        let mut repaired = self.repaired.lock().unwrap_or_else(PoisonError::into_inner);
        repaired.retain(|_, at| at.elapsed() < REPAIR_EVERY);
        let may = !repaired.contains_key(machine);
        if may {
            repaired.insert(machine.to_owned(), Instant::now());
        }
        may
    }

    /// The image that a new machine is to boot instead of the published one. What the image is made on boots the latter.
    pub(crate) fn golden_image_for(&self, id: &InstanceId) -> Option<String> {
        let image = self.golden_image.lock().unwrap_or_else(PoisonError::into_inner);
        image.clone().filter(|_| !id.as_str().starts_with(SCRATCH))
    }

    pub(crate) fn use_golden_image(&self, image: Option<String>) {
        *self.golden_image.lock().unwrap_or_else(PoisonError::into_inner) = image;
    }

    /// Whether this process has begun to attach or detach a disk and not seen the end.
    pub(crate) fn is_coming_or_going(&self, name: &str) -> bool {
        self.under_way().values().any(|each| match &each.work {
            Work::Attach { disk } | Work::Detach { disk, .. } => disk == name,
            Work::Create | Work::Start | Work::Stop | Work::Delete | Work::Repair => false,
        })
    }

    /// What is not the pool's is never touched.
    pub(crate) fn check_ours(&self, operation: &'static str, common: &Common, id: &str) -> Result<()> {
        if self.is_ours(common) && common.tag(ID_TAG) == Some(id) {
            return Ok(());
        }
        let detail = format!(
            "{} is in this resource group without the tags {POOL_TAG}={} and {ID_TAG}={id}, so it is not this pool's; \
             adopt it or choose another group",
            common.name,
            self.pool.as_str()
        );
        Err(Error::new(ErrorKind::Permanent, operation, id).with_detail(detail))
    }

    pub(crate) fn is_ours(&self, common: &Common) -> bool {
        common.tag(POOL_TAG) == Some(self.pool.as_str())
    }
}

/// A later operation took the place of this one; what counts is what the resource says.
pub(crate) fn is_superseded(why: &Refusal) -> bool {
    why.code.is_empty() || why.has_code("OperationPreempted") || why.has_code("DataDisksForceDetached")
}

pub(crate) fn busy(operation: &'static str, resource: impl fmt::Display, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Busy, operation, resource).with_detail(why)
}

pub(crate) fn busy_for(operation: &'static str, resource: impl fmt::Display, wait: Duration) -> Error {
    busy(operation, resource, "another change of the machine is under way").with_retry_after(wait)
}

pub(crate) fn refused(why: Refusal) -> Failure {
    Failure::Refused(why)
}
