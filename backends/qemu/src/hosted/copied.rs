//! A disk that is a copy of another box's becomes the disk of a volume of its own.
//!
//! What a copy holds is the other volume in every part: its name plate, its folder with its host key, its saved memory. Nothing on it
//! tells it from the other volume's own disk, so two others must say that it is a copy, each from its own records: the pool,
//! that this box is one and was never brought up ([`Guest::copied`](boxpool::Guest::copied)), and the provider of the disk, of which volume
//! ([`Hosts::copied_from`](crate::Hosts::copied_from)). A plate that is neither this volume's nor one of those is refused.
//!
//! ```text
//! plate of the other  ─▶  folder renamed  ─▶  memory and keys of the other gone  ─▶  own key, card and record  ─▶  own plate
//! ```
//!
//! The plate is the last. As long as it is the other's, the next start does all of it again, which is safe: no guest has run.

use super::mount::{Mounted, mounted};
use super::{Disk, Place, name_plate};
use crate::LocalQemu;
use crate::host::{Command, must};
use crate::mac::Mac;
use crate::machine::Machine;
use crate::saved::Meta;
use boxpool::{Error, ErrorKind, Result, VolumeId};
use std::time::Duration;

/// Removing the other's memory, and writing all that is not written yet.
const LIMIT: Duration = Duration::from_secs(180);

/// Makes what is mounted this volume's own, if it is still the other's. A golden disk is left as it is: what is made there is this volume's.
pub(super) async fn make_own(place: &Place<'_>, qemu: &LocalQemu, disk: &Disk<'_>) -> Result<()> {
    let (host, layout, volume) = (&*place.host, &qemu.inner.layout, disk.volume);
    let at = &place.options.mount_point;
    let plate = match mounted(place).await? {
        Mounted::Volume(found) if found == *volume => return Ok(()),
        Mounted::Volume(found) => Some(found),
        Mounted::Unknown(_) | Mounted::Nothing => None,
    };
    let names = qemu.names_in(&layout.volumes()).await?;
    let found = match (names.as_slice(), &plate) {
        // Of a box that was never started.
        ([], None) => return Ok(()),
        ([name], _) => VolumeId::new(name).ok(),
        _ => None,
    };
    let may_be = |found: &VolumeId| found == volume || disk.copied_from.contains(found);
    let Some(found) = found.filter(may_be) else {
        let holds = if names.is_empty() { "no volume".to_owned() } else { names.join(" and ") };
        let detail = format!("its disk is a copy, and holds {holds}, which is not what was copied; it was not touched");
        return Err(Error::new(ErrorKind::Corrupt, "make copy its own", volume).with_detail(detail));
    };
    if plate.is_none() {
        // Half made as the volume on a golden disk: that is gone on with.
        if found == *volume {
            return Ok(());
        }
        // From here on it must not be taken for that.
        host.put(&name_plate(at), found.as_str().as_bytes(), 0o644).await?;
    }
    let (other, own) = (layout.volume(&found), layout.volume(volume));
    if found != *volume {
        must(host, "make copy its own", Command::new("mv").arg("-T").args([&other.dir, &own.dir])).await?;
    }
    // The epoch stays: a fence never falls.
    let rest = Command::new("find").arg(&own.dir).args(["-mindepth", "1"]);
    let rest = rest.args(["!", "-name", "disk.qcow2", "!", "-name", "meta.json", "!", "-name", "epoch", "-delete"]);
    must(host, "make copy its own", rest.limit(LIMIT)).await?;
    must(host, "make copy its own", Command::new("rm").arg("-rf").arg(&other.run)).await?;
    let meta = qemu.meta(&own).await?;
    let host_key = qemu.make_host_key(&own).await?;
    let machine = Machine { mac: Mac::of(volume), ..meta.machine };
    let disk_generation = meta.disk_generation + 1;
    qemu.save(&own.meta(), &Meta { machine, host_key, identified: false, disk_generation, ..meta }).await?;
    must(host, "make copy its own", Command::new("sync").arg("-f").arg(at).limit(LIMIT)).await?;
    host.put(&name_plate(at), volume.as_str().as_bytes(), 0o644).await?;
    tracing::info!(%volume, copied = %found, "a disk that was copied is the volume's own now");
    Ok(())
}
