//! A box that is renamed stays the same box: two records may stand for it meanwhile, and never two boxes or none.

use super::records::Books;
use boxpool::record::{BoxRecord, HoldPart, Placement, VolumeBinding, VolumeStatus};
use boxpool::{BoxId, BoxRef};

impl Books {
    /// The record of that box, whatever it is called now.
    pub(crate) fn current(&self, id: &BoxId) -> Option<&BoxRecord> {
        let all = || self.boxes.values().filter(|record| record.owner.id == *id);
        all().find(|record| !is_arriving(record)).or_else(|| all().find(|record| self.has_its_volume(record)))
    }

    /// Whether the record is, or is to become, a box: one that arrives under a new name is when its volume is bound there.
    pub(crate) fn is_box(&self, record: &BoxRecord) -> bool {
        !is_arriving(record) || self.has_its_volume(record)
    }

    fn has_its_volume(&self, record: &BoxRecord) -> bool {
        let holds = self.volumes.get(record.volume.volume()).map(|volume| &volume.status);
        matches!(holds, Some(VolumeStatus::Bound { owner }) if *owner == record.owner)
    }

    /// A record of a box appeared, changed or went.
    pub(super) fn judge_names(&mut self, old: Option<&BoxRecord>, new: Option<&BoxRecord>) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(new) = new.filter(|new| stands(new)) {
            let is_other = |also: &&BoxRecord| also.owner.id == new.owner.id && also.owner.name != new.owner.name;
            let also = self.boxes.values().filter(|also| stands(also)).find(is_other);
            if let Some(also) = also {
                wrong.push(format!("I3: {} and {} are one box", also.owner, new.owner));
            }
            let settled = !matches!(new.placement, Placement::Renaming { .. } | Placement::Deleting { .. });
            let bound = self.volumes.get(new.volume.volume()).map(|volume| &volume.status);
            if let Some(VolumeStatus::Bound { owner }) = bound
                && settled
                && matches!(new.volume, VolumeBinding::Bound(_))
                && *owner != new.owner
            {
                wrong.push(format!("I3: {} is {}, and its volume is bound to {owner}", new.owner, new.placement));
            }
        }
        match (old, new) {
            (Some(old), Some(new)) if is_arriving(old) && !is_arriving(new) => {
                self.renamed.insert((new.owner.id.clone(), new.owner.name.clone()));
                match self.leaving.remove(&new.owner.id) {
                    Some(left) if kept(&left, new) => {}
                    Some(left) => wrong.push(format!("I4: {left:?} was renamed, and is {new:?}")),
                    None => wrong.push(format!("I3: {} has arrived, and never left its old name", new.owner)),
                }
            }
            (Some(old), None) => match &old.placement {
                Placement::Renaming { to, attempt, .. } => {
                    let there = self.boxes.values().any(|new| {
                        new.owner == (BoxRef { name: to.clone(), ..old.owner.clone() })
                            && self.has_its_volume(new)
                            && matches!(&new.placement, Placement::Arriving { attempt: arriving, .. } if arriving == attempt)
                    });
                    if !there {
                        wrong.push(format!("I3: {} left its name, and is not there under the name {to}", old.owner));
                    }
                    self.leaving.insert(old.owner.id.clone(), old.clone());
                }
                Placement::Arriving { .. } if self.has_its_volume(old) => {
                    wrong.push(format!("I3: {} was removed when it had arrived", old.owner));
                }
                _ => {}
            },
            _ => {}
        }
        wrong
    }

    /// Whether a volume may go from one name of a box to another: both records say so.
    pub(super) fn is_renaming(&self, from: &BoxRef, to: &BoxRef) -> bool {
        let named = |owner: &BoxRef| self.boxes.values().find(|record| record.owner == *owner);
        let (Some(old), Some(new)) = (named(from), named(to)) else { return false };
        matches!((&old.placement, &new.placement),
            (Placement::Renaming { to: name, attempt, .. }, Placement::Arriving { from: left, attempt: arriving, .. })
                if *name == to.name && *left == from.name && attempt == arriving && from.id == to.id)
    }
}

pub(super) fn is_arriving(record: &BoxRecord) -> bool {
    matches!(record.placement, Placement::Arriving { .. })
}

/// Whether the record stands for a box by itself. One that is to come from another region does when it has come: a request to
/// make it may come late, after that attempt to move it was given up and the box has got another name.
fn stands(record: &BoxRecord) -> bool {
    let comes = record.hold.as_ref().is_some_and(|hold| hold.part == HoldPart::Coming);
    !is_arriving(record) && !comes
}

/// Whether everything that a box has came along.
fn kept(left: &BoxRecord, arrived: &BoxRecord) -> bool {
    let same = BoxRecord {
        owner: arrived.owner.clone(),
        placement: arrived.placement.clone(),
        // A node that took the rename over has raised the old record's.
        epoch: arrived.epoch,
        envelope: arrived.envelope.clone(),
        ..left.clone()
    };
    same == *arrived && matches!(arrived.placement, Placement::Detached)
}
