//! Leads the real pool through a list of the model's steps.
//!
//! Every call that changes something waits in the steered world until the list names it. What the list does not name does not
//! happen: an intent that the pool has on its own is refused as if another had been faster, and it looks again. A step that
//! the pool never asks for is an error: model and code say different things then.
#![allow(clippy::unwrap_used)] // part of a test: what cannot be had here fails it

use boxpool::planted::{Bug, is, plant};
use boxpool::record::{BoxRecord, InstanceRecord, InstanceStatus, Placement};
use boxpool::{BoxName, BoxRef, ConnectRequest, Epoch, ErrorKind, InstanceId, NodeId, Pool, Session, UserId, VolumeId};
use boxpool_model::{Backend, BoxPicture, InstancePicture, Line, Picture, Scope};
use boxpool_sim::backend::Operation;
use boxpool_sim::{Gateway, HeldCall, Pace, PoolShape, SimCloud};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
/// Nobody gives a held call up.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3_600);
/// A node is taken for dead after so long, and does not fence itself for half of it.
const DEAD_AFTER: Duration = HOUR;
/// What the pool does not ask for within this it never asks for.
const PATIENCE: Duration = Duration::from_secs(4 * 3_600);

/// How a replay ended.
#[derive(Debug)]
enum Replayed {
    /// All steps were taken.
    Done {
        /// What is true then.
        picture: Picture,
        /// What was true on the way and must never be.
        violations: Vec<String>,
    },
    /// The pool took another instance than the list wants; with another seed it may not.
    OtherChoice,
    /// The pool does not do what the model does.
    Diverged(String),
}

type Sessions = Arc<Mutex<Vec<Session>>>;

struct Node {
    gateway: Gateway,
    pool: Pool,
    /// The sessions on each box.
    sessions: BTreeMap<u8, Sessions>,
    /// Connects that are under way.
    connecting: BTreeMap<u8, tokio::task::JoinHandle<()>>,
}

/// A call that has lost its caller.
struct Late {
    call: HeldCall,
    boxed: Option<u8>,
    epoch: Option<u8>,
}

struct Stage {
    cloud: SimCloud,
    scope: Scope,
    nodes: Vec<Node>,
    boxes: Vec<BoxRef>,
    volumes: Vec<VolumeId>,
    instances: Vec<Option<InstanceId>>,
    late: Vec<Late>,
    /// Writes whose answers are lost: their repetitions are, too.
    lost: Vec<String>,
}

enum Stop {
    OtherChoice,
    Diverged(String),
}

fn diverged<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Diverged(why.into()))
}

/// Takes all steps with the real pool.
fn replay(seed: u64, scope: &Scope, steps: &[Line], bug: Option<Bug>) -> Replayed {
    plant(None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut stage = Stage::set(seed, scope).await;
        plant(bug);
        for (number, line) in steps.iter().enumerate() {
            let outcome = stage.take(line).await;
            // Who is logged in sees what the guest holds in memory; from then on it is missed when it is lost.
            stage.boxes.iter().for_each(|owner| drop(stage.cloud.count(owner)));
            match outcome {
                Ok(()) => {}
                Err(Stop::OtherChoice) => return Replayed::OtherChoice,
                Err(Stop::Diverged(why)) => {
                    let held = stage.cloud.held();
                    let held: Vec<_> = held.iter().filter(|call| call.waits).collect();
                    return Replayed::Diverged(format!(
                        "step {}, {line:?}: {why}\n  waiting: {held:#?}\n  {:#?}",
                        number + 1,
                        stage.picture()
                    ));
                }
            }
        }
        stage.settle().await;
        let picture = stage.picture();
        stage.run_on().await;
        let violations = stage.cloud.check_invariants().map_or_else(|violations| violations.what, |()| Vec::new());
        Replayed::Done { picture, violations }
    })
}

/// As [`replay`], with the first seed with which the pool takes the instances that the list wants.
pub(crate) fn replay_any(scope: &Scope, steps: &[Line], bug: Option<Bug>) -> (Picture, Vec<String>) {
    for seed in 0..64 {
        match replay(seed, scope, steps, bug) {
            Replayed::Done { picture, violations } => return (picture, violations),
            Replayed::OtherChoice => {}
            Replayed::Diverged(why) => panic!("with seed {seed}: {why}\n{}", told(steps)),
        }
    }
    panic!("with no seed the pool takes the instances that the list wants\n{}", told(steps));
}

fn told(steps: &[Line]) -> String {
    steps.iter().map(|line| format!("  {line:?}\n")).collect()
}

impl Stage {
    async fn set(seed: u64, scope: &Scope) -> Self {
        let cloud = SimCloud::builder()
            .seed(seed)
            .pace(Pace::Host)
            .forgets_epochs(scope.backend != Backend::Local)
            .build()
            .unwrap();
        let shape = |free, total| PoolShape {
            min_free: free,
            max_free: total,
            max_total: total,
            volumes_free: 0,
            linger: 1_000,
            park_limit: 60_000,
            ..PoolShape::default()
        };
        let total = u32::from(scope.instances);
        let first = cloud.gateway().unwrap();
        let (pool, worker) = first.pool(seed, shape(total, total).config()).build().await.unwrap();
        first.spawn(worker.run());
        let user = UserId::new("u").unwrap();
        let (mut boxes, mut volumes) = (Vec::new(), Vec::new());
        for boxed in 0..scope.boxes {
            let name = BoxName::new(format!("b{boxed}")).unwrap();
            let made = pool.create_box(&user, &name).await.unwrap();
            boxes.push(BoxRef { owner: user.clone(), name, id: made.id });
        }
        while cloud.snapshot().instances.iter().filter(|record| record.status == InstanceStatus::Free).count()
            < usize::from(scope.instances)
        {
            cloud.advance(Duration::from_secs(1)).await.unwrap();
        }
        for owner in &boxes {
            let snapshot = cloud.snapshot();
            let record = snapshot.boxes.iter().find(|record| record.owner == *owner).unwrap();
            volumes.push(record.volume.volume().clone());
        }
        pool.drain(Duration::from_secs(10)).await;
        cloud.crash_gateway(first.number());
        let mut nodes = Vec::new();
        for _ in 0..scope.nodes {
            let gateway = cloud.gateway().unwrap();
            let mut config = shape(0, total).config();
            config.heartbeat_every = DEAD_AFTER / 8;
            config.dead_after = DEAD_AFTER;
            config.reconcile_every = Duration::from_secs(120);
            config.census_every = Duration::from_secs(120);
            config.maintain_every = NEVER;
            config.connect_deadline = NEVER;
            let limits = &mut config.limits;
            for limit in [
                &mut limits.store_call,
                &mut limits.provider_call,
                &mut limits.attach,
                &mut limits.detach,
                &mut limits.start,
                &mut limits.suspend,
                &mut limits.guest_call,
                &mut limits.instance_ready,
                &mut limits.volume_ready,
            ] {
                *limit = NEVER;
            }
            let (pool, worker) = gateway.pool(seed, config).build().await.unwrap();
            gateway.spawn(worker.run());
            nodes.push(Node { gateway, pool, sessions: BTreeMap::new(), connecting: BTreeMap::new() });
        }
        cloud.advance(Duration::from_secs(10)).await.unwrap();
        cloud.steer();
        let instances = vec![None; usize::from(scope.instances)];
        let scope = scope.clone();
        Self { cloud, scope, nodes, boxes, volumes, instances, late: Vec::new(), lost: Vec::new() }
    }

    async fn settle(&self) {
        self.cloud.advance(Duration::from_millis(500)).await.unwrap();
    }

    /// Nobody leads any more, and everybody wants to see their box.
    async fn run_on(&mut self) {
        self.cloud.run_on();
        for _ in 0..6 {
            for node in &self.nodes {
                for owner in self.boxes.clone() {
                    let pool = node.pool.clone();
                    node.gateway.spawn(async move {
                        let request = ConnectRequest::new(owner.owner, owner.name).deadline(HOUR);
                        if let Ok(session) = pool.connect(request).await {
                            tokio::time::sleep(Duration::from_secs(60)).await;
                            session.release().await;
                        }
                    });
                }
            }
            for _ in 0..30 {
                self.cloud.advance(Duration::from_secs(60)).await.unwrap();
                self.boxes.iter().for_each(|owner| drop(self.cloud.count(owner)));
            }
        }
    }

    fn node_number(&self, id: &NodeId) -> Option<u8> {
        self.nodes.iter().position(|node| node.pool.node() == id).map(|n| n as u8)
    }

    fn instance_number(&self, id: &InstanceId) -> Option<u8> {
        self.instances.iter().position(|known| known.as_ref() == Some(id)).map(|n| n as u8)
    }

    fn box_number(&self, owner: &BoxRef) -> Option<u8> {
        self.boxes.iter().position(|known| known == owner).map(|n| n as u8)
    }

    fn picture(&self) -> Picture {
        let snapshot = self.cloud.snapshot();
        let boxes = self.boxes.iter().map(|owner| {
            let record = snapshot.boxes.iter().find(|record| record.owner == *owner)?;
            let placement = &record.placement;
            Some(BoxPicture {
                place: placement.word(),
                instance: placement.instance().and_then(|id| self.instance_number(id)),
                node: placement.worker().and_then(|id| self.node_number(id)),
                epoch: u8::try_from(record.epoch.0).unwrap(),
                holders: record.holders.iter().filter_map(|id| self.node_number(id)).collect(),
            })
        });
        let instances = self.instances.iter().enumerate().map(|(number, id)| {
            // One that was never used is like any other.
            let unused = || snapshot.instances.iter().find(|record| self.instance_number(&record.id).is_none());
            let record = match id {
                Some(id) => snapshot.instances.iter().find(|record| record.id == *id)?,
                None if number < self.instances.len() => unused()?,
                None => return None,
            };
            let boxed = match &record.status {
                InstanceStatus::Claimed { owner, .. } => self.box_number(owner),
                _ => None,
            };
            let node = record.status.worker().and_then(|id| self.node_number(id));
            Some(InstancePicture { status: record.status.word(), boxed, node })
        });
        let places = |of: &[(VolumeId, InstanceId)]| {
            let of_volume = |volume: &VolumeId| {
                let on = of.iter().filter(|(this, _)| this == volume);
                let mut on: Vec<_> = on.filter_map(|(_, id)| self.instance_number(id)).collect();
                on.sort_unstable();
                on
            };
            self.volumes.iter().map(of_volume).collect()
        };
        let mut boxes: Vec<_> = boxes.collect();
        boxes.iter_mut().flatten().for_each(|record: &mut BoxPicture| record.holders.sort_unstable());
        Picture {
            boxes,
            instances: instances.collect(),
            links: places(&snapshot.links),
            guests: places(&snapshot.guests),
        }
    }

    async fn take(&mut self, line: &Line) -> Result<(), Stop> {
        if line.fate == "late" {
            return self.take_late(line).await;
        }
        match (line.step, line.node) {
            ("sweep.look", _) => Ok(()), // a part of the same pass as the release
            ("crash", Some(node)) => {
                self.settle().await;
                let gateway = self.gateway(node);
                for call in self.cloud.held().into_iter().filter(|call| call.waits && call.gateway == gateway) {
                    let (boxed, epoch) = self.about(&call);
                    self.late.push(Late { call, boxed, epoch });
                }
                self.cloud.crash_gateway(gateway);
                Ok(())
            }
            ("break.guest", _) => {
                let owner = line.boxed.map(|boxed| self.boxes[usize::from(boxed)].clone());
                owner.iter().for_each(|owner| self.cloud.kill_guest(owner));
                Ok(())
            }
            ("break.machine", _) => {
                let id = line.instance.and_then(|instance| self.instances[usize::from(instance)].clone());
                id.iter().for_each(|id| self.cloud.kill_instance(id));
                Ok(())
            }
            (_, Some(node)) => self.take_call(line, node).await,
            _ => diverged("no replay is known for what happens by itself"),
        }
    }

    fn gateway(&self, node: u8) -> usize {
        self.nodes[usize::from(node)].gateway.number()
    }

    /// Which box a held call is about, and with which epoch, as far as it says so.
    fn about(&self, call: &HeldCall) -> (Option<u8>, Option<u8>) {
        if let Some(record) = box_in(call) {
            return (self.box_number(&record.owner), u8::try_from(record.epoch.0).ok());
        }
        let boxed = self.volumes.iter().position(|volume| volume.as_str() == call.resource).map(|n| n as u8);
        let snapshot = self.cloud.snapshot();
        let record = boxed
            .and_then(|boxed| snapshot.boxes.into_iter().find(|record| record.owner == self.boxes[usize::from(boxed)]));
        (boxed, record.and_then(|record| u8::try_from(record.epoch.0).ok()))
    }

    async fn take_late(&mut self, line: &Line) -> Result<(), Stop> {
        let fits = |late: &Late| {
            let call = &late.call;
            let kind = match line.step {
                "write.box" => box_in(call).is_some(),
                "write.instance" => instance_in(call).is_some_and(|record| self.is_instance(&record.id, line.instance)),
                "attach" => call.operation == Operation::Attach,
                "detach" => call.operation == Operation::Detach,
                "force_detach" => call.operation == Operation::ForceDetach,
                "start" => call.operation == Operation::GuestStart,
                "suspend" => call.operation == Operation::GuestSuspend,
                "stop" => call.operation == Operation::GuestStop,
                "delete.machine" => {
                    call.operation == Operation::InstanceDelete && self.names(&call.resource, line.instance)
                }
                _ => false,
            };
            let boxed = line.step == "delete.machine" || line.boxed.is_none() || late.boxed == line.boxed;
            kind && boxed && (line.epoch.is_none() || late.epoch == line.epoch)
        };
        let Some(late) = self.late.iter().rfind(|late| fits(late)) else {
            return diverged("no such call has lost its caller");
        };
        let _ = self.cloud.let_act(late.call.id);
        self.settle().await;
        Ok(())
    }

    fn names(&self, resource: &str, instance: Option<u8>) -> bool {
        let id = instance.and_then(|instance| self.instances.get(usize::from(instance))?.as_ref());
        id.is_some_and(|id| id.as_str() == resource)
    }

    fn is_instance(&self, id: &InstanceId, instance: Option<u8>) -> bool {
        self.names(id.as_str(), instance)
    }

    /// Whether a held call is the one that the step names.
    fn fits(&self, line: &Line, call: &HeldCall) -> bool {
        use Operation as O;
        let boxed = |wanted: fn(&Placement) -> bool| {
            box_in(call).is_some_and(|record| self.box_number(&record.owner) == line.boxed && wanted(&record.placement))
        };
        let of_volume = |operation| {
            let volume = line.boxed.map(|boxed| self.volumes[usize::from(boxed)].as_str());
            call.operation == operation && volume == Some(call.resource.as_str())
        };
        let instance = |wanted: fn(&InstanceStatus) -> bool| {
            instance_in(call)
                .is_some_and(|record| self.is_instance(&record.id, line.instance) && wanted(&record.status))
        };
        let machine = |operation| call.operation == operation && self.names(&call.resource, line.instance);
        let holds = |wanted: bool| {
            let node = line.node.map(|node| self.nodes[usize::from(node)].pool.node().clone());
            box_in(call).is_some_and(|record| {
                let held = node.is_some_and(|node| record.holders.contains(&node));
                self.box_number(&record.owner) == line.boxed
                    && matches!(record.placement, Placement::Running { .. })
                    && held == wanted
            })
        };
        let ends = |status: &InstanceStatus| {
            matches!(status, InstanceStatus::Recycling { .. } | InstanceStatus::Deleting { .. })
        };
        match line.step {
            "claim.box" | "resume.box" | "guest_lost.box" | "take_over.placing" | "move.box" => {
                boxed(|placement| matches!(placement, Placement::Placing { .. }))
            }
            "hold.box" | "recover.hold.box" | "run_on.box" => holds(true),
            "unhold.box" => holds(false),
            "run.box" => boxed(|placement| matches!(placement, Placement::Running { .. })),
            "leave.box" | "take_over.suspending" => boxed(|p| matches!(p, Placement::Suspending { .. })),
            "park.box" => boxed(|placement| matches!(placement, Placement::Parked { .. })),
            "take_over.detaching" | "recover.withdraw.box" | "make_room.withdraw.box" | "withdraw.box" => {
                boxed(|placement| matches!(placement, Placement::Detaching { .. }))
            }
            "detached.box" => boxed(|placement| matches!(placement, Placement::Detached)),
            "delete.box" | "take_over.deleting" => boxed(|p| matches!(p, Placement::Deleting { .. })),
            "claim.instance" | "claim.instance.again" => {
                instance(|status| matches!(status, InstanceStatus::Claimed { .. }))
            }
            "attach" => of_volume(O::Attach),
            "start" => of_volume(O::GuestStart),
            "suspend" | "vacate.suspend" => of_volume(O::GuestSuspend),
            "stop.unsaved" | "vacate.stop" => of_volume(O::GuestStop),
            "detach" => of_volume(O::Detach),
            "force_detach" if is(Bug::DetachBeforeStop) => of_volume(O::Detach),
            "force_detach" => of_volume(O::ForceDetach),
            "release.instance" if is(Bug::ReleaseWithoutLook) => instance(|s| *s == InstanceStatus::Free),
            "pull_out.release.instance" | "release.instance" | "take_over.instance" => instance(ends),
            "sweep.release.instance" => instance(|s| matches!(s, InstanceStatus::Recycling { .. })),
            "retire.instance" | "pull_out.retire.instance" => {
                instance(|status| matches!(status, InstanceStatus::Deleting { .. }))
            }
            "recycle.clear" => machine(O::Clear),
            "recycle.free.instance" => instance(|status| *status == InstanceStatus::Free),
            "retire.delete.machine" | "pull_out.delete.machine" => machine(O::InstanceDelete),
            "forget.instance" | "pull_out.forget.instance" => {
                let id = line.instance.and_then(|instance| self.instances.get(usize::from(instance))?.as_ref());
                let seat = id.and_then(|id| id.as_str().split('-').next());
                call.operation == O::StoreDelete
                    && seat.is_some_and(|seat| call.resource == format!("instances/{seat}"))
            }
            "delete.volume" => of_volume(O::VolumeDelete),
            "delete.volume.record" => call.operation == O::StoreUpdate && call.resource.starts_with("volumes/"),
            "forget.volume" => call.operation == O::StoreDelete && call.resource.starts_with("volumes/"),
            "forget.box" => call.operation == O::StoreDelete && call.resource.starts_with("boxes/"),
            _ => false,
        }
    }

    /// Whether the call is one of the box's own task, and not of one that looks after instances.
    fn is_of_box(&self, boxed: Option<u8>, call: &HeldCall) -> bool {
        boxed.is_some_and(|boxed| {
            let volume = &self.volumes[usize::from(boxed)];
            call.resource == volume.as_str()
                || box_in(call).is_some_and(|record| record.owner == self.boxes[usize::from(boxed)])
        })
    }

    async fn take_call(&mut self, line: &Line, node: u8) -> Result<(), Stop> {
        let gateway = self.gateway(node);
        self.call_for(line, node);
        let others: Vec<usize> = match line.doubting {
            true => (0..self.scope.nodes).filter(|other| *other != node).map(|other| self.gateway(other)).collect(),
            false => Vec::new(),
        };
        others.iter().for_each(|other| self.cloud.pause_gateway(*other, true));
        let outcome = self.await_and_let_go(line, node, gateway).await;
        others.iter().for_each(|other| self.cloud.pause_gateway(*other, false));
        self.settle().await;
        outcome
    }

    async fn await_and_let_go(&mut self, line: &Line, node: u8, gateway: usize) -> Result<(), Stop> {
        let intent = INTENTS.contains(&line.step);
        let (mut waited, mut pause, mut refused) = (Duration::ZERO, Duration::from_millis(5), 0);
        loop {
            let waiting: Vec<_> =
                self.cloud.held().into_iter().filter(|call| call.waits && call.gateway == gateway).collect();
            // The answer to this write was lost, and so is that to its repetition.
            if let Some(again) =
                waiting.iter().find(|call| call.value.as_ref().is_some_and(|value| self.lost.contains(value)))
            {
                self.cloud.let_fail(again.id, ErrorKind::UnknownOutcome);
            }
            if line.step == "claim.box" || line.step == "move.box" {
                self.learn(line, &waiting)?;
            }
            if let Some(call) = waiting.iter().find(|call| self.fits(line, call)).cloned() {
                match self.let_go(line, call) {
                    Ok(()) => return Ok(()),
                    // Its caller did not know what has happened since; it looks again.
                    Err(ErrorKind::Conflict) if line.step != "claim.instance" => {}
                    Err(_) => return Ok(()),
                }
            } else if let Some(other) = waiting.iter().find(|call| self.is_of_box(line.boxed, call)) {
                if intent {
                    // The pool wants something else on its own: another was faster.
                    refused += 1;
                    if refused > 50 {
                        return diverged("the pool insists on something else");
                    }
                    self.cloud.let_fail(other.id, ErrorKind::Conflict);
                } else if MAY_BE_LEFT_OUT.contains(&line.step) && waited > Duration::from_secs(1) {
                    return Ok(());
                }
            }
            if waited > PATIENCE {
                return diverged(format!("node {node} never asks for it"));
            }
            self.cloud.advance(pause).await.unwrap();
            waited += pause;
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    }

    /// Which real instance the model's number stands for is seen when it is chosen for the first time.
    fn learn(&mut self, line: &Line, waiting: &[HeldCall]) -> Result<(), Stop> {
        let chosen = waiting.iter().filter_map(box_in).find_map(|record| match record.placement {
            Placement::Placing { instance, .. } if self.box_number(&record.owner) == line.boxed => Some(instance),
            _ => None,
        });
        let (Some(chosen), Some(number)) = (chosen, line.instance) else { return Ok(()) };
        match (&self.instances[usize::from(number)], self.instance_number(&chosen)) {
            (Some(known), _) if *known == chosen => Ok(()),
            (None, None) => {
                self.instances[usize::from(number)] = Some(chosen);
                Ok(())
            }
            _ => Err(Stop::OtherChoice),
        }
    }

    fn let_go(&mut self, line: &Line, call: HeldCall) -> Result<(), ErrorKind> {
        use Operation as O;
        let kind = match (line.fate, call.operation) {
            ("done" | "superseded", _) => return self.cloud.let_act(call.id).map_err(|error| error.kind()),
            ("refused", _) => ErrorKind::NoCapacity,
            ("lost_give_up", O::Attach | O::Detach) => ErrorKind::Permanent,
            ("lost_give_up", O::GuestSuspend | O::GuestStop) => ErrorKind::TimedOut,
            ("lost_stop", O::InstanceDelete | O::ForceDetach | O::VolumeDelete) => ErrorKind::Permanent,
            _ => ErrorKind::UnknownOutcome,
        };
        if line.fate != "refused" {
            self.lost.extend(call.value.clone());
            let (boxed, epoch) = match box_in(&call) {
                Some(_) => self.about(&call),
                None => (line.boxed, line.epoch),
            };
            self.late.push(Late { call: call.clone(), boxed, epoch });
        }
        self.cloud.let_fail(call.id, kind);
        Ok(())
    }

    /// Has a user do what makes the pool take the step.
    fn call_for(&mut self, line: &Line, node: u8) {
        let Some(boxed) = line.boxed else { return };
        let owner = self.boxes[usize::from(boxed)].clone();
        let node = &mut self.nodes[usize::from(node)];
        match line.step {
            "claim.box" | "resume.box" | "hold.box" | "guest_lost.box" | "take_over.placing" => {
                if node.connecting.get(&boxed).is_some_and(|task| !task.is_finished()) {
                    return;
                }
                let (pool, sessions) = (node.pool.clone(), Arc::clone(node.sessions.entry(boxed).or_default()));
                let mut request = ConnectRequest::new(owner.owner, owner.name);
                if line.step == "guest_lost.box" {
                    // Its user could not reach it, or nobody would look.
                    request = request.distrust(Epoch(line.epoch.unwrap_or_default().into()));
                }
                let task = node.gateway.spawn(async move {
                    if let Ok(session) = pool.connect(request).await {
                        sessions.lock().unwrap().push(session);
                    }
                });
                node.connecting.insert(boxed, task);
            }
            "leave.box" | "unhold.box" => {
                if let Some(sessions) = node.sessions.get(&boxed) {
                    sessions.lock().unwrap().clear();
                }
            }
            "delete.box" => {
                let pool = node.pool.clone();
                node.gateway.spawn(async move { pool.delete_box(&owner.owner, &owner.name).await.is_ok() });
            }
            _ => {}
        }
    }
}

/// First writes, which the pool may be asked for or have on its own.
const INTENTS: &[&str] = &[
    "claim.box",
    "resume.box",
    "hold.box",
    "guest_lost.box",
    "take_over.placing",
    "unhold.box",
    "leave.box",
    "recover.hold.box",
    "recover.withdraw.box",
    "take_over.suspending",
    "take_over.detaching",
    "take_over.deleting",
    "make_room.withdraw.box",
    "delete.box",
];

/// Steps that are no calls where there is nothing to do.
const MAY_BE_LEFT_OUT: &[&str] =
    &["claim.instance.again", "suspend", "vacate.suspend", "vacate.stop", "release.instance", "delete.volume.record"];

fn box_in(call: &HeldCall) -> Option<BoxRecord> {
    call.resource.starts_with("boxes/").then_some(())?;
    serde_json::from_str(call.value.as_deref()?).ok()
}

fn instance_in(call: &HeldCall) -> Option<InstanceRecord> {
    call.resource.starts_with("instances/").then_some(())?;
    serde_json::from_str(call.value.as_deref()?).ok()
}

/// A node takes a half-placed box with a running guest back, stands still in the middle of it for longer than it may go without a
/// heartbeat, and goes on. What does it ask for first?
pub(crate) fn first_call_after_losing_touch(seed: u64) -> Vec<Operation> {
    plant(None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut stage = Stage::set(seed, &Scope { deletes: false, ..Scope::one_box() }).await;
        let line = |step, node, epoch| Line {
            step,
            node: Some(node),
            boxed: Some(0),
            instance: Some(0),
            epoch: Some(epoch),
            fate: "done",
            doubting: false,
        };
        for (step, epoch) in [("claim.box", 0), ("claim.instance", 1), ("attach", 1), ("start", 1), ("crash", 1)] {
            assert!(stage.take(&line(step, 0, epoch)).await.is_ok(), "{step}");
        }
        let (withdraw, gateway) = (line("recover.withdraw.box", 1, 1), stage.gateway(1));
        let asked = loop {
            let held = stage.cloud.held().into_iter().find(|call| call.waits && stage.fits(&withdraw, call));
            if let Some(call) = held {
                break call.id;
            }
            stage.cloud.advance(Duration::from_secs(60)).await.unwrap();
        };
        stage.cloud.pause_gateway(gateway, true);
        stage.cloud.let_act(asked).unwrap();
        stage.cloud.advance(DEAD_AFTER * 3 / 4).await.unwrap();
        stage.cloud.pause_gateway(gateway, false);
        stage.settle().await;
        let waiting = stage.cloud.held().into_iter().filter(|call| call.waits && call.gateway == gateway);
        waiting.map(|call| call.operation).collect()
    })
}
