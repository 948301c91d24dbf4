use super::fault::Operation;
use super::listing::page;
use super::world::{Content, Link, LinkPhase, Phase, Scene, SimWorld, Snapshot, State, Volume};
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cursor, Detached, Device, Epoch, Error, ErrorKind, Page, Result, SnapshotId, SnapshotView,
    VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
use std::sync::Arc;

/// Simulated volumes.
#[derive(Debug, Clone)]
pub struct SimVolumes {
    world: Arc<SimWorld>,
}

impl SimVolumes {
    /// The volumes of `world`.
    #[must_use]
    pub fn new(world: Arc<SimWorld>) -> Self {
        Self { world }
    }
}

/// How a volume is found on its instance. The simulated runtime checks it.
pub(super) fn device_of(volume: &VolumeId) -> Device {
    Device(format!("sim:{volume}"))
}

impl Volume {
    /// Brings what is under way one look nearer to its end. `false` when the volume is gone.
    fn look(&mut self) -> bool {
        if self.looks_left > 0 {
            self.looks_left -= 1;
            return true;
        }
        match self.phase {
            Phase::Coming => self.phase = Phase::Running,
            Phase::Deleting => return false,
            Phase::Running | Phase::Stopping | Phase::Stopped => {}
        }
        true
    }

    /// The same for its way to or from an instance.
    fn look_at_link(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.looks_left > 0 {
            link.looks_left -= 1;
            return;
        }
        match link.phase {
            LinkPhase::Attaching => link.phase = LinkPhase::Attached,
            LinkPhase::Attached => {}
            LinkPhase::Detaching => self.link = None,
        }
    }

    fn view(&self, id: &VolumeId) -> VolumeView {
        let state = match self.phase {
            Phase::Coming => VolumeState::Creating,
            Phase::Running | Phase::Stopping | Phase::Stopped => VolumeState::Ready,
            Phase::Deleting => VolumeState::Deleting,
        };
        let mut view = VolumeView::new(id.clone(), state);
        view.attached_to = self.link.as_ref().map(|link| link.instance.clone());
        view.used = self.used;
        view.created_at = Some(self.created_at);
        view
    }

    /// Refuses an epoch older than the newest that was seen, and remembers a newer one.
    pub(super) fn fence(&mut self, operation: Operation, id: &VolumeId, epoch: Epoch) -> Result<()> {
        if epoch < self.epoch {
            let detail = format!("epoch {epoch} was superseded by {}", self.epoch);
            return Err(Error::new(ErrorKind::Fenced, operation.as_str(), id).with_detail(detail));
        }
        self.epoch = epoch;
        Ok(())
    }
}

impl State {
    fn look_at_volume(&mut self, id: &VolumeId) -> Option<&mut Volume> {
        if !self.volumes.get_mut(id)?.look() {
            self.remove_volume(id);
        }
        self.volumes.get_mut(id)
    }

    fn attach(&mut self, attach: &Attach, pending: u32) -> Result<Attached> {
        let operation = Operation::Attach;
        let refuse = |kind, why: String| Err(Error::new(kind, operation.as_str(), &attach.volume).with_detail(why));
        let remembers = self.limits.attach_remembers_epochs;
        match self.instances.get(&attach.instance).map(|machine| machine.phase) {
            None | Some(Phase::Deleting) => {
                return refuse(ErrorKind::NotFound, format!("there is no instance {}", attach.instance));
            }
            Some(Phase::Coming) => {
                return refuse(ErrorKind::Busy, format!("instance {} is still being made", attach.instance));
            }
            Some(Phase::Running | Phase::Stopping | Phase::Stopped) => {}
        }
        let holds = self.volume_on(&attach.instance).cloned();
        let Some(volume) = self.look_at_volume(&attach.volume).filter(|volume| volume.phase != Phase::Deleting) else {
            return refuse(ErrorKind::NotFound, "there is no such volume".into());
        };
        if volume.phase == Phase::Coming {
            return refuse(ErrorKind::Busy, "the volume is still being made".into());
        }
        if remembers && attach.epoch < volume.epoch {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        volume.look_at_link();
        match &volume.link {
            Some(link) if link.instance != attach.instance => {
                let detail = format!("the volume is attached to {}", link.instance);
                return refuse(ErrorKind::Busy, detail);
            }
            Some(link) if link.phase == LinkPhase::Detaching => {
                return refuse(ErrorKind::Busy, "the volume is being detached".into());
            }
            Some(_) => {}
            None => {
                if let Some(other) = holds.filter(|other| *other != attach.volume) {
                    return refuse(ErrorKind::Busy, format!("instance {} holds volume {other}", attach.instance));
                }
                let phase = if pending == 0 { LinkPhase::Attached } else { LinkPhase::Attaching };
                let link = Link { instance: attach.instance.clone(), phase, looks_left: pending };
                volume.link = Some(link);
            }
        }
        volume.used = true;
        if remembers {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        let done = volume.link.as_ref().is_some_and(|link| link.phase == LinkPhase::Attached);
        Ok(if done { Attached::Yes(device_of(&attach.volume)) } else { Attached::Pending })
    }

    /// `at_once` takes the volume without the instance's help, whatever is under way.
    fn detach(&mut self, operation: Operation, attach: &Attach, pending: u32, at_once: bool) -> Result<Detached> {
        let remembers = self.limits.attach_remembers_epochs;
        let guest_runs = self.guests.contains_key(&(attach.volume.clone(), attach.instance.clone()));
        let Some(volume) = self.look_at_volume(&attach.volume) else { return Ok(Detached::Yes) };
        if remembers && attach.epoch < volume.epoch {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        if guest_runs {
            return Err(Error::new(ErrorKind::Busy, operation.as_str(), &attach.volume)
                .with_detail(format!("its guest still runs on {}", attach.instance)));
        }
        if remembers {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        volume.look_at_link();
        match &mut volume.link {
            Some(link) if link.instance == attach.instance => {
                if at_once || (link.phase != LinkPhase::Detaching && pending == 0) {
                    volume.link = None;
                    return Ok(Detached::Yes);
                }
                if link.phase != LinkPhase::Detaching {
                    (link.phase, link.looks_left) = (LinkPhase::Detaching, pending);
                }
                Ok(Detached::Pending)
            }
            _ => Ok(Detached::Yes),
        }
    }
}

fn absent(operation: Operation, id: &VolumeId) -> Error {
    Error::new(ErrorKind::NotFound, operation.as_str(), id).with_detail("there is no such volume")
}

#[async_trait]
impl VolumeProvider for SimVolumes {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        let operation = Operation::VolumeEnsure;
        self.world
            .call(operation, &spec.id, |Scene { state, now, pending }| {
                if let Some(volume) = state.look_at_volume(&spec.id) {
                    return Ok(volume.view(&spec.id));
                }
                let refuse = |kind, why: String| Err(Error::new(kind, operation.as_str(), &spec.id).with_detail(why));
                let (content, bytes) = match &spec.source {
                    VolumeSource::Empty { bytes } => (Content::default(), *bytes),
                    VolumeSource::Snapshot(id) => match state.snapshots.get(id) {
                        Some(snapshot) if snapshot.looks_left == 0 => (snapshot.content.clone(), snapshot.bytes),
                        Some(_) => return refuse(ErrorKind::Busy, format!("snapshot {id} is not ready yet")),
                        None => return refuse(ErrorKind::NotFound, format!("there is no snapshot {id}")),
                    },
                    other => return refuse(ErrorKind::Invalid, format!("{other:?} is not known here")),
                };
                if let Some(most) = state.limits.volumes_max.filter(|most| state.volumes.len() >= *most) {
                    return refuse(ErrorKind::NoCapacity, format!("all {most} volumes are in use"));
                }
                let volume = Volume {
                    phase: if *pending == 0 { Phase::Running } else { Phase::Coming },
                    looks_left: *pending,
                    bytes,
                    content,
                    link: None,
                    used: false,
                    epoch: Epoch(0),
                    owner: None,
                    created_at: *now,
                };
                let view = volume.view(&spec.id);
                state.volumes.insert(spec.id.clone(), volume);
                Ok(view)
            })
            .await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        self.world
            .call(Operation::VolumeGet, id, |scene| {
                Ok(scene.state.look_at_volume(id).map(|volume| {
                    volume.look_at_link();
                    volume.view(id)
                }))
            })
            .await
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<VolumeView>> {
        self.world
            .call(Operation::VolumeList, &"all", |Scene { state, .. }| {
                Ok(page(&state.volumes, cursor, state.limits.page_size, |id, volume| volume.view(id)))
            })
            .await
    }

    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        self.world.call(Operation::Attach, &attach.volume, |scene| scene.state.attach(attach, scene.pending)).await
    }

    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        let operation = Operation::Detach;
        self.world
            .call(operation, &attach.volume, |scene| scene.state.detach(operation, attach, scene.pending, false))
            .await
    }

    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        let operation = Operation::ForceDetach;
        self.world
            .call(operation, &attach.volume, |scene| {
                let pending = scene.pending;
                scene.state.detach(operation, attach, pending, pending == 0)
            })
            .await
    }

    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        let operation = Operation::Snapshot;
        self.world
            .call(operation, volume, |Scene { state, now, pending }| {
                if let Some(snapshot) = state.snapshots.get_mut(id) {
                    snapshot.looks_left = snapshot.looks_left.saturating_sub(1);
                    return Ok(snapshot.view(id));
                }
                if state.guest_runs_on(volume) {
                    return Err(Error::new(ErrorKind::Busy, operation.as_str(), volume)
                        .with_detail("a guest runs on the volume; suspend or stop it first"));
                }
                let source = state.look_at_volume(volume).ok_or_else(|| absent(operation, volume))?;
                let (content, bytes) = (source.content.clone(), source.bytes);
                let snapshot = Snapshot { content, bytes, looks_left: *pending, created_at: *now };
                let view = snapshot.view(id);
                state.snapshots.insert(id.clone(), snapshot);
                Ok(view)
            })
            .await
    }

    async fn list_snapshots(&self, cursor: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        self.world
            .call(Operation::SnapshotList, &"all", |Scene { state, .. }| {
                for snapshot in state.snapshots.values_mut() {
                    snapshot.looks_left = snapshot.looks_left.saturating_sub(1);
                }
                Ok(page(&state.snapshots, cursor, state.limits.page_size, |id, snapshot| snapshot.view(id)))
            })
            .await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        self.world
            .call(Operation::SnapshotDelete, id, |scene| {
                scene.state.snapshots.remove(id);
                Ok(())
            })
            .await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let operation = Operation::VolumeDelete;
        self.world
            .call(operation, id, |Scene { state, pending, .. }| {
                let Some(volume) = state.look_at_volume(id) else { return Ok(()) };
                volume.look_at_link();
                if let Some(link) = &volume.link {
                    return Err(Error::new(ErrorKind::Busy, operation.as_str(), id)
                        .with_detail(format!("the volume is attached to {}; detach it first", link.instance)));
                }
                if volume.phase == Phase::Deleting {
                    return Ok(());
                }
                (volume.phase, volume.looks_left) = (Phase::Deleting, *pending);
                if *pending == 0 {
                    state.remove_volume(id);
                }
                Ok(())
            })
            .await
    }

    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        let operation = Operation::VolumeResize;
        self.world
            .call(operation, id, |Scene { state, .. }| {
                let guest_runs = state.guest_runs_on(id);
                let volume = state.look_at_volume(id).ok_or_else(|| absent(operation, id))?;
                if bytes > volume.bytes {
                    if guest_runs {
                        return Err(Error::new(ErrorKind::Busy, operation.as_str(), id)
                            .with_detail("a guest runs on the volume; suspend or stop it first"));
                    }
                    volume.bytes = bytes;
                }
                Ok(())
            })
            .await
    }
}

impl Snapshot {
    fn view(&self, id: &SnapshotId) -> SnapshotView {
        let mut view = SnapshotView::new(id.clone(), self.looks_left == 0);
        view.created_at = Some(self.created_at);
        view
    }
}
