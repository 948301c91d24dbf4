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
use async_trait::async_trait;
use boxpool::{Error, ErrorKind, Result, SnapshotCopier, SnapshotCopy, SnapshotId, SnapshotLocation};
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
        let (machine, login) = (meta.machine.clone(), meta.login.clone());
        let kept = Kept { schema: SCHEMA, base: meta.snapshot.clone(), machine, login };
        self.keep_disk(&source.disk(), None, &kept, id).await
    }

    /// Makes a snapshot of a disk's own layer. With `onto` it shows the same upon that base, whatever it was based on before.
    async fn keep_disk(&self, source: &Path, onto: Option<&Path>, kept: &Kept, id: &SnapshotId) -> Result<()> {
        let host = &*self.inner.host;
        let used = host.look(source).await?.map_or(0, |facts| facts.allocated_bytes);
        self.require_room(&self.inner.layout.state, used).await?;
        let (place, work) = (self.kept_place(id), self.beside_kept(id, "partial"));
        must(host, "snapshot volume", Command::new("rm").arg("-rf").arg(&work)).await?;
        self.make_dir(&work, "0700").await?;
        let disk = work.join("disk.qcow2");
        self.copy_disk(source, &disk).await?;
        if let Some(base) = onto {
            let rebase = Command::new("qemu-img").args(["rebase", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
            must(host, "copy snapshot", rebase.arg(base).arg(&disk).limit(COPY_LIMIT)).await?;
            must(host, "copy snapshot", Command::new("sync").arg(&disk).limit(COPY_LIMIT)).await?;
        }
        must(host, "snapshot volume", Command::new("chmod").arg("0400").arg(&disk)).await?;
        self.save(&work.join(FACTS), kept).await?;
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

    /// Removes the snapshot of a box, and what a dead process has left of it. `false` when there is none of that name. Waits for one
    /// that is being copied from elsewhere.
    pub(crate) async fn forget(&self, id: &SnapshotId) -> Result<bool> {
        let host = &*self.inner.host;
        let lock = self.beside_kept(id, "lock");
        let _alone = match host.look(&lock).await? {
            Some(_) => Some(host.lock(&lock, COPY_LIMIT).await?),
            None => None,
        };
        let (place, doomed) = (self.kept_place(id), self.beside_kept(id, "deleted"));
        let there = self.size(&place).await?.is_some();
        let leftovers = [&doomed, &self.beside_kept(id, "partial")];
        must(host, "delete snapshot", Command::new("rm").arg("-rf").args(leftovers).limit(COPY_LIMIT)).await?;
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

/// Where another state directory of the same machine finds a snapshot of a box.
#[derive(Debug, Serialize, Deserialize)]
struct Location {
    kept: PathBuf,
    /// The disk of the golden snapshot below it.
    base: PathBuf,
}

/// Between state directories of one machine, which need not be on the same file system. The golden snapshot that it is based on has
/// to be there in both; where its disk was built in each by itself, the copy gets what differs.
#[async_trait]
impl SnapshotCopier for LocalQemu {
    async fn locate_snapshot(&self, id: &SnapshotId) -> Result<SnapshotLocation> {
        let kept = self.kept(id).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find snapshot", id).with_detail("there is no such snapshot of a box here")
        })?;
        let location = Location { kept: self.kept_place(id), base: self.disk_of_golden(&kept.base) };
        let text = serde_json::to_string(&location)
            .map_err(|error| Error::new(ErrorKind::Invalid, "find snapshot", id).with_source(error))?;
        Ok(SnapshotLocation(text))
    }

    async fn copy_snapshot(&self, from: &SnapshotLocation, id: &SnapshotId) -> Result<SnapshotCopy> {
        const ACT: &str = "copy snapshot";
        let from: Location = serde_json::from_str(&from.0).map_err(|error| {
            let detail = "the location was not made by this backend";
            Error::new(ErrorKind::Invalid, ACT, id).with_detail(detail).with_source(error)
        })?;
        let _alone = self.inner.host.lock(&self.beside_kept(id, "lock"), COPY_LIMIT).await?;
        if self.kept(id).await?.is_none() {
            let kept: Option<Kept> = self.load(&from.kept.join(FACTS)).await?;
            let kept = kept.ok_or_else(|| {
                let detail = format!("there is no snapshot in {} on this machine", from.kept.display());
                Error::new(ErrorKind::NotFound, ACT, id).with_detail(detail)
            })?;
            let base = self.disk_of_golden(&kept.base);
            if self.inner.host.look(&base).await?.is_none() {
                let (base, there) = (&kept.base, self.inner.layout.snapshots());
                let detail = format!(
                    "the golden snapshot {base} that it is based on is not in {}; copy it there",
                    there.display()
                );
                return Err(Error::new(ErrorKind::Invalid, ACT, id).with_detail(detail));
            }
            let onto = Some(base.as_path()).filter(|base| **base != from.base);
            self.keep_disk(&from.kept.join("disk.qcow2"), onto, &kept, id).await?;
        }
        let mut copy = SnapshotCopy::new(true);
        copy.percent = Some(100);
        Ok(copy)
    }
}

impl LocalQemu {
    fn disk_of_golden(&self, id: &SnapshotId) -> PathBuf {
        self.inner.layout.snapshot(id).join("disk.qcow2")
    }
}
