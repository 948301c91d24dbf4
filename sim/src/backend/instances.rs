use super::fault::Operation;
use super::listing::page;
use super::world::{Machine, Phase, Scene, SimWorld, State};
use async_trait::async_trait;
use boxpool::{
    Cursor, Error, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page, Result,
};
use std::sync::Arc;

/// Simulated machines.
#[derive(Debug, Clone)]
pub struct SimInstances {
    world: Arc<SimWorld>,
}

impl SimInstances {
    /// The machines of `world`.
    #[must_use]
    pub fn new(world: Arc<SimWorld>) -> Self {
        Self { world }
    }
}

impl Machine {
    /// Brings what is under way one look nearer to its end. `false` when the machine is gone.
    fn look(&mut self) -> bool {
        if self.looks_left > 0 {
            self.looks_left -= 1;
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
        if !self.instances.get_mut(id)?.look() {
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

fn absent(operation: Operation, id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, operation.as_str(), id).with_detail("there is no such instance")
}

#[async_trait]
impl InstanceProvider for SimInstances {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        let operation = Operation::InstanceEnsure;
        self.world
            .call(operation, &spec.id, |Scene { state, now, pending }| {
                if let Some(machine) = state.look_at_instance(&spec.id) {
                    return Ok(machine.view(&spec.id));
                }
                state.room_for_instance(operation, &spec.id)?;
                let machine = Machine {
                    phase: if *pending == 0 { Phase::Running } else { Phase::Coming },
                    looks_left: *pending,
                    failed: None,
                    generation: spec.generation.clone(),
                    created_at: *now,
                    residue: None,
                };
                let view = machine.view(&spec.id);
                state.instances.insert(spec.id.clone(), machine);
                Ok(view)
            })
            .await
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        self.world
            .call(Operation::InstanceGet, id, |scene| {
                Ok(scene.state.look_at_instance(id).map(|machine| machine.view(id)))
            })
            .await
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<InstanceView>> {
        self.world
            .call(Operation::InstanceList, &"all", |Scene { state, .. }| {
                Ok(page(&state.instances, cursor, state.limits.page_size, |id, machine| machine.view(id)))
            })
            .await
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        let operation = Operation::InstanceStart;
        self.world
            .call(operation, id, |Scene { state, pending, .. }| {
                let phase = state.look_at_instance(id).ok_or_else(|| absent(operation, id))?.phase;
                match phase {
                    Phase::Stopped => state.room_for_instance(operation, id)?,
                    Phase::Stopping => {
                        return Err(
                            Error::new(ErrorKind::Busy, operation.as_str(), id).with_detail("it is still stopping")
                        );
                    }
                    Phase::Coming | Phase::Running | Phase::Deleting => {}
                }
                let machine = state.instances.get_mut(id).ok_or_else(|| absent(operation, id))?;
                if phase == Phase::Stopped {
                    machine.phase = if *pending == 0 { Phase::Running } else { Phase::Coming };
                    machine.looks_left = *pending;
                }
                Ok(machine.view(id))
            })
            .await
    }

    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        let operation = Operation::InstanceStop;
        self.world
            .call(operation, id, |Scene { state, pending, .. }| {
                let phase = state.look_at_instance(id).ok_or_else(|| absent(operation, id))?.phase;
                if matches!(phase, Phase::Running | Phase::Coming) {
                    state.power_off(id);
                }
                let machine = state.instances.get_mut(id).ok_or_else(|| absent(operation, id))?;
                if matches!(phase, Phase::Running | Phase::Coming) {
                    machine.phase = if *pending == 0 { Phase::Stopped } else { Phase::Stopping };
                    machine.looks_left = *pending;
                }
                Ok(machine.view(id))
            })
            .await
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        self.world
            .call(Operation::InstanceDelete, id, |Scene { state, pending, .. }| {
                let Some(machine) = state.look_at_instance(id) else { return Ok(()) };
                if machine.phase == Phase::Deleting {
                    return Ok(());
                }
                (machine.phase, machine.looks_left) = (Phase::Deleting, *pending);
                if *pending == 0 {
                    state.remove_instance(id);
                } else {
                    state.power_off(id);
                }
                Ok(())
            })
            .await
    }
}
