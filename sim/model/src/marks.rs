//! What was seen to happen: a model in which nothing interesting happens proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Something that must happen in some run, or the exploration was vacuous.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mark { $($(#[$doc])* $name),* }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// In words.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

marks! {
    /// Connect from `Parked` reached `Running`.
    ParkedReconnect = "a parked box runs again",
    /// A takeover of a dead node's step.
    TakenFromDead = "a step of a dead node is taken over",
    /// A takeover of a living node's step.
    TakenFromLiving = "a step of a living node is taken over",
    /// Late attach after takeover.
    LateAttachAfterTakeOver = "an attach lands after another node took the box over",
    /// Late start that is refused.
    StartFenced = "a start with an old epoch is refused",
    /// Late start that counts.
    LateStart = "a start lands after its caller gave up or died, and a guest runs",
    /// Adoption.
    GuestAdopted = "a start finds its guest running",
    /// Resume.
    MemoryResumed = "saved memory is resumed",
    /// Late write.
    LateWrite = "a record is written after its writer gave up or died",
    /// Claim lost to another.
    ClaimLost = "an instance is claimed by another in between",
    /// Sweep.
    ClaimSwept = "a claim that no box stands for is swept",
    /// Recycle, clean.
    InstanceFreeAgain = "a used instance is free again",
    /// Recycle, doubtful.
    InstanceDeleted = "an instance is deleted on doubt",
    /// A second box on the same machine.
    NextBoxServed = "an instance serves another box than before",
    /// The end of the ladder.
    PulledOut = "a machine is deleted to get a volume off it",
    /// Delete.
    BoxDeleted = "a box is deleted to the end",
    /// Suspend failed for lack of room.
    RanOn = "a box that could not be suspended runs on",
    /// Guest found gone.
    GuestLost = "a guest is found gone and started again",
    /// Two holders.
    TwoHolders = "two nodes hold one box",
}

/// How often each was seen. Not part of a state: it changes nothing of what is explored.
#[derive(Debug)]
pub(crate) struct Marks(Vec<AtomicU64>);

impl Default for Marks {
    fn default() -> Self {
        Self(Mark::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Marks {
    pub(crate) fn see(&self, mark: Mark) {
        self.0[mark as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub(crate) fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize].load(Ordering::Relaxed)
    }
}
