use super::fault::Operation;
use super::listing::{forget_some, page};
use super::world::{Content, Link, LinkPhase, Look, Phase, Scene, SimWorld, Snapshot, State, Volume};
use crate::engine::Caller;
use crate::planted::{self, Bug};
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cursor, Detached, Device, Epoch, Error, ErrorKind, Page, Result, SnapshotCopier, SnapshotCopy,
    SnapshotId, SnapshotLocation, SnapshotView, VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState,
    VolumeView,
};
use std::sync::Arc;

/// Simulated volumes.
#[derive(Debug, Clone)]
pub struct SimVolumes {
    world: Arc<SimWorld>,
    caller: Option<Caller>,
}

impl SimVolumes {
    /// The volumes of `world`.
    #[must_use]
    pub fn new(world: Arc<SimWorld>) -> Self {
        Self { world, caller: None }
    }

    pub(crate) fn of(world: Arc<SimWorld>, caller: Caller) -> Self {
        Self { world, caller: Some(caller) }
    }
}

/// How a volume is found on its instance. The simulated runtime checks it.
pub(super) fn device_of(volume: &VolumeId) -> Device {
    Device(format!("sim:{volume}"))
}

impl Volume {
    /// Brings what is under way one look nearer to its end. `false` when the volume is gone.
    fn look(&mut self, now: u64) -> bool {
        if self.looks_left > 0 {
            self.looks_left -= 1;
            return true;
        }
        if now < self.due {
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
    fn look_at_link(&mut self, now: u64) {
        let Some(link) = &mut self.link else { return };
        if link.looks_left > 0 {
            link.looks_left -= 1;
            return;
        }
        if now < link.due {
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
        let now = self.now;
        if !self.volumes.get_mut(id)?.look(now) {
            self.remove_volume(id);
        }
        self.volumes.get_mut(id)
    }

    fn ensure_volume(scene: &mut Scene<'_>, spec: &VolumeSpec) -> Result<VolumeView> {
        let operation = Operation::VolumeEnsure;
        let (at_once, pending, due, now) = (scene.at_once(), scene.pending, scene.due, scene.now);
        let state = &mut *scene.state;
        if let Some(volume) = state.look_at_volume(&spec.id) {
            if planted::is(Bug::EnsureFillsAnew) {
                volume.content = Content::default();
            }
            return Ok(volume.view(&spec.id));
        }
        let refuse = |kind, why: String| Err(Error::new(kind, operation.as_str(), &spec.id).with_detail(why));
        let (content, bytes, epoch) = match &spec.source {
            VolumeSource::Empty { bytes } => (Content::default(), *bytes, Epoch(0)),
            VolumeSource::Snapshot(id) => match state.snapshots.get(id) {
                Some(snapshot) if snapshot.is_ready(state.now) => {
                    (snapshot.content.clone(), snapshot.bytes, snapshot.epoch)
                }
                Some(_) => return refuse(ErrorKind::Busy, format!("snapshot {id} is not ready yet")),
                None => return refuse(ErrorKind::NotFound, format!("there is no snapshot {id}")),
            },
            other => return refuse(ErrorKind::Invalid, format!("{other:?} is not known here")),
        };
        if let Some(most) = state.limits.volumes_max.filter(|most| state.volumes.len() >= *most) {
            return refuse(ErrorKind::NoCapacity, format!("all {most} volumes are in use"));
        }
        let zone = state.zone_for_volume(&spec.id);
        let volume = Volume {
            zone,
            phase: if at_once { Phase::Running } else { Phase::Coming },
            looks_left: pending,
            due,
            bytes,
            content,
            link: None,
            used: false,
            epoch,
            owner: None,
            created_at: now,
        };
        let view = volume.view(&spec.id);
        state.volumes.insert(spec.id.clone(), volume);
        Ok(view)
    }

    /// In turn, by a digest of its name, so that the order of calls does not matter.
    fn zone_for_volume(&self, id: &VolumeId) -> Option<u8> {
        let zones = u64::from(self.limits.zones);
        let place = crate::engine::Hash::new(0).text("zone").text(id.as_str()).draw().next() % zones.max(1);
        self.limits.zonal_volumes.then(|| u8::try_from(place + 1).unwrap_or(1))
    }

    fn list_volumes(scene: &mut Scene<'_>, cursor: Option<&Cursor>) -> Page<VolumeView> {
        let state = &mut *scene.state;
        let limit = state.limits.page_size;
        match scene.look {
            Look::Now => {
                let page = page(&state.volumes, cursor, limit, |id, volume| volume.view(id));
                if cursor.is_none() && page.next.is_none() {
                    state.listed_volumes.clone_from(&page.items);
                }
                page
            }
            Look::Stale => Page { items: state.listed_volumes.clone(), next: None },
            Look::Incomplete(luck) => {
                let mut page = page(&state.volumes, cursor, limit, |id, volume| volume.view(id));
                forget_some(&mut page.items, luck);
                page
            }
        }
    }

    fn attach(scene: &mut Scene<'_>, attach: &Attach) -> Result<Attached> {
        let operation = Operation::Attach;
        let refuse = |kind, why: String| Err(Error::new(kind, operation.as_str(), &attach.volume).with_detail(why));
        let (at_once, pending, due) = (scene.at_once(), scene.pending, scene.due);
        let state = &mut *scene.state;
        let now = state.now;
        let remembers = state.limits.attach_remembers_epochs;
        let zone = state.instances.get(&attach.instance).map(|machine| machine.zone);
        let out = zone.is_some_and(|zone| state.limits.zones_out.contains(&zone));
        match state.instances.get(&attach.instance).map(|machine| machine.phase) {
            None | Some(Phase::Deleting) => {
                return refuse(ErrorKind::NotFound, format!("there is no instance {}", attach.instance));
            }
            Some(Phase::Coming) => {
                return refuse(ErrorKind::Busy, format!("instance {} is still being made", attach.instance));
            }
            Some(Phase::Running | Phase::Stopping | Phase::Stopped) => {}
        }
        let holds = state.volume_on(&attach.instance).cloned();
        let Some(volume) = state.look_at_volume(&attach.volume).filter(|volume| volume.phase != Phase::Deleting) else {
            return refuse(ErrorKind::NotFound, "there is no such volume".into());
        };
        if volume.phase == Phase::Coming {
            return refuse(ErrorKind::Busy, "the volume is still being made".into());
        }
        if out {
            return refuse(ErrorKind::Unavailable, "the instance's zone is out".into());
        }
        // As Azure words it, BadRequest: the disk and the machine are not in the same zone.
        if let (Some(of_volume), Some(of_machine)) = (volume.zone, zone)
            && of_volume != of_machine
        {
            let why = format!("the volume is in zone {of_volume} and the instance in zone {of_machine}");
            return refuse(ErrorKind::Invalid, why);
        }
        if remembers && attach.epoch < volume.epoch {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        volume.look_at_link(now);
        match &volume.link {
            Some(link) if link.instance != attach.instance && planted::is(Bug::AttachNotExclusive) => {
                let phase = if at_once { LinkPhase::Attached } else { LinkPhase::Attaching };
                volume.link = Some(Link { instance: attach.instance.clone(), phase, looks_left: pending, due });
            }
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
                let phase = if at_once { LinkPhase::Attached } else { LinkPhase::Attaching };
                volume.link = Some(Link { instance: attach.instance.clone(), phase, looks_left: pending, due });
            }
        }
        volume.used = true;
        if remembers {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        let done = volume.link.as_ref().is_some_and(|link| link.phase == LinkPhase::Attached);
        Ok(if done { Attached::Yes(device_of(&attach.volume)) } else { Attached::Pending })
    }

    /// `by_force` takes the volume without the instance's help, whatever is under way.
    fn detach(scene: &mut Scene<'_>, operation: Operation, attach: &Attach, by_force: bool) -> Result<Detached> {
        let (at_once, pending, due) = (scene.at_once(), scene.pending, scene.due);
        let by_force = by_force && pending == 0;
        let state = &mut *scene.state;
        let now = state.now;
        let remembers = state.limits.attach_remembers_epochs;
        let guest_runs = state.guests.contains_key(&(attach.volume.clone(), attach.instance.clone()));
        let Some(volume) = state.look_at_volume(&attach.volume) else { return Ok(Detached::Yes) };
        if remembers && attach.epoch < volume.epoch {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        if guest_runs && !planted::is(Bug::DetachBeforeStop) {
            return Err(Error::new(ErrorKind::Busy, operation.as_str(), &attach.volume)
                .with_detail(format!("its guest still runs on {}", attach.instance)));
        }
        if remembers {
            volume.fence(operation, &attach.volume, attach.epoch)?;
        }
        volume.look_at_link(now);
        match &mut volume.link {
            Some(link) if link.instance == attach.instance => {
                if by_force || (link.phase != LinkPhase::Detaching && at_once) {
                    volume.link = None;
                    return Ok(Detached::Yes);
                }
                if link.phase != LinkPhase::Detaching {
                    (link.phase, link.looks_left, link.due) = (LinkPhase::Detaching, pending, due);
                }
                Ok(if planted::is(Bug::DetachDoneTooSoon) { Detached::Yes } else { Detached::Pending })
            }
            _ => Ok(Detached::Yes),
        }
    }

    fn snapshot(scene: &mut Scene<'_>, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        let operation = Operation::Snapshot;
        let (pending, due, created_at) = (scene.pending, scene.due, scene.now);
        let state = &mut *scene.state;
        let now = state.now;
        if let Some(snapshot) = state.snapshots.get_mut(id) {
            snapshot.looks_left = snapshot.looks_left.saturating_sub(1);
            return Ok(snapshot.view(id, now));
        }
        let in_use = state.guest_runs_on(volume);
        // A cloud that knows nothing of epochs knows nothing of guests: it copies the disk as it is.
        if in_use && state.limits.attach_remembers_epochs {
            return Err(Error::new(ErrorKind::Busy, operation.as_str(), volume)
                .with_detail("a guest runs on the volume; suspend or stop it first"));
        }
        let source = state.look_at_volume(volume).filter(|source| source.phase != Phase::Deleting);
        let source = source.ok_or_else(|| absent(operation, volume))?;
        let (content, bytes, epoch) = (source.content.clone(), source.bytes, source.epoch);
        state.oracle.snapshot_taken(id, volume, &content.owned, in_use);
        let snapshot = Snapshot { content, epoch, bytes, looks_left: pending, due, created_at };
        let view = snapshot.view(id, now);
        state.snapshots.insert(id.clone(), snapshot);
        Ok(view)
    }

    fn delete_volume(scene: &mut Scene<'_>, id: &VolumeId) -> Result<()> {
        let operation = Operation::VolumeDelete;
        let (at_once, pending, due) = (scene.at_once(), scene.pending, scene.due);
        let now = scene.state.now;
        let Some(volume) = scene.state.look_at_volume(id) else { return Ok(()) };
        volume.look_at_link(now);
        if let Some(link) = &volume.link {
            return Err(Error::new(ErrorKind::Busy, operation.as_str(), id)
                .with_detail(format!("the volume is attached to {}; detach it first", link.instance)));
        }
        if volume.phase == Phase::Deleting {
            return Ok(());
        }
        (volume.phase, volume.looks_left, volume.due) = (Phase::Deleting, pending, due);
        if at_once {
            scene.state.remove_volume(id);
        }
        Ok(())
    }

    fn resize(&mut self, id: &VolumeId, bytes: u64) -> Result<()> {
        let operation = Operation::VolumeResize;
        let guest_runs = self.guest_runs_on(id);
        let volume = self.look_at_volume(id).ok_or_else(|| absent(operation, id))?;
        if bytes > volume.bytes {
            if guest_runs {
                return Err(Error::new(ErrorKind::Busy, operation.as_str(), id)
                    .with_detail("a guest runs on the volume; suspend or stop it first"));
            }
            volume.bytes = bytes;
        }
        Ok(())
    }
}

fn absent(operation: Operation, id: &VolumeId) -> Error {
    Error::new(ErrorKind::NotFound, operation.as_str(), id).with_detail("there is no such volume")
}

#[async_trait]
impl VolumeProvider for SimVolumes {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        let wanted = spec.clone();
        let effect = move |scene: &mut Scene<'_>| State::ensure_volume(scene, &wanted);
        self.world.call(self.caller, Operation::VolumeEnsure, &spec.id, effect).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| {
            let now = scene.state.now;
            Ok(scene.state.look_at_volume(&wanted).map(|volume| {
                volume.look_at_link(now);
                volume.view(&wanted)
            }))
        };
        self.world.call(self.caller, Operation::VolumeGet, id, effect).await
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<VolumeView>> {
        let cursor = cursor.cloned();
        let effect = move |scene: &mut Scene<'_>| Ok(State::list_volumes(scene, cursor.as_ref()));
        self.world.call(self.caller, Operation::VolumeList, &"all", effect).await
    }

    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        let wanted = attach.clone();
        let effect = move |scene: &mut Scene<'_>| State::attach(scene, &wanted);
        self.world.call(self.caller, Operation::Attach, &attach.volume, effect).await
    }

    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        let operation = Operation::Detach;
        let wanted = attach.clone();
        let effect = move |scene: &mut Scene<'_>| State::detach(scene, operation, &wanted, false);
        self.world.call(self.caller, operation, &attach.volume, effect).await
    }

    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        let operation = Operation::ForceDetach;
        let wanted = attach.clone();
        let effect = move |scene: &mut Scene<'_>| State::detach(scene, operation, &wanted, true);
        self.world.call(self.caller, operation, &attach.volume, effect).await
    }

    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        let (of, wanted) = (volume.clone(), id.clone());
        let effect = move |scene: &mut Scene<'_>| State::snapshot(scene, &of, &wanted);
        self.world.call(self.caller, Operation::Snapshot, volume, effect).await
    }

    async fn list_snapshots(&self, cursor: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        let cursor = cursor.cloned();
        let effect = move |scene: &mut Scene<'_>| {
            let state = &mut *scene.state;
            for snapshot in state.snapshots.values_mut() {
                snapshot.looks_left = snapshot.looks_left.saturating_sub(1);
            }
            let (limit, now) = (state.limits.page_size, state.now);
            Ok(page(&state.snapshots, cursor.as_ref(), limit, |id, snapshot| snapshot.view(id, now)))
        };
        self.world.call(self.caller, Operation::SnapshotList, &"all", effect).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| {
            scene.state.snapshots.remove(&wanted);
            Ok(())
        };
        self.world.call(self.caller, Operation::SnapshotDelete, id, effect).await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| State::delete_volume(scene, &wanted);
        self.world.call(self.caller, Operation::VolumeDelete, id, effect).await
    }

    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| scene.state.resize(&wanted, bytes);
        self.world.call(self.caller, Operation::VolumeResize, id, effect).await
    }
}

#[async_trait]
impl SnapshotCopier for SimVolumes {
    async fn locate_snapshot(&self, id: &SnapshotId) -> Result<SnapshotLocation> {
        Ok(SnapshotLocation(id.to_string()))
    }

    async fn copy_snapshot(&self, from: &SnapshotLocation, id: &SnapshotId) -> Result<SnapshotCopy> {
        let (from, wanted, others) = (from.clone(), id.clone(), self.world.others());
        let effect = move |scene: &mut Scene<'_>| State::copy_snapshot(scene, &others, &from, &wanted);
        self.world.call(self.caller, Operation::SnapshotCopy, id, effect).await
    }
}

impl State {
    /// Of a snapshot of whichever other region has it.
    fn copy_snapshot(
        scene: &mut Scene<'_>,
        others: &[Arc<SimWorld>],
        from: &SnapshotLocation,
        id: &SnapshotId,
    ) -> Result<SnapshotCopy> {
        let operation = Operation::SnapshotCopy;
        let (pending, due, created_at) = (scene.pending, scene.due, scene.now);
        let state = &mut *scene.state;
        let now = state.now;
        if let Some(snapshot) = state.snapshots.get_mut(id) {
            snapshot.looks_left = snapshot.looks_left.saturating_sub(1);
            return Ok(SnapshotCopy::new(snapshot.is_ready(now)));
        }
        let refuse = |kind, why: &str| Err(Error::new(kind, operation.as_str(), id).with_detail(why));
        let Ok(source) = SnapshotId::new(from.0.clone()) else {
            return refuse(ErrorKind::Invalid, "the location is not one of this backend's");
        };
        let found = others.iter().find_map(|world| {
            let other = world.state();
            other.snapshots.get(&source).map(|found| {
                (found.content.clone(), found.epoch, found.bytes, found.is_ready(now), other.oracle.copied(&source))
            })
        });
        let Some((content, epoch, bytes, whole, copied)) = found else {
            return refuse(ErrorKind::NotFound, "there is no such snapshot in any other region");
        };
        if !whole {
            return refuse(ErrorKind::Busy, "it is not whole yet");
        }
        if let Some((volume, lines, in_use)) = copied {
            state.oracle.snapshot_taken(id, &volume, &lines, in_use);
        }
        let snapshot = Snapshot { content, epoch, bytes, looks_left: pending, due, created_at };
        let ready = snapshot.is_ready(now);
        state.snapshots.insert(id.clone(), snapshot);
        Ok(SnapshotCopy::new(ready))
    }

    pub(crate) fn has_ready_snapshot(&self, id: &SnapshotId) -> bool {
        // How often it was looked at does not count: that is what callers are told, not how it is.
        self.snapshots.get(id).is_some_and(|snapshot| self.now >= snapshot.due)
    }
}

impl Snapshot {
    fn is_ready(&self, now: u64) -> bool {
        self.looks_left == 0 && now >= self.due
    }

    fn view(&self, id: &SnapshotId, now: u64) -> SnapshotView {
        let mut view = SnapshotView::new(id.clone(), self.is_ready(now));
        view.created_at = Some(self.created_at);
        view
    }
}
