//! What a connect is waiting for, told while it waits.

use crate::id::InstanceId;
use crate::runtime::Endpoint;
use std::fmt;
use std::time::Duration;
use tokio::sync::watch;

/// What a connect is doing now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// It has just begun.
    Looking,
    /// The box's volume is being made.
    PreparingVolume,
    /// No instance is free.
    WaitingForInstance {
        /// How many are served before, and this one: 1 is next.
        position: usize,
        /// How long it goes on waiting at most.
        remaining: Duration,
    },
    /// Another node is moving the box (the word says which step); this one waits for it.
    WaitingForOther {
        /// The box's state.
        state: &'static str,
    },
    /// The volume is being attached to the instance.
    Attaching {
        /// Where.
        instance: InstanceId,
    },
    /// The guest is being started or resumed.
    Starting {
        /// Where.
        instance: InstanceId,
    },
    /// The guest runs: the caller may begin to dial while the last record is being written.
    Reachable(Endpoint),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("looking for the box"),
            Self::PreparingVolume => f.write_str("preparing the disk"),
            Self::WaitingForInstance { position, remaining } => {
                write!(
                    f,
                    "all machines are taken: you are number {position} in line, up to {} s more",
                    remaining.as_secs()
                )
            }
            Self::WaitingForOther { state } => write!(f, "the box is {state} elsewhere: waiting for that to end"),
            Self::Attaching { .. } => f.write_str("attaching the disk"),
            Self::Starting { .. } => f.write_str("starting the box"),
            Self::Reachable(_) => f.write_str("the box is up"),
        }
    }
}

/// A channel for [`Progress`]: the sender goes into a [`ConnectRequest`](crate::ConnectRequest). The receiver always sees the latest state;
/// a slow reader delays nobody.
#[must_use]
// One receiver and whoever clones it: the pool itself waits on none.
#[allow(clippy::disallowed_methods)]
pub fn progress() -> (watch::Sender<Progress>, watch::Receiver<Progress>) {
    watch::channel(Progress::Looking)
}
