//! Which instances and volumes a task of this node is at work on, so that the node's own reconcile does not take for left
//! behind what is only under way.
//!
//! A task enters before it writes the record that names this node, since others may read that record before the writer has
//! its answer.

use crate::planted::{self, Bug};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<BTreeSet<String>>);

impl Busy {
    /// `None` when a task is at work on it already. Dropping the guard ends the work.
    pub(crate) fn enter(self: &Arc<Self>, id: &str) -> Option<BusyGuard> {
        let fresh = self.ids().insert(id.to_owned());
        (fresh || planted::is(Bug::OwnWorkTakenForDead))
            .then(|| BusyGuard { busy: Arc::clone(self), id: id.to_owned() })
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct BusyGuard {
    busy: Arc<Busy>,
    id: String,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.busy.ids().remove(&self.id);
    }
}
