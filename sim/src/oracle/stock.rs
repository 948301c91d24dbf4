//! How the pools are kept, judged where nothing goes wrong: who makes machines, how many, when they go, and that nobody is
//! refused beside an empty one. With faults these are matters of luck; what must hold even then is I8 of the records.

use boxpool::record::{DemandRecord, EventKind, EventRecord, InstanceRecord, InstanceStatus, LeaseRecord, NodeRecord};
use boxpool::{InstanceId, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

/// An instance that is free for so long was seen by everybody who waits for one.
const SEEN_BY_NOW: u64 = 25_000;
/// So many instances may be begun within a minute, in whatever trouble. A pool that asks a cloud without stock again at once
/// begins thousands; one that doubles its pause, some tens.
const BEGUN_A_MINUTE: usize = 120;

/// Whether an event tells whose, where and when, so that an audit needs nothing beside it.
fn says_enough(event: &EventRecord) -> bool {
    let (owner, instance, volume) = (event.owner.is_some(), event.instance.is_some(), event.volume.is_some());
    let (epoch, detail) = (event.epoch.is_some(), !event.detail.is_empty());
    match event.kind {
        EventKind::BoxCreated => owner && volume,
        EventKind::BoxDeleted => owner && volume && epoch,
        EventKind::StayEnded => owner && instance && volume && epoch,
        EventKind::BoxStarted | EventKind::GuestLost => owner && instance && epoch,
        EventKind::BoxStopped | EventKind::BoxRetained | EventKind::BoxUndeleted => owner && volume && epoch,
        EventKind::ShareSet => owner && epoch && detail,
        EventKind::GuestConnected => owner && instance && epoch && detail,
        EventKind::KeepaliveSet => owner && volume && detail,
        EventKind::BoxResized | EventKind::BoxRenamed => owner && volume && epoch && detail,
        EventKind::SnapshotTaken | EventKind::SnapshotDeleted => owner && epoch && detail,
        EventKind::BoxCopied | EventKind::BoxMoved => owner && volume && detail,
        EventKind::SuspendFailed | EventKind::PlacementFailed => owner && instance && epoch && detail,
        // A box that is being deleted may be nowhere, and one that is being renamed is.
        EventKind::TakenOver => {
            let nowhere = ["deleting", "renaming"].iter().any(|step| event.detail.starts_with(step));
            owner && epoch && detail && (instance || nowhere)
        }
        EventKind::Quarantined => volume && detail,
        EventKind::InstanceDoubted => instance && detail && owner == epoch,
        EventKind::Other => false,
        _ => true,
    }
}

/// What kind of world it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habits {
    /// Nothing goes wrong, nobody is shut down.
    pub(crate) calm: bool,
    /// Every call takes some milliseconds, so that what lies seconds apart is no race.
    pub(crate) brisk: bool,
    /// How many gateways there are.
    pub(crate) gateways: usize,
    /// As many are kept free.
    pub(crate) min_free: usize,
    /// As many are kept free at most, where that follows from a goal.
    pub(crate) most_free: Option<usize>,
    /// As many are kept stopped.
    pub(crate) min_reserve: usize,
    /// At most as many are begun within a minute, evenly.
    pub(crate) per_minute: Option<NonZeroU32>,
    /// Whether boxes are attached ahead: machines are made for them beside those that are kept free.
    pub(crate) expects: bool,
    /// None is retired before there were some to spare for so long.
    pub(crate) cool_down: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Stock {
    pub(crate) habits: Habits,
    maintainer: Option<NodeId>,
    /// Instances that never served, being made or free.
    fresh: BTreeSet<InstanceId>,
    free_since: BTreeMap<InstanceId, u64>,
    /// Since when no more are free than are kept.
    pressed_since: Option<u64>,
    /// When that ended last, after it had lasted for so long that the maintainer has seen it.
    pressed_until: Option<u64>,
    begun: VecDeque<u64>,
    /// How many boxes there ever were: no more can wait for an instance.
    boxes: usize,
    /// How many waited on each node, as its last three heartbeats said.
    told_waiting: BTreeMap<NodeId, [u32; 3]>,
    /// How many are to be free, as was told last.
    told_wanted: Option<u32>,
    /// Events of each kind.
    pub(crate) events: BTreeMap<String, u64>,
}

impl Stock {
    pub(super) fn box_appeared(&mut self) {
        self.boxes += 1;
    }

    pub(super) fn node_says(&mut self, node: &NodeRecord) {
        let told = self.told_waiting.entry(node.id.clone()).or_default();
        *told = [told[1], told[2], node.waiting];
    }

    pub(super) fn wrote_lease(&mut self, value: Option<&str>) -> Option<String> {
        let lease = value.and_then(|value| serde_json::from_str::<LeaseRecord>(value).ok());
        let before = std::mem::replace(&mut self.maintainer, lease.map(|lease| lease.holder));
        let (before, after) = before.zip(self.maintainer.as_ref())?;
        (self.habits.calm && before != *after)
            .then(|| format!("repairs: {after} took the maintainer's lease from {before}, which is in good health"))
    }

    /// I8: what a goal wants lies within the operator's bounds, and is explained.
    pub(super) fn wrote_demand(
        &mut self,
        new: &DemandRecord,
        marks: &mut BTreeMap<&'static str, u64>,
    ) -> Option<String> {
        if self.told_wanted.replace(new.wanted).is_some_and(|before| before != new.wanted) {
            *marks.entry("another number kept free").or_default() += 1;
        }
        let most = self.habits.most_free?;
        let within = (self.habits.min_free..=most).contains(&(new.wanted as usize));
        (!within || new.why.is_empty()).then(|| {
            format!("I8: {} are to be free ({:?}), of {} to {most}", new.wanted, new.why, self.habits.min_free)
        })
    }

    pub(super) fn wrote_event(&mut self, value: Option<&str>) -> Option<String> {
        let event = value.and_then(|value| serde_json::from_str::<EventRecord>(value).ok())?;
        *self.events.entry(format!("{:?}", event.kind)).or_default() += 1;
        (!says_enough(&event)).then(|| format!("log: it does not say what it is about: {event:?}"))
    }

    /// How many events of that kind are in the log.
    pub(crate) fn logged(&self, kind: EventKind) -> u64 {
        self.events.get(&format!("{kind:?}")).copied().unwrap_or_default()
    }

    pub(super) fn wrote_instance(
        &mut self,
        old: Option<&InstanceRecord>,
        new: Option<&InstanceRecord>,
        now: u64,
    ) -> Vec<String> {
        let wrong = self.judge_instance(old, new, now);
        self.note_pressure(now);
        wrong
    }

    fn note_pressure(&mut self, now: u64) {
        let pressed = self.free_since.len() <= self.habits.min_free;
        match self.pressed_since {
            None if pressed => self.pressed_since = Some(now),
            Some(since) if !pressed => {
                // What other gateways take is told with their next heartbeat and read with the maintainer's.
                let seen_within = if self.habits.gateways == 1 { 1_000 } else { 12_000 };
                if now.saturating_sub(since) >= seen_within {
                    self.pressed_until = Some(now);
                }
                self.pressed_since = None;
            }
            _ => {}
        }
    }

    fn judge_instance(&mut self, old: Option<&InstanceRecord>, new: Option<&InstanceRecord>, now: u64) -> Vec<String> {
        use InstanceStatus as S;
        let mut wrong = Vec::new();
        let was = old.map(|old| &old.status);
        let goes = |new: &&InstanceRecord| matches!(new.status, S::Stopping { .. } | S::Deleting { .. });
        if was == Some(&S::Free) && new.filter(goes).is_some_and(|new| !new.is_draining()) {
            wrong.extend(self.retired(now));
        }
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.id != old.id || !new.is_open())) {
            self.free_since.remove(&old.id);
        }
        let Some(new) = new else {
            old.map(|old| self.fresh.remove(&old.id));
            return wrong;
        };
        match &new.status {
            S::Provisioning { node } if was.is_none() => wrong.extend(self.begun(&new.id, node, now)),
            S::Provisioning { .. } | S::Starting { .. } | S::Stopped => {}
            // On its way into the reserve it serves nobody: for who comes now another one is made.
            S::Stopping { .. } => drop(self.fresh.remove(&new.id)),
            S::Free if new.cordon.is_some() => {}
            S::Free => drop(self.free_since.entry(new.id.clone()).or_insert(now)),
            S::Claimed { .. } | S::Deleting { .. } | S::Recycling { .. } | S::Quarantined { .. } => {
                self.fresh.remove(&new.id);
            }
        }
        if new.cordon.is_some() {
            self.fresh.remove(&new.id);
        }
        wrong
    }

    fn begun(&mut self, id: &InstanceId, node: &NodeId, now: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        self.begun.push_back(now);
        self.begun.retain(|at| now - at < 60_000);
        // In a world of an embedder's own pools may be of any size.
        if self.begun.len() > BEGUN_A_MINUTE && self.habits.gateways > 0 {
            wrong.push(format!("I8: {} instances were begun within a minute", self.begun.len()));
        }
        if !self.habits.calm {
            return wrong;
        }
        // A minute's worth at once, and another one at an even pace.
        if let Some(most) = self.habits.per_minute.map(|most| 2 * most.get() as usize)
            && self.begun.len() > most
        {
            wrong
                .push(format!("I8: {} instances were begun within a minute, and at most {most} may", self.begun.len()));
        }
        if let Some(other) = self.maintainer.as_ref().filter(|holder| *holder != node) {
            wrong.push(format!("I8: {id} was begun by {node} while {other} is the maintainer"));
        }
        // A need that a node has told of stands until its next heartbeat, and is acted on until the reader's next one.
        let told: u32 = self.told_waiting.values().filter_map(|told| told.iter().max()).sum();
        let expected = if self.habits.expects { self.boxes } else { 0 };
        let kept_free = self.habits.most_free.unwrap_or(self.habits.min_free);
        let wanted = kept_free + self.boxes + expected + self.habits.min_reserve + told as usize;
        self.fresh.insert(id.clone());
        if self.fresh.len() > wanted {
            wrong.push(format!(
                "I8: {id} makes {} that never served, and at most {wanted} are wanted",
                self.fresh.len()
            ));
        }
        wrong
    }

    /// The maintainer counts every five seconds, and what it has seen last may be as old.
    fn retired(&self, now: u64) -> Option<String> {
        let since = self.pressed_until.map_or(u64::MAX, |until| now.saturating_sub(until));
        let cool_down = (self.habits.cool_down.as_millis() as u64).saturating_sub(6_000);
        let judged = self.habits.calm && self.habits.brisk;
        (judged && since < cool_down)
            .then(|| format!("I8: an instance was retired or stopped {since} ms after there had been none to spare"))
    }

    /// Somebody was told that there is no room.
    pub(crate) fn refused_for_room(&self, waited: Duration, now: u64) -> Option<String> {
        let long = |(_, since): &(&InstanceId, &u64)| now.saturating_sub(**since) >= SEEN_BY_NOW;
        let found = self.free_since.iter().find(long).filter(|_| self.habits.calm)?;
        (waited.as_millis() as u64 > SEEN_BY_NOW).then(|| {
            format!("I6: somebody was refused for lack of room while {} was free since {} ms", found.0, found.1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_whose_cool_down_is_not_known_is_not_judged_by_it() {
        let stock = Stock {
            habits: Habits { calm: true, brisk: true, gateways: 1, ..Habits::default() },
            pressed_until: Some(1_000),
            ..Stock::default()
        };
        assert_eq!(stock.retired(5_000), None);
    }
}
