//! The records, as their writes are seen by an auditor: I3 (a bound volume stays its box's), the edges that must not be,
//! epochs that never go back, and I8's upper bound.

use super::renames::is_arriving;
use super::stock::Stock;
use boxpool::record::{
    BOXES, BoxRecord, DEMAND, EVENTS, GOLDENS, GoldenEvent, GoldenRecord, GoldenState, INSTANCES, InstanceRecord,
    InstanceStatus, LEASES, Mode, NODES, NodeRecord, Placement, SnapshotRecord, VOLUMES, VolumeBinding, VolumeRecord,
    VolumeStatus,
};
use boxpool::{BoxId, BoxName, BoxRef, InstanceId, Key, NodeId, SnapshotId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Every record, read.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) boxes: BTreeMap<Key, BoxRecord>,
    pub(crate) instances: BTreeMap<Key, InstanceRecord>,
    pub(crate) volumes: BTreeMap<VolumeId, VolumeRecord>,
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) goldens: BTreeMap<Key, GoldenRecord>,
    /// Snapshots of boxes.
    pub(crate) snapshots: BTreeMap<Key, SnapshotRecord>,
    /// Every name that a golden snapshot ever had.
    golden_names: BTreeSet<SnapshotId>,
    /// Volumes on which a guest ran at some time.
    pub(crate) lived_in: BTreeSet<VolumeId>,
    /// Never more instances than this.
    pub(crate) max_instances: Option<usize>,
    /// Boxes that were deleted.
    gone: BTreeSet<BoxId>,
    /// Boxes that were shared with anybody at some time.
    pub(crate) shared: BTreeSet<BoxId>,
    /// Boxes that were deleted at some time so that their owner could have them back.
    pub(crate) retained: BTreeSet<BoxId>,
    /// Every name that a box was given by a rename.
    pub(crate) renamed: BTreeSet<(BoxId, BoxName)>,
    /// Boxes as they were when they left their old name.
    pub(super) leaving: BTreeMap<BoxId, BoxRecord>,
    /// How often boxes moved from one placement to another.
    pub(crate) moves: BTreeMap<(&'static str, &'static str), u64>,
}

type Marks = BTreeMap<&'static str, u64>;

impl Books {
    pub(crate) fn box_of(&self, owner: &BoxRef) -> Option<&BoxRecord> {
        let key = Key::new(BOXES, owner.owner.as_str(), owner.name.as_str());
        self.boxes.get(&key).filter(|record| record.owner == *owner)
    }

    pub(crate) fn instance(&self, id: &InstanceId) -> Option<&InstanceRecord> {
        self.instances.values().find(|record| record.id == *id)
    }

    pub(super) fn wrote(
        &mut self,
        key: &Key,
        value: Option<&str>,
        now: u64,
        stock: &mut Stock,
        marks: &mut Marks,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        if key.table == BOXES {
            if !self.boxes.contains_key(key) {
                stock.box_appeared();
            }
            self.wrote_box(key, read(key, value, &mut wrong), marks, &mut wrong);
        } else if key.table == VOLUMES {
            self.wrote_volume(key, read(key, value, &mut wrong), &mut wrong);
        } else if key.table == INSTANCES {
            let new = read(key, value, &mut wrong);
            wrong.extend(stock.wrote_instance(self.instances.get(key), new.as_ref(), now));
            self.wrote_instance(key, new, marks, &mut wrong);
        } else if key.table == GOLDENS {
            self.wrote_golden(key, read(key, value, &mut wrong), marks, &mut wrong);
        } else if key.table == LEASES {
            wrong.extend(stock.wrote_lease(value));
        } else if key.table == DEMAND {
            if let Some(record) = read(key, value, &mut wrong) {
                wrong.extend(stock.wrote_demand(&record, marks));
            }
        } else if key.table == EVENTS {
            wrong.extend(stock.wrote_event(value));
        } else if key.table == NODES {
            match read::<NodeRecord>(key, value, &mut wrong) {
                Some(record) => {
                    stock.node_says(&record);
                    self.nodes.insert(record.id);
                }
                None => self.nodes.retain(|node| node.as_str() != key.row),
            }
        }
        wrong
    }

    /// I5 for golden snapshots: legal moves only, and never a name twice.
    fn wrote_golden(&mut self, key: &Key, new: Option<GoldenRecord>, marks: &mut Marks, wrong: &mut Vec<String>) {
        let Some(new) = new else {
            wrong.push(format!("I5: the record of golden snapshot {} was deleted", key.row));
            return;
        };
        if let GoldenState::Building { snapshot, .. } = &new.state
            && self.golden_names.contains(snapshot)
            && !matches!(self.goldens.get(key).map(|old| &old.state), Some(GoldenState::Building { .. }))
        {
            wrong.push(format!("I5: the name {snapshot} is used for a second golden snapshot"));
        }
        if let Some(old) = self.goldens.get(key) {
            let builder = |state: &GoldenState| match state {
                GoldenState::Building { node, snapshot } => Some((node.clone(), snapshot.clone())),
                _ => None,
            };
            let mut events = vec![GoldenEvent::Retire, GoldenEvent::Deleted];
            events.extend(builder(&old.state).map(|(node, _)| GoldenEvent::Built { node }));
            if let Some((node, snapshot)) = builder(&new.state) {
                events.push(GoldenEvent::TakeOver { node: node.clone() });
                events.push(GoldenEvent::Rebuild { node, snapshot });
            }
            let legal = |event: &GoldenEvent| {
                old.after(event).is_ok_and(|after| after.state == new.state && after.build == new.build)
            };
            if !events.iter().any(legal) {
                wrong.push(format!("I5: golden snapshot {} went from {:?} to {:?}", key.row, old.state, new.state));
            }
        }
        let mark = match (&new.state, self.goldens.get(key).map(|old| &old.state)) {
            (GoldenState::Building { .. }, Some(GoldenState::Building { .. })) => "golden taken over",
            (GoldenState::Building { .. }, _) => "golden begun",
            (GoldenState::Ready { .. }, _) => "golden ready",
            (GoldenState::Retired { .. }, _) => "golden retired",
            (GoldenState::Gone, _) => "golden gone",
        };
        *marks.entry(mark).or_default() += 1;
        if let GoldenState::Building { snapshot, .. } = &new.state {
            self.golden_names.insert(snapshot.clone());
        }
        self.goldens.insert(key.clone(), new);
    }

    fn wrote_box(&mut self, key: &Key, new: Option<BoxRecord>, marks: &mut Marks, wrong: &mut Vec<String>) {
        wrong.extend(self.judge_names(self.boxes.get(key).cloned().as_ref(), new.as_ref()));
        let old = self.boxes.get(key);
        match (old, &new) {
            (Some(old), Some(new)) => {
                if old.owner != new.owner {
                    wrong.push(format!("I3: the record of {} was overwritten by another incarnation", old.owner));
                }
                if new.epoch < old.epoch {
                    wrong.push(format!("I9: the epoch of {} went back from {} to {}", old.owner, old.epoch, new.epoch));
                }
                if matches!(old.volume, VolumeBinding::Bound(_)) && old.volume != new.volume {
                    wrong.push(format!("I3: {} was bound to {:?} and is now {:?}", old.owner, old.volume, new.volume));
                }
                if old.placement != new.placement {
                    *self.moves.entry((old.placement.word(), new.placement.word())).or_default() += 1;
                    if new.epoch == old.epoch && begins_step(&new.placement) {
                        wrong.push(format!("I9: {} began to be {} without a new epoch", new.owner, new.placement));
                    }
                    if old.placement.worker().is_some()
                        && old.placement.worker() != new.placement.worker()
                        && new.placement.worker().is_some()
                    {
                        *marks.entry("step taken over").or_default() += 1;
                    }
                }
                if new.mode == Mode::KeepRunning && matches!(new.placement, Placement::Suspending { .. }) {
                    wrong.push(format!("contract: {} is to run without a session, and is suspended", new.owner));
                }
                if new.deleted_until.is_some() && matches!(new.placement, Placement::Placing { .. }) {
                    wrong.push(format!("contract: {} is deleted, and is brought up", new.owner));
                }
                if new.hold.is_some() && matches!(new.placement, Placement::Placing { .. }) {
                    wrong.push(format!("contract: {} is on its way to another region, and is brought up", new.owner));
                }
                let counted = |record: &BoxRecord| (record.usage.ran_ms, record.usage.connects);
                if counted(new).0 < counted(old).0 || counted(new).1 < counted(old).1 {
                    wrong.push(format!("usage: of {} went back from {:?} to {:?}", new.owner, old.usage, new.usage));
                }
                let runs = matches!(new.placement, Placement::Running { .. });
                if new.usage.running_since.is_some() != runs {
                    wrong.push(format!("usage: of {}, which is {}, is {:?}", new.owner, new.placement, new.usage));
                }
                if old.deleted_until.is_some() && new.deleted_until.is_none() {
                    *marks.entry("box undeleted").or_default() += 1;
                }
                if old.deleted_until.is_none() && new.deleted_until.is_some() {
                    *marks.entry("box retained").or_default() += 1;
                    self.retained.insert(new.owner.id.clone());
                }
                if old.shares.is_empty() && !new.shares.is_empty() {
                    *marks.entry("box shared").or_default() += 1;
                    self.shared.insert(new.owner.id.clone());
                }
                if new.mode != old.mode {
                    *marks.entry("mode set").or_default() += 1;
                }
                if new.holders.len() > 1 {
                    *marks.entry("box held by several gateways").or_default() += 1;
                }
            }
            (Some(old), None) => {
                let renamed = matches!(old.placement, Placement::Renaming { .. } | Placement::Arriving { .. });
                if !renamed && !matches!(old.placement, Placement::Deleting { .. }) {
                    wrong.push(format!("I3: the record of {} was deleted while it was {}", old.owner, old.placement));
                }
                let bound = self.volumes.get(old.volume.volume()).is_some_and(
                    |volume| matches!(&volume.status, VolumeStatus::Bound { owner } if *owner == old.owner),
                );
                // What is held by a move is a copy, or will be one: the box goes on elsewhere.
                if !renamed && old.hold.is_none() {
                    self.gone.insert(old.owner.id.clone());
                }
                // One that was never lived in was bound by a node that did not know yet; it is found and deleted.
                if bound && self.lived_in.contains(old.volume.volume()) {
                    wrong.push(format!("I5: {} is gone and its volume is bound to it for ever", old.owner));
                }
            }
            (None, Some(new)) => {
                *self.moves.entry(("absent", new.placement.word())).or_default() += 1;
                // What is left of a rename may come late; it is removed.
                if self.gone.contains(&new.owner.id) && !is_arriving(new) {
                    wrong.push(format!("I3: {} was deleted and is there again", new.owner));
                }
            }
            (None, None) => {}
        }
        if let Some(new) = &new
            && let VolumeBinding::Bound(volume) = &new.volume
        {
            if old.is_none_or(|old| old.volume != new.volume) && !is_arriving(new) {
                let holds = self.volumes.get(volume).map(|volume| &volume.status);
                // One that is set aside is being adopted: its box is named first, and nobody else touches it.
                let adopted = old.is_none() && matches!(holds, Some(VolumeStatus::Quarantined { .. }));
                if !adopted && !matches!(holds, Some(VolumeStatus::Bound { owner }) if *owner == new.owner) {
                    wrong.push(format!("I3: {} says that {volume} is bound to it, but that is {holds:?}", new.owner));
                }
                let also = self.boxes.values().find(|other| {
                    other.owner.id != new.owner.id
                        && matches!(&other.volume, VolumeBinding::Bound(its) if its == volume)
                });
                if let Some(also) = also {
                    wrong.push(format!("I3: {volume} is bound to {} and to {}", also.owner, new.owner));
                }
            }
            if let Placement::Running { instance, .. } | Placement::Parked { instance, .. } = &new.placement
                && old.is_none_or(|old| old.placement != new.placement)
            {
                let also = self.boxes.values().find(|other| {
                    other.owner != new.owner
                        && matches!(&other.placement,
                            Placement::Running { instance: its, .. } | Placement::Parked { instance: its, .. } if its == instance)
                });
                if let Some(also) = also {
                    wrong.push(format!("I2: {instance} serves {} and {}", also.owner, new.owner));
                }
                let claim = self.instance(instance).map(|record| &record.status);
                if !matches!(claim, Some(InstanceStatus::Claimed { owner, .. }) if *owner == new.owner) {
                    wrong.push(format!(
                        "I2: {} is {} without a claim: the instance is {claim:?}",
                        new.owner, new.placement
                    ));
                }
            }
        }
        match new {
            Some(new) => drop(self.boxes.insert(key.clone(), new)),
            None => drop(self.boxes.remove(key)),
        }
    }

    fn wrote_volume(&mut self, key: &Key, new: Option<VolumeRecord>, wrong: &mut Vec<String>) {
        let Ok(id) = VolumeId::new(key.row.clone()) else { return };
        let old = self.volumes.get(&id);
        if let Some(VolumeStatus::Bound { owner }) = old.map(|old| &old.status) {
            match new.as_ref().map(|new| &new.status) {
                Some(VolumeStatus::Bound { owner: also }) if also == owner || self.is_renaming(owner, also) => {}
                Some(VolumeStatus::Deleting { .. }) => {
                    let asked = match self.box_of(owner) {
                        Some(record) if record.volume == VolumeBinding::Bound(id.clone()) => {
                            matches!(record.placement, Placement::Deleting { .. })
                        }
                        // Its box was deleted while it was still being made (and may have come back, late), or was given another.
                        _ => !self.lived_in.contains(&id),
                    };
                    if !asked {
                        wrong.push(format!("I3: {id} of {owner} is being deleted without its owner's word"));
                    }
                }
                other => wrong.push(format!("I3: {id} was bound to {owner} and is now {other:?}")),
            }
        }
        match new {
            Some(new) => drop(self.volumes.insert(id, new)),
            None => drop(self.volumes.remove(&id)),
        }
    }

    fn wrote_instance(&mut self, key: &Key, new: Option<InstanceRecord>, marks: &mut Marks, wrong: &mut Vec<String>) {
        use InstanceStatus as S;
        let old = self.instances.get(key);
        let (was, is) = (old.map(|old| &old.status), new.as_ref().map(|new| &new.status));
        if old.zip(new.as_ref()).is_some_and(|(old, new)| old.id != new.id) {
            wrong.push(format!("I5: the record of an instance on seat {} was overwritten by another's", key.row));
        }
        if let Some(cordon) = new.as_ref().and_then(|new| new.cordon.as_ref()) {
            *marks.entry(if cordon.drain { "instance drained" } else { "instance cordoned" }).or_default() += 1;
        }
        match (was, is) {
            (Some(S::Claimed { owner, epoch }), Some(S::Claimed { owner: next, epoch: later }))
                if owner == next && later >= epoch => {}
            (Some(S::Claimed { .. }), Some(S::Recycling { .. } | S::Deleting { .. })) => {}
            (Some(S::Claimed { owner, .. }), other) => {
                wrong.push(format!("I2: the instance on {} was claimed by {owner} and is now {other:?}", key.row));
            }
            (Some(S::Provisioning { .. } | S::Starting { .. } | S::Recycling { .. } | S::Free), Some(S::Free)) => {}
            (other, Some(S::Free)) => {
                wrong.push(format!("I2: the instance on {} became free out of {other:?}", key.row));
            }
            (Some(S::Free), Some(S::Claimed { owner, .. })) if old.is_some_and(|old| old.cordon.is_some()) => {
                wrong.push(format!("I7: the instance on {} was claimed by {owner} and is out of use", key.row));
            }
            (Some(S::Free), Some(S::Claimed { .. })) => {}
            (other, Some(S::Claimed { owner, .. })) => {
                wrong.push(format!("I2: the instance on {} was claimed by {owner} out of {other:?}", key.row));
            }
            (Some(S::Deleting { .. }), None) => *marks.entry("instance retired").or_default() += 1,
            (Some(S::Stopping { .. }), Some(S::Stopped)) => *marks.entry("instance in reserve").or_default() += 1,
            (Some(S::Stopped), Some(S::Starting { .. })) => *marks.entry("instance woken").or_default() += 1,
            (Some(S::Stopping { .. }), Some(S::Deleting { .. })) => *marks.entry("stop abandoned").or_default() += 1,
            (Some(S::Stopped), Some(S::Stopped)) => {}
            (other, Some(S::Stopped)) => {
                wrong.push(format!("I5: the instance on {} came into the reserve out of {other:?}", key.row));
            }
            (other @ Some(_), None) => {
                wrong.push(format!("I5: the record on {} was deleted out of {other:?}", key.row))
            }
            _ => {}
        }
        match new {
            Some(new) => drop(self.instances.insert(key.clone(), new)),
            None => drop(self.instances.remove(key)),
        }
        if let Some(most) = self.max_instances.filter(|most| self.instances.len() > *most) {
            wrong.push(format!("I8: there are {} instances and at most {most} may be", self.instances.len()));
        }
    }
}

/// Whether a placement is reached by an intent, which must raise the epoch.
fn begins_step(placement: &Placement) -> bool {
    match placement {
        Placement::Placing { .. }
        | Placement::Suspending { .. }
        | Placement::Detaching { .. }
        | Placement::Deleting { .. }
        | Placement::Renaming { .. } => true,
        Placement::Detached | Placement::Running { .. } | Placement::Parked { .. } | Placement::Arriving { .. } => {
            false
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(key: &Key, value: Option<&str>, wrong: &mut Vec<String>) -> Option<T> {
    match serde_json::from_str(value?) {
        Ok(record) => Some(record),
        Err(error) => {
            wrong.push(format!("I5: {key} cannot be read any more: {error}"));
            None
        }
    }
}
