//! How a box was last brought up: told to its owner, and written with the write that says it runs.

use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};

/// From what a box was brought up, and how long each part took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroughtUp {
    /// When it was up.
    pub at: Timestamp,
    /// From what.
    pub from: BroughtUpFrom,
    /// Waiting for an instance to become free, or for another node.
    pub waited_ms: u64,
    /// Attaching the volume, attempts that failed included.
    pub attached_ms: u64,
    /// Starting or resuming the guest, attempts that failed included.
    pub started_ms: u64,
    /// All of it, from the request on.
    pub total_ms: u64,
}

/// From what a box was brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BroughtUpFrom {
    /// It was parked: resumed where it was.
    Parked,
    /// It was detached: its volume was attached to an instance.
    Detached,
    /// It ran, and its guest was found gone.
    Running,
    /// A word that a newer version wrote.
    #[serde(other)]
    Other,
}
