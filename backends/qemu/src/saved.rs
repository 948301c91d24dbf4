//! What is recorded with a volume, and when a saved memory may be loaded.
//!
//! A saved memory fits the disk only as it was at that very moment, and loading it uses it up: from then on the disk moves.
//! So each volume counts the *generation* of its disk, which rises, durably, right before a guest is let run. A saved
//! memory carries the generation it was saved at and is loaded only while that is still the disk's. A crash at any point
//! leaves a whole pair, or a disk to boot from; never a memory that does not fit.

use crate::LocalQemu;
use crate::layout::VolumeDir;
use crate::machine::Machine;
use boxpool::{Epoch, Error, ErrorKind, InstanceId, Result, SnapshotId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is known of a volume for good, and its disk's generation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) schema: u32,
    /// What it was copied from; its kernel is used from there.
    pub(crate) snapshot: SnapshotId,
    pub(crate) machine: Machine,
    pub(crate) login: String,
    /// The pinned host key, public part.
    pub(crate) host_key: String,
    /// Whether the guest was made its own machine (host key, name, machine id).
    pub(crate) identified: bool,
    /// Rises right before a guest is let run.
    pub(crate) disk_generation: u64,
}

pub(crate) const SCHEMA: u32 = 1;

/// A saved memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// The disk's generation when it was saved.
    pub(crate) disk_generation: u64,
    /// Size of the state file: a shorter one was not written to its end.
    pub(crate) state_bytes: u64,
}

/// Which slot a volume is on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AttachedTo {
    pub(crate) instance: InstanceId,
    pub(crate) epoch: Epoch,
}

impl LocalQemu {
    /// A JSON file; `None` when there is none.
    pub(crate) async fn load<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let Some(bytes) = self.inner.host.read(path).await? else { return Ok(None) };
        let corrupt = |error| {
            let detail = format!("it cannot be understood ({error}); it was left as it is");
            Error::new(ErrorKind::Corrupt, "read file", path.display()).with_detail(detail)
        };
        serde_json::from_slice(&bytes).map(Some).map_err(corrupt)
    }

    pub(crate) async fn save<T: Serialize>(&self, path: &Path, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| Error::new(ErrorKind::Invalid, "write file", path.display()).with_source(error))?;
        self.inner.host.put(path, &bytes, 0o644).await
    }

    /// The record of a volume that must exist.
    pub(crate) async fn meta(&self, volume: &VolumeDir) -> Result<Meta> {
        let meta: Option<Meta> = self.load(&volume.meta()).await?;
        let meta = meta.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find volume", volume.dir.display())
                .with_detail("there is no such volume here")
        })?;
        if meta.schema > SCHEMA {
            let detail = format!("it was written by a newer version (schema {}); upgrade", meta.schema);
            return Err(Error::new(ErrorKind::Corrupt, "read volume", volume.dir.display()).with_detail(detail));
        }
        Ok(meta)
    }

    /// Refuses an older epoch and remembers a newer one, durably. Call it under the volume's lock.
    pub(crate) async fn fence(&self, operation: &'static str, volume: &VolumeDir, epoch: Epoch) -> Result<()> {
        if self.check_epoch(operation, volume, epoch).await? {
            self.record_epoch(volume, epoch).await?;
        }
        Ok(())
    }

    /// Refuses an epoch that is over. `true` when this one is new and has yet to be written down.
    pub(crate) async fn check_epoch(&self, operation: &'static str, volume: &VolumeDir, epoch: Epoch) -> Result<bool> {
        let seen = match self.inner.host.read(&volume.epoch()).await? {
            None => Epoch(0),
            // Refused rather than taken for an old one: a fence that cannot be read must not open.
            Some(text) => String::from_utf8_lossy(&text).trim().parse().map(Epoch).map_err(|error| {
                let detail =
                    format!("{} does not hold an epoch ({error}); it was left as it is", volume.epoch().display());
                Error::new(ErrorKind::Corrupt, operation, volume.dir.display()).with_detail(detail)
            })?,
        };
        if epoch < seen {
            let detail = format!("epoch {epoch} is over: {seen} was seen");
            return Err(Error::new(ErrorKind::Fenced, operation, volume.dir.display()).with_detail(detail));
        }
        Ok(epoch > seen)
    }

    /// Writes the epoch down for good. Only under the volume's lock, after [`Self::check_epoch`].
    pub(crate) async fn record_epoch(&self, volume: &VolumeDir, epoch: Epoch) -> Result<()> {
        self.inner.host.put(&volume.epoch(), epoch.to_string().as_bytes(), 0o644).await
    }

    /// The saved memory, if it is whole and fits the disk as it is now.
    pub(crate) async fn loadable(&self, volume: &VolumeDir, meta: &Meta) -> Result<bool> {
        let Some(saved) = self.load::<Saved>(&volume.saved()).await? else { return Ok(false) };
        Ok(saved.disk_generation == meta.disk_generation
            && self.size(&volume.state()).await? == Some(saved.state_bytes))
    }

    pub(crate) async fn size(&self, path: &Path) -> Result<Option<u64>> {
        Ok(self.inner.host.look(path).await?.map(|facts| facts.bytes))
    }
}
