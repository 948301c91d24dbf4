//! What the maintainer knows of demand, and how many instances it wants free for it.

use super::{DEMAND, Envelope, record};
use crate::clock::Timestamp;
use crate::goal::Demand;
use serde::{Deserialize, Serialize};

/// Handed on from one maintainer to the next; at most some minutes of it are lost with one that dies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemandRecord {
    /// When it was written, by the maintainer's clock.
    pub at: Timestamp,
    /// Who has come, and how long making takes.
    pub demand: Demand,
    /// How many are wanted free.
    pub wanted: u32,
    /// Why, in a sentence.
    pub why: String,
    /// Schema, mark, unknown fields.
    #[serde(flatten)]
    pub envelope: Envelope,
}

record!(DemandRecord, DEMAND);
