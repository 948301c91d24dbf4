//! What users may rely on, judged in a running history: what an `Ok` said is true when it is said, nobody is refused without
//! reason, and nothing has to be put right where nothing went wrong.

use super::{Stage, is_brisk, is_there, no_drain};
use crate::backend::Phase;
use crate::engine::Faults;
use crate::oracle::Ended;
use crate::oracle::repairs::Counts;
use boxpool::record::{EventKind, Placement, SnapshotStatus, VolumeBinding, VolumeStatus};
use boxpool::{
    BoxId, BoxName, BoxRef, BoxSnapshot, BoxView, Error, ErrorKind, NodeId, Pool, Session, SnapshotId, UserId, VolumeId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Within which time whoever has a session learns that it is over, with all that may go wrong meanwhile.
const LEARNS_WITHIN: Duration = Duration::from_secs(900);

impl Stage {
    /// Contract: as long as a session is open, its guest runs where it says, unless something excuses it.
    pub(super) fn judge_open(&self, gateway: usize, session: &Session, when: &str) {
        // A gateway that others may have taken for dead has no say.
        if self.cloud.world().engine().is_some_and(|engine| !engine.is_troubled(gateway)) {
            self.judge_session(session, when);
        }
    }

    /// Contract: who has a session on a box that has moved on learns of it, whoever moved it and however long this gateway was out of touch.
    pub(super) async fn judge_end(&self, session: &Session) {
        let owner = session.owner();
        let moved_on = {
            let state = self.cloud.world().state();
            state.oracle.books.current(&owner.id).is_none_or(|record| record.epoch > session.epoch())
        };
        if moved_on && tokio::time::timeout(LEARNS_WITHIN, session.ended()).await.is_err() {
            self.cloud.violate(format!("contract: the guest of a session on {owner} is gone, and nobody was told"));
        }
    }

    /// Contract: when a session is given its guest runs where it says. Who may have been taken for dead looks before it says so.
    pub(super) fn judge_session(&self, session: &Session, when: &str) {
        let state = self.cloud.world().state();
        let owner = session.owner();
        let Some(record) = state.oracle.books.box_of(owner) else { return };
        if matches!(record.placement, Placement::Deleting { .. }) || record.deleted_until.is_some() {
            return;
        }
        let place = (record.volume.volume().clone(), session.instance().clone());
        let runs = state.guests.get(&place).is_some_and(|guest| guest.owner.id == owner.id);
        if runs {
            return;
        }
        let ended = state.oracle.ended(owner);
        let elsewhere =
            state.guests.iter().find(|(_, guest)| guest.owner.id == owner.id).map(|((_, on), _)| on.clone());
        // Another gateway that has it still for running learns of a stop only when it is told that nothing answers.
        let excused = ended == Some(Ended::Lost)
            || state.oracle.was_lost(owner, session.epoch())
            || state.oracle.was_stopped(owner, session.epoch());
        drop(state);
        if !excused {
            self.cloud.violate(format!(
                "contract: {when}, {owner} did not run on {} (it ended {ended:?}, and runs on {elsewhere:?})",
                session.instance()
            ));
        }
    }

    /// While a session is open, its box is where the session says.
    pub(super) async fn judge_place(&self, pool: &Pool, session: &Session) {
        let owner = session.owner();
        let found = pool.instance_of(&owner.owner, &owner.name).await;
        let state = self.cloud.world().state();
        let record = state.oracle.books.box_of(owner);
        let runs = record.is_some_and(|record| matches!(record.placement, Placement::Running { .. }));
        drop(state);
        // A store that is slow even where nothing goes wrong may not answer in time.
        let said = match &found {
            Ok(said) => said.as_ref() == Some(session.instance()),
            Err(error) => error.kind() == ErrorKind::TimedOut,
        };
        // Somebody may delete it.
        if runs && !said {
            self.cloud
                .violate(format!("contract: {owner} runs on {}, and is said to be on {found:?}", session.instance()));
        }
    }

    /// Who is refused for lack of room is not refused beside a free instance.
    pub(super) fn judge_refusal(&self, error: &Error, waited: Duration) {
        if error.kind() == ErrorKind::NoCapacity {
            let state = self.cloud.world().state();
            let wrong = state.oracle.stock.refused_for_room(waited, self.cloud.elapsed().as_millis() as u64);
            drop(state);
            wrong.into_iter().for_each(|wrong| self.cloud.violate(wrong));
        }
    }

    /// Where every call takes some milliseconds, an attach takes no seconds.
    pub(super) fn judge_haste(&self, session: &Session) {
        let took = session.timings().attached;
        if self.undisturbed() && is_brisk(&self.case) && took > Duration::from_secs(1) {
            self.cloud.violate(format!("contract: it took {took:?} to attach what was attached within milliseconds"));
        }
    }

    /// A node that has left in good order holds nothing and is at work on nothing.
    pub(super) fn judge_drain(&self, node: &NodeId) {
        let state = self.cloud.world().state();
        let named = |record: &&boxpool::record::BoxRecord| {
            record.holders.contains(node) || record.placement.worker() == Some(node)
        };
        let left = state.oracle.books.boxes.values().find(named).map(|record| record.owner.clone());
        drop(state);
        if let Some(owner) = left {
            self.cloud.violate(format!("contract: {node} has left, and {owner} still names it"));
        }
    }

    /// A worker ends, and nobody takes its node for alive any more.
    pub(super) fn judge_leave(&self, node: &NodeId, ended: bool) {
        let registered = self.cloud.world().state().oracle.books.nodes.contains(node);
        if !ended {
            self.cloud.violate(format!("I6: {node} was drained, and its worker did not end"));
        } else if registered {
            self.cloud.violate(format!("contract: {node} has left, and its record says that it lives"));
        }
    }

    /// A list names all that was there all the time, and nothing that never was.
    /// It names each once, whatever it is called.
    pub(super) fn judge_list(&self, user: &UserId, before: &BTreeSet<BoxId>, list: &[BoxId]) {
        let after = self.boxes_of(user);
        if let Some(id) = before.intersection(&after).find(|id| !list.contains(id)) {
            self.cloud.violate(format!("contract: {id} is not in its owner's list"));
        }
        if let Some(id) = list.iter().find(|id| list.iter().filter(|also| also == id).count() > 1) {
            self.cloud.violate(format!("contract: {id} is in its owner's list twice"));
        }
        let known = |id: &&BoxId| before.contains(*id) || after.contains(*id);
        if let Some(id) = list.iter().find(|id| !known(id)) {
            self.cloud.violate(format!("contract: a box {id} of {user} is in a list, and is not there"));
        }
    }

    pub(super) fn judge_create(&self, answer: Result<boxpool::VolumeId, Error>) {
        match answer {
            Ok(volume) => {
                let state = self.cloud.world().state();
                let there = state.volumes.get(&volume).is_some_and(|volume| volume.phase != Phase::Deleting);
                let deleted = !state.oracle.books.boxes.values().any(|record| {
                    *record.volume.volume() == volume && !matches!(record.placement, Placement::Deleting { .. })
                });
                drop(state);
                if !there && !deleted {
                    self.cloud.violate(format!("contract: a box was made and its volume {volume} does not exist"));
                }
            }
            Err(error) if is_there(&error) => {}
            Err(error) => self.count_refusal(Some(&error)),
        }
    }

    /// A disk that was adopted is its user's.
    pub(super) fn judge_adoption(&self, disk: &VolumeId, user: &UserId, name: &BoxName) {
        let state = self.cloud.world().state();
        let books = &state.oracle.books;
        let status = books.volumes.get(disk).map(|record| record.status.clone());
        let theirs = match &status {
            Some(VolumeStatus::Bound { owner }) => {
                let bound = VolumeBinding::Bound(disk.clone());
                let names_it = books.box_of(owner).is_none_or(|record| record.volume == bound);
                owner.owner == *user && owner.name == *name && names_it
            }
            // Its owner has deleted it since.
            Some(VolumeStatus::Deleting { .. }) | None => true,
            Some(_) => false,
        };
        drop(state);
        if !theirs {
            self.cloud.violate(format!("contract: {disk} was adopted for {user}/{name}, and is {status:?}"));
        }
    }

    /// A box that was stopped does not run on, and its memory is gone or will be before it is started.
    pub(super) fn judge_stop(&self, owner: &BoxRef) {
        let state = self.cloud.world().state();
        let running = state.guests.values().find(|guest| guest.owner.id == owner.id);
        let runs_on = running.is_some_and(|guest| state.oracle.was_stopped(owner, guest.epoch));
        drop(state);
        if runs_on {
            self.cloud.violate(format!("contract: {owner} was stopped, and runs on"));
        }
    }

    /// A snapshot that was taken is there, as long as nobody deletes it.
    pub(super) fn judge_snapshot(&self, taken: &BoxSnapshot) {
        let state = self.cloud.world().state();
        let record = state.oracle.books.snapshots.values().find(|record| record.id == taken.id);
        let kept = record.is_some_and(|record| record.status == SnapshotStatus::Ready);
        let there = state.has_ready_snapshot(&taken.id);
        drop(state);
        if kept && !there {
            self.cloud.violate(format!("contract: snapshot {} was taken, and does not exist", taken.id));
        }
    }

    /// A snapshot that was deleted is not there.
    pub(super) fn judge_dropped(&self, id: &SnapshotId) {
        let state = self.cloud.world().state();
        let record = state.oracle.books.snapshots.values().any(|record| record.id == *id);
        drop(state);
        if record {
            self.cloud.violate(format!("contract: snapshot {id} was deleted, and its record is there"));
        }
    }

    /// A copy has on its disk what was copied.
    pub(super) fn judge_copy(&self, user: &UserId, view: &BoxView) {
        let owner = BoxRef { owner: user.clone(), name: view.name.clone(), id: view.id.clone() };
        let state = self.cloud.world().state();
        let lacks = state.volumes.get(&view.volume).and_then(|volume| {
            let has = &volume.content.owned;
            state.oracle.inherited(&owner).into_iter().find(|line| !has.contains(line))
        });
        drop(state);
        if let Some(line) = lacks {
            self.cloud.violate(format!("contract: {owner} is a copy, and lacks {line:?}"));
        }
    }

    /// What was grown is as large as was said.
    pub(super) fn judge_resize(&self, owner: &BoxRef, bytes: u64) {
        let state = self.cloud.world().state();
        let volume = state.volumes.values().find(|volume| volume.owner.as_ref().is_some_and(|has| has.id == owner.id));
        let found = volume.map(|volume| volume.bytes);
        drop(state);
        if found.is_some_and(|found| found < bytes) {
            self.cloud
                .violate(format!("contract: the volume of {owner} was grown to {bytes} bytes, and has {found:?}"));
        }
    }

    /// Only with whom a box is, or was, shared is let in.
    pub(super) fn judge_guest(&self, owner: &BoxRef) {
        if !self.cloud.world().state().oracle.books.shared.contains(&owner.id) {
            self.cloud.violate(format!("contract: somebody was let in to {owner}, which was never shared"));
        }
    }

    /// A box that was renamed is what it was, and is called what was said.
    pub(super) fn judge_rename(&self, view: &BoxView, to: &BoxName) {
        let named = self.cloud.world().state().oracle.books.renamed.contains(&(view.id.clone(), to.clone()));
        let arrives = view.state() == "arriving";
        if view.name != *to || !named && !arrives {
            self.cloud.violate(format!("contract: a box was renamed to {to}, and is {view:?}"));
        }
    }

    /// Who is told that a name is in use: it is, or was a moment ago.
    pub(super) fn judge_name_in_use(&self, error: &Error, user: &UserId, to: &BoxName, before: bool) {
        let refused = error.kind() == ErrorKind::AlreadyExists && self.calm;
        if refused && !before && !self.is_named(user, to) {
            self.cloud.violate(format!("contract: {to} was said to be in use, and nobody uses it"));
        }
    }

    pub(super) fn judge_delete(&self, owner: &BoxRef) {
        let state = self.cloud.world().state();
        // It had another name when its turn came, and what was deleted is another box that was made under the old one.
        if state.oracle.books.current(&owner.id).is_some_and(|record| record.owner != *owner) {
            return;
        }
        // Its owner may have it back, or have had it back already.
        if self.config.retention > Duration::ZERO && state.oracle.books.retained.contains(&owner.id) {
            let deleted = state.oracle.books.box_of(owner).is_some_and(|record| record.deleted_until.is_some());
            let runs = state.guests.values().any(|guest| guest.owner.id == owner.id);
            drop(state);
            if deleted && runs {
                self.cloud.violate(format!("contract: {owner} was deleted, and runs"));
            }
            return;
        }
        let record = state.oracle.books.box_of(owner).is_some();
        let guest = state.guests.values().any(|guest| guest.owner.id == owner.id);
        let volume = state.volumes.values().any(|volume| {
            volume.owner.as_ref().is_some_and(|has| has.id == owner.id) && volume.phase != Phase::Deleting
        });
        drop(state);
        if record || guest || volume {
            self.cloud.violate(format!(
                "contract: {owner} was deleted, and of it there is still: record {record}, guest {guest}, volume {volume}"
            ));
        }
    }

    /// A call that is refused without effect leaves nothing behind that somebody would have to find.
    pub(super) fn judge_repairs(&self, repairs: &BTreeMap<String, u64>) {
        let case = &self.case;
        let timely = Faults { late: 0.0, stall: 0.0, stuck: 0.0, crash: 0.0, ..case.faults.clone() };
        let honest = Faults { lost: 0.0, ..timely.clone() };
        let quiet = !self.probed && case.script.is_empty() && case.events.is_empty() && no_drain(case);
        // Of a write whose answer was lost it is found out whether it happened.
        let rules =
            [("boxpool_claims_swept_total", case.faults == timely), ("boxpool_orphans_total", case.faults == honest)];
        for (found, judged) in rules {
            if judged && quiet && repairs.contains_key(found) {
                self.cloud
                    .violate(format!("repairs: nobody died or came late, and there was something to find: {found}"));
            }
        }
    }

    /// The event log is what audit and billing read: where nothing goes wrong nothing is missing from it.
    pub(super) fn judge_log(&self, counts: &Counts) {
        let all = counts.all();
        for (kind, counter) in [
            (EventKind::BoxCreated, "boxpool_boxes_created_total"),
            (EventKind::BoxDeleted, "boxpool_boxes_deleted_total"),
        ] {
            let counted = all.get(counter).copied().unwrap_or_default();
            let logged = self.cloud.world().state().oracle.stock.logged(kind);
            if logged != counted {
                self.cloud.violate(format!("log: {counted} times {kind:?}, and {logged} are in the log"));
            }
        }
    }
}
