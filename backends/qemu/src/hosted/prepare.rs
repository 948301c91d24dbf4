//! A disk that new volumes are copied from: an empty disk of a machine gets a file system and a golden snapshot.
//!
//! If the process dies here, the next one finds what is there and goes on: a file system stays, parts that arrived stay, and
//! a snapshot that is whole is all there is to do.

use super::mount::{find_disk, kind_of, mount_at, source_at, unmount_at};
use super::{HostedOptions, Place};
use crate::host::{Command, must};
use crate::image::Image;
use crate::{GoldenSpec, Host, Progress};
use boxpool::{Error, ErrorKind, Result, SnapshotId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A large disk's tables, written later if the kernel can.
const FORMAT_LIMIT: Duration = Duration::from_secs(300);

/// Fills the disk that shows under one of `paths`. What is left is a disk with nothing but the snapshot, written and taken off.
///
/// The image is made before, on this machine ([`crate::image::make`]).
///
/// # Errors
/// `NotFound` when there is no such disk; `Corrupt` when something else is on it, which is not touched; the host's.
pub async fn prepare_disk(
    host: Arc<dyn Host>,
    paths: &[PathBuf],
    spec: &GoldenSpec,
    image: &Image,
    options: &HostedOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<SnapshotId> {
    let place = Place { host, options };
    let _alone = place.alone().await?;
    let at = &options.mount_point;
    if source_at(&place).await?.is_none() {
        let device = find_disk(&place, "golden disk", paths).await?;
        match kind_of(&place, &device).await?.as_str() {
            "ext4" => {}
            "" => {
                progress(Progress::new("disk", "making a file system on the data disk"));
                let format = Command::new("mkfs.ext4").args(["-q", "-m", "0", "-L", "boxpool", "--"]).arg(&device);
                must(&*place.host, "format disk", format.limit(FORMAT_LIMIT)).await?;
            }
            other => {
                let detail = format!("{device} holds a file system of the kind {other}; it was not touched");
                return Err(Error::new(ErrorKind::Corrupt, "prepare disk", device).with_detail(detail));
            }
        }
        mount_at(&place, &device).await?;
    }
    let qemu = place.qemu().await?;
    if !qemu.names_in(&qemu.inner.layout.volumes()).await?.is_empty() {
        unmount_at(&place).await?;
        let detail = "the disk holds a box; it was not touched";
        return Err(Error::new(ErrorKind::Corrupt, "prepare disk", at.display()).with_detail(detail));
    }
    let id = qemu.ensure_golden_of(spec, image, progress).await?;
    unmount_at(&place).await?;
    Ok(id)
}
