//! A volume's disk on its machine: found, looked at, mounted, known by its name plate, taken off.
//!
//! A disk comes as a copy of the golden one: it holds a snapshot and no volume. The first start makes the volume on it, and
//! then the name plate. If the machine dies in between, the volume is there without a plate, unused and under the right
//! name, and the next start goes on. A plate without its volume means that data is missing, and is never repaired by
//! making a new one.

use super::{Disk, Place, name_plate};
use crate::LocalQemu;
use crate::host::{Command, last_of, must};
use boxpool::{Error, ErrorKind, Result, SnapshotId, VolumeId, VolumeProvider, VolumeSource, VolumeSpec};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A journal that has to be replayed, on a slow disk.
const MOUNT_LIMIT: Duration = Duration::from_secs(90);
/// Files of a command that has just ended are closed a moment later.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// Prints the device behind the first of the paths that there is.
const FIND_DEVICE: &str = r#"tries=$1; shift
while [ "$tries" -gt 0 ]; do
    for path; do
        if [ -b "$path" ]; then readlink -f -- "$path"; exit 0; fi
    done
    tries=$((tries - 1)); sleep 0.1
done
exit 3"#;

/// Takes a file system off, again while a file of it is still being closed.
const UNMOUNT: &str = r#"tries=$2
until umount -- "$1"; do
    mountpoint -q -- "$1" || exit 0
    tries=$((tries - 1)); [ "$tries" -gt 0 ] || exit 32
    sleep 0.1
done"#;

/// What is at the mount point.
pub(super) enum Mounted {
    Nothing,
    Volume(VolumeId),
    /// A disk without a legible name plate.
    Unknown(String),
}

/// The device that is mounted, if one is.
pub(super) async fn source_at(place: &Place<'_>) -> Result<Option<String>> {
    let find = Command::new("findmnt").args(["--noheadings", "--output", "SOURCE", "--mountpoint"]);
    let output = place.host.run(find.arg(&place.options.mount_point)).await?;
    let source = output.stdout.trim();
    match (output.success, source.is_empty()) {
        (true, false) => Ok(Some(source.lines().last().unwrap_or_default().to_owned())),
        // That is how it says "none".
        (false, true) if output.code == Some(1) => Ok(None),
        _ => {
            let detail = format!("findmnt: {}", last_of(&output.stderr));
            Err(Error::new(ErrorKind::Unavailable, "look at mount", place.options.mount_point.display())
                .with_detail(detail))
        }
    }
}

pub(super) async fn mounted(place: &Place<'_>) -> Result<Mounted> {
    let Some(source) = source_at(place).await? else { return Ok(Mounted::Nothing) };
    let Some(plate) = place.host.read(&name_plate(&place.options.mount_point)).await? else {
        return Ok(Mounted::Unknown(source));
    };
    match VolumeId::new(String::from_utf8_lossy(&plate).trim()) {
        Ok(volume) => Ok(Mounted::Volume(volume)),
        Err(_) => Ok(Mounted::Unknown(source)),
    }
}

/// Mounts a volume's disk, or finds it mounted. A copy may still have the plate of what it is a copy of.
pub(super) async fn mount(place: &Place<'_>, disk: &Disk<'_>) -> Result<()> {
    let (host, volume) = (&*place.host, disk.volume);
    let at = &place.options.mount_point;
    match mounted(place).await? {
        Mounted::Volume(found) if found == *volume => return Ok(()),
        // Somebody died before it was the volume's own, or it is the other's own disk: what is attached as this volume is mounted instead.
        Mounted::Volume(other) if disk.copied_from.contains(&other) => {
            tracing::warn!(%volume, %other, "a disk that may be a copy is mounted; it is taken off");
            unmount_at(place).await?;
        }
        Mounted::Volume(other) => {
            let detail = format!("the machine still holds volume {other}");
            return Err(Error::new(ErrorKind::Busy, "mount volume", volume).with_detail(detail));
        }
        // Somebody died right after the mount, before the plate was made.
        Mounted::Unknown(source) => {
            tracing::warn!(%volume, %source, "a disk without a name plate is mounted; it is taken off");
            unmount_at(place).await?;
        }
        Mounted::Nothing => {}
    }
    let Some(paths) = &disk.paths else {
        let detail = "it is not mounted, and where it is attached is not known";
        return Err(Error::new(ErrorKind::NotFound, "mount volume", volume).with_detail(detail));
    };
    let device = find_disk(place, volume.as_str(), paths).await?;
    let kind = kind_of(place, &device).await?;
    if kind != "ext4" {
        let found = match kind.as_str() {
            "" => "no file system".to_owned(),
            other => format!("a file system of the kind {other}"),
        };
        let detail =
            format!("its disk {device} holds {found}, where one of boxpool's would hold ext4; it was not touched");
        return Err(Error::new(ErrorKind::Corrupt, "mount volume", volume).with_detail(detail));
    }
    mount_at(place, &device).await?;
    // Of a copy that is larger than the disk it was copied from.
    must(host, "grow file system", Command::new("resize2fs").arg(&device).limit(MOUNT_LIMIT)).await?;
    let whose = match mounted(place).await? {
        Mounted::Volume(found) if found == *volume || disk.copied_from.contains(&found) => return Ok(()),
        Mounted::Volume(found) => found.to_string(),
        Mounted::Nothing => "gone again".to_owned(),
        Mounted::Unknown(_) if host.look(&name_plate(at)).await?.is_none() => return Ok(()),
        Mounted::Unknown(_) => "not legible".to_owned(),
    };
    unmount_at(place).await?;
    let detail = format!("the disk {device} is not this volume's: its name plate is {whose}; it was not touched");
    Err(Error::new(ErrorKind::Corrupt, "mount volume", volume).with_detail(detail))
}

/// The device behind the one of these paths that there is.
pub(super) async fn find_disk(place: &Place<'_>, what: &str, paths: &[PathBuf]) -> Result<String> {
    let tries = place.options.device_limit.as_millis() / 100 + 1;
    let find = Command::new("sh").args(["-c", FIND_DEVICE, "sh", &tries.to_string()]).args(paths);
    let output = place.host.run(find.limit(place.options.device_limit * 2 + MOUNT_LIMIT)).await?;
    if output.success {
        return Ok(output.stdout.trim().to_owned());
    }
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let detail =
        format!("the machine showed no disk at {} within {:?}", names.join(" or "), place.options.device_limit);
    Err(Error::new(ErrorKind::NotFound, "find disk", what).with_detail(detail))
}

/// The kind of file system on a device; empty when there is none.
pub(super) async fn kind_of(place: &Place<'_>, device: &str) -> Result<String> {
    let probe = Command::new("blkid").args(["-p", "-o", "value", "-s", "TYPE", "--", device]);
    let output = place.host.run(probe).await?;
    match (output.success, output.code) {
        // That is how it says "none".
        (true, _) | (false, Some(2)) => Ok(output.stdout.trim().to_owned()),
        _ => {
            let detail = format!("blkid: {}", last_of(&output.stderr));
            Err(Error::new(ErrorKind::Unavailable, "look at disk", device).with_detail(detail))
        }
    }
}

pub(super) async fn mount_at(place: &Place<'_>, device: &str) -> Result<()> {
    let (host, at) = (&*place.host, &place.options.mount_point);
    must(host, "mount volume", Command::new("install").args(["-d", "-m", "0711"]).arg(at)).await?;
    let mount = Command::new("mount").args(["-t", "ext4", "-o", "nodev,nosuid,noexec,noatime,errors=remount-ro", "--"]);
    must(host, "mount volume", mount.arg(device).arg(at).limit(MOUNT_LIMIT)).await.map(drop)
}

/// The snapshot that a disk was copied with.
pub(super) async fn golden_of(qemu: &LocalQemu, volume: &VolumeId) -> Result<SnapshotId> {
    let mut found = qemu.list_snapshots(None).await?.items.into_iter().filter(|view| view.ready);
    match (found.next(), found.next()) {
        (Some(golden), None) => Ok(golden.id),
        (None, _) => Err(Error::new(ErrorKind::Corrupt, "start box", volume)
            .with_detail("its disk holds no golden snapshot; was it copied from one?")),
        (Some(one), Some(other)) => {
            let detail = format!("its disk holds two golden snapshots, {} and {}", one.id, other.id);
            Err(Error::new(ErrorKind::Corrupt, "start box", volume).with_detail(detail))
        }
    }
}

/// Makes the volume on a disk that is used for the first time, and its name plate.
pub(super) async fn fill(place: &Place<'_>, qemu: &LocalQemu, volume: &VolumeId, golden: SnapshotId) -> Result<()> {
    let plate = name_plate(&place.options.mount_point);
    let missing =
        qemu.meta(&qemu.inner.layout.volume(volume)).await.is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if place.host.look(&plate).await?.is_some() {
        if missing {
            let detail = "its disk has its name plate, and its files are gone; restore a snapshot of it";
            return Err(Error::new(ErrorKind::Corrupt, "start box", volume).with_detail(detail));
        }
        return Ok(());
    }
    let others = qemu.names_in(&qemu.inner.layout.volumes()).await?;
    if let Some(other) = others.iter().find(|name| *name != volume.as_str()) {
        let detail = format!("its disk holds volume {other} and no name plate; it was not touched");
        return Err(Error::new(ErrorKind::Corrupt, "start box", volume).with_detail(detail));
    }
    VolumeProvider::ensure(qemu, &VolumeSpec::new(volume.clone(), VolumeSource::Snapshot(golden))).await?;
    place.host.put(&plate, volume.as_str().as_bytes(), 0o644).await
}

/// Takes the disk off, after all of it was written.
pub(super) async fn unmount_at(place: &Place<'_>) -> Result<()> {
    let (host, at) = (&*place.host, &place.options.mount_point);
    must(host, "sync volume", Command::new("sync").arg("-f").arg(at).limit(MOUNT_LIMIT)).await?;
    let tries = BUSY_LIMIT.as_millis() / 100;
    let off = Command::new("sh").args(["-c", UNMOUNT, "sh"]).arg(at).arg(tries.to_string());
    let output = host.run(off.limit(MOUNT_LIMIT)).await?;
    if output.success {
        return Ok(());
    }
    let detail = format!("it is still in use: {}", last_of(&output.stderr));
    Err(Error::new(ErrorKind::Busy, "unmount volume", at.display()).with_detail(detail))
}

/// What is left of a box, if anything is.
pub(super) async fn left(place: &Place<'_>, attached_in: &[PathBuf]) -> Result<Option<String>> {
    if let Some(source) = source_at(place).await? {
        return Ok(Some(format!("the disk {source} is still mounted")));
    }
    if let Some(name) = first_in(place, &place.options.mount_point).await? {
        return Ok(Some(format!("{name} lies in {}", place.options.mount_point.display())));
    }
    for folder in attached_in {
        if let Some(name) = first_in(place, folder).await? {
            return Ok(Some(format!("a disk is attached as {name}")));
        }
    }
    // A guest without its disk: of a machine that lost it.
    let guests = Command::new("sh").args([
        "-c",
        r#"for exe in /proc/[0-9]*/exe; do case $(readlink "$exe") in */qemu-system-*) echo "$exe";; esac; done"#,
    ]);
    let guests = must(&*place.host, "look for guests", guests).await?;
    Ok(guests.stdout.lines().next().map(|exe| format!("a QEMU still runs: {exe}")))
}

async fn first_in(place: &Place<'_>, folder: &Path) -> Result<Option<String>> {
    if place.host.look(folder).await?.is_none() {
        return Ok(None);
    }
    let find = Command::new("find").arg(folder).args(["-mindepth", "1", "-maxdepth", "1", "-print", "-quit"]);
    let found = must(&*place.host, "look at mount point", find).await?.stdout;
    Ok(found.lines().next().map(str::to_owned))
}
