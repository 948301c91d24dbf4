//! What must always be true, looked at after every effect by somebody who knows nothing of the pool's own reasoning.
//!
//! Three kinds of judges sit here. *Safety*: the records ([`records`]) and what guests were promised ([`promises`]); what can
//! be seen of machines and attachments alone is judged by the world itself. *Contract*: what an `Ok` said is true when it is
//! said (in [`run`](crate::run)). *Repairs*: how much had to be put right, since self-healing hides bugs ([`repairs`]).

mod promises;
mod records;
mod renames;
pub(crate) mod repairs;
pub(crate) mod settled;
mod snapshots;
pub(crate) mod status;
pub(crate) mod stock;

use boxpool::record::{BoxRecord, Placement};
use boxpool::{BoxId, Epoch, Key, SnapshotId, VolumeId};
use promises::Promise;
pub(crate) use promises::{Ended, line_of};
use records::Books;
use snapshots::Copy;
use std::collections::BTreeMap;

/// What the judges remember.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) books: Books,
    pub(crate) stock: stock::Stock,
    /// By the box, whatever it is called.
    promises: BTreeMap<BoxId, Promise>,
    /// What was copied into each snapshot of a box.
    copies: BTreeMap<SnapshotId, Copy>,
    /// The newest epoch with which anybody acted on a volume.
    epochs: BTreeMap<VolumeId, Epoch>,
    /// Situations that were reached, and how often.
    pub(crate) marks: BTreeMap<&'static str, u64>,
}

impl Oracle {
    /// A record was written, or deleted.
    pub(crate) fn wrote(&mut self, key: &Key, value: Option<&str>, now: u64) -> Vec<String> {
        if value.is_none()
            && let Some(record) = self.books.boxes.get(key)
            && matches!(record.placement, Placement::Deleting { .. })
        {
            // Its owner wanted it gone. A late insert may bring the record back, as a new and empty box.
            self.promises.remove(&record.owner.id);
        }
        let forgets = |books: &Books| books.boxes.get(key).is_some_and(|record| record.forget_memory);
        let retains = |books: &Books| books.boxes.get(key).is_some_and(|record| record.deleted_until.is_some());
        let (forgot, retained) = (forgets(&self.books), retains(&self.books));
        let is_new = !self.books.boxes.contains_key(key);
        let mut wrong = self.books.wrote(key, value, now, &mut self.stock, &mut self.marks);
        wrong.extend(self.wrote_snapshot(key, value));
        if is_new && let Some(record) = self.books.boxes.get(key).cloned() {
            self.box_appeared(&record);
        }
        let arrives = |books: &Books| {
            books.boxes.get(key).is_some_and(|record| matches!(record.placement, Placement::Arriving { .. }))
        };
        if !forgot
            && forgets(&self.books)
            && !arrives(&self.books)
            && let Some(BoxRecord { owner, epoch, .. }) = self.books.boxes.get(key).cloned()
        {
            self.stopped(&owner, epoch);
        }
        if !retained
            && retains(&self.books)
            && let Some(BoxRecord { owner, epoch, .. }) = self.books.boxes.get(key).cloned()
        {
            self.retained(&owner, epoch);
        }
        wrong
    }

    pub(crate) fn mark(&mut self, mark: &'static str) {
        *self.marks.entry(mark).or_default() += 1;
    }
}
