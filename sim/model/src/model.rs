//! The protocol, step by step, as a stateright model.
//!
//! Three things keep it small without leaving behaviour out:
//! - A compare-and-swap succeeds only if the record is as it was when it was read. So reading, deciding and writing are
//!   one step, and a version is a yes-or-no: the record is still ours, or it is not.
//! - Between a call and its answer its caller does nothing else. So effect and answer are one step, unless the answer is
//!   lost or the caller dies; then the call stays behind and may take effect later, again and again, or never.
//! - Of all tasks that ever worked on an instance's record only the last one can still change it.

use crate::action::{Action, Fate, What};
use crate::marks::{Mark, Marks};
use crate::properties::properties;
use crate::rules::{BoxEvent, ClaimEvent, Rules};
use crate::scope::{Planted, Scope};
use crate::state::{
    BoxRecord, Call, InstanceStatus, Memory, Place, RecycleStep, Recycler, State, Step, Task, VolumeStatus, bit,
};
use crate::world::Answer;
use stateright::{Model, Property};

/// The protocol within a scope.
#[derive(Debug)]
pub(crate) struct Protocol {
    /// The bounds.
    pub(crate) scope: Scope,
    /// What was seen.
    pub(crate) marks: Marks,
    /// Only properties whose names begin so; empty for all.
    pub(crate) only: String,
    rules: Rules,
}

impl Protocol {
    /// The protocol within `scope`.
    pub(crate) fn new(scope: Scope, only: String) -> Self {
        Self { scope, marks: Marks::default(), only, rules: Rules::new() }
    }

    /// From where every run begins: boxes detached, instances free, nodes alive.
    pub(crate) fn initial(&self) -> State {
        let scope = &self.scope;
        let upto = |n: u8| (1u8 << n) - 1;
        let mut state = State {
            boxes: Default::default(),
            instances: Default::default(),
            volumes: Default::default(),
            tasks: Default::default(),
            recyclers: Default::default(),
            over: Default::default(),
            alive: upto(scope.nodes),
            late: Vec::new(),
            machines: upto(scope.instances),
            made: scope.instances,
            links: Default::default(),
            guests: Default::default(),
            fences: Default::default(),
            host_fences: Default::default(),
            memory: [Memory::None; _],
            disks: upto(scope.boxes),
            residue: Default::default(),
            condemned: 0,
            asked: 0,
            crashes: scope.crashes,
            losses: scope.losses,
            doubts: scope.doubts,
            breakdowns: scope.breakdowns,
            bad: 0,
        };
        for boxed in 0..usize::from(scope.boxes) {
            state.boxes[boxed] = Some(BoxRecord { place: Place::Detached, epoch: 0, holders: 0 });
            state.volumes[boxed] = Some(VolumeStatus::Bound);
        }
        for instance in 0..usize::from(scope.instances) {
            state.instances[instance] = Some(InstanceStatus::Free);
        }
        state
    }
}

/// What a takeover is to lead to.
fn task(step: Step, instance: u8) -> Task {
    Task { step, instance, epoch: 0, doubted: false, unsaved: false, deleting: false, fresh: false }
}

/// One action being applied.
struct Turn<'a> {
    scope: &'a Scope,
    rules: &'a Rules,
    marks: &'a Marks,
    state: State,
    action: Action,
}

impl Turn<'_> {
    fn lose(&mut self) -> Option<()> {
        self.state.losses = self.state.losses.checked_sub(1)?;
        Some(())
    }

    /// The first write of a saga: it begins a step and raises the epoch.
    fn intent(&mut self, event: BoxEvent, holders: u8, then: Option<Task>) -> Option<()> {
        let (node, boxed) = (self.action.node?, self.action.boxed?);
        let record = self.state.boxes[usize::from(boxed)]?;
        let mut after = self.rules.boxed(record, event)?;
        if self.scope.has(Planted::TakeOverKeepsEpoch) && matches!(event, BoxEvent::TakeOver { .. }) {
            after.epoch = record.epoch;
        }
        if after.epoch > self.scope.epochs {
            return None;
        }
        after.holders = holders;
        self.write_box(after)?;
        if self.action.fate == Fate::Done {
            self.state.tasks[usize::from(node)][usize::from(boxed)] =
                then.map(|then| Task { epoch: after.epoch, ..then });
        }
        Some(())
    }

    fn write_box(&mut self, record: BoxRecord) -> Option<()> {
        let boxed = self.action.boxed?;
        let call = Call::WriteBox { boxed, record };
        if self.action.fate == Fate::Done {
            self.state.apply(call, self.scope, self.marks);
        } else {
            self.lose()?;
            self.state.late.push(call);
        }
        Some(())
    }

    fn see_take_over(&self, record: BoxRecord) {
        let (Some(node), Some(from)) = (self.action.node, record.place.worker()) else { return };
        if from != node {
            let dead = self.state.alive & bit(from) == 0;
            self.marks.see(if dead { Mark::TakenFromDead } else { Mark::TakenFromLiving });
        }
    }

    /// A write of the running box's holders, by a node that has nothing else to do with it.
    fn hold(&mut self, holders: u8) -> Option<()> {
        let record = self.state.boxes[usize::from(self.action.boxed?)]?;
        self.write_box(BoxRecord { holders, ..record })
    }

    fn apply(&mut self) -> Option<()> {
        let action = self.action;
        match action.what {
            What::Late(call) => {
                let before = self.state.guests;
                self.state.apply(call, self.scope, self.marks);
                match call {
                    Call::Start { .. } if before != self.state.guests => self.marks.see(Mark::LateStart),
                    Call::WriteBox { .. } | Call::WriteInstance { .. } => self.marks.see(Mark::LateWrite),
                    Call::Attach { boxed, epoch, .. }
                        if self.state.boxes[usize::from(boxed)].is_some_and(|record| record.epoch > epoch) =>
                    {
                        self.marks.see(Mark::LateAttachAfterTakeOver);
                    }
                    _ => {}
                }
                return Some(());
            }
            What::Crash => return self.crash(action.node?),
            What::BreakGuest => {
                self.state.breakdowns = self.state.breakdowns.checked_sub(1)?;
                self.state.end_guest(action.boxed?, action.instance?, true);
                return Some(());
            }
            What::BreakMachine => {
                self.state.breakdowns = self.state.breakdowns.checked_sub(1)?;
                self.state.delete_machine(action.instance?, None, true);
                return Some(());
            }
            What::MakeInstance => {
                let instance = action.instance?;
                self.state.made += 1;
                self.state.machines |= bit(instance);
                self.state.write_instance(instance, Some(InstanceStatus::Free), self.scope);
                return Some(());
            }
            _ => {}
        }
        if action.doubting {
            self.state.doubts = self.state.doubts.checked_sub(1)?;
        }
        let node = action.node?;
        match action.what {
            What::Recycle(step) => return self.recycle(node, action.instance?, step),
            What::TakeInstance => return self.take_instance(node, action.instance?),
            What::SweepLook => {
                self.state.over[usize::from(action.instance?)] |= bit(node);
                return Some(());
            }
            What::SweepRelease => return self.sweep(node, action.instance?),
            What::Step(step) => return self.step(node, action.boxed?, step),
            _ => {}
        }
        let boxed = action.boxed?;
        let record = self.state.boxes[usize::from(boxed)]?;
        let here = record.place.instance().unwrap_or_default();
        let with_us = record.holders | bit(node);
        match action.what {
            What::ClaimBox => {
                let instance = action.instance?;
                let fresh = self.state.instances[usize::from(instance)] == Some(InstanceStatus::Free);
                let then = Task { fresh, ..task(Step::ClaimInstance, instance) };
                self.intent(BoxEvent::Place { instance, node }, with_us, Some(then))
            }
            What::ResumeBox => {
                let event = BoxEvent::Place { instance: here, node };
                self.intent(event, with_us, Some(task(Step::StartParked, here)))
            }
            What::HoldBox => {
                self.marks.see(Mark::TwoHolders);
                self.hold(with_us)
            }
            What::RecoverHold => self.hold(bit(node)),
            What::LoseGuest => {
                self.marks.see(Mark::GuestLost);
                let event = BoxEvent::GuestLost { epoch: record.epoch, node };
                self.intent(event, with_us, Some(task(Step::Attach, here)))
            }
            What::TakePlacing => {
                self.see_take_over(record);
                self.intent(BoxEvent::TakeOver { node }, with_us, Some(task(Step::ClaimAgain, here)))
            }
            What::UnholdBox => self.hold(record.holders & !bit(node) & self.state.alive),
            What::LeaveBox => {
                let step = if self.scope.has(Planted::LeaveStops) { Step::Stop } else { Step::Suspend };
                self.intent(BoxEvent::Leave { node }, 0, Some(task(step, here)))
            }
            What::RecoverPlacing => {
                self.see_take_over(record);
                self.intent(BoxEvent::Withdraw { node }, 0, Some(task(self.first_of_vacate(true), here)))
            }
            What::TakeSuspending => {
                self.see_take_over(record);
                self.intent(BoxEvent::TakeOver { node }, record.holders, Some(task(Step::Suspend, here)))
            }
            What::TakeDetaching => {
                self.see_take_over(record);
                let then = task(self.first_of_vacate(true), here);
                self.intent(BoxEvent::TakeOver { node }, record.holders, Some(then))
            }
            What::MakeRoom => {
                self.intent(BoxEvent::Withdraw { node }, 0, Some(task(self.first_of_vacate(false), here)))
            }
            What::DeleteBox | What::TakeDeleting => {
                let event = if action.what == What::DeleteBox {
                    self.state.asked |= bit(boxed);
                    BoxEvent::Delete { node }
                } else {
                    self.see_take_over(record);
                    BoxEvent::TakeOver { node }
                };
                let step = if record.place.instance().is_some() { Step::Stop } else { Step::DeletingVolume };
                let then = Task { deleting: true, unsaved: true, ..task(step, here) };
                self.intent(event, 0, Some(then))
            }
            _ => None,
        }
    }

    fn first_of_vacate(&self, save_memory: bool) -> Step {
        if self.scope.has(Planted::FreedBeforeDetach) {
            Step::Release
        } else if self.scope.has(Planted::ForceFirst) {
            Step::ForceDetach
        } else if save_memory {
            Step::SaveMemory
        } else {
            Step::Stop
        }
    }

    /// The call that the task is about to make, as far as it is one call with one effect.
    fn call_of(&self, node: u8, boxed: u8, task: Task) -> Option<Call> {
        let (instance, epoch) = (task.instance, task.epoch);
        let record = self.state.boxes[usize::from(boxed)];
        let after = |event| {
            let record = self.rules.boxed(record?, event)?;
            (record.epoch <= self.scope.epochs).then_some(Call::WriteBox { boxed, record })
        };
        let status = self.state.instances[usize::from(instance)];
        let instance_after = |event| {
            let status = self.rules.instance(status?, event)?;
            let condemns = matches!(task.step, Step::EndClaim | Step::Retire);
            Some(Call::WriteInstance { instance, status, condemns })
        };
        match task.step {
            Step::ClaimInstance if !task.fresh => None,
            Step::ClaimInstance | Step::ClaimAgain => instance_after(ClaimEvent::Claim { boxed, epoch }),
            Step::ChooseAgain => None,
            Step::Attach => Some(Call::Attach { boxed, instance, epoch }),
            Step::Start | Step::StartParked => Some(Call::Start { boxed, instance, epoch }),
            Step::Run => after(BoxEvent::Started { epoch }),
            Step::Suspend | Step::SaveMemory => Some(Call::Suspend { boxed, instance, epoch }),
            Step::StopUnsaved => Some(Call::Stop { boxed, instance, epoch, knowing: true }),
            Step::Park => after(BoxEvent::Suspended { epoch }),
            Step::RunOn => after(BoxEvent::SuspendFailed { epoch }),
            Step::Withdraw => after(BoxEvent::Withdraw { node }),
            Step::Stop => Some(Call::Stop { boxed, instance, epoch, knowing: task.unsaved }),
            Step::Detach => Some(Call::Detach { boxed, instance, epoch, force: false }),
            Step::LookAtClaim => None,
            Step::EndClaim | Step::Release => {
                let epoch = if self.scope.has(Planted::ReleaseIgnoresEpoch) { u8::MAX } else { epoch };
                let goes = match task.step {
                    Step::EndClaim => !self.scope.has(Planted::PullOutInTwoWrites),
                    _ => task.doubted,
                };
                instance_after(match goes {
                    true => ClaimEvent::Condemn { boxed, epoch, node },
                    false => ClaimEvent::Release { boxed, epoch, node },
                })
            }
            Step::Retire if !task.fresh => None,
            Step::Retire => instance_after(ClaimEvent::Retire { node }),
            Step::DeleteMachine => Some(Call::DeleteMachine { instance, for_box: Some(boxed) }),
            Step::ForgetMachine if !task.fresh => None,
            Step::ForgetMachine => Some(Call::ForgetInstance { instance }),
            Step::ForceDetach => Some(Call::Detach { boxed, instance, epoch, force: true }),
            Step::Detached => after(BoxEvent::Detached { epoch }),
            Step::DeletingVolume => {
                self.rules.volume(self.state.volumes[usize::from(boxed)]?)?;
                Some(Call::WriteVolume { boxed })
            }
            Step::DeleteVolume => Some(Call::DeleteVolume { boxed }),
            Step::ForgetVolume => Some(Call::ForgetVolume { boxed }),
            Step::ForgetBox => Some(Call::ForgetBox { boxed }),
        }
    }

    /// The next call of a box's task.
    fn step(&mut self, node: u8, boxed: u8, step: Step) -> Option<()> {
        let slot = (usize::from(node), usize::from(boxed));
        let mut task = self.state.tasks[slot.0][slot.1].filter(|task| task.step == step)?;
        // While a call is on its way the task stands in its place: taken out, so that its own writes do not touch it.
        let (instance, here) = (task.instance, usize::from(task.instance));
        let call = self.call_of(node, boxed, task);
        if self.action.fate != Fate::Done {
            return self.without_answer(slot, task, call);
        }
        // The machine of a vacate is looked up before each of its calls.
        let gone = !self.state.machine(instance);
        let next = match step {
            Step::ClaimInstance | Step::ClaimAgain => {
                let by_force = self.scope.has(Planted::ClaimWithoutCas) && self.state.instances[here].is_some();
                let call = match call {
                    None if by_force => {
                        let status = InstanceStatus::Claimed { boxed, epoch: task.epoch };
                        Some(Call::WriteInstance { instance, status, condemns: false })
                    }
                    call => call,
                };
                match call {
                    Some(call) => {
                        self.state.apply(call, self.scope, self.marks);
                        Some(Step::Attach)
                    }
                    None if step == Step::ClaimInstance => {
                        self.marks.see(Mark::ClaimLost);
                        Some(Step::ChooseAgain)
                    }
                    None => Some(Step::Withdraw),
                }
            }
            Step::ChooseAgain => return self.choose_again(slot, task),
            Step::Attach => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Done => Some(Step::Start),
                Answer::Fenced => None,
                _ => {
                    task.doubted = true;
                    Some(Step::Withdraw)
                }
            },
            Step::Start | Step::StartParked => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Done => {
                    if step == Step::StartParked {
                        self.marks.see(Mark::ParkedReconnect);
                    }
                    Some(Step::Run)
                }
                Answer::Fenced => None,
                _ if step == Step::StartParked => Some(Step::Attach),
                _ => {
                    task.doubted = true;
                    Some(Step::Withdraw)
                }
            },
            Step::Run if self.scope.has(Planted::RunWithoutCas) => {
                let record = self.state.boxes[slot.1]?;
                let place = Place::Running { instance };
                let record = BoxRecord { place, epoch: task.epoch.max(record.epoch), ..record };
                self.state.apply(Call::WriteBox { boxed, record }, self.scope, self.marks);
                None
            }
            Step::Run | Step::Park | Step::RunOn => {
                if step == Step::RunOn {
                    self.marks.see(Mark::RanOn);
                }
                let Call::WriteBox { mut record, .. } = call? else { return None };
                if step == Step::RunOn {
                    record.holders |= bit(node);
                }
                self.state.apply(Call::WriteBox { boxed, record }, self.scope, self.marks);
                None
            }
            Step::Suspend if gone => {
                task.doubted = true;
                Some(Step::Withdraw)
            }
            Step::Suspend => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Fenced => None,
                _ => Some(Step::Park),
            },
            Step::StopUnsaved => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Fenced => None,
                _ => Some(Step::Park),
            },
            Step::Withdraw => {
                let save_memory = !matches!(self.state.boxes[slot.1]?.place, Place::Parked { .. });
                let Call::WriteBox { mut record, .. } = call? else { return None };
                record.holders = 0;
                self.state.apply(Call::WriteBox { boxed, record }, self.scope, self.marks);
                task.epoch = record.epoch;
                Some(self.first_of_vacate(save_memory))
            }
            Step::SaveMemory | Step::Stop if gone => Some(Step::Detach),
            Step::SaveMemory => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Fenced => None,
                _ => Some(Step::Stop),
            },
            Step::Stop => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Fenced => None,
                _ if self.scope.has(Planted::LeaveStops) && self.suspending(slot.1) => Some(Step::Park),
                _ => Some(Step::Detach),
            },
            Step::Detach | Step::ForceDetach => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Done if self.scope.has(Planted::FreedBeforeDetach) => self.after_release(task),
                Answer::Done => Some(Step::Release),
                Answer::Fenced => None,
                // Its guest runs, and goes on running until the limit.
                _ => Some(self.pull_out()),
            },
            // In the core the look and the end of the claim are one loop; they are two only in a planted mistake.
            Step::LookAtClaim => match self.state.instances[here] {
                Some(InstanceStatus::Claimed { boxed: owner, .. }) if owner == boxed => Some(Step::DeleteMachine),
                _ => None,
            },
            Step::EndClaim => {
                self.state.apply(call?, self.scope, self.marks);
                task.fresh = true;
                if self.scope.has(Planted::PullOutInTwoWrites) { Some(Step::Retire) } else { Some(Step::DeleteMachine) }
            }
            Step::Retire => {
                self.state.apply(call?, self.scope, self.marks);
                task.fresh = true;
                Some(Step::DeleteMachine)
            }
            Step::DeleteMachine => {
                self.marks.see(Mark::PulledOut);
                self.state.apply(call?, self.scope, self.marks);
                match self.scope.has(Planted::PullOutUnrecorded) {
                    true => Some(Step::ForceDetach),
                    false => Some(Step::ForgetMachine),
                }
            }
            // Forgotten by another meanwhile is as good; taken over by another is not.
            Step::ForgetMachine if self.state.instances[here].is_none() => Some(Step::ForceDetach),
            Step::ForgetMachine => match call {
                Some(call) => {
                    self.state.apply(call, self.scope, self.marks);
                    Some(Step::ForceDetach)
                }
                None => None,
            },
            Step::Release => {
                if let Some(call) = call {
                    self.state.apply(call, self.scope, self.marks);
                    self.begin_recycle(node, instance, task.doubted);
                }
                if self.scope.has(Planted::FreedBeforeDetach) {
                    Some(Step::SaveMemory)
                } else {
                    self.after_release(task)
                }
            }
            Step::Detached => {
                self.state.apply(call?, self.scope, self.marks);
                None
            }
            Step::DeletingVolume => match call {
                Some(call) => {
                    self.state.apply(call, self.scope, self.marks);
                    Some(Step::DeleteVolume)
                }
                None => Some(Step::ForgetBox),
            },
            Step::DeleteVolume => match self.state.apply(call?, self.scope, self.marks) {
                Answer::Busy => None, // until the limit; then an error, and the next pass tries again
                _ => Some(Step::ForgetVolume),
            },
            Step::ForgetVolume => {
                self.state.apply(call?, self.scope, self.marks);
                Some(Step::ForgetBox)
            }
            Step::ForgetBox => {
                self.marks.see(Mark::BoxDeleted);
                self.state.apply(call?, self.scope, self.marks);
                None
            }
        };
        self.state.tasks[slot.0][slot.1] = next.map(|step| Task { step, ..task });
        Some(())
    }

    fn pull_out(&self) -> Step {
        if self.scope.has(Planted::PullOutUnrecorded) { Step::LookAtClaim } else { Step::EndClaim }
    }

    fn suspending(&self, boxed: usize) -> bool {
        matches!(self.state.boxes[boxed], Some(BoxRecord { place: Place::Suspending { .. }, .. }))
    }

    fn after_release(&self, task: Task) -> Option<Step> {
        Some(if task.deleting { Step::DeletingVolume } else { Step::Detached })
    }

    /// Another box was faster: the next free instance, or back.
    fn choose_again(&mut self, slot: (usize, usize), mut task: Task) -> Option<()> {
        let node = self.action.node?;
        let record = self.state.boxes[slot.1]?;
        let event = match self.action.instance {
            Some(instance) => BoxEvent::Move { instance, node },
            None => BoxEvent::Withdraw { node },
        };
        let mut after = self.rules.boxed(record, event)?;
        if after.epoch > self.scope.epochs {
            return None;
        }
        task.epoch = after.epoch;
        match self.action.instance {
            Some(instance) => {
                (task.step, task.instance) = (Step::ClaimInstance, instance);
                task.fresh = self.state.instances[usize::from(instance)] == Some(InstanceStatus::Free);
            }
            None => {
                after.holders = 0;
                task.step = self.first_of_vacate(true);
            }
        }
        self.write_box(after)?;
        self.state.tasks[slot.0][slot.1] = Some(task);
        Some(())
    }

    /// The answer does not come. The call stays behind, and the caller does what the code does then.
    fn without_answer(&mut self, slot: (usize, usize), mut task: Task, call: Option<Call>) -> Option<()> {
        self.lose()?;
        let (call, boxed) = (call?, self.action.boxed?);
        let as_success = self.scope.has(Planted::UnknownIsSuccess);
        match self.action.fate {
            Fate::Superseded => {
                self.state.apply(call, self.scope, self.marks);
                task.step = Step::ChooseAgain;
                self.state.tasks[slot.0][slot.1] = Some(task);
                return Some(());
            }
            Fate::Refused => {
                // There is only room lacking where there is something to save.
                let reached = self.state.fence(boxed, task.instance, task.epoch, self.scope);
                if !reached || !self.state.runs(boxed, task.instance) {
                    return None;
                }
                task.step = Step::RunOn;
                self.state.tasks[slot.0][slot.1] = Some(task);
                return Some(());
            }
            _ => {}
        }
        self.state.late.push(call);
        let next = match (self.action.fate, task.step) {
            (Fate::LostAgain, step) => Some(step),
            (Fate::LostGiveUp, Step::Attach | Step::Start | Step::StartParked) => {
                task.doubted = true;
                Some(Step::Withdraw)
            }
            (Fate::LostGiveUp, Step::Suspend) if as_success => Some(Step::Park),
            (Fate::LostGiveUp, Step::Suspend) => {
                task.unsaved = true;
                Some(Step::StopUnsaved)
            }
            (Fate::LostGiveUp, Step::SaveMemory) if as_success => Some(Step::Stop),
            (Fate::LostGiveUp, Step::SaveMemory) => {
                task.unsaved = true;
                Some(Step::Stop)
            }
            (Fate::LostGiveUp, Step::Stop) if as_success => Some(Step::Detach),
            (Fate::LostGiveUp, Step::Detach) if as_success => Some(Step::Release),
            (Fate::LostGiveUp, Step::Stop | Step::Detach) => Some(self.pull_out()),
            _ => None,
        };
        self.state.tasks[slot.0][slot.1] = next.map(|step| Task { step, ..task });
        Some(())
    }

    /// The instance's record has just become `Recycling` or, when it is in doubt, `Deleting`, by `node`.
    fn begin_recycle(&mut self, node: u8, instance: u8, doubted: bool) {
        let at = usize::from(instance);
        if self.scope.has(Planted::FreedWithoutClear) || self.scope.has(Planted::FreedBeforeDetach) {
            self.state.instances[at] = Some(InstanceStatus::Free);
            return;
        }
        let step = if doubted { RecycleStep::DeleteMachine } else { RecycleStep::Clear };
        self.state.recyclers[at] = Some(Recycler { node, step });
    }

    fn recycle_call(&self, node: u8, instance: u8, step: RecycleStep) -> Option<Call> {
        let status = self.state.instances[usize::from(instance)]?;
        let after = |event| {
            Some(Call::WriteInstance { instance, status: self.rules.instance(status, event)?, condemns: false })
        };
        match step {
            RecycleStep::Clear => None,
            RecycleStep::SetFree => after(ClaimEvent::Cleared),
            RecycleStep::Retire => after(ClaimEvent::Retire { node }),
            RecycleStep::DeleteMachine => Some(Call::DeleteMachine { instance, for_box: None }),
            RecycleStep::ForgetInstance => Some(Call::ForgetInstance { instance }),
        }
    }

    fn recycle(&mut self, node: u8, instance: u8, step: RecycleStep) -> Option<()> {
        let at = usize::from(instance);
        let call = self.recycle_call(node, instance, step);
        if self.action.fate != Fate::Done {
            self.lose()?;
            self.state.late.extend(call);
            self.state.recyclers[at] = None;
            return Some(());
        }
        let next = match step {
            RecycleStep::Clear if self.state.occupied(instance) => Some(RecycleStep::Retire),
            RecycleStep::Clear => {
                self.state.residue[at] = None;
                Some(RecycleStep::SetFree)
            }
            RecycleStep::SetFree => {
                self.marks.see(Mark::InstanceFreeAgain);
                self.state.apply(call?, self.scope, self.marks);
                None
            }
            RecycleStep::Retire => {
                self.state.apply(call?, self.scope, self.marks);
                Some(RecycleStep::DeleteMachine)
            }
            RecycleStep::DeleteMachine => {
                self.marks.see(Mark::InstanceDeleted);
                self.state.apply(call?, self.scope, self.marks);
                Some(RecycleStep::ForgetInstance)
            }
            RecycleStep::ForgetInstance => {
                self.state.apply(call?, self.scope, self.marks);
                None
            }
        };
        self.state.recyclers[at] = next.map(|step| Recycler { node, step });
        Some(())
    }

    fn take_instance(&mut self, node: u8, instance: u8) -> Option<()> {
        let status = self.state.instances[usize::from(instance)]?;
        let status = self.rules.instance(status, ClaimEvent::TakeOver { node })?;
        let call = Call::WriteInstance { instance, status, condemns: false };
        if self.action.fate != Fate::Done {
            self.lose()?;
            self.state.late.push(call);
            return Some(());
        }
        self.state.apply(call, self.scope, self.marks);
        let step = match status {
            InstanceStatus::Deleting { .. } => RecycleStep::DeleteMachine,
            _ => RecycleStep::Clear,
        };
        self.state.recyclers[usize::from(instance)] = Some(Recycler { node, step });
        Some(())
    }

    fn sweep(&mut self, node: u8, instance: u8) -> Option<()> {
        let status = self.state.instances[usize::from(instance)]?;
        let InstanceStatus::Claimed { boxed, epoch } = status else { return None };
        let status = self.rules.instance(status, ClaimEvent::Release { boxed, epoch, node })?;
        let call = Call::WriteInstance { instance, status, condemns: false };
        self.state.over[usize::from(instance)] &= !bit(node);
        if self.action.fate != Fate::Done {
            self.lose()?;
            self.state.late.push(call);
            return Some(());
        }
        self.marks.see(Mark::ClaimSwept);
        self.state.apply(call, self.scope, self.marks);
        self.begin_recycle(node, instance, false);
        if self.scope.has(Planted::SweepWithCurrentEpoch) {
            self.state.late.push(Call::SweepStop { boxed, instance });
        }
        if self.scope.has(Planted::SweepDeletesVolume) {
            self.state.links[usize::from(boxed)] &= !bit(instance);
            self.state.apply(Call::DeleteVolume { boxed }, self.scope, self.marks);
        }
        Some(())
    }

    /// The node dies. What it was about to send may have been sent.
    fn crash(&mut self, node: u8) -> Option<()> {
        self.state.crashes = self.state.crashes.checked_sub(1)?;
        self.state.alive &= !bit(node);
        for boxed in 0..self.scope.boxes {
            if let Some(task) = self.state.tasks[usize::from(node)][usize::from(boxed)].take() {
                let call = self.call_of(node, boxed, task);
                self.state.late.extend(call);
            }
        }
        for instance in 0..self.state.made {
            let at = usize::from(instance);
            self.state.over[at] &= !bit(node);
            if let Some(recycler) = self.state.recyclers[at].take_if(|recycler| recycler.node == node) {
                let call = self.recycle_call(node, instance, recycler.step);
                self.state.late.extend(call);
            }
        }
        Some(())
    }
}

impl Protocol {
    /// What a node may begin, or continue, for a box.
    fn box_actions(&self, state: &State, node: u8, boxed: u8, actions: &mut Vec<Action>) {
        let plain = Action {
            what: What::Crash,
            node: Some(node),
            boxed: Some(boxed),
            instance: None,
            epoch: None,
            fate: Fate::Done,
            doubting: false,
        };
        let losing = state.losses > 0;
        if let Some(task) = state.tasks[usize::from(node)][usize::from(boxed)] {
            let base =
                Action { what: What::Step(task.step), instance: Some(task.instance), epoch: Some(task.epoch), ..plain };
            if task.step == Step::ChooseAgain {
                for instance in self.candidates(state).filter(|instance| *instance != task.instance) {
                    actions.push(Action { instance: Some(instance), ..base });
                }
                actions.push(Action { instance: None, ..base });
                return;
            }
            actions.push(base);
            if losing {
                for fate in fates(task.step) {
                    actions.push(Action { fate: *fate, ..base });
                }
            }
            return;
        }
        let Some(record) = state.boxes[usize::from(boxed)] else { return };
        let plain = Action { instance: record.place.instance(), epoch: Some(record.epoch), ..plain };
        let mut begin = |action: Action| {
            actions.push(action);
            if losing {
                actions.push(Action { fate: Fate::LostStop, ..action });
            }
        };
        // A step is up to us when its node is dead or ourselves; a living one may be taken for dead.
        let dead = |other: u8| other == node || state.alive & bit(other) == 0;
        let up_to_us = record.place.worker().is_some_and(dead);
        let doubting = !up_to_us;
        if doubting && state.doubts == 0 && record.place.worker().is_some() {
            return;
        }
        match record.place {
            Place::Detached => {
                for instance in self.candidates(state) {
                    begin(Action { what: What::ClaimBox, instance: Some(instance), ..plain });
                }
            }
            Place::Parked { .. } => {
                begin(Action { what: What::ResumeBox, ..plain });
                begin(Action { what: What::MakeRoom, ..plain });
            }
            Place::Running { instance } => {
                let holds = record.holders & bit(node) != 0;
                let others = record.holders & !bit(node);
                if !state.runs(boxed, instance) {
                    begin(Action { what: What::LoseGuest, ..plain });
                } else if !holds {
                    begin(Action { what: What::HoldBox, ..plain });
                }
                let living = others & state.alive;
                if holds && living != 0 {
                    begin(Action { what: What::UnholdBox, ..plain });
                }
                if living == 0 || state.doubts > 0 {
                    let doubting = living != 0;
                    if holds {
                        begin(Action { what: What::LeaveBox, doubting, ..plain });
                    } else {
                        begin(Action { what: What::RecoverHold, doubting, ..plain });
                    }
                }
            }
            Place::Placing { .. } => {
                begin(Action { what: What::TakePlacing, doubting, ..plain });
                begin(Action { what: What::RecoverPlacing, doubting, ..plain });
            }
            Place::Suspending { .. } => begin(Action { what: What::TakeSuspending, doubting, ..plain }),
            Place::Detaching { .. } => begin(Action { what: What::TakeDetaching, doubting, ..plain }),
            Place::Deleting { .. } => begin(Action { what: What::TakeDeleting, doubting, ..plain }),
        }
        let at_rest = matches!(record.place, Place::Detached | Place::Running { .. } | Place::Parked { .. });
        if self.scope.deletes && at_rest {
            begin(Action { what: What::DeleteBox, ..plain });
        }
    }

    /// Instances that the free index may name.
    fn candidates(&self, state: &State) -> impl Iterator<Item = u8> {
        let stale = self.scope.stale_index;
        let instances = state.instances;
        (0..state.made).filter(move |instance| match instances[usize::from(*instance)] {
            Some(InstanceStatus::Free) => true,
            Some(_) => stale,
            None => false,
        })
    }

    /// What a node may do to an instance's record.
    fn instance_actions(&self, state: &State, node: u8, instance: u8, actions: &mut Vec<Action>) {
        let at = usize::from(instance);
        let plain = Action {
            what: What::Crash,
            node: Some(node),
            boxed: None,
            instance: Some(instance),
            epoch: None,
            fate: Fate::Done,
            doubting: false,
        };
        let losing = state.losses > 0;
        let begin = |actions: &mut Vec<Action>, action: Action| {
            actions.push(action);
            if losing {
                actions.push(Action { fate: Fate::LostStop, ..action });
            }
        };
        if let Some(recycler) = state.recyclers[at].filter(|recycler| recycler.node == node) {
            begin(actions, Action { what: What::Recycle(recycler.step), ..plain });
        }
        match state.instances[at] {
            Some(InstanceStatus::Claimed { boxed, .. }) => {
                let names = state.boxes[usize::from(boxed)].and_then(|record| record.place.instance());
                let seen = state.over[at] & bit(node) != 0;
                if names != Some(instance) && !seen {
                    actions.push(Action { what: What::SweepLook, boxed: Some(boxed), ..plain });
                }
                if seen {
                    begin(actions, Action { what: What::SweepRelease, boxed: Some(boxed), ..plain });
                }
            }
            Some(InstanceStatus::Recycling { node: worker } | InstanceStatus::Deleting { node: worker }) => {
                let dead = state.alive & bit(worker) == 0;
                // A node does one thing at a time to an instance, and pulls out under the same guard.
                let pulls_out = state.tasks[usize::from(node)].iter().flatten().any(|task| {
                    task.instance == instance
                        && matches!(
                            task.step,
                            Step::Retire | Step::DeleteMachine | Step::ForgetMachine | Step::ForceDetach
                        )
                });
                let ours = worker == node && state.recyclers[at].is_none() && !pulls_out;
                if dead || ours {
                    begin(actions, Action { what: What::TakeInstance, ..plain });
                } else if worker != node && state.doubts > 0 {
                    begin(actions, Action { what: What::TakeInstance, doubting: true, ..plain });
                }
            }
            _ => {
                let unread = state.over[at] & bit(node) == 0;
                if self.scope.has(Planted::SweepReadsBoxFirst) && unread {
                    let named = state.boxes.iter().flatten().any(|record| record.place.instance() == Some(instance));
                    if !named {
                        actions.push(Action { what: What::SweepLook, ..plain });
                    }
                }
            }
        }
    }
}

/// What can become of a call beside its answer: as many ways as the code has to go on without one.
fn fates(step: Step) -> &'static [Fate] {
    match step {
        Step::ClaimInstance => &[Fate::LostStop, Fate::Superseded],
        Step::Attach => &[Fate::LostAgain, Fate::LostGiveUp],
        Step::Start | Step::StartParked => &[Fate::LostGiveUp],
        Step::Suspend => &[Fate::LostStop, Fate::LostGiveUp, Fate::Refused],
        Step::SaveMemory | Step::Stop | Step::Detach => &[Fate::LostAgain, Fate::LostGiveUp],
        Step::DeleteMachine | Step::ForceDetach | Step::DeleteVolume => &[Fate::LostAgain, Fate::LostStop],
        Step::LookAtClaim | Step::ChooseAgain => &[],
        _ => &[Fate::LostStop],
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let plain = Action {
            what: What::Crash,
            node: None,
            boxed: None,
            instance: None,
            epoch: None,
            fate: Fate::Done,
            doubting: false,
        };
        for node in (0..self.scope.nodes).filter(|node| state.alive & bit(*node) != 0) {
            for boxed in 0..self.scope.boxes {
                self.box_actions(state, node, boxed, actions);
            }
            for instance in 0..state.made {
                self.instance_actions(state, node, instance, actions);
            }
            if state.crashes > 0 {
                actions.push(Action { node: Some(node), ..plain });
            }
        }
        for call in &state.late {
            actions.push(Action { what: What::Late(*call), ..plain });
        }
        if state.breakdowns > 0 {
            for instance in (0..state.made).filter(|instance| state.machine(*instance)) {
                actions.push(Action { what: What::BreakMachine, instance: Some(instance), ..plain });
                for boxed in (0..self.scope.boxes).filter(|boxed| state.runs(*boxed, instance)) {
                    actions.push(Action {
                        what: What::BreakGuest,
                        instance: Some(instance),
                        boxed: Some(boxed),
                        ..plain
                    });
                }
            }
        }
        let seats = state.instances.iter().flatten().count();
        if state.made < self.scope.instances + self.scope.makes && seats < usize::from(self.scope.instances) {
            actions.push(Action { what: What::MakeInstance, instance: Some(state.made), ..plain });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut turn = Turn { scope: &self.scope, rules: &self.rules, marks: &self.marks, state: last.clone(), action };
        turn.apply()?;
        let mut state = turn.state;
        state.tidy(&self.scope);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties().into_iter().filter(|property| property.name.starts_with(&self.only)).collect()
    }
}
