//! What the maintainer does about boxes that nobody is at: those whose instance is worth more elsewhere give it back, and those that are expected
//! are given one.

use crate::actor::Message;
use crate::clock::Timestamp;
use crate::id::BoxRef;
use crate::parking::{AwayBox, ParkingPolicy, in_order_of_going, worth};
use crate::planted::{self, Bug};
use crate::record::BoxRecord;
use crate::saga::is_ready;
use crate::shared::Shared;
use crate::stock::instances::as_count;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For so long a box is not attached ahead again: it was given back to whom it is worth more, or it could not be attached.
const NOT_AGAIN_FOR: Duration = Duration::from_secs(3_600);

impl Shared {
    /// How many instances parked boxes may hold.
    fn most_held(&self) -> usize {
        if planted::is(Bug::HeldShareIgnored) {
            return usize::MAX;
        }
        let most = f64::from(self.config.instances.max_total) * self.config.held_share;
        // Whole and not negative: the share was checked to lie between 0 and 1.
        most.floor() as usize
    }

    /// When a box was parked, by this node's clock. A stamp that lies ahead of that was set by a wrong one, and might keep the instance
    /// for as long as it is wrong: such a box counts as parked since it was first seen here.
    pub(crate) fn parked_since(&self, owner: &BoxRef, stamp: Timestamp) -> Timestamp {
        let now = self.now();
        let mut state = self.state();
        if planted::is(Bug::StampAheadIsWaitedFor) || stamp <= now && state.stamps_ahead.is_empty() {
            return stamp;
        }
        let key = (owner.clone(), stamp);
        let seen = match state.stamps_ahead.get(&key) {
            Some(seen) => *seen,
            None if stamp <= now => return stamp,
            None => *state.stamps_ahead.entry(key).or_insert_with(Instant::now),
        };
        now.minus(seen.elapsed()).min(stamp)
    }

    /// For how long a box has been parked.
    pub(crate) fn parked_for(&self, owner: &BoxRef, stamp: Timestamp) -> Duration {
        self.now().since(self.parked_since(owner, stamp))
    }

    /// A parked box as the policy is to see it.
    pub(crate) fn away(&self, record: &BoxRecord, since: Timestamp) -> AwayBox {
        let away = AwayBox::of(record, since);
        AwayBox { since: self.parked_since(&away.owner, away.since), ..away }
    }

    /// Asks parked boxes to give their instances back: those that the policy does not keep, and those that are too many.
    pub(crate) fn look_at_parked(self: &Arc<Self>) {
        if !self.is_maintainer() || self.is_paused() || self.is_draining() {
            return;
        }
        for BoxRef { owner, name, .. } in self.choose_to_go() {
            self.tell(&(owner, name), Message::Yield);
        }
    }

    fn choose_to_go(&self) -> Vec<BoxRef> {
        let now = self.now();
        let mut state = self.state();
        let staying = state.parked.values().filter(|away| !state.yielding.contains(&away.owner));
        let (staying, mut going): (Vec<&AwayBox>, Vec<&AwayBox>) =
            staying.partition(|away| self.policy.keeps(away, now) || planted::is(Bug::KeptAnyway));
        let too_many = staying.len().saturating_sub(self.most_held());
        going.extend(in_order_of_going(&*self.policy, staying, now).into_iter().take(too_many));
        let going: Vec<BoxRef> = going.into_iter().map(|away| away.owner.clone()).collect();
        state.yielding.extend(going.iter().cloned());
        going
    }

    /// What the census has found of expected boxes.
    pub(crate) fn note_expected(&self, expected: Expected) {
        let best = expected.best();
        if !best.is_empty() {
            self.refill_instances.notify_one();
        }
        self.state().expected = best;
    }

    /// How many instances are wanted for expected boxes, beside the free ones that are kept for whoever comes.
    pub(crate) fn expected(&self) -> u32 {
        as_count(self.state().expected.len())
    }

    /// Attaches expected boxes ahead, as far as there are more free instances than are kept for whoever comes.
    pub(crate) fn attach_expected(self: &Arc<Self>, spare: u32) {
        let next: Vec<BoxRef> = {
            let mut state = self.state();
            let n = state.expected.len().min(spare as usize);
            state.expected.drain(..n).collect()
        };
        for BoxRef { owner, name, .. } in next {
            self.tell(&(owner, name), Message::PreAttach);
        }
    }

    /// Room for what a census finds, as far as the share of instances that may be held leaves any.
    pub(crate) fn expect(&self) -> Expected {
        let rests = !self.is_maintainer() || self.is_paused() || self.is_draining();
        let mut state = self.state();
        state.attached_ahead.retain(|_, last| last.elapsed() < NOT_AGAIN_FOR);
        let room = if rests { 0 } else { self.most_held().saturating_sub(state.parked.len()) };
        let recent = state.attached_ahead.keys().filter(|_| !planted::is(Bug::AttachedAgain));
        let except = recent.cloned().collect();
        Expected { room, except, found: Vec::new() }
    }
}

/// The boxes to which an instance is worth most among those that are on none: no more of them than may be attached, however many
/// boxes there are.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    room: usize,
    except: BTreeSet<BoxRef>,
    found: Vec<(f64, BoxRef)>,
}

impl Expected {
    pub(crate) fn look_at(&mut self, record: &BoxRecord, policy: &dyn ParkingPolicy, now: Timestamp) {
        if self.room == 0 || !is_ready(record) || self.except.contains(&record.owner) {
            return;
        }
        let away = AwayBox::of(record, record.created_at);
        if !policy.expects(&away, now) {
            return;
        }
        self.found.push((worth(policy, &away, now), away.owner));
        if self.found.len() >= self.room.saturating_mul(2) {
            self.keep_best();
        }
    }

    fn keep_best(&mut self) {
        self.found.sort_by(|(a, a_owner), (b, b_owner)| b.total_cmp(a).then_with(|| a_owner.cmp(b_owner)));
        self.found.truncate(self.room);
    }

    fn best(mut self) -> Vec<BoxRef> {
        self.keep_best();
        self.found.into_iter().map(|(_, owner)| owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BoxId, BoxName, UserId, VolumeId};
    use crate::record::VolumeBinding;

    /// Expects every box whose name does not begin with `x`, the longer its name the more.
    struct ByName;

    impl ParkingPolicy for ByName {
        fn worth(&self, away: &AwayBox, _now: Timestamp) -> f64 {
            away.owner.name.as_str().len() as f64
        }

        fn expects(&self, away: &AwayBox, _now: Timestamp) -> bool {
            !away.owner.name.as_str().starts_with('x')
        }
    }

    fn detached(name: &str) -> BoxRecord {
        let (owner, id) = (UserId::new("u").unwrap(), BoxId::new("b").unwrap());
        let volume = VolumeId::new("v1").unwrap();
        let mut record =
            BoxRecord::new(BoxRef { owner, name: BoxName::new(name).unwrap(), id }, volume.clone(), Timestamp(0));
        record.volume = VolumeBinding::Bound(volume);
        record
    }

    #[test]
    fn the_best_of_many_are_found_in_room_for_a_few() {
        let mut expected = Expected { room: 2, ..Expected::default() };
        for name in ["a", "bbbb", "xxxxxxx", "cc", "ddd", "eeeee", "ff"] {
            expected.look_at(&detached(name), &ByName, Timestamp(0));
            assert!(expected.found.len() < 4);
        }
        let best: Vec<_> = expected.best().into_iter().map(|owner| owner.name.to_string()).collect();
        assert_eq!(best, ["eeeee", "bbbb"]);
    }

    #[test]
    fn a_policy_that_knows_no_number_harms_nobody() {
        struct Nonsense;
        impl ParkingPolicy for Nonsense {
            fn worth(&self, away: &AwayBox, _now: Timestamp) -> f64 {
                if away.owner.name.as_str() == "known" { 1.0 } else { f64::NAN }
            }

            fn expects(&self, _away: &AwayBox, _now: Timestamp) -> bool {
                true
            }
        }
        let mut expected = Expected { room: 40, ..Expected::default() };
        for n in 0..60 {
            expected.look_at(&detached(&format!("b{n}")), &Nonsense, Timestamp(0));
        }
        expected.look_at(&detached("known"), &Nonsense, Timestamp(0));
        let best = expected.best();
        assert_eq!((best.len(), best[0].name.as_str()), (40, "known"));
    }

    #[test]
    fn what_an_attach_would_not_bring_closer_is_not_expected() {
        let mut expected =
            Expected { room: 9, except: BTreeSet::from([detached("again").owner]), ..Expected::default() };
        let mut unbound = detached("unbound");
        unbound.volume = VolumeBinding::Wanted(VolumeId::new("v1").unwrap());
        let mut deleted = detached("deleted");
        deleted.deleted_until = Some(Timestamp(1));
        let mut small = detached("small");
        small.grow_to = Some(1);
        for record in [unbound, deleted, small, detached("again")] {
            expected.look_at(&record, &ByName, Timestamp(0));
        }
        assert!(expected.best().is_empty());
    }
}
