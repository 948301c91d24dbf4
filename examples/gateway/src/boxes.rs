//! What the gateway needs of the pool: the seam between SSH and boxes.
//!
//! [`Boxes`] is implemented for [`boxpool::Pool`] by a thin adapter; tests implement it with SSH servers of their own.

use async_trait::async_trait;
use boxpool::{BoxName, Endpoint, Result, Timestamp, UserId};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// One box, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoxSummary {
    /// What the owner calls it.
    pub name: String,
    /// Where it is: `detached placing running suspending parked detaching deleting`.
    pub state: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last connected to; equals `created` before the first time.
    pub last_used: Timestamp,
}

/// How the pool does, as any user may see it: numbers only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Instances in all.
    pub instances: usize,
    /// Instances that could take a box now.
    pub instances_free: usize,
    /// Volumes that could become a box now.
    pub volumes_free: usize,
    /// Callers waiting for an instance.
    pub waiting: usize,
}

/// Told what a connect is waiting for, one sentence at a time.
pub type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// The operations on boxes.
#[async_trait]
pub trait Boxes: Send + Sync + 'static {
    /// Makes a box. `AlreadyExists` when the owner has one of that name.
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary>;

    /// All boxes of `owner`, by name.
    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>>;

    /// One box of `owner`.
    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>>;

    /// Deletes a box and everything in it. `NotFound` when there is none.
    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()>;

    /// Brings a box up, or joins it where it runs, within `limit`.
    ///
    /// Dropping the future gives the wait up.
    async fn connect(
        &self,
        owner: &UserId,
        name: &BoxName,
        limit: Duration,
        progress: Progress,
    ) -> Result<Box<dyn BoxSession>>;

    /// How the pool does.
    async fn status(&self) -> Result<PoolStatus>;

    /// Takes no more work, suspends what this process runs, and returns when that is done or `limit` has passed.
    async fn drain(&self, limit: Duration) -> Result<()>;
}

/// One use of a running box. Dropping it leaves a note; giving it back properly is [`BoxSession::release`].
#[async_trait]
pub trait BoxSession: Send + Sync + 'static {
    /// Where the box's SSH server is, and its host key.
    fn endpoint(&self) -> &Endpoint;

    /// Gives the session back. `reached` is false when the box's SSH server did not answer, so that the pool looks.
    async fn release(self: Box<Self>, reached: bool) -> Result<()>;
}
