//! Volumes.
//!
//! Where a disk is, two sources tell: the disk says which machine manages it, the machine lists its data disks. It is
//! attached when both say so and the machine's last change is done; it is detached when neither says so. `diskState` lags
//! and is not asked. A machine is changed by naming the one disk that comes or goes, never by sending its list of disks
//! back, so that two changes cannot undo each other.
//!
//! If the process dies after a request, the disk and the machine show what became of it, and the next call goes on there.
//!
//! The service knows nothing of guests and of epochs: a detach does not see whether a guest runs, and an older epoch is
//! not refused here. The runtime's mark on the volume does both.

use crate::ancestry;
use crate::arm::{Disk, Snapshot};
use crate::bodies::{self, DiskSource, gib};
use crate::cloud::{AzureCloud, Inner, Work, busy, busy_for, is_superseded, refused};
use crate::errors::{Act, Failure};
use crate::poll::Progress;
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cursor, Detached, Device, Error, ErrorKind, Page, Result, SnapshotId, SnapshotView, VolumeId,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What a [`Device`] of this backend says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AzureDevice {
    /// The slot: `/dev/disk/azure/scsi1/lun<n>`, or namespace n + 2 of the NVMe controller.
    pub lun: u32,
    /// The disk's identity, which no later disk of the same name has.
    pub disk: String,
    /// The volumes that it was made as a copy of, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied_from: Vec<VolumeId>,
}

impl AzureDevice {
    /// Reads what [`VolumeProvider::attach`] returned.
    ///
    /// # Errors
    /// `Corrupt` when it is another backend's.
    pub fn read(device: &Device) -> Result<Self> {
        serde_json::from_str(&device.0).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "read device", device)
                .with_detail("it was not made by this backend")
                .with_source(error)
        })
    }

    fn write(&self) -> Device {
        Device(json!(self).to_string())
    }
}

impl Inner {
    /// The disk, if it is there and ours.
    pub(crate) async fn disk(&self, operation: &'static str, id: &VolumeId) -> Result<Option<Disk>> {
        let name = self.pool.disk(id)?;
        let found = self.arm.disk(&name).await.map_err(|failure| Act::read(operation, id.as_str()).failed(failure))?;
        if let Some(disk) = &found {
            self.check_ours(operation, &disk.common, id.as_str())?;
        }
        Ok(found)
    }

    pub(crate) fn volume_view(&self, id: &VolumeId, disk: &Disk) -> VolumeView {
        let common = &disk.common;
        let state = if common.is_in("Succeeded") || (common.is_in("Updating") && disk.managed_by.is_some()) {
            VolumeState::Ready
        } else if common.is_in("Creating") || common.is_in("Updating") {
            VolumeState::Creating
        } else if common.is_in("Deleting") {
            VolumeState::Deleting
        } else if common.is_in("Failed") {
            VolumeState::Failed("provisioning failed".into())
        } else {
            VolumeState::Other(common.provisioning.clone())
        };
        let mut view = VolumeView::new(id.clone(), state);
        view.attached_to = disk.managed_by.as_ref().and_then(|machine| self.pool.instance_of(machine.name()));
        view.used = disk.changed_hands;
        view.created_at = common.created_at;
        view
    }

    pub(crate) async fn found_snapshot(&self, operation: &'static str, id: &SnapshotId) -> Result<Option<Snapshot>> {
        let name = self.pool.snapshot(id)?;
        let found = self.arm.snapshot(&name).await;
        let found = found.map_err(|failure| Act::read(operation, id.as_str()).failed(failure))?;
        if let Some(snapshot) = &found {
            self.check_ours(operation, &snapshot.common, id.as_str())?;
        }
        Ok(found)
    }

    /// Begins to copy a disk. Volumes that are made of it are tagged with what `copied_from` says.
    pub(crate) async fn copy(
        &self,
        volume: &VolumeId,
        id: &SnapshotId,
        copied_from: impl FnOnce(&Disk) -> Vec<VolumeId> + Send,
    ) -> Result<SnapshotView> {
        let act = Act::write("snapshot volume", volume.as_str());
        let name = self.pool.snapshot(id)?;
        let _alone = self.alone(format!("snapshot/{name}")).await;
        let disk = self.disk(act.operation, volume).await?;
        let found = self.found_snapshot(act.operation, id).await?;
        let going = found.as_ref().is_some_and(|found| found.common.is_in("Deleting"));
        if let Some(found) = found.filter(|_| !going) {
            return Ok(snapshot_view(id, &found));
        }
        let disk = disk.ok_or_else(|| absent(act.operation, volume, "disk"))?;
        if going {
            return Err(busy(act.operation, volume, "an earlier snapshot of that id is still being deleted"));
        }
        let mut body = bodies::snapshot(&self.options, &self.pool, id.as_str(), &disk.common.id);
        ancestry::tag(&mut body, &copied_from(&disk));
        self.arm.put_snapshot(&name, body).await.map_err(|failure| act.failed(failure))?;
        Ok(SnapshotView::new(id.clone(), false))
    }

    /// Detaches, by force or not.
    async fn leave(&self, attach: &Attach, force: bool) -> Result<Detached> {
        let act = Act::write("detach volume", attach.volume.as_str());
        let (disk_name, machine_name) = (self.pool.disk(&attach.volume)?, self.pool.machine(&attach.instance)?);
        let _disk = self.alone_with_disk(&disk_name).await;
        let _machine = self.alone_with_machine(&machine_name).await;
        match self.progress(&machine_name).await {
            // What was begun gently may be ended by force.
            Some((Work::Detach { disk, force: false }, Progress::Running(_))) if force && disk == disk_name => {}
            Some((_, Progress::Running(_))) => return Ok(Detached::Pending),
            Some((Work::Detach { disk, .. }, Progress::Failed(why))) if disk == disk_name && !is_superseded(&why) => {
                return Err(act.failed(refused(why)));
            }
            _ => {}
        }
        let Some(disk) = self.disk(act.operation, &attach.volume).await? else { return Ok(Detached::Yes) };
        let machine_id = self.arm.id("virtualMachines", &machine_name);
        let managed_there = disk.managed_by.as_ref() == Some(&machine_id);
        let machine = self.arm.machine(&machine_name).await.map_err(|failure| act.failed(failure))?;
        let held = machine.as_ref().and_then(|machine| Some((machine, machine.holds(&disk.common.id)?)));
        let Some((machine, held)) = held else {
            // The service takes its time to let go of what a machine had that is gone.
            return Ok(if managed_there { Detached::Pending } else { Detached::Yes });
        };
        self.check_ours(act.operation, &machine.common, attach.instance.as_str())?;
        if force && machine.power == "running" && !machine.common.is_in("Deleting") {
            let why = "its machine runs; only from one that is stopped or gone a volume is taken by force";
            return Err(busy(act.operation, &attach.volume, why));
        }
        if machine.common.is_in("Deleting") {
            return Ok(Detached::Pending);
        }
        // A disk that is marked while nothing goes on is left from a detach that failed: it is asked for again.
        if held.leaving && machine.common.is_in("Updating") && !force {
            return Ok(Detached::Pending);
        }
        let begun = match self.arm.detach(&machine_name, &disk.common.id, force).await {
            Ok(begun) => begun,
            // Gone in between; the next look confirms it.
            Err(Failure::Refused(why)) if why.status == 404 || why.has_code("DetachUnattachedDisk") => {
                return Ok(Detached::Pending);
            }
            Err(failure) => return Err(act.failed(failure)),
        };
        self.began(&machine_name, Work::Detach { disk: disk_name, force }, begun);
        Ok(Detached::Pending)
    }
}

pub(crate) fn absent(operation: &'static str, id: impl std::fmt::Display, what: &str) -> Error {
    Error::new(ErrorKind::NotFound, operation, id).with_detail(format!("there is no such {what}"))
}

fn snapshot_view(id: &SnapshotId, snapshot: &Snapshot) -> SnapshotView {
    let mut view = SnapshotView::new(id.clone(), snapshot.is_ready());
    view.created_at = snapshot.common.created_at;
    view
}

#[async_trait]
impl VolumeProvider for AzureCloud {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        let act = Act::write("create volume", spec.id.as_str());
        let name = self.inner.pool.disk(&spec.id)?;
        let _alone = self.inner.alone_with_disk(&name).await;
        if let Some(disk) = self.inner.disk(act.operation, &spec.id).await? {
            return Ok(self.inner.volume_view(&spec.id, &disk));
        }
        if spec.id.as_str().starts_with("disk:") {
            return Err(absent(act.operation, &spec.id, "disk, and adopted ones are not made anew"));
        }
        let mut copied_from = Vec::new();
        let source = match &spec.source {
            VolumeSource::Empty { bytes } => DiskSource::Empty { bytes: *bytes },
            VolumeSource::Snapshot(snapshot) => {
                let found = self.inner.found_snapshot(act.operation, snapshot).await?;
                let found = found.ok_or_else(|| absent(act.operation, snapshot, "snapshot; run init"))?;
                copied_from = ancestry::copied_from(&found.common);
                DiskSource::Snapshot(found.common.id)
            }
            other => {
                return Err(Error::new(ErrorKind::Invalid, act.operation, &spec.id)
                    .with_detail(format!("{other:?} is not known here")));
            }
        };
        let mut body = bodies::disk(&self.inner.options, &self.inner.pool, spec.id.as_str(), &source);
        ancestry::tag(&mut body, &copied_from);
        self.inner.arm.put_disk(&name, body).await.map_err(|failure| act.failed(failure))?;
        let mut view = VolumeView::new(spec.id.clone(), VolumeState::Creating);
        view.used = false;
        Ok(view)
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        let disk = self.inner.disk("find volume", id).await?;
        Ok(disk.map(|disk| self.inner.volume_view(id, &disk)))
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<VolumeView>> {
        let act = Act::read("list volumes", self.inner.pool.as_str());
        let page = self.inner.arm.disks(cursor.map(|cursor| cursor.0.as_str())).await;
        let page = page.map_err(|failure| act.failed(failure))?;
        // OS disks come without tags and go with their machines.
        let ours = page.items.iter().filter(|disk| self.inner.is_ours(&disk.common));
        let items = ours
            .filter_map(|disk| Some(self.inner.volume_view(&self.inner.pool.volume_of(&disk.common.name)?, disk)))
            .collect();
        Ok(Page { items, next: page.next.map(Cursor) })
    }

    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        let act = Act::write("attach volume", attach.volume.as_str());
        let inner = &*self.inner;
        let (disk_name, machine_name) = (inner.pool.disk(&attach.volume)?, inner.pool.machine(&attach.instance)?);
        let _disk = inner.alone_with_disk(&disk_name).await;
        let _machine = inner.alone_with_machine(&machine_name).await;
        match inner.progress(&machine_name).await {
            Some((Work::Attach { disk }, Progress::Running(_))) if disk == disk_name => return Ok(Attached::Pending),
            Some((Work::Repair, Progress::Running(_))) => return Ok(Attached::Pending),
            // Whether it is up, the machine itself tells, and sooner.
            Some((Work::Create | Work::Start, _)) => {}
            Some((_, Progress::Running(wait))) => return Err(busy_for(act.operation, &attach.volume, wait)),
            Some((Work::Attach { disk }, Progress::Failed(why))) if disk == disk_name && !is_superseded(&why) => {
                return Err(act.failed(refused(why)));
            }
            Some((Work::Repair, Progress::Failed(why))) if !is_superseded(&why) => {
                return Err(act.failed(refused(why)));
            }
            _ => {}
        }
        let disk = inner.disk(act.operation, &attach.volume).await?;
        let disk = disk.ok_or_else(|| absent(act.operation, &attach.volume, "disk"))?;
        let machine = inner.machine(act.operation, &attach.instance).await?;
        let machine = machine.ok_or_else(|| absent(act.operation, &attach.instance, "machine"))?;
        let managed_here = match &disk.managed_by {
            Some(by) if *by != machine.common.id => {
                return Err(busy(act.operation, &attach.volume, format!("it is attached to {}", by.name())));
            }
            managed_by => managed_by.is_some(),
        };
        // After a change that failed the lists of disks may say what was wanted rather than what is, and the service attaches
        // nothing more, until another change went well.
        if machine.common.is_in("Failed") && inner.may_repair(&machine_name) {
            let begun = inner.arm.update_machine(&machine_name, json!({}), None).await;
            inner.began(&machine_name, Work::Repair, begun.map_err(|failure| act.failed(failure))?);
            return Ok(Attached::Pending);
        }
        if let Some(held) = machine.holds(&disk.common.id) {
            let settled = managed_here && !machine.common.is_in("Updating");
            return match held.lun {
                _ if held.leaving => Err(busy(act.operation, &attach.volume, "it is still being detached")),
                Some(lun) if settled => {
                    let copied_from = ancestry::copied_from(&disk.common);
                    Ok(Attached::Yes(AzureDevice { lun, disk: disk.unique_id.clone(), copied_from }.write()))
                }
                _ => Ok(Attached::Pending),
            };
        }
        if managed_here {
            return Ok(Attached::Pending);
        }
        if let Some(other) = machine.disks.first() {
            let why = format!("{} holds {}", attach.instance, other.id.name());
            return Err(busy(act.operation, &attach.volume, why));
        }
        if !disk.common.is_in("Succeeded") {
            let why = format!("the disk is in state {}", disk.common.provisioning);
            return Err(busy(act.operation, &attach.volume, why));
        }
        if machine.common.is_in("Creating") || machine.common.is_in("Deleting") {
            let why = format!("{} is in state {}", attach.instance, machine.common.provisioning);
            return Err(busy(act.operation, &attach.volume, why));
        }
        let lun = machine
            .free_lun(inner.options.machines.max_data_disks)
            .ok_or_else(|| busy(act.operation, &attach.volume, format!("{} has no slot left", attach.instance)))?;
        let begun = inner.arm.attach(&machine_name, &disk.common.id, lun).await;
        let begun = begun.map_err(|failure| act.failed(failure))?;
        inner.began(&machine_name, Work::Attach { disk: disk_name }, begun);
        Ok(Attached::Pending)
    }

    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        self.inner.leave(attach, false).await
    }

    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        self.inner.leave(attach, true).await
    }

    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        let of = |disk: &Disk| ancestry::of_copy(volume, ancestry::copied_from(&disk.common));
        self.inner.copy(volume, id, of).await
    }

    async fn list_snapshots(&self, cursor: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        let act = Act::read("list snapshots", self.inner.pool.as_str());
        let page = self.inner.arm.snapshots(cursor.map(|cursor| cursor.0.as_str())).await;
        let page = page.map_err(|failure| act.failed(failure))?;
        let ours = page.items.iter().filter(|snapshot| self.inner.is_ours(&snapshot.common));
        let items = ours
            .filter_map(|found| Some(snapshot_view(&self.inner.pool.snapshot_of(&found.common.name)?, found)))
            .collect();
        Ok(Page { items, next: page.next.map(Cursor) })
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let act = Act::write("delete snapshot", id.as_str());
        let name = self.inner.pool.snapshot(id)?;
        match self.inner.found_snapshot(act.operation, id).await? {
            Some(found) if !found.common.is_in("Deleting") => {
                self.inner.arm.delete_snapshot(&name).await.map(drop).map_err(|failure| act.failed(failure))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let act = Act::write("delete volume", id.as_str());
        let name = self.inner.pool.disk(id)?;
        // Not while this process attaches it: the service has deleted disks under an attach.
        let _alone = self.inner.alone_with_disk(&name).await;
        let Some(disk) = self.inner.disk(act.operation, id).await? else { return Ok(()) };
        if let Some(machine) = &disk.managed_by {
            return Err(busy(act.operation, id, format!("it is attached to {}", machine.name())));
        }
        if disk.common.is_in("Deleting") {
            return Ok(());
        }
        if self.inner.is_coming_or_going(&name) {
            return Err(busy(act.operation, id, "it is being attached or detached"));
        }
        match self.inner.arm.delete_disk(&name).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused(why)) if why.status == 404 => Ok(()),
            Err(failure) => Err(act.failed(failure)),
        }
    }

    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        let act = Act::write("resize volume", id.as_str());
        let name = self.inner.pool.disk(id)?;
        let _alone = self.inner.alone_with_disk(&name).await;
        let disk = self.inner.disk(act.operation, id).await?.ok_or_else(|| absent(act.operation, id, "disk"))?;
        if disk.gib >= gib(bytes) {
            return Ok(());
        }
        let body = json!({ "properties": { "diskSizeGB": gib(bytes) } });
        self.inner.arm.update_disk(&name, body).await.map(drop).map_err(|failure| act.failed(failure))
    }
}
