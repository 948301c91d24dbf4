//! Steering: what changes the world waits until somebody says what becomes of it, call by call, in any order. For tests that
//! lead the real pool through a list of steps.

use super::{Caller, Effect, Engine};
use crate::backend::{Look, Operation, SimWorld};
use boxpool::record::{BOXES, INSTANCES, VOLUMES};
use boxpool::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

/// A call that waits, or has lost its caller.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HeldCall {
    pub id: u64,
    pub gateway: usize,
    pub operation: Operation,
    pub resource: String,
    /// What a write of a record says.
    pub value: Option<String>,
    /// Whether its caller still waits.
    pub waits: bool,
}

type Act = Box<dyn FnMut(&SimWorld, Turn) -> Result<()> + Send>;

/// What happens to a call.
#[derive(Debug)]
enum Turn {
    /// It takes effect, and its caller, if one waits, is told.
    Act,
    /// It does not, and its caller is told this.
    Tell(Error),
}

struct Held {
    call: HeldCall,
    caller: Caller,
    act: Act,
}

/// The calls that wait.
#[derive(Default)]
pub(super) struct Steering {
    held: Vec<Held>,
    count: u64,
    said: Option<String>,
}

fn is_steered(operation: Operation, resource: &str) -> bool {
    match operation {
        Operation::StoreInsert | Operation::StoreUpdate | Operation::StoreDelete => {
            let table = resource.split('/').next().unwrap_or_default();
            [BOXES, INSTANCES, VOLUMES].iter().any(|steered| steered.as_str() == table)
        }
        Operation::InstanceDelete
        | Operation::VolumeDelete
        | Operation::Attach
        | Operation::Detach
        | Operation::ForceDetach
        | Operation::GuestStart
        | Operation::GuestSuspend
        | Operation::GuestStop
        | Operation::GuestShutDown
        | Operation::Clear => true,
        _ => false,
    }
}

impl Engine {
    /// From now on calls that change something wait.
    pub(crate) fn steer(&self) {
        self.inner().steering = Some(Steering::default());
    }

    /// Nothing is held any more; what waits takes effect.
    pub(crate) fn run_on(&self, world: &SimWorld) {
        let steering = self.inner().steering.take();
        for mut held in steering.into_iter().flat_map(|steering| steering.held).filter(|held| held.call.waits) {
            let _ = (held.act)(world, Turn::Act);
        }
    }

    /// What the next write says; it is submitted right after this.
    pub(crate) fn writes(&self, value: &str) {
        if let Some(steering) = &mut self.inner().steering {
            steering.said = Some(value.to_owned());
        }
    }

    /// Keeps a call, if such calls are steered; gives back the end to answer it if not.
    pub(super) fn hold<T: Send + 'static>(
        &self,
        region: usize,
        caller: Caller,
        operation: Operation,
        resource: &str,
        effect: &Effect<T>,
        reply: oneshot::Sender<Result<T>>,
    ) -> Option<oneshot::Sender<Result<T>>> {
        let mut inner = self.inner();
        let Some(steering) = inner.steering.as_mut() else { return Some(reply) };
        let value = steering.said.take();
        if !is_steered(operation, resource) {
            return Some(reply);
        }
        steering.count += 1;
        let call = HeldCall {
            id: steering.count,
            gateway: caller.gateway,
            operation,
            resource: resource.to_owned(),
            value,
            waits: true,
        };
        let (effect, resource, mut reply) = (effect.clone(), resource.to_owned(), Some(reply));
        let act: Act = Box::new(move |world, turn| {
            let outcome = match turn {
                Turn::Act => world.perform_in(region, caller, operation, &resource, 0, Look::Now, &*effect),
                Turn::Tell(error) => Err(error),
            };
            let said = outcome.as_ref().map_or_else(|error| Err(error.kind()), |_| Ok(()));
            if let Some(reply) = reply.take() {
                world.answer(caller, operation, outcome, reply);
            }
            said.map_err(|kind| Error::new(kind, operation.as_str(), &resource))
        });
        steering.held.push(Held { call, caller, act });
        None
    }

    /// The calls that wait, and those that have lost their callers.
    pub(crate) fn held(&self) -> Vec<HeldCall> {
        let inner = self.inner();
        let Some(steering) = &inner.steering else { return Vec::new() };
        let hears = |held: &Held| HeldCall {
            waits: held.call.waits && inner.reaches(held.caller, held.call.operation),
            ..held.call.clone()
        };
        steering.held.iter().map(hears).collect()
    }

    /// Lets a call take effect. It stays in the list, as one that may take effect again.
    pub(crate) fn let_act(&self, world: &SimWorld, id: u64) -> Result<()> {
        self.turn(world, id, Turn::Act)
    }

    /// Tells the caller of a call that it failed. It stays in the list, as one that may take effect later.
    pub(crate) fn let_fail(&self, world: &SimWorld, id: u64, kind: ErrorKind) {
        let why = Error::new(kind, "call", "call").with_detail("it was not let through (simulated)");
        let _ = self.turn(world, id, Turn::Tell(why));
    }

    fn turn(&self, world: &SimWorld, id: u64, turn: Turn) -> Result<()> {
        let taken = {
            let mut inner = self.inner();
            inner.steering.as_mut().and_then(|steering| {
                let place = steering.held.iter().position(|held| held.call.id == id)?;
                Some(steering.held.remove(place))
            })
        };
        let Some(mut held) = taken else {
            return Err(Error::new(ErrorKind::NotFound, "steer", "call").with_detail(format!("no call {id} is held")));
        };
        held.call.waits = false;
        let outcome = (held.act)(world, turn);
        if let Some(steering) = &mut self.inner().steering {
            steering.held.push(held);
        }
        outcome
    }
}
