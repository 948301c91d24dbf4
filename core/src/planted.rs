//! Bugs on purpose, for the simulator's own tests: a judge that never saw a culprit is not known to recognise one.
//!
//! **Never enable the feature `planted`.** Without it [`is`] is a constant `false` and nothing of this is in the program.
//! With it, and no bug planted, the pool behaves as without it. A bug is planted for one thread, since a simulated world
//! lives in one.
#![cfg_attr(not(feature = "planted"), allow(dead_code, unreachable_pub))]

macro_rules! bugs {
    ($($(#[$what:meta])* $bug:ident,)*) => {
        /// One wrong line. Numbers with a B are bugs that a predecessor of this pool really had; `sim/PLANTED.md` has the whole
        /// table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[$what])* $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$bug),*];
        }
    };
}

bugs! {
    // Records.
    /// B1: an instance is claimed by a blind write.
    ClaimWithoutCas,
    /// B3: a volume is bound by a blind write.
    BindWithoutCas,
    /// B2, B28: a box's record is read, changed and put back without a precondition.
    BoxWithoutCas,
    /// B18: a free instance is retired by a blind write.
    RetireWithoutCas,
    /// B18: a free volume is retired by a blind write.
    DiscardWithoutCas,
    /// B8: a name that is taken is taken again.
    NameWithoutUniqueness,
    /// A lost answer of a write is taken for a refusal.
    LostAnswerIsConflict,
    /// A lost answer of a write is taken for success.
    LostAnswerIsSuccess,
    /// A made-up name is inserted again after a lost answer.
    NameInsertedAgain,
    /// B30: only the first page of a table is read.
    ReadsOnePage,
    /// B32: events are keyed by the second.
    EventsKeyedBySecond,
    // Epochs.
    /// A claim of a later epoch is released by whoever comes late.
    ReleaseWithoutEpoch,
    /// A machine whose stopping a dead node began goes into the reserve, whatever is still on its way to it.
    LateStopIsForgotten,
    /// A machine that is out of use is claimed nevertheless.
    CordonedIsClaimed,
    /// Nobody is asked to leave a machine that is to be emptied.
    DrainAsksNobody,
    /// A parked box keeps its instance however many are held.
    HeldShareIgnored,
    /// As many are kept free as the goal takes, whatever the operator allows.
    GoalWithoutBudget,
    /// A parked box keeps its instance whatever the policy says.
    KeptAnyway,
    /// A box that has just given its instance back is attached ahead again.
    AttachedAgain,
    /// A machine is noted as stopped without being stopped.
    StopOnlyNoted,
    /// More are begun within a minute than may be.
    AllowanceIgnored,
    // Regions.
    /// A box that is on its way to another region comes up.
    HeldComesUp,
    /// What a box leaves behind in its old region goes before it is decided that the box has moved.
    OldHomeGoesFirst,
    /// What a dead front was at work on is gone on with by nobody.
    NoRecoveryOfHomes,
    /// A box is in its new region before the store says so.
    ArrivesUndecided,
    /// What a box leaves behind in its old region stays there.
    OldHomeStays,
    /// A take-over does not raise the epoch.
    TakeOverKeepsEpoch,
    // Rolling back.
    /// B4: a failed placement marks the user's own volume free.
    RollbackFreesVolume,
    /// B5: a box leaves its instance and its volume stays attached.
    LeavesVolumeAttached,
    /// B6: after a failure nothing is rolled back, and nobody comes to do it.
    FailureLeavesStep,
    /// B7: a create that failed leaves its volume behind.
    UndoForgetsVolume,
    /// B9: the instance is claimed before any record says that the box goes there.
    ClaimBeforeIntent,
    /// B10: a claimed instance becomes free without being looked at.
    ReleaseWithoutLook,
    /// A box that was parked by a wrong clock keeps its instance until the right one has come there.
    StampAheadIsWaitedFor,
    /// What was begun with a box goes on with the next one of its name.
    FollowsTheName,
    /// A node whose box others have taken off, or whom they took for dead, never finds out.
    HoldTakenForGranted,
    /// A connect is answered with what was known before its node stood still for so long that others may have taken it for dead.
    AnswersAfterStandstill,
    /// An instance that was found clean, and has served another box since, is said to be clean.
    ClearedBeforeItServed,
    /// A box leaves and its claim stays.
    LeavesClaim,
    /// The instance is given back before the volume is off it.
    FreedBeforeDetach,
    /// An instance serves again without having been cleared.
    RecycleWithoutClear,
    /// The volume is detached while the guest runs (and the cloud allows it).
    DetachBeforeStop,
    /// A detach that hangs is only tried again.
    StuckDetachNeverEscalates,
    // Recovery.
    /// B11: half-done steps of boxes are taken up by nobody but the next user.
    NoRecoveryOfBoxes,
    /// B11: half-done steps of instances are taken up by nobody.
    NoRecoveryOfInstances,
    /// B11: half-done steps of volumes are taken up by nobody.
    NoRecoveryOfVolumes,
    /// A claim for which no box stands is left.
    NoSweep,
    /// B27: what has no record is left.
    NoOrphanSweep,
    /// What has no record is deleted at once, with a user's data on it.
    OrphanSweepTakesUsed,
    /// What has no record is swept without waiting for the grace time.
    OrphanWithoutGrace,
    /// A volume whose box names another is deleted although it was used.
    WidowedUsedIsDeleted,
    /// Any step is taken over, whether or not its node is alive.
    TakeOverWithoutLiveness,
    /// A node's reconcile takes its own running work for left behind.
    OwnWorkTakenForDead,
    // Liveness.
    /// A heartbeat is judged by comparing two machines' clocks.
    HeartbeatByRemoteClock,
    /// Time in which nothing was read counts as silence of the others.
    LivenessCountsUnreadTime,
    /// Nobody is ever taken for dead.
    NobodyIsEverDead,
    /// The maintainer's lease never expires.
    LeaseNeverExpires,
    /// A node that has lost touch goes on acting.
    NoSelfFence,
    // Sessions.
    /// B13: a box that was left is never suspended.
    NeverLeaves,
    /// B14: the first of several sessions to end ends them all.
    FirstToLeaveEndsAll,
    /// A node that leaves does not look who else is there.
    LeavesWithoutLookingAtOthers,
    /// A node that joins does not say so.
    JoinsWithoutHolding,
    /// A node that joins does not look whether the guest runs.
    JoinsUnseen,
    /// Who is asked to make room does so with people inside.
    YieldThrowsOut,
    /// A node that shuts down leaves its holds behind.
    DrainLeavesHolds,
    /// B33: a box that was left is stopped, and its memory is gone.
    StopsInsteadOfSuspending,
    /// An error of a suspend is taken for success.
    SuspendErrorIsSuccess,
    // Pools.
    /// B16: the ceiling of the pool is not looked at.
    MaxTotalIgnored,
    /// B17: every node fills the pool.
    EveryNodeMaintains,
    /// B17: the refill counts only what is free, not what is coming.
    RefillForgetsComing,
    /// B22: the cool-down is not waited for.
    NoCoolDown,
    /// B23: a free instance whose machine is gone is counted as free for ever.
    FreeIsNeverLookedAt,
    /// B24: an instance is free as soon as it was asked for.
    FreeBeforeReady,
    /// B25: the next instance is begun when the last one is done.
    CreatesOneByOne,
    /// B26: a cloud that refuses is asked again at once.
    NoBackOff,
    /// B20: any error of a look means that the machine is gone.
    ErrorMeansGone,
    /// B21: a machine is deleted under a name that is cut short.
    DeletesByWrongName,
    /// B31: what somebody deletes meanwhile is made again, and who deletes it does not wait for its maker.
    MadeAgain,
    /// A volume's name that was used is used again.
    VolumeNameUsedAgain,
    /// With a box goes the volume that it wanted and did not get.
    DeletesWantedVolume,
    /// A volume that an earlier attempt has bound is taken without a write.
    TakesBoundUnwritten,
    /// Who makes a volume for a box that another node deletes waits for that node, which waits for the volume.
    MakerWaitsForDeleter,
    /// A volume that somebody else took away while it was to be deleted ends the deletion of its box.
    GoneVolumeFailsDelete,
    /// A volume that is attached where no record puts it is left there.
    StrayStays,
    /// The owner's box goes and the volume stays.
    DeleteLeavesVolume,
    // What an owner asks of a box.
    /// A box that is stopped is suspended, and comes back with its memory.
    StopKeepsMemory,
    /// A box that is to run without a session is suspended when the last one ends.
    KeptIsSuspended,
    /// A box that is to run, and whose guest is gone, stays down.
    KeptStaysDown,
    /// A box that its owner has deleted comes up for whoever asks.
    DeletedComesUp,
    /// A box that was deleted while it came to be is brought up for who asked before.
    AdmittedOnce,
    /// A deleted box goes before the time is over in which it can be had back.
    PurgedTooSoon,
    /// A box comes up for somebody with whom it is not shared.
    SharedWithAll,
    /// That a box's volume has grown is written down, and nobody has made it grow.
    GrowthOnlyNoted,
    /// A box that was moved while it was copied is not noticed: the copy is of a disk in use.
    SnapshotUnchecked,
    /// A copy of a box is resumed with the memory of the one that was copied.
    CopyWakesAsTwin,
    /// A snapshot's record goes and the snapshot stays.
    SnapshotOnlyForgotten,
    /// Snapshots that were half taken or half deleted are taken up by nobody.
    NoRecoveryOfSnapshots,
    /// A box has a new name, and its volume is bound to the old one.
    RenameLeavesVolume,
    /// What is left of a rename that was given up is taken for the box.
    GhostComesAlive,
    /// A rename is given up, and whoever was at it before can still go on with it.
    RenameGivenUpUnsaid,
    /// While a box is renamed it is in the list under both names.
    RenamedListedTwice,
    // Waiting.
    /// B12: a call that never answers is waited for.
    NoLimitOnCalls,
    /// B29: the first look comes after a whole pause.
    WaitsBeforeFirstTry,
    /// The last to come is served first.
    LastComeFirstServed,
    /// The maintainer provides only for those who wait on its own node.
    WaitersElsewhereUnseen,
    /// The maintainer begins as many as it once decided, whoever waits by then.
    ProvisionsAsDecided,
    /// Who waits is not woken by what other nodes free.
    WaitsForOwnBellOnly,
    // The world's side: what a backend may do wrong.
    /// A volume that is attached elsewhere is taken from there.
    AttachNotExclusive,
    /// An attach that is refused as busy is taken for done, and the start does not look.
    BusyAttachIsOk,
    /// B35: a guest is started without looking whether its volume is there.
    StartUnchecked,
    /// B36: a start says that the guest runs, and it does not.
    StartDoesNothing,
    /// The runtime does not look at epochs.
    RuntimeWithoutFence,
    /// B33: memory that was saved with another disk is resumed.
    ResumeUnpaired,
    /// B33: a suspend ends the guest and saves nothing.
    SuspendDropsMemory,
    /// B34: an instance is said to be clean without a look.
    ClearAlwaysClean,
    /// A detach says that it is done when it has begun.
    DetachDoneTooSoon,
    /// A stop says that the guest is gone, and it is not.
    StopDoesNothing,
    /// B19: deleting a machine deletes the volume on it.
    MachineTakesVolume,
    /// B37: the golden snapshot is built by whoever finds it being built.
    BuildsGoldenTwice,
    /// A golden snapshot is said to be ready when its building has begun.
    GoldenReadyUnbuilt,
    /// B37: an existing volume is filled anew.
    EnsureFillsAnew,
}

/// Longer than anything is waited for.
pub(crate) const NEVER: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// Whether that bug is planted in this thread.
#[cfg(not(feature = "planted"))]
#[must_use]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

/// For how long a pool was quiet, as its plan is told.
pub(crate) fn quiet(quiet_for: std::time::Duration) -> std::time::Duration {
    if is(Bug::NoCoolDown) { NEVER } else { quiet_for }
}

#[cfg(feature = "planted")]
pub(crate) use on::{clock_says_dead, name_for_delete, note_beat, version_for};
/// For how long a resource without a record is left alone.
pub(crate) fn grace(grace: std::time::Duration) -> std::time::Duration {
    match () {
        () if is(Bug::OrphanWithoutGrace) => std::time::Duration::ZERO,
        () if is(Bug::NoOrphanSweep) => NEVER,
        () => grace,
    }
}

#[cfg(feature = "planted")]
pub use on::{is, plant};

#[cfg(feature = "planted")]
mod on {
    use super::Bug;
    use crate::clock::Timestamp;
    use crate::id::{InstanceId, NodeId};
    use crate::record::{BOXES, INSTANCES, VOLUMES};
    use crate::store::{Key, StateStore, Version};
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::time::Duration;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        /// When each node said last that it lives, by its own clock.
        static BEATS: RefCell<BTreeMap<NodeId, Timestamp>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Plants a bug in this thread, in place of the one that was there.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
        BEATS.with_borrow_mut(BTreeMap::clear);
    }

    /// Whether that bug is planted in this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// The version that an update is made with: the newest there is when the planted bug is to write blindly.
    pub(crate) async fn version_for(store: &dyn StateStore, key: &Key, version: &Version, text: &str) -> Version {
        let blind = match PLANTED.get() {
            Some(Bug::ClaimWithoutCas) => key.table == INSTANCES && text.contains(r#""is":"claimed""#),
            Some(Bug::BindWithoutCas) => key.table == VOLUMES && text.contains(r#""is":"bound""#),
            Some(Bug::BoxWithoutCas) => key.table == BOXES,
            Some(Bug::RetireWithoutCas) => key.table == INSTANCES && text.contains(r#""is":"deleting""#),
            Some(Bug::DiscardWithoutCas) => key.table == VOLUMES && text.contains(r#""is":"deleting""#),
            _ => false,
        };
        if !blind {
            return version.clone();
        }
        store.get(key).await.ok().flatten().map_or_else(|| version.clone(), |stored| stored.version)
    }

    /// A machine's name as a deleter who takes it apart has it.
    pub(crate) fn name_for_delete(id: &InstanceId) -> InstanceId {
        let short = id.as_str().split('-').next().unwrap_or_default();
        InstanceId::new(short).ok().filter(|_| is(Bug::DeletesByWrongName)).unwrap_or_else(|| id.clone())
    }

    pub(crate) fn note_beat(node: &NodeId, at: Timestamp) {
        BEATS.with_borrow_mut(|beats| beats.insert(node.clone(), at));
    }

    pub(crate) fn clock_says_dead(node: &NodeId, now: Timestamp, dead_after: Duration) -> bool {
        BEATS.with_borrow(|beats| beats.get(node).is_some_and(|at| now.since(*at) >= dead_after))
    }
}
