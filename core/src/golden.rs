//! Golden snapshots: who builds them, and what a builder is promised.
//!
//! How a snapshot comes about is the backend's business; that it is built once, by one node at a time, taken up by another when
//! that one dies, checked before it is used, and deleted when nobody wants it any more, is the pool's ([`PoolBuilder::golden`]).
//!
//! [`PoolBuilder::golden`]: crate::PoolBuilder::golden

use crate::error::{Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::record::{GoldenRecord, GoldenState};
use crate::records::golden_key;
use crate::shared::Shared;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

/// Builds golden snapshots of one generation.
#[async_trait]
pub trait GoldenBuilder: Send + Sync + 'static {
    /// The edition that this builder makes: a digest of its recipe, so that another recipe is another edition. At most 40
    /// characters of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit. Always the same for one builder.
    fn generation(&self) -> &str;

    /// Builds the snapshot, or goes on where an earlier attempt stopped, and takes away whatever else it made for it. Called
    /// again after an error and after the builder's node has died, by another node too, so every step must be safe to repeat.
    /// Before each effect it asks the [`Permit`], and stops when that refuses.
    ///
    /// # Errors
    /// Retryable ones are tried again after a pause; so are the others, but they are told as errors.
    async fn build(&self, id: &SnapshotId, permit: &Permit) -> Result<()>;

    /// Whether the snapshot is there and whole. Asked once by each node before it uses it.
    async fn verify(&self, id: &SnapshotId) -> Result<bool>;

    /// Deletes the snapshot and whatever a build of it left. Absent is success; `Ok` means that it is surely gone.
    ///
    /// # Errors
    /// Tried again in the next pass.
    async fn discard(&self, id: &SnapshotId) -> Result<()>;

    /// Whether a resource of that name belongs to a build: it has no record, and is not swept as an orphan.
    fn is_scratch(&self, name: &str) -> bool;
}

/// The leave to go on building: one node has it at a time.
pub struct Permit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) generation: String,
    pub(crate) build: u32,
}

impl Permit {
    /// Asks whether this node still is the one to build. One read of the store.
    ///
    /// # Errors
    /// `Fenced`: another node builds now, or it is built. `Unavailable`: this node has lost touch. The store's own.
    pub async fn check(&self) -> Result<()> {
        self.shared.check_in_touch("build golden snapshot")?;
        let found = self.shared.records.get::<GoldenRecord>(&golden_key(&self.generation)).await?;
        let ours = found.is_some_and(|held| {
            let builder = matches!(&held.record.state, GoldenState::Building { node, .. } if *node == self.shared.node);
            builder && held.record.build == self.build
        });
        if ours {
            return Ok(());
        }
        let detail = "another node builds it now";
        Err(Error::new(ErrorKind::Fenced, "build golden snapshot", &self.generation).with_detail(detail))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("generation", &self.generation)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}
