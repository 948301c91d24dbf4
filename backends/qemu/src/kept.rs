//! Snapshots of boxes: a folder with a copy of the volume's disk, and what is known of it. Like the volume, the copy is based on the golden
//! snapshot and holds what the box has changed; so it stands beside its box, and boxes that are made of it stand beside both.
//!
//! The memory is not copied: a guest that is made of it boots, and never takes itself for the one that was copied. A snapshot is made
//! beside its place and moved there when it is whole, and moved away before it goes, so a part of one is never seen.

use crate::LocalQemu;
use crate::host::{Command, must};
use crate::layout::VolumeDir;
use crate::machine::Machine;
use crate::saved::{Meta, SCHEMA};
use boxpool::{Result, SnapshotId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Copying what a box has changed of its disk.
pub(crate) const COPY_LIMIT: Duration = Duration::from_secs(600);
const FACTS: &str = "snapshot.json";

/// What is known of a snapshot. Written last: a folder without it is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    schema: u32,
    /// The golden snapshot below its disk; its kernel is used from there.
    pub(crate) base: SnapshotId,
    pub(crate) machine: Machine,
    pub(crate) login: String,
}

impl LocalQemu {
    pub(crate) fn kept_place(&self, id: &SnapshotId) -> PathBuf {
        self.inner.layout.kept().join(id.as_str())
    }

    /// The snapshot of a box of that name, if there is one.
    pub(crate) async fn kept(&self, id: &SnapshotId) -> Result<Option<Kept>> {
        self.load(&self.kept_place(id).join(FACTS)).await
    }

    /// Copies a volume on which no guest runs. Only under the volume's lock.
    pub(crate) async fn keep(&self, source: &VolumeDir, meta: &Meta, id: &SnapshotId) -> Result<()> {
        let host = &*self.inner.host;
        let used = host.look(&source.disk()).await?.map_or(0, |facts| facts.allocated_bytes);
        self.require_room(&self.inner.layout.state, used).await?;
        let (place, work) = (self.kept_place(id), self.beside_kept(id, "partial"));
        must(host, "snapshot volume", Command::new("rm").arg("-rf").arg(&work)).await?;
        self.make_dir(&work, "0700").await?;
        let disk = work.join("disk.qcow2");
        self.copy_disk(&source.disk(), &disk).await?;
        must(host, "snapshot volume", Command::new("chmod").arg("0400").arg(&disk)).await?;
        let (machine, login) = (meta.machine.clone(), meta.login.clone());
        self.save(&work.join(FACTS), &Kept { schema: SCHEMA, base: meta.snapshot.clone(), machine, login }).await?;
        must(host, "snapshot volume", Command::new("mv").arg("-T").arg(work).arg(place)).await?;
        must(host, "snapshot volume", Command::new("sync").arg(self.inner.layout.kept())).await.map(drop)
    }

    /// Copies a disk's own layer, durably: where the file system can, without copying its blocks.
    pub(crate) async fn copy_disk(&self, from: &Path, to: &Path) -> Result<()> {
        let host = &*self.inner.host;
        let copy = Command::new("cp").args(["--reflink=auto", "--sparse=always", "--no-preserve=mode,ownership"]);
        must(host, "copy disk", copy.arg(from).arg(to).limit(COPY_LIMIT)).await?;
        must(host, "copy disk", Command::new("sync").arg(to).limit(COPY_LIMIT)).await.map(drop)
    }

    /// Removes the snapshot of a box. `false` when there is none of that name.
    pub(crate) async fn forget(&self, id: &SnapshotId) -> Result<bool> {
        let host = &*self.inner.host;
        let (place, doomed) = (self.kept_place(id), self.beside_kept(id, "deleted"));
        let there = self.size(&place).await?.is_some();
        must(host, "delete snapshot", Command::new("rm").arg("-rf").arg(&doomed).limit(COPY_LIMIT)).await?;
        if there {
            must(host, "delete snapshot", Command::new("mv").arg("-T").arg(&place).arg(&doomed)).await?;
            must(host, "delete snapshot", Command::new("rm").arg("-rf").arg(&doomed).limit(COPY_LIMIT)).await?;
        }
        Ok(there)
    }

    fn beside_kept(&self, id: &SnapshotId, what: &str) -> PathBuf {
        self.inner.layout.kept().join(format!(".{id}.{what}"))
    }
}
