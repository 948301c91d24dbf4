//! Volumes of this host: folders with a qcow2 clone of a snapshot's disk and a copy of its memory.
//!
//! A volume is made beside its place and moved there when it is whole, so a half-made one is never seen. Which slot it is
//! on stands in its own `attached.json`; the slot's file only points back.

use crate::LocalQemu;
use crate::golden::Manifest;
use crate::host::{Command, must};
use crate::kept::Kept;
use crate::layout::VolumeDir;
use crate::mac::Mac;
use crate::machine::Machine;
use crate::saved::{AttachedTo, Meta, SCHEMA, Saved};
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cursor, Detached, Device, Error, ErrorKind, Page, Result, SnapshotId, SnapshotView, VolumeId,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
use std::time::Duration;

/// Copying a snapshot's memory: some hundred megabytes.
const COPY_LIMIT: Duration = Duration::from_secs(180);

impl LocalQemu {
    async fn view(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        let volume = self.inner.layout.volume(id);
        if self.inner.host.read(&volume.meta()).await?.is_none() {
            return Ok(None);
        }
        let attached: Option<AttachedTo> = self.load(&volume.attached()).await?;
        let mut view = VolumeView::new(id.clone(), VolumeState::Ready);
        view.attached_to = attached.map(|to| to.instance);
        view.used = self.inner.host.read(&volume.epoch()).await?.is_some();
        Ok(Some(view))
    }

    async fn clone_snapshot(&self, id: &VolumeId, snapshot: &SnapshotId) -> Result<()> {
        if let Some(kept) = self.kept(snapshot).await? {
            return self.clone_kept(id, snapshot, kept).await;
        }
        let host = &*self.inner.host;
        let from = self.inner.layout.snapshot(snapshot);
        let manifest: Option<Manifest> = self.load(&from.join("manifest.json")).await?;
        let manifest = manifest.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "create volume", snapshot)
                .with_detail("there is no such snapshot here; run init")
        })?;
        let memory = u64::from(manifest.machine.memory_mib) << 20;
        self.require_room(&self.inner.layout.state, memory).await?;

        let work = self.beside(id).await?;
        let create = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
        must(host, "create volume", create.arg(from.join("disk.qcow2")).arg(work.disk())).await?;
        let copy = Command::new("cp")
            .args(["--sparse=always", "--no-preserve=mode"])
            .args([from.join("mem"), from.join("state")]);
        must(host, "create volume", copy.arg(&work.dir).limit(COPY_LIMIT)).await?;
        let host_key = self.make_host_key(&work).await?;
        let state_bytes = self.size(&work.state()).await?.unwrap_or(0);
        let meta = Meta {
            schema: SCHEMA,
            snapshot: snapshot.clone(),
            machine: manifest.machine,
            login: manifest.login,
            host_key,
            identified: false,
            disk_generation: 0,
        };
        self.save(&work.meta(), &meta).await?;
        self.save(&work.saved(), &Saved { disk_generation: 0, state_bytes }).await?;
        must(host, "create volume", Command::new("chmod").arg("0600").args([work.disk(), work.mem(), work.state()]))
            .await?;
        must(
            host,
            "create volume",
            Command::new("sync").args([work.disk(), work.mem(), work.state()]).limit(COPY_LIMIT),
        )
        .await?;
        self.put_in_place(&work, id).await
    }

    /// A copy of a box's disk: with a host key and a MAC address of its own, and without memory, so that it boots and is then made its own machine.
    async fn clone_kept(&self, id: &VolumeId, snapshot: &SnapshotId, kept: Kept) -> Result<()> {
        let host = &*self.inner.host;
        let disk = self.kept_place(snapshot).join("disk.qcow2");
        let used = host.look(&disk).await?.map_or(0, |facts| facts.allocated_bytes);
        self.require_room(&self.inner.layout.state, used).await?;
        let work = self.beside(id).await?;
        self.copy_disk(&disk, &work.disk()).await?;
        let host_key = self.make_host_key(&work).await?;
        let Kept { base, machine, login, .. } = kept;
        let machine = Machine { mac: Mac::of(id), ..machine };
        let (identified, disk_generation) = (false, 0);
        let meta = Meta { schema: SCHEMA, snapshot: base, machine, login, host_key, identified, disk_generation };
        self.save(&work.meta(), &meta).await?;
        must(host, "create volume", Command::new("chmod").arg("0600").arg(work.disk())).await?;
        self.put_in_place(&work, id).await
    }

    /// An empty folder in which a volume is made.
    async fn beside(&self, id: &VolumeId) -> Result<VolumeDir> {
        let mut work = self.inner.layout.volume(id);
        work.dir = self.inner.layout.volumes().join(format!(".{id}.partial"));
        must(&*self.inner.host, "create volume", Command::new("rm").arg("-rf").arg(&work.dir)).await?;
        self.make_dir(&work.dir, "0711").await?;
        Ok(work)
    }

    /// A host key of the volume's own. Returns its public part.
    pub(crate) async fn make_host_key(&self, work: &VolumeDir) -> Result<String> {
        let host = &*self.inner.host;
        let keygen = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "box", "-f"]);
        must(host, "create volume", keygen.arg(work.host_key())).await?;
        let public = host.read(&work.dir.join("host_key.pub")).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&public).split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    async fn put_in_place(&self, work: &VolumeDir, id: &VolumeId) -> Result<()> {
        let place = self.inner.layout.volume(id);
        let moved = Command::new("mv").arg("-T").args([&work.dir, &place.dir]);
        must(&*self.inner.host, "create volume", moved).await.map(drop)
    }
}

#[async_trait]
impl VolumeProvider for LocalQemu {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        let lock = self.inner.layout.volumes().join(format!(".{}.lock", spec.id));
        let _making = self.inner.host.lock(&lock, COPY_LIMIT).await?;
        if let Some(view) = self.view(&spec.id).await? {
            return Ok(view);
        }
        match &spec.source {
            VolumeSource::Snapshot(snapshot) => self.clone_snapshot(&spec.id, snapshot).await?,
            other => {
                let detail = format!("{other:?} cannot be booted; volumes here are copies of a snapshot");
                return Err(Error::new(ErrorKind::Invalid, "create volume", &spec.id).with_detail(detail));
            }
        }
        let mut view = VolumeView::new(spec.id.clone(), VolumeState::Ready);
        view.used = false;
        Ok(view)
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        self.view(id).await
    }

    async fn list(&self, _cursor: Option<&Cursor>) -> Result<Page<VolumeView>> {
        let mut items = Vec::new();
        for name in self.names_in(&self.inner.layout.volumes()).await? {
            if let Ok(id) = VolumeId::new(name) {
                items.extend(self.view(&id).await?);
            }
        }
        Ok(Page { items, next: None })
    }

    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        let volume = self.inner.layout.volume(&attach.volume);
        let _slot = self.slot_locked(&attach.instance).await?;
        if !self.slot_exists(&attach.instance).await? {
            return Err(Error::new(ErrorKind::NotFound, "attach volume", &attach.instance)
                .with_detail("there is no such slot here"));
        }
        let _lock = self.locked(&volume).await?;
        self.fence("attach volume", &volume, attach.epoch).await?;
        let device = || Attached::Yes(Device(volume.dir.to_string_lossy().into_owned()));
        let attached: Option<AttachedTo> = self.load(&volume.attached()).await?;
        match attached {
            Some(to) if to.instance == attach.instance => return Ok(device()),
            // The slot it was on is gone, and its guest with it.
            Some(to) if !self.slot_exists(&to.instance).await? => {}
            Some(to) => {
                let detail = format!("it is attached to {}", to.instance);
                return Err(Error::new(ErrorKind::Busy, "attach volume", &attach.volume).with_detail(detail));
            }
            None => {}
        }
        if let Some(other) = self.volume_on(&attach.instance).await? {
            let detail = format!("{} holds volume {other}", attach.instance);
            return Err(Error::new(ErrorKind::Busy, "attach volume", &attach.volume).with_detail(detail));
        }
        // The pointer first: a pointer that the volume does not confirm counts for nothing.
        let pointer = self.inner.layout.slot(&attach.instance).join("volume");
        self.inner.host.put(&pointer, attach.volume.as_str().as_bytes(), 0o644).await?;
        self.save(&volume.attached(), &AttachedTo { instance: attach.instance.clone(), epoch: attach.epoch }).await?;
        Ok(device())
    }

    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        let volume = self.inner.layout.volume(&attach.volume);
        let _lock = match self.locked(&volume).await {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Detached::Yes),
            Err(error) => return Err(error),
        };
        self.fence("detach volume", &volume, attach.epoch).await?;
        let attached: Option<AttachedTo> = self.load(&volume.attached()).await?;
        if attached.is_none_or(|to| to.instance != attach.instance) {
            return Ok(Detached::Yes);
        }
        if self.pid(&volume).await?.is_some() {
            let detail = format!("its guest still runs on {}", attach.instance);
            return Err(Error::new(ErrorKind::Busy, "detach volume", &attach.volume).with_detail(detail));
        }
        self.inner.host.remove(&[volume.attached()]).await?;
        must(&*self.inner.host, "detach volume", Command::new("sync").arg(&volume.dir)).await?;
        Ok(Detached::Yes)
    }

    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        self.detach(attach).await
    }

    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        if self.kept(id).await?.is_some() {
            return Ok(SnapshotView::new(id.clone(), true));
        }
        let source = self.inner.layout.volume(volume);
        let _lock = self.locked(&source).await?;
        if self.pid(&source).await?.is_some() {
            let detail = "its guest runs; suspend it first";
            return Err(Error::new(ErrorKind::Busy, "snapshot volume", volume).with_detail(detail));
        }
        let meta = self.meta(&source).await?;
        // Another process may have made it while this one waited.
        if self.kept(id).await?.is_none() {
            self.keep(&source, &meta, id).await?;
        }
        Ok(SnapshotView::new(id.clone(), true))
    }

    async fn list_snapshots(&self, _cursor: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        let mut items = Vec::new();
        for name in self.names_in(&self.inner.layout.snapshots()).await? {
            let ready =
                self.inner.host.read(&self.inner.layout.snapshots().join(&name).join("manifest.json")).await?.is_some();
            items.extend(SnapshotId::new(name).ok().map(|id| SnapshotView::new(id, ready)));
        }
        let kept = self.names_in(&self.inner.layout.kept()).await?;
        items.extend(
            kept.into_iter().filter_map(|name| SnapshotId::new(name).ok()).map(|id| SnapshotView::new(id, true)),
        );
        Ok(Page { items, next: None })
    }

    /// Volumes copied from a golden one use its disk as their base, and so do the snapshots of boxes: one that is in use is kept.
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        if self.forget(id).await? {
            return Ok(());
        }
        for name in self.names_in(&self.inner.layout.kept()).await? {
            let Ok(kept) = SnapshotId::new(name) else { continue };
            if self.kept(&kept).await?.is_some_and(|kept| kept.base == *id) {
                let detail = format!("snapshot {kept} is based on it; it goes when that is deleted");
                return Err(Error::new(ErrorKind::Busy, "delete snapshot", id).with_detail(detail));
            }
        }
        for name in self.names_in(&self.inner.layout.volumes()).await? {
            let Ok(volume) = VolumeId::new(name) else { continue };
            let meta: Option<Meta> = self.load(&self.inner.layout.volume(&volume).meta()).await?;
            if meta.is_some_and(|meta| meta.snapshot == *id) {
                let detail = format!("volume {volume} is based on it; it goes when that is deleted");
                return Err(Error::new(ErrorKind::Busy, "delete snapshot", id).with_detail(detail));
            }
        }
        let place = self.inner.layout.snapshot(id);
        must(&*self.inner.host, "delete snapshot", Command::new("rm").arg("-rf").arg(place)).await.map(drop)
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let volume = self.inner.layout.volume(id);
        let _lock = match self.locked(&volume).await {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let attached: Option<AttachedTo> = self.load(&volume.attached()).await?;
        if let Some(to) = attached
            && self.slot_exists(&to.instance).await?
        {
            let detail = format!("it is attached to {}", to.instance);
            return Err(Error::new(ErrorKind::Busy, "delete volume", id).with_detail(detail));
        }
        if self.pid(&volume).await?.is_some() {
            return Err(Error::new(ErrorKind::Busy, "delete volume", id).with_detail("its guest runs"));
        }
        let doomed = self.inner.layout.volumes().join(format!(".{id}.deleted"));
        let host = &*self.inner.host;
        must(host, "delete volume", Command::new("rm").arg("-rf").arg(&doomed)).await?;
        must(host, "delete volume", Command::new("mv").arg("-T").args([&volume.dir, &doomed])).await?;
        must(host, "delete volume", Command::new("rm").arg("-rf").args([&doomed, &volume.run]).limit(COPY_LIMIT))
            .await
            .map(drop)
    }

    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        let volume = self.inner.layout.volume(id);
        let _lock = self.locked(&volume).await?;
        if self.pid(&volume).await?.is_some() {
            return Err(
                Error::new(ErrorKind::Busy, "resize volume", id).with_detail("its guest runs; suspend it first")
            );
        }
        let host = &*self.inner.host;
        let info =
            must(host, "resize volume", Command::new("qemu-img").args(["info", "--output=json"]).arg(volume.disk()))
                .await?;
        let info: serde_json::Value = serde_json::from_str(&info.stdout).unwrap_or_default();
        if info["virtual-size"].as_u64().is_some_and(|size| size >= bytes) {
            return Ok(());
        }
        let resize =
            Command::new("qemu-img").args(["resize", "-q", "-f", "qcow2"]).arg(volume.disk()).arg(bytes.to_string());
        must(host, "resize volume", resize).await.map(drop)
    }
}
