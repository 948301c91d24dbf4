use super::fault::Operation;
use super::volumes::device_of;
use super::world::{GuestProcess, LinkPhase, Memory, Phase, SavedMemory, Scene, SimWorld, State};
use crate::engine::Caller;
use crate::planted::{self, Bug};
use async_trait::async_trait;
use boxpool::{
    Cleared, Effect, Endpoint, EndpointAddress, Error, ErrorKind, Guest, GuestRuntime, GuestStatus, InstanceId, Result,
    Started, StartedBy, Suspended,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Simulated guests.
#[derive(Debug, Clone)]
pub struct SimRuntime {
    world: Arc<SimWorld>,
    caller: Option<Caller>,
}

impl SimRuntime {
    /// The guests of `world`.
    #[must_use]
    pub fn new(world: Arc<SimWorld>) -> Self {
        Self { world, caller: None }
    }

    pub(crate) fn of(world: Arc<SimWorld>, caller: Caller) -> Self {
        Self { world, caller: Some(caller) }
    }
}

/// An address that nobody can dial, and that is the same for the same guest.
fn endpoint_of(guest: &Guest) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Unix(PathBuf::from(format!("/sim/{}/{}", guest.instance, guest.volume))),
        login: "box".into(),
        host_key: format!("ssh-ed25519 sim-{}", guest.volume),
    }
}

fn place_of(guest: &Guest) -> (boxpool::VolumeId, InstanceId) {
    (guest.volume.clone(), guest.instance.clone())
}

impl State {
    /// Every call with an epoch passes here first.
    fn fence(&mut self, operation: Operation, guest: &Guest) -> Result<()> {
        match self.volumes.get_mut(&guest.volume) {
            Some(_) if planted::is(Bug::RuntimeWithoutFence) => {}
            Some(volume) => volume.fence(operation, &guest.volume, guest.epoch)?,
            None => return Ok(()),
        }
        // Whatever comes of the call: from now on an older epoch must not act.
        self.oracle.saw_epoch(guest);
        Ok(())
    }

    fn start(&mut self, guest: &Guest) -> Result<Started> {
        let operation = Operation::GuestStart;
        let refuse = |kind, why: String| Error::new(kind, operation.as_str(), &guest.volume).with_detail(why);
        self.fence(operation, guest)?;
        if let Some(running) = self.guests.get_mut(&place_of(guest)) {
            if running.hung {
                return Err(refuse(ErrorKind::TimedOut, "a guest is there and does not answer".into()));
            }
            running.epoch = guest.epoch;
            for wrong in self.oracle.guest_adopted(guest) {
                self.violate(wrong);
            }
            return Ok(Started { endpoint: endpoint_of(guest), by: StartedBy::Adoption });
        }
        let Some(machine) = self.instances.get(&guest.instance).filter(|machine| machine.phase != Phase::Deleting)
        else {
            return Err(refuse(ErrorKind::NotFound, format!("there is no instance {}", guest.instance)));
        };
        if machine.phase != Phase::Running || machine.failed.is_some() {
            return Err(refuse(ErrorKind::Unavailable, format!("instance {} does not run", guest.instance)));
        }
        if planted::is(Bug::StartDoesNothing) {
            return Ok(Started { endpoint: endpoint_of(guest), by: StartedBy::Boot });
        }
        let Some(volume) = self.volumes.get_mut(&guest.volume) else {
            return Err(refuse(ErrorKind::NotFound, "there is no such volume".into()));
        };
        let attached = volume
            .link
            .as_ref()
            .is_some_and(|link| link.instance == guest.instance && link.phase == LinkPhase::Attached);
        let attached = attached || planted::is(Bug::StartUnchecked) || planted::is(Bug::BusyAttachIsOk);
        if !attached || guest.device.as_ref().is_some_and(|device| *device != device_of(&guest.volume)) {
            return Err(refuse(ErrorKind::NotFound, format!("the volume is not on {}", guest.instance)));
        }
        // What was saved is used once: from here on the disk moves away from it.
        let kept = volume.content.saved.clone().filter(|_| planted::is(Bug::ResumeUnpaired));
        let saved = volume.content.saved.take().filter(|saved| saved.fits_writes == volume.content.writes);
        let saved = saved.or(kept.clone());
        volume.content.saved = kept;
        let (memory, by) = match saved {
            Some(saved) => (saved.memory, StartedBy::Resume),
            None => (Memory::default(), StartedBy::Boot),
        };
        let held_by = volume.owner.replace(guest.owner.clone());
        let lines = volume.content.owned.clone();
        for wrong in self.oracle.guest_started(guest, by, memory.count, &lines) {
            self.violate(wrong);
        }
        let process = GuestProcess {
            memory,
            owner: guest.owner.clone(),
            hung: false,
            hung_once: false,
            epoch: guest.epoch,
            since: self.now,
        };
        self.guests.insert(place_of(guest), process);
        if let Some(other) = held_by.filter(|other| other.id != guest.owner.id) {
            self.violate(format!("I3: volume {} of {other} was started for {}", guest.volume, guest.owner));
        }
        let residue =
            self.instances.get_mut(&guest.instance).and_then(|machine| machine.residue.replace(guest.owner.clone()));
        if let Some(other) = residue.filter(|other| other.id != guest.owner.id) {
            self.violate(format!(
                "I2: instance {} served {other} and was not cleared before {}",
                guest.instance, guest.owner
            ));
        }
        Ok(Started { endpoint: endpoint_of(guest), by })
    }

    fn suspend(&mut self, guest: &Guest) -> Result<Suspended> {
        let operation = Operation::GuestSuspend;
        self.fence(operation, guest)?;
        let Some(process) = self.guests.get(&place_of(guest)) else { return Ok(Suspended::NotRunning) };
        if process.hung {
            self.oracle.suspend_failed();
            return Err(Error::new(ErrorKind::TimedOut, operation.as_str(), &guest.volume)
                .with_detail("the guest does not answer; stop it"));
        }
        let Some(process) = self.end_guest(&place_of(guest)) else { return Ok(Suspended::NotRunning) };
        for wrong in self.oracle.guest_suspended(guest, process.memory.count) {
            self.violate(wrong);
        }
        if let Some(volume) = self.volumes.get_mut(&guest.volume).filter(|_| !planted::is(Bug::SuspendDropsMemory)) {
            volume.content.saved = Some(SavedMemory { memory: process.memory, fits_writes: volume.content.writes });
        }
        Ok(Suspended::Saved)
    }

    fn stop(&mut self, guest: &Guest) -> Result<()> {
        self.fence(Operation::GuestStop, guest)?;
        if planted::is(Bug::StopDoesNothing) {
            return Ok(());
        }
        if let Some(process) = self.end_guest(&place_of(guest)) {
            for wrong in self.oracle.guest_stopped(guest, &process) {
                self.violate(wrong);
            }
        }
        Ok(())
    }

    /// Of a guest that hangs too: its time runs out, and it is ended.
    fn shut_down(&mut self, guest: &Guest) -> Result<()> {
        self.fence(Operation::GuestShutDown, guest)?;
        let mut wrong = Vec::new();
        if let Some(process) = self.end_guest(&place_of(guest)) {
            wrong.extend(self.oracle.guest_shut_down(guest, &process));
        }
        let saved = self.volumes.get_mut(&guest.volume).and_then(|volume| volume.content.saved.take());
        if saved.is_some() {
            wrong.extend(self.oracle.memory_dropped(guest));
        }
        wrong.into_iter().for_each(|wrong| self.violate(wrong));
        Ok(())
    }

    fn status(&mut self, guest: &Guest) -> Result<GuestStatus> {
        let operation = Operation::GuestStatus;
        self.fence(operation, guest)?;
        Ok(match self.guests.get(&place_of(guest)) {
            Some(process) if process.hung => GuestStatus::Unresponsive("the guest does not answer".into()),
            Some(_) => GuestStatus::Running(endpoint_of(guest)),
            None => GuestStatus::NotRunning,
        })
    }

    fn clear(&mut self, instance: &InstanceId) -> Result<Cleared> {
        let Some(machine) = self.instances.get(instance) else { return Ok(Cleared::Clean) };
        if machine.phase != Phase::Running || machine.failed.is_some() {
            return Err(Error::new(ErrorKind::Unavailable, Operation::Clear.as_str(), instance)
                .with_detail("the instance does not run")
                .with_effect(Effect::None));
        }
        if planted::is(Bug::ClearAlwaysClean) {
            return Ok(Cleared::Clean);
        }
        if let Some(process) = self.guests.iter().find(|((_, on), _)| on == instance).map(|(_, process)| process) {
            return Ok(Cleared::Doubtful(format!("the guest of {} runs", process.owner)));
        }
        if let Some(volume) = self.volume_on(instance) {
            return Ok(Cleared::Doubtful(format!("volume {volume} is attached")));
        }
        if let Some(machine) = self.instances.get_mut(instance) {
            machine.residue = None;
        }
        Ok(Cleared::Clean)
    }
}

#[async_trait]
impl GuestRuntime for SimRuntime {
    async fn start(&self, guest: &Guest) -> Result<Started> {
        let wanted = guest.clone();
        let others = self.world.others();
        let effect = move |scene: &mut Scene<'_>| {
            let started = scene.state.start(&wanted);
            let runs = |world: &Arc<SimWorld>| world.state().guest_of(&wanted.owner.id).cloned();
            if let (Ok(_), Some(volume)) = (&started, others.iter().find_map(runs)) {
                let wrong = format!("I1: {} runs in two regions, there on {volume}", wanted.owner);
                scene.state.violate(wrong);
            }
            started
        };
        self.world.call(self.caller, Operation::GuestStart, &guest.volume, effect).await
    }

    async fn suspend(&self, guest: &Guest) -> Result<Suspended> {
        let wanted = guest.clone();
        self.world.state().oracle.suspend_asked(guest);
        let effect = move |scene: &mut Scene<'_>| scene.state.suspend(&wanted);
        self.world.call(self.caller, Operation::GuestSuspend, &guest.volume, effect).await
    }

    async fn stop(&self, guest: &Guest) -> Result<()> {
        let wanted = guest.clone();
        let effect = move |scene: &mut Scene<'_>| scene.state.stop(&wanted);
        self.world.call(self.caller, Operation::GuestStop, &guest.volume, effect).await
    }

    async fn shut_down(&self, guest: &Guest, _within: Duration) -> Result<()> {
        let wanted = guest.clone();
        let effect = move |scene: &mut Scene<'_>| scene.state.shut_down(&wanted);
        self.world.call(self.caller, Operation::GuestShutDown, &guest.volume, effect).await
    }

    async fn status(&self, guest: &Guest) -> Result<GuestStatus> {
        let wanted = guest.clone();
        let effect = move |scene: &mut Scene<'_>| scene.state.status(&wanted);
        self.world.call(self.caller, Operation::GuestStatus, &guest.volume, effect).await
    }

    async fn clear(&self, instance: &InstanceId) -> Result<Cleared> {
        let wanted = instance.clone();
        let effect = move |scene: &mut Scene<'_>| scene.state.clear(&wanted);
        self.world.call(self.caller, Operation::Clear, instance, effect).await
    }
}
