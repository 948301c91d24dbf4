//! What can become of one call, and how often.

use crate::backend::Operation;
use boxpool::ErrorKind;
use serde::{Deserialize, Serialize};

/// What becomes of one call. Times are milliseconds of virtual time.
///
/// The effect of a call belongs to the world: it happens, or not, whatever has become of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The usual.
    Deliver,
    /// Refused, without effect.
    Refuse(Refusal),
    /// Refused without effect, with a wish to be left alone for so long.
    Throttle {
        /// How long.
        retry_after: u64,
    },
    /// The effect happens; the caller is told that the outcome is unknown.
    LoseAnswer,
    /// The effect happens; the caller is never told anything and runs into its own limit.
    SwallowAnswer,
    /// No effect; the caller is told that the outcome is unknown.
    LoseCall,
    /// No effect, and the caller is never told.
    SwallowCall,
    /// The caller is told at once that the outcome is unknown; the effect happens later.
    Late {
        /// How much later.
        by: u64,
    },
    /// As `Late`, and the caller is never told.
    LateSilent {
        /// How much later.
        by: u64,
    },
    /// The effect happens, and once more later (a request that was sent twice on its way); once only when it is
    /// [a request that must not be sent twice](Operation::is_sent_once).
    Twice {
        /// How much later.
        by: u64,
    },
    /// Everything takes so much longer, the effect too.
    Stall {
        /// How much longer.
        by: u64,
    },
    /// The effect happens in time, its answer comes late.
    SlowAnswer {
        /// How late.
        by: u64,
    },
    /// What the call begins takes so much longer (a detach that is stuck).
    Stuck {
        /// How much longer.
        by: u64,
    },
    /// The gateway stands still from the effect on, for so long. Then it hears the answer, and does not know that time has passed.
    StandStill {
        /// How long.
        by: u64,
    },
    /// A listing as it was a while ago.
    Stale,
    /// A listing in which things are missing.
    Incomplete,
    /// The gateway dies before the effect.
    CrashBefore,
    /// The gateway dies after the effect, before the answer.
    CrashAfter,
    /// The gateway dies at once; the effect happens later.
    CrashLater {
        /// How much later.
        by: u64,
    },
}

/// A refusal that a history can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// [`ErrorKind::Busy`].
    Busy,
    /// [`ErrorKind::NoCapacity`].
    NoCapacity,
    /// [`ErrorKind::Unavailable`].
    Unavailable,
    /// [`ErrorKind::Permanent`].
    Permanent,
}

impl Refusal {
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::Busy => ErrorKind::Busy,
            Self::NoCapacity => ErrorKind::NoCapacity,
            Self::Unavailable => ErrorKind::Unavailable,
            Self::Permanent => ErrorKind::Permanent,
        }
    }
}

impl Fate {
    /// One word, for marks and summaries.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deliver => "delivered",
            Self::Refuse(Refusal::Busy) => "busy",
            Self::Refuse(Refusal::NoCapacity) => "no-capacity",
            Self::Refuse(Refusal::Unavailable) => "unavailable",
            Self::Refuse(Refusal::Permanent) => "permanent",
            Self::Throttle { .. } => "throttled",
            Self::LoseAnswer => "answer-lost",
            Self::SwallowAnswer => "answer-swallowed",
            Self::LoseCall => "call-lost",
            Self::SwallowCall => "call-swallowed",
            Self::Late { .. } => "late",
            Self::LateSilent { .. } => "late-silent",
            Self::Twice { .. } => "twice",
            Self::Stall { .. } => "stalled",
            Self::SlowAnswer { .. } => "slow-answer",
            Self::Stuck { .. } => "stuck",
            Self::StandStill { .. } => "stands-still",
            Self::Stale => "stale",
            Self::Incomplete => "incomplete",
            Self::CrashBefore => "crash-before",
            Self::CrashAfter => "crash-after",
            Self::CrashLater { .. } => "crash-later",
        }
    }

    /// Whether the fate can befall that operation within the traits' contracts.
    #[must_use]
    pub fn fits(self, operation: Operation) -> bool {
        match self {
            Self::Stale | Self::Incomplete => operation.is_list(),
            // A store never says these, and what only looks cannot be refused for lack of room.
            Self::Refuse(Refusal::Busy | Refusal::NoCapacity | Refusal::Permanent) => {
                !operation.is_store() && !operation.is_read()
            }
            Self::Stuck { .. } => matches!(
                operation,
                Operation::InstanceEnsure
                    | Operation::InstanceStart
                    | Operation::InstanceStop
                    | Operation::InstanceDelete
                    | Operation::VolumeEnsure
                    | Operation::VolumeDelete
                    | Operation::Attach
                    | Operation::Detach
                    | Operation::Snapshot
            ),
            Self::Late { .. } | Self::LateSilent { .. } | Self::Twice { .. } | Self::CrashLater { .. } => {
                !operation.is_read()
            }
            _ => true,
        }
    }
}

/// How likely each kind of fault is for one call, from 0 to 1. All are 0 by default.
///
/// Which calls are struck depends on the seed and on the call alone (see the crate's page on keyed randomness).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Refused as busy or unavailable, without effect.
    #[serde(skip_serializing_if = "is_zero")]
    pub transient: f64,
    /// Refused for good, without effect.
    #[serde(skip_serializing_if = "is_zero")]
    pub permanent: f64,
    /// Throttled, with a delay.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled: f64,
    /// Refused for lack of room.
    #[serde(skip_serializing_if = "is_zero")]
    pub capacity: f64,
    /// The answer, or the call itself, is lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: f64,
    /// The effect comes late, or twice, or its answer does.
    #[serde(skip_serializing_if = "is_zero")]
    pub late: f64,
    /// The call takes 1 to 90 seconds longer.
    #[serde(skip_serializing_if = "is_zero")]
    pub stall: f64,
    /// What the call begins takes minutes longer.
    #[serde(skip_serializing_if = "is_zero")]
    pub stuck: f64,
    /// A listing lags behind or is incomplete.
    #[serde(skip_serializing_if = "is_zero")]
    pub stale: f64,
    /// The calling gateway dies before or after the effect.
    #[serde(skip_serializing_if = "is_zero")]
    pub crash: f64,
}

fn is_zero(rate: &f64) -> bool {
    *rate == 0.0
}

impl Faults {
    /// No faults at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Some of everything, at `rate` for each kind.
    #[must_use]
    pub fn all(rate: f64) -> Self {
        Self {
            transient: rate,
            permanent: rate / 4.0,
            throttled: rate,
            capacity: rate / 4.0,
            lost: rate,
            late: rate,
            stall: rate,
            stuck: rate / 4.0,
            stale: rate,
            crash: rate / 8.0,
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The fate that the rates draw for a call.
    pub(crate) fn draw(&self, operation: Operation, mut draw: super::key::Draw) -> Fate {
        if self.is_none() {
            return Fate::Deliver;
        }
        let mut luck = draw.share();
        let mut hit = |rate: f64| {
            let struck = luck < rate;
            luck -= rate;
            struck && rate > 0.0
        };
        let fate = if hit(self.transient) {
            Fate::Refuse(if draw.chance(0.5) && !operation.is_store() && !operation.is_read() {
                Refusal::Busy
            } else {
                Refusal::Unavailable
            })
        } else if hit(self.permanent) {
            Fate::Refuse(Refusal::Permanent)
        } else if hit(self.throttled) {
            Fate::Throttle { retry_after: draw.between(200, 20_000) }
        } else if hit(self.capacity) {
            Fate::Refuse(Refusal::NoCapacity)
        } else if hit(self.lost) {
            *draw.pick(&[Fate::LoseAnswer, Fate::LoseAnswer, Fate::SwallowAnswer, Fate::LoseCall, Fate::SwallowCall])
        } else if hit(self.late) {
            let by = long(&mut draw);
            *draw.pick(&[Fate::Late { by }, Fate::LateSilent { by }, Fate::Twice { by }, Fate::SlowAnswer { by }])
        } else if hit(self.stall) {
            Fate::Stall { by: long(&mut draw) }
        } else if hit(self.stuck) {
            // A volume that does not come off comes off when its machine is gone, and not before.
            let for_ever = operation == Operation::Detach && draw.chance(0.4);
            Fate::Stuck { by: if for_ever { 86_400_000 } else { draw.between(60_000, 600_000) } }
        } else if hit(self.stale) {
            if draw.chance(0.5) { Fate::Stale } else { Fate::Incomplete }
        } else if hit(self.crash) {
            let by = long(&mut draw);
            *draw.pick(&[Fate::CrashBefore, Fate::CrashAfter, Fate::CrashLater { by }])
        } else {
            Fate::Deliver
        };
        if fate.fits(operation) { fate } else { Fate::Deliver }
    }
}

/// From 1 s to 90 s, shorter ones more often.
fn long(draw: &mut super::key::Draw) -> u64 {
    (1_000.0 * 90_f64.powf(draw.share())) as u64
}
