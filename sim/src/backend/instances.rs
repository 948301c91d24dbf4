use super::fault::Operation;
use super::listing::{forget_some, page};
use super::world::{Look, Machine, Phase, Scene, SimWorld, State};
use crate::engine::Caller;
use crate::planted::{self, Bug};
use async_trait::async_trait;
use boxpool::{
    Cursor, Error, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page, Result,
};
use std::sync::Arc;

/// Simulated machines.
#[derive(Debug, Clone)]
pub struct SimInstances {
    world: Arc<SimWorld>,
    caller: Option<Caller>,
}

impl SimInstances {
    /// The machines of `world`.
    #[must_use]
    pub fn new(world: Arc<SimWorld>) -> Self {
        Self { world, caller: None }
    }

    pub(crate) fn of(world: Arc<SimWorld>, caller: Caller) -> Self {
        Self { world, caller: Some(caller) }
    }
}

impl Machine {
    /// Brings what is under way one look nearer to its end. `false` when the machine is gone.
    fn look(&mut self, now: u64) -> bool {
        if self.looks_left > 0 {
            self.looks_left -= 1;
            return true;
        }
        if now < self.due {
            return true;
        }
        self.phase = match self.phase {
            Phase::Coming => Phase::Running,
            Phase::Stopping => Phase::Stopped,
            Phase::Deleting => return false,
            settled @ (Phase::Running | Phase::Stopped) => settled,
        };
        true
    }

    fn view(&self, id: &InstanceId) -> InstanceView {
        let state = match (&self.failed, self.phase) {
            (_, Phase::Deleting) => InstanceState::Deleting,
            (Some(why), _) => InstanceState::Failed(why.clone()),
            (None, Phase::Coming) => InstanceState::Creating,
            (None, Phase::Running) => InstanceState::Running,
            (None, Phase::Stopping) => InstanceState::Stopping,
            (None, Phase::Stopped) => InstanceState::Stopped,
        };
        let mut view = InstanceView::new(id.clone(), state);
        view.generation.clone_from(&self.generation);
        view.created_at = Some(self.created_at);
        view
    }

    fn costs(&self) -> bool {
        !matches!(self.phase, Phase::Stopped)
    }
}

impl State {
    /// A look at a machine, which may show that it has gone.
    fn look_at_instance(&mut self, id: &InstanceId) -> Option<&mut Machine> {
        if !self.instances.get_mut(id)?.look(self.now) {
            self.remove_instance(id);
        }
        self.instances.get_mut(id)
    }

    fn room_for_instance(&self, operation: Operation, id: &InstanceId) -> Result<()> {
        let costing = self.instances.values().filter(|machine| machine.costs()).count();
        match self.limits.instances_max {
            Some(most) if costing >= most => Err(Error::new(ErrorKind::NoCapacity, operation.as_str(), id)
                .with_detail(format!("all {most} instances are in use"))),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The zone with the fewest machines, the first of several.
    fn zone_for_instance(&self, operation: Operation, id: &InstanceId) -> Result<u8> {
        let there = |zone: u8| self.instances.values().filter(|machine| machine.zone == zone).count();
        let sound = (1..=self.limits.zones).filter(|zone| !self.limits.zones_out.contains(zone));
        let best = sound.min_by_key(|zone| if self.limits.zones == 1 { 0 } else { there(*zone) });
        best.ok_or_else(|| {
            Error::new(ErrorKind::NoCapacity, operation.as_str(), id).with_detail("no zone has room: all are out")
        })
    }

    fn zone_is_sound(&self, operation: Operation, id: &InstanceId, zone: u8) -> Result<()> {
        if !self.limits.zones_out.contains(&zone) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NoCapacity, operation.as_str(), id).with_detail(format!("zone {zone} is out")))
    }
}

fn absent(operation: Operation, id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, operation.as_str(), id).with_detail("there is no such instance")
}

impl State {
    fn ensure_instance(scene: &mut Scene<'_>, spec: &InstanceSpec) -> Result<InstanceView> {
        let operation = Operation::InstanceEnsure;
        if let Some(machine) = scene.state.look_at_instance(&spec.id) {
            return Ok(machine.view(&spec.id));
        }
        scene.state.room_for_instance(operation, &spec.id)?;
        let zone = scene.state.zone_for_instance(operation, &spec.id)?;
        let machine = Machine {
            zone,
            phase: if scene.at_once() { Phase::Running } else { Phase::Coming },
            looks_left: scene.pending,
            due: scene.due,
            failed: None,
            generation: spec.generation.clone(),
            created_at: scene.now,
            residue: None,
        };
        let view = machine.view(&spec.id);
        scene.state.instances.insert(spec.id.clone(), machine);
        Ok(view)
    }

    fn list_instances(scene: &mut Scene<'_>, cursor: Option<&Cursor>) -> Page<InstanceView> {
        let state = &mut *scene.state;
        let limit = state.limits.page_size;
        match scene.look {
            Look::Now => {
                let page = page(&state.instances, cursor, limit, |id, machine| machine.view(id));
                if cursor.is_none() && page.next.is_none() {
                    state.listed_instances.clone_from(&page.items);
                }
                page
            }
            Look::Stale => Page { items: state.listed_instances.clone(), next: None },
            Look::Incomplete(luck) => {
                let mut page = page(&state.instances, cursor, limit, |id, machine| machine.view(id));
                forget_some(&mut page.items, luck);
                page
            }
        }
    }

    fn start_instance(scene: &mut Scene<'_>, id: &InstanceId) -> Result<InstanceView> {
        let operation = Operation::InstanceStart;
        let machine = scene.state.look_at_instance(id).ok_or_else(|| absent(operation, id))?;
        let (phase, zone) = (machine.phase, machine.zone);
        match phase {
            Phase::Stopped => {
                scene.state.zone_is_sound(operation, id, zone)?;
                scene.state.room_for_instance(operation, id)?;
            }
            Phase::Stopping => {
                return Err(Error::new(ErrorKind::Busy, operation.as_str(), id).with_detail("it is still stopping"));
            }
            Phase::Coming | Phase::Running | Phase::Deleting => {}
        }
        let (at_once, pending, due) = (scene.at_once(), scene.pending, scene.due);
        let machine = scene.state.instances.get_mut(id).ok_or_else(|| absent(operation, id))?;
        if phase == Phase::Stopped {
            machine.phase = if at_once { Phase::Running } else { Phase::Coming };
            (machine.looks_left, machine.due) = (pending, due);
        }
        Ok(machine.view(id))
    }

    fn stop_instance(scene: &mut Scene<'_>, id: &InstanceId) -> Result<InstanceView> {
        let operation = Operation::InstanceStop;
        let phase = scene.state.look_at_instance(id).ok_or_else(|| absent(operation, id))?.phase;
        let runs = matches!(phase, Phase::Running | Phase::Coming);
        if runs {
            scene.state.take_down(id);
        }
        let (at_once, pending, due) = (scene.at_once(), scene.pending, scene.due);
        let machine = scene.state.instances.get_mut(id).ok_or_else(|| absent(operation, id))?;
        if runs {
            machine.phase = if at_once { Phase::Stopped } else { Phase::Stopping };
            (machine.looks_left, machine.due) = (pending, due);
        }
        Ok(machine.view(id))
    }

    fn delete_instance(scene: &mut Scene<'_>, id: &InstanceId) {
        let (at_once, pending, due) = (scene.at_once(), scene.pending, scene.due);
        let Some(machine) = scene.state.look_at_instance(id) else { return };
        if machine.phase == Phase::Deleting {
            return;
        }
        (machine.phase, machine.looks_left, machine.due) = (Phase::Deleting, pending, due);
        if planted::is(Bug::MachineTakesVolume)
            && let Some(volume) = scene.state.volume_on(id).cloned()
        {
            scene.state.remove_volume(&volume);
        }
        scene.state.take_down(id);
        if at_once {
            scene.state.remove_instance(id);
        }
    }
}

#[async_trait]
impl InstanceProvider for SimInstances {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        let wanted = spec.clone();
        let effect = move |scene: &mut Scene<'_>| State::ensure_instance(scene, &wanted);
        self.world.call(self.caller, Operation::InstanceEnsure, &spec.id, effect).await
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        let wanted = id.clone();
        let effect =
            move |scene: &mut Scene<'_>| Ok(scene.state.look_at_instance(&wanted).map(|machine| machine.view(&wanted)));
        self.world.call(self.caller, Operation::InstanceGet, id, effect).await
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<InstanceView>> {
        let cursor = cursor.cloned();
        let effect = move |scene: &mut Scene<'_>| Ok(State::list_instances(scene, cursor.as_ref()));
        self.world.call(self.caller, Operation::InstanceList, &"all", effect).await
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| State::start_instance(scene, &wanted);
        self.world.call(self.caller, Operation::InstanceStart, id, effect).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| State::stop_instance(scene, &wanted);
        self.world.call(self.caller, Operation::InstanceStop, id, effect).await
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        let wanted = id.clone();
        let effect = move |scene: &mut Scene<'_>| {
            State::delete_instance(scene, &wanted);
            Ok(())
        };
        self.world.call(self.caller, Operation::InstanceDelete, id, effect).await
    }
}
