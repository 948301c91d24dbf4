//! What the gateway needs of the pool: the seam between SSH and boxes.
//!
//! [`Boxes`] is implemented for [`boxpool::Pool`] by a thin adapter; tests implement it with SSH servers of their own.

use crate::size::Size;
use async_trait::async_trait;
use boxpool::record::BroughtUp;
use boxpool::{
    BoxId, BoxName, Endpoint, Epoch, Error, ErrorKind, MoveProgress, Progress, Region, Result, SnapshotName, Timestamp,
    UserId,
};
use serde::Serialize;
use std::time::Duration;
use tokio::sync::watch;

/// One box, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoxSummary {
    /// What the owner calls it.
    pub name: String,
    /// Where it is: `detached placing running suspending parked detaching deleting renaming arriving moving`.
    pub state: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last connected to; equals `created` before the first time.
    pub last_used: Timestamp,
    /// How large its disk is made, or is to become; `None` where only the default is known.
    pub disk_bytes: Option<u64>,
    /// Whether it goes on running without a session.
    pub keepalive: bool,
    /// How many sessions it has had.
    pub connects: u64,
    /// How long it has run in all, in milliseconds, until now.
    pub ran_ms: u64,
    /// Who else may connect.
    pub shares: Vec<ShareSummary>,
    /// Until when it can be had back, if it is deleted.
    pub deleted_until: Option<Timestamp>,
    /// How it was last brought up, if it ever was.
    pub brought_up: Option<BroughtUp>,
    /// The region where it lives, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

impl BoxSummary {
    /// A box that has never been used.
    #[must_use]
    pub fn new(name: &BoxName, state: impl Into<String>, created: Timestamp) -> Self {
        Self {
            name: name.to_string(),
            state: state.into(),
            created,
            last_used: created,
            disk_bytes: None,
            keepalive: false,
            connects: 0,
            ran_ms: 0,
            shares: Vec::new(),
            deleted_until: None,
            brought_up: None,
            region: None,
        }
    }
}

/// Somebody else who may connect to a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShareSummary {
    /// Their account.
    pub account: UserId,
    /// Since when.
    pub added: Timestamp,
    /// When they connected last; `None` when they never have.
    pub last_used: Option<Timestamp>,
    /// How often they have connected.
    pub connects: u64,
}

/// A snapshot of a box, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSummary {
    /// What the owner calls it.
    pub name: String,
    /// Of which box it was taken, which need not be there any more.
    pub of: String,
    /// How far it is: `taking ready deleting`.
    pub state: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// How large the disk is that a box made of it has; `None` where only the default is known.
    pub disk_bytes: Option<u64>,
    /// The region where it is, where there are several: boxes are made of it there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
}

/// Something that happened to a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoxEvent {
    /// When.
    pub at: Timestamp,
    /// What, in one word.
    pub kind: String,
    /// Which incarnation of the box: one made anew under the name has another.
    pub incarnation: BoxId,
    /// In which epoch of the box.
    pub epoch: Option<Epoch>,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
    /// What else there is to say; may be empty.
    pub detail: String,
}

/// How the pool does, as any user may see it: numbers only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PoolNumbers {
    /// Instances that could take a box now.
    pub instances_free: usize,
    /// Volumes that could become a box now.
    pub volumes_free: usize,
    /// Boxes that are suspended and keep their instance.
    pub parked: usize,
    /// Connects that wait for an instance.
    pub waiting: usize,
    /// Gateways of this pool that live.
    pub gateways: usize,
    /// Whether this gateway is stopping.
    pub draining: bool,
}

/// The operations on boxes. An implementation that lacks one of those that may be lacking says so to the user.
#[async_trait]
pub trait Boxes: Send + Sync + 'static {
    /// Makes a box. `AlreadyExists` when the owner has one of that name.
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary>;

    /// The regions where boxes can live, by name; empty where there is only one.
    fn regions(&self) -> Vec<Region> {
        Vec::new()
    }

    /// Makes a box in a region. `AlreadyExists` when the owner has one of that name in any.
    async fn create_in(&self, _: &UserId, name: &BoxName, _: &Region) -> Result<BoxSummary> {
        Err(unsupported("create box in a region", name))
    }

    /// Takes a box to another region. The box is shut down for it, and sessions on it end.
    async fn move_to(
        &self,
        _: &UserId,
        name: &BoxName,
        _: &Region,
        _: watch::Sender<MoveProgress>,
    ) -> Result<BoxSummary> {
        Err(unsupported("move box", name))
    }

    /// All boxes of `owner`, by name.
    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>>;

    /// One box of `owner`.
    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>>;

    /// Brings a box up without connecting to it, within `limit`.
    async fn start(&self, _: &UserId, name: &BoxName, _: Duration) -> Result<BoxSummary> {
        Err(unsupported("start box", name))
    }

    /// Shuts a box down: its next start boots. Sessions on it end.
    async fn stop(&self, _: &UserId, name: &BoxName) -> Result<BoxSummary> {
        Err(unsupported("stop box", name))
    }

    /// Grows a box's disk. The box is shut down for it, and sessions on it end.
    async fn resize(&self, _: &UserId, name: &BoxName, _: Size) -> Result<BoxSummary> {
        Err(unsupported("resize box", name))
    }

    /// Calls a box something else. `AlreadyExists` when the owner has one of that name, `Busy` when it runs.
    async fn rename(&self, _: &UserId, name: &BoxName, _: &BoxName) -> Result<BoxSummary> {
        Err(unsupported("rename box", name))
    }

    /// Whether the box goes on running without a session.
    async fn keep(&self, _: &UserId, name: &BoxName, _: bool) -> Result<BoxSummary> {
        Err(unsupported("keep box", name))
    }

    /// Deletes a box and everything in it, so that it can be had back for a while where the pool is set up so. `NotFound` when
    /// there is none.
    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()>;

    /// Deletes a box for good, also one that could be had back.
    async fn purge(&self, _: &UserId, name: &BoxName) -> Result<()> {
        Err(unsupported("delete box for good", name))
    }

    /// Has a deleted box back.
    async fn undelete(&self, _: &UserId, name: &BoxName) -> Result<BoxSummary> {
        Err(unsupported("undelete box", name))
    }

    /// The boxes of `owner` that are deleted and can be had back.
    async fn list_deleted(&self, _: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(Vec::new())
    }

    /// Keeps a copy of a box's disk.
    async fn take_snapshot(&self, _: &UserId, name: &BoxName, _: &SnapshotName) -> Result<SnapshotSummary> {
        Err(unsupported("snapshot box", name))
    }

    /// The snapshots of `owner`.
    async fn list_snapshots(&self, _: &UserId) -> Result<Vec<SnapshotSummary>> {
        Ok(Vec::new())
    }

    /// Deletes a snapshot. Boxes that were made of it stay.
    async fn delete_snapshot(&self, _: &UserId, called: &SnapshotName) -> Result<()> {
        Err(unsupported("delete snapshot", called))
    }

    /// Makes a box of a snapshot.
    async fn restore(&self, _: &UserId, _: &SnapshotName, to: &BoxName) -> Result<BoxSummary> {
        Err(unsupported("restore snapshot", to))
    }

    /// Makes a box of another one.
    async fn duplicate(&self, _: &UserId, name: &BoxName, _: &BoxName) -> Result<BoxSummary> {
        Err(unsupported("duplicate box", name))
    }

    /// Whether somebody else may connect.
    async fn share(&self, _: &UserId, name: &BoxName, _: &UserId, _: bool) -> Result<BoxSummary> {
        Err(unsupported("share box", name))
    }

    /// What happened to the boxes of `owner` of that name, the newest last, at most `limit`.
    async fn events(&self, _: &UserId, name: &BoxName, _: usize) -> Result<Vec<BoxEvent>> {
        Err(unsupported("list events of box", name))
    }

    /// Brings a box up, or joins it where it runs. Dropping the future gives the wait up.
    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>>;

    /// How the pool does.
    async fn status(&self) -> Result<PoolNumbers>;
}

fn unsupported(operation: &'static str, name: &impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Permanent, operation, name).with_detail("this gateway's boxes have no such operation")
}

/// A wish to be connected to a box.
#[derive(Debug)]
pub struct Wish {
    /// Whose box.
    pub owner: UserId,
    /// Which.
    pub name: BoxName,
    /// Who connects, if it is not the owner.
    pub guest: Option<UserId>,
    /// How long it may take, waiting for room included.
    pub limit: Duration,
    /// Where to tell what is being waited for.
    pub progress: watch::Sender<Progress>,
    /// The endpoint of this epoch did not answer: look before handing it out again.
    pub distrust: Option<Epoch>,
}

/// One use of a running box. Dropping it leaves a note; giving it back properly is [`BoxSession::release`].
#[async_trait]
pub trait BoxSession: Send + Sync + 'static {
    /// Where the box's SSH server is, and its host key.
    fn endpoint(&self) -> &Endpoint;

    /// In which epoch: [`Wish::distrust`] names it when the endpoint does not answer.
    fn epoch(&self) -> Epoch;

    /// Returns when the box of this session is known to be gone: deleted, lost, or taken elsewhere.
    async fn ended(&self);

    /// Gives the session back.
    async fn release(self: Box<Self>);
}
