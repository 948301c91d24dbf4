//! A picture of a run: a page that needs nothing but itself.

use crate::engine::Entry;

/// What happened in a world, to be drawn.
#[derive(Debug, Clone)]
pub struct Timeline {
    seed: u64,
    entries: Vec<Entry>,
}

impl Timeline {
    pub(crate) fn new(seed: u64, entries: Vec<Entry>) -> Self {
        Self { seed, entries }
    }
}
