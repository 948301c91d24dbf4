//! Bugs on purpose, for this crate's own tests: those of the pool, and those that a backend may have.
//!
//! Without the feature `planted`, which nobody enables, there are none.

#[cfg(feature = "planted")]
pub use boxpool::planted::{Bug, plant};

#[cfg(feature = "planted")]
pub(crate) use boxpool::planted::is;

/// A backend's bugs, of which none can be planted here.
#[cfg(not(feature = "planted"))]
#[derive(Clone, Copy)]
pub(crate) enum Bug {
    AttachNotExclusive,
    BusyAttachIsOk,
    StartUnchecked,
    StartDoesNothing,
    RuntimeWithoutFence,
    ResumeUnpaired,
    SuspendDropsMemory,
    ClearAlwaysClean,
    DetachBeforeStop,
    DetachDoneTooSoon,
    StopDoesNothing,
    MachineTakesVolume,
    EnsureFillsAnew,
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}
