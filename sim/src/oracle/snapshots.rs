//! Snapshots of boxes: each holds what its box's disk held while it was at rest, goes where its record goes, and a copy of a box has
//! that and nothing of what became of the original since.

use super::Oracle;
use super::renames::is_arriving;
use boxpool::record::{BoxRecord, SNAPSHOTS, SnapshotEvent, SnapshotRecord, SnapshotStatus};
use boxpool::{BoxRef, Key, SnapshotId, VolumeId};

/// What was copied into a snapshot.
#[derive(Debug)]
pub(super) struct Copy {
    volume: VolumeId,
    lines: Vec<String>,
    /// A guest ran at that moment.
    in_use: bool,
}

impl Oracle {
    /// The provider has copied a volume.
    pub(crate) fn snapshot_taken(&mut self, id: &SnapshotId, volume: &VolumeId, lines: &[String], in_use: bool) {
        self.copies.insert(id.clone(), Copy { volume: volume.clone(), lines: lines.to_vec(), in_use });
    }

    /// What the judges know of a snapshot: of which volume it is, its lines, and whether a guest ran.
    pub(crate) fn copied(&self, id: &SnapshotId) -> Option<(VolumeId, Vec<String>, bool)> {
        self.copies.get(id).map(|copy| (copy.volume.clone(), copy.lines.clone(), copy.in_use))
    }

    /// A box that is a copy has what was copied, and boots.
    pub(super) fn box_appeared(&mut self, record: &BoxRecord) {
        let Some(copied) = &record.copied_from else { return };
        // It was there before, under another name.
        if is_arriving(record) {
            return;
        }
        let lines = self.copies.get(copied).map(|copy| copy.lines.clone()).unwrap_or_default();
        let promise = self.promise(&record.owner);
        (promise.inherited, promise.must_boot) = (lines, true);
        self.mark("box copied");
    }

    /// Lines that a copy has from the box that was copied.
    pub(crate) fn inherited(&self, owner: &BoxRef) -> Vec<String> {
        self.promises.get(&owner.id).map(|promise| promise.inherited.clone()).unwrap_or_default()
    }

    pub(super) fn wrote_snapshot(&mut self, key: &Key, value: Option<&str>) -> Vec<String> {
        let mut wrong = Vec::new();
        if key.table != SNAPSHOTS {
            return wrong;
        }
        let new: Option<SnapshotRecord> = match value.map(serde_json::from_str).transpose() {
            Ok(new) => new,
            Err(error) => return vec![format!("I5: {key} cannot be read any more: {error}")],
        };
        let old = self.books.snapshots.get(key);
        match (old, &new) {
            (Some(old), Some(new)) => {
                let event = match &new.status {
                    SnapshotStatus::Ready => {
                        old.status.worker().map(|node| SnapshotEvent::Taken { node: node.clone() })
                    }
                    SnapshotStatus::Deleting { node } if matches!(old.status, SnapshotStatus::Deleting { .. }) => {
                        Some(SnapshotEvent::TakeOver { node: node.clone() })
                    }
                    SnapshotStatus::Deleting { node } => Some(SnapshotEvent::Delete { node: node.clone() }),
                    SnapshotStatus::Taking { .. } => None,
                };
                let legal = event.is_some_and(|event| old.after(&event).is_ok_and(|after| after.status == new.status));
                if !legal || old.id != new.id || old.of != new.of {
                    wrong.push(format!("I5: snapshot {} went from {:?} to {:?}", key.row, old.status, new.status));
                }
            }
            (None, Some(new)) if !matches!(new.status, SnapshotStatus::Taking { .. }) => {
                wrong.push(format!("I5: snapshot {} began as {:?}", key.row, new.status));
            }
            (Some(old), None) if !matches!(old.status, SnapshotStatus::Deleting { .. }) => {
                wrong.push(format!("I5: the record of snapshot {} went while it was {:?}", key.row, old.status));
            }
            _ => {}
        }
        if let Some(new) = new.as_ref().filter(|new| new.status == SnapshotStatus::Ready) {
            wrong.extend(self.judge_ready(new));
        }
        if let Some(mark) = new.as_ref().map(|new| match &new.status {
            SnapshotStatus::Taking { .. } => "snapshot begun",
            SnapshotStatus::Ready => "snapshot ready",
            SnapshotStatus::Deleting { .. } => "snapshot deleted",
        }) {
            self.mark(mark);
        }
        match new {
            Some(new) => drop(self.books.snapshots.insert(key.clone(), new)),
            None => drop(self.books.snapshots.remove(key)),
        }
        wrong
    }

    /// What is said to be ready was copied, from the box's own disk, and while nobody used it.
    fn judge_ready(&self, record: &SnapshotRecord) -> Option<String> {
        let Some(copy) = self.copies.get(&record.id) else {
            return Some(format!("contract: snapshot {} is ready, and was never taken", record.id));
        };
        if copy.in_use {
            return Some(format!("contract: snapshot {} was taken of {} while its guest ran", record.id, record.of));
        }
        let its = self.books.box_of(&record.of).map(|record| record.volume.volume());
        its.filter(|its| **its != copy.volume).map(|its| {
            format!("I3: snapshot {} of {} was taken of {} and not of {its}", record.id, record.of, copy.volume)
        })
    }
}
