//! Snapshots and copies of boxes, as an embedder uses them.

use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::{BoxName, BoxRef, SnapshotId, SnapshotName, UserId};
use crate::pool::{BoxView, Pool};
use crate::record::{SnapshotRecord, SnapshotStatus};
use crate::shared::Shared;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A snapshot of a box's disk, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoxSnapshot {
    /// What it is called.
    pub name: SnapshotName,
    /// What its provider calls it.
    pub id: SnapshotId,
    /// Of which box it was taken, which need not be there any more.
    pub of: BoxRef,
    /// How far it is: boxes are restored from one that is ready.
    pub status: SnapshotStatus,
    /// How large the box's volume had been grown, in bytes; `None` when it was as it was made.
    pub grown_to: Option<u64>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl BoxSnapshot {
    /// `None` for one that is only there for a duplicate.
    fn of(record: SnapshotRecord) -> Option<Self> {
        let SnapshotRecord { name, id, of, status, grown_to, created_at, .. } = record;
        Some(Self { name: name?, id, of, status, grown_to, created_at })
    }

    /// The state in one word: `taking`, `ready` or `deleting`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        self.status.word()
    }
}

impl Pool {
    /// Keeps a copy of a box's disk as it is now, under a name that is unique among the user's snapshots. The box must not run:
    /// one in which nobody is is suspended first. **What a suspended guest holds in memory and has not written to its disk
    /// yet is not in the snapshot**; a box that was [stopped](Pool::stop_box) has written everything. A connect meanwhile is not
    /// held up by other nodes; the snapshot is refused then. Deleting the box leaves its snapshots.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound`; `Busy` when the box is in use, or was used meanwhile; the provider's. After an error there is no
    /// such snapshot, except that after `Effect::Unknown` there may be.
    #[tracing::instrument(name = "boxpool.snapshot", skip_all, fields(%user, %name, %called))]
    pub async fn take_snapshot(&self, user: &UserId, name: &BoxName, called: &SnapshotName) -> Result<BoxSnapshot> {
        self.check_open("snapshot box", name)?;
        let (user, of, called) = (user.clone(), name.clone(), called.clone());
        let record = self
            .in_background("snapshot box", name, |shared| async move {
                let kept = shared.keep_snapshot(&user, &of, called.clone()).await?;
                Ok((called, kept))
            })
            .await?;
        let (name, SnapshotRecord { id, of, status, grown_to, created_at, .. }) = record;
        Ok(BoxSnapshot { name, id, of, status, grown_to, created_at })
    }

    /// All snapshots of a user's boxes, by name, also of boxes that are not there any more.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_snapshots(&self, user: &UserId) -> Result<Vec<BoxSnapshot>> {
        let all = self.shared.records.scan_all::<SnapshotRecord>(Some(user.as_str())).await?;
        Ok(all.into_iter().filter_map(|(_, held)| BoxSnapshot::of(held.record)).collect())
    }

    /// Deletes a snapshot. Boxes that were restored from it stay as they are.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it is being taken or deleted. When it fails half-way it is `deleting`, and is brought to the end by
    /// the next call or by the maintainer.
    #[tracing::instrument(name = "boxpool.delete_snapshot", skip_all, fields(%user, %name))]
    pub async fn delete_snapshot(&self, user: &UserId, name: &SnapshotName) -> Result<()> {
        self.check_open("delete snapshot", name)?;
        let (user, called) = (user.clone(), name.clone());
        self.in_background(
            "delete snapshot",
            name,
            |shared| async move { shared.delete_snapshot(&user, &called).await },
        )
        .await
    }

    /// Makes a box whose disk is a copy of a snapshot, as large as the box's was, detached. It boots when it is connected to, and
    /// has a host key, a machine id and a host name of its own. What becomes of it touches neither the snapshot nor the box
    /// that was copied.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` when there is no such snapshot, or it is deleted meanwhile; `Busy` while it is being taken or
    /// deleted; otherwise as [`Pool::create_box`].
    #[tracing::instrument(name = "boxpool.restore", skip_all, fields(%user, %snapshot, %name))]
    pub async fn restore_box(&self, user: &UserId, snapshot: &SnapshotName, name: &BoxName) -> Result<BoxView> {
        self.check_open("restore snapshot", name)?;
        let (user, snapshot, to) = (user.clone(), snapshot.clone(), name.clone());
        self.in_background("restore snapshot", name, |shared| async move {
            shared.restore(&user, &snapshot, &to, None).await
        })
        .await
        .map(BoxView::of)
    }

    /// Makes a box whose disk is a copy of another box's: [`Pool::take_snapshot`], [`Pool::restore_box`] and
    /// [`Pool::delete_snapshot`] in one, without a snapshot that anybody sees.
    ///
    /// # Errors
    /// As those.
    #[tracing::instrument(name = "boxpool.duplicate", skip_all, fields(%user, %name, %to))]
    pub async fn duplicate_box(&self, user: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxView> {
        self.check_open("duplicate box", name)?;
        let (user, of, to) = (user.clone(), name.clone(), to.clone());
        self.in_background("duplicate box", name, |shared| async move { shared.duplicate(&user, &of, &to, None).await })
            .await
            .map(BoxView::of)
    }

    /// Goes on whether or not the caller waits: nothing half done is left because somebody went away.
    pub(crate) async fn in_background<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        operation: &'static str,
        name: &impl std::fmt::Display,
        work: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let (work, errand) = (work(Arc::clone(&self.shared)), Arc::clone(&self.shared.errands));
        self.shared.spawn(async move {
            let _ = done.send(work.await);
            drop(errand);
        });
        self.answered(operation, name, answer).await
    }
}
