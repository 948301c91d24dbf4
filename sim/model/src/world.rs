//! What a call does when it takes effect: the store's compare-and-swap, the providers and the runtime.
//!
//! The contracts of `core/src/provider.rs` and `core/src/runtime.rs`, at their weakest where the scope says so.

use crate::marks::{Mark, Marks};
use crate::scope::{Backend, Planted, Scope};
use crate::state::{BoxRecord, Call, InstanceStatus, Memory, State, Step, VolumeStatus, bad, bit};

/// What a call answers. Only the kinds that the protocol tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// The guest did not run.
    NotRunning,
    Busy,
    NotFound,
    Fenced,
}

impl State {
    pub(crate) fn runs(&self, boxed: u8, instance: u8) -> bool {
        self.guests[usize::from(boxed)] & bit(instance) != 0
    }

    pub(crate) fn linked(&self, boxed: u8, instance: u8) -> bool {
        self.links[usize::from(boxed)] & bit(instance) != 0
    }

    pub(crate) fn machine(&self, instance: u8) -> bool {
        self.machines & bit(instance) != 0
    }

    /// Whether any guest or volume is on the instance.
    pub(crate) fn occupied(&self, instance: u8) -> bool {
        self.links.iter().chain(&self.guests).any(|on| on & bit(instance) != 0)
    }

    pub(crate) fn write_box(&mut self, boxed: u8, record: Option<BoxRecord>) {
        self.boxes[usize::from(boxed)] = record;
        self.late.retain(
            |call| !matches!(call, Call::WriteBox { boxed: b, .. } | Call::ForgetBox { boxed: b } if *b == boxed),
        );
    }

    /// Everybody else who held this record has lost it.
    pub(crate) fn write_instance(&mut self, instance: u8, status: Option<InstanceStatus>, scope: &Scope) {
        let at = usize::from(instance);
        self.instances[at] = status;
        self.recyclers[at] = None;
        if !scope.has(Planted::SweepReadsBoxFirst) {
            self.over[at] = 0;
        }
        for task in self.tasks.iter_mut().flatten().flatten() {
            if task.instance == instance {
                task.fresh = false;
            }
        }
        self.late.retain(|call| {
            !matches!(call, Call::WriteInstance { instance: i, .. } | Call::ForgetInstance { instance: i } if *i == instance)
        });
    }

    pub(crate) fn write_volume(&mut self, boxed: u8, status: Option<VolumeStatus>) {
        self.volumes[usize::from(boxed)] = status;
        self.late.retain(
            |call| !matches!(call, Call::WriteVolume { boxed: b } | Call::ForgetVolume { boxed: b } if *b == boxed),
        );
    }

    /// A guest ends without its memory being saved.
    pub(crate) fn end_guest(&mut self, boxed: u8, instance: u8, knowing: bool) {
        let at = usize::from(boxed);
        self.guests[at] &= !bit(instance);
        if self.memory[at] == Memory::Live && self.guests[at] == 0 {
            self.memory[at] = Memory::None;
            // Nobody wants the memory of a box that is being deleted.
            if !knowing && self.asked & bit(boxed) == 0 {
                self.bad |= bad::KILLED;
            }
        }
    }

    /// Whether the runtime lets a call with that epoch through; if so it remembers the epoch, wherever it can.
    pub(crate) fn fence(&mut self, boxed: u8, instance: u8, epoch: u8, scope: &Scope) -> bool {
        let (at, here) = (usize::from(boxed), usize::from(instance));
        if scope.has(Planted::NoFence) {
            self.fences[at] = self.fences[at].max(epoch);
            return true;
        }
        let on_volume = scope.backend == Backend::Local || self.linked(boxed, instance);
        let on_instance = scope.backend == Backend::Cloud;
        if on_volume && epoch < self.fences[at] || on_instance && epoch < self.host_fences[here][at] {
            return false;
        }
        if on_volume {
            self.fences[at] = epoch;
        }
        if on_instance {
            self.host_fences[here][at] = epoch;
        }
        true
    }

    fn remembered(&mut self, boxed: u8, epoch: u8, scope: &Scope) -> bool {
        let at = usize::from(boxed);
        if scope.backend != Backend::Local || scope.has(Planted::NoFence) {
            return true;
        }
        if epoch < self.fences[at] {
            return false;
        }
        self.fences[at] = epoch;
        true
    }

    fn acted(&mut self, boxed: u8, epoch: u8) {
        let at = usize::from(boxed);
        if epoch < self.fences[at] {
            self.bad |= bad::OLD_EPOCH;
        }
    }

    pub(crate) fn delete_machine(&mut self, instance: u8, for_box: Option<u8>, knowing: bool) {
        for boxed in 0..self.boxes.len() as u8 {
            if self.runs(boxed, instance) {
                let knowing = knowing || for_box == Some(boxed) || self.condemned & bit(instance) != 0;
                self.end_guest(boxed, instance, knowing);
            }
            self.links[usize::from(boxed)] &= !bit(instance);
        }
        self.machines &= !bit(instance);
        self.host_fences[usize::from(instance)] = Default::default();
        self.residue[usize::from(instance)] = None;
    }

    /// A call takes effect. Calls on records are only made, or kept, while the record is as their caller knew it.
    pub(crate) fn apply(&mut self, call: Call, scope: &Scope, marks: &Marks) -> Answer {
        match call {
            Call::WriteBox { boxed, record } => {
                self.write_box(boxed, Some(record));
                Answer::Done
            }
            Call::WriteInstance { instance, status, condemns } => {
                match status {
                    InstanceStatus::Free => self.condemned &= !bit(instance),
                    _ if condemns => self.condemned |= bit(instance),
                    _ => {}
                }
                self.write_instance(instance, Some(status), scope);
                Answer::Done
            }
            Call::WriteVolume { boxed } => {
                self.write_volume(boxed, Some(VolumeStatus::Deleting));
                Answer::Done
            }
            Call::ForgetBox { boxed } => {
                self.write_box(boxed, None);
                Answer::Done
            }
            Call::ForgetInstance { instance } => {
                self.write_instance(instance, None, scope);
                Answer::Done
            }
            Call::ForgetVolume { boxed } => {
                self.write_volume(boxed, None);
                Answer::Done
            }
            Call::Attach { boxed, instance, epoch } => self.attach(boxed, instance, epoch, scope),
            Call::Detach { boxed, instance, epoch, force } => {
                if !self.remembered(boxed, epoch, scope) {
                    return Answer::Fenced;
                }
                if self.runs(boxed, instance) {
                    if !(force && (scope.backend != Backend::Local || scope.has(Planted::ForceFirst))) {
                        return Answer::Busy;
                    }
                    self.bad |= bad::PULLED;
                }
                self.links[usize::from(boxed)] &= !bit(instance);
                Answer::Done
            }
            Call::Start { boxed, instance, epoch } => self.start(boxed, instance, epoch, scope, marks),
            Call::Suspend { boxed, instance, epoch } => {
                if !self.fence(boxed, instance, epoch, scope) {
                    return Answer::Fenced;
                }
                if !self.runs(boxed, instance) {
                    return Answer::NotRunning;
                }
                self.acted(boxed, epoch);
                let at = usize::from(boxed);
                self.guests[at] &= !bit(instance);
                if self.memory[at] == Memory::Live {
                    self.memory[at] = Memory::Saved;
                }
                Answer::Done
            }
            Call::Stop { boxed, instance, epoch, knowing } => {
                if !self.fence(boxed, instance, epoch, scope) {
                    return Answer::Fenced;
                }
                if self.runs(boxed, instance) {
                    self.acted(boxed, epoch);
                    self.end_guest(boxed, instance, knowing);
                }
                Answer::Done
            }
            Call::DeleteMachine { instance, for_box } => {
                if self.machine(instance) {
                    self.delete_machine(instance, for_box, false);
                }
                Answer::Done
            }
            Call::DeleteVolume { boxed } => {
                if self.links[usize::from(boxed)] != 0 {
                    return Answer::Busy;
                }
                self.disks &= !bit(boxed);
                self.memory[usize::from(boxed)] = Memory::None;
                Answer::Done
            }
            Call::SweepStop { boxed, instance } => {
                let Some(record) = self.boxes[usize::from(boxed)] else { return Answer::Done };
                let epoch = record.epoch;
                self.apply(Call::Stop { boxed, instance, epoch, knowing: false }, scope, marks)
            }
        }
    }

    fn attach(&mut self, boxed: u8, instance: u8, epoch: u8, scope: &Scope) -> Answer {
        if !self.machine(instance) || self.disks & bit(boxed) == 0 {
            return Answer::NotFound;
        }
        if epoch < self.fences[usize::from(boxed)] && !self.remembered(boxed, epoch, scope) {
            return Answer::Fenced;
        }
        if !self.linked(boxed, instance) {
            let elsewhere = self.links[usize::from(boxed)] != 0 && !scope.has(Planted::AttachNotExclusive);
            if elsewhere || self.links.iter().any(|on| on & bit(instance) != 0) {
                return Answer::Busy;
            }
            self.links[usize::from(boxed)] |= bit(instance);
        }
        self.remembered(boxed, epoch, scope);
        Answer::Done
    }

    fn start(&mut self, boxed: u8, instance: u8, epoch: u8, scope: &Scope, marks: &Marks) -> Answer {
        if !self.fence(boxed, instance, epoch, scope) {
            marks.see(Mark::StartFenced);
            return Answer::Fenced;
        }
        if self.runs(boxed, instance) {
            marks.see(Mark::GuestAdopted);
            return Answer::Done;
        }
        if !self.machine(instance) || !self.linked(boxed, instance) {
            return Answer::NotFound;
        }
        self.acted(boxed, epoch);
        let at = usize::from(boxed);
        match self.memory[at] {
            Memory::Saved => marks.see(Mark::MemoryResumed),
            Memory::None | Memory::Live => {}
        }
        if scope.instances == 1 && (0..scope.boxes).any(|other| other != boxed && self.fences[usize::from(other)] > 0) {
            marks.see(Mark::NextBoxServed);
        }
        self.guests[at] |= bit(instance);
        self.memory[at] = Memory::Live;
        if self.residue[usize::from(instance)].replace(boxed).is_some_and(|other| other != boxed) {
            self.bad |= bad::RESIDUE;
        }
        Answer::Done
    }

    /// Drops the calls that can surely never do anything any more, and puts the rest in order.
    pub(crate) fn tidy(&mut self, scope: &Scope) {
        let mut late = std::mem::take(&mut self.late);
        let fenced = |boxed: u8, epoch: u8| epoch < self.fences[usize::from(boxed)] && !scope.has(Planted::NoFence);
        let fenced_there = |boxed: u8, instance: u8, epoch: u8| {
            let on_instance = self.host_fences[usize::from(instance)][usize::from(boxed)];
            fenced(boxed, epoch) || scope.backend == Backend::Cloud && epoch < on_instance
        };
        late.retain(|call| match *call {
            Call::Attach { boxed, instance, epoch } => {
                let refused = scope.backend == Backend::Local && fenced(boxed, epoch);
                self.machine(instance) && self.disks & bit(boxed) != 0 && !refused
            }
            Call::Detach { boxed, instance, epoch, .. } => {
                let refused = scope.backend == Backend::Local && fenced(boxed, epoch);
                self.machine(instance) && self.disks & bit(boxed) != 0 && !refused
            }
            Call::Start { boxed, instance, epoch }
            | Call::Suspend { boxed, instance, epoch }
            | Call::Stop { boxed, instance, epoch, .. } => {
                self.machine(instance) && self.disks & bit(boxed) != 0 && !fenced_there(boxed, instance, epoch)
            }
            Call::SweepStop { instance, .. } | Call::DeleteMachine { instance, .. } => self.machine(instance),
            Call::DeleteVolume { boxed } => self.disks & bit(boxed) != 0,
            _ => true,
        });
        late.sort_unstable();
        late.dedup();
        self.late = late;
        // A task whose next call is a compare-and-swap that can only fail is over: its next look is a new task's.
        for node in 0..self.tasks.len() {
            for boxed in 0..self.boxes.len() {
                if let Some(task) = self.tasks[node][boxed]
                    && task.step.writes_box()
                    && !self.still_ours(node as u8, boxed as u8)
                    && !(task.step == Step::Run && scope.has(Planted::RunWithoutCas))
                {
                    self.tasks[node][boxed] = None;
                }
            }
        }
    }

    /// Whether the box's record is the one that the node's task wrote last.
    pub(crate) fn still_ours(&self, node: u8, boxed: u8) -> bool {
        match (self.tasks[usize::from(node)][usize::from(boxed)], self.boxes[usize::from(boxed)]) {
            (Some(task), Some(record)) => record.epoch == task.epoch && record.place.worker() == Some(node),
            _ => false,
        }
    }
}

impl Step {
    /// Whether the call is a compare-and-swap of the box's record.
    pub(crate) fn writes_box(self) -> bool {
        matches!(
            self,
            Self::ChooseAgain
                | Self::Run
                | Self::Park
                | Self::RunOn
                | Self::Withdraw
                | Self::Detached
                | Self::ForgetBox
        )
    }
}
