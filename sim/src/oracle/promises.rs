//! What guests and their users were promised: I4 (nothing durable is lost), I9 (no older epoch acts), and the part of I2
//! that says that nobody sees another's data.

use super::Oracle;
use crate::backend::GuestProcess;
use boxpool::record::{BoxRecord, Placement};
use boxpool::{BoxRef, Epoch, Guest, StartedBy, VolumeId};

/// What one box was promised.
#[derive(Debug, Default)]
pub(crate) struct Promise {
    /// Lines that a guest was told are on its disk.
    lines: Vec<String>,
    /// Those that came with the disk of the box of which it is a copy.
    pub(super) inherited: Vec<String>,
    /// What its memory held when it was saved, until it is used again.
    saved: Option<u64>,
    /// Whether a user has seen what its memory holds now.
    seen: bool,
    /// The newest epoch with which somebody asked to save its memory.
    asked: Option<Epoch>,
    /// How its guest ended last; `None` while it runs.
    ended: Option<Ended>,
    /// The newest epoch in which its guest died of something that was nobody's doing.
    lost: Option<Epoch>,
    /// The newest epoch in which its owner stopped it.
    stopped: Option<Epoch>,
    /// It was stopped, and no guest has booted since.
    pub(super) must_boot: bool,
}

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Suspended,
    Stopped,
    /// Its machine or it itself died.
    Lost,
}

/// Every line begins with whose it is.
pub(crate) fn line_of(owner: &BoxRef, text: &str) -> String {
    format!("{} {text}", owner.id)
}

impl Oracle {
    pub(super) fn promise(&mut self, owner: &BoxRef) -> &mut Promise {
        if !self.promises.contains_key(&owner.id) {
            self.promises.insert(owner.id.clone(), Promise::default());
        }
        self.promises.entry(owner.id.clone()).or_default()
    }

    fn acted(&mut self, what: &str, guest: &Guest) -> Option<String> {
        if !self.books.lived_in.contains(&guest.volume) {
            self.books.lived_in.insert(guest.volume.clone());
        }
        let newest = self.epochs.entry(guest.volume.clone()).or_default();
        if guest.epoch < *newest {
            return Some(format!(
                "I9: {what} with epoch {} on {} after epoch {newest} had acted",
                guest.epoch, guest.volume
            ));
        }
        *newest = guest.epoch;
        None
    }

    /// A call of that epoch was let through, whether or not it changed anything.
    pub(crate) fn saw_epoch(&mut self, guest: &Guest) {
        let newest = self.epochs.entry(guest.volume.clone()).or_default();
        *newest = guest.epoch.max(*newest);
    }

    pub(crate) fn wrote_line(&mut self, owner: &BoxRef, line: String) {
        self.promise(owner).lines.push(line);
    }

    /// A user saw what the guest holds in memory.
    pub(crate) fn saw_memory(&mut self, owner: &BoxRef) {
        self.promise(owner).seen = true;
    }

    pub(crate) fn ended(&self, owner: &BoxRef) -> Option<Ended> {
        self.promises.get(&owner.id)?.ended
    }

    /// Its owner has stopped it: what its memory held, saved or not, is not to be seen again.
    pub(super) fn stopped(&mut self, owner: &BoxRef, epoch: Epoch) {
        let promise = self.promise(owner);
        (promise.saved, promise.must_boot) = (None, true);
        promise.stopped = promise.stopped.max(Some(epoch));
        self.mark("box stopped");
    }

    /// Its owner has deleted it, and may have it back as it was: what runs is ended.
    pub(super) fn retained(&mut self, owner: &BoxRef, epoch: Epoch) {
        let promise = self.promise(owner);
        promise.stopped = promise.stopped.max(Some(epoch));
    }

    /// Whether its owner stopped what ran in that epoch, or what ran later.
    pub(crate) fn was_stopped(&self, owner: &BoxRef, epoch: Epoch) -> bool {
        self.promises.get(&owner.id).is_some_and(|promise| promise.stopped >= Some(epoch))
    }

    /// Whether its owner wants what its memory holds gone.
    fn is_given_up(&self, owner: &BoxRef) -> bool {
        let deleting = |record: &BoxRecord| matches!(record.placement, Placement::Deleting { .. });
        self.books.current(&owner.id).is_none_or(|record| record.forget_memory || deleting(record))
    }

    /// Whether the guest of that epoch died of something that was nobody's doing.
    pub(crate) fn was_lost(&self, owner: &BoxRef, epoch: Epoch) -> bool {
        self.promises.get(&owner.id).is_some_and(|promise| promise.lost >= Some(epoch))
    }

    pub(crate) fn guest_started(&mut self, guest: &Guest, by: StartedBy, count: u64, lines: &[String]) -> Vec<String> {
        let mut wrong = Vec::from_iter(self.acted("a start", guest));
        let owner = &guest.owner;
        let own = line_of(owner, "");
        let promise = self.promise(owner);
        if let Some(foreign) = lines.iter().find(|line| !line.starts_with(&own) && !promise.inherited.contains(line)) {
            wrong.push(format!("I2: {owner} came up with another's data: {foreign:?}"));
        }
        if let Some(lost) = promise.lines.iter().chain(&promise.inherited).find(|line| !lines.contains(line)) {
            wrong.push(format!("I4: {owner} came up without {lost:?}, which was durable"));
        }
        match promise.saved.take() {
            Some(saved) if by != StartedBy::Resume => {
                wrong.push(format!("I4: {owner} booted although its memory was saved at {saved}"));
            }
            Some(saved) if saved != count => {
                wrong
                    .push(format!("I4: {owner} resumed with memory at {count} and not at {saved}, where it was saved"));
            }
            None if by == StartedBy::Resume => {
                wrong.push(format!("I4: {owner} resumed memory that was not saved, or was used before"));
            }
            _ => {}
        }
        if by == StartedBy::Resume && promise.must_boot {
            wrong.push(format!("I4: {owner} resumed memory that its owner has dropped"));
        }
        promise.must_boot = false;
        promise.seen = by == StartedBy::Resume && promise.seen;
        promise.ended = None;
        self.mark(match by {
            StartedBy::Resume => "guest resumed",
            StartedBy::Boot => "guest booted",
            StartedBy::Adoption => "guest adopted",
        });
        wrong
    }

    /// A guest that ran already was found by a start.
    pub(crate) fn guest_adopted(&mut self, guest: &Guest) -> Vec<String> {
        self.mark("guest adopted");
        Vec::from_iter(self.acted("an adoption", guest))
    }

    pub(crate) fn suspend_asked(&mut self, guest: &Guest) {
        let promise = self.promise(&guest.owner);
        promise.asked = promise.asked.max(Some(guest.epoch));
    }

    pub(crate) fn suspend_failed(&mut self) {
        self.mark("guest hung on suspend");
    }

    pub(crate) fn guest_suspended(&mut self, guest: &Guest, count: u64) -> Vec<String> {
        let wrong = Vec::from_iter(self.acted("a suspend", guest));
        let promise = self.promise(&guest.owner);
        promise.saved = Some(count);
        promise.ended = Some(Ended::Suspended);
        self.mark("guest suspended");
        wrong
    }

    /// A guest was ended without its memory being saved.
    pub(crate) fn guest_stopped(&mut self, guest: &Guest, process: &GuestProcess) -> Vec<String> {
        let mut wrong = Vec::from_iter(self.acted("a stop", guest));
        let given_up = self.is_given_up(&guest.owner);
        let promise = self.promise(&guest.owner);
        let tried = promise.asked > Some(process.epoch);
        if promise.seen && !process.hung_once && !given_up && !tried {
            wrong.push(format!("I4: {} was stopped in good health without a try to save its memory", guest.owner));
        }
        promise.seen = false;
        promise.ended = Some(Ended::Stopped);
        if process.hung_once {
            promise.lost = promise.lost.max(Some(process.epoch));
        }
        self.mark("guest stopped");
        wrong
    }

    /// A guest was shut down, and its memory is gone.
    pub(crate) fn guest_shut_down(&mut self, guest: &Guest, process: &GuestProcess) -> Vec<String> {
        let mut wrong = Vec::from_iter(self.acted("a shutdown", guest));
        let given_up = self.is_given_up(&guest.owner);
        let promise = self.promise(&guest.owner);
        if promise.seen && !given_up {
            wrong.push(format!("I4: {} was shut down without its owner's word", guest.owner));
        }
        (promise.seen, promise.ended) = (false, Some(Ended::Stopped));
        if process.hung_once {
            promise.lost = promise.lost.max(Some(process.epoch));
        }
        self.mark("guest shut down");
        wrong
    }

    /// Memory that was saved is gone.
    pub(crate) fn memory_dropped(&mut self, guest: &Guest) -> Option<String> {
        let given_up = self.is_given_up(&guest.owner);
        let lost = self.promise(&guest.owner).saved.take();
        self.mark("memory dropped");
        lost.filter(|_| !given_up).map(|count| {
            format!("I4: memory of {}, saved at {count}, was dropped without its owner's word", guest.owner)
        })
    }

    /// The pool had the guest's machine stopped or deleted.
    pub(crate) fn guest_pulled_down(&mut self, process: &GuestProcess) -> Option<String> {
        let owner = &process.owner;
        let given_up = self.is_given_up(owner);
        let promise = self.promise(owner);
        let tried = promise.asked > Some(process.epoch);
        let wrong = (promise.seen && !process.hung_once && !given_up && !tried).then(|| {
            format!("I4: the machine of {owner} was taken down under a healthy guest, without a try to save its memory")
        });
        promise.seen = false;
        promise.ended = Some(Ended::Stopped);
        self.mark("machine taken down under its guest");
        wrong
    }

    /// The guest's machine or it itself died.
    pub(crate) fn guest_lost(&mut self, _volume: &VolumeId, process: &GuestProcess) {
        let promise = self.promise(&process.owner);
        promise.seen = false;
        promise.ended = Some(Ended::Lost);
        promise.lost = promise.lost.max(Some(process.epoch));
        self.mark("guest lost");
    }
}
