//! What can happen next, and how it is told: in words, and as a line of JSON that another program can replay.

use crate::state::{Call, RecycleStep, Step};
use serde::Serialize;

/// What happens. The names follow the steps of `core/src/saga`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Connect to a detached box: the intent.
    ClaimBox,
    /// Connect to a parked box: the intent.
    ResumeBox,
    /// Connect to a running box: this node holds it, too.
    HoldBox,
    /// Connect to a running box whose guest is gone: the intent to start it again.
    LoseGuest,
    /// Connect to a box in a step that nobody is at: the takeover.
    TakePlacing,
    /// The last session here ends; others hold the box.
    UnholdBox,
    /// The last session ends: the intent to suspend.
    LeaveBox,
    /// Nobody alive holds the running box: this node does, and will leave it.
    RecoverHold,
    /// Recovery of a half-placed box: back.
    RecoverPlacing,
    /// Recovery: takeover of the step.
    TakeSuspending,
    /// The same.
    TakeDetaching,
    /// The same.
    TakeDeleting,
    /// A parked box gives its instance back.
    MakeRoom,
    /// The owner's word.
    DeleteBox,
    /// The next call of the node's task for the box.
    Step(Step),
    /// The next call of the task at work on an instance.
    Recycle(RecycleStep),
    /// Another node, or another task, continues with an instance.
    TakeInstance,
    /// A reconcile sees a claim whose box names another instance or none.
    SweepLook,
    /// And ends it.
    SweepRelease,
    /// A new instance on a seat that is empty.
    MakeInstance,
    /// The node dies.
    Crash,
    /// A guest dies as by a power cut.
    BreakGuest,
    /// A machine is gone.
    BreakMachine,
    /// A call takes effect for which nobody waits any more.
    Late(Call),
}

/// What becomes of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It takes effect and is answered.
    Done,
    /// No answer; the effect may come later or never; the caller stops.
    LostStop,
    /// No answer; the caller asks again.
    LostAgain,
    /// No answer; the caller goes on to its way out.
    LostGiveUp,
    /// Refused for lack of room: nothing happened.
    Refused,
    /// It took effect, and before its lost answer was looked into, another had changed the record.
    Superseded,
}

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Action {
    pub(crate) what: What,
    pub(crate) node: Option<u8>,
    pub(crate) boxed: Option<u8>,
    pub(crate) instance: Option<u8>,
    pub(crate) epoch: Option<u8>,
    pub(crate) fate: Fate,
    /// Somebody who lives was taken for dead.
    pub(crate) doubting: bool,
}

/// One step of a run as JSON. The format is described in the crate's README.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Name of the step.
    pub step: &'static str,
    /// Who acts; absent for what happens by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u8>,
    /// For which box.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub boxed: Option<u8>,
    /// On which instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<u8>,
    /// With which epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u8>,
    /// What becomes of the call.
    pub fate: &'static str,
    /// A living node was taken for dead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub doubting: bool,
}

impl Step {
    /// The step's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClaimInstance => "claim.instance",
            Self::ClaimAgain => "claim.instance.again",
            Self::ChooseAgain => "move.box",
            Self::Attach => "attach",
            Self::Start | Self::StartParked => "start",
            Self::Run => "run.box",
            Self::Suspend => "suspend",
            Self::StopUnsaved => "stop.unsaved",
            Self::Park => "park.box",
            Self::RunOn => "run_on.box",
            Self::Withdraw => "withdraw.box",
            Self::SaveMemory => "vacate.suspend",
            Self::Stop => "vacate.stop",
            Self::Detach => "detach",
            Self::LookAtClaim => "pull_out.look",
            Self::EndClaim => "pull_out.release.instance",
            Self::Retire => "pull_out.retire.instance",
            Self::DeleteMachine => "pull_out.delete.machine",
            Self::ForgetMachine => "pull_out.forget.instance",
            Self::ForceDetach => "force_detach",
            Self::Release => "release.instance",
            Self::Detached => "detached.box",
            Self::DeletingVolume => "delete.volume.record",
            Self::DeleteVolume => "delete.volume",
            Self::ForgetVolume => "forget.volume",
            Self::ForgetBox => "forget.box",
        }
    }
}

impl RecycleStep {
    /// The step's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clear => "recycle.clear",
            Self::SetFree => "recycle.free.instance",
            Self::Retire => "retire.instance",
            Self::DeleteMachine => "retire.delete.machine",
            Self::ForgetInstance => "forget.instance",
        }
    }
}

impl Call {
    /// The name of the step that makes this call.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WriteBox { .. } => "write.box",
            Self::WriteInstance { .. } => "write.instance",
            Self::WriteVolume { .. } => "delete.volume.record",
            Self::ForgetBox { .. } => "forget.box",
            Self::ForgetInstance { .. } => "forget.instance",
            Self::ForgetVolume { .. } => "forget.volume",
            Self::Attach { .. } => "attach",
            Self::Detach { force: false, .. } => "detach",
            Self::Detach { force: true, .. } => "force_detach",
            Self::Start { .. } => "start",
            Self::Suspend { .. } => "suspend",
            Self::Stop { .. } => "stop",
            Self::DeleteMachine { .. } => "delete.machine",
            Self::DeleteVolume { .. } => "delete.volume",
            Self::SweepStop { .. } => "sweep.stop",
        }
    }

    fn about(self) -> (Option<u8>, Option<u8>, Option<u8>) {
        match self {
            Self::WriteBox { boxed, record } => (Some(boxed), record.place.instance(), Some(record.epoch)),
            Self::WriteVolume { boxed }
            | Self::ForgetBox { boxed }
            | Self::ForgetVolume { boxed }
            | Self::DeleteVolume { boxed } => (Some(boxed), None, None),
            Self::WriteInstance { instance, .. } | Self::ForgetInstance { instance } => (None, Some(instance), None),
            Self::DeleteMachine { instance, for_box } => (for_box, Some(instance), None),
            Self::SweepStop { boxed, instance } => (Some(boxed), Some(instance), None),
            Self::Attach { boxed, instance, epoch }
            | Self::Detach { boxed, instance, epoch, .. }
            | Self::Start { boxed, instance, epoch }
            | Self::Suspend { boxed, instance, epoch }
            | Self::Stop { boxed, instance, epoch, .. } => (Some(boxed), Some(instance), Some(epoch)),
        }
    }
}

impl Action {
    /// The step's name.
    pub(crate) fn name(&self) -> &'static str {
        match self.what {
            What::ClaimBox => "claim.box",
            What::ResumeBox => "resume.box",
            What::HoldBox => "hold.box",
            What::LoseGuest => "guest_lost.box",
            What::TakePlacing => "take_over.placing",
            What::UnholdBox => "unhold.box",
            What::LeaveBox => "leave.box",
            What::RecoverHold => "recover.hold.box",
            What::RecoverPlacing => "recover.withdraw.box",
            What::TakeSuspending => "take_over.suspending",
            What::TakeDetaching => "take_over.detaching",
            What::TakeDeleting => "take_over.deleting",
            What::MakeRoom => "make_room.withdraw.box",
            What::DeleteBox => "delete.box",
            What::Step(Step::ChooseAgain) if self.instance.is_none() => Step::Withdraw.name(),
            What::Step(step) => step.name(),
            What::Recycle(step) => step.name(),
            What::TakeInstance => "take_over.instance",
            What::SweepLook => "sweep.look",
            What::SweepRelease => "sweep.release.instance",
            What::MakeInstance => "make.instance",
            What::Crash => "crash",
            What::BreakGuest => "break.guest",
            What::BreakMachine => "break.machine",
            What::Late(call) => call.name(),
        }
    }

    /// As a line of JSON.
    pub(crate) fn line(&self) -> Line {
        let (mut boxed, mut instance, mut epoch) = (self.boxed, self.instance, self.epoch);
        let mut fate = match self.fate {
            Fate::Done => "done",
            Fate::LostStop => "lost_stop",
            Fate::LostAgain => "lost_again",
            Fate::LostGiveUp => "lost_give_up",
            Fate::Refused => "refused",
            Fate::Superseded => "superseded",
        };
        if let What::Late(call) = self.what {
            (boxed, instance, epoch) = call.about();
            fate = "late";
        }
        Line { step: self.name(), node: self.node, boxed, instance, epoch, fate, doubting: self.doubting }
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        let line = self.line();
        let mut text = match line.node {
            Some(node) => format!("node {node}: {}", line.step),
            None => line.step.to_owned(),
        };
        for (what, number) in [("box", line.boxed), ("instance", line.instance), ("epoch", line.epoch)] {
            if let Some(number) = number {
                text.push_str(&format!(" {what} {number}"));
            }
        }
        text.push_str(match line.fate {
            "lost_stop" => " – no answer, the caller stops",
            "lost_again" => " – no answer, the caller asks again",
            "lost_give_up" => " – no answer, the caller gives it up",
            "refused" => " – refused for lack of room",
            "superseded" => " – done, its answer lost, and overwritten before it was looked into",
            "late" => " – takes effect LATE",
            _ => "",
        });
        if line.doubting {
            text.push_str(" (a living node is taken for dead)");
        }
        text
    }
}
